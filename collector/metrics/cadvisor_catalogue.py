"""Every family of ``/metrics/cadvisor``, once, and those of cAdvisor's that are left out, with the reason.

Names, types, help and labels are those of the kubelet's page (cAdvisor v0.56 on cgroup v2), so that dashboards, rules
and alerts go on. The rows are of the same make as those of ``metrics/catalogue.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from collector.cgroup.files import DETAIL_FIELDS, slow_fields
from collector.metrics import resource
from collector.metrics.catalogue import DEFAULT_GROUPS, Metric, Series, needs_of
from collector.metrics.text import MetricType

BASE_LABELS = ("container", "id", "image", "name", "namespace", "pod")

Each = Literal["device", "interface"]

INTERFACE_FIELD = "process_id"
_MADE_OF: dict[Each | None, str] = {None: "", "device": "io", "interface": INTERFACE_FIELD}
"""The field of the details that devices and interfaces are found by."""

_USUAL = resource.NEEDS | needs_of(DEFAULT_GROUPS)
_SLOW = slow_fields(_USUAL.pods | _USUAL.containers)


@dataclass(frozen=True, slots=True, kw_only=True)
class CadvisorMetric(Metric):
    """A family of cAdvisor's."""

    each: Each | None = None
    """There is a series for each block device of the cgroup, or for each network interface of the pod."""
    omit_zero: bool = False
    """No series while the value is 0."""
    zero_without_limit: bool = False
    """0 stands for no limit, as it does in cAdvisor; else such a series is left out."""
    containers_only: bool = False
    """The rows of containers alone have it."""
    stamped: bool = True
    """It has a timestamp in the kubelet's page."""
    node: str = ""
    """What the value of the row ``/`` is, where it is something else."""

    @property
    def declared_unit(self) -> str:
        """The unit as OpenMetrics declares it: it must be the end of the name, which it is not in all of cAdvisor's."""
        return self.unit if self.name.removesuffix("_total").endswith(f"_{self.unit}") else ""

    @property
    def seldom(self) -> bool:
        """No other exposition needs its files, of pods or of containers, without ``--collect``."""
        return not self.fields & DETAIL_FIELDS <= _SLOW


def _family(
    name: str,
    kind: MetricType,
    unit: str,
    help_text: str,
    *series: Series | str,
    each: Each | None = None,
    more_labels: tuple[str, ...] = (),
    divisor: float = 1,
    when: str = "",
    formula: str = "",
    omit_zero: bool = False,
    zero_without_limit: bool = False,
    containers_only: bool = False,
    stamped: bool = True,
    node: str = "",
) -> CadvisorMetric:
    rows = tuple(Series(field=one) if isinstance(one, str) else one for one in series)
    own = {pair[0] for one in rows for pair in one.labels}
    return CadvisorMetric(
        name=name,
        type=kind,
        unit=unit,
        help=help_text,
        scope="cadvisor",
        group="",
        labels=tuple(sorted({*BASE_LABELS, *own, *more_labels})),
        series=rows,
        divisor=divisor,
        when=when,
        formula=formula,
        made_of=_MADE_OF[each],
        each=each,
        omit_zero=omit_zero,
        zero_without_limit=zero_without_limit,
        containers_only=containers_only,
        stamped=stamped,
        node=node,
    )


_CPU: tuple[CadvisorMetric, ...] = (
    _family(
        "container_cpu_usage_seconds_total",
        "counter",
        "seconds",
        "Cumulative cpu time consumed in seconds.",
        Series(field="cpu_usage_usec", label=("cpu", "total")),
        divisor=1e6,
        omit_zero=True,
    ),
    _family(
        "container_cpu_user_seconds_total",
        "counter",
        "seconds",
        "Cumulative user cpu time consumed in seconds.",
        "cpu_user_usec",
        divisor=1e6,
    ),
    _family(
        "container_cpu_system_seconds_total",
        "counter",
        "seconds",
        "Cumulative system cpu time consumed in seconds.",
        "cpu_system_usec",
        divisor=1e6,
    ),
    *(
        _family(f"container_cpu_cfs_{suffix}", "counter", unit, what, field, divisor=divisor, when="cpu_quota_usec")
        for suffix, unit, what, field, divisor in (
            ("periods_total", "", "Number of elapsed enforcement period intervals.", "cpu_periods", 1),
            (
                "throttled_periods_total",
                "",
                "Number of throttled period intervals.",
                "cpu_throttled_periods",
                1,
            ),
            (
                "throttled_seconds_total",
                "seconds",
                "Total time duration the container has been throttled.",
                "cpu_throttled_usec",
                1e6,
            ),
            ("burst_periods_total", "", "Number of periods when burst occurs.", "cpu_burst_periods", 1),
            (
                "burst_seconds_total",
                "seconds",
                "Total time duration the container has been bursted.",
                "cpu_burst_usec",
                1e6,
            ),
        )
    ),
)

_MEMORY: tuple[CadvisorMetric, ...] = (
    _family(
        "container_memory_usage_bytes",
        "gauge",
        "bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        "memory_current_bytes",
        node="memory.stat: anon + file",
    ),
    _family(
        "container_memory_working_set_bytes",
        "gauge",
        "bytes",
        "Current working set in bytes.",
        "memory_working_set_bytes",
        formula="memory.current - memory.stat: inactive_file, at least 0",
        node="memory.stat: anon + file - inactive_file",
    ),
    _family("container_memory_rss", "gauge", "bytes", "Size of RSS in bytes.", "memory_anon_bytes"),
    _family("container_memory_cache", "gauge", "bytes", "Number of bytes of page cache memory.", "memory_file_bytes"),
    _family(
        "container_memory_mapped_file",
        "gauge",
        "bytes",
        "Size of memory mapped files in bytes.",
        "memory_mapped_file_bytes",
    ),
    _family(
        "container_memory_swap",
        "gauge",
        "bytes",
        "Container swap usage in bytes.",
        "swap_usage_bytes",
        node="/proc/meminfo: SwapTotal - SwapFree",
    ),
    _family(
        "container_memory_max_usage_bytes",
        "gauge",
        "bytes",
        "Maximum memory usage recorded in bytes",
        "memory_peak_bytes",
    ),
    _family(
        "container_memory_total_active_file_bytes",
        "gauge",
        "bytes",
        "Current total active file in bytes.",
        "memory_active_file_bytes",
    ),
    _family(
        "container_memory_total_inactive_file_bytes",
        "gauge",
        "bytes",
        "Current total inactive file in bytes.",
        "memory_inactive_file_bytes",
    ),
    _family(
        "container_memory_failures_total",
        "counter",
        "",
        "Cumulative count of memory allocation failures.",
        *(
            Series(field=field, label=("failure_type", kind), second_label=("scope", scope))
            for kind, field in (("pgfault", "memory_page_faults"), ("pgmajfault", "memory_major_page_faults"))
            for scope in ("container", "hierarchy")
        ),
    ),
    _family(
        "container_oom_events_total",
        "counter",
        "",
        "Count of out of memory events observed for the container",
        "memory_oom_kill_events",
        containers_only=True,
    ),
)

_PRESSURE: tuple[CadvisorMetric, ...] = tuple(
    _family(
        f"container_pressure_{of}_{state}_seconds_total",
        "counter",
        "seconds",
        f"Total time duration {what} due to {congestion} congestion.",
        f"{of}_pressure_{line}_usec",
        divisor=1e6,
    )
    for of, congestion in (("cpu", "CPU"), ("memory", "memory"), ("io", "IO"))
    for state, line, what in (
        ("waiting", "some", "tasks in the container have waited"),
        ("stalled", "full", "no tasks in the container could make progress"),
    )
)

_PROCESSES: tuple[CadvisorMetric, ...] = (
    _family(
        "container_processes",
        "gauge",
        "",
        "Number of processes running inside the container.",
        "processes",
        formula="cgroup.procs: number of lines; of the cgroup itself, not of those below it",
    ),
    _family(
        "container_threads",
        "gauge",
        "",
        "Number of threads running inside the container",
        "tasks",
        node="cgroup.procs: number of lines",
    ),
    _family(
        "container_threads_max",
        "gauge",
        "",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        "tasks_limit",
        zero_without_limit=True,
    ),
)

_IO: tuple[CadvisorMetric, ...] = (
    *(
        _family(
            f"container_fs_{suffix}_total",
            "counter",
            unit,
            f"Cumulative count of {what}",
            field,
            each="device",
            more_labels=("device",),
            formula=f"io.stat: {key}",
        )
        for suffix, unit, what, field, key in (
            ("reads_bytes", "bytes", "bytes read", "read_bytes", "rbytes"),
            ("reads", "", "reads completed", "reads", "rios"),
            ("writes_bytes", "bytes", "bytes written", "written_bytes", "wbytes"),
            ("writes", "", "writes completed", "writes", "wios"),
        )
    ),
    *(
        _family(
            f"container_fs_io_cost_{what}_seconds_total",
            "counter",
            "seconds",
            f"Cumulative IOCost {word} in seconds",
            f"cost_{what}_usec",
            each="device",
            more_labels=("device",),
            divisor=1e6,
            formula=f"io.stat: cost.{what}, where the kernel prints it",
        )
        for what, word in (("usage", "usage"), ("wait", "wait"), ("indebt", "debt"), ("indelay", "delay"))
    ),
    _family(
        "container_blkio_device_usage_total",
        "counter",
        "bytes",
        "Blkio Device bytes usage",
        Series(field="read_bytes", label=("operation", "Read")),
        Series(field="written_bytes", label=("operation", "Write")),
        each="device",
        more_labels=("device", "major", "minor"),
        formula="io.stat: rbytes, wbytes",
    ),
)

_NETWORK: tuple[CadvisorMetric, ...] = tuple(
    _family(
        f"container_network_{way}_{suffix}_total",
        "counter",
        unit,
        f"Cumulative count of {what.format(doing=doing, done=done)}",
        f"{way}_{field}",
        each="interface",
        more_labels=("interface",),
        formula=f"/proc/<pid>/net/dev: {way} {column}; only where processes of the pods can be seen",
    )
    for way, doing, done in (("receive", "receiving", "received"), ("transmit", "transmitting", "transmitted"))
    for suffix, unit, what, field, column in (
        ("bytes", "bytes", "bytes {done}", "bytes", "bytes"),
        ("packets", "", "packets {done}", "packets", "packets"),
        ("packets_dropped", "", "packets dropped while {doing}", "dropped", "drop"),
        ("errors", "", "errors encountered while {doing}", "errors", "errs"),
    )
)

_SPEC: tuple[CadvisorMetric, ...] = (
    _family(
        "container_spec_cpu_period",
        "gauge",
        "microseconds",
        "CPU period of the container.",
        "cpu_period_usec",
        stamped=False,
    ),
    _family(
        "container_spec_cpu_quota",
        "gauge",
        "microseconds",
        "CPU quota of the container.",
        "cpu_quota_usec",
        stamped=False,
    ),
    _family(
        "container_spec_cpu_shares",
        "gauge",
        "",
        "CPU share of the container.",
        "cpu_shares",
        formula="cpu.weight: 2 + (weight - 1) * 262142 / 9999, cut to a whole number",
        stamped=False,
    ),
    _family(
        "container_spec_memory_limit_bytes",
        "gauge",
        "bytes",
        "Memory limit for the container.",
        "memory_limit_bytes",
        zero_without_limit=True,
        stamped=False,
        node="/proc/meminfo: MemTotal",
    ),
    _family(
        "container_spec_memory_swap_limit_bytes",
        "gauge",
        "bytes",
        "Memory swap limit for the container.",
        "swap_limit_bytes",
        zero_without_limit=True,
        stamped=False,
        node="/proc/meminfo: SwapTotal",
    ),
    _family(
        "container_spec_memory_reservation_limit_bytes",
        "gauge",
        "bytes",
        "Memory reservation limit for the container.",
        "memory_min_bytes",
        zero_without_limit=True,
        stamped=False,
    ),
)

START_TIME = _family(
    "container_start_time_seconds",
    "gauge",
    "seconds",
    "Start time of the container since unix epoch in seconds.",
    "begun_ns",
    divisor=1e9,
    formula="the earliest of startedAt of the status and the mtimes of the cgroup's directory and its cgroup.events,"
    " in whole seconds",
    stamped=False,
)
LAST_SEEN = _family(
    "container_last_seen",
    "gauge",
    "seconds",
    "Last time a container was seen by the exporter",
    "id",  # a row that is there was seen
    divisor=1e9,
    formula="when the tick began, in whole seconds",
)

SCRAPE_ERROR = CadvisorMetric(
    name="container_scrape_error",
    type="gauge",
    unit="",
    help="1 if there was an error while getting container metrics, 0 otherwise",
    scope="self",
    group="",
    labels=(),
    formula="1 where the last tick is too old to be shown, or there is none yet",
    stamped=False,
)

CADVISOR: tuple[CadvisorMetric, ...] = tuple(
    sorted(
        (*_CPU, *_MEMORY, *_PRESSURE, *_PROCESSES, *_IO, *_NETWORK, *_SPEC, START_TIME, LAST_SEEN),
        key=lambda metric: metric.name,
    )
)
"""All families but the error, in the order in which they are written: by name, as the kubelet's page has them."""

LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        (
            "container_cpu_load_average_10s",
            "container_cpu_load_d_average_10s",
            "container_tasks_state",
        ),
        "0 in every kubelet: what would fill it is switched off there",
    ),
    **dict.fromkeys(
        ("container_memory_failcnt", "container_memory_kernel_usage"),
        "0 on cgroup v2, where cAdvisor reads no file for it; `pod_container_memory_events_total` and"
        " `pod_cgroup_memory_kernel_bytes` of `/metrics` have what it is named for",
    ),
    "container_health_state": "-1 in every kubelet: health checks are the kubelet's own affair, not the runtime's",
    **dict.fromkeys(
        (
            "container_fs_inodes_free",
            "container_fs_inodes_total",
            "container_fs_limit_bytes",
            "container_fs_usage_bytes",
        ),
        "not from cgroups: of the node's mounted file systems, which node_exporter shows",
    ),
    **dict.fromkeys(
        (
            "container_fs_io_current",
            "container_fs_io_time_seconds_total",
            "container_fs_io_time_weighted_seconds_total",
            "container_fs_read_seconds_total",
            "container_fs_reads_merged_total",
            "container_fs_sector_reads_total",
            "container_fs_sector_writes_total",
            "container_fs_write_seconds_total",
            "container_fs_writes_merged_total",
        ),
        "not in io.stat: on cgroup v2 the row `/` alone has it, from /proc/diskstats, which node_exporter shows",
    ),
    **dict.fromkeys(
        ("container_file_descriptors", "container_sockets", "container_ulimits_soft"),
        "not from cgroups: of other users' /proc/<pid>/fd and limits, which takes more rights than podtally has",
    ),
    **dict.fromkeys(
        (
            "cadvisor_version_info",
            "machine_cpu_books",
            "machine_cpu_cores",
            "machine_cpu_drawers",
            "machine_cpu_physical_cores",
            "machine_cpu_sockets",
            "machine_memory_bytes",
            "machine_nvm_avg_power_budget_watts",
            "machine_nvm_capacity",
            "machine_scrape_error",
            "machine_swap_bytes",
        ),
        "no family of containers",
    ),
}
"""Families of the kubelet's page that podtally does not give, and why."""

LEFT_OUT_ELSEWHERE: dict[str, str] = {
    "container_hugetlb_*": "switched off in the kubelet",
    "container_memory_numa_pages, container_memory_migrate": "switched off in the kubelet, and empty on cgroup v2",
    "container_network_tcp_*, _tcp6_*, _udp_*, _udp6_*, _advance_tcp_*": "switched off in the kubelet",
    "container_cpu_schedstat_*, container_perf_*, container_referenced_bytes, container_llc_occupancy_bytes,"
    " container_memory_bandwidth_*": "switched off in the kubelet, and not from cgroups",
}
"""Families of cAdvisor's that the kubelet's page does not have either."""
