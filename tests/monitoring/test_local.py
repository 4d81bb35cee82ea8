"""`make monitor`: Prometheus in front of a replay, and what is said where that cannot be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitoring import address, local
from tests.helpers import REPO, Peer, environment, free_port, served_in_thread
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


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """The address of a program that answers everything with this."""
    with served_in_thread(Peer(body).handle) as url:
        yield url.removeprefix("http://")


@contextmanager
def sleeping() -> Iterator[subprocess.Popen[bytes]]:
    """A collector that does not serve."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "body", [b"<html>", b"\xff", b"[]", b'{"status": "success"}'], ids=["HTML", "no text", "a list", "other JSON"]
)
def test_what_another_program_answers_is_one_sentence(body: bytes) -> None:
    """Who has the address although it was free is told from the collector, with what to do."""
    with serving(body) as taken, sleeping() as collector, pytest.raises(address.LocalError) as caught:
        local._node_of(collector, taken)
    assert str(caught.value) == (
        f"what answers at http://{taken}/ is not the collector: choose another address:"
        " make monitor LISTEN=127.0.0.1:9754"
    )


def test_another_podtally_is_not_taken_for_its_own() -> None:
    """A collector that has ended, as one does whose address is taken, is not who answers."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with serving(b'{"node": "another"}') as taken, pytest.raises(address.LocalError, match="does not serve"):
        local._node_of(ended, taken)


@needs_prometheus
@pytest.mark.parametrize(
    ("flag", "instead"), [("--listen", local.ELSEWHERE), ("--prometheus", local.PROMETHEUS_ELSEWHERE)]
)
def test_a_taken_address_is_told_before_anything_is_started(flag: str, instead: str) -> None:
    """By the variable of make that chooses another; also where what serves there is a podtally."""
    free = {"--listen": f"127.0.0.1:{free_port()}", "--prometheus": f"127.0.0.1:{free_port()}"}
    with serving(b'{"node": "another"}') as taken:
        status, why = ended(monitor(RECORDING, *(word for pair in (free | {flag: taken}).items() for word in pair)))
    assert status == 2
    assert why == f"the address {taken} is in use: end what serves there, or choose another: {instead}\n"


def test_make_run_asks_for_its_address_first(capfd: pytest.CaptureFixture[str]) -> None:
    """A taken one is told by the variable that chooses another; a free one is passed without a word."""
    with serving(b"") as taken:
        status = address.main([taken, "make run LISTEN=127.0.0.1:9754"])
    assert (status, address.main([taken, ""])) == (2, 0)
    assert capfd.readouterr().err == (
        f"the address {taken} is in use: end what serves there, or choose another: make run LISTEN=127.0.0.1:9754\n"
    )


@pytest.mark.parametrize("value", ["9753", "localhost", ":", "127.0.0.1:65536", "::1:80", "a..b:80"])
def test_what_is_no_address_is_told(value: str) -> None:
    """With one that is."""
    with pytest.raises(address.LocalError) as caught:
        address.need_free(value, local.ELSEWHERE)
    assert str(caught.value) == f"{value!r} is no address: give HOST:PORT, as make monitor LISTEN=127.0.0.1:9754"


def test_an_address_of_another_machine_is_told() -> None:
    """With the system's reason."""
    with pytest.raises(address.LocalError, match=r"^the address 192\.0\.2\.1:80 cannot be listened on: [A-Z]"):
        address.need_free("192.0.2.1:80", local.ELSEWHERE)


def test_every_host_is_reached_at_this_one() -> None:
    """What serves at every host has no address of its own that could be asked."""
    assert [address.reached_at(one, "") for one in (":80", "0.0.0.0:80", "[::]:80", "[::1]:80", "localhost:80")] == [
        "127.0.0.1:80",
        "127.0.0.1:80",
        "127.0.0.1:80",
        "[::1]:80",
        "localhost:80",
    ]


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

    A signal that comes twice, as make and ``timeout`` both hand it on, is the same.
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
    finally:
        os.kill(process.pid, sent)
        time.sleep(0.05)
        os.kill(process.pid, sent)
        status, err = ended(process)
    assert status == 0, err
    assert "Traceback" not in err
    assert not answers(f"http://{prometheus}/-/ready")
    assert not answers(f"http://{listen}/metrics")
    assert list(tmp_path.iterdir()) == []
