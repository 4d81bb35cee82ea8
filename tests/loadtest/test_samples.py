"""Arithmetic over samples: gaps stay gaps, counters that begin anew do not fall. All series here are made up."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.loadtest.model import Point, Series, Span, Track
from collector.loadtest.plot import byte_ticks, path, ticks
from collector.loadtest.samples import buckets, growth, increase, interpolated, number, step_of, total, usage

WHOLE = Span(0.0, 40.0)


def gauge(*values: float | None) -> Series:
    """A series with a sample each 5 s, or none."""
    return Series("x", {}, tuple(Point(5.0 * at, one) for at, one in enumerate(values) if one is not None))


def test_a_sum_adds_what_is_there_at_each_time() -> None:
    """A pod that comes later adds from then on, and takes nothing from what was before."""
    track = total([gauge(1, 1, 1, 1), gauge(None, None, 2, 2)], Span(0, 15), 5.0)

    assert track.values == (1, 1, 3, 3)


def test_a_gap_of_one_is_a_gap_of_the_sum() -> None:
    """What is not known of a part is not known of the whole."""
    track = total([gauge(1, 1, 1, 1, 1, 1), gauge(2, 2, None, None, None, 2)], Span(0, 25), 5.0)

    # A sample stands for one and a half steps.
    assert track.values == (3, 3, 3, None, None, 3)


def test_no_samples_are_no_usage() -> None:
    """The mean of nothing is not 0."""
    assert usage(Track(0, 5, (None, None)), WHOLE) == (None, None)


def test_scrapes_need_not_be_to_the_millisecond() -> None:
    """A sample that is a little late leaves no gap."""
    late = Series("x", {}, tuple(Point(5.0 * at + 0.3 * (at % 2), 1.0) for at in range(9)))

    assert None not in total([late], WHOLE, step_of([late], WHOLE)).values


def test_pods_are_counted_at_one_time() -> None:
    """A pod that replaced another is not a second one."""
    assert number([gauge(1, 1, 1), gauge(None, None, None, None, None, 1, 1)], WHOLE, 5.0) == 1


def test_a_counter_needs_two_samples_to_have_grown() -> None:
    """One sample says nothing about a span."""
    assert increase([Point(0, 5.0)], WHOLE) is None
    assert growth([Point(0, 5.0)], Span(0, 15)) is None


@given(st.lists(st.floats(0, 100), min_size=2, max_size=20))
def test_the_growth_of_buckets_is_the_growth_of_the_whole(steps: list[float]) -> None:
    """What a counter gained is in one bucket and in no other."""
    points, value = [], 0.0
    for at, step in enumerate(steps):
        value += step
        points.append(Point(5.0 * at, value))
    span = Span(0.0, 15.0 * math.ceil(len(points) / 3))

    grown = [found[0] for cell in buckets(span, 15.0) if (found := growth(points, cell)) is not None]

    assert sum(grown) == pytest.approx(increase(points, span))


def test_no_line_is_drawn_over_a_gap() -> None:
    """Samples that are too far apart have nothing between them."""
    assert interpolated([Point(0, 1.0), Point(60, 2.0)], 30.0, 15.0) is None
    assert path([(0, 1), None, (2, 1)]) == "M0 1h0M2 1h0"


@given(st.floats(1e-9, 1e12))
def test_the_axis_holds_the_greatest_value(most: float) -> None:
    """Its last mark is not below, and there are few marks."""
    for marks in (ticks(most), byte_ticks(most)):
        assert marks[-1] >= most * (1 - 1e-6)
        assert 2 <= len(marks) <= 6
