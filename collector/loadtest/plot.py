"""Lines over time as SVG that stands in an HTML page: no script, nothing fetched, colours by the page's style. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from collector.loadtest import words
from collector.loadtest.model import Span, Spans, Track
from collector.printable import as_html

WIDTH: Final = 760
HEIGHT: Final = 230
_LEFT: Final = 64
_RIGHT: Final = 12
_TOP: Final = 12
_BOTTOM: Final = 28

COLOURS: Final = 8
"""The page's style has as many, ``l0`` and on."""

SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 24
_SPARK_CELLS: Final = 60

_LEAST: Final = 1e-12
"""What is less is drawn as nothing: steps of it are no numbers."""


def ticks(most: float, count: int = 4) -> list[float]:
    """Round numbers from 0 on, the last not below ``most``.

    >>> ticks(163.0), ticks(0.0037)
    ([0.0, 50.0, 100.0, 150.0, 200.0], [0.0, 0.001, 0.002, 0.003, 0.004])
    """
    if most < _LEAST:
        return [0.0, 1.0]
    rough = most / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1.0, 2.0, 5.0, 10.0) if one * power >= rough * (1 - 1e-9))
    return [float(f"{number * step:.9g}") for number in range(math.ceil(most / step - 1e-9) + 1)]


def byte_ticks(most: float) -> list[float]:
    """The same in powers of two, so that they are whole Mi.

    >>> [one / 2**20 for one in byte_ticks(90 * 2**20)]
    [0.0, 32.0, 64.0, 96.0]
    """
    if most < _LEAST:
        return [0.0, float(1 << 20)]
    step = 2.0 ** math.ceil(math.log2(most / 4))
    return [number * step for number in range(math.ceil(most / step - 1e-9) + 1)]


def minutes(seconds: float) -> float:
    """A round time between two marks of the time axis.

    >>> minutes(1080), minutes(90)
    (120, 10)
    """
    return next(
        (one for one in (5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600) if seconds / one <= 10), seconds / 10
    )


def path(points: Sequence[tuple[float, float] | None]) -> str:
    """The path of a line with gaps; a point between two gaps is a dot.

    >>> path([(0, 1), (1, 2), None, (3, 4)])
    'M0 1L1 2M3 4h0'
    """
    parts: list[str] = []
    run: list[tuple[float, float]] = []
    for point in (*points, None):
        if point is not None:
            run.append(point)
        elif run:
            text = "L".join(f"{_short(x)} {_short(y)}" for x, y in run)
            parts.append(f"M{text}" + ("h0" if len(run) == 1 else ""))
            run = []
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def lines(
    title: str,
    shown: Sequence[tuple[str, Track]],
    spans: Spans,
    value: Callable[[float | None], str],
    marks: Callable[[float], list[float]] = ticks,
) -> str:
    """A plot of lines over the whole span, the load shaded."""
    whole = spans.whole
    most = max((one for _, track in shown for one in track.values if one is not None), default=0.0)
    levels = marks(most)

    def x(time: float) -> float:
        return _LEFT + (time - whole.begin) / (whole.seconds or 1.0) * (WIDTH - _LEFT - _RIGHT)

    def y(level: float) -> float:
        return HEIGHT - _BOTTOM - level / levels[-1] * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class=plot viewBox="0 0 {WIDTH} {HEIGHT}" role=img aria-label="{as_html(title)}">',
        _band(spans.during, x),
    ]
    for level in levels:
        at = _short(y(level))
        parts.append(f'<path class=grid d="M{_LEFT} {at}H{WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class=tick x="{_LEFT - 6}" y="{at}" dy=".35em" text-anchor=end>{as_html(value(level))}</text>'
        )
    parts += _times(spans, x)
    # The first is drawn last, over the others.
    for number, (name, track) in reversed(list(enumerate(shown))):
        points = [
            None if one is None else (x(track.begin + cell * track.step), y(one))
            for cell, one in enumerate(track.values)
        ]
        parts.append(f'<path class="line l{number % COLOURS}" d="{path(points)}"><title>{as_html(name)}</title></path>')
    parts.append("</svg>")
    return "".join(parts)


def _band(during: Span, x: Callable[[float], float]) -> str:
    left, right = x(during.begin), x(during.end)
    return (
        f'<rect class=load x="{_short(left)}" y="{_TOP}" width="{_short(right - left)}"'
        f' height="{HEIGHT - _TOP - _BOTTOM}"/>'
    )


def _times(spans: Spans, x: Callable[[float], float]) -> Iterator[str]:
    """Marks in minutes from the beginning of the load."""
    step, begin = minutes(spans.whole.seconds), spans.during.begin
    number = math.ceil((spans.whole.begin - begin) / step)
    while (time := begin + number * step) <= spans.whole.end:
        offset = number * step
        text = f"-{words.clock(-offset)}" if offset < 0 else words.clock(offset)
        yield (
            f'<text class=tick x="{_short(x(time))}" y="{HEIGHT - _BOTTOM + 16}" text-anchor=middle>{text}</text>'
            f'<path class=grid d="M{_short(x(time))} {HEIGHT - _BOTTOM}v4"/>'
        )
        number += 1


def _thinned(values: Sequence[float | None]) -> list[float | None]:
    """At most so many, the greatest of each few, so that a peak stays."""
    size = math.ceil(len(values) / _SPARK_CELLS)
    cells = [values[number : number + size] for number in range(0, len(values), size)]
    return [max((one for one in cell if one is not None), default=None) for cell in cells]


def spark(track: Track, spans: Spans) -> str:
    """A line in a row of a table, from 0 to its own peak."""
    values = _thinned(track.values)
    most = max((one for one in values if one is not None), default=0.0)
    most = most if most >= _LEAST else 1.0
    whole = spans.whole

    def x(time: float) -> float:
        return (time - whole.begin) / (whole.seconds or 1.0) * SPARK_WIDTH

    left, right = x(spans.during.begin), x(spans.during.end)
    step = SPARK_WIDTH / max(1, len(values) - 1)
    points = [
        None if one is None else (number * step, SPARK_HEIGHT - 1 - one / most * (SPARK_HEIGHT - 3))
        for number, one in enumerate(values)
    ]
    return (
        f'<svg class=spark viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden=true>'
        f'<rect class=load x="{_short(left)}" y="0" width="{_short(right - left)}" height="{SPARK_HEIGHT}"/>'
        f'<path class="line l0" d="{path(points)}"/></svg>'
    )
