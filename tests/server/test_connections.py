"""Connections of clients: how many there are, and which one makes room."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
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

    async def connect(self) -> Client:
        """A further client."""
        self.clients.append(await asyncio.open_connection("127.0.0.1", self.port))
        return self.clients[-1]


@asynccontextmanager
async def bounded(most: int = MOST, host: str | None = "127.0.0.1", port: int = 0) -> AsyncIterator[Bounded]:
    """Serve."""
    server = Bounded(most)
    application = web.Application(middlewares=[server.connections.middleware()])
    application.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
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
    send(client, path)
    return await answer(client)


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
