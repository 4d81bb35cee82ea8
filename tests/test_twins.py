"""A uid that stands in two trees."""

from __future__ import annotations

from collector.model import Details, DeviceIo, Frame, Instant, Leaf, NodeReading, PodCgroup, Reading
from collector.twins import Twins


def reading(usage_usec: int | None, memory_bytes: int = 0, details: Details | None = None) -> Reading:
    """A reading."""
    return Reading(
        0,
        cpu_usage_usec=usage_usec,
        memory_current_bytes=memory_bytes,
        memory_inactive_file_bytes=0,
        details=details or Details(),
    )


def cgroup(
    tree: str, ino: int, read: Reading, *leaves: str, uid: str = "u", started_ns: int | None = None
) -> PodCgroup:
    """The pod's cgroup in a tree."""
    every = tuple(Leaf(f"{tree}/{name}", ino + 1, name, None, None, read) for name in leaves)
    return PodCgroup(tree, ino, uid, "Burstable", started_ns, read, every)


def frame(*pods: PodCgroup) -> Frame:
    """A frame with these."""
    return Frame(Instant(0, 0), NodeReading(Reading(0)), pods, {}, 0, 0)


def test_a_frame_without_twins_is_left_as_it_is() -> None:
    """No work and no copy on a usual node."""
    one = frame(cgroup("a", 1, reading(1)), cgroup("b", 2, reading(1), uid="v"))

    assert Twins().join(one) is one


def test_leaves_and_what_is_used_are_joined() -> None:
    """The pod has the leaves of both, and the sum of both; limits are those of the one with more leaves."""
    of_old = Details(memory_limit_bytes=7, memory_oom_kill_events=1)
    of_new = Details(memory_limit_bytes=8, memory_oom_kill_events=2)
    old = cgroup("old", 1, reading(100, 10, of_old), "a", "b", started_ns=5)
    new = cgroup("new", 9, reading(20, 3, of_new), "c", started_ns=50)
    (joined,) = Twins().join(frame(new, old)).pods

    assert joined[:2] == ("old", 1)
    assert [leaf.container_id for leaf in joined.leaves] == ["c", "a", "b"]
    assert (joined.reading.cpu_usage_usec, joined.reading.memory_current_bytes) == (120, 13)
    assert joined.reading.details.memory_oom_kill_events == 3
    assert joined.reading.details.memory_limit_bytes == 7
    assert joined.started_ns == 5


def test_what_one_of_them_lacks_has_no_sum() -> None:
    """A part that was not read is not 0."""
    (joined,) = Twins().join(frame(cgroup("old", 1, reading(100)), cgroup("new", 2, reading(None)))).pods

    assert joined.reading.cpu_usage_usec is None


def test_a_cgroup_that_goes_leaves_its_counters() -> None:
    """No counter is a sum of members that come and go: gauges fall, counters stay."""
    twins = Twins()
    old, new = cgroup("old", 1, reading(100, 10), "a"), cgroup("new", 2, reading(20, 3))
    twins.join(frame(old, new))
    (left,) = twins.join(frame(cgroup("new", 2, reading(25, 4)))).pods

    assert (left.reading.cpu_usage_usec, left.reading.memory_current_bytes) == (125, 4)


def test_devices_are_added_by_number() -> None:
    """A device that both use has one counter."""

    def using(tree: str, ino: int, *devices: DeviceIo) -> PodCgroup:
        return cgroup(tree, ino, Reading(0, details=Details(io=devices)))

    one, two = DeviceIo(8, 0, read_bytes=5), DeviceIo(8, 0, read_bytes=6)
    (joined,) = Twins().join(frame(using("old", 1, one), using("new", 2, two, DeviceIo(9, 0, read_bytes=1)))).pods

    assert joined.reading.details.io == (DeviceIo(8, 0, read_bytes=11), DeviceIo(9, 0, read_bytes=1))


def test_pods_that_are_gone_are_forgotten() -> None:
    """Nothing is kept of a uid without a cgroup."""
    twins = Twins()
    twins.join(frame(cgroup("old", 1, reading(1)), cgroup("new", 2, reading(1))))
    twins.join(frame())

    assert twins._known == {}
