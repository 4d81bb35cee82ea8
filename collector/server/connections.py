"""Connections of clients: how many there are at the most, and which one goes when there is one too many.

Each holds a descriptor, of which the cgroups need theirs, and memory. asyncio's own ``accept`` takes all that come, and
where no descriptor is left it logs a page for each that it cannot take. So connections are accepted here, one at a
time: when there are as many as there may be, the one that has been idle for longest makes room. A probe on a new
connection is answered, whoever holds the others.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from collector.server.headers import put_on_bad_requests

log = logging.getLogger(__name__)

_QUEUE: Final = 128
"""How many the kernel keeps until they are accepted."""

_PAUSE_SECONDS: Final = 1.0
"""When to accept again where it fails and there is nobody to make room."""

_MOST_WITH_TLS: Final = 64
"""asyncio keeps a buffer of 256 KiB for each TLS connection: idle ones could otherwise take the pod's memory."""

_HANDSHAKE_SECONDS: Final = 10.0
"""A client that has not shaken hands by then is none."""

_COLLECT_EVERY: Final = 16
"""A handshake that fails leaves asyncio's connection in a cycle, buffer and all, and Python's own collections are set
to be seldom (:func:`collector.loop.spare_collections`): a port probed without TLS would grow by that each time."""


class _Connection(asyncio.Protocol):
    """One of them: hands all that happens on to aiohttp, and tells when it has ended."""

    def __init__(self, handler: web.RequestHandler, ended: Callable[[_Connection], None]) -> None:
        self.handler = handler
        self.asked = 0
        """Requests that are being answered."""
        self.task: asyncio.Task[None] | None = None
        """What takes it in, a handshake of TLS mostly."""
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        # What comes often goes there straight away.
        self.data_received = handler.data_received  # type: ignore[method-assign]
        self.eof_received = handler.eof_received  # type: ignore[method-assign]
        self.pause_writing = handler.pause_writing  # type: ignore[method-assign]
        self.resume_writing = handler.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.handler.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended(self)
        self.handler.connection_lost(exc)

    @property
    def made(self) -> bool:
        """True once it has been handed to aiohttp."""
        return self._transport is not None

    @property
    def idle(self) -> bool:
        """True if nothing is being answered, nor on its way to the client."""
        return not self.asked and (self._transport is None or not self._transport.get_write_buffer_size())

    def end(self) -> None:
        """Close it now."""
        self._ended(self)
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()


class Connections:
    """Those that are open, the one first that was used last the longest ago."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._open: dict[web.RequestHandler, _Connection] = {}
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
            connection.asked += 1
            try:
                return await handler(request)
            finally:
                connection.asked -= 1
                if self._open.pop(request.protocol, None) is not None:
                    self._open[request.protocol] = connection

        return answering

    def add(self, handler: web.RequestHandler) -> _Connection:
        """Take one in; another goes if there are as many as there may be."""
        if len(self._open) >= self.most:
            self.tell(f"there are more than {self.most} connections: those that are idle for longest are closed")
            self.part()
        connection = self._open[handler] = _Connection(handler, self._ended)
        return connection

    def part(self) -> bool:
        """Close the one that is idle for longest, else the one that is answered for longest; false if there is none."""
        chosen = next((one for one in self._open.values() if one.idle), next(iter(self._open.values()), None))
        if chosen is None:
            return False
        chosen.end()
        return True

    def tell(self, what: str) -> None:
        """Log it, the first time."""
        if what not in self._told:
            self._told.add(what)
            log.warning("%s (told once)", what)

    def _ended(self, connection: _Connection) -> None:
        self._open.pop(connection.handler, None)


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
        self._failed_handshakes = 0
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
            listening.listen(_QUEUE)
            loop.add_reader(listening, self._accept, listening)

    async def stop(self) -> None:
        """Listen no longer."""
        loop = asyncio.get_running_loop()
        while self._listening:
            listening = self._listening.pop()
            loop.remove_reader(listening)
            listening.close()
        await super().stop()

    def _accept(self, listening: socket.socket) -> None:
        try:
            accepted, _ = listening.accept()
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
        connection = self._connections.add(server())
        connection.task = asyncio.get_running_loop().create_task(self._take(connection, accepted))
        connection.task.add_done_callback(lambda _: self._taken(connection, accepted))

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def _take(self, connection: _Connection, accepted: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._ssl_context is not None:
            tls = {"ssl": self._ssl_context, "ssl_handshake_timeout": _HANDSHAKE_SECONDS}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, accepted, **tls)
        except OSError as error:
            log.debug("a connection has not come about: %s", error)

    def _taken(self, connection: _Connection, accepted: socket.socket) -> None:
        """It has come about, or has not, and then nobody else lets go of it."""
        connection.task = None
        if connection.made:
            return
        connection.end()
        accepted.close()
        if self._ssl_context is not None:
            self._failed_handshakes += 1
            if self._failed_handshakes % _COLLECT_EVERY == 0:
                gc.collect()
