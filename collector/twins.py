"""One pod, one cgroup: where a uid stands in two trees, its cgroups are joined. Pure.

A node that goes from one cgroup driver to the other has both trees: running containers stay in the old one, and the
kubelet makes the pod's cgroup anew, empty, in the new one. What is used of CPU and memory is the sum of both; limits
and pressure, of which there is no sum, are those of the cgroup that has more of the leaves. A cgroup that goes leaves
its counters in the sum, so that none falls.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from collector.cgroup.files import FAST, SLOW, counters
from collector.model import Details, DeviceIo, Frame, PodCgroup, Reading

_PRESSURE = frozenset(field for field in counters(SLOW) if "_pressure_" in field)
_COUNTERS = tuple(sorted(counters(FAST)))
_SLOW_COUNTERS = tuple(sorted(counters(SLOW) - _PRESSURE))
_GAUGES = ("memory_current_bytes", "memory_inactive_file_bytes")
_SLOW_GAUGES = (
    "memory_anon_bytes",
    "memory_file_bytes",
    "memory_kernel_bytes",
    "memory_kernel_stack_bytes",
    "memory_shmem_bytes",
    "memory_active_file_bytes",
    "memory_slab_reclaimable_bytes",
    "memory_slab_unreclaimable_bytes",
    "memory_mapped_file_bytes",
    "swap_usage_bytes",
    "tasks",
    "processes",
)

Identity = tuple[str, int]


class Twins:
    """Joins frame after frame; remembers the cgroups of pods that had several."""

    def __init__(self) -> None:
        self._known: dict[str, dict[Identity, PodCgroup]] = {}
        """By uid, of pods that have or had more than one: each cgroup as it was read last."""

    def join(self, frame: Frame) -> Frame:
        """The frame with one cgroup a uid; the frame itself where that is so already."""
        uids = {cgroup.uid for cgroup in frame.pods}
        if len(uids) == len(frame.pods) and not self._known:
            return frame
        count = Counter(cgroup.uid for cgroup in frame.pods)
        several = {uid for uid in count if count[uid] > 1} | (self._known.keys() & count.keys())
        self._known = {uid: self._known.get(uid, {}) for uid in several}
        groups: dict[str, list[PodCgroup]] = {}
        pods: list[PodCgroup] = []
        for cgroup in frame.pods:
            if cgroup.uid in several:
                groups.setdefault(cgroup.uid, []).append(cgroup)
            else:
                pods.append(cgroup)
        return frame._replace(pods=(*pods, *(self._joined(uid, group) for uid, group in groups.items())))

    def _joined(self, uid: str, group: list[PodCgroup]) -> PodCgroup:
        known = self._known[uid]
        there = {cgroup[:2] for cgroup in group}
        gone = [cgroup for identity, cgroup in known.items() if identity not in there]
        known.update((cgroup[:2], cgroup) for cgroup in group)
        first, *others = sorted(group, key=lambda cgroup: (-len(cgroup.leaves), cgroup.ino, cgroup.path))
        starts = [cgroup.started_ns for cgroup in group if cgroup.started_ns is not None]
        networks = (cgroup.network for cgroup in (first, *others) if cgroup.network is not None)
        return first._replace(
            started_ns=min(starts, default=None),
            reading=_sum(first, others, gone),
            leaves=tuple(leaf for cgroup in group for leaf in cgroup.leaves),
            network=next(networks, None),
            gone=tuple(leaf for cgroup in group for leaf in cgroup.gone),
            unread=tuple(path for cgroup in group for path in cgroup.unread),
            others=tuple(other for cgroup in group for other in cgroup.others),
        )


def _sum(first: PodCgroup, others: list[PodCgroup], gone: list[PodCgroup]) -> Reading:
    """The reading of ``first`` with what the others use, and with the counters of those that have gone, added."""
    readings = [first.reading, *(cgroup.reading for cgroup in others)]
    left = [cgroup.reading for cgroup in gone]
    fast: dict[str, Any] = {field: _added(readings, field, left) for field in _COUNTERS}
    fast |= {field: _added(readings, field) for field in _GAUGES}
    details = [reading.details for reading in readings]
    left_details = [reading.details for reading in left]
    slow: dict[str, Any] = {field: _added(details, field, left_details) for field in _SLOW_COUNTERS}
    slow |= {field: _added(details, field) for field in _SLOW_GAUGES}
    slow["io"] = _devices([*details, *left_details])
    return first.reading._replace(**fast, details=first.reading.details._replace(**slow))


def _added(parts: list[Any], field: str, left: list[Any] | None = None) -> int | None:
    """The sum over the cgroups that are there, ``None`` if one lacks it, and what is known of those that are not."""
    total = 0
    for part in parts:
        value = getattr(part, field)
        if value is None:
            return None
        total += value
    return total + sum(getattr(part, field) or 0 for part in left or ())


def _devices(parts: list[Details]) -> tuple[DeviceIo, ...] | None:
    """Each device's counters, of all cgroups."""
    if all(part.io is None for part in parts):
        return None
    by_number: dict[tuple[int, int], list[DeviceIo]] = {}
    for part in parts:
        for device in part.io or ():
            by_number.setdefault(device[:2], []).append(device)
    return tuple(
        DeviceIo(*number, *(_added(devices, field) for field in DeviceIo._fields[2:]))
        for number, devices in sorted(by_number.items())
    )
