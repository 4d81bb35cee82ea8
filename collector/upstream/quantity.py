"""Kubernetes' quantities and Go's durations, as the metrics API writes them. Exact: no float on the way.

Grammar: ``k8s.io/apimachinery/pkg/api/resource`` (``Quantity``), Go's ``time.Duration.String``.
"""

from __future__ import annotations

import re
from fractions import Fraction

_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2}|)"
)

_UNITS = {
    **{suffix: Fraction(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", "k", *"MGTPE"), -3)},
    **{f"{prefix}i": Fraction(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
}

_DURATION = re.compile(r"(?:([0-9]{1,7})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,12}(?:\.[0-9]{1,9})?)s)?")
_SHORT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|µs|us|ns)")
_SHORT_NS = {"ms": 1_000_000, "µs": 1_000, "us": 1_000, "ns": 1}


def quantity(text: object) -> Fraction:
    """The value of a quantity. Raises ``ValueError`` if it is none.

    >>> quantity("90437950n") * 10**9, quantity("388Ki"), quantity("1.5"), quantity("12e3")
    (Fraction(90437950, 1), Fraction(397312, 1), Fraction(3, 2), Fraction(12000, 1))
    """
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix = Fraction(found[1]), found[2]
    unit = _UNITS.get(suffix)
    return number * (Fraction(10) ** int(suffix[1:]) if unit is None else unit)


def duration_ns(text: object) -> int:
    """Nanoseconds of a duration, cut. Raises ``ValueError`` if it is none.

    >>> duration_ns("15.262s"), duration_ns("1m0.5s"), duration_ns("1h0m0s"), duration_ns("500ms")
    (15262000000, 60500000000, 3600000000000, 500000000)
    """
    if isinstance(text, str) and (short := _SHORT.fullmatch(text)):
        return int(Fraction(short[1]) * _SHORT_NS[short[2]])
    found = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if found is None:
        raise ValueError(f"{text!r} is no duration")
    hours, minutes, seconds = (Fraction(part or 0) for part in found.groups())
    return int((hours * 3600 + minutes * 60 + seconds) * 1_000_000_000)
