"""Whatever is done to the node, numbers go on or come back, no counter steps back, and no dead pod stays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.e2e.cluster import api_server, collector_pod, collector_url, get, kubectl, node, node_ready, rolled_out
from tests.e2e.layout import COLLECTOR_PORT
from tests.e2e.observing import Watch, fetch, series, table
from tests.e2e.processes import running, stop, wait_for
from tests.e2e.prometheus import point_at_collector

Key = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Steps:
    """Counters as they were last seen, and every one that stepped back while its cgroup was the same."""

    url: str
    last: dict[Key, float] = field(default_factory=dict)
    starts: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)
    back: list[str] = field(default_factory=list)
    pages: int = 0
    longest_gap_seconds: float = 0.0
    answered: float = field(default_factory=time.time)

    def add(self, now: float, page: str) -> None:
        """Compare a page with the one before."""
        self.pages += 1
        self.longest_gap_seconds = max(self.longest_gap_seconds, now - self.answered)
        self.answered = now
        found = series(page)
        starts = {labels: v for (name, labels), v in found.items() if name == "pod_container_start_time_seconds"}
        for key, value in found.items():
            name, labels = key
            before = self.last.get(key)
            if not name.endswith("_total") or not name.startswith("pod_") or before is None or value >= before:
                continue
            if name.startswith("pod_container_") and starts.get(labels) != self.starts.get(labels):
                continue  # another container of the same name
            self.back.append(f"{name}{dict(labels)}: {before} -> {value}")
        self.last, self.starts = found, starts


@pytest.fixture
def steps() -> Iterator[Steps]:
    """Watches the collector's page once a second while a test does something to the node."""
    watching = Steps(collector_url())
    watch = Watch()
    watch.every(1.0, "pages", lambda: fetch(f"{watching.url}/metrics", timeout=5), watching.add)
    yield watching
    watch.end()
    assert watching.pages > 10
    assert watching.back == [], "counters that stepped back"


def source() -> str:
    """Where the collector says that its names are from."""
    for (name, labels), value in series(fetch(f"{collector_url()}/metrics")).items():
        if name == "podtally_names_source" and value == 1:
            return dict(labels)["source"]
    return "?"


def only_the_living() -> bool:
    """The collector shows the pods that run, and no other."""
    living = {
        (pod["metadata"]["namespace"], pod["metadata"]["name"])
        for pod in get("pods", "-A")["items"]
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }
    shown = {
        (dict(labels)["namespace"], dict(labels)["pod"])
        for name, labels in series(fetch(f"{collector_url()}/metrics"))
        if name == "pod_cgroup_cpu_usage_seconds_total"
    }
    return living == shown


def told(what: str, steps: Steps, began: float) -> None:
    """A line of the table of what was done."""
    table(
        what,
        ["pages seen", "longest gap s", "counters that stepped back", "took s"],
        [(steps.pages, steps.longest_gap_seconds, len(steps.back), time.monotonic() - began)],
        file="disruptions.md",
    )


def test_without_the_right_to_nodes_pods_it_falls_back_says_so_and_recovers(steps: Steps) -> None:
    """The kubelet refuses, the API server answers instead; with the right given back, the kubelet again."""
    began = time.monotonic()
    role = get("clusterrole", "podtally")
    without = [
        {"op": "remove", "path": f"/rules/{i}"} for i, r in enumerate(role["rules"]) if "nodes/pods" in r["resources"]
    ]
    kubectl("patch", "clusterrole", "podtally", "--type=json", "-p", json.dumps(without))
    try:
        wait_for("names from the API server", lambda: source() == "apiserver", 90, every=1)
        ready = fetch(f"{collector_url()}/readyz")
        assert "names: apiserver" in ready
        assert "403" in ready
    finally:
        role["metadata"].pop("resourceVersion", None)
        kubectl(
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            "-",
            stdin=json.dumps({**role, "metadata": {"name": "podtally"}}),
        )
    wait_for("names from the kubelet", lambda: source() == "kubelet", 120, every=1)
    told("nodes/pods taken away and given back", steps, began)


def test_the_kubelet_is_restarted(steps: Steps) -> None:
    """Numbers go on while it is away: names are known."""
    began = time.monotonic()
    node("systemctl restart kubelet")
    time.sleep(15)
    wait_for("the node's Ready", node_ready, 120)
    wait_for("names from the kubelet", lambda: source() == "kubelet", 120, every=1)
    wait_for("living pods, and no other", only_the_living, 120, every=2)
    told("kubelet restarted", steps, began)


def test_containerd_is_restarted(steps: Steps) -> None:
    """Containers outlive it, and so do their counters."""
    began = time.monotonic()
    node("systemctl restart containerd")
    time.sleep(15)
    wait_for("the node's Ready", node_ready, 120)
    wait_for("living pods, and no other", only_the_living, 120, every=2)
    told("containerd restarted", steps, began)


def test_the_api_server_is_away_for_a_minute(steps: Steps) -> None:
    """The kubelet keeps answering, or the last names do."""
    began = time.monotonic()
    stop("kube-apiserver")
    time.sleep(60)
    api_server()
    wait_for("the node's Ready", node_ready, 120)
    wait_for("living pods, and no other", only_the_living, 120, every=2)
    told("API server away for a minute", steps, began)
    assert steps.longest_gap_seconds < 15, "numbers went on"


def test_a_deleted_pod_is_gone_from_the_next_pages(steps: Steps) -> None:
    """What ended is not in the next exposition."""
    began = time.monotonic()
    old = get("pods", "-n", "team-a", "-l", "app=churn")["items"][0]["metadata"]["name"]
    kubectl("-n", "team-a", "delete", "pod", old, "--wait=true")
    wait_for(
        "the end of the deleted pod's series",
        lambda: ("pod", old) not in {label for _, labels in series(fetch(f"{steps.url}/metrics")) for label in labels},
        30,
        every=1,
    )
    time.sleep(10)
    told("a pod deleted", steps, began)


def test_the_collectors_own_pod_is_killed() -> None:
    """Another takes its place, and no pod's counter begins anew: the kernel kept them."""
    old = collector_pod()
    before = series(fetch(f"http://{old['status']['podIP']}:{COLLECTOR_PORT}/metrics"))
    kubectl("-n", "podtally", "delete", "pod", old["metadata"]["name"], "--grace-period=0", "--force")
    wait_for("another pod", lambda: _replacement(old["metadata"]["uid"]), 60)
    rolled_out()
    if running("prometheus"):
        point_at_collector()
    wait_for("living pods, and no other", only_the_living, 120, every=2)
    after = series(fetch(f"{collector_url()}/metrics"))
    fell = [
        key
        for key, value in after.items()
        if key[0].startswith("pod_cgroup_") and key[0].endswith("_total") and value < before.get(key, 0.0)
    ]
    assert fell == []


def _replacement(uid: str) -> bool:
    pods = get("pods", "-n", "podtally", "-l", "app.kubernetes.io/name=podtally")["items"]
    return any(pod["metadata"]["uid"] != uid and pod["status"]["phase"] == "Running" for pod in pods)
