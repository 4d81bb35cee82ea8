"""Who is let in: basic authentication, bearer tokens and the rate limit, before any handler; headers after it.

``/healthz`` and ``/readyz`` ask for nothing: the kubelet's probes have neither a token nor a password.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from collector.metrics.account import Account
from collector.server import tls
from collector.server.cache import Digests, Expiring
from collector.server.pace import Bucket, Share
from collector.server.reviews import Reviews, Verdict
from collector.server.turns import TooMany, Turns, source_of
from collector.server.watch import WatchedConfig
from collector.server.webconfig import RateLimit

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})

_MOST_RIGHT = 1000
_MOST_WRONG = 100
_WRONG_SECONDS = 3600.0
_MOST_WAITING = 64
_BCRYPT_SHARE = 0.5
"""Of one core, for as long as somebody guesses."""
_BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password; the library wants it said."""
_NOBODYS_HASH = b"QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
_RETRY_SECONDS = 5
"""When to try again, for who is sent away as too many wait."""

_CHALLENGES = {"basic": 'Basic realm="podtally", charset="UTF-8"', "bearer": 'Bearer realm="podtally"'}


def _matches(password: bytes, hashed: bytes) -> bool:
    """Whether bcrypt says so. Takes some 60 ms at cost 10, without holding Python's lock."""
    import bcrypt

    return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)


class Passwords:
    """Passwords against their hashes, one at a time in a thread of their own, and each but once.

    A login that was right is known from then on, without a time: nothing but another hash, under which it is another
    login, could make it wrong. So guesses stand in the way of a first login alone, and only for their turns.
    """

    def __init__(
        self,
        matches: Callable[[bytes, bytes], bool] = _matches,
        share: Share | None = None,
        cpu_seconds: Callable[[], float] = time.thread_time,
    ) -> None:
        self._matches = matches
        self._share = share or Share(_BCRYPT_SHARE)
        self._cpu_seconds = cpu_seconds
        self._digests = Digests()
        # Apart, so that who guesses cannot drive out what is known to be right.
        self._right: Expiring[bool] = Expiring(_MOST_RIGHT)
        self._wrong: Expiring[bool] = Expiring(_MOST_WRONG)
        self._turns: Turns[bool] = Turns(_MOST_WAITING, 1, self._share.rest)
        self._thread: ThreadPoolExecutor | None = None

    async def are_right(self, users: Mapping[str, bytes], authorization: str | None, source: str) -> bool:
        """Whether a header names one of the users, with the password. Raises :class:`TooMany`."""
        credentials = basic_credentials(authorization)
        if credentials is None:
            return False
        name, password = credentials[0], credentials[1][:_BCRYPT_BYTES]
        own = users.get(name)
        key = self._digests.of(name.encode("utf-8", "surrogateescape"), own or b"", password)
        if self._right.get(key):
            return True
        if self._wrong.get(key):
            return False
        return await self._turns.get(key, source, lambda: self._check(password, own, hashes_for(users, own), key))

    async def _check(self, password: bytes, own: bytes | None, hashes: list[bytes], key: bytes) -> bool:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")

        def check() -> tuple[bool, float]:
            begun = self._cpu_seconds()
            right = [one for one in hashes if self._matches(password, one)]
            return own in right, self._cpu_seconds() - begun

        is_right, seconds = await asyncio.get_running_loop().run_in_executor(self._thread, check)
        self._share.used(seconds)
        if is_right:
            self._right.put(key, True, math.inf)
        else:
            self._wrong.put(key, True, _WRONG_SECONDS)
        return is_right

    def close(self) -> None:
        """End the checks that have not begun."""
        self._turns.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def hashes_for(users: Mapping[str, bytes], own: bytes | None) -> list[bytes]:
    """What is computed for a login: a hash of each cost that the users have, the user's ``own`` in its place.

    So every login takes the same work in the same order, whoever it is of, and the time does not tell which names there
    are. Nobody has a password for the others.
    """
    costs = sorted({_cost(one) for one in users.values()})
    return [own if own is not None and cost == _cost(own) else b"$2b$%b$%b" % (cost, _NOBODYS_HASH) for cost in costs]


def _cost(hashed: bytes) -> bytes:
    return hashed[4:6]


def basic_credentials(authorization: str | None) -> tuple[str, bytes] | None:
    """Name and password of an ``Authorization`` header; ``None`` if it has none.

    >>> basic_credentials("Basic YTpiOmM="), basic_credentials("Basic YQ=="), basic_credentials("Basic !")
    (('a', b'b:c'), None, None)
    """
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip().encode(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name.decode("utf-8", "surrogateescape"), password) if colon else None


class Access:
    """What stands before the handlers, by the web configuration of now and the reviews of tokens."""

    def __init__(
        self,
        config: WatchedConfig | None,
        reviews: Reviews | None,
        account: Account,
        passwords: Passwords | None = None,
    ) -> None:
        self._config = config
        self._reviews = reviews
        self._passwords = passwords or Passwords()
        self._bucket: Bucket | None = None
        self._refusals = dict.fromkeys(REFUSALS, 0)
        account.refusals = self._refusals
        if config is not None:
            account.web_config_successful = lambda: config.successful
        if reviews is not None:
            account.reviews = reviews.counts

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a listening socket is to be given; ``None`` for plain HTTP."""
        if self._config is None or self._config.now().context is None:
            return None
        return tls.fresh(self._config.context)

    def middlewares(self) -> list[Middleware]:
        """For the application."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            resource = request.match_info.route.resource
            if resource is not None and resource.canonical in OPEN_PATHS:
                return await handler(request)
            refusal = await self._refusal(request)
            return refusal if refusal is not None else await handler(request)

        return [guard]

    async def add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        """Headers of the configuration, on every answer. For the application's ``on_response_prepare``."""
        if self._config is not None:
            response.headers.update(self._config.now().config.headers)

    async def close(self, _: web.Application) -> None:
        """For the application's ``on_cleanup``."""
        self._passwords.close()
        if self._reviews is not None:
            await self._reviews.close()

    async def _refusal(self, request: web.Request) -> web.Response | None:
        verdict, challenge = await self._decide(request)
        if verdict is None or verdict.status == 200:
            return None
        self._refusals[verdict.reason] += 1
        headers = {"WWW-Authenticate": challenge} if verdict.status == 401 else {}
        if verdict.retry_seconds is not None:
            headers["Retry-After"] = str(verdict.retry_seconds)
        return web.Response(text=f"{verdict.text}\n", status=verdict.status, headers=headers)

    async def _decide(self, request: web.Request) -> tuple[Verdict | None, str]:
        authorization, source = request.headers.get("Authorization"), source_of(request.remote)
        config = self._config.now().config if self._config is not None else None
        verdict, challenge = None, ""
        if config is not None and config.users:
            verdict, challenge = await self._by_password(config.users, authorization, source), _CHALLENGES["basic"]
        elif self._reviews is not None:
            verdict, challenge = await self._reviews.decide(authorization, source), _CHALLENGES["bearer"]
        if verdict is not None and verdict.status != 200:
            return verdict, challenge
        # After it, as who is not let in must not use up what those have who are.
        if config is not None and config.rate_limit is not None and not self._may_pass(config.rate_limit):
            seconds = math.ceil(config.rate_limit.interval_seconds)
            return Verdict(429, "too_many", "Too many requests", seconds), ""
        return None, ""

    def _may_pass(self, limit: RateLimit) -> bool:
        if self._bucket is None or self._bucket.limit != limit:
            self._bucket = Bucket(limit)
        return self._bucket.take()

    async def _by_password(self, users: Mapping[str, bytes], authorization: str | None, source: str) -> Verdict | None:
        try:
            if await self._passwords.are_right(users, authorization, source):
                return None
        except TooMany:
            return Verdict(429, "too_many", "Too many passwords are being checked: try again", _RETRY_SECONDS)
        return Verdict(401, "unauthenticated", "Unauthorized")


REFUSALS: Final = ("forbidden", "review_failed", "too_many", "unauthenticated")
"""The values of the ``reason`` label of ``podtally_refused_requests_total``."""
