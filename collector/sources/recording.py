"""Recordings of a node: reading all their forms, and serving their frames as a :class:`collector.seams.Tree`.

The format is section 5 of the contract, repeated in ``docs/recordings.md``::

    recording.json
    frames/0000/frame.json  frames/0000/sys/fs/cgroup/...  frames/0000/proc/...  frames/0000/kubelet/pods.json
    frames/0000/glimpses/...

A recording is read whole before anything is made of it, so that one that is damaged is refused, not half replayed; one
that only ends too early has the frames that are whole, and says so. It may be anybody's: a frame has its bounds, and of
a recording that is larger than is to be held one frame is, read again when its turn comes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from collector.errors import Absent, EndOfRecording, Gone, RecordingError, SourceError, classify
from collector.model import Answer, Instant
from collector.seams import Glimpse, read_each
from collector.sources import archive
from collector.sources.archive import WHAT_IS_ONE, Member, Progress
from collector.sources.frames import CGROUP_ROOT, Meta, RecordedDir, RecordedFrame
from collector.sources.reader import FramesOnDisk, Reader, unreadable
from collector.sources.version import require_v2

HELD_LIMIT_BYTES = 128 << 20
"""What the frames take in memory at the most, before they are read again one by one."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that has been read to its end."""

    path: str
    meta: Meta
    frames: Sequence[RecordedFrame]
    """All of them in memory, or each when it is asked for (:class:`FramesOnDisk`)."""
    cut: str = ""
    """That it ends too early, and after which frame: a sentence."""

    @cached_property
    def instants(self) -> list[Instant]:
        """When the frames were taken."""
        return self.frames.instants if isinstance(self.frames, FramesOnDisk) else [one.instant for one in self.frames]

    @property
    def interval_ns(self) -> int:
        """The gap between frames: the median, as the seconds of a busy node are not all alike; 1 s for one frame."""
        gaps = sorted(later.monotonic_ns - earlier.monotonic_ns for earlier, later in pairwise(self.instants))
        return gaps[len(gaps) // 2] if gaps else 1_000_000_000


# --- reading --------------------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], progress: Progress | None = None) -> Recording:
    """Read the recording at ``path``: a directory, a ``.tar``, ``.tar.gz`` or ``.tar.zst``.

    Raises :class:`RecordingError`, in one sentence, if it is not one, is damaged, has paths outside its root or is
    beyond a bound.
    """
    name = os.fspath(path)
    try:
        return assemble(name, archive.members(name, progress))
    except OSError as error:
        raise unreadable(name, error) from error


def assemble(name: str, members: Iterable[Member]) -> Recording:
    """The recording ``name`` of its files, in any order of the frames. Raises :class:`RecordingError`."""
    reader = Reader(name, one_pool=True)
    held: dict[int, RecordedFrame] | None = {}
    instants: dict[int, Instant] = {}
    first: tuple[int, RecordedFrame] | None = None
    for number, frame in reader.frames(members):
        instants[number] = frame.instant
        if first is None or number < first[0]:
            first = (number, frame)
        if held is not None:
            held[number] = frame
            if reader.held_bytes > HELD_LIMIT_BYTES:
                held = None
                reader.hold_no_more()
    if first is None:
        raise RecordingError(f"{name} is no recording: it has neither frames/ nor {CGROUP_ROOT}/; {WHAT_IS_ONE}")
    if held is None and not reader.in_order:
        raise RecordingError(f"{name} is too large to be held, and its frames are not in order: pack it again, sorted")
    order = sorted(instants)
    for earlier, later in pairwise(order):
        if instants[later].monotonic_ns <= instants[earlier].monotonic_ns:
            raise RecordingError(f"{name}: the monotonic clock does not go forward from one frame to the next")
    root = first[1]
    names = {path for path in root.files if "/" not in path} | root.children["."]
    if not names.isdisjoint({"memory", "cpu", "cpu,cpuacct", "unified"}):
        require_v2(names, f"{name}: {CGROUP_ROOT}")
    taken = [instants[number] for number in order]
    return Recording(
        path=name,
        meta=reader.meta(),
        frames=FramesOnDisk(name, taken) if held is None else [held[number] for number in order],
        cut=f"{name} is cut after frame {order[-1]}: what came later is not whole, and is left out"
        if reader.cut
        else "",
    )


# --- serving frames -------------------------------------------------------------------------------------------------


class RecordedDirectory:
    """One cgroup directory of a recording; satisfies :class:`collector.seams.Directory`."""

    __slots__ = ("_path", "_tree", "ino", "mtime_ns")

    def __init__(self, tree: RecordedTree, path: str, ino: int, mtime_ns: int | None) -> None:
        self._tree = tree
        self._path = path
        self.ino = ino
        self.mtime_ns = mtime_ns

    def _alive(self) -> RecordedDir | None:
        """What the current frame says of this identity. Raises :class:`Gone` as a held descriptor would."""
        frame = self._tree.frame
        entry = frame.dirs.get(self._path)
        if entry is None:
            if self._path == "." or self._path in frame.children:
                return None
            raise Gone(self._path, errno.ENODEV)
        if entry.ino != self.ino:
            raise Gone(self._path, errno.ENODEV)
        return entry

    def stamp(self) -> int:
        """The reading's monotonic time: the frame's, plus how much later the directory was read."""
        entry = self._alive()
        instant = self._tree.instant
        if entry is None:
            return instant.monotonic_ns
        return instant.monotonic_ns + entry.time_ns - self._tree.frame.instant.time_ns

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        """Child cgroups in the current frame, or the error as recorded."""
        self._alive()
        number = self._tree.frame.errors.get(self._path)
        if number is not None:
            raise classify(number, self._path, "directory")
        return sorted(self._tree.frame.children.get(self._path, ()))

    def read(self, name: str) -> bytes:
        """The bytes as recorded, or the error as recorded."""
        frame = self._tree.frame
        self._alive()
        path = name if self._path == "." else f"{self._path}/{name}"
        number = frame.errors.get(path)
        if number is not None:
            raise classify(number, path, "read")
        data = frame.files.get(path)
        if data is None:
            raise Absent(path, errno.ENOENT)
        return data

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        """The bytes or the errors as recorded."""
        return read_each(self.read, names)

    def watch(self, names: tuple[str, ...]) -> None:
        """A recording holds what was seen then."""

    def close(self) -> None:
        """Nothing is held."""


class RecordedTree:
    """Frames of a recording in order; satisfies :class:`collector.seams.Tree`."""

    def __init__(self, recording: Recording, *, loop: bool = False) -> None:
        """``loop``: begin again after the last frame, time going on as if one interval had passed."""
        self._recording = recording
        self._loop = loop
        self._next = 0
        self.passes = 0
        """How often the end has been passed."""
        self.frame = recording.frames[0]
        self.instant = self.frame.instant
        first, last = recording.instants[0], recording.instants[-1]
        self._pass_ns = last.monotonic_ns - first.monotonic_ns + recording.interval_ns

    @property
    def offset_ns(self) -> int:
        """What the passes so far add to all times."""
        return self.passes * self._pass_ns

    def begin(self) -> Instant:
        """Move to the next frame. Raises :class:`EndOfRecording` after the last unless looping."""
        if self._next >= len(self._recording.frames):
            if not self._loop:
                raise EndOfRecording(f"{self._recording.path}: no further frame")
            self._next = 0
            self.passes += 1
        self.frame = self._recording.frames[self._next]
        self._next += 1
        at = self.frame.instant
        self.instant = Instant(at.time_ns + self.offset_ns, at.monotonic_ns + self.offset_ns)
        return self.instant

    def gap_ns(self) -> int:
        """How long after the current frame the next one was taken."""
        instants = self._recording.instants
        if self._next >= len(instants):
            return self._recording.interval_ns
        return instants[self._next].monotonic_ns - self.frame.instant.monotonic_ns

    def open(self, path: str) -> RecordedDirectory:
        """Open ``path`` as it is in the current frame."""
        frame = self.frame
        entry = frame.dirs.get(path)
        if entry is not None:
            # Not moved by a loop's passes: the counters go on over the seam, so the start must stay what it was.
            return RecordedDirectory(self, path, entry.ino, entry.mtime_ns)
        number = frame.errors.get(path)
        if number is not None:
            raise classify(number, path, "directory")
        if path == "." or path in frame.children:
            return RecordedDirectory(self, path, 0, None)
        raise classify(errno.ENOENT, path, "directory")

    def glimpses(self) -> list[Glimpse]:
        """What had come and gone since the frame before."""
        at = self.frame.instant.time_ns - self.instant.monotonic_ns
        return [
            Glimpse(path, entry.ino, entry.mtime_ns, entry.time_ns - at, files)
            for path, entry, files in self.frame.glimpses
        ]

    def read_proc(self, name: str) -> bytes:
        """``/proc/<name>`` as recorded."""
        data = self.frame.proc.get(name)
        if data is None:
            raise Absent(f"/proc/{name}", errno.ENOENT)
        return data


class RecordedAnswers:
    """The answers of the current frame; satisfies :class:`collector.seams.AnswerSource`."""

    def __init__(self, tree: RecordedTree) -> None:
        self._tree = tree

    def take(self) -> list[Answer]:
        """All answers of the frame, the ones to compare with included."""
        offset_ns = self._tree.offset_ns
        return [answer._replace(time_ns=answer.time_ns + offset_ns) for answer in self._tree.frame.answers]

    def ask(self) -> None:
        """A recording holds what was asked then."""
