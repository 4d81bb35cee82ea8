"""Recording rules, alerts, their page and their unit tests: each is held to the others."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.promql import metrics, unknown

REPO = Path(__file__).resolve().parents[2]
RULES = sorted((REPO / "monitoring" / "prometheus" / "rules").glob("*.yml"))
UNIT_TESTS = sorted((REPO / "tests" / "monitoring" / "rules").glob("*.yml"))
PAGE = REPO / "docs" / "alerts.md"
PROMETHEUS_OWN = {"up": frozenset[str]()}

Rule = dict[str, Any]  # as YAML has it

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules of all files, in their order."""
    return tuple(
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    )


def alerts() -> list[Rule]:
    """The alerts."""
    return [rule for rule in rules() if "alert" in rule]


def recorded() -> dict[str, frozenset[str]]:
    """The labels of each recorded series, which are those that its sum keeps."""
    kept = {rule["record"]: re.search(r"by \(([^)]*)\)", rule["expr"]) for rule in rules() if "record" in rule}
    return {name: frozenset(re.split(r",\s*", found[1])) for name, found in kept.items() if found}


def sections() -> dict[str, str]:
    """The page's sections by their headings."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@cache
def unit_tests() -> tuple[Rule, ...]:
    """The groups of all files of unit tests."""
    return tuple(group for path in UNIT_TESTS for group in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"])


def promtool(*arguments: str | Path) -> str:
    """What promtool prints; it must find nothing wrong."""
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    """Promtool finds no fault in the files, lint included."""
    assert promtool("check", "rules", "--lint-fatal", *RULES).count("SUCCESS") == len(RULES)


@needs_promtool
@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests(path: Path) -> None:
    """Promtool's unit tests of the rules pass."""
    assert "SUCCESS" in promtool("test", "rules", path)


def test_every_alert_has_a_test_that_fires_it_and_one_that_does_not() -> None:
    """Over series that have a value, each alert is expected once at least and not expected once at least."""
    expected: defaultdict[str, set[bool]] = defaultdict(set)
    for group in unit_tests():
        for one in group.get("alert_rule_test", []):
            assert group["input_series"]
            expected[one["alertname"]].add(bool(one.get("exp_alerts")))
    assert dict(expected) == {rule["alert"]: {True, False} for rule in alerts()}


def test_every_recorded_series_has_a_test() -> None:
    """Each recording rule's result is compared in a unit test."""
    looked_at = {
        name
        for group in unit_tests()
        for one in group.get("promql_expr_test", [])
        for name in metrics(one["expr"])
        if one["exp_samples"]
    }
    assert {rule["record"] for rule in rules() if "record" in rule} <= looked_at


def test_every_unit_test_names_files_that_are_there() -> None:
    """Together the unit tests load every file of rules."""
    loaded = {
        (path.parent / name).resolve()
        for path in UNIT_TESTS
        for name in yaml.safe_load(path.read_text(encoding="utf-8"))["rule_files"]
    }
    assert loaded == set(RULES)


def test_the_page_has_a_section_for_each_alert_and_no_other() -> None:
    """In the order of the rules; and the table above has them all, with their severities."""
    assert list(sections()) == [rule["alert"] for rule in alerts()]
    table = re.findall(r"^\| \[(\w+)\]\(#(\w+)\) \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table == [(rule["alert"], rule["alert"].lower(), rule["labels"]["severity"]) for rule in alerts()]


def test_every_section_says_what_to_do() -> None:
    """Each has a paragraph, and in it what to look at: a command, a metric or another page."""
    assert [name for name, text in sections().items() if len(text.split()) < 40 or "`" not in text] == []


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_where_and_what_to_read(rule: Rule) -> None:
    """Each has a severity, a sentence that names its node or pod, and its section of the page."""
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/alerts.md#{rule['alert'].lower()}"
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    assert "\n" not in summary
    places = {"{{ $labels.node }}", "{{ $labels.namespace }}/{{ $labels.pod }}"}
    assert rule["alert"] == "PodtallyAbsent" or any(place in summary for place in places)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_name_metrics_and_labels_of_the_catalogue(rule: Rule) -> None:
    """Each metric is exported, and each label is one of its family's or of the target's."""
    assert unknown(rule["expr"], also=PROMETHEUS_OWN) == []


def test_the_page_names_metrics_of_the_catalogue() -> None:
    """What the page tells to look at is exported under that name."""
    text = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"`((?:pod|podtally|process)_[a-z_]+(?:\{[^}`]*\})?)`", text)
    assert shown
    assert [one for one in shown if unknown(one, also={})] == []


def test_what_is_not_in_the_catalogue_is_found() -> None:
    """The check of names finds a metric and a label that nobody exports."""
    assert unknown("rate(pod_cpu_usage_seconds_total[5m])", also={}) == ["pod_cpu_usage_seconds_total"]
    assert unknown("sum by (service) (pod_cpu_usage_cores)", also={}) == ["{service}"]
    assert unknown('pod_cpu_usage_cores{container="x"}', also={}) == ["pod_cpu_usage_cores{container}"]
    assert unknown("namespace:pod_cpu_usage_cores:sum{namespace!='x'}", also=recorded()) == []
