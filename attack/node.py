"""The program under attack: ``podtally serve`` in a process of its own, over a tree of files and a kubelet of ours, with
what it holds, what it logs and how it answers its probes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import yaml

from bench.run import DEPLOYED
from bench.tree import Tree, make_tree
from tests.helpers import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
MIB: Final = 1 << 20
PODS: Final = 110
"""Of the node: what the limits of the manifest are for."""

RUNAWAY_BYTES: Final = 512 * MIB
"""An attack is ended here: twice the limit says enough, and the machine has other users."""

KNOWN_TOKEN: Final = "known"

_PROBER: Final = "127.0.0.7"
"""The kubelet's address, which is no client's: of strangers, the oldest of the address that has the most makes room."""
_PROBE_EVERY_SECONDS: Final = 0.25
_PROBE_SECONDS: Final = 5.0
"""How long a probe waits: half of what the manifest gives the kubelet's."""
_STARTS_WITHIN_SECONDS: Final = 60.0
_SAMPLE_EVERY_SECONDS: Final = 0.05


def limit_bytes() -> int:
    """What the DaemonSet's manifest gives the program."""
    text = (ROOT / "daemonset" / "base" / "daemonset.yaml").read_text(encoding="utf-8")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    word = str(container["resources"]["limits"]["memory"])
    found = re.fullmatch(r"(\d+)Mi", word)
    if found is None:
        raise ValueError(f"the manifest's limit of memory {word!r} is not in Mi: teach attack/node.py its unit")
    return int(found[1]) * MIB


def place() -> str | None:
    """Where trees of files are made: in memory, if there is such a folder."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def tree(pods: int = PODS) -> Iterator[Tree]:
    """A node's files."""
    with tempfile.TemporaryDirectory(dir=place(), prefix="podtally-attack-") as folder:
        yield make_tree(Path(folder) / "tree", pods)


class NotUp(Exception):
    """The program does not answer; what it has logged."""


class Kubelet:
    """Answers what ``body`` gives, whole or cut short; it stands for the API server too, which is asked where it fails."""

    def __init__(self, body: Callable[[], bytes]) -> None:
        self.body = body
        self.asked = 0
        self.reviewed = 0
        """Tokens and rights; :data:`KNOWN_TOKEN` alone is somebody's."""
        self.cut = False
        """Whether the answer ends in its middle."""
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kubelet.asked += 1
                body = kubelet.body()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body[: -(len(body) // 16)] if kubelet.cut else body)
                self.close_connection = True

            def do_POST(self) -> None:
                kubelet.reviewed += 1
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known = review["kind"] != "TokenReview" or review["spec"]["token"] == KNOWN_TOKEN
                status = (
                    {"authenticated": known, "user": {"username": "scraper"}} if known else {"authenticated": False}
                )
                body = json.dumps({**review, "status": {"allowed": True, **status}}).encode()
                self.send_response(201)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(ConnectionError):
                    self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer no longer."""
        self._server.shutdown()
        self._server.server_close()


class Program:
    """podtally, started."""

    def __init__(self, *arguments: str, log: Path, most_files: int | None = None) -> None:
        command = [sys.executable, "-m", "collector", *arguments]
        if most_files is not None:
            command = ["sh", "-c", f'ulimit -n {most_files} && exec "$0" "$@"', *command]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PODTALLY_", "KUBERNETES_"))}
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**kept, **DEPLOYED}, stdout=subprocess.DEVNULL, stderr=file
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def _status(self, name: str) -> int:
        try:
            text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return 0
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
        return int(found[1]) << 10 if found is not None else 0

    def rss_bytes(self) -> int:
        """What it holds; 0 if it has ended."""
        return self._status("VmRSS")

    def peak_bytes(self) -> int:
        """The most that it has held."""
        return self._status("VmHWM")

    def log_bytes(self) -> int:
        """How much it has logged."""
        return self.log.stat().st_size

    def logged(self) -> str:
        """What it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Send a signal and wait; its exit status."""
        if self.alive:
            self.process.send_signal(number)
            try:
                return self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()


class Served:
    """A program that serves a node."""

    def __init__(
        self, program: Program, port: int, kubelet: Kubelet, tls: ssl.SSLContext | None, headers: Mapping[str, str]
    ) -> None:
        self.program = program
        self.port = port
        self.kubelet = kubelet
        self._tls = tls
        self._headers = headers
        """Of each request that has none of its own name."""

    def connect(self, *, receive_bytes: int | None = None, seconds: float = 10.0) -> socket.socket:
        """A connection without TLS; ``receive_bytes`` is how little its kernel keeps of an answer."""
        made = socket.socket()
        if receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(seconds)
        try:
            made.connect(("127.0.0.1", self.port))
        except OSError:
            made.close()
            raise
        return made

    def connect_with_tls(self, *, receive_bytes: int | None = None) -> socket.socket:
        """The same with TLS, once it has shaken hands."""
        made = self.connect(receive_bytes=receive_bytes)
        if self._tls is None:
            return made
        try:
            return self._tls.wrap_socket(made, server_hostname="127.0.0.1")
        except OSError:
            made.close()
            raise

    def get(self, path: str, *, seconds: float = 30.0, address: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
        """Ask once, from an address of this machine: status and body. Raises :class:`OSError` or
        :class:`http.client.HTTPException`.
        """
        asked: http.client.HTTPConnection
        source = (address, 0)
        if self._tls is not None:
            context = self._tls
            asked = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=seconds, context=context, source_address=source
            )
        else:
            asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds, source_address=source)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            asked.request("GET", path, headers={**self._headers, **named})
            answer = asked.getresponse()
            return answer.status, answer.read()
        finally:
            asked.close()

    def probe(self) -> bool:
        """Whether ``/healthz`` is answered well, as the kubelet asks it."""
        try:
            return self.get("/healthz", seconds=_PROBE_SECONDS, address=_PROBER)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def ready(self) -> bool:
        """Whether ``/readyz`` is answered well."""
        try:
            return self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def value(self, series: str) -> float:
        """The sum of the series of ``/metrics`` whose name and labels begin so."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


@contextmanager
def served(
    of: Tree,
    *arguments: str,
    kubelet: Callable[[], bytes] | None = None,
    tls: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    most_files: int | None = None,
) -> Iterator[Served]:
    """Serve a node, and end it. Raises :class:`NotUp`."""
    port, peer = free_port(), Kubelet(kubelet or (lambda: of.pods_json))
    with tempfile.TemporaryDirectory(prefix="podtally-attack-") as folder:
        program = Program(
            *("serve", "--listen", f"127.0.0.1:{port}", "--node-name", "attacked"),
            *("--kubelet-url", peer.url, "--apiserver-url", peer.url),
            *("--cgroup-root", str(of.cgroup_root), "--proc-root", str(of.proc_root)),
            *arguments,
            log=Path(folder) / "log",
            most_files=most_files,
        )
        node = Served(program, port, peer, tls, headers or {})
        try:
            if not wait_for(node.probe, _STARTS_WITHIN_SECONDS):
                raise NotUp(f"podtally does not come up: {program.logged()[-2000:]}")
            yield node
        finally:
            program.end()
            peer.close()


def wait_for(condition: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Wait until something is so; false if it is not by then."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


class Watch:
    """Probes a node and looks at its memory, in threads of its own."""

    def __init__(self, node: Served) -> None:
        self.asked = 0
        self.answered = 0
        self.peak_bytes = 0
        self.begun = time.monotonic()
        self.log_bytes = node.program.log_bytes()
        """What had been logged by then."""
        self._node = node
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._probe, self._look)]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def runs_away(self) -> bool:
        """Whether it holds so much that the attack is to be ended, or has died."""
        return self.peak_bytes > RUNAWAY_BYTES or not self._node.program.alive

    def _probe(self) -> None:
        while not self._stop.wait(_PROBE_EVERY_SECONDS):
            self.asked += 1
            self.answered += self._node.probe()

    def _look(self) -> None:
        while not self._stop.wait(_SAMPLE_EVERY_SECONDS):
            self.peak_bytes = max(self.peak_bytes, self._node.program.rss_bytes())
