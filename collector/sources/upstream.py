"""The live upstreams of ``--source summary`` and ``--source metrics-api``, asked over HTTPS on a timer.

- kubelet: ``GET https://<node>:10250/stats/summary``, authorised as ``get nodes/stats``.
- API server: ``GET /apis/metrics.k8s.io/v1beta1/namespaces/<namespace>/pods``, the right that ``kubectl top pods``
  needs, and ``GET /api/v1/namespaces/<namespace>/pods`` for phases and running containers, from its cache.

Whatever goes wrong is an answer too, with status code and reason.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import aiohttp

from collector.model import Answer, Instant
from collector.sources.http import LiveAnswers, Question, fetch

_TIMEOUT_SECONDS = 10.0


def summary_path() -> str:
    """The kubelet's stats of the node and of all its pods."""
    return "/stats/summary"


def metrics_path(namespace: str | None) -> str:
    """The metrics API's list of pods; ``None``: of all namespaces."""
    return f"/apis/metrics.k8s.io/v1beta1{_within(namespace)}/pods"


def pods_path(namespace: str | None) -> str:
    """The API server's list of pods, from its cache; ``None``: of all namespaces."""
    return f"/api/v1{_within(namespace)}/pods?resourceVersion=0"


def _within(namespace: str | None) -> str:
    return "" if namespace is None else f"/namespaces/{namespace}"


class LiveClock:
    """The machine's clocks; satisfies :class:`collector.seams.Clock`."""

    def begin(self) -> Instant:
        """Now, on both clocks."""
        return Instant(time.time_ns(), time.monotonic_ns())


class Rounds(NamedTuple):
    """First rounds of questions, of several who ask."""

    events: tuple[threading.Event, ...]

    def wait(self, timeout: float) -> bool:
        """Wait until all are over; false if they are not by then."""
        end = time.monotonic() + timeout
        return all(event.wait(max(0.0, end - time.monotonic())) for event in self.events)


class LiveUpstream:
    """Asks the questions together, every ``interval`` seconds; satisfies :class:`collector.seams.AnswerSource`.

    Runs in an event loop; :meth:`take` and :meth:`ask` are called from the ticks' thread.
    """

    def __init__(
        self,
        questions: tuple[Question, ...],
        *,
        interval: float,
        names: LiveAnswers | None = None,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """``names``: who asks for the pods' names, if the questions do not. Each question's answer has its own name."""
        self._questions = questions
        self._interval = interval
        self._names = names
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        self._asked = threading.Event()
        self.first_round = Rounds((self._asked, *([names.first_round] if names is not None else [])))
        """Over once all have been asked, for names as well."""

    def take(self) -> list[Answer]:
        """What came in since, the last of each name. Names first: an answer is read with the names of its time."""
        with self._lock:
            taken = list(self._answers.values())
            self._answers.clear()
        return [*(self._names.take() if self._names is not None else ()), *taken]

    def ask(self) -> None:
        """Ask for the names again soon. The upstream is not asked more often: its samples would be the same."""
        if self._names is not None:
            self._names.ask()

    async def run(self) -> None:
        """Ask for ever."""
        await asyncio.gather(self._run(), *([self._names.run()] if self._names is not None else []))

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                begun = time.monotonic()
                answers = await asyncio.gather(*(self._fetch(session, one) for one in self._questions))
                with self._lock:
                    self._answers.update((answer.name, answer) for answer in answers)
                self._asked.set()
                await asyncio.sleep(max(0.0, begun + self._interval - time.monotonic()))

    async def _fetch(self, session: aiohttp.ClientSession, question: Question) -> Answer:
        return await fetch(session, question, timeout_seconds=self._timeout_seconds)


class OnDemand:
    """Asks a question beside those for names, while it is wanted alone; satisfies
    :class:`collector.seams.AnswerSource`.

    Runs in an event loop; :meth:`take`, :meth:`ask` and :meth:`want` are called from the ticks' thread.
    """

    def __init__(
        self,
        names: LiveAnswers,
        question: Question,
        *,
        interval: float,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """``interval``: seconds from one time that it is asked to the next, at the least."""
        self._names = names
        self._question = question
        self._interval = interval
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._wanted: Callable[[], None] | None = None
        self.first_round = names.first_round

    def take(self) -> list[Answer]:
        """What came in since, names first."""
        with self._lock:
            answer, self._answer = self._answer, None
        return [*self._names.take(), *([answer] if answer is not None else [])]

    def ask(self) -> None:
        """Ask for the names again soon."""
        self._names.ask()

    def want(self) -> None:
        """Ask the question now, or as soon as it may be asked again and is wanted then too."""
        if self._wanted is not None:
            self._wanted()

    async def run(self) -> None:
        """Ask for ever."""
        await asyncio.gather(self._names.run(), self._run())

    async def _run(self) -> None:
        loop, wanted = asyncio.get_running_loop(), asyncio.Event()

        def want() -> None:
            # A tick of the last moment may want it when the event loop is closed already.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(wanted.set)

        self._wanted = want
        async with aiohttp.ClientSession() as session:
            while True:
                # What was wanted while it could not be asked may not be wanted any more: the next tick says so.
                wanted.clear()
                await wanted.wait()
                begun = time.monotonic()
                answer = await fetch(session, self._question, timeout_seconds=self._timeout_seconds)
                with self._lock:
                    self._answer = answer
                await asyncio.sleep(max(0.0, begun + self._interval - time.monotonic()))
