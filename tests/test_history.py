"""The rules for t0, the trailing peak and the sandbox."""

from __future__ import annotations

import pytest

from collector.history import History, Rate, Track
from collector.model import Frame, Instant, Leaf, NodeReading, PodCgroup, Reading
from tests.statuses import pod as status

SECOND = 1_000_000_000
WINDOW = 15 * SECOND


def track(*samples: tuple[float, int]) -> Track:
    """A track of (second, usage in ms)."""
    one = Track()
    for second, usage_ms in samples:
        one.add(round(second * SECOND), usage_ms * 1000, WINDOW, SECOND // 2)
    return one


def rate(one: Track, second: float, age: float | None) -> Rate | None:
    """The rate at ``second`` of a cgroup that is ``age`` seconds old then."""
    return one.rate(round(second * SECOND), None if age is None else round(age * SECOND), WINDOW)


def steady(seconds: int) -> Track:
    """100 ms of CPU a second, sampled each second from 0."""
    return track(*((second, 100 * second) for second in range(seconds + 1)))


def test_one_sample_gives_no_rate() -> None:
    """One frame gives no rates, only counters, however old the container is."""
    assert rate(track((12, 600)), 12, 12) is None


def test_t0_is_the_newest_sample_at_least_a_window_old() -> None:
    """Of many samples the rate is over the shortest span that is at least the window."""
    one = track((0, 0), (4.5, 9000), (5.5, 9100), (20, 9300))

    assert rate(one, 20, 1000) == Rate((9300 - 9000) / 1000 / 15.5, 4_500_000_000)


def test_a_sample_exactly_a_window_old_is_old_enough() -> None:
    """At least a window includes the window itself."""
    assert rate(track((0, 0), (1, 50), (16, 350)), 16, 1000) == Rate(0.3 / 15, SECOND)


@pytest.mark.parametrize("age", [None, 1000.0])
def test_an_old_container_is_rated_over_five_seconds_at_the_least(age: float | None) -> None:
    """A container older than the window, or of unknown age, has no rate from less than 5 s of samples."""
    assert rate(track((0, 0), (4.9, 49)), 4.9, age) is None
    assert rate(track((0, 0), (5, 50)), 5, age) == Rate(0.01, 0)


def test_a_young_container_is_rated_from_its_start_once_ten_seconds_old() -> None:
    """metrics-server's rule: from 10 s of age to the window the rate is the average since the start."""
    assert rate(track((0, 300), (2, 500)), 2, 10) == Rate(0.05, -8 * SECOND)


def test_a_younger_container_is_rated_from_its_first_sample() -> None:
    """Before 10 s of age the rate is from the first sample, once 2 s have passed."""
    assert rate(track((0, 300), (1.9, 500)), 1.9, 5) is None
    assert rate(track((0, 300), (2, 500)), 2, 5) == Rate(0.1, 0)


def test_a_start_after_the_first_sample_is_not_believed() -> None:
    """A cgroup seen before its alleged start is treated as one of unknown age."""
    assert rate(track((0, 0), (4, 40)), 4, 3) is None
    assert rate(track((0, 0), (6, 60)), 6, 3) == Rate(0.01, 0)


def test_no_rate_without_a_sample_of_this_tick() -> None:
    """A cgroup whose counter could not be read now has no rate now."""
    assert rate(steady(20), 21, 1000) is None


def test_a_start_that_cannot_be_one_is_not_believed() -> None:
    """An mtime of a moment ago on a cgroup with minutes of CPU is not its start: no life is rated over seconds."""
    one = track((0, 100_000), (10, 110_000))

    assert rate(one, 10, 10.5) == Rate(1.0, 0)


def test_the_peak_passes_while_the_counter_cannot_be_read() -> None:
    """A pod whose cpu.stat gives errors has no peak of more than 60 s ago."""
    kept = history()
    for second, usage_usec in ((0, 0), (1, 4_000_000), (100, None)):
        one = pod()._replace(reading=Reading(second * SECOND, cpu_usage_usec=usage_usec))
        kept.advance(Frame(Instant(0, 0), NodeReading(Reading(0)), (one,), {}, 0, 1))

    assert kept.rated(one, None) == (None, None)


def test_old_samples_are_forgotten() -> None:
    """No more samples are kept than the window needs."""
    assert len(steady(600)._samples) == 16


def test_the_peak_is_the_highest_rate_of_sixty_seconds() -> None:
    """A burst is the peak for 60 s and then no longer."""
    one = Track()
    peaks = []
    usage_ms = 0
    for second in range(80):
        usage_ms += 900 if second == 10 else 10
        one.add(second * SECOND, usage_ms * 1000, WINDOW, SECOND // 2)
        peaks.append(one.peak_cores)

    assert peaks[:2] == [None, 0.01]
    assert peaks[10:70] == [0.9] * 60
    assert peaks[70:] == [0.01] * 10


def test_readings_nearer_than_half_an_interval_are_not_rated() -> None:
    """A late tick and the one on time after it give no false peak; their time goes into the next rate."""
    one = Track()
    for milli, usage_ms in ((0, 0), (1000, 100), (1400, 180), (2000, 200)):
        one.add(milli * 1_000_000, usage_ms * 1000, WINDOW, SECOND // 2)

    assert one.peak_cores == pytest.approx(0.1)


# --- ages -----------------------------------------------------------------------------------------------------------


def leaf(name: str, ino: int, second: float = 0, usage_ms: int = 0) -> Leaf:
    """A leaf whose container id is its name."""
    reading = Reading(round(second * SECOND), cpu_usage_usec=usage_ms * 1000)
    return Leaf(f"pod/{name}", ino, name, None, None, reading)


def pod(*leaves: Leaf, second: float = 0, ino: int = 1, unread: tuple[str, ...] = ()) -> PodCgroup:
    """A pod with these leaves."""
    reading = Reading(round(second * SECOND), cpu_usage_usec=0)
    return PodCgroup("pod", ino, "uid", "Burstable", None, reading, leaves, unread=unread)


def frame(second: float, *pods: PodCgroup, wall: float | None = None) -> Frame:
    """A frame at a second of the monotonic clock, and of the wall clock if that is another."""
    at = Instant(round((second if wall is None else wall) * SECOND), round(second * SECOND))
    return Frame(at, NodeReading(Reading(at.monotonic_ns)), pods, {}, 0, 3)


def history() -> History:
    """A history with nothing in it."""
    return History(window_ns=WINDOW, interval_ns=SECOND)


@pytest.mark.parametrize("step", [-8, 0, 8])
def test_a_clock_that_is_set_changes_no_rate_of_a_young_container(step: int) -> None:
    """The age by the wall clock is bounded by when the cgroup was first seen and last not there, on the monotonic one:
    200m are 200m, or not known yet.
    """
    kept = history()
    kept.advance(frame(0, pod(second=0)))
    seen = set()
    for second in range(1, 20):
        one = leaf("a", 2, second, 200 * second - 100)
        # Made at 0.5 s; the clock is set at 3 s.
        wall = second + (step if second >= 3 else 0)
        kept.advance(frame(second, pod(one, second=second), wall=wall))
        found, _ = kept.rated(one, round((wall - 0.5) * SECOND))
        seen.add(None if found is None else round(found.cores, 6))

    assert seen == {None, 0.2}


def test_a_leaf_that_could_not_be_opened_is_no_new_one_once_it_can() -> None:
    """It was there, unread: its age is by its directory, and not from when it was first read."""
    kept = history()
    kept.advance(frame(0, pod(second=0, unread=("pod/a",))))
    one = leaf("a", 2, 1, 3000)
    kept.advance(frame(1, pod(one, second=1)))
    again = leaf("a", 2, 3, 3100)
    kept.advance(frame(3, pod(again, second=3)))

    assert kept.rated(again, 12 * SECOND)[0] == Rate(3.1 / 12, -9 * SECOND)


def test_a_counter_that_is_held_keeps_its_rate_and_makes_no_peak() -> None:
    """While a counter stands below what it was, the rate is the last one; the span after it is rated as one."""
    kept = history()
    usages = [(second, 200 * second) for second in range(8)]
    for second, usage_ms in [*usages, (8, 1400), (9, 1800), (10, 2000)]:
        one = leaf("a", 2, second, usage_ms)
        held = frozenset({one[:2]}) if second == 8 else frozenset()
        kept.advance(frame(second, pod(one, second=second))._replace(held=held))
        if second >= 8:
            found, peak = kept.rated(one, 1000 * SECOND)
            assert found is not None
            assert found.cores == pytest.approx(0.2)
            assert peak == pytest.approx(0.2)


def test_what_is_gone_is_forgotten() -> None:
    """Tracks and members of cgroups that are not in the frame are dropped, so that churn does not grow memory."""
    kept = history()
    known = status(running=["c"])
    for number in range(100):
        one = pod(leaf(f"pause{number}", 10 * number + 2), leaf("c", 10 * number + 3), ino=10 * number + 1)
        kept.advance(frame(number, one))
        kept.members(known, one)

    assert (len(kept._tracks), len(kept._members), len(kept._sandboxes), len(kept.sandbox_leaves)) == (3, 1, 1, 1)
