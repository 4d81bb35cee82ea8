"""The tee that makes recordings: it stands between the walk and any source and keeps exactly what passes.

Bytes, inodes, errnos and clocks are written as they were handed on, so that the program does the same with the
recording as it did with the source: exposition(replay(record(x))) == exposition(x) is a test. Of lists of pods what the
program reads is written, and no environment, argument or annotation.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, cast

from collector.errors import AnswerError, AnswerTooLarge, Gone, RecordingError, SourceError, why_not_written
from collector.model import Answer, FailureKind, Instant
from collector.pods.strip import is_pod_list, strip
from collector.seams import AnswerSource, Directory, Glimpse, Tree, read_each
from collector.sources.frames import CGROUP_ROOT, GLIMPSES, HEAD, Meta
from collector.sources.packing import PACKERS, Output, ToArchive, ToFolder, ToStream

# --- writing --------------------------------------------------------------------------------------------------------


_OTHER_ARCHIVES = (".tgz", ".tzst", ".zip", ".gz", ".zst", ".bz2", ".xz", ".7z")


class RecordingWriter:
    """Writes a recording as a directory or an archive, frame by frame. A context manager.

    What it has written is a recording at any time: whatever ends it, its whole frames can be read.
    """

    def __init__(self, out: str, meta: Meta, stdout: BinaryIO | None = None) -> None:
        """``out``: a new directory, a name ending in ``.tar``, ``.tar.gz`` or ``.tar.zst``, or ``-`` for a
        ``.tar.zst`` on ``stdout``. Raises :class:`RecordingError` if it cannot be written or a directory is there
        already: a recording is never written over another's frames.
        """
        self._frames = 0
        self._meta = meta
        self._out = out
        self._whole = True
        """Nothing has failed yet."""
        with self._writing():
            self._output: Output | None = self._opened(out, stdout)

    def _opened(self, out: str, stdout: BinaryIO | None) -> Output:
        if out == "-":
            return ToStream(cast(BinaryIO, stdout), PACKERS[".tar.zst"]())
        for ending, packer in PACKERS.items():
            if out.endswith(ending):
                return ToArchive(out, packer())
        if out.endswith(_OTHER_ARCHIVES):
            raise RecordingError(f"{out} is of a form that is not written: end it in .tar, .tar.gz or .tar.zst")
        return ToFolder(out)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise RecordingError(f"{self._out} is there already: give a new name, or remove it first") from error
        except BrokenPipeError:
            self._whole = False
            raise  # the reader of a pipe has had enough: the program ends quietly
        except OSError as error:
            self._whole = False
            left = f"; {self.told()}" if self._frames else ""
            raise RecordingError(f"cannot write the recording {self._out}: {why_not_written(error)}{left}") from error

    def told(self) -> str:
        """How many frames there are, and where."""
        where = "on stdout" if self._out == "-" else f"in {self._out}"
        return f"{self._frames} whole {'frame is' if self._frames == 1 else 'frames are'} {where}"

    def frame(self, head: dict[str, Any], files: dict[str, bytes]) -> None:
        """Write one frame: the files below its folder, and ``frame.json``, which counts them, when all are there.
        Before the first frame, what is known of the node by then: the pods' container ids tell which runtime it has.
        """
        folder = f"frames/{self._frames:04d}"
        put: dict[str, bytes] = {}
        if not self._frames:
            meta = replace(self._meta, runtime=self._meta.runtime or _runtime(files))
            put["recording.json"] = meta.to_json().encode()
        put |= {f"{folder}/{name}": data for name, data in files.items()}
        put[f"{folder}/{HEAD}"] = json.dumps(head | {"files": len(files)}, indent=1).encode() + b"\n"
        with self._writing():
            cast(Output, self._output).put(put)
        self._frames += 1

    def close(self) -> None:
        """End the archive, unless writing has failed. What holds no frame is taken away again."""
        output, self._output = self._output, None
        if output is not None:
            with self._writing():
                output.close(used=self._frames > 0, whole=self._whole)

    @property
    def frames(self) -> int:
        """Whole frames written."""
        return self._frames

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_CONTAINER_ID = re.compile(rb'"containerID":\s*"([a-z0-9.-]+)://')
"""``containerd://<id>``, ``cri-o://<id>``, ``docker://<id>``: the runtime gives its name to the kubelet so."""


def _runtime(files: dict[str, bytes]) -> str:
    """The runtime that made the containers of a frame's list of pods; ``""`` without a list or before the first one."""
    for name, data in files.items():
        if name.endswith("/pods.json") and (found := _CONTAINER_ID.search(data)):
            return found[1].decode()
    return ""


# --- the tee --------------------------------------------------------------------------------------------------------


def _dir(time_ns: int, ino: int, mtime_ns: int | None) -> dict[str, int]:
    """What is said of a directory."""
    return {"time_ns": time_ns, "ino": ino} | ({} if mtime_ns is None else {"mtime_ns": mtime_ns})


class TeeDirectory:
    """Hands everything on and notes it; satisfies :class:`collector.seams.Directory`."""

    __slots__ = ("_inner", "_path", "_tee", "ino", "mtime_ns")

    def __init__(self, tee: TeeTree, path: str, inner: Directory) -> None:
        self._tee = tee
        self._path = path
        self._inner = inner
        self.ino = inner.ino
        self.mtime_ns = inner.mtime_ns

    def stamp(self) -> int:
        """Monotonic time, noted."""
        monotonic_ns = self._inner.stamp()
        self._tee.note_directory(self._path, self.ino, self.mtime_ns, monotonic_ns)
        return monotonic_ns

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        """Child cgroups; that the directory was there is noted."""
        try:
            names = self._inner.subdirectories(force=force)
        except SourceError as error:
            self._tee.note_directory(self._path, self.ino, self.mtime_ns, None)
            self._tee.note_error(self._path, error)
            raise
        self._tee.note_directory(self._path, self.ino, self.mtime_ns, None)
        return names

    def read(self, name: str) -> bytes:
        """The bytes or the error, noted."""
        path = name if self._path == "." else f"{self._path}/{name}"
        try:
            data = self._inner.read(name)
        except SourceError as error:
            self._tee.note_error(path, error)
            raise
        self._tee.note_file(f"{CGROUP_ROOT}/{path}", data)
        return data

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        """The bytes or the errors, noted."""
        return read_each(self.read, names)

    def watch(self, names: tuple[str, ...]) -> None:
        """Hand the wish on."""
        self._inner.watch(names)

    def close(self) -> None:
        """Let go."""
        self._inner.close()


class TeeTree:
    """A tree that records another; satisfies :class:`collector.seams.Tree`."""

    def __init__(self, inner: Tree, writer: RecordingWriter) -> None:
        self._inner = inner
        self._writer = writer
        self._instant: Instant | None = None
        self._dirs: dict[str, dict[str, int]] = {}
        self._stamped: set[str] = set()
        self._errors: dict[str, str] = {}
        self._files: dict[str, bytes] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._glimpses: dict[str, dict[str, int]] = {}

    def begin(self) -> Instant:
        """Write the frame that has ended and start the next."""
        self.flush()
        self._instant = self._inner.begin()
        return self._instant

    def flush(self) -> None:
        """Write what the current frame has so far, if there is one. Call once after the last tick."""
        if self._instant is None:
            return
        head = {
            "time_ns": self._instant.time_ns,
            "monotonic_ns": self._instant.monotonic_ns,
            "dirs": self._dirs,
            "errors": self._errors,
            "answers": self._answers,
        }
        if self._glimpses:
            head["glimpses"] = self._glimpses
        self._writer.frame(head, self._files)
        self._instant = None
        self._dirs, self._stamped, self._errors, self._files, self._answers = {}, set(), {}, {}, {}
        self._glimpses = {}

    def open(self, path: str) -> TeeDirectory:
        """Open ``path`` and note that it was there, or why not."""
        try:
            inner = self._inner.open(path)
        except SourceError as error:
            if error.errno != errno.ENOENT:
                self.note_error(path, error)
            raise
        before = self._dirs.get(path)
        if before is None:
            self._errors.pop(path, None)
        elif before["ino"] != inner.ino:
            self._forget(path)
        self.note_directory(path, inner.ino, inner.mtime_ns, None)
        return TeeDirectory(self, path, inner)

    def _forget(self, path: str) -> None:
        """Another cgroup stands at ``path`` now: what was noted of the one before, in this frame, is not of this."""
        self._stamped = {name for name in self._stamped if name != path and not name.startswith(path + "/")}
        for notes, prefix in ((self._dirs, path), (self._errors, path), (self._files, f"{CGROUP_ROOT}/{path}")):
            for name in [name for name in notes if name == prefix or name.startswith(prefix + "/")]:
                del notes[name]

    def glimpses(self) -> list[Glimpse]:
        """What has come and gone, noted."""
        found = self._inner.glimpses()
        for one in found:
            if self._instant is not None:
                self._glimpses[one.path] = _dir(self._instant.wall_ns(one.monotonic_ns), one.ino, one.mtime_ns)
                for name, data in one.files.items():
                    self.note_file(f"{GLIMPSES}/{one.path}/{name}", data)
        return found

    def read_proc(self, name: str) -> bytes:
        """``/proc/<name>``, noted."""
        data = self._inner.read_proc(name)
        self.note_file(f"proc/{name}", data)
        return data

    # --- notes, taken by the directories and the answers' tee

    def note_directory(self, path: str, ino: int, mtime_ns: int | None, monotonic_ns: int | None) -> None:
        """Note that ``path`` was there; the time of its first stamp stays, as its values are of then."""
        if self._instant is None or path in self._stamped or (monotonic_ns is None and path in self._dirs):
            return
        at = self._instant.time_ns if monotonic_ns is None else self._instant.wall_ns(monotonic_ns)
        self._dirs[path] = _dir(at, ino, mtime_ns)
        if monotonic_ns is not None:
            self._stamped.add(path)

    def note_error(self, path: str, error: SourceError) -> None:
        """Note that reading ``path`` failed. A file that is not there is noted by its absence, but not so one whose
        cgroup was removed while it was read.
        """
        if isinstance(error, Gone):
            self._errors[path] = "ENODEV"
        elif error.errno != errno.ENOENT:
            self._errors[path] = errno.errorcode.get(error.errno, "EIO")

    def note_file(self, path: str, data: bytes) -> None:
        """Note what a file held."""
        self._files[path] = data

    def note_answer(self, answer: Answer) -> None:
        """Note an answer or its lack."""
        if answer.body is not None:
            self._files[answer.name] = answer.body
        entry: dict[str, Any] = {"time_ns": answer.time_ns, "status": answer.status}
        if answer.error is not None:
            entry["error"] = answer.error
        if answer.kind is not None:
            entry["kind"] = answer.kind
        self._answers[answer.name] = entry


def _without_specs(answer: Answer) -> Answer:
    """A list of pods without what podtally does not read: a recording is made to be passed on."""
    if answer.body is None or answer.status != 200 or not is_pod_list(answer.name):
        return answer
    try:
        return answer._replace(body=strip(answer.body))
    except AnswerError as error:
        kind: FailureKind = "too_large" if isinstance(error, AnswerTooLarge) else "not_the_list"
        return answer._replace(body=None, error=str(error), kind=kind)


class TeeAnswers:
    """An answer source that records another. Lists of pods are stripped, whatever the source, unless ``raw``."""

    def __init__(self, inner: AnswerSource, tree: TeeTree, *, raw: bool = False) -> None:
        self._inner = inner
        self._tree = tree
        self._raw = raw

    def take(self) -> list[Answer]:
        """The answers, noted in the frame that is being read."""
        answers = self._inner.take()
        for answer in answers:
            self._tree.note_answer(answer if self._raw else _without_specs(answer))
        return answers

    def ask(self) -> None:
        """Hand the wish on."""
        self._inner.ask()


def live_meta(node: str, cgroup_driver: str, note: str) -> Meta:
    """What can be said of the node that the program runs on."""
    return Meta(
        node=node,
        kernel=os.uname().release,
        cpus=os.cpu_count(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        page_size=os.sysconf("SC_PAGE_SIZE"),
        cgroup_driver=cgroup_driver,
        note=note,
    )
