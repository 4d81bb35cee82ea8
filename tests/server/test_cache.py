"""What is kept of secrets."""

from __future__ import annotations

import asyncio

import pytest

from collector.server.cache import Digests, Expiring, Shared
from tests.guards import Clock


def test_digests_tell_texts_apart() -> None:
    """The same texts have the same key, other ones another, also where they are cut elsewhere; each has its own."""
    digests = Digests()

    assert digests.of(b"a", b"bc") == digests.of(b"a", b"bc")
    assert len({digests.of(b"a", b"bc"), digests.of(b"ab", b"c"), digests.of(b"abc"), Digests().of(b"abc")}) == 4
    assert b"abc" not in digests.of(b"abc")


def test_values_go_when_their_time_is_over() -> None:
    """Each has its own time."""
    clock = Clock()
    kept: Expiring[int] = Expiring(10, clock)
    kept.put(b"a", 1, 5)
    kept.put(b"b", 2, 10)
    clock.seconds += 5

    assert (kept.get(b"a"), kept.get(b"b"), kept.get(b"c"), len(kept)) == (None, 2, None, 1)


def test_what_is_dropped_is_not_there() -> None:
    """Nor is it an error to drop what is not."""
    kept: Expiring[int] = Expiring(2)
    kept.put(b"a", 1, 5)
    kept.drop(b"a")
    kept.drop(b"a")

    assert (kept.get(b"a"), len(kept)) == (None, 0)


def test_the_least_asked_for_goes_first() -> None:
    """There are never more than allowed."""
    kept: Expiring[int] = Expiring(2)
    kept.put(b"a", 1, 5)
    kept.put(b"b", 2, 5)
    kept.get(b"a")
    kept.put(b"c", 3, 5)

    assert (kept.get(b"a"), kept.get(b"b"), kept.get(b"c"), len(kept)) == (1, None, 3, 2)


def test_work_is_shared_by_those_who_ask_meanwhile() -> None:
    """One who goes away does not end it for the others; afterwards it is done anew."""
    begun: list[int] = []

    async def run() -> list[int]:
        shared: Shared[int] = Shared()
        go = asyncio.Event()

        async def work() -> int:
            begun.append(1)
            await go.wait()
            return len(begun)

        asked = [asyncio.ensure_future(shared.get(b"k", work)) for _ in range(3)]
        await asyncio.sleep(0)
        asked[0].cancel()
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(*asked[1:])
        return [*found, await shared.get(b"k", work)]

    assert asyncio.run(run()) == [1, 1, 2]


def test_work_that_fails_fails_for_all_and_is_not_kept() -> None:
    """The next one tries again."""

    async def run() -> int:
        shared: Shared[int] = Shared()

        async def fail() -> int:
            raise ValueError

        async def work() -> int:
            return 7

        done = await asyncio.gather(shared.get(b"k", fail), shared.get(b"k", fail), return_exceptions=True)
        assert [type(one) for one in done] == [ValueError, ValueError]
        return await shared.get(b"k", work)

    assert asyncio.run(run()) == 7


def test_work_can_be_ended() -> None:
    """Whoever waits for it is told."""

    async def run() -> None:
        shared: Shared[None] = Shared()
        asked = asyncio.ensure_future(shared.get(b"k", asyncio.Event().wait))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        shared.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(run())
