"""k6's own CPU: a client that lacks it measures itself, and must not pass for a slow server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from collector.loadtest.model import Client, Run, Series, Usage
from collector.loadtest.samples import increase, percentile, total, usage, within
from collector.loadtest.services import CPU, Pods

_MOST_OF_THE_TIME = 0.95


def client(series: Sequence[Series], run: Run, step: float) -> Client:
    """What k6's pod used, of what it may use."""
    during = run.spans.during
    own = [one for one in series if one.name == CPU]
    track = total(own, during, step)
    capacity_is: Literal["limit", "node"] | None = None
    capacity = run.client_limit_cores
    if capacity is not None and (run.node_cores is None or capacity <= run.node_cores):
        capacity_is = "limit"
    elif run.node_cores is not None:
        capacity, capacity_is = run.node_cores, "node"
    busy = percentile(within(track, during), _MOST_OF_THE_TIME)
    throttled, pressure = _throttled_share(series, run), _pressure_share(series, run)
    return Client(
        cpu_cores=usage(track, during) if own else Usage(None, None),
        capacity_cores=capacity,
        capacity_is=capacity_is,
        busy_share=busy / capacity if busy is not None and capacity else None,
        throttled_share=throttled,
        pressure_share=pressure,
    )


def _throttled_share(series: Sequence[Series], run: Run) -> float | None:
    """The greatest of the pod's cgroups."""
    shares = []
    for cgroup in (one for of in Pods(series).cgroups.values() for one in of):
        throttled = increase(cgroup.of("cpu_throttled_periods_total"), run.spans.during)
        periods = increase(cgroup.of("cpu_periods_total"), run.spans.during)
        if throttled is not None and periods:
            shares.append(throttled / periods)
    return max(shares, default=None)


def _pressure_share(series: Sequence[Series], run: Run) -> float | None:
    for one in series:
        if one.name == "pod_cgroup_cpu_pressure_seconds_total" and len(one.points) > 1:
            during = run.spans.during
            taken = [point for point in one.points if during.holds(point.time)]
            grown = increase(one.points, during)
            # Its own life may be shorter than the span.
            seconds = taken[-1].time - taken[0].time if len(taken) > 1 else 0.0
            return min(1.0, grown / seconds) if grown is not None and seconds else None
    return None
