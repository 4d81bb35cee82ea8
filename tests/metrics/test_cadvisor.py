"""``/metrics/cadvisor`` has the kubelet's form; its numbers are held against the kubelet's in tests/parity."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from collector.cgroup.files import DETAIL_FIELDS, READING_FIELDS
from collector.metrics.cadvisor import UNKNOWN_IMAGE, CadvisorExposition, Kind, Row, node_reading, rows
from collector.metrics.cadvisor_catalogue import (
    BASE_LABELS,
    CADVISOR,
    LEFT_OUT,
    SCRAPE_ERROR,
    CadvisorMetric,
)
from collector.metrics.catalogue import BY_NAME, DEFAULT_GROUPS, groups_of
from collector.metrics.native import needs
from collector.model import NO_LIMIT, Details, DeviceIo, Interface, NodeReading, Reading, Tally
from tests.helpers import families
from tests.replays import last_tally, replayed
from tests.support import CAPTURED, RECORDED, SYNTHETIC

REAL = "systemd-containerd.tar.zst"
ALL = (*SYNTHETIC, *CAPTURED, *RECORDED)


def page(tally: Tally | None, *, timestamps: bool = False) -> str:
    """The page in the text format."""
    return CadvisorExposition(timestamps=timestamps).render(tally, openmetrics=False)


def samples(text: str) -> dict[str, str]:
    """Values, and times where there are any, by series."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {line[: line.rindex("}") + 1]: line[line.rindex("}") + 2 :] for line in lines if "}" in line}


def named(metric: CadvisorMetric) -> str:
    """A test's id."""
    return metric.name


# --- the form -------------------------------------------------------------------------------------------------------


class Reference(Collector):
    """The families of a tally, taken from the rows one by one and given to prometheus_client."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        for metric in (*CADVISOR, SCRAPE_ERROR):
            make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            name = metric.name.removesuffix("_total")
            family = make(name, metric.help, labels=metric.labels, unit=metric.declared_unit)
            if metric is SCRAPE_ERROR:
                family.add_metric((), 0)
            for series in metric.series:
                for row in rows(self._tally):
                    for labels, value in self._values(metric, row, series.field):
                        labels |= dict(row.labels) | dict(series.labels)
                        if value is not None:
                            family.add_metric([labels[one] for one in metric.labels], value / metric.divisor)
            if family.samples:
                yield family

    def _values(self, metric: CadvisorMetric, row: Row, field: str) -> Iterator[tuple[dict[str, str], float | None]]:
        details = row.reading.details
        if metric.each == "interface":
            for one in row.network:
                yield {"interface": one.name}, getattr(one, field)
        elif metric.each == "device":
            names = self._tally.node.devices or {}
            for device in details.io or ():
                path = f"/dev/{names[device[:2]]}" if device[:2] in names else f"{device.major}:{device.minor}"
                numbers = {"device": path, "major": str(device.major), "minor": str(device.minor)}
                yield numbers, getattr(device, field)
        elif metric.name == "container_last_seen":
            yield {}, self._tally.instant.time_ns // 1_000_000_000 * metric.divisor
        elif metric.name == "container_start_time_seconds":
            yield {}, None if row.begun_ns is None else row.begun_ns // 1_000_000_000 * metric.divisor
        elif not (metric.when and details.cpu_quota_usec in (None, NO_LIMIT)) and (
            row.kind == "container" or not metric.containers_only
        ):
            value = next(getattr(of, field) for of in (row.reading, details) if hasattr(of, field))
            if value == NO_LIMIT:
                value = 0 if metric.zero_without_limit else None
            yield {}, None if metric.omit_zero and not value else value


@pytest.mark.parametrize("name", ALL)
def test_the_text_is_that_of_generate_latest(name: str) -> None:
    """Byte for byte what prometheus_client writes of the same values, in both formats."""
    tally = last_tally(name)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Reference(tally))
    exposition = CadvisorExposition()

    assert exposition.render(tally, openmetrics=False) == generate_latest(registry).decode()
    assert exposition.render(tally, openmetrics=True) == generate_openmetrics(registry).decode()


@pytest.mark.parametrize("name", ALL)
def test_every_series_is_unique(name: str) -> None:
    """One series of a name and labels, times left aside."""
    lines = [line for line in page(last_tally(name), timestamps=True).splitlines() if not line.startswith("#")]
    series = [line[: line.rfind("}") + 1] or line for line in lines]

    assert [one for one, times in Counter(series).items() if times > 1] == []


@pytest.mark.parametrize("metric", [*CADVISOR, SCRAPE_ERROR], ids=named)
def test_a_row_of_the_catalogue_is_whole(metric: CadvisorMetric) -> None:
    """Name, type, help, labels and a source of each; the unit that OpenMetrics is told is the end of the name."""
    stem = metric.name.removesuffix("_total")

    assert re.fullmatch(r"container_[a-z0-9_]+", metric.name)
    assert (metric.type == "counter") == metric.name.endswith("_total")
    assert metric.help
    assert metric.source
    assert metric.scope == "self" or set(metric.labels) >= set(BASE_LABELS)
    assert not metric.declared_unit or stem.endswith(f"_{metric.declared_unit}")
    assert metric.unit in ("", "bytes", "seconds", "microseconds")
    assert metric.each or metric.formula or all(one.field in READING_FIELDS | DETAIL_FIELDS for one in metric.series)


def test_names_are_unique_and_in_order() -> None:
    """No family twice, none that is left out, none of /metrics; sorted, as the kubelet's page is."""
    names = [metric.name for metric in CADVISOR]

    assert names == sorted(set(names))
    assert not set(names) & (LEFT_OUT.keys() | BY_NAME.keys())


def test_all_families_are_seen_on_a_real_node_but_those_it_lacks() -> None:
    """Of a recording with all cgroup files, only the network and the cost of I/O have no series."""
    seen = {family.name for family in families(page(last_tally(REAL)), openmetrics=False)}
    lacking = {metric.name for metric in CADVISOR if metric.name.removesuffix("_total") not in seen}

    assert lacking == {metric.name for metric in CADVISOR if metric.each == "interface" or "_io_cost_" in metric.name}


def test_without_a_tally_there_is_but_the_error() -> None:
    """The page of a collector that has nothing to show, or nothing that is fresh."""
    assert page(None).splitlines()[2:] == ["container_scrape_error 1.0"]
    assert page(last_tally(REAL)).splitlines()[-1] == "container_scrape_error 0.0"


# --- the rows -------------------------------------------------------------------------------------------------------


def test_the_rows_are_the_kubelets() -> None:
    """The node, three slices, and of thirteen pods each with its sandbox and its containers."""
    tally = last_tally(REAL)
    found = rows(tally)

    assert Counter(row.kind for row in found) == {
        "node": 1,
        "slice": 3,
        "pod": len(tally.pods),
        "sandbox": len(tally.pods),
        "container": sum(len(pod.containers) for pod in tally.pods),
    }
    assert [row.id for row in found[:4]] == [
        "/",
        "/kubepods.slice",
        "/kubepods.slice/kubepods-besteffort.slice",
        "/kubepods.slice/kubepods-burstable.slice",
    ]


def test_labels_tell_the_kinds_of_rows_apart() -> None:
    """A container has a name and an image, a sandbox its id alone, a pod its names, a slice nothing but its id."""
    shapes = {row.kind: tuple(bool(value) for _, value in row.labels) for row in rows(last_tally(REAL))}

    assert shapes == {
        # container, id, image, name, namespace, pod
        "node": (False, True, False, False, False, False),
        "slice": (False, True, False, False, False, False),
        "pod": (False, True, False, False, True, True),
        "sandbox": (False, True, False, True, True, True),
        "container": (True, True, True, True, True, True),
    }


@pytest.mark.parametrize("name", ALL)
def test_no_container_is_without_an_image(name: str) -> None:
    """Dashboards take a row with an empty image for no container."""
    assert [row for row in rows(last_tally(name)) if row.kind == "container" and not row.image] == []


def test_an_image_that_nobody_knows_is_called_unknown() -> None:
    """A status and a spec that name no image leave the word for it."""
    tally = last_tally("static-pod")
    pod = tally.pods[0]
    bare = tuple(one._replace(container=replace(one.container, image="")) for one in pod.containers)
    found = rows(replace(tally, pods=(pod._replace(containers=bare),)))

    assert {row.image for row in found if row.kind == "container"} == {UNKNOWN_IMAGE}


def test_a_named_pod_without_a_running_container_keeps_its_rows() -> None:
    """The pod's and the sandbox' rows outlive the containers, as the kubelet's do."""
    tally = last_tally(REAL)
    pod = tally.pods[0]._replace(containers=())

    assert [row.kind for row in rows(replace(tally, pods=(pod,), slices=()))] == ["node", "pod", "sandbox"]


def test_starts_follow_one_another() -> None:
    """A pod begins before its sandbox, and that before its containers, as their directories or statuses say."""
    tally = last_tally("oom.tar.zst")
    begun: dict[str, list[int]] = {}
    for row in rows(tally):
        if row.pod and row.begun_ns is not None:
            begun.setdefault(f"{row.namespace}/{row.pod}", []).append(row.begun_ns)

    assert {name: times[:2] for name, times in begun.items()} == {
        name: sorted((times[0], times[1])) for name, times in begun.items()
    }
    assert all(times[1] <= min(times[1:]) for times in begun.values() if len(times) > 2)


# --- the values -----------------------------------------------------------------------------------------------------


def tally_of(*readings: Reading, **changes: Any) -> Tally:
    """A tally of a recording, its slices having these readings, or with other changes."""
    tally = last_tally("static-pod")
    slices = tuple(
        tally.slices[0]._replace(path=str(number), started_ns=None, reading=one) for number, one in enumerate(readings)
    )
    return replace(tally, slices=slices, pods=(), **changes)


def of_first(text: str) -> dict[str, str]:
    """Values of the first slice of :func:`tally_of`, by name and the labels beyond the six, with blanks."""
    found = {}
    for series, value in samples(text).items():
        name, _, labels = series.partition("{")
        pairs = re.findall(r'([a-z_]+="[^"]*")', labels)
        if 'id="/0"' in pairs:
            extra = [pair for pair in pairs if pair.partition("=")[0] not in BASE_LABELS]
            found[" ".join((name, *extra))] = value
    return found


def test_cpu_that_was_never_used_has_no_series() -> None:
    """The kubelet omits usage while it is 0, and only that."""
    found = of_first(page(tally_of(Reading(0, cpu_usage_usec=0, cpu_user_usec=0))))

    assert [name for name in found if "_cpu_us" in name] == ["container_cpu_user_seconds_total"]


@pytest.mark.parametrize(("quota", "there"), [(50_000, True), (NO_LIMIT, False), (None, False)])
def test_throttling_is_told_under_a_quota_alone(quota: float | None, there: bool) -> None:
    """Without a quota there is no cfs family, and no quota to show."""
    details = Details(cpu_quota_usec=quota, cpu_period_usec=100_000, cpu_burst_usec=1_500_000, cpu_burst_periods=3)
    found = of_first(page(tally_of(Reading(0, cpu_periods=7, details=details))))

    assert ("container_cpu_cfs_periods_total" in found, "container_spec_cpu_quota" in found) == (there, there)
    assert found.get("container_cpu_cfs_burst_seconds_total") == ("1.5" if there else None)
    assert found["container_spec_cpu_period"] == "100000.0"


def test_no_limit_is_0_where_cadvisor_says_so() -> None:
    """The word max is 0 for memory, swap and tasks; a file that is not there is nothing."""
    details = Details(memory_limit_bytes=NO_LIMIT, swap_limit_bytes=4096, tasks_limit=NO_LIMIT)
    found = of_first(page(tally_of(Reading(0, details=details))))

    assert found == {
        "container_last_seen": found["container_last_seen"],
        "container_spec_memory_limit_bytes": "0.0",
        "container_spec_memory_swap_limit_bytes": "4096.0",
        "container_threads_max": "0.0",
    }


@pytest.mark.parametrize(("weight", "shares"), [(1, 2), (4, 80), (79, 2046), (100, 2597), (10_000, 262_144), (0, None)])
def test_shares_are_made_of_the_weight(weight: int, shares: int | None) -> None:
    """The way back from cpu.weight is cAdvisor's, and not that of every runtime; the kernel has no weight 0."""
    assert Details(cpu_weight=weight).cpu_shares == shares


def test_the_node_has_what_the_root_cgroup_lacks() -> None:
    """Memory of memory.stat, swap and limits of meminfo, tasks of cgroup.procs; None where a part is missing."""
    details = Details(memory_anon_bytes=5, memory_file_bytes=7, processes=3)
    node = NodeReading(Reading(0, details=details), swap_total_bytes=9, swap_free_bytes=1, memory_total_bytes=99)
    shown = node_reading(node)

    assert (shown.memory_current_bytes, shown.details.swap_usage_bytes, shown.details.tasks) == (12, 8, 3)
    assert (shown.details.memory_limit_bytes, shown.details.swap_limit_bytes) == (99, 9)
    assert node_reading(NodeReading(Reading(0))).memory_current_bytes is None


# --- devices and interfaces -----------------------------------------------------------------------------------------


def with_io(*devices: DeviceIo, names: dict[tuple[int, int], str] | None = None) -> dict[str, str]:
    """The I/O families of a cgroup that has used these devices."""
    tally = tally_of(Reading(0, details=Details(io=devices)))
    found = of_first(page(replace(tally, node=tally.node._replace(devices=names))))
    return {name: value for name, value in found.items() if "_fs_" in name or "_blkio_" in name}


def test_devices_have_cadvisors_names() -> None:
    """/dev/ and the name of /proc/partitions; blkio has the numbers too."""
    assert with_io(DeviceIo(254, 0, 4096, 8192, 1, 2), names={(254, 0): "vda"}) == {
        'container_blkio_device_usage_total device="/dev/vda" major="254" minor="0" operation="Read"': "4096.0",
        'container_blkio_device_usage_total device="/dev/vda" major="254" minor="0" operation="Write"': "8192.0",
        'container_fs_reads_bytes_total device="/dev/vda"': "4096.0",
        'container_fs_reads_total device="/dev/vda"': "1.0",
        'container_fs_writes_bytes_total device="/dev/vda"': "8192.0",
        'container_fs_writes_total device="/dev/vda"': "2.0",
    }


def test_a_device_without_a_name_has_its_numbers() -> None:
    """Each that nobody names, and each loop device, is a series of its own, which stays what it was when one goes."""
    nameless = (DeviceIo(7, 0, 1, None), DeviceIo(8, 0, 10, None), DeviceIo(254, 0, 5))
    all_of_them, without_one = (with_io(*devices, names={(7, 0): "loop0"}) for devices in (nameless, nameless[1:]))

    assert {name: value for name, value in all_of_them.items() if "_fs_" in name} == {
        'container_fs_reads_bytes_total device="7:0"': "1.0",
        'container_fs_reads_bytes_total device="8:0"': "10.0",
        'container_fs_reads_bytes_total device="254:0"': "5.0",
    }
    assert 'container_blkio_device_usage_total device="7:0" major="7" minor="0" operation="Read"' in all_of_them
    assert without_one.items() <= all_of_them.items()


def test_what_the_kernel_does_not_print_has_no_series() -> None:
    """The cost of I/O is there where iocost is switched on."""
    assert with_io(DeviceIo(8, 0, cost_usage_usec=2_500_000), names={(8, 0): "sda"}) == {
        'container_fs_io_cost_usage_seconds_total device="/dev/sda"': "2.5"
    }


ETH0 = Interface("eth0", 1, 2, 3, 4, 5, 6, 7, 8)


def with_network(name: str, pod: int, **changes: Any) -> list[Row]:
    """The rows with a network of a tally whose pod has these interfaces."""
    tally = last_tally(name)
    one = tally.pods[pod]
    interfaces = tuple(ETH0._replace(name=each) for each in ("lo", "eth0", "vethab12", "Docker0", "cni0"))
    one = one._replace(cgroup=one.cgroup._replace(network=interfaces), **changes)
    return [row for row in rows(replace(tally, pods=(one,))) if row.network]


def test_the_network_stands_on_the_sandbox() -> None:
    """Once a pod, and without the interfaces that cAdvisor leaves out."""
    (row,) = with_network(REAL, 0)

    assert (row.kind, [one.name for one in row.network]) == ("sandbox", ["eth0", "cni0"])


def test_a_pod_without_a_sandbox_has_its_network_itself() -> None:
    """A runtime may make no sandbox: then the pod's row has it."""
    assert [row.kind for row in with_network(REAL, 0, sandbox=None)] == ["pod"]


def test_pods_on_the_hosts_network_are_left_out() -> None:
    """Their interfaces are the node's: a sum over pods would count them once in each."""
    tally = last_tally(REAL)
    (hostnet,) = [number for number, pod in enumerate(tally.pods) if pod.pod.host_network]

    assert with_network(REAL, hostnet) == []


def test_each_counter_of_an_interface_has_its_family() -> None:
    """Bytes, packets, errors and drops, received and transmitted."""
    tally = last_tally("static-pod")
    found = samples(page(replace(tally, node=tally.node._replace(network=(ETH0,)), pods=(), slices=())))
    values = {series.partition("{")[0]: value for series, value in found.items() if 'interface="eth0"' in series}

    assert values == {
        "container_network_receive_bytes_total": "1.0",
        "container_network_receive_packets_total": "2.0",
        "container_network_receive_errors_total": "3.0",
        "container_network_receive_packets_dropped_total": "4.0",
        "container_network_transmit_bytes_total": "5.0",
        "container_network_transmit_packets_total": "6.0",
        "container_network_transmit_errors_total": "7.0",
        "container_network_transmit_packets_dropped_total": "8.0",
    }


# --- times ----------------------------------------------------------------------------------------------------------


def test_times_are_those_of_the_readings() -> None:
    """With timestamps a fast value has the time of the tick's reading, the others that of their own."""
    details = Details(memory_anon_bytes=1, processes=2, tasks=3, tasks_limit=4)
    reading = Reading(9_000_000, cpu_user_usec=1, details=details, slow_ns=6_000_000, seldom_ns=3_000_000)
    tally = tally_of(reading)
    at_ns = tally.instant.wall_ns(0)
    text = CadvisorExposition(timestamps=True, needs=needs(DEFAULT_GROUPS)).render(tally, openmetrics=False)
    times = {name: int(value.split()[1]) - at_ns // 1_000_000 for name, value in of_first(text).items()}

    assert (
        times["container_cpu_user_seconds_total"],
        times["container_memory_rss"],
        times["container_threads"],
        times["container_processes"],
        times["container_threads_max"],
    ) == (9, 6, 6, 3, 3)


@pytest.mark.parametrize(
    ("words", "kind", "field", "part"),
    [
        ("default", "container", "memory_anon_bytes", "slow"),
        ("default", "container", "memory_active_file_bytes", "slow"),
        ("default", "container", "cpu_pressure_some_usec", "seldom"),
        ("default", "pod", "cpu_pressure_some_usec", "slow"),
        ("container-pressure", "container", "cpu_pressure_some_usec", "slow"),
        ("container-pressure", "sandbox", "cpu_pressure_some_usec", "slow"),
        ("container-pressure", "slice", "cpu_pressure_some_usec", "seldom"),
        ("container-pressure", "pod", "tasks", "seldom"),
        ("cpu", "container", "memory_peak_bytes", "seldom"),
        ("cpu", "node", "memory_anon_bytes", "slow"),
        ("all", "node", "cpu_pressure_some_usec", "seldom"),
    ],
)
def test_the_time_of_a_value_follows_what_groups_are_on(words: str, kind: Kind, field: str, part: str) -> None:
    """A file that a group of /metrics needs of such a cgroup is read with the slow ones, and has their time."""
    row = Row(kind, "/a", Reading(9, slow_ns=6, seldom_ns=3), None)
    exposition = CadvisorExposition(needs=needs(groups_of([words])))

    assert exposition.when_read(row, field) == {"slow": 6, "seldom": 3}[part]


@pytest.mark.parametrize("words", ["", "cpu", "default"])
def test_the_page_is_the_same_whatever_groups_are_on(words: str) -> None:
    """What /metrics/cadvisor needs is read for it if no group of /metrics needs it."""
    wanted = needs(groups_of(words.split()))
    less = [page(tally) for tally in replayed(REAL, wanted).tallies()]

    assert less == [page(tally) for tally in replayed(REAL).tallies()]


def test_a_served_replay_moves_times_and_starts() -> None:
    """Samples move with the frame, starts with the first one, counters not at all."""
    tally = last_tally(REAL)
    exposition = CadvisorExposition(timestamps=True)
    plain = samples(exposition.render(tally, openmetrics=False))
    moved = samples(exposition.render(tally, openmetrics=False, shift_ns=9_000_000_000, start_shift_ns=4_000_000_000))
    values = {
        (series.partition("{")[0], float(moved[series].split()[0]) - float(plain[series].split()[0]))
        for series in plain
        if moved[series].split()[0] != plain[series].split()[0]
    }
    times = {int(moved[one].split()[1]) - int(plain[one].split()[1]) for one in plain if " " in plain[one]}

    assert values == {("container_last_seen", 9.0), ("container_start_time_seconds", 4.0)}
    assert times == {9000}


def test_an_exposition_serves_tally_after_tally() -> None:
    """What is kept from one page to the next changes nothing."""
    kept = CadvisorExposition()
    names = [REAL, "restart", "two-uids", REAL]

    assert [kept.render(last_tally(name), openmetrics=False) for name in names] == [
        page(last_tally(name)) for name in names
    ]
