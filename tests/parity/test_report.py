"""What is printed of a comparison."""

from __future__ import annotations

import json

import pytest

from collector.parity import report
from collector.parity.verification import Refusal, Source
from tests.parity.scenes import MIB, POD, SIDECAR, WEB, Scene, steady


def scene() -> Scene:
    """A pod of two containers of which one agrees and one is outside."""
    made = Scene().read(POD, steady(130)).read(WEB, steady(100)).read(SIDECAR, steady(30))
    return made.metrics_api(40, 15, {WEB: (0.1, 10 * MIB), SIDECAR: (0.2, 10 * MIB)}, answered=42)


def test_a_row_is_an_object_with_the_names_of_the_contract() -> None:
    """And with the end and length of the window besides."""
    row = scene().row(WEB, "metrics-api")

    assert json.loads(report.as_json(row)) == {
        "namespace": "shop",
        "pod": "web-0",
        "container": "web",
        "source": "metrics-api",
        "quantity": "cpu",
        "ours": pytest.approx(0.1),
        "theirs": 0.1,
        "ratio": pytest.approx(1.0),
        "window": "window-unknown",
        "verdict": "agree",
        "reason": "",
        "time": "2023-11-14T22:14:00.500Z",
        "window_seconds": 15.0,
    }


def test_a_ratio_to_nothing_is_null() -> None:
    """So is the container of a pod's row."""
    made = Scene().read(POD, steady(0)).read(WEB, steady(0)).metrics_api(40, 15, {WEB: (0, MIB)}, answered=42)
    found = json.loads(report.as_json(made.row(POD, "metrics-api")))

    assert (found["ratio"], found["container"], found["theirs"]) == (None, None, 0.0)


def test_pods_are_shown_and_containers_when_asked_for() -> None:
    """As kubectl top pods does."""
    rows = scene().verification.rows()

    pods = report.render(rows, 0.1, containers=False)
    containers = report.render(rows, 0.1, containers=True)

    assert "shop        web-0   130.0m   300.0m   -56.7%   20.0Mi   20.0Mi   +0.0%   outside" in pods
    assert "shop        web-0   web       100.0m   100.0m   +0.0%    10.0Mi   10.0Mi   +0.0%   agree" in containers


def test_the_gravest_difference_stands_last_of_the_reasons() -> None:
    """Where a terminal shows it; containers stand there in any case."""
    text = report.render(scene().verification.rows(), 0.1, containers=False)
    reasons = text.partition("What differs by more than 5%, and why\n")[2].partition("\n\n")[0].splitlines()

    assert reasons[-2:] == [
        "outside: cpu of shop/web-0/sidecar, the metrics API",
        "  not found: our readings allow 28.0m to 32.0m over that window",
    ]


def test_the_sums_count_every_verdict() -> None:
    """By peer and quantity."""
    text = report.sums(scene().verification.rows())

    assert text.splitlines()[1:] == [
        "metrics-api   cpu        1       0           2         0                0       -        -",
        "metrics-api   memory     3       0           0         0                0       -        -",
    ]


def test_of_a_pod_the_latest_row_that_compares_is_shown() -> None:
    """One that cannot be compared yet does not hide the last one that could."""
    made = scene().metrics_api(60, 15, {WEB: (0.3, 10 * MIB)}, answered=60)
    shown = report.latest(made.verification.rows())["metrics-api"]["shop", "web-0", "web"]["cpu"]

    assert shown.theirs == 0.1


@pytest.mark.parametrize(
    ("source", "status", "step"),
    [
        ("metrics-api", 403, "daemonset/overlays/verify gives list on pods.metrics.k8s.io"),
        ("metrics-api", 404, "install metrics-server"),
        ("metrics-api", 503, "kubectl -n kube-system get pods -l k8s-app=metrics-server"),
        ("summary", 403, "gives get on nodes/stats"),
        ("resource", 403, "gives get on nodes/metrics"),
        ("resource", None, "podtally doctor tells more"),
    ],
)
def test_a_refusal_comes_with_the_one_line_that_mends_it(source: Source, status: int | None, step: str) -> None:
    """Which right is missing, or which part."""
    text = report.refusal_text(Refusal(source, status, "no"), report.STEPS)

    assert text.splitlines()[1].startswith("  -> ")
    assert step in text
