"""One tick over an upstream's answers: take what came in, keep the last good of each, join. No I/O, no clock.

A bad answer leaves the last good one standing, with its age, until that is older than the limit; then there is nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from collector.errors import AnswerError, EndOfRecording
from collector.metrics.account import Account
from collector.model import METRICS_API as POD_METRICS
from collector.model import STATS_SUMMARY, Answer, NamesState, SourceName, Tally, Upstream
from collector.pods.naming import APISERVER, KUBELET, Naming
from collector.seams import AnswerSource, Clock
from collector.upstream import metrics_api, summary
from collector.upstream.join import Part, join
from collector.upstream.rates import Rates
from collector.upstream.samples import EMPTY, Snapshot, without_future

log = logging.getLogger(__name__)

AHEAD_NS = 60_000_000_000
"""How far the clock of another node may be ahead of ours: a sample that is later is of no time that there has been."""

UNUSABLE = "malformed"
"""The code of an answer that was given and is not what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the upstreams."""

    source: SourceName
    peer: str
    answer: str
    """The path of its answer in a recording."""
    parse: Callable[[bytes], Snapshot]
    rated: bool
    """True if its rates have to be settled from successive samples."""
    hints: Mapping[int, str]
    """What to do about a status."""


SUMMARY = Kind(
    source="summary",
    peer="the kubelet's /stats/summary",
    answer=STATS_SUMMARY,
    parse=summary.parse,
    rated=True,
    hints={403: "podtally's account needs get on nodes/stats, as daemonset/overlays/source-summary gives it"},
)
METRICS_API = Kind(
    source="metrics-api",
    peer="the metrics API",
    answer=POD_METRICS,
    parse=metrics_api.parse,
    rated=False,
    hints={
        403: "podtally's account needs list on pods.metrics.k8s.io, as daemonset/overlays/source-metrics-api"
        " gives it in its namespace",
        404: "the cluster has no metrics API: install metrics-server",
        503: "metrics-server, which answers for the metrics API, is not ready",
    },
)
KINDS: Mapping[str, Kind] = {kind.source: kind for kind in (SUMMARY, METRICS_API)}


def answer_name(name: str, namespace: str | None) -> str:
    """The name of an answer for one of several namespaces: ``metrics-api/team-a/pods.json``."""
    folder, _, file = name.partition("/")
    return name if namespace is None else f"{folder}/{namespace}/{file}"


@dataclass(slots=True, kw_only=True)
class Heard:
    """The last good answer of an upstream, for the node or for one namespace, and how it answers."""

    kind: Kind
    namespace: str | None = None
    rates: Rates = field(default_factory=Rates)
    state: str = "unknown"
    snapshot: Snapshot = EMPTY
    answered_ns: int | None = None

    def hear(self, answer: Answer, account: Account) -> bool:
        """Take an answer in; true if it is a good one. A bad one is told once, and leaves the last good one."""
        code = "error" if answer.status is None else str(answer.status)
        state = answer.failure
        if answer.status is not None and answer.status in self.kind.hints:
            state = f"{state} ({self.kind.hints[answer.status]})"
        snapshot = EMPTY
        if state is None and answer.body is not None:
            try:
                snapshot = self.kind.parse(answer.body)
            except AnswerError as error:
                state, code = str(error), UNUSABLE
        account.count_upstream(code)
        self._change(state or "ok")
        if state is not None:
            return False
        snapshot = without_future(snapshot, answer.time_ns + AHEAD_NS)
        self.snapshot = self.rates.settle(snapshot) if self.kind.rated else snapshot
        account.refused_samples += self.snapshot.refused + self.snapshot.refused_values
        self.answered_ns = answer.time_ns
        return True

    def _change(self, state: str) -> None:
        before, self.state = self.state, state
        if state == before:
            return
        where = f" for {self.namespace}" if self.namespace else ""
        if state == "ok":
            log.info("%s answers%s", self.kind.peer, where)
        else:
            log.warning("%s does not answer%s, what it said last stays for a while: %s", self.kind.peer, where, state)

    def is_before(self, oldest_ns: int) -> bool:
        """True if there is an answer, and it was asked for before then."""
        return self.answered_ns is not None and self.answered_ns < oldest_ns

    def forget(self) -> None:
        """Let go of the answer."""
        self.snapshot, self.answered_ns = EMPTY, None
        # A rate over the time without answers would be of a time that nobody looks at.
        self.rates = Rates()


@dataclass(slots=True, kw_only=True)
class _Stream(Heard):
    """What was heard, and the names of its pods."""

    naming: Naming = field(default_factory=Naming)

    def take(self, answers: Iterable[Answer], account: Account) -> bool:
        """Take what is of this stream; true if there was a good answer of the upstream."""
        own = {answer_name(name, self.namespace): name for name in (KUBELET, APISERVER, self.kind.answer)}
        mine = [answer._replace(name=own[answer.name]) for answer in answers if answer.name in own]
        good = [self.hear(answer, account) for answer in mine if answer.name == self.kind.answer]
        self.naming.keep = {pod.uid for pod in self.snapshot.pods if pod.uid is not None}
        self.naming.take(*mine)
        return any(good)

    def forget_before(self, oldest_ns: int) -> None:
        """Let go of an answer that is too old."""
        if self.is_before(oldest_ns):
            self.forget()
            log.warning("%s has not answered for too long: nothing of it is served any more", self.kind.peer)


class UpstreamCollector:
    """Ticks of an upstream; satisfies :class:`collector.loop.Ticking`."""

    def __init__(
        self,
        kind: Kind,
        *,
        clock: Clock,
        answers: AnswerSource,
        stale_after_ns: int,
        node_name: str,
        namespaces: Sequence[str] = (),
    ) -> None:
        """``namespaces``: of several, each has answers of its own; with none or one there is no telling them apart."""
        self.account = Account(kind.source)
        self._kind = kind
        self._clock = clock
        self._answers = answers
        self._stale_after_ns = stale_after_ns
        self._node_name = node_name
        named: Sequence[str | None] = namespaces if len(namespaces) > 1 else (None,)
        self._streams = [_Stream(kind=kind, namespace=namespace) for namespace in named]

    def tick(self) -> Tally:
        """Raises :class:`EndOfRecording`."""
        instant = self._clock.begin()
        answers = self._answers.take()
        fresh = False
        for stream in self._streams:
            fresh |= stream.take(answers, self.account)
            stream.forget_before(instant.time_ns - self._stale_after_ns)
        account = self.account
        account.refused_items = account.refused_samples + sum(one.naming.refused_items for one in self._streams)
        with account.lock:
            account.answers = _added([stream.naming.answers for stream in self._streams])
        result = join(
            [Part(one.snapshot, one.naming.pods) for one in self._streams if one.answered_ns is not None],
            instant,
            source=self._kind.source,
            upstream=self._state(),
            names=self._names(),
            node_name=self._node_name,
        )
        if fresh and result.wanted:
            self._answers.ask()
        return result

    def _state(self) -> Upstream:
        bad = [stream.state for stream in self._streams if stream.state != "ok"]
        answered = [stream.answered_ns for stream in self._streams if stream.answered_ns is not None]
        return Upstream(
            peer=self._kind.peer,
            state=bad[0] if bad else "ok",
            answered_ns=min(answered, default=None),
            stale_after_ns=self._stale_after_ns,
        )

    def _names(self) -> NamesState:
        state = _worst([stream.naming.state for stream in self._streams])
        if self._kind is METRICS_API and state.kubelet == "unknown":
            return replace(state, kubelet="not asked")
        return state

    def tallies(self) -> Iterator[Tally]:
        """The tallies of all frames of a recording."""
        while True:
            try:
                yield self.tick()
            except EndOfRecording:
                return

    def close(self) -> None:
        """Nothing is held."""


def _added(counts: Iterable[Mapping[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    total: dict[tuple[str, str], int] = {}
    for one in counts:
        for key, count in one.items():
            total[key] = total.get(key, 0) + count
    return total


_BEST_FIRST = ("kubelet", "apiserver", "memory", "none")


def _worst(states: Sequence[NamesState]) -> NamesState:
    """Of several namespaces' names the state that is the farthest from good; known if any are."""
    known = [state for state in states if state.known]
    return max(known or states, key=lambda state: (state.apiserver != "ok", _BEST_FIRST.index(state.source)))
