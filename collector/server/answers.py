"""Answers: one copy of a page for all who ask for it, sent in parts as each client takes them.

A page is of one tally, in one format and one encoding, and is made when the first client wants it. What is told anew
for each request, podtally's account of itself, is a tail behind it. Memory is bounded by what is alive of pages, not by
clients: a page is let go of when it is no longer the newest and its last reader has its bytes, and where slow readers
keep too many pages alive, those of the oldest one are ended. Bytes are let go of by hand: whatever still refers to an
answer that has failed, as an exception does, refers to no bytes.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from aiohttp import web

MOST_UNDER_WAY: Final = 40
"""Answers under way, as node_exporter has it. Each holds some 200 KiB: a part, and what the client has not taken."""

_PATIENCE_SECONDS: Final = 10.0
"""Prometheus' own limit for a scrape: an answer under way for longer makes room where there are too many."""

_RETRY_SECONDS: Final = 1
"""When it is worth asking again."""

MOST_PAGE_BYTES: Final = 18 << 20
"""Bytes of all pages alive, but for the newest: three of the largest of a node with 110 pods, or thirty packed ones."""

_KEPT_SECONDS: Final = 1.0
"""How long a page that nobody reads is kept for those who ask for the same."""

_PART_BYTES: Final = 96 << 10
"""Above the 64 KiB from which aiohttp waits for the client after each write, and from which the C library gives memory
back to the kernel as soon as it is free."""

_GZIP_LEVEL: Final = 1
"""A scrape is sent over the node's network once: more effort costs more CPU than it saves bytes."""

_GZIP_HEAD: Final = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"
"""RFC 1952: deflate, no name and no time, the fastest way, an unknown system."""


class Form(NamedTuple):
    """Which page: two that are asked for with the same one are the same bytes."""

    stamp: Hashable
    """Of the tally, and whatever else the page tells."""
    path: str
    openmetrics: bool
    packed: bool


class _Page:
    """A page in parts. Packed, it is a gzip stream that lacks its end, so that a tail can follow."""

    __slots__ = ("_crc", "_length", "form", "kept", "parts", "readers", "size_bytes")

    def __init__(self, form: Form, texts: Iterable[str]) -> None:
        self.form = form
        self.readers: dict[Answer, None] = {}
        self.kept = True
        """For those who may ask for the same."""
        self._crc = 0
        self._length = 0
        chunks = self._counted(texts)
        self.parts = list(_cut(_packed(chunks) if form.packed else chunks))
        self.size_bytes = sum(map(len, self.parts))

    def _counted(self, texts: Iterable[str]) -> Iterator[bytes]:
        for text in texts:
            chunk = text.encode()
            self._crc = zlib.crc32(chunk, self._crc)
            self._length += len(chunk)
            yield chunk

    def tail(self, text: str) -> bytes:
        """The end of an answer: a text, packed as the page is."""
        chunk = text.encode()
        if not self.form.packed:
            return chunk
        # The deflate stream goes on: what the page has of it ends on a byte, and no block looks back beyond its own.
        deflate = _deflate()
        crc, length = zlib.crc32(chunk, self._crc), (self._length + len(chunk)) & 0xFFFF_FFFF
        return deflate.compress(chunk) + deflate.flush() + crc.to_bytes(4, "little") + length.to_bytes(4, "little")

    def let_go(self) -> None:
        """Free the bytes, whoever refers to the page, and end those who still read it."""
        self.parts.clear()
        for reader in list(self.readers):
            reader.end()


def _deflate() -> zlib._Compress:
    return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)


def _packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream up to its last block; none of the chunks is needed longer than it takes to compress it."""
    deflate = _deflate()
    yield _GZIP_HEAD
    for chunk in chunks:
        yield deflate.compress(chunk)
    yield deflate.flush(zlib.Z_SYNC_FLUSH)


def _cut(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in parts of one size, and a rest."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= _PART_BYTES:
            yield bytes(buffer[:_PART_BYTES])
            del buffer[:_PART_BYTES]
    if buffer:
        yield bytes(buffer)


class _Pages:
    """Those that are alive, the oldest first."""

    def __init__(self) -> None:
        self.alive: list[_Page] = []

    def get(self, form: Form, texts: Callable[[], Iterable[str]]) -> _Page:
        """The page of that form, made if there is none."""
        for page in self.alive:
            if page.form == form:
                return page
        for old in [one for one in self.alive if one.form.stamp != form.stamp]:
            old.kept = False
            self.look(old)
        page = _Page(form, texts())
        self.alive.append(page)
        self._make_room()
        asyncio.get_running_loop().call_later(_KEPT_SECONDS, self._no_longer, page)
        return page

    def look(self, page: _Page) -> None:
        """Let go of a page that nobody reads nor may ask for."""
        if not page.readers and not page.kept and page in self.alive:
            self._let_go(page)

    def _no_longer(self, page: _Page) -> None:
        page.kept = False
        self.look(page)

    def _make_room(self) -> None:
        while len(self.alive) > 1 and sum(page.size_bytes for page in self.alive) > MOST_PAGE_BYTES:
            others = self.alive[:-1]
            self._let_go(next((page for page in others if not page.readers), others[0]))

    def _let_go(self, page: _Page) -> None:
        # No longer alive first: its readers leave it, and would look at it.
        self.alive.remove(page)
        page.let_go()


class Answer:
    """One under way. A context: what it holds of a page is let go of at its end."""

    def __init__(self, answers: Answers, request: web.Request) -> None:
        self.begun = time.monotonic()
        self._answers = answers
        self._request: web.Request | None = request
        self._page: _Page | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    @property
    def wanted(self) -> bool:
        """False if the client has gone, or was ended."""
        return self._request is not None and self._request.transport is not None

    def take(self, form: Form, texts: Callable[[], Iterable[str]]) -> None:
        """Take the page to send, made of the texts if nobody else has it."""
        page = self._page = self._answers.pages.get(form, texts)
        page.readers[self] = None

    async def send(self, content_type: str, tail: str = "") -> web.StreamResponse:
        """Send what was taken, and the tail. A client that goes away meanwhile is no error."""
        request, page = self._request, self._page
        headers = {"Content-Type": content_type, "Vary": "Accept-Encoding, Accept"}
        response = web.StreamResponse(headers=headers)
        if request is None or page is None:
            return response
        end = page.tail(tail)
        if page.form.packed:
            response.headers["Content-Encoding"] = "gzip"
        response.content_length = page.size_bytes + len(end)
        if request.method == "HEAD":
            return response
        try:
            await response.prepare(request)
            number = 0
            while number < len(page.parts):
                # By number: a name for a part would hold it where the frame outlives the answer.
                await response.write(page.parts[number])
                number += 1
                # A write that has failed is told in the loop's next round; and others have their turn.
                await asyncio.sleep(0)
            await response.write_eof(end)
        except ConnectionError as error:
            # Its frames hold the request, whose connection holds the error.
            error.__traceback__ = None
        return response

    def end(self) -> None:
        """End it where it is, and its connection: the client sees that the answer is not whole."""
        transport = self._request.transport if self._request is not None else None
        self._leave()
        if transport is not None:
            self._answers.ended["answer"] += 1
            transport.abort()

    def _leave(self) -> None:
        self._answers.under_way.pop(self, None)
        self._request = None
        page, self._page = self._page, None
        if page is not None:
            page.readers.pop(self, None)
            self._answers.pages.look(page)


class Answers:
    """Those under way, the oldest first, and the pages that they are of."""

    def __init__(self, ended: Counter[str], most: int = MOST_UNDER_WAY) -> None:
        """``ended`` counts connections that were ended, under ``answer``."""
        self.ended = ended
        self.most = most
        self.refused = 0
        """Requests that were one too many."""
        self.pages = _Pages()
        self.under_way: dict[Answer, None] = {}

    def admit(self, request: web.Request) -> Answer | None:
        """Begin one; ``None`` if there are as many as there may be, and nobody makes room."""
        if len(self.under_way) >= self.most:
            longest = next(iter(self.under_way))
            if time.monotonic() - longest.begun < _PATIENCE_SECONDS:
                self.refused += 1
                return None
            longest.end()
        answer = Answer(self, request)
        self.under_way[answer] = None
        return answer


def refusal() -> web.Response:
    """What a request is told that was one too many."""
    return web.Response(
        status=503, text="too many answers are under way: ask again\n", headers={"Retry-After": str(_RETRY_SECONDS)}
    )
