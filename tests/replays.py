"""Collectors over the fixtures, as ``podtally replay`` makes them."""

from __future__ import annotations

from functools import cache

from collector.cgroup.files import EVERYTHING, Needs
from collector.cgroup.walk import Walker
from collector.history import History
from collector.loop import Collector
from collector.model import SourceName, Tally
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.upstream.collect import KINDS, UpstreamCollector
from tests.support import recording


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


def replayed_upstream(name: str, source: SourceName, *, stale_after: float = 120.0) -> UpstreamCollector:
    """A collector over the answers of an upstream beside a fixture's frames, as ``replay --source`` makes it."""
    recorded = recording(name)
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
