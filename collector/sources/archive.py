"""The forms that a recording has on disk, read: a directory, a ``.tar``, a ``.tar.gz``, a ``.tar.zst``.

What is read may be anybody's. A file is handed on with its path in the recording, in the order of the archive, and one
at a time: nothing else is held, and each thing is counted against its bound before it is held. ``tarfile`` walks no
archive here: it holds headers of any size, keeps every one of them, and takes a damaged header for the end.
"""

from __future__ import annotations

import os
import re
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple, NoReturn

import zstandard

from collector.errors import CutRecording, RecordingError

FILE_LIMIT_BYTES = 64 << 20
"""A file of a recording. The largest is the kubelet's answer with all pods, or its page of all metrics."""

UNPACKED_LIMIT_BYTES = 64 << 30
"""An archive in all, headers and padding included: 13 MiB a frame on a node of 110 pods, for an hour of seconds.

Memory does not depend on it.
"""

HEADER_LIMIT_BYTES = 64 << 10
"""What stands before a member of a tar: pax records and long names."""

WINDOW_LIMIT_BYTES = 128 << 20
"""How far back zstd may refer, which is memory: what ``zstd --long`` asks for."""

PATH_LIMIT = 4096
"""PATH_MAX: no cgroup has a longer path."""

DEPTH_LIMIT = 40
"""Names of a path: the containers of a node that is itself a container's container are some 20 deep."""

FOLDERS_LIMIT = 100_000
"""Folders one after the other in an archive."""

_READ_BYTES = 64 << 10
"""Bytes taken at a time."""

_ZSTD_READ_BYTES = 512
"""Compressed bytes taken at a time: zstd can make 32,768 times as many of them, and gives them all at once."""

BLOCK_BYTES = 512
"""tar counts in these."""

_TAIL_LIMIT_BYTES = 16 << 20
"""Zeros after the end of a tar, which pads to the size of a tape's record."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_GZIP_MAGIC = b"\x1f\x8b"

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class Member(NamedTuple):
    """A file of a recording."""

    path: str
    data: bytes
    mtime_ns: int


def safe_path(name: str, where: str) -> str:
    """``name`` without a leading ``./``. Raises :class:`RecordingError` if it leads out of the recording, or has more
    characters or folders than a cgroup's.
    """
    if len(name) > PATH_LIMIT:
        raise RecordingError(
            f"{where} has a path of {len(name)} characters, more than {PATH_LIMIT}: {name[:80]!r}...; leave it out"
        )
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise RecordingError(f"{where} has the path {name!r}, which leads out of the recording: it is refused whole")
    if len(path.parts) > DEPTH_LIMIT:
        raise RecordingError(
            f"{where} has a path of {len(path.parts)} names, more than {DEPTH_LIMIT}: {name[:80]!r}...; leave it out"
        )
    return str(path)


def members(name: str, progress: Progress | None = None) -> Iterator[Member]:
    """The files of the recording at ``name``, each when it has been read, in the archive's order.

    Raises :class:`RecordingError` if it is damaged, unsafe or beyond a bound, :class:`CutRecording` if it only ends
    too early, and ``OSError`` if it cannot be read.
    """
    if os.path.isdir(name):
        yield from _of_directory(name)
        return
    # A pipe would be waited for, and a device is not to be touched.
    with open(os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RecordingError(f"{name} is neither a file nor a directory: write it to a file first")
        for number, member in enumerate(_of_tar(name, _unpacked(name, file))):
            if progress is not None and number % 500 == 0:
                progress(file.tell(), status.st_size)
            yield member
        if progress is not None:
            progress(status.st_size, status.st_size)


# --- a directory ----------------------------------------------------------------------------------------------------


def _of_directory(root: str) -> Iterator[Member]:
    def failed(error: OSError) -> NoReturn:
        raise error

    # Folders are held open while they are walked: one that is changed for a link meanwhile leads nowhere else.
    for folder, folders, names, descriptor in os.fwalk(root, onerror=failed, follow_symlinks=False):
        folders.sort()
        at = os.path.relpath(folder, root)
        for name in folders:
            path = safe_path(os.path.join(at, name), root)
            if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise RecordingError(f"{root} has the link {path!r}: links are not followed, copy files")
        for name in sorted(names):
            yield _file(root, safe_path(os.path.join(at, name), root), name, descriptor)


def _file(root: str, path: str, name: str, folder: int) -> Member:
    """A file of a directory. What is none is not opened: a pipe would be waited for, a device might do something."""
    try:
        return _opened(root, path, name, folder)
    except FileNotFoundError as error:
        raise RecordingError(f"{root} is changed while it is read, {path!r} has gone: read a copy of it") from error


def _opened(root: str, path: str, name: str, folder: int) -> Member:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise RecordingError(f"{root} has the link {path!r}: links are not followed, copy files")
    if stat.S_ISREG(status.st_mode):
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=folder), "rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                # Not by its size alone: it may grow meanwhile.
                data = file.read(FILE_LIMIT_BYTES + 1) if status.st_size <= FILE_LIMIT_BYTES else None
                if data is None or len(data) > FILE_LIMIT_BYTES:
                    raise _too_large(root, path)
                return Member(path, data, status.st_mtime_ns)
    raise RecordingError(f"{root} has {path!r}, which is neither a file nor a directory")


def _too_large(name: str, path: str) -> RecordingError:
    return RecordingError(f"{name} has {path!r}, which is larger than {FILE_LIMIT_BYTES >> 20} MiB: leave it out")


# --- what an archive unpacks to -------------------------------------------------------------------------------------


def _unpacked(name: str, file: BinaryIO) -> Iterator[bytes]:
    """The bytes of the tar, in pieces. Raises :class:`CutRecording` where they end within compressed data."""
    magic = file.read(4)
    file.seek(0)
    if magic == _ZSTD_MAGIC or (magic[1:] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50):
        return _of_zstd(name, file)
    return _of_gzip(name, file) if magic[:2] == _GZIP_MAGIC else _pieces(file, _READ_BYTES)


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while data := file.read(size):
        yield data


def _of_zstd(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Each zstd frame ends with a checksum of what it unpacks to, if whoever wrote it had it so."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT_BYTES)
    frame = decompressor.decompressobj()
    begun = False
    for data in _pieces(file, _ZSTD_READ_BYTES):
        while data:
            if frame.eof:
                frame, begun = decompressor.decompressobj(), False
            try:
                piece = frame.decompress(data)
            except zstandard.ZstdError as error:
                raise _damaged(name, str(error)) from error
            begun = True
            if piece:
                yield piece
            data = frame.unused_data if frame.eof else b""
    if begun and not frame.eof:
        raise _cut(name)


def _of_gzip(name: str, file: BinaryIO) -> Iterator[bytes]:
    """Each gzip member ends with a checksum of what it unpacks to."""
    member = zlib.decompressobj(wbits=31)
    begun = False
    for data in _pieces(file, _READ_BYTES):
        while data:
            if member.eof:
                # gzip lets zeros stand behind it, as on a tape.
                if not (data := data.lstrip(b"\0")):
                    break
                member, begun = zlib.decompressobj(wbits=31), False
            try:
                piece = member.decompress(data, _READ_BYTES)
            except zlib.error as error:
                raise _damaged(name, str(error)) from error
            begun = True
            if piece:
                yield piece
            data = member.unused_data if member.eof else member.unconsumed_tail
    if begun and not member.eof:
        raise _cut(name)


class _Unpacked:
    """The bytes of a tar, to be taken in the sizes that are asked for. Stops at the bound of all of them."""

    def __init__(self, name: str, pieces: Iterator[bytes]) -> None:
        self._name = name
        self._pieces = pieces
        self._piece = memoryview(b"")
        self.count = 0
        """Bytes taken."""

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._piece = memoryview(piece)
        return True

    def take(self, size: int) -> bytes:
        """So many bytes, or fewer at the end."""
        return b"".join(self._parts(size))

    def skip(self, size: int) -> int:
        """Take them, and hold none. Returns how many there were."""
        return sum(len(part) for part in self._parts(size))

    def _parts(self, size: int) -> Iterator[memoryview]:
        self.count += size
        if self.count > UNPACKED_LIMIT_BYTES:
            raise RecordingError(
                f"{self._name} unpacks to more than {UNPACKED_LIMIT_BYTES >> 30} GiB: record for a shorter time"
            )
        while size and (self._piece or self._more()):
            part, self._piece = self._piece[:size], self._piece[size:]
            size -= len(part)
            yield part


# --- the walk over a tar --------------------------------------------------------------------------------------------


class _Header(NamedTuple):
    info: tarfile.TarInfo
    path: str
    size: int
    mtime_ns: int


_RECORDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_BEFORE = (*_RECORDS, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
"""Headers that tell of the member after them."""


def _of_tar(name: str, pieces: Iterator[bytes]) -> Iterator[Member]:
    stream = _Unpacked(name, pieces)
    reader = _Headers(name, stream)
    folders = 0
    while (header := reader.next()) is not None:
        path = safe_path(header.path, name)
        if header.info.isdir():
            folders += 1
            if folders > FOLDERS_LIMIT:
                raise RecordingError(f"{name} has more than {FOLDERS_LIMIT} folders without a file: leave them out")
            continue
        folders = 0
        # A sparse file of a few bytes can claim any size.
        if not header.info.isreg() or header.info.type == tarfile.GNUTYPE_SPARSE:
            raise RecordingError(f"{name} has {header.path!r}, which is neither a file nor a directory")
        if header.size > FILE_LIMIT_BYTES:
            raise _too_large(name, header.path)
        data = stream.take(header.size)
        if len(data) < header.size or stream.skip(-header.size % BLOCK_BYTES) < -header.size % BLOCK_BYTES:
            raise _cut(name)
        yield Member(path, data, header.mtime_ns)
    _take_tail(name, stream)


def _take_tail(name: str, stream: _Unpacked) -> None:
    """Read to the end of the file, which has the last checksum. Behind the end of a tar are zeros alone."""
    count = BLOCK_BYTES
    while data := stream.take(_READ_BYTES):
        count += len(data)
        if data.strip(b"\0"):
            raise _damaged(name, "there is more behind the end of its tar archive")
        if count > _TAIL_LIMIT_BYTES:
            raise _damaged(name, f"behind its end are more than {_TAIL_LIMIT_BYTES >> 20} MiB of zeros")
    if count < 2 * BLOCK_BYTES:
        raise _cut(name)


class _Headers:
    """Reads the headers of a tar, one at a time: ustar, and what pax and GNU put before it."""

    def __init__(self, name: str, stream: _Unpacked) -> None:
        self._name = name
        self._stream = stream
        self._first = True
        self._always: dict[str, str] = {}
        """pax records of all members to come."""

    def next(self) -> _Header | None:
        """The next member's, or ``None`` at the end of the archive."""
        records: dict[str, str] = {}
        left = HEADER_LIMIT_BYTES
        while True:
            info = self._block()
            if info is None or info.type not in _BEFORE:
                return None if info is None else self._with(info, self._always | records)
            left -= BLOCK_BYTES + info.size
            if left < 0:
                raise RecordingError(
                    f"{self._name} has a header larger than {HEADER_LIMIT_BYTES >> 10} KiB before {info.name[:80]!r}:"
                    " pack it again without extended attributes"
                )
            padded = info.size + -info.size % BLOCK_BYTES
            data = self._stream.take(padded)
            if len(data) < padded:
                raise _cut(self._name)
            data = data[: info.size]
            if info.type == tarfile.XGLTYPE:
                self._always |= self._pax(data)
            elif info.type in _RECORDS:
                records |= self._pax(data)
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                records["path"] = _text(data.partition(b"\0")[0])

    def _block(self) -> tarfile.TarInfo | None:
        """One header of 512 bytes; ``None`` for the first of zeros, which is the end."""
        data = self._stream.take(BLOCK_BYTES)
        if not data.strip(b"\0") and len(data) == BLOCK_BYTES:
            if self._first:
                raise self._no_recording("it begins with zeros")
            return None
        if len(data) < BLOCK_BYTES:
            raise self._no_recording("it is too short") if self._first else _cut(self._name)
        try:
            info = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
            if info.size < 0:
                raise tarfile.HeaderError("a size below zero")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            # tarfile says the latter two of numbers that are none.
            raise self._no_recording(str(error)) if self._first else _damaged(self._name, str(error)) from error
        self._first = False
        return info

    def _no_recording(self, why: str) -> RecordingError:
        return RecordingError(
            f"{self._name} is no recording: neither a directory nor a tar archive ({why}); {WHAT_IS_ONE}"
        )

    def _pax(self, data: bytes) -> dict[str, str]:
        """Records of a length, that of all of the record, a blank, key=value and a newline."""
        records: dict[str, str] = {}
        at = 0
        while at < len(data):
            digits = data[at : at + 8].partition(b" ")[0]
            end = at + int(digits) if digits.isdigit() else at
            key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
            if not equals or end > len(data) or data[end - 1 : end] != b"\n":
                raise _damaged(self._name, "a pax header that is none")
            records[_text(key)] = _text(value)
            at = end
        return records

    def _with(self, info: tarfile.TarInfo, records: dict[str, str]) -> _Header:
        """A member's header, with what the records say of it."""
        path = records.get("path", info.name)
        if any(key.startswith("GNU.sparse.") for key in records):
            raise RecordingError(f"{self._name} has {path!r}, which is neither a file nor a directory")
        size = _SIZE.fullmatch(records.get("size", str(info.size)))
        mtime = _SECONDS.fullmatch(records.get("mtime", str(info.mtime)))
        if size is None or mtime is None:
            raise _damaged(self._name, f"the header of {path[:80]!r} has a number that is none")
        before, whole, part = mtime.groups()
        mtime_ns = 0 if before else int(whole) * 1_000_000_000 + int((part or "")[:9].ljust(9, "0"))
        return _Header(info, path, int(size[0]), mtime_ns)


_SIZE = re.compile(r"[0-9]{1,19}")
_SECONDS = re.compile(r"(-?)([0-9]{1,10})(?:\.([0-9]*))?")
"""Of times before 1970 nothing is recorded."""

WHAT_IS_ONE = "podtally record makes one, docs/recordings.md has the form"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _damaged(name: str, why: str) -> RecordingError:
    return RecordingError(f"{name} is damaged ({why}): copy it again, or record anew")


def _cut(name: str) -> CutRecording:
    return CutRecording(f"{name} is truncated: copy it again, or record anew")
