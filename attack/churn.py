"""Ticks in a row over a node in memory whose pods come and go, whose clock jumps and whose files fail: nothing may grow.

The whole of a tick is run, from the walk to the tally, and every now and then each page is written. A tick that fails by
anything but the root's own errors is a defect, as :class:`collector.loop.Loop` counts it.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import math
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from attack.corpus import kernel_files
from collector.cgroup.walk import Walker
from collector.demand import Demand
from collector.errors import SourceError, classify
from collector.garbage import spare_collections
from collector.history import History
from collector.loop import Collector, LivePace, Loop
from collector.metrics import resource
from collector.metrics.cadvisor import CadvisorExposition
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import Answer, Instant
from collector.pods.naming import KUBELET
from collector.seams import Glimpse

SECOND_NS: Final = 1_000_000_000
MOST_CORES: Final = 1e5
"""No rate may be above: the counters grow by at most 10 s of CPU a tick, which is at least a tenth of a millisecond."""
_FAILURES: Final = (errno.EMFILE, errno.EIO, errno.ENODEV, errno.EACCES, errno.ENOMEM)
_JUMPS_SECONDS: Final = (-86400 * 365 * 20, -86400, -3600, -60, -1, 1, 60, 3600, 86400 * 365 * 20)
_STILL_SECONDS: Final = (1e-4, 0.1, 5.0, 90.0, 86400.0)
"""From tick to tick, now and then: a busy machine, one that sleeps."""
_CPU_STAT: Final = b"usage_usec %d\nuser_usec %d\nsystem_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"
_PAGES_EVERY: Final = 200
_LOOKS: Final = 20
"""At memory, in a run."""


class Node:
    """A cgroup in memory."""

    __slots__ = ("children", "failing", "files", "gone", "ino", "mtime_ns", "usage_usec")

    def __init__(self, ino: int, mtime_ns: int) -> None:
        self.ino = ino
        self.mtime_ns = mtime_ns
        self.children: dict[str, Node] = {}
        self.files = {name: texts[0] for name, texts in kernel_files().items() if "/" not in name}
        self.usage_usec = 0
        self.gone = False
        self.failing: int | None = None
        """The errno that opening, listing and reading it gives."""

    def remove(self, name: str) -> None:
        """A child goes, with all below it."""
        _let_go(self.children.pop(name))


def _let_go(node: Node) -> None:
    node.gone = True
    for child in node.children.values():
        _let_go(child)


class Held:
    """A directory that is held open; satisfies :class:`collector.seams.Directory`."""

    __slots__ = ("_forest", "_node", "_path", "ino", "mtime_ns")

    def __init__(self, forest: Forest, path: str, node: Node) -> None:
        self._forest = forest
        self._path = path
        self._node = node
        self.ino = node.ino
        self.mtime_ns: int | None = node.mtime_ns

    def _check(self) -> None:
        if self._node.gone:
            raise classify(errno.ENODEV, self._path, "read")
        if self._node.failing is not None:
            raise classify(self._node.failing, self._path, "read")

    def stamp(self) -> int:
        """The tick's."""
        return self._forest.monotonic_ns

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        """The children's names."""
        self._check()
        return list(self._node.children)

    def read(self, name: str) -> bytes:
        """A file."""
        self._check()
        data = self._node.files.get(name)
        if data is None:
            raise classify(errno.ENOENT, f"{self._path}/{name}", "file")
        return data

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        """Several files."""
        self._check()
        files = self._node.files
        return [
            files[name] if name in files else classify(errno.ENOENT, f"{self._path}/{name}", "file") for name in names
        ]

    def watch(self, names: tuple[str, ...]) -> None:
        """Nobody is told between two ticks."""

    def close(self) -> None:
        """Nothing is held."""


@dataclass(slots=True)
class Pod:
    """A pod, its cgroup's name and the ids of its containers: the sandbox' first."""

    uid: str
    name: str
    ids: list[str] = field(default_factory=list)


class Forest:
    """The node; satisfies :class:`collector.seams.Tree` and :class:`collector.seams.AnswerSource`."""

    def __init__(self, random: Random, pods: int) -> None:
        """``pods`` are there in the mean."""
        self._random = random
        self._mean = pods
        self.time_ns = 1_700_000_000 * SECOND_NS
        self.monotonic_ns = 100 * SECOND_NS
        self._made = 0
        self.changes = 0
        """Pods and containers that came or went."""
        self.jumps = 0
        """Of the clock."""
        self.failures = 0
        """Directories that failed for a tick."""
        self.root = self._node()
        self.root.files["cgroup.controllers"] = b"cpu memory\n"
        self._place = self.root.children["kubepods"] = self._node()
        self._pods: dict[str, Pod] = {}
        self._failing: list[Node] = []
        self._wanted = True
        for _ in range(pods):
            self._add()

    def _node(self) -> Node:
        self._made += 1
        return Node(self._made, self.time_ns)

    # --- what happens between two ticks

    def pass_on(self) -> None:
        """Time passes: counters grow, something comes or goes, and now and then the clock jumps or files fail."""
        random = self._random
        chance = random.random()
        step = SECOND_NS
        if chance < 0.02:
            self.time_ns = max(0, self.time_ns + random.choice(_JUMPS_SECONDS) * SECOND_NS)
            self.jumps += 1
        elif chance < 0.04:
            step = int(random.choice(_STILL_SECONDS) * SECOND_NS)
            self.jumps += 1
        self.time_ns += step
        self.monotonic_ns += step
        for node in self._failing:
            node.failing = None
        self._failing.clear()
        if 0.5 < chance < 0.65:
            self._change()
        if chance > 0.97:
            self._fail()
        self._use(self.root)

    def _change(self) -> None:
        random = self._random
        self.changes += 1
        kind = random.random()
        if not self._pods or (kind < 0.35 and len(self._pods) < 2 * self._mean):
            self._add()
            return
        uid = random.choice(list(self._pods))
        if kind < 0.6:
            del self._pods[uid]
            self._place.remove(f"pod{uid}")
        else:
            pod = self._pods[uid]
            node = self._place.children[f"pod{uid}"]
            if len(pod.ids) > 1:
                node.remove(pod.ids.pop())
            self._start(pod, node)

    def _add(self) -> None:
        number = self._made
        pod = Pod(f"{number:08x}-0000-4000-8000-{number:012x}", f"pod-{number}")
        node = self._place.children[f"pod{pod.uid}"] = self._node()
        for _ in range(2):
            self._start(pod, node)
        self._pods[pod.uid] = pod

    def _start(self, pod: Pod, node: Node) -> None:
        leaf = f"{self._made:064x}"
        node.children[leaf] = self._node()
        pod.ids.append(leaf)

    def _fail(self) -> None:
        node = self._place
        while node.children and (node is self._place or self._random.random() < 0.5):
            node = self._random.choice(list(node.children.values()))
        node.failing = self._random.choice(_FAILURES)
        self._failing.append(node)
        self.failures += 1

    def _use(self, node: Node) -> int:
        """A cgroup's counters grow by what is used below it."""
        used = sum(map(self._use, node.children.values())) if node.children else int(self._random.random() ** 4 * 1e7)
        node.usage_usec += used
        usage = node.usage_usec
        node.files["cpu.stat"] = _CPU_STAT % (usage, usage)
        node.files["memory.current"] = b"%d\n" % (usage % (1 << 30))
        return used

    # --- the seams

    def begin(self) -> Instant:
        """Now."""
        return Instant(self.time_ns, self.monotonic_ns)

    def open(self, path: str) -> Held:
        """A directory."""
        node = self.root
        for name in () if path == "." else path.split("/"):
            found = node.children.get(name)
            if found is None:
                raise classify(errno.ENOENT, path, "directory")
            node = found
        if node.failing is not None:
            raise classify(node.failing, path, "directory")
        return Held(self, path, node)

    def glimpses(self) -> list[Glimpse]:
        """Nothing was seen between ticks."""
        return []

    def read_proc(self, name: str) -> bytes:
        """A file of ``/proc``: there are none."""
        raise classify(errno.ENOENT, f"/proc/{name}", "file")

    def take(self) -> list[Answer]:
        """The kubelet's list, when it was asked for: late by chance, and at times cut short."""
        if not self._wanted or self._random.random() < 0.3:
            return []
        self._wanted = False
        body = json.dumps({"items": [_item(pod) for pod in self._pods.values()]}).encode()
        if self._random.random() < 0.05:
            body = body[: len(body) // 2]
        return [Answer(KUBELET, self.time_ns, 200, None, body)]

    def ask(self) -> None:
        """For the next tick."""
        self._wanted = True


def _item(pod: Pod) -> dict[str, Any]:
    statuses = [
        {"name": f"c{place}", "containerID": f"containerd://{leaf}", "state": {"running": {}}}
        for place, leaf in enumerate(pod.ids[1:])
    ]
    return {
        "metadata": {"name": pod.name, "namespace": "ns", "uid": pod.uid, "labels": {"app": pod.name}},
        "status": {"phase": "Running", "qosClass": "Guaranteed", "containerStatuses": statuses},
    }


# --- the run --------------------------------------------------------------------------------------------------------


class Churned(NamedTuple):
    """What came of a run."""

    ticks: int
    changes: int
    jumps: int
    failures: int
    wrong: tuple[str, ...]
    """What must not have been."""
    rss_bytes: tuple[int, ...]
    """At as many moments, evenly apart."""

    @property
    def growth_bytes(self) -> int:
        """From after the first quarter, by when all caches are warm, to the end."""
        return self.rss_bytes[-1] - max(self.rss_bytes[: 1 + len(self.rss_bytes) // 4])


def rss_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def churn(seed: int, ticks: int, deadline: float = math.inf, pods: int = 1) -> Churned:
    """Ticks over a node of a few pods, until ``deadline`` (monotonic)."""
    forest = Forest(Random(f"churn/{seed}"), pods)
    demand = Demand()
    collector = Collector(
        walker=Walker(forest, slow_every=10, needs=needs(DEFAULT_GROUPS), seldom_wanted=demand.at),
        answers=forest,
        history=History(window_ns=15 * SECOND_NS, interval_ns=SECOND_NS),
        node_name="churn",
    )
    loop = Loop(collector, LivePace(1.0))
    native, cadvisor = NativeExposition(Selection(pod_labels=("app",))), CadvisorExposition(timestamps=False)
    wrong: list[str] = []
    looks: list[int] = []
    done = 0
    for done in range(1, ticks + 1):
        forest.pass_on()
        loop.tick()
        wrong += _wrong(loop)
        published = loop.published
        if published is not None and done % _PAGES_EVERY == 0:
            native.render(published.tally, openmetrics=False)
            cadvisor.render(published.tally, openmetrics=False)
            resource.render(published.tally, openmetrics=False)
        if done % max(1, ticks // _LOOKS) == 0:
            looks.append(rss_bytes())
        if len(wrong) > 5 or (done % 1000 == 0 and time.monotonic() > deadline):
            break
    looks.append(rss_bytes())
    collector.close()
    return Churned(done, forest.changes, forest.jumps, forest.failures, tuple(wrong), tuple(looks))


def _wrong(loop: Loop) -> list[str]:
    if loop.failure is not None:
        return [loop.failure] if loop.failure.startswith("defect") else []
    published = loop.published
    if published is None:
        return []
    rates = [rate for pod in published.tally.pods for rate in (pod.cpu_cores, pod.cpu_peak_cores) if rate is not None]
    return [f"a pod uses {rate} cores" for rate in rates if not 0 <= rate <= MOST_CORES]


def run(seed: int, ticks: int, deadline: float, workers: int) -> Sequence[Churned]:
    """The same on so many processes, each with its part of the ticks."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        parts = [pool.submit(churn, seed + part, -(-ticks // workers), deadline) for part in range(workers)]
        return [part.result() for part in parts]


def _prepare() -> None:
    os.nice(19)
    logging.disable()
    gc.collect()
    spare_collections()
