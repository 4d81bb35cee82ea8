"""The text of expositions: numbers, labels and heads, in Prometheus' text format and in OpenMetrics.

The bytes are those of ``prometheus_client.generate_latest`` for the same samples, which a test holds; that function
takes 20 ms and more for 5,000 series, writing from prepared labels takes a tenth of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

MetricType = Literal["gauge", "counter", "summary"]

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def number(value: float) -> str:
    """``value`` as prometheus_client prints it: Go's shortest form, with an exponent from seven digits on.

    >>> number(0), number(12.5), number(8192000), number(0.000001)
    ('0.0', '12.5', '8.192e+06', '1e-06')
    """
    if value.__class__ is int and 0 <= value < 1_000_000_000_000_000:
        digits = str(value)
        if len(digits) <= 6:
            return digits + ".0"
        mantissa = f"{digits[0]}.{digits[1:]}".rstrip("0.")
        return f"{mantissa}e+{len(digits) - 1:02d}"
    value = float(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    digits = repr(value)
    dot = digits.find(".")
    if value > 0 and dot > 6:
        mantissa = f"{digits[0]}.{digits[1:dot]}{digits[dot + 1 :]}".rstrip("0.")
        return f"{mantissa}e+{dot - 1:02d}"
    return digits


def escape(value: str) -> str:
    """A label value, escaped."""
    return value.translate(_ESCAPES)


def labels(values: Mapping[str, str]) -> str:
    r"""``{a="1",b="2"}``, sorted by name; nothing for no labels.

    >>> print(labels({"pod": 'a"b', "namespace": "x"}))
    {namespace="x",pod="a\"b"}
    """
    if not values:
        return ""
    return "{" + ",".join(f'{name}="{escape(values[name])}"' for name in sorted(values)) + "}"


Pairs = tuple[tuple[str, str], ...]
"""Names and values of labels."""

_KEPT = 2048
"""Texts kept at the most of values, or of the labels of one item."""


class LabelTexts(dict[Pairs, str]):
    """The label texts of one item, by the labels that a series has beyond its own."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self._pairs = pairs

    def __missing__(self, extra: Pairs) -> str:
        if len(self) >= _KEPT:
            self.clear()
        found = self[extra] = labels(dict((*self._pairs, *extra)))
        return found


class Numbers(dict[float, str]):
    """Texts of values: zeros, limits and the memory of idle pods are the same from series to series, tick to tick."""

    def __missing__(self, value: float) -> str:
        if len(self) >= _KEPT:
            self.clear()
        found = self[value] = number(value)
        return found


def head(name: str, kind: MetricType, help_text: str, unit: str, *, openmetrics: bool) -> str:
    """The ``# HELP`` and ``# TYPE`` lines of a family; in OpenMetrics ``# UNIT`` too, and no ``_total``."""
    if not openmetrics:
        text = help_text.replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}"
    family = name.removesuffix("_total") if kind == "counter" else name
    lines = f"# HELP {family} {escape(help_text)}\n# TYPE {family} {kind}"
    return f"{lines}\n# UNIT {family} {unit}" if unit else lines


def milliseconds(time_ns: int) -> int:
    """The timestamp of the text format."""
    return time_ns // 1_000_000


def timestamp(time_ns: int, *, openmetrics: bool) -> str:
    """A sample's timestamp: whole milliseconds in the text format, seconds in OpenMetrics."""
    stamp_ms = milliseconds(time_ns)
    return f"{stamp_ms // 1000}.{stamp_ms % 1000:03d}" if openmetrics else str(stamp_ms)
