"""The live node: cgroupfs and /proc through held descriptors.

Opening a kernfs file costs several times what reading it does (five to ten, measured on a real node), so that every
directory and file stays open while its cgroup lives. Where the descriptor limit is reached, further files are opened
for each read.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from itertools import repeat
from operator import ge
from typing import Final, NamedTuple, cast

from collector.errors import Gone, Operation, SourceError, UnsupportedNode, classify
from collector.model import Instant
from collector.seams import Glimpse
from collector.sources.descriptors import RESERVE, limit_of_readers, raise_limit, shares
from collector.sources.version import require_v2
from collector.sources.young import Watch

log = logging.getLogger(__name__)

_CHUNK: Final = 4096
"""One pread of a page: ``memory.stat`` is about 1.3 KiB, and a larger buffer costs more to allocate than it saves."""

_SMALL: Final = 448
"""A buffer for files that held less than half of it: Python has such ones at hand, where it asks the C library for
larger ones. A file that fills its buffer is read anew: the parts of two readings need not fit together."""

_FROM_THE_START: Final = repeat(0)

_RACY_NS: Final = 50_000_000
"""A directory changed this shortly before it was listed may change again without a new mtime (the kernel's clock for
timestamps ticks every 1 to 10 ms): it is listed again. kernfs keeps no such mtime, there nlink and ENODEV tell."""


_LOOK_AGAIN_NS: Final = 60_000_000_000
"""A file that is not there appears when its controller, or PSI for this cgroup, is switched on: seldom, and then soon
enough."""


class _Held(NamedTuple):
    """Files that are read together, by the descriptors that hold them, and how large a buffer each is read into."""

    files: tuple[int, ...]
    sizes: tuple[int, ...]


def _made_ns(directory: int, mtime_ns: int) -> int:
    """When a cgroup was made, as its files' times tell it: the earlier of its directory's and of ``cgroup.events``.

    Where systemd has set attributes the directory gets a new mtime with each child, and ``cgroup.events`` does not;
    cAdvisor takes the earlier of the two as well (container/common/helpers.go).
    """
    try:
        return min(mtime_ns, os.stat("cgroup.events", dir_fd=directory).st_mtime_ns)
    except OSError:  # the root has none, and what is going away has none any more: the directory's it is
        return mtime_ns


class LiveDirectory:
    """A cgroup directory of the live node, held open; satisfies :class:`collector.seams.Directory`."""

    __slots__ = (
        "_absent",
        "_fd",
        "_files",
        "_groups",
        "_path",
        "_seldom",
        "_signature",
        "_tree",
        "_watch",
        "ino",
        "mtime_ns",
    )

    def __init__(self, tree: LiveTree, path: str) -> None:
        self._tree = tree
        self._path = path
        self._files: dict[str, int] = {}
        self._groups: dict[tuple[str, ...], _Held] = {}
        """Files that are read together, by their names, where all of them are held."""
        self._absent: dict[str, int] = {}
        """Files that are not there, and when to look again."""
        self._seldom = 0
        self._signature: tuple[int, int] | None = None
        self._watch: int | None = None
        try:
            fd = os.open(os.path.join(tree.root, path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise tree.error_of(error, path, "directory") from error
        status = os.fstat(fd)
        self.ino = status.st_ino
        self.mtime_ns: int | None = _made_ns(fd, status.st_mtime_ns)
        if tree.may_hold():
            tree.held += 1
            self._fd = fd
        else:
            os.close(fd)
            self._fd = -1

    def stamp(self) -> int:
        """Monotonic time."""
        return time.monotonic_ns()

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        """Child cgroups, or ``None`` where neither their number (nlink) nor the mtime has changed."""
        where: int | str = self._fd if self._fd >= 0 else os.path.join(self._tree.root, self._path)
        try:
            status = os.stat(where)
            if status.st_ino != self.ino or status.st_nlink == 0:
                raise Gone(self._path, errno.ENOENT)
            signature = (status.st_nlink, status.st_mtime_ns)
            # Some file systems (btrfs) give every directory one link: there the count tells nothing.
            if signature == self._signature and status.st_nlink >= 2 and not force:
                return None
            with os.scandir(where) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise self._tree.error_of(error, self._path, "directory") from error
        self._signature = signature if time.time_ns() - status.st_mtime_ns > _RACY_NS else None
        return names

    def read(self, name: str) -> bytes:
        """One file, whole."""
        (result,) = self.read_all((name,), often=False)
        if isinstance(result, SourceError):
            raise result
        return result

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        """Several files, each whole or the error that it gave."""
        held = self._groups.get(names)
        if held is not None:
            try:
                read = list(map(os.pread, held.files, held.sizes, _FROM_THE_START))
            except OSError:
                return self._read_each(names, often=often, hold=hold)  # which tells them apart
            if not any(map(ge, map(len, read), held.sizes)):
                return cast(list[bytes | SourceError], read)
        return self._read_each(names, often=often, hold=hold)

    def _read_each(self, names: tuple[str, ...], *, often: bool, hold: bool) -> list[bytes | SourceError]:
        """The same one by one; from then on at one go, if all could be read and are held."""
        files = self._files
        results: list[bytes | SourceError] = []
        for name in names:
            fd = files.get(name)
            if fd is None:
                results.append(self._open_and_read(name, often=often, hold=hold))
                continue
            try:
                results.append(_whole(fd))
            except OSError as error:
                results.append(self._failed(error, name, "read"))
        if all(name in files for name in names):
            sizes = [_SMALL if 2 * len(data) < _SMALL else _CHUNK for data in results if isinstance(data, bytes)]
            if len(sizes) == len(names):
                self._groups[names] = _Held(tuple(files[name] for name in names), tuple(sizes))
        return results

    def _open_and_read(self, name: str, *, often: bool, hold: bool) -> bytes | SourceError:
        if time.monotonic_ns() < self._absent.get(name, 0):
            return classify(errno.ENOENT, f"{self._path}/{name}", "file")
        try:
            fd = self._open(name)
        except OSError as error:
            return self._failed(error, name, "file")
        try:
            data = _whole(fd)
        except OSError as error:
            os.close(fd)
            return self._failed(error, name, "read")
        if hold:
            self._keep_or_close(fd, name, often=often)
        else:
            os.close(fd)
        return data

    def _keep_or_close(self, fd: int, name: str, *, often: bool) -> None:
        tree = self._tree
        if not tree.may_hold(often=often):
            tree.opened_for_one_read += 1
            os.close(fd)
            return
        self._files[name] = fd
        tree.held += 1
        if not often:
            self._seldom += 1
            tree.held_seldom += 1

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        if self._fd >= 0:
            return os.open(name, flags, dir_fd=self._fd)
        # Not held, so that another cgroup may stand at the path by now.
        folder = os.open(os.path.join(self._tree.root, self._path), flags | os.O_DIRECTORY)
        try:
            if os.fstat(folder).st_ino != self.ino:
                raise Gone(self._path, errno.ENOENT)
            if self._tree.may_hold():
                self._tree.held += 1
                self._fd = folder
            return os.open(name, flags, dir_fd=folder)
        finally:
            if self._fd != folder:
                os.close(folder)

    def _failed(self, error: OSError, name: str, operation: Operation) -> SourceError:
        """The error that a file gave. Raises :class:`Gone`, and nothing else, if it is the cgroup that has gone."""
        if error.errno == errno.ENOENT:
            # The file of a removed cgroup is as absent as one that the kernel does not have.
            try:
                there = os.stat(os.path.join(self._tree.root, self._path)).st_ino == self.ino
            except OSError as other:
                found = classify(other.errno or 0, self._path, "directory")
                if isinstance(found, Gone):
                    raise found from other
                # Nobody can tell whether it has gone.
                return found
            if not there:
                raise Gone(self._path, errno.ENOENT)
            self._absent[name] = time.monotonic_ns() + _LOOK_AGAIN_NS
        result = self._tree.error_of(error, f"{self._path}/{name}", operation)
        if isinstance(result, Gone):
            raise result from error
        return result

    def watch(self, names: tuple[str, ...]) -> None:
        """Have children followed that come between two ticks."""
        if self._tree.watching is not None and self._watch is None:
            where = os.path.join(self._tree.root, self._path)
            self._watch = self._tree.watching.add(where, self._path, names)

    def close(self) -> None:
        """Close all descriptors of this cgroup."""
        if self._tree.watching is not None and self._watch is not None:
            self._tree.watching.remove(self._watch)
            self._watch = None
        for fd in self._files.values():
            os.close(fd)
        self._tree.held -= len(self._files)
        self._tree.held_seldom -= self._seldom
        self._seldom = 0
        self._files.clear()
        self._groups.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._tree.held -= 1
            self._fd = -1


def _whole(fd: int) -> bytes:
    """All of a file: one read, and where that fills the buffer, more until an empty one, as a short read need not be
    the end.
    """
    data = os.pread(fd, _CHUNK, 0)
    if len(data) < _CHUNK:
        return data
    parts = [data]
    offset = len(data)
    while data := os.pread(fd, 16 * _CHUNK, offset):
        parts.append(data)
        offset += len(data)
    return b"".join(parts)


class LiveTree:
    """The cgroup v2 file system of this node; satisfies :class:`collector.seams.Tree`."""

    def __init__(self, root: str, proc_root: str = "/proc", *, descriptor_limit: int | None = None) -> None:
        """Raises :class:`UnsupportedNode` if ``root`` is no cgroup v2 mount.

        ``descriptor_limit``: how many descriptors may be held; the readers' share of what the process may open, if
        ``None``.
        """
        self.root = root
        self.proc_root = proc_root
        self.held = 0
        """Descriptors held open."""
        self.held_seldom = 0
        """Those among them that are not read every tick."""
        self.opened_for_one_read = 0
        """Reads that had to open their file because no more descriptors may be held."""
        self.watching: Watch | None = None
        """What follows cgroups between two ticks."""
        self._most = shares(raise_limit()).readers if descriptor_limit is None else descriptor_limit
        self.descriptor_limit = self._most
        """How many descriptors may be held by now."""
        try:
            names = os.listdir(root)
        except OSError as error:
            raise UnsupportedNode(
                f"cannot read the cgroup root {root}: {error.strerror}; "
                "give the mount point of cgroup v2 with --cgroup-root"
            ) from error
        require_v2(names, root)

    def may_hold(self, *, often: bool = True) -> bool:
        """True while a further descriptor may be kept open. Files that are not read often may take a quarter of them,
        so that on a large node the files of every tick do not go without.
        """
        return self.held < self.descriptor_limit and (often or 4 * self.held_seldom < self.descriptor_limit)

    def error_of(self, error: OSError, path: str, operation: Operation) -> SourceError:
        """What opening or reading ``path`` failed by. If the process has run out of descriptors before the limit was
        reached, no more than now are held from here on, until there are free ones again.
        """
        if error.errno in (errno.EMFILE, errno.ENFILE):
            self.descriptor_limit = min(self.descriptor_limit, max(0, self.held - RESERVE))
        return classify(error.errno or 0, path, operation)

    def follow(self) -> None:
        """From now on follow cgroups that come and go between two ticks, while :meth:`rest` waits for the next."""
        try:
            self.watching = Watch(self.open)
        except OSError as error:
            log.warning(
                "containers that live for less than a tick go unseen, as the node gives no inotify: %s; "
                "fs.inotify.max_user_instances may be too low",
                error.strerror,
            )

    def rest(self, stop: threading.Event, seconds: float) -> None:
        """Wait for the next tick."""
        if self.watching is None:
            stop.wait(seconds)
        else:
            self.watching.rest(stop, seconds)

    def glimpses(self) -> list[Glimpse]:
        """What has come and gone since the last call."""
        return self.watching.taken() if self.watching is not None else []

    def begin(self) -> Instant:
        """Now, on both clocks."""
        if self.descriptor_limit < self._most:
            free = limit_of_readers(self._most, self.held)
            self.descriptor_limit = self.descriptor_limit if free is None else free
        return Instant(time.time_ns(), time.monotonic_ns())

    def open(self, path: str) -> LiveDirectory:
        """Open the cgroup directory ``path``."""
        return LiveDirectory(self, path)

    def read_proc(self, name: str) -> bytes:
        """``/proc/<name>``, whole."""
        path = f"{self.proc_root}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _whole(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise classify(error.errno or 0, path, "file") from error
