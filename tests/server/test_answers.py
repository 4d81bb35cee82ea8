"""Answers: one page for all who ask, sent as each client takes it, and what is held of it by clients that do not."""

from __future__ import annotations

import asyncio
import gc
import gzip
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from collector.server import answers as answers_module
from collector.server.answers import Answers, Form, refusal
from tests.helpers import until

PART = "a line of a page\n" * 4096
PAGE = PART * 16
"""More than the buffers of both ends take."""


class Pages:
    """A server of pages that a test changes: ``/PATH`` is the page of that path and of this stamp."""

    def __init__(self, most: int) -> None:
        self.ended: Counter[str] = Counter()
        self.answers = Answers(self.ended, most)
        self.stamp = 0
        self.text = PAGE
        self.tail = ""
        self.made: list[str] = []
        self.port = 0

    def texts(self, path: str) -> Iterator[str]:
        """A page in two pieces."""
        self.made.append(path)
        yield f"{path} {self.stamp}\n"
        yield self.text

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        answer = self.answers.admit(request)
        if answer is None:
            return refusal()
        with answer:
            packed = "gzip" in request.headers.get("Accept-Encoding", "")
            answer.take(Form(self.stamp, request.path, False, packed), lambda: self.texts(request.path))
            return await answer.send("text/plain", self.tail)

    async def ask(self, path: str = "/page", *headers: str) -> Client:
        """Ask, and read nothing."""
        reader, writer = await asyncio.open_connection(sock=self.socket(), limit=1024)
        lines = (f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *headers)
        writer.write("\r\n".join((*lines, "", "")).encode())
        return reader, writer

    def socket(self) -> socket.socket:
        """Connected, with a small buffer."""
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        connected.connect(("127.0.0.1", self.port))
        return connected

    @property
    def kept_bytes(self) -> int:
        """What is alive of all pages."""
        return sum(page.size_bytes for page in self.answers.pages.alive)


Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def pages(most: int = 40) -> AsyncIterator[Pages]:
    """Serve."""
    server = Pages(most)
    application = web.Application()
    application.router.add_get("/{path:.*}", server.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    try:
        await web.SockSite(runner, listening).start()
        server.port = listening.getsockname()[1]
        yield server
    finally:
        await runner.cleanup()


async def read(client: Client) -> tuple[bytes, bytes]:
    """Headers and body of an answer, as far as they come."""
    try:
        head = await client[0].readuntil(b"\r\n\r\n")
        body = b""
        while chunk := await client[0].read(1 << 20):
            body += chunk
    except ConnectionError:
        body += b"(cut)"
    finally:
        client[1].close()
    return head, body


def status(head: bytes) -> int:
    """Of an answer."""
    return int(head.split()[1])


# --- one page -------------------------------------------------------------------------------------------------------


def test_a_page_is_made_once_for_all_who_ask() -> None:
    """While one of them has not its bytes, and a moment longer; each path and each encoding has its own."""

    async def run() -> tuple[list[str], set[bytes]]:
        async with pages() as server:
            clients = [await server.ask() for _ in range(4)]
            packed = await server.ask("/page", "Accept-Encoding: gzip")
            other = await server.ask("/other")
            bodies = {body for _, body in [await read(client) for client in clients]}
            assert gzip.decompress((await read(packed))[1]) in bodies
            await read(other)
            return server.made, bodies

    made, bodies = asyncio.run(run())

    assert made == ["/page", "/page", "/other"]
    assert bodies == {f"/page 0\n{PAGE}".encode()}


def test_a_page_is_of_one_tally() -> None:
    """A client that reads slowly gets the page that it began with, while others get the next one."""

    async def run() -> list[bytes]:
        async with pages() as server:
            slow = await server.ask()
            await until(lambda: server.made == ["/page"])
            server.stamp, server.text = 1, "new\n"
            fast = await read(await server.ask())
            return [body for _, body in (await read(slow), fast)]

    assert asyncio.run(run()) == [f"/page 0\n{PAGE}".encode(), b"/page 1\n" + b"new\n"]


def test_a_page_is_let_go_of_with_its_last_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a newer one, or a moment has passed."""
    monkeypatch.setattr(answers_module, "_KEPT_SECONDS", 0.0)

    async def run() -> None:
        async with pages() as server:
            slow = await server.ask()
            await until(lambda: server.made == ["/page"])
            assert server.kept_bytes > len(PAGE)
            await read(slow)
            await until(lambda: not server.answers.pages.alive)

    asyncio.run(run())


def test_an_old_page_that_nobody_reads_goes_when_a_new_one_is_made() -> None:
    """Not only when its time is over."""

    async def run() -> list[int]:
        async with pages() as server:
            for server.stamp in range(3):
                await read(await server.ask())
            return [page.form.stamp for page in server.answers.pages.alive]  # type: ignore[misc]

    assert asyncio.run(run()) == [2]


@pytest.mark.parametrize("tail", ["", "its own\n", "ä" * 300_000])
@pytest.mark.parametrize("text", ["", "a page\n", PAGE])
def test_a_packed_page_and_its_tail_are_one_stream(text: str, tail: str) -> None:
    """Of one member, as clients read no further; its length is told."""

    async def run() -> tuple[bytes, bytes]:
        async with pages() as server:
            server.text, server.tail = text, tail
            return await read(await server.ask("/page", "Accept-Encoding: gzip"))

    head, body = asyncio.run(run())
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    assert stream.decompress(body).decode() == f"/page 0\n{text}{tail}"
    assert (stream.eof, stream.unused_data) == (True, b"")
    assert f"content-length: {len(body)}".encode() in head.lower().split(b"\r\n")


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_one_answer_too_many_is_refused() -> None:
    """With 503 and when to ask again; whoever asks after an answer has ended gets one."""

    async def run() -> tuple[tuple[bytes, bytes], int, int]:
        async with pages(most=2) as server:
            slow = [await server.ask() for _ in range(2)]
            await until(lambda: len(server.answers.under_way) == 2)
            refused = await read(await server.ask())
            await read(slow[0])
            await until(lambda: len(server.answers.under_way) == 1)
            answered = await read(await server.ask())
            await read(slow[1])
            return refused, server.answers.refused, status(answered[0])

    refused, count, answered = asyncio.run(run())

    assert (status(refused[0]), refused[1]) == (503, b"too many answers are under way: ask again\n")
    assert b"Retry-After: 1\r\n" in refused[0]
    assert (count, answered) == (1, 200)


def test_who_takes_too_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one answer too many, the oldest is ended if no scraper waits so long."""
    monkeypatch.setattr(answers_module, "_PATIENCE_SECONDS", 0.0)

    async def run() -> tuple[int, list[bool], dict[str, int]]:
        async with pages(most=2) as server:
            slow = [await server.ask() for _ in range(2)]
            await until(lambda: len(server.answers.under_way) == 2)
            third = await server.ask()
            bodies = [(await read(client))[1] for client in (*slow, third)]
            return server.answers.refused, [len(body) > len(PAGE) for body in bodies], dict(server.ended)

    refused, whole, ended = asyncio.run(run())

    assert (refused, whole.count(True), ended) == (0, 2, {"answer": 1})
    assert whole[2]


def test_readers_of_the_oldest_page_are_ended_where_pages_are_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets the newest page, and what is alive of the others stays within the bound."""
    monkeypatch.setattr(answers_module, "MOST_PAGE_BYTES", 2 * len(PAGE) + 65536)

    async def run() -> tuple[list[bool], list[int], dict[str, int]]:
        async with pages() as server:
            slow = []
            for server.stamp in range(5):
                slow.append(await server.ask())
                await until(lambda: len(server.made) == server.stamp + 1)
            alive = [page.form.stamp for page in server.answers.pages.alive]
            bodies = [(await read(client))[1] for client in slow]
            return [len(body) > len(PAGE) for body in bodies], alive, dict(server.ended)  # type: ignore[return-value]

    assert asyncio.run(run()) == ([False] * 3 + [True] * 2, [3, 4], {"answer": 3})


def test_the_newest_page_is_served_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is of those that others keep alive."""
    monkeypatch.setattr(answers_module, "MOST_PAGE_BYTES", 1)

    async def run() -> int:
        async with pages() as server:
            return len((await read(await server.ask()))[1])

    assert asyncio.run(run()) == len(f"/page 0\n{PAGE}")


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_goes_away_leaves_nothing_behind(reset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page with bytes, though Python collects no cycles: neither by a farewell nor by a reset."""
    monkeypatch.setattr(answers_module, "_KEPT_SECONDS", 0.0)

    def with_bytes() -> int:
        return sum(isinstance(one, answers_module._Page) and bool(one.parts) for one in gc.get_objects())

    async def run() -> tuple[int, int]:
        elsewhere = with_bytes()
        async with pages() as server:
            leaving = server.socket()
            leaving.sendall(b"GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(server.answers.under_way) == 1)
            before = with_bytes() - elsewhere
            if reset:
                leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + bytes(7))
            leaving.close()
            await until(lambda: not server.answers.under_way and not server.answers.pages.alive)
            return before, with_bytes() - elsewhere

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run()) == (1, 0)
    finally:
        gc.enable()


def test_a_page_that_is_still_referred_to_holds_no_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Letting go frees the bytes, whatever keeps the page."""
    monkeypatch.setattr(answers_module, "_KEPT_SECONDS", 0.0)

    async def run() -> tuple[bool, bool]:
        async with pages() as server:
            slow = await server.ask()
            await until(lambda: bool(server.answers.pages.alive))
            kept = server.answers.pages.alive[0]
            before = bool(kept.parts)
            slow[1].transport.abort()
            await until(lambda: not server.answers.pages.alive)
            return before, bool(kept.parts)

    assert asyncio.run(run()) == (True, False)
