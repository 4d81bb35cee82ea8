"""Who asks for a page whose files nobody else needs: they are read while somebody does.

The server's thread asks and the tick's thread looks. Nothing is read at a request: who is the first to ask waits for
the next tick, which reads all of these files.
"""

from __future__ import annotations

LASTS_NS = 300_000_000_000
"""How long a page counts as asked for after a request: as long as Prometheus shows a sample that has no successor. Who
asks more seldom waits for a tick each time, and loses nothing."""


class Demand:
    """Whether a page is asked for now, and since when. All times are of one monotonic clock."""

    def __init__(self) -> None:
        self._span: tuple[int, int] | None = None
        """From the first request to when it counts no more, in one value as two threads see it."""

    def ask(self, now_ns: int) -> int:
        """Note a request; since when the page is asked for. A tick that began then or later has read its files."""
        since_ns = now_ns
        if self._span is not None and now_ns < self._span[1]:
            since_ns = self._span[0]
        self._span = (since_ns, now_ns + LASTS_NS)
        return since_ns

    def at(self, now_ns: int) -> bool:
        """Whether the page is asked for at ``now_ns``."""
        span = self._span
        return span is not None and now_ns < span[1]
