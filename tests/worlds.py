"""A made-up node whose truth is known: pods and containers that start, end, hide and cannot be read, and a kubelet that
knows of it late. It is read as a real one is, by the walk, the names and the tally.
"""

from __future__ import annotations

import errno
import hashlib
import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from collector.loop import Collector
from collector.model import Answer, Tally
from tests.support import SECOND_NS, Cgroup, MemoryTree, NoAnswers, collector_over

MEBIBYTE: Final = 1 << 20
SANDBOX_BYTES: Final = 200 << 10
SIDE: Final = "system.slice"


@dataclass
class Life:
    """A container from its making to its end."""

    container_id: str
    made: int
    """The second of its making; it runs from the next one on."""
    ino: int
    elsewhere: bool
    ended: int | None = None


@dataclass
class TrueContainer:
    """A container of a pod's spec, with the truth about it."""

    name: str
    milli: int
    """CPU that it uses while it lives."""
    memory_bytes: int
    lives: list[Life] = field(default_factory=list)
    refused: int | None = None
    """The errno that opening its leaf gives."""

    @property
    def life(self) -> Life | None:
        """The one of now, if it lives."""
        return self.lives[-1] if self.lives and self.lives[-1].ended is None else None


@dataclass
class TruePod:
    """A pod, and what its cgroup has counted."""

    name: str
    uid: str
    containers: list[TrueContainer]
    has_sandbox: bool
    ino: int
    made: int
    used_usec: int = 0
    hidden_milli: int = 0
    """CPU of something in its cgroup that is in no leaf of its own."""
    used: dict[str, int] = field(default_factory=dict)
    """CPU in microseconds, by container id."""

    @property
    def path(self) -> str:
        """Of its cgroup."""
        word = self.uid.replace("-", "_")
        return f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{word}.slice"


def _id(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()


def _files(usage_usec: int, memory_bytes: int, *, populated: bool = True) -> dict[str, bytes | int]:
    return {
        "cpu.stat": f"usage_usec {usage_usec}\nuser_usec {usage_usec}\nsystem_usec 0\n".encode(),
        "memory.current": f"{memory_bytes}\n".encode(),
        "memory.stat": b"anon 1\nfile 1\ninactive_file 0\n",
        "cgroup.events": f"populated {int(populated)}\nfrozen 0\n".encode(),
    }


class Kubelet(NoAnswers):
    """Answers when asked, and every ``every`` seconds; it knows what was so ``late`` seconds ago."""

    def __init__(self, world: World, *, late: int, every: int) -> None:
        super().__init__()
        self._world = world
        self.late = late
        self._every = every
        self._wanted = True
        self.silent = False
        """It refuses."""

    def take(self) -> list[Answer]:
        """What was asked for before this tick's walk began."""
        now = self._world.tree.seconds
        wanted, self._wanted = self._wanted or now % self._every == 0, False
        if not wanted:
            return []
        time_ns = self._world.wall_ns(now) - SECOND_NS // 2
        if self.silent:
            return [Answer("kubelet/pods.json", time_ns, 503, "busy", None)]
        return [Answer("kubelet/pods.json", time_ns, 200, None, self._world.pod_list(now - self.late))]

    def ask(self) -> None:
        """Wanted for the next tick."""
        super().ask()
        self._wanted = True


class World:
    """The node. Change it between ticks, and look at each tally."""

    def __init__(self, *, late: int, every: int = 10) -> None:
        self.pods: list[TruePod] = []
        self.tree = MemoryTree({".": Cgroup(1, _files(1, 1))})
        self.kubelet = Kubelet(self, late=late, every=every)
        self._ino = 10
        self._made = 0
        self.collector: Collector = collector_over(self.tree, self.kubelet)

    def wall_ns(self, second: int) -> int:
        """As the tree has it."""
        return (1_700_000_000 + second) * SECOND_NS

    def add_pod(self, name: str, containers: list[TrueContainer], *, has_sandbox: bool) -> TruePod:
        """A pod whose containers have yet to be started."""
        uid = str(uuid.UUID(_id(name)[:32]))
        pod = TruePod(name, uid, containers, has_sandbox, self._next_ino(), self.tree.seconds)
        self._next_ino()  # the sandbox', right after its pod's
        self.pods.append(pod)
        return pod

    def start(self, pod: TruePod, one: TrueContainer, *, elsewhere: bool = False) -> None:
        """Make its next life."""
        self._made += 1
        container_id = _id(f"{pod.name} {one.name} {self._made}")
        one.lives.append(Life(container_id, self.tree.seconds, self._next_ino(), elsewhere))

    def end(self, one: TrueContainer) -> None:
        """It ends, and its leaf goes."""
        if one.life is not None:
            one.life.ended = self.tree.seconds

    def _next_ino(self) -> int:
        self._ino += 1
        return self._ino

    def tick(self) -> Tally:
        """A second passes, and is looked at."""
        for pod in self.pods:
            pod.used_usec += pod.hidden_milli * 1000
            for one in pod.containers:
                if one.life is not None:
                    used = pod.used.get(one.life.container_id, 5000) + one.milli * 1000
                    pod.used[one.life.container_id] = used
                    if not one.life.elsewhere:
                        pod.used_usec += one.milli * 1000
        self.tree.cgroups = self._cgroups()
        return self.collector.tick()

    def _cgroups(self) -> dict[str, Cgroup]:
        found = {
            ".": Cgroup(1, _files(1, 1)),
            "kubepods.slice": Cgroup(2, _files(1, 1)),
            "kubepods.slice/kubepods-burstable.slice": Cgroup(3, _files(1, 1)),
            SIDE: Cgroup(4, _files(1, 1)),
        }
        for pod in self.pods:
            made_ns = self.wall_ns(pod.made)
            memory = sum(one.memory_bytes for one in pod.containers if one.life is not None) + SANDBOX_BYTES
            found[pod.path] = Cgroup(pod.ino, _files(pod.used_usec + 40_000, memory), made_ns)
            if pod.has_sandbox:
                leaf = f"{pod.path}/cri-containerd-{_id(pod.name + ' sandbox')}.scope"
                found[leaf] = Cgroup(pod.ino + 1, _files(30_000, SANDBOX_BYTES), made_ns)
            for one in pod.containers:
                life = one.life
                if life is None:
                    continue
                name = f"cri-containerd-{life.container_id}.scope"
                where = f"{SIDE}/{pod.path.rpartition('/')[2]}:{name}" if life.elsewhere else f"{pod.path}/{name}"
                files = _files(pod.used[life.container_id], one.memory_bytes)
                found[where] = Cgroup(life.ino, files, self.wall_ns(life.made), opening=one.refused)
        return found

    # --- what the kubelet says

    def pod_list(self, second: int) -> bytes:
        """The list of pods with what was so at ``second``."""
        return json.dumps({"items": [self._item(pod, second) for pod in self.pods if pod.made <= second]}).encode()

    def _item(self, pod: TruePod, second: int) -> dict[str, Any]:
        statuses = [self._status(one, second) for one in pod.containers]
        phase = "Running" if any("containerID" in one for one in statuses) else "Pending"
        return {
            "metadata": {"namespace": "ns", "name": pod.name, "uid": pod.uid, "creationTimestamp": _text(0)},
            "spec": {"restartPolicy": "Always"},
            "status": {"phase": phase, "qosClass": "Burstable", "containerStatuses": statuses},
        }

    def _status(self, one: TrueContainer, second: int) -> dict[str, Any]:
        known = [life for life in one.lives if life.made <= second]
        if not known:
            return {"name": one.name, "state": {"waiting": {"reason": "ContainerCreating"}}}
        life = known[-1]
        named = {"name": one.name, "containerID": f"containerd://{life.container_id}"}
        before = known[-2].container_id if len(known) > 1 else None
        last = {"terminated": {"containerID": f"containerd://{before}", "exitCode": 1}} if before else {}
        if life.ended is not None and life.ended <= second:
            ended = {"containerID": named["containerID"], "exitCode": 1}
            return {**named, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": ended}}
        if life.made == second:
            return {**named, "state": {"waiting": {}}, "lastState": last}
        return {**named, "state": {"running": {"startedAt": _text(life.made)}}, "lastState": last}


def _text(second: int) -> str:
    return datetime.fromtimestamp(1_700_000_000 + second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


REFUSALS: Final = (errno.EMFILE, errno.EACCES, errno.EIO)
"""What opening a leaf's directory may give."""
