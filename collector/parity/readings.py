"""Our readings over time: what a peer's number is held against, over the very span that the number is of. Pure.

A peer's sample is taken between two of our ticks. A counter is read off a straight line between the readings on either
side; how far the truth can be from that line is known as well, since no counter falls.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from collector.model import Account, Instant, PodTally, Reading, Tally
from collector.parity.resource import CLOCK_SLACK_MS, Owner

SLACK_NS = CLOCK_SLACK_MS * 1_000_000
"""We stamp a cgroup before we read it, the kubelet a sample after it has read all of the cgroup's files (cAdvisor,
``newContainerStats``): its counter is older than its time, by more than this where the machine lags.
"""

SANDBOX = "(sandbox)"
"""Stands for a container's name in the owner of a sandbox' readings: no container can be named so."""

NS_PER_SECOND = 1_000_000_000

Unread = Literal["older", "newer", "unread", "restarted"]
"""Why a span cannot be compared. ``older``, ``newer``: it begins before our first or ends after our last reading.
``unread``: we have no reading of the owner. ``restarted``: another cgroup took the name within the span."""


LEFT_FIELDS: Final = ("memory_shmem_bytes", "memory_active_file_bytes")
"""The details that :class:`Left` is made of."""


class Point(NamedTuple):
    """One reading of one cgroup."""

    time_ns: int
    cpu_usec: int
    memory_bytes: int
    """Working set."""


class Left(NamedTuple):
    """What a pod's cgroup is charged with beyond its leaves: what ended containers left, and the kernel's own."""

    time_ns: int
    shmem_bytes: int
    """Shared memory and tmpfs: files in memory-backed volumes."""
    file_bytes: int
    """Page cache in recent use, tmpfs left aside; what is not in recent use is in no working set."""
    other_bytes: int
    """The rest of the working set: kernel memory, and what the kernel accounts in batches."""


class Cpu(NamedTuple):
    """CPU over a span."""

    cores: float
    """By straight lines between readings."""
    least_cores: float
    most_cores: float
    """What the readings on either side of both ends allow."""


class Counted(NamedTuple):
    """A CPU counter at a moment, in microseconds."""

    identity: str
    """The cgroup's."""
    usec: float
    """By a straight line between readings."""
    least_usec: int
    most_usec: int
    """The readings on either side."""


_NOTHING: Final = Counted("", 0.0, 0, 0)
"""Before a container's start."""


def cpu_between(begin: Counted, end: Counted, span_ns: int) -> Cpu:
    """CPU between two moments of one cgroup."""
    span_usec = span_ns / 1000
    return Cpu(
        (end.usec - begin.usec) / span_usec,
        max(0, end.least_usec - begin.most_usec) / span_usec,
        (end.most_usec - begin.least_usec) / span_usec,
    )


class Memory(NamedTuple):
    """A working set at a moment, or within a span of moments."""

    nearest_bytes: int
    """The reading nearest to it."""
    least_bytes: int
    most_bytes: int
    """Over all readings within, and those on either side."""
    ran: bool
    """True if the CPU counter grew meanwhile: something ran, and may have taken memory and given it back."""


class _Life:
    """The readings of one identity, in time order."""

    __slots__ = ("identity", "points", "started_ns")

    def __init__(self, identity: str, started_ns: int | None) -> None:
        self.identity = identity
        self.started_ns = started_ns
        self.points: list[Point] = []

    def cpu_usec(self, moment_ns: int) -> float:
        """The counter at a moment that two readings stand around, or that is one's own."""
        points = self.points
        after = bisect_left(points, moment_ns, key=_time)
        later = points[after]
        if later.time_ns == moment_ns:
            return later.cpu_usec
        earlier = points[after - 1]
        share = (moment_ns - earlier.time_ns) / (later.time_ns - earlier.time_ns)
        return earlier.cpu_usec + share * (later.cpu_usec - earlier.cpu_usec)

    def counted(self, moment_ns: int, late_ns: int) -> Counted:
        """The counter at such a moment, or up to ``late_ns`` before it, with what the readings around allow."""
        edge = self.around(moment_ns, moment_ns, late_ns)
        return Counted(self.identity, self.cpu_usec(moment_ns), edge[0].cpu_usec, edge[-1].cpu_usec)

    def around(self, begin_ns: int, end_ns: int, late_ns: int) -> list[Point]:
        """The readings within a span and the two on either side of it, ``late_ns`` before and the slack after it."""
        first = max(0, bisect_left(self.points, begin_ns - late_ns, key=_time) - 1)
        last = bisect_right(self.points, end_ns + SLACK_NS, key=_time) + 1
        return self.points[first:last]


def _time(point: Point) -> int:
    return point.time_ns


class Readings:
    """All readings of a span of ticks, by owner. An owner with an empty container is a pod's own cgroup."""

    def __init__(self, keep_ns: int | None = None, late_ns: int = SLACK_NS) -> None:
        """``keep_ns``: how long readings are kept; for ever if ``None``. ``late_ns``: how much older than its time a
        peer's counter may be; at least the slack.
        """
        self._keep_ns = keep_ns
        self._late_ns = max(late_ns, SLACK_NS)
        self._lives: dict[Owner, list[_Life]] = defaultdict(list)
        self._left: dict[Owner, list[Left]] = defaultdict(list)
        self.withheld: dict[Owner, Account] = {}
        """Pods whose sum is withheld by the last tick, with the account that says why."""
        self.filled: set[Owner] = set()
        """Pods whose numbers in the last tick are not podtally's own: nothing is read off them."""
        self.running: Mapping[Owner, tuple[str, ...]] = {}
        """Pods that count as running by the last tick, with the names of their containers."""
        self.first_ns: int | None = None
        self.last_ns = 0

    def add(self, owner: Owner, identity: str, started_ns: int | None, point: Point) -> None:
        """Take a reading in. One that is not later than the last of its identity is known already."""
        lives = self._lives[owner]
        if not lives or lives[-1].identity != identity:
            lives.append(_Life(identity, started_ns))
        life = lives[-1]
        life.started_ns = started_ns
        if life.points and point.time_ns <= life.points[-1].time_ns:
            return
        life.points.append(point)
        self.first_ns = point.time_ns if self.first_ns is None else min(self.first_ns, point.time_ns)
        self.last_ns = max(self.last_ns, point.time_ns)

    def add_tally(self, tally: Tally) -> None:
        """Take a tick in."""
        running: dict[Owner, tuple[str, ...]] = {}
        self.withheld = {}
        self.filled = set()
        for pod in tally.pods:
            owner = Owner(pod.pod.namespace, pod.pod.name, "")
            if pod.source != tally.source:
                self.filled.add(owner)
                continue
            self._add_pod(tally, owner, pod)
            if pod.pod.phase != "Running":
                continue
            if pod.containers:
                running[owner] = tuple(one.container.name for one in pod.containers)
            if pod.incomplete is not None:
                self.withheld[owner] = pod.account
        self.running = running
        self._forget()

    def _add_pod(self, tally: Tally, owner: Owner, pod: PodTally) -> None:
        cgroup = pod.cgroup
        names = {one.leaf.path: one for one in pod.containers}
        for leaf in cgroup.leaves:
            one = names.get(leaf.path)
            if one is not None:
                part, started_ns = owner._replace(container=one.container.name), one.started_ns
            elif pod.incomplete is None:
                # With every container named, what no status names is the sandbox.
                part, started_ns = owner._replace(container=SANDBOX), leaf.started_ns
            else:
                continue
            self._add_reading(part, f"{leaf.path} {leaf.ino}", started_ns, tally.instant, leaf.reading)
        self._add_reading(owner, f"{cgroup.path} {cgroup.ino}", cgroup.started_ns, tally.instant, pod.reading)
        left = _left(tally, pod)
        if left is not None:
            self._left[owner].append(left)

    def _add_reading(
        self, owner: Owner, identity: str, started_ns: int | None, instant: Instant, reading: Reading
    ) -> None:
        memory = reading.memory_working_set_bytes
        if reading.cpu_usage_usec is not None and memory is not None:
            time_ns = instant.wall_ns(reading.monotonic_ns)
            self.add(owner, identity, started_ns, Point(time_ns, reading.cpu_usage_usec, memory))

    def end_page(self) -> None:
        """After the readings of a page: what has one of late is running."""
        oldest_ns = self.last_ns - _RUNNING_NS
        running: dict[Owner, list[str]] = defaultdict(list)
        for owner, lives in self._lives.items():
            if owner.container and lives[-1].points[-1].time_ns >= oldest_ns:
                running[owner._replace(container="")].append(owner.container)
        self.running = {pod: tuple(sorted(names)) for pod, names in running.items()}
        self._forget()

    def _forget(self) -> None:
        """Drop what is older than is kept, but for the last reading before."""
        if self._keep_ns is None:
            return
        oldest_ns = self.last_ns - self._keep_ns
        for owner, lives in list(self._lives.items()):
            for life in lives:
                del life.points[: max(0, bisect_right(life.points, oldest_ns, key=_time) - 1)]
            lives[:] = [life for life in lives if life.points[-1].time_ns >= oldest_ns]
            if not lives:
                del self._lives[owner]
        for owner, found in list(self._left.items()):
            found[:] = [left for left in found if left.time_ns >= oldest_ns]
            if not found:
                del self._left[owner]

    # --- what is asked of them

    def knows(self, owner: Owner) -> bool:
        """True if there is any reading of it."""
        return owner in self._lives

    def started_ns(self, owner: Owner) -> int | None:
        """When the owner's present cgroup was made, if that is known."""
        lives = self._lives.get(owner)
        return lives[-1].started_ns if lives else None

    def first_of_ns(self, owner: Owner) -> int | None:
        """Our first reading of the owner."""
        lives = self._lives.get(owner)
        return lives[0].points[0].time_ns if lives else None

    def containers(self, pod: Owner) -> list[Owner]:
        """The containers of a pod that there are readings of, sandbox left out, by name."""
        return sorted(one for one in self._lives if one[:2] == pod[:2] and one.container and one.container != SANDBOX)

    def living(self, pod: Owner, begin_ns: int, end_ns: int) -> list[Owner]:
        """Those containers that have a reading within a span or on either side of it."""

        def lives(owner: Owner) -> bool:
            spans = ((life.points[0].time_ns, life.points[-1].time_ns) for life in self._lives[owner])
            return any(first <= end_ns + SLACK_NS and last >= begin_ns - SLACK_NS for first, last in spans)

        return [owner for owner in self.containers(pod) if lives(owner)]

    def cpu(self, owner: Owner, begin_ns: int, end_ns: int) -> Cpu | Unread:
        """CPU over a span; one that begins at the owner's start, as metrics-server's first value does, from 0."""
        found = self._life(owner, begin_ns, end_ns)
        if isinstance(found, str):
            return found
        begin = found.counted(begin_ns, self._late_ns) if begin_ns >= found.points[0].time_ns else _NOTHING
        return cpu_between(begin, found.counted(end_ns, self._late_ns), end_ns - begin_ns)

    def counted(self, owner: Owner, moment_ns: int) -> Counted | Unread:
        """The owner's CPU counter at a moment."""
        found = self._life(owner, moment_ns, moment_ns, from_start=False)
        return found if isinstance(found, str) else found.counted(moment_ns, self._late_ns)

    def memory(self, owner: Owner, begin_ns: int, end_ns: int) -> Memory | Unread:
        """The working set at a moment that is known to lie between two."""
        found = self._life(owner, begin_ns, end_ns, from_start=False)
        if isinstance(found, str):
            return found
        points = found.around(begin_ns, end_ns, self._late_ns)
        middle_ns = (begin_ns + end_ns) // 2
        nearest = min(points, key=lambda point: abs(point.time_ns - middle_ns))
        values = [point.memory_bytes for point in points]
        return Memory(nearest.memory_bytes, min(values), max(values), points[0].cpu_usec < points[-1].cpu_usec)

    def left(self, pod: Owner, moment_ns: int) -> Left | None:
        """What the pod's cgroup held beyond its leaves, by the tick nearest to a moment."""
        found = self._left.get(pod)
        return min(found, key=lambda left: abs(left.time_ns - moment_ns)) if found else None

    def _life(self, owner: Owner, begin_ns: int, end_ns: int, *, from_start: bool = True) -> _Life | Unread:
        """The one identity that has readings on both sides of a span, the clocks' slack away from it."""
        lives = self._lives.get(owner)
        if not lives:
            return "unread"
        for life in lives:
            begun = life.points[0].time_ns < begin_ns - SLACK_NS or (from_start and _is_start(life, begin_ns))
            if begun and life.points[-1].time_ns > end_ns + SLACK_NS:
                return life
        if begin_ns <= lives[0].points[0].time_ns + SLACK_NS:
            return "older"
        return "newer" if begin_ns > lives[-1].points[0].time_ns + SLACK_NS else "restarted"


_RUNNING_NS = 10 * NS_PER_SECOND
"""A page of each node is asked for once a second; one or some may be late."""

_START_SLACK_NS = NS_PER_SECOND
"""``startedAt`` is cut to whole seconds; a cgroup is made a moment before its container starts."""


def _is_start(life: _Life, moment_ns: int) -> bool:
    return life.started_ns is not None and abs(moment_ns - life.started_ns) <= _START_SLACK_NS


def _left(tally: Tally, pod: PodTally) -> Left | None:
    """What the pod has beyond its leaves, if every part was read."""
    leaves = [leaf.reading for leaf in pod.cgroup.leaves]
    whole = pod.reading.memory_working_set_bytes
    parts = [leaf.memory_working_set_bytes for leaf in leaves]
    sums: dict[str, int] = {}
    for name in LEFT_FIELDS:
        values = [getattr(reading.details, name) for reading in (pod.reading, *leaves)]
        if any(value is None for value in values):
            return None
        sums[name] = max(0, values[0] - sum(values[1:]))
    if whole is None or any(part is None for part in parts):
        return None
    beyond = whole - sum(part or 0 for part in parts)
    shmem, file = (sums[name] for name in LEFT_FIELDS)
    time_ns = tally.instant.wall_ns(pod.reading.monotonic_ns)
    return Left(time_ns, shmem, file, beyond - shmem - file)
