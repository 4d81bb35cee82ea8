"""Our readings over a span: straight lines between them, and what they allow."""

from __future__ import annotations

import pytest

from collector.parity.readings import NS_PER_SECOND, Cpu, Memory, Point, Readings, Unread
from collector.parity.resource import Owner
from tests.replays import replayed

OWNER = Owner("n", "p", "c")


def second(value: float) -> int:
    """Nanoseconds."""
    return round(value * NS_PER_SECOND)


def readings(*points: tuple[float, float, int], keep: float | None = None, late: float = 0.0) -> Readings:
    """Readings at seconds: CPU seconds and bytes."""
    made = Readings(None if keep is None else second(keep), second(late))
    for at, cpu, memory in points:
        made.add(OWNER, "1", None, Point(second(at), round(cpu * 1e6), memory))
    return made


SAWTOOTH = readings(*((at, at // 2, 100 + at) for at in range(21)))
"""A second of CPU at once every two seconds."""


def test_cpu_is_read_off_straight_lines() -> None:
    """At 4.5 s the counter is taken to be half way from 2 to 2, at 9.5 s from 4 to 5."""
    found = SAWTOOTH.cpu(OWNER, second(4.5), second(9.5))

    assert isinstance(found, Cpu)
    assert found.cores == pytest.approx((4.5 - 2) / 5)


def test_what_readings_allow_is_bounded_by_those_on_either_side() -> None:
    """The least has both ends' bursts outside of the span, the most has them inside."""
    found = SAWTOOTH.cpu(OWNER, second(5.5), second(9.5))

    assert isinstance(found, Cpu)
    assert found.least_cores == pytest.approx((4 - 3) / 4)
    assert found.most_cores == pytest.approx((5 - 2) / 4)


def test_a_reading_within_the_clocks_slack_is_on_neither_side() -> None:
    """The kubelet's moment and ours may be 100 ms apart."""
    found = SAWTOOTH.cpu(OWNER, second(5.5), second(9.95))

    assert isinstance(found, Cpu)
    assert found.most_cores == pytest.approx((5 - 2) / 4.45)


@pytest.mark.parametrize(("late", "least_seconds"), [(0.0, 2.0), (0.5, 1.0)])
def test_a_peer_that_stamps_late_may_have_read_before_our_last_reading(late: float, least_seconds: float) -> None:
    """The kubelet's counter of 8.3 s was read before the burst that ended at 8 s, if it may be half a second late."""
    lagging = readings(*((at, at // 2, 100) for at in range(21)), late=late)

    found = lagging.cpu(OWNER, second(3.9), second(8.3))

    assert isinstance(found, Cpu)
    assert found.least_cores == pytest.approx(least_seconds / 4.4)


@pytest.mark.parametrize(
    ("begin", "end", "why"), [(-1.0, 5.0, "older"), (5.0, 21.0, "newer"), (20.5, 22.0, "newer"), (-3.0, -1.0, "older")]
)
def test_a_span_that_we_have_not_seen_is_not_guessed(begin: float, end: float, why: Unread) -> None:
    """Nor one that ends at the very edge."""
    assert SAWTOOTH.cpu(OWNER, second(begin), second(end)) == why


def test_what_was_never_read_is_unread() -> None:
    """Not 0."""
    assert SAWTOOTH.cpu(Owner("n", "p", "other"), second(5), second(9)) == "unread"


def test_memory_is_the_nearest_reading_and_the_range_around() -> None:
    """At 7.4 s that of 7 s; what was read on either side is the range."""
    found = SAWTOOTH.memory(OWNER, second(7.4), second(7.4))

    assert found == Memory(107, 107, 108, ran=True)


def test_old_readings_are_forgotten_but_for_the_last_before() -> None:
    """A comparison that goes on for days must not grow; a span that begins just then can still be read."""
    kept = Readings(second(2))
    tallies = list(replayed("systemd-containerd.tar.zst").tallies())
    for tally in tallies:
        kept.add_tally(tally)
    whole = Readings()
    for tally in tallies:
        whole.add_tally(tally)
    pod = tallies[-1].pods[0]
    owner = Owner(pod.pod.namespace, pod.pod.name, "")
    last_ns = kept.last_ns

    assert isinstance(whole.cpu(owner, last_ns - second(20), last_ns - second(3)), Cpu)
    assert kept.cpu(owner, last_ns - second(20), last_ns - second(3)) == "older"


def test_the_sandbox_and_what_is_left_are_read_of_real_pods() -> None:
    """Sum of containers, sandbox and what is left is the whole pod, to the byte."""
    tallies = list(replayed("systemd-containerd.tar.zst").tallies())
    made = Readings()
    made.add_tally(tallies[-1])
    for pod in tallies[-1].pods:
        if not pod.containers or pod.incomplete:
            continue
        owner = Owner(pod.pod.namespace, pod.pod.name, "")
        left = made.left(owner, made.last_ns)
        leaves = sum(leaf.reading.memory_working_set_bytes or 0 for leaf in pod.cgroup.leaves)

        assert left is not None
        assert leaves + left.shmem_bytes + left.file_bytes + left.other_bytes == pod.reading.memory_working_set_bytes
