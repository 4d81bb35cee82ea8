"""The forms that a recording has on disk, written: a directory, a ``.tar``, a ``.tar.gz``, a ``.tar.zst``.

Each is closed frame by frame, so that one whose writer was killed, or whose disk was full, is read up to its last whole
frame. Nobody but its owner reads it, whatever the umask: it tells of all pods of a node.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from collector.sources.archive import BLOCK_BYTES


class Packer(Protocol):
    """Packs a tar so that what it has given of it can be read without what is to come."""

    def part(self, data: bytes) -> bytes:
        """The next part of the tar, packed."""

    def end(self, data: bytes) -> bytes:
        """Its last part, packed."""


class _Plain:
    def part(self, data: bytes) -> bytes:
        return data

    end = part


class _Gzip:
    """A gzip member a part, each with its checksum: gzip looks back 32 KiB, so that it loses nothing by that."""

    def part(self, data: bytes) -> bytes:
        member = zlib.compressobj(level=9, wbits=31)
        return member.compress(data) + member.flush()

    end = part


class _Zstd:
    """Blocks are ended after each part, zstd frames seldom: each has its checksum, and forgets what was before it."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdCompressionObj | None = None
        self._bytes = 0
        self._parts = 0

    def part(self, data: bytes) -> bytes:
        frame = self._frame or zstandard.ZstdCompressor(level=10, write_checksum=True).compressobj()
        self._frame = frame
        self._parts += 1
        packed = frame.compress(data)
        if self._parts % PARTS_OF_ZSTD_FRAME == 0:
            self._frame = None
            return packed + frame.flush()
        return packed + frame.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self, data: bytes) -> bytes:
        frame = self._frame or zstandard.ZstdCompressor(level=10, write_checksum=True).compressobj()
        return frame.compress(data) + frame.flush()


PARTS_OF_ZSTD_FRAME = 60
"""Parts of one zstd frame: a minute of frames by default."""

PACKERS: dict[str, Callable[[], Packer]] = {".tar": _Plain, ".tar.gz": _Gzip, ".tar.zst": _Zstd}
"""By the end of the archive's name."""


class Output(Protocol):
    """Where a recording is written. All raise ``OSError``."""

    def put(self, files: dict[str, bytes]) -> None:
        """Write files, so that they are read if nothing follows; the last one is there whole or not at all."""

    def close(self, *, used: bool, whole: bool) -> None:
        """Write the end, if all was written so far (``whole``). What is not ``used`` is taken away again."""


class ToArchive:
    """A ``.tar``, ``.tar.gz`` or ``.tar.zst``, packed."""

    def __init__(self, path: str, packer: Packer) -> None:
        """A new file, or a device or pipe. Raises ``OSError``."""
        if os.path.isfile(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._file = open(os.open(path, flags, 0o600), "wb")
        self._stream = ToStream(self._file, packer)
        self._is_file = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        if self._is_file:
            os.fchmod(self._file.fileno(), 0o600)

    def put(self, files: dict[str, bytes]) -> None:
        """Write files."""
        self._stream.put(files)

    def close(self, *, used: bool, whole: bool) -> None:
        """Write the end."""
        with self._file:
            self._stream.close(used=used, whole=whole)
        if not used and self._is_file and not os.path.islink(self._path):
            os.unlink(self._path)


class ToStream:
    """An archive that goes to a stream, which is left open."""

    def __init__(self, stream: BinaryIO, packer: Packer) -> None:
        self._stream = stream
        self._packer = packer

    def put(self, files: dict[str, bytes]) -> None:
        """Write files."""
        self._write(self._packer.part(b"".join(_in_tar(path, data) for path, data in files.items())))

    def close(self, *, used: bool, whole: bool) -> None:
        """Write the end."""
        if whole:
            self._write(self._packer.end(bytes(2 * BLOCK_BYTES)))

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()


class ToFolder:
    """A directory."""

    def __init__(self, path: str) -> None:
        """A new one. Raises ``OSError``."""
        self._root = Path(path)
        _make_private(self._root)

    def put(self, files: dict[str, bytes]) -> None:
        """Write files; the last one under another name first."""
        *others, last = files
        for path in others:
            self._write(self._root / path, files[path])
        part = self._root / f"{last}.part"
        self._write(part, files[last])
        part.rename(self._root / last)

    def close(self, *, used: bool, whole: bool) -> None:
        """Take away what is not used."""
        if not used:
            shutil.rmtree(self._root)

    def _write(self, path: Path, data: bytes) -> None:
        if not path.parent.exists():
            _make_private(path.parent)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)


def _in_tar(path: str, data: bytes) -> bytes:
    """A file as it stands in a tar, for its owner where it is unpacked."""
    info = tarfile.TarInfo(path)
    info.size = len(data)
    info.mode = 0o600
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + data + bytes(-len(data) % BLOCK_BYTES)


def _make_private(folder: Path) -> None:
    """A new folder, and those above it that are not there."""
    if not folder.parent.exists():
        _make_private(folder.parent)
    folder.mkdir(0o700)
    folder.chmod(0o700)
