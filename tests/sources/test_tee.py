"""The law of the tee, exposition(replay(record(x))) == exposition(x), and the forms that a recording is written in."""

from __future__ import annotations

import errno
import io
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace as changed
from itertools import zip_longest
from pathlib import Path

import pytest

from collector.errors import RecordingError
from collector.metrics.native import NativeExposition, Selection
from collector.model import Answer
from collector.pods.strip import strip
from collector.seams import AnswerSource, Glimpse, Tree
from collector.sources.frames import Meta
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording, load
from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree, live_meta
from tests.support import (
    CAPTURED,
    LEAF_A,
    LEAF_B,
    LEAF_C,
    POD_PATH,
    RECORDED,
    SECOND_NS,
    SYNTHETIC,
    Cgroup,
    Exposed,
    MemoryTree,
    NoAnswers,
    cgroup,
    collector_over,
    expose,
    expose_all,
    files_below,
    live,
    recording,
    replace,
    v2_root,
)

META = Meta(node="node1", kernel="6.1", cpus=2, note="a test", extra={"kept": [1]})


def of_recording(recorded: Recording) -> list[Exposed]:
    """What is said of each frame of a recording."""
    tree = RecordedTree(recorded)
    return expose_all(collector_over(tree, RecordedAnswers(tree)))


def record(tree: Tree, answers: AnswerSource, out: Path, ticks: int, between: Callable[[int], None]) -> list[Exposed]:
    """Record some ticks and say what is said of each meanwhile."""
    said = []
    exposition = NativeExposition(Selection())
    with RecordingWriter(str(out), META) as writer:
        tee = TeeTree(tree, writer)
        collector = collector_over(tee, TeeAnswers(answers, tee))
        for number in range(ticks):
            said.append(expose(collector.tick(), exposition))
            between(number)
        tee.flush()
        collector.close()
    return said


def differing(before: list[Exposed], after: list[Exposed]) -> list[tuple[int, str, str | None, str | None]]:
    """Where two runs say other things: the frame and the first lines that differ."""
    found: list[tuple[int, str, str | None, str | None]] = []
    for number, (one, other) in enumerate(zip_longest(before, after)):
        for name in Exposed._fields:
            left, right = (getattr(said, name, "") for said in (one, other))
            lines = zip_longest(left.splitlines(), right.splitlines())
            found += [(number, name, *pair) for pair in lines if left != right and pair[0] != pair[1]][:1]
    return found


# --- the law --------------------------------------------------------------------------------------------------------

FORMS = ("r", "r.tar", "r.tar.gz", "r.tar.zst")


@pytest.mark.parametrize("name", [*SYNTHETIC, *CAPTURED, *RECORDED])
def test_a_recording_of_a_recording_says_the_same(name: str, tmp_path: Path) -> None:
    """Of every frame the three expositions and the API's document are equal byte for byte."""
    original = recording(name)
    source = RecordedTree(original)
    before = record(source, RecordedAnswers(source), tmp_path / "r.tar", len(original.frames), lambda _: None)
    assert differing(before, of_recording(load(tmp_path / "r.tar"))) == []


@pytest.mark.parametrize("name", [*SYNTHETIC, *CAPTURED, *RECORDED])
def test_recording_changes_nothing(name: str, tmp_path: Path) -> None:
    """What is said while a recording is recorded is what is said of it without."""
    original = recording(name)
    source = RecordedTree(original)
    teed = record(source, RecordedAnswers(source), tmp_path / "r.tar", len(original.frames), lambda _: None)
    assert differing(of_recording(original), teed) == []


def test_a_second_by_second_recording_says_the_same(tmp_path: Path) -> None:
    """Twenty seconds of the captured recording whose root is in no dirs obey the law in every frame."""
    whole = recording("parity-1hz.tar.zst")
    original = changed(whole, frames=whole.frames[:20])
    source = RecordedTree(original)
    before = record(source, RecordedAnswers(source), tmp_path / "r.tar", len(original.frames), lambda _: None)
    assert differing(before, of_recording(load(tmp_path / "r.tar"))) == []


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_written_and_says_the_same(form: str, tmp_path: Path) -> None:
    """A directory, a tar archive and both compressed ones obey the law."""
    original = recording("missing-files")
    source = RecordedTree(original)
    before = record(source, RecordedAnswers(source), tmp_path / form, 2, lambda _: None)
    assert differing(before, of_recording(load(tmp_path / form))) == []


def test_a_recording_goes_to_a_pipe_as_tar_zst(tmp_path: Path) -> None:
    """With - the archive is written to the stream that is given, whole when it is closed."""
    out = io.BytesIO()
    with RecordingWriter("-", META, out) as writer:
        writer.frame({"time_ns": 1, "monotonic_ns": 1}, {"sys/fs/cgroup/cpu.stat": b"x 1\n"})
    (tmp_path / "piped").write_bytes(out.getvalue())
    written = load(tmp_path / "piped")
    assert (written.meta, [frame.files for frame in written.frames], out.getvalue()[:4]) == (
        META,
        [{"cpu.stat": b"x 1\n"}],
        b"\x28\xb5\x2f\xfd",
    )


# --- a live tree ----------------------------------------------------------------------------------------------------


def pods_json() -> bytes:
    """The kubelet's answer that names the pod of v2_root and its container."""
    return (
        b'{"items": [{"metadata": {"namespace": "ns", "name": "web", "uid": "2fc932ce-fdcc-454b-97bd-aadfdeb4c340"},'
        b'"status": {"phase": "Running", "containerStatuses": [{"name": "b", "containerID": "containerd://'
        + LEAF_B.encode()
        + b'", "state": {"running": {}}}, {"name": "c", "containerID": "containerd://'
        + LEAF_C.encode()
        + b'", "state": {"running": {}}}]}}]}'
    )


class Told(NoAnswers):
    """The same answers at every tick."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self._answers = list(answers)

    def take(self) -> list[Answer]:
        return list(self._answers)


NAMED = Told(Answer("kubelet/pods.json", 1_700_000_000 * SECOND_NS, 200, None, pods_json()))


def test_a_live_tree_that_changes_obeys_the_law(tmp_path: Path) -> None:
    """Containers and pods that come, go and are made again, and files that come and go, are replayed as they were."""
    root = v2_root(tmp_path / "cgroup")
    pod = root / POD_PATH

    def change(number: int) -> None:
        if number < 3:
            (pod / "cpu.stat").write_text(f"usage_usec {number * 1000 + 2000}\n")
            (pod / LEAF_B / "cpu.stat").write_text(f"usage_usec {number * 900 + 2000}\n")
        if number == 0:
            cgroup(pod / LEAF_C)
            cgroup(root / "kubepods" / "podother" / LEAF_A)
        elif number == 1:
            replace(pod / LEAF_B)
            (pod / LEAF_C / "memory.current").unlink()
            (root / "kubepods" / "podother").rename(tmp_path / "other")
        elif number == 2:
            replace(pod, {"cpu.stat": "usage_usec 1\n", "memory.current": "not a number\n"})

    before = record(live(root), NAMED, tmp_path / "r", 4, change)
    assert differing(before, of_recording(load(tmp_path / "r"))) == []
    assert [said.metrics.count("pod_info{") for said in before] == [1, 1, 1, 1]


def test_bytes_inodes_and_clocks_are_written_as_they_were(tmp_path: Path) -> None:
    """Files are the kernel's bytes; dirs have the inode, the mtime and the time of the reading."""
    root = v2_root(tmp_path / "cgroup")
    (root / POD_PATH / "memory.stat").write_bytes(b"\xff\x00 any bytes")
    record(live(root), NAMED, tmp_path / "r", 1, lambda _: None)
    frame = load(tmp_path / "r").frames[0]
    status = (root / POD_PATH).stat()
    entry = frame.dirs[POD_PATH]
    assert frame.files[f"{POD_PATH}/memory.stat"] == b"\xff\x00 any bytes"
    assert (entry.ino, entry.mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert 0 < entry.time_ns - frame.instant.time_ns < 60 * SECOND_NS
    assert frame.proc == {"meminfo": b"SwapTotal:  8 kB\nSwapFree:  4 kB\n"}


def test_a_name_that_is_no_utf_8_is_recorded(tmp_path: Path) -> None:
    """A directory of any bytes beside the pods' does not keep a node from being recorded and replayed."""
    root = v2_root(tmp_path / "cgroup")
    os.mkdir(os.fsencode(root) + b"/caf\xe9 \n\"'")
    before = record(live(root), NAMED, tmp_path / "r.tar.zst", 2, lambda _: None)
    assert differing(before, of_recording(load(tmp_path / "r.tar.zst"))) == []


# --- a tree whose cgroups vanish while they are read ------------------------------------------------------------------

USED = {"cpu.stat": b"usage_usec 10000\n", "memory.current": b"20\n", "memory.stat": b"inactive_file 5\n"}


class Changing(MemoryTree):
    """Runs something when a file is about to be read in the second tick; each reading takes a millisecond."""

    def __init__(self, cgroups: Mapping[str, Cgroup], at: str, change: Callable[[dict[str, Cgroup]], None]) -> None:
        super().__init__(cgroups, {"meminfo": b"SwapTotal: 4 kB\n"})
        self._at, self._change = at, change

    def before_read(self, path: str) -> None:
        if path == self._at and self.seconds == 2:
            self._change(self.cgroups)


POD = f"kubepods/burstable/pod{POD_PATH.rpartition('/pod')[2]}"
A, B, C = (f"{POD}/{leaf}" for leaf in (LEAF_A, LEAF_B, LEAF_C))


def remove(path: str) -> Callable[[dict[str, Cgroup]], None]:
    """Takes a cgroup and all below it away."""

    def change(cgroups: dict[str, Cgroup]) -> None:
        for name in [name for name in cgroups if name == path or name.startswith(path + "/")]:
            del cgroups[name]

    return change


def make(path: str, cgroup: Cgroup) -> Callable[[dict[str, Cgroup]], None]:
    """Puts a cgroup at a path."""
    return lambda cgroups: cgroups.__setitem__(path, cgroup)


def fail(path: str, name: str, number: int) -> Callable[[dict[str, Cgroup]], None]:
    """Makes a file unreadable."""
    return lambda cgroups: cgroups[path].files.__setitem__(name, number)


def unlisted(path: str) -> Callable[[dict[str, Cgroup]], None]:
    """Makes a directory gone for listing alone, as where it is removed after its files were read."""
    return lambda cgroups: setattr(cgroups[path], "listing", errno.ENODEV)


def made_again(cgroups: dict[str, Cgroup]) -> None:
    """The pod is removed and made again, with a leaf at a path that one of the old ones had."""
    remove(POD)(cgroups)
    cgroups[POD] = Cgroup(94, {"cpu.stat": b"usage_usec 3\n"})
    cgroups[B] = Cgroup(96, {"cpu.stat": b"usage_usec 2\n", "memory.current": b"7\n"})


CHANGES: dict[str, tuple[str, Callable[[dict[str, Cgroup]], None]]] = {
    "nothing": ("", remove("x")),
    "a leaf goes while it is read": (f"{B}/memory.current", remove(B)),
    "a leaf goes after another was read": (f"{B}/cpu.stat", remove(B)),
    "the last leaf goes first": (f"{A}/cpu.stat", remove(C)),
    "a leaf is made again with fewer files": (f"{B}/memory.stat", make(B, Cgroup(99, {"cpu.stat": b"usage_usec 1\n"}))),
    "a pod goes while it is read": (f"{POD}/memory.current", remove(POD)),
    "a pod goes between its leaves": (f"{B}/cpu.stat", remove(POD)),
    "a pod goes before it is listed": (f"{POD}/memory.stat", unlisted(POD)),
    "a pod is made again with a leaf": (f"{C}/memory.current", made_again),
    "kubepods goes": (f"{B}/cpu.stat", remove("kubepods")),
    "a file is denied": (f"{B}/cpu.stat", fail(B, "memory.current", errno.EACCES)),
    "a file is not supported": (f"{B}/cpu.stat", fail(B, "cpu.pressure", errno.EOPNOTSUPP)),
    "a file fails": (f"{B}/cpu.stat", fail(B, "cpu.stat", errno.EIO)),
    "a file has an errno without a name": (f"{B}/cpu.stat", fail(B, "cpu.stat", 4095)),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_vanishes_in_the_middle_of_a_tick_obeys_the_law(case: str, tmp_path: Path) -> None:
    """Whatever goes while a frame is read, its replay says what was said then, reading times included."""
    at, change = CHANGES[case]
    cgroups = {
        ".": Cgroup(1, {"cpu.stat": b"usage_usec 9\n"}),
        "kubepods": Cgroup(2),
        "kubepods/burstable": Cgroup(3),
        POD: Cgroup(4, dict(USED), 1_700_000_000 * SECOND_NS),
        A: Cgroup(5, dict(USED)),
        B: Cgroup(6, dict(USED)),
        C: Cgroup(7, dict(USED)),
    }
    before = record(Late(Changing(cgroups, at, change)), NAMED, tmp_path / "r", 3, lambda _: None)
    assert differing(before, of_recording(load(tmp_path / "r"))) == []


def glimpse(number: int, *, kills: int = 0, second: float = 0.0) -> Glimpse:
    """A container that came and went in the pod, read at ``second``."""
    files = {
        "cpu.stat": b"usage_usec %d\n" % (1000 * number),
        "memory.current": b"4096\n",
        "memory.events": b"oom_kill %d\n" % kills,
        "cpu.pressure": b"nonsense\n",
    }
    made_ns = 1_700_000_000 * SECOND_NS
    return Glimpse(f"{POD}/{number:064x}", 100 + number, made_ns, round(second * SECOND_NS), files)


def test_what_came_and_went_between_two_ticks_obeys_the_law(tmp_path: Path) -> None:
    """A container that is in no frame, but was seen in between, is told of by the replay as it was told of then."""
    cgroups = {
        ".": Cgroup(1, {"cpu.stat": b"usage_usec 9\n"}),
        "kubepods": Cgroup(2),
        "kubepods/burstable": Cgroup(3),
        POD: Cgroup(4, {**USED, "memory.events": b"oom_kill 0\n"}, 1_700_000_000 * SECOND_NS),
        A: Cgroup(5, {**USED, "memory.events": b"oom_kill 0\n"}),
    }
    tree = MemoryTree(cgroups)
    seen = {
        0: [glimpse(0xC, second=1.25)],
        1: [glimpse(0xD, kills=1, second=2.5), glimpse(0xE, second=2.75)],
        2: [],
    }

    def between(number: int) -> None:
        tree.seen = seen.get(number, [])
        if number == 1:
            cgroups[POD].files["memory.events"] = b"oom_kill 1\n"

    statuses = [
        {"name": name, "containerID": f"containerd://{number:064x}", "state": {"running": {}}}
        for number, name in ((0xC, "first"), (0xD, "second"), (0xE, "third"))
    ]
    pods = json.loads(pods_json())
    pods["items"][0]["status"]["containerStatuses"] = statuses
    answers = Told(Answer("kubelet/pods.json", 1_700_000_000 * SECOND_NS, 200, None, json.dumps(pods).encode()))
    said = record(tree, answers, tmp_path / "r.tar", 5, between)

    assert differing(said, of_recording(load(tmp_path / "r.tar"))) == []
    last = said[-1].metrics.splitlines()
    assert [line.split()[0].split('"')[1] for line in last if line.startswith("pod_container_final_cpu")] == [
        "first",
        "second",
        "third",
    ]
    assert 'pod_container_oom_kills_total{container="second",namespace="ns",pod="web"} 1.0' in last


class Late:
    """A tree whose stamps are a millisecond later from one to the next, so that a lost one is seen."""

    def __init__(self, inner: MemoryTree) -> None:
        self._inner = inner
        self._stamps = 0
        self.begin = inner.begin
        self.read_proc = inner.read_proc
        self.glimpses = inner.glimpses

    def open(self, path: str) -> LateDirectory:
        return LateDirectory(self, path)

    def later(self) -> int:
        self._stamps += 1
        return self._stamps * 1_000_000

    @property
    def inner(self) -> MemoryTree:
        return self._inner


class LateDirectory:
    """One of its directories."""

    def __init__(self, tree: Late, path: str) -> None:
        self._tree = tree
        inner = tree.inner.open(path)
        self.ino, self.mtime_ns = inner.ino, inner.mtime_ns
        self.subdirectories = inner.subdirectories
        self.read = inner.read
        self.read_all = inner.read_all
        self.watch = inner.watch
        self.close = inner.close

    def stamp(self) -> int:
        return self._tree.inner.seconds * SECOND_NS + self._tree.later()


# --- answers --------------------------------------------------------------------------------------------------------


def test_answers_are_kept_as_they_came(tmp_path: Path) -> None:
    """Good, refused and missing answers come back equal, each in its frame."""
    answers = [
        Answer("kubelet/pods.json", 5, 403, "Forbidden", b"no right"),
        Answer("kubelet/stats_summary.json", 6, None, "connection refused", None),
        Answer("apiserver/pods.json", 7, 200, None, strip(b'{"items": []}')),
    ]
    tree = MemoryTree({".": Cgroup(1)})
    record(tree, Told(*answers), tmp_path / "r.tar.zst", 2, lambda _: None)
    written = load(tmp_path / "r.tar.zst")
    in_order = [answers[0], answers[1], answers[2]]
    assert [frame.answers for frame in written.frames] == [in_order, in_order]


@pytest.mark.parametrize("raw", [False, True])
def test_what_is_not_read_of_pods_is_not_recorded(tmp_path: Path, *, raw: bool) -> None:
    """Of a list from any source, an older recording's too, no environment is written, unless all is asked for."""
    pods = json.loads(pods_json())
    pods["items"][0]["spec"] = {"containers": [{"name": "b", "env": [{"name": "E", "value": "SECRET"}]}]}
    pods["items"][0]["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "SECRET"}
    body = json.dumps(pods).encode()
    tree = MemoryTree({".": Cgroup(1)})
    with RecordingWriter(str(tmp_path / "r"), META) as writer:
        tee = TeeTree(tree, writer)
        answers = TeeAnswers(Told(Answer("kubelet/pods.json", 5, 200, None, body)), tee, raw=raw)
        collector_over(tee, answers).tick()
        tee.flush()

    (written,) = load(tmp_path / "r").frames[0].answers

    assert written.body == (body if raw else strip(body))
    assert any(b"SECRET" in data for data in files_below(tmp_path / "r").values()) == raw


@pytest.mark.parametrize("body", [b"<html>", b'{"items": [', b'{"kind": "Status"}'])
def test_what_is_no_list_is_recorded_as_a_failure(body: bytes, tmp_path: Path) -> None:
    """Of half a list nothing is written, as nothing is read of it; the replay has the same names state."""
    tree = MemoryTree({".": Cgroup(1)})
    said = record(tree, Told(Answer("kubelet/pods.json", 5, 200, None, body)), tmp_path / "r", 1, lambda _: None)
    written = load(tmp_path / "r")

    assert [(one.status, one.body, one.kind) for one in written.frames[0].answers] == [(200, None, "not_the_list")]
    assert differing(said, of_recording(written)) == []


def test_the_wish_for_answers_is_handed_on(tmp_path: Path) -> None:
    """ask() of the tee asks the source."""
    source = NoAnswers()
    with RecordingWriter(str(tmp_path / "r"), META) as writer:
        TeeAnswers(source, TeeTree(MemoryTree({}), writer)).ask()
    assert source.asked == 1


# --- the writer -----------------------------------------------------------------------------------------------------


def test_an_existing_directory_is_not_written_to(tmp_path: Path) -> None:
    """A recording is never written over another's frames."""
    (tmp_path / "r").mkdir()
    with pytest.raises(RecordingError, match=r"/r is there already: give a new name, or remove it first$"):
        RecordingWriter(str(tmp_path / "r"), META)
    assert files_below(tmp_path / "r") == {}


@pytest.mark.parametrize("name", ["r.tar", "r.tar.gz", "r.tar.zst"])
def test_an_existing_archive_is_not_written_over(name: str, tmp_path: Path) -> None:
    """Neither is an archive, which may be the very recording that is read."""
    (tmp_path / name).write_bytes(b"kept")
    with pytest.raises(RecordingError, match=r"is there already: give a new name, or remove it first$"):
        RecordingWriter(str(tmp_path / name), META)
    assert (tmp_path / name).read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["r.zip", "r.tgz", "r.zst"])
def test_another_form_of_archive_is_refused(name: str, tmp_path: Path) -> None:
    """What looks like an archive is not made a directory."""
    with pytest.raises(RecordingError, match=r"end it in \.tar, \.tar\.gz or \.tar\.zst$"):
        RecordingWriter(str(tmp_path / name), META)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The sentence has the place and the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match=rf"^cannot write the recording {tmp_path}/file/r: Not a directory$"):
        RecordingWriter(str(tmp_path / "file/r"), META)


@pytest.mark.parametrize("name", ["r.tar", "r.tar.zst"])
@pytest.mark.parametrize("linked", [False, True], ids=["at its path", "where a link leads"])
def test_a_folder_that_is_not_there_is_named(name: str, linked: bool, tmp_path: Path) -> None:
    """Not the archive, which is to be made, but the folder that it is to be made in."""
    out = missing = tmp_path / "nowhere" / name
    if linked:
        out = tmp_path / name
        out.symlink_to(missing)
    sentence = (
        f"cannot write the recording {out}: there is no folder {missing.parent}: make it first, or write elsewhere"
    )
    with pytest.raises(RecordingError, match=f"^{re.escape(sentence)}$"):
        RecordingWriter(str(out), META)


@pytest.mark.parametrize("name", ["r.tar", "r.tar.gz", "r.tar.zst"])
def test_a_full_disk_is_told(name: str, tmp_path: Path) -> None:
    """What fails while frames are written, or at the end, is one sentence too."""
    (tmp_path / name).symlink_to("/dev/full")
    sentence = rf"^cannot write the recording {tmp_path}/{name}: No space left on device$"
    with pytest.raises(RecordingError, match=sentence):
        write_noise(str(tmp_path / name))


def write_noise(out: str) -> None:
    """A recording of two MiB that no compression makes smaller."""
    with RecordingWriter(out, META) as writer:
        for number in range(20):
            writer.frame({"time_ns": number, "monotonic_ns": number}, {"sys/fs/cgroup/x": os.urandom(100_000)})


def test_a_directory_without_a_frame_is_taken_away_again(tmp_path: Path) -> None:
    """A recording that failed before its first frame leaves nothing behind."""
    RecordingWriter(str(tmp_path / "a" / "r"), META).close()
    assert not (tmp_path / "a" / "r").exists()


def test_frames_are_numbered_in_order(tmp_path: Path) -> None:
    """The folders of a directory, and the count of the writer."""
    with RecordingWriter(str(tmp_path / "r"), META) as writer:
        for number in range(3):
            writer.frame({"time_ns": number, "monotonic_ns": number}, {})
    assert (writer.frames, sorted(files_below(tmp_path / "r"))) == (
        3,
        ["frames/0000/frame.json", "frames/0001/frame.json", "frames/0002/frame.json", "recording.json"],
    )


def test_meta_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """All of recording.json, unknown keys included."""
    with RecordingWriter(str(tmp_path / "r"), META) as writer:
        writer.frame({"time_ns": 1, "monotonic_ns": 1}, {})
    assert load(tmp_path / "r").meta == META


@pytest.mark.parametrize("runtime", ["containerd", "cri-o", "docker"])
def test_the_runtime_is_told_by_the_first_frames_pods(runtime: str, tmp_path: Path) -> None:
    """It is in the container ids of the kubelet's list, whichever way its JSON is spaced."""
    pods = f'{{"items": [{{"status": {{"containerStatuses": [{{"containerID": "{runtime}://{"a" * 64}"}}]}}}}]}}'
    with RecordingWriter(str(tmp_path / "r"), META) as writer:
        writer.frame({"time_ns": 1, "monotonic_ns": 1}, {"kubelet/pods.json": pods.encode()})
    assert load(tmp_path / "r").meta == changed(META, runtime=runtime)


def test_a_runtime_that_is_known_stays(tmp_path: Path) -> None:
    """A recording of a recording keeps what the first one says, with the runtime's version."""
    known = changed(META, runtime="containerd 2.1.9")
    with RecordingWriter(str(tmp_path / "r"), known) as writer:
        writer.frame({"time_ns": 1, "monotonic_ns": 1}, {"kubelet/pods.json": b'{"containerID":"docker://a"}'})
    assert load(tmp_path / "r").meta == known


def test_the_meta_of_a_live_node_says_what_it_runs_on() -> None:
    """Kernel, CPUs and memory are those of this machine."""
    meta = live_meta("n", "systemd", "why")
    assert (meta.node, meta.kernel, meta.cpus, meta.page_size, meta.cgroup_driver, meta.origin, meta.note) == (
        "n",
        os.uname().release,
        os.cpu_count(),
        os.sysconf("SC_PAGE_SIZE"),
        "systemd",
        "captured",
        "why",
    )
