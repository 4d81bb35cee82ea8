"""The kernel's own account of a pod, held against all that is known of it. Pure.

The pod's cgroup counts the CPU of all that is below it. What it used in a span is what its leaves, its sandbox and the
other cgroups in it used. When it used more, again and again while none of them came or went, something works in it that
is not known: a part is missing, whatever the cause.

A span is judged while the same cgroups are there: what ends takes with it what it used since its last reading, and what
comes and goes between two ticks is in no reading. The slack has three parts:

- A pod's file is read before its leaves' are. What these use in between is missing from the difference at that moment,
  and shows as growth if it was so at the span's beginning: at most the lag of the readings times the CPU at work.
- The kernel rounds each counter to microseconds and brings the time of a running task up to date at its ticks: 10 ms.
- A hundredth of what the pod used: far above what was seen on real nodes (docs/why-numbers-differ.md), and far below
  what would change what kubectl top prints by more than its own rounding of windows.

One growth is no proof, as a task may run in just that lag: it takes several within the span.
"""

from __future__ import annotations

from typing import Final

from collector.model import Growth, PodCgroup

SHORTEST_NS: Final = 5_000_000_000
"""A span is judged once it is this long: as long as the shortest that a rate is taken over."""

LONGEST_NS: Final = 15_000_000_000
"""A longer one is cut, so that a part that has come, or has gone again, shows within the window of the rates."""

LEAST_USEC: Final = 10_000
SHARE: Final = 0.01
GROWTHS: Final = 3
GROWTH_USEC: Final = 500
"""What a tick's growth must be to count: half a milliCPU at one tick a second."""


class _Mark:
    """A moment that a span is measured from."""

    __slots__ = ("growths", "lag_ns", "ns", "rest_usec", "used_usec")

    def __init__(self, ns: int, used_usec: int, rest_usec: int, lag_ns: int) -> None:
        self.ns = ns
        self.used_usec = used_usec
        self.rest_usec = rest_usec
        self.lag_ns = lag_ns
        self.growths = 0
        """Ticks since in which the rest grew."""


class Witness:
    """The differences of one pod, tick after tick."""

    __slots__ = ("_last_ns", "_last_usec", "_mark", "_next", "_others", "_who", "unaccounted")

    def __init__(self) -> None:
        self._who: object = None
        self._others: list[tuple[str, int]] = []
        self._mark: _Mark | None = None
        self._next: _Mark | None = None
        self._last_usec = 0
        self._last_ns = 0
        self.unaccounted: Growth | None = None
        """The last span that was judged, if the pod used more in it than is known. It stands until one shows better."""

    def see(self, cgroup: PodCgroup, who: object) -> None:
        """Take a tick in. ``who`` is the same object for as long as the same leaves are there."""
        used_usec = cgroup.reading.cpu_usage_usec
        if used_usec is None or cgroup.gone or cgroup.unread:
            self._mark = None
            return
        rest_usec, latest_ns, ns = used_usec, 0, cgroup.reading.monotonic_ns
        # A sandbox is read every few ticks: what it may have used since its last reading is not known in between.
        stale_ns, self._last_ns = (ns + self._last_ns) // 2, ns
        for leaf in cgroup.leaves:
            reading = leaf.reading
            part_usec = reading.cpu_usage_usec
            if part_usec is None:
                self._mark = None
                return
            if reading.monotonic_ns < stale_ns:
                return
            rest_usec -= part_usec
            if reading.monotonic_ns > latest_ns:
                latest_ns = reading.monotonic_ns
        if cgroup.others or self._others:
            others = [(other.path, other.ino) for other in cgroup.others]
            if others != self._others:
                self._others, self._mark = others, None
            for other in cgroup.others:
                if other.cpu_usage_usec is None:
                    self._mark = None
                    return
                rest_usec -= other.cpu_usage_usec
        mark = self._mark
        if mark is None or who is not self._who:
            self._who, self._next = who, None
            self._mark = _Mark(ns, used_usec, rest_usec, max(0, latest_ns - ns))
            self._last_usec = rest_usec
            return
        following = self._next
        if rest_usec - self._last_usec >= GROWTH_USEC:
            mark.growths += 1
            if following is not None:
                following.growths += 1
        self._last_usec = rest_usec
        span_ns = ns - mark.ns
        if span_ns >= SHORTEST_NS:
            self._judge(mark, Growth(span_ns, used_usec - mark.used_usec, rest_usec - mark.rest_usec))
            if following is None:
                self._next = _Mark(ns, used_usec, rest_usec, max(0, latest_ns - ns))
            elif span_ns >= LONGEST_NS:
                self._mark, self._next = following, _Mark(ns, used_usec, rest_usec, max(0, latest_ns - ns))

    def _judge(self, mark: _Mark, growth: Growth) -> None:
        lag_usec = mark.lag_ns / 1000 * max(1.0, growth.used_usec * 1000 / growth.span_ns)
        slack_usec = LEAST_USEC + SHARE * growth.used_usec + lag_usec
        missing = growth.unknown_usec > slack_usec and mark.growths >= GROWTHS
        self.unaccounted = growth if missing else None
