"""A real Prometheus over all that the tests before did to the node. Runs last."""

from __future__ import annotations

import math

import pytest

from tests.e2e import pace
from tests.e2e.conftest import Observed
from tests.e2e.observing import fetch, of_collector, table
from tests.e2e.prometheus import URL, over


def test_ten_quiet_minutes_have_no_gap(observed: Observed, prometheus: float) -> None:
    """While nothing is done to the node, every scrape succeeds: none fails, none is left out."""
    del prometheus
    points = [
        (float(at), value)
        for found in over("up{job='podtally'}", observed.began)
        for at, value in found["values"]
        if float(at) <= observed.ended
    ]
    failed = [at for at, value in points if value != "1"]
    unexplained = [at for at in failed if not observed.lags.touch(at)]
    table(
        "Scrapes of ten quiet minutes",
        ["evaluations", "of failed or absent scrapes", "of them not while the node lagged", "seconds"],
        [(len(points), len(failed), len(unexplained), observed.ended - observed.began)],
        file="prometheus.md",
    )
    assert len(points) >= (observed.ended - observed.began) / 5 - 2
    assert unexplained == []
    if failed:
        pytest.skip(f"{pace.TOO_SLOW}: {len(failed)} scrapes failed, each while the node lagged; {pace.current()}")


def test_no_sample_was_out_of_order_or_twice(prometheus: float) -> None:
    """Prometheus' own counters of what it had to refuse."""
    del prometheus
    refused = [
        line
        for line in fetch(f"{URL}/metrics").splitlines()
        if line.startswith(("prometheus_target_scrapes_sample_", "prometheus_tsdb_out_of_order_samples_total"))
        and not line.endswith(" 0")
    ]
    assert refused == []


def test_the_rate_of_every_counter_is_finite_and_not_negative(prometheus: float) -> None:
    """rate() of each counter that the collector declares, over the whole run with its restarts."""
    counters = sorted(
        {
            line.split()[2]
            for line in of_collector("/metrics").splitlines()
            if line.startswith("# TYPE") and line.endswith(" counter")
        }
    )
    wrong = []
    looked_at = 0
    for name in counters:
        for found in over(f"rate({name}[30s])", prometheus, step=10):
            values = [float(value) for _, value in found["values"]]
            looked_at += len(values)
            wrong += [(name, found["metric"], v) for v in values if not math.isfinite(v) or v < 0]
    table(
        "Rates",
        ["counters", "values of rate()", "wrong"],
        [(len(counters), looked_at, len(wrong))],
        file="prometheus.md",
    )
    assert looked_at > 1000
    assert wrong == []
