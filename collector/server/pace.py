"""How fast clients may set off what costs something: so many an interval, or a share of one core."""

from __future__ import annotations

import time
from collections.abc import Callable

from collector.server.webconfig import RateLimit


class Bucket:
    """A token bucket: one an interval, so many at once."""

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._left = float(limit.burst)
        self._filled = clock()

    def take(self) -> bool:
        """Whether there is one for this request."""
        self._fill()
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def reserve(self) -> float:
        """Take one, and say in how many seconds it is there."""
        self._fill()
        self._left -= 1
        return max(0.0, -self._left * self.limit.interval_seconds)

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self.limit.burst, self._left + (now - self._filled) / self.limit.interval_seconds)
        self._filled = now


class Share:
    """A share of one core: after each piece of work a rest, the longer the more it took."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest_per_second = 1 / share - 1
        self._clock = clock
        self._rested = clock()

    def used(self, cpu_seconds: float) -> None:
        """A piece of work that took so long has ended now."""
        self._rested = self._clock() + cpu_seconds * self._rest_per_second

    def rest(self) -> float:
        """In how many seconds the next may begin."""
        return max(0.0, self._rested - self._clock())
