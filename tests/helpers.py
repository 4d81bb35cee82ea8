"""What tests of the program and of its HTTP share: certificates, a fake kubelet or API server, the program started."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

REPO = Path(__file__).resolve().parents[1]

DEADLINE_SECONDS = 60.0
"""How long a test waits for what takes milliseconds, before it fails: a busy machine may stand still for a while."""


ENDS_WITHIN_SECONDS = 20.0
"""How long the program may take to end: less than whatever might hold it up, as the 30 s that asyncio gives a TLS
client for its farewell, the 60 s that aiohttp gives a request, and connections that are kept.
"""


async def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS, every: float = 0.005) -> None:
    """Wait for something that other tasks, threads or programs do, and look for it ``every`` so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "what was waited for has not happened"
        await asyncio.sleep(every)


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS, every: float = 0.005) -> None:
    """The same without an event loop."""
    asyncio.run(until(condition, seconds, every))


def families(text: str, *, openmetrics: bool) -> list[Metric]:
    """What prometheus_client's parser, the strict one for OpenMetrics, makes of an exposition."""
    return list(openmetrics_families(text) if openmetrics else text_families(text))


# --- certificates ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What a server shows, and the file of those that vouch for it."""

    server: ssl.SSLContext
    ca_file: str


def certificate(
    folder: Path, *names: str, common_name: str | None = None, valid_days: tuple[float, float] = (-1, 1)
) -> Certificate:
    """A certificate signed by a CA made for it. It is of this machine's addresses unless there is any name;
    ``valid_days``: from when to when, counted from now.
    """
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    since, until = (datetime.now(timezone.utc) + timedelta(days=days) for days in valid_days)
    names = names if names or common_name else ("127.0.0.1", "::1")
    ca.issue_cert(*names, common_name=common_name, not_before=since, not_after=until).configure_cert(context)
    ca_file = folder / f"ca-{id(ca)}.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    return Certificate(context, str(ca_file))


def self_signed_certificate(folder: Path) -> Certificate:
    """A certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _written(folder / "self-signed.pem", key, _signed("kubelet", key, "kubelet", key, ca=True), None)


def certificate_of_bare_ca(folder: Path) -> Certificate:
    """A certificate signed by a CA without keyUsage, as some clusters have it."""
    key, ca_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _signed("bare CA", ca_key, "bare CA", ca_key, ca=True)
    return _written(folder / "bare.pem", key, _signed("kubelet", key, "bare CA", ca_key, ca=False), ca)


def _signed(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, issuer_key: ec.EllipticCurvePrivateKey, *, ca: bool
) -> x509.Certificate:
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _written(
    file: Path, key: ec.EllipticCurvePrivateKey, shown: x509.Certificate, ca: x509.Certificate | None
) -> Certificate:
    """Write a server's certificate with its key, and beside it the certificate that vouches for it."""
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(shown.public_bytes(pem) + private)
    ca_file = file.with_suffix(".ca.pem")
    ca_file.write_bytes((ca or shown).public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return Certificate(context, str(ca_file))


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that is given to nobody else while this process lives.

    It is bound and not listened on. So Linux neither chooses it where any port will do, as other tests ask for, nor
    refuses it to who asks for it by number with SO_REUSEADDR, as servers do.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    port = int(one.getsockname()[1])
    one.detach()
    return port


FOR_OLD_SAMPLES = ("--storage.tsdb.retention.time=100y",)
"""A flag of Prometheus' for a store with a recording's own times."""

# --- peers ----------------------------------------------------------------------------------------------------------

EMPTY_LIST = b'{"kind": "PodList", "apiVersion": "v1", "items": []}'


class Peer:
    """A kubelet or an API server: answers what it is told to, and remembers what it was asked, by whom and when."""

    def __init__(self, body: bytes = EMPTY_LIST, status: int = 200) -> None:
        self.body = body
        self.status = status
        self.asked: list[tuple[str, str | None]] = []
        """Path and query, and the Authorization header."""
        self.moments: list[float] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer anything."""
        self.asked.append((request.path_qs, request.headers.get("Authorization")))
        self.moments.append(time.monotonic())
        return web.Response(body=self.body, status=self.status)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve ``handler`` at every path; gives the URL."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        yield f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await runner.cleanup()


@contextmanager
def served_in_thread(handler: Handler, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[str]:
    """The same beside a test that has no event loop."""
    loop = asyncio.new_event_loop()
    started: list[str] = []
    stop = asyncio.Event()

    async def run() -> None:
        async with served(handler, tls, host) as url:
            started.append(url)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    wait_until(lambda: bool(started))
    try:
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(DEADLINE_SECONDS)
        loop.close()


# --- the program ----------------------------------------------------------------------------------------------------


def environment(**variables: str) -> dict[str, str]:
    """The environment of a started program: this one's, without what would change what it does."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PODTALLY_", "KUBERNETES_"))}
    return {**kept, "PYTHONPATH": str(REPO), "PYTHONWARNINGS": "error", "COLUMNS": "100", **variables}


def podtally(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "collector", *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_SECONDS,
        check=False,
    )


class Running:
    """A program that serves."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []
        """What it has logged, as far as it was read: whole once the program has ended, else to be waited for."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        """Where it says that it serves."""
        return self.serving(DEADLINE_SECONDS)

    def serving(self, seconds: float) -> str:
        """Where it says that it serves, within so many seconds."""
        found: list[str] = []

        def told() -> bool:
            found.extend(re.findall(r"look at (https?://\S+)/\n", "".join(self.lines)))
            return bool(found) or self._process.poll() is not None

        wait_until(told, seconds)
        assert found, "".join(self.lines)
        return found[0]

    def terminate(self) -> int:
        """Send SIGTERM and wait for the end; its exit status. What it has logged is whole then."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(ENDS_WITHIN_SECONDS)
        self._reader.join()
        return status

    def close(self) -> None:
        """End it in any case."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def started(*arguments: str | Path, most_files: int | None = None, **variables: str) -> Iterator[Running]:
    """Start the program, which may open so many files, and leave it running."""
    command = [sys.executable, "-m", "collector", *map(str, arguments)]
    if most_files is not None:
        command = ["sh", "-c", f'ulimit -n {most_files} && exec "$0" "$@"', *command]
    running = Running(
        subprocess.Popen(
            command,
            env=environment(**variables),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    try:
        yield running
    finally:
        running.close()
