"""Connections of clients: how many there are, and which one makes room."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from collector.server import connections as connections_module
from collector.server.access import Access
from collector.server.connections import Connections, Site
from collector.server.watch import WatchedConfig
from tests.guards import PAIR, client_tls, guarded, issue, status_of, write_config, write_pair
from tests.helpers import free_port, until

MOST = 4

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Bounded:
    """A server of so many connections, whose ``/slow`` answers when it is let."""

    def __init__(self, most: int) -> None:
        self.connections = Connections(most)
        self.waiting = 0
        self.released = asyncio.Event()
        self.port = 0
        self.clients: list[Client] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/slow":
            self.waiting += 1
            await self.released.wait()
        if request.path == "/large":
            return web.Response(body=bytes(8 << 20))
        return web.Response(text="ok")

    async def connect(self, address: str = "127.0.0.1") -> Client:
        """A further client, of that address."""
        self.clients.append(await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0)))
        return self.clients[-1]


@asynccontextmanager
async def bounded(most: int = MOST, host: str | None = "127.0.0.1", port: int = 0) -> AsyncIterator[Bounded]:
    """Serve."""
    server = Bounded(most)
    application = web.Application(middlewares=[server.connections.middleware()])
    application.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, lingering_time=0.05)
    await runner.setup()
    try:
        site = Site(runner, server.connections, host, port, None)
        await site.start()
        server.port = site.port
        yield server
    finally:
        for _, writer in server.clients:
            writer.transport.abort()
        await runner.cleanup()


def send(client: Client, path: str) -> None:
    """Ask."""
    client[1].write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def answer(client: Client) -> bytes:
    """The status line of the next answer, or nothing if the connection was closed."""
    try:
        head = await client[0].readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        await client[0].readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head.split(b"\r\n")[0]


async def ask(client: Client, path: str = "/") -> bytes:
    """Ask, and read the answer."""
    try:
        send(client, path)
    except ConnectionError:
        return b""
    return await answer(client)


async def ending(client: Client) -> bytes:
    """What comes until the connection ends."""
    try:
        return await client[0].read()
    except ConnectionError:
        return b""


OK = b"HTTP/1.1 200 OK"


def test_one_more_is_answered_and_the_idlest_goes(caplog: pytest.LogCaptureFixture) -> None:
    """However many come, each is answered, and no more than the bound stay: those used last. It is said once."""

    async def run() -> tuple[list[bytes], list[bytes], int]:
        async with bounded() as server:
            clients: list[Client] = []
            answers = []
            for _ in range(3 * MOST):
                clients.append(await server.connect())
                answers.append(await ask(clients[-1]))
            again = [await ask(client) for client in clients]
            return answers, again, len(server.connections)

    with caplog.at_level(logging.WARNING):
        answers, again, left = asyncio.run(run())

    assert answers == [OK] * (3 * MOST)
    assert again == [b""] * (2 * MOST) + [OK] * MOST
    assert left == MOST
    assert caplog.messages == [
        "there are more than 4 connections: those that are idle for longest are closed (told once)"
    ]


def test_use_keeps_a_connection() -> None:
    """The idlest is the one whose last answer is the longest ago, not the oldest."""

    async def run() -> list[bytes]:
        async with bounded(2) as server:
            first, second = await server.connect(), await server.connect()
            await ask(second)
            await ask(first)
            third = await server.connect()
            await ask(third)
            return [await ask(first), await ask(second), await ask(third)]

    assert asyncio.run(run()) == [OK, b"", OK]


def test_who_says_nothing_goes_before_who_asks() -> None:
    """Clients that never ask make room for one that does; one that is being answered keeps its connection."""

    async def run() -> tuple[bytes, list[bytes]]:
        async with bounded(3) as server:
            slow = await server.connect()
            send(slow, "/slow")
            await until(lambda: server.waiting == 1)
            silent = [await server.connect() for _ in range(8)]
            probe = await ask(await server.connect())
            server.released.set()
            return probe, [await answer(slow), await ask(silent[0])]

    assert asyncio.run(run()) == (OK, [OK, b""])


def test_an_answer_that_is_on_its_way_is_not_idle() -> None:
    """A client that reads slowly keeps its connection while there are idle ones."""

    async def run() -> bytes:
        async with bounded(3) as server:
            reading = await server.connect()
            send(reading, "/large")
            # The headers are there, and most of the rest is not read.
            await reading[0].readuntil(b"\r\n\r\n")
            for _ in range(8):
                await ask(await server.connect())
            return await reading[0].readexactly(8 << 20)

    assert len(asyncio.run(run())) == 8 << 20


def test_where_all_are_answered_the_longest_goes() -> None:
    """A probe is answered even where nobody is idle."""

    async def run() -> tuple[bytes, bytes]:
        async with bounded(2) as server:
            slow = [await server.connect() for _ in range(2)]
            for number, client in enumerate(slow, 1):
                send(client, "/slow")
                await until(lambda number=number: server.waiting == number)  # type: ignore[misc]
            probe = await ask(await server.connect())
            return probe, await answer(slow[0])

    assert asyncio.run(run()) == (OK, b"")


# --- who makes room -------------------------------------------------------------------------------------------------


def test_strangers_push_out_no_more_than_half_of_those_who_asked() -> None:
    """Silent connections beyond half of the room make room for each other: idle scrapers keep theirs."""

    async def run() -> tuple[list[bytes], dict[str, int]]:
        async with bounded(4) as server:
            scrapers = [await server.connect() for _ in range(4)]
            for client in scrapers:
                await ask(client)
            for _ in range(9):
                await server.connect()
            probe = await ask(await server.connect())
            return [probe, *[await ask(client) for client in scrapers]], dict(server.connections.ended)

    answers, ended = asyncio.run(run())

    assert answers == [OK, b"", b"", OK, OK]
    assert ended == {"answer": 0, "handshake": 0, "request": 0, "room": 10}


def test_strangers_of_the_address_with_the_most_go_first() -> None:
    """One that has come before them and has not asked yet keeps its place beside any number from elsewhere."""

    async def run() -> tuple[bytes, bytes]:
        async with bounded(4) as server:
            fresh = await server.connect("127.0.0.2")
            flood = [await server.connect("127.0.0.3") for _ in range(20)]
            return await ask(fresh), await ending(flood[0])

    assert asyncio.run(run()) == (OK, b"")


# --- who takes too long ---------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes a moment."""
    for name in ("_REQUEST_SECONDS", "_ANSWER_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(connections_module, name, 0.05)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [(False, b""), (False, b"GET / HTTP/1.1\r\nHost: x\r\n"), (True, b"G"), (True, b"\r\n")],
)
@pytest.mark.usefixtures("impatient")
def test_a_request_that_is_not_whole_in_time_is_not_waited_for(asked: bool, sent: bytes) -> None:
    """Neither the first of a connection, begun or not, nor a later one that is begun."""

    async def run() -> tuple[bytes, dict[str, int]]:
        async with bounded() as server:
            client = await server.connect()
            if asked:
                await ask(client)
            client[1].write(sent)
            return await ending(client), dict(server.connections.ended)

    assert asyncio.run(run()) == (b"", {"answer": 0, "handshake": 0, "request": 1, "room": 0})


@pytest.mark.usefixtures("impatient")
def test_who_is_idle_between_requests_is_not_hurried() -> None:
    """Nor whose answer takes its time."""

    async def run() -> tuple[bytes, bytes]:
        async with bounded() as server:
            idle, slow, hurried = await server.connect(), await server.connect(), await server.connect()
            await ask(idle)
            send(slow, "/slow")
            # Somebody is ended meanwhile, who came last.
            assert await ending(hurried) == b""
            server.released.set()
            return await ask(idle), await answer(slow)

    assert asyncio.run(run()) == (OK, OK)


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_is_not_taken_is_ended() -> None:
    """A client that reads nothing loses its connection, and its answer's bytes are let go of."""

    async def run() -> tuple[dict[str, int], bool]:
        async with bounded() as server:
            client = await server.connect()
            client[1].transport.pause_reading()  # type: ignore[attr-defined]
            send(client, "/large")
            await until(lambda: server.connections.ended["answer"] == 1)
            client[1].transport.resume_reading()  # type: ignore[attr-defined]
            return dict(server.connections.ended), len(await ending(client)) < 8 << 20

    assert asyncio.run(run()) == ({"answer": 1, "handshake": 0, "request": 0, "room": 0}, True)


# --- what a client sends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"x: y\r\n", b"x: " + b"y" * 8000 + b"\r\n"], ids=["many", "long"])
def test_headers_are_bounded(line: bytes) -> None:
    """By what they take: a request that goes on is ended before it is whole."""

    async def run() -> tuple[bytes, dict[str, int]]:
        async with bounded() as server:
            client = await server.connect()
            client[1].write(b"GET / HTTP/1.1\r\n" + line * (200_000 // len(line)))
            return await ending(client), dict(server.connections.ended)

    assert asyncio.run(run()) == (b"", {"answer": 0, "handshake": 0, "request": 1, "room": 0})


def test_nothing_piles_up_behind_an_answer() -> None:
    """Who asks for more while it is being answered gets that answer, and no other."""

    async def run() -> tuple[bytes, int]:
        async with bounded() as server:
            client = await server.connect()
            send(client, "/slow")
            await until(lambda: server.waiting == 1)
            for _ in range(100):
                send(client, "/slow")
                await client[1].drain()
            server.released.set()
            return await ending(client), server.waiting

    text, waiting = asyncio.run(run())

    assert (text.count(OK), waiting) == (1, 1)


def test_a_body_that_nobody_wants_is_not_waited_for() -> None:
    """The answer comes, and the connection ends after a moment."""

    async def run() -> bytes:
        async with bounded() as server:
            client = await server.connect()
            client[1].write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
            return await ending(client)

    assert asyncio.run(run()).startswith(OK)


@pytest.mark.parametrize("path", ["/", "/slow", "/large"])
def test_a_client_that_closes_its_half_gets_its_answer(path: str) -> None:
    """All of it, and the connection ends then."""

    async def run() -> bytes:
        async with bounded() as server:
            client = await server.connect()
            send(client, path)
            client[1].write_eof()
            if path == "/slow":
                await until(lambda: server.waiting == 1)
                server.released.set()
            return await ending(client)

    head, _, body = asyncio.run(run()).partition(b"\r\n\r\n")

    assert (head.startswith(OK), len(body)) == (True, 8 << 20 if path == "/large" else 2)


def test_a_client_that_closes_its_half_and_asks_for_nothing_is_let_go_of() -> None:
    """There is nothing to wait for."""

    async def run() -> bytes:
        async with bounded() as server:
            fresh, idle = await server.connect(), await server.connect()
            await ask(idle)
            for client in (fresh, idle):
                client[1].write_eof()
            return await ending(fresh) + await ending(idle)

    assert asyncio.run(run()) == b""


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["silent", "plain"])
def test_a_failed_handshake_leaves_no_buffer_behind(tmp_path: Path, said: bytes) -> None:
    """It goes with the connection, though Python collects no cycles; and the connection counts no more."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, PAIR))

    def buffers() -> int:
        return sum(isinstance(one, SSLProtocol) for one in gc.get_objects())

    async def run() -> tuple[int, int, int]:
        async with guarded(lambda account: Access(config, None, account)) as (url, server):
            before = buffers()
            for number in range(1, 6):
                with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
                    client.sendall(said)
                    await until(lambda: bool(said) or len(server.connections) == 1)
                await until(lambda number=number: server.connections.ended["handshake"] == number)  # type: ignore[misc]
            return len(server.connections), server.connections.ended["handshake"], buffers() - before

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run()) == (0, 5, 0)
    finally:
        gc.enable()


def test_a_handshake_is_waited_for_but_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent connection ends by itself, and is counted."""
    monkeypatch.setattr(connections_module, "_HANDSHAKE_SECONDS", 0.05)
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, PAIR))

    async def run() -> tuple[int, int]:
        async with guarded(lambda account: Access(config, None, account)) as (url, server):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            assert await ending((reader, writer)) == b""
            writer.close()
            await until(lambda: not len(server.connections))
            return len(server.connections), server.connections.ended["handshake"]

    assert asyncio.run(run()) == (0, 1)


def test_silent_handshakes_do_not_lock_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that never shake hands count, and make room like any other."""
    monkeypatch.setattr(connections_module, "_MOST_WITH_TLS", 3)
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, PAIR))

    async def run() -> tuple[int, int, list[bytes]]:
        async with guarded(lambda account: Access(config, None, account)) as (url, server):
            port = int(url.rpartition(":")[2])
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(9)]
            status = await status_of(f"{url}/healthz", tls=client_tls(ca))
            ended = []
            for reader, _ in silent[:5]:
                try:
                    ended.append(await reader.read())
                except ConnectionError:
                    ended.append(b"")
            for _, writer in silent:
                writer.close()
            return status, len(server.connections), ended

    status, left, ended = asyncio.run(run())

    assert (status, left <= 3, ended) == (200, True, [b""] * 5)


def test_out_of_descriptors_idle_ones_make_room(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where accepting fails, an idle connection is closed, and the new one is answered; it is said once."""
    real = socket.socket.accept
    failures = 3

    def accept(listening: socket.socket) -> tuple[socket.socket, object]:
        nonlocal failures
        if len(server_of[0].connections) > 1 and failures:
            failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(listening)

    server_of: list[Bounded] = []

    async def run() -> list[bytes]:
        async with bounded(10) as server:
            server_of.append(server)
            clients = [await server.connect() for _ in range(3)]
            answers = [await ask(client) for client in clients]
            monkeypatch.setattr(socket.socket, "accept", accept)
            return [*answers, await ask(await server.connect()), await ask(clients[0])]

    with caplog.at_level(logging.WARNING):
        answers = asyncio.run(run())

    assert answers == [OK, OK, OK, OK, b""]
    assert caplog.messages == [
        "a connection cannot be accepted: Too many open files; idle ones are closed for it (told once)"
    ]


def test_out_of_descriptors_with_nobody_to_go_it_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no connection to close, accepting waits a moment and goes on."""
    monkeypatch.setattr(connections_module, "_PAUSE_SECONDS", 0.01)
    real = socket.socket.accept
    failures = [errno.EMFILE, errno.ENFILE]

    def accept(listening: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise OSError(failures.pop(), "no")
        return real(listening)

    async def run() -> bytes:
        async with bounded() as server:
            monkeypatch.setattr(socket.socket, "accept", accept)
            return await ask(await server.connect())

    assert asyncio.run(run()) == OK


def test_a_host_that_is_every_address_is_listened_on() -> None:
    """Without a host both kinds of addresses are, where the machine has them."""

    async def run() -> bytes:
        async with bounded(host=None, port=free_port()) as server:
            return await ask(await server.connect())

    assert asyncio.run(run()) == OK
