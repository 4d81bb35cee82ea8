"""One runtime: what its cgroups hold, what the kubelet makes of them, and what podtally says of the same pods.

Runs on a node of each (``python -m tests.e2e run --runtime NAME``), with the pods of ``manifests/runtimes``.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median
from typing import Any, NamedTuple

import pytest

from collector.parity.verification import Row
from tests.e2e.cluster import get
from tests.e2e.conftest import Observed
from tests.e2e.leaves import Leaf, leaves_of, node_leaves, runtime_of_node
from tests.e2e.observing import Container, Watch, metrics_api, of_collector, of_kubelet, record, table, tops
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.runtime

SECONDS = float(os.environ.get("PODTALLY_E2E_OBSERVE_SECONDS") or 120)
SANDBOXED = "sandboxed"
"""The namespace of the pods that run in gVisor, and the reason for which podtally withholds them."""


class Said(NamedTuple):
    """What podtally says of a pod."""

    cpu_millicores: float | None
    memory_bytes: int | None
    withheld: str | None
    """The reason."""


class Seen(NamedTuple):
    """A span in which all sides were asked."""

    observed: Observed
    kubectl_top: dict[Container, list[tuple[float, float]]]
    """Millicores and bytes."""
    summary: dict[Container, tuple[float, float]]
    """The last ones."""
    said: dict[tuple[str, str], Counter[Said]]
    """By namespace and name; rounded, so that equal ones are counted."""


def _pods() -> list[dict[str, Any]]:
    """The runtime's own pods, and podtally's."""
    return [pod for pod in get("pods", "-A")["items"] if pod["metadata"]["namespace"] != "kube-system"]


def _running(pod: dict[str, Any]) -> bool:
    return bool(pod["status"]["phase"] == "Running") and pod["metadata"]["name"] != "crashing"


def _said() -> dict[tuple[str, str], Said]:
    pods = json.loads(of_collector("/api/v1/pods"))["pods"]
    return {
        (one["namespace"], one["name"]): Said(
            None if one["cpu_cores"] is None else one["cpu_cores"] * 1000, one["memory_bytes"], one["incomplete"]
        )
        for one in pods
    }


def _of_summary(page: str) -> dict[Container, tuple[float, float]]:
    found = {}
    for pod in json.loads(page)["pods"]:
        place = pod["podRef"]["namespace"], pod["podRef"]["name"]
        for one in ({**pod, "name": ""}, *(pod.get("containers") or [])):
            cpu, memory = one.get("cpu", {}), one.get("memory", {})
            if "usageNanoCores" in cpu or "workingSetBytes" in memory:
                key = Container(*place, one["name"])
                found[key] = cpu.get("usageNanoCores", 0) / 1e6, memory.get("workingSetBytes", 0)
    return found


@pytest.fixture(scope="module")
def runtime() -> str:
    """The runtime that the node was started with."""
    return runtime_of_node()


@pytest.fixture(scope="module")
def settled() -> None:
    """Every pod has run for longer than the kubelet and metrics-server need for a first value."""
    wait_for("the pods", lambda: all(map(_started, _pods())), 300, every=3)
    wait_for("a first value of kubectl top", lambda: len({one.container for one in tops(metrics_api())}) >= 3, 240)


def _started(pod: dict[str, Any]) -> bool:
    return len(pod["status"].get("containerStatuses", [])) == len(pod["spec"]["containers"]) and (
        _running(pod) or pod["metadata"]["name"] == "crashing"
    )


@pytest.fixture(scope="module")
def seen(settled: None) -> Seen:
    """Two minutes of everybody's numbers."""
    observed, watch = Observed(began=time.time()), Watch()
    top: dict[Container, list[tuple[float, float]]] = defaultdict(list)
    summary: dict[Container, tuple[float, float]] = {}
    said: dict[tuple[str, str], Counter[Said]] = defaultdict(Counter)

    def keep_top(now: float, text: str) -> None:
        observed.metrics_api(now, text)
        for one in tops(text):
            top[one.container].append((one.cpu_millicores, one.memory_bytes))

    def keep_summary(now: float, text: str) -> None:
        observed.theirs("kubelet/stats_summary.json")(now, text)
        summary.update(_of_summary(text))

    def keep_said(_: float, __: str) -> None:
        for key, one in _said().items():
            said[key][
                one._replace(cpu_millicores=None if one.cpu_millicores is None else round(one.cpu_millicores))
            ] += 1

    watch.every(1.0, "ours", lambda: of_collector("/metrics/resource"), observed.ours)
    watch.every(
        8.0, "kubelet", lambda: of_kubelet("/metrics/resource"), observed.theirs("kubelet/metrics_resource.txt")
    )
    watch.every(7.0, "metrics API", metrics_api, keep_top)
    watch.every(9.0, "summary", lambda: of_kubelet("/stats/summary"), keep_summary)
    watch.every(5.0, "what is said", lambda: "", keep_said)
    time.sleep(SECONDS)
    watch.end()
    observed.ended, observed.lags = time.time(), watch.lags
    for name, failures in watch.failures.items():
        print(f"    {name}: {len(failures)} questions failed, the last: {failures[-1][1][:200]}", flush=True)
    return Seen(observed, dict(top), summary, dict(said))


def test_a_recording_with_all_of_the_kubelets_answers(runtime: str, settled: None) -> None:
    """Taken through the DaemonSet's pod, with what the node says of every leaf's processes beside it."""
    recording = record(runtime, seconds=40, every=2)
    leaves = node_leaves()
    (recording.parent / f"{runtime}-leaves.json").write_text(json.dumps([leaf._asdict() for leaf in leaves], indent=1))
    (recording.parent / f"{runtime}-pods.json").write_text(json.dumps(_pods(), indent=1))
    _tell_leaves(runtime, leaves)
    assert recording.stat().st_size > 0


def _tell_leaves(runtime: str, leaves: Iterable[Leaf]) -> None:
    rows = [
        (
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            leaf.below,
            leaf.name_of(pod),
            leaf.populated,
            " ".join(leaf.processes),
            leaf.cpu_usec / 1e6,
            "" if leaf.memory_bytes is None else leaf.memory_bytes / 2**20,
        )
        for pod in _pods()
        for leaf in leaves_of(pod, leaves)
    ]
    columns = ["pod", "cgroup", "of", "populated", "processes in it", "CPU s", "memory.current MiB"]
    table(f"Cgroups by {runtime}", columns, rows, file=f"{runtime}.md")


def test_what_each_side_says_of_each_pod(runtime: str, seen: Seen) -> None:
    """A table, and the law: a pod is whole and agrees, or it is withheld with a reason."""
    rows = seen.observed.verification.rows()
    told = []
    for pod in sorted(_pods(), key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"])):
        place = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for name in ("", *(one["name"] for one in pod["spec"]["containers"])):
            key = Container(*place, name)
            top = seen.kubectl_top.get(key, [])
            cgroup = seen.summary.get(key)
            told.append(
                (
                    "/".join(place) + (f"/{name}" if name else ""),
                    f"{median(one[0] for one in top):.1f}m {median(one[1] for one in top) / 2**20:.1f}Mi"
                    if top
                    else "",
                    f"{cgroup[0]:.1f}m {cgroup[1] / 2**20:.1f}Mi" if cgroup else "",
                    "" if name else _saying(seen.said.get(place)),
                    _verdicts(rows, key, "metrics-api"),
                    _verdicts(rows, key, "resource"),
                    _verdicts(rows, key, "summary"),
                )
            )
    columns = [
        "of",
        "kubectl top",
        "/stats/summary",
        "podtally",
        "beside metrics API",
        "beside resource",
        "beside summary",
    ]
    table(f"Numbers by {runtime}", columns, told, file=f"{runtime}.md")
    judged, _ = seen.observed.judged(rows)
    assert [row for row in judged if row.verdict == "outside" and not _is_unjudged(row)] == []


def _is_unjudged(row: Row) -> bool:
    """A container that lives for seconds between crashes has no window worth a comparison."""
    return row.pod == "crashing"


def _verdicts(rows: Iterable[Row], key: Container, source: str) -> str:
    counts = Counter(
        row.verdict
        for row in rows
        if (row.namespace, row.pod, row.container or "") == key and row.source == source and row.quantity == "cpu"
    )
    return " ".join(f"{verdict} {count}" for verdict, count in sorted(counts.items()))


def _saying(said: Counter[Said] | None) -> str:
    if not said:
        return "nothing"
    one, _ = said.most_common(1)[0]
    reasons = Counter({say.withheld: count for say, count in said.items() if say.withheld})
    held = "".join(f" withheld: {reason} ({count} of {said.total()} times)" for reason, count in reasons.items())
    if one.cpu_millicores is None or one.memory_bytes is None:
        return held.strip() or "no sum"
    return f"{one.cpu_millicores:.0f}m {one.memory_bytes / 2**20:.1f}Mi{held}"


def test_every_steady_pod_is_whole_or_withheld_as_sandboxed(seen: Seen) -> None:
    """What runs by a runtime with cgroups of containers has its sum every time; what is in gVisor never has one."""
    wrong = {}
    for pod in filter(_running, _pods()):
        place = pod["metadata"]["namespace"], pod["metadata"]["name"]
        said = seen.said.get(place, Counter())
        wanted = SANDBOXED if pod["spec"].get("runtimeClassName") else None
        right = sum(
            count
            for one, count in said.items()
            if one.withheld == wanted and (one.memory_bytes is None) == (wanted is not None)
        )
        if not said or right < said.total():
            wrong[place] = dict(said)
    assert wrong == {}
