"""``replay --openmetrics``: all frames with their times, in the form that promtool makes blocks of."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from collector import backfill
from collector.metrics.native import NativeExposition, Selection
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.helpers import families
from tests.support import collector_over, recording

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


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_makes_blocks_of_it(tmp_path: Path) -> None:
    """Promtool tsdb create-blocks-from openmetrics takes the text, and the blocks have its series."""
    file, blocks = tmp_path / "samples.txt", tmp_path / "blocks"
    file.write_text(written(REAL)[0])

    made = subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", file, blocks],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (made.returncode, made.stderr) == (0, "")
    assert any((block / "meta.json").exists() for block in blocks.iterdir())
