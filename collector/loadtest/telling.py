"""What a report tells, in order: sections of sentences, tables and plots, for Markdown and HTML alike. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from collector.loadtest import words
from collector.loadtest.model import Outcome, Report, Service, State, Summary, Track, Use, Workload

Format = Callable[[float | None], str]

OUTCOMES: Final[dict[Outcome, str]] = {
    "passed": "passed",
    "failed": "failed",
    "incomplete": "incomplete",
    "broken": "broken run",
}
EXIT: Final[dict[Outcome, int]] = {"passed": 0, "failed": 1, "incomplete": 1, "broken": 2}
"""The program's exit status: a broken run is one that could not be made."""

STATES: Final[dict[State, str]] = {"passed": "yes", "failed": "no", "missing": "not known"}


class Table(NamedTuple):
    """A table; the first ``words_first`` columns are words, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words_first: int = 1
    sparks: tuple[Track, ...] = ()
    """A small plot for each row, where the form allows it."""
    states: tuple[State, ...] = ()
    """What became of each row, where it can be said in colour."""


class Plot(NamedTuple):
    """Lines over the whole span, by name."""

    title: str
    lines: tuple[tuple[str, Track], ...]
    value: Format


class Section(NamedTuple):
    """A part of a report."""

    title: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None
    plots: tuple[Plot, ...] = ()
    below: tuple[str, ...] = ()
    """Sentences under the table."""


def title(report: Report) -> str:
    """The heading."""
    return f"Load test {report.run.profile}: {OUTCOMES[report.outcome]}"


def lead(report: Report) -> tuple[str, ...]:
    """What was done, when and to what."""
    run, summary, during = report.run, report.summary, report.run.spans.during
    sentences = [f"{_begun(report.because)}."]
    of = f"{words.moment(during.begin)} UTC, {words.clock(during.seconds)} min"
    if summary is not None:
        scale = f", scale {summary.scale:g}" if summary.scale is not None else ""
        users = f", up to {words.plural(summary.vus_most, 'virtual user')}" if summary.vus_most is not None else ""
        of += f"{users}{scale}" + (f", against {summary.target}" if summary.target else "")
    sentences.append(f"Run {run.testid}: {of}.")
    if report.exit_meaning != report.because:
        sentences.append(f"{_begun(report.exit_meaning)}.")
    return tuple(sentences)


def _begun(sentence: str) -> str:
    """With a capital, but for names that have none."""
    return sentence if sentence.startswith(("k6", "prometheus/")) else f"{sentence[:1].upper()}{sentence[1:]}"


def sections(report: Report) -> list[Section]:
    """All sections that have something to tell."""
    found = [
        _verdict(report),
        _notes(report),
        _requests(report),
        _saturation(report),
        *_services(report),
        _agreement(report),
        _client(report),
        _spans(report),
    ]
    return [one for one in found if one is not None]


def _verdict(report: Report) -> Section:
    rows = tuple(
        (one.name, STATES[one.state] + (" (not counted)" if one.weight == "told" else ""), one.text)
        for one in report.criteria
    )
    states = tuple(one.state for one in report.criteria)
    return Section("Success", table=Table(("what is asked", "so?", "found"), rows, 3, states=states))


def _notes(report: Report) -> Section | None:
    return Section("What is missing or in doubt", report.notes) if report.notes else None


def _requests(report: Report) -> Section | None:
    summary = report.summary
    if summary is None:
        return None
    rows = tuple(
        (
            words.endpoint(one),
            words.count(one.number),
            words.rate(one.per_second),
            words.percent(one.failed_share),
            words.percent(one.checks_share),
            words.seconds(one.median_seconds),
            words.seconds(one.p95_seconds),
            words.seconds(one.p99_seconds),
            words.seconds(one.most_seconds),
        )
        for one in (*summary.endpoints, summary.total)
    )
    head = ("endpoint", "requests", "rate", "errors", "checks held", "median", "95%", "99%", "longest")
    formats: dict[str, tuple[str, Format]] = {
        "users": ("Virtual users", lambda value: words.ABSENT if value is None else f"{value:.0f}"),
        "requests": ("Requests a second by endpoint", lambda value: words.ABSENT if value is None else f"{value:.4g}"),
        "latency": ("Latency by endpoint, 95 of 100 requests are faster", words.seconds),
    }
    plots = tuple(
        Plot(text, tuple(report.load[name]), value) for name, (text, value) in formats.items() if name in report.load
    )
    doubt = ("These latencies are k6's own as well: it lacked CPU.",) if report.client.starved else ()
    return Section("Requests", doubt, Table(head, rows), plots, _beside_endpoints(summary))


def _beside_endpoints(summary: Summary) -> tuple[str, ...]:
    """What the last line counts and none before it."""
    of_endpoints = [one.number for one in summary.endpoints if one.number is not None]
    more = (summary.total.number or 0) - sum(of_endpoints)
    if not of_endpoints or more <= 0:
        return ()
    return (
        f"All counts {words.plural(more, 'request')} more than the endpoints: before the load begins, the script asks"
        " whether the application answers.",
    )


def _by_workload(report: Report) -> dict[Workload, Service]:
    return {one.workload: one for one in report.services}


def _saturation(report: Report) -> Section:
    by, names = _by_workload(report), report.run.namespaces
    sentences = []
    if report.saturated:
        first = by[report.saturated[0]]
        since = first.signals[0].since_seconds
        at_once = [one for one in report.saturated[1:] if by[one].signals[0].since_seconds == since]
        sentences.append(
            f"{words.workload(first.workload, names)}, {words.clock(since)} min after the load began:"
            f" {words.signal(first.signals[0])}."
        )
        if at_once:
            others = ", ".join(words.workload(one, names) for one in at_once)
            sentences.append(f"Within the same 15 s: {others}; named first is the one with the graver sign.")
    else:
        sentences.append(
            "None under the load: no service began to be throttled, to be at a limit, or to wait for CPU, memory or I/O"
            " for long."
            if report.services
            else f"Not known: {_no_series(report)}."
        )
    already = [one for one in report.services if one.already]
    if already:
        sentences.append("What was so before the load already is not of its doing.")
    rows = [
        (words.workload(one, names), f"{words.clock(signal.since_seconds)} min", words.signal(signal))
        for one in report.saturated
        for signal in by[one].signals[:1]
    ]
    rows += [
        (words.workload(one.workload, names), "before it", words.signal(signal))
        for one in already
        for signal in one.already[:1]
    ]
    table = Table(("service", "after the load began", "sign"), tuple(rows), 3) if len(rows) > 1 or already else None
    return Section("Which service had enough first", tuple(sentences), table)


_MOST_LINES: Final = 7


def _services(report: Report) -> list[Section]:
    if not report.services:
        return [Section("Services", (f"{_begun(_no_series(report))}.",))]
    return [_cpu(report), _memory(report)]


def _no_series(report: Report) -> str:
    """Why there are no services: the coverage is not known where the answer is not there."""
    if report.coverage[0].share is None:
        return "prometheus/pods.json is missing"
    return "Prometheus has no series of the application's pods"


def _means(use: Use, value: Format) -> tuple[str, str, str]:
    return value(use.before.mean), value(use.during.mean), value(use.after.mean)


def _sorted(services: Sequence[Service], of: Callable[[Service], Use]) -> list[Service]:
    return sorted(services, key=lambda one: -(of(one).during.most or 0.0))


def _cpu(report: Report) -> Section:
    services = _sorted(report.services, lambda one: one.cpu_cores)
    rows: list[tuple[str, ...]] = [
        (
            words.workload(one.workload, report.run.namespaces),
            str(one.pods_most),
            *_means(one.cpu_cores, words.cores),
            words.factor(one.cpu_cores.mean_factor()),
            words.cores(one.cpu_cores.during.most),
            words.cores(one.cpu_limit_cores),
            words.seconds(one.throttled_seconds),
            words.percent(one.throttled_share),
        )
        for one in services
    ]
    use = report.total_cpu
    rows.append(
        (
            "all",
            str(sum(one.pods_most for one in services)),
            *_means(use, words.cores),
            words.factor(use.mean_factor()),
            words.cores(use.during.most),
            *[words.ABSENT] * 3,
        )
    )
    head = ("service", "pods", "before", "under load", "after", "rise", "peak", "limit", "throttled", "of periods")
    told = (
        "Means, and the peak under load, of the CPU as kubectl top prints it, over trailing 15 s. Throttled: how long"
        " the CPU limit held back the most throttled cgroup of each pod.",
    )
    plot = Plot("CPU by service", _lines(services, lambda one: one.cpu), words.cores)
    return Section("CPU by service", told, Table(head, tuple(rows), 1, tuple(one.cpu for one in services)), (plot,))


def _memory(report: Report) -> Section:
    services = _sorted(report.services, lambda one: one.memory_bytes)
    rows: list[tuple[str, ...]] = [
        (
            words.workload(one.workload, report.run.namespaces),
            *_means(one.memory_bytes, words.size),
            words.factor(one.memory_bytes.most_factor()),
            words.size(one.memory_bytes.during.most),
            words.size(one.memory_limit_bytes),
            words.count(one.oom_kills),
        )
        for one in services
    ]
    use = report.total_memory
    rows.append(
        (
            "all",
            *_means(use, words.size),
            words.factor(use.most_factor()),
            words.size(use.during.most),
            *[words.ABSENT] * 2,
        )
    )
    head = ("service", "before", "under load", "after", "rise", "peak", "limit", "OOM kills")
    told = ("Working sets, as kubectl top prints them. Rise: the peak under load by the mean before.",)
    plot = Plot("Memory by service", _lines(services, lambda one: one.memory), words.size)
    return Section(
        "Memory by service", told, Table(head, tuple(rows), 1, tuple(one.memory for one in services)), (plot,)
    )


def _lines(services: Sequence[Service], of: Callable[[Service], Track]) -> tuple[tuple[str, Track], ...]:
    """The greatest by name, the rest as one."""
    shown = [(one.workload.name, of(one)) for one in services[:_MOST_LINES]]
    rest = services[_MOST_LINES:]
    if rest:
        tracks = [of(one) for one in rest]
        first = tracks[0]
        values = tuple(
            sum(known) if (known := [one for one in cell if one is not None]) else None
            for cell in zip(*(track.values for track in tracks), strict=True)
        )
        shown.append((f"{len(rest)} others", Track(first.begin, first.step, values)))
    return tuple(shown)


def _agreement(report: Report) -> Section:
    found = report.agreement
    text = "Agreement with kubectl top"
    if found.source == "kubelet":
        return Section(
            text,
            (
                "The metrics API was not to be had. podtally serve --verify-interval compared with the kubelet's"
                " /metrics/resource, which the metrics API is made of: the verdict above has the share that agrees.",
            ),
        )
    if found.source is None:
        return Section(text, (f"Not compared: {found.why_not}.",))
    formats: dict[str, Format] = {"cpu": words.cores, "memory": words.size}
    rows = tuple(
        (
            words.workload(one.workload, report.run.namespaces),
            one.quantity,
            formats[one.quantity](one.ours),
            formats[one.quantity](one.theirs),
            words.ABSENT if one.difference is None else f"{one.difference * 100:+.1f}%",
            f"{one.within} of {one.samples}",
            STATES["passed" if one.agrees else "failed"],
        )
        for one in found.compared
    )
    states: tuple[State, ...] = tuple("passed" if one.agrees else "failed" for one in found.compared)
    head = ("service", "", "podtally", "kubectl top", "difference", "single values", "agrees")
    told = (
        "The metrics API's samples under load, which kubectl top prints, and podtally's of a pod over the same windows,"
        f" in the mean. What is within {words.percent(found.tolerance)}, or 1m or 1Mi, agrees.",
    )
    return Section(text, told, Table(head, rows, 2, states=states))


def _client(report: Report) -> Section:
    client = report.client
    capacity = {"limit": "its CPU limit", "node": f"the CPUs of its node {report.run.node or ''}".strip(), None: ""}
    rows = (
        ("CPU in the mean, at the most", f"{words.cores(client.cpu_cores.mean)}, {words.cores(client.cpu_cores.most)}"),
        (
            "of what it may use",
            words.ABSENT
            if client.capacity_cores is None
            else f"{words.percent(client.busy_share)} of {words.cores(client.capacity_cores)},"
            f" {capacity[client.capacity_is]}",
        ),
        ("periods in which its limit throttled it", words.percent(client.throttled_share)),
        ("time in which its tasks waited for CPU", words.percent(client.pressure_share)),
    )
    verdict = {
        None: "Not known to have had enough CPU.",
        True: "It lacked CPU: latencies are its own as well.",
        False: "It had CPU to spare, so latencies are the application's and the network's.",
    }[client.starved]
    return Section("k6 itself", (verdict,), Table(("", ""), rows, 2))


def _spans(report: Report) -> Section:
    rows = tuple(
        (
            {"before": "before", "during": "under load", "after": "after"}[one.part],
            words.moment(one.span.begin),
            words.moment(one.span.end),
            words.clock(one.span.seconds),
            words.percent(one.share),
        )
        for one in report.coverage
    )
    run = report.run
    told = (
        f"podtally {run.podtally}; Prometheus: {run.prometheus}; Job {run.job}"
        + (f", pod {run.pod}" if run.pod else "")
        + (f" on {run.node}" if run.node else "")
        + f"; namespaces: {', '.join(run.namespaces)}.",
    )
    return Section("What was looked at", told, Table(("span", "from (UTC)", "to", "min", "has samples"), rows, 3))


def brief(report: Report) -> list[str]:
    """The verdict for a terminal, a line each."""
    width = max(len(one.name) for one in report.criteria)
    lines = [title(report), *(f"  {line}" for line in lead(report)), ""]
    lines += [f"  {one.name:<{width}}   {STATES[one.state]:<9}   {one.text}" for one in report.criteria]
    first = _saturation(report).sentences[0]
    lines += ["", f"  had enough first: {first}"]
    lines += [f"  {note}" for note in report.notes]
    return lines
