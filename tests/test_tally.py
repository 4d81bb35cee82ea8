"""The sums: which containers are in them, when they are withheld, and what is exported of two of one name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from collector.cgroup.carry import Carry
from collector.cgroup.walk import Walker
from collector.history import History
from collector.loop import Collector
from collector.model import (
    Container,
    Frame,
    Instant,
    Leaf,
    NamesState,
    NodeReading,
    Pod,
    PodCgroup,
    Reading,
    Tally,
    start_ns,
)
from collector.sources.recording import RecordedAnswers, RecordedTree, load
from collector.tally import tally
from tests.replays import replayed

SECOND = 1_000_000_000
FIXTURES = Path(__file__).parent / "fixtures" / "cgroupfs"
NAMES = NamesState(source="kubelet", kubelet="ok", apiserver="unknown", age_since_ns=0)


def container(name: str, *, running: bool = True) -> Container:
    """A container whose id is its name."""
    return Container(
        name=name, container_id=name, kind="app", state="running" if running else "ended", image="", started_ns=None
    )


def pod(*containers: Container, phase: str = "Running", uid: str = "u", created_ns: int = 0) -> Pod:
    """The pod ns/p."""
    return Pod(
        namespace="ns",
        name="p",
        uid=uid,
        phase=phase,
        qos_class="Burstable",
        node="n",
        created_ns=created_ns,
        host_network=False,
        labels={},
        owner_kind="",
        owner_name="",
        containers={one.container_id: one for one in containers},
    )


def reading(second: int, usage_ms: int | None = 0, memory: int | None = 4096) -> Reading:
    """A reading at ``second``."""
    return Reading(
        second * SECOND,
        cpu_usage_usec=None if usage_ms is None else usage_ms * 1000,
        memory_current_bytes=memory,
        memory_inactive_file_bytes=0,
    )


def leaf(name: str, ino: int, read: Reading) -> Leaf:
    """A leaf of the container with that id."""
    return Leaf(f"p/{name}", ino, name, None, None, read)


def cgroup(read: Reading, *leaves: Leaf, uid: str = "u", ino: int = 1) -> PodCgroup:
    """A pod's cgroup."""
    return PodCgroup(f"pod{uid}", ino, uid, "Burstable", None, read, leaves)


class Node:
    """Tallies frames one after the other."""

    def __init__(self) -> None:
        self.history = History(window_ns=15 * SECOND, interval_ns=SECOND)

    def tally(self, second: int, pods: list[Pod], *cgroups: PodCgroup) -> Tally:
        """The tally of a frame at ``second``."""
        frame = Frame(Instant(second * SECOND, second * SECOND), NodeReading(reading(second)), cgroups, {}, 0, 0)
        return tally(frame, {one.uid: one for one in pods}, NAMES, self.history, node_name="n")


def test_a_pod_is_the_sum_of_its_named_containers() -> None:
    """CPU and memory are summed over the containers; the sandbox is in neither and shows in the overhead."""
    node, known = Node(), [pod(container("a"), container("b"))]
    for second in (0, 10):
        result = node.tally(
            second,
            known,
            cgroup(
                reading(second, 70 * second, 30_000),
                leaf("pause", 2, reading(second, 10 * second, 1_000)),
                leaf("a", 3, reading(second, 20 * second, 8_000)),
                leaf("b", 4, reading(second, 40 * second, 16_000)),
            ),
        )

    (one,) = result.pods
    assert one.cpu_cores == pytest.approx(0.06)
    assert one.memory_bytes == 24_000
    assert one.cgroup_cpu_cores == pytest.approx(0.07)
    assert one.overhead_cpu_cores == pytest.approx(0.01)
    assert one.overhead_memory_bytes == 6_000
    assert one.incomplete is None
    assert [each.container.name for each in one.containers] == ["a", "b"]


def test_who_is_who_follows_the_status_and_the_leaves() -> None:
    """A new status, a leaf that comes, and one that takes another's place are seen in the tick that has them."""
    node = Node()
    starting, named = pod(), pod(container("a"), container("b"))
    ended = pod(container("a", running=False), container("b"))
    seen = []
    steps: list[tuple[Pod, list[tuple[str, int]]]] = [
        (starting, [("pause", 2), ("a", 3)]),
        (named, [("pause", 2), ("a", 3)]),
        (named, [("pause", 2), ("a", 3), ("b", 4)]),
        (named, [("b", 4), ("pause", 2), ("a", 5)]),
        (ended, [("b", 4), ("pause", 2), ("a", 5)]),
        (ended, [("b", 4)]),
    ]
    for second, (status, leaves) in enumerate(steps):
        read = [leaf(name, ino, reading(second)) for name, ino in leaves]
        result = node.tally(second, [status], cgroup(reading(second), *read))
        (one,) = result.pods
        sandbox = one.sandbox.container_id if one.sandbox is not None else None
        containers = {each.container.name: each.leaf.ino for each in one.containers}
        seen.append((containers, sandbox, sorted(result.unnamed), result.duplicates.get("container", 0)))
        assert all(each.leaf.reading.monotonic_ns == second * SECOND for each in one.containers)

    assert seen == [
        ({}, "pause", [("p/a", 3)], 0),
        ({"a": 3}, "pause", [], 0),
        ({"a": 3, "b": 4}, "pause", [], 0),
        ({"a": 5, "b": 4}, "pause", [], 0),
        ({"b": 4}, "pause", [], 1),
        ({"b": 4}, None, [], 0),
    ]


def test_an_unnamed_leaf_withholds_the_sums() -> None:
    """A partial sum is not shown as whole: the pod keeps its cgroup's numbers and is counted."""
    node, known = Node(), [pod(container("a"))]
    for second in (0, 10):
        result = node.tally(
            second,
            known,
            cgroup(
                reading(second, 50 * second),
                leaf("pause", 2, reading(second)),
                leaf("a", 3, reading(second)),
                leaf("new", 4, reading(second)),
            ),
        )

    (one,) = result.pods
    assert (one.cpu_cores, one.memory_bytes, one.incomplete) == (None, None, "unnamed_container")
    assert one.cgroup_cpu_cores == pytest.approx(0.05)
    assert result.incomplete == {"unnamed_container": 1}
    assert result.unnamed == {("p/new", 4)}


def test_a_container_that_cannot_be_read_withholds_its_sum_alone() -> None:
    """Memory that could not be read leaves CPU standing, and the pod is counted as incomplete."""
    node, known = Node(), [pod(container("a"), container("b"))]
    for second in (0, 10):
        result = node.tally(
            second,
            known,
            cgroup(
                reading(second),
                leaf("pause", 2, reading(second)),
                leaf("a", 3, reading(second, 10 * second)),
                leaf("b", 4, reading(second, 10 * second, None)),
            ),
        )

    (one,) = result.pods
    assert one.cpu_cores == pytest.approx(0.02)
    assert (one.memory_bytes, one.incomplete) == (None, "unread_container")
    assert result.incomplete == {"unread_container": 1}


def test_a_pod_that_no_answer_names_is_counted_and_asked_for() -> None:
    """A pod cgroup without a name is in no exposition, and its identity is among the unnamed."""
    result = Node().tally(0, [], cgroup(reading(0)))

    assert result.pods == ()
    assert result.incomplete == {"unnamed_pod": 1}
    assert result.unnamed == {("podu", 1)}


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_only_running_pods_have_sums(phase: str) -> None:
    """Kubectl top shows pods whose phase is Running; a running init container of another has its own numbers."""
    node, known = Node(), [pod(container("a"), phase=phase)]
    for second in (0, 10):
        result = node.tally(second, known, cgroup(reading(second), leaf("a", 3, reading(second, 10 * second))))

    (one,) = result.pods
    assert (one.cpu_cores, one.memory_bytes) == (None, None)
    assert one.containers[0].cpu_cores == pytest.approx(0.01)


def test_a_pod_without_a_running_container_keeps_its_cgroup() -> None:
    """Between two crashes a pod has no sums, but the kernel's account of it goes on."""
    node, known = Node(), [pod(container("a", running=False))]
    for second in (0, 10):
        result = node.tally(second, known, cgroup(reading(second, 30 * second), leaf("pause", 2, reading(second))))

    (one,) = result.pods
    assert (one.cpu_cores, one.memory_bytes, one.containers, one.incomplete) == (None, None, (), None)
    assert one.cgroup_cpu_cores == pytest.approx(0.03)


def test_a_container_that_has_no_cgroup_has_ended() -> None:
    """A status may still say running for a container that is gone: it is no missing part."""
    node, known = Node(), [pod(container("a"), container("gone"))]
    for second in (0, 10):
        result = node.tally(second, known, cgroup(reading(second), leaf("a", 3, reading(second, 10 * second))))

    assert result.pods[0].cpu_cores == pytest.approx(0.01)
    assert result.incomplete == {}


def test_of_two_ids_under_one_name_the_running_one_is_exported() -> None:
    """The cgroup of an ended container that is still there is counted, not exported and not summed."""
    old = Container(name="a", container_id="old", kind="app", state="ended", image="", started_ns=None)
    new = Container(name="a", container_id="new", kind="app", state="running", image="", started_ns=None)
    result = Node().tally(
        0,
        [pod(old, new)],
        cgroup(
            reading(0),
            leaf("pause", 2, reading(0)),
            leaf("old", 3, reading(0, memory=100)),
            leaf("new", 4, reading(0, memory=200)),
        ),
    )

    assert result.pods[0].memory_bytes == 200
    assert result.duplicates == {"container": 1}


def test_of_two_uids_under_one_name_the_newer_is_exported() -> None:
    """An old cgroup that outlives its pod gives no second series of the same name."""
    known = [pod(container("x"), uid="old", created_ns=1), pod(container("y"), uid="new", created_ns=2)]
    result = Node().tally(
        0,
        known,
        cgroup(reading(0), leaf("y", 3, reading(0, memory=200)), uid="new", ino=10),
        cgroup(reading(0), leaf("x", 13, reading(0, memory=100)), uid="old", ino=11),
    )

    assert [(one.pod.uid, one.memory_bytes) for one in result.pods] == [("new", 200)]
    assert result.duplicates == {"pod": 1}


def test_no_overhead_while_the_spans_differ() -> None:
    """Beside a container younger than the window the pod's rate is over another span: there is no difference."""
    node, known = Node(), [pod(container("a"), container("young"))]
    for second in range(21):
        leaves = [leaf("a", 3, reading(second, 10 * second))]
        if second >= 15:
            leaves.append(leaf("young", 4, reading(second, 10 * (second - 15))))
        result = node.tally(second, known, cgroup(reading(second, 20 * second), *leaves))

    (one,) = result.pods
    assert one.cpu_cores == pytest.approx(0.02)
    assert one.cgroup_cpu_cores == pytest.approx(0.02)
    assert one.overhead_cpu_cores is None


def test_a_restarted_container_starts_with_no_rate() -> None:
    """A new inode at the same path has no history: nothing negative, nothing of the old one's."""
    node, known = Node(), [pod(container("a"))]
    for second in range(20):
        node.tally(second, known, cgroup(reading(second), leaf("a", 3, reading(second, 1000 * second))))
    result = node.tally(20, known, cgroup(reading(20), leaf("a", 99, reading(20, 5))))

    assert result.pods[0].containers[0].cpu_cores is None
    assert result.pods[0].cpu_cores is None


def test_pods_are_in_order_of_their_names() -> None:
    """By namespace, then by name, whatever the order of the walk."""
    collector = replayed("systemd-containerd.tar.zst")
    names = [[(one.pod.namespace, one.pod.name) for one in result.pods] for result in collector.tallies()]

    assert all(of == sorted(set(of)) for of in names)
    assert len(names[-1]) == 13


def test_counters_of_a_real_node_never_fall_within_an_identity() -> None:
    """Over a minute and a half of a real node, with pods that come and go, no counter of one identity steps back."""
    collector = replayed("parity-1hz.tar.zst")
    last: dict[tuple[str, int], int] = {}
    falls = 0
    for result in collector.tallies():
        for one in result.pods:
            cgroups: list[PodCgroup | Leaf] = [one.cgroup, *(of.leaf for of in one.containers)]
            for each in cgroups:
                usage = each.reading.cpu_usage_usec or 0
                falls += usage < last.get((each.path, each.ino), 0)
                last[each.path, each.ino] = usage

    assert (falls, len(last)) == (0, 46)


@pytest.mark.parametrize(
    ("made", "told", "start"),
    [(None, None, None), (5.0, None, 5.0), (None, 4.0, 4.0), (5.2, 5.0, 5.2), (5.2, 7.0, 5.2), (9.0, 5.0, 5.0)],
)
def test_a_container_starts_at_the_earlier_of_mtime_and_started_at(
    made: float | None, told: float | None, start: float | None
) -> None:
    """StartedAt is cut to whole seconds; an mtime later than that is of something that came after the start."""

    def ns(second: float | None) -> int | None:
        return None if second is None else round(second * SECOND)

    one = dataclasses.replace(container("a"), started_ns=ns(told))

    assert start_ns(leaf("a", 1, reading(0))._replace(started_ns=ns(made)), one) == ns(start)


def test_a_late_mtime_of_a_pod_does_not_inflate_its_rate() -> None:
    """A pod's directory that got a new mtime with a new container is as old as its oldest leaf."""
    node, known = Node(), [pod(container("a"))]
    for second in range(100, 111):
        result = node.tally(
            second,
            known,
            cgroup(
                reading(second, 1000 * second),
                leaf("pause", 2, reading(second))._replace(started_ns=0),
                leaf("a", 3, reading(second, 1000 * second))._replace(started_ns=0),
            )._replace(started_ns=99 * SECOND),
        )

    assert result.pods[0].cgroup_cpu_cores == pytest.approx(1.0)
    assert result.pods[0].overhead_cpu_cores == pytest.approx(0.0)


def test_no_rate_of_a_looped_replay_is_above_those_of_its_first_pass() -> None:
    """Counters go on over the seam, so that a start must not move with the pass."""
    recorded = load(FIXTURES / "restart")
    tree = RecordedTree(recorded, loop=True)
    looped = Collector(
        walker=Walker(tree, slow_every=1),
        answers=RecordedAnswers(tree),
        history=History(window_ns=15 * SECOND, interval_ns=recorded.interval_ns),
        node_name="n",
        adjust=Carry(lambda: tree.passes).adjust,
    )
    rates = [
        one.cpu_cores
        for _ in range(12)
        for pod_tally in looped.tick().pods
        for one in pod_tally.containers
        if one.cpu_cores is not None
    ]

    assert rates
    assert max(rates) <= 0.1
