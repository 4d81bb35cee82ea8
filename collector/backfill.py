"""``replay --openmetrics``: every frame's samples with their times, for promtool's ``create-blocks-from openmetrics``.

OpenMetrics wants a family's samples together and a series' samples together and in order of time, so that all frames
are gathered before the first line is written. Timestamps are seconds: promtool takes milliseconds for the year 50,000
without a word.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from collector.metrics import text
from collector.metrics.catalogue import Metric
from collector.metrics.native import NativeExposition
from collector.model import Tally


def write(tallies: Iterable[Tally], exposition: NativeExposition, out: TextIO) -> int:
    """Write all samples and return their number."""
    gathered: dict[str, tuple[Metric, dict[str, list[str]]]] = {}
    count = 0
    for tally in tallies:
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
