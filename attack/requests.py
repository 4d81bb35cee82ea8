"""HTTP requests changed at random, against a program that replays a recording: it answers each, or closes, and lives on.

An answer of 500 and above is an escape, but for 503, which says that there are too many; so is a program that does not
answer its probe afterwards.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

from attack.fuzz import Done, Escape, Sample
from attack.mutate import BLANKS, NUMBERS, changed
from attack.node import Kubelet, NotUp, Program, Served, wait_for
from tests.helpers import EMPTY_LIST, free_port
from tests.support import FIXTURES

INPUTS: Final = 40_000
"""In a whole campaign."""
_AT_ONCE: Final = 48
_WAIT_SECONDS: Final = 0.05
"""For an answer to what may be half a request, once the others have theirs."""
_RECORDING: Final = FIXTURES / "static-pod"
NAME: Final = "HTTP requests"

_PATHS: Final = (b"/healthz", b"/readyz", b"/metrics/resource", b"/metrics", b"/nope", b"/", b"/api/v1/pods", b"*")
_METHODS: Final = (b"GET", b"GET", b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"CONNECT")
_WORDS: Final = (
    *(*NUMBERS[:12], *BLANKS, b"%00", b"%2e%2e/", b"%ff", b"%", b"//", b"?", b"#", b"http://[", b"http://x:99999999/"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(
        b"Transfer-Encoding: x, chunked\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"\r\n\r\n",
        b"\r\n",
    ),
    *(b"Range: bytes=0-3\r\n", b"Accept: */*;q=0\r\n", b"Accept-Encoding: gzip;q=0, *\r\n", b"HTTP/1.0", b"HTTP/9.9"),
    *(b"Accept: application/openmetrics-text;version=9", b"Host: y\r\n", b": ", b"A" * 9000, b"\xff", b"\x1b]0;x\x07"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"Authorization: Basic !!!\r\n", b"If-Modified-Since: x\r\n"),
)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")


def make(random: Random) -> bytes:
    """A request."""
    path, method = _PATHS[int(random.random() * len(_PATHS))], _METHODS[int(random.random() * len(_METHODS))]
    body = b"a=b" if method in (b"POST", b"PUT") else b""
    head = b"%b %b HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\nConnection: close\r\n" % (method, path)
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return changed(head + length + b"\r\n" + body, random, _WORDS)


def run(seed: int, inputs: int, deadline: float) -> Done:
    """So many requests, until ``deadline`` (monotonic)."""
    random = Random(f"{seed}/{NAME}")
    done = Done()
    port = free_port()
    kubelet = Kubelet(lambda: EMPTY_LIST)
    with tempfile.TemporaryDirectory(prefix="podtally-attack-") as folder:
        arguments = ("replay", str(_RECORDING), "--loop", "--listen", f"127.0.0.1:{port}")
        program = Program(*arguments, log=Path(folder) / "log")
        node = Served(program, port, kubelet, None, {})
        try:
            if not wait_for(node.probe, 60):
                raise NotUp(f"podtally does not come up: {program.logged()[-2000:]}")
            while done.inputs < inputs and time.monotonic() < deadline and not done.escapes:
                requests = [make(random) for _ in range(min(_AT_ONCE, inputs - done.inputs))]
                statuses = ask(node, requests)
                done.inputs += len(requests)
                done.taken += sum(status == 200 for status in statuses)
                why = wrong(node, statuses)
                if why is not None:
                    done.escapes.append(_escape(node, seed, requests, why))
        finally:
            program.end()
            kubelet.close()
    return done


def wrong(node: Served, statuses: Sequence[int | None]) -> str | None:
    """What must not be of these answers; ``None`` if all is well."""
    bad = Counter(status for status in statuses if status is not None and status >= 500 and status != 503)
    if bad:
        return f"answers {dict(bad)}"
    return None if node.probe() else "the probe is not answered afterwards"


def ask(node: Served, requests: Sequence[bytes]) -> list[int | None]:
    """Send each on a connection of its own; the statuses of the first answers, ``None`` where there was none."""
    clients: list[socket.socket] = []
    for request in requests:
        client = node.connect()
        clients.append(client)
        with suppress(OSError):
            client.sendall(request)
    statuses: list[int | None] = [None] * len(clients)
    waiting = {client.fileno(): place for place, client in enumerate(clients)}
    poll = select.poll()
    for number in waiting:
        poll.register(number, select.POLLIN)
    while waiting:
        ready = poll.poll(_WAIT_SECONDS * 1000)
        if not ready:
            break
        for number, _ in ready:
            place = waiting.pop(number)
            poll.unregister(number)
            with suppress(OSError):
                found = _STATUS.match(clients[place].recv(64))
                statuses[place] = int(found[1]) if found is not None else None
    for client in clients:
        client.close()
    return statuses


def _escape(node: Served, seed: int, requests: Sequence[bytes], why: str) -> Escape:
    """The one request that shows it, if one does alone."""
    alone = []
    for request in requests if node.program.alive else ():
        with suppress(OSError, http.client.HTTPException):
            if wrong(node, ask(node, [request])) is not None:
                alone.append(request)
                break
    kept = alone or requests
    return Escape(NAME, seed, 0, why, tuple(Sample("a request", (request,)) for request in kept))
