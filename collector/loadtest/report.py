"""A run's report of its kept files: the one join of what k6, Prometheus and the metrics API said. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from collector.errors import AnswerError, UsageError
from collector.loadtest import verdict, words
from collector.loadtest.agreement import Told, agreement, told_by
from collector.loadtest.client import client
from collector.loadtest.fields import AGAIN, LATEST_SECONDS, Fields, parsed
from collector.loadtest.model import (
    PARTS,
    Coverage,
    Kept,
    PartName,
    Report,
    Run,
    Series,
    Service,
    Span,
    Spans,
    Summary,
    Track,
)
from collector.loadtest.queries import queries, series_of
from collector.loadtest.samples import coverage, growth, step_of, total, within
from collector.loadtest.services import Pods, in_order_of_saturation, service, totals
from collector.loadtest.summary import exit_meaning, from_log, ran, time_of

VERSION: Final = 1
TOLERANCE: Final = 0.1
WHOLE_SHARE: Final = 0.9
"""A part with samples in fewer of its steps is said to be partial."""

# --- run.json --------------------------------------------------------------------------------------------------------


def run_to_json(run: Run) -> str:
    """``run.json``."""
    document = {
        "version": VERSION,
        "profile": run.profile,
        "testid": run.testid,
        "spans": {name: _span_document(span) for name, span in run.spans._asdict().items()},
        "namespaces": list(run.namespaces),
        "job": run.job,
        "job_namespace": run.job_namespace,
        "pod": run.pod,
        "node": run.node,
        "exit_code": run.exit_code,
        "ending": run.ending,
        "client_limit_cores": run.client_limit_cores,
        "node_cores": run.node_cores,
        "prometheus": run.prometheus,
        "podtally": run.podtally,
        "missing": dict(run.missing),
    }
    return json.dumps(document, indent=2) + "\n"


def _span_document(span: Span) -> dict[str, object]:
    return {"begin": words.iso(span.begin), "end": words.iso(span.end)}


_LONGEST_SECONDS: Final = 31 * 86400.0
"""No load test takes longer; what says so is damaged, and would be looked at in steps of 15 s."""


def run_of_json(body: bytes, path: str = "run.json") -> Run:
    """The run of a ``run.json``; ``path`` is where it stands. Raises :class:`UsageError` if it is none."""
    document = parsed(body, path)
    version = document.whole("version")
    if version != VERSION:
        raise UsageError(f"{path} is of version {version}, and {VERSION} is known: use the podtally of the run")
    return Run(
        profile=document.text("profile"),
        testid=document.text("testid"),
        spans=_spans(document),
        namespaces=document.texts("namespaces"),
        job=document.text("job"),
        job_namespace=document.text("job_namespace"),
        pod=document.text_or_none("pod"),
        node=document.text_or_none("node"),
        exit_code=document.whole_or_none("exit_code"),
        ending=document.text_or_none("ending"),
        client_limit_cores=document.amount_or_none("client_limit_cores"),
        node_cores=document.amount_or_none("node_cores"),
        prometheus=document.text("prometheus"),
        podtally=document.text("podtally"),
        missing=document.text_by_name("missing"),
    )


def _spans(document: Fields) -> Spans:
    parts = document.within("spans")
    spans = Spans(*(_span(parts, name) for name in PARTS))
    if spans.whole.begin > spans.during.begin or spans.during.end > spans.whole.end:
        document.wrong("spans", "three spans in the order of time")
    if spans.whole.seconds > _LONGEST_SECONDS:
        document.wrong("spans", "of a run that is shorter than a month")
    return spans


def _span(parts: Fields, name: str) -> Span:
    part = parts.within(name)
    begin, end = (time_of(part.text(key)) for key in ("begin", "end"))
    if begin is None or end is None or not 0 <= begin <= end <= LATEST_SECONDS:
        parts.wrong(name, "a span of time")
    return Span(begin, end)


# --- the report ------------------------------------------------------------------------------------------------------


def make(kept: Kept, path: str = "run.json") -> Report:
    """The report; ``path`` is where ``run.json`` stands.

    Raises :class:`UsageError` if ``run.json`` is none; what else is broken is told in the report.
    """
    run = run_of_json(kept.run, path)
    notes = [f"{name} is missing: {why}." for name, why in run.missing.items()]
    told_by_peer = None if kept.peer is None else told_by(kept.peer)
    notes += _not_there(kept, run, told_by_peer)
    summary = _summary(kept, run, notes)
    answers = {name: _series(name, body, notes) for name, body in kept.answers.items()}
    told = _series_of(answers, "pods", "containers")
    pods = Pods(told)
    spans = run.spans
    step = step_of((one for one in told if one.name.startswith("pod_c")), spans.whole)
    services = tuple(service(pods, workload, keys, spans, step) for workload, keys in sorted(pods.services().items()))
    cpu, memory = totals(pods, spans, step)
    agrees = agreement(told_by_peer, pods, _series_of(answers, "kubelet"), spans.during, step, TOLERANCE)
    own = client(_series_of(answers, "client"), run, step)
    covered = _coverage(pods if "pods" in kept.answers else None, spans, step)
    criteria = verdict.criteria(run, summary, services, cpu, memory, agrees, own, kept.answers)
    outcome, because = verdict.outcome(run, criteria)
    notes += _doubts(run, summary, services, own.starved, covered)
    load = _load(_series_of(answers, "k6"), spans.whole)
    if not load and "k6" in answers:
        notes.append("k6's own series are not in Prometheus, so load and latency are not shown over time.")
    return Report(
        run=run,
        outcome=outcome,
        because=because,
        criteria=criteria,
        summary=summary,
        exit_meaning=exit_meaning(run.exit_code, run.ending),
        client=own,
        services=services,
        total_cpu=cpu,
        total_memory=memory,
        saturated=in_order_of_saturation(services),
        agreement=agrees,
        coverage=covered,
        notes=tuple(notes),
        load=load,
    )


def _not_there(kept: Kept, run: Run, peer: Told | None) -> list[str]:
    """Files that the run has kept, by ``run.json``, and that are not in its folder or not readable."""
    asked = queries(run.namespaces, run.job_namespace, run.pod, run.testid)
    files = [f"prometheus/{query.name}.json" for query in asked if query.name not in kept.answers]
    if peer is None:
        files.append("metrics-api.jsonl")
    found = [f"{name} is missing: {AGAIN}." for name in files if name not in run.missing]
    if peer is not None and peer.unreadable:
        first, *others = peer.unreadable
        more = f" and {words.plural(len(others), 'other')}" if others else ""
        rest = "; the rest is used" if peer.usages else ""
        found.append(f"metrics-api.jsonl, line {first}{more}: no answer of the metrics API{rest}.")
    return found


def _summary(kept: Kept, run: Run, notes: list[str]) -> Summary | None:
    if kept.log is None:
        if not any(name.startswith("k6.log") for name in run.missing):
            notes.append("k6.log is missing, and with it all that k6 said.")
        return None
    try:
        summary = from_log(kept.log.decode(errors="replace"))
    except AnswerError as error:
        notes.append(f"{error}.".replace("..", "."))
        return None
    if summary.testid not in (None, run.testid):
        notes.append(f"The summary in k6's log is of the run {summary.testid}, not of {run.testid}.")
    return summary


def _series(name: str, body: bytes, notes: list[str]) -> list[Series]:
    try:
        return series_of(body)
    except AnswerError as error:
        notes.append(f"prometheus/{name}.json cannot be used: {error}.")
        return []


def _series_of(answers: Mapping[str, Sequence[Series]], *names: str) -> list[Series]:
    return [one for name in names for one in answers.get(name, ())]


def _coverage(pods: Pods | None, spans: Spans, step: float) -> tuple[Coverage, ...]:
    parts: tuple[tuple[PartName, Span], ...] = tuple(zip(PARTS, spans, strict=True))
    return tuple(
        Coverage(part, span, None if pods is None else coverage(pods.series, span, step)) for part, span in parts
    )


def _doubts(
    run: Run,
    summary: Summary | None,
    services: Iterable[Service],
    starved: bool | None,
    covered: Iterable[Coverage],
) -> list[str]:
    found = []
    for part in covered:
        if part.share is not None and part.share < WHOLE_SHARE:
            seconds = part.span.seconds
            what = "no samples" if part.share == 0 else f"partial: samples of {part.share * seconds:.0f}"
            found.append(
                f"The span {part.part} the load is {what} of {seconds:.0f} s."
                if part.share
                else f"There are no samples from {'under' if part.part == 'during' else part.part} the load."
            )
    gaps = [words.workload(one.workload, run.namespaces) for one in services if _gaps(one.cpu, run.spans.during)]
    if gaps:
        found.append(f"The CPU under load has gaps for {', '.join(gaps)}: means and peaks are of the rest.")
    if starved:
        found.append(
            "k6 lacked CPU itself, so the latencies are its own as well: give it a node of its own, or less load."
        )
    if starved is None:
        found.append("Whether k6 had enough CPU is not known, so latencies may be its own as well.")
    if summary is not None and summary.dropped_iterations:
        found.append(
            f"{words.count(summary.dropped_iterations)} iterations were not begun, as no virtual user was free:"
            " less was asked than was meant."
        )
    if not ran(run.exit_code, run.ending):
        found.append("The run was broken off, so that its numbers say nothing about the application as a whole.")
    return found


def _gaps(track: Track, span: Span) -> bool:
    """Whether more than a tenth of the values between the first and the last in a span are not there."""
    values = [value for cell, value in enumerate(track.values) if span.holds(track.begin + cell * track.step)]
    there = [cell for cell, value in enumerate(values) if value is not None]
    if not there:
        return False
    return len(there) < WHOLE_SHARE * (there[-1] - there[0] + 1)


# --- the load over time ----------------------------------------------------------------------------------------------

_RATE_STEPS: Final = 3


def _load(series: Sequence[Series], span: Span) -> dict[str, list[tuple[str, Track]]]:
    """k6's own series: virtual users, requests a second and the 95th percentile by endpoint."""
    if not series:
        return {}
    step = step_of(series, span)
    by: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        by.setdefault((one.name, one.labels.get("endpoint", "")), []).append(one)
    found: dict[str, list[tuple[str, Track]]] = {}
    for (name, endpoint), of in sorted(by.items()):
        if name == "k6_vus":
            found.setdefault("users", []).append(("virtual users", total(of, span, step)))
        elif name == "k6_http_reqs_total" and endpoint:
            found.setdefault("requests", []).append((endpoint, _rates(of, span, step)))
        elif name == "k6_http_req_duration_p95" and endpoint:
            found.setdefault("latency", []).append((endpoint, _highest(of, span, step)))
    return {name: tracks for name, tracks in found.items() if any(within(track, span) for _, track in tracks)}


def _rates(series: Sequence[Series], span: Span, step: float) -> Track:
    """The sum of the counters' growth a second, each over the last three steps."""

    def rate(time: float) -> float | None:
        rates = [growth(one.points, Span(time - _RATE_STEPS * step, time)) for one in series]
        known = [one for one in rates if one is not None]
        ended = all(one.points[-1].time < time - _RATE_STEPS * step for one in series if one.points)
        return sum(grown / seconds for grown, seconds in known) if known and not ended else None

    cells = int(span.seconds / step) + 1
    return Track(span.begin, step, tuple(rate(span.begin + cell * step) for cell in range(cells)))


def _highest(series: Sequence[Series], span: Span, step: float) -> Track:
    """Percentiles cannot be added: the highest of an endpoint's series, which differ by what became of the requests."""
    tracks = [total([one], span, step) for one in series]
    cells = zip(*(track.values for track in tracks), strict=True)
    return Track(span.begin, step, tuple(max((one for one in cell if one is not None), default=None) for cell in cells))


# --- JSON ------------------------------------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """``report.json``: all but the series, which are kept beside it. Absent is null."""
    document = _plain(report)
    document["version"] = VERSION
    del document["load"]
    for one, service_ in zip(document["services"], report.services, strict=True):
        del one["cpu"], one["memory"]
        one["cpu_cores"]["factor"] = service_.cpu_cores.mean_factor()
        one["memory_bytes"]["factor"] = service_.memory_bytes.most_factor()
    document["total_cpu"]["factor"] = report.total_cpu.mean_factor()
    document["total_memory"]["factor"] = report.total_memory.most_factor()
    document["client"]["starved"] = report.client.starved
    for one, compared in zip(document["agreement"]["compared"], report.agreement.compared, strict=True):
        one["difference"] = compared.difference
    return json.dumps(document, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Tuples with names and dataclasses as objects, spans with their times in words."""
    if isinstance(value, Span):
        return _span_document(value) | {"seconds": round(value.seconds, 3)}
    if hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        # What has grown beyond all numbers is none in JSON.
        if not math.isfinite(value):
            return None
        return float(f"{value:.6g}") if abs(value) < 1e6 else round(value)
    return value
