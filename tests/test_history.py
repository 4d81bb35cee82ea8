"""The rules for t0, the trailing peak and the sandbox."""

from __future__ import annotations

import pytest

from collector.history import History, Rate, Track
from collector.model import Frame, Instant, Leaf, NodeReading, PodCgroup, Reading

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


def test_a_falling_counter_starts_anew() -> None:
    """Within one identity no counter falls: where one does, nothing before it is used."""
    one = track((0, 0), (10, 1000), (11, 100))

    assert rate(one, 11, 1000) is None


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


# --- sandboxes ------------------------------------------------------------------------------------------------------


def leaf(name: str, ino: int) -> Leaf:
    """A leaf whose container id is its name."""
    return Leaf(f"pod/{name}", ino, name, None, Reading(0))


def pod(*leaves: Leaf, ino: int = 1) -> PodCgroup:
    """A pod with these leaves."""
    return PodCgroup("pod", ino, "uid", "Burstable", None, Reading(0), leaves)


def history() -> History:
    """A history with nothing in it."""
    return History(window_ns=WINDOW, interval_ns=SECOND)


def test_the_sandbox_is_the_unnamed_leaf_with_the_lowest_inode() -> None:
    """The runtime makes the sandbox first."""
    one, other = leaf("a", 7), leaf("b", 5)

    assert history().sandbox(pod(one, other), []) is other


def test_a_pod_whose_lowest_leaf_is_named_has_no_sandbox() -> None:
    """With the infra container dropped, an unnamed leaf is a container whose name is not known yet."""
    assert history().sandbox(pod(leaf("a", 5), leaf("b", 7)), ["a"]) is None


def test_the_sandbox_is_remembered() -> None:
    """A container that gets a lower inode than the sandbox does not displace it."""
    kept = history()
    sandbox = leaf("pause", 5)
    assert kept.sandbox(pod(sandbox), []) is sandbox

    assert kept.sandbox(pod(sandbox, leaf("late", 3)), []) is sandbox


def test_a_status_that_names_the_sandbox_wins() -> None:
    """A remembered sandbox that a status names is a container after all."""
    kept = history()
    first = leaf("a", 5)
    kept.sandbox(pod(first), [])
    kept.forget_sandbox(first)

    assert kept.sandbox(pod(first, leaf("b", 6)), ["a"]) is None
    assert kept.sandbox_leaves == frozenset()


def test_without_inodes_the_one_unnamed_leaf_is_the_sandbox() -> None:
    """A recording made with cp has no inodes: one unnamed leaf is the sandbox, of two neither is."""
    one, other, named = leaf("a", 0), leaf("b", 0), leaf("c", 0)

    assert history().sandbox(pod(one, named, ino=0), ["c"]) is one
    assert history().sandbox(pod(one, other, named, ino=0), ["c"]) is None


def test_what_is_gone_is_forgotten() -> None:
    """Tracks and sandboxes of cgroups that are not in the frame are dropped, so that churn does not grow memory."""
    kept = history()
    for number in range(100):
        one = pod(leaf(f"pause{number}", 10 * number + 2), leaf(f"c{number}", 10 * number + 3), ino=10 * number + 1)
        frame = Frame(Instant(number, number), NodeReading(Reading(0)), (one,), {}, 0, 3)
        kept.advance(frame)
        kept.sandbox(one, [])

    assert (len(kept._tracks), len(kept._sandboxes), len(kept.sandbox_leaves)) == (3, 1, 1)
