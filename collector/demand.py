"""Who asks for a page whose files nobody else needs: they are read while somebody does.

The server's thread asks and the tick's thread looks. Nothing is read at a request: who is the first to ask waits for
the next tick, which reads all of these files.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LASTS_NS = 300_000_000_000
"""How long a page counts as asked for after a request: as long as Prometheus shows a sample that has no successor. Who
asks more seldom waits for a tick each time, and loses nothing."""


class Demand:
    """Whether a page is asked for now, and since when."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """``clock``: the monotonic one that ticks tell their beginning by."""
        self._clock = clock
        self._span: tuple[int, int] | None = None
        """From the first request to when it counts no more, in one value as two threads see it."""

    def ask(self) -> int:
        """Note a request; since when the page is asked for. A tick that began then or later has read its files."""
        now_ns = self._clock()
        until_ns = now_ns + LASTS_NS
        if self._span is not None and now_ns < self._span[1]:
            since_ns = self._span[0]
        else:
            # Timed after it is told: a tick that looked in between must not count as one that knew.
            self._span = (now_ns, until_ns)
            since_ns = self._clock()
        self._span = (since_ns, until_ns)
        return since_ns

    def at(self, now_ns: int) -> bool:
        """Whether the page is asked for at ``now_ns``."""
        span = self._span
        return span is not None and now_ns < span[1]
