"""What the walk notes beside readings: falls, what cannot be opened, what else is in a pod, and what has processes."""

from __future__ import annotations

import errno

import pytest

from collector.cgroup.files import SLOW, holder
from collector.cgroup.walk import Walker
from collector.model import DeviceIo, Frame, Other
from tests.support import LEAF_A, LEAF_B, POD_PATH, Cgroup, MemoryTree


def files(usage_usec: int, user_usec: int = 0) -> dict[str, bytes | int]:
    """The fast files."""
    return {
        "cpu.stat": f"usage_usec {usage_usec}\nuser_usec {user_usec}\nsystem_usec 0\n".encode(),
        "memory.current": b"4096\n",
        "memory.stat": b"anon 1\nfile 1\ninactive_file 0\n",
        "cgroup.events": b"populated 0\nfrozen 0\n",
    }


def node(**leaves: Cgroup) -> MemoryTree:
    """A pod with such children."""
    tree = {".": Cgroup(1, files(1)), "kubepods": Cgroup(2, files(1)), "kubepods/burstable": Cgroup(3, files(1))}
    tree[POD_PATH] = Cgroup(4, files(1))
    return MemoryTree({**tree, **{f"{POD_PATH}/{name}": one for name, one in leaves.items()}})


def usages(walker: Walker, tree: MemoryTree, *steps: tuple[int, int]) -> list[Frame]:
    """The frames of a leaf whose counters step so."""
    frames = []
    for usage_usec, user_usec in steps:
        tree.cgroups[f"{POD_PATH}/{LEAF_A}"].files = files(usage_usec, user_usec)
        frames.append(walker.tick())
    return frames


def test_a_counter_that_falls_is_held_until_it_is_passed() -> None:
    """Each counter by itself; held cgroups are named for as long as their CPU stands, and each fall is counted once."""
    tree = node(**{LEAF_A: Cgroup(10, files(0))})
    frames = usages(Walker(tree, slow_every=1), tree, (100, 50), (90, 60), (90, 60), (120, 40), (130, 70))
    readings = [frame.pods[0].leaves[0].reading for frame in frames]

    assert [one.cpu_usage_usec for one in readings] == [100, 100, 100, 120, 130]
    assert [one.cpu_user_usec for one in readings] == [50, 60, 60, 60, 70]
    assert [frame.falls for frame in frames] == [0, 1, 0, 1, 0]
    assert [len(frame.held) for frame in frames] == [0, 1, 1, 0, 0]


def test_a_recording_that_begins_anew_has_no_falls() -> None:
    """At the seam of a loop all counters step back, and are carried on elsewhere."""
    tree = node(**{LEAF_A: Cgroup(10, files(0))})
    walker = Walker(tree, slow_every=1, passes=lambda: int(tree.seconds > 2))
    frames = usages(walker, tree, (100, 0), (200, 0), (100, 0), (150, 0))

    assert [frame.falls for frame in frames] == [0, 0, 0, 0]


def test_a_device_that_goes_away_comes_back_no_lower() -> None:
    """Counters of io.stat are held device by device."""
    hold = holder(next(file for file in SLOW if file.name == "io.stat"))
    assert hold is not None
    first = hold(((DeviceIo(8, 0, 100),),), ((DeviceIo(8, 0, 100),),))
    gone = hold(first.least, ((),))
    again = hold(gone.least, ((DeviceIo(8, 0, 40), DeviceIo(9, 0, 5)),))

    assert (gone.shown, again.shown, again.falls) == (((),), ((DeviceIo(8, 0, 100), DeviceIo(9, 0, 5)),), 1)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_a_leaf_that_cannot_be_opened_is_named(number: int) -> None:
    """It is there, unread; what else is in the pod is read, and once it can be opened it is a leaf."""
    tree = node(**{LEAF_A: Cgroup(10, files(1)), LEAF_B: Cgroup(11, files(1), opening=number)})
    walker = Walker(tree, slow_every=1)
    (pod,) = walker.tick().pods
    assert (pod.unread, len(pod.leaves)) == ((f"{POD_PATH}/{LEAF_B}",), 1)

    tree.cgroups[f"{POD_PATH}/{LEAF_B}"].opening = None
    (pod,) = walker.tick().pods
    assert (pod.unread, len(pod.leaves)) == ((), 2)


def test_a_pod_that_cannot_be_listed_names_itself() -> None:
    """Nobody knows which leaves it has."""
    tree = node(**{LEAF_A: Cgroup(10, files(1))})
    tree.cgroups[POD_PATH].listing = errno.EIO
    (pod,) = Walker(tree, slow_every=1).tick().pods

    assert pod.unread == (POD_PATH,)


def test_a_pod_that_cannot_be_opened_is_named_in_the_frame() -> None:
    """It is in no list of pods."""
    tree = node(**{LEAF_A: Cgroup(10, files(1))})
    tree.cgroups[POD_PATH].opening = errno.EACCES
    frame = Walker(tree, slow_every=1).tick()

    assert (frame.pods, frame.unread) == ((), (POD_PATH,))


def test_what_else_is_in_a_pod_is_told_with_its_cpu() -> None:
    """Conmon's cgroup is no leaf."""
    monitor = f"crio-conmon-{LEAF_A}.scope"
    (pod,) = Walker(node(**{LEAF_A: Cgroup(10, files(1)), monitor: Cgroup(9, files(77))}), slow_every=1).tick().pods

    assert pod.others == (Other(f"{POD_PATH}/{monitor}", 9, 77),)
    assert len(pod.leaves) == 1


def test_populated_is_read_of_doubtful_leaves_alone() -> None:
    """Of others it is not known, and not read."""
    tree = node(**{LEAF_A: Cgroup(10, files(1)), LEAF_B: Cgroup(11, files(1))})
    walker = Walker(tree, slow_every=1)
    walker.tick()
    assert not [path for path in tree.reads if path.endswith(f"{LEAF_A}/cgroup.events")]

    walker.doubtful = {(f"{POD_PATH}/{LEAF_A}", 10)}
    (pod,) = walker.tick().pods
    assert {leaf.container_id: leaf.populated for leaf in pod.leaves} == {LEAF_A: False, LEAF_B: None}

    walker.doubtful = ()
    (pod,) = walker.tick().pods
    assert {leaf.populated for leaf in pod.leaves} == {None}
