"""Connections of clients: how many there are at the most, how long each may take for what, and which one goes when
there is one too many.

Each holds a descriptor, of which the cgroups need theirs, and memory. asyncio's own ``accept`` takes all that come, and
where no descriptor is left it logs a page for each that it cannot take. So connections are accepted here, one at a
time, and every one is taken in: when there are as many as there may be, another makes room. Strangers, which have not
asked for anything yet and may be about to, hold half of the room at the most; of them the oldest goes of the address
that has the most. So silent connections push out each other, but neither a probe that is shaking hands nor a scraper
that is idle.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from typing import Any, Final, Literal, get_args

from aiohttp import StreamReader, web
from aiohttp.typedefs import Handler, Middleware

from collector.garbage import Left
from collector.server.headers import put_on_bad_requests

log = logging.getLogger(__name__)

Ending = Literal["answer", "handshake", "request", "room"]
"""Why a connection was closed on its client: it did not take its answer, shake hands or ask in time, or made room."""

ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)

_QUEUE: Final = 128
"""How many the kernel keeps until they are accepted."""

_PAUSE_SECONDS: Final = 1.0
"""When to accept again where it fails and there is nobody to make room."""

_MOST_WITH_TLS: Final = 64
"""asyncio keeps a buffer of 256 KiB for each TLS connection: idle ones could otherwise take the pod's memory."""

_HANDSHAKE_SECONDS: Final = 5.0
"""A client that has not shaken hands by then is none; nor is its farewell waited for longer."""

_REQUEST_SECONDS: Final = 10.0
"""From a connection's beginning, or the first byte of a further request, to the end of the request's headers."""

_ANSWER_SECONDS: Final = 15.0
"""How long a client may leave what is on its way to it where it is: some 100 KiB, or the rest of an answer."""

_LOOK_SECONDS: Final = 1.0
"""How often it is looked who takes too long."""

_MOST_REQUEST_COST: Final = 64 << 10
_LINE_COST: Final = 512
"""What a connection may send before it is answered, in bytes, and what the objects of a header's line count as. A token
takes 8 KiB at the most, and a browser sends some twenty lines."""

_LEFT_BYTES: Final = 16 << 10
"""What may be left of a connection in cycles of aiohttp and asyncio, beside what it has sent."""

_SEND_BYTES: Final = 128 << 10
_RECEIVE_BYTES: Final = 32 << 10
"""Buffers of the kernel, which doubles both: it would let them grow to megabytes, which count as the pod's memory."""

_UNSENT_BYTES: Final = 64 << 10
"""From when on an answer waits for the client, with TLS too, where asyncio takes eight times as much."""

IDLE_SECONDS: Final = 150.0
"""How long a connection is kept between requests: scrapes are closer together. aiohttp keeps it."""

LINGER_SECONDS: Final = 2.0
"""How long the body of a request is read that nobody wants, so that its sender reads the answer. aiohttp keeps it."""


class _Connection(asyncio.Protocol):
    """One of them: hands all that happens on to aiohttp, and knows since when it has waited for what."""

    def __init__(self, handler: web.RequestHandler, peer: str, connections: Connections) -> None:
        self.handler = handler
        self.peer = peer
        """The client's address, without its port."""
        self.asked = 0
        """Requests that are being answered."""
        self.stranger = True
        """It has not asked for anything yet."""
        self.task: asyncio.Task[None] | None = None
        """What takes it in, a handshake of TLS mostly."""
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.largest_bytes = 0
        """The most that has come at once: the exception of a request that cannot be read holds it."""
        self._cost = 0
        """Of what has come since the last request began."""
        self._body: StreamReader | None = None
        """Of the last request."""
        self._half_closed = False
        self._asking_since: float | None = None
        self._paused_since: float | None = None
        self._rested_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._asking_since = self._loop.time()
        transport.set_write_buffer_limits(_UNSENT_BYTES)
        self.handler.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.gone(self)
        self._transport = self._body = None
        self.handler.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.largest_bytes = max(self.largest_bytes, len(data))
        if self._body is None or self._body.is_eof():
            if self.asked:
                # It asks for more before it has its answer: that one is the last, and nothing piles up behind it.
                self.handler.close()
                return
            if self._asking_since is None:
                self._asking_since = self._loop.time()
            self._cost += len(data) + _LINE_COST * data.count(b"\n")
            if self._cost > _MOST_REQUEST_COST:
                self._connections.end(self, "request")
                return
        self.handler.data_received(data)

    def eof_received(self) -> bool:
        """The client sends no more. What it has asked for it gets, but with TLS, where asyncio cannot."""
        assert self._transport is not None
        self._half_closed = bool(self.asked or self._cost) and self._transport.get_extra_info("sslcontext") is None
        return self._half_closed

    def pause_writing(self) -> None:
        self._paused_since = self._loop.time()
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self._paused_since = None
        self.handler.resume_writing()

    def begin(self, body: StreamReader) -> None:
        """A request has come, and is being answered."""
        self.asked += 1
        self.stranger = False
        self._cost = 0
        self._body = body
        self._asking_since = None

    def rest(self) -> None:
        """It has been answered, but for what is on its way."""
        self.asked -= 1
        self._rested_since = self._loop.time()
        if self._half_closed:
            self.handler.close()

    @property
    def made(self) -> bool:
        """True once it has been handed to aiohttp."""
        return self._transport is not None

    @property
    def _unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    @property
    def idle(self) -> bool:
        """True if nothing is being answered, nor on its way to the client."""
        return not self.asked and not self._unsent

    def overdue(self, now: float) -> Ending | None:
        """What it has taken too long for. asyncio ends a handshake, and aiohttp what is idle between requests."""
        if self._asking_since is not None and now - self._asking_since > _REQUEST_SECONDS:
            return "request"
        since = self._paused_since
        if since is None and not self.asked and self._unsent:
            since = self._rested_since
        return "answer" if since is not None and now - since > _ANSWER_SECONDS else None

    def abort(self) -> None:
        """Close it now."""
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()


class Connections:
    """Those that are open, the one first that was used last the longest ago."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.ended: Counter[str] = Counter(dict.fromkeys(ENDINGS, 0))
        """Those that were closed on their clients, by why."""
        self._open: dict[web.RequestHandler, _Connection] = {}
        self._left = Left()
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._open)

    def middleware(self) -> Middleware:
        """For the application: tells which connections are being answered on."""

        @web.middleware
        async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
            connection = self._open.get(request.protocol)
            if connection is None:
                return await handler(request)
            connection.begin(request.content)
            try:
                return await handler(request)
            finally:
                connection.rest()
                if self._open.pop(request.protocol, None) is not None:
                    self._open[request.protocol] = connection

        return answering

    def add(self, handler: web.RequestHandler, peer: str) -> _Connection:
        """Take one in; another goes if there are as many as there may be."""
        if len(self._open) >= self.most:
            self.tell(f"there are more than {self.most} connections: those that are idle for longest are closed")
            self.part()
        connection = self._open[handler] = _Connection(handler, peer, self)
        return connection

    def part(self) -> bool:
        """Close the one that is missed the least; false if there is none."""
        chosen = self._least_missed()
        if chosen is None:
            return False
        self.end(chosen, "room")
        return True

    def _least_missed(self) -> _Connection | None:
        """A stranger if, with the one that comes, they have more than half of the room, else the one that is idle for
        longest, else a stranger, else the one that is answered for longest.
        """
        strangers = [one for one in self._open.values() if one.stranger]
        known = next((one for one in self._open.values() if one.idle and not one.stranger), None)
        if strangers and (known is None or 2 * (len(strangers) + 1) > self.most):
            of_peer = Counter(one.peer for one in strangers)
            most = max(of_peer.values())
            return next(one for one in strangers if of_peer[one.peer] == most)
        return known or next(iter(self._open.values()), None)

    def end_overdue(self, now: float) -> None:
        """Close those that take too long."""
        for one in list(self._open.values()):
            why = one.overdue(now)
            if why is not None:
                self.end(one, why)

    def end(self, connection: _Connection, why: Ending) -> None:
        """Close one now, and say why."""
        self.gone(connection, why)
        connection.abort()

    def gone(self, connection: _Connection, why: Ending | None = None) -> None:
        """One counts no more. ``why`` it was ended, unless it has ended by itself."""
        if self._open.pop(connection.handler, None) is None:
            return
        if why is not None:
            self.ended[why] += 1
        self._left.add(_LEFT_BYTES + connection.largest_bytes)

    def tell(self, what: str) -> None:
        """Log it, the first time."""
        if what not in self._told:
            self._told.add(what)
            log.warning("%s (told once)", what)


class Site(web.BaseSite):
    """Listens, and accepts as :class:`Connections` has it."""

    def __init__(
        self, runner: web.AppRunner, connections: Connections, host: str | None, port: int, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(runner, ssl_context=tls)
        self._connections = connections
        self._host = host
        self._asked_port = port
        self._listening: list[socket.socket] = []
        self._looking: asyncio.TimerHandle | None = None
        if tls is not None:
            connections.most = min(connections.most, _MOST_WITH_TLS)

    @property
    def name(self) -> str:
        """Where it listens."""
        return f"{self._host or '*'}:{self.port}"

    @property
    def port(self) -> int:
        """The port; the one that was chosen, if any would do."""
        return int(self._listening[0].getsockname()[1]) if self._listening else self._asked_port

    async def start(self) -> None:
        """Listen. Raises :class:`OSError`."""
        await super().start()
        assert isinstance(self._runner, web.AppRunner)
        put_on_bad_requests(self._runner)
        loop = asyncio.get_running_loop()
        # asyncio knows how a host becomes sockets; it does not come to accept from them.
        bound = await loop.create_server(asyncio.Protocol, self._host, self._asked_port, start_serving=False)
        self._listening = [one.dup() for one in bound.sockets]
        bound.close()
        for listening in self._listening:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            listening.listen(_QUEUE)
            loop.add_reader(listening, self._accept, listening)
        self._look()

    async def stop(self) -> None:
        """Listen no longer."""
        loop = asyncio.get_running_loop()
        while self._listening:
            listening = self._listening.pop()
            loop.remove_reader(listening)
            listening.close()
        if self._looking is not None:
            self._looking.cancel()
        await super().stop()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._connections.end_overdue(loop.time())
        self._looking = loop.call_later(_LOOK_SECONDS, self._look)

    def _accept(self, listening: socket.socket) -> None:
        try:
            accepted, address = listening.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._connections.tell(f"a connection cannot be accepted: {error.strerror}; idle ones are closed for it")
            if not self._connections.part():
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(_PAUSE_SECONDS, self._resume, listening)
            return
        accepted.setblocking(False)
        server = self._runner.server
        assert server is not None
        connection = self._connections.add(server(), str(address[0]))
        connection.task = asyncio.get_running_loop().create_task(self._take(connection, accepted))
        connection.task.add_done_callback(lambda _: self._taken(connection, accepted))

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def _take(self, connection: _Connection, accepted: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._ssl_context is not None:
            tls = {
                "ssl": self._ssl_context,
                "ssl_handshake_timeout": _HANDSHAKE_SECONDS,
                "ssl_shutdown_timeout": _HANDSHAKE_SECONDS,
            }
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted, **tls)
        except OSError as error:
            log.debug("a connection has not come about: %s", error)
            # Its frames hold asyncio's buffers for TLS, and what waits for the handshake holds the error.
            error.__traceback__ = None

    def _taken(self, connection: _Connection, accepted: socket.socket) -> None:
        """It has come about, or has not, and then nobody else lets go of it."""
        connection.task = None
        if connection.made:
            return
        self._connections.gone(connection, "handshake")
        accepted.close()
