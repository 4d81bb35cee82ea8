"""The dashboards as files: current, of Grafana's form, by dashboard-linter's rules, with metrics of the catalogue.

The rules are those of github.com/grafana/dashboard-linter, written anew, as that program needs a newer Go than any
distribution has. The names of a test's parametrisation are theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, combinations

import promql_parser
import pytest
from promql_parser import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    StringLiteral,
    VectorSelector,
)

from collector.metrics.cadvisor_catalogue import CADVISOR
from collector.metrics.catalogue import CATALOGUE
from monitoring.dashboards.generate import main
from tests.monitoring.grafana import FOLDER, NAMES, Json, Panel, dashboard, filled, marks, panels, variables
from tests.monitoring.promql import parts_of, selectors

boards = pytest.mark.parametrize("name", NAMES)

UNITS = {
    "Bps",
    "bytes",
    "iops",
    "none",
    "percentunit",
    "pps",
    "reqps",
    "s",
    "short",
}
"""Unit ids that @grafana/data 13.2.3 has: `make schema` holds the dashboards against it."""

FILL = {
    "job": ".+",
    "instance": ".+",
    "namespace": "ns",
    "pod": "p",
    "by": "workload_name",
    "service": ".*",
    "testid": ".*",
}
"""Values of the variables, for queries that nobody is asked."""

TARGET = {"job", "instance", "node"}
"""Labels that the scrape gives to every series."""

OF_K6 = {"testid", "profile", "scenario", "endpoint", "status", "expected_response"}
K6 = {
    "k6_vus": OF_K6,
    "k6_dropped_iterations_total": OF_K6,
    "k6_checks_rate": {"testid", "profile", "scenario", "check"},
    "k6_http_reqs_total": OF_K6,
    **{f"k6_http_req_duration_p{p}": OF_K6 for p in (50, 95, 99)},
}
"""What k6 writes, and the tags that loadtest/ has it write."""

PROMETHEUS_OWN = {"up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_series_added"}


def known() -> dict[str, set[str]]:
    """Labels by name of a series: of the catalogue, of k6, and of Prometheus' own."""
    found: dict[str, set[str]] = {name: set() for name in PROMETHEUS_OWN}
    for metric in chain(CATALOGUE, CADVISOR):
        names = [f"{metric.name}_{part}" for part in ("sum", "count")] if metric.type == "summary" else [metric.name]
        found |= {name: set(metric.labels) for name in names}
    # --pod-labels adds label_* of its own.
    found["pod_info"] |= {"label_app", "label_service"}
    return found | K6


KNOWN = known()


def expressions(name: str) -> Iterator[tuple[str, str]]:
    """Where a query stands, and the query with its variables filled in: of panels and annotations."""
    for panel in panels(name):
        for expression in panel.expressions:
            yield panel.title, filled(expression, FILL)
    for one in marks(name):
        yield one["name"], filled(one["expr"], FILL)


# --- the form -------------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_code_gives(capsys: pytest.CaptureFixture[str]) -> None:
    """`make docs` has been run after the last change of the code."""
    assert main(["--check"]) == 0, capsys.readouterr().out


@boards
def test_a_dashboard_is_what_provisioning_takes(name: str) -> None:
    """Of the schema of Grafana 13, with a lasting uid, and without an id or inputs."""
    found = dashboard(name)

    assert found["schemaVersion"] == 42
    assert re.fullmatch(r"podtally-[a-z-]{1,31}", found["uid"])
    assert found["tags"] == ["podtally"]
    assert {"id", "__inputs", "__requires"} & set(found) == set()


@boards
def test_panels_have_ids_of_their_own_and_do_not_overlap(name: str) -> None:
    """Also those that are folded away, among the panels of their row."""
    top = dashboard(name)["panels"]
    ids = [one["id"] for one in chain(top, *(row.get("panels", []) for row in top))]

    assert sorted(ids) == list(range(1, len(ids) + 1))
    for group in (top, *(row["panels"] for row in top if row.get("panels"))):
        places = [one["gridPos"] for one in group]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        for one, other in combinations(places, 2):
            apart = (
                one["x"] + one["w"] <= other["x"]
                or other["x"] + other["w"] <= one["x"]
                or one["y"] + one["h"] <= other["y"]
                or other["y"] + other["h"] <= one["y"]
            )
            assert apart, (one, other)


@boards
def test_a_configmap_holds_it(name: str) -> None:
    """Kubectl keeps a second copy in an annotation, and all annotations of an object together have 256 KiB."""
    assert (FOLDER / f"{name}.json").stat().st_size < 200_000


def test_uids_differ() -> None:
    """Grafana keeps one dashboard for a uid."""
    assert len({dashboard(name)["uid"] for name in NAMES}) == len(NAMES) == 4


@boards
def test_the_targets_of_a_panel_have_refs_of_their_own(name: str) -> None:
    """By which its transformations and overrides name them."""
    for panel in panels(name):
        refs = [target["refId"] for target in panel.json["targets"]]
        assert len(set(refs)) == len(refs), panel.title


@boards
def test_every_variable_that_is_used_is_there(name: str) -> None:
    """In queries of panels, annotations and variables; and each is used."""
    there = {one["name"] for one in dashboard(name)["templating"]["list"]}
    own = {"__rate_interval", "__rate_interval_ms", "__range", "__interval", "1"}
    texts = [
        *chain.from_iterable(panel.expressions for panel in panels(name)),
        *(one["expr"] for one in marks(name)),
        *(one["query"] for one in variables(name)),
    ]
    used = {found for text in texts for found in re.findall(r"\$(\w+)", text)} - own

    assert used | {"datasource"} == there


# --- dashboard-linter's rules ---------------------------------------------------------------------------------------


@boards
def test_template_datasource(name: str) -> None:
    """One data-source variable, called datasource, for Prometheus."""
    found = [one for one in dashboard(name)["templating"]["list"] if one["type"] == "datasource"]

    assert [(one["name"], one["label"], one["query"]) for one in found] == [("datasource", "Data source", "prometheus")]


@boards
def test_template_job(name: str) -> None:
    """A variable for the job, of which all are chosen at first."""
    job = next(one for one in variables(name) if one["name"] == "job")

    assert (job["multi"], job["includeAll"], job["allValue"]) == (True, True, ".+")


@pytest.mark.parametrize("name", ["collector", "kubectl-top"])
def test_template_instance(name: str) -> None:
    """Likewise for the node. Not of the other two: an application and a pod are looked at wherever they run."""
    instance = next(one for one in variables(name) if one["name"] == "instance")

    assert (instance["multi"], instance["includeAll"], instance["allValue"]) == (True, True, ".+")


@boards
def test_template_on_time_change_reload(name: str) -> None:
    """Variables are asked for anew when the time shown changes: pods come and go."""
    assert {one["refresh"] for one in variables(name)} == {2}


@boards
def test_panel_datasource(name: str) -> None:
    """Each panel, target, variable and annotation asks the data source that was chosen."""
    asked = [panel.json["datasource"] for panel in panels(name)]
    asked += [target["datasource"] for panel in panels(name) for target in panel.json["targets"]]
    asked += [one["datasource"] for one in (*variables(name), *marks(name))]

    assert all(one == {"type": "prometheus", "uid": "${datasource}"} for one in asked)


@boards
def test_panel_title_description(name: str) -> None:
    """Each panel says what it shows."""
    assert [panel.title for panel in panels(name) if not panel.title or len(panel.json["description"]) < 10] == []


def units_of(panel: Json) -> set[str]:
    """The units of a panel and of its overrides."""
    config = panel["fieldConfig"]
    found = {config["defaults"]["unit"]} if "unit" in config["defaults"] else set()
    return found | {one["value"] for over in config["overrides"] for one in over["properties"] if one["id"] == "unit"}


@boards
def test_panel_units(name: str) -> None:
    """Each panel that shows a number has a unit that Grafana knows, or a suffix of its own."""
    for panel in panels(name):
        if panel.json["type"] == "table" and not values_of(panel):
            continue
        found = units_of(panel.json)
        assert found, panel.title
        assert {one for one in found if not one.startswith("suffix:")} <= UNITS, panel.title


@boards
def test_panel_no_targets(name: str) -> None:
    """Each panel asks something."""
    assert [panel.title for panel in panels(name) if not panel.expressions] == []


@boards
def test_target_promql(name: str) -> None:
    """Each query is one."""
    for where, expression in expressions(name):
        try:
            promql_parser.parse(expression)
        except ValueError as error:
            pytest.fail(f"{where}: {error}: {expression}")


@boards
def test_target_rate_interval(name: str) -> None:
    """A rate is over $__rate_interval; an increase over that, or over the time shown in a table."""
    for panel in panels(name):
        for expression in panel.expressions:
            assert set(re.findall(r"\b(?:rate|irate)\([^()]*\[([^\]]+)\]", expression)) <= {"$__rate_interval"}
            windows = {"$__rate_interval", "$__range"} if panel.json["type"] == "table" else {"$__rate_interval"}
            assert set(re.findall(r"\bincrease\([^()]*\[([^\]]+)\]", expression)) <= windows


UNJOBBED = ("k6_", "container_")
"""k6 writes without a job; /metrics/cadvisor is another job of whatever name."""


@boards
def test_target_job(name: str) -> None:
    """Each query of podtally's own series takes the job that was chosen."""
    for where, expression in expressions(name):
        for one in selectors(expression):
            if one.name and not one.name.startswith(UNJOBBED):
                assert ("job", ".+") in {(match.name, match.value) for match in one.matchers.matchers}, where


@pytest.mark.parametrize("name", ["collector", "kubectl-top"])
def test_target_instance(name: str) -> None:
    """Each query of those two takes the nodes that were chosen."""
    for where, expression in expressions(name):
        for one in selectors(expression):
            assert ("instance", ".+") in {(match.name, match.value) for match in one.matchers.matchers}, where


@boards
def test_target_counter_agg(name: str) -> None:
    """A counter is shown as a rate or an increase, but for OOM kills, of which each is worth its number."""
    shown_whole = {"pod_oom_kills_total", "pod_container_oom_kills_total"}
    for where, expression in expressions(name):
        whole = {one.name for one in parts_of(expression) if isinstance(one, VectorSelector) and one.name}
        in_ranges = {one.vector_selector.name for one in parts_of(expression) if isinstance(one, MatrixSelector)}
        counters = {one for one in whole - in_ranges if one.endswith(("_total", "_sum", "_count"))}
        assert counters <= shown_whole, where


@boards
def test_uneditable_dashboard(name: str) -> None:
    """What is provisioned cannot be saved."""
    assert dashboard(name)["editable"] is False


# --- names ----------------------------------------------------------------------------------------------------------


@boards
def test_metrics_are_in_the_catalogue(name: str) -> None:
    """Or k6's, or Prometheus' own of a scrape."""
    for where, expression in expressions(name):
        assert {one.name for one in selectors(expression)} <= set(KNOWN), where


@boards
def test_selectors_name_labels_that_the_metric_has(name: str) -> None:
    """Or that the scrape gives."""
    for where, expression in expressions(name):
        for one in selectors(expression):
            assert one.name is not None
            of = {match.name for match in one.matchers.matchers}
            assert of <= KNOWN[one.name] | TARGET, f"{where}: {one.name}"


def made_labels(nodes: list[Expr]) -> set[str]:
    """Labels that label_replace makes."""
    return {
        node.args[1].val
        for node in nodes
        if isinstance(node, Call) and node.func.name == "label_replace" and isinstance(node.args[1], StringLiteral)
    }


@boards
def test_sums_and_joins_are_by_labels_that_are_there(name: str) -> None:
    """Each label after by, on and group_left is one of the query's metrics, of the scrape, or made in the query."""
    for where, expression in expressions(name):
        nodes = parts_of(expression)
        there = set().union(*(KNOWN[one.name or ""] for one in selectors(expression))) | TARGET | made_labels(nodes)
        named: set[str] = set()
        for node in nodes:
            if isinstance(node, AggregateExpr) and node.modifier is not None:
                named |= set(node.modifier.labels)
            if isinstance(node, BinaryExpr) and node.modifier is not None:
                named |= set(node.modifier.matching.labels if node.modifier.matching else [])
                named |= set(node.modifier.group_labels or [])
        assert named <= there, where


@boards
def test_legends_name_labels_that_the_query_leaves(name: str) -> None:
    """A label that was summed away would stand there as it is written."""
    for panel in panels(name):
        for target in panel.json["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            outermost = [node for node in parts_of(filled(target["expr"], FILL)) if isinstance(node, AggregateExpr)]
            kept = set(outermost[0].modifier.labels) if outermost and outermost[0].modifier else set()
            assert named <= kept, f"{panel.title}: {target['legendFormat']}"


@boards
def test_what_may_be_absent_says_why(name: str) -> None:
    """A panel that is folded away needs what a node may lack, and says what."""
    assert [panel.title for panel in panels(name) if panel.folded and not panel.says_when_absent] == []


def values_of(panel: Panel) -> set[str]:
    """The columns of a table that are values of queries."""
    organized = next(one for one in panel.json["transformations"] if one["id"] == "organize")["options"]
    return {name for name in organized["renameByName"] if name.startswith("Value")}


def columns_of(panel: Panel) -> set[str]:
    """The labels that a table has columns for."""
    organized = next(one for one in panel.json["transformations"] if one["id"] == "organize")["options"]
    return {name for name in organized["renameByName"] if not name.startswith("Value")}


@boards
def test_a_tables_rows_are_by_the_labels_of_its_columns(name: str) -> None:
    """All queries of a table leave the same labels, so that their rows are merged, and no other column appears."""
    for panel in panels(name):
        if panel.json["type"] == "table":
            for expression in panel.expressions:
                outermost = [node for node in parts_of(filled(expression, FILL)) if isinstance(node, AggregateExpr)]
                assert outermost[0].modifier is not None
                assert set(outermost[0].modifier.labels) == columns_of(panel), panel.title
