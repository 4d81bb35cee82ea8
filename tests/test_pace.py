"""What the end-to-end tests make of a slow machine."""

from __future__ import annotations

from typing import NoReturn

import pytest

from tests.e2e.pace import NEAR_SECONDS, REFERENCE_SECONDS, SLOW, TOO_SLOW, Lags, Pace, enough, of_work


class Skipped(Exception):
    """Stands for what pytest.skip raises."""


def skip(reason: str) -> NoReturn:
    """In the place of pytest.skip."""
    raise Skipped(reason)


def test_the_pace_is_that_of_the_middle_run() -> None:
    """One run that other work has lengthened does not count."""
    assert of_work([REFERENCE_SECONDS * times for times in (2.0, 9.0, 2.1, 2.2, 2.0)]).factor == pytest.approx(2.1)


def test_a_node_of_half_the_pace_gets_twice_the_wait_and_half_the_pods() -> None:
    """Both follow the factor."""
    assert (Pace(2.0).seconds(90), Pace(2.0).pods(12)) == (180, 6)


def test_a_fast_node_gets_the_waits_and_pods_as_they_were_set() -> None:
    """No wait is shortened, and no pod added."""
    assert (Pace(0.5).seconds(90), Pace(0.5).pods(12)) == (90, 12)


def test_the_kubelet_of_a_slow_node_may_stamp_later_but_never_by_more_than_a_second() -> None:
    """Beyond that a value would say nothing."""
    assert [Pace(factor).late_seconds for factor in (0.5, 2.0, 20.0)] == pytest.approx([0.1, 0.2, 1.0])


def test_a_very_slow_node_keeps_the_least_number_of_pods() -> None:
    """A burst of no pod would show nothing."""
    assert Pace(20.0).pods(12, least=4) == 4


def test_a_late_answer_makes_what_is_near_it_too_slow_to_judge() -> None:
    """From before it was asked until after it came."""
    lags = Lags(late_seconds=5.0)
    lags.asked(100.0, 107.0)
    moments = (100 - NEAR_SECONDS - 0.1, 100 - NEAR_SECONDS, 107 + NEAR_SECONDS, 107 + NEAR_SECONDS + 0.1)
    assert [lags.touch(moment) for moment in moments] == [False, True, True, False]


def test_a_question_that_is_given_up_is_a_lag_however_slow_the_node() -> None:
    """It is after 20 s."""
    assert [Pace(factor).answer_seconds for factor in (0.5, 1.5, 6.0)] == [5.0, 7.5, 10.0]


def test_an_answer_in_time_is_no_lag() -> None:
    """A refusal that comes at once is none either: it is judged as what it is."""
    lags = Lags(late_seconds=5.0)
    lags.asked(100.0, 104.9)
    assert lags.spans == []


def test_too_little_to_compare_is_a_failure_where_the_machine_keeps_up() -> None:
    """A fast node that gives too few values hides something."""
    with pytest.raises(AssertionError, match="too little to compare: 3 values of 20"):
        enough(3, 20, Pace(1.0), 0, skip)


@pytest.mark.parametrize(("pace", "lags"), [(Pace(SLOW), 0), (Pace(1.0), 1)])
def test_too_little_to_compare_is_skipped_with_the_pace_where_it_does_not(pace: Pace, lags: int) -> None:
    """By its pace, or by a lag."""
    with pytest.raises(Skipped, match=f"{TOO_SLOW}: 3 values of 20 .* the node takes"):
        enough(3, 20, pace, lags, skip)


def test_enough_to_compare_is_enough_on_any_machine() -> None:
    """Nothing is skipped for being slow alone."""
    enough(20, 20, Pace(9.0), 9, skip)
