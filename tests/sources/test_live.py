"""The live source over plain directories: held descriptors, their limit, and what vanishes."""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from collector.cgroup.walk import Walker
from collector.errors import Absent, Denied, Exhausted, Gone, ReadFailed, UnsupportedNode, classify
from collector.model import Frame
from collector.sources.descriptors import RESERVE
from collector.sources.live import LiveTree
from tests.support import LEAF_A, POD_PATH, UID, cgroup, live, replace, v2_root

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A plain directory that passes for a cgroup v2 mount."""
    return v2_root(tmp_path / "cgroup")


def descriptors() -> set[str]:
    """What this process has open, the listing itself aside, and what earlier tests may have left to the collector."""
    gc.collect()
    listed = os.listdir("/proc/self/fd")
    return {name for name in listed if os.path.exists(f"/proc/self/fd/{name}")}


def values(frame: Frame) -> object:
    """A frame without its clocks, as they differ from tick to tick."""
    return [
        (pod.path, pod.ino, pod.reading[1:-2], sorted((leaf.path, leaf.ino, leaf.reading[1:-2]) for leaf in pod.leaves))
        for pod in sorted(frame.pods)
    ]


def test_a_cgroup_was_made_when_the_earlier_of_its_directory_and_its_events_was(root: Path) -> None:
    """A directory's mtime may move with its children; that of ``cgroup.events`` does not."""
    events = root / POD_PATH / "cgroup.events"
    tree = LiveTree(str(root))
    without = tree.open(POD_PATH).mtime_ns
    events.write_text("populated 1\n")
    os.utime(events, ns=(5_000_000_000, 5_000_000_000))
    os.utime(root / POD_PATH, ns=(7_000_000_000, 7_000_000_000))
    earlier = tree.open(POD_PATH).mtime_ns
    os.utime(events, ns=(9_000_000_000, 9_000_000_000))

    assert without is not None
    assert without > 9_000_000_000
    assert (earlier, tree.open(POD_PATH).mtime_ns) == (5_000_000_000, 7_000_000_000)


# --- roots ----------------------------------------------------------------------------------------------------------


def test_a_root_that_is_not_there_is_refused_with_the_flag_to_give(tmp_path: Path) -> None:
    """The sentence has the path, the reason and the flag."""
    with pytest.raises(UnsupportedNode) as refused:
        LiveTree(str(tmp_path / "nothing"))
    assert str(refused.value) == (
        f"cannot read the cgroup root {tmp_path}/nothing: No such file or directory; "
        "give the mount point of cgroup v2 with --cgroup-root"
    )


@pytest.mark.parametrize("names", [[], ["memory", "cpu,cpuacct"], ["memory", "unified"]])
def test_a_root_that_is_not_v2_is_refused(names: list[str], tmp_path: Path) -> None:
    """An empty directory, a v1 node and a hybrid one are no roots."""
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(UnsupportedNode):
        LiveTree(str(tmp_path))


# --- reading --------------------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_is_now(root: Path) -> None:
    """A held file gives what it holds at each reading."""
    directory = live(root).open(POD_PATH)
    first = directory.read("memory.current")
    (root / POD_PATH / "memory.current").write_text("8192\n")
    assert [first, directory.read("memory.current")] == [b"4096\n", b"8192\n"]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 65536, 69632, 69633, 300_000])
@pytest.mark.parametrize("limit", [0, 1000], ids=["opened", "held"])
def test_a_file_is_read_whole(size: int, limit: int, root: Path) -> None:
    """Whatever its size, also around the size of the buffer, at the first reading and at the next."""
    data = bytes(index % 251 for index in range(size))
    (root / POD_PATH / "memory.stat").write_bytes(data)
    directory = live(root, descriptor_limit=limit).open(POD_PATH)
    assert [directory.read("memory.stat"), directory.read("memory.stat")] == [data, data]


@pytest.mark.parametrize("size", [223, 224, 447, 448, 449, 4095, 4096, 5000])
def test_a_file_that_grows_beyond_its_buffer_is_read_whole(size: int, root: Path) -> None:
    """Files that are read together and were small are whole in the very reading that finds them larger."""
    directory = live(root).open(POD_PATH)
    names = ("cpu.stat", "memory.current")
    for _ in range(2):
        directory.read_all(names, often=True)
    (root / POD_PATH / "cpu.stat").write_bytes(b"x" * size)
    assert [directory.read_all(names, often=True) for _ in range(2)] == [[b"x" * size, b"4096\n"]] * 2


def test_a_file_that_goes_from_among_those_read_together_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives an error does not take the others with it."""
    directory = live(root).open(POD_PATH)
    names = ("cpu.stat", "memory.current")
    whole = directory.read_all(names, often=True)
    read, broken = os.pread, Path("/proc/self/fd")
    gone = {int(fd.name) for fd in broken.iterdir() if fd.exists() and fd.resolve() == root / POD_PATH / "cpu.stat"}

    def pread(fd: int, size: int, offset: int) -> bytes:
        if fd in gone:
            raise OSError(errno.EIO, "broken")
        return read(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    results = directory.read_all(names, often=True)
    assert (str(results[0]), results[1]) == (f"{POD_PATH}/cpu.stat: Input/output error", whole[1])


def test_a_file_that_is_not_there_is_absent(root: Path) -> None:
    """A missing file is Absent, and stays so while the cgroup lives, as a kernel does not grow files."""
    directory = live(root).open(POD_PATH)
    with pytest.raises(Absent):
        directory.read("memory.peak")
    (root / POD_PATH / "memory.peak").write_text("1\n")
    with pytest.raises(Absent):
        directory.read("memory.peak")


@pytest.mark.parametrize("limit", [0, 1000], ids=["opened", "held"])
def test_a_file_of_a_removed_cgroup_is_gone(limit: int, root: Path) -> None:
    """ENOENT of a file is Gone where the directory does not stand any more."""
    directory = live(root, descriptor_limit=limit).open(f"{POD_PATH}/{LEAF_A}")
    leaf = root / POD_PATH / LEAF_A
    for file in leaf.iterdir():
        file.unlink()
    leaf.rmdir()
    with pytest.raises(Gone):
        directory.read("cpu.stat")


def test_a_file_of_a_cgroup_made_again_is_gone(root: Path) -> None:
    """A file that was not read before is not taken from another cgroup at the same path."""
    directory = live(root).open(f"{POD_PATH}/{LEAF_A}")
    replace(root / POD_PATH / LEAF_A, {})
    for file in (root.parent / "removed").rglob("cpu.stat"):
        file.unlink()
    with pytest.raises(Gone):
        directory.read("cpu.stat")


def test_a_file_opened_for_one_reading_is_of_the_cgroup_that_was_opened(root: Path) -> None:
    """Without descriptors, a cgroup made again at the path is not read as the one that stood there before."""
    directory = live(root, descriptor_limit=0).open(f"{POD_PATH}/{LEAF_A}")
    directory.read("cpu.stat")
    replace(root / POD_PATH / LEAF_A)
    with pytest.raises(Gone):
        directory.read("cpu.stat")


def test_a_directory_in_place_of_a_file_is_absent(root: Path) -> None:
    """EISDIR is Absent: there is no such file."""
    (root / POD_PATH / "memory.peak").mkdir()
    with pytest.raises(Absent):
        live(root).open(POD_PATH).read("memory.peak")


def test_a_path_that_is_not_there_or_no_directory_is_gone(root: Path) -> None:
    """ENOENT and ENOTDIR of a directory are Gone."""
    for path in ("kubepods/nothing", "cpu.stat"):
        with pytest.raises(Gone):
            live(root).open(path)


def test_proc_is_read_whole_and_its_errors_are_classified(root: Path) -> None:
    """/proc/<name> is a file below the proc root; a missing one is Absent."""
    tree = live(root)
    assert tree.read_proc("meminfo") == b"SwapTotal:  8 kB\nSwapFree:  4 kB\n"
    with pytest.raises(Absent):
        tree.read_proc("nothing")


# --- listing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 1000], ids=["opened", "held"])
def test_subdirectories_are_listed_when_they_change(limit: int, root: Path) -> None:
    """Files and links are no cgroups; None says that nothing has changed; a new cgroup is seen; force lists anyway."""
    pods = root / "kubepods" / "burstable"
    (pods / "link").symlink_to("/tmp")
    os.utime(pods, (1, 1))
    directory = live(root, descriptor_limit=limit).open("kubepods/burstable")
    seen = [directory.subdirectories(), directory.subdirectories(), directory.subdirectories(force=True)]
    (pods / "podnew").mkdir()
    seen.append(directory.subdirectories())
    assert [sorted(names) if names else names for names in seen] == [
        [f"pod{UID}"],
        None,
        [f"pod{UID}"],
        [f"pod{UID}", "podnew"],
    ]


def test_a_directory_that_has_just_changed_is_listed_again(root: Path) -> None:
    """A second change within one tick of the kernel's clock would not move the mtime: such a one is listed again."""
    pods = root / "kubepods" / "burstable"
    directory = live(root).open("kubepods/burstable")
    (pods / "podnew").mkdir()
    now = time.time() + 60  # so that it has just changed however long the next line takes to come
    os.utime(pods, (now, now))
    directory.subdirectories()
    assert sorted(directory.subdirectories() or []) == [f"pod{UID}", "podnew"]


@pytest.mark.parametrize("limit", [0, 1000], ids=["opened", "held"])
def test_a_removed_directory_is_gone_when_listed(limit: int, root: Path) -> None:
    """Listing what was removed is Gone."""
    (root / "kubepods" / "besteffort").mkdir()
    directory = live(root, descriptor_limit=limit).open("kubepods/besteffort")
    (root / "kubepods" / "besteffort").rmdir()
    with pytest.raises(Gone):
        directory.subdirectories()


def test_a_directory_made_again_is_gone_when_listed_by_path(root: Path) -> None:
    """Without a descriptor the inode tells that another cgroup stands at the path."""
    directory = live(root, descriptor_limit=0).open(POD_PATH)
    replace(root / POD_PATH)
    with pytest.raises(Gone):
        directory.subdirectories()


# --- descriptors ----------------------------------------------------------------------------------------------------


def test_closing_lets_go_of_all_descriptors(root: Path) -> None:
    """After ticks and close the process has open what it had before, and the count is zero."""
    before = descriptors()
    tree = live(root)
    walker = Walker(tree)
    for _ in range(3):
        walker.tick()
    held = tree.held
    walker.close()
    assert (held > 0, tree.held, descriptors() - before) == (True, 0, set())


def test_a_vanished_cgroup_lets_go_of_its_descriptors(root: Path) -> None:
    """What is held after a pod has come and gone is what was held before it came."""
    tree = live(root)
    walker = Walker(tree)
    walker.tick()
    before = tree.held, len(descriptors())
    pod = root / "kubepods" / "podgone"
    cgroup(pod / LEAF_A)
    walker.tick()
    pod.rename(root.parent / "removed")
    walker.tick()
    assert (tree.held, len(descriptors())) == before


@pytest.mark.parametrize("limit", range(0, 17, 2))
def test_beyond_the_limit_files_are_opened_for_each_reading(limit: int, root: Path) -> None:
    """No more than the limit is held, and the values are the same."""
    expected = values(Walker(live(root)).tick())
    before = len(descriptors())
    tree = live(root, descriptor_limit=limit)
    walker = Walker(tree)
    ticks = [values(walker.tick()) for _ in range(2)]
    assert (ticks, tree.held <= limit, len(descriptors()) - before) == ([expected] * 2, True, tree.held)
    walker.close()


def test_readings_that_had_to_open_are_counted(root: Path) -> None:
    """Without any descriptor each file that is read is opened, and counted once a reading."""
    tree = live(root, descriptor_limit=0)
    directory = tree.open(POD_PATH)
    for _ in range(3):
        directory.read("cpu.stat")
    assert tree.opened_for_one_read == 3


def test_what_is_read_seldom_is_not_held(root: Path) -> None:
    """Without hold a file is opened for the reading alone, whatever room there is, and that is no lack of room."""
    tree = live(root)
    directory = tree.open(POD_PATH)
    held = tree.held
    read = [directory.read_all(("cpu.stat",), often=False, hold=False) for _ in range(2)]
    assert (read[0], read[0] == read[1], tree.held - held, tree.opened_for_one_read) == (
        [(root / POD_PATH / "cpu.stat").read_bytes()],
        True,
        0,
        0,
    )


def test_new_cgroups_are_seen_beyond_the_limit(root: Path) -> None:
    """A pod that comes when no descriptor is left is read like the others."""
    tree = live(root, descriptor_limit=3)
    walker = Walker(tree)
    walker.tick()
    cgroup(root / "kubepods" / "podnew" / LEAF_A)
    (root / "kubepods" / "podnew" / "cpu.stat").write_text("usage_usec 7\n")
    assert {pod.uid: pod.reading.cpu_usage_usec for pod in walker.tick().pods} == {UID: 1000, "new": 7}


LOWERED = """
import json, os, resource, sys
from collector.cgroup.walk import Walker
from collector.sources.descriptors import RESERVE
from collector.sources.live import LiveTree
root, proc, limit, taken = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
tree = LiveTree(root, proc)
others = [os.open("/dev/null", os.O_RDONLY) for _ in range(taken)]
walker = Walker(tree)
most = tree.descriptor_limit
ticks = [walker.tick() for _ in range(2)]
limits = [tree.descriptor_limit, tree.held]
for one in others:
    os.close(one)
ticks += [walker.tick() for _ in range(2)]
limits += [tree.descriptor_limit, tree.held]
print(json.dumps([
    {
        "usage": sorted(
            (p.uid, p.reading.cpu_usage_usec, [leaf.reading.cpu_usage_usec for leaf in p.leaves]) for p in t.pods
        ),
        "errors": dict(t.errors),
    }
    for t in ticks
] + [tree.held <= limit, tree.opened_for_one_read > 0, [most, *limits]]))
"""


def lowered(root: Path, *, limit: int, taken: int) -> list[Any]:
    """Four ticks of a process that may open ``limit`` files, ``taken`` of them taken during the first two; then how
    many might be held at first, and how many might be and were after two ticks and after four.
    """
    done = subprocess.run(
        [sys.executable, "-c", LOWERED, str(root), str(root.parent / "proc"), str(limit), str(taken)],
        capture_output=True,
        text=True,
        cwd=REPO,
        env={"PYTHONPATH": str(REPO), "PYTHONWARNINGS": "error"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def crowded(root: Path) -> Path:
    """Thirty more pods."""
    for number in range(30):
        cgroup(cgroup(root / "kubepods" / f"pod{number}") / LEAF_A)
    return root


@pytest.mark.parametrize("limit", [40, 64, 80, 150])
def test_a_process_that_may_open_few_files_reads_all_the_same(limit: int, crowded: Path) -> None:
    """With RLIMIT_NOFILE at a fraction of what would be held, every value is there and no error is counted."""
    usage = sorted([[str(number), 1000, [1000]] for number in range(30)] + [[UID, 1000, [1000, 1000]]])
    tick = {"usage": usage, "errors": {}}
    assert lowered(crowded, limit=limit, taken=0)[:-1] == [tick, tick, tick, tick, True, True]


def test_running_out_of_descriptors_ends_no_tick_and_passes(crowded: Path) -> None:
    """When others take what was left, ticks go on, the errors are counted, and all is read once they let go."""
    usage = sorted([[str(number), 1000, [1000]] for number in range(30)] + [[UID, 1000, [1000, 1000]]])
    ticks = lowered(crowded, limit=150, taken=120)
    assert [set(tick["errors"]) for tick in ticks[:2]] == [{"exhausted"}] * 2
    assert ticks[3] == {"usage": usage, "errors": {}}


def test_the_limit_rises_again_when_descriptors_are_free_again(crowded: Path) -> None:
    """What others have taken may not be held, and is held as before once they let go."""
    most, *after = lowered(crowded, limit=200, taken=160)[-1]

    assert most > 100
    assert after[:2] == [0, after[1]]
    assert after[1] < most
    assert after[2:] == [most, most]


def test_descriptors_that_others_keep_are_not_held(root: Path) -> None:
    """The limit rises to what others leave, and stays where it is while nothing can be opened to find it out."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    tree = live(root, descriptor_limit=150)
    others = [os.open("/dev/null", os.O_RDONLY) for _ in range(60)]
    try:
        opened = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened, limit[1]))
        with pytest.raises(Exhausted):
            tree.open(POD_PATH)
        tree.begin()
        lowest = tree.descriptor_limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 101, limit[1]))
        tree.begin()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        for one in others:
            os.close(one)

    assert (lowest, tree.descriptor_limit) == (0, 100 - RESERVE)


def test_errors_of_opening_are_told_apart() -> None:
    """What a directory's errno means is what classify says: no right is Denied, no descriptor Exhausted."""
    assert [type(classify(number, "p", "directory")) for number in (errno.EACCES, errno.EMFILE)] == [Denied, Exhausted]


def test_a_file_that_appears_later_is_found(root: Path) -> None:
    """A controller that is switched on later gives its files: what was absent is looked for again after a while."""
    tree = live(root)
    directory = tree.open(POD_PATH)
    with pytest.raises(Absent):
        directory.read("memory.zswap.current")
    (root / POD_PATH / "memory.zswap.current").write_text("7\n")
    with pytest.raises(Absent):
        directory.read("memory.zswap.current")
    directory._absent["memory.zswap.current"] = 0

    assert directory.read("memory.zswap.current") == b"7\n"


def test_where_nobody_can_tell_whether_a_cgroup_has_gone_its_file_failed(root: Path) -> None:
    """A missing file is looked for by the path of its directory; where that cannot be followed the file's values are
    left out, and nothing ends the tick but a cgroup that has gone.
    """
    directory = live(root).open(POD_PATH)
    above = (root / POD_PATH).parent
    above.rename(above.with_name("elsewhere"))
    above.symlink_to(above.name)

    (found,) = directory.read_all(("memory.zswap.current",), often=False)

    assert isinstance(found, ReadFailed)
