"""A second DaemonSet with all that can be switched on: hostPID, every group of families, comparing all the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from collector.metrics.cadvisor_catalogue import CADVISOR
from collector.metrics.catalogue import CATALOGUE
from collector.model import Tally
from collector.parity.cadvisor import DIFFERS, by_family, compare
from collector.sources.recording import RecordedAnswers, RecordedTree, load
from tests.e2e.cluster import deploy, kubectl
from tests.e2e.layout import HERE
from tests.e2e.observing import of_collector, record, series, table
from tests.e2e.processes import wait_for
from tests.support import collector_over

pytestmark = pytest.mark.apart

NAMESPACE = "everything"
SHORT_LIVED = HERE / "manifests" / "short-lived.yaml"
BRIEF = ("first", "second", "third", "fourth")


@pytest.fixture(scope="module", autouse=True)
def everything() -> Iterator[None]:
    """Beside the DaemonSet under test, as nothing of podtally's is the node's alone; gone afterwards."""
    overlay = HERE / "manifests" / "everything"
    deploy(overlay, namespace=NAMESPACE, what="daemonset/podtally-everything")
    yield
    kubectl("delete", "-f", str(SHORT_LIVED), "--ignore-not-found", "--wait=false")
    kubectl("delete", "-k", str(overlay), "--wait=false")


def page() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All series of its /metrics."""
    return series(of_collector("/metrics", NAMESPACE))


def of_pod(name: str, pod: str) -> dict[str, float]:
    """The values of a family for a pod of team-c, by container."""
    return {
        dict(labels).get("container", ""): value
        for (family, labels), value in page().items()
        if family == name and ("pod", pod) in labels and ("namespace", "team-c") in labels
    }


def test_what_lived_for_a_moment_is_seen_and_a_kill_outlives_its_pod() -> None:
    """Containers that run `true` leave their last reading; a kill is counted by name, for a while after its pod too."""
    kubectl("delete", "-f", str(SHORT_LIVED), "--ignore-not-found")
    kubectl("apply", "-f", str(SHORT_LIVED))
    wait_for("the kill", lambda: of_pod("pod_oom_kills_total", "killed-once").get(""), 120, every=1)
    # With memory.oom.group, as the kubelet sets it, all processes of the container are killed, and each is counted.
    killed = of_pod("pod_oom_kills_total", "killed-once")[""]
    assert of_pod("pod_container_oom_kills_total", "killed-once") == {"main": killed}
    ages: dict[str, float] = {}

    def ended() -> bool:
        ages.update(of_pod("pod_container_final_age_seconds", "brief"))
        return ages.keys() == set(BRIEF)

    wait_for("the last readings of all four", ended, 60, every=1)
    table(
        "Containers that ran `true`",
        ["container", "age at its last reading, s"],
        sorted(ages.items()),
        file="everything.md",
    )
    kubectl("-n", "team-c", "delete", "pod", "killed-once", "--wait=true")
    assert of_pod("pod_oom_kills_total", "killed-once") == {"": killed}, "kept for --linger"
    wait_for("its end", lambda: not of_pod("pod_oom_kills_total", "killed-once"), 60, every=2)


def test_every_group_has_series() -> None:
    """What `--collect all` switches on is there on this kernel, swap and limits included."""
    groups = {metric.group for metric in CATALOGUE if metric.group}
    names = {name for name, _ in page()}
    count = {group: sum(m.name in names for m in CATALOGUE if m.group == group) for group in sorted(groups)}
    table("Families with series, by group", ["group", "families"], count.items(), file="everything.md")

    def lacking() -> set[str]:
        names = {name for name, _ in page()}
        return {m.name for m in CATALOGUE if m.group and m.group != "ended" and m.name not in names}

    # No pod of this node has them: limits that the kubelet sets with MemoryQoS alone.
    assert lacking() <= {"pod_cgroup_memory_high_bytes", "pod_container_memory_high_bytes"}


def test_doctor_finds_the_network_readable() -> None:
    """With hostPID a process of each pod can be looked at, by a user without any capability."""

    def all_ok() -> bool:
        shown = kubectl(
            "-n", NAMESPACE, "exec", "daemonset/podtally-everything", "--", "podtally", "doctor", check=False
        )
        return "network" in shown and all(line.startswith("ok") for line in shown.splitlines())

    wait_for("a doctor who finds nothing", all_ok, 60, every=2)


def test_its_cadvisor_page_is_the_kubelets_network_included() -> None:
    """Series by series, over a recording taken through the pod with the kubelet's own page in every frame."""
    tree = RecordedTree(load(record("everything", seconds=50, every=5, namespace=NAMESPACE)))

    def frames() -> Iterator[tuple[Tally, str | None]]:
        for tally in collector_over(tree, RecordedAnswers(tree)).tallies():
            bodies = [one.body for one in tree.frame.answers if one.name == "kubelet/metrics_cadvisor.txt" and one.body]
            yield tally, bodies[0].decode() if bodies else None

    # In the first frame the node's network is read after the walk, which in emulation takes a second.
    report = compare(islice(frames(), 1, None))
    families = [one for one in by_family([report]) if one.status != "left out"]
    table(
        f"/metrics/cadvisor beside the kubelet's, {report.pages} pages",
        ["family", "agree", "moved or ran", "outside", "in one page alone"],
        [
            (
                one.name,
                one.agreeing,
                one.verdicts.get("moved", 0) + one.verdicts.get("ran", 0),
                one.verdicts.get("outside", 0),
                ", ".join(f"{reason}: {n}" for reason, n in Counter(one.reasons).items()),
            )
            for one in families
        ],
        file="everything.md",
    )
    assert report.pages >= 5
    counters = {metric.name for metric in CADVISOR if metric.type == "counter"} - DIFFERS.keys()
    assert [one.name for one in families if one.name in counters and one.verdicts.get("outside", 0)] == []
    # A gauge can move while nothing runs in the cgroup: another that has its pages mapped, or reclaim.
    gauges = [one for one in families if one.name not in counters and one.status != "differs"]
    assert sum(one.verdicts.get("outside", 0) for one in gauges) <= sum(one.agreeing for one in gauges) / 200
    network = [one for one in families if one.name.startswith("container_network_")]
    assert len(network) == 8
    assert [one.name for one in network if one.agreeing < 10] == []
    assert [one for one in report.differences if one.reason is None] == []


def test_it_compares_itself_with_the_kubelet_all_the_time() -> None:
    """With --verify-interval the differences are among its metrics, and small."""

    def differences() -> dict[tuple[str, str], float]:
        return {
            (dict(labels)["quantity"], dict(labels)["statistic"]): value
            for (name, labels), value in page().items()
            if name == "podtally_kubelet_difference_ratio"
        }

    wait_for("a comparison of CPU", lambda: ("cpu", "median") in differences(), 180, every=5)
    found = differences()
    table(
        "podtally_kubelet_difference_ratio",
        ["quantity", "statistic", "difference %"],
        [(*key, value * 100) for key, value in sorted(found.items())],
        file="verify.md",
    )
    assert found["cpu", "median"] < 0.05
    assert sum(value for (name, _), value in page().items() if name == "podtally_kubelet_outside_containers") == 0
