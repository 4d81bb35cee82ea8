"""Our ``/metrics/cadvisor`` against the kubelet's own, series by series, over a recording. Pure.

Samples that bear a time are held against our readings on either side of it, as :mod:`collector.parity.resource` does.
Those without (``container_spec_*``) are what the kubelet read in the last seconds, and the page was fetched after the
frame was read: they must be what this frame gives, the one before or the next.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from collector.metrics.cadvisor import CadvisorExposition, rows
from collector.metrics.cadvisor_catalogue import CADVISOR, LEFT_OUT, SCRAPE_ERROR
from collector.metrics.text import milliseconds
from collector.model import Tally
from collector.parity.resource import AGREE, NEAR_MS, Comparison, Ours, SeriesKey, Theirs, Verdict, held_against, parse

DIFFERS: Final[Mapping[str, str]] = {
    "container_last_seen": "the time of the last tick; the kubelet gives that of the scrape",
    "container_oom_events_total": "memory.events: oom_kill of the container's cgroup, processes that the kernel killed;"
    " the kubelet counts lines of the kernel's log since it was started",
    "container_start_time_seconds": "the earlier of the making of the cgroup and of startedAt; the kubelet gives the"
    " former, not earlier than the node's boot rounded down to a minute. These recordings hold but startedAt",
}
"""Families whose values are not the kubelet's by their nature."""

NOT_RECORDED: Final[Mapping[str, str]] = {
    metric.name: "the recorded kernel printed no cost of I/O, and so neither page has it"
    for metric in CADVISOR
    if metric.name.startswith("container_fs_io_cost_")
}
"""Families that these recordings cannot compare."""

_NETWORK: Final = frozenset(metric.name for metric in CADVISOR if metric.each == "interface")

Reason = Literal[
    "left out",
    "system.slice",
    "no such file in the root cgroup",
    "a mounted file system",
    "start or end",
    "containers alone",
    "not recorded",
    "the host's network",
    "unnamed by the kubelet",
]
"""Why a series is in one page of a frame alone. ``start or end``: of a cgroup that is not in every frame, or that was
made in the half minute before. ``a mounted file system``: of ``/proc/diskstats`` or of none, not of ``io.stat``.
``unnamed by the kubelet``: of a cgroup of a pod's that bears no name in its page, for as long as it lives: seen of a
container of a static pod that was started before the kubelet's cAdvisor could ask the runtime for it. ``the host's
network``: of a pod in it, under which the kubelet shows the node's interfaces once more. ``not recorded``: of files
that the recording lacks, as one that was not taken with hostPID lacks ``/proc/<pid>/net/dev``."""

_OTHER_CGROUPS = ("/system.slice", "/user.slice", "/init.scope")


class FrameDifference(NamedTuple):
    """A series that one page of a frame has and the other has not."""

    frame: int
    key: SeriesKey
    ours: bool
    """It is in our page."""
    reason: Reason | None
    """``None``: there is none, and the pages disagree."""


class Report(NamedTuple):
    """The comparison over a whole recording."""

    comparisons: tuple[Comparison, ...]
    """Each sample once, though the kubelet shows it in several answers."""
    differences: tuple[FrameDifference, ...]
    families: frozenset[str]
    """Names of the families that the kubelet's pages have."""
    pages: int


def family_of(key: SeriesKey) -> str:
    """The family of a series; prometheus_client's parser gives every counter's sample ``_total``."""
    bare = key.name.removesuffix("_total")
    return bare if bare in LEFT_OUT else key.name


def partitions(page: str) -> bytes:
    """``/proc/partitions`` with the block devices that a page of the kubelet's names with their numbers, for recordings
    that lack the file.
    """
    found: set[tuple[str, str, str]] = set()
    for sample in parse(page):
        labels = dict(sample.key.labels)
        if "major" in labels:
            found.add((labels["major"], labels["minor"], labels["device"].removeprefix("/dev/")))
    lines = "".join(f"{major:>4} {minor:>8} {0:>10} {name}\n" for major, minor, name in sorted(found))
    return f"major minor  #blocks  name\n\n{lines}".encode()


def _comparable(sample: Theirs) -> Theirs:
    """The sample without the image of a sandbox, which the runtime alone knows."""
    labels = dict(sample.key.labels)
    if labels.get("name") and not labels.get("container"):
        labels["image"] = ""
    return sample._replace(key=SeriesKey(sample.key.name, tuple(sorted(labels.items()))))


def _usages(tally: Tally) -> dict[str, int | None]:
    return {row.id: row.reading.cpu_usage_usec for row in rows(tally)}


def compare(frames: Iterable[tuple[Tally, str | None]]) -> Report:
    """Compare each frame's tally with the kubelet's page of that frame, ``None`` where it has none."""
    exposition = CadvisorExposition(timestamps=True)
    ours: dict[SeriesKey, list[Ours]] = defaultdict(list)
    stamped: dict[tuple[SeriesKey, int], Theirs] = {}
    bare: list[tuple[int, Theirs]] = []
    by_frame: list[dict[SeriesKey, Ours]] = []
    pages: list[tuple[int, list[Theirs], set[SeriesKey]]] = []
    ids: list[set[str]] = []
    for number, (tally, page) in enumerate(frames):
        usages = _usages(tally)
        ids.append(set(usages))
        now_ms = milliseconds(tally.instant.time_ns)
        latest: dict[SeriesKey, Ours] = {}
        for sample in parse(exposition.render(tally, openmetrics=False)):
            of = dict(sample.key.labels).get("id", "")
            time_ms = now_ms if sample.time_ms is None else sample.time_ms
            latest[sample.key] = Ours(time_ms, sample.value, of, usages.get(of))
        if page is not None:
            theirs = [_comparable(sample) for sample in parse(page)]
            pages.append((number, theirs, set(latest)))
            for sample in theirs:
                if sample.time_ms is not None:
                    stamped[sample.key, sample.time_ms] = sample
                else:
                    bare.append((number, sample))
        by_frame.append(latest)
        for key, one in latest.items():
            ours[key].append(one)
    comparisons = [held_against(sample, ours.get(sample.key, [])) for sample in stamped.values()]
    comparisons += [_without_time(sample, by_frame[max(0, at - 1) : at + 2]) for at, sample in bare]
    differences = _differences(pages, set.intersection(*ids) if ids else set())
    families = frozenset(family_of(sample.key) for _, theirs, _ in pages for sample in theirs)
    return Report(tuple(comparisons), tuple(differences), families, len(pages))


def _without_time(theirs: Theirs, frames: list[dict[SeriesKey, Ours]]) -> Comparison:
    found = [one for frame in frames if (one := frame.get(theirs.key)) is not None]
    if not found:
        return Comparison(theirs, None, None, "unread")
    agree = any(one.value == theirs.value for one in found)
    return Comparison(theirs, found[0], found[-1], "equal" if agree else "outside")


def _differences(pages: list[tuple[int, list[Theirs], set[SeriesKey]]], always: set[str]) -> Iterable[FrameDifference]:
    """The series of one page alone; ``always`` are the ids of the cgroups that are in every frame."""
    for number, theirs, our_keys in pages:
        their_keys = {sample.key for sample in theirs}
        times = [sample.time_ms for sample in theirs if sample.time_ms is not None]
        young_ms = max(times, default=0) - NEAR_MS
        young = {
            dict(sample.key.labels)["id"]
            for sample in theirs
            if sample.key.name == "container_start_time_seconds" and sample.value * 1000 >= young_ms
        }
        unnamed = _ids(their_keys, named=False) & _ids(our_keys, named=True)
        read = any(key.name in _NETWORK for key in our_keys)
        host = {_interface(key) for key in their_keys if key.name in _NETWORK and dict(key.labels)["id"] == "/"}
        for key in sorted(their_keys ^ our_keys):
            mine = key in our_keys
            reason = _reason(key, always - young, mine=mine)
            if reason is None and dict(key.labels).get("id") in unnamed:
                reason = "unnamed by the kubelet"
            if not mine and key.name in _NETWORK and not read:
                reason = "not recorded"
            elif reason is None and not mine and key.name in _NETWORK and _interface(key) in host:
                reason = "the host's network"
            yield FrameDifference(number, key, mine, reason)


def _interface(key: SeriesKey) -> str:
    return dict(key.labels)["interface"]


def _ids(keys: Iterable[SeriesKey], *, named: bool) -> set[str]:
    """The cgroups of which the series bear the name of a pod, or bear none."""
    labels = [dict(key.labels) for key in keys]
    return {one["id"] for one in labels if "id" in one and bool(one.get("pod")) == named}


def _reason(key: SeriesKey, old: set[str], *, mine: bool) -> Reason | None:
    """``old``: ids of the cgroups that are neither new nor gone."""
    labels, family = dict(key.labels), family_of(key)
    of = labels.get("id", "")
    if not mine:
        if family in LEFT_OUT:
            return "left out"
        if of.startswith(_OTHER_CGROUPS):
            return "system.slice"
        if family in NOT_RECORDED:
            return "not recorded"
        if family == "container_oom_events_total" and not labels["container"]:
            return "containers alone"
        if family == "container_start_time_seconds" and not labels["container"]:
            return "not recorded"
        if of == "/" and "device" in labels:
            return "a mounted file system"
        if of == "/" and family in _NOT_OF_THE_ROOT:
            return "no such file in the root cgroup"
    return "start or end" if of and of not in old else None


_NOT_OF_THE_ROOT = frozenset(
    {
        "container_memory_max_usage_bytes",
        "container_spec_cpu_period",
        "container_spec_cpu_shares",
        "container_spec_memory_reservation_limit_bytes",
        "container_threads_max",
    }
)
"""The kubelet gives 0 for these files, which no root cgroup has; we give nothing."""

Status = Literal["equal", "differs", "not recorded", "left out"]


class FamilyReport(NamedTuple):
    """What became of one family."""

    name: str
    status: Status
    why: str
    verdicts: Mapping[Verdict, int]
    reasons: Mapping[Reason | None, int]
    """Series in one page of a frame only, by reason."""

    @property
    def agreeing(self) -> int:
        """Samples that agree."""
        return sum(self.verdicts.get(one, 0) for one in AGREE)


def by_family(reports: Iterable[Report]) -> list[FamilyReport]:
    """All families of ours and of the kubelet's, by name, over several recordings."""
    verdicts: dict[str, Counter[Verdict]] = defaultdict(Counter)
    reasons: dict[str, Counter[Reason | None]] = defaultdict(Counter)
    names = {SCRAPE_ERROR.name, *(metric.name for metric in CADVISOR)}
    for report in reports:
        names |= report.families
        for one in report.comparisons:
            of = dict(one.theirs.key.labels).get("id", "")
            if not of.startswith(_OTHER_CGROUPS):
                verdicts[family_of(one.theirs.key)][one.verdict] += 1
        for difference in report.differences:
            reasons[family_of(difference.key)][difference.reason] += 1
    return [FamilyReport(name, *_status(name), verdicts[name], reasons[name]) for name in sorted(names)]


def _status(name: str) -> tuple[Status, str]:
    statuses: tuple[tuple[Status, Mapping[str, str]], ...] = (
        ("left out", LEFT_OUT),
        ("differs", DIFFERS),
        ("not recorded", NOT_RECORDED),
    )
    for status, names in statuses:
        if name in names:
            return status, names[name]
    return "equal", ""
