"""Our counters against the metrics API, container by container, each over the very span that the API's value is of."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from tests.e2e.observing import Container, Top, Track

MIB = 1 << 20


class Row(NamedTuple):
    """One value of the metrics API and ours over the same span."""

    container: Container
    theirs_millicores: float
    ours_millicores: float
    memory_agrees: bool
    possible: bool
    """Whether theirs lies within what our readings on either side of the span's ends allow: what is left is where in
    a second the CPU was used, and a straight line between two readings cannot know that."""

    @property
    def difference(self) -> float:
        """Of the CPU, as a share of theirs."""
        return abs(self.ours_millicores / self.theirs_millicores - 1) if self.theirs_millicores else 0.0


def spans(top: Top, kubelet: Track) -> Iterable[tuple[float, float, float]]:
    """The pairs of the kubelet's samples that give the API's value to the nanocore, with the memory of the later one.

    metrics-server computes from two samples of the container and tells one timestamp a pod, cut to seconds. The rate
    says which two: whoever asked the kubelet often enough has them, with their milliseconds.
    """
    known = kubelet.samples.get(top.container, [])
    for later in range(len(known) - 1, 0, -1):
        for earlier in range(later - 1, max(-1, later - 6), -1):
            a, b = known[earlier], known[later]
            span = b.time_seconds - a.time_seconds
            if a.start_seconds != b.start_seconds or abs(span - top.window_seconds) > 15:
                continue
            rate = (b.cpu_seconds - a.cpu_seconds) / span * 1000
            if abs(rate - top.cpu_millicores) <= 2e-6 + 1e-7 * rate and b.memory_bytes == top.memory_bytes:
                yield a.time_seconds, b.time_seconds, b.memory_bytes


def compare(answers: Iterable[Top], ours: Track, kubelet: Track) -> tuple[list[Row], int]:
    """A row for each value whose span is known, and the number of those whose span is not."""
    rows: list[Row] = []
    unknown = 0
    seen: set[tuple[Container, float, float]] = set()
    for top in answers:
        span = next(iter(spans(top, kubelet)), None)
        if span is None:
            unknown += 1
            continue
        begin, end, memory = span
        if (top.container, begin, end) in seen:
            continue
        before, after = ours.cpu_at(top.container, begin), ours.cpu_at(top.container, end)
        near = ours.memory_between(top.container, end)
        around = ours.cpu_around(top.container, begin), ours.cpu_around(top.container, end)
        if before is None or after is None or near is None or around[0] is None or around[1] is None:
            continue
        seen.add((top.container, begin, end))
        slack = max(MIB, memory * 0.01)
        agrees = near[0] - slack <= memory <= near[1] + slack
        least, most = around[1][0] - around[0][1], around[1][1] - around[0][0]
        possible = least <= top.cpu_millicores / 1000 * (end - begin) + 1e-6 and (
            top.cpu_millicores / 1000 * (end - begin) <= most + 1e-6
        )
        mine = (after - before) / (end - begin) * 1000
        rows.append(Row(top.container, top.cpu_millicores, mine, agrees, possible))
    return rows, unknown


def by_pod(rows: Iterable[Row]) -> list[tuple[Container, int, float, float, float, float, int]]:
    """A container each: comparisons, mean of theirs and ours, median and worst difference, memory disagreements."""
    groups: dict[Container, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.container, []).append(row)
    return [
        (
            key,
            len(found),
            sum(r.theirs_millicores for r in found) / len(found),
            sum(r.ours_millicores for r in found) / len(found),
            median(r.difference for r in found) * 100,
            max(r.difference for r in found) * 100,
            sum(not r.memory_agrees for r in found),
        )
        for key, found in sorted(groups.items())
    ]
