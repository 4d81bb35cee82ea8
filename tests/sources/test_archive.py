"""The forms of a recording as input: bombs, damage, what ends too early, and what is no file in a directory."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from collector.errors import CutRecording, RecordingError
from collector.sources import archive
from collector.sources.archive import Member, members
from collector.sources.recording import Recording, load
from collector.sources.tee import RecordingWriter
from tests.helpers import environment
from tests.support import recording, tar_bytes

MIB = 1 << 20
FILE = "frames/0000/sys/fs/cgroup/cpu.stat"
END = bytes(1024)


def read(path: Path) -> list[Member]:
    """All files of a recording."""
    return list(members(str(path)))


# --- bombs: a few KiB that ask for GiB ------------------------------------------------------------------------------


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a member that claims a size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def of(first: bytes, byte: bytes, mib: int) -> Iterator[bytes]:
    """A header and so many MiB of one byte."""
    yield first
    for _ in range(mib):
        yield byte * MIB


def links_of_headers() -> Iterator[bytes]:
    """Headers that each tell of the next one."""
    for _ in range(100_000):
        yield header("x", 0, tarfile.XHDTYPE)


def sparse_map() -> Iterator[bytes]:
    """Pax records that announce a map of a sparse file, and a map without an end."""
    info = tarfile.TarInfo(FILE)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1"}
    yield from of(info.tobuf(tarfile.PAX_FORMAT), b"1", 300)


def folders() -> Iterator[bytes]:
    """Folders without a file."""
    yield header(FILE, 0)
    for _ in range(archive.FOLDERS_LIMIT + 1):
        yield header("frames/0000/sys", 0, tarfile.DIRTYPE)


BOMBS: dict[str, tuple[Callable[[], Iterator[bytes]], str]] = {
    "one member": (
        lambda: of(header(FILE, 3000 * MIB), b"\0", 300),
        rf"has '{FILE}', which is larger than 64 MiB: leave it out$",
    ),
    "one member by a pax record": (
        lambda: of(b"".join(of_pax(size=str(3000 * MIB))), b"\0", 300),
        "which is larger than 64 MiB: leave it out$",
    ),
    "pax records": (
        lambda: of(header("x", 3000 * MIB, tarfile.XHDTYPE), b"1", 300),
        "has a header larger than 64 KiB before 'x': pack it again without extended attributes$",
    ),
    "pax records of all members": (
        lambda: of(header("x", 3000 * MIB, tarfile.XGLTYPE), b"1", 300),
        "has a header larger than 64 KiB",
    ),
    "a GNU long name": (
        lambda: of(header("x", 1500 * MIB, tarfile.GNUTYPE_LONGNAME), b"a", 300),
        "has a header larger than 64 KiB",
    ),
    "a GNU long link": (
        lambda: of(header("x", 1500 * MIB, tarfile.GNUTYPE_LONGLINK), b"a", 300),
        "has a header larger than 64 KiB",
    ),
    "headers of headers": (links_of_headers, "has a header larger than 64 KiB"),
    "a sparse file's map": (sparse_map, "neither a file nor a directory"),
    "zeros after the end": (
        lambda: of(header(FILE, 0) + END, b"\0", 300),
        r"is damaged \(behind its end are more than 16 MiB of zeros\)",
    ),
    "folders": (folders, "has more than 100000 folders without a file: leave them out$"),
}


def of_pax(**records: str) -> Iterator[bytes]:
    """The header of a file with pax records."""
    info = tarfile.TarInfo(FILE)
    info.pax_headers = records
    yield info.tobuf(tarfile.PAX_FORMAT)


MOST_BYTES = 700 * MIB
"""What a process may ask the system for that reads a bomb; Python and its libraries take a third of it."""

READ_WITHIN = f"""
import resource, sys
from collector.errors import CutRecording, RecordingError
from collector.sources.recording import load
resource.setrlimit(resource.RLIMIT_AS, ({MOST_BYTES}, {MOST_BYTES}))
try:
    load(sys.argv[1])
except RecordingError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_name_before_it_is_held(kind: str, tmp_path: Path) -> None:
    """A few KiB that unpack to hundreds of MiB, or claim GiB, are a sentence with the archive, the bound and a way."""
    made, sentence = BOMBS[kind]
    bomb = tmp_path / "bomb.tar.zst"
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    bomb.write_bytes(b"".join(map(packer.compress, made())) + packer.flush())
    assert bomb.stat().st_size < MIB

    done = subprocess.run(
        [sys.executable, "-c", READ_WITHIN, bomb],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(RecordingError, match=sentence):
        raise RecordingError(done.stdout.rstrip("\n"))
    assert done.stdout.startswith(str(bomb))


def test_all_that_an_archive_unpacks_to_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound counts what is read, headers and padding too."""
    monkeypatch.setattr(archive, "UNPACKED_LIMIT_BYTES", 4 * 1024)
    (tmp_path / "r.tar").write_bytes(tar_bytes((f"{FILE}{number}", b"x") for number in range(10)))
    with pytest.raises(RecordingError, match=r"unpacks to more than 0 GiB: record for a shorter time$"):
        read(tmp_path / "r.tar")


def test_a_zstd_frame_that_looks_back_too_far_is_refused(tmp_path: Path) -> None:
    """The window, which is memory, is asked for by the archive: 2 GiB here."""
    (tmp_path / "r.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes([0x00, (31 - 10) << 3]) + b"\x03\0\0")
    with pytest.raises(RecordingError, match=r"is damaged \(.*\): copy it again, or record anew$"):
        read(tmp_path / "r.tar.zst")


@pytest.mark.parametrize(("folders", "refused"), [(archive.DEPTH_LIMIT - 1, False), (archive.DEPTH_LIMIT, True)])
def test_the_depth_of_a_path_is_bounded(folders: int, refused: bool, tmp_path: Path) -> None:
    """In an archive and in a directory."""
    path = "a/" * folders + "x"
    (tmp_path / "r.tar").write_bytes(tar_bytes([(path, b"")]))
    (tmp_path / "r" / path).parent.mkdir(parents=True)
    (tmp_path / "r" / path).write_bytes(b"")
    for name in ("r", "r.tar"):
        if refused:
            with pytest.raises(RecordingError, match=r"has a path of 41 names, more than 40: 'a/a/"):
                read(tmp_path / name)
        else:
            assert [member.path for member in read(tmp_path / name)] == [path]


def test_a_file_of_a_directory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than one of a recording is not read."""
    monkeypatch.setattr(archive, "FILE_LIMIT_BYTES", MIB)
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MIB + 1)
    with pytest.raises(RecordingError, match=r"has 'large', which is larger than 1 MiB: leave it out$"):
        read(tmp_path)


# --- what tar's kinds of headers say --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_kind_of_tar_is_read(form: int, tmp_path: Path) -> None:
    """Long names, odd names and times come as they were packed, by ustar, GNU and pax headers."""
    names = ["short", "f/" * 39 + "x" * 60] + ([] if form == tarfile.USTAR_FORMAT else ["n" * 200, "caf\udce9 \n"])
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as packed:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number, 1_600_000_000
            packed.addfile(info, io.BytesIO(b"x" * number))
    (tmp_path / "r.tar").write_bytes(out.getvalue())
    assert read(tmp_path / "r.tar") == [
        Member(name, b"x" * number, 1_600_000_000_000_000_000) for number, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("mtime", "mtime_ns"), [("1600000000.123456789", 1_600_000_000_123_456_789), ("5", 5 * 10**9), ("-3.5", 0)]
)
def test_times_are_exact_to_the_nanosecond(mtime: str, mtime_ns: int, tmp_path: Path) -> None:
    """As a pax record has them; there is none before 1970."""
    (tmp_path / "r.tar").write_bytes(b"".join(of_pax(mtime=mtime)) + END)
    assert read(tmp_path / "r.tar") == [Member(FILE, b"", mtime_ns)]


@pytest.mark.parametrize(
    "records",
    [{"size": "-1"}, {"size": "1_0"}, {"size": "9" * 40}, {"mtime": "nan"}, {"mtime": "1e300"}, {"mtime": "9" * 30}],
)
def test_a_number_that_is_none_is_refused(records: dict[str, str], tmp_path: Path) -> None:
    """Sizes and times of pax records are numbers of a size that files have."""
    (tmp_path / "r.tar").write_bytes(b"".join(of_pax(**records)) + END)
    with pytest.raises(RecordingError, match=rf"is damaged \(the header of '{FILE}' has a number that is none\)"):
        read(tmp_path / "r.tar")


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Recording:
    """A real recording."""
    return recording("crun.tar.zst")


def written(recorded: Recording, out: Path, frames: int = 4) -> bytes:
    """Its first frames, a few files of each, as ``record`` writes them."""
    with RecordingWriter(str(out), recorded.meta) as writer:
        for frame in recorded.frames[:frames]:
            files = {f"sys/fs/cgroup/{path}": data for path, data in sorted(frame.files.items())[:12]}
            at = {"time_ns": frame.instant.time_ns, "monotonic_ns": frame.instant.monotonic_ns}
            writer.frame(at | {"dirs": {}, "errors": {}, "answers": {}}, files)
    return out.read_bytes()


FORMS = ("r.tar", "r.tar.gz", "r.tar.zst")


def outcome(path: Path, whole: Recording) -> str:
    """What comes of an archive: refused, the same, its first frames with a word, or something else."""
    try:
        found = load(path)
    except RecordingError as error:
        return "refused" if "\n" not in str(error) and str(path) in str(error) else f"no sentence: {error}"
    count = len(found.frames)
    if (found.meta, found.frames) == (whole.meta, whole.frames[:count]):
        return "cut" if found.cut == told_cut(path, count) else "same" if count == len(whole.frames) else "fewer"
    return "other"


def told_cut(path: Path, frames: int) -> str:
    """The sentence of a recording that is cut."""
    return f"{path} is cut after frame {frames - 1}: what came later is not whole, and is left out"


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_that_ends_too_early_has_its_whole_frames(form: str, tmp_path: Path, real: Recording) -> None:
    """Cut anywhere, it has the frames before the cut and says so, or is refused where it has none; never another."""
    data = written(real, tmp_path / form)
    whole, path = load(tmp_path / form), tmp_path / f"cut-{form}"
    chances = random.Random(1)
    ends = {0, 1, len(data) - 1} | {chances.randrange(len(data)) for _ in range(150)}
    outcomes = {}
    for end in sorted(ends):
        path.write_bytes(data[:end])
        outcomes[end] = outcome(path, whole)
    # gzip and zstd end with a few bytes that a reader can do without.
    assert set(outcomes.values()) <= {"refused", "cut"}
    told = [one == "cut" for one in outcomes.values()]
    assert told == sorted(told), "once there is a whole frame there is one"
    assert any(told)


@pytest.mark.parametrize("form", ["r.tar.gz", "r.tar.zst"])
def test_a_flipped_bit_is_refused_or_changes_nothing(form: str, tmp_path: Path, real: Recording) -> None:
    """Checksums tell of any bit, in a sentence; what looks cut by it has its whole frames as they were."""
    data = written(real, tmp_path / form)
    whole, path = load(tmp_path / form), tmp_path / f"flipped-{form}"
    chances = random.Random(2)
    outcomes = []
    for _ in range(300):
        flipped = bytearray(data)
        flipped[chances.randrange(len(data))] ^= 1 << chances.randrange(8)
        path.write_bytes(flipped)
        outcomes.append(outcome(path, whole))
    assert set(outcomes) <= {"refused", "cut", "same"}
    assert outcomes.count("refused") > 280


@pytest.mark.parametrize("form", FORMS)
def test_whatever_bytes_are_changed_nothing_else_escapes(form: str, tmp_path: Path, real: Recording) -> None:
    """Several bytes, and a cut: a recording or a RecordingError."""
    data = written(real, tmp_path / form, frames=2)
    whole, path = load(tmp_path / form), tmp_path / f"changed-{form}"
    chances = random.Random(3)
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(chances.choice((1, 2, 5))):
            changed[chances.randrange(len(data))] = chances.randrange(256)
        path.write_bytes(changed[: chances.choice((len(data), chances.randrange(len(data))))])
        assert not outcome(path, whole).startswith("no sentence")


def test_a_header_that_is_damaged_is_not_the_end(tmp_path: Path, real: Recording) -> None:
    """A flipped bit in a header of a plain tar is refused, wherever it is: what follows it is not left out silently."""
    data = written(real, tmp_path / "r.tar")
    at = data.index(b"frames/0002/frame.json")
    (tmp_path / "r.tar").write_bytes(data[:at] + b"F" + data[at + 1 :])
    with pytest.raises(RecordingError, match=r"is damaged \(bad checksum\): copy it again, or record anew$"):
        load(tmp_path / "r.tar")


def test_more_after_the_end_is_refused(tmp_path: Path) -> None:
    """Two archives one behind the other are not one of them."""
    once = tar_bytes([(FILE, b"x")])
    (tmp_path / "r.tar").write_bytes(once + once)
    with pytest.raises(RecordingError, match=r"is damaged \(there is more behind the end of its tar archive\)"):
        read(tmp_path / "r.tar")


def test_the_files_before_a_cut_are_whole(tmp_path: Path) -> None:
    """What is read before the end that is none is what was packed."""
    (tmp_path / "r.tar").write_bytes(tar_bytes([("a", b"1"), ("b", b"2" * 600), ("c", b"3")])[: 1024 + 1024])
    reading = members(str(tmp_path / "r.tar"))
    assert next(reading).data == b"1"
    with pytest.raises(CutRecording, match=r"is truncated: copy it again, or record anew$"):
        next(reading)


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.ZstdCompressor(write_checksum=True).compress])
def test_archives_of_several_pieces_are_one(packed: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Pieces one behind the other, as pigz, pzstd and cat make them, and as record does."""
    whole = tar_bytes([(FILE, b"x" * 5000)])
    (tmp_path / "r").write_bytes(packed(whole[:3000]) + packed(whole[3000:]))
    assert [member.data for member in read(tmp_path / "r")] == [b"x" * 5000]


# --- what is no file ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero"])
def test_what_is_neither_a_file_nor_a_directory_is_not_read(kind: str, tmp_path: Path) -> None:
    """A pipe is not waited for, and a device is not read."""
    path = Path(kind)
    if kind == "pipe":
        path = tmp_path / kind
        os.mkfifo(path)
    with pytest.raises(RecordingError, match=rf"^{path} is neither a file nor a directory: write it to a file first$"):
        load(path)


def swapped(path: Path, put: Callable[[], None]) -> Callable[..., os.stat_result]:
    """``os.stat``, after which something else stands at the path of a file."""
    stat = os.stat

    def found(name: str, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        status = stat(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)
        if name == path.name and path.exists():
            path.unlink()
            put()
        return status

    return found


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its reading."""
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "stat", swapped(tmp_path / "file", lambda: os.mkfifo(tmp_path / "file")))
    with pytest.raises(RecordingError, match="has 'file', which is neither a file nor a directory"):
        read(tmp_path)


def test_a_file_that_becomes_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at it and its reading."""
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "stat", swapped(tmp_path / "file", lambda: os.symlink("/etc/passwd", tmp_path / "file")))
    with pytest.raises(RecordingError, match=rf"^cannot read the recording {tmp_path}: "):
        load(tmp_path)


def test_a_file_that_goes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that changes while it is read is refused, with what to do."""
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "stat", swapped(tmp_path / "file", lambda: None))
    with pytest.raises(RecordingError, match=r"is changed while it is read, 'file' has gone: read a copy of it$"):
        load(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it might be half of a frame."""
    (tmp_path / "folder").mkdir()
    real_scandir = os.scandir

    def scandir(at: int | str) -> object:
        if os.path.samestat(os.stat(at), os.stat(tmp_path / "folder")):
            raise PermissionError(13, "Permission denied", "folder")
        return real_scandir(at)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(RecordingError, match=r"^cannot read the recording .*: Permission denied$"):
        load(tmp_path)
