"""Cgroups between two ticks: those that come are read again and again, so that one that goes before the next tick has
been read all the same.

inotify tells of them. It is read, and they are, in the ticks' own thread while it waits for the next tick: there is no
second thread, and on a node where nothing comes there is nothing to do.
"""

from __future__ import annotations

import errno
import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from collector.errors import Gone, SourceError
from collector.seams import Directory, Glimpse
from collector.sources.inotify import Inotify

log = logging.getLogger(__name__)

_READ_AGAIN_SECONDS: Final = 0.05
_READ_AGAIN_SHARE: Final = 0.1
"""When a young cgroup is read again: after so long, or this share of its age, if that is longer. So much of its life
may be missing from its last reading; and where ticks are far apart, the price does not grow with them."""

_TICKS: Final = 2
"""It is followed until so many ticks have ended since it came. The first has seen it, if it lived, but maybe at the age
of a moment: one that ends soon after has a last reading that is worth more."""

_AT_MOST: Final = 64
"""Followed at one time. More come together but where a node starts."""

_NAP_SECONDS: Final = 0.25
"""How soon the end of the program is noticed while nothing happens."""


class _Young:
    """A cgroup that came a moment ago."""

    __slots__ = ("came", "directory", "due", "files", "monotonic_ns", "names", "ticks")

    def __init__(self, directory: Directory, names: tuple[str, ...]) -> None:
        self.directory = directory
        self.names = names
        self.came = self.due = time.monotonic()
        self.ticks = 0
        self.monotonic_ns = 0
        self.files: dict[str, bytes] = {}
        """What was read last of all that could be read."""

    def read(self) -> None:
        """Read it once more. Raises :class:`Gone`, and then has what it had before."""
        now, monotonic_ns = time.monotonic(), time.monotonic_ns()
        self.due = now + max(_READ_AGAIN_SECONDS, _READ_AGAIN_SHARE * (now - self.came))
        found = self.directory.read_all(self.names, often=True)
        self.files = {name: data for name, data in zip(self.names, found, strict=True) if isinstance(data, bytes)}
        self.monotonic_ns = monotonic_ns


class Watch:
    """Follows what comes and goes in watched cgroups. Used by one thread."""

    def __init__(self, open_directory: Callable[[str], Directory]) -> None:
        """``open_directory`` opens a cgroup by its path. Raises :class:`OSError` where the node gives no inotify."""
        self._open = open_directory
        self._inotify = Inotify()
        self._poll = select.poll()
        self._poll.register(self._inotify.fd, select.POLLIN)
        self._watched: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._young: dict[str, _Young] = {}
        self._gone: list[Glimpse] = []
        self._told = False

    def add(self, where: str, path: str, names: tuple[str, ...]) -> int | None:
        """Watch the cgroup ``path``, which is at ``where``, and read ``names`` of those that come in it; the watch."""
        try:
            watch = self._inotify.add(where)
        except OSError as error:
            # One that has gone meanwhile is normal.
            if error.errno != errno.ENOENT and not self._told:
                self._told = True
                log.warning(
                    "containers that live for less than a tick may go unseen, as a pod cannot be watched: %s; "
                    "fs.inotify.max_user_watches may be too low (told once)",
                    error.strerror,
                )
            return None
        self._watched[watch] = (path, names)
        return watch

    def remove(self, watch: int) -> None:
        """Watch it no longer."""
        self._watched.pop(watch, None)
        self._inotify.remove(watch)

    def rest(self, stop: threading.Event, seconds: float) -> None:
        """Wait, as ``stop.wait(seconds)`` does, and follow meanwhile what comes and goes."""
        end = time.monotonic() + seconds
        while not stop.is_set() and (now := time.monotonic()) < end:
            due = min((young.due for young in self._young.values()), default=end)
            self._poll.poll(1000 * max(0.0, min(end - now, due - now, _NAP_SECONDS)))
            self._follow()

    def taken(self) -> list[Glimpse]:
        """What has gone since the last call, as it was read last. Called as a tick ends."""
        self._follow()
        for path, young in list(self._young.items()):
            young.ticks += 1
            if young.ticks == _TICKS:
                self._young.pop(path).directory.close()
        gone, self._gone = self._gone, []
        return gone

    def _follow(self) -> None:
        for event in self._inotify.read():
            path, names = self._watched.get(event.watch, ("", ()))
            if path and event.made:
                self._meet(f"{path}/{event.name}", names)
            elif path:
                self._part(f"{path}/{event.name}")
        now = time.monotonic()
        for path, young in list(self._young.items()):
            if now >= young.due:
                try:
                    young.read()
                except Gone:
                    self._part(path)

    def _meet(self, path: str, names: tuple[str, ...]) -> None:
        self._part(path)
        if len(self._young) >= _AT_MOST:
            return
        try:
            self._young[path] = _Young(self._open(path), names)
        except SourceError as error:
            # It has gone already, or the walk will tell what is amiss.
            log.debug("%s cannot be followed: %s", path, error)

    def _part(self, path: str) -> None:
        """It has gone, or another stands in its place."""
        young = self._young.pop(path, None)
        if young is None:
            return
        young.directory.close()
        if young.monotonic_ns:
            directory = young.directory
            self._gone.append(Glimpse(path, directory.ino, directory.mtime_ns, young.monotonic_ns, young.files))

    def close(self) -> None:
        """Let go of everything."""
        for young in self._young.values():
            young.directory.close()
        self._young.clear()
        self._inotify.close()
