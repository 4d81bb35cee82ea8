"""The kernel's account of a pod, against what is known in it."""

from __future__ import annotations

import pytest

from collector.model import Growth, Leaf, Other, PodCgroup, Reading
from collector.witness import LEAST_USEC, Witness

SECOND = 1_000_000_000
LEAVES = object()


def cgroup(
    second: float,
    used_ms: float,
    *parts_ms: float | None,
    lag_ms: float = 0,
    others: tuple[Other, ...] = (),
    gone: tuple[Leaf, ...] = (),
) -> PodCgroup:
    """A pod that has used so much, and its leaves, read ``lag_ms`` after it."""
    at_ns = round(second * SECOND)
    leaves = tuple(
        Leaf(
            f"p/{number}",
            number,
            str(number),
            None,
            None,
            Reading(at_ns + round(lag_ms * 1e6), cpu_usage_usec=None if part_ms is None else round(part_ms * 1000)),
        )
        for number, part_ms in enumerate(parts_ms)
    )
    reading = Reading(at_ns, cpu_usage_usec=round(used_ms * 1000))
    return PodCgroup("p", 1, "u", "Burstable", None, reading, leaves, gone=gone, others=others)


def growth(*ticks: PodCgroup, who: object = LEAVES) -> Growth | None:
    """What is unaccounted after the ticks."""
    witness = Witness()
    for one in ticks:
        witness.see(one, who)
    return witness.unaccounted


def test_a_pod_that_uses_what_its_parts_use_is_accounted_for() -> None:
    """Two leaves at 250m each make the 500m of the pod; what dead ones had used before is in no difference."""
    assert growth(*(cgroup(n, 9000 + 500 * n, 250 * n, 250 * n) for n in range(30))) is None


def test_what_works_and_is_not_known_is_told_with_both_figures() -> None:
    """Half of what the pod uses is in no leaf: after 5 s that is told."""
    assert growth(*(cgroup(n, 500 * n, 250 * n) for n in range(5))) is None
    found = growth(*(cgroup(n, 500 * n, 250 * n) for n in range(6)))

    assert found == Growth(5 * SECOND, 2_500_000, 1_250_000)


@pytest.mark.parametrize(("unknown_ms", "told"), [(1.5, False), (7, True)])
def test_the_slack_is_ten_milliseconds_and_a_hundredth(unknown_ms: float, told: bool) -> None:
    """Of a pod at 100m, 1.5 ms a second are within a window's slack of 10 ms and 15 ms; 7 ms a second are not."""
    ticks = [cgroup(n, (100 + unknown_ms) * n, 100 * n) for n in range(16)]

    assert (growth(*ticks) is not None) is told
    assert LEAST_USEC == 10_000


def test_one_growth_is_no_proof() -> None:
    """A container that comes and goes between two ticks leaves what it used in the pod, once."""
    assert growth(*(cgroup(n, 100 * n + (2000 if n >= 3 else 0), 100 * n) for n in range(20))) is None


def test_what_is_read_later_is_no_growth() -> None:
    """Leaves that are read 50 ms after their pod have used more by then: now less, now more of it."""
    ticks = [cgroup(n, 2000 * n, 2000 * n + (100 if n % 2 == 0 else 0), lag_ms=50) for n in range(20)]

    assert growth(*ticks) is None


def test_another_cgroup_in_the_pod_is_known() -> None:
    """A monitor's CPU (conmon) is in the pod's, and no part of its sums."""
    ticks = [cgroup(n, 200 * n, 100 * n, others=(Other("p/conmon", 9, 100_000 * n),)) for n in range(20)]

    assert growth(*ticks) is None


def test_what_ended_takes_its_last_moment_with_it() -> None:
    """The span begins anew whenever leaves come or go, and whenever one was seen to go."""
    witness = Witness()
    for n in range(40):
        witness.see(cgroup(n, 500 * n, 250 * n), object() if n % 4 == 0 else None)
    assert witness.unaccounted is None

    gone = (Leaf("p/x", 9, "x", None, None, Reading(0)),)
    assert growth(*(cgroup(n, 500 * n, 250 * n, gone=gone if n % 4 == 0 else ()) for n in range(40))) is None


def test_a_part_that_was_not_read_leaves_no_difference() -> None:
    """What is not known is not held to be 0."""
    assert growth(*(cgroup(n, 500 * n, 250 * n, None) for n in range(20))) is None


def test_a_tick_without_a_new_reading_of_a_sandbox_tells_nothing() -> None:
    """It is read every fifth tick: what it uses in between is no growth of what is not known."""
    witness = Witness()
    for n in range(60):
        stale = cgroup(n - n % 5, 0, 50 * (n - n % 5)).leaves
        fresh = cgroup(n, 150 * n, 0, 100 * n)
        witness.see(fresh._replace(leaves=(*stale, fresh.leaves[1])), LEAVES)

    assert witness.unaccounted is None


def test_what_is_told_stands_until_a_span_shows_better() -> None:
    """Not for a moment is the pod whole while leaves come and go; it is once nothing unknown works any more."""
    witness = Witness()
    for n in range(10):
        witness.see(cgroup(n, 500 * n, 250 * n), LEAVES)
    witness.see(cgroup(10, 5000, 2500), "other leaves")
    assert witness.unaccounted is not None
    for n in range(11, 40):
        witness.see(cgroup(n, 5000 + 250 * (n - 10), 2500 + 250 * (n - 10)), "other leaves")

    assert witness.unaccounted is None


def test_a_part_that_comes_late_shows_within_a_window() -> None:
    """A pod that was accounted for for long is judged by its last seconds."""
    ticks = [cgroup(n, 100 * n + 100 * max(0, n - 100), 100 * n) for n in range(112)]

    assert growth(*ticks) is not None
