"""OOM kills as counters that live on the names of pods and containers. Pure.

The kernel counts them in ``memory.events: oom_kill`` of the cgroup whose process was killed and of all above it. A
pod's counter is exact: its cgroup outlives its containers and is read every tick. A container's cgroup takes its count
with it when the runtime removes it, often before the kill was read. Then the pod's count has grown by what no live
container accounts for, and that is counted to the container that has just ended. Where several have, under different
names, or none that was seen, the pod's counter alone knows of it.

Counters never step back while the collector runs. A pod's begins with what its cgroup has counted when it is first
seen. What a cgroup had counted before the collector's first frame is a container's only where there is no doubt whose:
where the pod has but one, or where the live ones account for all of it. Else the containers begin at 0: any other
number that is lower than the one before a restart of the collector would be new kills to ``increase()``.

A pod of the same name with another uid goes on where the one before it ended, if that was within ``linger_ns``.

Time is the frames': a recording gives what the node gave.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import itemgetter

from collector.model import Frame, Kills, Leaf, Pod, PodCgroup

Identity = tuple[str, int]

_FOREVER_NS = 1 << 63


class _Count:
    """The counter of a container's name."""

    __slots__ = ("held", "kills", "seen_ns")

    def __init__(self) -> None:
        self.kills = 0
        self.held = 0
        """How many pods have a container of this name, there or expected."""
        self.seen_ns = 0
        """When one that has none now had it last, or one had a kill counted."""


class _Name:
    """The counters of a pod's name."""

    __slots__ = ("containers", "counted", "kills", "seen_ns")

    def __init__(self) -> None:
        self.kills = 0
        self.counted = False
        """False where no count could be read: then there is no counter, which is not one of 0."""
        self.containers: dict[str, _Count] = {}
        self.seen_ns = 0
        """When a pod of this name was last there."""

    def count(self, container: str) -> _Count:
        """The counter of a container's name."""
        count = self.containers.get(container)
        if count is None:
            count = self.containers[container] = _Count()
        return count


class _Life:
    """A pod's cgroup from its first reading to its last, and what of its count has been given to whom."""

    __slots__ = (
        "counts",
        "doubts",
        "ended",
        "held",
        "name",
        "own",
        "pod",
        "seen_ns",
        "there",
        "total",
        "unaccounted",
        "untold",
    )

    def __init__(self) -> None:
        self.name: _Name | None = None
        self.held: set[str] = set()
        """Names of containers that are there or expected."""
        self.seen_ns = 0
        self.pod: Pod | None = None
        self.counts: list[tuple[Identity, int | None]] = []
        """What the last frame had of it, with its status: as long as both stay, as they mostly do, there is nothing to
        do."""
        self.total: int | None = None
        """The pod's count as it was read last."""
        self.untold = 0
        """Kills that are not in the counter of the pod's name yet, as it had none."""
        self.own: dict[Identity, int] = {}
        """The counts of the leaves that are there, as they were read last."""
        self.there: dict[Identity, str] = {}
        """The leaves of the last frame, sandboxes left out, and their container ids."""
        self.ended: frozenset[str] = frozenset()
        """Ids of those that were there in the frame before it and no longer in it: a kill between the reading of the
        pod and that of a leaf is in the pod's count but one frame after the leaf has gone."""
        self.unaccounted = 0
        """What the pod's count has grown by beyond the leaves'; below 0 while a leaf's was read after a kill that the
        pod's was read before."""
        self.doubts: dict[frozenset[str], tuple[int, int]] = {}
        """Kills that one of these ids suffered, and since when that is known; one id has but to get its name. No id:
        nothing that was seen."""

    def doubt(self, ids: frozenset[str], kills: int, now_ns: int) -> None:
        """Note kills of one of ``ids``."""
        before, since_ns = self.doubts.get(ids, (0, now_ns))
        self.doubts[ids] = (before + kills, since_ns)


class OomKills:
    """The counters of all pods of a node."""

    def __init__(self, linger_ns: int) -> None:
        self._linger_ns = linger_ns
        self._lives: dict[Identity, _Life] = {}
        self._names: dict[tuple[str, str], _Name] = {}
        self._first = True
        self._told: tuple[tuple[Kills, ...], tuple[Kills, ...]] = ((), ())
        self._due_ns = 0
        """When one of those has to go."""

    def advance(
        self, frame: Frame, pods: Mapping[str, Pod], sandboxes: Collection[Identity]
    ) -> tuple[tuple[Kills, ...], tuple[Kills, ...]]:
        """Take a frame in; the counters of pods and of containers after it."""
        now_ns = frame.instant.monotonic_ns
        changed = False
        for cgroup in frame.pods:
            life = self._lives.get(cgroup[:2])
            if life is None:
                life = self._lives[cgroup[:2]] = _Life()
            before_ns, life.seen_ns = life.seen_ns, now_ns
            if life.name is not None:
                life.name.seen_ns = now_ns
            pod = pods.get(cgroup.uid)
            cgroups: tuple[PodCgroup | Leaf, ...] = (cgroup, *cgroup.leaves)
            counts = [(one[:2], one.reading.details.memory_oom_kill_events) for one in cgroups]
            same = pod is life.pod and counts == life.counts
            if same and not (cgroup.gone or life.ended or life.unaccounted or life.doubts):
                continue
            changed, life.pod, life.counts = True, pod, counts
            self._count(life, cgroup, sandboxes, now_ns)
            if pod is not None:
                self._tell(life, pod, before_ns, now_ns)
        self._first = False
        if self._forget(now_ns) or changed or now_ns > self._due_ns:
            self._told = self._pods(), self._containers(now_ns)
        return self._told

    # --- by cgroup

    def _count(self, life: _Life, cgroup: PodCgroup, sandboxes: Collection[Identity], now_ns: int) -> None:
        """What the counts have grown by, and whose that is."""
        total = cgroup.reading.details.memory_oom_kill_events
        if total is not None:
            grown = max(0, total - (life.total or 0))
            life.total = max(total, life.total or 0)
            life.untold += grown
            life.unaccounted += grown
        counted = life.unaccounted
        own: dict[Identity, int] = {}
        for leaf in (*cgroup.leaves, *cgroup.gone):
            identity = (leaf.path, leaf.ino)
            before = life.own.get(identity, 0)
            own[identity] = now = max(before, leaf.reading.details.memory_oom_kill_events or 0)
            if now > before:
                life.unaccounted -= now - before
                life.doubt(frozenset({leaf.container_id}), now - before, now_ns)
        life.own = own
        there = {
            (leaf.path, leaf.ino): leaf.container_id for leaf in cgroup.leaves if (leaf.path, leaf.ino) not in sandboxes
        }
        ended = {container_id for identity, container_id in life.there.items() if identity not in there}
        ended |= {leaf.container_id for leaf in cgroup.gone}
        life.there = there
        if life.unaccounted > 0:
            if self._first:
                # The dead may have had more of these than the live, and nobody knows how many each.
                life.doubts = {frozenset(): (counted, now_ns)}
            else:
                life.doubt(life.ended | ended, life.unaccounted, now_ns)
            life.unaccounted = 0
        life.ended = frozenset(ended)

    # --- by name

    def _tell(self, life: _Life, pod: Pod, before_ns: int, now_ns: int) -> None:
        """Give to names what has one by now. ``before_ns``: when the pod was seen last."""
        name = life.name
        if name is None:
            name = life.name = self._names.setdefault((pod.namespace, pod.name), _Name())
            name.seen_ns = now_ns
        name.counted = name.counted or life.total is not None
        name.kills += life.untold
        life.untold = 0
        containers, there = pod.containers, life.there.values()
        # One that waits to be started again keeps its counter, even of 0: it may be killed before a scrape sees it run,
        # and a counter that begins with 1 has had no increase.
        held = {
            container.name
            for container_id, container in containers.items()
            if container.kind != "init" or container_id in there
        }
        for container in held - life.held:
            name.count(container).held += 1
        self._release(life, life.held - held, before_ns)
        life.held = held
        only = {container.name for container in containers.values()}
        for ids, (kills, since_ns) in list(life.doubts.items()):
            whose = only.copy()
            if len(only) != 1:
                named = [containers[one].name for one in ids if one in containers]
                whose = set(named) if len(named) == len(ids) else set()
            if len(whose) == 1:
                count = name.count(whose.pop())
                count.kills += kills
                count.seen_ns = now_ns
                del life.doubts[ids]
            elif now_ns - since_ns > self._linger_ns:
                # It stays in the pod's counter.
                del life.doubts[ids]

    @staticmethod
    def _release(life: _Life, containers: Collection[str], last_ns: int) -> None:
        """The pod has no containers of these names any more."""
        if life.name is None:
            return
        for container in containers:
            count = life.name.count(container)
            count.held -= 1
            count.seen_ns = max(count.seen_ns, last_ns)

    def _forget(self, now_ns: int) -> bool:
        """Let go of what has been gone for longer than it is to linger; whether there was any."""
        last_ns = now_ns - self._linger_ns
        lives = [identity for identity, life in self._lives.items() if life.seen_ns < last_ns]
        for identity in lives:
            life = self._lives.pop(identity)
            self._release(life, life.held, life.seen_ns)
        for key in [key for key, name in self._names.items() if name.seen_ns < last_ns] if lives else ():
            del self._names[key]
        return bool(lives)

    # --- what is exported

    def _pods(self) -> tuple[Kills, ...]:
        return tuple(
            Kills(namespace, pod, "", name.kills)
            for (namespace, pod), name in sorted(self._names.items(), key=itemgetter(0))
            if name.counted
        )

    def _containers(self, now_ns: int) -> tuple[Kills, ...]:
        """Those that are there, or were lately; later on those that are not 0, for as long as there is their pod."""
        found: list[Kills] = []
        until_ns: list[int] = []
        for (namespace, pod), name in sorted(self._names.items(), key=itemgetter(0)):
            for container, count in sorted(name.containers.items(), key=itemgetter(0)) if name.counted else ():
                if not count.kills and not count.held:
                    if count.seen_ns + self._linger_ns < now_ns:
                        continue
                    until_ns.append(count.seen_ns + self._linger_ns)
                found.append(Kills(namespace, pod, container, count.kills))
        self._due_ns = min(until_ns, default=now_ns + _FOREVER_NS)
        return tuple(found)
