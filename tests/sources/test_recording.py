"""Recordings: every form of them, what is refused, and how their frames are served."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Absent, Denied, EndOfRecording, Gone, RecordingError, SourceError, UnsupportedNode
from collector.model import Answer, Instant
from collector.sources.frames import RecordedDir
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording, load
from tests.support import (
    FIXTURES,
    SECOND_NS,
    files_below,
    frames_of,
    recording,
    small_recording,
    tar_bytes,
    write_files,
)

HEAD: dict[str, Any] = {
    "time_ns": 1_700_000_000 * SECOND_NS,
    "monotonic_ns": 5 * SECOND_NS,
    "dirs": {"kubepods": {"time_ns": 1_700_000_000 * SECOND_NS + 7, "ino": 12, "mtime_ns": 3}},
}
FILES = {"sys/fs/cgroup/cpu.stat": b"usage_usec 1\n", "sys/fs/cgroup/kubepods/cpu.stat": b"usage_usec 1\n"}


def later(seconds: int, **changes: Any) -> dict[str, Any]:
    """HEAD some seconds later."""
    moved = {
        "time_ns": HEAD["time_ns"] + seconds * SECOND_NS,
        "monotonic_ns": HEAD["monotonic_ns"] + seconds * SECOND_NS,
    }
    return HEAD | moved | changes


def content(recorded: Recording) -> tuple[object, object]:
    """All of a recording but where it is."""
    return recorded.meta, recorded.frames


# --- the forms ------------------------------------------------------------------------------------------------------


def tar(files: Mapping[str, bytes]) -> bytes:
    return tar_bytes(sorted(files.items()))


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    return gzip.compress(tar(files))


def tar_zst(files: Mapping[str, bytes]) -> bytes:
    return zstandard.ZstdCompressor().compress(tar(files))


def tar_zst_in_pieces(files: Mapping[str, bytes]) -> bytes:
    """Several zstd frames, as ``pzstd`` or ``cat`` make them."""
    whole = tar(files)
    half = len(whole) // 2
    return b"".join(zstandard.ZstdCompressor().compress(part) for part in (whole[:half], whole[half:]))


ARCHIVES: dict[str, Callable[[Mapping[str, bytes]], bytes]] = {
    "r.tar": tar,
    "r.tar.gz": tar_gz,
    "r.tar.zst": tar_zst,
    "pieces.tar.zst": tar_zst_in_pieces,
}


@pytest.mark.parametrize("folder", ["", "./", "node1/", "./node1/"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_every_archive_gives_what_its_directory_gives(name: str, folder: str, tmp_path: Path) -> None:
    """Each kind of archive, with and without one leading folder, is read as the directory that it holds."""
    layout = FIXTURES / "crio-conmon"
    packed = {folder + path: data for path, data in files_below(layout).items()}
    (tmp_path / name).write_bytes(ARCHIVES[name](packed))
    assert content(load(tmp_path / name)) == content(recording("crio-conmon"))


def test_a_directory_may_have_a_leading_folder(tmp_path: Path) -> None:
    """A directory that holds nothing but the recording's is read as that one."""
    shutil.copytree(FIXTURES / "crio-conmon", tmp_path / "unpacked" / "crio-conmon")
    assert content(load(tmp_path / "unpacked")) == content(recording("crio-conmon"))


@pytest.mark.parametrize("name", ["anything", "r.tar", "r.zip"])
def test_the_form_is_told_by_content_not_by_name(name: str, tmp_path: Path) -> None:
    """An archive under another name is read all the same."""
    (tmp_path / name).write_bytes(tar_zst(small_recording(HEAD)))
    assert len(load(tmp_path / name).frames) == 1


def test_frames_sort_as_numbers(tmp_path: Path) -> None:
    """Frame 10 comes after frame 9, whatever their names' lengths."""
    files = small_recording(HEAD)
    del files["frames/0000/frame.json"]
    files |= {f"frames/{n}/frame.json": json.dumps(later(n)).encode() for n in (10, 9, 100)}
    times = [frame.instant.monotonic_ns // SECOND_NS for frame in load(write_files(tmp_path, files)).frames]
    assert times == [14, 15, 105]


def test_equal_files_are_kept_once(tmp_path: Path) -> None:
    """Equal bytes of two files are one object."""
    frame = load(write_files(tmp_path, small_recording(HEAD, files=FILES))).frames[0]
    assert frame.files["cpu.stat"] is frame.files["kubepods/cpu.stat"]


def test_reading_an_archive_tells_how_far_it_is(tmp_path: Path) -> None:
    """Progress ends with all bytes done."""
    told: list[tuple[int, int]] = []
    (tmp_path / "r.tar.gz").write_bytes(tar_gz(files_below(FIXTURES / "crio-conmon")))
    load(tmp_path / "r.tar.gz", lambda done, total: told.append((done, total)))
    size = (tmp_path / "r.tar.gz").stat().st_size
    assert told[-1] == (size, size)


# --- one frame made with cp -----------------------------------------------------------------------------------------


def made_by_hand(root: Path) -> Path:
    """The second frame of a layout as cp and kubectl would leave it, its newest file of a known time."""
    frame = FIXTURES / "two-uids" / "frames" / "0000"
    for name in ("sys", "proc", "kubelet"):
        shutil.copytree(frame / name, root / name)
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(Path(folder, name), (1_600_000_000, 1_600_000_000))
    os.utime(root / "kubelet" / "pods.json", (1_600_000_009, 1_600_000_009))
    return root


def test_a_directory_made_with_cp_is_one_frame(tmp_path: Path) -> None:
    """Its time is its newest file's, its identities are the paths, and its cgroups are those of the recording."""
    made = load(made_by_hand(tmp_path / "node1"))
    whole = frames_of(recording("two-uids"))[0]
    assert [frame.instant for frame in made.frames] == [Instant(1_600_000_009 * SECOND_NS, 0)]
    assert [(pod.path, pod.ino, pod.started_ns, len(pod.leaves)) for pod in frames_of(made)[0].pods] == [
        (pod.path, 0, None, len(pod.leaves)) for pod in whole.pods
    ]


def test_its_names_come_from_the_answer_beside_it(tmp_path: Path) -> None:
    """kubelet/pods.json is the kubelet's answer of that frame."""
    made = load(made_by_hand(tmp_path / "node1"))
    body = (FIXTURES / "two-uids" / "frames" / "0000" / "kubelet" / "pods.json").read_bytes()
    assert made.frames[0].answers == [Answer("kubelet/pods.json", 1_600_000_009 * SECOND_NS, 200, None, body)]


def test_an_archive_of_such_a_directory_is_the_same_frame(tmp_path: Path) -> None:
    """Packed, with its folder, it has the same content and the same time."""
    made_by_hand(tmp_path / "node1")
    with tarfile.open(tmp_path / "r.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "node1", "node1")
    assert content(load(tmp_path / "r.tar.gz")) == content(load(tmp_path / "node1"))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHIVES)
@given(data=st.data())
@settings(max_examples=150)
def test_a_damaged_archive_is_refused_or_read(
    name: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever bytes are changed, the outcome is a recording or a RecordingError."""
    packed = bytearray(ARCHIVES[name](small_recording(HEAD, later(1), files=FILES)))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(packed)
    refused_or_read(path)


def refused_or_read(path: Path) -> None:
    """Load what may be damaged; a tree of what comes of it can be walked to the end."""
    try:
        recorded = load(path)
    except RecordingError:
        return
    frames_of(recorded)


@given(st.binary(max_size=2000))
@settings(max_examples=100)
def test_a_file_of_any_bytes_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Any bytes, with each archive's magic or none, are a RecordingError."""
    path = tmp_path_factory.getbasetemp() / "any-bytes"
    for magic in (b"", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08"):
        path.write_bytes(magic + data)
        with pytest.raises(RecordingError):
            load(path)


def link(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A tar header of another kind than a file's."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sparse() -> bytes:
    """An archive of GNU tar's with a sparse file: a few bytes that claim to be 64 GiB."""
    info = tarfile.TarInfo("frames/0000/sys/fs/cgroup/x")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": info.name,
        "GNU.sparse.size": str(64 << 30),
        "GNU.sparse.numblocks": "1",
        "GNU.sparse.map": f"{(64 << 30) - 1},1",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    return out.getvalue()


def device(name: str) -> tarfile.TarInfo:
    """A tar header of /dev/zero."""
    info = link(name, tarfile.CHRTYPE)
    info.devmajor, info.devminor = 1, 5
    return info


SMALL = sorted(small_recording(HEAD).items())

UNSAFE: dict[str, tuple[bytes, str]] = {
    "up": (tar_bytes([*SMALL, ("../evil", b"")]), "'../evil', which leads out of the recording"),
    "up in the middle": (tar_bytes([*SMALL, ("frames/../../evil", b"")]), "leads out of the recording"),
    "absolute": (tar_bytes([*SMALL, ("/etc/passwd", b"")]), "'/etc/passwd', which leads out of the recording"),
    "symbolic link": (tar_bytes([*SMALL, (link("l", tarfile.SYMTYPE, "/etc"), b"")]), "neither a file nor a directory"),
    "hard link": (tar_bytes([*SMALL, (link("l", tarfile.LNKTYPE, "/etc/x"), b"")]), "neither a file nor a directory"),
    "device": (tar_bytes([*SMALL, (device("d"), b"")]), "neither a file nor a directory"),
    "fifo": (tar_bytes([*SMALL, (link("f", tarfile.FIFOTYPE), b"")]), "neither a file nor a directory"),
    "sparse": (sparse(), "neither a file nor a directory"),
    "long": (tar_bytes([*SMALL, ("a/" * 2100, b"")]), "has a path of 4200 characters, more than 4096"),
}


@pytest.mark.parametrize("kind", UNSAFE)
def test_an_archive_with_an_unsafe_member_is_refused_whole(kind: str, tmp_path: Path) -> None:
    """Paths outside the root, links, devices, pipes, sparse and endless paths are refused with a sentence."""
    data, sentence = UNSAFE[kind]
    (tmp_path / "r.tar").write_bytes(data)
    with pytest.raises(RecordingError, match=sentence):
        load(tmp_path / "r.tar")


@pytest.mark.parametrize("target", ["/etc/hostname", "recording.json", "frames", "nowhere"])
def test_a_directory_with_a_link_is_refused(target: str, tmp_path: Path) -> None:
    """Links in a directory are not followed, wherever they lead."""
    write_files(tmp_path, small_recording(HEAD))
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(RecordingError, match="has the link 'link': links are not followed, copy files"):
        load(tmp_path)


def test_a_directory_with_a_pipe_is_refused(tmp_path: Path) -> None:
    """A named pipe is not waited for."""
    write_files(tmp_path, small_recording(HEAD))
    os.mkfifo(tmp_path / "frames" / "0000" / "pipe")
    with pytest.raises(RecordingError, match="has 'frames/0000/pipe', which is neither a file nor a directory"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["cgroup-v1", "hybrid"])
def test_a_recording_of_another_cgroup_version_is_refused(name: str) -> None:
    """A v1 or hybrid node's recording is refused in one sentence with what to do."""
    with pytest.raises(UnsupportedNode, match=r"^[^\n]*reads cgroup v2 only: boot the node with [^\n]*$"):
        load(FIXTURES / name)


def meta(**changes: Any) -> bytes:
    """A recording.json."""
    return json.dumps({"version": 1, "node": "n"} | changes).encode()


DIR = {"time_ns": 1, "ino": 1}

REFUSED: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no recording.json": ({"recording.json": None}, "has frames but no recording.json"),
    "recording.json no JSON": ({"recording.json": b"{"}, "recording.json is not JSON"),
    "recording.json no UTF-8": ({"recording.json": b"\xff\xfe\xff"}, "recording.json is not JSON"),
    "recording.json too deep": ({"recording.json": b"[" * 100_000}, "recording.json is not JSON"),
    "recording.json a list": ({"recording.json": b"[]"}, "recording.json is not a JSON object"),
    "no version": ({"recording.json": b'{"node": "n"}'}, "says version None, this podtally reads version 1"),
    "wrong version": ({"recording.json": meta(version=2)}, "says version 2, this podtally reads version 1"),
    "no node": ({"recording.json": b'{"version": 1}'}, "does not name the node"),
    "node a number": ({"recording.json": meta(node=1)}, "does not name the node"),
    "node a surrogate": ({"recording.json": meta(node="\ud800")}, "does not name the node"),
    "kernel a list": ({"recording.json": meta(kernel=[])}, "recording.json's kernel is no text"),
    "cpus a text": ({"recording.json": meta(cpus="2")}, "recording.json's cpus is no number"),
    "no frame.json": ({"frames/0000/frame.json": None, "frames/0000/x": b""}, "frames/0000 has no frame.json"),
    "frame.json no JSON": ({"frames/0000/frame.json": b"x"}, "frame.json is not JSON"),
    "frame.json null": ({"frames/0000/frame.json": b"null"}, "frame.json is not a JSON object"),
    "frame.json huge": ({"frames/0000/frame.json": b'{"time_ns": ' + b"9" * 5000 + b"}"}, "frame.json is not JSON"),
    "frame no number": ({"frames/x/frame.json": b"{}"}, "has the frame 'x': frames are named by numbers"),
    "frame other digits": ({"frames/²/frame.json": b"{}"}, "frames are named by numbers"),
    "frame twice": ({"frames/0/cpu": b""}, "has a frame twice"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_recording_with_wrong_files_is_refused(case: str, tmp_path: Path) -> None:
    """Missing, malformed and foreign files are refused with a sentence that names them."""
    changes, sentence = REFUSED[case]
    files = small_recording(HEAD) | changes
    write_files(tmp_path, {name: data for name, data in files.items() if data is not None})
    with pytest.raises(RecordingError, match=sentence):
        load(tmp_path)


WRONG_HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "no time": ({"time_ns": None}, "frame.json has no number 'time_ns'"),
    "time a text": ({"time_ns": "1"}, "frame.json has no number 'time_ns'"),
    "time a bool": ({"time_ns": True}, "frame.json has no number 'time_ns'"),
    "time a float": ({"time_ns": 1.5}, "frame.json has no number 'time_ns'"),
    "time negative": ({"time_ns": -1}, "has a 'time_ns' that is no time and no inode: -1"),
    "time beyond 64 bits": ({"time_ns": 2**64}, "that is no time and no inode"),
    "no monotonic": ({"monotonic_ns": []}, "frame.json has no number 'monotonic_ns'"),
    "dirs a list": ({"dirs": [1]}, "frame.json's dirs is not an object"),
    "dir a number": ({"dirs": {"a": 1}}, "frame.json's dirs has no object for 'a'"),
    "dir without inode": ({"dirs": {"a": {"time_ns": 1}}}, "frame.json has no number 'ino'"),
    "dir without time": ({"dirs": {"a": {"ino": 1}}}, "frame.json has no number 'time_ns'"),
    "mtime a text": ({"dirs": {"a": DIR | {"mtime_ns": "1"}}}, "frame.json has no number 'mtime_ns'"),
    "dir outside": ({"dirs": {"a/../../b": DIR}}, "leads out of the recording"),
    "dir absolute": ({"dirs": {"/a": DIR}}, "leads out of the recording"),
    "dir with NUL": ({"dirs": {"a\0": DIR}}, "leads out of the recording"),
    "dir endless": ({"dirs": {"a/" * 40_000: DIR}}, "has a path of 80000 characters"),
    "errors a text": ({"errors": "ENODEV"}, "frame.json's errors is not an object"),
    "error a number": ({"errors": {"a": 19}}, "frame.json has the error 19, which is no errno name"),
    "error unknown": ({"errors": {"a": "ENOSUCH"}}, "frame.json has the error 'ENOSUCH', which is no errno name"),
    "error no errno": ({"errors": {"a": "errorcode"}}, "which is no errno name"),
    "error outside": ({"errors": {"../a": "ENODEV"}}, "leads out of the recording"),
    "answers a list": ({"answers": [1]}, "frame.json's answers is not an object"),
    "answer a number": ({"answers": {"kubelet/pods.json": 200}}, "no object for 'kubelet/pods.json'"),
    "answer's status a text": ({"answers": {"kubelet/pods.json": {"status": "200"}}}, "no number 'status'"),
    "answer's time a text": ({"answers": {"kubelet/pods.json": {"time_ns": "1"}}}, "no number 'time_ns'"),
    "answer's error a list": ({"answers": {"kubelet/pods.json": {"error": []}}}, "error of 'kubelet/pods.json' is no"),
    "older time a text": ({"answers_time_ns": {"pods.json": "1"}, "answers": {"kubelet/pods.json": {}}}, "'time_ns'"),
}


@pytest.mark.parametrize("case", WRONG_HEADS)
def test_a_frame_json_with_wrong_types_is_refused(case: str, tmp_path: Path) -> None:
    """Each wrong type, range and path in a frame.json is refused with a sentence that names it."""
    changes, sentence = WRONG_HEADS[case]
    write_files(tmp_path, small_recording(HEAD | changes))
    with pytest.raises(RecordingError, match=sentence):
        load(tmp_path)


@pytest.mark.parametrize("step_ns", [0, -1])
def test_a_clock_that_does_not_go_forward_is_refused(step_ns: int, tmp_path: Path) -> None:
    """Two frames of one moment, or in the wrong order, are no recording."""
    write_files(tmp_path, small_recording(HEAD, HEAD | {"monotonic_ns": HEAD["monotonic_ns"] + step_ns}))
    with pytest.raises(RecordingError, match="the monotonic clock does not go forward from one frame to the next"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({}, "is no recording: it has neither frames/ nor sys/fs/cgroup/"),
        ({"notes.txt": b""}, "is no recording: it has neither frames/ nor sys/fs/cgroup/"),
        ({"recording.json": meta()}, "is no recording: it has neither frames/ nor sys/fs/cgroup/"),
        ({"kubelet/pods.json": b"{}"}, "is no recording: it has neither frames/ nor sys/fs/cgroup/"),
    ],
)
def test_a_directory_of_something_else_is_refused(files: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    """What has neither frames nor cgroups is said to be no recording, and where to take one from."""
    with pytest.raises(
        RecordingError, match=f"{sentence}; podtally record makes one, docs/recordings.md has the form$"
    ):
        load(write_files(tmp_path, files))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """A text is said to be no archive, and where to take a recording from."""
    (tmp_path / "notes.txt").write_text("nothing that was recorded\n")
    with pytest.raises(
        RecordingError, match=r"nor a tar archive \(.*\); podtally record makes one, docs/recordings\.md"
    ):
        load(tmp_path / "notes.txt")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The sentence has the path and the system's reason."""
    with pytest.raises(RecordingError, match=r"^cannot read the recording .*/nothing: No such file or directory$"):
        load(tmp_path / "nothing")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from([".", "kubepods", "kubepods/burstable", "kubepods/podx/" + "a" * 64, "../x", "", "/"])
ENTRIES = st.fixed_dictionaries(
    {"time_ns": st.integers(-1, 2**65), "ino": st.integers(-1, 2**65)}, optional={"mtime_ns": JSON}
)
HEADS = st.fixed_dictionaries(
    {"time_ns": st.integers(0, 2**64) | JSON, "monotonic_ns": st.integers(0, 2**64) | JSON},
    optional={
        "dirs": st.dictionaries(PATHS | st.text(max_size=8), ENTRIES | JSON, max_size=4) | JSON,
        "errors": st.dictionaries(PATHS, st.sampled_from(["ENODEV", "EACCES", "ENOENT", "EIO"]) | JSON, max_size=3)
        | JSON,
        "answers": st.dictionaries(st.just("kubelet/pods.json") | st.text(max_size=8), JSON, max_size=3) | JSON,
        "answers_time_ns": JSON,
        "end_time_ns": JSON,
    },
)


@given(head=HEADS | JSON)
@settings(max_examples=400)
def test_any_frame_json_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, head: Any) -> None:
    """Whatever JSON a frame.json holds, the outcome is a recording that can be walked, or a RecordingError."""
    path = tmp_path_factory.getbasetemp() / "any-head.tar"
    path.write_bytes(tar(small_recording(head, files=FILES)))
    try:
        recorded = load(path)
    except RecordingError:
        return
    tree = RecordedTree(recorded)
    tree.begin()
    for name in (".", "kubepods"):
        walked(tree, name)


def walked(tree: RecordedTree, name: str) -> None:
    """Use a directory as the walk does; only what the walk is ready for may come of it."""
    with suppress(SourceError):
        directory = tree.open(name)
        assert directory.stamp() > -(2**66)
        directory.subdirectories()
        directory.read("cpu.stat")


# --- answers --------------------------------------------------------------------------------------------------------


def answers_of(tmp_path: Path, head: dict[str, Any], files: Mapping[str, bytes]) -> list[Answer]:
    """The answers of a recording of one frame."""
    return load(write_files(tmp_path, small_recording(HEAD | head, files=files))).frames[0].answers


def test_an_answer_is_as_it_was_told(tmp_path: Path) -> None:
    """Time, status, error and body come from the recording, the kubelet's answers before the API server's."""
    told = {
        "apiserver/pods.json": {"time_ns": 8, "status": 200},
        "kubelet/pods.json": {"time_ns": 7, "status": 403, "error": "Forbidden"},
    }
    files = {"apiserver/pods.json": b"{}", "kubelet/pods.json": b"no"}
    assert answers_of(tmp_path, {"answers": told}, files) == [
        Answer("kubelet/pods.json", 7, 403, "Forbidden", b"no"),
        Answer("apiserver/pods.json", 8, 200, None, b"{}"),
    ]


def test_an_answer_that_did_not_come_has_no_status_and_no_body(tmp_path: Path) -> None:
    """A failed connection is told by its error alone."""
    told = {"kubelet/pods.json": {"time_ns": 7, "status": None, "error": "refused"}}
    assert answers_of(tmp_path, {"answers": told}, {}) == [Answer("kubelet/pods.json", 7, None, "refused", None)]


def test_older_recordings_tell_the_time_without_the_folder(tmp_path: Path) -> None:
    """answers_time_ns names kubelet/pods.json as pods.json; its status is 200, as the body is there."""
    head = {"answers_time_ns": {"pods.json": 9}}
    assert answers_of(tmp_path, head, {"kubelet/pods.json": b"{}"}) == [
        Answer("kubelet/pods.json", 9, 200, None, b"{}")
    ]


def test_an_answer_without_a_time_is_of_its_frame(tmp_path: Path) -> None:
    """A body that frame.json does not mention has the frame's time."""
    expected = [Answer("kubelet/pods.json", HEAD["time_ns"], 200, None, b"{}")]
    assert answers_of(tmp_path, {}, {"kubelet/pods.json": b"{}"}) == expected


# --- serving frames -------------------------------------------------------------------------------------------------


def tree_of(tmp_path: Path, *heads: dict[str, Any], loop: bool = False) -> RecordedTree:
    """A tree over a small recording, at its first frame."""
    tree = RecordedTree(load(write_files(tmp_path, small_recording(*heads, files=FILES))), loop=loop)
    tree.begin()
    return tree


def test_a_directory_has_its_recorded_identity_and_time(tmp_path: Path) -> None:
    """Inode and mtime are the recorded ones; the stamp is the frame's monotonic time plus the directory's delay."""
    directory = tree_of(tmp_path, HEAD).open("kubepods")
    assert (directory.ino, directory.mtime_ns, directory.stamp()) == (12, 3, 5 * SECOND_NS + 7)


def test_a_directory_above_a_recorded_one_is_there(tmp_path: Path) -> None:
    """A path that no dirs entry has, but that lies above one, can be opened and is known by its path."""
    tree = tree_of(tmp_path, HEAD | {"dirs": {"a/b/c": DIR}})
    above = tree.open("a/b")
    assert (above.ino, above.mtime_ns, above.stamp(), above.subdirectories()) == (0, None, 5 * SECOND_NS, ["c"])


def test_the_end_of_an_older_recording_is_when_its_root_was_read(tmp_path: Path) -> None:
    """end_time_ns is the time of the root where dirs lacks it."""
    tree = tree_of(tmp_path, HEAD | {"end_time_ns": HEAD["time_ns"] + 90})
    assert tree.frame.dirs["."] == RecordedDir(HEAD["time_ns"] + 90, 0, None)


@pytest.mark.parametrize(
    ("told", "expected"),
    [("ENODEV", Gone), ("EACCES", Denied), ("EOPNOTSUPP", Absent), ("ENOENT", Absent)],
)
def test_a_file_that_could_not_be_read_cannot_be_read(told: str, expected: type[Exception], tmp_path: Path) -> None:
    """A recorded error of a file is raised again, whatever bytes stand beside it."""
    tree = tree_of(tmp_path, HEAD | {"errors": {"kubepods/cpu.stat": told}})
    with pytest.raises(expected):
        tree.open("kubepods").read("cpu.stat")


def test_a_directory_that_could_not_be_opened_cannot_be_opened(tmp_path: Path) -> None:
    """A recorded error of a directory that is in no dirs is raised by open, and its parent lists it."""
    tree = tree_of(tmp_path, HEAD | {"errors": {"kubepods/podx": "EACCES"}})
    assert tree.open("kubepods").subdirectories() == ["podx"]
    with pytest.raises(Denied):
        tree.open("kubepods/podx")


def test_a_directory_that_could_not_be_listed_cannot_be_listed(tmp_path: Path) -> None:
    """A recorded error of a directory that is in dirs is raised by listing it; its files are read."""
    directory = tree_of(tmp_path, HEAD | {"errors": {"kubepods": "EACCES"}}).open("kubepods")
    assert directory.read("cpu.stat") == b"usage_usec 1\n"
    with pytest.raises(Denied):
        directory.subdirectories()


def test_a_file_that_is_not_recorded_is_absent(tmp_path: Path) -> None:
    """A missing file is a missing file, not an empty one; so is one of /proc."""
    tree = tree_of(tmp_path, HEAD)
    with pytest.raises(Absent):
        tree.open("kubepods").read("memory.peak")
    with pytest.raises(Absent):
        tree.read_proc("meminfo")


@pytest.mark.parametrize("dirs", [{}, {"kubepods": {"time_ns": 1, "ino": 13}}], ids=["gone", "made again"])
def test_a_held_directory_is_gone_with_its_inode(dirs: dict[str, Any], tmp_path: Path) -> None:
    """What is held over a frame in which the path is missing or another cgroup's is Gone for every use."""
    tree = tree_of(tmp_path, HEAD, later(1, dirs=dirs))
    held = tree.open("kubepods")
    tree.begin()
    uses: list[Callable[[], object]] = [held.stamp, held.subdirectories, lambda: held.read("cpu.stat")]
    for use in uses:
        with pytest.raises(Gone) as gone:
            use()
        assert gone.value.errno == errno.ENODEV


def test_a_path_that_is_not_there_is_gone(tmp_path: Path) -> None:
    """Opening what the frame does not have is Gone, as a directory's ENOENT is."""
    with pytest.raises(Gone):
        tree_of(tmp_path, HEAD).open("kubepods/podx")


def test_after_the_last_frame_the_recording_ends(tmp_path: Path) -> None:
    """There is no frame after the last, however often one is asked for."""
    tree = tree_of(tmp_path, HEAD)
    for _ in range(2):
        with pytest.raises(EndOfRecording):
            tree.begin()


def test_a_looping_recording_goes_on_in_time(tmp_path: Path) -> None:
    """After the last frame comes the first, one interval later; starts stay, as counters go on over the seam."""
    heads = [later(seconds, answers={"kubelet/pods.json": {"time_ns": 1}}) for seconds in (0, 2, 4)]
    tree = RecordedTree(load(write_files(tmp_path, small_recording(*heads))), loop=True)
    answers = RecordedAnswers(tree)
    seen = [
        (
            (at := tree.begin()).time_ns // SECOND_NS - 1_700_000_000,
            at.monotonic_ns // SECOND_NS,
            tree.open("kubepods").mtime_ns,
            answers.take()[0].time_ns,
            tree.gap_ns() // SECOND_NS,
        )
        for _ in range(5)
    ]
    pass_ns = 6 * SECOND_NS
    assert seen == [
        (0, 5, 3, 1, 2),
        (2, 7, 3, 1, 2),
        (4, 9, 3, 1, 2),
        (6, 11, 3, 1 + pass_ns, 2),
        (8, 13, 3, 1 + pass_ns, 2),
    ]
    assert tree.passes == 1


@pytest.mark.parametrize(("seconds", "interval"), [((0,), 1), ((0, 3), 3), ((0, 1, 2, 9), 1), ((0, 5, 10, 11), 5)])
def test_the_interval_is_the_usual_gap(seconds: tuple[int, ...], interval: int, tmp_path: Path) -> None:
    """The median gap between frames, a second where there is but one frame."""
    heads = [later(second) for second in seconds]
    assert load(write_files(tmp_path, small_recording(*heads))).interval_ns == interval * SECOND_NS
