"""Which service had enough first, and by what sign. Pure.

Looked at are the cgroups of each pod, its own and its containers', in buckets of 15 s. A sign counts when it holds in
two successive buckets; a kill counts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from collector.loadtest.model import Point, Signal, SignalName, Span
from collector.loadtest.samples import buckets, growth

BUCKET_SECONDS: Final = 15.0
"""The window of ``kubectl top``'s CPU."""
LASTING_BUCKETS: Final = 2

LEAST: Final[Mapping[SignalName, float]] = {
    "oom": 1.0,
    "memory-limit": 0.95,
    "throttling": 0.25,
    "cpu-limit": 0.95,
    "memory-pressure": 0.1,
    "cpu-pressure": 0.5,
    "io-pressure": 0.5,
}
"""From which share on a sign is one: of the limit, of the periods (as the mixin's CPUThrottlingHigh has it) or of time.

The order is that of gravity: of two signs in one bucket the earlier here is named.
"""

GRAVITY: Final = tuple(LEAST)


class Cgroup(NamedTuple):
    """What Prometheus has of a pod's cgroup or of one of its containers'. Empty: nothing."""

    pod: str
    container: str | None
    families: Mapping[str, tuple[Point, ...]]
    """Without the prefix ``pod_cgroup_`` or ``pod_container_``."""

    def of(self, family: str) -> tuple[Point, ...]:
        """The samples of a family."""
        return self.families.get(family, ())

    def last(self, family: str) -> float | None:
        """The newest value of a family."""
        points = self.of(family)
        return points[-1].value if points else None


Measure = Callable[[Cgroup, Span], float | None]


def _throttled(cgroup: Cgroup, bucket: Span) -> float | None:
    throttled = growth(cgroup.of("cpu_throttled_periods_total"), bucket)
    periods = growth(cgroup.of("cpu_periods_total"), bucket)
    if throttled is None or periods is None:
        return None
    # Who asks for no CPU has no periods.
    return throttled[0] / periods[0] if periods[0] else 0.0


def _share_of_time(family: str) -> Measure:
    def measure(cgroup: Cgroup, bucket: Span) -> float | None:
        grown = growth(cgroup.of(family), bucket)
        return min(1.0, grown[0] / grown[1]) if grown is not None else None

    return measure


def _at_cpu_limit(cgroup: Cgroup, bucket: Span) -> float | None:
    limit, used = cgroup.last("cpu_limit_cores"), growth(cgroup.of("cpu_usage_seconds_total"), bucket)
    return used[0] / used[1] / limit if limit and used is not None else None


def _at_memory_limit(cgroup: Cgroup, bucket: Span) -> float | None:
    limit = cgroup.last("memory_limit_bytes")
    values = [point.value for point in cgroup.of("memory_working_set_bytes") if bucket.holds(point.time)]
    return max(values) / limit if limit and values else None


def _killed(cgroup: Cgroup, bucket: Span) -> float | None:
    grown = growth(cgroup.of("oom_kills_total"), bucket)
    return grown[0] if grown is not None else None


MEASURES: Final[Mapping[SignalName, Measure]] = {
    "oom": _killed,
    "memory-limit": _at_memory_limit,
    "throttling": _throttled,
    "cpu-limit": _at_cpu_limit,
    "memory-pressure": _share_of_time("memory_pressure_seconds_total"),
    "cpu-pressure": _share_of_time("cpu_pressure_seconds_total"),
    "io-pressure": _share_of_time("io_pressure_seconds_total"),
}

_LIMITS: Final[Mapping[SignalName, str]] = {
    "memory-limit": "memory_limit_bytes",
    "oom": "memory_limit_bytes",
    "throttling": "cpu_limit_cores",
    "cpu-limit": "cpu_limit_cores",
}


def signals(cgroup: Cgroup, span: Span) -> list[Signal]:
    """The signs of a cgroup that lasted in a span."""
    cells = buckets(span, BUCKET_SECONDS)
    found = []
    for name, measure in MEASURES.items():
        shares = [measure(cgroup, cell) for cell in cells]
        lasting = 1 if name == "oom" else LASTING_BUCKETS
        begin = _begin(shares, LEAST[name], lasting)
        if begin is None:
            continue
        rest = [share for share in shares[begin:] if share is not None]
        share = sum(rest) if name == "oom" else sum(rest) / len(rest)
        limit = cgroup.last(_LIMITS[name]) if name in _LIMITS else None
        found.append(Signal(name, cgroup.pod, cgroup.container, begin * BUCKET_SECONDS, share, limit))
    return found


def _begin(shares: list[float | None], least: float, lasting: int) -> int | None:
    held = 0
    for cell, share in enumerate(shares):
        held = held + 1 if share is not None and share >= least else 0
        if held == lasting:
            return cell - lasting + 1
    return None


def rank(signal: Signal) -> tuple[float, int, float]:
    """The earliest first, of those the gravest, of those the greatest."""
    return signal.since_seconds, GRAVITY.index(signal.name), -signal.share
