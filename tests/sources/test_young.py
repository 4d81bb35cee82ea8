"""Cgroups that come and go between two ticks of a live tree: in plain directories and, where that may be, in real ones.

A plain directory is made before its files, a real cgroup with them: so the plain ones are whole before the rest begins.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector.cgroup.walk import Walker
from collector.model import Frame, Leaf
from collector.sources import young
from collector.sources.inotify import Inotify
from collector.sources.live import LiveTree
from tests.helpers import DEADLINE_SECONDS, wait_until
from tests.support import LEAF_A, LEAF_C, POD_PATH, cgroup, live, v2_root


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[LiveTree]:
    """A live tree over a plain directory, which follows what comes and goes."""
    one = live(v2_root(tmp_path / "cgroup"))
    one.follow()
    yield one
    assert one.watching is not None
    one.watching.close()


def rest(tree: LiveTree, *steps: Callable[[], object]) -> None:
    """Wait for the next tick, which is due once another thread has taken the steps, one after the other."""
    due = threading.Event()

    def run() -> None:
        try:
            for step in steps:
                step()
        finally:
            due.set()

    thread = threading.Thread(target=run)
    thread.start()
    tree.rest(due, 10 * DEADLINE_SECONDS)
    thread.join()


def followed(tree: LiveTree, number: int = 1, cpu_stat: bytes = b"", but: int | None = None) -> Callable[[], None]:
    """A step that waits until so many cgroups have been read since they came, with this in their ``cpu.stat``, and none
    of them is the one of the inode ``but``.
    """

    def read() -> bool:
        assert tree.watching is not None
        young = [one for one in tuple(tree.watching._young.values()) if one.monotonic_ns and one.directory.ino != but]
        return len(young) == number and all(one.files.get("cpu.stat", b"").endswith(cpu_stat) for one in young)

    return lambda: wait_until(read)


def remove(path: Path) -> None:
    """Remove a cgroup with its files; those held open can be read until the directory has gone."""
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def gone(frame: Frame) -> list[Leaf]:
    """The leaves that came and went, of all pods."""
    return [leaf for pod in frame.pods for leaf in pod.gone]


def test_a_container_that_lives_for_less_than_a_tick_is_read(tree: LiveTree) -> None:
    """Made and removed while the next tick is waited for, it is in that tick's frame with what was read of it last."""
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()
    cgroup(pod / LEAF_C)

    def grow() -> None:
        (pod / LEAF_C / "cpu.stat").write_text("usage_usec 4321\n")

    rest(tree, grow, followed(tree, cpu_stat=b" 4321\n"), lambda: remove(pod / LEAF_C))
    first, second = walker.tick(), walker.tick()
    walker.close()

    (leaf,) = gone(first)
    assert (leaf.container_id, leaf.reading.cpu_usage_usec, leaf.reading.memory_current_bytes) == (LEAF_C, 4321, 4096)
    assert leaf.started_ns is not None
    assert gone(second) == []
    assert tree.held == 0


def test_one_that_lives_on_is_the_walks(tree: LiveTree) -> None:
    """What a tick has seen is followed to the end of the next, and then let go of: it ends as any other."""
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()
    rest(tree, lambda: cgroup(pod / LEAF_C), followed(tree))
    walker.tick()
    held = tree.held
    walker.tick()
    assert tree.held < held
    shutil.rmtree(pod / LEAF_C)
    frame = walker.tick()
    walker.close()

    assert gone(frame) == []
    assert all(leaf.container_id != LEAF_C for leaf in frame.pods[0].leaves)


def test_one_that_goes_soon_after_its_first_tick_was_read_since(tree: LiveTree) -> None:
    """It is gone in the first frame without it, with what was read of it between the two."""
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()
    cgroup(pod / LEAF_C)
    seen = walker.tick()

    def grow() -> None:
        (pod / LEAF_C / "cpu.stat").write_text("usage_usec 4321\n")

    rest(tree, grow, followed(tree, cpu_stat=b" 4321\n"), lambda: remove(pod / LEAF_C))
    frame = walker.tick()
    walker.close()

    assert LEAF_C in {leaf.container_id for leaf in seen.pods[0].leaves}
    assert [leaf.reading.cpu_usage_usec for leaf in gone(frame)] == [4321]


def test_what_has_gone_before_it_could_be_opened_is_left_out(tree: LiveTree) -> None:
    """It cannot be read any more: nothing is told of it, and nothing fails."""
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()
    (pod / LEAF_C).mkdir()
    (pod / LEAF_C).rmdir()
    frame = walker.tick()
    walker.close()

    assert (gone(frame), frame.errors) == ([], {})


def test_another_at_the_same_path_is_another(tree: LiveTree) -> None:
    """A cgroup that is removed and made again between two ticks is told of twice, with two inodes."""
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()

    def replace() -> None:
        (pod / LEAF_C).rename(pod.parent / "aside")
        (pod / LEAF_C).mkdir()

    other = followed(tree, but=cgroup(pod / LEAF_C).stat().st_ino)

    rest(tree, followed(tree), replace, other, (pod / LEAF_C).rmdir)
    found = gone(walker.tick())
    walker.close()

    assert [leaf.path for leaf in found] == [f"{POD_PATH}/{LEAF_C}"] * 2
    assert len({leaf.ino for leaf in found}) == 2


def test_pods_that_have_gone_are_watched_no_longer(tree: LiveTree) -> None:
    """A watch ends with its pod."""
    assert tree.watching is not None
    walker = Walker(tree)
    walker.tick()
    assert [path for path, _ in tree.watching._watched.values()] == [POD_PATH]
    shutil.rmtree(Path(tree.root, POD_PATH))
    walker.tick()
    walker.close()

    assert tree.watching._watched == {}


def test_no_more_are_followed_than_is_cheap(tree: LiveTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number they are left to the ticks: a burst must not take all descriptors."""
    monkeypatch.setattr(young, "_AT_MOST", 2)
    pod = Path(tree.root, POD_PATH)
    walker = Walker(tree)
    walker.tick()
    paths = [pod / f"{number:064x}" for number in range(4)]

    def make_all() -> None:
        for path in paths:
            cgroup(path)

    def remove_all() -> None:
        for path in paths:
            remove(path)

    rest(tree, make_all, followed(tree, 2), remove_all)
    found = gone(walker.tick())
    walker.close()

    assert len(found) == 2


def test_a_rest_ends_in_time(tree: LiveTree) -> None:
    """It takes as long as is asked for, and ends soon after the program is to."""
    stop = threading.Event()
    begun = time.monotonic()
    tree.rest(stop, 0.2)
    rested = time.monotonic() - begun
    threading.Timer(0.1, stop.set).start()
    tree.rest(stop, 3600)

    assert rested >= 0.2
    assert time.monotonic() - begun < 60


def test_a_node_without_inotify_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the limit of instances is reached the ticks go on, and the log names what is missed and the limit."""

    def refuse(self: Inotify) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Inotify, "__init__", refuse)
    tree = live(v2_root(tmp_path / "cgroup"))
    tree.follow()
    tree.rest(threading.Event(), 0.01)
    walker = Walker(tree)

    assert len(walker.tick().pods[0].leaves) == 2
    walker.close()
    assert caplog.messages == [
        "containers that live for less than a tick go unseen, as the node gives no inotify: Too many open files;"
        " fs.inotify.max_user_instances may be too low"
    ]


def test_a_pod_that_cannot_be_watched_is_told_once(
    tree: LiveTree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the limit of watches is reached the log says so once, and pods are read as ever."""

    def refuse(self: Inotify, path: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Inotify, "add", refuse)
    cgroup(Path(tree.root, "kubepods/podother") / LEAF_A)
    walker = Walker(tree)

    assert len(walker.tick().pods) == 2
    walker.close()
    assert [message for message in caplog.messages if "watched" in message] == [
        "containers that live for less than a tick may go unseen, as a pod cannot be watched: No space left on device;"
        " fs.inotify.max_user_watches may be too low (told once)"
    ]


# --- real cgroups ---------------------------------------------------------------------------------------------------

MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def kubepods() -> Iterator[Path]:
    """A kubepods of real cgroups with a pod in it, where this machine lets us make them."""
    mount = next((path for path in MOUNTS if (path / "cgroup.controllers").exists()), None)
    if mount is None or not os.access(mount, os.W_OK):
        pytest.skip("no cgroup v2 file system that this user may make cgroups in")
    top = mount / f"podtally-test-{os.getpid()}"
    made = [top, top / "kubepods", top / "kubepods" / "podx", top / "kubepods" / "podx" / LEAF_A]
    try:
        for path in made:
            path.mkdir()
        yield made[1]
    finally:
        for path in reversed(made):
            if path.exists():
                path.rmdir()


def test_the_kernel_tells_of_real_cgroups(kubepods: Path) -> None:
    """A cgroup that is made and removed between two ticks is told of by cgroupfs, and read."""
    mount = kubepods.parent.parent
    tree = LiveTree(str(mount))
    tree.follow()
    assert tree.watching is not None
    walker = Walker(tree, kubepods=str(kubepods.relative_to(mount)))
    walker.tick()
    leaf = kubepods / "podx" / LEAF_C
    rest(tree, leaf.mkdir, followed(tree), leaf.rmdir)
    (found,) = gone(walker.tick())
    walker.close()
    tree.watching.close()

    assert found.container_id == LEAF_C
    assert found.reading.cpu_usage_usec == 0
