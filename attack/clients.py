"""What clients do to a program that serves: they ask and do not read, hold on, send what is no request, guess."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from attack.node import wait_for
from attack.under import Told, Under

_CADVISOR: Final = b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\n\r\n"
_HEALTHZ: Final = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_SMALL_BUFFER: Final = 2304
"""The least that Linux gives a socket: of an answer it takes next to nothing."""

_LOG_BYTES_AT_ONCE: Final = 64 << 10
_LOG_BYTES_A_SECOND: Final = 10_000
"""What strangers may make it log: a megabyte in 100 s."""


# --- that ask and do not read ---------------------------------------------------------------------------------------


def abort(under: Under) -> Told:
    """Scrapes that are given up after the first bytes of the answer, one after the other, as by a time-out."""
    told = Told()
    while told.done < under.count and not under.over:
        with under.node.connect(receive_bytes=4096) as client:
            client.sendall(_CADVISOR)
            client.recv(16)
        told.done += 1
    return told


def never_read(under: Under) -> Told:
    """Clients that ask and never read, all at one time."""
    told = Told()
    with _clients() as clients:
        while told.done < under.count and not under.over:
            clients.append(under.node.connect_with_tls(receive_bytes=_SMALL_BUFFER))
            clients[-1].sendall(_CADVISOR)
            told.done += 1
        _hold(under, 5.0)
    return told


def scrape_at_once(under: Under) -> Told:
    """Scrapers that read what they asked for, all at one time, without gzip."""
    statuses: Counter[str] = Counter()

    def scrape() -> None:
        try:
            statuses[str(under.node.get("/metrics/cadvisor", seconds=60)[0])] += 1
        except (OSError, http.client.HTTPException) as error:
            statuses[type(error).__name__] += 1

    _together(scrape, under.count)
    told = Told(statuses.total(), note=", ".join(f"{number} x {what}" for what, number in sorted(statuses.items())))
    if not statuses["200"] or statuses.keys() - {"200", "503"}:
        told.faults.append(f"answers: {told.note}")
    return told


def go_slow(under: Under) -> Told:
    """Clients of which half say nothing, and half send a header a byte at a time."""
    told = Told()
    with _clients() as clients:
        while told.done < under.count and not under.over:
            clients.append(under.node.connect())
            if told.done % 2:
                clients[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ")
            told.done += 1
        end = time.monotonic() + 10
        while time.monotonic() < end and not under.over:
            for client in clients[1::2]:
                with suppress(OSError):
                    client.sendall(b"a")
            time.sleep(0.5)
        told.note = f"{sum(map(_is_open, clients)):,} still open at the end"
    return told


def _is_open(client: socket.socket) -> bool:
    """Whether the program has not closed it."""
    client.setblocking(False)
    try:
        return bool(client.recv(1))
    except BlockingIOError:
        return True
    except OSError:
        return False


def half_close(under: Under) -> Told:
    """Clients that say that they will send no more, and wait for the answer."""
    told = Told()
    unanswered = 0
    while told.done < under.count and not under.over:
        with under.node.connect() as client:
            client.sendall(_HEALTHZ)
            client.shutdown(socket.SHUT_WR)
            try:
                unanswered += not client.recv(16).startswith(b"HTTP/1.1 200")
            except OSError:
                unanswered += 1
        told.done += 1
    if unanswered:
        told.faults.append(f"{unanswered} of {told.done} were not answered")
    return told


def hold_idle(under: Under) -> Told:
    """More idle clients than there are descriptors, at a limit of 1,000."""
    before = under.node.value(_EXHAUSTED)
    told = Told()
    with _clients() as clients:
        while told.done < under.count and not under.over:
            with suppress(OSError):
                clients.append(under.node.connect(seconds=2))
            told.done += 1
        _hold(under, 5.0)
    _told_of_log(under, told)
    exhausted = under.node.value(_EXHAUSTED) - before
    if exhausted:
        told.faults.append(f"{exhausted:.0f} reads found no descriptor")
    return told


_EXHAUSTED: Final = 'podtally_read_errors_total{reason="exhausted"'


# --- strangers ------------------------------------------------------------------------------------------------------

_MALFORMED: Final = (
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"F@O / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"\0" * 8000 + b"\r\n\r\n",
    b"GET http://[" + b"\xff" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://x:" + b"9" * 8000 + b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x1b]0;x\x07 \xff\r\n\r\n",
)


def flood_malformed(under: Under) -> Told:
    """Requests that are none, as fast as they are refused: what is logged of them is bounded."""
    told = Told()
    while not under.over:
        with suppress(OSError), under.node.connect(seconds=2) as client:
            client.sendall(_MALFORMED[told.done % len(_MALFORMED)])
            client.recv(4096)
        told.done += 1
    _told_of_log(under, told)
    return told


def _told_of_log(under: Under, told: Told) -> None:
    program = under.node.program
    seconds = time.monotonic() - under.watch.begun
    grown = program.log_bytes() - under.watch.log_bytes
    told.note = f"{grown:,} bytes of log in {seconds:.0f} s"
    if grown > _LOG_BYTES_AT_ONCE + _LOG_BYTES_A_SECOND * seconds:
        told.faults.append(f"the log grows by more than {_LOG_BYTES_A_SECOND:,} bytes a second")
    if b"\x1b" in program.log.read_bytes():
        told.faults.append("there are raw escapes in the log")


def hold_silent_tls(under: Under) -> Told:
    """Connections to the TLS port that never begin the handshake, made anew all the time, and then ones without TLS."""
    told = Told()
    while told.done < under.count and not under.over:
        with _clients() as clients:
            for _ in range(_SILENT):
                with suppress(OSError):
                    clients.append(under.node.connect(seconds=2))
                told.done += 1
            _hold(under, 4.0)
        for _ in range(_SILENT):
            with suppress(OSError), under.node.connect(seconds=2) as client:
                client.sendall(_HEALTHZ)
    return told


_SILENT: Final = 70
"""At one time: more than the 64 that may be open with TLS."""


def guess_passwords(under: Under) -> Told:
    """Forty guessers of a password, of two addresses. A scraper that was let in before is let in each time, and one that
    comes new, of an address of its own, while they guess.
    """
    told = _guess(under, lambda number: basic("prometheus", f"guess {number}"), basic("fresh", "right"))
    if "not once" in told.note:
        told.faults.append("a scraper that comes new is not let in")
    return told


def show_tokens(under: Under) -> Told:
    """The same with tokens that nobody has: the API server is asked about few of them."""
    kubelet, begun = under.node.kubelet, time.monotonic()
    before = kubelet.reviewed
    told = _guess(under, lambda number: f"Bearer unknown-{number}", None)
    seconds, reviewed = time.monotonic() - begun, kubelet.reviewed - before
    told.note += f"; {reviewed} reviews in {seconds:.0f} s"
    if reviewed > _REVIEWS_AT_ONCE + _REVIEWS_A_SECOND * seconds:
        told.faults.append(f"more than {_REVIEWS_A_SECOND} reviews a second")
    return told


def _guess(under: Under, word: Callable[[int], str], fresh: str | None) -> Told:
    """Guess, with a scraper beside it that was let in before and one that is ``fresh``."""
    stop = threading.Event()
    guesses: Counter[int] = Counter()

    def guess(guesser: int) -> None:
        address = f"127.0.0.{2 + guesser % 2}"
        while not stop.is_set():
            with suppress(OSError, http.client.HTTPException):
                authorization = word(guesser * 10**6 + guesses.total())
                guesses[under.node.get("/metrics/resource", address=address, Authorization=authorization)[0]] += 1

    guessers = [threading.Thread(target=guess, args=(number,)) for number in range(_GUESSERS)]
    for guesser in guessers:
        guesser.start()
    known: Counter[int] = Counter()
    came: Counter[int] = Counter()
    try:
        while not under.over:
            known[under.node.get("/metrics/resource")[0]] += 1
            if fresh is not None and not came[200]:
                came[under.node.get("/metrics/resource", address="127.0.0.9", Authorization=fresh)[0]] += 1
            time.sleep(0.3)
    finally:
        stop.set()
        for guesser in guessers:
            guesser.join()
    told = Told(guesses.total(), note=f"the scraper is let in {known[200]} times of {known.total()}")
    if fresh is not None:
        told.note += f", a new one {f'at time {came.total()}' if came[200] else f'not once of {came.total()}'}"
    if known.keys() != {200}:
        told.faults.append("a scraper that was let in before is not let in")
    if guesses[200]:
        told.faults.append("a guess was let in")
    return told


_REVIEWS_AT_ONCE: Final = 40
_REVIEWS_A_SECOND: Final = 10
_GUESSERS: Final = 40


def basic(user: str, password: str) -> str:
    """The header of a login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@contextmanager
def _clients() -> Iterator[list[socket.socket]]:
    """Connections, which are closed at the end."""
    clients: list[socket.socket] = []
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


def _hold(under: Under, seconds: float) -> None:
    """Wait while the clients hold on."""
    wait_for(lambda: under.over, seconds)


def _together(act: Callable[[], None], times: int) -> None:
    threads = [threading.Thread(target=act) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
