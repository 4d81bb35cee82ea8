"""The fuzzers, in little: a few thousand inputs each, the same in every run; and that they find what is wrong."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from random import Random

import pytest

from attack import fuzz, kernel
from attack.corpus import KERNEL, SEEDS, kernel_files, read_names
from attack.fuzz import Escape, Sample, Target, run_block
from attack.inputs import ANSWERS, LOAD_TESTS, WEB_CONFIGURATIONS
from attack.kernel import KERNEL_FILES, WAYS, Read, Way
from attack.mutate import BLANKS, Document, changed
from attack.recordings import RECORDINGS
from collector.cgroup.files import KernelFile

SEED = 14


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """What is refused is logged."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("target", "inputs"),
    [
        (KERNEL_FILES, 10_000),
        (ANSWERS, 2_000),
        (RECORDINGS, 250),
        (WEB_CONFIGURATIONS, 200),
        (LOAD_TESTS, 300),
    ],
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Target) else "",
)
def test_nothing_escapes(target: Target, inputs: int) -> None:
    """Of a few thousand inputs each is taken or refused as documented, and there are some of both."""
    done = run_block(target, SEED, 0, inputs)

    assert [escape.told() for escape in done.escapes] == []
    assert 0 < done.taken < done.inputs == inputs


def test_a_seed_gives_the_same_inputs() -> None:
    """Blocks of one number and seed are the same; those of others differ."""

    def made(seed: int, block: int) -> list[Sample]:
        tester, random = KERNEL_FILES.tester(), Random(f"{seed}/{KERNEL_FILES.name}/{block}")
        return [tester.make(random) for _ in range(50)]

    assert made(1, 0) == made(1, 0)
    assert len({tuple(made(*one)) for one in ((1, 0), (1, 1), (2, 0))}) == 3


class Forgetful:
    """A reader that fails at an ``x``, once it has met an ``a``."""

    def __init__(self) -> None:
        self._met = False

    def make(self, random: Random) -> Sample:
        return Sample("text", (changed(b"xylophone, banana, xerox", random, BLANKS),))

    def check(self, sample: Sample) -> bool:
        if self._met and b"x" in sample.data[0]:
            raise KeyError("x")
        self._met = self._met or b"a" in sample.data[0]
        return True


def test_what_escapes_is_cut_down() -> None:
    """An escape has as few inputs as show it, and of each as few bytes, with the error, its place and how to repeat."""
    target = Target(name="forgetful", what="", inputs=100, block=100, tester=Forgetful)

    (escape,) = run_block(target, SEED, 3, 100).escapes

    assert escape.samples == (Sample("text", (b"a",)), Sample("text", (b"x",)))
    assert escape.error.startswith("KeyError at tests/attack/test_fuzz.py:")
    assert escape.told().endswith("python -m attack.run --seed 14 --only 'forgetful' --block 3")


def test_blocks_make_up_all_inputs() -> None:
    """The blocks' inputs add up to what is asked for, and the last is as short as it must be."""
    target = Target(name="forgetful", what="", inputs=0, block=100, tester=Forgetful)

    assert list(fuzz.blocks(target, 250)) == [(0, 100), (1, 100), (2, 50)]


class Slow(Forgetful):
    """A reader that stalls at an ``x``."""

    def check(self, sample: Sample) -> bool:
        return not any(part == b"x"[0] and sum(range(3_000)) for data in sample.data for part in data * 100)


def test_what_takes_long_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An input that takes too much CPU has escaped."""
    monkeypatch.setattr(fuzz, "SLOWEST_SECONDS", -1.0)
    target = Target(name="slow", what="", inputs=1, block=1, tester=Slow)

    (escape,) = run_block(target, SEED, 0, 1).escapes

    assert escape.error.startswith("takes ")


def test_a_further_reader_of_the_kernels_files_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to read the rows that differs from the grammar is found, by a small file."""

    def generous(file: KernelFile) -> Read:
        strict = kernel.by_grammar(file)
        return lambda data: strict(data.replace(b"_", b"") if file.name == "memory.current" else data)

    monkeypatch.setattr(kernel, "WAYS", (*WAYS, Way("a generous one", generous)))

    found: list[Escape] = []
    for block in range(20):
        found = found or run_block(KERNEL_FILES, SEED, block, 4_000).escapes

    assert [len(sample.data[0]) for sample in found[0].samples] == [2]
    assert "memory.current" in found[0].samples[0].of
    assert "the grammar gives None, a generous one (" in found[0].error


def test_a_document_changes_in_its_values() -> None:
    """A changed document is its text but for the values that something else stands for."""
    document = Document({"a": [1, "x"], "b": {"c": None}})

    assert document.data == b'{"a":[1,"x"],"b":{"c":null}}'
    assert {document.data[begin:end] for begin, end in document.spans} >= {b"1", b'"x"', b"null", b'{"c":null}'}
    assert len({document.changed(Random(number)) for number in range(50)}) > 30


def test_seeds_are_small_and_of_all_that_is_read() -> None:
    """Each of the kernel's files that podtally reads has a seed; together they are small."""
    assert read_names() - kernel_files().keys() == set()
    assert all(kernel_files().values())
    assert sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file()) < 64_000
    assert (SEEDS / KERNEL).is_file()


class Deadly(Forgetful):
    """A reader that takes its process with it."""

    def check(self, sample: Sample) -> bool:
        os.kill(os.getpid(), signal.SIGKILL)
        return True


def test_a_reader_that_kills_its_process_has_let_something_escape() -> None:
    """The blocks that were under way when a process has died are told, and the campaign goes on."""
    deadly = Target(name="deadly", what="", inputs=10, block=10, tester=Deadly)

    done = fuzz.run([deadly], SEED, 1.0, time.monotonic() + 60, 1)

    assert [escape.error for escape in done["deadly"].escapes] == ["a process that read one of these blocks has died"]


def test_all_targets_are_run_by_all_processes() -> None:
    """Each target has its inputs, in blocks, whatever the order in which they come back."""
    targets = [Target(name=name, what="", inputs=90, block=40, tester=Forgetful) for name in ("one", "two")]

    done = fuzz.run(targets, SEED, 1.0, time.monotonic() + 60, 2)

    assert all(one.escapes and one.inputs <= 90 for one in done.values())
    assert done["one"].escapes[0].samples == (Sample("text", (b"a",)), Sample("text", (b"x",)))
