"""Frames out of files as they come: their bounds, a recording that is cut, and one that is too large to be held."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from collector.errors import RecordingError
from collector.sources import frames, reader
from collector.sources import recording as loading
from collector.sources.reader import FramesOnDisk
from collector.sources.recording import RecordedTree, load
from tests.helpers import environment
from tests.support import FIXTURES, SECOND_NS, frames_of, recording, tar_bytes, write_files
from tests.support import small_recording as small

FILES = {"sys/fs/cgroup/cpu.stat": b"usage_usec 1\n", "sys/fs/cgroup/kubepods/cpu.stat": b"usage_usec 2\n"}


def head(second: int, **more: Any) -> dict[str, Any]:
    """A frame.json."""
    return {"time_ns": (1_700_000_000 + second) * SECOND_NS, "monotonic_ns": (5 + second) * SECOND_NS} | more


# --- bounds ---------------------------------------------------------------------------------------------------------


def many(count: int, size: int = 0, name: str = "frames/0000/sys/fs/cgroup/kubepods") -> dict[str, bytes]:
    """So many files."""
    return {f"{name}/{number}": b"x" * size for number in range(count)}


@pytest.mark.parametrize("where", ["frames/0000/sys/fs/cgroup/kubepods", "sys/fs/cgroup", "notes"])
def test_the_files_of_a_frame_are_counted_as_they_come(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Empty ones, those of a recording of one frame, and those that are of no recording, too."""
    monkeypatch.setattr(reader, "FRAME_FILES_LIMIT", 100)
    (tmp_path / "r.tar").write_bytes(tar_bytes([("recording.json", b"{}"), *many(101, name=where).items()]))
    with pytest.raises(RecordingError, match=r"has more than 100 files, at '.*': leave out what is not of the node$"):
        load(tmp_path / "r.tar")


def test_what_the_files_of_a_frame_take_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of a size that each may have are too many."""
    monkeypatch.setattr(reader, "FRAME_LIMIT_BYTES", 1 << 20)
    (tmp_path / "r.tar").write_bytes(tar_bytes(many(11, 100_000).items()))
    with pytest.raises(
        RecordingError, match=r"r\.tar: frames/0000 takes more than 1 MiB, at '.*/10': leave out its largest files$"
    ):
        load(tmp_path / "r.tar")


@pytest.mark.parametrize("name", ["recording.json", "frames/0000/frame.json"])
def test_what_becomes_objects_is_bounded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame.json and a recording.json, as JSON takes many times the memory of its text."""
    monkeypatch.setattr(reader, "HEAD_LIMIT_BYTES", 1 << 20)
    files = small(head(0)) | {name: b"[" + b"[]," * 400_000 + b"[]]"}
    with pytest.raises(RecordingError, match=r"\.json larger than 1 MiB: record anew, or leave it out$"):
        load(write_files(tmp_path / "r", files))


@pytest.mark.parametrize("key", ["dirs", "errors"])
def test_the_cgroups_that_a_frame_tells_of_are_bounded(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all those above them: a path of many names is many."""
    monkeypatch.setattr(frames, "CGROUPS_LIMIT", 100)
    told: Any = {"time_ns": 1, "ino": 1} if key == "dirs" else "EACCES"
    paths = {f"{number}{'/a' * 20}": told for number in range(5)}
    with pytest.raises(RecordingError, match=r"frames/0000 tells of more than 100 cgroups: it is of no node$"):
        load(write_files(tmp_path / "r", small(head(0, **{key: paths}))))


def test_the_number_of_frames_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each leaves its time behind."""
    monkeypatch.setattr(reader, "FRAMES_LIMIT", 3)
    with pytest.raises(RecordingError, match=r"has more than 3 frames: record for a shorter time$"):
        load(write_files(tmp_path / "r", small(*(head(second) for second in range(4)))))


# --- what is of no recording, or of two -----------------------------------------------------------------------------


def test_what_is_beside_a_recording_is_ignored(tmp_path: Path) -> None:
    """Other files in its archive, before and after it."""
    files = [("notes/a.txt", b"x"), *small(head(0), files=FILES).items(), ("b.txt", b"y")]
    (tmp_path / "r.tar").write_bytes(tar_bytes(files))
    assert [frame.files["cpu.stat"] for frame in load(tmp_path / "r.tar").frames] == [b"usage_usec 1\n"]


def test_two_recordings_are_not_one(tmp_path: Path) -> None:
    """Of two folders in one archive neither is chosen."""
    files = [(f"{node}/{name}", data) for node in ("n1", "n2") for name, data in small(head(0)).items()]
    (tmp_path / "r.tar").write_bytes(tar_bytes(files))
    with pytest.raises(RecordingError, match=r"holds more than one recording, 'n1/' and 'n2/.*': take one$"):
        load(tmp_path / "r.tar")


def test_a_frame_in_two_places_is_refused(tmp_path: Path) -> None:
    """What comes after its end would change what has been made of it."""
    files = [*small(head(0), head(1)).items(), ("frames/0000/sys/fs/cgroup/cpu.stat", b"x")]
    (tmp_path / "r.tar").write_bytes(tar_bytes(files))
    with pytest.raises(RecordingError, match=r"has the files of frame 0000 in two places: pack it again$"):
        load(tmp_path / "r.tar")


# --- the end --------------------------------------------------------------------------------------------------------


def test_a_directory_whose_last_frame_has_no_head_is_cut(tmp_path: Path) -> None:
    """Its writer was ended in the middle of a frame: the frames before it are there, with a word."""
    files = small(head(0), head(1), head(2), files=FILES)
    del files["frames/0002/frame.json"]
    found = load(write_files(tmp_path / "r", files | {"frames/0002/frame.json.part": b"{"}))
    assert (len(found.frames), found.cut) == (
        2,
        f"{tmp_path}/r is cut after frame 1: what came later is not whole, and is left out",
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_frame_in_the_middle_without_a_head_is_refused(number: int, tmp_path: Path) -> None:
    """That is no end, but a part that is missing."""
    files = small(head(0), head(1), head(2), files=FILES)
    del files[f"frames/000{number}/frame.json"]
    with pytest.raises(RecordingError, match=rf"frames/000{number} has no frame\.json: the recording is incomplete$"):
        load(write_files(tmp_path / "r", files))


@pytest.mark.parametrize("told", [1, 3])
def test_a_frame_that_has_lost_files_is_refused(told: int, tmp_path: Path) -> None:
    """A copy that is not whole would make halves of sums: a frame.json counts the files of its frame."""
    files = small(head(0, files=2), head(1, files=told), files=FILES)
    with pytest.raises(
        RecordingError, match=rf"frames/0001 has 2 files, and its frame\.json says {told}: copy the recording again"
    ):
        load(write_files(tmp_path / "r", files))


def cut_in_frame(path: Path, files: list[tuple[str, bytes]], number: int) -> Path:
    """An archive that is cut within a file of a frame."""
    data = tar_bytes(files)
    at = data.index(f"frames/{number:04d}/sys/".encode())
    path.write_bytes(data[: at + 515])
    return path


def test_an_archive_that_others_packed_is_cut_before_its_last_frame(tmp_path: Path) -> None:
    """Without a count nobody knows whether the last frame is whole: it is left out."""
    path = cut_in_frame(tmp_path / "r.tar", list(small(head(0), head(1), head(2), files=FILES).items()), 2)
    assert load(path).cut.startswith(f"{path} is cut after frame 1: ")


@pytest.mark.parametrize("case", ["no recording.json yet", "out of order", "in the first frame"])
def test_a_cut_archive_of_which_nobody_knows_what_is_missing_is_refused(case: str, tmp_path: Path) -> None:
    """Its recording.json may come last, and its frames in any order."""
    files = list(small(head(0), head(1), head(2), files=FILES).items())
    number = 2
    if case == "no recording.json yet":
        files = [*files[1:], files[0]]
    elif case == "out of order":
        files = [files[0], *files[4:7], *files[1:4], *files[7:]]
    else:
        number = 0
    path = cut_in_frame(tmp_path / "r.tar", files, number)
    with pytest.raises(RecordingError, match=r"r\.tar is truncated: copy it again, or record anew$"):
        load(path)


# --- a recording that is too large to be held -----------------------------------------------------------------------


@pytest.fixture
def not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every recording were too large."""
    recording("replaced.tar.zst")  # is kept for other tests, as it is
    monkeypatch.setattr(loading, "HELD_LIMIT_BYTES", 1000)


@pytest.mark.usefixtures("not_held")
def test_frames_that_are_not_held_are_those_that_would_be() -> None:
    """One by one, from either end, a part of them, and how long it is between them."""
    held, found = recording("replaced.tar.zst"), load(FIXTURES / "replaced.tar.zst")
    assert isinstance(found.frames, FramesOnDisk)
    assert list(found.frames) == held.frames
    assert [found.frames[number] for number in (2, 0, -1)] == [held.frames[number] for number in (2, 0, -1)]
    assert found.frames[1:3] == held.frames[1:3]
    assert (found.meta, found.instants, found.interval_ns) == (held.meta, held.instants, held.interval_ns)
    with pytest.raises(IndexError):
        found.frames[len(found.frames)]


@pytest.mark.usefixtures("not_held")
def test_a_recording_that_is_not_held_is_replayed_over_its_seam() -> None:
    """With --loop the first frame comes again."""
    held, found = (
        RecordedTree(one, loop=True) for one in (recording("replaced.tar.zst"), load(FIXTURES / "replaced.tar.zst"))
    )
    for _ in range(2 * len(recording("replaced.tar.zst").frames)):
        assert found.begin() == held.begin()
        assert found.frame == held.frame
        assert found.gap_ns() == held.gap_ns()


@pytest.mark.usefixtures("not_held")
def test_a_recording_that_is_not_held_and_has_no_order_is_refused(tmp_path: Path) -> None:
    """It would have to be read once for each frame."""
    files = list(small(head(0), head(1), files={"sys/fs/cgroup/x": bytes(2000)}).items())
    (tmp_path / "r.tar").write_bytes(tar_bytes([files[0], *files[3:], *files[1:3]]))
    with pytest.raises(RecordingError, match=r"too large to be held, and its frames are not in order: pack it again"):
        load(tmp_path / "r.tar")


@pytest.mark.usefixtures("not_held")
@pytest.mark.parametrize("change", ["another", "gone"])
def test_a_recording_that_changes_while_it_is_replayed_is_told(change: str, tmp_path: Path) -> None:
    """Its frames are read when their turn comes: another recording's are not taken for them."""
    files = {"sys/fs/cgroup/x": bytes(2000)}
    (tmp_path / "r.tar").write_bytes(tar_bytes(small(head(0), head(1), files=files).items()))
    found = load(tmp_path / "r.tar")
    sentence = "is changed while it is replayed: replay a copy of it$"
    if change == "another":
        (tmp_path / "r.tar").write_bytes(tar_bytes(small(head(3), head(4), files=files).items()))
    else:
        (tmp_path / "r.tar").unlink()
        sentence = "^cannot read the recording .*: No such file or directory$"
    with pytest.raises(RecordingError, match=sentence):
        frames_of(found)


PEAK_KIB = """
import re, sys
from collector.sources import recording
from collector.sources.recording import RecordedTree, load
recording.HELD_LIMIT_BYTES = 4 << 20
tree = RecordedTree(load(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    tree.begin()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def peak_kib(path: Path, frames: int) -> int:
    """The memory of a process that replays a recording of frames of a MiB each, no two of them alike."""
    files: list[tuple[str, bytes]] = [("recording.json", json.dumps({"version": 1, "node": "n"}).encode())]
    for number in range(frames):
        files += [
            (f"frames/{number:04d}/frame.json", json.dumps(head(number)).encode()),
            (f"frames/{number:04d}/sys/fs/cgroup/cpu.stat", b"%d\n" % number + bytes(1 << 20)),
        ]
    path.write_bytes(zstandard.ZstdCompressor(level=1).compress(tar_bytes(files)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK_KIB, path, str(frames)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return int(done.stdout)


def test_memory_does_not_grow_with_the_length_of_a_recording(tmp_path: Path) -> None:
    """Four times as many frames take as much: what is held of them is bounded."""
    short, long = peak_kib(tmp_path / "short", 40), peak_kib(tmp_path / "long", 160)
    assert long - short < 16 << 10
