"""Kubernetes' quantities and Go's durations."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.upstream.quantity import duration_ns, quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("90437950n", Fraction(90437950, 10**9)),
        ("12u", Fraction(12, 10**6)),
        ("91m", Fraction(91, 1000)),
        ("3", 3),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("2.", 2),
        ("+7k", 7000),
        ("-1", -1),
        ("3145727", 3145727),
        ("388Ki", 388 << 10),
        ("1.5Gi", 3 << 29),
        ("2Ei", 2 << 60),
        ("12e3", 12000),
        ("12E-3", Fraction(12, 1000)),
        ("1E", 10**18),
    ],
)
def test_a_quantity_is_exact(text: str, value: int | Fraction) -> None:
    """All suffixes of the grammar, decimal, binary and exponents, give the very number."""
    assert quantity(text) == value


@pytest.mark.parametrize(
    "text", ["", "n", "1x", "1 m", "1ki", "0x1", "1e", "1e999999", "NaN", "1" * 41, None, 1, "\u0661"]
)
def test_what_is_no_quantity_is_refused(text: Any) -> None:
    """Another type, another grammar, and numbers that nobody means, are a ValueError."""
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("text", "value_ns"),
    [
        ("15.262s", 15_262_000_000),
        ("12s", 12_000_000_000),
        ("1m0s", 60_000_000_000),
        ("1m2.5s", 62_500_000_000),
        ("1h0m0s", 3_600_000_000_000),
        ("250ms", 250_000_000),
        ("1.5µs", 1_500),
        ("0s", 0),
    ],
)
def test_a_duration_is_gos(text: str, value_ns: int) -> None:
    """What time.Duration prints is read back."""
    assert duration_ns(text) == value_ns


@pytest.mark.parametrize("text", ["", "15", "-1s", "s", "1d", "1s1m", None, 15, "1.0000000001s"])
def test_what_is_no_duration_is_refused(text: Any) -> None:
    """Another type or grammar is a ValueError."""
    with pytest.raises(ValueError, match="is no duration"):
        duration_ns(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text gives anything but a number or a ValueError."""
    readers: tuple[Callable[[object], Fraction | int], ...] = (quantity, duration_ns)
    for read in readers:
        try:
            value = Fraction(read(text))
        except ValueError:
            continue
        assert abs(value) < 10**140
