"""``/metrics`` is what prometheus_client would write, and no family or label is made up on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from collector.errors import UsageError
from collector.metrics.catalogue import BY_NAME, CATALOGUE, CONTAINER, INFO, POD
from collector.metrics.native import NativeExposition, Selection
from collector.model import NO_LIMIT, ContainerTally, PodTally, Tally
from tests.replays import last_tally, replayed
from tests.support import CAPTURED, SYNTHETIC

ALL = (*SYNTHETIC, *CAPTURED)


class Reference(Collector):
    """The families of a tally, taken from the model field by field and given to prometheus_client."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        for row in (*POD, *INFO, *CONTAINER):
            make = CounterMetricFamily if row.type == "counter" else GaugeMetricFamily
            family = make(row.name.removesuffix("_total"), row.help, labels=row.labels, unit=row.unit)
            for pod in self._tally.pods:
                labels = {"namespace": pod.pod.namespace, "pod": pod.pod.name}
                if row.scope == "info":
                    labels |= {
                        "node": pod.pod.node,
                        "qos_class": pod.pod.qos_class,
                        "uid": pod.pod.uid,
                        "workload_kind": pod.pod.owner_kind,
                        "workload_name": pod.pod.owner_name,
                    }
                    family.add_metric([labels[name] for name in row.labels], 1)
            for one in row.series:
                for pod in self._tally.pods:
                    items: list[tuple[dict[str, str], PodTally | ContainerTally]] = [({}, pod)]
                    if row.scope == "container":
                        items = [({"container": each.container.name}, each) for each in pod.containers]
                    for own, item in items:
                        labels = {"namespace": pod.pod.namespace, "pod": pod.pod.name, **own}
                        if one.label:
                            labels[one.label[0]] = one.label[1]
                        details = item.reading.details
                        places = (item, item.reading, details)
                        value = next(getattr(of, one.field) for of in places if hasattr(of, one.field))
                        if row.when and getattr(details, row.when) in (None, NO_LIMIT):
                            continue
                        if value is not None and value != NO_LIMIT:
                            family.add_metric([labels[name] for name in row.labels], value / row.divisor)
            if family.samples:
                yield family


@pytest.mark.parametrize("name", ALL)
def test_the_text_is_that_of_generate_latest(name: str) -> None:
    """Byte for byte what prometheus_client writes of the same values, in both formats."""
    tally = last_tally(name)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Reference(tally))
    exposition = NativeExposition(Selection())

    assert exposition.render(tally, openmetrics=False) == generate_latest(registry).decode()
    assert exposition.render(tally, openmetrics=True) + "# EOF\n" == generate_openmetrics(registry).decode()


@pytest.mark.parametrize("name", ALL)
def test_every_series_is_unique(name: str) -> None:
    """One series of a name and labels."""
    lines = NativeExposition(Selection()).render(last_tally(name), openmetrics=False).splitlines()
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
    """No row of the catalogue is without a series on a node that has all files."""
    tally = last_tally("systemd-containerd.tar.zst")
    seen = {metric.name for metric, lines in NativeExposition(Selection()).families(tally) if lines}

    assert {row.name for row in CATALOGUE if row.scope != "self"} - seen == set()


def test_containers_can_be_left_out() -> None:
    """--no-containers leaves every pod_container_ family out and touches no other."""
    tally = last_tally("systemd-containerd.tar.zst")
    whole = NativeExposition(Selection()).families(tally)
    less = NativeExposition(Selection(containers=False)).families(tally)

    assert [one for one in whole if one[0].scope != "container"] == list(less)


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


def test_start_times_alone_are_shifted() -> None:
    """A served replay moves start times to now, and /metrics has no other time."""
    tally = last_tally("systemd-containerd.tar.zst")
    exposition = NativeExposition(Selection())
    plain = exposition.render(tally, openmetrics=False).splitlines()
    moved = exposition.render(tally, openmetrics=False, start_shift_ns=10_000_000_000).splitlines()
    changed = {
        (a.partition("{")[0], float(b.split()[-1]) - float(a.split()[-1]))
        for a, b in zip(plain, moved, strict=True)
        if a != b
    }

    assert changed == {("pod_container_start_time_seconds", 10.0)}


def test_missing_files_leave_their_families_out() -> None:
    """On a kernel without PSI, swap accounting and memory.peak these families are absent, not 0."""
    tally = last_tally("missing-files")
    seen = {metric.name for metric, lines in NativeExposition(Selection()).families(tally) if lines}
    absent = {"memory_peak_bytes", "swap_usage_bytes", "cpu_pressure_seconds_total", "io_pressure_seconds_total"}

    assert not {f"pod_cgroup_{name}" for name in absent} & seen
    assert BY_NAME["pod_cgroup_memory_usage_bytes"].name in seen
