"""What several tests share: fixtures, a collector over any tree, its expositions, and two kinds of made-up cgroups."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from collector.cgroup.files import EVERYTHING, Needs
from collector.cgroup.walk import Walker
from collector.errors import EndOfRecording, SourceError, classify
from collector.history import History
from collector.loop import Collector, Published
from collector.metrics import resource
from collector.metrics.cadvisor import CadvisorExposition
from collector.metrics.native import NativeExposition, Selection
from collector.model import Answer, Frame, Instant, Reading, Tally
from collector.seams import AnswerSource, Glimpse, Tree, read_each
from collector.server import api
from collector.sources.live import LiveTree
from collector.sources.recording import RecordedTree, Recording, load

FIXTURES = Path(__file__).resolve().parent / "fixtures" / "cgroupfs"
CASES = Path(__file__).resolve().parent / "fixtures" / "cases"

SYNTHETIC = (
    "cri-dockerd",
    "cri-dockerd-cgroupfs",
    "crio-conmon",
    "crun-subgroup",
    "docker-outside-kind",
    "kind-nested",
    "missing-files",
    "restart",
    "static-pod",
    "two-uids",
)
"""The layouts that can be read; ``cgroup-v1`` and ``hybrid`` are refused."""

CAPTURED = ("systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst")
"""The captured recordings of eight frames; ``parity-1hz`` has 151."""

RECORDED = ("oom.tar.zst", "churn.tar.zst", "replaced.tar.zst")
"""Recorded by `podtally record` through the DaemonSet's pod, with the base's rights."""

SECOND_NS = 1_000_000_000


@cache
def recording(name: str) -> Recording:
    """A fixture, read once for all tests. Nobody changes it."""
    return load(FIXTURES / name)


@cache
def case(name: str) -> Recording:
    """A situation from a public bug report, read once for all tests. Nobody changes it."""
    return load(CASES / f"{name}.tar.zst")


# --- a collector and what it says -----------------------------------------------------------------------------------


class NoAnswers:
    """Nobody answers; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def take(self) -> list[Answer]:
        return []

    def ask(self) -> None:
        self.asked += 1


class Answers(NoAnswers):
    """Gives the bodies, each once, as answers of the kubelet."""

    def __init__(self, *bodies: bytes) -> None:
        super().__init__()
        self._bodies = list(bodies)

    def take(self) -> list[Answer]:
        if not self._bodies:
            return []
        return [Answer("kubelet/pods.json", 1_700_000_000 * SECOND_NS, 200, None, self._bodies.pop(0))]


def collector_over(
    tree: Tree,
    answers: AnswerSource,
    *,
    kubepods: str | None = None,
    interval_ns: int = SECOND_NS,
    needs: Needs = EVERYTHING,
    seldom_wanted: Callable[[int], bool] | None = None,
) -> Collector:
    """A collector as ``record`` and ``replay`` make it, if no more is said: every file read every tick."""
    return Collector(
        walker=Walker(tree, slow_every=1, kubepods=kubepods, needs=needs, seldom_wanted=seldom_wanted),
        answers=answers,
        history=History(window_ns=15 * SECOND_NS, interval_ns=interval_ns),
        node_name="node1",
    )


class Exposed(NamedTuple):
    """All that is said of one tally, podtally's account of itself left aside."""

    metrics: str
    resource: str
    cadvisor: str
    document: str


def expose(tally: Tally, exposition: NativeExposition) -> Exposed:
    """``/metrics``, ``/metrics/resource``, ``/metrics/cadvisor`` with its times, and ``/api/v1/pods``."""
    return Exposed(
        exposition.render(tally, openmetrics=False),
        resource.render(tally, openmetrics=False),
        CadvisorExposition(timestamps=True).render(tally, openmetrics=False),
        json.dumps(api.document(Published(tally, 0, 0, 0))),
    )


def expose_all(collector: Collector) -> list[Exposed]:
    """The expositions after each frame of a recording."""
    exposition = NativeExposition(Selection())
    return [expose(tally, exposition) for tally in collector.tallies()]


def frames_of(recorded: Recording, *, kubepods: str | None = None) -> list[Frame]:
    """What the walk makes of each frame of a recording."""
    walker = Walker(RecordedTree(recorded), slow_every=1, kubepods=kubepods)
    frames: list[Frame] = []
    try:
        while True:
            frames.append(walker.tick())
    except EndOfRecording:
        return frames


def readings(frame: Frame) -> Iterator[tuple[str, int, Reading]]:
    """Path, inode and reading of each pod and leaf of a frame."""
    for pod in frame.pods:
        yield pod.path, pod.ino, pod.reading
        for leaf in pod.leaves:
            yield leaf.path, leaf.ino, leaf.reading


# --- cgroups in a temporary directory -------------------------------------------------------------------------------

LEAF_FILES: Mapping[str, str] = {
    "cpu.stat": "usage_usec 1000\nuser_usec 600\nsystem_usec 400\n",
    "memory.current": "4096\n",
    "memory.stat": "anon 2048\nfile 1024\ninactive_file 1024\n",
}


def cgroup(path: Path, files: Mapping[str, str] = LEAF_FILES) -> Path:
    """Make a cgroup directory with some files; those above it get none."""
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def v2_root(path: Path) -> Path:
    """A directory that passes for a cgroup v2 mount with one pod of two leaves, and a ``proc`` beside it."""
    cgroup(path, {"cgroup.controllers": "cpu memory\n", "cpu.stat": "usage_usec 9000\n", "memory.stat": "anon 1\n"})
    pod = cgroup(path / "kubepods" / "burstable" / f"pod{UID}")
    cgroup(pod / LEAF_A)
    cgroup(pod / LEAF_B)
    proc = path.parent / "proc"
    proc.mkdir()
    (proc / "meminfo").write_text("SwapTotal:  8 kB\nSwapFree:  4 kB\n")
    return path


UID = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340"
LEAF_A = "a" * 64
LEAF_B = "b" * 64
LEAF_C = "c" * 64
POD_PATH = f"kubepods/burstable/pod{UID}"


def live(root: Path, *, descriptor_limit: int | None = 1000) -> LiveTree:
    """The live source over such a directory."""
    return LiveTree(str(root), str(root.parent / "proc"), descriptor_limit=descriptor_limit)


def replace(path: Path, files: Mapping[str, str] = LEAF_FILES) -> None:
    """Make the cgroup at ``path`` again. The old one is kept outside the tree, or its inode might be used again."""
    aside = path.with_name(path.name + "-new")
    cgroup(aside, files)
    bin_ = next(above for above in path.parents if (above / "cgroup.controllers").exists()).with_name("removed")
    bin_.mkdir(exist_ok=True)
    path.rename(bin_ / str(path.stat().st_ino))
    aside.rename(path)


# --- cgroups in memory ----------------------------------------------------------------------------------------------


@dataclass
class Cgroup:
    """A cgroup in memory: a file is its bytes, or the errno that reading it gives."""

    ino: int
    files: dict[str, bytes | int] = field(default_factory=dict)
    mtime_ns: int | None = None
    listing: int | None = None
    """The errno that listing it gives."""
    opening: int | None = None
    """The errno that opening it gives."""


class MemoryTree:
    """Cgroups by path, ``.`` for the root; ticks are ``step`` seconds apart. Satisfies :class:`collector.seams.Tree`.

    Change ``cgroups`` between ticks, or from ``before_read``, which is called with the path of each file.
    """

    def __init__(
        self, cgroups: Mapping[str, Cgroup], proc: Mapping[str, bytes | int] | None = None, *, step: int = 1
    ) -> None:
        self.cgroups = dict(cgroups)
        self.proc = dict(proc or {})
        self.seconds = 0
        self._step = step
        self.reads: list[str] = []
        self.watched: dict[str, tuple[str, ...]] = {}
        """What is to be read of the children of these paths between two ticks."""
        self.seen: list[Glimpse] = []
        """What has come and gone, for the next tick."""

    def before_read(self, path: str) -> None:
        """Nothing; a test may put something here."""

    def begin(self) -> Instant:
        self.seconds += self._step
        self.reads = []
        return Instant((1_700_000_000 + self.seconds) * SECOND_NS, self.seconds * SECOND_NS)

    def open(self, path: str) -> MemoryDirectory:
        found = self.cgroups.get(path)
        number = errno.ENOENT if found is None else found.opening
        if number is not None:
            raise classify(number, path, "directory")
        assert found is not None
        return MemoryDirectory(self, path, found)

    def glimpses(self) -> list[Glimpse]:
        seen, self.seen = self.seen, []
        return seen

    def read_proc(self, name: str) -> bytes:
        data = self.proc.get(name, errno.ENOENT)
        if isinstance(data, int):
            raise classify(data, f"/proc/{name}", "file")
        return data


class MemoryDirectory:
    """One of them, held; it is gone when one with another inode stands at its path."""

    def __init__(self, tree: MemoryTree, path: str, cgroup: Cgroup) -> None:
        self._tree = tree
        self._path = path
        self.ino = cgroup.ino
        self.mtime_ns = cgroup.mtime_ns

    def _now(self) -> Cgroup:
        found = self._tree.cgroups.get(self._path)
        if found is None or found.ino != self.ino:
            raise classify(errno.ENODEV, self._path, "read")
        return found

    def stamp(self) -> int:
        return self._tree.seconds * SECOND_NS

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        number = self._now().listing
        if number is not None:
            raise classify(number, self._path, "directory")
        prefix = "" if self._path == "." else self._path + "/"
        names = [path[len(prefix) :] for path in self._tree.cgroups if path.startswith(prefix) and path != "."]
        return [name for name in names if name and "/" not in name]

    def read(self, name: str) -> bytes:
        path = f"{self._path}/{name}"
        self._tree.before_read(path)
        self._tree.reads.append(path)
        data = self._now().files.get(name, errno.ENOENT)
        if isinstance(data, int):
            raise classify(data, path, "file")
        return data

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        return read_each(self.read, names)

    def watch(self, names: tuple[str, ...]) -> None:
        self._tree.watched[self._path] = names

    def close(self) -> None:
        pass


# --- recordings -----------------------------------------------------------------------------------------------------


def files_below(root: Path) -> dict[str, bytes]:
    """All files of a directory, by their path in it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder, _, names in os.walk(root)
        for path in (Path(folder, name) for name in names)
    }


def write_files(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below ``root``."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def tar_bytes(members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> bytes:
    """A tar archive of the members, in order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def small_recording(*frames: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """The files of a recording whose ``frame.json`` are as given; ``files`` stand in each frame."""
    made = {"recording.json": json.dumps({"version": 1, "node": "n"}).encode()}
    for number, head in enumerate(frames):
        made[f"frames/{number:04d}/frame.json"] = json.dumps(head).encode()
        made |= {f"frames/{number:04d}/{name}": data for name, data in (files or {}).items()}
    return made
