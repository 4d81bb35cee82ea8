"""How fast clients may set off what costs something, by a clock that the test sets."""

from __future__ import annotations

from collector.server.pace import Bucket, Share
from collector.server.webconfig import RateLimit
from tests.guards import Clock


def test_a_bucket_has_its_burst_and_then_one_an_interval() -> None:
    """It is full at first, and never fuller."""
    clock = Clock()
    bucket = Bucket(RateLimit(2.0, 3), clock)

    found = [bucket.take() for _ in range(4)]
    clock.seconds += 2
    found += [bucket.take() for _ in range(2)]
    clock.seconds += 1000

    assert [*found, *(bucket.take() for _ in range(4))] == [True, True, True, False, True, False] + [True] * 3 + [False]


def test_what_is_reserved_comes_an_interval_after_the_other() -> None:
    """The burst is there at once, and what was reserved is gone for those who come later."""
    clock = Clock()
    bucket = Bucket(RateLimit(2.0, 2), clock)

    found = [bucket.reserve() for _ in range(4)]
    clock.seconds += 3

    assert [*found, bucket.reserve()] == [0.0, 0.0, 2.0, 4.0, 3.0]


def test_a_share_rests_by_what_was_used() -> None:
    """A quarter of a core rests three times as long as it worked."""
    clock = Clock()
    share = Share(0.25, clock)
    found = [share.rest()]
    share.used(2.0)
    found.append(share.rest())
    clock.seconds += 4
    found.append(share.rest())
    clock.seconds += 4

    assert [*found, share.rest()] == [0.0, 6.0, 2.0, 0.0]
