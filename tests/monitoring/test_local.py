"""`make monitor`: Prometheus in front of a replay, and what is said where that cannot be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from monitoring import local
from tests.helpers import REPO, environment, free_port
from tests.monitoring.test_prometheus import wait_for
from tests.support import FIXTURES

RECORDING = FIXTURES / "static-pod"
"""Small, so that it is read at once."""

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"
)


def monitor(*arguments: str | Path, **variables: str) -> subprocess.Popen[str]:
    """The command, started."""
    return subprocess.Popen(
        [sys.executable, "-m", "monitoring.local", *map(str, arguments)],
        cwd=REPO,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit status, and all that it says of why. It is ended in any case, and so is what it has started."""
    try:
        _, err = process.communicate(timeout=local.DEADLINE_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        raise
    return process.returncode, err


def test_without_prometheus_it_says_how_to_install_it(tmp_path: Path) -> None:
    """Before anything is started."""
    assert ended(monitor(RECORDING, PATH=str(tmp_path))) == (2, f"{local.HOW_TO_INSTALL}\n")


@needs_prometheus
def test_a_recording_that_is_none() -> None:
    """The collector says what is wrong with it; nothing is left running."""
    status, err = ended(monitor("no-such-recording", "--listen", f"127.0.0.1:{free_port()}"))
    assert status == 2
    assert "no-such-recording" in err
    assert "Traceback" not in err


def answers(url: str) -> bool:
    """True once somebody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@needs_prometheus
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_both_serve_until_they_are_ended(tmp_path: Path, sent: signal.Signals) -> None:
    """The collector and Prometheus answer at the addresses given, and both are gone after the signal, data too.

    Who comes second to an address is told that it is taken.
    """
    listen, prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell has it for what it starts in the background
    try:
        process = monitor(RECORDING, "--listen", listen, "--prometheus", prometheus, TMPDIR=str(tmp_path))
    finally:
        signal.signal(signal.SIGINT, ignored)
    try:
        wait_for(lambda: answers(f"http://{prometheus}/-/ready"))
        assert answers(f"http://{listen}/metrics")
        second = monitor(RECORDING, "--listen", f"127.0.0.1:{free_port()}", "--prometheus", prometheus)
        status, why = ended(second)
        assert status == 2
        assert f"http://{prometheus}" in why
        assert "Address already in use" in why
    finally:
        os.kill(process.pid, sent)
        status, err = ended(process)
    assert status == 0, err
    assert "Traceback" not in err
    assert not answers(f"http://{prometheus}/-/ready")
    assert not answers(f"http://{listen}/metrics")
    assert list(tmp_path.iterdir()) == []
