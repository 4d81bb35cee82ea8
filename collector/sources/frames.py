"""One frame of a recording, and the node that it is of: made of the files that stand for them.

The format is section 5 of the contract, repeated in ``docs/recordings.md``. Whatever is not in it raises
:class:`RecordingError`, in one sentence that names it.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from collector.errors import RecordingError
from collector.model import FAILURE_KINDS, Answer, Instant
from collector.sources.archive import safe_path

VERSION = 1
"""The version of the format that is read and written."""

CGROUP_ROOT = "sys/fs/cgroup"
GLIMPSES = "glimpses"
"""Files of cgroups that came and went between two ticks, below it at their paths relative to the cgroup root."""
HEAD = "frame.json"
"""What a frame says of its files; written after them."""
ANSWER_FOLDERS = ("kubelet", "apiserver", "metrics-api")

CGROUPS_LIMIT = 100_000
"""Paths that a frame tells of, and the folders above them: each takes many times the memory of its text."""

_INTEGER_LIMIT = 2**64
"""Times in nanoseconds and inodes are below it."""


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

    def index(self, where: str) -> None:
        """Fill ``children``; directories above a recorded one count as there. Raises :class:`RecordingError`."""
        self.children = {".": set()}
        left = CGROUPS_LIMIT
        for path in (*self.dirs, *self.errors.keys() - self.files.keys()):
            parent, _, name = path.rpartition("/")
            while name and path != ".":
                names = self.children.setdefault(parent or ".", set())
                if name in names:
                    break
                names.add(name)
                left -= 1
                if left < 0:
                    raise RecordingError(f"{where} tells of more than {CGROUPS_LIMIT} cgroups: it is of no node")
                parent, _, name = parent.rpartition("/")


# --- made of files --------------------------------------------------------------------------------------------------


def is_told_whole(files: dict[str, bytes], where: str) -> bool:
    """Whether a frame that nothing comes after is known to have all its files: its head, written last, counts them."""
    return HEAD in files and _json_object(f"{where}/{HEAD}", files[HEAD]).get("files") == len(files) - 1


def _json_object(where: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{where} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RecordingError(f"{where} is not a JSON object")
    return value


def meta_of(name: str, data: bytes | None, *, has_frames: bool) -> Meta:
    """What ``recording.json`` says."""
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


def frame_of(where: str, files: dict[str, bytes]) -> RecordedFrame:
    """The frame that files stand for, by their paths in its folder."""
    data = files.get(HEAD)
    if data is None:
        raise RecordingError(f"{where} has no {HEAD}: the recording is incomplete")
    values = _json_object(f"{where}/{HEAD}", data)
    told = values.get("files")
    if told is not None and told != len(files) - 1:
        raise RecordingError(
            f"{where} has {len(files) - 1} files, and its {HEAD} says {told}: copy the recording again, or take"
            " 'files' out of it if it is changed on purpose"
        )
    instant = Instant(_integer(values, "time_ns", where), _integer(values, "monotonic_ns", where))
    dirs = _dirs(values, "dirs", where)
    if "." not in dirs and values.get("end_time_ns") is not None:
        # Older recordings do not tell when the root was read; they read it last.
        dirs["."] = RecordedDir(_integer(values, "end_time_ns", where), 0, None)
    errors = {safe_path(path, where): _errno(text, where) for path, text in _mapping(values, "errors", where).items()}
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
    frame.index(where)
    return frame


def _dirs(values: dict[str, Any], key: str, where: str) -> dict[str, RecordedDir]:
    """What ``frame.json`` says of directories."""
    dirs: dict[str, RecordedDir] = {}
    for path, entry in _mapping(values, key, where).items():
        if not isinstance(entry, dict):
            raise RecordingError(f"{where}: frame.json's {key} has no object for {path!r}")
        mtime_ns = _integer(entry, "mtime_ns", where) if entry.get("mtime_ns") is not None else None
        dirs[safe_path(path, where)] = RecordedDir(
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


def single_frame(where: str, files: dict[str, bytes], time_ns: int) -> RecordedFrame:
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
    frame.index(where)
    return frame
