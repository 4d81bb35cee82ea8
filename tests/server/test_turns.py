"""Work by turns of addresses: whoever floods waits for himself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from collector.server.turns import TooMany, Turns


class Work:
    """Notes what is done, and does not end before it may."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()

    def of(self, name: str) -> Callable[[], Awaitable[str]]:
        """A piece of it."""

        async def do() -> str:
            self.done.append(name)
            await self.go.wait()
            return name

        return do


async def ask(turns: Turns[str], work: Work, *pieces: str) -> list[asyncio.Task[str]]:
    """Ask for pieces, each called by the address, a hyphen and what it is."""
    tasks = [asyncio.ensure_future(turns.get(one.encode(), one.partition("-")[0], work.of(one))) for one in pieces]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_addresses_have_a_turn_each() -> None:
    """However much one asks for, another waits for one piece of each; what one asks for comes in its order."""

    async def run() -> list[str]:
        turns: Turns[str] = Turns(100, 1)
        work = Work()
        tasks = await ask(turns, work, "a-1", "a-2", "a-3", "a-4", "b-1", "b-2")
        tasks += await ask(turns, work, "c-1")
        work.go.set()
        await asyncio.gather(*tasks)
        return work.done

    assert asyncio.run(run()) == ["a-1", "b-1", "a-2", "c-1", "b-2", "a-3", "a-4"]


def test_a_piece_is_done_once_for_all_who_ask() -> None:
    """At the turn of whichever address comes first; one who goes away does not end it, and later it is done anew."""

    async def run() -> tuple[list[str], list[str]]:
        turns: Turns[str] = Turns(100, 1)
        work = Work()
        tasks = await ask(turns, work, "a-1", "a-2", "a-3", "a-4")
        shared = asyncio.ensure_future(turns.get(b"a-4", "b", work.of("never")))
        await asyncio.sleep(0)
        tasks[3].cancel()
        work.go.set()
        outcomes = await asyncio.gather(*tasks[:3], shared)
        return [*outcomes, await turns.get(b"a-4", "b", work.of("anew"))], work.done

    outcomes, done = asyncio.run(run())

    assert outcomes == ["a-1", "a-2", "a-3", "a-4", "anew"]
    assert done == ["a-1", "a-2", "a-4", "a-3", "anew"]


def test_who_waits_most_gives_way() -> None:
    """The newest of the address with most is sent away for another one; where that would be no fairer, the new one."""

    async def run() -> tuple[list[str | BaseException], list[str]]:
        turns: Turns[str] = Turns(4, 1)
        work = Work()
        tasks = await ask(turns, work, "a-0")
        tasks += await ask(turns, work, "a-1", "a-2", "a-3", "a-4", "a-5", "b-1", "c-1", "c-2", "d-1", "e-1")
        assert turns.waiting == 4
        work.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True), work.done

    outcomes, done = asyncio.run(run())

    sent_away = [number for number, one in enumerate(outcomes) if isinstance(one, TooMany)]
    assert sent_away == [2, 3, 4, 5, 8, 10]
    assert done == ["a-0", "a-1", "b-1", "c-1", "d-1"]


def test_clients_that_go_leave_a_bounded_number_behind() -> None:
    """A request waits on when its client has gone: of one address so many may wait for one piece."""

    async def run() -> list[str | BaseException]:
        turns: Turns[str] = Turns(100, 1)
        work = Work()
        tasks = await ask(turns, work, *["a-1"] * 20)
        tasks.append(asyncio.ensure_future(turns.get(b"a-1", "b", work.of("never"))))
        await asyncio.sleep(0)
        work.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(run())

    assert [isinstance(one, TooMany) for one in found] == [False] * 16 + [True] * 4 + [False]


def test_so_many_are_under_way_at_once() -> None:
    """No more, and as soon as one has ended the next begins, also where it is asked for at that very moment."""

    async def run() -> tuple[list[str], list[str]]:
        turns: Turns[str] = Turns(100, 2)
        work = Work()
        tasks = await ask(turns, work, "a-1", "a-2", "a-3", "a-4")
        begun = list(work.done)
        work.go.set()
        await asyncio.gather(*tasks)
        for number in range(5, 20):
            await asyncio.wait_for(turns.get(b"x", "a", work.of(f"a-{number}")), 60)
        return begun, work.done

    begun, done = asyncio.run(run())

    assert (begun, len(done)) == (["a-1", "a-2"], 19)


def test_work_that_fails_fails_for_all_who_wait() -> None:
    """And is not kept: the next one tries again."""

    async def run() -> list[str | BaseException]:
        turns: Turns[str] = Turns(100, 1)

        async def fail() -> str:
            raise ValueError

        both = (turns.get(b"k", "a", fail), turns.get(b"k", "b", fail))
        failed = await asyncio.gather(*both, return_exceptions=True)
        work = Work()
        work.go.set()
        return [*failed, await turns.get(b"k", "a", work.of("well"))]

    found = asyncio.run(run())

    assert [type(one) for one in found] == [ValueError, ValueError, str]


def test_work_can_be_ended() -> None:
    """Whoever waits for it is told, begun or not."""

    async def run() -> None:
        turns: Turns[str] = Turns(100, 1)
        work = Work()
        tasks = await ask(turns, work, "a-1", "a-2")
        turns.cancel()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
