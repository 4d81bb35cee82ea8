"""Work that clients set off before it is known who they are: bounded in number and pace, and by turns.

Whoever floods waits for himself: addresses have a turn each, one after another, so that the first request of another
one is met after as many pieces of work as there are addresses, however many requests wait. Where too many wait, the
newest of the address that has most goes.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

V = TypeVar("V")

_MOST_TOGETHER: Final = 16
"""Requests of one address that wait for one piece. A client that has gone leaves its request behind."""

_IPV6_NETWORK_BITS: Final = 64
"""What one client is mostly given, to choose addresses from."""


class TooMany(Exception):
    """So many wait already that this one is sent away."""


def source_of(remote: str | None) -> str:
    """Whose turn it is by the address that a request comes from.

    >>> source_of("10.0.0.1"), source_of("::ffff:10.0.0.1"), source_of("2001:db8::1"), source_of(None)
    ('10.0.0.1', '10.0.0.1', '2001:db8::/64', '')
    """
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return remote or ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))


class _Piece(Generic[V]):
    """Something to be done, for all who ask for it until it is."""

    __slots__ = ("asking", "key", "outcome", "queued", "work")

    def __init__(self, key: bytes, work: Callable[[], Awaitable[V]]) -> None:
        self.key = key
        self.work = work
        self.outcome: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.queued: set[str] = set()
        """The addresses whose turn it waits for; none once it has begun."""
        self.asking: Counter[str] = Counter()
        """Requests that wait for it, by address."""


class Turns(Generic[V]):
    """Does pieces of work, each once for all who ask for it meanwhile, by turns of the addresses they ask from.

    One who goes away does not end it: what is found out is of use when he comes again.
    """

    def __init__(self, most: int, at_once: int, rest: Callable[[], float] = lambda: 0.0) -> None:
        """``most`` pieces may wait, and ``at_once`` be under way; ``rest`` is asked before each begins, and gives
        seconds to wait.
        """
        self._most = most
        self._at_once = at_once
        self._rest = rest
        self._pieces: dict[bytes, _Piece[V]] = {}
        self._queues: OrderedDict[str, deque[_Piece[V]]] = OrderedDict()
        """Those that wait by address, the address first whose turn is next."""
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Places that are taken in queues."""
        return sum(len(queue) for queue in self._queues.values())

    async def get(self, key: bytes, source: str, work: Callable[[], Awaitable[V]]) -> V:
        """The outcome of the work for ``key``. Raises :class:`TooMany`, and what the work raises."""
        piece = self._pieces.get(key)
        if piece is None:
            piece = _Piece(key, work)
            self._queue(source, piece)
            self._pieces[key] = piece
        elif piece.queued and source not in piece.queued and self._has_place(source):
            # Another address need not wait for the turn of the first.
            self._queue(source, piece)
        if piece.asking[source] >= _MOST_TOGETHER:
            raise TooMany
        piece.asking[source] += 1
        try:
            return await asyncio.shield(piece.outcome)
        finally:
            piece.asking[source] -= 1

    def cancel(self) -> None:
        """End all work."""
        for worker in tuple(self._workers):
            worker.cancel()
        for piece in self._pieces.values():
            piece.outcome.cancel()
        self._queues.clear()

    def _has_place(self, source: str) -> bool:
        return self.waiting < self._most or self._longest(source) is not None

    def _longest(self, source: str) -> str | None:
        """The address that has to give way to ``source``; ``None`` if that would be no fairer."""
        longest = max(self._queues, key=lambda one: len(self._queues[one]))
        return longest if len(self._queues[longest]) > len(self._queues.get(source, ())) + 1 else None

    def _queue(self, source: str, piece: _Piece[V]) -> None:
        if self.waiting >= self._most:
            longest = self._longest(source)
            if longest is None:
                raise TooMany
            self._send_away(longest)
        self._queues.setdefault(source, deque()).append(piece)
        piece.queued.add(source)
        if len(self._workers) < self._at_once:
            self._workers.add(asyncio.ensure_future(self._work()))

    def _send_away(self, source: str) -> None:
        piece = self._queues[source][-1]
        self._leave(source, piece)
        if not piece.queued:
            del self._pieces[piece.key]
            piece.outcome.set_exception(TooMany())
            piece.outcome.exception()  # or asyncio would complain where nobody waits any more

    def _leave(self, source: str, piece: _Piece[V]) -> None:
        queue = self._queues[source]
        queue.remove(piece)
        piece.queued.remove(source)
        if not queue:
            del self._queues[source]

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        try:
            while self._queues:
                seconds = self._rest()
                if seconds > 0:
                    await asyncio.sleep(seconds)
                if self._queues:
                    await self._do(self._next())
        finally:
            # Not by a callback, which comes later: what is queued meanwhile would have nobody to do it.
            self._workers.discard(worker)

    def _next(self) -> _Piece[V]:
        source, queue = next(iter(self._queues.items()))
        self._queues.move_to_end(source)
        piece = queue[0]
        for one in tuple(piece.queued):
            self._leave(one, piece)
        return piece

    async def _do(self, piece: _Piece[V]) -> None:
        try:
            outcome = await piece.work()
        except Exception as error:  # noqa: BLE001 - it is for those who asked
            if not piece.outcome.done():
                piece.outcome.set_exception(error)
                piece.outcome.exception()
        else:
            if not piece.outcome.done():
                piece.outcome.set_result(outcome)
        finally:
            self._pieces.pop(piece.key, None)
