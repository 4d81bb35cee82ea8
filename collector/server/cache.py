"""What was found out about a secret, kept for a while without the secret."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Digests:
    """Keys for secrets: keyed hashes, of no use outside of this process."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def of(self, *parts: bytes) -> bytes:
        """The key of some texts in this order."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()


class Expiring(Generic[V]):
    """At most ``most`` values, each for its own time; the one that was not asked for longest goes first."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._values: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: bytes) -> V | None:
        """The value, if it is there and its time is not over."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._values[key]
            return None
        self._values.move_to_end(key)
        return found[1]

    def drop(self, key: bytes) -> None:
        """Keep it no longer."""
        self._values.pop(key, None)

    def put(self, key: bytes, value: V, seconds: float) -> None:
        """Keep a value for so long."""
        self._values[key] = (self._clock() + seconds, value)
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)


class Shared(Generic[V]):
    """Work that is done once for all who ask for it meanwhile. One who goes away does not end it for the others."""

    def __init__(self) -> None:
        self._tasks: dict[bytes, asyncio.Task[V]] = {}

    async def get(self, key: bytes, work: Callable[[], Awaitable[V]]) -> V:
        """The outcome of the work for ``key``. Raises what the work raises."""
        task = self._tasks.get(key)
        if task is None:

            async def run() -> V:
                try:
                    return await work()
                finally:
                    del self._tasks[key]

            task = self._tasks[key] = asyncio.ensure_future(run())
        return await asyncio.shield(task)

    def cancel(self) -> None:
        """End all work."""
        for task in self._tasks.values():
            task.cancel()
