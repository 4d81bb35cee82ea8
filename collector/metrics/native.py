"""``/metrics``: podtally's own families, written from a tally by the rows of the catalogue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter
from typing import Any

from collector.cgroup.files import Needs, level_of
from collector.errors import UsageError
from collector.metrics import cadvisor, resource, text
from collector.metrics.catalogue import (
    CONTAINER,
    CONTAINER_KILLS,
    DEFAULT_GROUPS,
    ENDED,
    INFO,
    POD,
    POD_KILLS,
    Metric,
    needs_of,
)
from collector.model import NO_LIMIT, ContainerTally, Ended, Kills, PodTally, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the families and labels are exported."""

    containers: bool = True
    groups: frozenset[str] = DEFAULT_GROUPS
    """Groups of families."""
    pod_labels: tuple[str, ...] = ()
    """Keys of pod labels that ``pod_info`` carries."""
    cadvisor: bool = True
    """``/metrics/cadvisor`` is served too."""
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


_READ = frozenset({"pod", "container"})
"""Scopes whose items have a reading; those of others are values by themselves."""


def needs(groups: frozenset[str], *, for_cadvisor: bool = True) -> Needs:
    """The fields that the expositions are made of: those of families that are in none of the groups are not read, or
    seldom ``for_cadvisor``, whose page is ``/metrics/cadvisor``.
    """
    usual = resource.NEEDS | needs_of(groups)
    return usual | cadvisor.NEEDS if for_cadvisor else usual


class _Column:
    """Where a series' values are found: on the tally's item, its reading or its details."""

    __slots__ = ("get", "level", "sample", "suffix", "when")

    def __init__(self, metric: Metric, of: str, labels: text.Pairs) -> None:
        self.level = (level_of(of) if metric.scope in _READ else None) or "item"
        self.get: Callable[[Any], Any] = attrgetter(of)
        self.sample = metric.name
        self.suffix = labels
        self.when: Callable[[Any], Any] | None = attrgetter(metric.when) if metric.when else None


_COLUMNS: dict[str, tuple[_Column, ...]] = {
    metric.name: tuple(_Column(metric, one.field, one.labels) for one in metric.series)
    for metric in (*POD, *POD_KILLS, *CONTAINER, *CONTAINER_KILLS, *ENDED)
}


class _Items:
    """What the families of a scope have a series of, with the labels that they bear."""

    __slots__ = ("_labels", "_texts", "levels")

    def __init__(self, items: list[Any], labels: list[text.LabelTexts], *, read: bool = False) -> None:
        """``read``: they have a reading."""
        self._labels = labels
        self._texts: dict[text.Pairs, list[str]] = {}
        self.levels: dict[str, list[Any]] = {"item": items}
        if read:
            self.levels["reading"] = readings = [item.reading for item in items]
            self.levels["details"] = [reading.details for reading in readings]

    def texts(self, extra: text.Pairs) -> list[str]:
        """What stands in braces, for series that have these labels beside the items' own."""
        found = self._texts.get(extra)
        if found is None:
            found = self._texts[extra] = [labels[extra] for labels in self._labels]
        return found


class NativeExposition:
    """Writes tallies as ``/metrics``, podtally's account of itself left out. Not thread-safe."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._labels: dict[text.Pairs, text.LabelTexts] = {}
        self._numbers = text.Numbers()

    def families(self, tally: Tally, *, start_shift_ns: int = 0) -> Iterator[tuple[Metric, list[str]]]:
        """Each family with its lines. ``start_shift_ns`` moves times since the epoch, for a served replay."""
        pods = list(tally.pods)
        known = self._labels
        # Kept from one exposition to the next, and no longer than their pods.
        self._labels = {}

        def texts(labels: Iterable[text.Pairs]) -> list[text.LabelTexts]:
            return self._texts(labels, known)

        yield from self._scope(POD, _Items(pods, texts(map(_pod_labels, pods)), read=True), 0)
        kills = list(tally.pod_kills)
        yield from self._scope(POD_KILLS, _Items(kills, texts(map(_killed_pod_labels, kills))), 0)
        if INFO[0].group in self._selection.groups:
            yield INFO[0], [f"{INFO[0].name}{text.labels(self._info(tally, pod))} 1.0" for pod in pods]
        if self._selection.containers:
            containers = [one for pod in pods for one in pod.containers]
            labels = texts(map(_container_labels, containers))
            yield from self._scope(CONTAINER, _Items(containers, labels, read=True), start_shift_ns)
            kills = list(tally.container_kills)
            yield from self._scope(CONTAINER_KILLS, _Items(kills, texts(map(_name_labels, kills))), 0)
            ended = list(tally.ended)
            yield from self._scope(ENDED, _Items(ended, texts(map(_name_labels, ended))), start_shift_ns)

    def _texts(self, labels: Iterable[text.Pairs], known: dict[text.Pairs, text.LabelTexts]) -> list[text.LabelTexts]:
        texts: list[text.LabelTexts] = []
        for pairs in labels:
            found = self._labels[pairs] = known.get(pairs) or text.LabelTexts(pairs)
            texts.append(found)
        return texts

    def _scope(
        self, metrics: Iterable[Metric], items: _Items, start_shift_ns: int
    ) -> Iterator[tuple[Metric, list[str]]]:
        numbers, groups = self._numbers, self._selection.groups
        for metric in metrics:
            if metric.group not in groups:
                continue
            lines: list[str] = []
            divisor = metric.divisor
            shift = start_shift_ns if metric.moment else 0
            for column in _COLUMNS[metric.name]:
                sample, labels = column.sample, items.texts(column.suffix)
                values: Iterable[Any] = map(column.get, items.levels[column.level])
                if column.when is not None:
                    limits = map(column.when, items.levels["details"])
                    keep = [limit is not None and limit != NO_LIMIT for limit in limits]
                    values, labels = compress(values, keep), list(compress(labels, keep))
                if divisor != 1:
                    values = [value if value is None else (value + shift) / divisor for value in values]
                lines += [
                    f"{sample}{label} {numbers[value]}"
                    for value, label in zip(values, labels, strict=True)
                    if value is not None and value != NO_LIMIT
                ]
            yield metric, lines

    def _info(self, tally: Tally, one: PodTally) -> dict[str, str]:
        pod = one.pod
        extra = {name: pod.labels.get(key, "") for name, key in self._selection.label_names.items()}
        return {
            "namespace": pod.namespace,
            "node": pod.node or tally.node_name,
            "pod": pod.name,
            "qos_class": pod.qos_class or one.cgroup.qos_class,
            "source": one.source,
            "uid": pod.uid,
            "workload_kind": pod.owner_kind,
            "workload_name": pod.owner_name,
            **extra,
        }

    def parts(self, tally: Tally, *, openmetrics: bool, start_shift_ns: int = 0) -> Iterator[str]:
        """The text of all families, one at a time: lines that are let go of before the next are made leave their memory
        to these. Without ``# EOF``, as podtally's account of itself follows.
        """
        for metric, lines in self.families(tally, start_shift_ns=start_shift_ns):
            if lines:
                head = text.head(metric.name, metric.type, metric.help, metric.unit, openmetrics=openmetrics)
                yield "\n".join((head, *lines, ""))

    def render(self, tally: Tally, *, openmetrics: bool, start_shift_ns: int = 0) -> str:
        """The same in one piece."""
        return "".join(self.parts(tally, openmetrics=openmetrics, start_shift_ns=start_shift_ns))


def _pod_labels(one: PodTally) -> text.Pairs:
    return (("namespace", one.pod.namespace), ("pod", one.pod.name))


def _container_labels(one: ContainerTally) -> text.Pairs:
    return (("container", one.container.name), ("namespace", one.namespace), ("pod", one.pod))


def _killed_pod_labels(one: Kills) -> text.Pairs:
    return (("namespace", one.namespace), ("pod", one.pod))


def _name_labels(one: Kills | Ended) -> text.Pairs:
    return (("container", one.container), ("namespace", one.namespace), ("pod", one.pod))
