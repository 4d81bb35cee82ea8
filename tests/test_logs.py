"""The log is bounded: lines are cut, those of a kind are counted, and clients' nonsense has no traceback."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator

import pytest

from collector.errors import SourceError
from collector.logs import (
    ERROR_CHARACTERS,
    LINE_CHARACTERS,
    LINES_A_MINUTE,
    TRACEBACK_LINE_CHARACTERS,
    TRACEBACK_LINES,
    TRACEBACKS_A_MINUTE,
    BoundedHandler,
)
from collector.server.page import render
from tests.guards import Clock


class Log:
    """A bounded log in memory, with a clock and an alarm that the test sets."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.clock = Clock()
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.handler = BoundedHandler(
            self.stream, self.clock, lambda seconds, call: self.alarms.append((seconds, call))
        )
        self.handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.root = logging.Logger("root", logging.DEBUG)
        self.root.addHandler(self.handler)
        self.of = logging.Manager(self.root).getLogger  # type: ignore[arg-type]

    @property
    def lines(self) -> list[str]:
        """What was written."""
        return self.stream.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    """One."""
    one = Log()
    yield one
    one.handler.close()


def raised(error: Exception) -> Exception:
    """The error as it is once a library has raised it."""
    try:
        raise error
    except type(error) as caught:
        return caught


def raised_by_podtally() -> Exception:
    """What a defect of podtally raises: a page of nothing that is a tally."""
    try:
        render(object(), None, cadvisor=True)  # type: ignore[arg-type]
    except AttributeError as caught:
        return caught
    raise AssertionError


def test_what_a_client_sent_is_one_line(log: Log) -> None:
    """A library's traceback of it is left out: its first words stand in its place, cut."""
    error = raised(ValueError("Invalid header:\n\n  " + "x" * 8000))
    log.of("aiohttp.server").error("Error handling request from %s", "10.0.0.1", exc_info=error)

    said = "Invalid header: " + "x" * (ERROR_CHARACTERS - len("Invalid header:  ..."))
    assert log.lines == [f"aiohttp.server: Error handling request from 10.0.0.1: ValueError: {said} ..."]


def test_a_line_is_cut(log: Log) -> None:
    """Whoever's it is."""
    log.of("collector").warning("a tenant's %s", "x" * 8000)

    assert [(line[-5:], len(line)) for line in log.lines] == [("x ...", LINE_CHARACTERS)]


def test_a_flood_of_a_library_is_some_lines_a_minute(log: Log) -> None:
    """All its loggers together; how many were left out is told once the minute is over, by the next line if any."""
    for number in range(1000):
        log.of(("aiohttp.server", "aiohttp.access")[number % 2]).error("%d", number)
    log.of("asyncio").error("another")
    log.clock.seconds += 60
    log.of("asyncio").error("later")

    assert len(log.lines) == LINES_A_MINUTE + 3
    assert log.lines[LINES_A_MINUTE:] == [
        "asyncio: another",
        "collector.logs: lines of aiohttp left out within a minute: 980",
        "asyncio: later",
    ]


def test_what_was_left_out_is_told_without_a_further_line(log: Log) -> None:
    """One alarm at a time rings when the minute is over of the first kind of which something is to be told."""
    for _ in range(LINES_A_MINUTE + 2):
        log.of("aiohttp").error("x")
    log.clock.seconds += 10
    for _ in range(LINES_A_MINUTE + 3):
        log.of("asyncio").error("x")
    (first,) = log.alarms
    log.clock.seconds += 50
    first[1]()
    second = log.alarms[1]
    log.clock.seconds += 10
    second[1]()

    assert [first[0], second[0], len(log.alarms)] == [60, 10, 2]
    assert [line for line in log.lines if "left out" in line] == [
        "collector.logs: lines of aiohttp left out within a minute: 2",
        "collector.logs: lines of asyncio left out within a minute: 3",
    ]


def test_what_was_left_out_is_told_at_the_end(log: Log) -> None:
    """A program that ends within the minute tells of it as well."""
    for _ in range(LINES_A_MINUTE + 1):
        log.of("aiohttp").error("x")
    log.handler.close()

    assert log.lines[-1] == "collector.logs: lines of aiohttp left out within a minute: 1"


def test_own_lines_are_counted_by_their_text(log: Log) -> None:
    """Not by the values in it: a tenant's names cannot make kinds, and one kind does not hide another."""
    own = log.of("collector.pods.naming")
    for number in range(100):
        own.warning("%s does not name the pods", number)
        own.info("%s answers", number)
    log.clock.seconds += 60
    own.warning("the end")

    assert log.lines[2 * LINES_A_MINUTE :] == [
        "collector.logs: lines of collector.pods.naming like '%s does not name the pods' left out within a minute: 80",
        "collector.logs: lines of collector.pods.naming like '%s answers' left out within a minute: 80",
        "collector.pods.naming: the end",
    ]


def test_kinds_are_bounded() -> None:
    """Whoever would make ever new texts fills the kind that is for all others."""
    log = Log()
    for number in range(5000):
        log.of("collector").warning(f"text {number}")

    assert len(log.lines) == 500 + LINES_A_MINUTE
    log.handler.close()
    assert log.lines[-1] == "collector.logs: lines of others left out within a minute: 4480"


def test_a_defect_keeps_its_traceback(log: Log) -> None:
    """Also where a library tells of it, and while that library's lines are left out; so many a minute."""
    for _ in range(100):
        log.of("aiohttp.server").error("bad request", exc_info=raised(ValueError("x")))
    begun = len(log.lines)
    for _ in range(TRACEBACKS_A_MINUTE + 3):
        log.of("aiohttp.server").error("Error handling request", exc_info=raised_by_podtally())
    log.handler.close()

    text = "\n".join(log.lines[begun:])
    assert text.count("Traceback (most recent call last)") == TRACEBACKS_A_MINUTE
    assert text.count("server/page.py") >= TRACEBACKS_A_MINUTE
    assert "collector.logs: tracebacks of aiohttp.server left out within a minute: 3" in log.lines


@pytest.mark.parametrize("error", [ConnectionResetError("gone"), SourceError("x", 5)])
def test_an_error_of_the_connection_is_no_defect(log: Log, error: Exception) -> None:
    """Whoever's code it has passed through: a client that goes away is told of in a line; own loggers keep all."""
    log.of("asyncio").error("callback", exc_info=raised(error))
    log.of("collector.loop").error("a tick failed", exc_info=raised(error))

    assert log.lines[0].startswith(f"asyncio: callback: {type(error).__name__}: ")
    assert log.lines[1:3] == ["collector.loop: a tick failed", "Traceback (most recent call last):"]


def test_a_traceback_is_bounded(log: Log) -> None:
    """In lines and in their length, its first and its last are kept."""

    def deep(left: int) -> None:
        if left:
            (deep if left % 2 else deeper)(left - 1)
        raise ValueError("\n".join(str(number) for number in range(1000)) + "y" * 5000)

    def deeper(left: int) -> None:
        deep(left)

    try:
        deep(50)
    except ValueError as caught:
        log.of("collector").error("defect", exc_info=caught)

    assert (len(log.lines), log.lines[1]) == (TRACEBACK_LINES + 2, "Traceback (most recent call last):")
    assert len(log.lines[-1]) == TRACEBACK_LINE_CHARACTERS


def test_a_record_whose_values_do_not_fit_raises_nothing(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    """As with any handler of logging, who logs is not to fail by it."""
    log.of("aiohttp").error("%d", "x", exc_info=raised(ValueError("x")))

    assert "TypeError" in capsys.readouterr().err
