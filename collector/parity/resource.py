"""Our ``/metrics/resource`` against the kubelet's own, sample by sample, over a recording. Pure.

The kubelet's samples are up to half a minute old, and each has its own time. So each is held against our readings on
either side of that time: a CPU counter must lie between them, a working set must be equal where they are equal.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from collector.metrics import resource
from collector.metrics.text import milliseconds
from collector.model import Tally

CLOCK_SLACK_MS = 100
"""The kubelet stamps a sample after it has read a cgroup's files, we before: they may be this far apart."""

NEAR_MS = 30_000
"""A container this near to its start or end may be in one page and not in the other."""

Verdict = Literal["between", "equal", "moved", "ran", "outside", "older", "newer", "unread", "restarted"]
"""``between``, ``equal``: agrees. ``moved``: a gauge whose readings on both sides differ, so that the kubelet's may be
another still. ``ran``: our readings on both sides are equal and the kubelet's differs, but the cgroup's CPU counter
grew in between: something ran and may have taken memory and given it back. ``outside``: disagrees. ``older``,
``newer``: before our first or after our last reading of the cgroup. ``unread``: the recording lacks the file, or the
container. ``restarted``: the container is another one on either side."""

AGREE: tuple[Verdict, ...] = ("between", "equal")
NOT_COMPARABLE: tuple[Verdict, ...] = ("older", "newer", "unread", "restarted")


class SeriesKey(NamedTuple):
    """Name and labels of a series."""

    name: str
    labels: tuple[tuple[str, str], ...]

    @property
    def owner(self) -> Owner:
        """The pod or container that it is of; all empty for the node."""
        labels = dict(self.labels)
        return Owner(labels.get("namespace", ""), labels.get("pod", ""), labels.get("container", ""))


class Owner(NamedTuple):
    """A pod, a container, or with all empty the node."""

    namespace: str
    pod: str
    container: str


class Theirs(NamedTuple):
    """One sample of the kubelet's."""

    key: SeriesKey
    value: float
    time_ms: int | None


class Ours(NamedTuple):
    """One of our readings of a series."""

    time_ms: int
    value: float
    identity: str
    """The cgroup that it was read from."""
    cpu_usage_usec: int | None
    """Its CPU counter in the same reading: where it stood still, nothing ran."""


class Comparison(NamedTuple):
    """A sample of the kubelet's and our readings on either side."""

    theirs: Theirs
    before: Ours | None
    after: Ours | None
    verdict: Verdict

    @property
    def distance(self) -> float:
        """How far the kubelet's value is from the nearer of our readings; 0 where there is none."""
        sides = [abs(one.value - self.theirs.value) for one in (self.before, self.after) if one is not None]
        return min(sides, default=0.0)


def parse(page: str) -> list[Theirs]:
    """The samples of a page in the text format."""
    return [
        Theirs(
            SeriesKey(sample.name, tuple(sorted(sample.labels.items()))),
            sample.value,
            None if sample.timestamp is None else round(float(sample.timestamp) * 1000),
        )
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


class OurReadings:
    """Our readings of all series over the frames of a recording."""

    def __init__(self) -> None:
        self._series: dict[SeriesKey, list[Ours]] = defaultdict(list)
        self._lives: dict[Owner, dict[str, tuple[int | None, int, int]]] = defaultdict(dict)
        self._last_ms = 0

    def add(self, tally: Tally) -> set[SeriesKey]:
        """Take a frame's page in; its series."""
        identities = _identities(tally)
        keys: set[SeriesKey] = set()
        self._last_ms = milliseconds(tally.instant.time_ns)
        for family, samples in resource.families(tally):
            for labels, value, time_ns in samples:
                key = SeriesKey(family.name, tuple(sorted(labels.items())))
                keys.add(key)
                identity, started_ms, usage_usec = identities[key.owner]
                time_ms = milliseconds(time_ns if time_ns is not None else tally.instant.time_ns)
                self._series[key].append(Ours(time_ms, value, identity, usage_usec))
                first_ms = self._lives[key.owner].get(identity, (None, time_ms, time_ms))[1]
                self._lives[key.owner][identity] = (started_ms, first_ms, time_ms)
        return keys

    def compare(self, theirs: Theirs) -> Comparison:
        """Hold a sample of the kubelet's against the readings on either side of its time."""
        return held_against(theirs, self._series.get(theirs.key, []))

    def has_family(self, name: str) -> bool:
        """True if any frame gave the family."""
        return any(key.name == name for key in self._series)

    def near_start_or_end(self, owner: Owner, time_ms: int) -> bool:
        """True if a container of that name, or of the pod if it names no container, starts or ends near ``time_ms``."""
        for other, lives in self._lives.items():
            if other[:2] != owner[:2] or (owner.container and other.container != owner.container):
                continue
            for started_ms, first_ms, last_ms in lives.values():
                start_ms = first_ms if started_ms is None else started_ms
                # Every reading of a frame is taken at its time or later: what is older has ended.
                ended = last_ms < self._last_ms
                if abs(time_ms - start_ms) <= NEAR_MS or (ended and abs(time_ms - last_ms) <= NEAR_MS):
                    return True
        return False


def held_against(theirs: Theirs, readings: Sequence[Ours]) -> Comparison:
    """Hold a sample of the kubelet's against our readings of its series, which are in order of time, on either side."""
    time_ms = theirs.time_ms
    if time_ms is None or not readings:
        return Comparison(theirs, None, None, "unread")
    times = [one.time_ms for one in readings]
    counter = theirs.key.name.endswith("_total")
    # A reading within the slack may be of either side.
    left = bisect_left(times, time_ms - CLOCK_SLACK_MS) - 1
    right = bisect_right(times, time_ms + CLOCK_SLACK_MS)
    before = readings[left] if left >= 0 else None
    after = readings[right] if right < len(readings) else None
    return Comparison(theirs, before, after, _verdict(theirs, before, after, counter=counter))


def _identities(tally: Tally) -> dict[Owner, tuple[str, int | None, int | None]]:
    """Cgroup, start and CPU counter of each owner."""
    found: dict[Owner, tuple[str, int | None, int | None]] = {
        Owner("", "", ""): (".", None, tally.node.reading.cpu_usage_usec)
    }
    for pod in tally.pods:
        started_ms = None if pod.cgroup.started_ns is None else milliseconds(pod.cgroup.started_ns)
        identity = f"{pod.cgroup.path} {pod.cgroup.ino}"
        owner = Owner(pod.pod.namespace, pod.pod.name, "")
        found[owner] = (identity, started_ms, pod.reading.cpu_usage_usec)
        for one in pod.containers:
            started_ms = None if one.started_ns is None else milliseconds(one.started_ns)
            identity = f"{one.leaf.path} {one.leaf.ino}"
            owner = Owner(one.namespace, one.pod, one.container.name)
            found[owner] = (identity, started_ms, one.reading.cpu_usage_usec)
    return found


def _verdict(theirs: Theirs, before: Ours | None, after: Ours | None, *, counter: bool) -> Verdict:
    if before is None:
        return "older"
    if after is None:
        return "newer"
    if before.identity != after.identity:
        return "restarted"
    if counter:
        return "between" if before.value <= theirs.value <= after.value else "outside"
    if before.value != after.value:
        return "moved"
    if theirs.value == before.value:
        return "equal"
    return "outside" if before.cpu_usage_usec == after.cpu_usage_usec else "ran"


class FrameDifference(NamedTuple):
    """Series that one page of a frame has and the other has not."""

    frame: int
    time_ms: int
    only_theirs: frozenset[SeriesKey]
    only_ours: frozenset[SeriesKey]
    their_starts_ms: Mapping[Owner, int]
    """``container_start_time_seconds`` of the kubelet's page."""


class Report(NamedTuple):
    """The comparison over a whole recording."""

    comparisons: tuple[Comparison, ...]
    """Each sample once, though the kubelet shows it in several answers."""
    differences: tuple[FrameDifference, ...]
    readings: OurReadings
    frames: int
    pages: int


def compare(frames: Iterable[tuple[Tally, str | None]]) -> Report:
    """Compare each frame's tally with the kubelet's page of that frame, ``None`` where it has none."""
    readings = OurReadings()
    samples: dict[tuple[SeriesKey, int | None], Theirs] = {}
    differences: list[FrameDifference] = []
    number = pages = 0
    for number, (tally, page) in enumerate(frames, 1):
        ours = readings.add(tally)
        if page is None:
            continue
        pages += 1
        theirs = parse(page)
        for sample in theirs:
            samples[sample.key, sample.time_ms] = sample
        names = {sample.key for sample in theirs}
        if names != ours:
            time_ms = milliseconds(tally.instant.time_ns)
            starts = {one.key.owner: round(one.value * 1000) for one in theirs if one.key.name == _START}
            only_theirs, only_ours = frozenset(names - ours), frozenset(ours - names)
            differences.append(FrameDifference(number - 1, time_ms, only_theirs, only_ours, starts))
    stamped = [sample for sample in samples.values() if sample.time_ms is not None]
    return Report(tuple(map(readings.compare, stamped)), tuple(differences), readings, number, pages)


_START = "container_start_time_seconds"
_ERROR = "scrape_error"

Excuse = Literal["start or end", "scrape_error", "file not recorded"]


def excuse(report: Report, difference: FrameDifference, key: SeriesKey) -> Excuse | None:
    """Why a series is in one page of a frame only; ``None``: there is no reason, and the pages disagree.

    ``start or end``: a container of its owner is within 30 s of either, by our readings or by the kubelet's word for
    one that lived from one frame to the next. ``scrape_error``: deprecated, and hidden in a kubelet with a proper
    version. ``file not recorded``: no frame of the recording has the file.
    """
    if key.name == _ERROR:
        return "scrape_error"
    if not report.readings.has_family(key.name):
        return "file not recorded"
    if key.owner.pod:
        starts = difference.their_starts_ms.items()
        theirs = [at for owner, at in starts if owner[:2] == key.owner[:2] and key.owner.container in ("", owner[2])]
        if any(abs(difference.time_ms - at) <= NEAR_MS for at in theirs):
            return "start or end"
        if report.readings.near_start_or_end(key.owner, difference.time_ms):
            return "start or end"
    return None


def count(report: Report) -> Mapping[str, Mapping[Verdict, int]]:
    """Verdicts by family."""
    counts: dict[str, dict[Verdict, int]] = defaultdict(lambda: defaultdict(int))
    for one in report.comparisons:
        counts[one.theirs.key.name][one.verdict] += 1
    return counts
