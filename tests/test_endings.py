"""Last readings of containers that have ended."""

from __future__ import annotations

import pytest

from collector.endings import Endings
from collector.model import Container, Details, Ended, Frame, Instant, Leaf, NodeReading, Pod, PodCgroup, Reading
from tests.replays import replayed
from tests.support import CAPTURED, RECORDED, SECOND_NS, recording

LINGER = 30 * SECOND_NS

# --- on real recordings ---------------------------------------------------------------------------------------------


def test_a_container_that_crashed_between_two_frames_is_told() -> None:
    """In a captured recording a container that lives for seconds and crashes is in one frame: its last reading is that
    frame's, and it is told for the time to linger.
    """
    tallies = list(replayed("churn.tar.zst").tallies())
    first, second = tallies[:2]
    (crashing,) = [pod for pod in first.pods if pod.pod.name == "crashing"]
    (leaf,) = [leaf for leaf in crashing.cgroup.leaves if leaf.container_id.startswith("7d8372")]

    assert first.ended == ()
    (told,) = second.ended
    assert told[:3] == ("team-b", "crashing", "main")
    assert told.cpu_usage_usec == leaf.reading.cpu_usage_usec
    assert told.memory_peak_bytes == leaf.reading.details.memory_peak_bytes
    assert told.ended_ns == first.instant.wall_ns(leaf.reading.monotonic_ns)


@pytest.mark.parametrize("name", [*CAPTURED, *RECORDED])
def test_what_is_told_has_ended(name: str) -> None:
    """Of every frame of the captured recordings: what is told of is in no sum, each name is told of once, for no longer
    than the time to linger, and with what a leaf of an earlier frame had.
    """
    seen: set[int | None] = set()
    for tally in replayed(name).tallies():
        live = {one.reading.cpu_usage_usec for pod in tally.pods for one in pod.containers}
        assert len({one[:3] for one in tally.ended}) == len(tally.ended)
        for one in tally.ended:
            assert one.cpu_usage_usec in seen - live
            assert 0 < tally.instant.time_ns - one.ended_ns <= 2 * LINGER + 2 * recording(name).interval_ns
        seen |= {leaf.reading.cpu_usage_usec for pod in tally.pods for leaf in pod.cgroup.leaves}


def test_a_sandbox_is_no_ended_container() -> None:
    """Pods that end take their sandboxes with them, which have no name and are not asked for."""
    collector = replayed("churn.tar.zst")
    for tally in collector.tallies():
        assert {one.container for one in tally.ended} <= {"main"}
        assert collector._history.endings.unnamed == frozenset()


# --- by hand --------------------------------------------------------------------------------------------------------


def leaf(id_: str, second: float, *, usage: int = 5, memory: int = 4096, peak: int | None = None, ino: int = 1) -> Leaf:
    """A leaf that was made at second 10, read at ``second``."""
    reading = Reading(
        round(second * SECOND_NS),
        cpu_usage_usec=usage,
        memory_current_bytes=memory,
        details=Details(memory_peak_bytes=peak),
    )
    return Leaf(f"pod/{id_}", ino, id_, 10 * SECOND_NS, None, reading)


class Node:
    """Frames one after the other, of one pod; both clocks show the same."""

    def __init__(self) -> None:
        self.endings = Endings(LINGER)
        self.pods: dict[str, Pod] = {}

    def name(self, **names: str) -> None:
        """The pod has containers of these ids, with these names."""
        self.pods["u"] = Pod(
            namespace="ns",
            name="p",
            uid="u",
            phase="Running",
            qos_class="",
            node="",
            created_ns=None,
            host_network=False,
            labels={},
            owner_kind="",
            owner_name="",
            containers={
                id_: Container(name=name, container_id=id_, kind="app", state="running", image="", started_ns=None)
                for id_, name in names.items()
            },
        )

    def frame(self, second: float, *leaves: Leaf, gone: tuple[Leaf, ...] = (), pod: bool = True) -> list[Ended]:
        """What is told after a frame."""
        cgroup = PodCgroup("pod", 1, "u", "Burstable", None, Reading(0), leaves, gone=gone)
        at = round(second * SECOND_NS)
        frame = Frame(Instant(at, at), NodeReading(Reading(0)), (cgroup,) if pod else (), {}, 0, 0)
        return list(self.endings.advance(frame, self.pods, set()))


def test_the_last_reading_is_kept() -> None:
    """CPU, the highest memory of all readings, age and time are as they were read last."""
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20.1, usage=1, memory=9000, peak=5000))
    node.frame(21, leaf("a", 21.1, usage=2, memory=100, peak=5000))

    assert node.frame(22) == [
        Ended("ns", "p", "main", 2, 9000, 11_100_000_000, 21_100_000_000),
    ]


def test_it_is_told_for_the_time_to_linger() -> None:
    """From the first frame without the container on, and no longer."""
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20))

    assert [len(node.frame(second)) for second in (21, 51, 51.1)] == [1, 1, 0]


def test_one_that_came_and_went_between_two_frames_is_told() -> None:
    """What the source saw between two ticks has its last reading told like that of any other."""
    node = Node()
    node.name(a="main")
    (told,) = node.frame(20, gone=(leaf("a", 19.6, usage=7),))

    assert (told.container, told.cpu_usage_usec, told.age_ns) == ("main", 7, round(9.6 * SECOND_NS))


def test_a_later_reading_between_two_frames_is_the_last() -> None:
    """A container of the last frame that was read once more before it went is told of as it was then."""
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20, usage=7))
    (told,) = node.frame(21, gone=(leaf("a", 20.5, usage=9),))
    (later,) = node.frame(22, gone=(leaf("a", 20.25, usage=8),))

    assert (told.cpu_usage_usec, later.cpu_usage_usec) == (9, 9)


def test_of_one_name_the_last_is_told() -> None:
    """A container that was restarted and ended again is told of as it was at its last end."""
    node = Node()
    node.name(a="main", b="main")
    node.frame(20, leaf("a", 20, usage=1))
    node.frame(21, leaf("b", 21, usage=2, ino=2))

    assert [one.cpu_usage_usec for one in node.frame(22)] == [2]


def test_a_name_that_comes_late_is_waited_for() -> None:
    """A status may name a container after its end: it is told of for the whole time to linger from then on."""
    node = Node()
    node.frame(20, leaf("a", 20))
    assert node.frame(21) == []
    assert node.endings.unnamed == {("pod/a", 1)}
    assert node.endings.uids == {"u"}
    node.name(a="main")

    assert [len(node.frame(second)) for second in (45, 75, 76)] == [1, 1, 0]


def test_a_name_that_never_comes_is_not_waited_for_any_longer() -> None:
    """An ended leaf that nothing has named is forgotten after the time to linger."""
    node = Node()
    node.frame(20, leaf("a", 20))
    node.frame(21)
    node.frame(52)

    assert (node.endings.unnamed, node.endings.uids) == (frozenset(), set())


def test_a_name_that_was_known_stays() -> None:
    """A status tells of the current and the last container alone: an earlier one keeps the name that it had, and so
    does one whose pod has gone from the list.
    """
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20))
    node.pods.clear()

    assert [one.container for one in node.frame(21, pod=False)] == ["main"]


def test_one_that_comes_back_has_not_ended() -> None:
    """A leaf that is there again, as at the seam of a looped replay, is told of no more."""
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20))
    node.frame(21)

    assert node.frame(22, leaf("a", 22)) == []


def test_no_container_is_younger_than_it_was_seen_to_be() -> None:
    """A start after the first reading is not one: the age is at least from the first reading to the last."""
    node = Node()
    node.name(a="main")
    node.frame(5, leaf("a", 5))
    node.frame(9, leaf("a", 9))

    assert [one.age_ns for one in node.frame(11)] == [4 * SECOND_NS]


def test_without_a_start_there_is_no_age() -> None:
    """A recording may lack the times of directories, and a status of an ended container its start."""
    node = Node()
    node.name(a="main")
    node.frame(20, leaf("a", 20)._replace(started_ns=None))

    assert [one.age_ns for one in node.frame(21)] == [None]
