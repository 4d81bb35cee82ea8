"""The loop: ticks that fail, liveness, the end of a recording, asking for names, and the paces."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from collector.cgroup.walk import Walker
from collector.errors import UnsupportedNode
from collector.history import History
from collector.loop import Collector, LivePace, Loop, ReplayPace
from collector.model import Answer
from collector.seams import AnswerSource, Tree
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.helpers import DEADLINE_SECONDS, wait_until
from tests.support import (
    LEAF_A,
    POD_PATH,
    SECOND_NS,
    Answers,
    Cgroup,
    MemoryTree,
    NoAnswers,
    collector_over,
    recording,
)


class FreePace:
    """Ticks as soon as they are wanted; the interval is what the test says."""

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval

    def next_tick(self, stop: threading.Event) -> int:
        return 0

    def shifts(self, latest_ns: Callable[[], int]) -> tuple[int, int]:
        return 0, 0

    def interval_seconds(self) -> float:
        return self.interval


class StillClock:
    """The loop's clock, which goes on when the test says so."""

    def __init__(self) -> None:
        self.ns = 1_000 * SECOND_NS

    def monotonic_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    time_ns = staticmethod(time.time_ns)
    thread_time = staticmethod(time.thread_time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StillClock:
    """A clock in place of the loop's."""
    still = StillClock()
    monkeypatch.setattr("collector.loop.time", still)
    return still


def node() -> MemoryTree:
    """A node with one pod of one leaf that nobody names."""
    files: dict[str, bytes | int] = {"cpu.stat": b"usage_usec 1000\n", "memory.current": b"1\n"}
    paths = ("kubepods", "kubepods/burstable", POD_PATH, f"{POD_PATH}/{LEAF_A}")
    cgroups = {path: Cgroup(number, files) for number, path in enumerate((".", *paths), 1)}
    return MemoryTree(cgroups, {"meminfo": b""})


def loop_over(tree: Tree, answers: AnswerSource | None = None, pace: FreePace | None = None) -> Loop:
    """A loop that ticks when told to."""
    return Loop(collector_over(tree, answers or NoAnswers()), pace or FreePace())


GONE = "the cgroup root: No such device"
"""What is said when the root itself cannot be read."""


def state_of(loop: Loop) -> tuple[str | None, dict[str, int]]:
    """Why the last tick failed, and how many ticks ended how."""
    return loop.failure, dict(loop.collector.account.ticks)


# --- ticks that fail ------------------------------------------------------------------------------------------------


def test_a_tick_that_fails_leaves_the_last_tally(caplog: pytest.LogCaptureFixture) -> None:
    """When the root cannot be read the last tally stands, the failure is told once, counted, and over with the next."""
    tree = node()
    loop = loop_over(tree)
    loop.first_tick()
    before, root = loop.published, tree.cgroups.pop(".")

    with caplog.at_level(logging.INFO):
        loop.tick()
        loop.tick()
        loop.tick()

    # The held root is gone, then there is none to open.
    missing = "the cgroup root: No such file or directory"
    assert loop.published is before
    assert state_of(loop) == (missing, {"ok": 1, "failed": 3, "missed": 0})
    assert caplog.messages == [f"a tick failed, the last tally stays: {why} (told once)" for why in (GONE, missing)]
    tree.cgroups["."] = root
    loop.tick()

    assert loop.published is not before
    assert state_of(loop) == (None, {"ok": 2, "failed": 3, "missed": 0})


def test_a_defect_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """An error that nobody has foreseen is logged with its traceback, counted, and outlived."""

    class Broken(NoAnswers):
        def take(self) -> list[Answer]:
            if self.asked == 0:
                self.asked += 1
                raise ZeroDivisionError("oh")
            return []

    loop = loop_over(node(), Broken())
    loop.tick()

    assert state_of(loop) == ("defect: ZeroDivisionError('oh')", {"ok": 0, "failed": 1, "missed": 0})
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
    loop.tick()

    assert state_of(loop) == (None, {"ok": 1, "failed": 1, "missed": 0})


def test_a_node_that_cannot_be_read_at_all_is_an_error_of_the_start() -> None:
    """Several nodes' trees below one root, with no pod that is named in any, are bad usage at the start, and a failed
    tick later.
    """
    tree = node()
    pods = {path.removeprefix("kubepods"): one for path, one in tree.cgroups.items() if path.startswith("kubepods")}
    for path in pods:
        del tree.cgroups[f"kubepods{path}"]
    for outer in ("a", "b"):
        tree.cgroups |= {outer: Cgroup(100 + len(tree.cgroups))} | {
            f"{outer}/kubepods{path}": Cgroup(100 + one.ino + len(tree.cgroups), one.files)
            for path, one in pods.items()
        }
    (elsewhere,) = [answer.body for answer in recording("cri-dockerd").frames[0].answers]
    assert elsewhere is not None
    loop = loop_over(tree, Answers(elsewhere))

    with pytest.raises(UnsupportedNode, match="choose one with --kubepods"):
        loop.first_tick()
    loop.tick()
    assert loop.collector.account.ticks["failed"] == 2


# --- liveness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "age", "alive"),
    [(1.0, 30.0, True), (1.0, 30.1, False), (20.0, 60.0, True), (20.0, 60.1, False), (0.05, 30.0, True)],
)
def test_alive_is_within_three_intervals_or_thirty_seconds(
    interval: float, age: float, alive: bool, clock: StillClock
) -> None:
    """The last successful tick may be as old as the greater of three intervals and 30 s."""
    loop = loop_over(node(), pace=FreePace(interval))
    loop.first_tick()
    clock.ns += round(age * 1e9)

    assert loop.alive()[0] is alive


def test_a_loop_that_is_not_alive_says_why() -> None:
    """The sentence names the age, the limit and the last failure."""
    tree = node()
    loop = loop_over(tree)
    loop.first_tick()
    assert loop.published is not None
    loop.published = loop.published._replace(monotonic_ns=time.monotonic_ns() - 40_000_000_000)
    del tree.cgroups["."]
    loop.tick()

    alive, why = loop.alive()
    assert not alive
    assert re.fullmatch(rf"no successful tick for \d+\.\d s, the limit is 30 s: {GONE}", why)


def test_a_loop_is_alive_before_its_first_tally() -> None:
    """A collector that has just started is given the same time for its first tick."""
    loop = loop_over(node())

    alive, why = loop.alive()
    assert (alive, loop.age_seconds()) == (True, None)
    assert re.fullmatch(r"ok: no tick yet, started \d+\.\d s ago", why)


# --- recordings -----------------------------------------------------------------------------------------------------


def replay(name: str) -> Loop:
    """A served replay of a recording, a thousand times as fast as it was taken."""
    recorded = recording(name)
    tree = RecordedTree(recorded)
    return Loop(collector_over(tree, RecordedAnswers(tree)), ReplayPace(tree.gap_ns, recorded.interval_ns, 1000))


def test_the_last_frame_of_a_recording_stays() -> None:
    """After the last frame the loop has ended, its tally stays and does not age into a fault."""
    loop = replay("static-pod")
    loop.first_tick()
    loop.start()
    wait_until(lambda: loop.ended)
    loop.stop()

    assert loop.published is not None
    assert loop.published.tally.instant.time_ns == 1_700_000_006_000_000_000
    assert loop.alive() == (True, "ok: the recording has ended, its last frame is served")
    loop.published = loop.published._replace(monotonic_ns=0)
    assert loop.alive()[0]


def test_running_through_keeps_recorded_times() -> None:
    """--once ticks to the end without waiting, and shifts nothing."""
    loop = replay("static-pod")
    loop.run_through()

    assert loop.published is not None
    assert (loop.published.shift_ns, loop.published.start_shift_ns) == (0, 0)
    assert loop.published.tally.instant.time_ns == 1_700_000_006_000_000_000


def test_stopping_closes_and_ends_the_thread() -> None:
    """A loop that waits for its next tick stops at once."""
    tree = node()
    loop = Loop(collector_over(tree, NoAnswers()), LivePace(3600))
    loop.first_tick()
    loop.start()

    loop.stop(timeout=DEADLINE_SECONDS)

    assert "ticks" not in {thread.name for thread in threading.enumerate()}


# --- asking for names -----------------------------------------------------------------------------------------------


class Asked(NoAnswers):
    """Remembers at which tick it was asked; a tick of the tree is a second."""

    def __init__(self, tree: MemoryTree) -> None:
        super().__init__()
        self._tree = tree
        self.at: list[int] = []

    def ask(self) -> None:
        self.at.append(self._tree.seconds)


def test_a_name_that_nobody_knows_is_asked_for_ever_more_seldom() -> None:
    """At once, then after 1, 2, 4, 8, 16 and from then on 30 s."""
    tree = node()
    answers = Asked(tree)
    collector = collector_over(tree, answers)

    for _ in range(130):
        collector.tick()

    assert [later - earlier for earlier, later in pairwise(answers.at)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert answers.at[0] == 1


def test_a_new_name_is_asked_for_at_once() -> None:
    """A leaf that appears while an older one stays unnamed is asked for in its first tick, and quickly again."""
    tree = node()
    answers = Asked(tree)
    collector = collector_over(tree, answers)
    for _ in range(20):
        collector.tick()
    tree.cgroups[f"{POD_PATH.replace('/pod', '/podaaaa')}"] = Cgroup(77)

    for _ in range(4):
        collector.tick()

    assert answers.at == [1, 2, 4, 8, 16, 21, 22, 24]


def test_names_that_are_known_are_not_asked_for() -> None:
    """A node whose pods all have names asks nobody beyond the timer."""
    recorded = recording("static-pod")
    tree = RecordedTree(recorded)
    answers = RecordedAnswers(tree)
    wishes: list[str] = []

    class Wishes:
        def take(self) -> list[Answer]:
            return answers.take()

        def ask(self) -> None:
            wishes.append("asked")

    list(collector_over(tree, Wishes()).tallies())

    assert wishes == []


# --- paces ----------------------------------------------------------------------------------------------------------


def test_a_live_pace_keeps_its_grid_and_counts_what_it_missed(clock: StillClock) -> None:
    """A tick that took two and a half intervals has missed two; the next is on the grid, not one interval later."""
    rests: list[float] = []

    def rest(_: threading.Event, seconds: float) -> None:
        rests.append(seconds)
        clock.ns += round(seconds * 1e9)

    pace, stop = LivePace(10.0, rest), threading.Event()
    missed = []
    for took in (0.0, 25.0, 3.0):
        clock.ns += round(took * 1e9)
        missed.append(pace.next_tick(stop))

    assert missed == [0, 2, 0]
    assert rests == [pytest.approx(5.0), pytest.approx(7.0)]


def test_a_live_pace_waits() -> None:
    """Until the next point of its grid, and not a moment less."""
    pace, stop = LivePace(0.2), threading.Event()
    begun = time.monotonic()
    pace.next_tick(stop)
    pace.next_tick(stop)

    assert time.monotonic() - begun >= 0.199


def test_a_live_pace_does_not_wait_for_its_first_tick() -> None:
    """The first tick is due at once, whatever the interval."""
    begun = time.monotonic()

    LivePace(3600).next_tick(threading.Event())

    assert time.monotonic() - begun < 60


def test_a_live_pace_rests_as_it_is_told_to() -> None:
    """What waits for the next tick may do something meanwhile: it is given the event and the seconds that are left."""
    rests: list[float] = []
    pace = LivePace(60, lambda stop, seconds: rests.append(seconds))
    stop = threading.Event()
    for _ in range(2):
        pace.next_tick(stop)

    (seconds,) = rests
    assert 0 < seconds <= 60


def test_a_live_pace_shifts_nothing() -> None:
    """Times of a live node are as they are."""
    assert LivePace(1).shifts(lambda: 5) == (0, 0)


def test_a_replay_pace_makes_the_current_frame_now() -> None:
    """Each frame is shifted to now; start times keep the first frame's shift, so that they do not drift."""
    pace = ReplayPace(lambda: 0, 5_000_000_000, 2.0)

    shift_ns, start_shift_ns = pace.shifts(lambda: 1_000)
    later_ns, later_start_ns = pace.shifts(lambda: 500_000_001_000)

    assert abs(shift_ns + 1_000 - time.time_ns()) < 60_000_000_000
    assert abs(later_ns + 500_000_001_000 - time.time_ns()) < 60_000_000_000
    assert (start_shift_ns, later_start_ns) == (shift_ns, shift_ns)


def test_a_replay_pace_waits_as_long_as_the_recording_did() -> None:
    """The gap to the next frame, divided by the speed, is what is waited."""
    pace = ReplayPace(lambda: 1_000_000_000, 1_000_000_000, 5.0)
    begun = time.monotonic()
    pace.next_tick(threading.Event())

    pace.next_tick(threading.Event())

    assert time.monotonic() - begun >= 0.199
    assert pace.interval_seconds() == pytest.approx(0.2)


def test_the_collector_closes_its_walk() -> None:
    """Stopping lets go of what the walk holds open."""
    closed: list[str] = []

    class Closing(Walker):
        def close(self) -> None:
            closed.append("walker")

    walker = Closing(node())
    history = History(window_ns=1, interval_ns=1)
    Loop(Collector(walker=walker, answers=NoAnswers(), history=history, node_name="n"), FreePace()).stop()

    assert closed == ["walker"]
