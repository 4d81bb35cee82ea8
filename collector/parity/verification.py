"""``podtally verify``: our numbers against the peers', by pod and by container, over the same window. Pure.

Ticks and answers go in as they come, live or from a recording; out come rows. A peer's value is held against our
readings over the very span that it is of, where that is known, and each difference is told in words that numbers bear
out: a reason is given only where our readings show that it makes the difference up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from collector.errors import AnswerError
from collector.model import LASTING, MEANINGS, METRICS_API, RESOURCE_PAGE, STATS_SUMMARY, Answer, Reason, Tally
from collector.parity.peers import (
    PodUsage,
    Sample,
    Samples,
    Span,
    SummaryUsage,
    one_life,
    parse_pod_metrics,
    parse_resource,
    parse_summary,
)
from collector.parity.readings import NS_PER_SECOND, SANDBOX, Cpu, Memory, Point, Readings, Unread
from collector.parity.resource import Owner

Source = Literal["metrics-api", "summary", "resource"]
Quantity = Literal["cpu", "memory"]
Window = Literal["exact", "window-unknown"]
Verdict = Literal["agree", "explained", "outside", "not-comparable"]

ANSWERS: Final[dict[str, Source]] = {
    METRICS_API: "metrics-api",
    STATS_SUMMARY: "summary",
    RESOURCE_PAGE: "resource",
}
"""The answers that are compared with, by the path that they have in a recording."""

PEERS: Final[dict[Source, str]] = {
    "metrics-api": "the metrics API",
    "summary": "the kubelet's /stats/summary",
    "resource": "the kubelet's /metrics/resource",
}

MEBIBYTE: Final = 1 << 20
LEAST: Final[dict[Quantity, float]] = {"cpu": 0.001, "memory": MEBIBYTE}
"""1m and 1Mi, the last digits that kubectl top prints: values no further apart agree."""

NOTED: Final = 0.05
"""A relative difference above it is given its reason, whatever the tolerance."""

REASONS: Final[dict[str, str]] = {
    "rounding": "Less than 1m or 1Mi apart, the last digit that kubectl top prints.",
    "between ticks": "Where in a second the CPU was used cannot be known from readings a second apart: theirs lies"
    " within what our readings on either side of both ends of the window allow.",
    "other window": "The peer tells neither begin nor end of this container's own window: theirs is what ours is over"
    " windows near the one it tells.",
    "moved": "The working set changed between our readings around the sample, and theirs lies within.",
    "ran": "Our readings around the sample are equal, but CPU was used between them: something ran, took memory and"
    " gave it back.",
    "whole pod": "The kubelet's number is of the pod's whole cgroup: with its sandbox, memory-backed volumes, and what"
    " containers left that have ended. kubectl top adds up running containers. Our reading of the whole cgroup agrees.",
    "containers": "The difference is that of the pod's containers, whose rows give their reasons.",
    "left out": "The metrics API leaves the pod or one of its containers out.",
    "withheld": "podtally withholds the pod's sum, as a part of it is not known.",
    "filled": "The pod's numbers are the kubelet's own, which --fill-from has it take: there is nothing to compare.",
    "older": "It begins before our first reading.",
    "newer": "It ends after our last reading.",
    "restarted": "A container began or ended within the window.",
    "unread": "podtally has no reading of it.",
    "not found": "Nothing that podtally knows of explains it.",
}
"""What the first words of a row's reason mean."""

_UNREAD_TEXT: Final[dict[Unread, str]] = {
    "older": "older: the sample's window begins before our first reading",
    "newer": "newer: the sample's window ends after our last reading",
    "restarted": "restarted: another container had the name within the window",
    "unread": "unread: podtally has no reading of it",
}


class Row(NamedTuple):
    """One value of a peer's, and ours over the same window."""

    namespace: str
    pod: str
    container: str | None
    """``None`` on rows of pods."""
    source: Source
    quantity: Quantity
    ours: float | None
    """Cores or bytes; of a pod, the sum of its containers, as kubectl top has it."""
    theirs: float | None
    window: Window
    verdict: Verdict
    reason: str
    """Begins with one of :data:`REASONS`; empty where nothing is to be said."""
    begin_ns: int | None
    end_ns: int
    """The window; of memory, the moment alone."""

    @property
    def ratio(self) -> float | None:
        """Ours by theirs; ``None`` where theirs is 0."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def difference(self) -> float | None:
        """The difference as a share of theirs; ``None`` where there is no ratio."""
        return abs(self.ours - self.theirs) / self.theirs if self.ours is not None and self.theirs else None


class _Compared(NamedTuple):
    """What became of a comparison."""

    ours: float | None
    verdict: Verdict
    reason: str


class _Told(NamedTuple):
    """What a peer tells of a window that is not known."""

    end_ns: int
    latest_end_ns: int
    lengths_ns: tuple[int, ...]
    """The likeliest first."""

    @property
    def likeliest(self) -> Span:
        """The best guess."""
        # A time cut to whole seconds is half of one too early, in the mean.
        end_ns = self.end_ns + min(NS_PER_SECOND, self.latest_end_ns - self.end_ns) // 2
        return Span(end_ns - self.lengths_ns[0], end_ns)


class Refusal(NamedTuple):
    """A peer that gave nothing to compare with."""

    source: Source
    status: int | None
    error: str


class _Top(NamedTuple):
    usage: PodUsage
    answered_ns: int


class _Absence(NamedTuple):
    """A running pod that answers of the metrics API lack, one after the other."""

    pod: Owner
    answered_ns: int
    """When the last of them came."""
    lost_ns: int | None
    """When an answer last lacked all pods of the node, up to then."""


class Verification:
    """Takes ticks and answers in, and compares. Not thread-safe."""

    def __init__(self, tolerance: float, keep_seconds: float | None = None, late_seconds: float = 0.0) -> None:
        """``tolerance`` is a relative difference, as 0.1. ``keep_seconds``: how long readings and values are kept, so
        that a comparison can go on for days; for ever if ``None``. ``late_seconds``: how late a machine that lags may
        make the kubelet stamp what it has read, beyond the clocks' slack.
        """
        self.tolerance = tolerance
        self._keep_ns = None if keep_seconds is None else round(keep_seconds * NS_PER_SECOND)
        self.readings = Readings(self._keep_ns, round(late_seconds * NS_PER_SECOND))
        self.samples = Samples()
        self.answered: set[Source] = set()
        """Peers that have given an answer that can be read."""
        self.our_failure: str | None = None
        """Why podtally's own page could not be had last, where readings are taken from it."""
        self._refusals: dict[Source, Refusal] = {}
        self._filled: dict[str, set[Owner]] = {}
        """By node, where readings are taken from pages."""
        self._tops: dict[tuple[object, ...], _Top] = {}
        self._summaries: dict[SummaryUsage, None] = {}
        self._absences: list[_Absence] = []
        self._absent: dict[Owner, int] = {}
        """Pods that the last answer lacks, and where their absence stands."""
        self._lost_ns: int | None = None
        """When an answer last lacked all pods of the node."""

    # --- what goes in

    def add_tally(self, tally: Tally) -> None:
        """A tick."""
        self.readings.add_tally(tally)

    def add_our_page(self, page: str) -> None:
        """A page of a running podtally's ``/metrics/resource``, in place of a tick; one that is none is passed over."""
        try:
            samples = parse_resource(page)
        except AnswerError as error:
            self.our_failure = str(error)
            return
        self.our_failure = None
        for owner, sample in samples.items():
            if owner._replace(container="") in self.readings.filled:
                continue
            identity = f"{owner} {sample.started_ns}" if owner.container else f"{owner}"
            point = Point(sample.time_ns, sample.cpu_nanoseconds // 1000, sample.memory_bytes)
            self.readings.add(owner, identity, sample.started_ns, point)
        self.readings.end_page()

    def add_our_pods(self, body: str) -> None:
        """A running podtally's ``/api/v1/pods``, which says what of its page is filled; one that is none is passed
        over.
        """
        try:
            document = json.loads(body)
            source = document.get("source")
            filled = {
                Owner(pod["namespace"], pod["name"], "")
                for pod in document["pods"]
                if pod.get("source", source) != source
            }
            self._filled[document["node"]] = filled
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        self.readings.filled = set().union(*self._filled.values())

    def add_answer(self, answer: Answer) -> None:
        """An answer of a peer's, or its refusal; others are passed over."""
        source = ANSWERS.get(answer.name)
        if source is None:
            return
        if answer.body is None:
            self._refusals[source] = Refusal(source, answer.status, answer.error or "no answer")
            return
        try:
            if source == "metrics-api":
                self._add_tops(parse_pod_metrics(answer.body), answer.time_ns)
            elif source == "summary":
                self._summaries.update(dict.fromkeys(parse_summary(answer.body)))
            else:
                self.samples.add_page(answer.body.decode(errors="replace"))
        except AnswerError as error:
            self._refusals[source] = Refusal(source, answer.status, str(error))
            return
        self.answered.add(source)
        if self._keep_ns is not None:
            self._forget(self.readings.last_ns - self._keep_ns)

    def _forget(self, oldest_ns: int) -> None:
        """Drop what is older. A value is compared with readings from before it: those are kept as long."""
        self.samples.forget(oldest_ns)
        self._tops = {key: top for key, top in self._tops.items() if top.usage.time_ns >= oldest_ns}
        self._summaries = {usage: None for usage in self._summaries if usage.time_ns >= oldest_ns}
        if not self._absent:
            self._absences.clear()

    def _add_tops(self, usages: list[PodUsage], answered_ns: int) -> None:
        for usage in usages:
            key = (usage.owner, usage.time_ns, usage.window_ns, tuple(usage.containers.items()))
            self._tops.setdefault(key, _Top(usage, answered_ns))
        shown = {usage.owner for usage in usages}
        running = self.readings.running.keys()
        if running and not running & shown:
            self._lost_ns = answered_ns
        for pod in sorted(running - shown):
            absence = _Absence(pod, answered_ns, self._lost_ns)
            if pod in self._absent:
                self._absences[self._absent[pod]] = absence
            else:
                self._absent[pod] = len(self._absences)
                self._absences.append(absence)
        self._absent = {pod: at for pod, at in self._absent.items() if pod in running - shown}

    @property
    def settled(self) -> bool:
        """True if every peer has answered or refused to."""
        return self.answered | self._refusals.keys() == set(PEERS)

    @property
    def refusals(self) -> list[Refusal]:
        """Peers that have given nothing, and why."""
        return [refusal for source, refusal in self._refusals.items() if source not in self.answered]

    # --- what comes out

    def rows(self) -> list[Row]:
        """Every value of every peer once, by pod, container, peer and time."""
        every = (*self._of_metrics_api(), *self._of_resource(), *self._of_summary(), *self._of_absences())
        found = [self._without_filled(row) for row in every]
        sources = list(PEERS)
        return sorted(
            found,
            key=lambda row: (
                row.namespace,
                row.pod,
                row.container or "",
                sources.index(row.source),
                row.quantity,
                row.end_ns,
            ),
        )

    def _without_filled(self, row: Row) -> Row:
        """The row, without ours where that is not our own."""
        if Owner(row.namespace, row.pod, "") not in self.readings.filled:
            return row
        return row._replace(ours=None, verdict="not-comparable", reason="filled: its numbers are the kubelet's own")

    def waited_for(self, rows: Iterable[Row]) -> int:
        """How many running containers have nothing comparable yet of a peer that answers."""
        compared = {
            (row.namespace, row.pod, row.container, row.source)
            for row in rows
            if row.quantity == "cpu" and row.verdict != "not-comparable"
        }
        return sum(
            (pod.namespace, pod.pod, name, source) not in compared
            for pod, names in self.readings.running.items()
            for name in names
            for source in self.answered
            if not (source == "metrics-api" and pod in self._absent)
        )

    # --- the metrics API

    def _of_metrics_api(self) -> Iterator[Row]:
        for top in self._tops.values():
            usage = top.usage
            owners = [usage.owner._replace(container=name) for name in ("", *usage.containers)]
            if usage.owner not in self.readings.filled and not any(map(self.readings.knows, owners)):
                continue  # of another node
            parts: dict[Quantity, list[Row]] = {"cpu": [], "memory": []}
            for name, values in usage.containers.items():
                owner = usage.owner._replace(container=name)
                span = self.samples.span_of_rate(
                    owner,
                    values.cpu_nanocores,
                    _sampled(usage.time_ns, top.answered_ns, values.memory_bytes),
                )
                # Time and window are those of the container that was sampled first.
                alone = len(usage.containers) == 1
                latest_ns = usage.time_ns + NS_PER_SECOND if alone else max(top.answered_ns, usage.time_ns)
                lengths = (usage.window_ns, *(() if alone else _WINDOWS_NS))
                told = span or _Told(usage.time_ns, latest_ns, lengths)
                parts["cpu"].append(self._cpu_row(owner, "metrics-api", values.cpu_nanocores / 1e9, told))
                moment = (span.end_ns, span.end_ns) if span else (usage.time_ns, latest_ns)
                parts["memory"].append(self._memory_row(owner, "metrics-api", values.memory_bytes, moment))
            for quantity, rows in parts.items():
                yield from rows
                if rows:
                    yield self._sum_row(usage, quantity, rows)

    def _sum_row(self, usage: PodUsage, quantity: Quantity, rows: list[Row]) -> Row:
        """A pod's line of kubectl top pods: the sum of its containers, each over its own window."""
        theirs = sum(row.theirs or 0.0 for row in rows)
        window: Window = "exact" if all(row.window == "exact" for row in rows) else "window-unknown"
        begin_ns, end_ns = usage.time_ns - usage.window_ns, usage.time_ns

        def row(found: _Compared) -> Row:
            begin = begin_ns if quantity == "cpu" else None
            return _row(usage.owner, "metrics-api", quantity, theirs, window, found, begin, end_ns)

        account = self.readings.withheld.get(usage.owner)
        if account is not None and account.reason is not None:
            return row(_withheld(account.reason))
        unread = next((one for one in rows if one.verdict == "not-comparable"), None)
        if unread is not None:
            first = unread.reason.partition(":")[0]
            return row(_Compared(None, "not-comparable", f"{first}: container {unread.container}"))
        ours = sum(one.ours or 0.0 for one in rows)
        others = [
            owner
            for owner in self.readings.living(usage.owner, begin_ns, end_ns)
            if owner.container not in usage.containers
        ]
        missing = 0.0
        for owner in others:
            value = self._value(owner, quantity, begin_ns, end_ns)
            if value is None:
                text = f"restarted: container {owner.container}, which the metrics API leaves out"
                return row(_Compared(None, "not-comparable", text))
            missing += value

        def explain() -> _Compared | None:
            if missing and self._agree(ours, theirs, quantity):
                names = ", ".join(owner.container for owner in others)
                return _Compared(None, "explained", f"left out: of the pod, {names}, {_text(missing, quantity)} by us")
            differing = [one for one in rows if one.reason]
            if differing and all(one.verdict != "outside" for one in differing):
                return _Compared(None, "explained", "containers: " + ", ".join(f"{one.container}" for one in differing))
            return None

        return row(self._judge(ours + missing, theirs, quantity, explain))

    def _value(self, owner: Owner, quantity: Quantity, begin_ns: int, end_ns: int) -> float | None:
        if quantity == "cpu":
            cpu = self.readings.cpu(owner, begin_ns, end_ns)
            return cpu.cores if isinstance(cpu, Cpu) else None
        memory = self.readings.memory(owner, end_ns, end_ns)
        return memory.nearest_bytes if isinstance(memory, Memory) else None

    # --- the kubelet

    def _of_resource(self) -> Iterator[Row]:
        for owner, earlier, later in self.samples.pairs():
            span = Span(earlier.time_ns, later.time_ns)
            theirs = (later.cpu_nanoseconds - earlier.cpu_nanoseconds) / (later.time_ns - earlier.time_ns)
            yield self._kubelet_cpu_row(owner, "resource", theirs, span)
        for owner, sample in self.samples.all():
            yield self._kubelet_memory_row(owner, "resource", sample.memory_bytes, (sample.time_ns, sample.time_ns))

    def _of_summary(self) -> Iterator[Row]:
        for usage in self._summaries:
            owner = usage.owner
            until_ns = usage.time_ns + NS_PER_SECOND
            sample = next(
                (
                    one
                    for one in self.samples.of(owner)
                    if usage.time_ns <= one.time_ns < until_ns and one.cpu_nanoseconds == usage.cpu_nanoseconds
                ),
                None,
            )
            if usage.cpu_nanocores is not None:
                span = self.samples.span_of_rate(owner, usage.cpu_nanocores, sample.__eq__) if sample else None
                first_ns, last_ns = (sample.time_ns, sample.time_ns) if sample else (usage.time_ns, until_ns)
                told = span or _Told(first_ns, last_ns, (_USUAL_WINDOW_NS, *_WINDOWS_NS))
                yield self._kubelet_cpu_row(owner, "summary", usage.cpu_nanocores / 1e9, told)
            if usage.memory_bytes is not None:
                moment = (sample.time_ns, sample.time_ns) if sample else (usage.time_ns, until_ns)
                yield self._kubelet_memory_row(owner, "summary", usage.memory_bytes, moment)

    def _kubelet_cpu_row(self, owner: Owner, source: Source, theirs: float, told: Span | _Told) -> Row:
        if owner.container or not self.readings.knows(owner):
            return self._cpu_row(owner, source, theirs, told)
        exact: Window = "exact" if isinstance(told, Span) else "window-unknown"
        span = told if isinstance(told, Span) else told.likeliest
        whole = self.readings.cpu(owner, *span)
        if not isinstance(whole, Cpu):
            return _row(owner, source, "cpu", theirs, exact, self._no_reading(owner, whole), *span)
        lasting = self._lasting(owner)
        if lasting is not None:
            found = _withheld(lasting, f"; {_text(whole.cores, 'cpu')} by the pod's own cgroup")
            return _row(owner, source, "cpu", theirs, exact, found, *span)
        parts = [(one, self.readings.cpu(one, *span)) for one in self.readings.living(owner, *span)]
        cores = [part.cores for _, part in parts if isinstance(part, Cpu)]
        sandbox = self.readings.cpu(owner._replace(container=SANDBOX), *span)

        def row(found: _Compared) -> Row:
            return _row(owner, source, "cpu", theirs, exact, found, *span)

        if len(cores) < len(parts) or not parts:
            return row(self._ended(parts, f"{_text(whole.cores, 'cpu')} by the pod's own cgroup"))
        ours = sum(cores)

        def explain() -> _Compared | None:
            if not self._agree(whole.cores, theirs, "cpu") and not allows(whole, theirs):
                return None if isinstance(told, Span) else self._other_window(owner, theirs, told)
            own = sandbox.cores if isinstance(sandbox, Cpu) else None
            named = [("sandbox", own), ("the rest", whole.cores - ours - (own or 0.0))]
            told_parts = [f"{name} {_text(value, 'cpu')}" for name, value in named if value and value >= _SHOWN_CORES]
            if not told_parts or whole.cores - ours < _SHOWN_CORES:
                return _between(whole)
            return _Compared(None, "explained", f"whole pod: {', '.join(told_parts)}")

        return row(self._judge(ours, theirs, "cpu", explain))

    def _kubelet_memory_row(self, owner: Owner, source: Source, theirs: int, moment: tuple[int, int]) -> Row:
        if owner.container or not self.readings.knows(owner):
            return self._memory_row(owner, source, theirs, moment)
        window: Window = "exact" if moment[0] == moment[1] else "window-unknown"
        whole = self.readings.memory(owner, *moment)

        def row(found: _Compared) -> Row:
            return _row(owner, source, "memory", theirs, window, found, None, moment[0])

        if not isinstance(whole, Memory):
            return row(self._no_reading(owner, whole))
        lasting = self._lasting(owner)
        if lasting is not None:
            return row(_withheld(lasting, f"; {_text(whole.nearest_bytes, 'memory')} by the pod's own cgroup"))
        parts = [(one, self.readings.memory(one, *moment)) for one in self.readings.living(owner, *moment)]
        values = [part.nearest_bytes for _, part in parts if isinstance(part, Memory)]
        if len(values) < len(parts) or not parts:
            return row(self._ended(parts, f"{_text(whole.nearest_bytes, 'memory')} by the pod's own cgroup"))
        ours = sum(values)

        def explain() -> _Compared | None:
            if not self._agree(whole.nearest_bytes, theirs, "memory"):
                return _moved(whole, theirs)
            # A page of podtally's does not tell what it is made of.
            beyond = (
                self._beyond(owner, moment) or f"{_text(whole.nearest_bytes - ours, 'memory')} beyond its containers"
            )
            return _Compared(None, "explained", f"whole pod: {beyond}")

        return row(self._judge(ours, theirs, "memory", explain))

    def _beyond(self, pod: Owner, moment: tuple[int, int]) -> str:
        """What the pod's cgroup is charged with beyond its running containers, part by part."""
        sandbox = self.readings.memory(pod._replace(container=SANDBOX), *moment)
        left = self.readings.left(pod, moment[0])
        parts: list[tuple[str, float]] = []
        if isinstance(sandbox, Memory):
            parts.append(("sandbox", sandbox.nearest_bytes))
        if left is not None:
            parts.append(("memory-backed volumes that ended containers wrote", left.shmem_bytes))
            parts.append(("page cache that ended containers left", left.file_bytes))
            parts.append(("the kernel's own", left.other_bytes))
        return ", ".join(f"{name} {_text(value, 'memory')}" for name, value in parts if value >= _SHOWN_BYTES)

    @staticmethod
    def _ended(parts: list[tuple[Owner, Cpu | Unread]] | list[tuple[Owner, Memory | Unread]], whole: str) -> _Compared:
        names = [owner.container for owner, part in parts if isinstance(part, str)]
        what = f"container {', '.join(names)} began or ended within" if names else "no container ran"
        return _Compared(None, "not-comparable", f"restarted: {what}; {whole}")

    # --- one value

    def _cpu_row(self, owner: Owner, source: Source, theirs: float, told: Span | _Told) -> Row:
        window: Window = "exact" if isinstance(told, Span) else "window-unknown"
        span = told if isinstance(told, Span) else told.likeliest
        ours = self.readings.cpu(owner, *span)
        if not isinstance(ours, Cpu):
            return _row(owner, source, "cpu", theirs, window, self._unread(owner, source, ours, span.end_ns), *span)

        def explain() -> _Compared | None:
            if allows(ours, theirs):
                return _between(ours)
            return None if isinstance(told, Span) else self._other_window(owner, theirs, told)

        found = self._judge(ours.cores, theirs, "cpu", explain)
        if found.verdict == "outside":
            found = found._replace(reason=f"not found: our readings allow {_allowed(ours)} over that window")
        return _row(owner, source, "cpu", theirs, window, found, *span)

    def _other_window(self, owner: Owner, theirs: float, told: _Told) -> _Compared | None:
        """Whether ours is theirs over a window near the one that is told."""
        steps = min(_MOST_STEPS, (told.latest_end_ns - told.end_ns) // _STEP_NS)
        for length_ns in sorted(told.lengths_ns, reverse=True):
            for end_ns in (told.end_ns + step * _STEP_NS for step in range(steps + 1)):
                cpu = self.readings.cpu(owner, end_ns - length_ns, end_ns)
                if isinstance(cpu, Cpu) and allows(cpu, theirs):
                    later = (end_ns - told.end_ns) / NS_PER_SECOND
                    ending = f" that end {later:g} s later" if later else ""
                    text = f"over {length_ns / NS_PER_SECOND:g} s{ending} our readings allow {_allowed(cpu)}"
                    return _Compared(None, "explained", f"other window: {text}")
        return self._unsure(owner, Span(told.end_ns - max(told.lengths_ns), told.latest_end_ns))

    def _unsure(self, owner: Owner, span: Span) -> _Compared | None:
        """Where not all of what may be the window was read, of one life, nothing is said of who is right."""
        parts = [owner, *(self.readings.living(owner, *span) if not owner.container else [])]
        for part in parts:
            why = self.readings.cpu(part, *span)
            if isinstance(why, str):
                return _not_comparable("restarted" if part != owner else why)
        return None

    def _memory_row(self, owner: Owner, source: Source, theirs: int, moment: tuple[int, int]) -> Row:
        window: Window = "exact" if moment[0] == moment[1] else "window-unknown"
        ours = self.readings.memory(owner, *moment)
        if not isinstance(ours, Memory):
            found = self._unread(owner, source, ours, moment[0])
        else:
            memory = ours
            found = self._judge(memory.nearest_bytes, theirs, "memory", lambda: _moved(memory, theirs))
        return _row(owner, source, "memory", theirs, window, found, None, moment[0])

    def _lasting(self, owner: Owner) -> Reason | None:
        """Why the pod's sums are withheld, if that does not pass by itself; ``None`` if they are not."""
        account = self.readings.withheld.get(owner._replace(container=""))
        lasts = account is not None and account.reason in LASTING and not account.values
        return account.reason if account is not None and lasts else None

    def _no_reading(self, owner: Owner, why: Unread) -> _Compared:
        """Why a value has nothing to be compared with."""
        lasting = self._lasting(owner)
        return _not_comparable(why) if lasting is None or why != "unread" else _withheld(lasting)

    def _unread(self, owner: Owner, source: Source, why: Unread, end_ns: int) -> _Compared:
        readings = self.readings
        if why != "unread" or readings.first_ns is None or self._lasting(owner) is not None:
            return self._no_reading(owner, why)
        if end_ns <= readings.first_ns:
            return _not_comparable("older")
        # A container that lived for a while by the kubelet's samples and that we have never seen is a fault of ours;
        # one that lives for a second between crashes may be in its page and in none of our readings.
        seen = [sample for sample in self.samples.of(owner) if sample.time_ns > readings.first_ns]
        lived = any(one_life(*pair) and pair[1].time_ns - pair[0].time_ns > _SEEN_FOR_NS for pair in pairwise(seen))
        if source != "metrics-api" and lived and end_ns < readings.last_ns - _SEEN_FOR_NS:
            return _Compared(None, "outside", "unread: podtally has no reading of it; podtally doctor tells more")
        return _not_comparable(why)

    def _agree(self, ours: float, theirs: float, quantity: Quantity) -> bool:
        apart = abs(ours - theirs)
        return apart <= LEAST[quantity] or apart <= self.tolerance * abs(theirs)

    def _judge(
        self, ours: float, theirs: float, quantity: Quantity, explain: Callable[[], _Compared | None]
    ) -> _Compared:
        """The verdict. Where the difference is to be noted, ``explain`` gives the reason if there is one."""
        apart = abs(ours - theirs)
        agree = self._agree(ours, theirs, quantity)
        if apart <= min(NOTED, self.tolerance) * abs(theirs):
            return _Compared(ours, "agree", "")
        if apart <= LEAST[quantity]:
            digit = "1m" if quantity == "cpu" else "1Mi"
            return _Compared(ours, "agree", f"rounding: less than {digit} apart")
        found = explain()
        if found is None:
            return _Compared(ours, "agree" if agree else "outside", "not found: nothing that podtally knows of")
        return found._replace(ours=ours, verdict="agree" if agree else found.verdict)

    # --- pods that the metrics API lacks

    def _of_absences(self) -> Iterator[Row]:
        for absence in self._absences:
            found = _Compared(None, "not-comparable", f"left out: {self._why_absent(absence)}")
            for quantity in LEAST:
                yield _row(
                    absence.pod, "metrics-api", quantity, None, "window-unknown", found, None, absence.answered_ns
                )

    def _why_absent(self, absence: _Absence) -> str:
        """Why the metrics API has no such pod, by metrics-server's rules (``pkg/storage/pod.go``)."""
        now_ns = absence.answered_ns
        if absence.lost_ns == now_ns:
            return "as all pods of the node are: metrics-server's last question to the kubelet failed or timed out"
        for name in self.readings.running.get(absence.pod, ()):
            owner = absence.pod._replace(container=name)
            seen = [sample for sample in self.samples.of(owner) if sample.time_ns <= now_ns]
            if seen and (not seen[-1].cpu_nanoseconds or not seen[-1].memory_bytes):
                what = "CPU" if not seen[-1].cpu_nanoseconds else "memory"
                return f"container {name} has used no {what} at all, and metrics-server drops a pod with a 0"
            if "resource" in self.answered and not seen:
                return f"the kubelet has no sample of container {name} yet"
            started_ns = self.readings.started_ns(owner)
            if started_ns is not None and now_ns - started_ns <= _FRESH_NS:
                age = (now_ns - started_ns) / NS_PER_SECOND
                return (
                    f"container {name} was {max(0.0, age):.0f} s old, and metrics-server hides a pod until it has two"
                    " samples of each container"
                )
        if absence.lost_ns is not None and now_ns - absence.lost_ns <= _FRESH_NS:
            since = (now_ns - absence.lost_ns) / NS_PER_SECOND
            return (
                f"metrics-server had lost the whole node {since:.0f} s before, and shows a pod once it has two new"
                " samples of each container"
            )
        return "no reason is known here; the log of metrics-server tells"


_FRESH_NS: Final = 90 * NS_PER_SECOND
"""Two samples of the kubelet's, up to 30 s apart, and two scrapes of metrics-server's, of up to 60 s."""

_SEEN_FOR_NS: Final = 5 * NS_PER_SECOND

_USUAL_WINDOW_NS: Final = 15 * NS_PER_SECOND
"""The kubelet samples each cgroup every 10 to 20 s, and one that idles every 15 to 30 s."""

_WINDOWS_NS: Final = tuple(half * NS_PER_SECOND // 2 for half in range(1, 62))
"""Half a second to half a minute: now and then something makes the kubelet sample a cgroup in between."""
_STEP_NS: Final = NS_PER_SECOND // 2
_MOST_STEPS: Final = 60

_SHOWN_CORES: Final = 0.0001
_SHOWN_BYTES: Final = MEBIBYTE / 20


def _sampled(told_ns: int, answered_ns: int, memory_bytes: int) -> Callable[[Sample], bool]:
    """Whether a sample can be the one that a value of the metrics API is of.

    The API tells the time of the pod's earliest container, cut to whole seconds, and the others' are later.
    """
    latest_ns = max(answered_ns, told_ns + NS_PER_SECOND)
    return lambda one: told_ns <= one.time_ns <= latest_ns and one.memory_bytes == memory_bytes


def _row(
    owner: Owner,
    source: Source,
    quantity: Quantity,
    theirs: float | None,
    window: Window,
    found: _Compared,
    begin_ns: int | None,
    end_ns: int,
) -> Row:
    place = (owner.namespace, owner.pod, owner.container or None)
    return Row(*place, source, quantity, found.ours, theirs, window, found.verdict, found.reason, begin_ns, end_ns)


def _withheld(reason: Reason, beside: str = "") -> _Compared:
    return _Compared(None, "not-comparable", f"withheld: {reason}: {MEANINGS[reason]}{beside}")


def _not_comparable(why: Unread) -> _Compared:
    return _Compared(None, "not-comparable", _UNREAD_TEXT[why])


def allows(cpu: Cpu, theirs: float) -> bool:
    """Whether theirs is within, but for the kubelet's millisecond and our microsecond in a window of some seconds."""
    return cpu.least_cores * (1 - _ROUNDING) - 1e-6 <= theirs <= cpu.most_cores * (1 + _ROUNDING) + 1e-6


_ROUNDING: Final = 2e-4


def _allowed(cpu: Cpu) -> str:
    return f"{_text(cpu.least_cores, 'cpu')} to {_text(cpu.most_cores, 'cpu')}"


def _between(cpu: Cpu) -> _Compared:
    return _Compared(None, "explained", f"between ticks: our readings allow {_allowed(cpu)}")


def _moved(memory: Memory, theirs: float) -> _Compared | None:
    least, most = memory.least_bytes, memory.most_bytes
    if least != most and least - MEBIBYTE <= theirs <= most + MEBIBYTE:
        return _Compared(
            None, "explained", f"moved: from {_text(least, 'memory')} to {_text(most, 'memory')} around it"
        )
    if memory.ran:
        return _Compared(None, "explained", "ran: CPU was used between our readings around it")
    return None


def _text(value: float, quantity: Quantity) -> str:
    return f"{value * 1000:.1f}m" if quantity == "cpu" else f"{value / MEBIBYTE:.1f}Mi"
