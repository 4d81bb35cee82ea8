"""Recordings of a node: reading all their forms, and serving their frames as a :class:`collector.seams.Tree`.

The format is section 5 of the contract, repeated in ``docs/recordings.md``::

    recording.json
    frames/0000/frame.json  frames/0000/sys/fs/cgroup/...  frames/0000/proc/...  frames/0000/kubelet/pods.json
    frames/0000/glimpses/...

A recording is read whole before anything is made of it, so that a damaged one is refused, not half replayed. Equal
files are kept once: most files of a node do not change from one second to the next.
"""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol

import zstandard

from collector.errors import Absent, EndOfRecording, Gone, RecordingError, SourceError, classify
from collector.model import FAILURE_KINDS, Answer, Instant
from collector.seams import Glimpse, read_each
from collector.sources.version import require_v2

VERSION = 1
"""The version of the format that is read and written."""

CGROUP_ROOT = "sys/fs/cgroup"
GLIMPSES = "glimpses"
"""Files of cgroups that came and went between two ticks, below it at their paths relative to the cgroup root."""
ANSWER_FOLDERS = ("kubelet", "apiserver", "metrics-api")

_SIZE_LIMIT_BYTES = 4 << 30
"""Unpacked bytes at the most: a compressed file of a few KiB can claim any number of them."""

_READ_BYTES = 64 << 10
"""Bytes taken at a time."""

_ZSTD_READ_BYTES = 4 << 10
"""Compressed bytes taken at a time: zstd can make 32,000 times as many of them, and gives them all at once."""

_PATH_LIMIT = 4096
"""PATH_MAX: no cgroup has a longer path."""

_INTEGER_LIMIT = 2**64
"""Times in nanoseconds and inodes are below it."""

_WHAT_IS_ONE = "podtally record makes one, docs/recordings.md has the form"

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """``recording.json``: where and of what the recording was taken. Unknown keys are kept in ``extra``."""

    node: str
    kernel: str = ""
    cpus: int | None = None
    memory_bytes: int | None = None
    page_size: int | None = None
    runtime: str = ""
    cgroup_driver: str = ""
    origin: str = "captured"
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of ``recording.json``."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "extra"}
        return json.dumps({"version": VERSION, **known, **self.extra}, indent=1) + "\n"


_META_NUMBERS = frozenset({"cpus", "memory_bytes", "page_size"})


class RecordedDir(NamedTuple):
    """What a frame says of one cgroup directory."""

    time_ns: int
    ino: int
    """0: not recorded, the path alone is the identity."""
    mtime_ns: int | None


@dataclass(slots=True, kw_only=True)
class RecordedFrame:
    """One frame, as bytes."""

    instant: Instant
    dirs: dict[str, RecordedDir]
    errors: dict[str, int]
    """Path of a directory or file, and the errno that its reading gave."""
    files: dict[str, bytes]
    """Path relative to the cgroup root."""
    proc: dict[str, bytes]
    answers: list[Answer]
    glimpses: list[tuple[str, RecordedDir, dict[str, bytes]]] = field(default_factory=list)
    """Paths of cgroups that came and went since the frame before, with their files."""
    children: dict[str, set[str]] = field(default_factory=dict)

    def index(self) -> None:
        """Fill ``children``; directories above a recorded one count as there."""
        self.children = {".": set()}
        for path in (*self.dirs, *self.errors.keys() - self.files.keys()):
            parent, _, name = path.rpartition("/")
            while name and path != ".":
                names = self.children.setdefault(parent or ".", set())
                if name in names:
                    break
                names.add(name)
                parent, _, name = parent.rpartition("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A whole recording in memory."""

    path: str
    meta: Meta
    frames: list[RecordedFrame]

    @property
    def interval_ns(self) -> int:
        """The gap between frames: the median, as the seconds of a busy node are not all alike; 1 s for one frame."""
        times = [frame.instant.monotonic_ns for frame in self.frames]
        gaps = sorted(later - earlier for earlier, later in pairwise(times))
        return gaps[len(gaps) // 2] if gaps else 1_000_000_000


# --- reading the forms ----------------------------------------------------------------------------------------------


def load(path: str | os.PathLike[str], progress: Progress | None = None) -> Recording:
    """Read the recording at ``path``: a directory, a ``.tar``, ``.tar.gz`` or ``.tar.zst``.

    Raises :class:`RecordingError`, in one sentence, if it is not one, is damaged, or has paths outside its root.
    """
    name = os.fspath(path)
    try:
        unpacked = _directory_files(Path(name)) if os.path.isdir(name) else _archive_files(name, progress)
    except OSError as error:
        raise RecordingError(f"cannot read the recording {name}: {error.strerror or error}") from error
    return _assemble(name, _without_leading_folder(unpacked.files), unpacked.newest_ns)


class _Unpacked(NamedTuple):
    files: dict[str, bytes]
    newest_ns: int
    """The mtime of the newest file."""


def _safe(name: str, where: str) -> str:
    """``name`` without a leading ``./``. Raises :class:`RecordingError` if it leads out of the recording."""
    if len(name) > _PATH_LIMIT:
        raise RecordingError(f"{where} has a path of {len(name)} characters: {name[:80]}...")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise RecordingError(f"{where} has the path {name!r}, which leads out of the recording: it is refused whole")
    return str(path)


def _directory_files(root: Path) -> _Unpacked:
    files: dict[str, bytes] = {}
    pool: dict[bytes, bytes] = {}
    newest_ns = 0
    for folder, folders, names in os.walk(root):
        for name in (*names, *folders):
            path = Path(folder, name)
            if path.is_symlink():
                raise RecordingError(
                    f"{root} has the link {path.relative_to(root)}: links are not followed, copy files"
                )
        for name in names:
            path = Path(folder, name)
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise RecordingError(f"{root} has {path.relative_to(root)}, which is neither a file nor a directory")
            newest_ns = max(newest_ns, status.st_mtime_ns)
            data = path.read_bytes()
            files[path.relative_to(root).as_posix()] = pool.setdefault(data, data)
    return _Unpacked(files, newest_ns)


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes | None: ...


class _ZstdStream(io.RawIOBase):
    """Decompresses zstd frames, and knows where one ends too early (the library's own reader does not tell)."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor()
        self._frame = self._decompressor.decompressobj()
        self._pending = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._pending:
            if self._frame.eof:
                rest = self._frame.unused_data or self._file.read(_ZSTD_READ_BYTES)
                if not rest:
                    return b""
                self._frame = self._decompressor.decompressobj()
            else:
                rest = self._file.read(_ZSTD_READ_BYTES)
                if not rest:
                    raise EOFError("the compressed data ends too early")
            self._pending = memoryview(self._frame.decompress(rest))
        end = len(self._pending) if size < 0 else size
        data, self._pending = bytes(self._pending[:end]), self._pending[end:]
        return data


class _Watched(io.RawIOBase):
    """Counts what passes, remembers its end, and stops at the size limit."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self.count = 0
        self.tail = b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size) or b""
        self.count += len(data)
        if self.count > _SIZE_LIMIT_BYTES:
            raise RecordingError(f"the recording unpacks to more than {_SIZE_LIMIT_BYTES >> 30} GiB: cut it shorter")
        if data:
            self.tail = data[-1024:] if len(data) >= 1024 else (self.tail + data)[-1024:]
        return data


def _archive_files(name: str, progress: Progress | None) -> _Unpacked:
    files: dict[str, bytes] = {}
    pool: dict[bytes, bytes] = {}
    newest_ns = 0
    with open(name, "rb") as raw:
        total = os.fstat(raw.fileno()).st_size
        magic = raw.read(4)
        raw.seek(0)
        stream: _Readable = raw
        if magic == b"\x28\xb5\x2f\xfd":
            stream = _ZstdStream(raw)
        elif magic[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=raw)
        watched = _Watched(stream)
        try:
            with tarfile.open(fileobj=watched, mode="r|", bufsize=_READ_BYTES) as archive:
                for member in archive:
                    path = _safe(member.name, name)
                    if member.isdir():
                        continue
                    # A sparse file of a few bytes can claim any size, and is filled up with zeros.
                    if not member.isfile() or member.issparse():
                        raise RecordingError(f"{name} has {member.name!r}, which is neither a file nor a directory")
                    content = archive.extractfile(member)
                    data = content.read() if content is not None else b""
                    if len(data) != member.size:
                        raise RecordingError(f"{name} is truncated in {member.name!r}: record or copy it again")
                    files[path] = pool.setdefault(data, data)
                    newest_ns = max(newest_ns, int(member.mtime * 1e9))
                    if progress is not None and len(files) % 500 == 0:
                        progress(raw.tell(), total)
            while watched.read(_READ_BYTES):
                pass
        except (EOFError, zlib.error, zstandard.ZstdError, gzip.BadGzipFile) as error:
            raise RecordingError(f"{name} is truncated or damaged ({error}): record or copy it again") from error
        except (tarfile.TarError, ValueError, OverflowError) as error:
            # tarfile says the latter two of headers whose numbers are none.
            if files:
                raise RecordingError(f"{name} is truncated or damaged ({error}): record or copy it again") from error
            raise RecordingError(
                f"{name} is no recording: neither a directory nor a tar archive ({error}); {_WHAT_IS_ONE}"
            ) from error
        if watched.tail.strip(b"\0") or len(watched.tail) < 1024:
            raise RecordingError(f"{name} is truncated: its tar archive has no end; record or copy it again")
        if progress is not None:
            progress(total, total)
    return _Unpacked(files, newest_ns)


def _without_leading_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with one leading folder taken off, where all share one and the recording begins below it."""
    heads = {name.partition("/")[0] for name in files}
    if len(heads) == 1 and not any(name.startswith(("frames/", "sys/")) for name in files):
        return {name.partition("/")[2]: data for name, data in files.items() if "/" in name}
    return files


# --- making frames of files -----------------------------------------------------------------------------------------


def _assemble(name: str, files: dict[str, bytes], newest_ns: int) -> Recording:
    frames: dict[int, dict[str, bytes]] = {}
    folders: dict[int, str] = {}
    for path, data in files.items():
        head, _, rest = path.partition("/")
        number, _, inner = rest.partition("/")
        if head == "frames" and inner:
            if not number.isascii() or not number.isdigit() or len(number) > 12:
                raise RecordingError(f"{name} has the frame {number!r}: frames are named by numbers")
            if folders.setdefault(int(number), number) != number:
                raise RecordingError(f"{name} has a frame twice, as {folders[int(number)]} and as {number}")
            frames.setdefault(int(number), {})[inner] = data
    meta = _meta(name, files.get("recording.json"), bool(frames))
    if frames:
        recorded = [_frame(f"{name}: frames/{number:04d}", frames[number]) for number in sorted(frames)]
    elif any(path.startswith(CGROUP_ROOT + "/") for path in files):
        recorded = [_single_frame(files, newest_ns)]
    else:
        raise RecordingError(f"{name} is no recording: it has neither frames/ nor {CGROUP_ROOT}/; {_WHAT_IS_ONE}")
    for earlier, later in pairwise(recorded):
        if later.instant.monotonic_ns <= earlier.instant.monotonic_ns:
            raise RecordingError(f"{name}: the monotonic clock does not go forward from one frame to the next")
    root = recorded[0]
    names = {path for path in root.files if "/" not in path} | root.children["."]
    if not names.isdisjoint({"memory", "cpu", "cpu,cpuacct", "unified"}):
        require_v2(names, f"{name}: {CGROUP_ROOT}")
    return Recording(path=name, meta=meta, frames=recorded)


def _json_object(where: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RecordingError(f"{where} is not a JSON object")
    return value


def _meta(name: str, data: bytes | None, has_frames: bool) -> Meta:
    if data is None:
        if has_frames:
            raise RecordingError(f"{name} has frames but no recording.json: it is incomplete")
        return Meta(node="unknown", note="made by hand")
    values = _json_object(f"{name}: recording.json", data)
    version = values.pop("version", None)
    if version != VERSION:
        raise RecordingError(f"{name}: recording.json says version {version!r}, this podtally reads version {VERSION}")
    known = {key: values.pop(key) for key in list(values) if key in Meta.__dataclass_fields__ and key != "extra"}
    if not _is_text(known.get("node")):
        raise RecordingError(f"{name}: recording.json does not name the node")
    for key, value in known.items():
        if key in _META_NUMBERS:
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise RecordingError(f"{name}: recording.json's {key} is no number")
        elif not _is_text(value):
            raise RecordingError(f"{name}: recording.json's {key} is no text")
    return Meta(**known, extra=values)


def _integer(values: dict[str, Any], key: str, where: str) -> int:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RecordingError(f"{where}: frame.json has no number {key!r}")
    if not 0 <= value < _INTEGER_LIMIT:
        raise RecordingError(f"{where}: frame.json has a {key!r} that is no time and no inode: {value}")
    return value


def _is_text(value: object) -> bool:
    """True for a string that can be written out: a lone surrogate is legal JSON and no text."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _errno(text: object, where: str) -> int:
    number = getattr(errno, text, None) if isinstance(text, str) and text.startswith("E") else None
    if not isinstance(number, int):
        raise RecordingError(f"{where}: frame.json has the error {text!r}, which is no errno name")
    return number


def _split(files: dict[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """The files of a frame, by kind: cgroup, proc, answers."""
    cgroup: dict[str, bytes] = {}
    proc: dict[str, bytes] = {}
    answers: dict[str, bytes] = {}
    for path, data in files.items():
        if path.startswith(CGROUP_ROOT + "/"):
            cgroup[path[len(CGROUP_ROOT) + 1 :]] = data
        elif path.startswith("proc/"):
            proc[path[len("proc/") :]] = data
        elif path.partition("/")[0] in ANSWER_FOLDERS:
            answers[path] = data
    return cgroup, proc, answers


def _frame(where: str, files: dict[str, bytes]) -> RecordedFrame:
    data = files.get("frame.json")
    if data is None:
        raise RecordingError(f"{where} has no frame.json: the recording is incomplete")
    values = _json_object(f"{where}/frame.json", data)
    instant = Instant(_integer(values, "time_ns", where), _integer(values, "monotonic_ns", where))
    dirs = _dirs(values, "dirs", where)
    if "." not in dirs and values.get("end_time_ns") is not None:
        # Older recordings do not tell when the root was read; they read it last.
        dirs["."] = RecordedDir(_integer(values, "end_time_ns", where), 0, None)
    errors = {_safe(path, where): _errno(text, where) for path, text in _mapping(values, "errors", where).items()}
    cgroup, proc, answers = _split(files)
    frame = RecordedFrame(
        instant=instant,
        dirs=dirs,
        errors=errors,
        files=cgroup,
        proc=proc,
        answers=_answers(values, answers, where),
        glimpses=_glimpses(_dirs(values, "glimpses", where), files),
    )
    frame.index()
    return frame


def _dirs(values: dict[str, Any], key: str, where: str) -> dict[str, RecordedDir]:
    """What ``frame.json`` says of directories."""
    dirs: dict[str, RecordedDir] = {}
    for path, entry in _mapping(values, key, where).items():
        if not isinstance(entry, dict):
            raise RecordingError(f"{where}: frame.json's {key} has no object for {path!r}")
        mtime_ns = _integer(entry, "mtime_ns", where) if entry.get("mtime_ns") is not None else None
        dirs[_safe(path, where)] = RecordedDir(
            _integer(entry, "time_ns", where), _integer(entry, "ino", where), mtime_ns
        )
    return dirs


def _glimpses(dirs: dict[str, RecordedDir], files: dict[str, bytes]) -> list[tuple[str, RecordedDir, dict[str, bytes]]]:
    """The cgroups that came and went, with their files."""
    found: dict[str, dict[str, bytes]] = {path: {} for path in dirs}
    for name, data in files.items() if found else ():
        folder, _, file = name.removeprefix(f"{GLIMPSES}/").rpartition("/")
        if name.startswith(f"{GLIMPSES}/") and folder in found:
            found[folder][file] = data
    return [(path, entry, found[path]) for path, entry in dirs.items()]


def _mapping(values: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = values.get(key) or {}
    if not isinstance(value, dict):
        raise RecordingError(f"{where}: frame.json's {key} is not an object")
    return value


def _answers(values: dict[str, Any], bodies: dict[str, bytes], where: str) -> list[Answer]:
    told = _mapping(values, "answers", where)
    older = _mapping(values, "answers_time_ns", where)
    default_ns = _integer(values, "time_ns", where)
    answers: list[Answer] = []
    # The kubelet's answers first: where it answers, the API server's are not asked for.
    for name in sorted({*bodies, *told}, key=lambda name: (not name.startswith("kubelet/"), name)):
        entry = told.get(name, {})
        if not isinstance(entry, dict):
            raise RecordingError(f"{where}: frame.json's answers has no object for {name!r}")
        # Older recordings name the kubelet's answers without their folder, and tell nothing but the time.
        time_ns = entry.get("time_ns", older.get(name.removeprefix("kubelet/")))
        time_ns = default_ns if time_ns is None else _integer({"time_ns": time_ns}, "time_ns", where)
        status = entry.get("status", 200 if name in bodies else None)
        if status is not None:
            status = _integer({"status": status}, "status", where)
        error = entry.get("error")
        if error is not None and not _is_text(error):
            raise RecordingError(f"{where}: frame.json's error of {name!r} is no text")
        # One that is not known is of a podtally that knows others: no reason to refuse the recording.
        kind = FAILURE_KINDS.get(str(entry.get("kind")))
        answers.append(Answer(name, time_ns, status, error, bodies.get(name), kind))
    return answers


def _single_frame(files: dict[str, bytes], time_ns: int) -> RecordedFrame:
    """A directory made with cp and kubectl: one frame, its time the newest file's, identity by path."""
    cgroup, proc, bodies = _split(files)
    instant = Instant(time_ns, 0)
    folders = {path.rpartition("/")[0] or "." for path in cgroup}
    frame = RecordedFrame(
        instant=instant,
        dirs={folder: RecordedDir(time_ns, 0, None) for folder in folders},
        errors={},
        files=cgroup,
        proc=proc,
        answers=[Answer(path, time_ns, 200, None, body) for path, body in sorted(bodies.items())],
    )
    frame.index()
    return frame


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
        first, last = recording.frames[0].instant, recording.frames[-1].instant
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
        frames = self._recording.frames
        if self._next >= len(frames):
            return self._recording.interval_ns
        return frames[self._next].instant.monotonic_ns - self.frame.instant.monotonic_ns

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
