"""What an upstream's answer says: samples of pods and containers, whichever upstream it is. Values alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from collector.errors import AnswerError
from collector.model import Reading


class Measured(NamedTuple):
    """What was measured of one container, of a pod's cgroup, or of the node."""

    time_ns: int
    """Wall time at which the upstream took it, cut to whole seconds."""
    reading: Reading
    """Without its time, which the join gives it."""
    cpu_cores: float | None = None
    window_ns: int | None = None
    """The span of ``cpu_cores``; ``None`` where it is not known."""
    started_ns: int | None = None


class PodSample(NamedTuple):
    """A pod as the upstream tells it."""

    namespace: str
    name: str
    uid: str | None
    """``None`` in the metrics API, which tells none."""
    whole: Measured | None
    """The pod's own cgroup; ``None`` in the metrics API, which knows but containers."""
    containers: Mapping[str, Measured]

    @property
    def path(self) -> str:
        """What tells it from other pods, where a cgroup has its path."""
        return self.uid or f"{self.namespace}/{self.name}"


class Snapshot(NamedTuple):
    """One answer."""

    pods: tuple[PodSample, ...]
    node: Measured | None
    refused: int
    """Items that are no samples."""
    refused_values: int = 0
    """Values of items that are used, which cannot be true: they are absent."""


AMOUNT_LIMIT = 1 << 63
"""No node has so many bytes, nor used so many nanoseconds. A kubelet writes such a number where it has subtracted below
zero, in unsigned arithmetic of 64 bits."""

CORES_LIMIT = 8192
"""As many CPUs as Linux can have (``CONFIG_NR_CPUS`` of x86): nothing uses more cores."""


EMPTY = Snapshot((), None, 0)


def items_of(body: bytes, key: str, what: str) -> tuple[dict[str, Any], list[Any]]:
    """The object of an answer, and the list under ``key``. Raises :class:`AnswerError` if it is not one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"{what} is not JSON: {error}") from error
    # null is Go's nil slice; an object without the key is something else, as a Status.
    items = (value[key] or []) if isinstance(value, dict) and key in value else None
    if not isinstance(items, list):
        raise AnswerError(f"{what} has no list of {key}")
    return value, items


def snapshot(items: list[Any], pod: Callable[[Any], PodSample]) -> Snapshot:
    """The samples of an answer's items; one that ``pod`` cannot read is none and is counted."""
    pods: list[PodSample] = []
    refused = 0
    for item in items:
        try:
            pods.append(pod(item))
        except (KeyError, TypeError, ValueError, AttributeError):
            refused += 1
    return Snapshot(tuple(pods), None, refused)


def without_future(snapshot: Snapshot, latest_ns: int) -> Snapshot:
    """Without the samples of a time after ``latest_ns``, which would never be too old, and without such starts; these
    are counted.
    """
    late = 0

    def kept(measured: Measured | None) -> Measured | None:
        nonlocal late
        if measured is None:
            return None
        if measured.time_ns > latest_ns:
            late += 1
            return None
        if measured.started_ns is not None and measured.started_ns > latest_ns:
            late += 1
            return measured._replace(started_ns=None)
        return measured

    def pod(sample: PodSample) -> PodSample:
        containers = {name: one for name, each in sample.containers.items() if (one := kept(each)) is not None}
        return sample._replace(whole=kept(sample.whole), containers=containers)

    pods, node = tuple(map(pod, snapshot.pods)), kept(snapshot.node)
    return snapshot._replace(pods=pods, node=node, refused_values=snapshot.refused_values + late)


def word(value: Any) -> str:
    """A name. Raises ``TypeError`` or ``ValueError`` if it is none, or cannot be written out again."""
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    value.encode()
    return value
