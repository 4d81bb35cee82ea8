"""Whether a run was a success, criterion by criterion. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from collector.loadtest import words
from collector.loadtest.model import Agreement, Client, Criterion, Outcome, Run, Service, State, Summary, Use
from collector.loadtest.summary import exit_meaning, ran

MOST_ERRORS: Final = 0.10
LEAST_CHECKS: Final = 0.95
"""Where the profile holds the checks to nothing."""
CPU_FACTOR: Final = 1.5
CPU_RISE_CORES: Final = 0.05
"""50m: below it where in a second the CPU was used says more than how much."""
MEMORY_FACTOR: Final = 1.1
MEMORY_RISE_BYTES: Final = 10 * (1 << 20)
OUTSIDE_SHARE: Final = 0.05
"""Of the kubelet's comparisons, those that may lie outside: single samples of the two do."""

_OWN = ("http_req_failed", "checks", "http_reqs")


def _criterion(name: str, held: bool | None, text: str) -> Criterion:
    return Criterion(name, _state(held), "required", text)


def _state(held: bool | None) -> State:
    return "missing" if held is None else "passed" if held else "failed"


def _thresholds(summary: Summary, *bases: str, others: bool = False) -> list[tuple[str, bool]]:
    """The thresholds on some metrics and on their parts by endpoint, or on all others."""
    return [
        (f"{one.metric} {one.expression}", one.held)
        for one in summary.thresholds
        if (one.metric.partition("{")[0] in bases) is not others
    ]


def _crossed(thresholds: Iterable[tuple[str, bool]]) -> list[str]:
    return [text for text, held in thresholds if not held]


def _with_crossed(text: str, crossed: list[str]) -> str:
    return f"{text}; crossed: {', '.join(crossed)}" if crossed else text


def criteria(
    run: Run,
    summary: Summary | None,
    services: tuple[Service, ...],
    cpu: Use,
    memory: Use,
    agreement: Agreement,
    client: Client,
    answers: Container[str],
) -> tuple[Criterion, ...]:
    """All criteria, in the order in which they are told; ``answers`` are the names of Prometheus' that are there."""
    return (
        *_of_k6(run, summary),
        _unless_lost(_cpu(cpu), "pods", answers),
        _unless_lost(_memory(services, memory, run.namespaces), "pods", answers),
        _agreement(agreement),
        _client(client) if run.pod is None else _unless_lost(_client(client), "client", answers),
    )


def _unless_lost(found: Criterion, name: str, answers: Container[str]) -> Criterion:
    """A criterion that is not known because the answer that it is judged by is not there says that."""
    if found.state != "missing" or name in answers:
        return found
    return found._replace(text=f"prometheus/{name}.json is missing")


def _of_k6(run: Run, summary: Summary | None) -> list[Criterion]:
    if summary is None:
        why = "k6's summary is missing"
        return [
            Criterion(name, "missing", "required", why)
            for name in ("errors under 10%", "checks hold", "enough requests", "other thresholds")
        ]
    total = summary.total
    errors = _crossed(_thresholds(summary, "http_req_failed"))
    failed = total.failed_share
    held_errors = None if failed is None else failed < MOST_ERRORS and not errors
    checks = _thresholds(summary, "checks")
    share = total.checks_share
    held_checks = None if share is None else not _crossed(checks) if checks else share > LEAST_CHECKS
    requests = _thresholds(summary, "http_reqs")
    least = [text.removeprefix("http_reqs ") for text, _ in requests if text.startswith("http_reqs ")]
    enough = None if total.number is None else total.number > 0 and not _crossed(requests)
    others = _thresholds(summary, *_OWN, others=True)
    wrong = _crossed(others)
    unnamed = run.exit_code == 99 and all(one.held for one in summary.thresholds)
    real = [text for text, _ in others if not text.endswith("max>=0")]
    other_text = "all held" if real else "the profile has none"
    if unnamed:
        other_text = "k6 says that a threshold was crossed, and its summary does not say which"
    no_request = "no request was made" if total.number == 0 else "k6's summary does not say"
    return [
        _criterion(
            "errors under 10%",
            held_errors,
            _with_crossed(f"{words.percent(failed)} of {words.count(total.number)} requests", errors)
            if failed is not None
            else no_request,
        ),
        _criterion(
            "checks hold",
            held_checks,
            _with_crossed(f"{words.percent(share)} held", _crossed(checks)) if share is not None else no_request,
        ),
        _criterion(
            "enough requests",
            enough,
            _with_crossed(
                f"{words.count(total.number)}{f', and {least[0]} was asked' if least else ''}", _crossed(requests)
            ),
        ),
        _criterion(
            "other thresholds", not wrong and not unnamed, f"crossed: {', '.join(wrong)}" if wrong else other_text
        ),
    ]


def _rise(use: Use, *, most: bool) -> tuple[float | None, float | None, float | None]:
    """Before, during, and by how much it rose."""
    before, during = use.before.mean, use.during.most if most else use.during.mean
    return before, during, None if before is None or during is None else during - before


def _cpu(cpu: Use) -> Criterion:
    before, during, rise = _rise(cpu, most=False)
    held = None if rise is None else rise >= CPU_RISE_CORES and (during or 0.0) >= CPU_FACTOR * (before or 0.0)
    text = f"from {words.cores(before)} to {words.cores(during)} in the mean, {words.factor(cpu.mean_factor())}"
    return _criterion("CPU rises", held, text if rise is not None else _absent(before, during))


def _absent(before: float | None, during: float | None) -> str:
    missing = [name for name, value in (("before", before), ("under", during)) if value is None]
    return f"no samples from {' and '.join(missing)} the load"


def _rises(use: Use) -> bool | None:
    before, during, rise = _rise(use, most=True)
    if rise is None or before is None or during is None:
        return None
    return rise >= MEMORY_RISE_BYTES and during >= MEMORY_FACTOR * before


def _memory(services: tuple[Service, ...], memory: Use, namespaces: tuple[str, ...]) -> Criterion:
    """The whole application's, or one service's: what one of thirty needs is lost in the sum."""
    risen = [one for one in services if _rises(one.memory_bytes)]
    before, during, rise = _rise(memory, most=True)
    whole = f"in all from {words.size(before)} to {words.size(during)} at the most"
    if rise is None:
        return _criterion("memory rises", None if not risen else True, _absent(before, during))
    if risen:
        best = max(risen, key=lambda one: _rise(one.memory_bytes, most=True)[2] or 0.0)
        least, most, _ = _rise(best.memory_bytes, most=True)
        name = words.workload(best.workload, namespaces)
        whole += f"; {name} from {words.size(least)} to {words.size(most)}"
    return _criterion("memory rises", bool(risen) or _rises(memory), whole)


def _agreement(agreement: Agreement) -> Criterion:
    name = f"agrees with kubectl top within {words.percent(agreement.tolerance)}"
    if agreement.source == "metrics-api":
        outside = [one for one in agreement.compared if not one.agrees]
        pairs = len(agreement.compared)
        samples = sum(one.samples for one in agreement.compared)
        text = (
            f"{pairs - len(outside)} of {pairs} means over the metrics API's windows, {words.plural(samples, 'value')}"
        )
        if outside:
            text += f"; apart: {', '.join(f'{one.workload.name} {one.quantity}' for one in outside)}"
        return Criterion(name, _state(not outside), "optional", text)
    if agreement.source == "kubelet" and agreement.kubelet_compared:
        share = (agreement.kubelet_outside or 0) / agreement.kubelet_compared
        text = f"{words.percent(1 - share)} of podtally's own comparisons with the kubelet"
        return Criterion(name, _state(share <= OUTSIDE_SHARE), "optional", text)
    return Criterion(name, "missing", "optional", f"not compared: {agreement.why_not or 'nothing to compare with'}")


def _client(client: Client) -> Criterion:
    starved = client.starved
    if starved is None:
        return Criterion(
            "k6 had CPU to spare", "missing", "told", "k6's own CPU is not known: is podtally on its node?"
        )
    parts = [f"{words.percent(client.busy_share)} of its {client.capacity_is or 'CPU'}"] if client.busy_share else []
    if client.throttled_share is not None:
        parts.append(f"throttled in {words.percent(client.throttled_share)} of periods")
    if client.pressure_share is not None:
        parts.append(f"waited for CPU {words.percent(client.pressure_share)} of the time")
    return Criterion("k6 had CPU to spare", _state(not starved), "told", ", ".join(parts) or "it used none")


def outcome(run: Run, found: tuple[Criterion, ...]) -> tuple[Outcome, str]:
    """The verdict, and why."""
    if not ran(run.exit_code, run.ending):
        return "broken", exit_meaning(run.exit_code, run.ending)
    failed = [one.name for one in found if one.state == "failed" and one.weight != "told"]
    missing = [one.name for one in found if one.state == "missing" and one.weight == "required"]
    if failed:
        return "failed", f"not so: {', '.join(failed)}"
    if missing:
        return "incomplete", f"not known: {', '.join(missing)}"
    return "passed", "all that is required is so"
