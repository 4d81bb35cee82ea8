"""A node that is alive, for tests of ``podtally serve`` as a process: cgroups whose counters grow, and a kubelet.

What is true of a node holds of this one: a pod's cgroup uses what its containers use and have used, a cgroup is there
with all its files at once, and a later one has a higher inode.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.helpers import DEADLINE_SECONDS, Handler, Peer, Running, served_in_thread, started, wait_until

MIB = 1 << 20

INTERVAL_SECONDS = 0.2
"""Between two ticks."""

_STEP_SECONDS = 0.02
"""How often the counters grow."""

# --- what the kubelet says ------------------------------------------------------------------------------------------


def container_id(word: str) -> str:
    """A container's id, the same for the same word."""
    return hashlib.sha256(word.encode()).hexdigest()


def pod_uid(word: str) -> str:
    """A pod's uid, likewise."""
    return str(uuid.UUID(hashlib.md5(word.encode()).hexdigest()))


def timestamp(seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def status(
    name: str, identity: str, state: dict[str, Any] | None = None, *, scheme: str = "containerd", **more: Any
) -> dict[str, Any]:
    """A container's status, running if no other state is given."""
    return {
        "name": name,
        "containerID": f"{scheme}://{identity}" if identity else "",
        "image": f"img/{name}:1",
        "state": {"running": {"startedAt": timestamp(time.time())}} if state is None else state,
        "lastState": {},
        **more,
    }


def pod(name: str, uid: str, *statuses: dict[str, Any], phase: str = "Running") -> dict[str, Any]:
    """A pod of namespace ``default``."""
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "uid": uid,
            "creationTimestamp": timestamp(time.time()),
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": one["name"]} for one in statuses]},
        "status": {"phase": phase, "qosClass": "Burstable", "containerStatuses": list(statuses)},
    }


def pod_list(*pods: dict[str, Any]) -> bytes:
    """The kubelet's answer."""
    return json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}).encode()


class Kubelet(Peer):
    """Answers with ``body``, or as ``answer`` does."""

    answer: Handler | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = await super().handle(request)
        return response if self.answer is None else await self.answer(request)

    @property
    def questions(self) -> int:
        """How often it was asked."""
        return len(self.asked)


# --- cgroups that use what they use ---------------------------------------------------------------------------------

KUBEPODS = "kubepods.slice"
BURSTABLE = f"{KUBEPODS}/kubepods-burstable.slice"


def pod_path(uid: str) -> str:
    """The cgroup of a pod, by the systemd driver."""
    return f"{BURSTABLE}/kubepods-burstable-pod{uid.replace('-', '_')}.slice"


@dataclass
class _Cgroup:
    path: str
    cores: float
    memory: int
    ino: int
    begun: float = field(default_factory=time.monotonic)

    def usec(self, now: float) -> int:
        return int((now - self.begun) * self.cores * 1e6)


class Node:
    """cgroups in a temporary folder, whose CPU counters a thread lets grow."""

    def __init__(self, folder: Path) -> None:
        self.root, self.proc, self._staging = folder / "cgroup", folder / "proc", folder / "staging"
        for one in (self.root, self.proc, self._staging):
            one.mkdir()
        (self.root / "cgroup.controllers").write_text("cpu memory io pids\n")
        (self.root / "cpu.stat").write_text(_cpu_stat(100))
        (self.root / "memory.stat").write_text("anon 1000\nfile 1000\ninactive_file 500\n")
        (self.proc / "meminfo").write_text("MemTotal: 8388608 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")
        self._lock = threading.Lock()
        self._leaves: dict[str, _Cgroup] = {}
        self._above: dict[str, int] = {}
        """What containers that have ended have used, by the cgroups above them."""
        self._highest = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        for path in (KUBEPODS, BURSTABLE):
            self.slice(path)

    def __enter__(self) -> Node:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def slice(self, path: str) -> None:
        """Make a cgroup that has what those below it have."""
        with self._lock:
            self._above[path] = 0
            self._make(path, 0)

    def add(self, path: str, cores: float = 0.0, memory: int = 64 << 10) -> None:
        """Make a container's cgroup, which uses so many cores, and has a memory of so many bytes."""
        with self._lock:
            self._leaves[path] = _Cgroup(path, cores, memory, self._make(path, memory))
            self._tell()

    def remove(self, path: str) -> None:
        """The container has ended."""
        with self._lock:
            self._tell()
            leaf = self._leaves.pop(path)
            used = leaf.usec(time.monotonic())
            for above in self._above:
                if path.startswith(f"{above}/"):
                    self._above[above] += used
            self._tell()
            shutil.rmtree(self.root / path)

    def _make(self, path: str, memory: int) -> int:
        """A cgroup with all its files; its inode, which is higher than those before."""
        while True:
            staged = tempfile.mkdtemp(dir=self._staging)
            ino = os.stat(staged).st_ino
            if ino > self._highest:
                break
            # It stays where it is, so that its inode is not given again.
        self._highest = ino
        for name, text in _files(memory).items():
            Path(staged, name).write_text(text)
        os.chmod(staged, 0o755)
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        os.rename(staged, self.root / path)
        return ino

    def _run(self) -> None:
        while not self._stop.wait(_STEP_SECONDS):
            with self._lock:
                self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        for above, ended in self._above.items():
            below = [leaf for path, leaf in self._leaves.items() if path.startswith(f"{above}/")]
            self._write(above, ended + sum(leaf.usec(now) for leaf in below), sum(leaf.memory for leaf in below))
        for path, leaf in self._leaves.items():
            self._write(path, leaf.usec(now), leaf.memory)

    def _write(self, path: str, usec: int, memory: int) -> None:
        """In place and of one length, as files are held open and read at any time."""
        for name, text in (("cpu.stat", _cpu_stat(usec)), ("memory.current", f"{memory:015d}\n")):
            with open(self.root / path / name, "r+") as file:
                file.write(text)


def _cpu_stat(usec: int) -> str:
    return f"usage_usec {usec:015d}\nuser_usec {usec:015d}\nsystem_usec 0\n"


def _files(memory: int) -> dict[str, str]:
    return {
        "cpu.stat": _cpu_stat(0),
        "memory.current": f"{memory:015d}\n",
        "memory.stat": f"anon {memory}\nfile 0\nkernel 0\ninactive_file 0\n",
        "memory.max": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
        "cgroup.events": "populated 1\nfrozen 0\n",
        "cpu.max": "max 100000\n",
        "pids.current": "1\n",
    }


# --- podtally beside it ---------------------------------------------------------------------------------------------


class Serving:
    """``podtally serve`` on such a node."""

    def __init__(self, running: Running, kubelet: Kubelet) -> None:
        self.running = running
        self.kubelet = kubelet
        self.url = running.url
        self.port = int(self.url.rpartition(":")[2])
        self._kept: HTTPConnection | None = None

    def get(self, path: str = "/metrics") -> tuple[int, str]:
        """Status and text of a page; over the connection that is kept, if one is."""
        if self._kept is not None:
            self._kept.request("GET", path)
            answer = self._kept.getresponse()
            return answer.status, answer.read().decode()
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=DEADLINE_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Ask over one connection, which is open from now on."""
        self._kept = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        try:
            self.get("/healthz")
            yield
        finally:
            self._kept.close()
            self._kept = None

    def series(self, name: str) -> dict[str, float]:
        """The values of a family on ``/metrics``, by their labels as they are written."""
        found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self.get()[1], re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def value(self, name: str) -> float | None:
        """The one value of a family; ``None`` if there is none."""
        values = list(self.series(name).values())
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def memory(self) -> float | None:
        """The one pod's sum."""
        return self.value("pod_memory_usage_bytes")

    def pods(self) -> list[dict[str, Any]]:
        """What ``/api/v1/pods`` lists; nothing before there is a tally."""
        pods: list[dict[str, Any]] = json.loads(self.get("/api/v1/pods")[1]).get("pods", [])
        return pods

    @property
    def ticks(self) -> int:
        """How many there were."""
        return round(sum(self.series("podtally_ticks_total").values()))

    def within(self, ticks: int, condition: Callable[[], bool]) -> bool:
        """Whether it comes true before so many ticks are over."""
        end = self.ticks + ticks
        while not (true := condition()) and self.ticks < end:
            time.sleep(0.02)
        return true

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until it is true."""
        wait_until(condition, every=0.02)

    def wait_for_ticks(self, count: int) -> None:
        """Wait until there were so many more: whatever was there before has been read by then."""
        end = self.ticks + count
        self.wait(lambda: self.ticks >= end)

    def wait_for_answers(self, count: int = 1) -> None:
        """Wait until the kubelet was asked so often from now on, and asked again, so that the last answer is in."""
        end = self.kubelet.questions + count + 1
        self.wait(lambda: self.kubelet.questions >= end)
        self.wait_for_ticks(2)


def node_flags(node: Node, kubelet_url: str) -> list[str | Path]:
    """The flags of a command that reads this node."""
    return ["--cgroup-root", node.root, "--proc-root", node.proc, "--kubelet-url", kubelet_url, "--node-name", "node-1"]


@contextmanager
def serving(node: Node, kubelet: Kubelet, *flags: str, most_files: int | None = None) -> Iterator[Serving]:
    """Start it, and wait until it is ready."""
    with served_in_thread(kubelet.handle) as url:
        often = ["--listen", "127.0.0.1:0", "--interval", f"{INTERVAL_SECONDS}s", "--window", "2s"]
        with started("serve", *node_flags(node, url), *often, *flags, most_files=most_files) as running:
            found = Serving(running, kubelet)
            found.wait(lambda: found.get("/readyz")[0] == 200)
            yield found
