"""``replay --openmetrics``: every frame's samples with their times, for promtool's ``create-blocks-from openmetrics``.

OpenMetrics wants a family's samples together and a series' samples together and in order of time, so that all frames
are gathered before the first line is written. promtool takes two kinds of files without a word and makes nothing of use
of them: milliseconds are the year 58,000 to it, and of samples that are not in order it keeps the first. So timestamps
are seconds here, and a recording whose clock has no such times, or was set back, is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TextIO

from collector.errors import RecordingError
from collector.metrics import text
from collector.metrics.catalogue import Metric
from collector.metrics.native import NativeExposition
from collector.model import Tally

_EARLIEST_MS = 946_684_800_000
"""2000-01-01: what is earlier is a clock that was never set, or no nanoseconds."""

_LATEST_MS = 4_102_444_800_000
"""2100-01-01."""


def write(tallies: Iterable[Tally], exposition: NativeExposition, out: TextIO) -> int:
    """Write all samples and return their number.

    Raises: RecordingError, before anything is written, where the times are none that Prometheus can take.
    """
    gathered: dict[str, tuple[Metric, dict[str, list[str]]]] = {}
    count = 0
    before_ms: int | None = None
    for tally in tallies:
        now_ms = text.milliseconds(tally.instant.time_ns)
        _guard(before_ms, now_ms)
        before_ms = now_ms
        stamp = text.timestamp(tally.instant.time_ns, openmetrics=True)
        for metric, lines in exposition.families(tally):
            if not lines:
                continue
            series = gathered.setdefault(metric.name, (metric, {}))[1]
            for line in lines:
                series.setdefault(line.rpartition(" ")[0], []).append(f"{line} {stamp}\n")
                count += 1
    for metric, series in gathered.values():
        out.write(text.head(metric.name, metric.type, metric.help, metric.unit, openmetrics=True) + "\n")
        for lines in series.values():
            out.writelines(lines)
    out.write("# EOF\n")
    return count


def _guard(before_ms: int | None, now_ms: int) -> None:
    """Raises: RecordingError if a frame's wall-clock time is not of this century, or not after the one's before."""
    if not _EARLIEST_MS <= now_ms < _LATEST_MS:
        raise RecordingError(
            f"a frame's time is {now_ms / 1000:.3f} s since 1970, which is not of this century: mend time_ns in its"
            " frame.json, in nanoseconds"
        )
    if before_ms is not None and now_ms <= before_ms:
        before, now = (datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat() for ms in (before_ms, now_ms))
        raise RecordingError(
            f"the node's clock was set back: a frame of {now} comes after one of {before}, and Prometheus would drop it"
            " and those that follow without a word; let a Prometheus scrape a replay of it, where time goes on"
        )
