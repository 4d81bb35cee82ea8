"""``/metrics`` is what prometheus_client would write, and no family or label is made up on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from collector.cgroup.files import EVERYTHING
from collector.errors import UsageError
from collector.metrics import resource
from collector.metrics.catalogue import ALL_GROUPS, BY_NAME, CATALOGUE, DEFAULT_GROUPS, GROUPS, groups_of
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import NO_LIMIT, Ended, Kills, Tally
from tests.replays import last_tally, replayed
from tests.support import CAPTURED, SYNTHETIC

ALL = (*SYNTHETIC, *CAPTURED)


class Reference(Collector):
    """The families of a tally, taken from the model field by field and given to prometheus_client."""

    def __init__(self, tally: Tally, groups: frozenset[str]) -> None:
        self._tally = tally
        self._groups = groups

    def _items(self, scope: str) -> list[tuple[dict[str, str], Any]]:
        """What a family of the scope has a series of, with its labels."""
        tally = self._tally
        pods = [({"namespace": pod.pod.namespace, "pod": pod.pod.name}, pod) for pod in tally.pods]
        if scope == "pod":
            return list(pods)
        if scope == "container":
            return [({**own, "container": each.container.name}, each) for own, pod in pods for each in pod.containers]
        if scope == "info":
            return [
                (
                    own
                    | {
                        "node": pod.pod.node,
                        "qos_class": pod.pod.qos_class,
                        "source": pod.source,
                        "uid": pod.pod.uid,
                        "workload_kind": pod.pod.owner_kind,
                        "workload_name": pod.pod.owner_name,
                    },
                    pod,
                )
                for own, pod in pods
            ]
        named: dict[str, tuple[Kills | Ended, ...]] = {
            "pod_kills": tally.pod_kills,
            "container_kills": tally.container_kills,
            "ended": tally.ended,
        }
        return [({"namespace": one.namespace, "pod": one.pod, "container": one.container}, one) for one in named[scope]]

    def collect(self) -> Iterator[Metric]:
        for row in CATALOGUE:
            if row.group not in self._groups:
                continue
            make = CounterMetricFamily if row.type == "counter" else GaugeMetricFamily
            family = make(row.name.removesuffix("_total"), row.help, labels=row.labels, unit=row.unit)
            items = self._items(row.scope)
            if row.scope == "info":
                for labels, _ in items:
                    family.add_metric([labels[name] for name in row.labels], 1)
            for one in row.series:
                for own, item in items:
                    labels = own | ({one.label[0]: one.label[1]} if one.label else {})
                    details = item.reading.details if hasattr(item, "reading") else None
                    places = (item, getattr(item, "reading", None), details)
                    value = next(getattr(of, one.field) for of in places if hasattr(of, one.field))
                    if row.when and getattr(details, row.when) in (None, NO_LIMIT):
                        continue
                    if value is not None and value != NO_LIMIT:
                        family.add_metric([labels[name] for name in row.labels], value / row.divisor)
            if family.samples:
                yield family


@pytest.mark.parametrize("groups", [DEFAULT_GROUPS, ALL_GROUPS], ids=["default", "all"])
@pytest.mark.parametrize("name", ALL)
def test_the_text_is_that_of_generate_latest(name: str, groups: frozenset[str]) -> None:
    """Byte for byte what prometheus_client writes of the same values, in both formats."""
    tally = last_tally(name)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Reference(tally, groups))
    exposition = NativeExposition(Selection(groups=groups))

    assert exposition.render(tally, openmetrics=False) == generate_latest(registry).decode()
    assert exposition.render(tally, openmetrics=True) + "# EOF\n" == generate_openmetrics(registry).decode()


@pytest.mark.parametrize("openmetrics", [False, True], ids=["text", "openmetrics"])
def test_the_text_comes_a_family_at_a_time(openmetrics: bool) -> None:
    """Each part is one family, whole: none needs to be held while the next is written."""
    tally = last_tally("systemd-containerd.tar.zst")
    exposition = NativeExposition(Selection(groups=ALL_GROUPS))
    parts = list(exposition.parts(tally, openmetrics=openmetrics))
    written = [metric.name for metric, lines in exposition.families(tally) if lines]

    assert [(part.partition(" ")[0], part.count("# TYPE "), part[-1]) for part in parts] == [("#", 1, "\n")] * len(
        written
    )


@pytest.mark.parametrize("name", ALL)
def test_every_series_is_unique(name: str) -> None:
    """One series of a name and labels."""
    lines = NativeExposition(Selection(groups=ALL_GROUPS)).render(last_tally(name), openmetrics=False).splitlines()
    series = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]

    assert len(series) == len(set(series))
    assert series


def test_an_exposition_serves_tally_after_tally() -> None:
    """What is kept from one exposition to the next changes nothing: pods come and go, and labels stay right."""
    kept = NativeExposition(Selection())
    tallies = replayed("parity-1hz.tar.zst").tallies()
    pages = [(kept.render(tally, openmetrics=False), tally) for tally in tallies]

    for page, tally in pages[::10]:
        assert page == NativeExposition(Selection()).render(tally, openmetrics=False)


def test_all_families_of_the_catalogue_are_seen_on_a_real_node() -> None:
    """No row of the catalogue is without a series on a node that has all files, but for a limit that nothing has."""
    tally = last_tally("systemd-containerd.tar.zst")
    exposition = NativeExposition(Selection(groups=ALL_GROUPS))
    seen = {metric.name for metric, lines in exposition.families(tally) if lines}
    without = {row.name for row in CATALOGUE if row.scope != "self"} - seen

    assert without == {"pod_cgroup_memory_high_bytes", "pod_container_memory_high_bytes"}


def test_containers_can_be_left_out() -> None:
    """--no-containers leaves every pod_container_ family out and touches no other."""
    tally = last_tally("systemd-containerd.tar.zst")
    whole = NativeExposition(Selection()).families(tally)
    less = NativeExposition(Selection(containers=False)).families(tally)

    assert [one for one in whole if not one[0].name.startswith("pod_container_")] == list(less)


def test_a_group_that_is_off_has_no_family() -> None:
    """Of each group the families are there if it is on and absent if it is not."""
    tally = last_tally("systemd-containerd.tar.zst")
    for group in GROUPS:
        only = {
            metric.group for metric, _ in NativeExposition(Selection(groups=frozenset({group.name}))).families(tally)
        }
        others = NativeExposition(Selection(groups=ALL_GROUPS - {group.name})).families(tally)

        assert only == {group.name}
        assert {metric.group for metric, _ in others} == ALL_GROUPS - {group.name}


@pytest.mark.parametrize("words", ["", "default", "all", *(one.name for one in GROUPS)])
def test_what_is_not_read_changes_nothing_of_what_is_exported(words: str) -> None:
    """Whatever groups are on, /metrics and /metrics/resource say of a node that is read for these alone what they say
    when all of it is read.
    """
    groups = groups_of(words.split())
    exposition = NativeExposition(Selection(groups=groups))
    whole, less = (
        [
            (exposition.render(tally, openmetrics=False), resource.render(tally, openmetrics=False))
            for tally in replayed("churn.tar.zst", needed).tallies()
        ]
        for needed in (EVERYTHING, needs(groups))
    )

    assert less == whole


def test_pod_labels_are_exported_on_demand() -> None:
    """--pod-labels gives pod_info label_* with what is no label name made one; a pod without it has it empty."""
    tally = last_tally("systemd-containerd.tar.zst")
    page = NativeExposition(Selection(pod_labels=("app", "pod-template-hash"))).render(tally, openmetrics=False)
    infos = [line for line in page.splitlines() if line.startswith("pod_info{")]

    churn = next(line for line in infos if 'pod="churn-' in line)
    assert churn.startswith('pod_info{label_app="churn",label_pod_template_hash="85479d8bb",namespace="team-a",')
    assert all("label_app=" in line for line in infos)


def test_labels_that_would_collide_are_refused() -> None:
    """Two keys that make one label name are told at the start, not guessed at."""
    with pytest.raises(UsageError, match=r"'a\.b' and 'a-b' would both be exported as label_a_b"):
        Selection(pod_labels=("a.b", "a-b"))


def test_moments_alone_are_shifted() -> None:
    """A served replay moves the times of starts and ends to now, and /metrics has no other time."""
    tally = last_tally("systemd-containerd.tar.zst")
    exposition = NativeExposition(Selection())
    plain = exposition.render(tally, openmetrics=False).splitlines()
    moved = exposition.render(tally, openmetrics=False, start_shift_ns=10_000_000_000).splitlines()
    changed = {
        (a.partition("{")[0], float(b.split()[-1]) - float(a.split()[-1]))
        for a, b in zip(plain, moved, strict=True)
        if a != b
    }

    assert changed == {("pod_container_start_time_seconds", 10.0), ("pod_container_final_time_seconds", 10.0)}


def test_missing_files_leave_their_families_out() -> None:
    """On a kernel without PSI, swap accounting and memory.peak these families are absent, not 0."""
    tally = last_tally("missing-files")
    seen = {metric.name for metric, lines in NativeExposition(Selection()).families(tally) if lines}
    absent = {"memory_peak_bytes", "swap_usage_bytes", "cpu_pressure_seconds_total", "io_pressure_seconds_total"}

    assert not {f"pod_cgroup_{name}" for name in absent} & seen
    assert BY_NAME["pod_cgroup_memory_usage_bytes"].name in seen
