"""What must be remembered from tick to tick to make rates: samples by identity, the trailing peak, the sandboxes.

State is kept by (path, inode) and dropped whole when the cgroup goes: a path made again starts with nothing. What stays
for a while after a cgroup is in ``oom.py`` and ``endings.py``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from collector.endings import Endings
from collector.model import Container, Frame, Leaf, Pod, PodCgroup
from collector.oom import OomKills

NS_PER_USEC = 1000

PEAK_SPAN_NS = 60_000_000_000
"""The peak is over the trailing 60 s."""

OLDEST_SPAN_NS = 5_000_000_000
"""A container older than the window is rated over less than a window if there are at least 5 s of samples."""

START_SPAN_NS = 10_000_000_000
"""A younger one is rated from its start once it is 10 s old: metrics-server's rule (``pkg/storage/pod.go``)."""

FIRST_SPAN_NS = 2_000_000_000
"""Before that, from its first sample once 2 s have passed."""

LINGER_NS = 30_000_000_000
"""How long what says so stays after its cgroup: the default of ``--linger``."""

_CREDIBLE_CORES = 4
"""A container that truly used more from its start is rated from its first sample instead: later, and as right."""

Identity = tuple[str, int]


class Rate(NamedTuple):
    """A CPU rate and the moment that it is taken from."""

    cores: float
    since_ns: int
    """Monotonic."""


class Members(NamedTuple):
    """Who is who in a pod's cgroup, and since when: the same for as long as its status and its leaves are."""

    pod: Pod
    started_ns: int | None
    """Of the pod's cgroup, as its directory tells it."""
    places: list[tuple[str, int, str, int | None]]
    """What the leaves are known by: all of them but their readings."""
    begun_ns: int | None
    """The start of the pod's cgroup, or of whichever of its containers began before that."""
    containers: tuple[tuple[Container, int, int | None], ...]
    """The running containers by name, the number of the leaf of each, and its start."""
    unnamed: tuple[Identity, ...]
    """Leaves without a name, the sandbox left out."""
    sandbox: int | None
    """The number of its leaf."""
    duplicates: int
    """Leaves that share their name with a newer one."""


def _is_credible(age_at_first_ns: int, first_usec: int) -> bool:
    """Whether a start so long before the first sample can be the start of a cgroup that had used so much by then.

    It is told by a directory's mtime, and kernfs sets that when it first makes an inode for the directory, which may be
    when the collector opens it. From such a start the usage of a life would be rated over seconds.
    """
    return first_usec * NS_PER_USEC <= _CREDIBLE_CORES * age_at_first_ns


class Track:
    """Samples of the CPU counter of one cgroup."""

    __slots__ = ("_base", "_peaks", "_samples", "tick")

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._peaks: deque[tuple[int, float]] = deque()
        """Falling rates with the time of their end: the first is the highest of the span."""
        self._base = (0, 0)
        """The sample that the next rate for the peak is taken from, once there is one."""
        self.tick = 0

    def add(self, monotonic_ns: int, usage_usec: int, window_ns: int, gap_ns: int) -> None:
        """Take a sample in and forget those that no rate can need any more. For the peak, rate the span since the last
        one that was rated, if it is at least ``gap_ns`` long.
        """
        samples, peaks, sample = self._samples, self._peaks, (monotonic_ns, usage_usec)
        if samples:
            last_ns, last_usec = samples[-1]
            if usage_usec < last_usec or monotonic_ns <= last_ns:
                # Within one identity no counter falls and no clock stands still: whatever this is, it is no history.
                samples.clear()
                peaks.clear()
        samples.append(sample)
        if len(samples) == 1:
            self._base = sample
            return
        oldest_needed = monotonic_ns - window_ns
        while samples[1][0] <= oldest_needed:
            # The one just taken ends it: no window is 0.
            samples.popleft()
        if peaks and peaks[0][0] <= monotonic_ns - PEAK_SPAN_NS:
            self.forget_peaks(monotonic_ns)
        base_ns, base_usec = self._base
        span_ns = monotonic_ns - base_ns
        if span_ns >= gap_ns:
            rate = (usage_usec - base_usec) * NS_PER_USEC / span_ns
            self._base = sample
            while peaks and peaks[-1][1] <= rate:
                peaks.pop()
            peaks.append((monotonic_ns, rate))

    def forget_peaks(self, monotonic_ns: int) -> None:
        """Drop those before the trailing 60 s, whether or not there is a reading now."""
        peaks, oldest_ns = self._peaks, monotonic_ns - PEAK_SPAN_NS
        while peaks and peaks[0][0] <= oldest_ns:
            peaks.popleft()

    @property
    def peak_cores(self) -> float | None:
        """The highest rate of the trailing 60 s; ``None`` before the second reading."""
        return self._peaks[0][1] if self._peaks else None

    def rate(self, monotonic_ns: int, age_ns: int | None, window_ns: int) -> Rate | None:
        """The CPU rate at the sample taken at ``monotonic_ns``, by the rule for t0 of the contract's section 3.

        ``age_ns`` is the age of the cgroup then, ``None`` if its start is not known. ``None``: not enough history.
        """
        samples = self._samples
        if len(samples) < 2:
            return None
        (first_ns, first_usec), (last_ns, last_usec) = samples[0], samples[-1]
        if last_ns != monotonic_ns:
            return None
        span_ns = last_ns - first_ns
        # Not every start is one: see _is_credible. Such a cgroup is treated as one of unknown age.
        if age_ns is None or age_ns >= window_ns or not _is_credible(age_ns - span_ns, first_usec):
            needed_ns = OLDEST_SPAN_NS
        elif age_ns >= START_SPAN_NS:
            return Rate(last_usec * NS_PER_USEC / age_ns, last_ns - age_ns)
        else:
            needed_ns = FIRST_SPAN_NS
        if span_ns < min(needed_ns, window_ns):
            return None
        return Rate((last_usec - first_usec) * NS_PER_USEC / span_ns, first_ns)


class History:
    """Tracks of all cgroups of a node."""

    def __init__(self, *, window_ns: int, interval_ns: int, linger_ns: int = LINGER_NS) -> None:
        self.window_ns = window_ns
        self.oom_kills = OomKills(linger_ns)
        self.endings = Endings(linger_ns)
        self.gap_ns = interval_ns // 2
        """Readings less than half an interval apart are not rated for the peak."""
        self._tracks: dict[Identity, Track] = {}
        self.members: dict[Identity, Members] = {}
        """Who is who in a pod's cgroup, as it was found last."""
        self._sandboxes: dict[Identity, Identity] = {}
        self.sandbox_leaves: frozenset[Identity] = frozenset()
        """Leaves that are their pod's sandbox."""
        self._tick = 0

    def advance(self, frame: Frame) -> None:
        """Take the readings of a frame in, and forget what is not in it."""
        self._tick = tick = self._tick + 1
        tracks, window_ns, gap_ns = self._tracks, self.window_ns, self.gap_ns
        there = 0
        for pod in frame.pods:
            cgroups: tuple[PodCgroup | Leaf, ...] = (pod, *pod.leaves)
            there += len(cgroups)
            for one in cgroups:
                track = tracks.get(one[:2])
                if track is None:
                    track = tracks[one[:2]] = Track()
                track.tick = tick
                reading = one.reading
                usage = reading.cpu_usage_usec
                if usage is None:
                    track.forget_peaks(reading.monotonic_ns)
                else:
                    track.add(reading.monotonic_ns, usage, window_ns, gap_ns)
        if len(tracks) > there:
            self._tracks = tracks = {key: track for key, track in tracks.items() if track.tick == tick}
            self.members = {pod: members for pod, members in self.members.items() if pod in tracks}
            self._sandboxes = {pod: leaf for pod, leaf in self._sandboxes.items() if pod in tracks}
            self.sandbox_leaves = frozenset(self._sandboxes.values())

    def rated(self, one: PodCgroup | Leaf, age_ns: int | None) -> tuple[Rate | None, float | None]:
        """The CPU rate of a cgroup at its reading, and its peak over the trailing 60 s."""
        track, reading = self._tracks[one[:2]], one.reading
        rate = None if reading.cpu_usage_usec is None else track.rate(reading.monotonic_ns, age_ns, self.window_ns)
        return rate, track.peak_cores

    def forget_sandbox(self, leaf: Leaf) -> None:
        """A status has named ``leaf`` after all: it is no sandbox."""
        if (leaf.path, leaf.ino) in self.sandbox_leaves:
            self.sandbox_leaves -= {(leaf.path, leaf.ino)}
            self._sandboxes = {pod: one for pod, one in self._sandboxes.items() if one != (leaf.path, leaf.ino)}

    def sandbox(self, pod: PodCgroup, named: Collection[str]) -> Leaf | None:
        """The leaf that is the pod's sandbox; ``named`` are the container ids that a status names.

        It is the leaf with the lowest inode, as the runtime makes it first, unless a status names that one. It is
        remembered, so that a named container with a lower, reused inode does not displace it. In a recording without
        inodes it is the one unnamed leaf, if there is just one.
        """
        remembered = self._sandboxes.get((pod.path, pod.ino))
        for leaf in pod.leaves:
            if (leaf.path, leaf.ino) == remembered and leaf.container_id not in named:
                return leaf
        candidates = [leaf for leaf in pod.leaves if leaf.container_id not in named]
        if pod.ino:
            lowest = min(pod.leaves, key=lambda leaf: leaf.ino, default=None)
            candidates = [leaf for leaf in candidates if leaf is lowest]
        if len(candidates) != 1:
            return None
        sandbox = candidates[0]
        self._sandboxes[pod.path, pod.ino] = (sandbox.path, sandbox.ino)
        self.sandbox_leaves |= {(sandbox.path, sandbox.ino)}
        return sandbox
