"""kubernetes-mixin's "Compute Resources" boards on a real Prometheus that scrapes a replay in cAdvisor's place.

The rules and queries are written from what the boards need of metrics and labels; nothing of the mixin is kept here.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from collector.sources.recording import Recording
from monitoring.local import prometheus
from tests.helpers import free_port, served_in_thread, started, wait_until
from tests.replays import completed, write
from tests.support import CAPTURED, recording

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)

SELECTOR = 'job="cadvisor"'
STATE = 'job="kube-state-metrics"'
DEADLINE_SECONDS = 120.0
"""How long the boards are waited for; on an idle machine they take some five seconds."""

# --- what is scraped ------------------------------------------------------------------------------------------------

_SUFFIXES = {"m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str) -> float:
    """A Kubernetes quantity in its base unit."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text)
    assert found is not None
    return float(found[1]) * _SUFFIXES.get(found[2], 1)


def state_metrics(recorded: Recording) -> str:
    """The handful of kube-state-metrics' series that the boards need, of the recording's pods."""
    body = next(one.body for one in recorded.frames[0].answers if one.name == "kubelet/pods.json" and one.body)
    node = recorded.meta.node
    lines = [f'kube_node_info{{node="{node}"}} 1']
    for what, sizes in (("capacity", (2, 6e9)), ("allocatable", (2, 5.9e9))):
        lines += [
            f'kube_node_status_{what}{{node="{node}",resource="{resource}"}} {size}'
            for resource, size in zip(("cpu", "memory"), sizes, strict=True)
        ]
    namespaces = set()
    for pod in json.loads(body)["items"]:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        namespaces.add(namespace)
        of = f'namespace="{namespace}",pod="{name}"'
        lines.append(f'kube_pod_info{{{of},node="{node}"}} 1')
        lines.append(f'kube_pod_status_phase{{{of},phase="{pod["status"]["phase"]}"}} 1')
        for container in pod["spec"]["containers"]:
            for kind in ("requests", "limits"):
                for resource, value in container.get("resources", {}).get(kind, {}).items():
                    labels = f'{of},container="{container["name"]}",node="{node}",resource="{resource}"'
                    lines.append(f"kube_pod_container_resource_{kind}{{{labels}}} {quantity(value)}")
    for namespace in sorted(namespaces):
        lines.append(f'kube_namespace_status_phase{{namespace="{namespace}",phase="Active"}} 1')
        for resource in ("requests.cpu", "limits.cpu", "requests.memory", "limits.memory"):
            of = f'namespace="{namespace}",resourcequota="all",type="hard",resource="{resource}"'
            lines.append(f"kube_resourcequota{{{of}}} 1e9")
    return "\n".join((*lines, ""))


# --- the rules ------------------------------------------------------------------------------------------------------

_OF_CONTAINER = "cluster, namespace, pod, container"
_ON_NODE = (
    " * on (cluster, namespace, pod) group_left(node)"
    f' topk by (cluster, namespace, pod) (1, kube_pod_info{{{STATE},node!=""}})'
)
CPU = "node_namespace_pod_container:container_cpu_usage_seconds_total:sum_rate5m"
RULES: dict[str, str] = {
    CPU: f'sum by ({_OF_CONTAINER}) (rate(container_cpu_usage_seconds_total{{{SELECTOR},image!=""}}[5m])){_ON_NODE}',
    **{
        f"node_namespace_pod_container:{name}": f'{name}{{{SELECTOR},image!=""}}{_ON_NODE}'
        for name in map("container_memory_{}".format, ("working_set_bytes", "rss", "cache", "swap"))
    },
}


def rule_file() -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    rules = [{"record": name, "expr": expression} for name, expression in RULES.items()]
    return {"groups": [{"name": "boards", "rules": rules}]}


# --- the boards -----------------------------------------------------------------------------------------------------

_DEVICE = 'device=~"(/dev.+)|mmcblk.p.+|nvme.+|rbd.+|sd.+|vd.+|xvd.+|dm-.+|dasd.+"'


def _board(by: str, cpu_of: str, memory_of: str, of: str, throttled: str, wide: str) -> dict[str, str]:
    """The panels that the boards of a pod and of a namespace have both, by container or by pod."""
    usage = f"sum(max by ({_OF_CONTAINER})({CPU}{{{cpu_of}}})) by ({by})"
    memory = f"sum(max by ({_OF_CONTAINER})(container_memory_working_set_bytes{{{memory_of}}})) by ({by})"
    panels = {"CPU": usage, "memory": memory, "CPU throttling": throttled}
    for resource, used in (("cpu", usage), ("memory", memory)):
        for kind in ("requests", "limits"):
            share = f'sum(kube_pod_container_resource_{kind}{{{STATE},{of},resource="{resource}"}}) by ({by})'
            panels[f"{resource} {kind}"] = share
            panels[f"{resource} of {kind}"] = f"{used} / {share}"
    for what in ("rss", "cache", "swap"):
        selected = f'{SELECTOR},{of},container!="",container!="POD"'
        panels[f"memory {what}"] = f"sum(container_memory_{what}{{{selected}}}) by ({by})"
    for way in ("receive", "transmit"):
        for what, factor in (("bytes", "8 * "), ("packets", ""), ("packets_dropped", "")):
            rate = f"rate(container_network_{way}_{what}_total{{{SELECTOR},{wide}}}[4m])"
            panels[f"{way} {what}"] = f"sum({factor}{rate}) by (pod)"
    for what in ("reads", "writes", "reads_bytes", "writes_bytes"):
        selected = f'{SELECTOR},{_DEVICE},container!="",{of}'
        panels[f"storage {what}"] = f"ceil(sum by({by}) (rate(container_fs_{what}_total{{{selected}}}[4m])))"
    return panels


def _throttling(of: str, by: str) -> str:
    selected = f'{SELECTOR},{of},container!=""'
    return (
        f"sum(increase(container_cpu_cfs_throttled_periods_total{{{selected}}}[4m])) by ({by})"
        f" / sum(increase(container_cpu_cfs_periods_total{{{selected}}}[4m])) by ({by})"
    )


def pod_board(namespace: str, pod: str) -> dict[str, str]:
    """Queries of "Compute Resources / Pod", by panel."""
    of = f'cluster="",namespace="{namespace}",pod="{pod}"'
    named = f'{of},container!=""'
    memory = f'{SELECTOR},{named},image!=""'
    return _board("container", named, memory, of, _throttling(of, "container"), of)


def namespace_board(namespace: str) -> dict[str, str]:
    """Queries of "Compute Resources / Namespace (Pods)", by panel."""
    of = f'cluster="",namespace="{namespace}"'
    memory = f'{SELECTOR},{of},container!="",image!=""'
    panels = _board("pod", of, memory, of, _throttling(of, "pod"), of)
    for resource in ("requests.cpu", "limits.memory"):
        panels[f"quota {resource}"] = f'scalar(max(kube_resourcequota{{{of},type="hard",resource="{resource}"}}))'
    return panels


def node_board(node: str) -> dict[str, str]:
    """Queries of "Compute Resources / Node (Pods)", by panel."""
    of = f'cluster="",node=~"{node}"'
    panels = {"CPU": f"sum(max by ({_OF_CONTAINER})({CPU}{{{of}}})) by (pod)"}
    for what in ("working_set_bytes", "rss", "cache", "swap"):
        rule = f"node_namespace_pod_container:container_memory_{what}"
        panels[f"memory {what}"] = f'sum(max by ({_OF_CONTAINER})({rule}{{{of},container!=""}})) by (pod)'
    for resource in ("cpu", "memory"):
        for what in ("capacity", "allocatable"):
            panels[f"{resource} {what}"] = f'sum(kube_node_status_{what}{{{STATE},{of},resource="{resource}"}})'
    return panels


# --- Prometheus -----------------------------------------------------------------------------------------------------


def query(url: str, expression: str) -> list[float]:
    """The values of an expression now. Raises: OSError while Prometheus does not answer."""
    arguments = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{arguments}", timeout=10) as answer:
        result = json.load(answer)["data"]
    if result["resultType"] == "scalar":
        return [float(result["result"][1])]
    return [float(one["value"][1]) for one in result["result"]]


@contextmanager
def boards(folder: Path, rules: dict[str, Any]) -> Iterator[str]:
    """A Prometheus with the rules that scrapes a replay and the stand-in of kube-state-metrics; its URL."""
    recorded = completed(recording(CAPTURED[0]))
    source = write(recorded, folder / "recording.tar")
    state = state_metrics(recorded)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=state)

    with (
        started("replay", source, "--loop", "--speed", "10", "--listen", "127.0.0.1:0") as replay,
        served_in_thread(answer) as stand_in,
    ):
        jobs = (("cadvisor", replay.url, "/metrics/cadvisor"), ("kube-state-metrics", stand_in, "/metrics"))
        (folder / "rules.yml").write_text(json.dumps(rules))
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": job,
                    "metrics_path": path,
                    "honor_labels": True,
                    "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}],
                }
                for job, url, path in jobs
            ],
        }
        listen = f"127.0.0.1:{free_port()}"
        with prometheus(folder, configuration, listen, ()):
            yield f"http://{listen}"


def without_data(url: str, queries: dict[str, str], seconds: float) -> list[str]:
    """The names of the queries that have given no number within so many seconds."""
    missing = dict(queries)
    end = time.monotonic() + seconds
    while missing and time.monotonic() < end:
        for name, expression in list(missing.items()):
            if any(map(math.isfinite, query(url, expression))):
                del missing[name]
        if missing:
            time.sleep(0.25)
    return sorted(missing)


def refusals(url: str) -> list[str]:
    """Prometheus' own counters of samples that it had to refuse: doubled, out of order, out of bounds."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return [line for line in lines if line.startswith("prometheus_target_scrapes_sample_") and not line.endswith(" 0")]


def test_every_panel_has_data(tmp_path: Path) -> None:
    """All queries of the three boards, on a pod that has what the panel is about: no pod of the recording has both a
    CPU limit and a disk.
    """
    throttled, disk = pod_board("team-b", "burner"), pod_board("team-c", "pagecache")
    of_pod = throttled | {name: text for name, text in disk.items() if name.startswith("storage")}
    queries = {f"Pod: {name}": text for name, text in of_pod.items()}
    limited, used = namespace_board("team-b"), namespace_board("team-c")
    of_namespace = limited | {name: text for name, text in used.items() if name.startswith("storage")}
    queries |= {f"Namespace: {name}": text for name, text in of_namespace.items()}
    queries |= {f"Node: {name}": text for name, text in node_board("node1").items()}

    with boards(tmp_path, rule_file()) as url:
        assert without_data(url, queries, DEADLINE_SECONDS) == []
        rss = 'sum(container_memory_rss{job="cadvisor",namespace="team-a",pod="multi",%s})'
        found: list[list[float]] = []

        def both() -> bool:
            found[:] = [query(url, rss % which) for which in ('container="",name=""', 'container!=""')]
            return all(found)

        wait_until(both, DEADLINE_SECONDS, every=0.25)  # there are none after a scrape that took too long
        whole, parts = found
        refused = refusals(url)

    # The pod's own row has the sandbox as well, and no query of a container counts it.
    assert whole > parts > [0]
    assert refused == []
