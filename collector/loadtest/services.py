"""What each service used: the pods' series, joined with ``pod_info``, before, during and after the load. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from collector.loadtest.model import (
    Point,
    Series,
    Service,
    Signal,
    Span,
    Spans,
    Track,
    Use,
    Workload,
)
from collector.loadtest.samples import increase, number, total, usage
from collector.loadtest.saturation import Cgroup, rank, signals

CPU: Final = "pod_cpu_usage_cores"
MEMORY: Final = "pod_memory_usage_bytes"

_POD_CGROUP: Final = "pod_cgroup_"
_CONTAINER_CGROUP: Final = "pod_container_"
_OF_THE_POD: Final = {"pod_oom_kills_total": "oom_kills_total", MEMORY: "memory_working_set_bytes"}
"""Families of a pod that stand for its cgroup's."""


class PodKey(NamedTuple):
    """A pod by name."""

    namespace: str
    pod: str


class Pods:
    """The series of the application's pods."""

    def __init__(self, series: Iterable[Series]) -> None:
        self.series = tuple(series)
        gauges: dict[str, dict[PodKey, list[Point]]] = defaultdict(lambda: defaultdict(list))
        cgroups: dict[PodKey, dict[str | None, dict[str, list[Point]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        self.workloads: dict[PodKey, Workload] = {}
        for one in self.series:
            key = PodKey(one.labels.get("namespace", ""), one.labels.get("pod", ""))
            if one.name == "pod_info":
                self.workloads[key] = _workload(key, one.labels)
                continue
            # A pod that went from one scraped node to another, or a collector with a new address, has several series.
            gauges[one.name][key] += one.points
            family, container = _family(one), one.labels.get("container")
            if family is not None:
                cgroups[key][container][family] += one.points
        self._gauges = gauges
        self.cgroups = {
            key: [
                Cgroup(key.pod, container, {name: _in_order(points) for name, points in families.items()})
                for container, families in of.items()
            ]
            for key, of in cgroups.items()
        }
        for key in gauges[CPU]:
            self.workloads.setdefault(key, _bare(key))

    def gauge(self, name: str, keys: Iterable[PodKey]) -> list[Series]:
        """A gauge of some pods, one series each."""
        found = self._gauges[name]
        return [Series(name, key._asdict(), _in_order(found[key])) for key in keys if key in found]

    def services(self) -> dict[Workload, list[PodKey]]:
        """The pods of each service."""
        found: dict[Workload, list[PodKey]] = defaultdict(list)
        for key, workload in sorted(self.workloads.items()):
            found[workload].append(key)
        return found

    def counter(self, key: PodKey, container: str | None, family: str) -> tuple[Point, ...]:
        """A counter of one cgroup of a pod's."""
        return next((one.of(family) for one in self.cgroups.get(key, []) if one.container == container), ())


def _in_order(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple(Point(time, value) for time, value in sorted(dict(points).items()))


def _workload(key: PodKey, labels: Mapping[str, str]) -> Workload:
    name = labels.get("workload_name")
    return Workload(key.namespace, labels.get("workload_kind", ""), name) if name else _bare(key)


def _bare(key: PodKey) -> Workload:
    return Workload(key.namespace, "Pod", key.pod)


def _family(series: Series) -> str | None:
    for prefix in (_POD_CGROUP, _CONTAINER_CGROUP):
        if series.name.startswith(prefix):
            return series.name.removeprefix(prefix)
    return _OF_THE_POD.get(series.name)


class _Throttling(NamedTuple):
    seconds: float
    periods: float
    throttled: float


def _throttling(cgroups: Sequence[Cgroup], span: Span) -> _Throttling | None:
    """Of the cgroup of a pod that was held back for longest; a pod's and its container's times overlap, so no sum."""
    found = []
    for cgroup in cgroups:
        grown = [
            increase(cgroup.of(family), span)
            for family in ("cpu_throttled_seconds_total", "cpu_periods_total", "cpu_throttled_periods_total")
        ]
        if all(one is not None for one in grown):
            found.append(_Throttling(*(one or 0.0 for one in grown)))
    return max(found, default=None)


def _use(track: Track, spans: Spans) -> Use:
    return Use(*(usage(track, span) for span in spans))


def _limit(pods: Pods, keys: Sequence[PodKey], name: str, spans: Spans, step: float) -> float | None:
    series = pods.gauge(name, keys)
    if len(series) < len(keys):
        return None
    return usage(total(series, spans.during, step), spans.during).most


def service(pods: Pods, workload: Workload, keys: Sequence[PodKey], spans: Spans, step: float) -> Service:
    """What one service used."""
    tracks = {name: total(pods.gauge(name, keys), spans.whole, step) for name in (CPU, MEMORY)}
    throttling = [
        one for one in (_throttling(pods.cgroups.get(key, []), spans.during) for key in keys) if one is not None
    ]
    periods = sum(one.periods for one in throttling)
    kills = [increase(pods.counter(key, None, "oom_kills_total"), spans.during) for key in keys]
    known_kills = [one for one in kills if one is not None]
    under, before = _signals(pods, keys, spans)
    return Service(
        workload=workload,
        pods_most=number(pods.gauge(CPU, keys), spans.during, step),
        cpu_cores=_use(tracks[CPU], spans),
        memory_bytes=_use(tracks[MEMORY], spans),
        cpu_limit_cores=_limit(pods, keys, "pod_cgroup_cpu_limit_cores", spans, step),
        memory_limit_bytes=_limit(pods, keys, "pod_cgroup_memory_limit_bytes", spans, step),
        throttled_seconds=sum(one.seconds for one in throttling) if throttling else None,
        throttled_share=sum(one.throttled for one in throttling) / periods if periods else None,
        oom_kills=round(sum(known_kills)) if known_kills else None,
        signals=under,
        already=before,
        cpu=tracks[CPU],
        memory=tracks[MEMORY],
    )


def _signals(pods: Pods, keys: Sequence[PodKey], spans: Spans) -> tuple[tuple[Signal, ...], tuple[Signal, ...]]:
    """The signs that began under load, and those that were there before it."""
    cgroups = [cgroup for key in keys for cgroup in pods.cgroups.get(key, [])]
    before = [one for cgroup in cgroups for one in signals(cgroup, spans.before)]
    old = {(one.name, one.pod, one.container) for one in before}
    under = [one for cgroup in cgroups for one in signals(cgroup, spans.during)]
    new = [one for one in under if (one.name, one.pod, one.container) not in old]
    return tuple(sorted(new, key=rank)), tuple(sorted(before, key=rank))


def totals(pods: Pods, spans: Spans, step: float) -> tuple[Use, Use]:
    """CPU and memory of the whole application."""
    keys = sorted(pods.workloads)
    cpu, memory = (_use(total(pods.gauge(name, keys), spans.whole, step), spans) for name in (CPU, MEMORY))
    return cpu, memory


def in_order_of_saturation(services: Iterable[Service]) -> tuple[Workload, ...]:
    """The services that saturated under load, the first first."""
    found = [one for one in services if one.signals]
    return tuple(one.workload for one in sorted(found, key=lambda one: rank(one.signals[0])))
