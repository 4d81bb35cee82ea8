"""Counters over the seam of a looped replay: nothing steps back when the recording begins again.

At the seam each cgroup's base grows by what its counters gained in the pass, so that the next pass goes on from where
this one ended. By path: a container that ended in the middle of the recording goes on from its last value too. Where a
cgroup was made again at its path and has less at the end than the first one had at the start, nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from collector.cgroup.files import FAST, SLOW, counters
from collector.model import DeviceIo, Frame, Interface, Leaf, NodeReading, PodCgroup, Reading, Slice

_FAST_COUNTERS = counters(FAST)
_SLOW_COUNTERS = counters(SLOW)
_DEVICE_COUNTERS = DeviceIo._fields[2:]
_INTERFACE_COUNTERS = Interface._fields[1:]

_Values = dict[Hashable, int]
"""By the name of a field, or of a field of a device or an interface."""


class Carry:
    """Adds the bases. Give each frame to :meth:`adjust` once, in order."""

    def __init__(self, passes: Callable[[], int]) -> None:
        """``passes`` tells how often the recording's end has been passed."""
        self._passes = passes
        self._pass = 0
        self._first: dict[str, _Values] = {}
        self._last: dict[str, _Values] = {}
        self._base: dict[str, _Values] = {}

    def adjust(self, frame: Frame) -> Frame:
        """The frame with the bases of earlier passes added to its counters."""
        if self._passes() != self._pass:
            self._pass = self._passes()
            self._seam()
        pods = tuple(map(self._pod, frame.pods))
        return frame._replace(node=self._node(frame.node), pods=pods, slices=tuple(map(self._slice, frame.slices)))

    def _seam(self) -> None:
        for path, last in self._last.items():
            first, base = self._first[path], self._base.setdefault(path, {})
            for name, value in last.items():
                base[name] = base.get(name, 0) + max(0, value - first[name])

    def _node(self, node: NodeReading) -> NodeReading:
        return node._replace(reading=self._reading(".", node.reading), network=self._network(".", node.network))

    def _slice(self, one: Slice) -> Slice:
        return one._replace(reading=self._reading(one.path, one.reading))

    def _pod(self, pod: PodCgroup) -> PodCgroup:
        return pod._replace(
            reading=self._reading(pod.path, pod.reading),
            leaves=tuple(map(self._leaf, pod.leaves)),
            gone=tuple(map(self._leaf, pod.gone)),
            network=self._network(pod.path, pod.network),
        )

    def _leaf(self, leaf: Leaf) -> Leaf:
        return leaf._replace(reading=self._reading(leaf.path, leaf.reading))

    def _reading(self, path: str, reading: Reading) -> Reading:
        details = reading.details
        seen: _Values = {}
        for part, names in ((reading, _FAST_COUNTERS), (details, _SLOW_COUNTERS)):
            for name in names:
                value = getattr(part, name)
                if value is not None:
                    seen[name] = value
        for device in details.io or ():
            for name, value in zip(_DEVICE_COUNTERS, device[2:], strict=True):
                if value is not None:
                    seen[device[:2], name] = value
        carried = self._carried(path, seen)
        if carried is seen:
            return reading
        slow: dict[str, Any] = {name: carried[name] for name in _SLOW_COUNTERS if name in carried}
        if details.io is not None:
            slow["io"] = tuple(
                DeviceIo(*one[:2], *(carried.get((one[:2], name)) for name in _DEVICE_COUNTERS)) for one in details.io
            )
        fast: dict[str, Any] = {name: carried[name] for name in _FAST_COUNTERS if name in carried}
        return reading._replace(**fast, details=details._replace(**slow))

    def _network(self, path: str, network: tuple[Interface, ...] | None) -> tuple[Interface, ...] | None:
        seen: _Values = {
            (one.name, name): value
            for one in network or ()
            for name, value in zip(_INTERFACE_COUNTERS, one[1:], strict=True)
        }
        carried = self._carried(f"{path} network", seen)
        if network is None or carried is seen:
            return network
        return tuple(Interface(one.name, *(carried[one.name, name] for name in _INTERFACE_COUNTERS)) for one in network)

    def _carried(self, path: str, seen: _Values) -> _Values:
        """The counters with what earlier passes add to them; ``seen`` itself where that is nothing."""
        first = self._first.setdefault(path, {})
        for name, value in seen.items():
            first.setdefault(name, value)
        # A file that could not be read in the last frame keeps what it had before.
        self._last.setdefault(path, {}).update(seen)
        base = self._base.get(path)
        return {name: value + base.get(name, 0) for name, value in seen.items()} if base else seen
