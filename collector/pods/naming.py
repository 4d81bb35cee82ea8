"""The last known names, and where they come from.

Answers go in as they arrive, live or from a recording; out come the pods by uid and a state that is told in a metric,
in ``/readyz`` and, once per change, in the log.

The kubelet names the pods as long as it answers. When it refuses or cannot be reached, the API server's list of the
node's pods does; when neither answers, the last known names stay.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Literal

from collector.errors import AnswerError
from collector.model import Answer, NamesState, Pod
from collector.pods.answer import parse_pods

log = logging.getLogger(__name__)

KUBELET = "kubelet/pods.json"
APISERVER = "apiserver/pods.json"

_PEERS = {KUBELET: "the kubelet", APISERVER: "the API server"}


class Naming:
    """Names of pods and containers. Not thread-safe."""

    def __init__(self) -> None:
        self._pods: dict[str, dict[str, Pod]] = {}
        self._taken_ns: dict[str, int] = {}
        self._state = {KUBELET: "unknown", APISERVER: "unknown"}
        self._source: Literal["kubelet", "apiserver", "memory", "none"] = "none"
        self._from: str | None = None
        self._running_of: Mapping[str, Pod] = {}
        self._running_uids: frozenset[str] = frozenset()
        self.keep: Collection[str] = ()
        """Uids that still have a cgroup: a list without them does not take their names away, as that of a kubelet that
        has just started, or of one that has let go of a pod before its cgroup is gone."""
        self.refused_items = 0
        """Items of answers that are no pods, in all."""
        self.answers: dict[tuple[str, str], int] = {}
        """Answers in all, by (source, code): the HTTP status, or ``error`` where nothing answered."""

    def take(self, *answers: Answer) -> None:
        """Take answers in that came together. One that is no list of pods changes the state, never the names."""
        for answer in answers:
            if answer.name in _PEERS:
                self._take(answer)
        self._choose()

    def _take(self, answer: Answer) -> None:
        code = "error" if answer.status is None else str(answer.status)
        key = (answer.name.partition("/")[0], code)
        self.answers[key] = self.answers.get(key, 0) + 1
        state = "ok"
        if answer.body is None or answer.status != 200:
            state = answer.failure or "no answer"
        else:
            try:
                listed = parse_pods(answer.body, f"HTTP {answer.status}", answer.time_ns)
            except AnswerError as error:
                state = str(error)
            else:
                self.refused_items += listed.refused
                known = self.pods
                kept = {uid: known[uid] for uid in self.keep if uid in known and uid not in listed.pods}
                self._pods[answer.name] = kept | listed.pods
                self._taken_ns[answer.name] = answer.time_ns
        self._change(answer.name, state)

    def _change(self, name: str, state: str) -> None:
        before = self._state[name]
        self._state[name] = state
        if state != before:
            if state == "ok":
                log.info("%s answers with the pods", _PEERS[name])
            else:
                log.warning("%s does not name the pods: %s", _PEERS[name], state)

    def _choose(self) -> None:
        """The best source by now: told once, after all answers that came together, as one may stand in for another."""
        source: Literal["kubelet", "apiserver", "memory", "none"] = self._source
        if self._state[KUBELET] == "ok":
            source, self._from = "kubelet", KUBELET
        elif self._state[APISERVER] == "ok":
            source, self._from = "apiserver", APISERVER
        elif self._taken_ns:
            source = "memory"
            self._from = max(self._taken_ns, key=lambda taken: self._taken_ns[taken])
        if source != self._source:
            self._source = source
            if source == "memory":
                log.warning("neither the kubelet nor the API server names the pods: the last known names are used")
            elif source == "apiserver" and self._state[KUBELET] != "unknown":
                log.warning("names are taken from the API server until the kubelet answers")

    @property
    def pods(self) -> Mapping[str, Pod]:
        """Pods by the uid in their cgroup's name."""
        return self._pods.get(self._from, {}) if self._from else {}

    @property
    def running_uids(self) -> frozenset[str]:
        """Uids of the pods that run, which have a cgroup with processes on this node. Made anew as the names change."""
        pods = self.pods
        if pods is not self._running_of:
            self._running_of = pods
            self._running_uids = frozenset(
                uid
                for uid, pod in pods.items()
                if pod.phase == "Running" and any(container.running for container in pod.containers.values())
            )
        return self._running_uids

    @property
    def state(self) -> NamesState:
        """Where the names come from."""
        return NamesState(
            source=self._source,
            kubelet=self._state[KUBELET],
            apiserver=self._state[APISERVER],
            age_since_ns=self._taken_ns.get(self._from) if self._from else None,
        )
