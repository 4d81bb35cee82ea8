"""The loop: tick after tick, walk, name, tally, publish. One thread, no HTTP.

A tick that fails leaves the last tally standing, and its age tells of it; nothing that a tick meets ends the loop but
the end of a recording and :meth:`Loop.stop`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from collector.cgroup.walk import Walker
from collector.errors import EndOfRecording, PodtallyError, SourceError, UsageError
from collector.history import History
from collector.metrics.account import Account
from collector.model import Answer, Frame, Tally
from collector.pods.naming import Naming
from collector.seams import AnswerSource
from collector.tally import tally

log = logging.getLogger(__name__)

_FIRST_ASK_NS = 1_000_000_000
_LAST_ASK_NS = 30_000_000_000
"""How long to wait before asking again for a name that no answer has given, doubling from the first to the last."""
_STARTING_ASK_NS = 2_000_000_000
_STARTING_NS = 30_000_000_000
"""The longest while a container starts, and for how long: so that its pod is whole some 2 s after it runs."""


class Collector:
    """One tick, whole: frame, names, tally. No clock of its own."""

    def __init__(
        self,
        *,
        walker: Walker,
        answers: AnswerSource,
        history: History,
        node_name: str,
        adjust: Callable[[Frame], Frame] | None = None,
    ) -> None:
        """``adjust`` changes each frame before it is tallied: a looped replay carries counters over its seam."""
        self.naming = Naming()
        self.account = Account()
        self.fill: Callable[[Tally, Iterable[Answer]], Tally] | None = None
        """Fills a tally's pods that cgroups tell nothing of, from the answers that came in with it."""
        self.observe: Callable[[Tally, Iterable[Answer]], None] | None = None
        """Told of each tally with the answers that came in with it."""
        self.frame: Frame | None = None
        """What the last tick read."""
        self._walker = walker
        self._answers = answers
        self._history = history
        self._node_name = node_name
        self._adjust = adjust
        self._asked: frozenset[tuple[str, int]] = frozenset()
        self._ask_again_ns = 0
        self._ask_wait_ns = _FIRST_ASK_NS
        self._ask_slowly_ns = 0

    def tick(self) -> Tally:
        """Raises :class:`EndOfRecording`, or the :class:`PodtallyError` that made the tick fail."""
        frame = self._walker.tick()
        endings = self._history.endings
        self.naming.keep = {pod.uid for pod in frame.pods} | endings.uids
        answers = self._answers.take()
        self.naming.take(*answers)
        frame = self._walker.expect(frame, self.naming.running_uids)
        if self._adjust is not None:
            frame = self._adjust(frame)
        self.frame = frame
        result = tally(frame, self.naming.pods, self.naming.state, self._history, node_name=self._node_name)
        self._walker.seldom = self._history.sandbox_leaves - result.doubtful
        self._walker.doubtful = result.doubtful
        if self.fill is not None:
            result = self.fill(result, answers)
        account = self.account
        account.cgroups = frame.cgroups
        account.counter_falls += frame.falls
        account.files_read += frame.files_read
        account.read_errors.update(frame.errors)
        account.refused_items = self.naming.refused_items + account.refused_samples
        with account.lock:
            account.answers = dict(self.naming.answers)
        starts = result.incomplete.get("starting_container", 0) > 0
        self._ask(result.wanted | endings.unnamed, result.instant.monotonic_ns, starts=starts)
        if self.observe is not None:
            self.observe(result, answers)
        return result

    def tallies(self) -> Iterator[Tally]:
        """The tallies of all frames of a recording. A frame whose root could not be read has none, as on the node."""
        while True:
            try:
                yield self.tick()
            except EndOfRecording:
                return
            except SourceError as error:
                log.warning("a frame has no tally: %s", error)

    def _ask(self, wanted: frozenset[tuple[str, int]], now_ns: int, *, starts: bool) -> None:
        """Ask again about what is wanted: at once for what is new, ever more seldom for what nobody knows. While a
        container ``starts``, as it mostly does within seconds, no more seldom than that.
        """
        fresh = not wanted <= self._asked
        if fresh:
            self._ask_wait_ns = _FIRST_ASK_NS
            self._ask_slowly_ns = now_ns + _STARTING_NS
        if fresh or (wanted and now_ns >= self._ask_again_ns):
            self._answers.ask()
            self._ask_again_ns = now_ns + self._ask_wait_ns
            last_ns = _STARTING_ASK_NS if starts and now_ns < self._ask_slowly_ns else _LAST_ASK_NS
            self._ask_wait_ns = min(2 * self._ask_wait_ns, last_ns)
        self._asked = wanted

    def close(self) -> None:
        """Let go of the node's files."""
        self._walker.close()


class Ticking(Protocol):
    """What a loop runs: a :class:`Collector` over cgroups, or one over an upstream's answers."""

    account: Account

    def tick(self) -> Tally:
        """The next tally. Raises :class:`EndOfRecording`, or the :class:`PodtallyError` that made the tick fail."""

    def tallies(self) -> Iterator[Tally]:
        """The tallies of all frames of a recording."""

    def close(self) -> None:
        """Let go of what is held."""


class Published(NamedTuple):
    """A tally as it is served."""

    tally: Tally
    shift_ns: int
    """What to add to its wall times: 0 on a live node; a served replay makes its current frame now."""
    start_shift_ns: int
    """What to add to start times, which stay while a replay goes on."""
    monotonic_ns: int
    """This process' clock when it was published."""


class Pace(Protocol):
    """When the next tick is due, and how far a recording's times are from now."""

    def next_tick(self, stop: threading.Event) -> int:
        """Wait until the next tick is due; how many ticks were missed meanwhile."""

    def shifts(self, latest_ns: Callable[[], int]) -> tuple[int, int]:
        """``shift_ns`` and ``start_shift_ns`` of a tally; ``latest_ns`` looks for its latest reading's wall time."""

    def interval_seconds(self) -> float:
        """Seconds from tick to tick."""


class LivePace:
    """A tick every ``interval`` seconds, on a fixed grid."""

    def __init__(self, interval: float, rest: Callable[[threading.Event, float], None] | None = None) -> None:
        """``rest`` waits for so many seconds or the event, and may do something meanwhile."""
        self._interval = interval
        self._rest = rest
        self._due: float | None = None

    def next_tick(self, stop: threading.Event) -> int:
        """Wait for the next point of the grid; points already past are missed."""
        now = time.monotonic()
        if self._due is None:
            self._due = now
            return 0
        missed = max(0, int((now - self._due) / self._interval))
        self._due += (missed + 1) * self._interval
        seconds = max(0.0, self._due - now)
        if self._rest is None:
            stop.wait(seconds)
        else:
            self._rest(stop, seconds)
        return missed

    def shifts(self, latest_ns: Callable[[], int]) -> tuple[int, int]:
        """None on a live node."""
        return 0, 0

    def interval_seconds(self) -> float:
        """The interval."""
        return self._interval


class ReplayPace:
    """Ticks as far apart as the frames, divided by ``speed``."""

    def __init__(self, next_gap_ns: Callable[[], int], interval_ns: int, speed: float) -> None:
        """``next_gap_ns`` tells how long after the current frame the next one was taken."""
        self._next_gap_ns = next_gap_ns
        self._interval = interval_ns / 1e9 / speed
        self._speed = speed
        self._due: float | None = None
        self._start_shift_ns: int | None = None

    def next_tick(self, stop: threading.Event) -> int:
        """Wait as long as the recording did."""
        now = time.monotonic()
        if self._due is None:
            self._due = now
            return 0
        self._due = max(self._due + self._next_gap_ns() / 1e9 / self._speed, now)
        stop.wait(self._due - now)
        return 0

    def shifts(self, latest_ns: Callable[[], int]) -> tuple[int, int]:
        """From the frame's time to now; start times keep the shift of the first frame."""
        shift_ns = time.time_ns() - latest_ns()
        if self._start_shift_ns is None:
            self._start_shift_ns = shift_ns
        return shift_ns, self._start_shift_ns

    def interval_seconds(self) -> float:
        """The usual gap, at this speed."""
        return self._interval


def _latest_ns(result: Tally) -> int:
    """Wall time of the latest reading: what a served replay makes now, so that no timestamp is in the future."""
    readings = [result.instant.monotonic_ns, result.node.reading.monotonic_ns]
    readings += [one.reading.monotonic_ns for one in result.slices]
    for pod in result.pods:
        readings.append(pod.reading.monotonic_ns)
        if pod.sandbox is not None:
            readings.append(pod.sandbox.reading.monotonic_ns)
        readings += [one.reading.monotonic_ns for one in pod.containers]
    return result.instant.wall_ns(max(readings))


_LIVE_AT_LEAST_SECONDS = 30.0
_LIVE_INTERVALS = 3


class Loop:
    """Runs a collector in a thread of its own and holds what it published last."""

    def __init__(self, collector: Ticking, pace: Pace) -> None:
        self.collector = collector
        self.published: Published | None = None
        self.failure: str | None = None
        """Why the last tick failed; ``None`` if it did not."""
        self.ended = False
        """True after the last frame of a recording: its tally stays and does not age into a fault."""
        self._pace = pace
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._started = time.monotonic_ns()
        self._told: set[str] = set()

    def first_tick(self) -> None:
        """Tick once in the caller's thread, so that a node or recording that cannot be read at all is an error of
        the start: :class:`collector.errors.UsageError` gets out of here, other failures are counted.
        """
        self._pace.next_tick(self._stop)
        self.tick(starting=True)

    def run_through(self) -> None:
        """Tick to the end of a recording without waiting; recorded times stay as they are."""
        for result in self.collector.tallies():
            self.published = Published(result, 0, 0, time.monotonic_ns())
            self.collector.account.ticks["ok"] += 1
        self.ended = True

    def start(self) -> None:
        """Tick in a thread until stopped."""
        self._thread = threading.Thread(target=self._run, name="ticks", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End the thread; one that hangs in a read is left behind, as the process ends."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return
        self.collector.close()

    def _run(self) -> None:
        while not self._stop.is_set() and not self.ended:
            self.collector.account.ticks["missed"] += self._pace.next_tick(self._stop)
            if not self._stop.is_set():
                self.tick(starting=False)

    def tick(self, *, starting: bool = False) -> None:
        """Tick once and publish. Raises :class:`UsageError` only if ``starting``."""
        account = self.collector.account
        begun, begun_cpu = time.monotonic(), time.thread_time()
        try:
            result = self.collector.tick()
        except EndOfRecording:
            self.ended = True
            return
        except PodtallyError as error:
            self._failed(str(error))
            if starting and isinstance(error, UsageError):
                raise
            return
        except Exception as error:  # a defect must not end the collector: it is told, counted and outlived
            log.exception("a tick failed by a defect in podtally, please report it")
            self._failed(f"defect: {error!r}")
            return
        finally:
            account.tick_seconds += time.monotonic() - begun
            account.tick_cpu_seconds += time.thread_time() - begun_cpu
        shift_ns, start_shift_ns = self._pace.shifts(lambda: _latest_ns(result))
        self.published = Published(result, shift_ns, start_shift_ns, time.monotonic_ns())
        self.failure = None
        account.ticks["ok"] += 1

    def _failed(self, why: str) -> None:
        self.failure = why
        self.collector.account.ticks["failed"] += 1
        if why not in self._told and len(self._told) < 100:
            self._told.add(why)
            log.error("a tick failed, the last tally stays: %s (told once)", why)

    def age_seconds(self) -> float | None:
        """Age of the tally that is served; ``None`` before the first."""
        published = self.published
        return None if published is None else (time.monotonic_ns() - published.monotonic_ns) / 1e9

    def alive(self) -> tuple[bool, str]:
        """Liveness and a sentence: the last successful tick ended within max(3 intervals, 30 s)."""
        if self.ended:
            return True, "ok: the recording has ended, its last frame is served"
        limit = max(_LIVE_INTERVALS * self._pace.interval_seconds(), _LIVE_AT_LEAST_SECONDS)
        age, what = self.age_seconds(), "last successful tick"
        if age is None:
            age, what = (time.monotonic_ns() - self._started) / 1e9, "no tick yet, started"
        if age <= limit:
            return True, f"ok: {what} {age:.1f} s ago"
        why = f": {self.failure}" if self.failure else ""
        return False, f"no successful tick for {age:.1f} s, the limit is {limit:.0f} s{why}"
