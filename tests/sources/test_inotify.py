"""inotify(7): directories that are made and removed in a watched one."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from collector.sources.inotify import Event, Inotify


@pytest.fixture
def inotify() -> Iterator[Inotify]:
    """An instance."""
    with closing(Inotify()) as one:
        yield one


def test_directories_are_told_as_they_come_and_go(inotify: Inotify, tmp_path: Path) -> None:
    """In order and by name, whatever the name; files are not told of, nor is what is deeper."""
    watch = inotify.add(str(tmp_path))
    name = "caf\udce9 \n"
    (tmp_path / name).mkdir()
    (tmp_path / name / "deeper").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / name / "deeper").rmdir()
    (tmp_path / name).rmdir()

    assert inotify.read() == [Event(watch, name, True), Event(watch, name, False)]
    assert inotify.read() == []


def test_more_events_than_fit_in_one_read_are_told(inotify: Inotify, tmp_path: Path) -> None:
    """A burst is read to its end."""
    watch = inotify.add(str(tmp_path))
    names = [f"{number:0200}" for number in range(1000)]
    for name in names:
        (tmp_path / name).mkdir()

    assert inotify.read() == [Event(watch, name, True) for name in names]


def test_what_is_watched_no_longer_is_not_told(inotify: Inotify, tmp_path: Path) -> None:
    """Removing a watch ends its events; to remove it again, or after its directory has gone, is harmless."""
    kept, dropped = tmp_path / "kept", tmp_path / "dropped"
    kept.mkdir()
    dropped.mkdir()
    watches = [inotify.add(str(path)) for path in (kept, dropped)]
    inotify.remove(watches[1])
    inotify.remove(watches[1])
    (dropped / "x").mkdir()
    (kept / "x").mkdir()

    assert inotify.read() == [Event(watches[0], "x", True)]
    (kept / "x").rmdir()
    kept.rmdir()
    inotify.remove(watches[0])


def test_what_cannot_be_watched_is_an_error(inotify: Inotify, tmp_path: Path) -> None:
    """A directory that is not there, or a file, gives the kernel's errno."""
    (tmp_path / "file").touch()
    for name, number in (("nothing", errno.ENOENT), ("file", errno.ENOTDIR)):
        with pytest.raises(OSError, match="directory") as told:
            inotify.add(str(tmp_path / name))
        assert told.value.errno == number
