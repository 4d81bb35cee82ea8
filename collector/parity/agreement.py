"""How far podtally is from the kubelet, all the time: ``serve --verify-interval``. Pure but for its clock's age.

Once an interval the kubelet's ``/metrics/resource`` is asked for. Of each container the CPU between its sample in the
last answer and its sample in this one is held against ours over the same span, and the working set against ours at the
sample's time. Of our own readings less than a minute is kept: what the next comparison needs of them is noted at each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Final, NamedTuple

from collector.errors import AnswerError
from collector.metrics.account import KubeletAgreement
from collector.model import RESOURCE_PAGE, Answer, Tally
from collector.parity.peers import Sample, parse_resource
from collector.parity.readings import NS_PER_SECOND, Counted, Memory, Readings, cpu_between
from collector.parity.resource import Owner
from collector.parity.verification import LEAST, Quantity, allows

_KEEP_NS = 45 * NS_PER_SECOND
"""A sample of an idle container is up to 30 s old, and the answer may take 10 s."""

_STALE_INTERVALS = 3

_TOLERANCE = 0.1

LARGE: Final[dict[Quantity, float]] = {quantity: least / _TOLERANCE for quantity, least in LEAST.items()}
"""10m and 10Mi: below, kubectl top's last digit is more than a tenth."""

RESULTS = ("ok", "refused", "malformed")


class Mark(NamedTuple):
    """A sample of the kubelet's, and our counter at its time."""

    sample: Sample
    counted: Counted


class _Last(NamedTuple):
    """What the last comparison found."""

    compared: Counter[Quantity]
    outside: Counter[Quantity]
    differences: dict[Quantity, list[float]]
    """Of containers above :data:`LARGE`."""
    monotonic: float


class Agreement:
    """Compares each answer with the ticks around it. One thread observes, another asks for :meth:`now`."""

    def __init__(self, interval_seconds: float) -> None:
        self._interval_seconds = interval_seconds
        self._readings = Readings(_KEEP_NS)
        self._marks: dict[Owner, Mark] = {}
        self._pending: Answer | None = None
        self._results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._last: _Last | None = None

    def observe(self, tally: Tally, answers: Iterable[Answer]) -> None:
        """Take a tick in with the answers that came with it; compare when an answer can be."""
        self._readings.add_tally(tally)
        if self._pending is not None:
            # It came before this tick began: there are readings on either side of every sample in it.
            self._compare(self._pending)
            self._pending = None
        for answer in answers:
            if answer.name == RESOURCE_PAGE:
                if answer.body is None:
                    self._results["refused"] += 1
                else:
                    self._pending = answer

    def _compare(self, answer: Answer) -> None:
        try:
            samples = parse_resource((answer.body or b"").decode(errors="replace"))
        except AnswerError:
            self._results["malformed"] += 1
            return
        found = _Last(Counter(dict.fromkeys(LEAST, 0)), Counter(dict.fromkeys(LEAST, 0)), {}, time.monotonic())
        marks: dict[Owner, Mark] = {}
        for owner, sample in samples.items():
            if not owner.container:
                continue
            memory = self._readings.memory(owner, sample.time_ns, sample.time_ns)
            if isinstance(memory, Memory):
                moved = memory.ran or memory.least_bytes < memory.most_bytes
                _note(found, "memory", memory.nearest_bytes, sample.memory_bytes, excused=moved)
            counted = self._readings.counted(owner, sample.time_ns)
            if isinstance(counted, str):
                continue
            before = self._marks.get(owner)
            marks[owner] = Mark(sample, counted)
            if before is None or before.counted.identity != counted.identity:
                continue
            span_ns = sample.time_ns - before.sample.time_ns
            if span_ns <= 0:
                marks[owner] = before
                continue
            theirs = (sample.cpu_nanoseconds - before.sample.cpu_nanoseconds) / span_ns
            ours = cpu_between(before.counted, counted, span_ns)
            _note(found, "cpu", ours.cores, theirs, excused=allows(ours, theirs))
        self._marks = marks
        self._results["ok"] += 1
        # Published whole: the other thread sees these or the last ones.
        self._last = found

    def now(self) -> KubeletAgreement:
        """What the metrics show. Differences that are older than three intervals are not shown."""
        last = self._last
        age = None if last is None else time.monotonic() - last.monotonic
        shown = last if age is not None and age <= _STALE_INTERVALS * self._interval_seconds else None
        return KubeletAgreement(
            compared=dict(shown.compared.items()) if shown is not None else {},
            outside=dict(shown.outside.items()) if shown is not None else {},
            ratios={
                (quantity, statistic): of(values)
                for quantity, values in (shown.differences if shown is not None else {}).items()
                for statistic, of in (("median", median), ("worst", max))
            },
            results=dict(self._results),
            age_seconds=age,
        )


def _note(found: _Last, quantity: Quantity, ours: float, theirs: float, *, excused: bool) -> None:
    """Take a container's values in. ``excused``: our readings around the sample bear the difference out."""
    apart = abs(ours - theirs)
    found.compared[quantity] += 1
    found.outside[quantity] += apart > LEAST[quantity] and apart > _TOLERANCE * theirs and not excused
    if theirs > LARGE[quantity]:
        found.differences.setdefault(quantity, []).append(apart / theirs)
