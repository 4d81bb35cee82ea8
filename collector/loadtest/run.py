"""``podtally loadtest run``: apply, wait, fetch, report. I/O by the two who are given: kubectl and Prometheus."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from collector import __version__, terminal
from collector.errors import AnswerError, ClusterError, UsageError
from collector.loadtest import folder as files
from collector.loadtest import job as jobs
from collector.loadtest import queries, report, words
from collector.loadtest.folder import Folder
from collector.loadtest.job import Placed, Status
from collector.loadtest.kubectl import Kubectl
from collector.loadtest.model import Report, Run, Span, Spans
from collector.loadtest.prometheus import NOT_PROMETHEUS, Prometheus
from collector.loadtest.summary import from_log, last_words, progress_of, ran

log = logging.getLogger("collector.loadtest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be run."""

    profile: str
    folder: str
    """Of the kustomization."""
    out: str
    testid: str
    namespaces: tuple[str, ...]
    before_seconds: float
    after_seconds: float
    start_seconds: float
    """How long k6's pod may take to start."""
    told: Mapping[str, str]
    """Variables of k6's container, besides TESTID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often who is asked."""

    poll_seconds: float = 5.0
    peer_seconds: float = 15.0
    line_seconds: float = 30.0
    settle_seconds: float = 15.0
    """After the load, until no trailing window of CPU reaches back into it."""
    scrape_seconds: float = 10.0
    """Until what is now has been scraped."""
    patience_seconds: float = 120.0
    """How long the API server may be without an answer while a test runs."""


def run(plan: Plan, kubectl: Kubectl, prometheus: Prometheus, pace: Pace | None = None) -> Report:
    """Run a load test and report on it. Raises :class:`UsageError` where it cannot be run."""
    return _Running(plan, kubectl, prometheus, pace or Pace()).run()


class _Running:
    def __init__(self, plan: Plan, kubectl: Kubectl, prometheus: Prometheus, pace: Pace) -> None:
        self._plan = plan
        self._kubectl = kubectl
        self._prometheus = prometheus
        self._pace = pace
        self._peer_lines: list[str] = []
        self._missing: dict[str, str] = {}
        self._began: float | None = None

    def run(self) -> Report:
        plan = self._plan
        placed = jobs.placed(self._kubectl.kustomize(plan.folder), plan.folder, {"TESTID": plan.testid, **plan.told})
        self._check_prometheus()
        old = self._old_job(placed)
        folder = Folder.new(plan.out)
        if old:
            log.info("the Job %s/%s of an earlier run is deleted", placed.namespace, placed.name)
            self._kubectl.delete_job(placed.namespace, placed.name)
        log.info("run %s: Job %s/%s; what is kept goes to %s", plan.testid, placed.namespace, placed.name, plan.out)
        self._kubectl.apply(placed.objects)
        with self._ended_if_interrupted(placed):
            status = self._wait(placed)
        text = self._log(placed, status)
        spans = self._spans(status, text)
        whole = ran(status.exit_code, status.ending)
        if whole:
            self._rest()
        else:
            for line in last_words(text.decode(errors="replace") if text is not None else ""):
                log.error("k6: %s", line)
        self._keep(folder, placed, status, spans, text)
        return folder.report()

    # --- before ---

    def _check_prometheus(self) -> None:
        """Nothing is loaded whose CPU nobody would see."""
        names = self._plan.namespaces
        try:
            counts = queries.counts_of(self._prometheus.query(queries.there(names)))
        except AnswerError as error:
            raise ClusterError(f"{self._prometheus.where}: {error}; {NOT_PROMETHEUS}") from error
        missing = [name for name in names if not counts.get(name)]
        if missing:
            raise UsageError(
                f"{self._prometheus.where} has no pod_info of pods in the namespace {', '.join(missing)}: --namespace"
                " names where the application is; kubectl apply -k daemonset/ brings podtally, and kubectl apply -k"
                " monitoring/ a Prometheus that scrapes it"
            )

    def _old_job(self, placed: Placed) -> bool:
        """Whether there is a Job of the name that has ended: apply would leave it as it is."""
        there = self._kubectl.job(placed.namespace, placed.name)
        if there is not None and jobs.is_active(there):
            raise UsageError(
                f"the Job {placed.namespace}/{placed.name} is at work: wait for its end, or"
                f" kubectl -n {placed.namespace} delete job {placed.name}"
            )
        return there is not None

    # --- while it runs ---

    @contextmanager
    def _ended_if_interrupted(self, placed: Placed) -> Iterator[None]:
        """Who stops waiting wants the load to stop too."""
        try:
            yield
        except KeyboardInterrupt:
            log.warning("interrupted: the Job %s/%s is deleted, and its load ends", placed.namespace, placed.name)
            self._kubectl.delete_job(placed.namespace, placed.name)
            raise

    def _wait(self, placed: Placed) -> Status:
        began = heard = time.monotonic()
        told, asked = "", 0.0
        lines = _Lines(self._pace.line_seconds)
        with terminal.progress(f"k6 {self._plan.profile}") as bar:
            while True:
                try:
                    status = self._status(placed)
                    heard = time.monotonic()
                except ClusterError as error:
                    if time.monotonic() - heard > self._pace.patience_seconds:
                        raise ClusterError(
                            f"{error}\nThe Job {placed.namespace}/{placed.name} goes on without anybody waiting for it;"
                            f" kubectl -n {placed.namespace} delete job {placed.name} ends it"
                        ) from error
                    # What a command prints on several lines is one here, as every line of a log.
                    log.warning("%s", " ".join(str(error).split()))
                    time.sleep(self._pace.poll_seconds)
                    continue
                now = time.monotonic()
                if status.phase == "ended":
                    return status
                if status.phase == "stuck" or (status.phase == "waiting" and now - began > self._plan.start_seconds):
                    raise self._never_began(placed, status)
                if status.phase == "waiting" and status.text != told:
                    told = status.text
                    log.info("waiting: %s", told)
                if status.phase == "running":
                    self._tell(placed, status, bar, lines)
                    if now - asked >= self._pace.peer_seconds:
                        asked = now
                        self._ask_peer()
                time.sleep(self._pace.poll_seconds)

    def _status(self, placed: Placed) -> Status:
        job = self._kubectl.job(placed.namespace, placed.name)
        return jobs.status(job, self._kubectl.pods_of(placed.namespace, placed.name), placed.container)

    def _never_began(self, placed: Placed, status: Status) -> UsageError:
        pod = f"pod {status.pod}" if status.pod else f"job {placed.name}"
        return UsageError(
            f"k6 does not start: {status.text}\n  -> kubectl -n {placed.namespace} describe {pod} tells more;"
            f" kubectl -n {placed.namespace} delete job {placed.name} takes it away"
        )

    def _tell(self, placed: Placed, status: Status, bar: Any, lines: _Lines) -> None:
        if self._began is None:
            self._began = time.monotonic()
        try:
            text = self._kubectl.log(placed.namespace, status.pod or "", placed.container, tail=20)
        except ClusterError as error:
            log.debug("%s", error)
            text = b""
        found = progress_of(text.decode(errors="replace"))
        if found is None:
            # k6 tells nothing with --quiet.
            lines.tell(f"k6 runs, {words.clock(time.monotonic() - self._began)} min")
            return
        bar(found.done_seconds, found.total_seconds)
        lines.tell(
            f"{words.clock(found.done_seconds)} of {words.clock(found.total_seconds)} min,"
            f" {words.plural(found.vus, 'virtual user')}"
        )

    def _ask_peer(self) -> None:
        for namespace in self._plan.namespaces:
            head: dict[str, Any] = {"time": words.iso(time.time()), "namespace": namespace}
            try:
                body = self._kubectl.raw(f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods")
                line = {**head, "body": json.loads(body)}
            except (ClusterError, ValueError, RecursionError) as error:
                line = {**head, "error": str(error).partition("\n")[0]}
            self._peer_lines.append(json.dumps(line))

    # --- after ---

    def _log(self, placed: Placed, status: Status) -> bytes | None:
        if status.pod is None:
            self._missing[files.LOG] = status.ending or "there is no pod"
            return None
        try:
            return self._kubectl.log(placed.namespace, status.pod, placed.container)
        except ClusterError as error:
            self._missing[files.LOG] = str(error).partition("\n")[0]
            return None

    def _spans(self, status: Status, text: bytes | None) -> Spans:
        """By the cluster's clocks: the summary's times, else the container's."""
        began = ended = None
        if text is not None:
            try:
                summary = from_log(text.decode(errors="replace"))
                began, ended = summary.started, summary.ended
            except AnswerError as error:
                log.debug("%s", error)
        started = status.started or began or time.time()
        finished = status.finished or ended or max(started, time.time())
        during = Span(began or started, max(began or started, ended or finished))
        rest = during.end + self._pace.settle_seconds
        return Spans(
            Span(started - self._plan.before_seconds, started), during, Span(rest, rest + self._plan.after_seconds)
        )

    def _rest(self) -> None:
        """Let the time after the load pass."""
        seconds = self._pace.settle_seconds + self._plan.after_seconds + self._pace.scrape_seconds
        log.info("k6 has ended; %s more are looked at without load", words.seconds(seconds))
        begin = time.monotonic()
        try:
            with terminal.progress("without load") as bar:
                while (passed := time.monotonic() - begin) < seconds:
                    bar(passed, seconds)
                    time.sleep(min(1.0, seconds - passed))
        except KeyboardInterrupt:
            log.warning("the time after the load is cut short")

    def _keep(self, folder: Folder, placed: Placed, status: Status, spans: Spans, text: bytes | None) -> None:
        plan = self._plan
        if text is not None:
            folder.write(files.LOG, text)
        if self._peer_lines:
            folder.write(files.PEER, "\n".join((*self._peer_lines, "")))
        else:
            self._missing[files.PEER] = "k6 was not seen to run, so that the metrics API was not asked"
        asked = queries.queries(plan.namespaces, placed.namespace, status.pod, plan.testid)
        with terminal.progress("asking Prometheus") as bar:
            for number, query in enumerate(asked):
                bar(number, len(asked))
                name = f"{files.ANSWERS}/{query.name}.json"
                try:
                    folder.write(name, self._prometheus.query(query.over(spans.whole), spans.whole.end))
                except ClusterError as error:
                    self._missing[name] = str(error).partition("\n")[0]
        made = Run(
            profile=plan.profile,
            testid=plan.testid,
            spans=spans,
            namespaces=plan.namespaces,
            job=f"{placed.namespace}/{placed.name}",
            job_namespace=placed.namespace,
            pod=status.pod,
            node=status.node,
            exit_code=status.exit_code,
            ending=status.ending,
            client_limit_cores=status.limit_cores,
            node_cores=self._node_cores(status.node),
            prometheus=self._prometheus.where,
            podtally=__version__,
            missing=self._missing,
        )
        folder.write(files.RUN, report.run_to_json(made))

    def _node_cores(self, node: str | None) -> float | None:
        if node is None:
            return None
        try:
            return jobs.cores(self._kubectl.node(node)["status"]["capacity"]["cpu"])
        except (ClusterError, KeyError, TypeError) as error:
            log.debug("the CPUs of the node %s are not known: %s", node, error)
            return None


class _Lines:
    """Progress for those who have no terminal: a line now and then."""

    def __init__(self, every_seconds: float) -> None:
        self._every = every_seconds
        self._told: float | None = None

    def tell(self, text: str) -> None:
        """Log it, if the last was long enough ago and no bar is shown."""
        now = time.monotonic()
        if not terminal.is_seen() and (self._told is None or now - self._told >= self._every):
            self._told = now
            log.info("%s", text)
