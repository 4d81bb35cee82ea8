"""Who asks for a page, and for how long that counts. Times are made up: they are whatever the caller's clock says."""

from __future__ import annotations

from collector.demand import LASTS_NS, Demand


def test_nobody_has_asked_at_first() -> None:
    """A collector whose page nobody knows of reads nothing for it."""
    assert not Demand().at(10)


def test_a_request_counts_for_a_while() -> None:
    """From the request on, and not after its time."""
    demand = Demand()
    demand.ask(10)

    assert [demand.at(time_ns) for time_ns in (10, 9 + LASTS_NS, 10 + LASTS_NS)] == [True, True, False]


def test_requests_in_a_row_are_one_span() -> None:
    """Who asks again in time need not wait for a tick; after a pause he does."""
    demand = Demand()
    times = (10, 9 + LASTS_NS, 8 + 2 * LASTS_NS, 9 + 3 * LASTS_NS)

    assert [demand.ask(time_ns) for time_ns in times] == [10, 10, 10, 9 + 3 * LASTS_NS]
