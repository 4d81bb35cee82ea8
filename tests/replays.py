"""Collectors over the fixtures, as ``podtally replay`` makes them."""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import zstandard

from collector.cgroup.files import EVERYTHING, Needs
from collector.cgroup.walk import Walker
from collector.history import History
from collector.loop import Collector
from collector.model import SourceName, Tally
from collector.parity.cadvisor import partitions
from collector.parity.resource import parse
from collector.sources.archive import Member
from collector.sources.frames import RecordedFrame
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording, assemble
from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree
from collector.upstream.collect import KINDS, UpstreamCollector
from tests.support import FIXTURES, collector_over, recording


def replayed(name: str, needs: Needs = EVERYTHING) -> Collector:
    """A collector that has ticked no frame of the fixture yet; what it does not need it does not read."""
    recorded = recording(name)
    tree = RecordedTree(recorded)
    return Collector(
        walker=Walker(tree, slow_every=1, needs=needs),
        answers=RecordedAnswers(tree),
        history=History(window_ns=15_000_000_000, interval_ns=recorded.interval_ns),
        node_name=recorded.meta.node,
    )


def replayed_upstream(
    recorded: str | Recording, source: SourceName, *, stale_after: float = 120.0
) -> UpstreamCollector:
    """A collector over the answers of an upstream beside a fixture's frames, as ``replay --source`` makes it."""
    recorded = recording(recorded) if isinstance(recorded, str) else recorded
    tree = RecordedTree(recorded)
    return UpstreamCollector(
        KINDS[source],
        clock=tree,
        answers=RecordedAnswers(tree),
        stale_after_ns=round(stale_after * 1e9),
        node_name=recorded.meta.node if source == "summary" else "",
    )


@cache
def last_tally(name: str) -> Tally:
    """The tally of a fixture's last frame."""
    return list(replayed(name).tallies())[-1]


@cache
def first_frames(name: str, count: int) -> Recording:
    """So many frames of a captured fixture, of which no more is read; nor its ``recording.json``, which comes last."""
    files = {"recording.json": b'{"version": 1, "node": "node1"}'}
    with zstandard.open(FIXTURES / name, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            found = re.search(r"(?:^|/)(frames/(\d+)/.+)", member.name)
            if found is None or not member.isfile():
                continue
            if int(found[2]) >= count:
                break
            contents = archive.extractfile(member)
            assert contents is not None
            files[found[1]] = contents.read()
    return assemble(name, [Member(path, data, 0) for path, data in files.items()])


# --- recordings made of recordings ------------------------------------------------------------------------------------

_COLUMNS = {
    "receive_bytes": 0,
    "receive_packets": 1,
    "receive_errors": 2,
    "receive_packets_dropped": 3,
    "transmit_bytes": 8,
    "transmit_packets": 9,
    "transmit_errors": 10,
    "transmit_packets_dropped": 11,
}
_PAGE = "kubelet/metrics_cadvisor.txt"


def completed(recorded: Recording) -> Recording:
    """The recording with the files of /proc that it lacks, made of the kubelet's own page: the name of its disk, and
    the interfaces of each sandbox and of the node.
    """
    return replace(recorded, frames=[_completed(frame) for frame in recorded.frames])


def _completed(frame: RecordedFrame) -> RecordedFrame:
    page = next(one.body for one in frame.answers if one.name == _PAGE and one.body).decode()
    counters: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for sample in parse(page):
        found = re.fullmatch(r"container_network_(\w+)_total", sample.key.name)
        if found:
            labels = dict(sample.key.labels)
            counters[labels["id"]].setdefault(labels["interface"], [0] * 16)[_COLUMNS[found[1]]] = int(sample.value)
    proc = dict(frame.proc) | {"partitions": partitions(page)}
    for of, interfaces in counters.items():
        process = "1" if of == "/" else frame.files.get(f"{of[1:]}/cgroup.procs", b"").decode().strip()
        lines = "".join(f"{name}: {' '.join(map(str, numbers))}\n" for name, numbers in interfaces.items())
        if process:
            proc[f"{process}/net/dev"] = f"Inter-| Receive | Transmit\n face |bytes |bytes\n{lines}".encode()
    return replace(frame, proc=proc)


def write(recorded: Recording, out: Path) -> Path:
    """A recording as ``record`` writes it, of one in memory."""
    tree = RecordedTree(recorded)
    with RecordingWriter(str(out), recorded.meta) as writer:
        tee = TeeTree(tree, writer)
        for _ in collector_over(tee, TeeAnswers(RecordedAnswers(tree), tee)).tallies():
            pass
        tee.flush()
    return out
