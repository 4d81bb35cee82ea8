"""The walk: which cgroups of each layout are pods and leaves, and what comes and goes from tick to tick."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path

import pytest

from collector.cgroup.files import FAST, SLOW, STILL_TICKS, Needs
from collector.cgroup.walk import Walker
from collector.errors import Denied, EndOfRecording, Gone
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import needs
from collector.model import Details, DeviceIo, Frame, Interface, NodeReading, Reading
from collector.seams import Glimpse
from collector.sources.live import LiveTree
from collector.sources.recording import RecordedTree
from tests.support import (
    LEAF_A,
    LEAF_B,
    LEAF_C,
    POD_PATH,
    UID,
    Cgroup,
    MemoryTree,
    cgroup,
    frames_of,
    live,
    readings,
    recording,
    replace,
    v2_root,
)


def shape(frame: Frame) -> list[tuple[str, int]]:
    """QoS class and number of leaves of each pod, in order."""
    return sorted((pod.qos_class, len(pod.leaves)) for pod in frame.pods)


def leaves(frame: Frame) -> dict[str, list[str]]:
    """First letters of the leaves' ids, by their pod's uid."""
    return {pod.uid: sorted(leaf.container_id[0] for leaf in pod.leaves) for pod in frame.pods}


def usage(frame: Frame) -> dict[str, int | None]:
    """CPU of all pods and leaves, by path."""
    return {path: reading.cpu_usage_usec for path, _, reading in readings(frame)}


# --- the layouts ----------------------------------------------------------------------------------------------------

SHAPES: dict[str, list[tuple[str, int]]] = {
    "cri-dockerd": [("Burstable", 3), ("Guaranteed", 2)],
    "cri-dockerd-cgroupfs": [("BestEffort", 2), ("Burstable", 2), ("Guaranteed", 2)],
    "crio-conmon": [("BestEffort", 2), ("Burstable", 3)],
    "crun-subgroup": [("Guaranteed", 2)],
    "docker-outside-kind": [("Burstable", 2), ("Guaranteed", 2)],
    "kind-nested": [("BestEffort", 2), ("Burstable", 3)],
    "missing-files": [("BestEffort", 3), ("Burstable", 2), ("Guaranteed", 2)],
    "restart": [("Burstable", 3)],
    "static-pod": [("Burstable", 2), ("Guaranteed", 2)],
    "two-uids": [("Guaranteed", 2), ("Guaranteed", 2)],
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_layout_gives_its_pods_and_leaves(name: str) -> None:
    """Each synthetic layout has these pods, by QoS class, with so many leaves, in its first frame."""
    assert shape(frames_of(recording(name))[0]) == SHAPES[name]


@pytest.mark.parametrize("name", ["systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst"])
def test_both_drivers_of_one_node_give_the_same_pods(name: str) -> None:
    """The captured recordings of one cluster have thirteen pods each in their first frame, in all three QoS places."""
    pods = frames_of(recording(name))[0].pods
    assert Counter(pod.qos_class for pod in pods).keys() == {"Guaranteed", "Burstable", "BestEffort"}
    assert {pod.path.count("/") for pod in pods if pod.qos_class == "Guaranteed"} == {1}


def test_conmon_is_no_container() -> None:
    """crio-conmon-<id>.scope stands beside crio-<id>.scope and is not among the leaves."""
    paths = [leaf.path for frame in frames_of(recording("crio-conmon")) for pod in frame.pods for leaf in pod.leaves]
    assert [path for path in paths if "conmon" in path] == []
    assert len(paths) == 10


def test_the_sub_cgroup_of_crun_is_not_descended() -> None:
    """Nothing below a container's scope is read: its numbers are in the scope's already."""
    tree = RecordedTree(recording("crun-subgroup"))
    frame = Walker(tree, slow_every=1).tick()
    assert {leaf.path.rpartition("/")[2].partition("-")[0] for pod in frame.pods for leaf in pod.leaves} == {"crio"}
    assert any(path.endswith(".scope/container") for path in tree.frame.dirs)


def test_a_pod_keeps_its_class_and_uid() -> None:
    """The uid has its dashes under both drivers, and a static pod's has none."""
    frame = frames_of(recording("static-pod"))[0]
    assert sorted((len(pod.uid), pod.uid.count("-")) for pod in frame.pods) == [(32, 0), (36, 4)]


def test_a_leaf_has_its_start_and_inode_from_its_directory() -> None:
    """Path, inode and mtime of each leaf are those of the recording's dirs."""
    recorded = recording("cri-dockerd")
    dirs = recorded.frames[0].dirs
    found = {leaf.path: (leaf.ino, leaf.started_ns) for pod in frames_of(recorded)[0].pods for leaf in pod.leaves}
    assert found == {path: (dirs[path].ino, dirs[path].mtime_ns) for path in found}


def test_a_reading_of_a_recording_has_the_recorded_time() -> None:
    """Each cgroup's monotonic time is the frame's plus how much later its directory was read."""
    recorded = recording("cri-dockerd")
    frame, entry = frames_of(recorded)[0], recorded.frames[0]
    told = {path: reading.monotonic_ns for path, _, reading in readings(frame)}
    assert told == {
        path: entry.instant.monotonic_ns + entry.dirs[path].time_ns - entry.instant.time_ns for path in told
    }


def test_what_a_kernel_lacks_is_absent() -> None:
    """Linux 5.15 without swap and PSI gives None for their values, and 0 for none of them."""
    details = frames_of(recording("missing-files"))[0].pods[0].reading.details
    assert (details.swap_usage_bytes, details.memory_peak_bytes, details.cpu_pressure_some_usec) == (None, None, None)
    assert details.memory_anon_bytes is not None


def test_a_cgroup_that_is_gone_in_a_frame_is_left_out_of_it() -> None:
    """A leaf whose file is ENODEV is not in the frame, its pod is, and no error is counted."""
    first, second = frames_of(recording("missing-files"))
    gone = usage(first).keys() - usage(second).keys()
    assert [path.count("/") for path in gone] == [3]
    assert second.errors == {}


# --- a tree that changes --------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A plain directory that passes for a cgroup v2 mount: one pod, two leaves."""
    return v2_root(tmp_path / "cgroup")


@pytest.fixture
def walker(root: Path) -> Iterator[Walker]:
    """A walker over it, after its first tick."""
    made = Walker(live(root))
    made.tick()
    yield made
    made.close()


def remove(path: Path) -> None:
    """Take a cgroup away; its open files still can be read, unlike the kernel's, as if that came a moment later."""
    shutil.rmtree(path)


def test_a_new_leaf_is_seen_at_the_next_tick(root: Path, walker: Walker) -> None:
    """A container that starts is in the next frame."""
    cgroup(root / POD_PATH / LEAF_C)
    assert leaves(walker.tick()) == {UID: ["a", "b", "c"]}


def test_a_vanished_leaf_is_not_in_the_next_tick(root: Path, walker: Walker) -> None:
    """A container that ended is not in the next frame, and that is no error."""
    remove(root / POD_PATH / LEAF_A)
    frame = walker.tick()
    assert (leaves(frame), frame.errors) == ({UID: ["b"]}, {})


def test_one_leaf_removed_and_one_made_between_two_ticks_are_seen(root: Path, walker: Walker) -> None:
    """The number of directories being equal hides nothing."""
    remove(root / POD_PATH / LEAF_A)
    cgroup(root / POD_PATH / LEAF_C)
    assert leaves(walker.tick()) == {UID: ["b", "c"]}


def test_new_and_vanished_pods_are_seen_at_the_next_tick(root: Path, walker: Walker) -> None:
    """In each QoS place, one that had no directory before included."""
    remove(root / POD_PATH)
    cgroup(root / "kubepods" / "podguaranteed" / LEAF_A)
    cgroup(root / "kubepods" / "besteffort" / "podlow" / LEAF_B)
    frame = walker.tick()
    assert sorted((pod.uid, pod.qos_class) for pod in frame.pods) == [
        ("guaranteed", "Guaranteed"),
        ("low", "BestEffort"),
    ]
    assert leaves(frame) == {"guaranteed": ["a"], "low": ["b"]}


@pytest.mark.parametrize("path", [POD_PATH, f"{POD_PATH}/{LEAF_A}"], ids=["pod", "leaf"])
def test_a_cgroup_made_again_at_its_path_is_another(path: str, root: Path, walker: Walker) -> None:
    """Its inode, its values and its start are those of the new one."""
    cgroup(root / "aside" / "x")
    replace(root / path, {"cpu.stat": "usage_usec 3\n"})
    frame = walker.tick()
    found = {path: (ino, reading.cpu_usage_usec) for path, ino, reading in readings(frame)}
    assert found[path] == ((root / path).stat().st_ino, 3)
    assert found[path][0] != 0


def test_a_file_that_disappears_before_it_was_read_is_absent(root: Path) -> None:
    """A missing file leaves its values out and is no error."""
    (root / POD_PATH / "memory.current").unlink()
    frame = Walker(live(root)).tick()
    assert (frame.pods[0].reading[1:-2], frame.errors) == (
        Reading(0, 1000, 600, 400, None, None, None, None, 1024, Details(2048, 1024))[1:-2],
        {},
    )


def test_values_are_those_of_the_tick(root: Path, walker: Walker) -> None:
    """What is written between two ticks is read at the second."""
    (root / POD_PATH / LEAF_A / "cpu.stat").write_text("usage_usec 2000\n")
    assert usage(walker.tick()) == {POD_PATH: 1000, f"{POD_PATH}/{LEAF_A}": 2000, f"{POD_PATH}/{LEAF_B}": 1000}


def test_a_value_that_becomes_absent_is_not_kept(root: Path, walker: Walker) -> None:
    """A key that a file has no more is None, whatever it was."""
    (root / POD_PATH / "memory.stat").write_text("anon 1\n")
    assert walker.tick().pods[0].reading.memory_inactive_file_bytes is None


def test_the_node_is_the_root_cgroup_and_meminfo(root: Path) -> None:
    """CPU and memory.stat of the root, swap of /proc/meminfo."""
    node = Walker(live(root)).tick().node
    at = node.reading.monotonic_ns
    assert node == NodeReading(
        Reading(at, 9000, details=Details(memory_anon_bytes=1), slow_ns=at, seldom_ns=at),
        swap_total_bytes=8192,
        swap_free_bytes=4096,
        started_ns=root.stat().st_mtime_ns,
    )


# --- errors ---------------------------------------------------------------------------------------------------------


def small(changes: Mapping[str, Cgroup] | None = None, meminfo: bytes | int = b"") -> MemoryTree:
    """A tree in memory with one pod of two leaves, all with CPU and memory."""
    files: dict[str, bytes | int] = {
        "cpu.stat": b"usage_usec 10\n",
        "memory.current": b"20\n",
        "memory.stat": b"anon 1\ninactive_file 5\n",
    }
    made = {
        ".": Cgroup(1, {"cpu.stat": b"usage_usec 99\n"}),
        "kubepods": Cgroup(2),
        "kubepods/podx": Cgroup(3, dict(files)),
        f"kubepods/podx/{LEAF_A}": Cgroup(4, dict(files)),
        f"kubepods/podx/{LEAF_B}": Cgroup(5, dict(files)),
    }
    return MemoryTree(made | dict(changes or {}), {"meminfo": meminfo})


@pytest.mark.parametrize(
    ("number", "errors"),
    [
        (errno.EACCES, {"denied": 1}),
        (errno.EMFILE, {"exhausted": 1}),
        (errno.EIO, {"failed": 1}),
        (errno.ENOENT, {}),
        (errno.EOPNOTSUPP, {}),
    ],
)
def test_a_file_that_cannot_be_read_leaves_its_values_out(number: int, errors: dict[str, int]) -> None:
    """Its cgroup stays with the values of its other files; what is no normal absence is counted by reason."""
    tree = small()
    tree.cgroups["kubepods/podx"].files["memory.current"] = number
    frame = Walker(tree).tick()
    reading = frame.pods[0].reading
    assert (reading.cpu_usage_usec, reading.memory_current_bytes, reading.memory_inactive_file_bytes) == (10, None, 5)
    assert frame.errors == errors


@pytest.mark.parametrize("data", [b"", b"max\n", b"-5\n", b"\xff\n", b"1 2\n"])
def test_a_malformed_file_leaves_its_values_out_and_is_counted(data: bytes) -> None:
    """A value is read or it is absent; malformed bytes are one error of their reason."""
    tree = small()
    tree.cgroups["kubepods/podx"].files["memory.current"] = data
    frame = Walker(tree).tick()
    assert (frame.pods[0].reading.memory_current_bytes, frame.errors) == (None, {"malformed": 1})


def test_errors_are_counted_each_tick_by_reason() -> None:
    """The count is of the tick, not of all ticks, and reasons add up over cgroups."""
    tree = small(meminfo=b"x")
    tree.cgroups["kubepods/podx"].files |= {"cpu.stat": errno.EACCES, "pids.current": errno.EACCES, "memory.max": b"?"}
    walker = Walker(tree, slow_every=1)
    assert [walker.tick().errors for _ in range(2)] == [{"denied": 2, "malformed": 2}] * 2


def test_a_leaf_that_may_not_be_opened_is_left_out_and_tried_again() -> None:
    """A directory without the right to open it is counted, the others are read, and later it may be there."""
    denied = f"kubepods/podx/{LEAF_A}"
    tree = small()
    tree.cgroups[denied].opening = errno.EACCES
    walker = Walker(tree)
    first = walker.tick()
    tree.cgroups[denied].opening = None
    second = walker.tick()
    assert [leaves(first), leaves(second)] == [{"x": ["b"]}, {"x": ["a", "b"]}]
    assert [first.errors.keys(), second.errors.keys()] == [{"denied"}, set()]


def test_a_leaf_that_may_not_be_opened_is_one_error_a_tick() -> None:
    """What is counted is cgroups that could not be opened, not tries."""
    tree = small()
    tree.cgroups[f"kubepods/podx/{LEAF_A}"].opening = errno.EACCES
    assert Walker(tree).tick().errors == {"denied": 1}


def test_a_root_that_was_made_again_is_opened_again() -> None:
    """After a tick that fails with it, the next one reads the root that is there now, as after a new mount."""
    tree = small()
    walker = Walker(tree)
    walker.tick()
    tree.cgroups["."] = Cgroup(99, {"cpu.stat": b"usage_usec 3\n"})
    with suppress(Gone):
        walker.tick()
    assert walker.tick().node.reading.cpu_usage_usec == 3


@pytest.mark.parametrize("path", [".", "kubepods", "kubepods/podx"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_directory_that_cannot_be_listed_ends_no_tick(number: int, path: str) -> None:
    """It is counted, what is known of it stays, and the next tick that may list it sees all."""
    tree = small()
    walker = Walker(tree)
    walker.tick()
    tree.cgroups[path].listing = number
    second = walker.tick()
    tree.cgroups[path].listing = None
    third = walker.tick()
    assert (sum(second.errors.values()) > 0, leaves(third)) == (True, {"x": ["a", "b"]})


def test_a_kubepods_that_may_not_be_opened_ends_no_tick() -> None:
    """It is counted, and the node is read."""
    tree = small()
    tree.cgroups["kubepods"].opening = errno.EACCES
    frame = Walker(tree, kubepods="kubepods").tick()
    assert (frame.pods, frame.errors, frame.node.reading.cpu_usage_usec) == ((), {"denied": 1}, 99)


def test_a_root_that_cannot_be_opened_fails_the_tick() -> None:
    """Without the root there is nothing to read: the error gets out, and a later tick may find it."""
    tree = small()
    tree.cgroups["."].opening = errno.EACCES
    walker = Walker(tree)
    with pytest.raises(Denied):
        walker.tick()
    tree.cgroups["."].opening = None
    assert leaves(walker.tick()) == {"x": ["a", "b"]}


class Vanishing(MemoryTree):
    """When ``trigger`` is about to be read, ``victim`` and all below it are replaced by ``heirs``."""

    def __init__(self, before: MemoryTree, trigger: str, victim: str, heirs: Mapping[str, Cgroup]) -> None:
        super().__init__(before.cgroups, before.proc)
        self._trigger, self._victim, self._heirs = trigger, victim, heirs

    def before_read(self, path: str) -> None:
        if path == self._trigger and self.seconds == 2:
            for name in [name for name in self.cgroups if name == self._victim or name.startswith(self._victim + "/")]:
                del self.cgroups[name]
            self.cgroups |= self._heirs


A, B, C = (f"kubepods/podx/{leaf}" for leaf in (LEAF_A, LEAF_B, LEAF_C))
NEW: dict[str, bytes | int] = {"cpu.stat": b"usage_usec 1\n"}

VANISHING: dict[str, tuple[str, str, dict[str, Cgroup], dict[str, int]]] = {
    "a leaf while it is read": (f"{A}/memory.current", A, {}, {"kubepods/podx": 10, B: 10}),
    "a leaf before it is read": (f"{A}/cpu.stat", B, {}, {"kubepods/podx": 10, A: 10}),
    "a leaf, another in its place": (f"{A}/memory.current", A, {C: Cgroup(9, NEW)}, {"kubepods/podx": 10, B: 10, C: 1}),
    "a leaf, made again": (f"{A}/memory.current", A, {A: Cgroup(9, NEW)}, {"kubepods/podx": 10, B: 10, A: 1}),
    "a pod while it is read": ("kubepods/podx/memory.current", "kubepods/podx", {}, {}),
    "a pod with its leaves": (f"{A}/cpu.stat", "kubepods/podx", {}, {}),
    "a pod, another in its place": (
        "kubepods/podx/cpu.stat",
        "kubepods/podx",
        {"kubepods/pody": Cgroup(8, NEW), f"kubepods/pody/{LEAF_A}": Cgroup(9, NEW)},
        {"kubepods/pody": 1, f"kubepods/pody/{LEAF_A}": 1},
    ),
    "all of kubepods": (f"{A}/cpu.stat", "kubepods", {}, {}),
}


@pytest.mark.parametrize("case", VANISHING)
def test_what_vanishes_between_listing_and_reading_is_no_error(case: str) -> None:
    """It is left out, what took its place is in the same frame, the others are whole, and nothing is counted."""
    trigger, victim, heirs, expected = VANISHING[case]
    walker = Walker(Vanishing(small(), trigger, victim, heirs))
    walker.tick()
    frame = walker.tick()
    assert (usage(frame), frame.errors) == (expected, {})


@pytest.mark.parametrize("case", VANISHING)
def test_after_that_the_next_tick_is_whole(case: str) -> None:
    """The tick after has all that there is."""
    trigger, victim, heirs, expected = VANISHING[case]
    walker = Walker(Vanishing(small(), trigger, victim, heirs))
    frames = [walker.tick() for _ in range(3)]
    assert usage(frames[2]) == expected


# --- slow files -----------------------------------------------------------------------------------------------------

SLOW_ONLY = {file.name for file in SLOW if not file.every_tick_of_pods} - {file.name for file in FAST}


def slow_reads(tree: MemoryTree) -> set[str]:
    """Paths of the pods and leaves whose slow files were read in the last tick."""
    return {
        path.rpartition("/")[0]
        for path in tree.reads
        if path.rpartition("/")[2] in SLOW_ONLY and path.startswith("kubepods/podx")
    }


def test_slow_files_are_read_in_turns() -> None:
    """At first all are read, then each cgroup's every third tick, and not all in one."""
    tree = small()
    walker = Walker(tree, slow_every=3)
    turns = []
    for _ in range(7):
        walker.tick()
        turns.append(slow_reads(tree))
    assert turns[0] == {"kubepods/podx", A, B}
    assert [set().union(*turns[at : at + 3]) for at in (1, 2, 3, 4)] == [turns[0]] * 4
    assert [len(turn) for turn in turns[1:]] == [1] * 6


def test_the_turns_of_cgroups_whose_inodes_are_alike_differ() -> None:
    """A kernel gives each new cgroup an inode as far from the last one's as that was from the one before."""
    tree = small()
    for number, path in enumerate(("kubepods", "kubepods/podx", A, B)):
        tree.cgroups[path].ino = 3 * number + 6
    walker = Walker(tree, slow_every=3)
    turns = []
    for _ in range(4):
        walker.tick()
        turns.append(slow_reads(tree))
    assert [len(turn) for turn in turns] == [3, 1, 1, 1]


def stat_reads(tree: MemoryTree) -> list[str]:
    """Paths of the pods and leaves whose memory.stat was read in the last tick."""
    return [path for path in tree.reads if path.startswith("kubepods/podx") and path.endswith("/memory.stat")]


def unmoved(slow_every: int) -> tuple[MemoryTree, Walker]:
    """A small node after two ticks, in which no ``memory.current`` moves."""
    tree = small()
    walker = Walker(tree, slow_every=slow_every)
    walker.tick()
    walker.tick()
    return tree, walker


def test_memory_stat_is_not_read_while_memory_current_stands_still() -> None:
    """But once in five ticks, by turns, however seldom slow files are read."""
    tree, walker = unmoved(slow_every=1000)
    reads: list[str] = []
    for _ in range(STILL_TICKS):
        walker.tick()
        reads += stat_reads(tree)
    assert Counter(reads) == Counter(f"{path}/memory.stat" for path in ("kubepods/podx", A, B))


def test_memory_stat_is_read_in_the_tick_in_which_memory_current_moves() -> None:
    """And of that cgroup alone: its working set is of one tick."""
    tree, walker = unmoved(slow_every=1000)
    for value in range(21, 21 + STILL_TICKS):
        files = tree.cgroups[A].files
        files["memory.current"], files["memory.stat"] = b"%d\n" % value, b"anon 1\ninactive_file %d\n" % (value - 14)
        frame = walker.tick()
        (reading,) = (leaf.reading for leaf in frame.pods[0].leaves if leaf.path == A)
        assert reading.memory_working_set_bytes == 14


def test_memory_stat_that_could_not_be_read_is_read_again() -> None:
    """Though memory.current stands still."""
    tree, walker = unmoved(slow_every=1000)
    tree.cgroups[A].files["memory.stat"] = errno.EIO
    for _ in range(STILL_TICKS):
        walker.tick()
    tree.cgroups[A].files["memory.stat"] = b"anon 1\ninactive_file 6\n"
    frame = walker.tick()
    assert [leaf.reading.memory_inactive_file_bytes for leaf in frame.pods[0].leaves if leaf.path == A] == [6]


def working_sets(name: str, slow_every: int) -> list[tuple[int, str, int | None]]:
    """Of every pod and leaf in every frame of a recording."""
    walker = Walker(RecordedTree(recording(name)), slow_every=slow_every)
    found: list[tuple[int, str, int | None]] = []
    with suppress(EndOfRecording):
        for number in count():
            read = readings(walker.tick())
            found += [(number, path, one.memory_working_set_bytes) for path, _, one in read]
    return found


def test_a_working_set_that_is_held_until_memory_stat_is_read_again_is_off_by_a_page() -> None:
    """On a real node, over two and a half minutes: a pod's, for four ticks."""
    each, some = (working_sets("parity-1hz.tar.zst", every) for every in (1, 1000))
    off = [(a or 0) - (b or 0) for (*_, a), (*_, b) in zip(each, some, strict=True) if a != b]
    assert off == [4096] * 4


def test_between_turns_the_last_details_stand() -> None:
    """A reading has the details of the last turn, and those of a new turn when it comes."""
    tree = small()
    files = tree.cgroups["kubepods/podx"].files
    walker = Walker(tree, slow_every=3)
    files["pids.current"] = b"1\n"
    first = walker.tick()
    files["pids.current"] = b"2\n"
    later = [walker.tick() for _ in range(3)]
    tasks = [frame.pods[0].reading.details.tasks for frame in (first, *later)]
    assert (tasks[0], tasks[-1], sorted(tasks, key=lambda n: n or 0) == tasks) == (1, 2, True)


def events(kills: int) -> bytes:
    """A memory.events with so many kills."""
    return b"oom_kill %d\n" % kills


def test_a_pods_events_are_read_every_tick() -> None:
    """memory.events of a pod is of this tick whatever its turn, and its other details are of the last turn."""
    tree = small()
    files = tree.cgroups["kubepods/podx"].files
    walker = Walker(tree, slow_every=100)
    seen = []
    for number in (1, 2, 3):
        files |= {"memory.events": events(number), "pids.current": b"%d\n" % number}
        details = walker.tick().pods[0].reading.details
        seen.append((details.memory_oom_kill_events, details.tasks))
    del files["memory.events"]

    assert seen == [(1, 1), (2, 1), (3, 1)]
    assert walker.tick().pods[0].reading.details.memory_oom_kill_events is None


def test_a_pods_events_are_back_in_the_tick_after_an_error() -> None:
    """Also where the error befell them in the turn of the slow files, and what they hold is what they held before."""
    tree = small()
    files = tree.cgroups["kubepods/podx"].files
    walker = Walker(tree, slow_every=4)
    seen = []
    for number in range(9):
        files["memory.events"] = errno.EIO if number in (5, 7) else events(3)
        seen.append(walker.tick().pods[0].reading.details.memory_oom_kill_events)

    assert seen == [3, 3, 3, 3, 3, None, 3, None, 3]


def test_an_event_of_a_pod_has_its_containers_read_at_once() -> None:
    """When a pod's memory.events has changed its containers' slow files are read in the same tick, and only then."""
    tree = small()
    walker = Walker(tree, slow_every=1000)
    reads = []
    for number in (0, 0, 1, 1):
        for path in ("kubepods/podx", A):
            tree.cgroups[path].files["memory.events"] = events(number)
        frame = walker.tick()
        reads.append(slow_reads(tree))
    (leaf,) = [leaf for leaf in frame.pods[0].leaves if leaf.path == A]

    assert reads[1:] == [set(), {A, B}, set()]
    assert leaf.reading.details.memory_oom_kill_events == 1


def test_a_young_leaf_has_all_its_files_read_every_tick() -> None:
    """One that comes while the walker is at work may not live to its turn: for so many ticks as there are between two
    turns all of it is read in each.
    """
    tree = small()
    walker = Walker(tree, slow_every=3)
    walker.tick()
    tree.cgroups[f"kubepods/podx/{LEAF_C}"] = Cgroup(999, {"cpu.stat": b"usage_usec 1\n", "memory.peak": b"1\n"})
    turns = []
    for _ in range(12):
        walker.tick()
        turns.append(f"kubepods/podx/{LEAF_C}" in slow_reads(tree))

    assert turns[:4] == [True] * 4
    assert sum(turns[4:]) < 4


def test_pods_are_watched_for_what_a_short_life_leaves() -> None:
    """Of what comes and goes in a pod between two ticks the source is to read the fast files, peak and events."""
    tree = small()
    Walker(tree).tick()

    assert tree.watched == {
        "kubepods/podx": ("cpu.stat", "memory.current", "memory.stat", "memory.peak", "memory.events")
    }


def test_a_leaf_that_came_and_went_between_two_ticks_is_in_the_frame() -> None:
    """With its last reading, in its pod, in the next frame alone; what is no container or in no pod is in none."""
    tree = small()
    walker = Walker(tree)
    walker.tick()
    files = {"cpu.stat": b"usage_usec 7\n", "memory.peak": b"8\n", "memory.current": b"no number\n"}
    tree.seen = [
        Glimpse(f"{parent}/{name}", 77, 5, 1_250_000_000, files)
        for parent, name in (
            ("kubepods/podx", LEAF_C),
            ("kubepods/podx", f"crio-conmon-{LEAF_C}.scope"),
            ("kubepods/pody", LEAF_C),
        )
    ]
    frame = walker.tick()

    ((pod,), (leaf,)) = frame.pods, frame.pods[0].gone
    assert (leaf.path, leaf.ino, leaf.container_id, leaf.started_ns) == (f"kubepods/podx/{LEAF_C}", 77, LEAF_C, 5)
    at_ns = 1_250_000_000
    assert leaf.reading == Reading(at_ns, cpu_usage_usec=7, details=Details(memory_peak_bytes=8), slow_ns=at_ns)
    assert frame.errors == {"malformed": 1}
    assert len(pod.leaves) == 2
    assert walker.tick().pods[0].gone == ()


def test_a_leaf_that_went_in_the_middle_of_a_tick_is_in_one_frame_or_the_other() -> None:
    """One that was read in this tick and has gone by its end is a leaf of this frame, and gone in the next."""
    tree = small()
    walker = Walker(tree)
    tree.seen = [Glimpse(A, 4, None, 1, {"cpu.stat": b"usage_usec 11\n"})]
    first = walker.tick()
    del tree.cgroups[A]
    second, third = walker.tick(), walker.tick()

    told = [
        ([leaf.path for leaf in frame.pods[0].leaves], [leaf.reading.cpu_usage_usec for leaf in frame.pods[0].gone])
        for frame in (first, second, third)
    ]
    assert told == [([A, B], []), ([B], [11]), ([B], [])]


def test_what_is_not_needed_is_not_read() -> None:
    """A slow file that gives none of the fields that are needed, of pods or of containers, is not read of these."""
    tree = small()
    wanted = Needs(pods=frozenset({"tasks"}), containers=frozenset({"memory_peak_bytes", "memory_anon_bytes"}))
    walker = Walker(tree, slow_every=1, needs=wanted)
    walker.tick()
    walker.tick()
    names = {
        of: {path.rpartition("/")[2] for path in tree.reads if path.rpartition("/")[0] == of}
        for of in ("kubepods/podx", A)
    }
    fast = {"cpu.stat", "memory.current", "memory.stat"}

    assert names == {"kubepods/podx": fast | {"pids.current"}, A: fast | {"memory.peak"}}


def test_the_details_of_a_cgroup_made_again_are_its_own() -> None:
    """Between two turns a new cgroup at the path does not inherit what was read of the old one."""
    tree = small()
    tree.cgroups[A].files["pids.current"] = b"1\n"
    walker = Walker(tree, slow_every=100)
    walker.tick()
    tree.cgroups[A] = Cgroup(77, {"cpu.stat": b"usage_usec 1\n"})
    found = {leaf.path: leaf.reading.details.tasks for leaf in walker.tick().pods[0].leaves}
    assert found[A] is None


def test_the_working_set_of_the_node_is_of_one_reading() -> None:
    """The root's slow keys are read every tick, as its working set is made of slow and fast ones."""
    tree = small()
    walker = Walker(tree, slow_every=100)
    seen = []
    for number in (1, 2):
        tree.cgroups["."].files["memory.stat"] = b"anon %d\nfile 10\ninactive_file %d\n" % (number, number)
        seen.append(walker.tick().node.memory_working_set_bytes)
    assert seen == [10, 10]


def test_a_file_is_read_once_a_tick() -> None:
    """memory.stat serves its fast row and its slow one with one reading."""
    tree = small()
    frame = Walker(tree, slow_every=1).tick()
    assert [path for path, times in Counter(tree.reads).items() if times > 1 and tree_has(tree, path)] == []
    assert frame.cgroups == 5


def tree_has(tree: MemoryTree, path: str) -> bool:
    """True if the file is there."""
    directory, _, name = path.rpartition("/")
    return name in tree.cgroups[directory].files


def test_an_ended_recording_ends_the_ticks() -> None:
    """EndOfRecording gets out of a tick, so that a replay knows."""
    walker = Walker(RecordedTree(recording("restart")))
    walker.tick()
    walker.tick()
    with pytest.raises(EndOfRecording):
        walker.tick()


def test_an_error_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The same error tick after tick is one line in the log."""
    tree = small()
    tree.cgroups["kubepods/podx"].files["memory.current"] = errno.EACCES
    walker = Walker(tree)
    for _ in range(3):
        walker.tick()
    told = [record.getMessage() for record in caplog.records if "podx" in record.getMessage()]
    assert told == ["kubepods/podx/memory.current: Permission denied (told once)"]


def test_closing_twice_is_harmless(root: Path) -> None:
    """A walker that has read nothing, or is closed already, can be closed."""
    unused = Walker(live(root))
    unused.close()
    used = Walker(live(root))
    used.tick()
    used.close()
    used.close()


def test_sandboxes_are_read_with_the_slow_files() -> None:
    """A leaf that is told to be read seldom keeps its reading from turn to turn, and is there all the same."""
    tree = small()
    walker = Walker(tree, slow_every=4)
    first = walker.tick()
    (seldom,) = [leaf for leaf in first.pods[0].leaves if leaf.container_id.startswith("a")]
    walker.seldom = {(seldom.path, seldom.ino)}
    files, stamps = [], set()
    for _ in range(8):
        frame = walker.tick()
        (same,) = [leaf for leaf in frame.pods[0].leaves if leaf.container_id.startswith("a")]
        files.append(frame.files_read)
        stamps.add(same.reading.monotonic_ns)

    assert len(stamps) == 3
    assert len(frame.pods[0].leaves) == len(first.pods[0].leaves)


# --- what is read seldom --------------------------------------------------------------------------------------------


def reads_of(tree: MemoryTree, name: str) -> set[str]:
    """Paths of the cgroups of which a file was read in the last tick."""
    return {path.rpartition("/")[0] for path in tree.reads if path.rpartition("/")[2] == name}


def test_seldom_files_are_read_every_third_slow_turn() -> None:
    """Of pods, leaves and slices, and of containers what pods have every slow turn, each six ticks apart."""
    tree = small()
    walker = Walker(tree, slow_every=2, needs=needs(DEFAULT_GROUPS))
    seen: dict[str, list[int]] = {}
    for tick in range(19):
        walker.tick()
        for path in reads_of(tree, "io.stat"):
            seen.setdefault(path, []).append(tick)
        assert reads_of(tree, "cpu.pressure") & {A, B, "."} == reads_of(tree, "io.stat") & {A, B, "."}
        assert reads_of(tree, "io.stat") <= slow_reads(tree) | {"kubepods", "."}
    gaps = {path: {later - earlier for earlier, later in pairwise(ticks[1:])} for path, ticks in seen.items()}
    assert gaps == {path: {6} for path in (".", "kubepods", "kubepods/podx", A, B)}
    assert all(ticks[0] == 0 for ticks in seen.values())


def test_what_else_is_needed_of_a_seldom_file_is_read_every_slow_turn() -> None:
    """A file that something needs of pods is read of them in each turn, of containers still seldom, and not twice."""
    tree = small()
    io = frozenset({"io"})
    walker = Walker(tree, slow_every=2, needs=Needs(pods=io, containers=frozenset(), seldom=io))
    seen: Counter[str] = Counter()
    for _ in range(12):
        walker.tick()
        assert len(set(tree.reads)) == len(tree.reads)
        seen.update(reads_of(tree, "io.stat"))
    assert (seen["kubepods/podx"] >= 6, seen["kubepods"] >= 6, seen[A] <= 3, seen[B] <= 3) == (True,) * 4


def test_a_recording_has_every_file_in_every_frame() -> None:
    """With every tick a slow turn, what is seldom else is read in each too."""
    tree = small()
    walker = Walker(tree, slow_every=1)
    for _ in range(3):
        walker.tick()
        assert reads_of(tree, "io.stat") == {".", "kubepods", "kubepods/podx", A, B}


def test_a_reading_tells_when_its_parts_were_read() -> None:
    """The times of the slow and of the seldom files stay those of their last turns, and values with them."""
    tree = small()
    tree.cgroups[A].files |= {"io.stat": b"8:0 rbytes=1\n", "memory.max": b"1\n"}
    walker = Walker(tree, slow_every=2, needs=needs(DEFAULT_GROUPS))
    times = []
    for _ in range(12):
        (leaf, _) = sorted(walker.tick().pods[0].leaves)
        times.append((leaf.reading.slow_ns, leaf.reading.seldom_ns))
        assert (leaf.reading.details.io, leaf.reading.details.memory_limit_bytes) == ((DeviceIo(8, 0, 1),), 1)
    slow, seldom = (sorted({one[place] or 0 for one in times}) for place in (0, 1))
    assert set(seldom) < set(slow)
    assert all(one[0] is not None and one[1] is not None and one[0] >= one[1] for one in times)


def wanted_walker(tree: MemoryTree, wanted: list[bool], slow_every: int = 2) -> Walker:
    """A walker whose seldom files are wanted while the list holds True."""
    return Walker(tree, slow_every=slow_every, needs=needs(DEFAULT_GROUPS), seldom_wanted=lambda _: wanted[0])


def test_seldom_files_that_nobody_wants_are_not_read() -> None:
    """Neither at first nor at any turn, of no cgroup; what other expositions need is."""
    tree = with_processes(b"97\n")
    walker = wanted_walker(tree, [False])
    for _ in range(13):
        frame = walker.tick()
        assert reads_of(tree, "io.stat") | reads_of(tree, "cgroup.procs") == set()
        assert [reading.seldom_ns for _, _, reading in readings(frame)] == [None] * 3
    assert (frame.node.reading.seldom_ns, frame.node.devices, frame.node.network) == (None, None, None)
    assert [reading.slow_ns is not None for _, _, reading in readings(frame)] == [True] * 3


def test_seldom_files_wanted_anew_are_read_at_once() -> None:
    """Of every cgroup in the next tick, sandboxes too, whoever's turn it is, and then in turns again."""
    tree, wanted = with_processes(b"97\n"), [False]
    tree.proc["partitions"] = b"major minor  #blocks  name\n\n 8 0 100 sda\n"
    walker = wanted_walker(tree, wanted, slow_every=5)
    walker.seldom = {(A, 4)}
    for _ in range(3):
        walker.tick()
    wanted[0] = True
    frame = walker.tick()
    at_once = reads_of(tree, "io.stat")
    walker.tick()

    assert at_once == {".", "kubepods", "kubepods/podx", A, B}
    assert [reading.seldom_ns == reading.monotonic_ns for _, _, reading in readings(frame)] == [True] * 3
    assert (frame.node.devices, received(frame.pods[0].network), received(frame.node.network)) == (
        {(8, 0): "sda"},
        [97],
        [1],
    )
    assert reads_of(tree, "io.stat") < at_once


def test_a_tick_that_failed_has_read_nothing_for_anybody() -> None:
    """The next one reads all that is wanted anew."""
    tree, wanted = small(), [False]
    walker = wanted_walker(tree, wanted)
    walker.tick()
    wanted[0] = True
    tree.cgroups["."].files["cpu.stat"] = errno.ENODEV
    with pytest.raises(Gone):
        walker.tick()
    tree.cgroups["."].files["cpu.stat"] = b"usage_usec 99\n"
    walker.tick()

    assert reads_of(tree, "io.stat") == {".", "kubepods", "kubepods/podx", A, B}


def test_seldom_values_that_nobody_wants_any_more_are_absent() -> None:
    """Within the turns of all, and with them what was read beside: they are never told for what they were once. What
    else is read of the same files stays.
    """
    tree, wanted = with_processes(b"97\n"), [True]
    stat = b"anon 1\ninactive_file 5\nfile_mapped 6\npgfault 7\npgmajfault 8\n"
    tree.cgroups[A].files |= {"io.stat": b"8:0 rbytes=1\n", "memory.stat": stat}
    tree.proc["partitions"] = b"major minor  #blocks  name\n\n 8 0 100 sda\n"
    walker = wanted_walker(tree, wanted)
    before = walker.tick()
    wanted[0] = False
    for _ in range(6):
        after = walker.tick()
    (of_before,), (of_after,) = (
        [leaf.reading for leaf in one.pods[0].leaves if leaf.path == A] for one in (before, after)
    )

    assert (of_before.details.io, of_before.details.memory_page_faults) == ((DeviceIo(8, 0, 1),), 7)
    assert of_after.details == of_before.details._replace(
        io=None,
        memory_mapped_file_bytes=None,
        memory_page_faults=None,
        memory_major_page_faults=None,
        processes=None,
        process_id=None,
    )
    assert (of_after.details.memory_anon_bytes, of_after.seldom_ns) == (1, None)
    assert (before.node.devices, received(before.pods[0].network), received(before.node.network)) == (
        {(8, 0): "sda"},
        [97],
        [1],
    )
    assert (after.node.devices, after.pods[0].network, after.node.network) == (None, None, None)


def test_an_unreadable_file_of_several_rows_is_one_error() -> None:
    """What is read once is counted once, though cpu.stat has a fast row and a seldom one."""
    tree = small()
    tree.cgroups[A].files["cpu.stat"] = errno.EACCES
    assert Walker(tree).tick().errors == {"denied": 1}


# --- slices and networks --------------------------------------------------------------------------------------------


def test_kubepods_and_its_classes_are_read_as_pods_are() -> None:
    """Each directory that holds pods is a slice of the frame, with its reading and in order of path."""
    frame = frames_of(recording("systemd-containerd.tar.zst"))[0]
    assert [(one.path, one.reading.details.cpu_weight) for one in frame.slices] == [
        ("kubepods.slice", 79),
        ("kubepods.slice/kubepods-besteffort.slice", 1),
        ("kubepods.slice/kubepods-burstable.slice", 11),
    ]
    assert all((one.reading.cpu_usage_usec or 0) > 0 for one in frame.slices)


def test_a_slice_that_vanishes_while_it_is_read_is_not_in_the_frame() -> None:
    """It is gone with its pods."""
    tree = small()

    def vanish(path: str) -> None:
        if path == f"{A}/cpu.stat":
            tree.cgroups = {name: one for name, one in tree.cgroups.items() if not name.startswith("kubepods")}

    tree.before_read = vanish  # type: ignore[method-assign]
    frame = Walker(tree).tick()
    assert (frame.slices, frame.pods) == ((), ())


NET = b"Inter-|  Receive | Transmit\n face |bytes\n  eth0: %d 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"


def with_processes(a: bytes, b: bytes = b"0\n", *, pids: Collection[int] = (1, 97, 98)) -> MemoryTree:
    """A pod whose leaves hold these processes, all of which have a network in /proc."""
    tree = small()
    tree.cgroups[A].files["cgroup.procs"] = a
    tree.cgroups[B].files["cgroup.procs"] = b
    tree.proc |= {f"{pid}/net/dev": NET % pid for pid in pids}
    return tree


def received(network: tuple[Interface, ...] | None) -> list[int] | None:
    """Bytes received on each interface: the fake /proc has the process' id there."""
    return None if network is None else [one.receive_bytes for one in network]


@pytest.mark.parametrize(
    ("a", "b", "of_pod", "of_node"),
    [
        (b"97\n", b"98\n", [97], [1]),
        (b"", b"98\n", [98], [1]),
        (b"98\n97\n", b"", [97], [1]),
        (b"0\n", b"0\n", None, None),
        (b"0\n", b"98\n", None, None),
        (b"", b"", None, None),
        (b"0\n97\n", b"", None, None),
    ],
    ids=[
        "the sandbox",
        "no process in the sandbox",
        "several",
        "another PID namespace",
        "podtally's own",
        "no process",
        "partly",
    ],
)
def test_a_pods_network_is_that_of_a_process_in_it(
    a: bytes, b: bytes, of_pod: list[int] | None, of_node: list[int] | None
) -> None:
    """The sandbox' process, which has the lower inode, else a container's; without a visible one there is none, and
    the node's own is not known either, as process 1 may be podtally's.
    """
    frame = Walker(with_processes(a, b)).tick()
    assert (received(frame.pods[0].network), received(frame.node.network)) == (of_pod, of_node)


def test_the_nodes_network_is_read_next_to_the_root() -> None:
    """It bears the time of the root's reading: the walk over all pods, seconds on a node in trouble, is after it. In
    the first tick it is not known before a pod's process has been seen.
    """
    tree = with_processes(b"97\n")
    tree.before_read = lambda path: tree.proc.update({"1/net/dev": NET % 7}) if path.startswith(A) else None  # type: ignore[method-assign]
    walker = Walker(tree, slow_every=1)
    seen = []
    for bytes_before in (1, 2):
        tree.proc["1/net/dev"] = NET % bytes_before
        seen.append(received(walker.tick().node.network))
    assert seen == [[7], [2]]


def test_where_the_kernels_threads_are_not_seen_no_network_is_read() -> None:
    """In a PID namespace of its own podtally sees its own processes, whose network is not the node's: without those
    of the root cgroup it reads none.
    """
    tree = with_processes(b"", b"1\n")
    seen = []
    for lowest in (b"2\n", b"0\n"):
        tree.cgroups["."].files["cgroup.procs"] = lowest
        frame = Walker(tree).tick()
        seen.append((received(frame.pods[0].network), received(frame.node.network)))
    assert seen == [([1], [1]), (None, None)]


def test_a_process_that_ended_meanwhile_gives_no_network() -> None:
    """Its id may be another process' by then: it must be in the cgroup after the reading as well."""
    tree = with_processes(b"97\n")
    looks = []

    def end(path: str) -> None:
        if path == f"{A}/cgroup.procs":
            looks.append(path)
            if len(looks) == 3:
                tree.cgroups[A].files["cgroup.procs"] = b"98\n"

    tree.before_read = end  # type: ignore[method-assign]
    assert Walker(tree).tick().pods[0].network is None
    assert len(looks) == 3


@pytest.mark.parametrize(("answer", "errors"), [(errno.ENOENT, {}), (errno.ESRCH, {}), (errno.EACCES, {"denied": 2})])
def test_a_network_that_cannot_be_read_is_absent(answer: int, errors: dict[str, int]) -> None:
    """A process that has ended is normal; what is denied is counted."""
    tree = with_processes(b"97\n")
    tree.proc |= {"97/net/dev": answer, "1/net/dev": answer}
    frame = Walker(tree).tick()
    assert (frame.pods[0].network, frame.node.network, frame.errors) == (None, None, errors)


def test_networks_are_read_with_the_seldom_files() -> None:
    """Between two turns the last reading stands."""
    tree = with_processes(b"97\n")
    walker = Walker(tree, slow_every=2)
    seen = []
    for number in range(7):
        tree.proc["97/net/dev"] = NET % number
        seen.append(received(walker.tick().pods[0].network))
    assert len({str(one) for one in seen}) == 2
    assert seen[0] == [0]


def test_devices_are_named_by_proc_partitions() -> None:
    """Absent where it cannot be read, and read again with the root's seldom files."""
    tree = small()
    without = Walker(tree).tick().node.devices
    tree.proc["partitions"] = b"major minor  #blocks  name\n\n 8 0 100 sda\n"
    assert (without, Walker(tree).tick().node.devices) == (None, {(8, 0): "sda"})


def test_this_process_network_is_read_from_the_kernel(root: Path) -> None:
    """A real /proc: a cgroup that holds this process has the interfaces that this process sees."""
    (root / POD_PATH / LEAF_A / "cgroup.procs").write_text(f"{os.getpid()}\n")
    frame = Walker(LiveTree(str(root))).tick()
    names = [line.partition(":")[0].strip() for line in Path("/proc/self/net/dev").read_text().splitlines()[2:]]
    network = next(pod.network for pod in frame.pods)
    assert network is not None
    assert [one.name for one in network] == names
