"""``/metrics/resource``: the kubelet's endpoint of that name, from podtally's own readings.

Names, labels, types, help and omissions are the kubelet's (``pkg/kubelet/metrics/collectors/resource_metrics.go``), and
so are the explicit timestamps: the time at which each cgroup was read. A container's start time is the one value that
may differ: the making of its cgroup, where the kubelet has the runtime's word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from collector.cgroup.files import Needs
from collector.metrics import text
from collector.model import NO_LIMIT, ContainerTally, PodTally, Reading, Tally


class Family(NamedTuple):
    """A family of the kubelet's endpoint. All are stable or alpha as the kubelet says in the help."""

    name: str
    type: text.MetricType
    help: str


_CPU_USEC_PER_SECOND = 1e6

_NODE_CPU = Family(
    "node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds"
)
_NODE_MEMORY = Family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes")
_NODE_SWAP = Family(
    "node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes. Reported only on non-windows systems"
)
_ERROR = Family(
    "resource_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise"
)
_ALPHA = frozenset(
    {"node_swap_usage_bytes", "container_swap_usage_bytes", "container_swap_limit_bytes", "pod_swap_usage_bytes"}
)

NEEDS = Needs(pods=frozenset({"swap_usage_bytes"}), containers=frozenset({"swap_usage_bytes", "swap_limit_bytes"}))
"""What is read for it beyond the fast files, whichever families of ``/metrics`` are on."""

Value = Callable[[Reading], float | None]


def _cpu(reading: Reading) -> float | None:
    return None if reading.cpu_usage_usec is None else reading.cpu_usage_usec / _CPU_USEC_PER_SECOND


def _memory(reading: Reading) -> float | None:
    return reading.memory_working_set_bytes


def _swap(reading: Reading) -> float | None:
    return reading.details.swap_usage_bytes


def _swap_limit(reading: Reading) -> float | None:
    limit = reading.details.swap_limit_bytes
    return None if limit is None or limit == NO_LIMIT else limit


_CONTAINER: tuple[tuple[Family, Value], ...] = (
    (
        Family(
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the container in core-seconds",
        ),
        _cpu,
    ),
    (
        Family("container_memory_working_set_bytes", "gauge", "Current working set of the container in bytes"),
        _memory,
    ),
    (
        Family(
            "container_swap_limit_bytes",
            "gauge",
            "Current amount of the container swap limit in bytes. Reported only on non-windows systems",
        ),
        _swap_limit,
    ),
    (
        Family(
            "container_swap_usage_bytes",
            "gauge",
            "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
        ),
        _swap,
    ),
)
_START = Family("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds")
_POD: tuple[tuple[Family, Value], ...] = (
    (
        Family("pod_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the pod in core-seconds"),
        _cpu,
    ),
    (Family("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes"), _memory),
    (
        Family(
            "pod_swap_usage_bytes",
            "gauge",
            "Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
        ),
        _swap,
    ),
)


class Sample(NamedTuple):
    """A value with its labels; ``time_ns`` of the reading, ``None`` where the kubelet gives no timestamp."""

    labels: dict[str, str]
    value: float
    time_ns: int | None


def families(tally: Tally | None) -> Iterator[tuple[Family, list[Sample]]]:
    """All families by name, each with its samples. Without a tally there is but ``resource_scrape_error`` 1."""
    if tally is None:
        yield _ERROR, [Sample({}, 1, None)]
        return
    found: dict[Family, list[Sample]] = {_ERROR: [Sample({}, 0, None)]}
    node_ns = tally.instant.wall_ns(tally.node.reading.monotonic_ns)
    for family, value in (
        (_NODE_CPU, _cpu(tally.node.reading)),
        (_NODE_MEMORY, tally.node.memory_working_set_bytes),
        (_NODE_SWAP, tally.node.swap_usage_bytes),
    ):
        if value is not None:
            found[family] = [Sample({}, value, node_ns)]
    # The kubelet makes a pod's rows while it walks its running containers: without one there are none. Where one of
    # these is in no cgroup of the pod's, the pod's own is not all of it either.
    pods = [pod for pod in tally.pods if pod.containers and pod.incomplete != "missing_container"]
    # metrics-server adds up what there is: some of a pod's containers would be taken for all.
    containers = [one for pod in pods if pod.incomplete is None for one in pod.containers]
    of_containers = [(_container_labels(one), one.reading) for one in containers]
    # Of a pod that is filled the whole of it is the kubelet's, at the kubelet's time.
    of_pods = [(_pod_labels(pod), pod.told_reading) for pod in pods]
    for family, read in _CONTAINER:
        found[family] = _samples(tally, of_containers, read)
    found[_START] = [
        Sample(_container_labels(one), one.started_ns / 1e9, None)
        for one in containers
        if one.started_ns is not None and one.started_ns > 0
    ]
    for family, read in _POD:
        found[family] = _samples(tally, of_pods, read)
    for family in sorted(found):
        if found[family]:
            yield family, sorted(found[family], key=lambda sample: sorted(sample.labels.items()))


def _samples(tally: Tally, items: list[tuple[dict[str, str], Reading]], read: Value) -> list[Sample]:
    samples: list[Sample] = []
    for labels, reading in items:
        value = read(reading)
        if value is not None:
            samples.append(Sample(labels, value, tally.instant.wall_ns(reading.monotonic_ns)))
    return samples


def _container_labels(one: ContainerTally) -> dict[str, str]:
    return {"container": one.container.name, "namespace": one.namespace, "pod": one.pod}


def _pod_labels(one: PodTally) -> dict[str, str]:
    return {"namespace": one.pod.namespace, "pod": one.pod.name}


def render(tally: Tally | None, *, openmetrics: bool, shift_ns: int = 0, start_shift_ns: int = 0) -> str:
    """The page. ``shift_ns`` moves timestamps and ``start_shift_ns`` start times, for a served replay."""
    lines: list[str] = []
    for family, samples in families(tally):
        stability = "ALPHA" if family.name in _ALPHA else "STABLE"
        unit = family.name.removesuffix("_total").rpartition("_")[2] if family is not _ERROR else ""
        help_text = f"[{stability}] {family.help}"
        lines.append(text.head(family.name, family.type, help_text, unit, openmetrics=openmetrics))
        for labels, value, time_ns in samples:
            if family is _START:
                value += start_shift_ns / 1e9
            stamp = "" if time_ns is None else f" {text.timestamp(time_ns + shift_ns, openmetrics=openmetrics)}"
            lines.append(f"{family.name}{text.labels(labels)} {text.number(value)}{stamp}")
    if openmetrics:
        lines.append("# EOF")
    return "\n".join((*lines, ""))
