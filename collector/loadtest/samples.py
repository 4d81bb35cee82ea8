"""Arithmetic over samples: grids, means, increases, rates by bucket. Pure; a gap stays a gap."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from collector.loadtest.model import Point, Series, Span, Track, Usage

DEFAULT_STEP_SECONDS = 5.0

_REACH = 1.5
"""In steps: how old the sample may be that stands for a moment. Scrapes are not to the millisecond."""

_MOST_CELLS = 1200


def step_of(series: Iterable[Series], span: Span) -> float:
    """The time from sample to sample, the median over all; longer where the span would have too many."""
    gaps = [later.time - earlier.time for one in series for earlier, later in pairwise(one.points)]
    found = median(gaps) if gaps else DEFAULT_STEP_SECONDS
    return max(round(found, 1), 0.1, span.seconds / _MOST_CELLS)


def coverage(series: Iterable[Series], span: Span, step: float) -> float:
    """The share of a span's steps in which there is a sample of any of the series.

    >>> one = Series("x", {}, tuple(Point(t, 1.0) for t in (0.0, 5.0, 15.0)))
    >>> coverage([one], Span(0.0, 20.0), 5.0)
    0.75
    """
    cells = max(1, round(span.seconds / step))
    times = sorted({point.time for one in series for point in one.points})
    found = 0
    for cell in range(cells):
        # Half a step early: the scrapes' own phase must not push every second sample over a border.
        begin, end = span.begin + (cell - 0.5) * step, span.begin + (cell + 1) * step
        at = bisect_left(times, begin)
        found += at < len(times) and times[at] < end
    return found / cells


def at(points: Sequence[Point], time: float, reach: float) -> float | None:
    """The newest value at a time, unless it is older than ``reach``."""
    index = bisect_right(points, time, key=lambda point: point.time) - 1
    if index < 0 or time - points[index].time >= reach:
        return None
    return points[index].value


def _on_grid(points: Sequence[Point], begin: float, step: float, cells: int) -> list[float | None]:
    return [at(points, begin + cell * step, _REACH * step) for cell in range(cells)]


def total(series: Sequence[Series], span: Span, step: float) -> Track:
    """The sum of series on a grid. Where a series has a gap between its samples, the sum has one too."""
    cells = math.floor(span.seconds / step) + 1
    sums: list[float | None] = [None] * cells
    gaps: set[int] = set()
    for one in series:
        if not one.points:
            continue
        first, last = one.points[0].time, one.points[-1].time
        for cell, value in enumerate(_on_grid(one.points, span.begin, step, cells)):
            if value is not None:
                sums[cell] = (sums[cell] or 0.0) + value
            elif first <= span.begin + cell * step <= last:
                gaps.add(cell)
    values = tuple(None if cell in gaps else value for cell, value in enumerate(sums))
    return Track(span.begin, step, values)


def number(series: Sequence[Series], span: Span, step: float) -> int:
    """The most of the series that have a sample at one time."""
    cells = math.floor(span.seconds / step) + 1
    grids = [_on_grid(one.points, span.begin, step, cells) for one in series]
    return max((sum(value is not None for value in cell) for cell in zip(*grids, strict=True)), default=0)


def within(track: Track, span: Span) -> list[float]:
    """The values of a span that are there."""
    return [point.value for point in track.points() if span.holds(point.time)]


def usage(track: Track, span: Span) -> Usage:
    """Mean and maximum over a span."""
    values = within(track, span)
    return Usage(sum(values) / len(values), max(values)) if values else Usage(None, None)


def increase(points: Sequence[Point], span: Span) -> float | None:
    """How much a counter grew in a span, from the last sample before it if there is one; ``None`` without two samples.

    A counter that falls has begun anew.

    >>> increase([Point(0, 5.0), Point(5, 7.0), Point(10, 1.0)], Span(1, 10))
    3.0
    """
    first = max(0, bisect_right(points, span.begin, key=lambda point: point.time) - 1)
    last = bisect_right(points, span.end, key=lambda point: point.time)
    taken = points[first:last]
    if len(taken) < 2:
        return None
    return sum(_grown(earlier.value, later.value) for earlier, later in pairwise(taken))


def _grown(earlier: float, later: float) -> float:
    return later - earlier if later >= earlier else later


def interpolated(points: Sequence[Point], time: float, widest: float) -> float | None:
    """The value at a time, on the line between the samples around it; ``None`` if they are too far apart.

    >>> interpolated([Point(0, 0.0), Point(10, 5.0)], 4.0, 15.0)
    2.0
    """
    after = bisect_left(points, time, key=lambda point: point.time)
    if after < len(points) and points[after].time == time:
        return points[after].value
    if not 0 < after < len(points):
        return None
    earlier, later = points[after - 1], points[after]
    if later.time - earlier.time > widest:
        return None
    share = (time - earlier.time) / (later.time - earlier.time)
    return earlier.value + share * (later.value - earlier.value)


def buckets(span: Span, seconds: float) -> list[Span]:
    """Whole buckets of a span."""
    count = math.floor(span.seconds / seconds)
    return [Span(span.begin + cell * seconds, span.begin + (cell + 1) * seconds) for cell in range(count)]


def growth(points: Sequence[Point], bucket: Span) -> tuple[float, float] | None:
    """Growth of a counter by the last samples of a bucket and of the one before, and the time between them."""
    end = bisect_right(points, bucket.end, key=lambda point: point.time) - 1
    begin = bisect_right(points, bucket.begin, key=lambda point: point.time) - 1
    if begin < 0:
        begin = 0
    if end <= begin:
        return None
    grown = sum(_grown(earlier.value, later.value) for earlier, later in pairwise(points[begin : end + 1]))
    return grown, points[end].time - points[begin].time


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value that a share of the values does not exceed.

    >>> percentile([4.0, 1.0, 2.0, 3.0], 0.5)
    2.0
    """
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
