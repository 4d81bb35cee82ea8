"""podtally's account of itself: counters that the loop and the server add to, and their families.

These few go through prometheus_client; name, type and help come from the catalogue.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from collector import __version__
from collector.metrics.catalogue import BY_NAME
from collector.model import REASONS, SourceName, Tally
from collector.tally import DUPLICATE_KINDS

log = logging.getLogger(__name__)

SOURCES = ("kubelet", "apiserver", "memory", "none")
_READ_ERRORS = ("denied", "exhausted", "failed", "malformed")


class KubeletAgreement(NamedTuple):
    """How far podtally and the kubelet were apart at the last comparison."""

    compared: Mapping[str, int]
    """Containers, by quantity."""
    outside: Mapping[str, int]
    """Those that differ by more than is explained."""
    ratios: Mapping[tuple[str, ...], float]
    """Relative differences, by quantity and statistic; none where nothing could be compared."""
    results: Mapping[str, int]
    """Comparisons in all, by what came of them."""
    age_seconds: float | None


class Account:
    """What podtally counts of itself. The tick's thread and the server's add to different fields."""

    def __init__(self, source: SourceName = "cgroup") -> None:
        self.source: SourceName = source
        self.lock = threading.Lock()
        self.ticks: Counter[str] = Counter(ok=0, failed=0, missed=0)
        self.tick_seconds = 0.0
        self.tick_cpu_seconds = 0.0
        self.files_read = 0
        self.cgroups = 0
        self.counter_falls = 0
        self.read_errors: Counter[str] = Counter(dict.fromkeys(_READ_ERRORS, 0))
        self.descriptors_held: Callable[[], int] | None = None
        self.descriptors_limit: Callable[[], int] | None = None
        self.opened_reads: Callable[[], int] | None = None
        self.answers: dict[tuple[str, str], int] = {}
        self.refused_items = 0
        self.refused_samples = 0
        """Those of them that were in answers of an upstream."""
        self.upstream_requests: dict[str, int] = {}
        self.scrapes: Counter[str] = Counter()
        self.scrape_seconds: dict[str, float] = {}
        self.refusals: dict[str, int] | None = None
        self.busy_answers: Callable[[], int] | None = None
        """Requests that were one too many."""
        self.ended_connections: Mapping[str, int] | None = None
        """Connections that were closed on their clients, by why."""
        self.reviews: dict[tuple[str, str], int] | None = None
        self.web_config_successful: Callable[[], bool] | None = None
        self.agreement: Callable[[], KubeletAgreement] | None = None

    def count_upstream(self, code: str) -> None:
        """Count an answer of the upstream, by its status, ``error`` or ``malformed``."""
        with self.lock:
            self.upstream_requests[code] = self.upstream_requests.get(code, 0) + 1

    def scraped(self, path: str, seconds: float) -> None:
        """Count an exposition served."""
        self.scrapes[path] += 1
        self.scrape_seconds[path] = self.scrape_seconds.get(path, 0.0) + seconds


class AccountCollector(Collector):
    """The account's families as prometheus_client wants them."""

    def __init__(
        self, account: Account, tally: Callable[[], Tally | None], age_seconds: Callable[[], float | None]
    ) -> None:
        self._account = account
        self._tally = tally
        self._age_seconds = age_seconds
        self._process = psutil.Process()

    def collect(self) -> Iterable[Metric]:
        """All families that have a value."""
        account = self._account
        yield _gauge("podtally_build_info", {(__version__,): 1})
        yield _gauge("podtally_source_info", {(account.source,): 1})
        yield _counter("podtally_ticks_total", {(result,): count for result, count in account.ticks.items()})
        yield _summary(
            "podtally_tick_duration_seconds",
            {(): (account.ticks["ok"] + account.ticks["failed"], account.tick_seconds)},
        )
        yield _counter("podtally_tick_cpu_seconds_total", {(): account.tick_cpu_seconds})
        if account.source == "cgroup":
            yield _gauge("podtally_cgroups", {(): account.cgroups})
            yield _counter("podtally_files_read_total", {(): account.files_read})
            yield _counter("podtally_read_errors_total", {(reason,): n for reason, n in account.read_errors.items()})
            yield _counter("podtally_held_falls_total", {(): account.counter_falls})
        if account.descriptors_held is not None and account.descriptors_limit is not None:
            yield _gauge("podtally_descriptors_held", {(): account.descriptors_held()})
            yield _gauge("podtally_descriptors_limit", {(): account.descriptors_limit()})
        if account.opened_reads is not None:
            yield _counter("podtally_opened_reads_total", {(): account.opened_reads()})
        yield from self._of_tally()
        with account.lock:
            answers = dict(account.answers)
            requests = dict(account.upstream_requests)
        if requests:
            yield _counter("podtally_upstream_requests_total", {(code,): n for code, n in requests.items()})
        if answers:
            yield _counter("podtally_answers_total", {(code, source): n for (source, code), n in answers.items()})
        yield _counter("podtally_refused_items_total", {(): account.refused_items})
        yield _counter("podtally_scrapes_total", {(path,): n for path, n in account.scrapes.items()})
        yield _summary(
            "podtally_scrape_duration_seconds",
            {(path,): (n, account.scrape_seconds[path]) for path, n in account.scrapes.items()},
        )
        yield from self._of_clients()
        yield from self._of_access()
        yield from self._of_agreement()
        yield from self._of_process()

    def _of_tally(self) -> Iterable[Metric]:
        tally = self._tally()
        age = self._age_seconds()
        if age is not None:
            yield _gauge("podtally_tally_age_seconds", {(): age})
        names = tally.names if tally is not None else None
        source = names.source if names is not None else "none"
        yield _gauge("podtally_names_source", {(one,): int(one == source) for one in SOURCES})
        if tally is None:
            return
        if names is not None and names.age_since_ns is not None:
            since = (tally.instant.time_ns - names.age_since_ns) / 1e9
            yield _gauge("podtally_names_age_seconds", {(): max(0.0, since)})
        yield _gauge("podtally_pods", {(): len(tally.pods)})
        yield _gauge("podtally_pods_incomplete", {(one,): tally.incomplete.get(one, 0) for one in REASONS})
        if tally.fill is not None:
            filled = sum(pod.source != tally.source for pod in tally.pods)
            yield _gauge("podtally_pods_filled", {(): filled})
        yield _gauge("podtally_unnamed_cgroups", {(): len(tally.unnamed)})
        yield _gauge("podtally_duplicates", {(one,): tally.duplicates.get(one, 0) for one in DUPLICATE_KINDS})
        yield from _of_upstream(tally)

    def _of_clients(self) -> Iterable[Metric]:
        """Only where there is a server."""
        account = self._account
        if account.busy_answers is not None:
            yield _counter("podtally_busy_answers_total", {(): account.busy_answers()})
        if account.ended_connections is not None:
            ended: _Values = {(one,): n for one, n in account.ended_connections.items()}
            yield _counter("podtally_ended_connections_total", ended)

    def _of_access(self) -> Iterable[Metric]:
        """Only where access is guarded."""
        account = self._account
        if account.web_config_successful is not None:
            yield _gauge("podtally_web_config_reload_successful", {(): int(account.web_config_successful())})
        if account.refusals is not None:
            yield _counter("podtally_refused_requests_total", {(one,): n for one, n in account.refusals.items()})
        if account.reviews is not None:
            yield _counter("podtally_reviews_total", dict(account.reviews.items()))

    def _of_agreement(self) -> Iterable[Metric]:
        """Only where the kubelet is compared with."""
        if self._account.agreement is None:
            return
        now = self._account.agreement()
        yield _counter("podtally_kubelet_comparisons_total", {(one,): n for one, n in now.results.items()})
        if now.age_seconds is not None:
            yield _gauge("podtally_kubelet_comparison_age_seconds", {(): now.age_seconds})
        if now.ratios:
            yield _gauge("podtally_kubelet_difference_ratio", dict(now.ratios))
        if now.compared:
            yield _gauge("podtally_kubelet_compared_containers", {(one,): n for one, n in now.compared.items()})
            yield _gauge("podtally_kubelet_outside_containers", {(one,): n for one, n in now.outside.items()})

    def _of_process(self) -> Iterable[Metric]:
        """Where no descriptor is left /proc cannot be read, and what it tells is left out: the page is not about it."""
        try:
            with self._process.oneshot():
                times, memory = self._process.cpu_times(), self._process.memory_info()
                started = self._process.create_time()
        except (OSError, psutil.Error) as error:
            log.debug("process_* are left out: %s", error)
            return
        yield _counter("process_cpu_seconds_total", {(): times.user + times.system})
        yield _gauge("process_resident_memory_bytes", {(): memory.rss})
        yield _gauge("process_start_time_seconds", {(): started})


def _of_upstream(tally: Tally) -> Iterable[Metric]:
    """Only where the tally is of an upstream's answers, or a pod of it needs them."""
    upstream = tally.upstream or tally.fill
    if upstream is None or not upstream.needed:
        return
    now_ns = tally.instant.time_ns
    yield _gauge("podtally_upstream_up", {(): int(upstream.up)})
    age = upstream.age_seconds(now_ns)
    if age is not None:
        yield _gauge("podtally_upstream_age_seconds", {(): age})
    samples = [pod.sample for pod in tally.pods if pod.sample is not None]
    ages = [(now_ns - sample.time_ns) / 1e9 for sample in samples]
    if ages:
        yield _gauge("podtally_upstream_sample_age_seconds", {("newest",): min(ages), ("oldest",): max(ages)})
    windows = [sample.window_ns / 1e9 for sample in samples if sample.window_ns is not None]
    if windows:
        yield _gauge("podtally_upstream_window_seconds", {("shortest",): min(windows), ("longest",): max(windows)})


_Values = dict[tuple[str, ...], float]


def _gauge(name: str, values: _Values) -> Metric:
    row = BY_NAME[name]
    family = GaugeMetricFamily(name, row.help, labels=row.labels, unit=row.unit)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(name: str, values: _Values) -> Metric:
    row = BY_NAME[name]
    family = CounterMetricFamily(name.removesuffix("_total"), row.help, labels=row.labels, unit=row.unit)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _summary(name: str, values: dict[tuple[str, ...], tuple[int, float]]) -> Metric:
    row = BY_NAME[name]
    family = SummaryMetricFamily(name, row.help, labels=row.labels, unit=row.unit)
    for labels, (count, total) in values.items():
        family.add_metric(labels, count_value=count, sum_value=total)
    return family
