"""What the kubelet and tenants do to a program that serves."""

from __future__ import annotations

import json
import time
from typing import Any

from attack.node import MIB, PODS, wait_for
from attack.pods import Comings
from attack.under import Told, Under


def _padded(body: bytes, size_bytes: int, name: str) -> bytes:
    """The list with as many variables in its containers' environments, and its pods renamed."""
    items: list[dict[str, Any]] = json.loads(body)["items"]
    of_each = size_bytes // len(items)
    for number, item in enumerate(items):
        item["metadata"]["name"] = f"{name}-{number}"
        variables = [{"name": f"VARIABLE_{place:05}", "value": "v" * 20} for place in range(of_each // 62)]
        item["spec"]["containers"][0]["env"] = variables
    return json.dumps({"kind": "PodList", "apiVersion": "v1", "items": items}).encode()


def cut_answers(under: Under) -> Told:
    """Answers of the kubelet and of the API server of 8 MiB that end too early, two a second."""
    kubelet, told = under.node.kubelet, Told()
    whole = kubelet.body
    body = _padded(under.tree.pods_json, 8 * MIB, "cut")
    kubelet.body, kubelet.cut = (lambda: body), True
    begun = kubelet.asked
    wait_for(lambda: kubelet.asked - begun >= under.count or under.over, 1e9)
    told.done = min(under.count, kubelet.asked - begun)
    kubelet.body, kubelet.cut = whole, False
    if not wait_for(under.node.ready, 20):
        told.faults.append("not ready 20 s after the kubelet answers again")
    return told


def large_list(under: Under) -> Told:
    """A list of pods of 64 MiB, as tenants can make it: 600 KiB of each pod."""
    kubelet, node, told = under.node.kubelet, under.node, Told()
    body = _padded(under.tree.pods_json, 64 * MIB, "large")
    told.note = f"{len(body) / MIB:.0f} MiB"
    kubelet.body = lambda: body
    begun = kubelet.asked
    named = 'pod_info{namespace="team-'

    def renamed() -> int:
        lines = node.get("/metrics")[1].decode().splitlines()
        return sum(line.startswith(named) and 'pod="large-' in line for line in lines)

    wait_for(lambda: renamed() == PODS or under.over, under.deadline - time.monotonic(), every=0.5)
    wait_for(lambda: kubelet.asked - begun >= under.count or under.over, under.deadline - time.monotonic())
    told.done = min(under.count, kubelet.asked - begun)
    found = renamed()
    if found != PODS:
        told.faults.append(f"{found} of {PODS} pods are named by it")
    return told


def come_and_go(under: Under) -> Told:
    """Pods and containers that come and go, with a scraper and a kubelet that knows of them."""
    comings = Comings(under.tree, seed=1)
    under.node.kubelet.body = comings.pods_json
    told = Told()
    pages = ("/metrics", "/metrics/resource", "/metrics/cadvisor", "/api/v1/pods", "/")
    while not under.over:
        comings.change()
        told.done += 1
        if told.done % 4 == 0:
            under.node.get(pages[told.done // 4 % len(pages)], Accept_Encoding="gzip" if told.done % 8 else "identity")
        time.sleep(0.25)
    comings.settle()
    return told
