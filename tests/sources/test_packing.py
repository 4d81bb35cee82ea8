"""The forms of a recording as they are written: closed frame by frame, and for their owner's eyes."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from collector.errors import RecordingError
from collector.sources import packing
from collector.sources.frames import Meta
from collector.sources.recording import load
from collector.sources.tee import RecordingWriter
from tests.support import SECOND_NS, files_below

META = Meta(node="node1", note="a test")
ARCHIVES = ("r.tar", "r.tar.gz", "r.tar.zst")
FORMS = ("r", *ARCHIVES)


def put(writer: RecordingWriter, number: int, **files: bytes) -> None:
    """Write a frame."""
    head: dict[str, Any] = {"time_ns": (1_700_000_000 + number) * SECOND_NS, "monotonic_ns": (1 + number) * SECOND_NS}
    writer.frame(head, {f"sys/fs/cgroup/{name}": data for name, data in files.items()})


def write(out: Path, frames: int) -> Path:
    """A recording of so many frames."""
    with RecordingWriter(str(out), META) as writer:
        for number in range(frames):
            put(writer, number, x=b"%d" % number * 1000, y=os.urandom(500))
    return out


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# --- whose eyes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0, 0o777])
@pytest.mark.parametrize("name", FORMS)
def test_nobody_but_its_owner_reads_a_recording(name: str, mask: int, tmp_path: Path) -> None:
    """Files are 0600 and folders 0700, those above it that are made for it too, whatever the umask."""
    with umask(mask):
        write(tmp_path / ("made/r" if name == "r" else name), 2)
    modes = {(path.is_dir(), stat.S_IMODE(path.lstat().st_mode)) for path in tmp_path.rglob("*") if path.name != "proc"}
    assert modes == ({(True, 0o700), (False, 0o600)} if name == "r" else {(False, 0o600)})


@pytest.mark.parametrize("name", ARCHIVES)
def test_files_that_are_unpacked_are_their_owners(name: str, tmp_path: Path) -> None:
    """An archive says 0600 of each."""
    assert {member.mode for member in unpacked(write(tmp_path / name, 2))} == {0o600}


def unpacked(path: Path) -> list[tarfile.TarInfo]:
    """The members of an archive, as other programs read it."""
    data = path.read_bytes()
    if path.name.endswith(".gz"):
        data = gzip.decompress(data)
    elif path.name.endswith(".zst"):
        with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as plain:
            data = plain.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        return packed.getmembers()


# --- frame by frame -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_what_is_written_so_far_is_a_recording(name: str, tmp_path: Path) -> None:
    """As if the writer were killed after any frame: all are there, with a word where an end is missing."""
    out, copy = tmp_path / name, tmp_path / f"killed-{name}"
    writer = RecordingWriter(str(out), META)
    for number in range(3):
        put(writer, number, x=b"%d" % number * 1000)
        if name == "r":
            shutil.copytree(out, copy, dirs_exist_ok=True)
        else:
            shutil.copy(out, copy)
        found = load(copy)
        assert [frame.files["x"][:1] for frame in found.frames] == [b"%d" % one for one in range(number + 1)]
        assert bool(found.cut) == (name != "r")
    writer.close()
    assert load(out).cut == ""
    assert len(load(out).frames) == 3


@pytest.mark.parametrize("name", ARCHIVES)
def test_other_programs_read_an_archive(name: str, tmp_path: Path) -> None:
    """Each frame's files, and its head behind them, in one archive of more parts than one zstd frame has."""
    members = [member.name for member in unpacked(write(tmp_path / name, packing.PARTS_OF_ZSTD_FRAME + 5))]
    assert members[:4] == [
        "recording.json",
        "frames/0000/sys/fs/cgroup/x",
        "frames/0000/sys/fs/cgroup/y",
        "frames/0000/frame.json",
    ]
    assert len(members) == 1 + 3 * (packing.PARTS_OF_ZSTD_FRAME + 5)


def test_each_frame_of_zstd_has_its_checksum(tmp_path: Path) -> None:
    """And a long recording has several, so that what is cut is checked up to the last minute."""
    data = write(tmp_path / "r.tar.zst", packing.PARTS_OF_ZSTD_FRAME + 1).read_bytes()
    told = []
    while data:
        told.append(zstandard.get_frame_parameters(data).has_checksum)
        frame = zstandard.ZstdDecompressor().decompressobj()
        frame.decompress(data)
        data = frame.unused_data
    assert told == [True, True]


def test_closing_frames_costs_little(tmp_path: Path) -> None:
    """An archive of frames that are alike, as those of a node, is hardly larger for being closed after each."""
    with RecordingWriter(str(tmp_path / "r.tar.zst"), META) as writer:
        same = os.urandom(200_000)
        for number in range(20):
            put(writer, number, x=b"%d" % number + same)
    plain = b"".join(
        member.tobuf(tarfile.PAX_FORMAT) + same + bytes(1024) for member in unpacked(tmp_path / "r.tar.zst")
    )
    at_once = zstandard.ZstdCompressor(level=10).compress(plain)
    assert (tmp_path / "r.tar.zst").stat().st_size < 1.1 * len(at_once)


# --- an end that is none --------------------------------------------------------------------------------------------


class Full(io.BytesIO):
    """A disk that is full after so many bytes, of which it takes the last ones."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def write(self, data: Any) -> int:
        room = self._size - self.tell()
        if room < len(data):
            super().write(data[:room])
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_after_a_failure_nothing_more_is_written(tmp_path: Path) -> None:
    """Not even an end, which would make damage in the middle of what is cut at its end."""
    full = Full(6000)
    writer = RecordingWriter("-", META, full)
    put(writer, 0, x=os.urandom(2000))
    put(writer, 1, x=os.urandom(2000))
    with pytest.raises(
        RecordingError, match=r"^cannot write the recording -: No space left on device; 2 whole frames are on stdout$"
    ):
        put(writer, 2, x=os.urandom(4000))
    full.seek(0)
    (tmp_path / "r").write_bytes(full.read())
    writer.close()
    assert (len(full.getvalue()), len(load(tmp_path / "r").frames)) == (6000, 2)


def test_a_directory_on_a_full_disk_has_its_whole_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that found no room is left out, with a word."""
    writer = RecordingWriter(str(tmp_path / "r"), META)
    put(writer, 0, x=b"0")
    put(writer, 1, x=b"1")
    opened = os.open

    def full(path: Path, flags: int, mode: int = 0o777, **more: int) -> int:
        if flags & os.O_CREAT and path.name == "y":
            raise OSError(28, "No space left on device")
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(RecordingError, match=r"No space left on device; 2 whole frames are in .*/r$"):
        put(writer, 2, x=b"2", y=b"2")
    writer.close()
    found = load(tmp_path / "r")
    assert (len(found.frames), found.cut.startswith(f"{tmp_path}/r is cut after frame 1: ")) == (2, True)


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_without_a_frame_is_taken_away_again(name: str, tmp_path: Path) -> None:
    """So that the next one may have its name."""
    RecordingWriter(str(tmp_path / name), META).close()
    assert files_below(tmp_path) == {}


def test_what_a_link_leads_to_is_kept(tmp_path: Path) -> None:
    """Without a frame too: the link is the user's."""
    (tmp_path / "r.tar").symlink_to(tmp_path / "elsewhere")
    RecordingWriter(str(tmp_path / "r.tar"), META).close()
    assert (tmp_path / "r.tar").is_symlink()
