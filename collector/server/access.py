"""Who is let in: basic authentication, bearer tokens and the rate limit, before any handler; headers after it.

``/healthz`` and ``/readyz`` ask for nothing: the kubelet's probes have neither a token nor a password.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from collector.metrics.account import Account
from collector.server import tls
from collector.server.cache import Digests, Expiring, Shared, TooMany
from collector.server.reviews import Reviews, Verdict
from collector.server.watch import WatchedConfig
from collector.server.webconfig import RateLimit

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})

_MOST_KEPT = 100
_MOST_WAITING = 16
_KEPT_SECONDS = 3600.0
_BCRYPT_BYTES = 72
"""bcrypt looks at no more of a password; the library wants it said."""
_NOBODYS_HASH = "QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"

_CHALLENGES = {"basic": 'Basic realm="podtally", charset="UTF-8"', "bearer": 'Bearer realm="podtally"'}


def _matches(password: bytes, hashed: bytes) -> bool:
    """Whether bcrypt says so. Takes some 60 ms at cost 10, without holding Python's lock."""
    import bcrypt

    return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed)


class Passwords:
    """Passwords against their hashes, one at a time in a thread of their own, and each but once."""

    def __init__(self, matches: Callable[[bytes, bytes], bool] = _matches) -> None:
        self._matches = matches
        self._digests = Digests()
        # Apart, so that who guesses cannot drive out what is known to be right.
        self._right: Expiring[bool] = Expiring(_MOST_KEPT)
        self._wrong: Expiring[bool] = Expiring(_MOST_KEPT)
        self._checks: Shared[bool] = Shared(_MOST_WAITING)
        self._thread: ThreadPoolExecutor | None = None

    async def are_right(self, users: Mapping[str, bytes], authorization: str | None) -> bool:
        """Whether a header names one of the users, with the password. Raises :class:`TooMany`."""
        credentials = basic_credentials(authorization)
        if credentials is None:
            return False
        name, password = credentials
        hashed = users.get(name)
        known = hashed is not None
        if hashed is None:
            # An unknown user costs as much as a known one: the time must not tell which names there are.
            hashed = max(users.values(), key=lambda one: one[4:6])[:7] + _NOBODYS_HASH.encode()
        key = self._digests.of(name.encode("utf-8", "surrogateescape"), hashed, password)
        if self._right.get(key):
            return True
        if self._wrong.get(key):
            return False
        return await self._checks.get(key, lambda: self._check(password, hashed, key, known=known))

    async def _check(self, password: bytes, hashed: bytes, key: bytes, *, known: bool) -> bool:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="bcrypt")
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._thread, self._matches, password, hashed) and known
        (self._right if right else self._wrong).put(key, True, _KEPT_SECONDS)
        return right

    def close(self) -> None:
        """End the checks that have not begun."""
        self._checks.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


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


class Bucket:
    """A token bucket: one request an interval, so many at once."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._left = float(limit.burst)
        self._filled = clock()

    def take(self) -> bool:
        """Whether there is one for this request."""
        now = self._clock()
        self._left = min(self.limit.burst, self._left + (now - self._filled) / self.limit.interval_seconds)
        self._filled = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


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
        return web.Response(text=f"{verdict.text}\n", status=verdict.status, headers=headers)

    async def _decide(self, request: web.Request) -> tuple[Verdict | None, str]:
        authorization = request.headers.get("Authorization")
        if self._config is not None:
            config = self._config.now().config
            if config.rate_limit is not None and not self._may_pass(config.rate_limit):
                return Verdict(429, "too_many", "Too many requests"), ""
            if config.users:
                return await self._by_password(config.users, authorization), _CHALLENGES["basic"]
        if self._reviews is not None:
            return await self._reviews.decide(authorization), _CHALLENGES["bearer"]
        return None, ""

    def _may_pass(self, limit: RateLimit) -> bool:
        if self._bucket is None or self._bucket.limit != limit:
            self._bucket = Bucket(limit)
        return self._bucket.take()

    async def _by_password(self, users: Mapping[str, bytes], authorization: str | None) -> Verdict | None:
        try:
            if await self._passwords.are_right(users, authorization):
                return None
        except TooMany:
            return Verdict(429, "too_many", "Too many passwords are being checked: try again")
        return Verdict(401, "unauthenticated", "Unauthorized")


REFUSALS: Final = ("forbidden", "review_failed", "too_many", "unauthenticated")
"""The values of the ``reason`` label of ``podtally_refused_requests_total``."""
