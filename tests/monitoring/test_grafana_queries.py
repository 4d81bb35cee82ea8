"""The dashboards on a real Prometheus with the shipped configuration: every query and every variable has data."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import pytest

from tests.helpers import wait_until
from tests.monitoring.grafana import NAMES, chosen, filled, get, instant, marks, options, panels, variables
from tests.monitoring.social import NAMESPACE, SERVICES
from tests.monitoring.stage import PLAIN, stage

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"),
    pytest.mark.timeout(300),  # the first test's includes the stage's beginning
]

DEADLINE_SECONDS = 90.0
"""How long data is waited for; two scrapes 5 s apart and a rate of the collector's own take some 20 s."""

Key = TypeVar("Key")

PODS = (("team-b", "burner"), ("team-c", "pagecache"), ("team-b", "crasher"))
"""No pod of the recording has a CPU limit, a disk and a container that ends: the last two panels have these."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has scraped all there is, and for as long as a rate needs."""
    with stage(tmp_path_factory.mktemp("stage")) as url:
        needed = (
            f'pod_cpu_usage_cores{{job="{PLAIN}"}}',
            'pod_cpu_usage_cores{namespace="team-b"}',
            f'pod_cpu_usage_cores{{namespace="{NAMESPACE}"}}',
            f'rate(pod_cgroup_cpu_usage_seconds_total{{namespace="{NAMESPACE}"}}[20s])',
        )

        def begun() -> bool:
            scraped = all(one["health"] == "up" for one in get(url, "targets")["activeTargets"])
            return scraped and all(instant(url, expression) for expression in needed)

        wait_until(begun, DEADLINE_SECONDS, every=0.5)
        yield url


def assignments(url: str, name: str) -> list[dict[str, str]]:
    """The variables' values with which a dashboard is looked at."""
    if name == "pod":
        return [chosen(url, name, namespace=namespace, pod=pod) for namespace, pod in PODS]
    if name == "application":
        return [chosen(url, name, namespace=namespace) for namespace in (NAMESPACE, "team-b", "team-c")]
    return [chosen(url, name)]


def has_number(url: str, expression: str) -> bool:
    """Whether a query has a number."""
    return any(math.isfinite(float(one["value"][1])) for one in instant(url, expression))


def still_missing(asked: Mapping[Key, list[str]], has_data: Callable[[str], bool]) -> set[Key]:
    """Those of which no query has data within the deadline."""
    missing = set(asked)
    until = time.monotonic() + DEADLINE_SECONDS
    while missing and time.monotonic() < until:
        missing = {one for one in missing if not any(map(has_data, asked[one]))}
        if missing:
            time.sleep(1)
    return missing


def services(url: str, expression: str, *wanted: str) -> list[str]:
    """The services that a query has, once the wanted ones are among them or the deadline is over."""
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = sorted(one["metric"]["service"] for one in instant(url, expression))
        if {*wanted} <= {*found} or time.monotonic() > until:
            return found
        time.sleep(1)


def test_every_target_has_data(url: str) -> None:
    """With one of the assignments, within the deadline: each target of each panel, folded away or not."""
    asked = {
        (name, panel.title, expression): [filled(expression, values) for values in looked_at]
        for name in NAMES
        for looked_at in [assignments(url, name)]
        for panel in panels(name)
        for expression in panel.expressions
    }

    assert still_missing(asked, lambda text: has_number(url, text)) == set()


def test_every_variable_offers_something(url: str) -> None:
    """As Grafana's data source asks for it, those above it having the values that they have at first."""
    empty = [
        (name, one["name"]) for name in NAMES for one in variables(name) if not options(url, one, chosen(url, name))
    ]

    assert empty == []


def test_every_annotation_has_data(url: str) -> None:
    """A run of k6 and the starts of containers; a start is a time of the last years, in milliseconds."""
    asked = {
        (name, one["name"], one["useValueForTime"]): [filled(one["expr"], assignments(url, name)[0])]
        for name in NAMES
        for one in marks(name)
    }

    assert still_missing(asked, lambda text: bool(instant(url, text))) == set()
    values = [one["value"][1] for (_, _, at_value), texts in asked.items() if at_value for one in instant(url, *texts)]
    assert all(abs(time.time() - float(value) / 1000) < 10 * 365 * 86400 for value in values)


def test_without_a_feature_a_panel_has_data_or_says_why(url: str) -> None:
    """Of a kernel without pressure files and memory.peak, pods without limits, and nothing but /metrics scraped."""
    asked: dict[tuple[str, str], list[str]] = {}
    for name in NAMES:
        values = chosen(url, name, job=PLAIN, namespace="team-a")
        if name == "pod":
            values |= {"pod": next(one for one in options(url, variables(name)[-1], values) if one.startswith("whole"))}
        asked |= {
            (name, panel.title): [filled(expression, values) for expression in panel.expressions]
            for panel in panels(name)
            if not panel.folded and not panel.says_when_absent
        }

    assert still_missing(asked, lambda text: bool(instant(url, text))) == set()


def test_the_social_networks_services_show_without_editing(url: str) -> None:
    """All twelve, each under its name, by the dashboard's variables as they are at first: CPU and memory.

    Six of the pods are real and named so; the others are made of these (:mod:`tests.monitoring.social`).
    """
    values = chosen(url, "application", namespace=NAMESPACE)
    shown = {panel.title: panel.expressions[0] for panel in panels("application")}

    for title in ("CPU by service", "Memory by service", "Replicas", "Services, over the time shown"):
        assert services(url, filled(shown[title], values), *SERVICES) == list(SERVICES), title


def test_services_may_be_named_by_a_pod_label(url: str) -> None:
    """Those that --pod-labels exports are offered beside the workload, and name the same twelve."""
    by = next(one for one in variables("application") if one["name"] == "by")
    cpu = next(panel.expressions[0] for panel in panels("application") if panel.title == "CPU by service")
    labels = options(url, by, chosen(url, "application", namespace=NAMESPACE))

    assert labels == ["label_app", "label_service", "workload_name"]
    for label in labels:
        values = chosen(url, "application", namespace=NAMESPACE, by=label)
        assert services(url, filled(cpu, values), *SERVICES) == list(SERVICES), label


def test_a_pod_without_a_workload_stands_for_itself(url: str) -> None:
    """Bare pods are not left out of their namespace."""
    values = chosen(url, "application", namespace="team-b")
    cpu = next(panel.expressions[0] for panel in panels("application") if panel.title == "CPU by service")

    assert {"burner", "sidecar"} <= {*services(url, filled(cpu, values), "burner", "sidecar")}
