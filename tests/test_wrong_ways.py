"""``docs/why-numbers-differ.md``: its numbers are facts, and its commands and queries give them to anybody."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path

import pytest

from collector.metrics.catalogue import CATALOGUE
from docs.recorded import ROOT, rate, recorded
from docs.wrong_ways import SETUP, WAYS, Query, Row, WrongWay, ways
from monitoring import local
from tests.helpers import FOR_OLD_SAMPLES, free_port

NAMES = [make.__name__ for make in WAYS]

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None or shutil.which("prometheus") is None,
    reason="Prometheus is not installed (Debian: prometheus)",
)
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="tar has no zstd (Debian: zstd)")


def way(name: str) -> WrongWay:
    """A section by the name of its function."""
    return ways()[NAMES.index(name)]


def shell(commands: str, folder: Path) -> str:
    """What the commands print, run in the folder; ``podtally`` is the work tree's."""
    return subprocess.run(
        ["bash", "-c", f'podtally() {{ "{sys.executable}" -m collector "$@"; }}\n{commands}'],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    ).stdout


# --- the facts ------------------------------------------------------------------------------------------------------

MORE, LESS = "more", "less"

DIRECTIONS = {
    "sidecar": LESS,
    "unlabelled_rows": MORE,
    "sandbox": MORE,
    "memory_current": MORE,
    "resident": LESS,
    "rate_window": LESS,
    "late": MORE,
    "counter": MORE,
    "two_readings": MORE,
    "nano_cores": LESS,
    "pod_row": MORE,
    "rate_of_sum": MORE,
    "stale_rows": MORE,
    "rounding": MORE,
    "missing": LESS,
    "node_total": LESS,
}
"""Where the first wrong number of a section lies of the first right one."""

SCATTERED = {"nano_cores", "late", "rate_window", "two_readings", "rounding", "missing", "node_total"}
"""Sections whose further wrong numbers lie on the other side too."""


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_number_is_wrong_in_the_stated_direction(name: str) -> None:
    """The first wrong number of each section is more or less than the right one, as its row of the table says."""
    wrong, right = way(name).of("wrong")[0].value, way(name).of("right")[0].value

    assert wrong != right
    assert (MORE if wrong > right else LESS) == DIRECTIONS[name]


def pairs(rows: tuple[Row, ...]) -> Iterator[tuple[Row, Row]]:
    """Each wrong row with the next right one."""
    for index, row in enumerate(rows):
        if row.verdict == "wrong":
            yield row, next(one for one in rows[index:] if one.verdict == "right")


@pytest.mark.parametrize("name", sorted(set(NAMES) - SCATTERED))
def test_all_wrong_numbers_of_a_kind_err_to_the_same_side(name: str) -> None:
    """What is systematic is so for each pod shown: too much in all of a section's rows, or too little."""
    sides = {MORE if wrong.value > right.value else LESS for wrong, right in pairs(way(name).rows)}

    assert sides == {DIRECTIONS[name]}


@pytest.mark.parametrize("name", NAMES)
def test_right_numbers_agree_with_each_other(name: str) -> None:
    """What kubectl top printed, what the kubelet said and what podtally says differ by 2% or by a rounding at most."""
    for verdict, group in groupby(way(name).rows, key=lambda row: row.verdict):
        rights = [row for row in group if row.verdict == verdict == "right"]
        for first, other in pairwise(rights):
            if first.shown.endswith(("m", "Mi")) and other.shown.endswith(("m", "Mi")):
                rounding = 1024 * 1024 if first.shown.endswith("Mi") else 0.001
                slack = max(0.02 * first.value, rounding)
                assert abs(first.value - other.value) <= slack, (first, other)


def test_sections_with_an_answer_of_kubectl_top_hold_it() -> None:
    """Where the recording has kubectl top's answer, it is the right number, or the one that is read wrongly."""
    silent = {name for name in NAMES if not any("kubectl top" in row.what for row in way(name).rows)}

    # The recordings with cAdvisor's page have the kubelet's word in place of kubectl top's.
    assert silent == {"unlabelled_rows", "sandbox", "rate_of_sum", "stale_rows", "rounding", "node_total"}


def test_rows_without_a_container_count_everything_twice() -> None:
    """With cAdvisor's unlabelled rows CPU and memory are double within 5%, and a filter on POD changes nothing."""
    cpu, not_pod, cpu_right, _, memory, memory_right, _ = (row.value for row in way("unlabelled_rows").rows)

    assert cpu / cpu_right == pytest.approx(2, rel=0.05)
    assert memory / memory_right == pytest.approx(2, rel=0.05)
    assert not_pod == cpu


def test_the_working_set_is_usage_without_inactive_file() -> None:
    """The files that the page shows differ by just what the right number says."""
    section = way("memory_current")
    usage, inactive = (int(line.split()[-1]) for line in section.again[0].output.splitlines())
    (ours,) = [row.value for row in section.of("right")[1:2]]

    assert usage - inactive == ours


def test_no_window_of_rate_is_kubectl_tops() -> None:
    """Over kubectl top's own windows podtally is within 10% of it even where the load comes in bursts; rate is not."""
    parity = recorded("parity-1hz")
    rows = re.findall(
        r"^\| (\S+) \| \S+ s \| (\S+)m \| (\S+)m \| (\S+)m \| (\S+)m \|$", way("rate_window").why, re.MULTILINE
    )

    def worst(column: int) -> float:
        return max(abs(float(row[column]) / float(row[1]) - 1) for row in rows)

    assert len(rows) >= 3
    assert parity.time_ms(0) < min(float(row[0]) * 1000 for row in rows)
    assert worst(2) < 0.1 < 0.3 < worst(3) < worst(4)


def test_crasher_never_has_a_row() -> None:
    """No recorded answer of kubectl top has the pod whose CPU seconds the page shows as used without one."""
    parity = recorded("parity-1hz")
    answers_of_top = [parity.kubectl_top(frame) for frame in parity.frames_with("metrics-api/pods.json")]

    assert sum(bool(rows) for rows in answers_of_top) > 20
    assert not any(owner.pod == "crasher" for rows in answers_of_top for owner in rows)


def test_a_sum_that_falls_counts_what_is_left_once_more() -> None:
    """rate() of a sum over containers, of which one ends, takes all seconds of the others for an increase."""
    values = [(0, 100.0), (10_000, 101.0), (20_000, 91.0), (30_000, 92.0)]

    assert rate(values, 30_000, 30) == pytest.approx((1 + 91 + 1) / 30)


def test_anchors_are_unique() -> None:
    """Each row of the table leads to its own section."""
    anchors = [one.anchor for one in ways()]

    assert len(set(anchors)) == len(anchors)


def test_queries_name_metrics_that_exist() -> None:
    """Each podtally metric in a PromQL block of the page is in the catalogue."""
    page = (ROOT / "docs" / "why-numbers-differ.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```promql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names = {name for block in blocks for name in re.findall(r"\b(?:pod|podtally)_\w+", block)}
    # The wrong query of "The pod's cgroup in place of its containers" is of the kubelet's page of that name.
    assert names - {metric.name for metric in CATALOGUE} == {"pod_cpu_usage_seconds_total"}


# --- the commands and the queries -----------------------------------------------------------------------------------


SHOWN = (
    "sidecar",
    "unlabelled_rows",
    "memory_current",
    "resident",
    "late",
    "pod_row",
    "stale_rows",
    "rounding",
    "missing",
    "node_total",
)
"""Sections with commands that show their numbers again."""


def test_all_commands_are_run() -> None:
    """No section has commands that the next test does not run."""
    assert [name for name in NAMES if way(name).again] == list(SHOWN)


@needs_zstd
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHOWN)
def test_the_commands_print_what_the_page_shows(name: str) -> None:
    """Each command below "See it" prints the lines that stand there."""
    for one in way(name).again:
        assert shell(one.commands, ROOT).rstrip("\n") == one.output


def asked(url: str, query: Query) -> float:
    """The one value that Prometheus gives for the query."""
    (result,) = local.query(url, query.promql, time=str(query.time_ms / 1000))
    return float(result["value"][1])


@needs_prometheus
@needs_zstd
@pytest.mark.timeout(300)
def test_prometheus_gives_the_numbers_of_the_page(tmp_path: Path) -> None:
    """A Prometheus that is filled by the page's own commands gives each number that stands beside a query."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "collector").symlink_to(ROOT / "collector")
    assert "BLOCK" in shell(SETUP, tmp_path)
    queries = [query for one in ways() for query in one.queries]

    for recording in sorted({query.recording for query in queries}):
        folder = tmp_path / recording
        folder.mkdir()
        (tmp_path / f"data-{recording}").rename(folder / "data")
        listen = f"127.0.0.1:{free_port()}"
        url = f"http://{listen}"
        with local.prometheus(folder, {}, listen, FOR_OLD_SAMPLES):
            for query in queries:
                if query.recording == recording:
                    assert asked(url, query) == pytest.approx(query.value, rel=1e-9, abs=1e-12), query.promql


@needs_prometheus
def test_every_query_of_the_page_is_promql(tmp_path: Path) -> None:
    """Promtool takes each line of each PromQL block."""
    page = (ROOT / "docs" / "why-numbers-differ.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```promql\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = sorted({line for block in blocks for line in block.splitlines()})
    rules = {"groups": [{"name": "page", "rules": [{"record": "page", "expr": line} for line in lines]}]}
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules))

    done = subprocess.run(
        ["promtool", "check", "rules", "--lint=none", file], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert f"{len(lines)} rules found" in done.stdout
