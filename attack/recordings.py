"""Recordings under the fuzzer: archives changed in their files, their headers and their packed bytes, read and replayed."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Final

import zstandard

from attack.corpus import kernel_files, seed
from attack.fuzz import Sample, Target
from attack.mutate import BLANKS, NUMBERS, Document, changed
from collector.errors import UsageError
from collector.metrics.native import NativeExposition, Selection
from collector.sources.recording import RecordedAnswers, RecordedTree, load
from tests.support import LEAF_A, LEAF_B, UID, collector_over, small_recording

_FRAMES: Final = 2
_FILES: Final = ("cpu.stat", "memory.current", "memory.stat", "io.stat")
_REPLAYED_SHARE: Final = 0.2
"""A collector is made for it, which takes longer than reading a dozen archives."""
_BLOCK: Final = 512
"""Of a tar archive."""

_NAMES: Final = (
    *("../x", "/x", "a\0b", "frames/0000/../../x", "frames/99999999999999/x", "frames/-1/x", "frames/\u0661/x"),
    *("frames/0/frame.json", "recording.json", "recording.json/x", "frames/0000/frame.json/x", "a/" * 2050, "", "."),
    *("frames/0000/sys/fs/cgroup/\x1b[31m\n", "frames/0000/sys/fs/cgroup/\udcff", "frames/0000/kubelet/pods.json/x"),
)
_TYPES: Final = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE),
    *(
        tarfile.CONTTYPE,
        tarfile.GNUTYPE_SPARSE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        b"Z",
        b"\0",
    ),
)
_WORDS: Final = (*NUMBERS[:12], *BLANKS, b"\xff", b"max", b"path=../x\n", b"30 GNU.sparse.realsize=9999999\n")


@cache
def whole() -> Mapping[str, bytes]:
    """The files of a recording of two frames, of one pod with a sandbox and a container."""
    pod = f"kubepods/pod{UID}"
    heads = []
    for frame in range(_FRAMES):
        time_ns = (1_700_000_000 + frame) * 10**9
        dirs = {
            path: {"time_ns": time_ns + place, "ino": place + 1, "mtime_ns": 1_699_999_000 * 10**9}
            for place, path in enumerate((".", "kubepods", pod, f"{pod}/{LEAF_A}", f"{pod}/{LEAF_B}"))
        }
        answer = {"kubelet/pods.json": {"time_ns": time_ns, "status": 200}}
        errors = {f"{pod}/{LEAF_A}/memory.peak": "EACCES"}
        head = {"time_ns": time_ns, "monotonic_ns": (5 + frame) * 10**9, "dirs": dirs, "errors": errors}
        heads.append({**head, "answers": answer, "glimpses": {}})
    texts = kernel_files()
    files = {
        f"sys/fs/cgroup/{folder}{name}": texts[name][0]
        for folder in ("", f"{pod}/", f"{pod}/{LEAF_B}/")
        for name in _FILES
    }
    pods = json.loads(seed("kubelet/pods.json"))
    pods["items"][0]["metadata"]["uid"] = UID
    pods["items"][0]["status"]["containerStatuses"][0]["containerID"] = f"containerd://{LEAF_B}"
    files |= {"kubelet/pods.json": json.dumps(pods).encode(), "proc/meminfo": texts["meminfo"][0]}
    return small_recording(*heads, files=files)


def _member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A member of an archive, header and all."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mtime = len(data), kind, 1_700_000_000
    info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    try:
        head = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "surrogateescape")
    except ValueError:
        head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return head + data + bytes(-len(data) % _BLOCK)


_END: Final = bytes(2 * _BLOCK)
_PACKERS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda data: data,
    zstandard.ZstdCompressor(level=1).compress,
    zstandard.ZstdCompressor(level=1, write_checksum=True).compress,
    lambda data: gzip.compress(data, 1, mtime=0),
)


class RecordingTester:
    """Archives of one recording, changed in one of four ways."""

    def __init__(self) -> None:
        self._files = dict(whole())
        self._members = {name: _member(name, data) for name, data in self._files.items()}
        self._names = list(self._members)
        self._documents = {name: Document(json.loads(data)) for name, data in self._files.items() if ".json" in name}
        self._packed = [pack(b"".join(self._members.values()) + _END) for pack in _PACKERS]
        self._exposition = NativeExposition(Selection())

    def make(self, random: Random) -> Sample:
        """An archive."""
        kind = int(random.random() * 4)
        if kind == 3:
            packed = self._packed[int(random.random() * len(self._packed))]
            return Sample("packed bytes", (changed(packed, random, _WORDS),))
        members = dict(self._members)
        name = self._names[int(random.random() * len(self._names))]
        if kind == 0:
            document = self._documents.get(name)
            data = document.changed(random) if document else changed(self._files[name], random, _WORDS)
            members[name] = _member(name, data)
            of = "a file, replayed" if random.random() < _REPLAYED_SHARE else "a file"
        elif kind == 1:
            other = _NAMES[int(random.random() * len(_NAMES))] if random.random() < 0.6 else name
            type_ = _TYPES[int(random.random() * len(_TYPES))] if random.random() < 0.5 else tarfile.REGTYPE
            members[name if random.random() < 0.5 else ""] = _member(other, self._files[name], type_)
            of = "a name"
        else:
            members[name] = _mended(changed(members[name], random, _WORDS))
            of = "a header"
        pack = _PACKERS[int(random.random() * 2)]
        return Sample(of, (pack(b"".join(members.values()) + _END),))

    def check(self, sample: Sample) -> bool:
        """Whether it is one; of some, each frame is shown."""
        try:
            recorded = load(_written(sample.data[0]))
            tree = RecordedTree(recorded)
            if sample.of != "a file, replayed":
                return True
            for tally in collector_over(tree, RecordedAnswers(tree)).tallies():
                self._exposition.render(tally, openmetrics=False).encode()
        except UsageError as error:
            str(error).encode(errors="surrogateescape")
            return False
        return True


def _mended(member: bytes) -> bytes:
    """With the checksum that its header has now, or no change would get past it."""
    if len(member) < _BLOCK:
        return member
    total = sum(member[:148]) + 8 * ord(" ") + sum(member[156:_BLOCK])
    return member[:148] + b"%06o\0 " % (total % 0o777777) + member[156:]


@cache
def _file() -> io.FileIO:
    return io.FileIO(os.memfd_create("recording"), "r+")


def _written(data: bytes) -> str:
    """The path of a file in memory that has these bytes."""
    file = _file()
    file.seek(0)
    file.truncate()
    file.write(data)
    return f"/proc/self/fd/{file.fileno()}"


RECORDINGS: Final = Target(
    name="recordings",
    what="archives changed in files, names, headers and packed bytes, read and replayed",
    inputs=6_000,
    block=250,
    tester=RecordingTester,
)
