"""Headers that are on every answer, those to what is no HTTP among them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import ERROR
from aiohttp.web_urldispatcher import MatchInfoError

SERVER: Final = "podtally"
"""In place of the versions of Python and aiohttp, which tell an attacker where to begin."""


async def name_server(_: web.Request, response: web.StreamResponse) -> None:
    """Say who answers. For an application's ``on_response_prepare``."""
    response.headers["Server"] = SERVER


def put_on_bad_requests(runner: web.AppRunner) -> None:
    """Have the application's ``on_response_prepare`` called for answers to bad requests too. After its set-up.

    aiohttp answers what it cannot parse before it asks whose application it is for, and calls nothing.
    """
    server, app = runner.server, runner.app
    assert server is not None
    make_request = server.request_factory
    nowhere = MatchInfoError(web.HTTPBadRequest())
    nowhere.add_app(app)
    nowhere.freeze()

    def make(message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]) -> web.BaseRequest:
        request = make_request(message, payload, protocol, writer, task)
        if message is ERROR and isinstance(request, web.Request):
            request._match_info = nowhere  # noqa: SLF001 - aiohttp has no other way to it
        return request

    server.request_factory = make
