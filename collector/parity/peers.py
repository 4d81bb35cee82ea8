"""What the peers say of pods: the metrics API, the kubelet's ``/stats/summary`` and ``/metrics/resource``. Pure.

- metrics API: a PodMetricsList of ``metrics.k8s.io/v1beta1``. CPU is an average over ``window``, which ends at
  ``timestamp``; both are of the container of the pod that was sampled first, and the timestamp is cut to whole seconds
  (metrics-server ``pkg/storage/pod.go``, ``pkg/api/pod.go``).
- ``/stats/summary``: ``usageNanoCores`` is the rate between the last two samples that cAdvisor took of the cgroup
  (kubelet ``pkg/kubelet/stats``); times are cut to whole seconds.
- ``/metrics/resource``: the same samples, with milliseconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from collector.errors import AnswerError
from collector.parity.readings import NS_PER_SECOND
from collector.parity.resource import Owner, parse
from collector.upstream import metrics_api, summary
from collector.upstream.samples import AMOUNT_LIMIT, Measured, Snapshot

NS_PER_MS = 1_000_000

_CPU = ("container_cpu_usage_seconds_total", "pod_cpu_usage_seconds_total")
_MEMORY = ("container_memory_working_set_bytes", "pod_memory_working_set_bytes")
_START = "container_start_time_seconds"


class Sample(NamedTuple):
    """One sample that the kubelet took of a container's or a pod's cgroup."""

    time_ns: int
    """In whole milliseconds."""
    cpu_nanoseconds: int
    memory_bytes: int
    started_ns: int | None
    """Of a container, by the kubelet."""


class Span(NamedTuple):
    """From when to when."""

    begin_ns: int
    end_ns: int


class ContainerUsage(NamedTuple):
    """What the metrics API says of a container."""

    cpu_nanocores: int
    memory_bytes: int


class PodUsage(NamedTuple):
    """What the metrics API says of a pod: what kubectl top prints, before it rounds."""

    owner: Owner
    time_ns: int
    """Whole seconds."""
    window_ns: int
    containers: dict[str, ContainerUsage]


class SummaryUsage(NamedTuple):
    """What ``/stats/summary`` says of a container or a pod."""

    owner: Owner
    time_ns: int
    """Whole seconds."""
    cpu_nanocores: int | None
    cpu_nanoseconds: int | None
    memory_bytes: int | None


class Samples:
    """The kubelet's samples by owner, each once, in time order."""

    def __init__(self) -> None:
        self._samples: dict[Owner, list[Sample]] = defaultdict(list)

    def add_page(self, page: str) -> dict[Owner, Sample]:
        """Take an answer of ``/metrics/resource`` in; the samples that are in it. Raises :class:`AnswerError`."""
        found = parse_resource(page)
        for owner, sample in found.items():
            samples = self._samples[owner]
            at = bisect_left(samples, sample.time_ns, key=lambda one: one.time_ns)
            if at == len(samples) or samples[at].time_ns != sample.time_ns:
                samples.insert(at, sample)
        return found

    def forget(self, oldest_ns: int) -> None:
        """Drop samples that are older."""
        kept = {owner: [one for one in found if one.time_ns >= oldest_ns] for owner, found in self._samples.items()}
        self._samples = defaultdict(list, {owner: found for owner, found in kept.items() if found})

    def of(self, owner: Owner) -> list[Sample]:
        """Those of an owner."""
        return self._samples.get(owner, [])

    def pairs(self) -> Iterator[tuple[Owner, Sample, Sample]]:
        """Each two successive samples of one life of a container or pod."""
        for owner, samples in self._samples.items():
            for earlier, later in pairwise(samples):
                if one_life(earlier, later):
                    yield owner, earlier, later

    def all(self) -> Iterator[tuple[Owner, Sample]]:
        """Every sample."""
        for owner, samples in self._samples.items():
            for sample in samples:
                yield owner, sample

    def span_of_rate(self, owner: Owner, nanocores: float, is_end: Callable[[Sample], bool]) -> Span | None:
        """The span between two samples that gives the rate, the first one whose later sample satisfies ``is_end``.

        Whoever asks the kubelet often enough has the samples that the rate was made of, with their milliseconds. The
        first value of a container is from its start: metrics-server's rule for fresh containers.
        """
        samples = self.of(owner)
        for at, later in enumerate(samples):
            if not is_end(later):
                continue
            starts = [] if later.started_ns is None else [Sample(later.started_ns, 0, 0, later.started_ns)]
            for earlier in (*reversed(samples[max(0, at - _PAIRS_APART) : at]), *starts):
                span_ns = later.time_ns - earlier.time_ns
                if span_ns <= 0 or not one_life(earlier, later):
                    continue
                rate = (later.cpu_nanoseconds - earlier.cpu_nanoseconds) * NS_PER_SECOND / span_ns
                # Both times are cut to the millisecond, and the rate to the nanocore.
                if abs(rate - nanocores) <= 1 + rate * NS_PER_MS / span_ns:
                    return Span(earlier.time_ns, later.time_ns)
        return None


_PAIRS_APART = 8
"""How many samples back a rate may have begun: metrics-server at 60 s skips some of the kubelet's."""


def one_life(earlier: Sample, later: Sample) -> bool:
    """Whether two samples are of one container, or of a pod's cgroup while it stood."""
    return earlier.started_ns == later.started_ns and earlier.cpu_nanoseconds <= later.cpu_nanoseconds


def parse_resource(page: str) -> dict[Owner, Sample]:
    """Samples of a page in the form of ``/metrics/resource``, without those of which a value cannot be true. Raises
    :class:`AnswerError` if it is none.
    """
    try:
        series = parse(page)
    except (ValueError, OverflowError) as error:
        raise AnswerError(f"/metrics/resource is not in the text format: {error}") from error
    cpu: dict[Owner, tuple[int, float]] = {}
    memory: dict[Owner, float] = {}
    starts: dict[Owner, int] = {}
    for one in series:
        name, owner = one.key.name, one.key.owner
        # Neither is NaN, nor infinity.
        if not 0 <= one.value < AMOUNT_LIMIT / (NS_PER_SECOND if name in (*_CPU, _START) else 1):
            continue
        if name in _CPU and one.time_ms is not None:
            cpu[owner] = (one.time_ms * NS_PER_MS, one.value)
        elif name in _MEMORY:
            memory[owner] = one.value
        elif name == _START:
            starts[owner] = round(one.value * NS_PER_SECOND)
    return {
        owner: Sample(time_ns, round(seconds * NS_PER_SECOND), round(memory[owner]), starts.get(owner))
        for owner, (time_ns, seconds) in cpu.items()
        if owner in memory and owner.pod
    }


def parse_pod_metrics(body: bytes) -> list[PodUsage]:
    """The items of a PodMetricsList. Raises :class:`AnswerError` if ``body`` is none."""
    snapshot = _told(metrics_api.parse(body), "the metrics API's answer")
    usages: list[PodUsage] = []
    for pod in snapshot.pods:
        containers = {
            name: ContainerUsage(round((one.cpu_cores or 0.0) * 1e9), one.reading.told_working_set_bytes or 0)
            for name, one in pod.containers.items()
        }
        # All of an item's containers bear its time and window.
        for one in list(pod.containers.values())[:1]:
            owner = Owner(pod.namespace, pod.name, "")
            usages.append(PodUsage(owner, one.time_ns, one.window_ns or 0, containers))
    return usages


def parse_summary(body: bytes) -> list[SummaryUsage]:
    """Containers and pods of an answer of ``/stats/summary``. Raises :class:`AnswerError` if ``body`` is none."""
    usages: list[SummaryUsage] = []
    for pod in _told(summary.parse(body), "the answer of /stats/summary").pods:
        owner = Owner(pod.namespace, pod.name, "")
        of = [(owner, pod.whole), *((owner._replace(container=name), one) for name, one in pod.containers.items())]
        usages += [_summary_usage(part, measured) for part, measured in of if measured is not None]
    return usages


def _summary_usage(owner: Owner, measured: Measured) -> SummaryUsage:
    usec, cores = measured.reading.cpu_usage_usec, measured.cpu_cores
    if usec is None or cores is None:
        return SummaryUsage(owner, measured.time_ns, None, None, measured.reading.memory_working_set_bytes)
    memory = measured.reading.memory_working_set_bytes
    return SummaryUsage(owner, measured.time_ns, round(cores * 1e9), usec * 1000, memory)


def _told(snapshot: Snapshot, what: str) -> Snapshot:
    """Raises :class:`AnswerError` where nothing in an answer could be read: it is none of pods."""
    if snapshot.refused and not snapshot.pods:
        raise AnswerError(f"{what} has no item that is one")
    return snapshot
