"""The kernel's files under the fuzzer: each row of ``collector/cgroup/files.py``, read in several ways that must agree.

A further reader of them, as one in C, joins as a further line of :data:`WAYS`, and of :data:`FAST_WAYS` if it reads the
files of every tick at one go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple, cast

from attack.corpus import kernel_files
from attack.fuzz import Differ, Sample, Target
from attack.mutate import BLANKS, NUMBERS, changed, renumbered
from collector.cgroup import grammar
from collector.cgroup.files import FAST, SLOW, KernelFile, Value, Values, extractor, fast_extractor
from collector.model import NO_LIMIT

Read = Callable[[bytes], Values]
ReadFast = Callable[[Sequence[bytes]], Sequence[int] | None]

LIMIT: Final = 10**grammar.U64_DIGITS
"""What no value of the kernel's files reaches."""


class Way(NamedTuple):
    """A way to read a row. A reader raises :class:`grammar.Malformed`, and may keep what it likes from file to file."""

    name: str
    reader: Callable[[KernelFile], Read]


def by_grammar(file: KernelFile) -> Read:
    """The grammar alone, which keeps nothing."""
    keys = tuple(key.key.encode() for key in file.keys)
    if file.parse is not grammar.flat_keyed:
        parse = cast(Callable[[bytes], Mapping[bytes, Value]], file.parse)
        return lambda data: tuple(map(parse(data).get, keys))
    if len(keys) == 1:
        return lambda data: (grammar.flat_key(data, keys[0]),)

    def read(data: bytes) -> Values:
        words = grammar.flat_keyed(data)
        return tuple(grammar.number(words[key]) if key in words else None for key in keys)

    return read


def _fast() -> ReadFast:
    return fast_extractor()


WAYS: tuple[Way, ...] = (Way("the grammar", by_grammar), Way("the extractor", extractor))
"""The first is what the others are held against."""

FAST_WAYS: tuple[tuple[str, Callable[[], ReadFast]], ...] = (("the fast extractor", _fast),)
"""Readers of all files of :data:`FAST` at one go; ``None`` of one that leaves it to the rows."""

_OTHERS: Mapping[str, Callable[[bytes], object]] = {
    "cgroup.events": lambda data: grammar.flat_key(data, b"populated"),
    "meminfo": grammar.meminfo,
    "net/dev": grammar.interfaces,
    "partitions": grammar.partitions,
}
"""Files that no row is of."""

_WORDS: Final = (
    *(*NUMBERS, *BLANKS, b"max", b"=", b":", b"total=", b"some ", b"8:0 ", b"max 100000", b"\xff", b"kB", b"|"),
    *(b"usage_usec ", b"inactive_file ", b"anon 5\n", b"oom_kill 3\n", b"populated 1\n", b"rbytes=1 ", b"eth0: 1"),
)
_FAST_SHARE: Final = 0.15
"""Of the inputs, those that are the three files of every tick at one go."""
_MOST_LAYOUTS: Final = 0.1
_LAYOUTS_A_BYTE: Final = 8.0
"""How often more than a number may change: of a long file seldom. A layout that is new is made a pattern of, which takes
a hundred times as long as to read a file of it.
"""
_ANOTHER_KERNEL: Final = 0.002
"""How often the files of another kernel come."""


def _changed(data: bytes, random: Random) -> bytes:
    if random.random() < min(_MOST_LAYOUTS, _LAYOUTS_A_BYTE / (len(data) + 1)):
        return changed(data, random, _WORDS)
    return renumbered(data, random)


class _Row(NamedTuple):
    file: KernelFile
    of: str
    seeds: list[bytes]


class KernelTester:
    """Rows, the files of every tick at one go, and the files of ``/proc``."""

    def __init__(self) -> None:
        texts = kernel_files()
        self._rows = [
            _Row(file, f"{file.name}, row {number}", texts[file.name]) for number, file in enumerate((*FAST, *SLOW))
        ]
        self._readers: dict[str, list[Read]] = {row.of: [way.reader(row.file) for way in WAYS] for row in self._rows}
        self._fast = [(name, make()) for name, make in FAST_WAYS]
        self._fast_rows = [WAYS[0].reader(file) for file in FAST]
        self._made = [(row.of, row.seeds) for row in self._rows] + [(name, texts[name]) for name in _OTHERS]
        self._fast_seeds = [texts[file.name] for file in FAST]
        self._kernel = 0

    def make(self, random: Random) -> Sample:
        """A file of any row, or the files of every tick, mostly of the layout that was met last."""
        chance = random.random
        if chance() < _ANOTHER_KERNEL:
            self._kernel = int(chance() * 12)
        if chance() < _FAST_SHARE:
            whole = [seeds[self._kernel % len(seeds)] for seeds in self._fast_seeds]
            place = int(chance() * 3)
            whole[place] = _changed(whole[place], random)
            return Sample("every tick's", tuple(whole))
        of, seeds = self._made[int(chance() * len(self._made))]
        return Sample(of, (_changed(seeds[self._kernel % len(seeds)], random),))

    def check(self, sample: Sample) -> bool:
        """Whether the grammar takes it. Raises :class:`Differ`."""
        readers = self._readers.get(sample.of)
        if readers is not None:
            return self._check_row(sample.data[0], readers)
        if sample.of == "every tick's":
            return self._check_fast(sample.data)
        try:
            _OTHERS[sample.of](sample.data[0])
        except grammar.Malformed:
            return False
        return True

    def _check_row(self, data: bytes, readers: Sequence[Read]) -> bool:
        told = _told(readers[0], data)
        for way, read in zip(WAYS[1:], readers[1:], strict=True):
            other = _told(read, data)
            if other != told:
                raise Differ(f"{WAYS[0].name} gives {told}, {way.name} {other}")
        if told is None:
            return False
        _hold(told)
        return True

    def _check_fast(self, data: Sequence[bytes]) -> bool:
        taken = False
        for name, read in self._fast:
            values = read(data)
            if values is None:
                continue
            taken = True
            rows = [_told(one, part) for one, part in zip(self._fast_rows, data, strict=True)]
            told = None if None in rows else [value for row in rows if row is not None for value in row]
            if told != list(values):
                raise Differ(f"{WAYS[0].name} gives {told}, {name} {values}")
        return taken


def _told(read: Read, data: bytes) -> Values | None:
    """What a reader makes of a file; ``None`` if it refuses it."""
    try:
        return read(data)
    except grammar.Malformed:
        return None


def _hold(values: Values) -> None:
    """Raises :class:`Differ` if one is no value of the kernel's."""
    for value in values:
        if isinstance(value, tuple):
            for device in value:
                _hold(cast(Values, device))
        elif value is not None and not 0 <= value < LIMIT and value != NO_LIMIT:
            raise Differ(f"{value} is no value of a kernel's file")


KERNEL_FILES: Final = Target(
    name="kernel files",
    what="every row and grammar of `collector/cgroup`, in all ways of reading it, which must agree",
    inputs=9_850_000,
    block=20_000,
    tester=KernelTester,
)
