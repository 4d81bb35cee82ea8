"""``podtally verify``: runs the comparison over a node, a recording or a cluster, and prints it.

Where ticks and answers come from is handed in; :mod:`collector.parity.verification` compares, and
:mod:`collector.parity.report` says it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from collector.errors import UsageError
from collector.model import Answer
from collector.parity import report
from collector.parity.verification import Row, Verification
from collector.seams import AnswerSource
from collector.terminal import progress


class Tap:
    """An answer source that shows what another one gave last, so that it can be compared with."""

    def __init__(self, inner: AnswerSource) -> None:
        self._inner = inner
        self.taken: list[Answer] = []

    def take(self) -> list[Answer]:
        """The answers, kept."""
        self.taken = self._inner.take()
        return self.taken

    def ask(self) -> None:
        """Hand the wish on."""
        self._inner.ask()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown, and how."""

    namespace: str | None
    containers: bool
    json: bool
    steps: report.Steps

    def rows(self, verification: Verification) -> list[Row]:
        """The rows of the namespace that is looked at."""
        return [row for row in verification.rows() if self.namespace in (None, row.namespace)]


class Live(NamedTuple):
    """A comparison that goes on while time passes."""

    verification: Verification
    advance: Callable[[], None]
    """Wait for the next tick or answers, and take them in."""
    stop: threading.Event


KEEP_SECONDS = 300.0
"""How long a comparison that goes on keeps what it has seen: some of the kubelet's samples, of every container."""

_LOOK_SECONDS = 5.0
"""How often the rows are looked at: it costs as much as some ticks."""


def run_for(live: Live, view: View, seconds: float) -> int:
    """Compare for so long, or until every running container has been compared with every peer that answers."""
    verification, stop = live.verification, live.stop
    begun = looked = time.monotonic()
    with progress("comparing") as bar:
        while not stop.is_set() and (passed := time.monotonic() - begun) < seconds:
            live.advance()
            bar(passed, seconds)
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                rows = verification.rows()
                if rows and verification.settled and not verification.waited_for(rows):
                    break
    return show(verification, view)


def watch(live: Live, view: View, interval: float) -> int:
    """Compare until stopped and show the table anew; with ``--json``, each row when it has come to be."""
    known: set[Row] = set()
    if view.json or not sys.stdout.isatty():
        while not live.stop.is_set():
            _pass(live, interval)
            rows = view.rows(live.verification)
            if view.json:
                # What ends after our last reading is not one yet.
                ready = {row for row in rows if not row.reason.startswith("newer")}
                _write_json(row for row in rows if row in ready and row not in known)
                known = ready
            elif rows:
                sys.stdout.write(report.render(rows, live.verification.tolerance, containers=view.containers) + "\n")
            sys.stdout.flush()
        return _status(view.rows(live.verification))
    import rich.live
    from rich.text import Text

    with rich.live.Live(Text(_WAITING), screen=True, auto_refresh=False) as screen:
        while not live.stop.is_set():
            _pass(live, interval)
            rows = view.rows(live.verification)
            text = report.render(rows, live.verification.tolerance, containers=view.containers) if rows else _WAITING
            refusals = "".join(report.refusal_text(one, view.steps) for one in live.verification.refusals)
            screen.update(Text(text + refusals, no_wrap=True), refresh=True)
    return _status(view.rows(live.verification))


_WAITING = "waiting for two samples of the kubelet's, which takes half a minute ..."


def _pass(live: Live, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not live.stop.is_set() and time.monotonic() < end:
        live.advance()


def show(verification: Verification, view: View) -> int:
    """Print what was found; 1 if anything is outside. Raises :class:`UsageError` if no peer has answered."""
    refusals = [report.refusal_text(one, view.steps) for one in verification.refusals]
    if not verification.answered:
        raise UsageError("there is nothing to compare with.\n" + "".join(refusals).rstrip())
    rows = view.rows(verification)
    if view.json:
        _write_json(rows)
    elif rows:
        sys.stdout.write(report.render(rows, verification.tolerance, containers=view.containers))
    sys.stdout.flush()
    sys.stderr.writelines(refusals)
    if not rows:
        where = f" in namespace {view.namespace}" if view.namespace else ""
        why = f": podtally's page: {verification.our_failure}" if verification.our_failure else ""
        raise UsageError(f"no pod{where} was seen by podtally and by a peer, so nothing was compared{why}")
    return _status(rows)


def _write_json(rows: Iterable[Row]) -> None:
    sys.stdout.writelines(report.as_json(row) + "\n" for row in rows)


def _status(rows: Sequence[Row]) -> int:
    return int(any(row.verdict == "outside" for row in rows))
