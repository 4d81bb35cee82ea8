"""``replay --openmetrics``: all frames with their times, in the form that promtool makes blocks of."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from collector import backfill
from collector.errors import RecordingError
from collector.metrics.native import NativeExposition, Selection
from collector.model import Instant
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording
from monitoring import local
from tests.helpers import REPO, families, free_port
from tests.support import FIXTURES, collector_over, recording

REAL = "systemd-containerd.tar.zst"


@cache
def written(name: str) -> tuple[str, int]:
    """The text, and how many samples it is said to have."""
    tree = RecordedTree(recording(name))
    out = io.StringIO()
    count = backfill.write(collector_over(tree, RecordedAnswers(tree)).tallies(), NativeExposition(Selection()), out)
    return out.getvalue(), count


def samples(name: str) -> list[tuple[str, float]]:
    """Series and time of each line, in order."""
    lines = [line for line in written(name)[0].splitlines() if not line.startswith("#")]
    return [(line.rsplit(" ", 2)[0], float(line.rsplit(" ", 1)[1])) for line in lines]


def test_times_are_seconds() -> None:
    """Each sample bears its frame's time in seconds: promtool takes milliseconds for the year 50,000."""
    assert {time for _, time in samples("static-pod")} == {1_700_000_000.0, 1_700_000_006.0}


def test_a_series_is_contiguous_and_in_order_of_time() -> None:
    """All samples of a series follow each other, each later than the one before."""
    found = samples(REAL)

    starts = [series for (before, _), (series, _) in pairwise([("", 0.0), *found]) if series != before]
    assert len(starts) == len(set(starts))
    assert all(later > earlier for (one, earlier), (two, later) in pairwise(found) if one == two)


def test_the_text_is_openmetrics() -> None:
    """prometheus_client's strict parser reads it, and finds as many samples as were counted."""
    text, count = written(REAL)

    assert sum(len(family.samples) for family in families(text, openmetrics=True)) == count
    assert text.endswith("# EOF\n")


def test_a_series_that_begins_later_has_no_earlier_samples() -> None:
    """A rate, which the first frame cannot have, is there from the second frame on."""
    times = [time for series, time in samples("static-pod") if series.startswith("pod_cpu_usage_cores{")]

    assert times == [1_700_000_006.0, 1_700_000_006.0]


def test_podtallys_account_of_itself_is_left_out() -> None:
    """What podtally is doing now is not of the time of the recording."""
    assert [series for series, _ in samples(REAL) if series.startswith(("podtally_", "process_"))] == []


# --- times that promtool would take without a word ------------------------------------------------------------------


def at_other_times(name: str, time_ns: Callable[[int, int], int]) -> Recording:
    """A recording with other wall-clock times, made of each frame's number and time: no real one has such."""
    recorded = recording(name)
    frames = [
        replace(frame, instant=Instant(time_ns(number, frame.instant.time_ns), frame.instant.monotonic_ns))
        for number, frame in enumerate(recorded.frames)
    ]
    return replace(recorded, frames=frames)


@pytest.mark.parametrize(
    ("time_ns", "said"),
    [
        (lambda number, time: time - 60_000_000_000 * (number == 1), "clock was set back"),
        (lambda _, time: 1_700_000_000_000_000_000, "clock was set back"),
        (lambda _, time: time // 1_000_000, "not of this century"),
        (lambda _, time: time * 1000, "not of this century"),
    ],
    ids=["a step back", "no step", "milliseconds", "nanoseconds times a thousand"],
)
def test_times_that_prometheus_cannot_take_are_refused(time_ns: Callable[[int, int], int], said: str) -> None:
    """A recording whose clock was set back, or has no nanoseconds, gives no line at all, and a sentence."""
    tree = RecordedTree(at_other_times("static-pod", time_ns))
    out = io.StringIO()

    with pytest.raises(RecordingError, match=said):
        backfill.write(collector_over(tree, RecordedAnswers(tree)).tallies(), NativeExposition(Selection()), out)

    assert out.getvalue() == ""


# --- the recipe -----------------------------------------------------------------------------------------------------


def recipe() -> list[str]:
    """The commands of docs/recordings.md."""
    page = (REPO / "docs" / "recordings.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```sh\n(.*?)^```", page.split("## Backfilling Prometheus\n")[1], re.MULTILINE | re.DOTALL)
    return [line.split(" #")[0].rstrip() for line in block.splitlines()]


def run(command: str, folder: Path) -> str:
    """Run a command of the recipe; what it prints and logs."""
    words = [sys.executable, "-m", "collector"] if command.startswith("podtally ") else ["promtool"]
    done = subprocess.run(
        [*words, *command.split()[1:]],
        cwd=folder,
        env={"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_the_recipe_gives_a_prometheus_with_all_samples(tmp_path: Path) -> None:
    """The documented commands, in their order, on a recording of a real node: no sample is lost on the way, and each is
    served at the time of its frame.
    """
    shutil.copy(FIXTURES / REAL, tmp_path / "node.tar.zst")
    replay, make, listing, serve = recipe()
    [told] = re.findall(r"(\d+) samples of \d+ frames", run(replay, tmp_path))
    run(make, tmp_path)
    _, *blocks = run(listing, tmp_path).splitlines()
    # ULID, the first and the last time in milliseconds, the span, samples, ...
    assert sum(int(line.split()[4]) for line in blocks) == int(told)
    times = {time for _, time in samples(REAL)}
    assert [int(line.split()[1]) for line in blocks] == [round(min(times) * 1000)]

    program, *flags = serve.split()
    assert program == "prometheus"
    listen = f"127.0.0.1:{free_port()}"
    kept = [flag for flag in flags if not flag.startswith("--web.listen-address")]
    assert "--storage.tsdb.path=data" in kept
    more = [flag for flag in kept if flag.startswith("--storage.tsdb.retention")]
    with local.prometheus(tmp_path, {}, listen, more):
        query = "count_over_time(pod_memory_usage_bytes{namespace='team-a', pod='guaranteed'}[1h])"
        [found] = local.query(f"http://{listen}", query, time=str(max(times)))
        last = local.query(f"http://{listen}", "timestamp(pod_info{pod='guaranteed'})", time=str(max(times)))
    assert float(found["value"][1]) == len(times)
    assert float(last[0]["value"][1]) == max(times)
