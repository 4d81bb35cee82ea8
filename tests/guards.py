"""What tests of who is let in share: key pairs, web configurations, a guarded server, an API server that reviews."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import trustme
from aiohttp import web

from collector.loop import LivePace, Loop
from collector.metrics.account import Account
from collector.metrics.native import Selection
from collector.server.access import Access
from collector.server.app import Server
from collector.server.connections import Site
from collector.sources import http
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.helpers import EMPTY_LIST
from tests.support import collector_over, recording

PAIR = "tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n"

ALICE = "$2b$04$abcdefghijklmnopqrstuujZkTwHUiJ9XdZPwKfcfDo7dMp5DjlTu"
"""bcrypt of ``wonderland``, at the least cost."""


def client_tls(ca: trustme.CA) -> ssl.SSLContext:
    """A client that trusts the CA."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


def write_pair(folder: Path, issued: trustme.LeafCert, *, cert: bool = True, key: bool = True) -> None:
    """Write ``tls.crt`` and ``tls.key``, or one of the two, over what is there."""
    if cert:
        _replace(folder / "tls.crt", b"".join(one.bytes() for one in issued.cert_chain_pems))
    if key:
        _replace(folder / "tls.key", issued.private_key_pem.bytes())


def _replace(path: Path, data: bytes) -> None:
    """Another file in this one's place: one that is written on has its old times for some milliseconds."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.rename(path)


def issue(ca: trustme.CA, *names: str) -> trustme.LeafCert:
    """A pair for this machine."""
    return ca.issue_cert("127.0.0.1", *names)


def write_config(folder: Path, text: str) -> str:
    """Write ``web.yml``; its path."""
    path = folder / "web.yml"
    _replace(path, text.encode())
    return str(path)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@asynccontextmanager
async def guarded(access_of: Callable[[Account], Access | None]) -> AsyncIterator[tuple[str, Server]]:
    """A server behind a real socket, over a recording's first frame; gives its URL."""
    tree = RecordedTree(recording("static-pod"))
    loop = Loop(collector_over(tree, RecordedAnswers(tree)), LivePace(60))
    loop.first_tick()
    server = Server(loop, Selection(), access_of(loop.collector.account))
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        tls = server.tls
        site = Site(runner, server.connections, "127.0.0.1", 0, tls)
        await site.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{site.port}", server
    finally:
        await runner.cleanup()


async def got(
    url: str, *, tls: ssl.SSLContext | bool = True, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Ask once over a connection of its own: status, text and headers."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            method, url, ssl=tls, headers={key.replace("_", "-"): value for key, value in headers.items()}
        ) as response,
    ):
        return response.status, await response.text(), dict(response.headers)


async def status_of(url: str, *, tls: ssl.SSLContext | bool = True, **headers: str) -> int:
    """The status of an answer."""
    return (await got(url, tls=tls, **headers))[0]


def basic(name: str, password: str) -> str:
    """The header of basic authentication."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


class ApiServer:
    """Answers TokenReviews and SubjectAccessReviews as the API server does, by two tables, and counts."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {"good": "system:serviceaccount:monitoring:prometheus", "poor": "nobody"}
        self.allowed = {"system:serviceaccount:monitoring:prometheus"}
        self.posted: list[tuple[str, dict[str, Any]]] = []
        """Kind and spec of each review."""
        self.callers: list[str | None] = []
        self.failing: dict[str, tuple[int, str]] = {}
        """Status and body by kind, in place of a review."""
        self.hold: asyncio.Event | None = None
        """Answers wait for it."""
        self.extra: dict[str, Any] = {}
        """What is put into the status of each SubjectAccessReview."""

    def count(self, kind: str) -> int:
        """How many reviews of a kind were asked for."""
        return sum(one == kind for one, _ in self.posted)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Make a review; to any other question the node has no pods."""
        if request.method == "GET":
            return web.Response(body=EMPTY_LIST, content_type="application/json")
        body = await request.json()
        kind, spec = body["kind"], body["spec"]
        self.posted.append((kind, spec))
        self.callers.append(request.headers.get("Authorization"))
        if self.hold is not None:
            await self.hold.wait()
        if kind in self.failing:
            status, text = self.failing[kind]
            return web.Response(status=status, text=text)
        if (request.path, kind, body["apiVersion"]) == (
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "TokenReview",
            "authentication.k8s.io/v1",
        ):
            body["status"] = self._who(spec["token"])
        elif (request.path, kind, body["apiVersion"]) == (
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            "SubjectAccessReview",
            "authorization.k8s.io/v1",
        ):
            body["status"] = {"allowed": spec["user"] in self.allowed, **self.extra}
        else:
            return web.Response(status=404, text="404 page not found")
        return web.Response(status=201, text=json.dumps(body), content_type="application/json")

    def _who(self, token: str) -> dict[str, Any]:
        name = self.users.get(token)
        if name is None:
            return {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        user = {"username": name, "uid": "u-1", "groups": ["system:authenticated"], "extra": {"a": ["b"]}}
        return {"authenticated": True, "user": user, "audiences": ["https://kubernetes.default.svc"]}


def apiserver(url: str, token_file: str | None = None) -> http.Endpoint:
    """How to reach it."""
    return http.Endpoint(name="the API server", url=url, token_file=token_file, tls=lambda: None)
