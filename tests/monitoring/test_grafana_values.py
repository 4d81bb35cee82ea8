"""The numbers of "Pods against kubectl top" on a real Prometheus: those of podtally top, of verify and of kubectl.

The seconds of a captured recording are put into a Prometheus at their own times, so that the panels can be asked at the
very moments of which it is known what the metrics API said.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from collector import backfill
from collector.metrics.native import NativeExposition, Selection
from collector.model import METRICS_API, Tally
from collector.parity.verification import LEAST, MEBIBYTE
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.table import cpu_text, memory_text, usages
from monitoring.local import configuration, prometheus
from tests.helpers import FOR_OLD_SAMPLES, free_port, podtally
from tests.monitoring.grafana import filled, instant, panels
from tests.replays import first_frames, write
from tests.support import collector_over

pytestmark = [
    pytest.mark.skipif(
        shutil.which("promtool") is None or shutil.which("prometheus") is None,
        reason="prometheus is not installed (Debian: prometheus)",
    ),
    pytest.mark.timeout(300),  # the first test's includes what all need
]

FRAMES = 45
"""Seconds of the recording: they hold two windows of the metrics API."""

TOLERANCE = 0.1
"""verify's."""


@dataclass
class Stored:
    """A Prometheus with the recording in it, and what podtally makes of each second."""

    url: str
    tallies: list[Tally]
    folder: Path

    def panel(self, title: str, time_ns: int, query: int = 0) -> dict[tuple[str, ...], float]:
        """The values of a panel's query at a time, by namespace and pod, and container where it has one."""
        expression = next(panel.expressions[query] for panel in panels("kubectl-top") if panel.title == title)
        values = {"job": ".*", "instance": ".*", "namespace": ".*"}  # a backfill has neither job nor instance
        found = instant(self.url, filled(expression, values), time=f"{time_ns / 1e9 + 0.001:.3f}")
        return {
            tuple(one["metric"][label] for label in ("namespace", "pod", "container") if label in one["metric"]): float(
                one["value"][1]
            )
            for one in found
        }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """As docs/recordings.md has it: a recording written as OpenMetrics, made into blocks, and served."""
    folder = tmp_path_factory.mktemp("stored")
    tree = RecordedTree(first_frames("parity-1hz.tar.zst", FRAMES))
    tallies = list(collector_over(tree, RecordedAnswers(tree)).tallies())
    with (folder / "samples.txt").open("w", encoding="utf-8") as out:
        backfill.write(tallies, NativeExposition(Selection()), out)
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "samples.txt", folder / "data"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    listen = f"127.0.0.1:{free_port()}"
    with prometheus(folder, configuration({}), listen, FOR_OLD_SAMPLES):
        yield Stored(f"http://{listen}", tallies, folder)


@pytest.mark.parametrize(
    ("containers", "table"), [(False, "kubectl top pods"), (True, "kubectl top pods --containers")]
)
def test_the_table_is_that_of_podtally_top(stored: Stored, containers: bool, table: str) -> None:
    """Digit by digit, at every third second: all pods but those that kubectl leaves out, as their CPU is not known."""
    compared = 0
    for tally in stored.tallies[::3]:
        cpu = stored.panel(table, tally.instant.time_ns)
        memory = stored.panel(table, tally.instant.time_ns, query=1)
        known = {row[:2] for row in usages(tally, containers=False) if row.cpu_cores is not None}
        shown = {
            tuple(filter(None, row[:3])): (cpu_text(row.cpu_cores), memory_text(row.memory_bytes))
            for row in usages(tally, containers=containers)
            if row[:2] in known
        }
        assert cpu.keys() == memory.keys()
        assert {key: (f"{cpu[key]:.0f}m", f"{memory[key]:.0f}Mi") for key in cpu} == shown
        compared += len(cpu)
    assert compared > 150


def test_the_graphs_are_of_the_tables_numbers(stored: Stored) -> None:
    """What the table says now, the graph draws over time."""
    at = stored.tallies[-1].instant.time_ns

    assert stored.panel("CPU(cores)", at) == stored.panel("kubectl top pods", at)
    assert stored.panel("MEMORY(bytes)", at).items() >= stored.panel("kubectl top pods", at, query=1).items()


# --- beside verify --------------------------------------------------------------------------------------------------

Pod = tuple[str, str]


def verified(stored: Stored) -> dict[tuple[Pod, str], dict[str, Any]]:
    """By pod and quantity, the last row of `podtally verify` that could hold podtally against the metrics API."""
    path = write(first_frames("parity-1hz.tar.zst", FRAMES), stored.folder / "recording.tar")
    rows = [json.loads(line) for line in podtally("verify", "--recording", path, "--json").stdout.splitlines()]
    return {
        ((row["namespace"], row["pod"]), row["quantity"]): row
        for row in rows
        if row["source"] == "metrics-api" and row["container"] is None and row["ours"] is not None
    }


def moments() -> dict[Pod, int]:
    """By pod, the time of the last sample that the metrics API told, in ns."""
    answers = [
        json.loads(answer.body)
        for frame in first_frames("parity-1hz.tar.zst", FRAMES).frames
        for answer in frame.answers
        if answer.name == METRICS_API and answer.body
    ]
    return {
        (item["metadata"]["namespace"], item["metadata"]["name"]): round(
            datetime.fromisoformat(item["timestamp"]).timestamp() * 1e9
        )
        for answer in answers
        for item in answer["items"]
    }


def test_the_table_is_what_verify_computes_and_kubectl_printed(stored: Stored) -> None:
    """At the time of the metrics API's sample: memory to the Mi, CPU within verify's tolerance and rounding.

    The table's rate is over 15 s and the metrics API's over 10 to 30 s that end there, so that a pod whose rate moves
    within that time is not compared: it is what verify is for, which takes the peer's own window.
    """
    of, compared = moments(), {"cpu": 0, "memory": 0}
    for (pod, quantity), row in verified(stored).items():
        at = of[pod]
        if quantity == "memory":
            assert stored.panel("kubectl top pods", at, query=1)[pod] == row["ours"] // MEBIBYTE, pod
            assert abs(row["ours"] - row["theirs"]) <= max(LEAST["memory"], TOLERANCE * row["theirs"]), pod
            compared[quantity] += 1
            continue
        near = [stored.panel("kubectl top pods", at + second * 1_000_000_000).get(pod) for second in range(-8, 2)]
        steady = [value for value in near if value is not None]
        if max(steady) - min(steady) > max(2, TOLERANCE * min(steady)):
            continue
        shown = stored.panel("kubectl top pods", at)[pod] / 1000
        for beside in (row["ours"], row["theirs"]):
            assert abs(shown - beside) <= max(2 * LEAST["cpu"], TOLERANCE * beside), (pod, shown, row)
        compared[quantity] += 1

    assert compared["cpu"] >= 12
    assert compared["memory"] >= 16
