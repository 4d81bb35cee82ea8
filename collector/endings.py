"""What is known of containers that have ended: their last readings, kept for a while (``--linger``). Pure.

A container that lives for less than the time from scrape to scrape may be in no exposition while it lives, so that its
last reading is told afterwards. What it used between that reading and its end is not in it; its pod's counters have it.
Time is the frames': a recording gives what the node gave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from collector.model import Container, Ended, Frame, Instant, Leaf, Pod, start_ns

Identity = tuple[str, int]


class _Name(NamedTuple):
    namespace: str
    pod: str
    container: Container


class _Life:
    """A leaf from its first reading to its last."""

    __slots__ = ("ended_ns", "first_ns", "highest_bytes", "instant", "leaf", "name", "told_ns", "uid")

    def __init__(self, uid: str, leaf: Leaf) -> None:
        self.uid = uid
        self.leaf = leaf
        self.first_ns = leaf.reading.monotonic_ns
        self.highest_bytes: int | None = None
        self.name: _Name | None = None
        self.instant: Instant
        """Of the frame that its last reading is of."""
        self.ended_ns = 0
        """Monotonic time of the first frame without it."""
        self.told_ns: int | None = None
        """When it was first both ended and named."""

    def see(self, leaf: Leaf, instant: Instant) -> None:
        """Take a reading in."""
        self.leaf = leaf
        self.instant = instant
        reading, highest = leaf.reading, self.highest_bytes
        current, peak = reading.memory_current_bytes, reading.details.memory_peak_bytes
        if current is not None and (highest is None or current > highest):
            self.highest_bytes = highest = current
        if peak is not None and (highest is None or peak > highest):
            self.highest_bytes = peak

    def find_name(self, pods: Mapping[str, Pod]) -> None:
        """The name that a status gives it. One found stays: a status tells but of the current and the last ended."""
        pod = pods.get(self.uid)
        container = pod.containers.get(self.leaf.container_id) if pod is not None else None
        if pod is not None and container is not None:
            self.name = _Name(pod.namespace, pod.name, container)

    def told(self, name: _Name) -> Ended:
        """What is told of it."""
        last_ns = self.leaf.reading.monotonic_ns
        ended_ns = self.instant.wall_ns(last_ns)
        started_ns = start_ns(self.leaf, name.container)
        # A directory may have got its mtime after it was first read: no container is younger than it was seen to be.
        age_ns = None if started_ns is None else max(ended_ns - started_ns, last_ns - self.first_ns)
        return Ended(
            namespace=name.namespace,
            pod=name.pod,
            container=name.container.name,
            cpu_usage_usec=self.leaf.reading.cpu_usage_usec,
            memory_peak_bytes=self.highest_bytes,
            age_ns=age_ns,
            ended_ns=ended_ns,
        )


class Endings:
    """Leaves that are there, and those that have ended within ``linger_ns``."""

    def __init__(self, linger_ns: int) -> None:
        self._linger_ns = linger_ns
        self._live: dict[Identity, _Life] = {}
        self._ended: dict[Identity, _Life] = {}

    def advance(self, frame: Frame, pods: Mapping[str, Pod], sandboxes: Collection[Identity]) -> tuple[Ended, ...]:
        """Take a frame in; what is told of ended containers after it. ``sandboxes``: leaves that will get no name."""
        now_ns = frame.instant.monotonic_ns
        before, live = self._live, {}
        for pod in frame.pods:
            for leaf in pod.leaves:
                identity = leaf[:2]
                live[identity] = life = before.pop(identity, None) or _Life(pod.uid, leaf)
                life.see(leaf, frame.instant)
                if life.name is None and identity not in sandboxes:
                    life.find_name(pods)
        self._live = live
        for identity, life in before.items():
            if identity not in sandboxes:
                self._end(identity, life, now_ns)
        for pod in frame.pods:
            for leaf in pod.gone:
                identity = (leaf.path, leaf.ino)
                life = self._ended.get(identity) or _Life(pod.uid, leaf)
                if leaf.reading.monotonic_ns >= life.leaf.reading.monotonic_ns:
                    life.see(leaf, frame.instant)
                if identity not in sandboxes:
                    self._end(identity, life, now_ns)
        return self._told(pods, now_ns)

    def _end(self, identity: Identity, life: _Life, now_ns: int) -> None:
        life.ended_ns = now_ns
        self._ended[identity] = life

    def _told(self, pods: Mapping[str, Pod], now_ns: int) -> tuple[Ended, ...]:
        found: dict[tuple[str, str, str], Ended] = {}
        for identity, life in list(self._ended.items()):
            if life.name is None:
                life.find_name(pods)
            if life.told_ns is None and life.name is not None:
                life.told_ns = now_ns
            since_ns = life.ended_ns if life.told_ns is None else life.told_ns
            if identity in self._live or now_ns - since_ns > self._linger_ns:
                del self._ended[identity]
            elif life.name is not None:
                one = life.told(life.name)
                key = one[:3]
                if key not in found or found[key].ended_ns < one.ended_ns:
                    found[key] = one
        return tuple(found[key] for key in sorted(found))

    @property
    def unnamed(self) -> frozenset[Identity]:
        """Ended leaves that no status has named yet."""
        return frozenset(identity for identity, life in self._ended.items() if life.name is None)

    @property
    def uids(self) -> set[str]:
        """Uids of pods that something is kept of: their names are still of use."""
        return {life.uid for life in self._ended.values()}
