"""What the bundled recordings say, for documents whose numbers are computed: podtally's tallies, the kubelet's and the
metrics API's answers, and Prometheus' ``rate()`` over them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from collector.cgroup.walk import Walker
from collector.history import History
from collector.loop import Collector
from collector.metrics.text import milliseconds
from collector.model import Answer, Tally
from collector.parity import peers
from collector.parity.peers import NS_PER_MS, parse_pod_metrics
from collector.parity.readings import Readings
from collector.parity.resource import Owner
from collector.sources.recording import RecordedAnswers, RecordedTree, load

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "cgroupfs"

RECORDINGS = ("systemd-containerd", "cgroupfs-containerd", "parity-1hz")
"""Those with the answers of the kubelet beside the cgroup files."""

RESOURCE_PAGE = "kubelet/metrics_resource.txt"
CADVISOR_PAGE = "kubelet/metrics_cadvisor.txt"


class Series(NamedTuple):
    """A metric's name and labels."""

    name: str
    labels: tuple[tuple[str, str], ...]


Samples = Mapping[Series, list[tuple[int, float]]]
"""As Prometheus keeps them: each series' values with their times in milliseconds, in order."""


class Printed(NamedTuple):
    """A row of ``kubectl top pods --containers``."""

    cpu: str
    memory: str


class Usage(NamedTuple):
    """A container in an answer of the metrics API. Timestamp and window are those of one container of the pod."""

    end_ms: int
    """Cut to whole seconds by the API."""
    window_ms: int
    cpu_cores: float
    memory_bytes: int


class Span(NamedTuple):
    """From one wall time to another."""

    start_ms: int
    end_ms: int


class Recorded:
    """A bundled recording, replayed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file = FIXTURES / f"{name}.tar.zst"
        self._recording = load(self.file)

    @cached_property
    def tallies(self) -> list[Tally]:
        """The tally of each frame, as ``replay`` makes them. All frames of a bundled recording have one."""
        tree = RecordedTree(self._recording)
        collector = Collector(
            walker=Walker(tree, slow_every=1),
            answers=RecordedAnswers(tree),
            history=History(window_ns=15_000_000_000, interval_ns=self._recording.interval_ns),
            node_name=self._recording.meta.node,
        )
        return list(collector.tallies())

    def add_proc(self, name: str, make: Callable[[int], bytes]) -> None:
        """Give each frame a file of ``/proc`` that was not recorded, before the tallies are made."""
        for number, frame in enumerate(self._recording.frames):
            frame.proc[name] = make(number)

    def time_ms(self, frame: int) -> int:
        """When the frame was begun."""
        return milliseconds(self._recording.frames[frame].instant.time_ns)

    def cgroup_file(self, frame: int, path: str) -> str:
        """A file below ``/sys/fs/cgroup`` as it was read in the frame."""
        return self._recording.frames[frame].files[path].decode()

    def proc_file(self, frame: int, name: str) -> str:
        """A file of ``/proc`` as it was read in the frame."""
        return self._recording.frames[frame].proc[name].decode()

    @property
    def answers(self) -> list[list[Answer]]:
        """The answers of each frame."""
        return [frame.answers for frame in self._recording.frames]

    def answer(self, frame: int, name: str) -> str | None:
        """An answer of the kubelet or the API, where the frame has it."""
        for one in self._recording.frames[frame].answers:
            if one.name == name and one.body is not None:
                return one.body.decode()
        return None

    def frames_with(self, name: str) -> list[int]:
        """The frames that have such an answer."""
        return [frame for frame in range(len(self._recording.frames)) if self.answer(frame, name) is not None]

    def kubectl_top(self, frame: int) -> dict[Owner, Printed]:
        """What ``kubectl top pods -A --containers`` printed."""
        lines = (self.answer(frame, "metrics-api/kubectl_top_pods_containers.txt") or "").splitlines()
        rows = [line.split() for line in lines[1:]]
        return {Owner(*row[:3]): Printed(*row[3:]) for row in rows}

    def metrics_api(self, frame: int) -> dict[Owner, Usage]:
        """What the metrics API answered."""
        body = self.answer(frame, "metrics-api/pods.json")
        return {
            pod.owner._replace(container=name): Usage(
                pod.time_ns // NS_PER_MS, pod.window_ns // NS_PER_MS, one.cpu_nanocores / 1e9, one.memory_bytes
            )
            for pod in (parse_pod_metrics(body.encode()) if body is not None else ())
            for name, one in pod.containers.items()
        }

    def summary_pod(self, frame: int, namespace: str, name: str) -> dict[str, Any]:
        """A pod in the kubelet's ``/stats/summary``."""
        pods = json.loads(self.answer(frame, "kubelet/stats_summary.json") or '{"pods": []}')["pods"]
        (found,) = [one for one in pods if one["podRef"]["namespace"] == namespace and one["podRef"]["name"] == name]
        assert isinstance(found, dict)
        return found

    @cached_property
    def counters(self) -> Samples:
        """``pod_container_cpu_usage_seconds_total`` at each frame, as ``replay --openmetrics`` writes it."""
        found: dict[Series, list[tuple[int, float]]] = defaultdict(list)
        for tally in self.tallies:
            for pod in tally.pods:
                for one in pod.containers:
                    labels = {"namespace": one.namespace, "pod": one.pod, "container": one.container.name}
                    series = Series("pod_container_cpu_usage_seconds_total", tuple(sorted(labels.items())))
                    if one.reading.cpu_usage_usec is not None:
                        stamp_ms = milliseconds(tally.instant.time_ns)
                        found[series].append((stamp_ms, one.reading.cpu_usage_usec / 1e6))
        return found

    @cached_property
    def cadvisor(self) -> Samples:
        """The CPU and memory rows of the kubelet's ``/metrics/cadvisor``, under their own timestamps."""
        wanted = re.compile(r"container_(cpu_usage_seconds_total|memory_(working_set|usage)_bytes|memory_rss)\{")
        return self._scraped(CADVISOR_PAGE, wanted)

    @cached_property
    def resource(self) -> Samples:
        """The CPU and memory rows of the kubelet's ``/metrics/resource``, under their own timestamps."""
        return self._scraped(RESOURCE_PAGE, re.compile(r"\w+_(cpu_usage_seconds_total|memory_working_set_bytes)[{ ]"))

    def _scraped(self, name: str, wanted: re.Pattern[str]) -> Samples:
        found: dict[Series, dict[int, float]] = defaultdict(dict)
        for frame in self.frames_with(name):
            page = "\n".join(filter(wanted.match, (self.answer(frame, name) or "").splitlines()))
            for family in text_string_to_metric_families(page + "\n"):
                for sample in family.samples:
                    assert sample.timestamp is not None
                    series = Series(sample.name, tuple(sorted(sample.labels.items())))
                    found[series][round(float(sample.timestamp) * 1000)] = sample.value
        return {series: sorted(values.items()) for series, values in found.items()}

    @cached_property
    def readings(self) -> Readings:
        """Our readings, as ``podtally verify`` keeps them."""
        readings = Readings()
        for tally in self.tallies:
            readings.add_tally(tally)
        return readings

    @cached_property
    def samples(self) -> peers.Samples:
        """The kubelet's samples, as ``podtally verify`` keeps them."""
        samples = peers.Samples()
        for frame in self.frames_with(RESOURCE_PAGE):
            samples.add_page(self.answer(frame, RESOURCE_PAGE) or "")
        return samples

    def cpu_counter(self, owner: Owner) -> list[tuple[int, float]]:
        """Our readings of a container's CPU seconds, each at the time when its own cgroup was read."""
        return [
            (milliseconds(tally.instant.wall_ns(one.reading.monotonic_ns)), one.reading.cpu_usage_usec / 1e6)
            for tally in self.tallies
            for pod in tally.pods
            for one in pod.containers
            if (one.namespace, one.pod, one.container.name) == owner and one.reading.cpu_usage_usec is not None
        ]

    def exact_span(self, owner: Owner, usage: Usage) -> Span | None:
        """The kubelet's two samples of which the metrics API made ``usage``, by their milliseconds.

        ``None`` if no recorded ``/metrics/resource`` has both.
        """
        latest_ns = (usage.end_ms + 60_000) * NS_PER_MS
        found = self.samples.span_of_rate(
            owner, usage.cpu_cores * 1e9, lambda one: usage.end_ms * NS_PER_MS <= one.time_ns <= latest_ns
        )
        return None if found is None else Span(found.begin_ns // NS_PER_MS, found.end_ns // NS_PER_MS)

    def cores_over(self, owner: Owner, span: Span) -> float:
        """Our CPU of a container over the span, between readings in proportion."""
        found = self.readings.cpu(owner, span.start_ms * NS_PER_MS, span.end_ms * NS_PER_MS)
        assert not isinstance(found, str), f"no readings of {owner} over {span}: {found}"
        return found.cores


@cache
def recorded(name: str) -> Recorded:
    """The recording, read and replayed once."""
    return Recorded(name)


# --- as Prometheus computes -----------------------------------------------------------------------------------------

_LOOKBACK_MS = 300_000


def select(samples: Samples, name: str, **matchers: str) -> Iterator[list[tuple[int, float]]]:
    """The values of each series of a name whose labels are as given; a value that begins with ``!``: are not."""
    for series, values in samples.items():
        labels = dict(series.labels)
        if series.name == name and all(
            labels.get(label, "") != text[1:] if text.startswith("!") else labels.get(label, "") == text
            for label, text in matchers.items()
        ):
            yield values


def instant(values: list[tuple[int, float]], time_ms: int) -> float | None:
    """The newest value of the five minutes before."""
    found = [value for at_ms, value in values if time_ms - _LOOKBACK_MS <= at_ms <= time_ms]
    return found[-1] if found else None


def rate(values: list[tuple[int, float]], time_ms: int, range_seconds: float) -> float | None:
    """Prometheus' ``rate()``: falls are resets, and the increase is extrapolated to the edges of the range.

    https://github.com/prometheus/prometheus/blob/main/promql/functions.go, ``extrapolatedRate``.
    """
    start_ms = time_ms - range_seconds * 1000
    found = [(at_ms, value) for at_ms, value in values if start_ms <= at_ms <= time_ms]
    if len(found) < 2:
        return None
    (first_ms, first), (last_ms, _) = found[0], found[-1]
    increase = sum(later - earlier if later >= earlier else later for (_, earlier), (_, later) in pairwise(found))
    sampled = last_ms - first_ms
    gap = sampled / (len(found) - 1)
    before = first_ms - start_ms if first_ms - start_ms < gap * 1.1 else gap / 2
    if increase > 0:
        before = min(before, sampled * first / increase)
    after = time_ms - last_ms if time_ms - last_ms < gap * 1.1 else gap / 2
    return increase * (sampled + before + after) / sampled / range_seconds


def irate(values: list[tuple[int, float]], time_ms: int, range_seconds: float) -> float | None:
    """Prometheus' ``irate()``: the rate between the two newest values of the range."""
    found = [(at_ms, value) for at_ms, value in values if time_ms - range_seconds * 1000 <= at_ms <= time_ms]
    if len(found) < 2:
        return None
    (early_ms, earlier), (late_ms, later) = found[-2:]
    return (later - earlier if later >= earlier else later) / (late_ms - early_ms) * 1000


def total(values: Iterable[float | None]) -> float:
    """Prometheus' ``sum()``: what is absent is left out. Raises :class:`ValueError` if nothing is left."""
    found = [value for value in values if value is not None]
    if not found:
        raise ValueError("a sum of nothing is no value")
    return sum(found)
