"""``/metrics``: podtally's own families, written from a tally by the rows of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from collector.cgroup.files import DETAIL_FIELDS, READING_FIELDS
from collector.errors import UsageError
from collector.metrics import text
from collector.metrics.catalogue import CONTAINER, INFO, POD, Metric
from collector.model import NO_LIMIT, ContainerTally, PodTally, Tally

Row = tuple[str, str]
"""A series with its labels, and its value, as they are written."""

_DERIVED = {
    "memory_working_set_bytes": "reading",
    "cpu_limit_cores": "details",
}
"""Properties of the model that are no fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the families and labels are exported."""

    containers: bool = True
    pod_labels: tuple[str, ...] = ()
    """Keys of pod labels that ``pod_info`` carries."""
    label_names: Mapping[str, str] = field(init=False)
    """Name of the exported label, and the key of the pod's label."""

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for key in self.pod_labels:
            name = "label_" + re.sub(r"[^a-zA-Z0-9_]", "_", key)
            if name in names and names[name] != key:
                raise UsageError(
                    f"--pod-labels: {names[name]!r} and {key!r} would both be exported as {name}: choose one of them"
                )
            names[name] = key
        object.__setattr__(self, "label_names", names)


class _Column:
    """Where a series' values are found: on the tally's item, its reading or its details."""

    __slots__ = ("get", "level", "sample", "suffix", "when")

    def __init__(self, metric: Metric, of: str, label: tuple[str, str] | None) -> None:
        self.level = _level(of)
        self.get: Callable[[Any], Any] = attrgetter(of)
        self.sample = metric.name
        self.suffix = label
        self.when: Callable[[Any], Any] | None = attrgetter(metric.when) if metric.when else None


def _level(of: str) -> str:
    if of in _DERIVED:
        return _DERIVED[of]
    if of in READING_FIELDS:
        return "reading"
    return "details" if of in DETAIL_FIELDS else "item"


_COLUMNS: dict[str, tuple[_Column, ...]] = {
    metric.name: tuple(_Column(metric, one.field, one.label) for one in metric.series) for metric in (*POD, *CONTAINER)
}


class _Items:
    """The pods or the containers of a tally, with the labels that they bear."""

    __slots__ = ("labels", "levels")

    def __init__(self, items: list[Any], labels: list[tuple[tuple[str, str], ...]]) -> None:
        readings = [item.reading for item in items]
        self.labels = labels
        self.levels: dict[str, list[Any]] = {
            "item": items,
            "reading": readings,
            "details": [reading.details for reading in readings],
        }


class _LabelCache:
    """Label texts from one exposition to the next: they change as seldom as pods come and go."""

    def __init__(self) -> None:
        self._texts: dict[tuple[Any, ...], str] = {}

    def texts(self, labels: list[tuple[tuple[str, str], ...]], extra: tuple[str, str] | None) -> list[str]:
        known = self._texts
        result: list[str] = []
        for pairs in labels:
            key = (pairs, extra)
            found = known.get(key)
            if found is None:
                found = known[key] = text.labels(dict((*pairs, extra) if extra else pairs))
            result.append(found)
        return result

    def trim(self, live: int) -> None:
        """Forget all once most of it is of pods long gone."""
        if len(self._texts) > 64 * live + 1024:
            self._texts.clear()


class NativeExposition:
    """Writes tallies as ``/metrics``, podtally's account of itself left out. Not thread-safe."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._cache = _LabelCache()

    def families(self, tally: Tally, *, start_shift_ns: int = 0) -> Iterator[tuple[Metric, list[Row]]]:
        """Each family that has a series, with its rows. ``start_shift_ns`` moves start times, for a served replay."""
        pods = list(tally.pods)
        yield from self._scope(POD, _Items(pods, [_pod_labels(pod) for pod in pods]), 0)
        yield INFO[0], [(f"{INFO[0].name}{text.labels(self._info(tally, pod))}", "1.0") for pod in pods]
        if self._selection.containers:
            containers = [one for pod in pods for one in pod.containers]
            labels = [_container_labels(one) for one in containers]
            yield from self._scope(CONTAINER, _Items(containers, labels), start_shift_ns)
            pods_and_containers = len(pods) + len(containers)
        else:
            pods_and_containers = len(pods)
        self._cache.trim(pods_and_containers)

    def _scope(
        self, metrics: Iterable[Metric], items: _Items, start_shift_ns: int
    ) -> Iterator[tuple[Metric, list[Row]]]:
        number = text.number
        for metric in metrics:
            rows: list[Row] = []
            divisor = metric.divisor
            for column in _COLUMNS[metric.name]:
                get, sample = column.get, column.sample
                labels = self._cache.texts(items.labels, column.suffix)
                values = items.levels[column.level]
                if column.when is not None:
                    limits = map(column.when, items.levels["details"])
                    keep = [limit is not None and limit != NO_LIMIT for limit in limits]
                    values = [one for one, kept in zip(values, keep, strict=True) if kept]
                    labels = [one for one, kept in zip(labels, keep, strict=True) if kept]
                for one, label in zip(values, labels, strict=True):
                    value = get(one)
                    if value is None or value == NO_LIMIT:
                        continue
                    if divisor != 1:
                        value = (value + start_shift_ns if get is _STARTED else value) / divisor
                    rows.append((sample + label, number(value)))
            yield metric, rows

    def _info(self, tally: Tally, one: PodTally) -> dict[str, str]:
        pod = one.pod
        extra = {name: pod.labels.get(key, "") for name, key in self._selection.label_names.items()}
        return {
            "namespace": pod.namespace,
            "node": pod.node or tally.node_name,
            "pod": pod.name,
            "qos_class": pod.qos_class or one.cgroup.qos_class,
            "uid": pod.uid,
            "workload_kind": pod.owner_kind,
            "workload_name": pod.owner_name,
            **extra,
        }

    def render(self, tally: Tally, *, openmetrics: bool, start_shift_ns: int = 0) -> str:
        """The text of all families; without ``# EOF``, as podtally's account of itself follows."""
        parts: list[str] = []
        for metric, rows in self.families(tally, start_shift_ns=start_shift_ns):
            if rows:
                parts.append(text.head(metric.name, metric.type, metric.help, metric.unit, openmetrics=openmetrics))
                parts += [f"{series} {value}\n" for series, value in rows]
        return "".join(parts)


_STARTED = next(column.get for column in _COLUMNS["pod_container_start_time_seconds"])


def _pod_labels(one: PodTally) -> tuple[tuple[str, str], ...]:
    return (("namespace", one.pod.namespace), ("pod", one.pod.name))


def _container_labels(one: ContainerTally) -> tuple[tuple[str, str], ...]:
    return (("container", one.container.name), ("namespace", one.namespace), ("pod", one.pod))
