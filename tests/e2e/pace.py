"""How fast the node is, and what follows: longer waits, fewer pods, and what is too slow to be judged.

A slow node makes no wrong number, but it makes samples late and questions fail: where that is so, nothing is said of
who is right. Only what came in time is held to be right or wrong. Pure, but for the file in which the pace is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.e2e.layout import RUN

WORK: Final = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"
"""A fixed piece of work for a shell."""
REFERENCE_SECONDS: Final = 1.0
"""What it takes on the node of docs/e2e.md, on which all waits were set: estimated, by how much longer than there the
node that it was first measured on took from power-on to ssh.
"""

TOO_SLOW: Final = "too slow to judge"
"""What the reason of a skipped test begins with."""
SLOW: Final = 1.4
"""From this pace on, too few values to compare are the machine's fault; below it, they are one of ours."""
LATE_SECONDS: Final = 5.0
"""A question that takes longer is of a node that lags; times the pace."""
MOST_LATE_SECONDS: Final = 10.0
"""Below what any question is given, so that one that is given up counts."""

STAMP_SECONDS: Final = 0.1
MOST_STAMP_SECONDS: Final = 1.0

_FILE: Final = RUN / "pace.json"


@dataclass(frozen=True)
class Pace:
    """How long the node takes for what takes a second on the node of docs/e2e.md."""

    factor: float = 1.0

    def seconds(self, seconds: float) -> float:
        """A wait that was set on that node; never a shorter one."""
        return seconds * max(1.0, self.factor)

    def pods(self, number: int, least: int = 1) -> int:
        """A number of pods that was set on that node; never more."""
        return min(number, max(least, round(number / max(1.0, self.factor))))

    @property
    def answer_seconds(self) -> float:
        """How long an answer may take."""
        return min(self.seconds(LATE_SECONDS), MOST_LATE_SECONDS)

    @property
    def late_seconds(self) -> float:
        """How much later than its reading the kubelet may stamp a sample: see docs/e2e.md, "Slow machines"."""
        return min(STAMP_SECONDS * max(1.0, self.factor), MOST_STAMP_SECONDS)

    @property
    def is_slow(self) -> bool:
        """Whether what is missing may be laid to the machine."""
        return self.factor >= SLOW

    def __str__(self) -> str:
        return f"the node takes {self.factor:.2f} times as long as that of docs/e2e.md"


def of_work(took_seconds: Iterable[float]) -> Pace:
    """The pace by some runs of :data:`WORK`: the middle one, as a burst of other work lengthens one or two."""
    took = sorted(took_seconds)
    return Pace(took[len(took) // 2] / REFERENCE_SECONDS)


def keep(pace: Pace) -> None:
    """Keep it for the commands that come after."""
    RUN.mkdir(parents=True, exist_ok=True)
    _FILE.write_text(json.dumps({"factor": pace.factor}))


def current() -> Pace:
    """The pace of the node that is up; before it is measured, that of docs/e2e.md."""
    try:
        return Pace(**json.loads(_FILE.read_text()))
    except FileNotFoundError:
        return Pace()


def forget() -> None:
    """Of a node that is down nothing is known."""
    _FILE.unlink(missing_ok=True)


@dataclass
class Lags:
    """Spans in which the node did not keep up, by the questions that it answered late, if at all.

    One that is refused at once is no lag, whatever it is.
    """

    late_seconds: float = LATE_SECONDS
    spans: list[tuple[float, float]] = field(default_factory=list)

    def asked(self, began: float, ended: float) -> None:
        """Take a question in, by the times at which it was asked and answered, or given up."""
        if ended - began > self.late_seconds:
            self.spans.append((began, ended))

    def touch(self, moment: float) -> bool:
        """Whether a moment lies in such a span, or as near to it as a sample is to the question that it is seen by."""
        return any(began - NEAR_SECONDS <= moment <= ended + NEAR_SECONDS for began, ended in self.spans)


NEAR_SECONDS: Final = 2.0


def enough(compared: int, wanted: int, pace: Pace, lags: int, skip: Callable[[str], object]) -> None:
    """Ask for enough to compare: with less, a slow machine skips the test and any other fails it."""
    if compared >= wanted:
        return
    told = f"{compared} values of {wanted} that are wanted; {pace}, and lagged {lags} times"
    if pace.is_slow or lags:
        skip(f"{TOO_SLOW}: {told}")
    raise AssertionError(f"there is too little to compare: {told}")
