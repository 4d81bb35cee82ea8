"""Pods against kubectl top: the table that ``kubectl top pods`` prints, the same over time, and how well it agrees."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards import parts
from monitoring.dashboards.parts import Column, Query, Row

OF_JOB = 'job=~"$job",instance=~"$instance"'
OF = f'{OF_JOB},namespace=~"$namespace"'

COMPARED = "Not compared: switch it on with --verify-interval and daemonset/components/verify"


def millicores(cores: str) -> str:
    """CPU as kubectl prints it: millicores rounded up, from whole nanocores (``collector/table.py``)."""
    return f"ceil(floor({cores} * 1e9 + 1e-3) / 1e6)"


def mebibytes(amount: str) -> str:
    """Memory as kubectl prints it: Mi rounded down."""
    return f"floor({amount} / 1048576)"


def kubectl_top() -> Dashboard:
    """The dashboard."""
    cpu = f"max by (namespace, pod) (pod_cpu_usage_cores{{{OF}}})"
    memory = f"max by (namespace, pod) (pod_memory_usage_bytes{{{OF}}})"
    # kubectl has no line for a pod whose CPU is not known yet.
    shown = f"and on (namespace, pod) {cpu}"
    container_cpu = f"max by (namespace, pod, container) (pod_container_cpu_usage_cores{{{OF}}}) {shown}"
    container_memory = f"max by (namespace, pod, container) (pod_container_memory_working_set_bytes{{{OF}}}) {shown}"
    worst = f'podtally_kubelet_difference_ratio{{{OF_JOB},statistic="worst"}}'
    to_the_pod = (
        "/d/podtally-pod?var-namespace=${__data.fields.NAMESPACE}&var-pod=${__data.fields.NAME}&${__url_time_range}"
    )
    total = (
        parts.number(
            "CPU, --sum",
            "`kubectl top pods --sum`: the sum of the pods' exact values, rounded up once.",
            Query(millicores(f"sum({cpu})")),
            unit="suffix:m",
        ),
        parts.number(
            "Memory, --sum",
            "`kubectl top pods --sum`: the sum of the pods' working sets, rounded down once.",
            Query(mebibytes(f"sum({memory})")),
            unit="suffix:Mi",
        ),
        parts.number(
            "Pods shown",
            "Pods that have a CPU rate: those of phase Running whose running containers are all known.",
            Query(f"count({cpu})"),
            unit="none",
        ),
        parts.number(
            "Pods withheld",
            "Pods of which a part is not known yet: a partial sum would be wrong, so there is none. kubectl top leaves"
            " such pods out too. On all namespaces.",
            Query(f"sum(podtally_pods_incomplete{{{OF_JOB}}})"),
            unit="none",
            warn_above=1,
        ),
        parts.number(
            "CPU off by at most",
            "From the kubelet's own value over the same window, of containers above 10m, at the last comparison.",
            Query(f'max({worst[:-1]},quantity="cpu"}})'),
            unit="percentunit",
            decimals=1,
            warn_above=0.05,
            fail_above=0.1,
            absent="not compared",
        ),
        parts.number(
            "Memory off by at most",
            "From the kubelet's own value, of containers above 10Mi, at the last comparison.",
            Query(f'max({worst[:-1]},quantity="memory"}})'),
            unit="percentunit",
            decimals=1,
            warn_above=0.05,
            fail_above=0.1,
            absent="not compared",
        ),
    )
    top = (
        parts.rows(
            "kubectl top pods",
            "CPU in millicores, rounded up, and working set in Mi, rounded down: the numbers that `kubectl top pods`"
            " prints. metrics-server looks every 15 s, so that in a ramp it is up to half a minute behind this table.",
            {"namespace": "NAMESPACE", "pod": "NAME"},
            Column("CPU(cores)", millicores(cpu), "suffix:m"),
            Column("MEMORY(bytes)", f"{mebibytes(memory)} {shown}", "suffix:Mi", width=130),
            width=13,
            height=18,
            sort=(("NAMESPACE", False), ("NAME", False)),
            widths={"NAMESPACE": 100},
            links={"NAME": ("Where this pod's CPU and memory go", to_the_pod)},
        ),
        parts.graph(
            "CPU(cores)",
            "The same over time, in millicores rounded up. It is a rate over a trailing window of 15 s, taken by the"
            " collector, so no rate is taken here.",
            Query(millicores(cpu), "{{pod}}"),
            unit="suffix:m",
            width=11,
            height=9,
        ),
        parts.graph(
            "MEMORY(bytes)",
            "The same over time: the working set in Mi, rounded down.",
            Query(mebibytes(memory), "{{pod}}"),
            unit="suffix:Mi",
            width=11,
            height=9,
        ),
    )
    containers = (
        parts.rows(
            "kubectl top pods --containers",
            "The same for each container.",
            {"namespace": "NAMESPACE", "pod": "POD", "container": "NAME"},
            Column("CPU(cores)", millicores(f"({container_cpu})"), "suffix:m"),
            Column("MEMORY(bytes)", mebibytes(f"({container_memory})"), "suffix:Mi", width=130),
            width=24,
            height=14,
            sort=(("NAMESPACE", False), ("POD", False), ("NAME", False)),
            absent="No containers: the collectors run with --no-containers",
        ),
    )
    agreement = (
        parts.graph(
            "Difference from the kubelet",
            "Of what the kubelet's /metrics/resource says, over the same window: the median and the worst of the node's"
            " containers above 10m or 10Mi.",
            Query(
                f"max by (quantity, statistic) (podtally_kubelet_difference_ratio{{{OF_JOB}}})",
                "{{quantity}}, {{statistic}}",
            ),
            unit="percentunit",
            absent=COMPARED,
        ),
        parts.graph(
            "Containers outside",
            "Containers that differ by over 10%, over 1m or 1Mi, and over what the readings around the sample allow."
            " None, on a healthy node; the others are those that were compared.",
            Query(f"sum by (quantity) (podtally_kubelet_outside_containers{{{OF_JOB}}})", "outside, {{quantity}}"),
            Query(f"sum by (quantity) (podtally_kubelet_compared_containers{{{OF_JOB}}})", "compared, {{quantity}}"),
            unit="none",
            count=True,
            absent=COMPARED,
        ),
    )
    return parts.board(
        "podtally-kubectl-top",
        "Pods against kubectl top",
        "CPU and memory of pods, as kubectl top pods prints them.",
        [
            parts.JOB,
            parts.NODE,
            parts.some_of(
                "namespace",
                "Namespace",
                'label_values(pod_info{job=~"$job",instance=~"$instance"}, namespace)',
                "The namespaces that are shown.",
            ),
        ],
        [
            Row("", (*total, *top)),
            Row("By container", containers, collapsed=True),
            Row("Agreement with the kubelet", agreement, collapsed=True),
        ],
    )
