"""What must be remembered from tick to tick: samples of CPU by identity, the trailing peak, who is who in a pod.

State is kept by (path, inode) and dropped whole when the cgroup goes: a path made again starts with nothing. What stays
for a while after a cgroup is in ``oom.py`` and ``endings.py``.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from collector.account import Accounts
from collector.endings import Endings
from collector.members import Identity, Members, find
from collector.model import Frame, Leaf, Pod, PodCgroup
from collector.oom import OomKills
from collector.twins import Twins

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

_CLOCK_SLACK_NS = 100_000_000
"""How far the two clocks may be apart over a window by themselves, and times of files behind the clock."""

_TOLD_STEP_NS = 1_000_000_000
"""A status cuts its times to whole seconds."""

_CREDIBLE_CORES = 4
"""A container that truly used more from its start is rated from its first sample instead: later, and as right."""


class Rate(NamedTuple):
    """A CPU rate and the moment that it is taken from."""

    cores: float
    since_ns: int
    """Monotonic."""


def _is_credible(age_at_first_ns: int, first_usec: int) -> bool:
    """Whether a start so long before the first sample can be the start of a cgroup that had used so much by then.

    It is told by a directory's mtime, and kernfs sets that when it first makes an inode for the directory, which may be
    when the collector opens it. From such a start the usage of a life would be rated over seconds.
    """
    return first_usec * NS_PER_USEC <= _CREDIBLE_CORES * age_at_first_ns


class Track:
    """Samples of the CPU counter of one cgroup."""

    __slots__ = ("_base", "_peaks", "_samples", "absent_ns", "first_ns", "met_ns", "tick")

    def __init__(self, met_ns: int = 0, first_ns: int = 0, absent_ns: int | None = None) -> None:
        """``met_ns``: wall time of the frame that it is in first; ``first_ns``: of its first reading, on the monotonic
        clock; ``absent_ns``: when it was surely not there yet, on the same.
        """
        self.met_ns = met_ns
        self.first_ns = first_ns
        self.absent_ns = absent_ns
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
        if samples and monotonic_ns <= samples[-1][0]:
            # No clock stands still: this reading is no new one.
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

    def age_ns(self, monotonic_ns: int, told_ns: int) -> int | None:
        """The age that the wall clock tells, ``None`` if it contradicts the monotonic one: then it was set meanwhile,
        and the cgroup is younger than its first reading here, or older than when it was last not there.
        """
        if told_ns < monotonic_ns - self.first_ns - _CLOCK_SLACK_NS:
            return None
        if self.absent_ns is not None and told_ns > monotonic_ns - self.absent_ns + _TOLD_STEP_NS:
            return None
        return told_ns

    def rate(self, monotonic_ns: int, age_ns: int | None, window_ns: int, *, held: bool = False) -> Rate | None:
        """The CPU rate at the sample taken at ``monotonic_ns``, by the rule for t0 of the contract's section 3.

        ``age_ns`` is the age of the cgroup then, by the wall clock, ``None`` if its start is not known. ``held``: the
        counter stands below what it was, and the rate is that of the last sample before. ``None``: not enough history.
        """
        samples = self._samples
        if len(samples) < 2:
            return None
        (first_ns, first_usec), (last_ns, last_usec) = samples[0], samples[-1]
        if held:
            age_ns = None if age_ns is None else age_ns - (monotonic_ns - last_ns)
            monotonic_ns = last_ns
        if last_ns != monotonic_ns:
            return None
        span_ns = last_ns - first_ns
        told_ns = age_ns
        if told_ns is not None:
            age_ns = self.age_ns(monotonic_ns, told_ns)
        # Not every start is one: see _is_credible. Such a cgroup is treated as one of unknown age.
        if age_ns is None and told_ns is not None and self.absent_ns is not None:
            needed_ns = FIRST_SPAN_NS if monotonic_ns - self.absent_ns < window_ns else OLDEST_SPAN_NS
        elif age_ns is None or age_ns >= window_ns or not _is_credible(age_ns - span_ns, first_usec):
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
        self.accounts = Accounts()
        self.twins = Twins()
        self._tracks: dict[Identity, Track] = {}
        self._members: dict[Identity, Members] = {}
        self._sandboxes: dict[Identity, Identity] = {}
        self.sandbox_leaves: frozenset[Identity] = frozenset()
        """Leaves that are their pod's sandbox."""
        self._before: Frame | None = None
        self._held: frozenset[Identity] = frozenset()
        self._tick = 0

    def advance(self, frame: Frame) -> None:
        """Take the readings of a frame in, and forget what is not in it."""
        self._tick = tick = self._tick + 1
        tracks, window_ns, gap_ns, held = self._tracks, self.window_ns, self.gap_ns, frame.held
        there = 0
        for pod in frame.pods:
            cgroups: tuple[PodCgroup | Leaf, ...] = (pod, *pod.leaves)
            there += len(cgroups)
            for one in cgroups:
                track = tracks.get(one[:2])
                if track is None:
                    first_ns = one.reading.monotonic_ns
                    track = Track(frame.instant.time_ns, first_ns, absent_ns(self._before, pod, one))
                    tracks[one[:2]] = track
                track.tick = tick
                reading = one.reading
                usage = reading.cpu_usage_usec
                if usage is None or one[:2] in held:
                    track.forget_peaks(reading.monotonic_ns)
                else:
                    track.add(reading.monotonic_ns, usage, window_ns, gap_ns)
        if len(tracks) > there:
            self._tracks = tracks = {key: track for key, track in tracks.items() if track.tick == tick}
            self._members = {pod: members for pod, members in self._members.items() if pod in tracks}
            self._sandboxes = {pod: leaf for pod, leaf in self._sandboxes.items() if pod in tracks and leaf in tracks}
            self.sandbox_leaves = frozenset(self._sandboxes.values())
        self._before, self._held = frame, held

    def rated(self, one: PodCgroup | Leaf, age_ns: int | None) -> tuple[Rate | None, float | None]:
        """The CPU rate of a cgroup at its reading, and its peak over the trailing 60 s.

        ``age_ns`` is by the wall clock.
        """
        identity = one[:2]
        track, reading = self._tracks[identity], one.reading
        if reading.cpu_usage_usec is None:
            return None, track.peak_cores
        held = identity in self._held
        return track.rate(reading.monotonic_ns, age_ns, self.window_ns, held=held), track.peak_cores

    def members(self, pod: Pod, cgroup: PodCgroup) -> Members:
        """Who is who among the leaves; found anew only if the status or the leaves are others than in the last frame,
        or if it may depend on what was read of them.
        """
        identity, places = cgroup[:2], [leaf[:5] for leaf in cgroup.leaves]
        known = self._members.get(identity)
        if known is not None and known.places == places:
            if known.pod is pod and known.started_ns == cgroup.started_ns and not known.doubtful:
                return known
            places = known.places
        sandbox = self._sandboxes.get(identity)
        found = find(pod, cgroup, sandbox, self._met_ns, places)
        if found == known:
            return known
        self._members[identity] = found
        own = None if found.sandbox is None else cgroup.leaves[found.sandbox][:2]
        if own != sandbox:
            self._remember_sandbox(identity, own)
        return found

    def _met_ns(self, leaf: Leaf) -> int:
        """Wall time at which a leaf was there: when it was first seen, or made by its directory's time."""
        met_ns = self._tracks[leaf[:2]].met_ns
        return met_ns if leaf.started_ns is None else min(met_ns, leaf.started_ns)

    def _remember_sandbox(self, pod: Identity, leaf: Identity | None) -> None:
        if leaf is None:
            self._sandboxes.pop(pod, None)
        else:
            self._sandboxes[pod] = leaf
        self.sandbox_leaves = frozenset(self._sandboxes.values())


def absent_ns(before: Frame | None, pod: PodCgroup, one: PodCgroup | Leaf) -> int | None:
    """When a cgroup that is new in a frame was surely not there, on the monotonic clock: in the frame before, if what
    it is in was there, and all of it was listed. ``None``: not known.
    """
    if before is None or before.unread:
        return None
    for earlier in before.pods:
        if earlier[:2] == pod[:2]:
            return before.instant.monotonic_ns if one is not pod and not earlier.unread else None
    holder = pod.path.rpartition("/")[0]
    return before.instant.monotonic_ns if any(one.path == holder for one in before.slices) else None
