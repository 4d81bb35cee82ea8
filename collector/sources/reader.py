"""Frames of a recording out of its files as they come, each within its bounds; also of one too large to be held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from collector.errors import CutRecording, RecordingError
from collector.model import Instant
from collector.sources import archive
from collector.sources.archive import Member
from collector.sources.frames import (
    ANSWER_FOLDERS,
    CGROUP_ROOT,
    GLIMPSES,
    HEAD,
    Meta,
    RecordedFrame,
    frame_of,
    is_told_whole,
    meta_of,
    single_frame,
)

FRAME_FILES_LIMIT = 100_000
"""Files of one frame: 500 pods of four cgroups have half of them."""

FRAME_LIMIT_BYTES = 128 << 20
"""What the files of one frame take in memory."""

HEAD_LIMIT_BYTES = 16 << 20
"""A ``frame.json`` or ``recording.json``: as objects it takes many times as much."""

FRAMES_LIMIT = 1_000_000
"""Frames of a recording: eleven days of seconds."""

_FILE_COST_BYTES = 250
"""What a file takes beside its bytes and its path."""

_OBJECTS_OF_HEAD = 10
"""A head's objects take so many times the bytes of its text."""

_META = "recording.json"
_KNOWN = frozenset({_META, "frames", "sys", "proc", GLIMPSES, *ANSWER_FOLDERS})
"""What stands in the root of a recording."""


class _Files:
    """The files of a frame as they come, held within its bounds."""

    def __init__(self, where: str, number: int = 0) -> None:
        self.where = where
        self.number = number
        self.files: dict[str, bytes] = {}
        self._bytes = 0
        self._count = 0

    def add(self, path: str, data: bytes, *, hold: bool = True) -> int:
        """Count a file, and hold it. Returns the bytes that it takes."""
        cost = len(data) + len(path) + _FILE_COST_BYTES
        self._bytes += cost
        self._count += 1
        if self._count > FRAME_FILES_LIMIT:
            raise RecordingError(
                f"{self.where} has more than {FRAME_FILES_LIMIT} files, at {path!r}: leave out what is not of the node"
            )
        if self._bytes > FRAME_LIMIT_BYTES:
            raise RecordingError(
                f"{self.where} takes more than {FRAME_LIMIT_BYTES >> 20} MiB, at {path!r}: leave out its largest files"
            )
        if path in (HEAD, _META) and len(data) > HEAD_LIMIT_BYTES:
            raise RecordingError(
                f"{self.where} has a {path} larger than {HEAD_LIMIT_BYTES >> 20} MiB: record anew, or leave it out"
            )
        if hold:
            self.files[path] = data
        return cost


class Reader:
    """Makes frames of the files of a recording, as they come."""

    def __init__(self, name: str, *, one_pool: bool) -> None:
        """``one_pool``: equal files of all frames are one, as most do not change from one second to the next."""
        self._name = name
        self._one_pool = one_pool
        self._pool: dict[bytes, bytes] = {}
        self.held_bytes = 0
        """What all frames take so far, if they are held."""
        self._folder: str | None = None
        """The leading folder with its slash, or ``""``; ``None`` before it is known."""
        self._meta: bytes | None = None
        self._beside = _Files(name)
        """What is of no frame."""
        self._single = _Files(name)
        self._newest_ns = 0
        self._spellings: dict[int, str] = {}
        self._newest = -1
        """The highest number so far."""
        self._headless: int | None = None
        """The frame without a head."""
        self.in_order = True
        """Whether the frames came by number."""
        self.cut = False
        """Whether there was more than what is whole."""

    def hold_no_more(self) -> None:
        """Frames are not kept from now on, and have nothing in common."""
        self._one_pool = False
        self._pool = {}

    def meta(self) -> Meta:
        """What ``recording.json`` says, after all frames."""
        return meta_of(self._name, self._meta, has_frames=bool(self._spellings))

    def frames(self, members: Iterable[Member]) -> Iterator[tuple[int, RecordedFrame]]:
        """Each frame with its number, when it is whole. Raises :class:`RecordingError`."""
        taken: _Files | None = None
        try:
            for path, data, mtime_ns in members:
                self._newest_ns = max(self._newest_ns, mtime_ns)
                inner = self._inner(path)
                head, _, rest = inner.partition("/")
                number, _, file = rest.partition("/")
                if head != "frames" or not file:
                    self._take_beside(inner, data)
                    continue
                if taken is None or self._spellings[taken.number] != number:
                    yield from self._finished(taken)
                    taken = self._begun(number)
                self.held_bytes += taken.add(file, self._pooled(data))
                if file == HEAD:
                    self.held_bytes += _OBJECTS_OF_HEAD * len(data)
        except CutRecording:
            # Of an archive that another tool has packed nobody can tell which frames would have followed.
            if not self.in_order or self._meta is None or not self._spellings:
                raise
            self.cut = True
            if taken is not None and is_told_whole(taken.files, taken.where):
                yield from self._finished(taken)
            elif taken is not None and len(self._spellings) == 1:
                raise
            return
        yield from self._finished(taken)
        if self._headless is not None:
            if self._headless < self._newest or len(self._spellings) == 1:
                raise self._without_head(self._headless)
            self.cut = True
        if not self._spellings and any(path.startswith(CGROUP_ROOT + "/") for path in self._single.files):
            yield 0, single_frame(self._name, self._single.files, self._newest_ns)

    def _inner(self, path: str) -> str:
        """The path within the recording: without its leading folder, where it has one."""
        head, _, rest = path.partition("/")
        if self._folder is None:
            if head in _KNOWN:
                self._folder = ""
            elif rest.partition("/")[0] in _KNOWN:
                self._folder = head + "/"
        if self._folder and not path.startswith(self._folder):
            if head in _KNOWN or rest.partition("/")[0] in _KNOWN:
                raise RecordingError(
                    f"{self._name} holds more than one recording, {self._folder!r} and {path!r}: take one"
                )
            return path
        return path[len(self._folder or "") :]

    def _pooled(self, data: bytes) -> bytes:
        known = self._pool.setdefault(data, data)
        if known is data:
            return data
        self.held_bytes -= len(data)
        return known

    def _take_beside(self, inner: str, data: bytes) -> None:
        head = inner.partition("/")[0]
        if inner == _META:
            self._beside.add(inner, data, hold=False)
            self._meta = data
        elif head in _KNOWN and not self._spellings:
            self.held_bytes += self._single.add(inner, self._pooled(data))
        else:
            self._beside.add(inner, data, hold=False)

    def _begun(self, spelling: str) -> _Files:
        """A frame whose first file has come."""
        name = self._name
        if not spelling.isascii() or not spelling.isdigit() or len(spelling) > 12:
            raise RecordingError(f"{name} has the frame {spelling!r}: frames are named by numbers")
        number = int(spelling)
        before = self._spellings.get(number)
        if before is not None:
            why = f"a frame twice, as {before} and as {spelling}" if before != spelling else ""
            raise RecordingError(f"{name} has {why or f'the files of frame {spelling} in two places'}: pack it again")
        self._spellings[number] = spelling
        if len(self._spellings) > FRAMES_LIMIT:
            raise RecordingError(f"{name} has more than {FRAMES_LIMIT} frames: record for a shorter time")
        if self._headless is not None and number > self._headless:
            raise self._without_head(self._headless)
        self.in_order &= number > self._newest
        self._newest = max(number, self._newest)
        return _Files(self._where(number), number)

    def _finished(self, taken: _Files | None) -> Iterator[tuple[int, RecordedFrame]]:
        """The frame of which all files have come. The last one may have no head: its writer was ended before."""
        if taken is None:
            return
        if HEAD in taken.files:
            yield taken.number, frame_of(taken.where, taken.files)
        elif taken.number < self._newest:
            raise self._without_head(taken.number)
        else:
            self._headless = taken.number
        if not self._one_pool:
            self._pool.clear()

    def _where(self, number: int) -> str:
        return f"{self._name}: frames/{number:04d}"

    def _without_head(self, number: int) -> RecordingError:
        return RecordingError(f"{self._where(number)} has no {HEAD}: the recording is incomplete")


class FramesOnDisk(Sequence[RecordedFrame]):
    """The frames of a recording that is too large to be held: one is, and is read when it is asked for.

    In order that is once in all; a frame before the last one is found by reading from the beginning again. Raises
    :class:`RecordingError` where the recording is not what it was.
    """

    def __init__(self, name: str, instants: list[Instant]) -> None:
        self._name = name
        self.instants = instants
        """When the frames were taken."""
        self._source: Iterator[tuple[int, RecordedFrame]] = iter(())
        self._at = len(instants)
        self._frame: RecordedFrame | None = None

    def __len__(self) -> int:
        return len(self.instants)

    @overload
    def __getitem__(self, index: int) -> RecordedFrame: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RecordedFrame]: ...
    def __getitem__(self, index: int | slice) -> RecordedFrame | Sequence[RecordedFrame]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]
        if index < self._at:
            self._source = Reader(self._name, one_pool=False).frames(archive.members(self._name))
            self._at = -1
        while self._at < index:
            self._frame = self._next()
            self._at += 1
        assert self._frame is not None
        return self._frame

    def _next(self) -> RecordedFrame:
        self._frame = None
        try:
            found = next(self._source, None)
        except OSError as error:
            raise unreadable(self._name, error) from error
        if found is None or found[1].instant != self.instants[self._at + 1]:
            raise RecordingError(f"{self._name} is changed while it is replayed: replay a copy of it")
        return found[1]


def unreadable(name: str, error: OSError) -> RecordingError:
    """That the system does not let the recording be read."""
    return RecordingError(f"cannot read the recording {name}: {error.strerror or error}")
