"""A ``PodMetricsList`` of ``metrics.k8s.io/v1beta1``, what ``kubectl top pods`` prints, to samples. Pure.

Its items have no uid and nothing of the pod's own cgroup: each container's CPU in cores over the item's window, and its
working set. Time and window of an item are those of the container whose sample is the oldest (metrics-server,
``pkg/api/pod.go``).
"""

from __future__ import annotations

from typing import Any

from collector.model import Reading
from collector.pods.answer import parse_time_ns
from collector.upstream.quantity import duration_ns, quantity
from collector.upstream.samples import (
    AMOUNT_LIMIT,
    CORES_LIMIT,
    Measured,
    PodSample,
    Snapshot,
    items_of,
    snapshot,
    word,
)

_WHAT = "the metrics API's answer"


def parse(body: bytes) -> Snapshot:
    """Read an answer. Raises :class:`collector.errors.AnswerError` if it is not one."""
    _, items = items_of(body, "items", _WHAT)
    return snapshot(items, _pod)


def _pod(item: dict[str, Any]) -> PodSample:
    metadata = item["metadata"]
    time_ns = parse_time_ns(item.get("timestamp"))
    if time_ns is None:
        raise ValueError("no timestamp")
    window_ns = duration_ns(item["window"])
    if window_ns <= 0:
        raise ValueError("a rate over no time")
    containers = {
        word(entry["name"]): _measured(entry["usage"], time_ns, window_ns) for entry in item.get("containers") or []
    }
    return PodSample(word(metadata["namespace"]), word(metadata["name"]), None, None, containers)


def _measured(usage: dict[str, Any], time_ns: int, window_ns: int) -> Measured:
    cores, working_set = quantity(usage["cpu"]), quantity(usage["memory"])
    if not 0 <= cores <= CORES_LIMIT or not 0 <= working_set < AMOUNT_LIMIT:
        raise ValueError("no node uses so much")
    return Measured(
        time_ns=time_ns,
        reading=Reading(monotonic_ns=0, told_working_set_bytes=int(working_set)),
        cpu_cores=float(cores),
        window_ns=window_ns,
    )
