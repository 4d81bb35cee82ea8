"""What is on every answer, asked through real sockets with requests that are none."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from multidict import CIMultiDict

from collector.logs import LINE_CHARACTERS, LINES_A_MINUTE, BoundedHandler
from collector.server.access import Access
from collector.server.watch import WatchedConfig
from tests.guards import Clock, guarded, write_config

CONFIG = "http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}\n"

ASKED: Mapping[str, tuple[bytes, int]] = {
    "a page": (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    "a probe": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
    "what is not there": (b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
    "another method": (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
    "an expectation": (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: much\r\nConnection: close\r\n\r\n", 417),
    "no HTTP": (b"\x1b]0;x\x07 \xff\r\n\r\n", 400),
    "two lengths": (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a header with controls": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"\0" * 4000 + b"\r\n\r\n", 400),
    "a target that is no URL": (b"GET http://[\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a header that is too long": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 400),
}


async def said(url: str, request: bytes) -> tuple[int, CIMultiDict[str]]:
    """Status and headers of the answer to some bytes."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    finally:
        writer.close()
    named = (line.partition(": ") for line in head[1:] if line)
    return int(head[0].split()[1]), CIMultiDict((name, value) for name, _, value in named)


@pytest.mark.parametrize("what", ASKED)
def test_headers_are_on_every_answer(tmp_path: Path, what: str) -> None:
    """Those of the configuration; and the server's name without versions, of which it needs none."""
    request, status = ASKED[what]

    async def run(access: bool) -> tuple[int, CIMultiDict[str]]:
        config = WatchedConfig(write_config(tmp_path, CONFIG))
        async with guarded(lambda account: Access(config, None, account) if access else None) as (url, _):
            return await said(url, request)

    found, headers = asyncio.run(run(True))
    assert (found, headers.getall("Server"), headers["X-Frame-Options"], headers["X-Content-Type-Options"]) == (
        status,
        ["podtally"],
        "deny",
        "nosniff",
    )
    found, headers = asyncio.run(run(False))
    assert (found, headers.getall("Server"), headers.get("X-Frame-Options")) == (status, ["podtally"], None)


def test_a_flood_of_what_is_no_http_is_some_lines() -> None:
    """The log has so many a minute of them, each one cut line, whatever is sent."""
    stream = io.StringIO()
    handler = BoundedHandler(stream, Clock(), lambda _seconds, _call: None)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    bad = [request for request, status in ASKED.values() if status == 400]

    async def run() -> None:
        async with guarded(lambda _: None) as (url, _):
            for number in range(60):
                await said(url, bad[number % len(bad)])

    logging.getLogger().addHandler(handler)
    try:
        asyncio.run(run())
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [line for line in stream.getvalue().splitlines() if "collector." not in line]

    assert [line.partition(" from")[0] for line in lines] == [
        "ERROR aiohttp.server: Error handling request"
    ] * LINES_A_MINUTE
    assert max(len(line) for line in lines) <= LINE_CHARACTERS
