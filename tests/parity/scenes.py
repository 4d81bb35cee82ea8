"""Made-up nodes for comparisons that no recording holds: our readings, and the peers' answers over the same time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from collector.model import Answer
from collector.parity.readings import NS_PER_SECOND, Point
from collector.parity.resource import Owner
from collector.parity.verification import Quantity, Row, Source, Verification

START_SECONDS = 1_700_000_000
MIB = 1 << 20

POD = Owner("shop", "web-0", "")
WEB = Owner("shop", "web-0", "web")
SIDECAR = Owner("shop", "web-0", "sidecar")

Course = Callable[[float], float]
"""A value by the seconds since the start."""


def steady(millicores: float) -> Course:
    """CPU seconds of a container that always uses so much, and used some before."""
    return lambda seconds: 12 + seconds * millicores / 1000


def always(value: float) -> Course:
    """A value that stays."""
    return lambda _: value


TEN_MIB = always(10 * MIB)


def at_ns(seconds: float) -> int:
    """Wall time of a moment of the scene."""
    return START_SECONDS * NS_PER_SECOND + round(seconds * NS_PER_SECOND)


class Scene:
    """A node with readings a second apart."""

    def __init__(self, tolerance: float = 0.1) -> None:
        self.verification = Verification(tolerance)

    def read(
        self,
        owner: Owner,
        cpu_seconds: Course,
        memory_bytes: Course = TEN_MIB,
        *,
        seconds: range = range(61),
        identity: str = "",
        started: float | None = None,
    ) -> Scene:
        """Our readings of an owner."""
        readings = self.verification.readings
        for second in seconds:
            point = Point(at_ns(second), round(cpu_seconds(second) * 1e6), round(memory_bytes(second)))
            started_ns = None if started is None else at_ns(started)
            readings.add(owner, identity or str(owner), started_ns, point)
        if owner.container and owner.container[0] != "(":
            pod = owner._replace(container="")
            names = {*readings.running.get(pod, ()), owner.container}
            readings.running = {**readings.running, pod: tuple(sorted(names))}
        return self

    def kubelet(
        self,
        seconds: float,
        samples: Mapping[Owner, tuple[float, float]],
        *,
        starts: Mapping[Owner, float] | None = None,
    ) -> Scene:
        """An answer of ``/metrics/resource`` with samples of one moment: CPU seconds and bytes."""
        lines = []
        for owner, (cpu, memory) in samples.items():
            kind = "container" if owner.container else "pod"
            labels = f'namespace="{owner.namespace}",pod="{owner.pod}"'
            labels += f',container="{owner.container}"' if owner.container else ""
            milliseconds = round((START_SECONDS + seconds) * 1000)
            lines.append(f"{kind}_cpu_usage_seconds_total{{{labels}}} {cpu!r} {milliseconds}")
            lines.append(f"{kind}_memory_working_set_bytes{{{labels}}} {memory!r} {milliseconds}")
            if starts and owner in starts:
                lines.append(f"container_start_time_seconds{{{labels}}} {START_SECONDS + starts[owner]!r}")
        self._answer("kubelet/metrics_resource.txt", seconds, "\n".join((*lines, "")).encode())
        return self

    def metrics_api(
        self, seconds: float, window: float, containers: Mapping[Owner, tuple[float, float]], *, answered: float
    ) -> Scene:
        """An answer of the metrics API: a window that ends at ``seconds``, cores and bytes."""
        pods: dict[Owner, list[dict[str, Any]]] = {}
        for owner, (cores, memory) in containers.items():
            usage = {"cpu": f"{round(cores * 1e9)}n", "memory": str(round(memory))}
            pods.setdefault(owner._replace(container=""), []).append({"name": owner.container, "usage": usage})
        items = [
            {
                "metadata": {"namespace": pod.namespace, "name": pod.pod},
                "timestamp": _time_text(seconds),
                "window": f"{window}s",
                "containers": listed,
            }
            for pod, listed in pods.items()
        ]
        self._answer("metrics-api/pods.json", answered, json.dumps({"items": items}).encode())
        return self

    def summary(self, seconds: float, owner: Owner, nanocores: int | None, memory: int) -> Scene:
        """An answer of ``/stats/summary`` of one container."""
        cpu = {"time": _time_text(seconds), "usageCoreNanoSeconds": 1}
        container = {
            "name": owner.container,
            "cpu": cpu | ({} if nanocores is None else {"usageNanoCores": nanocores}),
            "memory": {"time": _time_text(seconds), "workingSetBytes": memory},
        }
        pod = {"podRef": {"namespace": owner.namespace, "name": owner.pod}, "containers": [container]}
        self._answer("kubelet/stats_summary.json", seconds, json.dumps({"pods": [pod]}).encode())
        return self

    def refuse(self, name: str, status: int | None, error: str) -> Scene:
        """A peer that gives nothing."""
        self.verification.add_answer(Answer(name, at_ns(60), status, error, None))
        return self

    def _answer(self, name: str, seconds: float, body: bytes) -> None:
        self.verification.add_answer(Answer(name, at_ns(seconds), 200, None, body))

    def row(self, owner: Owner, source: Source, quantity: Quantity = "cpu") -> Row:
        """The one row of an owner, a peer and a quantity."""
        found = [
            row
            for row in self.verification.rows()
            if (row.namespace, row.pod, row.container or "") == owner
            and (row.source, row.quantity) == (source, quantity)
        ]
        assert len(found) == 1, found
        return found[0]


def _time_text(seconds: float) -> str:
    moment = datetime.fromtimestamp(int(START_SECONDS + seconds), tz=timezone.utc)
    return moment.isoformat().replace("+00:00", "Z")
