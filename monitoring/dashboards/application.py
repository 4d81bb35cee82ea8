"""Application under load: its services side by side while k6, or users, load them."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import parts
from monitoring.dashboards.parts import Column, Query, Row

OF = 'job=~"$job",namespace="$namespace"'

SERVICES = (
    "label_replace(label_replace("
    f'pod_info{{{OF},$by=~"$service"}}, "service", "$1", "pod", "(.*)"), "service", "$1", "$by", "(.+)")'
)
"""pod_info with the label ``service``: the value of the label chosen, or the pod's name where it has none."""

NO_LIMIT = "No container of these services has a CPU limit, so none is throttled"
NO_PRESSURE = "These nodes have no pressure files (PSI), or the collectors run without --collect pressure"
NO_K6 = "k6 does not write to this Prometheus: loadtest/README.md says how"

K6 = 'testid=~"$testid"'


def of_services(expression: str, by: str = "sum") -> str:
    """A pods' expression, brought together by service."""
    joined = f"{expression} * on (instance, namespace, pod) group_left (service) {SERVICES}"
    return f"{by} by (service) ({joined})"


def rate(name: str, more: str = "") -> str:
    """The rate of a counter of the namespace's pods."""
    return f"rate({name}{{{OF}{more}}}[$__rate_interval])"


def application() -> Dashboard:
    """The dashboard."""
    cpu, memory = f"pod_cpu_usage_cores{{{OF}}}", f"pod_memory_usage_bytes{{{OF}}}"
    peak = f"pod_cpu_usage_peak_cores{{{OF}}}"
    started = f"pod_container_start_time_seconds{{{OF}}}"
    users = Query(f"sum(k6_vus{{{K6}}})", "k6 virtual users")
    legend = "{{service}}"
    throttled_share = (
        f"{of_services(rate('pod_container_cpu_throttled_periods_total'))}"
        f" / {of_services(rate('pod_container_cpu_periods_total'))}"
    )
    load = (
        parts.graph(
            "CPU by service",
            "Cores, as kubectl top adds them up: a rate over a trailing 15 s, taken by the collector. With k6"
            " writing to"
            " this Prometheus its virtual users are the dashed line.",
            Query(of_services(cpu), legend),
            users,
            unit="short",
            width=24,
            height=11,
            stacked=True,
            label="cores",
            looks=[parts.on_the_right("k6 virtual users", "text", "short", "virtual users")],
        ),
        parts.graph(
            "Memory by service",
            "Working set, as kubectl top adds it up.",
            Query(of_services(memory), legend),
            unit="bytes",
            width=24,
            height=10,
            stacked=True,
        ),
    )
    overview = (
        parts.rows(
            "Services, over the time shown",
            "Replicas now; the averages and the highest values of the time shown. The peak is the sum over the pods of"
            " the highest rate from one reading to the next, a second apart.",
            {"service": "Service"},
            Column("Replicas", of_services(memory, "count")),
            Column("CPU now", of_services(cpu), "short", 3),
            Column("CPU average", of_services(f"avg_over_time({cpu}[$__range])"), "short", 3),
            Column("CPU peak", of_services(f"max_over_time({peak}[$__range])"), "short", 3),
            Column("Memory now", of_services(memory), "bytes"),
            Column("Memory highest", of_services(f"max_over_time({memory}[$__range])"), "bytes", width=130),
            Column("Restarts", of_services(f"changes({started}[$__range])"), "none"),
            Column("OOM kills", of_services(f"increase(pod_oom_kills_total{{{OF}}}[$__range])"), "none", 0),
            width=24,
            height=13,
            sort=(("CPU average", True),),
        ),
    )
    bursts = (
        parts.bars(
            "Peak against average CPU",
            "Cores over the time shown. Where the peak is many times the average, the service works in bursts, which"
            " an average hides and a CPU limit cuts off.",
            "service",
            Column("average", of_services(f"avg_over_time({cpu}[$__range])"), "short"),
            Column("peak", of_services(f"max_over_time({peak}[$__range])"), "short"),
            height=12,
        ),
        parts.graph(
            "Peak CPU in the trailing minute",
            "The sum over the pods of the highest rate from one reading to the next, a second apart.",
            Query(of_services(peak), legend),
            unit="short",
            height=12,
            label="cores",
        ),
    )
    limits = (
        parts.graph(
            "Periods throttled",
            "The share of a limit's periods (100 ms each) in which a container had used up its quota and had to wait.",
            Query(throttled_share, legend),
            unit="percentunit",
            most=1,
            absent=NO_LIMIT,
        ),
        parts.graph(
            "Time throttled",
            "How long containers were held back, in seconds a second, added up over containers and CPUs: what"
            " latency is"
            " made of. A service can be throttled in most periods and lose little, or the other way round.",
            Query(of_services(rate("pod_container_cpu_throttled_seconds_total")), legend),
            unit="short",
            label="s/s",
            absent=NO_LIMIT,
        ),
    )
    changes = (
        parts.graph(
            "Replicas",
            "Pods with running containers that are all known.",
            Query(of_services(memory, "count"), legend),
            unit="none",
            width=8,
            height=10,
            count=True,
            steps=True,
        ),
        parts.graph(
            "Containers just started",
            "Containers that began within the span of a point: restarts, and those of new replicas.",
            Query(of_services(f"((time() - {started}) < bool ($__rate_interval_ms / 1000))"), legend),
            unit="none",
            width=8,
            height=10,
            count=True,
            bars=True,
            stacked=True,
            absent="No containers: the collectors run with --no-containers",
        ),
        parts.graph(
            "OOM kills",
            "Processes killed as memory ran out, counted on the pod's name, over restarts.",
            Query(of_services(f"increase(pod_oom_kills_total{{{OF}}}[$__rate_interval])"), legend),
            unit="none",
            width=8,
            height=10,
            count=True,
            bars=True,
            stacked=True,
            absent="The collectors run without --collect oom",
        ),
    )
    pressure = tuple(
        parts.graph(
            f"{what} pressure",
            f"The share of time in which {who} of a pod's tasks waited for {waited}: of the service's pods the"
            " highest.",
            Query(
                of_services(rate(f"pod_cgroup_{quantity}_pressure_seconds_total", f',stalled="{stalled}"'), "max"),
                legend,
            ),
            unit="percentunit",
            width=8,
            height=10,
            absent=NO_PRESSURE,
        )
        for what, quantity, waited, stalled, who in (
            ("CPU", "cpu", "CPU", "some", "some"),
            ("Memory", "memory", "memory", "full", "all"),
            ("I/O", "io", "I/O", "full", "all"),
        )
    )
    requests = f"sum by (endpoint) (rate(k6_http_reqs_total{{{K6}%s}}[$__rate_interval]))"
    sent, failed = requests % "", requests % ',expected_response="false"'
    k6 = (
        parts.graph(
            "Virtual users",
            "k6's virtual users, and the iterations that it could not start in time: these are load that was not"
            " offered.",
            Query(f"sum by (testid) (k6_vus{{{K6}}})", "virtual users {{testid}}"),
            Query(f"sum by (testid) (rate(k6_dropped_iterations_total{{{K6}}}[$__rate_interval]))", "dropped a second"),
            unit="short",
            looks=[parts.colored("dropped a second", "red")],
            absent=NO_K6,
        ),
        parts.graph(
            "Requests",
            "Requests a second, by endpoint.",
            Query(sent, "{{endpoint}}"),
            unit="reqps",
            stacked=True,
            absent=NO_K6,
        ),
        parts.graph(
            "Latency",
            "Of the requests that did not fail, by endpoint: the 50th, 95th and 99th percentile, as k6 works them"
            " out for"
            " each push. Those of several k6 pods cannot be averaged: the highest is shown.",
            *(
                Query(
                    f'max by (endpoint) (k6_http_req_duration_p{p}{{{K6},expected_response!="false"}})',
                    f"{{{{endpoint}}}} p{p}",
                )
                for p in (50, 95, 99)
            ),
            unit="s",
            absent=NO_K6,
        ),
        parts.graph(
            "Failed requests and checks",
            "The share of requests that failed, by endpoint; and of the check that held least, the share that did"
            " not. It is"
            " made of k6's counters: its rate of failed requests is of each status by itself, and so always 0 or 1.",
            Query(f"({failed} or 0 * {sent}) / {sent}", "failed, {{endpoint}}"),
            Query(f"max by (testid) (1 - k6_checks_rate{{{K6}}})", "checks that did not hold"),
            unit="percentunit",
            absent=NO_K6,
        ),
    )
    return parts.board(
        "podtally-application",
        "Application under load",
        "The services of a namespace while they are loaded: CPU, memory, throttling, pressure, restarts, replicas, k6.",
        [
            parts.JOB,
            parts.one_of(
                "namespace",
                "Namespace",
                'label_values(pod_info{job=~"$job"}, namespace)',
                "The application's namespace.",
            ),
            parts.one_of(
                "by",
                "Services by",
                "label_names(pod_info)",
                "The label that names a service: the workload's name, or a label of the pods that the collectors export"
                " (--pod-labels). A pod without it stands for itself.",
                first="workload_name",
                keep="/^(workload_name|label_.+)$/",
            ),
            parts.some_of(
                "service",
                "Service",
                'label_values(pod_info{job=~"$job",namespace="$namespace"}, $by)',
                "The services that are shown.",
                everything=".*",
            ),
            parts.some_of(
                "testid",
                "Load test",
                "label_values(k6_vus, testid)",
                "Runs of k6 that write to this Prometheus.",
                everything=".*",
            ),
        ],
        [
            Row("", load),
            Row("Services", overview),
            Row("Bursts and limits", (*bursts, *limits)),
            Row("Replicas, restarts, OOM kills", changes),
            Row("Pressure (PSI)", pressure, collapsed=True),
            Row("Load test (k6)", k6, collapsed=True),
        ],
        [
            parts.marks(
                "Load tests",
                f"count by (testid, profile) (k6_vus{{{K6}}})",
                "k6 {{profile}}",
                "{{testid}}",
                "purple",
                shown=True,
            ),
            parts.marks(
                "Container starts",
                f"max by (pod, container) ({started}) * 1000",
                "{{container}} started",
                "{{pod}}",
                "orange",
                shown=False,
                at_value=True,
            ),
        ],
        since="now-30m",
    )
