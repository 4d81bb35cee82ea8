"""Cases of pods that cgroups tell nothing of, with what a kubelet's ``/stats/summary`` would say of them. Made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NamedTuple

from collector.loop import Collector
from collector.model import STATS_SUMMARY, Answer
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording
from collector.upstream.fill import Filling
from tests.support import SECOND_NS, case, collector_over

MEBIBYTE = 1 << 20


class Use(NamedTuple):
    """What the kubelet says that a container uses."""

    cores: float
    memory_bytes: int


CASES: Mapping[str, dict[str, Use]] = {
    "gvisor-only-sandbox": {"sidecar": Use(0.05, 40 * MEBIBYTE), "web": Use(0.2, 100 * MEBIBYTE)},
    "gvisor-empty-subcontainers": {"web": Use(0.25, 90 * MEBIBYTE)},
    "kata-zero": {"app": Use(0.1, 64 * MEBIBYTE)},
    "driver-mismatch": {"web": Use(0.25, 90 * MEBIBYTE)},
}
"""Of each case what the containers of its one pod use."""


def pod_of(name: str) -> tuple[str, str]:
    """Uid and name of a case's one pod."""
    [answer] = [one for one in case(name).frames[0].answers if one.name == "kubelet/pods.json"]
    metadata = json.loads(answer.body or b"")["items"][0]["metadata"]
    return metadata["uid"], metadata["name"]


def measured(seconds: int, at_ns: int, use: Use) -> dict[str, Any]:
    """A container's part of a summary, or a pod's: ``use`` for so many seconds, a thousand of them before."""
    time = datetime.fromtimestamp(at_ns // SECOND_NS, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    used_ns = round(use.cores * (1000 + seconds) * 1e9)
    return {
        "cpu": {"time": time, "usageCoreNanoSeconds": used_ns, "usageNanoCores": round(use.cores * 1e9)},
        "memory": {
            "time": time,
            "usageBytes": use.memory_bytes + MEBIBYTE,
            "workingSetBytes": use.memory_bytes,
            "rssBytes": MEBIBYTE,
        },
    }


def summary(seconds: int, at_ns: int, uid: str, uses: Mapping[str, Use], name: str = "p") -> dict[str, Any]:
    """The kubelet's answer about one pod; of the whole of it a tenth of a core and a MiB more."""
    whole = Use(
        sum(one.cores for one in uses.values()) + 0.1, sum(one.memory_bytes for one in uses.values()) + MEBIBYTE
    )
    containers = [{"name": name, **measured(seconds, at_ns, use)} for name, use in uses.items()]
    return {
        "pods": [
            {
                "podRef": {"namespace": "default", "name": name, "uid": uid},
                "containers": containers,
                **measured(seconds, at_ns, whole),
            }
        ]
    }


def answered(name: str, answer: Callable[[int, int], Answer | None] | None = None) -> Recording:
    """The case with an answer of the kubelet's every ten seconds, or what ``answer`` gives for a second and a time."""
    (uid, pod), uses = pod_of(name), CASES[name]

    def good(seconds: int, at_ns: int) -> Answer | None:
        body = json.dumps(summary(seconds, at_ns, uid, uses, pod)).encode()
        return Answer(STATS_SUMMARY, at_ns, 200, None, body)

    recorded, frames = case(name), []
    begun_ns = recorded.frames[0].instant.time_ns
    for frame in recorded.frames:
        seconds = (frame.instant.time_ns - begun_ns) // SECOND_NS
        one = (answer or good)(seconds, frame.instant.time_ns) if seconds % 10 == 0 else None
        frames.append(frame if one is None else replace(frame, answers=[*frame.answers, one]))
    return replace(recorded, frames=frames)


def filling(recorded: Recording, want: Callable[[], None] = lambda: None) -> Collector:
    """A collector over a recording that fills, as ``replay --fill-from summary`` makes it."""
    tree = RecordedTree(recorded)
    collector = collector_over(tree, RecordedAnswers(tree))
    collector.fill = Filling(collector.account, want).fill
    return collector
