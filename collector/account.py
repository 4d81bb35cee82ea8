"""The account of a pod: whether its sums are whole, or else the one reason for which they are withheld. Pure.

What the kubelet's status expects, which leaves stand for it, what of them was read, and what the pod's own cgroup used
are held against each other here, and nowhere else: live, in a replay, for ``verify``, ``doctor`` and every page.

A state is kept by the pod's uid, for as long as a status or a cgroup of it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from collector.members import SETTLED_NS, Identity, Members
from collector.model import WHOLE, Account, Container, Frame, Instant, Leaf, Pod, PodCgroup, Reading
from collector.witness import Witness

VANISHED_NS: Final = 10_000_000_000
"""A container whose leaf went has ended, as the kernel removes no cgroup that has a process; the kubelet's list may
call it running for some seconds more. One that is called running when asked so much later is elsewhere."""

PAUSE_BYTES: Final = 16 << 20
"""A pause takes 0.2 to 1 MiB; the smallest sandbox that runs anything (gVisor's sentry) takes twice this."""

PAUSE_CORES: Final = 0.005
PAUSE_SPAN_NS: Final = 10_000_000_000
PAUSE_STARTS_NS: Final = 30_000_000_000
"""A pause uses CPU while it starts, up to half a second on a slow node, and none afterwards."""


_SEEN_AT_MOST: Final = 256
"""Ids that are remembered of a pod whose containers start again and again."""


class _Life:
    """What is known of a pod, from tick to tick."""

    __slots__ = ("members", "pause", "paused", "sandboxed", "seen", "since_ns", "witness")

    def __init__(self) -> None:
        self.members: Members | None = None
        """As they were last."""
        self.seen: frozenset[str] = frozenset()
        """Ids that have or had a leaf."""
        self.since_ns: dict[str, int] = {}
        """Since when a container that is called running has no leaf, on the wall clock; 0: since ever."""
        self.pause: Reading | None = None
        """The sandbox' last reading."""
        self.paused: tuple[Identity, int, int] | None = None
        """The sandbox' leaf with a reading of its CPU, to measure from."""
        self.sandboxed = False
        """Its sandbox works: so it does for as long as it lives."""
        self.witness = Witness()


class Accounts:
    """The accounts of all pods of a node."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._first = True
        self.wanted: set[tuple[str, int]] = set()
        """What the kubelet is to be asked about again, as of this tick: leaves by identity, containers by id."""

    def begin(self) -> None:
        """Start a tick."""
        self.wanted = set()

    def end(self, frame: Frame, pods: Mapping[str, Pod]) -> None:
        """End a tick: forget pods of which there is neither a cgroup nor a status."""
        self._first = False
        if len(self._lives) > len(frame.pods):
            there = {cgroup.uid for cgroup in frame.pods} | pods.keys()
            self._lives = {uid: life for uid, life in self._lives.items() if uid in there}

    def judge(self, pod: Pod, cgroup: PodCgroup, members: Members, instant: Instant) -> Account:
        """The account of a pod that has a cgroup. Called once a tick for each, after :meth:`begin`."""
        life = self._lives.get(pod.uid)
        if life is None:
            life = self._lives[pod.uid] = _Life()
        if members is not life.members or cgroup.gone:
            self._take(life, pod, cgroup, members)
        life.witness.see(cgroup, members.places)
        missing = self._missing(life, pod, members.missing, instant) if members.missing else ()
        if members.unnamed or members.starting:
            self.wanted.update(members.unnamed, members.starting)
        if cgroup.unread:
            return Account("unread_container")
        unread = unused = False
        for _, number, _ in members.containers:
            reading = cgroup.leaves[number].reading
            if reading.cpu_usage_usec is None or reading.memory_working_set_bytes is None:
                unread = True
            elif reading.cpu_usage_usec == 0 and reading.memory_current_bytes == 0:
                # Whatever runs has used something: its work is not here.
                unused = True
        if (members.containers or missing) and (_is_sandboxed(life, cgroup, members) or unused):
            return Account("sandboxed", missing)
        if missing:
            return Account("missing_container", missing)
        if members.starting:
            return Account("starting_container")
        if members.unnamed and (len(cgroup.leaves) > 1 or members.missing):
            # A lone one, while nothing is called running, is mostly the sandbox of a pod that starts.
            return Account("unnamed_container")
        if unread:
            return Account("unread_container", values=True)
        growth = life.witness.unaccounted
        if growth is not None and members.containers:
            return Account("unaccounted", growth=growth)
        return WHOLE

    def without_cgroup(self, pods: Mapping[str, Pod], frame: Frame) -> Iterator[tuple[Pod, Account]]:
        """Pods that run by their status and that no followed tree has, with their accounts."""
        for uid in pods.keys() - {cgroup.uid for cgroup in frame.pods}:
            pod = pods[uid]
            running = [one for one in pod.containers.values() if one.running] if pod.phase == "Running" else []
            if not running:
                continue
            life = self._lives.get(uid)
            if life is None:
                life = self._lives[uid] = _Life()
            missing = self._missing(life, pod, running, frame.instant)
            if missing and frame.unread:
                yield pod, Account("unread_container", missing)
            elif missing:
                yield pod, Account("sandboxed" if pod.runtime_class else "missing_container", missing)

    def _take(self, life: _Life, pod: Pod, cgroup: PodCgroup, members: Members) -> None:
        """Note what has changed: leaves have come or gone, or the status is another."""
        life.members = members
        life.seen |= {leaf.container_id for leaf in (*cgroup.leaves, *cgroup.gone)}
        if len(life.seen) > _SEEN_AT_MOST:
            life.seen &= pod.containers.keys()
        if life.since_ns:
            missing = {one.container_id for one in members.missing}
            life.since_ns = {one: since_ns for one, since_ns in life.since_ns.items() if one in missing}

    def _missing(self, life: _Life, pod: Pod, containers: Iterable[Container], instant: Instant) -> tuple[str, ...]:
        """Names of the containers that a status calls running though it was asked for after their leaf was missing,
        and whose leaf a tick after that question has not seen either.
        """
        names: list[str] = []
        for one in containers:
            if pod.ending:
                continue
            since_ns = life.since_ns.setdefault(one.container_id, self._since_ns(one, pod, instant))
            vanished = one.container_id in life.seen
            if pod.told_ns > since_ns + (VANISHED_NS if vanished else 0) and instant.time_ns >= pod.told_ns:
                names.append(one.name)
            if not vanished:
                self.wanted.add((one.container_id, 0))
        return tuple(sorted(names))

    def _since_ns(self, one: Container, pod: Pod, instant: Instant) -> int:
        """Since when a container has no leaf that has none in this tick. In the first one it may have ended a moment
        ago, but for one that had been running for long when that was asked.
        """
        long_running = one.started_ns is not None and pod.told_ns - one.started_ns >= SETTLED_NS
        return 0 if self._first and long_running else instant.time_ns


def _is_sandboxed(life: _Life, cgroup: PodCgroup, members: Members) -> bool:
    """Whether the containers' work is in the sandbox: it works itself, or none of them has a leaf in a pod of a runtime
    class of its own.
    """
    if not life.sandboxed and members.sandbox is not None:
        sandbox = cgroup.leaves[members.sandbox]
        # It is read every few ticks.
        if sandbox.reading is not life.pause:
            life.pause = sandbox.reading
            life.sandboxed = _is_at_work(life, sandbox)
    return life.sandboxed or (not members.containers and bool(members.pod.runtime_class))


def _is_at_work(life: _Life, sandbox: Leaf) -> bool:
    """True if a sandbox uses memory or CPU that no pause uses."""
    reading = sandbox.reading
    working_set = reading.memory_working_set_bytes
    if working_set is not None and working_set > PAUSE_BYTES:
        return True
    usage_usec, ns = reading.cpu_usage_usec, reading.monotonic_ns
    if usage_usec is None:
        return False
    paused = life.paused
    if paused is None or paused[0] != sandbox[:2]:
        life.paused = (sandbox[:2], ns + PAUSE_STARTS_NS, usage_usec)
        return False
    span_ns = ns - paused[1]
    if span_ns < 0:
        # It may be starting still: measured is from the last reading before that is over.
        life.paused = (paused[0], paused[1], usage_usec)
        return False
    if span_ns < PAUSE_SPAN_NS:
        return False
    life.paused = (paused[0], ns, usage_usec)
    return (usage_usec - paused[2]) * 1000 > PAUSE_CORES * span_ns
