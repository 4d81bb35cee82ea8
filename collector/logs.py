"""The log on stderr, bounded: how long a line is, and how many lines of a kind a minute has.

Who reaches the port may write what he likes there, before anybody is asked for a password, and libraries log each of it
with a traceback. Tenants, kubelets and API servers can set off lines of podtally's own. So lines are of kinds: of a
library all are one, of podtally's own those of one text (before its values are put in), and defects are apart from the
rest of their logger. What is left out of a kind is counted, and told once a minute and at the end.
"""

from __future__ import annotations

import copy
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

from collector.printable import LogFormatter

LINES_A_MINUTE: Final = 20
"""Of a kind."""
TRACEBACKS_A_MINUTE: Final = 5
"""Of the defects that one logger tells of."""
LINE_CHARACTERS: Final = 1000
ERROR_CHARACTERS: Final = 200
"""Of what an error says that a client has set off, which repeats what he sent."""
TRACEBACK_LINES: Final = 40
TRACEBACK_LINE_CHARACTERS: Final = 300

_WINDOW_SECONDS: Final = 60.0
_MOST_KINDS: Final = 500
_OWN: Final = "collector"


class Kind(NamedTuple):
    """What lines are counted together."""

    logger: str
    text: str
    """Of podtally's own lines the text before its values are put in."""

    @property
    def lines(self) -> str:
        """What lines they are, for a sentence."""
        if self.text == _DEFECT:
            return f"tracebacks of {self.logger}"
        return f"lines of {self.logger} like {self.text!r}" if self.text else f"lines of {self.logger}"


_DEFECT: Final = "\0defect"
_OTHERS: Final = Kind("others", "")


@dataclass(slots=True)
class _Minute:
    ends: float
    lines: int = 0
    left_out: int = 0


class BoundedHandler(logging.StreamHandler[TextIO]):
    """Writes records as lines that are bounded in length and number."""

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        """``later`` calls something after so many seconds, from whatever thread."""
        super().__init__(stream)
        self._clock = clock
        self._later = later or _later
        self._minutes: dict[Kind, _Minute] = {}
        self._awaited = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, unless its kind has had its lines for this minute."""
        self.tell_left_out()
        defect = _is_defect(record)
        kind = _kind(record, defect=defect)
        if kind not in self._minutes and len(self._minutes) >= _MOST_KINDS:
            kind = _OTHERS
        minute = self._minutes.setdefault(kind, _Minute(self._clock() + _WINDOW_SECONDS))
        if minute.lines < (TRACEBACKS_A_MINUTE if defect else LINES_A_MINUTE):
            minute.lines += 1
            super().emit(record)
            return
        minute.left_out += 1
        self._await()

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback below it if it has one, cut to their bounds."""
        if not _is_defect(record):
            return _cut(super().format(_without_traceback(record)), LINE_CHARACTERS)
        line, *traceback = super().format(record).split("\n")
        if len(traceback) > TRACEBACK_LINES:
            head = TRACEBACK_LINES // 4
            left_out = f"  ... {len(traceback) - TRACEBACK_LINES} lines ..."
            traceback = [*traceback[:head], left_out, *traceback[head - TRACEBACK_LINES :]]
        return "\n".join((_cut(line, LINE_CHARACTERS), *(_cut(one, TRACEBACK_LINE_CHARACTERS) for one in traceback)))

    def tell_left_out(self, *, at_once: bool = False) -> None:
        """Tell of the kinds whose minute is over what was left out, or of all ``at_once``."""
        now = self._clock()
        over = [kind for kind, minute in self._minutes.items() if at_once or now >= minute.ends]
        for kind in over:
            left_out = self._minutes.pop(kind).left_out
            if left_out:
                told = (__name__, logging.WARNING, __file__, 0, "%s left out within a minute: %d")
                super().emit(logging.LogRecord(*told, (kind.lines, left_out), None))

    def close(self) -> None:
        """Tell of all that was left out."""
        self.acquire()
        try:
            self.tell_left_out(at_once=True)
        finally:
            self.release()
        super().close()

    def _time_is_over(self) -> None:
        self.acquire()
        try:
            self._awaited = False
            self.tell_left_out()
            self._await()
        finally:
            self.release()

    def _await(self) -> None:
        """Look again when the first minute is over of which something is to be told."""
        ends = min((minute.ends for minute in self._minutes.values() if minute.left_out), default=None)
        if ends is not None and not self._awaited:
            self._awaited = True
            self._later(max(0.0, ends - self._clock()), self._time_is_over)


def to_stderr(level: str) -> None:
    """Have everything logged on stderr."""
    handler = BoundedHandler(sys.stderr)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == _OWN


def _is_defect(record: logging.LogRecord) -> bool:
    """Whether it tells of an error of podtally's code: such a one keeps its traceback.

    Errors of the system and of TLS are what a client did, whoever's code they pass through.
    """
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return False
    if _is_own(record.name):
        return True
    if isinstance(error, OSError):
        return False
    traceback = error.__traceback__
    while traceback is not None:
        if _is_own(str(traceback.tb_frame.f_globals.get("__name__"))):
            return True
        traceback = traceback.tb_next
    return False


def _kind(record: logging.LogRecord, *, defect: bool) -> Kind:
    if defect:
        return Kind(record.name, _DEFECT)
    if _is_own(record.name):
        return Kind(record.name, str(record.msg))
    return Kind(record.name.partition(".")[0], "")


def _without_traceback(record: logging.LogRecord) -> logging.LogRecord:
    """The record with its error's first words in place of its traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None and not record.stack_info:
        return record
    record = copy.copy(record)
    if error is not None:
        words = _cut(" ".join(str(error).split()), ERROR_CHARACTERS)
        record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}: {words}", None
    record.exc_info = record.exc_text = record.stack_info = None
    return record


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."
