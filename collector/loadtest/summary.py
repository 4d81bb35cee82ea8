"""What k6 leaves behind: the summary in its pod's log, and its exit code. Pure.

The log's contract is ``loadtest/k6/summary.js``; the exit codes are those of k6's ``errext/exitcodes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from collector.errors import AnswerError
from collector.loadtest.fields import number
from collector.loadtest.model import Requests, Summary, Threshold

BEGIN: Final = "-----BEGIN PODTALLY K6 SUMMARY-----"
END: Final = "-----END PODTALLY K6 SUMMARY-----"
VERSION: Final = 1

HELD = 0
CROSSED = 99

EXIT_CODES: Final[dict[int, str]] = {
    0: "it ran to its end, and all thresholds held",
    97: "k6's cloud did not answer, which these tests do not use",
    98: "k6's cloud did not take the run, which these tests do not use",
    99: "it ran, and at least one threshold was crossed",
    100: "setup() took too long: does the application answer at all?",
    101: "teardown() took too long: the load was made, and its end is not told",
    103: "it was stopped through k6's REST API",
    104: "k6 refuses the options of the script: an executor or a metric that it does not know",
    105: "it was stopped from outside: its pod was deleted or evicted, or the Job's deadline passed",
    106: "k6's REST API could not start: its port is taken",
    107: "the script failed before the load began: the lines of the log below say at what",
    108: "the script stopped the test by exec.test.abort()",
    109: "k6 crashed: the lines of the log below are for its makers",
    110: "the script gave the test up by exec.test.fail()",
    137: "it was killed: out of memory, or it did not stop in time",
    255: "k6 refuses its command line: an output or a flag that it does not know",
}
"""What each exit code means. All but 0 and 99 are runs that prove nothing about the application."""


def exit_meaning(code: int | None, ending: str | None) -> str:
    """A sentence on how k6 ended."""
    if ending == "OOMKilled":
        return "k6 was killed, as its container's memory limit was too small for it"
    if ending == "DeadlineExceeded":
        return "the Job's deadline passed before k6 had come to its end"
    if code is None:
        return f"how k6 ended is not known{f': {ending}' if ending else ''}"
    return f"k6 ended with {code}: {EXIT_CODES.get(code, 'a code that k6 has no meaning for')}"


def ran(code: int | None, ending: str | None) -> bool:
    """Whether the load was made to its end, so that there is something to judge."""
    return code in (HELD, CROSSED) and ending not in ("OOMKilled", "DeadlineExceeded")


def from_log(log: str) -> Summary:
    """The summary in a log, the last one if there are several. Raises :class:`AnswerError` if there is none."""
    _, begun, rest = log.rpartition(BEGIN)
    if not begun:
        raise AnswerError("k6's log holds no summary: k6 ended before it could write one")
    body, ended, _ = rest.partition(END)
    if not ended:
        raise AnswerError("the summary in k6's log has no end: the log was cut, or is still being written")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"the summary in k6's log is no whole JSON: {error}") from error
    return _summary(document)


def _summary(document: Any) -> Summary:
    if not isinstance(document, dict) or not isinstance(document.get("metrics"), dict):
        raise AnswerError("the summary in k6's log has no metrics")
    version = document.get("version")
    if version != VERSION:
        shown = version if isinstance(version, int) else "that is no number"
        raise AnswerError(f"the summary in k6's log is of version {shown}, and {VERSION} is known")
    metrics = document["metrics"]
    options = document.get("options")
    duration = number(document.get("duration_seconds"))
    endpoints = sorted({found[1] for name in metrics if (found := _OF_ENDPOINT.search(name))}, key=_in_order)
    return Summary(
        profile=_text(document.get("profile")),
        testid=_text(document.get("testid")),
        scale=number(document.get("scale")),
        target=_text(options.get("target")) if isinstance(options, dict) else None,
        started=time_of(document.get("started")),
        ended=time_of(document.get("ended")),
        duration_seconds=duration,
        vus_most=_whole(document.get("vus_max")),
        total=_requests(metrics, None, duration),
        endpoints=tuple(_requests(metrics, one, duration) for one in endpoints),
        thresholds=tuple(_thresholds(metrics)),
        dropped_iterations=_whole(_values(metrics, "dropped_iterations").get("count")),
    )


_OF_ENDPOINT = re.compile(r"\{endpoint:([^},]+)\}$")
_ORDER = ("home_timeline", "user_timeline", "compose")


def _in_order(endpoint: str) -> tuple[int, str]:
    return (_ORDER.index(endpoint) if endpoint in _ORDER else len(_ORDER), endpoint)


def _requests(metrics: Mapping[str, Any], endpoint: str | None, duration: float | None) -> Requests:
    of = f"{{endpoint:{endpoint}}}" if endpoint else ""
    reqs, failed = _values(metrics, f"http_reqs{of}"), _values(metrics, f"http_req_failed{of}")
    checks, took = _values(metrics, f"checks{of}"), _values(metrics, f"http_req_duration{of}")
    count = _whole(reqs.get("count"))
    # k6's own rate is over the whole run, its setup included.
    rate = count / duration if count is not None and duration else number(reqs.get("rate"))
    # Of no request k6 says 0 for everything; that is no latency and no share.
    some = bool(count)
    return Requests(
        endpoint=endpoint,
        number=count,
        per_second=rate,
        failed_share=number(failed.get("rate")) if some else None,
        checks_share=number(checks.get("rate")) if some else None,
        median_seconds=_seconds(took.get("med")) if some else None,
        p95_seconds=_seconds(took.get("p(95)")) if some else None,
        p99_seconds=_seconds(took.get("p(99)")) if some else None,
        most_seconds=_seconds(took.get("max")) if some else None,
    )


def _thresholds(metrics: Mapping[str, Any]) -> list[Threshold]:
    found = []
    for metric, said in metrics.items():
        thresholds = said.get("thresholds") if isinstance(said, dict) else None
        if not isinstance(thresholds, dict | None):
            raise AnswerError(f"the summary in k6's log does not say what {metric} was held to")
        for expression, verdict in (thresholds or {}).items():
            held = verdict.get("ok") if isinstance(verdict, dict) else None
            if not isinstance(held, bool):
                raise AnswerError(f"the summary in k6's log does not say whether {metric} {expression} held")
            found.append(Threshold(metric, expression, held))
    return found


def _values(metrics: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    said = metrics.get(name)
    values = said.get("values") if isinstance(said, dict) else None
    return values if isinstance(values, dict) else {}


def _whole(value: object) -> int | None:
    found = number(value)
    return None if found is None else round(found)


def _seconds(milliseconds: object) -> float | None:
    found = number(milliseconds)
    return None if found is None else found / 1000


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def time_of(text: object) -> float | None:
    """Seconds of an RFC 3339 time; ``None`` if it is none.

    >>> time_of("2026-11-24T08:00:00.250Z"), time_of("soon"), time_of(None)
    (1795507200.25, None, None)
    """
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo is not None else None


# --- while it runs ---------------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """How far k6 is."""

    done_seconds: float
    total_seconds: float
    vus: int


_STATUS = re.compile(r"^running \((?:(\d+)h)?(?:(\d+)m)?([\d.]+)s\), (\d+)/\d+ VUs", re.MULTILINE)
_SCENARIO = re.compile(r"\[[^\]]*\].*?\s(?:(\d+)h)?(?:(\d+)m)?([\d.]+)s/(?:(\d+)h)?(?:(\d+)m)?([\d.]+)s")


def progress_of(log: str) -> Progress | None:
    r"""How far k6 is by the last of its progress lines; ``None`` if it has none, as with ``--quiet``.

    >>> progress_of("running (02m10.5s), 040/100 VUs, 99 complete\nload   [  15% ] 040/100 VUs  02m10.5s/14m00.0s")
    Progress(done_seconds=130.5, total_seconds=840.0, vus=40)
    """
    status = list(_STATUS.finditer(log))
    scenarios = list(_SCENARIO.finditer(log, status[-1].end())) if status else []
    if not status or not scenarios:
        return None
    totals = [_clock(*one.groups()[3:6]) for one in scenarios]
    return Progress(_clock(*status[-1].groups()[:3]), max(totals), int(status[-1][4]))


def _clock(hours: str | None, minutes: str | None, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds)


_FAULT = re.compile(r"level=(?:error|fatal|warning)|^Error|panic:")


def last_words(log: str, most: int = 5) -> list[str]:
    """The last lines in which k6 complains; else its last lines, progress and the summary left aside."""
    lines = [line.strip() for line in log.partition(BEGIN)[0].splitlines() if line.strip()]
    faults = [line for line in lines if _FAULT.search(line)]
    said = [line for line in lines if not line.startswith("running (") and not re.search(r"\[[ -=>\d%]*\]", line)]
    return [line[:400] for line in (faults or said)[-most:]]
