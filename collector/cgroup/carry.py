"""Counters over the seam of a looped replay: nothing steps back when the recording begins again.

At the seam each cgroup's base grows by what its counters gained in the pass, so that the next pass goes on from where
this one ended. By path: a container that ended in the middle of the recording goes on from its last value too. Where a
cgroup was made again at its path and has less at the end than the first one had at the start, nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable

from collector.cgroup.files import FAST, SLOW, counters
from collector.model import Details, Frame, Leaf, Reading

_FAST_COUNTERS = counters(FAST)
_SLOW_COUNTERS = counters(SLOW)

_Values = dict[str, int]


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
        node = frame.node._replace(reading=self._reading(".", frame.node.reading))
        pods = tuple(
            pod._replace(
                reading=self._reading(pod.path, pod.reading),
                leaves=tuple(self._leaf(leaf) for leaf in pod.leaves),
                gone=tuple(self._leaf(leaf) for leaf in pod.gone),
            )
            for pod in frame.pods
        )
        return frame._replace(node=node, pods=pods)

    def _seam(self) -> None:
        for path, last in self._last.items():
            first, base = self._first[path], self._base.setdefault(path, {})
            for name, value in last.items():
                base[name] = base.get(name, 0) + max(0, value - first[name])

    def _leaf(self, leaf: Leaf) -> Leaf:
        return leaf._replace(reading=self._reading(leaf.path, leaf.reading))

    def _reading(self, path: str, reading: Reading) -> Reading:
        seen: _Values = {}
        for part, names in ((reading, _FAST_COUNTERS), (reading.details, _SLOW_COUNTERS)):
            for name in names:
                value = getattr(part, name)
                if value is not None:
                    seen[name] = value
        first = self._first.setdefault(path, {})
        for name, value in seen.items():
            first.setdefault(name, value)
        # A file that could not be read in the last frame keeps what it had before.
        self._last.setdefault(path, {}).update(seen)
        base = self._base.get(path)
        if not base:
            return reading
        carried = {name: value + base.get(name, 0) for name, value in seen.items()}
        fast = {name: value for name, value in carried.items() if name in _FAST_COUNTERS}
        details: Details = reading.details._replace(**{n: v for n, v in carried.items() if n in _SLOW_COUNTERS})
        return reading._replace(**fast, details=details)
