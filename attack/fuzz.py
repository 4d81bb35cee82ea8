"""What runs the fuzzers: blocks of inputs, each made by a seed, over all cores; what escapes is cut down to little.

An input *escapes* if it raises what its reader does not document, if two readers differ, or if it takes too long.
Block ``number`` of a target is the same in every run with the same seed, so that what is found is found again.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple, Protocol, TypeVar

SLOWEST_SECONDS = 1.0
"""Of CPU for one input, all of which are small."""

_MOST_TOLD = 5
"""Escapes of one target after which it is ended."""

_SHRINK_SECONDS = 10.0
_PATIENCE_SECONDS = 120.0
"""With blocks that are under way when the time is over."""


class Sample(NamedTuple):
    """An input: what it is for, and its bytes."""

    of: str
    data: tuple[bytes, ...]


class Tester(Protocol):
    """Makes inputs and holds a reader to its promises; what it keeps from one input to the next is under test too."""

    def make(self, random: Random) -> Sample:
        """The next input."""

    def check(self, sample: Sample) -> bool:
        """Whether the input was taken; false if it was refused as documented. Whatever it raises is an escape."""


class Differ(AssertionError):
    """Two readers differ, or a value is none that there can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that reads bytes of others."""

    name: str
    what: str
    """For the table."""
    inputs: int
    """In a whole campaign."""
    block: int
    """Inputs that share what a reader keeps."""
    tester: Callable[[], Tester]


class Escape(NamedTuple):
    """What has got out."""

    target: str
    seed: int
    block: int
    error: str
    samples: tuple[Sample, ...]
    """The fewest inputs, one after the other, and the fewest of their bytes that show it."""

    def told(self) -> str:
        """It in words, with the command that shows it again."""
        lines = [f"{self.target}: {self.error}"]
        lines += [f"  {sample.of}: {'  '.join(_short(data) for data in sample.data)}" for sample in self.samples]
        lines.append(f"  again: python -m attack.run --seed {self.seed} --only {self.target!r} --block {self.block}")
        return "\n".join(lines)


def _short(data: bytes) -> str:
    return repr(data) if len(data) <= 400 else f"{data[:200]!r} ... {data[-60:]!r} ({len(data)} bytes)"


@dataclass(slots=True)
class Done:
    """What became of a target's inputs."""

    inputs: int = 0
    taken: int = 0
    escapes: list[Escape] = field(default_factory=list)

    def add(self, other: Done) -> None:
        """With another block's."""
        self.inputs += other.inputs
        self.taken += other.taken
        self.escapes += other.escapes


# --- one block ------------------------------------------------------------------------------------------------------


def run_block(target: Target, seed: int, number: int, count: int) -> Done:
    """The first ``count`` inputs of a block. It is ended by the first that escapes."""
    tester, random = target.tester(), Random(f"{seed}/{target.name}/{number}")
    done = Done()
    met: list[Sample] = []
    for _ in range(count):
        sample = tester.make(random)
        met.append(sample)
        done.inputs += 1
        error = None
        begun = time.perf_counter()
        try:
            done.taken += tester.check(sample)
        except Exception as raised:  # whatever it is, it has escaped
            error = _words(raised)
        else:
            if time.perf_counter() - begun > SLOWEST_SECONDS:
                error = _too_slow(target, sample)
        if error is not None:
            done.escapes.append(Escape(target.name, seed, number, error, _shortest(target, met)))
            break
    return done


def _words(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{'/'.join(last.filename.split('/')[-3:])}:{last.lineno}"
    return f"{type(error).__name__} at {place}: {str(error)[:300]}"


def _too_slow(target: Target, sample: Sample) -> str | None:
    """A sentence, if it is slow by its own CPU and not by the machine."""
    tester = target.tester()
    begun = time.process_time()
    tester.check(sample)
    spent = time.process_time() - begun
    return f"takes {spent:.1f} s" if spent > SLOWEST_SECONDS else None


# --- the fewest inputs, and the fewest bytes ------------------------------------------------------------------------


def _fails(target: Target, samples: Sequence[Sample]) -> bool:
    """Whether the last of them escapes, after those before it."""
    tester = target.tester()
    begun = time.process_time()
    try:
        for sample in samples:
            tester.check(sample)
    except Exception:  # the same question as above
        return True
    return time.process_time() - begun > SLOWEST_SECONDS


def _shortest(target: Target, met: Sequence[Sample]) -> tuple[Sample, ...]:
    end = time.monotonic() + _SHRINK_SECONDS
    *before, last = met
    if _fails(target, [last]):
        before = []
    before = list(shrunk(before, lambda some: _fails(target, [*some, last]), end))
    samples = [*before, last]
    for place, sample in enumerate(samples):
        for part, data in enumerate(sample.data):

            def fails(some: bytes, place: int = place, part: int = part) -> bool:
                sample = samples[place]
                data = (*sample.data[:part], some, *sample.data[part + 1 :])
                return _fails(target, [*samples[:place], sample._replace(data=data), *samples[place + 1 :]])

            few = shrunk(data, fails, end)
            whole = samples[place].data
            samples[place] = samples[place]._replace(data=(*whole[:part], few, *whole[part + 1 :]))
    return tuple(samples)


Some = TypeVar("Some", bytes, list[Sample])


def shrunk(whole: Some, fails: Callable[[Some], bool], end: float) -> Some:
    """As little of ``whole`` as still fails, found by leaving out ever smaller parts, until ``end``.

    >>> shrunk(b"some text with an x in it", lambda data: b"x" in data[3:], time.monotonic() + 10)
    b'extx'
    """
    size = len(whole)
    while size >= 1:
        at = 0
        while at < len(whole) and time.monotonic() < end:
            fewer = whole[:at] + whole[at + size :]
            if fails(fewer):
                whole = fewer
            else:
                at += size
        size //= 2
    return whole


# --- all blocks -----------------------------------------------------------------------------------------------------


def blocks(target: Target, inputs: int) -> Iterator[tuple[int, int]]:
    """Numbers of blocks, with the inputs of each."""
    for number in range(-(-inputs // target.block)):
        yield number, min(target.block, inputs - number * target.block)


def run(targets: Sequence[Target], seed: int, share: float, deadline: float, workers: int) -> dict[str, Done]:
    """Run ``share`` of the inputs of all targets, by so many processes, until ``deadline`` (monotonic). Blocks of all
    targets go on side by side, so that none is left out where the time is short. A reader that takes its process with it,
    or does not end, has let something escape too.
    """
    done = {target.name: Done() for target in targets}
    wanted = {target.name: blocks(target, max(target.block, round(target.inputs * share))) for target in targets}
    running: dict[Future[Done], tuple[str, int]] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_give_way) as pool:
        while True:
            if time.monotonic() > deadline:
                wanted.clear()
            for target in targets:
                while target.name in wanted and sum(name == target.name for name, _ in running.values()) < workers:
                    block = next(wanted[target.name], None)
                    if block is None or len(done[target.name].escapes) >= _MOST_TOLD:
                        del wanted[target.name]
                    else:
                        running[pool.submit(run_block, target, seed, *block)] = target.name, block[0]
            if not running:
                return done
            patience = deadline + _PATIENCE_SECONDS - time.monotonic()
            finished = wait(running, timeout=max(0.0, patience), return_when=FIRST_COMPLETED).done
            try:
                for future in finished:
                    name, _ = running[future]
                    done[name].add(future.result())
                    del running[future]
            except BrokenProcessPool:
                _give_up(done, seed, running.values(), "a process that read one of these blocks has died")
                return done
            if not finished:
                _give_up(done, seed, running.values(), f"not done {_PATIENCE_SECONDS:.0f} s after the end of the time")
                for process in multiprocessing.active_children():
                    process.kill()
                return done


def _give_up(done: dict[str, Done], seed: int, blocks: Iterable[tuple[str, int]], error: str) -> None:
    for name, block in blocks:
        done[name].escapes.append(Escape(name, seed, block, error, ()))


def _give_way() -> None:
    """What is measured beside the fuzzers goes before them. Refusals are logged, which nobody reads here."""
    os.nice(19)
    logging.disable()
