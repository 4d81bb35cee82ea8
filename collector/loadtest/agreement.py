"""Whether podtally's numbers in Prometheus and kubectl top's agree while the load was on. Pure.

What kubectl top prints is the metrics API's. Its samples were fetched during the run, and each has its own window: ours
is the growth of the CPU counters over that very window, and the working set at its end. Where the metrics API was not
to be had, ``serve --verify-interval`` may have compared with the kubelet, where the metrics API has its samples from.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from collector.errors import AnswerError
from collector.loadtest.model import Agreement, Compared, Series, Span, Workload
from collector.loadtest.samples import interpolated
from collector.loadtest.services import MEMORY, PodKey, Pods
from collector.parity.peers import PodUsage, parse_pod_metrics
from collector.parity.verification import LEAST, Quantity

_NS = 1e9
_CUT_SECONDS = 0.5
"""The metrics API cuts its times to whole seconds: half a second too early in the mean."""
_REACH_STEPS = 3.0


class Told(NamedTuple):
    """What the metrics API said."""

    usages: tuple[PodUsage, ...]
    """Each sample once."""
    why: str | None
    """Why it did not say more."""
    unreadable: tuple[int, ...]
    """Numbers of the lines that are none of its answers."""


def told_by(lines: bytes) -> Told:
    """What stands in ``metrics-api.jsonl``: broken lines are told, not raised."""
    found: dict[tuple[str, str, int], PodUsage] = {}
    why: str | None = None
    unreadable = []
    for number, line in enumerate(lines.splitlines(), 1):
        try:
            answer = json.loads(line)
            if answer.get("error"):
                why = str(answer["error"])[:_LONGEST_WHY]
                continue
            for one in parse_pod_metrics(json.dumps(answer["body"]).encode()):
                found[one.owner.namespace, one.owner.pod, one.time_ns] = one
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AnswerError):
            unreadable.append(number)
    return Told(tuple(found.values()), why, tuple(unreadable))


_LONGEST_WHY = 300


class _Sample(NamedTuple):
    ours: float
    theirs: float

    def agrees(self, quantity: Quantity, tolerance: float) -> bool:
        return _agree(self.ours, self.theirs, quantity, tolerance)


def _agree(ours: float, theirs: float, quantity: Quantity, tolerance: float) -> bool:
    return abs(ours - theirs) <= max(LEAST[quantity], tolerance * theirs)


def agreement(
    told: Told | None, pods: Pods, kubelet: Sequence[Series], during: Span, step: float, tolerance: float
) -> Agreement:
    """Compare by service; ``told`` is ``None`` where nothing is kept of the metrics API."""
    usages = () if told is None else told.usages
    why = _why_not(told, pods)
    samples: dict[tuple[Workload, Quantity], list[_Sample]] = defaultdict(list)
    for usage in usages:
        key = PodKey(usage.owner.namespace, usage.owner.pod)
        workload = pods.workloads.get(key)
        window = Span((usage.time_ns - usage.window_ns) / _NS + _CUT_SECONDS, usage.time_ns / _NS + _CUT_SECONDS)
        if workload is None or not (during.holds(window.begin) and during.holds(window.end)):
            continue
        for quantity, sample in _compared(pods, key, usage, window, step):
            samples[workload, quantity].append(sample)
    found = tuple(
        _service(workload, quantity, of, tolerance)
        for (workload, quantity), of in sorted(samples.items(), key=lambda item: item[0])
    )
    outside = _sum(kubelet, "podtally_kubelet_outside_containers", during)
    checked = _sum(kubelet, "podtally_kubelet_compared_containers", during)
    source: Literal["metrics-api", "kubelet"] | None = None
    if found:
        source = "metrics-api"
    elif checked:
        source = "kubelet"
    return Agreement(
        source=source,
        tolerance=tolerance,
        compared=found,
        kubelet_compared=checked,
        kubelet_outside=outside,
        why_not=None if found else why,
    )


def _why_not(told: Told | None, pods: Pods) -> str:
    """Why nothing is compared, should nothing be."""
    if told is None:
        return "metrics-api.jsonl is missing"
    if not told.usages and told.unreadable:
        return f"metrics-api.jsonl, line {told.unreadable[0]}: no answer of the metrics API"
    if told.why is not None:
        return told.why
    if not told.usages:
        return "the metrics API knows no pod of the application"
    if not pods.series:
        return "there are no samples of podtally's to compare with"
    return "no window of the metrics API's samples lies within the load and our samples"


def _compared(
    pods: Pods, key: PodKey, usage: PodUsage, window: Span, step: float
) -> Iterator[tuple[Quantity, _Sample]]:
    widest = _REACH_STEPS * step
    containers = tuple(usage.containers)
    cpu = _cores(pods, key, containers, window, widest)
    if cpu is not None:
        yield "cpu", _Sample(cpu, sum(one.cpu_nanocores for one in usage.containers.values()) / _NS)
    memory = next((interpolated(one.points, window.end, widest) for one in pods.gauge(MEMORY, [key])), None)
    if memory is not None:
        yield "memory", _Sample(memory, float(sum(one.memory_bytes for one in usage.containers.values())))


def _cores(pods: Pods, key: PodKey, containers: Iterable[str], window: Span, widest: float) -> float | None:
    """The sum of the containers', as kubectl top has it; without their series the pod's own counter."""
    counters = [pods.counter(key, name, "cpu_usage_seconds_total") for name in containers]
    if not all(counters):
        counters = [pods.counter(key, None, "cpu_usage_seconds_total")]
    ends = [tuple(interpolated(points, time, widest) for time in window) for points in counters]
    if window.seconds <= 0 or not ends or any(begin is None or end is None for begin, end in ends):
        return None
    grown = [(end or 0.0) - (begin or 0.0) for begin, end in ends]
    # A counter that began anew within the window tells nothing of it.
    return sum(grown) / window.seconds if min(grown) >= 0 else None


def _service(workload: Workload, quantity: Quantity, samples: list[_Sample], tolerance: float) -> Compared:
    ours, theirs = (sum(values) / len(samples) for values in zip(*samples, strict=True))
    return Compared(
        workload=workload,
        quantity=quantity,
        samples=len(samples),
        ours=ours,
        theirs=theirs,
        agrees=_agree(ours, theirs, quantity, tolerance),
        within=sum(one.agrees(quantity, tolerance) for one in samples),
    )


def _sum(series: Sequence[Series], name: str, span: Span) -> int | None:
    """The sum of a gauge's samples in a span: each scrape sees the last comparison again, so only a share is of use."""
    values = [point.value for one in series if one.name == name for point in one.points if span.holds(point.time)]
    return round(sum(values)) if values else None
