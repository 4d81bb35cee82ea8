"""Counters over the seam of a looped replay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector.cgroup.carry import Carry
from collector.cgroup.files import FAST, SLOW, counters
from collector.cgroup.walk import Walker
from collector.model import Details, DeviceIo, Frame, Instant, Interface, Leaf, NodeReading, PodCgroup, Reading, Slice
from collector.sources.recording import RecordedTree, Recording
from tests.support import CAPTURED, SYNTHETIC, readings, recording

PASSES = 3


def looped(recorded: Recording) -> Iterator[Frame]:
    """The frames of some passes, carried."""
    tree = RecordedTree(recorded, loop=True)
    carry = Carry(lambda: tree.passes)
    walker = Walker(tree, slow_every=1)
    for _ in range(PASSES * len(recorded.frames)):
        yield carry.adjust(walker.tick())


def all_readings(frame: Frame) -> Iterator[tuple[str, int, Reading]]:
    """Those of the pods and leaves, and the node's."""
    yield ".", 0, frame.node.reading
    yield from readings(frame)


def counted(reading: Reading) -> dict[str, int]:
    """The counters that a reading has."""
    both = reading._asdict() | reading.details._asdict()
    return {name: both[name] for name in counters((*FAST, *SLOW)) if both[name] is not None}


@pytest.mark.parametrize("name", [*CAPTURED, *SYNTHETIC])
def test_no_counter_steps_back_over_three_passes(name: str) -> None:
    """Of one identity no counter is ever lower than it was, the seams between passes included."""
    seen: dict[tuple[str, int, str], int] = {}
    back: list[tuple[int, str, str]] = []
    for number, frame in enumerate(looped(recording(name))):
        for path, ino, reading in all_readings(frame):
            for counter, value in counted(reading).items():
                if value < seen.get((path, ino, counter), 0):
                    back.append((number, path, counter))
                seen[path, ino, counter] = value
    assert back == []


def test_each_pass_adds_what_the_first_one_did() -> None:
    """After three passes a counter has grown by three times what it grew in the recording."""
    frames = list(looped(recording("cri-dockerd")))
    grown = [
        {path: counted(reading)["cpu_usage_usec"] for path, _, reading in all_readings(frame)}
        for frame in (*frames[:2], frames[-1])
    ]
    first, last, end = grown
    assert {path: end[path] - first[path] for path in first} == {path: 3 * (last[path] - first[path]) for path in first}


def test_what_is_no_counter_is_as_recorded() -> None:
    """Gauges of the second pass are those of the first."""
    frames = list(looped(recording("cri-dockerd")))
    gauges = [
        [
            (path, reading.memory_current_bytes, reading.details.memory_anon_bytes)
            for path, _, reading in all_readings(frame)
        ]
        for frame in frames
    ]
    assert gauges[2:4] == gauges[:2]


# --- by hand --------------------------------------------------------------------------------------------------------


def frame_of(usage: int | None, *, ino: int = 1, oom_kills: int | None = None, leaf: int | None = None) -> Frame:
    """A frame of one pod, with a leaf or without."""
    reading = Reading(0, cpu_usage_usec=usage, details=Details(memory_oom_kill_events=oom_kills))
    leaves = () if leaf is None else (Leaf("p/l", 5, "l", None, None, Reading(0, cpu_usage_usec=leaf)),)
    pod = PodCgroup("p", ino, "uid", "Burstable", None, reading, leaves)
    return Frame(Instant(0, 0), NodeReading(Reading(0)), (pod,), {}, 0, 0)


def carried(passes: list[list[Frame]]) -> list[list[PodCgroup]]:
    """The pods of each frame of each pass, carried."""
    at = [0]
    carry = Carry(lambda: at[0])
    result = []
    for number, frames in enumerate(passes):
        at[0] = number
        result.append([carry.adjust(frame).pods[0] for frame in frames])
    return result


def test_a_container_that_ended_goes_on_from_its_last_value() -> None:
    """By path: a leaf that is in the middle of the recording alone goes on where it ended."""
    frames = [frame_of(1, leaf=10), frame_of(2, leaf=14), frame_of(3)]
    pods = carried([frames, frames])
    assert [[leaf.reading.cpu_usage_usec for pod in one for leaf in pod.leaves] for one in pods] == [[10, 14], [14, 18]]


def test_a_counter_that_the_last_frame_lacks_goes_on_from_where_it_was_read() -> None:
    """A file that could not be read in the last frame does not throw its counters back."""
    frames = [frame_of(10, oom_kills=1), frame_of(20, oom_kills=4), frame_of(30)]
    kills = [[pod.reading.details.memory_oom_kill_events for pod in one] for one in carried([frames, frames])]
    assert kills == [[1, 4, None], [4, 7, None]]


def test_a_cgroup_made_again_in_the_recording_never_goes_below_zero() -> None:
    """A path whose second cgroup ends below the first one's start carries nothing, and no counter is negative."""
    frames = [frame_of(1000, ino=1), frame_of(1200, ino=1), frame_of(5, ino=2)]
    usage = [[pod.reading.cpu_usage_usec for pod in one] for one in carried([frames, frames])]
    assert usage == [[1000, 1200, 5], [1000, 1200, 5]]


def test_a_counter_that_is_absent_stays_absent() -> None:
    """Carrying makes no value of None."""
    frames = [frame_of(None), frame_of(None)]
    assert [[pod.reading.cpu_usage_usec for pod in one] for one in carried([frames, frames])] == [[None, None]] * 2


def with_devices(read: int, received: int) -> Frame:
    """A frame whose pod, slice and node have used a disk and a network."""
    interfaces = (Interface("eth0", received, *[0] * 7),)
    reading = Reading(0, details=Details(io=(DeviceIo(8, 0, read), DeviceIo(8, 16, None, 2 * read))))
    pod = PodCgroup("p", 1, "uid", "Burstable", None, reading, (), interfaces)
    node = NodeReading(reading, network=interfaces)
    return Frame(Instant(0, 0), node, (pod,), {}, 0, 0, (Slice("s", 2, None, reading),))


def test_devices_and_interfaces_go_on_over_the_seam() -> None:
    """Each counter of each device and interface by its own, on pods, slices and the node; what is absent stays so."""
    at = [0]
    carry = Carry(lambda: at[0])
    frames = [with_devices(10, 100), with_devices(14, 107)]
    first = [carry.adjust(frame) for frame in frames]
    at[0] = 1
    second = [carry.adjust(frame) for frame in frames]

    assert first == frames
    for number, frame in enumerate(second):
        read, received = (14, 18)[number], (107, 114)[number]
        io = (DeviceIo(8, 0, read), DeviceIo(8, 16, None, (28, 36)[number]))
        network = (Interface("eth0", received, *[0] * 7),)
        readings_of = (frame.node.reading, frame.pods[0].reading, frame.slices[0].reading)
        assert [reading.details.io for reading in readings_of] == [io] * 3
        assert (frame.node.network, frame.pods[0].network) == (network, network)
