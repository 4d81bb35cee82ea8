"""Bearer tokens, decided as the kubelet decides them: who it is by TokenReview, what they may by SubjectAccessReview.

The kubelet's ways are those of ``pkg/kubelet/server/server.go`` (``InstallAuthFilter``): without a good token 401, also
when the API server cannot be asked; without the right 403; when nobody can say whether there is the right, 500. It
keeps what it learned as ``pkg/kubelet/apis/config/v1beta1/defaults.go`` says: who it is for 2 min, a right for 5 min,
the lack of one for 30 s. Failures are not kept.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from collector.model import Answer
from collector.seams import Reviewer
from collector.server.cache import Digests, Expiring, Shared
from collector.server.pace import Bucket
from collector.server.turns import TooMany, Turns
from collector.server.webconfig import RateLimit

log = logging.getLogger(__name__)

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"

AUTHENTICATED_SECONDS = 120.0
AUTHORIZED_SECONDS = 300.0
UNAUTHORIZED_SECONDS = 30.0
REJECTED_SECONDS = 30.0
"""For a token that the API server rejects with an error. The kubelet asks again each time; a scraper whose token has
run out would so put load on the API server for as long as nobody looks."""

STRANGERS_LIMIT = RateLimit(interval_seconds=0.2, burst=20)
"""Tokens that may be asked about: of those that have not been let in of late, by all of whom together."""
KNOWN_LIMIT = RateLimit(interval_seconds=0.05, burst=50)
"""Of those that have."""
KNOWN_SECONDS = 86400.0
"""How long a token that was let in is known as one. It is asked about as often as others, but not behind strangers."""

_MOST_USERS = 256
_MOST_STRANGERS = 1024
_MOST_WAITING = 64
_MOST_AT_ONCE = 4
"""Of each of the two."""
_RETRY_SECONDS = 5
"""When to try again, for who is sent away as too many wait."""

_Kind = Literal["access", "token"]


class Verdict(NamedTuple):
    """What is to be answered."""

    status: int
    """200 is: go on."""
    reason: str
    """The value of the ``reason`` label."""
    text: str
    retry_seconds: int | None = None


_ALLOWED = Verdict(200, "", "")
_UNAUTHENTICATED = Verdict(401, "unauthenticated", "Unauthorized")


@dataclass(frozen=True, slots=True)
class _User:
    """Who a token is of: its name, and all of it as SubjectAccessReview wants it."""

    name: str
    spec: str


class _Failed(Exception):
    """A review has not been made."""


class Reviews:
    """Decides requests by their token. One event loop."""

    def __init__(
        self,
        ask: Reviewer,
        node_name: str,
        clock: Callable[[], float] = time.monotonic,
        strangers: RateLimit = STRANGERS_LIMIT,
    ) -> None:
        self._ask = ask
        self._node_name = node_name
        self._digests = Digests()
        self._users: Expiring[_User] = Expiring(_MOST_USERS, clock)
        self._strangers: Expiring[bool] = Expiring(_MOST_STRANGERS, clock)
        self._rights: Expiring[bool] = Expiring(_MOST_USERS, clock)
        self._known: Expiring[bool] = Expiring(_MOST_USERS, clock)
        """Tokens that were let in. Only those can drive one out."""
        self._known_turns: Turns[Verdict] = Turns(_MOST_WAITING, _MOST_AT_ONCE, Bucket(KNOWN_LIMIT).reserve)
        self._stranger_turns: Turns[Verdict] = Turns(_MOST_WAITING, _MOST_AT_ONCE, Bucket(strangers).reserve)
        self._access_reviews: Shared[bool] = Shared()
        self._failures: dict[_Kind, str] = {}
        self.counts: dict[tuple[str, str], int] = {}
        """Reviews by HTTP status, or ``error`` where nothing answered, and kind."""

    async def decide(self, authorization: str | None, source: str) -> Verdict:
        """Whether a request with this header may read the node's metrics; ``source`` is whose turn it takes to ask."""
        token = bearer_token(authorization)
        if token is None:
            return _UNAUTHENTICATED
        key = self._digests.of(token)
        kept = self._kept(key)
        if kept is not None:
            return kept
        turns = self._known_turns if self._known.get(key) else self._stranger_turns
        try:
            return await turns.get(key, source, lambda: self._review_both(token, key))
        except TooMany:
            return Verdict(429, "too_many", "Too many tokens are under review: try again", _RETRY_SECONDS)

    async def close(self) -> None:
        """End what is under way."""
        self._known_turns.cancel()
        self._stranger_turns.cancel()
        self._access_reviews.cancel()
        await self._ask.close()

    def _kept(self, key: bytes) -> Verdict | None:
        """What is known without asking; ``None`` if it is not."""
        user = self._users.get(key)
        if user is None:
            return _UNAUTHENTICATED if self._strangers.get(key) else None
        allowed = self._rights.get(self._right_key(user))
        return _verdict(user, allowed=allowed) if allowed is not None else None

    async def _review_both(self, token: bytes, key: bytes) -> Verdict:
        """Ask who it is and what he may, as far as it is not known."""
        try:
            user = await self._who(token, key)
        except _Failed:
            return _UNAUTHENTICATED._replace(reason="review_failed")
        if user is None:
            self._known.drop(key)
            return _UNAUTHENTICATED
        try:
            allowed = await self._may(user)
        except _Failed:
            return Verdict(500, "review_failed", f"Authorization error ({_told(user)}subresource=metrics)")
        if allowed:
            self._known.put(key, True, KNOWN_SECONDS)
        else:
            self._known.drop(key)
        return _verdict(user, allowed=allowed)

    async def _who(self, token: bytes, key: bytes) -> _User | None:
        user = self._users.get(key)
        if user is not None:
            return user
        # No audiences: the API server's own are meant, as by the kubelet.
        status = await self._review("token", TOKEN_REVIEWS, "authentication", {"token": token.decode("ascii")})
        user = _user(status)
        if user is not None:
            self._users.put(key, user, AUTHENTICATED_SECONDS)
        else:
            self._strangers.put(key, True, REJECTED_SECONDS if status.get("error") else AUTHENTICATED_SECONDS)
        return user

    def _right_key(self, user: _User) -> bytes:
        return self._digests.of(user.spec.encode())

    async def _may(self, user: _User) -> bool:
        key = self._right_key(user)
        known = self._rights.get(key)
        if known is not None:
            return known

        async def review() -> bool:
            attributes = {
                "verb": "get",
                "version": "v1",
                "resource": "nodes",
                "subresource": "metrics",
                "name": self._node_name,
            }
            spec = {**json.loads(user.spec), "resourceAttributes": attributes}
            status = await self._review("access", ACCESS_REVIEWS, "authorization", spec)
            allowed, denied = status.get("allowed") is True, status.get("denied") is True
            if allowed and denied:
                raise self._failed("access", "the API server both allows and denies")
            self._rights.put(key, allowed, AUTHORIZED_SECONDS if allowed else UNAUTHORIZED_SECONDS)
            return allowed

        return await self._access_reviews.get(key, review)

    async def _review(self, kind: _Kind, path: str, group: str, spec: dict[str, Any]) -> dict[str, Any]:
        """The status of a review that the API server has made. Raises :class:`_Failed`."""
        name = {"token": "TokenReview", "access": "SubjectAccessReview"}[kind]
        body = json.dumps({"apiVersion": f"{group}.k8s.io/v1", "kind": name, "spec": spec}).encode()
        answer = await self._ask.create(path, body)
        code = "error" if answer.status is None else str(answer.status)
        self.counts[code, kind] = self.counts.get((code, kind), 0) + 1
        if answer.body is None:
            raise self._failed(kind, _why(answer, path))
        try:
            status = json.loads(answer.body)["status"]
            if not isinstance(status, dict):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._failed(kind, f"the API server's answer is no {name}") from None
        if self._failures.pop(kind, None) is not None:
            log.info("the API server makes the %s again", path.rpartition("/")[2])
        return status

    def _failed(self, kind: _Kind, why: str) -> _Failed:
        """The error to raise; it is logged once, not for each request."""
        if self._failures.get(kind) != why:
            self._failures[kind] = why
            log.warning("requests are refused, as their %s cannot be reviewed: %s", _SUBJECTS[kind], why)
        return _Failed(why)


def _told(user: _User) -> str:
    return f"user={user.name}, verb=get, resource=nodes, "


def _verdict(user: _User, *, allowed: bool) -> Verdict:
    if allowed:
        return _ALLOWED
    return Verdict(403, "forbidden", f"Forbidden ({_told(user)}subresource(s)=[metrics])")


_SUBJECTS: dict[_Kind, str] = {"token": "tokens", "access": "users' rights"}


def _why(answer: Answer, path: str) -> str:
    if answer.status is None:
        return answer.error or "no answer"
    told = f"HTTP {answer.status}: {answer.error}"
    if answer.status == 401:
        return f"{told}; the API server does not take podtally's own token: look at --token-file"
    if answer.status == 403:
        return f"{told}; give podtally's service account the right to create {path.rpartition('/')[2]}"
    return told


def _user(status: dict[str, Any]) -> _User | None:
    """Who it is, if the API server says that it knows."""
    user = status.get("user")
    if status.get("authenticated") is not True or status.get("error") or not isinstance(user, dict):
        return None
    name = user.get("username")
    if not isinstance(name, str) or not name:
        return None
    spec = {"user": name, **{key: user[key] for key in ("uid", "groups", "extra") if user.get(key)}}
    return _User("".join(letter if letter.isprintable() else "?" for letter in name), json.dumps(spec, sort_keys=True))


def bearer_token(authorization: str | None) -> bytes | None:
    """The token of an ``Authorization`` header; ``None`` if it has none.

    >>> bearer_token("Bearer abc"), bearer_token("bearer  x"), bearer_token("Basic YTpi"), bearer_token(None)
    (b'abc', b'x', None, None)
    """
    scheme, _, token = (authorization or "").strip().partition(" ")
    token = token.strip()
    # What is not ASCII, or has a blank in it, is nobody's token and needs no review.
    if scheme.lower() != "bearer" or not token.isascii() or not token.isprintable() or " " in token:
        return None
    return token.encode() or None
