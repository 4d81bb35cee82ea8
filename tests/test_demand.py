"""Who asks for a page, and for how long that counts. The clock stands still until it is set."""

from __future__ import annotations

from collector.demand import LASTS_NS, Demand


class Clock:
    """It shows what it is set to."""

    def __init__(self) -> None:
        self.now_ns = 10

    def __call__(self) -> int:
        return self.now_ns


def test_nobody_has_asked_at_first() -> None:
    """A collector whose page nobody knows of reads nothing for it."""
    assert not Demand(Clock()).at(10)


def test_a_request_counts_for_a_while() -> None:
    """From the request on, and not after its time."""
    demand = Demand(Clock())
    demand.ask()

    assert [demand.at(time_ns) for time_ns in (10, 9 + LASTS_NS, 10 + LASTS_NS)] == [True, True, False]


def test_requests_in_a_row_are_one_span() -> None:
    """Who asks again in time need not wait for a tick; after a pause he does."""
    clock = Clock()
    demand, since = Demand(clock), []
    for clock.now_ns in (10, 9 + LASTS_NS, 8 + 2 * LASTS_NS, 9 + 3 * LASTS_NS):
        since.append(demand.ask())

    assert since == [10, 10, 10, 9 + 3 * LASTS_NS]


def test_a_tick_that_looked_too_early_does_not_count() -> None:
    """It is told of the request before the time is taken since which ticks have read for it."""
    looks: list[bool] = []

    def clock() -> int:
        looks.append(demand.at(10))
        return 10 + len(looks)

    demand = Demand(clock)

    assert (demand.ask(), looks) == (12, [False, True])
