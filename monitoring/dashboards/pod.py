"""One pod: where its CPU and memory go, what limits it, and what it waits for."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import parts
from monitoring.dashboards.kubectl_top import mebibytes, millicores
from monitoring.dashboards.parts import Column, Query, Row

OF = 'job=~"$job",namespace="$namespace",pod="$pod"'

NO_LIMIT = "No CPU limit, so no throttling"
NO_PRESSURE = "This node has no pressure files (PSI), or its collector runs without --collect pressure"
NO_CADVISOR = "Nothing scrapes podtally's /metrics/cadvisor: docs/dashboards.md says how"
NO_NETWORK = "Network needs daemonset/components/hostpid and a scrape of /metrics/cadvisor: docs/dashboards.md"


def rate(name: str, more: str = "") -> str:
    """The rate of a counter of the pod."""
    return f"rate({name}{{{OF}{more}}}[$__rate_interval])"


def gauge(name: str) -> str:
    """A value of the pod; of two collectors that both show it for a moment, the greater."""
    return f"max({name}{{{OF}}})"


def pod() -> Dashboard:
    """The dashboard."""
    limits = [parts.line("limit", "red", dashed=True)]
    reclaimable = " + ".join(
        gauge(f"pod_cgroup_memory_{what}_bytes") for what in ("inactive_file", "active_file", "slab_reclaimable")
    )
    top = (
        parts.number(
            "CPU, as kubectl top",
            "Millicores of the running containers, rounded up.",
            Query(millicores(gauge("pod_cpu_usage_cores"))),
            unit="suffix:m",
            absent="none",
        ),
        parts.number(
            "Memory, as kubectl top",
            "Working set of the running containers in Mi, rounded down.",
            Query(mebibytes(gauge("pod_memory_usage_bytes"))),
            unit="suffix:Mi",
            absent="none",
        ),
        parts.number(
            "CPU of its limit",
            "The pod's cgroup against the limit of that cgroup.",
            Query(f"{gauge('pod_cgroup_cpu_usage_cores')} / {gauge('pod_cgroup_cpu_limit_cores')}"),
            unit="percentunit",
            decimals=0,
            warn_above=0.8,
            fail_above=0.95,
            absent="no limit",
        ),
        parts.number(
            "Memory of its limit",
            "The working set of the pod's cgroup against its limit. The kernel kills when the usage reaches the"
            " limit and"
            " nothing can be reclaimed.",
            Query(f"{gauge('pod_cgroup_memory_working_set_bytes')} / {gauge('pod_cgroup_memory_limit_bytes')}"),
            unit="percentunit",
            decimals=0,
            warn_above=0.8,
            fail_above=0.95,
            absent="no limit",
        ),
        parts.number(
            "Reclaimable memory",
            "Page cache and kernel objects that the kernel can take back, as a share of all that is charged to the"
            " pod.",
            Query(f"({reclaimable}) / {gauge('pod_cgroup_memory_usage_bytes')}"),
            unit="percentunit",
            decimals=0,
            absent="unknown",
        ),
        parts.number(
            "OOM kills",
            "Processes killed as memory ran out, counted on the pod's name, over restarts.",
            Query(gauge("pod_oom_kills_total")),
            unit="none",
            warn_above=1,
            absent="unknown",
        ),
    )
    cpu = (
        parts.graph(
            "CPU: containers and overhead",
            "Cores of each running container, and what the kernel accounts to the pod beyond them: sandbox and ended"
            " containers. Their sum is the pod's cgroup.",
            Query(f"max by (container) (pod_container_cpu_usage_cores{{{OF}}})", "{{container}}"),
            Query(gauge("pod_overhead_cpu_cores"), "overhead"),
            Query(gauge("pod_cgroup_cpu_usage_cores"), "the pod's cgroup"),
            Query(gauge("pod_cgroup_cpu_limit_cores"), "limit"),
            unit="short",
            label="cores",
            stacked=True,
            looks=[*limits, parts.line("the pod's cgroup", "text"), parts.colored("overhead", "#9E9E9E")],
        ),
        parts.graph(
            "CPU: user mode, kernel, and peak",
            "Cores in user mode and in the kernel, and the highest rate from one reading to the next in the trailing"
            " minute: what an average hides.",
            Query(f"max({rate('pod_cgroup_cpu_user_seconds_total')})", "user mode"),
            Query(f"max({rate('pod_cgroup_cpu_system_seconds_total')})", "kernel"),
            Query(gauge("pod_cpu_usage_peak_cores"), "peak"),
            unit="short",
            label="cores",
            stacked=True,
            looks=[parts.line("peak", "orange", dashed=True)],
            absent="The collector's source has no such numbers: docs/sources.md",
        ),
        parts.graph(
            "Periods throttled",
            "The share of a limit's periods (100 ms each) in which the container had used up its quota and had to wait;"
            " of the pod as a whole where its containers' limits add up to one.",
            Query(
                f"max by (container) ({rate('pod_container_cpu_throttled_periods_total')}"
                f" / {rate('pod_container_cpu_periods_total')})",
                "{{container}}",
            ),
            Query(
                f"max({rate('pod_cgroup_cpu_throttled_periods_total')} / {rate('pod_cgroup_cpu_periods_total')})",
                "the pod's cgroup",
            ),
            unit="percentunit",
            most=1,
            looks=[parts.line("the pod's cgroup", "text")],
            absent=NO_LIMIT,
        ),
        parts.graph(
            "Time throttled",
            "How long the limit held tasks back, in seconds a second, added up over CPUs.",
            Query(f"max by (container) ({rate('pod_container_cpu_throttled_seconds_total')})", "{{container}}"),
            Query(f"max({rate('pod_cgroup_cpu_throttled_seconds_total')})", "the pod's cgroup"),
            unit="short",
            label="s/s",
            looks=[parts.line("the pod's cgroup", "text")],
            absent=NO_LIMIT,
        ),
    )
    kernel, slab = gauge("pod_cgroup_memory_kernel_bytes"), gauge("pod_cgroup_memory_slab_reclaimable_bytes")
    memory = (
        parts.graph(
            "Memory: what it is made of",
            "All that is charged to the pod's cgroup. Green is what the kernel can take back. The working set, which"
            " kubectl top prints of containers, leaves out page cache that is not in recent use, and nothing else.",
            Query(gauge("pod_cgroup_memory_rss_bytes"), "anonymous"),
            Query(gauge("pod_cgroup_memory_shmem_bytes"), "shared memory, tmpfs"),
            Query(f"{kernel} - {slab}", "kernel, held"),
            Query(slab, "kernel, reclaimable"),
            Query(gauge("pod_cgroup_memory_active_file_bytes"), "page cache, in recent use"),
            Query(gauge("pod_cgroup_memory_inactive_file_bytes"), "page cache, not in recent use"),
            Query(gauge("pod_cgroup_memory_usage_bytes"), "usage"),
            Query(gauge("pod_cgroup_memory_working_set_bytes"), "working set"),
            Query(gauge("pod_cgroup_memory_limit_bytes"), "limit"),
            unit="bytes",
            height=11,
            stacked=True,
            looks=[
                parts.colored("anonymous", "blue"),
                parts.colored("shared memory, tmpfs", "purple"),
                parts.colored("kernel, held", "#9E9E9E"),
                parts.colored("kernel, reclaimable", "super-light-green"),
                parts.colored("page cache, in recent use", "dark-green"),
                parts.colored("page cache, not in recent use", "green"),
                parts.line("usage", "text", dashed=True),
                parts.line("working set", "orange"),
                *limits,
            ],
        ),
        parts.graph(
            "Memory: containers and overhead",
            "Working set of each running container, and what the kernel accounts to the pod beyond them: sandbox,"
            " memory-backed volumes, what ended containers left behind.",
            Query(f"max by (container) (pod_container_memory_working_set_bytes{{{OF}}})", "{{container}}"),
            Query(gauge("pod_overhead_memory_bytes"), "overhead"),
            Query(gauge("pod_cgroup_memory_working_set_bytes"), "the pod's cgroup"),
            Query(gauge("pod_cgroup_memory_peak_bytes"), "most ever charged"),
            Query(gauge("pod_cgroup_memory_limit_bytes"), "limit"),
            unit="bytes",
            height=11,
            stacked=True,
            looks=[
                *limits,
                parts.line("the pod's cgroup", "text"),
                parts.line("most ever charged", "orange", dashed=True),
                parts.colored("overhead", "#9E9E9E"),
            ],
        ),
        parts.graph(
            "Memory events",
            "What the kernel counted at the pod's limits, in the span of a point: reclaim above memory.high, the limit"
            " hit (max), no memory to be found (oom), processes and whole groups killed for it.",
            Query(f"max by (event) (increase(pod_cgroup_memory_events_total{{{OF}}}[$__rate_interval]))", "{{event}}"),
            unit="short",
            bars=True,
            least=1,
            absent="The collector runs without --collect oom",
        ),
        parts.graph(
            "Tasks and swap",
            "Processes and their threads in the pod, and memory swapped out.",
            Query(gauge("pod_cgroup_tasks"), "tasks"),
            Query(gauge("pod_cgroup_swap_usage_bytes"), "swap"),
            unit="short",
            label="tasks",
            looks=[parts.on_the_right("swap", "orange", "bytes", "swap")],
            absent="The collector's source has no such numbers: docs/sources.md",
        ),
    )
    by_container = {"container": "Container"}

    def of_containers(name: str) -> str:
        return f"max by (container) ({name}{{{OF}}})"

    containers = (
        parts.rows(
            "Containers",
            "What each running container uses, its limits, its age, and OOM kills counted on its name.",
            by_container,
            Column("CPU", millicores(of_containers("pod_container_cpu_usage_cores")), "suffix:m"),
            Column("CPU limit", of_containers("pod_container_cpu_limit_cores"), "suffix:cores"),
            Column("Memory", mebibytes(of_containers("pod_container_memory_working_set_bytes")), "suffix:Mi"),
            Column("Memory limit", of_containers("pod_container_memory_limit_bytes"), "bytes"),
            Column("Age", f"time() - {of_containers('pod_container_start_time_seconds')}", "s"),
            Column("OOM kills", of_containers("pod_container_oom_kills_total")),
            width=24,
            sort=(("Container", False),),
            absent="No containers: the collector runs with --no-containers",
        ),
        parts.rows(
            "What it is",
            "The pod's node, quality of service and workload, as the kubelet's list of pods says.",
            {"node": "Node", "qos_class": "QoS", "workload_kind": "Workload", "workload_name": "Name"},
            Column("", f"max by (node, qos_class, workload_kind, workload_name) (pod_info{{{OF}}})"),
            width=24,
            height=4,
        ),
    )
    pressure = tuple(
        parts.graph(
            f"{what} pressure",
            f"The share of time in which some or all of the pod's tasks waited for {waited}.",
            Query(f"max by (stalled) ({rate(f'pod_cgroup_{quantity}_pressure_seconds_total')})", "{{stalled}}"),
            unit="percentunit",
            width=8,
            absent=NO_PRESSURE,
        )
        for what, quantity, waited in (("CPU", "cpu", "CPU"), ("Memory", "memory", "memory"), ("I/O", "io", "I/O"))
    )
    of_cadvisor = 'namespace="$namespace",pod="$pod"'

    def cadvisor(name: str, by: str, more: str) -> str:
        return f"sum by ({by}) (rate({name}{{{of_cadvisor},{more}}}[$__rate_interval]))"

    named, whole = 'container!=""', 'interface!=""'
    disk = (
        parts.graph(
            "Disk throughput",
            "Bytes a second that the containers read from and wrote to block devices. Reads from the page cache are"
            " none.",
            Query(
                cadvisor("container_fs_reads_bytes_total", "container, device", named), "{{container}} read {{device}}"
            ),
            Query(
                cadvisor("container_fs_writes_bytes_total", "container, device", named),
                "{{container}} write {{device}}",
            ),
            unit="Bps",
            absent=NO_CADVISOR,
        ),
        parts.graph(
            "Disk operations",
            "Reads and writes a second.",
            Query(cadvisor("container_fs_reads_total", "container, device", named), "{{container}} read {{device}}"),
            Query(cadvisor("container_fs_writes_total", "container, device", named), "{{container}} write {{device}}"),
            unit="iops",
            absent=NO_CADVISOR,
        ),
    )
    network = (
        parts.graph(
            "Network throughput",
            "Bytes a second of the pod's interfaces.",
            Query(cadvisor("container_network_receive_bytes_total", "interface", whole), "{{interface}} receive"),
            Query(cadvisor("container_network_transmit_bytes_total", "interface", whole), "{{interface}} transmit"),
            unit="Bps",
            absent=NO_NETWORK,
        ),
        parts.graph(
            "Network packets dropped",
            "Packets a second that the pod's interfaces dropped.",
            Query(
                cadvisor("container_network_receive_packets_dropped_total", "interface", whole), "{{interface}} receive"
            ),
            Query(
                cadvisor("container_network_transmit_packets_dropped_total", "interface", whole),
                "{{interface}} transmit",
            ),
            unit="pps",
            least=1,
            absent=NO_NETWORK,
        ),
    )

    def last(name: str) -> str:
        return f"max by (container) (max_over_time({name}{{{OF}}}[$__range]))"

    ended = (
        parts.rows(
            "Containers that ended in the time shown",
            "The last readings of containers that ended: also of those that live for less than the time from one scrape"
            " to the next. Of several with one name those with the greatest value.",
            by_container,
            Column("CPU used", last("pod_container_final_cpu_usage_seconds"), "s"),
            Column("Most memory", last("pod_container_final_memory_peak_bytes"), "bytes"),
            Column("Age at its end", last("pod_container_final_age_seconds"), "s"),
            width=24,
            sort=(("Container", False),),
            absent="None has ended, or the collector runs without --collect ended",
        ),
    )
    return parts.board(
        "podtally-pod",
        "One pod",
        "Where a pod's CPU and memory go: containers, overhead, what is reclaimable, limits, throttling, I/O,"
        " pressure.",
        [
            parts.JOB,
            parts.one_of(
                "namespace", "Namespace", 'label_values(pod_info{job=~"$job"}, namespace)', "The pod's namespace."
            ),
            parts.one_of(
                "pod",
                "Pod",
                'label_values(pod_info{job=~"$job",namespace="$namespace"}, pod)',
                "The pod that is shown.",
            ),
        ],
        [
            Row("", top),
            Row("CPU", cpu),
            Row("Memory", memory),
            Row("Containers", containers),
            Row("Pressure (PSI)", pressure, collapsed=True),
            Row("Disk (with a scrape of /metrics/cadvisor)", disk, collapsed=True),
            Row("Network (with the hostpid component and a scrape of /metrics/cadvisor)", network, collapsed=True),
            Row("Containers that ended", ended, collapsed=True),
        ],
        [
            parts.marks(
                "Container starts",
                f"max by (container) (pod_container_start_time_seconds{{{OF}}}) * 1000",
                "{{container}} started",
                "$pod",
                "orange",
                shown=True,
                at_value=True,
            )
        ],
    )
