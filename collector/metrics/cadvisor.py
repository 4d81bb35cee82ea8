"""``/metrics/cadvisor``: the kubelet's page of that name, from podtally's own readings.

The rows are the kubelet's: containers, sandboxes, the pods (``container=""``), kubepods with its QoS classes, and
``/``. What the families are says ``metrics/cadvisor_catalogue.py``; a value that is absent has no series, where
cAdvisor would print 0. Timestamps, which the kubelet prints and which keep Prometheus from seeing that a series has
ended, are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from collector.cgroup.files import (
    DERIVED_FIELDS,
    DETAIL_FIELDS,
    EVERYTHING,
    ROOT_FIELDS,
    Needs,
    level_of,
    slow_fields,
)
from collector.metrics import text
from collector.metrics.cadvisor_catalogue import (
    CADVISOR,
    INTERFACE_FIELD,
    LAST_SEEN,
    SCRAPE_ERROR,
    START_TIME,
    CadvisorMetric,
)
from collector.metrics.catalogue import Series
from collector.model import NO_LIMIT, Interface, NodeReading, PodTally, Reading, Tally

_IGNORED_INTERFACES = ("lo", "veth", "docker", "nerdctl")
"""Beginnings of names that cAdvisor leaves out, in any case (``container/libcontainer/handler.go``)."""

_IGNORED_DEVICES = ("loop", "ram", "sr")
"""Beginnings of names of block devices that cAdvisor does not know (``utils/sysinfo/sysinfo.go``)."""

UNKNOWN_IMAGE = "unknown"
"""The image of a container whose status and spec name none: dashboards take a row without an image for no container."""

NEEDS = Needs(
    pods=frozenset(),
    containers=frozenset(),
    seldom=frozenset(field for metric in CADVISOR for field in metric.fields) & DETAIL_FIELDS,
)
"""What is read for it, whichever families of ``/metrics`` are on: seldom, where none of these needs it."""

Kind = Literal["node", "slice", "pod", "sandbox", "container"]


class Row(NamedTuple):
    """A cgroup that has a row in each family."""

    kind: Kind
    id: str
    reading: Reading
    begun_ns: int | None
    """Wall time of its making."""
    container: str = ""
    image: str = ""
    name: str = ""
    namespace: str = ""
    pod: str = ""
    network: tuple[Interface, ...] = ()
    network_ns: int | None = None
    """When the interfaces were read, on the monotonic clock."""

    @property
    def labels(self) -> text.Pairs:
        """The kubelet's six."""
        return (
            ("container", self.container),
            ("id", self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        )


def rows(tally: Tally) -> list[Row]:
    """All rows of a tally, the node first and each pod before its containers."""
    node = tally.node
    found = [_with_network(Row("node", "/", node_reading(node), node.started_ns), node.network, node.reading)]
    found += [Row("slice", f"/{one.path}", one.reading, one.started_ns) for one in tally.slices]
    for pod in tally.pods:
        if pod.cgroup.path:
            found += _pod_rows(pod)
    return found


def _with_network(row: Row, network: tuple[Interface, ...] | None, read_with: Reading) -> Row:
    wanted = tuple(one for one in network or () if not one.name.lower().startswith(_IGNORED_INTERFACES))
    return row._replace(network=wanted, network_ns=read_with.seldom_ns)


def _pod_rows(one: PodTally) -> Iterator[Row]:
    """The pod, its sandbox and its containers. The sandbox' row has the pod's network, as containerd's kubelet has it;
    where there is no sandbox, the pod's own.
    """
    namespace, pod = one.pod.namespace, one.pod.name
    # Interfaces of the host's network are the node's, in whichever pod they are seen.
    network = None if one.pod.host_network else one.cgroup.network
    # The pod's cgroup is made before its sandbox', and that before the containers are, whatever their mtimes say.
    # A filled pod's containers are in no cgroup of which there is anything to say.
    containers = one.containers if one.source == "cgroup" else ()
    starts = [each.started_ns for each in containers]
    begun_ns = _earliest(one.cgroup.begun_ns, *starts)
    whole = Row("pod", f"/{one.cgroup.path}", one.reading, begun_ns, namespace=namespace, pod=pod)
    leaf = one.sandbox
    yield whole if leaf is not None else _with_network(whole, network, one.reading)
    if leaf is not None:
        begun_ns = None if leaf.started_ns is None else _earliest(leaf.started_ns, *starts)
        sandbox = Row("sandbox", f"/{leaf.path}", leaf.reading, begun_ns, namespace=namespace, pod=pod)
        yield _with_network(sandbox._replace(name=leaf.container_id), network, one.reading)
    for each in containers:
        yield Row(
            "container",
            f"/{each.leaf.path}",
            each.reading,
            each.started_ns,
            container=each.container.name,
            image=each.container.image or UNKNOWN_IMAGE,
            name=each.container.container_id,
            namespace=namespace,
            pod=pod,
        )


def _earliest(*times_ns: int | None) -> int | None:
    return min((time_ns for time_ns in times_ns if time_ns is not None), default=None)


def node_reading(node: NodeReading) -> Reading:
    """The root cgroup's reading with what cAdvisor shows in place of the files that the root has not."""
    details = node.reading.details
    usage = None
    if details.memory_anon_bytes is not None and details.memory_file_bytes is not None:
        usage = details.memory_anon_bytes + details.memory_file_bytes
    shown = details._replace(
        swap_usage_bytes=node.swap_usage_bytes,
        memory_limit_bytes=node.memory_total_bytes,
        swap_limit_bytes=node.swap_total_bytes,
        tasks=details.processes,
    )
    return node.reading._replace(memory_current_bytes=usage, details=shown)


# --- columns --------------------------------------------------------------------------------------------------------


class _Column:
    """Where a series' values are found: on the row, its reading or its details."""

    __slots__ = ("get", "labels", "level", "made_of")

    def __init__(self, metric: CadvisorMetric, one: Series) -> None:
        self.labels = one.labels
        self.made_of = metric.made_of or one.field
        """A field of a reading or its details, or a property of these, that the value is made of."""
        self.get: Callable[[Any], Any] = attrgetter(one.field)
        self.level = level_of(one.field) or "row"


_COLUMNS = {metric.name: tuple(_Column(metric, one) for one in metric.series) for metric in CADVISOR}


class _Cells(NamedTuple):
    """The samples of a column: what stands in braces, the value if there is one, and the row."""

    labels: list[str]
    values: list[Any]
    rows: list[Row]


class _Table:
    """The rows of a tally, and what of them each kind of family is about."""

    def __init__(self, tally: Tally, labels_of: Callable[[Row], text.LabelTexts]) -> None:
        self.rows = rows(tally)
        self.labels = [labels_of(row) for row in self.rows]
        readings = [row.reading for row in self.rows]
        details = [reading.details for reading in readings]
        self._levels: dict[str, list[Any]] = {"row": self.rows, "reading": readings, "details": details}
        self._limited = [one.cpu_quota_usec is not None and one.cpu_quota_usec != NO_LIMIT for one in details]
        self._containers = [row.kind == "container" for row in self.rows]
        self._names = device_names(tally.node)

    def cells(self, metric: CadvisorMetric, column: _Column) -> _Cells:
        """The samples of one column of a family."""
        if metric.each == "device":
            return self._device_cells(column, by_number="major" in metric.labels)
        if metric.each == "interface":
            return self._interface_cells(column)
        values: Iterable[Any] = map(column.get, self._levels[column.level])
        keep = self._limited if metric.when else self._containers if metric.containers_only else None
        labels, of = self.labels, self.rows
        if keep is not None:
            values, labels, of = compress(values, keep), list(compress(labels, keep)), list(compress(of, keep))
        without_limit = 0 if metric.zero_without_limit else None
        shown = [without_limit if value == NO_LIMIT else value for value in values]
        if metric.omit_zero:
            shown = [value or None for value in shown]
        extra = column.labels
        return _Cells([texts[extra] for texts in labels], shown, of)

    def _device_cells(self, column: _Column, *, by_number: bool) -> _Cells:
        cells = _Cells([], [], [])
        for row, texts in zip(self.rows, self.labels, strict=True):
            for one in row.reading.details.io or ():
                # Its numbers, not one name for all that have none: a sum of these would fall when one goes away.
                name = self._names.get(one[:2]) or f"{one.major}:{one.minor}"
                numbers = (("major", str(one.major)), ("minor", str(one.minor))) if by_number else ()
                cells.labels.append(texts[("device", name), *numbers, *column.labels])
                cells.values.append(column.get(one))
                cells.rows.append(row)
        return cells

    def _interface_cells(self, column: _Column) -> _Cells:
        cells = _Cells([], [], [])
        for row, texts in zip(self.rows, self.labels, strict=True):
            for one in row.network:
                cells.labels.append(texts[(("interface", one.name),)])
                cells.values.append(column.get(one))
                cells.rows.append(row)
        return cells


def device_names(node: NodeReading) -> dict[tuple[int, int], str]:
    """Paths of block devices as cAdvisor gives them: ``/dev/sda``."""
    names = (node.devices or {}).items()
    return {number: f"/dev/{name}" for number, name in names if not name.startswith(_IGNORED_DEVICES)}


# --- the page -------------------------------------------------------------------------------------------------------


class CadvisorExposition:
    """Writes tallies as ``/metrics/cadvisor``. Not thread-safe."""

    def __init__(self, *, timestamps: bool = False, needs: Needs = EVERYTHING) -> None:
        """``timestamps``: each sample bears the time at which its file was read, as the kubelet's does; ``needs``: what
        the readings were made for.
        """
        self._timestamps = timestamps
        of_pods, of_containers = slow_fields(needs.pods), slow_fields(needs.containers)
        self._slow: dict[Kind, frozenset[str]] = {
            "node": slow_fields(ROOT_FIELDS) | {"swap_usage_bytes"},
            "slice": of_pods,
            "pod": of_pods,
            "sandbox": of_containers,
            "container": of_containers,
        }
        self._labels: dict[text.Pairs, text.LabelTexts] = {}
        self._numbers = text.Numbers()

    def when_read(self, row: Row, field: str) -> int | None:
        """When a field of a row was read, or what the field is made of; on the monotonic clock."""
        reading = row.reading
        if field == INTERFACE_FIELD:
            return row.network_ns
        made_of = DETAIL_FIELDS.intersection(DERIVED_FIELDS.get(field, (field,)))
        if not made_of:
            return reading.monotonic_ns
        return reading.slow_ns if made_of <= self._slow[row.kind] else reading.seldom_ns

    def families(
        self, tally: Tally, *, openmetrics: bool, shift_ns: int = 0, start_shift_ns: int = 0
    ) -> Iterator[tuple[CadvisorMetric, list[str]]]:
        """Each family with its lines. ``shift_ns`` moves times and ``start_shift_ns`` starts, for a served replay."""
        # Kept from one exposition to the next, and no longer than their cgroups.
        known, self._labels = self._labels, {}

        def labels_of(row: Row) -> text.LabelTexts:
            pairs = row.labels
            found = self._labels[pairs] = known.get(pairs) or text.LabelTexts(pairs)
            return found

        table, numbers = _Table(tally, labels_of), self._numbers
        for metric in CADVISOR:
            lines: list[str] = []
            for column in _COLUMNS[metric.name]:
                labels, values, of = table.cells(metric, column)
                if metric is START_TIME:
                    values = [None if at is None else (at + start_shift_ns) // _NS_PER_SECOND for at in values]
                elif metric is LAST_SEEN:
                    values = [(tally.instant.time_ns + shift_ns) // _NS_PER_SECOND] * len(of)
                elif metric.divisor != 1:
                    values = [None if value is None else value / metric.divisor for value in values]
                head = metric.name
                if self._timestamps and metric.stamped:
                    read = [self.when_read(row, column.made_of) for row in of]
                    stamps = _stamps(tally, read, shift_ns, openmetrics=openmetrics)
                    lines += [
                        f"{head}{label} {numbers[value]} {stamp}"
                        for label, value, stamp in zip(labels, values, stamps, strict=True)
                        if value is not None
                    ]
                else:
                    lines += [
                        f"{head}{label} {numbers[value]}"
                        for label, value in zip(labels, values, strict=True)
                        if value is not None
                    ]
            yield metric, lines

    def parts(
        self, tally: Tally | None, *, openmetrics: bool, shift_ns: int = 0, start_shift_ns: int = 0
    ) -> Iterator[str]:
        """The page, a family at a time: of a large node it is 6 MB, which nobody needs to hold whole. Without a tally
        there is but ``container_scrape_error`` 1.
        """
        error = (SCRAPE_ERROR, [f"{SCRAPE_ERROR.name} {text.number(int(tally is None))}"])
        every: Iterable[tuple[CadvisorMetric, list[str]]] = ()
        if tally is not None:
            every = self.families(tally, openmetrics=openmetrics, shift_ns=shift_ns, start_shift_ns=start_shift_ns)
        for metric, lines in chain(every, (error,)):
            if lines:
                head = text.head(metric.name, metric.type, metric.help, metric.declared_unit, openmetrics=openmetrics)
                yield "\n".join((head, *lines, ""))
        if openmetrics:
            yield "# EOF\n"

    def render(self, tally: Tally | None, *, openmetrics: bool, shift_ns: int = 0, start_shift_ns: int = 0) -> str:
        """The same in one piece."""
        return "".join(self.parts(tally, openmetrics=openmetrics, shift_ns=shift_ns, start_shift_ns=start_shift_ns))


_NS_PER_SECOND = 1_000_000_000


def _stamps(tally: Tally, read: list[int | None], shift_ns: int, *, openmetrics: bool) -> Iterator[str]:
    for read_ns in read:
        at_ns = tally.instant.time_ns if read_ns is None else tally.instant.wall_ns(read_ns)
        yield text.timestamp(at_ns + shift_ns, openmetrics=openmetrics)
