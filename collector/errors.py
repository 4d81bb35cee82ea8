"""Everything podtally raises on purpose, and what is done about each.

::

    PodtallyError
    ├── SourceError(path, errno)      a read of the node or of a recorded node failed
    │   ├── Gone                      the cgroup has vanished: skip it, it is normal
    │   ├── Absent                    the file is not there or not supported: leave its values out
    │   ├── Denied                    no right to read: leave the values out, count it, tell it
    │   ├── Exhausted                 out of descriptors or memory: open for each read, count it
    │   └── ReadFailed                any other errno: leave the values out, count it
    ├── ParseError(path, line)        a file is not in its grammar: leave its values out, count it
    ├── AnswerError(source)           an answer of a peer is not what it was asked for: keep the last one's
    │   └── AnswerTooLarge            ... because it is larger than any honest one
    ├── EndOfRecording                a recording has no further frame: stop replaying
    └── UsageError                    the user's input is wrong: one sentence on stderr, exit 2
        ├── RecordingError            ... because a recording is damaged, unsafe or not one
        │   └── CutRecording          ... because its archive ends too early: keep the frames that are whole
        ├── UnsupportedNode           ... because the node has no cgroup v2 that podtally can read
        └── ClusterError              ... because the cluster, or Prometheus in it, cannot be asked or refuses

``reason`` is the value of the ``reason`` label of ``podtally_read_errors_total``.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import ClassVar, Literal

Operation = Literal["directory", "file", "read"]


class PodtallyError(Exception):
    """Base of all errors that podtally raises on purpose."""

    reason: ClassVar[str] = "error"


class SourceError(PodtallyError):
    """Reading ``path`` failed with ``errno``; the subclasses say what follows from it."""

    reason: ClassVar[str] = "source"

    def __init__(self, path: str, errno: int) -> None:
        super().__init__(f"{'the cgroup root' if path == '.' else path}: {os.strerror(errno)}")
        self.path = path
        self.errno = errno


class Gone(SourceError):
    """The cgroup was removed: pread of a held descriptor gives ENODEV, opening its directory ENOENT. Skip it."""

    reason: ClassVar[str] = "gone"


class Absent(SourceError):
    """The kernel has no such file, or says it does not support it (PSI switched off). Leave the values out."""

    reason: ClassVar[str] = "absent"


class Denied(SourceError):
    """No right to read. Leave the values out and count it."""

    reason: ClassVar[str] = "denied"


class Exhausted(SourceError):
    """No descriptor or no memory left. Leave the values out, open files for each read from now on, count it."""

    reason: ClassVar[str] = "exhausted"


class ReadFailed(SourceError):
    """An errno that podtally has no rule for. Leave the values out and count it."""

    reason: ClassVar[str] = "failed"


class ParseError(PodtallyError):
    """``line`` of ``path`` is not in the file's grammar. Leave the file's values out and count it."""

    reason: ClassVar[str] = "malformed"

    def __init__(self, path: str, line: bytes) -> None:
        super().__init__(f"{path}: malformed line {line[:80]!r}")
        self.path = path
        self.line = line


class AnswerError(PodtallyError):
    """An answer of the kubelet or of the API server is not what was asked for: no list of pods, no samples of any.

    Keep what the last good one said.
    """

    reason: ClassVar[str] = "answer"


class AnswerTooLarge(AnswerError):
    """An answer is larger than any honest one, or has more in it. It is not read to its end."""

    reason: ClassVar[str] = "too_large"


class EndOfRecording(PodtallyError):
    """The recording has no further frame."""

    reason: ClassVar[str] = "end"


class UsageError(PodtallyError):
    """What the user asked for cannot be done as asked. One sentence on stderr, exit 2."""

    reason: ClassVar[str] = "usage"


class RecordingError(UsageError):
    """A recording is damaged, unsafe or not a recording."""

    reason: ClassVar[str] = "recording"


class CutRecording(RecordingError):
    """The archive of a recording ends before its end. Every file that was read before is whole."""

    reason: ClassVar[str] = "cut"


class UnsupportedNode(UsageError):
    """The node has no cgroup v2 tree that podtally can read."""

    reason: ClassVar[str] = "node"


class ClusterError(UsageError):
    """The cluster, or Prometheus in it, cannot be asked or refuses: no kubectl, no right, no answer."""

    reason: ClassVar[str] = "cluster"


def why_not_written(error: OSError) -> str:
    """Why a file or directory cannot be made: the system's reason, or the folder that is not there, and what to do."""
    if error.errno == _errno.ENOENT and isinstance(error.filename, str | os.PathLike):
        # Of a link the folder of what it leads to.
        folder = os.path.dirname(os.path.realpath(error.filename))
        return f"there is no folder {folder}: make it first, or write elsewhere"
    return error.strerror or str(error)


_DENIED = frozenset({_errno.EACCES, _errno.EPERM})
_EXHAUSTED = frozenset({_errno.EMFILE, _errno.ENFILE, _errno.ENOMEM})
_UNSUPPORTED = frozenset({_errno.EOPNOTSUPP, _errno.ENOTSUP, _errno.ENOSYS, _errno.EISDIR})
_ENDED = frozenset({_errno.ESRCH, _errno.ENXIO})


def classify(errno: int, path: str, operation: Operation) -> SourceError:
    """Return the error that ``errno`` stands for: the one place where errnos get a meaning.

    ``operation`` is what failed: opening a cgroup ``directory``, opening a ``file`` of a live cgroup, or a ``read``.

    - ENODEV: kernfs has removed the cgroup under a held descriptor (``fs/kernfs/file.c``, ``kernfs_get_active``).
    - ENOENT: for a directory, removed between listing and opening; for a file, a controller that is off or a kernel
      without that file. Whether the directory of a missing file still stands is for the source to find out.
    - ENOTDIR: the path is a file by now, so the directory is gone.
    - EOPNOTSUPP: a ``*.pressure`` file with PSI disabled (kernel ``kernel/sched/psi.c``), a ``cgroup.procs`` of a
      threaded cgroup.
    - ESRCH, ENXIO: the process of a ``/proc/<pid>`` file has ended, or its network has (``seq_open_net``).
    """
    if errno == _errno.ENODEV:
        return Gone(path, errno)
    if errno in (_errno.ENOENT, _errno.ENOTDIR):
        return Gone(path, errno) if operation == "directory" else Absent(path, errno)
    if errno in _UNSUPPORTED or errno in _ENDED:
        return Absent(path, errno)
    if errno in _DENIED:
        return Denied(path, errno)
    if errno in _EXHAUSTED:
        return Exhausted(path, errno)
    return ReadFailed(path, errno)
