"""The account of a pod: whole, or withheld with its reason."""

from __future__ import annotations

import pytest

from collector.account import PAUSE_BYTES, VANISHED_NS
from collector.history import History
from collector.model import (
    MEANINGS,
    REASONS,
    Frame,
    Instant,
    Leaf,
    NamesState,
    NodeReading,
    Pod,
    PodCgroup,
    PodTally,
    Reading,
    Tally,
)
from collector.tally import tally
from tests.statuses import container, pod

SECOND = 1_000_000_000
MEBIBYTE = 1 << 20
NAMES = NamesState(source="kubelet", kubelet="ok", apiserver="unknown", age_since_ns=0)
START = 1_000_000
"""The second of the wall clock at which the tests' nodes begin."""


def at(second: float) -> int:
    """Wall time."""
    return round((START + second) * SECOND)


def reading(second: float, cores: float = 0.0, memory_bytes: int = MEBIBYTE, base_ms: int = 100) -> Reading:
    """What a cgroup that has used ``cores`` from the beginning says."""
    return Reading(
        round(second * SECOND),
        cpu_usage_usec=round(base_ms * 1000 + second * cores * 1e6),
        memory_current_bytes=memory_bytes,
        memory_inactive_file_bytes=0,
    )


def leaf(name: str, ino: int, read: Reading, *, populated: bool | None = None) -> Leaf:
    """A leaf whose container id is its name."""
    return Leaf(f"p/{name}", ino, name, at(-1000), populated, read)


class Node:
    """Tallies frame after frame, a second apart or as told."""

    def __init__(self) -> None:
        self.history = History(window_ns=15 * SECOND, interval_ns=SECOND)

    def tally(self, second: float, pods: list[Pod], *cgroups: PodCgroup, unread: tuple[str, ...] = ()) -> Tally:
        """The tally of a frame at ``second``."""
        instant = Instant(at(second), round(second * SECOND))
        frame = Frame(instant, NodeReading(reading(second)), cgroups, {}, 0, 0, unread=unread)
        return tally(frame, {one.uid: one for one in pods}, NAMES, self.history, node_name="n")

    def pod(
        self, second: float, status: Pod, *leaves: Leaf, cores: float = 0.0, unread: tuple[str, ...] = ()
    ) -> PodTally:
        """The one pod after such a frame; its cgroup uses ``cores``."""
        cgroup = PodCgroup("p", 1, "u", "Burstable", at(-1000), reading(second, cores), leaves, unread=unread)
        (one,) = self.tally(second, [status], cgroup).pods
        return one


def pause(second: float) -> Leaf:
    """The sandbox."""
    return leaf("pause", 2, reading(second))


def test_every_reason_has_its_meaning() -> None:
    """The list is closed, and each of it is said in words."""
    assert tuple(MEANINGS) == REASONS


def test_a_container_that_is_missing_where_podtally_begins_is_told_at_once() -> None:
    """It had been running for minutes when that was asked, and it has no leaf: it is elsewhere."""
    old = container("b", started_ns=at(-300))
    one = Node().pod(0, pod(container("a"), old, told_ns=at(0)), pause(0), leaf("a", 3, reading(0)))

    assert (one.incomplete, one.account.missing, one.memory_bytes) == ("missing_container", ("b",), None)


def test_a_container_that_ended_as_podtally_began_is_not_missing() -> None:
    """It had been running for a moment when that was asked: only a status that is asked for later tells."""
    node, young = Node(), container("b", started_ns=at(-3))
    status = pod(container("a"), young, told_ns=at(0))

    assert node.pod(0, status, pause(0), leaf("a", 3, reading(0))).incomplete is None
    assert node.pod(1, status, pause(1), leaf("a", 3, reading(1))).incomplete is None
    asked = pod(container("a"), young, told_ns=at(1.5))
    assert node.pod(2, asked, pause(2), leaf("a", 3, reading(2))).incomplete == "missing_container"


def test_what_a_status_calls_running_was_asked_before_its_leaf_was_missing() -> None:
    """A leaf that went has ended, for as long as the kubelet may not know; if it is called running when asked much
    later, it is elsewhere.
    """
    node = Node()
    told = {0: at(0), 2: at(1.5), 20: at(1) + VANISHED_NS + SECOND}
    seen = []
    for second in range(22):
        asked = told[max(one for one in told if one <= second)]
        there = [leaf("b", 4, reading(second))] if second == 0 else []
        status = pod(running=["a", "b"], told_ns=asked)
        seen.append(node.pod(second, status, pause(second), leaf("a", 3, reading(second)), *there).incomplete)

    assert seen == [None] * 20 + ["missing_container"] * 2


def test_a_pod_that_is_being_deleted_misses_nothing() -> None:
    """Its containers end, and its status follows late."""
    ending = pod(container("a", started_ns=at(-300)), container("b", started_ns=at(-300)), told_ns=at(0), ending=True)

    assert Node().pod(0, ending, pause(0), leaf("a", 3, reading(0))).incomplete is None


def test_a_leaf_that_was_seen_in_a_glimpse_is_no_missing_one() -> None:
    """A container that came and went between two ticks has ended."""
    node = Node()
    node.pod(0, pod(running=["a"], told_ns=at(0)), pause(0), leaf("a", 3, reading(0)))
    gone = (leaf("b", 4, reading(0.5)),)
    status = pod(running=["a", "b"], told_ns=at(0.6))
    cgroup = PodCgroup("p", 1, "u", "Burstable", None, reading(1), (pause(1), leaf("a", 3, reading(1))), gone=gone)
    node.tally(1, [status], cgroup)
    later = pod(running=["a", "b"], told_ns=at(2.5))

    assert node.pod(3, later, pause(3), leaf("a", 3, reading(3))).incomplete is None


def test_a_pod_without_a_cgroup_is_told_with_its_reason() -> None:
    """It runs by its status, and is in no tree that is followed: it is shown with what is not known of it."""
    status = pod(container("a", started_ns=at(-300)), told_ns=at(0))
    result = Node().tally(0, [status])
    (one,) = result.pods

    assert (one.incomplete, one.account.missing, one.cpu_cores) == ("missing_container", ("a",), None)
    assert result.incomplete == {"missing_container": 1}
    assert Node().tally(0, [status], unread=("kubepods/x",)).incomplete == {"unread_container": 1}


@pytest.mark.parametrize("phase", ["Pending", "Succeeded"])
def test_a_pod_that_does_not_run_needs_no_cgroup(phase: str) -> None:
    """One that has ended, or has yet to start, has none."""
    assert Node().tally(0, [pod(container("a", started_ns=at(-300)), told_ns=at(0), phase=phase)]).pods == ()


def test_what_is_missing_is_asked_about() -> None:
    """The kubelet is to be asked about what is not known, and not about what has ended."""
    node = Node()
    first = node.tally(0, [pod(container("a", started_ns=at(-3)), told_ns=at(0))])

    assert first.wanted == {("a", 0)}


def test_a_directory_that_cannot_be_opened_withholds_the_sums() -> None:
    """Whatever is in it, a part may be missing."""
    one = Node().pod(0, pod(running=["a"]), pause(0), leaf("a", 3, reading(0)), unread=("p/b",))

    assert (one.incomplete, one.memory_bytes) == ("unread_container", None)


def test_a_created_container_withholds_the_sums_until_it_runs() -> None:
    """It is neither running nor ended; without a leaf there is nothing of it yet."""
    node, status = Node(), pod(running=["a"], awaited=["b"])

    assert node.pod(0, status, pause(0), leaf("a", 3, reading(0))).incomplete is None
    both = node.pod(1, status, pause(1), leaf("a", 3, reading(1)), leaf("b", 4, reading(1)))
    assert (both.incomplete, both.memory_bytes) == ("starting_container", None)
    running = node.pod(2, pod(running=["a", "b"]), pause(2), leaf("a", 3, reading(2)), leaf("b", 4, reading(2)))
    assert (running.incomplete, running.memory_bytes) == (None, 2 * MEBIBYTE)


def test_a_lone_leaf_of_a_starting_pod_is_asked_about_and_counted_nowhere() -> None:
    """It is its sandbox, mostly: no sum is withheld for it."""
    node, status = Node(), pod(awaits=True)
    cgroup = PodCgroup("p", 1, "u", "Burstable", None, reading(0), (Leaf("p/x", 2, "x", None, None, reading(0)),))
    result = node.tally(0, [status], cgroup)

    assert not result.incomplete
    assert result.wanted == {("p/x", 2)}


# --- sandboxed ------------------------------------------------------------------------------------------------------


def test_a_running_container_that_has_used_nothing_runs_elsewhere() -> None:
    """A process has used CPU and memory: a leaf that says 0 of both says nothing."""
    nothing = reading(0, 0.0, 0, base_ms=0)
    one = Node().pod(0, pod(running=["a"]), pause(0), leaf("a", 3, nothing))

    assert (one.incomplete, one.containers) == ("sandboxed", ())


@pytest.mark.parametrize(("memory_bytes", "reason"), [(PAUSE_BYTES, None), (PAUSE_BYTES + 1, "sandboxed")])
def test_a_sandbox_with_more_memory_than_a_pause_works(memory_bytes: int, reason: str | None) -> None:
    """The containers' own leaves may say anything then."""
    big = leaf("pause", 2, reading(0, 0.0, memory_bytes))

    assert Node().pod(0, pod(running=["a"]), big, leaf("a", 3, reading(0))).incomplete == reason


@pytest.mark.parametrize(("cores", "reason"), [(0.004, None), (0.006, "sandboxed")])
def test_a_sandbox_that_goes_on_using_cpu_works(cores: float, reason: str | None) -> None:
    """A pause uses some while it starts, and none afterwards; one that works does so for its life."""
    node, found = Node(), []
    for second in range(60):
        working = leaf("pause", 2, reading(second, cores))
        found.append(
            node.pod(second, pod(running=["a"]), working, leaf("a", 3, reading(second)), cores=cores).incomplete
        )

    assert found[:30] == [None] * 30
    assert found[-1] == reason


def test_the_start_of_a_pause_is_no_work() -> None:
    """Half a second of CPU within its first seconds, as on a slow node, and nothing since."""
    node = Node()
    found = {
        node.pod(
            second,
            pod(running=["a"]),
            leaf("pause", 2, reading(second, 0.0, base_ms=min(500, 50 * second))),
            leaf("a", 3, reading(second)),
        ).incomplete
        for second in range(60)
    }

    assert found == {None}


def test_without_any_leaf_a_runtime_class_tells_of_a_sandbox() -> None:
    """Kata: the pod's cgroup is there and has no leaf of a container."""
    kata = pod(container("a", started_ns=at(-300)), told_ns=at(0), runtime_class="kata")
    usual = pod(container("a", started_ns=at(-300)), told_ns=at(0))

    assert Node().pod(0, kata).incomplete == "sandboxed"
    assert Node().pod(0, usual).incomplete == "missing_container"


def test_with_one_leaf_of_two_a_runtime_class_is_no_sandbox() -> None:
    """A runtime class may be any runtime's: crun's, or one with GPUs."""
    status = pod(container("a"), container("b", started_ns=at(-300)), told_ns=at(0), runtime_class="nvidia")

    assert Node().pod(0, status, pause(0), leaf("a", 3, reading(0))).incomplete == "missing_container"


# --- the witness ----------------------------------------------------------------------------------------------------


def test_what_is_unaccounted_withholds_the_sums() -> None:
    """The pod's cgroup uses twice what its leaves use: after some seconds its sums are withheld, with both figures."""
    node, found = Node(), []
    for second in range(10):
        one = node.pod(second, pod(running=["a"]), pause(second), leaf("a", 3, reading(second, 0.25)), cores=0.5)
        found.append(one.incomplete)

    assert found == [None] * 5 + ["unaccounted"] * 5
    growth = one.account.growth
    assert growth is not None
    assert growth.unknown_usec * 2 == pytest.approx(growth.used_usec)


def test_a_pod_is_forgotten_with_its_cgroup_and_its_status() -> None:
    """Churn does not grow memory."""
    node = Node()
    for number in range(50):
        status = pod(running=["a"], uid=f"u{number}")
        node.tally(
            number, [status], PodCgroup(f"p{number}", number, f"u{number}", "Burstable", None, reading(number), ())
        )

    assert len(node.history.accounts._lives) == 1
