"""The HTTP server. Every answer is made of what the loop published last."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import logging
import os
import signal
import ssl
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from collector.demand import Demand
from collector.errors import UsageError
from collector.loop import Loop
from collector.metrics import resource
from collector.metrics.account import AccountCollector
from collector.metrics.cadvisor import CadvisorExposition
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import Tally
from collector.printable import printable
from collector.server import api, page
from collector.server.answers import Answers, Form, refusal
from collector.server.connections import IDLE_SECONDS, LINGER_SECONDS, Connections, Site
from collector.server.headers import name_server
from collector.server.paths import why_not

# Who serves everybody over plain HTTP does not pay for it.
if TYPE_CHECKING:
    from collector.server.access import Access

log = logging.getLogger(__name__)

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_LOOK_EVERY_SECONDS = 0.02
_LOOKS = 250
"""How long a request waits for files to be read: 5 s, half of Prometheus' usual limit for a scrape."""


def wants_openmetrics(accept: str) -> bool:
    """True if the ``Accept`` header prefers OpenMetrics, as prometheus_client negotiates, and does not refuse it.

    Where the header refuses all that there is, text is served none the less, which RFC 9110 leaves to the server
    (12.5.1): client_golang does so, and with it node_exporter (``expfmt.Negotiate``: no appropriate type is text). By a
    406 a scraper would lose its numbers to a header.
    """
    wanted = ",".join(part for part in accept.split(",") if not _is_refused(part.partition(";")[2]))
    try:
        return choose_encoder(wanted)[1].startswith("application/openmetrics-text")
    except (ValueError, TypeError):
        # A version that is no version: the format that every scraper reads.
        return False


def wants_gzip(accept_encoding: str) -> bool:
    """True if the ``Accept-Encoding`` header names gzip and does not refuse it.

    >>> wants_gzip("deflate, gzip;q=1.0"), wants_gzip("gzip;q=0"), wants_gzip("")
    (True, False, False)
    """
    for part in accept_encoding.split(","):
        coding, _, parameters = part.strip().partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return not _is_refused(parameters)
    return False


def _is_refused(parameters: str) -> bool:
    """Whether the parameters of an element of ``Accept`` or ``Accept-Encoding`` give it the quality 0."""
    qualities = ("q=0", "q=0.", "q=0.0", "q=0.00", "q=0.000")
    return any(one in qualities for one in parameters.replace(" ", "").lower().split(";"))


class Server:
    """Handlers over a loop."""

    def __init__(
        self,
        loop: Loop,
        selection: Selection,
        access: Access | None = None,
        demand: Demand | None = None,
        *,
        cadvisor_timestamps: bool = False,
        most_connections: int = 128,
    ) -> None:
        """``access``: who is let in, and TLS; without it everybody is, over plain HTTP. ``demand`` is told of requests
        for ``/metrics/cadvisor``; without it all of its files are read always. ``most_connections`` may be open at one
        time.
        """
        self.connections = Connections(most_connections)
        self.answers = Answers(self.connections.ended)
        self._loop = loop
        self._demand = demand
        self._access = access
        self._native = NativeExposition(selection)
        self._serves_cadvisor = selection.cadvisor
        self._cadvisor = CadvisorExposition(timestamps=cadvisor_timestamps, needs=needs(selection.groups))
        self._registry = CollectorRegistry(auto_describe=False)
        account = loop.collector.account
        account.busy_answers = lambda: self.answers.refused
        account.ended_connections = self.connections.ended
        self._registry.register(AccountCollector(account, self._tally, loop.age_seconds))

    def _tally(self) -> Tally | None:
        return self._loop.published.tally if self._loop.published else None

    def application(self) -> web.Application:
        """The routes."""
        access = self._access
        guards = access.middlewares() if access is not None else []
        app = web.Application(middlewares=[self.connections.middleware(), *guards])
        app.on_response_prepare.append(name_server)
        if access is not None:
            app.on_response_prepare.append(access.add_headers)
            app.on_cleanup.append(access.close)
        app.router.add_get("/", self._page)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/metrics/resource", self._resource)
        app.router.add_get("/metrics/cadvisor", self._cadvisor_page)
        app.router.add_get("/api/v1/pods", self._pods)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        return app

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What the listening socket is to be given; ``None`` for plain HTTP."""
        return self._access.tls if self._access is not None else None

    # --- expositions

    def _native_parts(self, *, openmetrics: bool) -> Iterator[str]:
        """The tally's families of ``/metrics``, one at a time."""
        published = self._loop.published
        if published is not None:
            shift_ns = published.start_shift_ns
            yield from self._native.parts(published.tally, openmetrics=openmetrics, start_shift_ns=shift_ns)

    def _account_text(self, *, openmetrics: bool) -> str:
        """What podtally tells of itself, which goes on from request to request: the end of ``/metrics``."""
        generate: Callable[[CollectorRegistry], bytes] = generate_openmetrics if openmetrics else generate_latest
        return generate(self._registry).decode()

    def metrics_text(self, *, openmetrics: bool) -> str:
        """``/metrics`` in one piece."""
        return "".join((*self._native_parts(openmetrics=openmetrics), self._account_text(openmetrics=openmetrics)))

    def resource_text(self, *, openmetrics: bool) -> str:
        """``/metrics/resource``. Where the numbers are too old, the page has but the error, as the kubelet's has."""
        published = self._loop.published if self._loop.alive()[0] else None
        upstream = published.tally.upstream if published is not None else None
        if published is None or (upstream is not None and upstream.answered_ns is None):
            return resource.render(None, openmetrics=openmetrics)
        return resource.render(
            published.tally,
            openmetrics=openmetrics,
            shift_ns=published.shift_ns,
            start_shift_ns=published.start_shift_ns,
        )

    def cadvisor_parts(self, *, openmetrics: bool) -> Iterator[str]:
        """``/metrics/cadvisor``, a family at a time; where the tally is too old, likewise."""
        published = self._loop.published if self._loop.alive()[0] else None
        if published is None:
            return self._cadvisor.parts(None, openmetrics=openmetrics)
        return self._cadvisor.parts(
            published.tally,
            openmetrics=openmetrics,
            shift_ns=published.shift_ns,
            start_shift_ns=published.start_shift_ns,
        )

    def cadvisor_text(self, *, openmetrics: bool) -> str:
        """The same in one piece."""
        return "".join(self.cadvisor_parts(openmetrics=openmetrics))

    def _stamp(self) -> Hashable:
        """What tells a page of a path from the next: the tally, whether it is too old, and why there is none newer."""
        published = self._loop.published
        return None if published is None else published.monotonic_ns, self._loop.alive()[0], self._loop.failure

    async def _exposition(
        self,
        request: web.Request,
        render: Callable[[bool], Iterable[str]],
        *,
        tail: Callable[[bool], str] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> web.StreamResponse:
        why = why_not(self._loop.collector.account.source, request.path, cadvisor=self._serves_cadvisor)
        if why is not None:
            return web.Response(text=f"{request.path} is {why}\n", status=404)
        openmetrics = wants_openmetrics(_header(request, "Accept"))
        content_type = OPENMETRICS if openmetrics else TEXT
        return await self._answer(request, render, content_type, openmetrics=openmetrics, tail=tail, before=before)

    async def _answer(
        self,
        request: web.Request,
        render: Callable[[bool], Iterable[str]],
        content_type: str,
        *,
        openmetrics: bool | None = None,
        tail: Callable[[bool], str] | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> web.StreamResponse:
        """Send what ``render`` gives, with what ``tail`` gives behind it; ``before`` is waited for first.
        ``openmetrics`` is ``None`` for what is no exposition.
        """
        answer = self.answers.admit(request)
        if answer is None:
            return refusal()
        with answer:
            if before is not None:
                await before()
            if not answer.wanted:
                return web.StreamResponse()
            begun = time.perf_counter()
            strict = bool(openmetrics)
            packed = wants_gzip(_header(request, "Accept-Encoding"))
            answer.take(Form(self._stamp(), request.path, strict, packed), lambda: render(strict))
            end = tail(strict) if tail is not None else ""
            if openmetrics is not None:
                self._loop.collector.account.scraped(request.path, time.perf_counter() - begun)
            return await answer.send(content_type, end)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return await self._exposition(
            request,
            lambda openmetrics: self._native_parts(openmetrics=openmetrics),
            tail=lambda openmetrics: self._account_text(openmetrics=openmetrics),
        )

    async def _resource(self, request: web.Request) -> web.StreamResponse:
        return await self._exposition(request, lambda openmetrics: (self.resource_text(openmetrics=openmetrics),))

    async def _cadvisor_page(self, request: web.Request) -> web.StreamResponse:
        return await self._exposition(
            request,
            lambda openmetrics: self.cadvisor_parts(openmetrics=openmetrics),
            before=self._read_for_cadvisor,
        )

    async def _read_for_cadvisor(self) -> None:
        """Wait for the first tick that has read what ``/metrics/cadvisor`` alone needs, if nobody has asked for it of
        late. Where there is none in time, the families that are made of it are left out.
        """
        if self._demand is None or not self._serves_cadvisor:
            return
        since_ns = self._demand.ask()
        for _ in range(_LOOKS):
            published = self._loop.published
            if published is not None and published.tally.instant.monotonic_ns >= since_ns:
                return
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    # --- for people and scripts

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(
            request,
            lambda _: (page.render(self._loop.published, self._loop.failure, cadvisor=self._serves_cadvisor),),
            "text/html; charset=utf-8",
        )

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        published = self._loop.published
        if published is None:
            return web.json_response({"error": "no tally yet"}, status=503)
        return await self._answer(
            request, lambda _: (json.dumps(api.document(published)),), "application/json; charset=utf-8"
        )

    # --- probes

    async def _healthz(self, _: web.Request) -> web.Response:
        alive, why = self._loop.alive()
        return web.Response(text=f"{printable(why)}\n{self._upstream_line()}", status=200 if alive else 503)

    def _upstream_line(self) -> str:
        """How the upstream answers. A bad one is no reason to be killed: that would not mend it."""
        tally = self._tally()
        if tally is None or tally.upstream is None:
            return ""
        return f"{printable(tally.upstream.sentence(tally.instant.time_ns))}\n"

    async def _readyz(self, _: web.Request) -> web.Response:
        published = self._loop.published
        if published is None:
            why = f": {printable(self._loop.failure)}" if self._loop.failure else ""
            return web.Response(text=f"not ready: no tally yet{why}\n", status=503)
        names, upstream = published.tally.names, published.tally.upstream
        kubelet, apiserver = printable(names.kubelet), printable(names.apiserver)
        state = f"names: {names.source}\nkubelet: {kubelet}\nAPI server: {apiserver}\n"
        state = self._upstream_line() + state + _fill_line(published.tally)
        if upstream is not None and upstream.answered_ns is None:
            return web.Response(text=f"not ready: nothing to serve\n{state}", status=503)
        if not names.known:
            return web.Response(text=f"not ready: no answer has named the pods yet\n{state}", status=503)
        return web.Response(text=f"ok\n{state}")


def _fill_line(tally: Tally) -> str:
    """What pods are filled from, with ``--fill-from``. That it does not answer is no reason not to be ready."""
    if tally.fill is None:
        return ""
    if not tally.fill.needed:
        return "filling in: no pod needs it\n"
    filled = sum(pod.source != tally.source for pod in tally.pods)
    told = printable(tally.fill.sentence(tally.instant.time_ns))
    return f"filling in: {filled} pod{'' if filled == 1 else 's'}; {told}\n"


def _header(request: web.Request, name: str) -> str:
    """All lines of a header that is a list."""
    return ",".join(request.headers.getall(name, ()))


def parse_listen(value: str) -> tuple[str | None, int]:
    """Host and port of ``--listen``; no host is every address. Raises :class:`UsageError`.

    >>> parse_listen(":9753"), parse_listen("127.0.0.1:80"), parse_listen("[::1]:80")
    ((None, 9753), ('127.0.0.1', 80), ('::1', 80))
    """
    host, colon, port = value.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # an IPv6 address without its brackets: which colon is the port's nobody can tell
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{value!r} is no address: give HOST:PORT or :PORT, as 127.0.0.1:9753")
    return host or None, int(port)


def is_loopback(value: str) -> bool:
    """True if ``--listen`` is an address that this machine alone, or this pod, can reach.

    >>> [is_loopback(value) for value in ("127.0.0.1:80", "[::1]:80", "localhost:80", ":80", "10.0.0.1:80")]
    [True, True, True, False, False]
    """
    host = parse_listen(value)[0]
    try:
        return host == "localhost" or (host is not None and ipaddress.ip_address(host).is_loopback)
    except ValueError:
        return False


Background = Callable[[], Awaitable[None]]


async def serve(server: Server, listen: str, background: Background | None, ready: Callable[[int], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``background`` runs beside it; ``ready`` is told the port.

    Raises :class:`UsageError` if the address cannot be listened on.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    host, port = parse_listen(listen)
    tls = server.tls
    runner = web.AppRunner(
        server.application(),
        access_log=None,
        shutdown_timeout=0.2,
        handle_signals=False,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=LINGER_SECONDS,
    )
    await runner.setup()
    task = asyncio.ensure_future(background()) if background is not None else None
    try:
        site = Site(runner, server.connections, host, port, tls)
        try:
            await site.start()
        except OSError as error:
            what = "is in use: is another podtally running? Choose another with --listen"
            if error.errno != errno.EADDRINUSE:
                # asyncio puts a sentence of its own in strerror; a failed look-up of the host has a negative number.
                why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
                what = f"cannot be listened on: {why}; choose another with --listen"
            raise UsageError(f"the address {listen} {what}") from error
        ready(site.port)
        waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(stopping.wait())}
        if task is not None:
            waiting.add(task)
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if task is not None and task.done():
            task.result()
    finally:
        if task is not None:
            task.cancel()
        transports = [one.transport for one in runner.server.connections] if runner.server is not None else []
        await runner.cleanup()
        for transport in transports:
            if transport is not None and transport.get_extra_info("sslcontext") is not None:
                transport.abort()  # or it would wait for the client's farewell
