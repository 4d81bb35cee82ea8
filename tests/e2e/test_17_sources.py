"""Where no hostPath is allowed: the kubelet's summary, and the metrics API of one namespace, as their overlays ship."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import deploy, get, kubectl
from tests.e2e.layout import HERE
from tests.e2e.observing import metrics_api, of_collector, of_kubelet, series, table, tops
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.apart

SUMMARY, TEAM = "source-summary", "team-b"


@pytest.fixture(scope="module", autouse=True)
def sources() -> Iterator[None]:
    """Both beside the DaemonSet under test; gone afterwards."""
    summary, metrics = HERE / "manifests" / "source-summary", HERE / "manifests" / "source-metrics-api"
    kubectl("apply", "-k", str(metrics))
    deploy(summary, namespace=SUMMARY, what="daemonset/podtally-summary")
    deploy(metrics, namespace=TEAM, what="deployment/podtally")
    yield
    kubectl("delete", "-k", str(metrics), "--wait=false")
    kubectl("delete", "-k", str(summary), "--wait=false")


def _of_containers(namespace: str, name: str) -> dict[tuple[str, str, str], float]:
    return {
        (found["namespace"], found["pod"], found["container"]): value
        for (family, labels), value in series(of_collector("/metrics", namespace)).items()
        if family == name and (found := dict(labels))
    }


def _may(account: str, *words: str) -> bool:
    return kubectl("auth", "can-i", *words, f"--as={account}", check=False).strip() == "yes"


def _cpu_of_summary() -> dict[tuple[str, str, str], float]:
    """CPU seconds of each container that the kubelet's summary tells of."""
    return {
        (pod["podRef"]["namespace"], pod["podRef"]["name"], container["name"]): nanoseconds / 1e9
        for pod in json.loads(of_kubelet("/stats/summary"))["pods"]
        for container in pod.get("containers", ())
        if (nanoseconds := container.get("cpu", {}).get("usageCoreNanoSeconds"))
    }


def test_the_summarys_counters_are_the_kubelets() -> None:
    """Each lies between what the kubelet told before and after, and no container of a running pod is missing."""
    before = _cpu_of_summary()
    running = {
        (pod["metadata"]["namespace"], pod["metadata"]["name"], one["name"])
        for pod in get("pods", "-A")["items"]
        if pod["status"]["phase"] == "Running"
        for one in pod["status"].get("containerStatuses", ())
        if "running" in one["state"] and one["restartCount"] == 0
    }
    seen: dict[tuple[str, str, str], float] = {}

    def newer() -> bool:
        """Asked at its own pace of 10 s, so that the busy ones have moved once it has asked."""
        seen.update(_of_containers(SUMMARY, "pod_container_cpu_usage_seconds_total"))
        busy = (TEAM, "throttled", "main")
        return seen.get(busy, 0.0) > before[busy]

    wait_for("a newer answer of the kubelet's", newer, 90, every=2)
    wait_for(
        "a newer sample of the kubelet's", lambda: all(_cpu_of_summary().get(k, v) >= v for k, v in seen.items()), 60
    )
    after = _cpu_of_summary()
    both = [key for key in seen if key in before and key in after and key in running]
    outside = [key for key in both if not before[key] <= seen[key] + 1e-6 or not seen[key] <= after[key] + 1e-6]
    table(
        "--source summary on the node",
        ["containers", "in the summary before and after as well", "outside"],
        [(len(seen), len(both), len(outside))],
        file="sources.md",
    )
    assert outside == []
    assert running & before.keys() - seen.keys() == set()


def test_the_summarys_rates_are_right_for_what_runs_evenly() -> None:
    """A container that is held to 150m uses 150m."""
    at = (TEAM, "steady", "main")

    def right() -> bool:
        return abs(_of_containers(SUMMARY, "pod_container_cpu_usage_cores").get(at, 0.0) - 0.15) < 0.006

    wait_for("150m of team-b/steady", right, 60, every=3)


def test_the_summarys_account_may_do_what_it_needs_and_no_more() -> None:
    """No pods of the API server's, no nodes/metrics; its pod runs under Pod Security's level restricted."""
    account = f"system:serviceaccount:{SUMMARY}:podtally-summary"
    labels = get("namespace", SUMMARY)["metadata"]["labels"]

    assert _may(account, "get", "nodes", "--subresource=stats", "-A")
    assert _may(account, "get", "nodes", "--subresource=pods", "-A")
    assert not _may(account, "list", "pods", "-A")
    assert not _may(account, "get", "nodes", "--subresource=metrics", "-A")
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_metrics_apis_numbers_are_those_of_kubectl_top() -> None:
    """Of its own namespace alone: each value is the one of an answer that the metrics API gave."""
    theirs: dict[tuple[str, str, str], set[tuple[float, float]]] = {}

    def known() -> dict[tuple[str, str, str], bool]:
        for one in tops(metrics_api()):
            if one.container.namespace == TEAM:
                theirs.setdefault(one.container, set()).add((one.cpu_millicores, one.memory_bytes))
        cpu = _of_containers(TEAM, "pod_container_cpu_usage_cores")
        memory = _of_containers(TEAM, "pod_container_memory_working_set_bytes")
        return {
            key: any(
                abs(cores * 1000 - millicores) < 1e-3 and memory[key] == in_bytes
                for millicores, in_bytes in theirs.get(key, ())
            )
            for key, cores in cpu.items()
        }

    wait_for("numbers of the metrics API", lambda: (found := known()) and all(found.values()), 90, every=3)
    found = known()
    table(
        "--source metrics-api on the node",
        ["containers", "with a value that kubectl top was given"],
        [(len(found), sum(found.values()))],
        file="sources.md",
    )
    assert {key[0] for key in found} == {TEAM}
    assert {("steady", "main"), ("throttled", "main"), ("bursty", "main")} <= {key[1:] for key in found}


def test_the_metrics_apis_account_has_no_right_beyond_its_namespace() -> None:
    """A Role is enough."""
    account = f"system:serviceaccount:{TEAM}:podtally"

    assert _may(account, "list", "pods", "-n", TEAM)
    assert _may(account, "list", "pods.metrics.k8s.io", "-n", TEAM)
    assert not _may(account, "list", "pods", "-n", "team-a")
    assert not _may(account, "get", "nodes", "--subresource=stats", "-A")
