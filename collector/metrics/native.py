"""``/metrics``: podtally's own families, written from a tally by the rows of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import Any

from collector.cgroup.files import DETAIL_FIELDS, READING_FIELDS
from collector.errors import UsageError
from collector.metrics import text
from collector.metrics.catalogue import CONTAINER, INFO, POD, Metric
from collector.model import NO_LIMIT, ContainerTally, PodTally, Tally

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

    def __init__(self, metric: Metric, of: str, labels: text.Pairs) -> None:
        self.level = _level(of)
        self.get: Callable[[Any], Any] = attrgetter(of)
        self.sample = metric.name
        self.suffix = labels
        self.when: Callable[[Any], Any] | None = attrgetter(metric.when) if metric.when else None


def _level(of: str) -> str:
    if of in _DERIVED:
        return _DERIVED[of]
    if of in READING_FIELDS:
        return "reading"
    return "details" if of in DETAIL_FIELDS else "item"


_COLUMNS: dict[str, tuple[_Column, ...]] = {
    metric.name: tuple(_Column(metric, one.field, one.labels) for one in metric.series) for metric in (*POD, *CONTAINER)
}


class _Items:
    """The pods or the containers of a tally, with the labels that they bear."""

    __slots__ = ("labels", "levels")

    def __init__(self, items: list[Any], labels: list[text.LabelTexts]) -> None:
        readings = [item.reading for item in items]
        self.labels = labels
        self.levels: dict[str, list[Any]] = {
            "item": items,
            "reading": readings,
            "details": [reading.details for reading in readings],
        }


class NativeExposition:
    """Writes tallies as ``/metrics``, podtally's account of itself left out. Not thread-safe."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._labels: dict[text.Pairs, text.LabelTexts] = {}
        self._numbers = text.Numbers()

    def families(self, tally: Tally, *, start_shift_ns: int = 0) -> Iterator[tuple[Metric, list[str]]]:
        """Each family with its lines. ``start_shift_ns`` moves start times, for a served replay."""
        pods = list(tally.pods)
        known = self._labels
        # Kept from one exposition to the next, and no longer than their pods.
        self._labels = {}
        yield from self._scope(POD, _Items(pods, self._texts(map(_pod_labels, pods), known)), 0)
        yield INFO[0], [f"{INFO[0].name}{text.labels(self._info(tally, pod))} 1.0" for pod in pods]
        if self._selection.containers:
            containers = [one for pod in pods for one in pod.containers]
            texts = self._texts(map(_container_labels, containers), known)
            yield from self._scope(CONTAINER, _Items(containers, texts), start_shift_ns)

    def _texts(self, labels: Iterable[text.Pairs], known: dict[text.Pairs, text.LabelTexts]) -> list[text.LabelTexts]:
        texts: list[text.LabelTexts] = []
        for pairs in labels:
            found = self._labels[pairs] = known.get(pairs) or text.LabelTexts(pairs)
            texts.append(found)
        return texts

    def _scope(
        self, metrics: Iterable[Metric], items: _Items, start_shift_ns: int
    ) -> Iterator[tuple[Metric, list[str]]]:
        numbers = self._numbers
        for metric in metrics:
            lines: list[str] = []
            divisor = metric.divisor
            for column in _COLUMNS[metric.name]:
                get, sample, extra = column.get, column.sample, column.suffix
                values = items.levels[column.level]
                labels = items.labels
                if column.when is not None:
                    limits = map(column.when, items.levels["details"])
                    keep = [limit is not None and limit != NO_LIMIT for limit in limits]
                    values, labels = list(compress(values, keep)), list(compress(labels, keep))
                shift = start_shift_ns if get is _STARTED else 0
                for value, texts in zip(map(get, values), labels, strict=True):
                    if value is None or value == NO_LIMIT:
                        continue
                    if divisor != 1:
                        value = (value + shift) / divisor
                    lines.append(f"{sample}{texts[extra]} {numbers[value]}")
            yield metric, lines

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
        for metric, lines in self.families(tally, start_shift_ns=start_shift_ns):
            if lines:
                parts.append(text.head(metric.name, metric.type, metric.help, metric.unit, openmetrics=openmetrics))
                parts += lines
        return "\n".join((*parts, ""))


_STARTED = next(column.get for column in _COLUMNS["pod_container_start_time_seconds"])


def _pod_labels(one: PodTally) -> text.Pairs:
    return (("namespace", one.pod.namespace), ("pod", one.pod.name))


def _container_labels(one: ContainerTally) -> text.Pairs:
    return (("container", one.container.name), ("namespace", one.namespace), ("pod", one.pod))
