"""Every metric that podtally exports, once: name, type, unit, help, labels and where its value comes from.

The expositions, ``docs/metrics.md``, ``podtally metrics`` and the checks on dashboards derive from these rows, and so
does which kernel files are read. To add a metric, add a row; if its value is read from a key that nothing reads yet,
add that to ``cgroup/files.py`` first.

Which families ``--source summary`` and ``--source metrics-api`` fill, and from what, follows from :data:`TOLD`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from collector.cgroup.files import DERIVED_FIELDS, DETAIL_FIELDS, EVERY_TICK_OF_PODS, Needs, source_of
from collector.errors import UsageError
from collector.metrics.text import MetricType
from collector.model import SOURCES, SourceName

Scope = Literal["pod", "container", "info", "pod_kills", "container_kills", "ended", "self", "cadvisor"]
"""What a family has a series of: a pod, a running container, a pod's or a container's name that had OOM kills counted,
a container that has ended, podtally, or a row of ``/metrics/cadvisor``."""

_OF_CONTAINERS = "sum over containers, phase Running"

_SUMMARY: Mapping[str, str] = {
    "cpu_usage_usec": "cpu.usageCoreNanoSeconds",
    "memory_working_set_bytes": "memory.workingSetBytes",
    "memory_current_bytes": "memory.usageBytes",
    "memory_anon_bytes": "memory.rssBytes",
    "memory_limit_bytes": "memory.availableBytes + memory.workingSetBytes",
    "swap_usage_bytes": "swap.swapUsageBytes",
    "cpu_pressure_some_usec": "cpu.psi.some.total",
    "cpu_pressure_full_usec": "cpu.psi.full.total",
    "memory_pressure_some_usec": "memory.psi.some.total",
    "memory_pressure_full_usec": "memory.psi.full.total",
    "io_pressure_some_usec": "io.psi.some.total",
    "io_pressure_full_usec": "io.psi.full.total",
}
_RATED = "rate between two samples: cpu.usageNanoCores where it is of their span, else cpu.usageCoreNanoSeconds over it"

TOLD: Mapping[SourceName, Mapping[Scope, Mapping[str, str]]] = {
    "summary": {
        "pod": {
            **_SUMMARY,
            "cpu_cores": f"{_OF_CONTAINERS}, of the {_RATED}",
            "memory_bytes": f"{_OF_CONTAINERS}, of memory.workingSetBytes",
            "cgroup_cpu_cores": _RATED,
        },
        "container": {**_SUMMARY, "cpu_cores": _RATED, "started_ns": "startTime; startedAt of the status if earlier"},
    },
    "metrics-api": {
        "pod": {
            "cpu_cores": f"{_OF_CONTAINERS}, of usage.cpu",
            "memory_bytes": f"{_OF_CONTAINERS}, of usage.memory",
        },
        "container": {
            "cpu_cores": "usage.cpu",
            "memory_working_set_bytes": "usage.memory",
            "started_ns": "startedAt of the status",
        },
    },
}
"""What an upstream tells, by scope and field of the model: the key of its answer, or the formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Families that ``--collect`` switches on and off together."""

    name: str
    what: str
    default: bool
    """On without ``--collect``."""


GROUPS: tuple[Group, ...] = (
    Group(name="cpu", what="CPU used, its rate, its peak, its limit and throttling", default=True),
    Group(name="memory", what="working set, usage, rss, cache, peak and limit", default=True),
    Group(name="oom", what="OOM kills by name, and the events of memory limits", default=True),
    Group(
        name="details",
        what="of pods: CPU in user mode and in the kernel, what the working set is made of, swap, tasks",
        default=True,
    ),
    Group(name="pressure", what="of pods: time stalled for CPU, memory and I/O (PSI)", default=True),
    Group(name="ended", what="last readings of containers that ended, for `--linger`", default=True),
    Group(name="info", what="`pod_info`", default=True),
    Group(name="container-details", what="of containers: what `details` has of pods", default=False),
    Group(name="container-pressure", what="of containers: what `pressure` has of pods", default=False),
    Group(
        name="requests",
        what="what became of requests: `cpu.weight`, `memory.min`, `memory.high`, of pods and containers",
        default=False,
    ),
)
"""Opt-in is what costs many series on a node and serves few of its users."""

DEFAULT_GROUPS = frozenset(group.name for group in GROUPS if group.default)
ALL_GROUPS = frozenset(group.name for group in GROUPS)


def groups_of(words: Iterable[str]) -> frozenset[str]:
    """The groups that the words of ``--collect`` name, in order: ``default``, ``all``, a group, or ``no-`` and a group,
    which takes it away; from the default's if that comes first. Raises :class:`UsageError`.

    >>> sorted(groups_of(["cpu", "memory"])), groups_of(["no-info"]) == DEFAULT_GROUPS - {"info"}
    (['cpu', 'memory'], True)
    """
    found: frozenset[str] | None = None
    for word in words:
        name = word.removeprefix("no-")
        named = {"default": DEFAULT_GROUPS, "all": ALL_GROUPS}.get(word, frozenset({name}))
        if not named <= ALL_GROUPS:
            raise UsageError(
                f"--collect: {word!r} is no group of metrics; there are {', '.join(group.name for group in GROUPS)},"
                " and default and all; no-NAME takes one away"
            )
        if word != name:
            found = (DEFAULT_GROUPS if found is None else found) - named
        else:
            found = named if found is None else found | named
    return frozenset() if found is None else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of a family: a field of the model and the labels that tell it from its siblings."""

    field: str
    label: tuple[str, str] | None = None
    second_label: tuple[str, str] | None = None

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """The labels that it has beyond those of the item that it is of."""
        return tuple(pair for pair in (self.label, self.second_label) if pair is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family."""

    name: str
    type: MetricType
    unit: str
    help: str
    scope: Scope
    group: str
    """One of :data:`GROUPS`; ``""`` for what is never switched off: podtally's account of itself and
    ``/metrics/cadvisor``."""
    labels: tuple[str, ...]
    series: tuple[Series, ...] = ()
    divisor: float = 1
    """The field's value is divided by this to give the unit."""
    when: str = ""
    """A limit's field: without that limit, the family has no series for the cgroup."""
    formula: str = ""
    """What the value is, where it is not one key of one file."""
    only: tuple[SourceName, ...] = ()
    """Of podtally's own families: the sources that have them, where not all have."""
    made_of: str = ""
    """The field of the details that it is made of, where a series' own is none."""
    moment: bool = False
    """The value is a time since the epoch, which a served replay moves to now."""

    @property
    def sources(self) -> tuple[SourceName, ...]:
        """The values of ``--source`` with which the family is exported."""
        if self.scope == "self":
            return self.only or SOURCES
        return tuple(name for name in SOURCES if name == "cgroup" or self.scope == "info" or self.told(name))

    def told(self, source: SourceName) -> str:
        """What of an upstream's answer the value is made of; empty if it tells nothing of it."""
        keys = TOLD.get(source, {}).get(self.scope, {})
        return "; ".join(keys[one.field] for one in self.series if one.field in keys)

    @property
    def source(self) -> str:
        """File and key of the kernel that the value is read from, or the formula."""
        if self.formula:
            return self.formula
        return "; ".join(text for one in self.series if (text := source_of(one.field)))

    @property
    def fields(self) -> frozenset[str]:
        """Fields of a reading and its details that the values are made of."""
        named = [*(one.field for one in self.series), *filter(None, (self.when, self.made_of))]
        return frozenset(field for name in named for field in DERIVED_FIELDS.get(name, (name,)))

    @property
    def slow(self) -> bool:
        """True if it is read every few ticks only."""
        if self.scope == "pod" and self.fields <= EVERY_TICK_OF_PODS:
            return False
        return any(not DETAIL_FIELDS.isdisjoint(DERIVED_FIELDS.get(one.field, (one.field,))) for one in self.series)

    @property
    def seldom(self) -> bool:
        """True if it is read more seldom still."""
        return False

    @property
    def often(self) -> str:
        """How often it is read, in words."""
        return "seldom" if self.seldom else "every few ticks" if self.slow else "every tick"


_POD = ("namespace", "pod")
_CONTAINER = ("container", "namespace", "pod")


def _both(
    group: str,
    suffix: str,
    kind: MetricType,
    unit: str,
    help_text: str,
    *series: Series,
    containers: str = "",
    divisor: float = 1,
    when: str = "",
    formula: str = "",
) -> tuple[Metric, Metric]:
    """A family of the pod's cgroup and the same of a container's, whose group is ``containers`` if it is another."""
    extra = tuple({one.label[0] for one in series if one.label})

    def make(prefix: str, scope: Scope, of: str, group: str, labels: tuple[str, ...]) -> Metric:
        return Metric(
            name=f"{prefix}_{suffix}",
            type=kind,
            unit=unit,
            help=help_text.format(of=of),
            scope=scope,
            group=group,
            labels=tuple(sorted((*labels, *extra))),
            series=series,
            divisor=divisor,
            when=when,
            formula=formula,
        )

    return (
        make("pod_cgroup", "pod", "the pod's cgroup, sandbox and ended containers included", group, _POD),
        make("pod_container", "container", "the container", containers or group, _CONTAINER),
    )


def _detail(
    suffix: str, kind: MetricType, unit: str, help_text: str, field: str, divisor: float = 1
) -> tuple[Metric, Metric]:
    """The same of the groups ``details`` and ``container-details``."""
    return _both(
        "details",
        suffix,
        kind,
        unit,
        help_text,
        Series(field=field),
        containers="container-details",
        divisor=divisor,
    )


def _pressure(resource: str, what: str) -> tuple[Metric, Metric]:
    """The same of the groups ``pressure`` and ``container-pressure``."""
    return _both(
        "pressure",
        f"{resource}_pressure_seconds_total",
        "counter",
        "seconds",
        f"Time in which some or all tasks of {{of}} waited for {what}.",
        Series(field=f"{resource}_pressure_some_usec", label=("stalled", "some")),
        Series(field=f"{resource}_pressure_full_usec", label=("stalled", "full")),
        containers="container-pressure",
        divisor=1e6,
    )


def _pod(group: str, name: str, unit: str, help_text: str, field: str, formula: str) -> Metric:
    return Metric(
        name=name,
        type="gauge",
        unit=unit,
        help=help_text,
        scope="pod",
        group=group,
        labels=_POD,
        series=(Series(field=field),),
        formula=formula,
    )


_TOP: tuple[Metric, ...] = (
    _pod(
        "cpu",
        "pod_cpu_usage_cores",
        "cores",
        "CPU of the pod's running containers over the window, as kubectl top prints it. Absent unless all are known.",
        "cpu_cores",
        "sum over containers of the rate of cpu.stat: usage_usec over the window; phase Running",
    ),
    _pod(
        "memory",
        "pod_memory_usage_bytes",
        "bytes",
        "Working set of the pod's running containers, as kubectl top prints it. Absent unless all are known.",
        "memory_bytes",
        "sum over containers of memory.current - memory.stat: inactive_file; phase Running",
    ),
    _pod(
        "cpu",
        "pod_cpu_usage_peak_cores",
        "cores",
        "Highest CPU rate of the pod's cgroup between two successive ticks in the trailing 60 s.",
        "cpu_peak_cores",
        "max over 60 s of the rate of the pod's cpu.stat: usage_usec from tick to tick",
    ),
    _pod(
        "cpu",
        "pod_overhead_cpu_cores",
        "cores",
        "CPU that the kernel accounts to the pod beyond its running containers: sandbox, containers that ended.",
        "overhead_cpu_cores",
        "pod_cgroup_cpu_usage_cores - pod_cpu_usage_cores",
    ),
    _pod(
        "memory",
        "pod_overhead_memory_bytes",
        "bytes",
        "Working set that the kernel accounts to the pod beyond its running containers: sandbox, memory-backed "
        "volumes and cache of containers that ended.",
        "overhead_memory_bytes",
        "pod_cgroup_memory_working_set_bytes - pod_memory_usage_bytes",
    ),
    _pod(
        "cpu",
        "pod_cgroup_cpu_usage_cores",
        "cores",
        "CPU of the pod's cgroup over the window, sandbox and ended containers included.",
        "cgroup_cpu_cores",
        "rate of the pod's cpu.stat: usage_usec over the window",
    ),
)

_CONTAINER_ONLY: tuple[Metric, ...] = (
    Metric(
        name="pod_container_cpu_usage_cores",
        type="gauge",
        unit="cores",
        help="CPU of the container over the window, as kubectl top --containers prints it.",
        scope="container",
        group="cpu",
        labels=_CONTAINER,
        series=(Series(field="cpu_cores"),),
        formula="rate of cpu.stat: usage_usec over the window",
    ),
    Metric(
        name="pod_container_cpu_usage_peak_cores",
        type="gauge",
        unit="cores",
        help="Highest CPU rate of the container between two successive ticks in the trailing 60 s.",
        scope="container",
        group="cpu",
        labels=_CONTAINER,
        series=(Series(field="cpu_peak_cores"),),
        formula="max over 60 s of the rate of cpu.stat: usage_usec from tick to tick",
    ),
    Metric(
        name="pod_container_start_time_seconds",
        type="gauge",
        unit="seconds",
        help="Start of the container since the epoch: when its cgroup was made.",
        scope="container",
        group="cpu",
        labels=_CONTAINER,
        series=(Series(field="started_ns"),),
        divisor=1e9,
        moment=True,
        formula="mtime of the cgroup's directory; startedAt of the status in a recording without it",
    ),
)

_BOTH: tuple[tuple[Metric, Metric], ...] = (
    _both(
        "cpu",
        "cpu_usage_seconds_total",
        "counter",
        "seconds",
        "CPU time used by {of}.",
        Series(field="cpu_usage_usec"),
        divisor=1e6,
    ),
    _both(
        "cpu",
        "cpu_periods_total",
        "counter",
        "",
        "Enforcement periods of the CPU limit of {of}.",
        Series(field="cpu_periods"),
        when="cpu_quota_usec",
    ),
    _both(
        "cpu",
        "cpu_throttled_periods_total",
        "counter",
        "",
        "Enforcement periods in which the CPU limit throttled {of}.",
        Series(field="cpu_throttled_periods"),
        when="cpu_quota_usec",
    ),
    _both(
        "cpu",
        "cpu_throttled_seconds_total",
        "counter",
        "seconds",
        "Time for which the CPU limit held back {of}.",
        Series(field="cpu_throttled_usec"),
        divisor=1e6,
        when="cpu_quota_usec",
    ),
    _both(
        "cpu",
        "cpu_limit_cores",
        "gauge",
        "cores",
        "CPU limit of {of}; absent without a limit.",
        Series(field="cpu_limit_cores"),
        formula="cpu.max: quota / period",
    ),
    _both(
        "memory",
        "memory_working_set_bytes",
        "gauge",
        "bytes",
        "Working set of {of}.",
        Series(field="memory_working_set_bytes"),
        formula="memory.current - memory.stat: inactive_file, at least 0",
    ),
    _both(
        "memory",
        "memory_usage_bytes",
        "gauge",
        "bytes",
        "All memory charged to {of}, page cache included.",
        Series(field="memory_current_bytes"),
    ),
    _both(
        "memory",
        "memory_rss_bytes",
        "gauge",
        "bytes",
        "Anonymous memory of {of}.",
        Series(field="memory_anon_bytes"),
    ),
    _both(
        "memory",
        "memory_cache_bytes",
        "gauge",
        "bytes",
        "Page cache of {of}, tmpfs and shared memory included.",
        Series(field="memory_file_bytes"),
    ),
    _both(
        "memory",
        "memory_peak_bytes",
        "gauge",
        "bytes",
        "Most memory ever charged to {of}.",
        Series(field="memory_peak_bytes"),
    ),
    _both(
        "memory",
        "memory_limit_bytes",
        "gauge",
        "bytes",
        "Memory limit of {of}; absent without a limit.",
        Series(field="memory_limit_bytes"),
    ),
    _both(
        "oom",
        "memory_events_total",
        "counter",
        "",
        "Memory events of {of}: reclaim above memory.high, the limit hit, out of memory, processes killed for it, whole"
        " cgroups killed for it.",
        Series(field="memory_high_events", label=("event", "high")),
        Series(field="memory_max_events", label=("event", "max")),
        Series(field="memory_oom_events", label=("event", "oom")),
        Series(field="memory_oom_kill_events", label=("event", "oom_kill")),
        Series(field="memory_oom_group_kill_events", label=("event", "oom_group_kill")),
    ),
    _detail(
        "cpu_user_seconds_total", "counter", "seconds", "CPU time used in user mode by {of}.", "cpu_user_usec", 1e6
    ),
    _detail(
        "cpu_system_seconds_total", "counter", "seconds", "CPU time used in the kernel by {of}.", "cpu_system_usec", 1e6
    ),
    _detail("memory_kernel_bytes", "gauge", "bytes", "Memory of the kernel charged to {of}.", "memory_kernel_bytes"),
    _detail("swap_usage_bytes", "gauge", "bytes", "Swap used by {of}.", "swap_usage_bytes"),
    _detail("tasks", "gauge", "", "Tasks (processes and their threads) in {of}.", "tasks"),
    _pressure("cpu", "CPU"),
    _pressure("memory", "memory"),
    _pressure("io", "I/O"),
    _detail(
        "memory_active_file_bytes", "gauge", "bytes", "Page cache in recent use of {of}.", "memory_active_file_bytes"
    ),
    _detail(
        "memory_inactive_file_bytes",
        "gauge",
        "bytes",
        "Page cache not in recent use, the part that the working set leaves out, of {of}.",
        "memory_inactive_file_bytes",
    ),
    _detail("memory_shmem_bytes", "gauge", "bytes", "Shared memory and tmpfs of {of}.", "memory_shmem_bytes"),
    _detail(
        "memory_slab_reclaimable_bytes",
        "gauge",
        "bytes",
        "Kernel objects that can be reclaimed of {of}.",
        "memory_slab_reclaimable_bytes",
    ),
    _detail(
        "memory_slab_unreclaimable_bytes",
        "gauge",
        "bytes",
        "Kernel objects that cannot be reclaimed of {of}.",
        "memory_slab_unreclaimable_bytes",
    ),
    _detail("memory_kernel_stack_bytes", "gauge", "bytes", "Kernel stacks of {of}.", "memory_kernel_stack_bytes"),
    _both(
        "requests",
        "cpu_weight",
        "gauge",
        "",
        "Weight by which {of} shares CPU under contention: what a CPU request becomes, not the request.",
        Series(field="cpu_weight"),
    ),
    _both(
        "requests",
        "memory_min_bytes",
        "gauge",
        "bytes",
        "Memory of {of} that is never reclaimed: its memory request where the kubelet's MemoryQoS is on, else 0.",
        Series(field="memory_min_bytes"),
    ),
    _both(
        "requests",
        "memory_high_bytes",
        "gauge",
        "bytes",
        "Memory above which {of} is throttled and reclaimed; absent without such a limit.",
        Series(field="memory_high_bytes"),
    ),
)

POD_KILLS: tuple[Metric, ...] = (
    Metric(
        name="pod_oom_kills_total",
        type="counter",
        unit="",
        help="Processes of the pod, by its name, that were killed as memory ran out.",
        scope="pod_kills",
        group="oom",
        labels=_POD,
        series=(Series(field="kills"),),
        made_of="memory_oom_kill_events",
        formula="sum over the pods of this name of memory.events: oom_kill; stays for --linger after the pod",
    ),
)

CONTAINER_KILLS: tuple[Metric, ...] = (
    Metric(
        name="pod_container_oom_kills_total",
        type="counter",
        unit="",
        help="Processes of the container, by its name, that were killed as memory ran out, restarts included.",
        scope="container_kills",
        group="oom",
        labels=_CONTAINER,
        series=(Series(field="kills"),),
        made_of="memory_oom_kill_events",
        formula="sum over the containers of this name of memory.events: oom_kill; of one that has ended, what its pod's"
        " grew by beyond that of the live ones; stays for --linger",
    ),
)


def _ended(
    suffix: str, unit: str, help_text: str, field: str, formula: str, *, divisor: float = 1, moment: bool = False
) -> Metric:
    return Metric(
        name=f"pod_container_final_{suffix}",
        type="gauge",
        unit=unit,
        help=help_text,
        scope="ended",
        group="ended",
        labels=_CONTAINER,
        series=(Series(field=field),),
        formula=formula,
        divisor=divisor,
        moment=moment,
    )


ENDED: tuple[Metric, ...] = (
    _ended(
        "cpu_usage_seconds",
        "seconds",
        "CPU time that a container which has ended had used at its last reading.",
        "cpu_usage_usec",
        "cpu.stat: usage_usec, last read at most a tick before the end",
        divisor=1e6,
    ),
    _ended(
        "memory_peak_bytes",
        "bytes",
        "Most memory that was seen charged to a container which has ended.",
        "memory_peak_bytes",
        "the higher of memory.peak and the highest memory.current that were read",
    ),
    _ended(
        "age_seconds",
        "seconds",
        "Age at its last reading of a container which has ended.",
        "age_ns",
        "time of the last reading - start of the container",
        divisor=1e9,
    ),
    _ended(
        "time_seconds",
        "seconds",
        "Time since the epoch of the last reading of a container which has ended.",
        "ended_ns",
        "time of the last reading",
        divisor=1e9,
        moment=True,
    ),
)

_INFO = Metric(
    name="pod_info",
    type="gauge",
    unit="",
    help="1 for each pod, with what is known of it.",
    scope="info",
    group="info",
    labels=("namespace", "node", "pod", "qos_class", "source", "uid", "workload_kind", "workload_name"),
    formula="the kubelet's list of pods; source: where the pod's sums and containers are from, another than --source"
    " with --fill-from alone; label_* for the pod labels named by --pod-labels",
)


_CGROUP: tuple[SourceName, ...] = ("cgroup",)


def _self(
    name: str, kind: MetricType, unit: str, help_text: str, *labels: str, only: tuple[SourceName, ...] = ()
) -> Metric:
    return Metric(
        name=name,
        type=kind,
        unit=unit,
        help=help_text,
        scope="self",
        group="",
        labels=labels,
        formula="podtally",
        only=only,
    )


SELF: tuple[Metric, ...] = (
    _self("podtally_build_info", "gauge", "", "1, with podtally's version.", "version"),
    _self("podtally_source_info", "gauge", "", "1, with the source that the numbers are taken from.", "source"),
    _self(
        "podtally_ticks_total",
        "counter",
        "",
        "Passes over the node's cgroups, or over what an upstream has answered, by result.",
        "result",
    ),
    _self("podtally_tick_duration_seconds", "summary", "seconds", "Time that a tick took, reading to publishing."),
    _self("podtally_tick_cpu_seconds_total", "counter", "seconds", "CPU time of the ticks."),
    _self("podtally_tally_age_seconds", "gauge", "seconds", "Age of the tally that this page shows."),
    _self("podtally_cgroups", "gauge", "", "Cgroups read in the last tick.", only=_CGROUP),
    _self("podtally_files_read_total", "counter", "", "Kernel files read.", only=_CGROUP),
    _self(
        "podtally_read_errors_total",
        "counter",
        "",
        "Kernel files that could not be read or parsed.",
        "reason",
        only=_CGROUP,
    ),
    _self(
        "podtally_held_falls_total",
        "counter",
        "",
        "Counters of the kernel that were lower than before within the life of their cgroup, and were held.",
        only=_CGROUP,
    ),
    _self(
        "podtally_descriptors_held",
        "gauge",
        "",
        "Descriptors of cgroup files and directories held open.",
        only=_CGROUP,
    ),
    _self("podtally_descriptors_limit", "gauge", "", "Descriptors that may be held open.", only=_CGROUP),
    _self(
        "podtally_opened_reads_total",
        "counter",
        "",
        "Reads that opened their file, as no more descriptors may be held.",
        only=_CGROUP,
    ),
    _self(
        "podtally_upstream_up",
        "gauge",
        "",
        "1 if the upstream answered well when it was asked last, 0 if not. With --source cgroup, --fill-from has one"
        " while a pod needs it.",
    ),
    _self(
        "podtally_upstream_requests_total",
        "counter",
        "",
        "Answers of the upstream, by HTTP status; error where nothing answered, malformed where it was no answer to the"
        " question.",
        "code",
    ),
    _self(
        "podtally_upstream_age_seconds",
        "gauge",
        "seconds",
        "Time since the upstream was asked what is served; absent while nothing of it is.",
    ),
    _self(
        "podtally_upstream_sample_age_seconds",
        "gauge",
        "seconds",
        "Age of the pods' samples by the upstream's own times, of the newest and of the oldest.",
        "of",
    ),
    _self(
        "podtally_upstream_window_seconds",
        "gauge",
        "seconds",
        "Spans that the upstream's CPU rates are over, the shortest and the longest.",
        "of",
    ),
    _self("podtally_pods", "gauge", "", "Pods exported."),
    _self("podtally_pods_incomplete", "gauge", "", "Pods whose sums are withheld as a part is missing.", "reason"),
    _self(
        "podtally_pods_filled",
        "gauge",
        "",
        "Pods that cgroups tell nothing of and whose sums are the kubelet's own. Only with --fill-from.",
        only=_CGROUP,
    ),
    _self("podtally_unnamed_cgroups", "gauge", "", "Pods' and containers' cgroups that no answer names."),
    _self("podtally_duplicates", "gauge", "", "Cgroups not exported as a newer one bears their name.", "kind"),
    _self("podtally_names_source", "gauge", "", "1 for where the pods' names come from.", "source"),
    _self("podtally_names_age_seconds", "gauge", "seconds", "Age of the answer that the names are taken from."),
    _self(
        "podtally_answers_total",
        "counter",
        "",
        "Answers to the question for pods, by HTTP status; error where nothing answered.",
        "code",
        "source",
    ),
    _self(
        "podtally_refused_items_total",
        "counter",
        "",
        "Items in lists of pods that were no pods, and items and values in an upstream's answers that were no samples.",
    ),
    _self("podtally_scrapes_total", "counter", "", "Expositions served.", "path"),
    _self("podtally_scrape_duration_seconds", "summary", "seconds", "Time that rendering an exposition took.", "path"),
    _self(
        "podtally_web_config_reload_successful",
        "gauge",
        "",
        "1 if the file of --web.config.file is in force as it is on disk, 0 if an earlier one is.",
    ),
    _self("podtally_refused_requests_total", "counter", "", "Requests that were not let in.", "reason"),
    _self(
        "podtally_busy_answers_total",
        "counter",
        "",
        "Requests that were answered with 503, as too many answers were under way.",
    ),
    _self(
        "podtally_ended_connections_total",
        "counter",
        "",
        "Connections that were closed on their clients: for an answer not taken in time (answer), no TLS handshake"
        " (handshake), no whole request in time (request), or another connection (room).",
        "reason",
    ),
    _self(
        "podtally_reviews_total",
        "counter",
        "",
        "TokenReviews (kind token) and SubjectAccessReviews (kind access) asked for, by HTTP status; error where"
        " nothing answered.",
        "code",
        "kind",
    ),
    _self(
        "podtally_kubelet_comparisons_total",
        "counter",
        "",
        "Comparisons with the kubelet's /metrics/resource, by result (--verify-interval).",
        "result",
        only=_CGROUP,
    ),
    _self(
        "podtally_kubelet_comparison_age_seconds",
        "gauge",
        "seconds",
        "Time since the kubelet was last compared with. After three intervals the families of it are absent.",
        only=_CGROUP,
    ),
    _self(
        "podtally_kubelet_difference_ratio",
        "gauge",
        "ratio",
        "Difference from the kubelet's value as a share of it, of containers above 10m or 10Mi, at the last"
        " comparison.",
        "quantity",
        "statistic",
        only=_CGROUP,
    ),
    _self(
        "podtally_kubelet_compared_containers",
        "gauge",
        "",
        "Containers that were compared with the kubelet's at the last comparison.",
        "quantity",
        only=_CGROUP,
    ),
    _self(
        "podtally_kubelet_outside_containers",
        "gauge",
        "",
        "Containers that differ from the kubelet's by over 10%, over 1m or 1Mi, and over what our readings allow.",
        "quantity",
        only=_CGROUP,
    ),
    _self("process_cpu_seconds_total", "counter", "seconds", "CPU time of this process."),
    _self("process_resident_memory_bytes", "gauge", "bytes", "Resident memory of this process."),
    _self("process_start_time_seconds", "gauge", "seconds", "Start of this process since the epoch."),
)
"""podtally's account of itself."""

POD: tuple[Metric, ...] = (*_TOP, *(pair[0] for pair in _BOTH))
CONTAINER: tuple[Metric, ...] = (*_CONTAINER_ONLY, *(pair[1] for pair in _BOTH))
INFO: tuple[Metric, ...] = (_INFO,)

CATALOGUE: tuple[Metric, ...] = (*POD, *POD_KILLS, *INFO, *CONTAINER, *CONTAINER_KILLS, *ENDED, *SELF)
"""All families of ``/metrics``, in the order in which they are written."""

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in CATALOGUE}


def needs_of(groups: frozenset[str]) -> Needs:
    """The fields that the families of these groups are made of."""
    found = Needs(pods=frozenset(), containers=frozenset())
    for metric in (*POD, *POD_KILLS, *CONTAINER, *CONTAINER_KILLS, *ENDED):
        if metric.group in groups:
            # What befell a container that has gone is told by its pod's count.
            of_pods = metric.scope in ("pod", "pod_kills", "container_kills")
            of_containers = metric.scope in ("container", "container_kills", "ended")
            found |= Needs(
                pods=metric.fields if of_pods else frozenset(),
                containers=metric.fields if of_containers else frozenset(),
            )
    return found
