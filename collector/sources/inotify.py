"""inotify(7), as much of it as is needed: directories that are made and removed in a watched one.

The standard library has no binding. cgroups are made and removed by ``mkdir`` and ``rmdir``, which come by the kernel's
VFS (``fs/namei.c``: ``fsnotify_mkdir``, ``d_delete_notify``): so there is IN_CREATE and IN_DELETE with IN_ISDIR as on
any file system, whichever mount of cgroup v2 it is done in, those of other cgroup namespaces included.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

_CREATE: Final = 0x00000100
_DELETE: Final = 0x00000200
_ONLYDIR: Final = 0x01000000
_ISDIR: Final = 0x40000000

_EVENT = struct.Struct("iIII")
"""``struct inotify_event``: watch, mask, cookie, length of the name that follows."""

_READ_BYTES: Final = 64 << 10


class Event(NamedTuple):
    """A directory was made in a watched one, or removed."""

    watch: int
    name: str
    made: bool


class Inotify:
    """One instance. Raises :class:`OSError` where the limits of the user or the process are reached."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def add(self, path: str) -> int:
        """Watch the directory ``path``; the watch's number."""
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), _CREATE | _DELETE | _ONLYDIR))

    def remove(self, watch: int) -> None:
        """Watch it no longer; that of a removed directory may have gone by itself."""
        try:
            self._checked(self._libc.inotify_rm_watch(self.fd, watch))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read(self) -> list[Event]:
        """What has happened since the last call. Where the queue has overflown, some of it is missing."""
        events: list[Event] = []
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return events
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                if mask & _ISDIR and mask & (_CREATE | _DELETE):
                    events.append(Event(watch, os.fsdecode(name), bool(mask & _CREATE)))

    def close(self) -> None:
        """Let go of all watches."""
        os.close(self.fd)
