"""``podtally record`` that is ended before its time, as a process: by signals, and by a disk that is full."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from collector.errors import RecordingError
from collector.sources.recording import load
from tests.helpers import DEADLINE_SECONDS, Peer, environment, podtally, served_in_thread, wait_until
from tests.support import FIXTURES, v2_root

FORMS = ("r", "r.tar", "r.tar.gz", "r.tar.zst")
REAL = FIXTURES / "replaced.tar.zst"


def frames(path: Path) -> int:
    """Whole frames so far."""
    try:
        return len(load(path).frames)
    except RecordingError:
        return 0


@contextmanager
def recording_to(out: Path, root: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """The program that records a node, after its third frame."""
    with served_in_thread(Peer(b'{"items": []}').handle) as url:
        command = [sys.executable, "-m", "collector", "record", out, "--duration", "1h", "--interval", "100ms"]
        flags = ["--cgroup-root", root, "--proc-root", root.parent / "proc", "--kubelet-url", url]
        running = subprocess.Popen(
            [*prefix, *map(str, (*command, *flags))], env=environment(), stderr=subprocess.PIPE, text=True
        )
        try:
            wait_until(lambda: frames(out) >= 3 or running.poll() is not None, every=0.1)
            yield running
        finally:
            running.kill()
            running.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("form", ["r", "r.tar.zst"])
def test_a_recording_that_a_signal_ends_is_whole(form: str, number: signal.Signals, tmp_path: Path) -> None:
    """It says which, and how many frames there are; its replay has no word to say of it."""
    out = tmp_path / form
    with recording_to(out, v2_root(tmp_path / "cgroup")) as running:
        running.send_signal(number)
        _, told = running.communicate(timeout=DEADLINE_SECONDS)

    found = load(out)
    assert (running.returncode, found.cut) == (0, "")
    assert told.splitlines()[-1].endswith(f"stopped by {number.name}: {len(found.frames)} whole frames are in {out}")


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_that_is_killed_has_its_whole_frames(form: str, tmp_path: Path) -> None:
    """Nothing could be said at its end: the replay says it."""
    out = tmp_path / form
    with recording_to(out, v2_root(tmp_path / "cgroup")) as running:
        running.kill()
        running.wait(DEADLINE_SECONDS)

    done = podtally("replay", out, "--once")
    assert frames(out) >= 3
    assert done.returncode == 0
    assert load(out).cut in done.stderr
    assert bool(load(out).cut) or form == "r"


def test_a_hang_up_that_is_ignored_ends_nothing(tmp_path: Path) -> None:
    """Under nohup a recording goes on when the terminal has gone."""
    out = tmp_path / "r"
    with recording_to(out, v2_root(tmp_path / "cgroup"), "sh", "-c", "trap '' HUP; exec \"$@\"", "sh") as running:
        running.send_signal(signal.SIGHUP)
        before = frames(out)
        wait_until(lambda: frames(out) > before or running.poll() is not None, every=0.1)
        assert running.poll() is None


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_recording_that_finds_no_more_room_has_its_whole_frames(form: str, tmp_path: Path) -> None:
    """A file may not grow any more, as on a full disk: one sentence with what is left, and its replay."""
    whole = tmp_path / f"whole-{form}"
    assert podtally("record", whole, "--from", REAL).returncode == 0
    most = whole.stat().st_size * 2 // 3
    out = tmp_path / form
    done = subprocess.run(
        [sys.executable, "-m", "collector", "record", str(out), "--from", str(REAL)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    count = frames(out)
    left = f"{count} whole frame{'s are' if count > 1 else ' is'} in {out}"

    assert count > 0
    assert (done.returncode, done.stderr) == (
        2,
        f"podtally record: cannot write the recording {out}: File too large; {left}\n",
    )
    assert load(out).cut in podtally("replay", out, "--once").stderr
