"""Which kernel files are read, how often, and which value each key becomes: the one place where this is said.

A row's fields are names of :class:`collector.model.Reading` (fast files) or :class:`collector.model.Details`, and the
rows stand in the order of those fields: a cgroup's reading is what its files' values give, one after the other.
``docs/metrics.md`` takes the source column of each metric from here. To read a further key, add a field to the model
and a row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from collector.cgroup import grammar
from collector.errors import SourceError
from collector.model import Details, DeviceIo, Limit, Reading

Raw = bytes | SourceError
"""What was read of a file."""

Value = Limit | tuple[DeviceIo, ...]
Parser = Callable[
    [bytes],
    Mapping[bytes, bytes] | Mapping[bytes, int] | Mapping[bytes, Limit] | Mapping[bytes, tuple[DeviceIo, ...]],
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """``key`` of a file becomes ``field``."""

    key: str
    field: str
    counter: bool = False
    """True if it only grows while the cgroup lives; a looped replay carries its base over the seam."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """One file of a cgroup directory."""

    name: str
    parse: Parser
    keys: tuple[Key, ...]
    every_tick_of_pods: bool = False
    """Read of pods in every tick all the same: what it counts is lost with the pod's cgroup."""
    to_the_end: bool = False
    """Read of a container between ticks too, while it is so young that it may not live to the next."""


Values = tuple[Value | None, ...]
"""Values of the keys of a file, in the order of its row; ``None`` for a key that the file lacks."""


class Held(NamedTuple):
    """What came of holding a row's counters."""

    shown: Values
    """What was read, with what is lower than before held."""
    least: Values
    """Below which none may be from now on: of a key or a device that is not there now, what it was."""
    falls: int
    """How many were lower."""


Hold = Callable[[Values, Values], Held]
"""Given the least of a row's values and what was read of it now."""


def holder(file: KernelFile) -> Hold | None:
    """What holds the counters of a row; ``None`` for one that has none."""
    if any(key.field == "io" for key in file.keys):
        return _hold_devices
    places = tuple(number for number, key in enumerate(file.keys) if key.counter)
    if not places:
        return None

    def hold(least: Values, now: Values) -> Held:
        fallen = [number for number in places if _is_below(now[number], least[number])]
        if not fallen and None not in now:
            return Held(now, now, 0)
        shown = tuple(least[number] if number in fallen else value for number, value in enumerate(now))
        kept = tuple(before if value is None else value for before, value in zip(least, shown, strict=True))
        return Held(shown, kept, len(fallen))

    return hold


def _is_below(now: object, least: object) -> bool:
    return isinstance(now, int) and isinstance(least, int) and now < least


def _hold_devices(least: Values, now: Values) -> Held:
    """Of ``io.stat``, device by device: one that goes away may come again."""
    (known,), (told,) = least, now
    if not isinstance(known, tuple) or not isinstance(told, tuple):
        return Held(now, now if isinstance(told, tuple) else least, 0)
    kept = {device[:2]: device for device in known}
    falls = 0
    found: list[DeviceIo] = []
    for device in told:
        before = kept.get(device[:2], device)
        lower = list(map(_is_below, device[2:], before[2:]))
        if True in lower:
            falls += sum(lower)
            values = (old if low else new for low, old, new in zip(lower, before[2:], device[2:], strict=True))
            device = DeviceIo(*device[:2], *values)
        kept[device[:2]] = device
        found.append(device)
    return Held((tuple(found),), (tuple(kept.values()),), falls)


def extractor(file: KernelFile) -> Callable[[bytes], Values]:
    """A function that takes the row's values out of the file's bytes, and raises :class:`grammar.Malformed`.

    It gives what ``file.parse`` gives. Files of one kernel all have the same keys in the same order, so that for flat
    keyed ones the layout is kept from one cgroup to the next: making a dict of a ``memory.stat`` costs more than
    reading it.
    """
    keys = tuple(key.key.encode() for key in file.keys)

    if file.parse is grammar.scalar:
        return lambda data: (grammar.number(data.strip()),)
    if file.parse is not grammar.flat_keyed:
        parse = cast(Callable[[bytes], Mapping[bytes, Value]], file.parse)
        return lambda data: tuple(map(parse(data).get, keys))
    return _one_key(keys[0]) if len(keys) == 1 else _by_layout(keys)


def _one_key(key: bytes) -> Callable[[bytes], Values]:
    first, search = key + b" ", re.compile(rb"\n" + re.escape(key) + rb" ([^\n]*)\n").search

    def by_search(data: bytes) -> Values:
        found = search(data)
        if found is None or data.startswith(first):
            return (grammar.flat_key(data, key),)
        return (grammar.number(found[1]),)

    return by_search


def _by_layout(keys: tuple[bytes, ...]) -> Callable[[bytes], Values]:
    """One pattern for the whole of a file of the layout that was met last: it gives the wanted words and sees that the
    rest is as it was, in half the time that splitting the file into words takes.
    """
    match: Callable[[bytes], re.Match[bytes] | None] | None = None
    groups: tuple[int, ...] = ()

    def by_layout(data: bytes) -> Values:
        nonlocal match, groups
        found = match(data) if match is not None else None
        if found is not None:
            return tuple(map(int, found.group(*groups)))
        words = grammar.flat_keyed(data)
        values = tuple(grammar.number(words[key]) if key in words else None for key in keys)
        pattern, wanted = _layout(data, keys)
        if sorted(wanted) == sorted(keys):
            groups = tuple(1 + wanted.index(key) for key in keys)
            match = re.compile(pattern).fullmatch
        return values

    return by_layout


_NUMBER = rb"(\d{1,%d})\n" % grammar.U64_DIGITS
"""What grammar.number() takes."""


def _layout(data: bytes, keys: Collection[bytes]) -> tuple[bytes, list[bytes]]:
    """A pattern for flat keyed files of the same keys in the same order, and of ``keys`` those that have a group in it,
    in that order. Other keys may have any word.
    """
    names = data.split()[::2]
    pattern = b"".join(re.escape(name) + b" " + (_NUMBER if name in keys else rb"[^\s\0]+\n") for name in names)
    return pattern, [name for name in names if name in keys]


def fast_extractor() -> Callable[[Sequence[Raw]], list[int] | None]:
    """A function that takes the values of :data:`FAST` out of what was read of its files, all at one go: in half the
    time that it takes file by file, and this is what most of a tick's files are parsed by.

    ``None`` if they are not as they mostly are: where a file could not be read, lacks a key, is malformed, or has
    another layout than the one before. Then the extractors of the rows say what is in each of them.
    """
    cpu, stat = (tuple(key.key.encode() for key in FAST[number].keys) for number in (0, 2))
    first = stat[0] + b" "
    search = re.compile(rb"\n%b(?:%b)?" % (re.escape(first), _NUMBER)).search
    match: Callable[[bytes], re.Match[bytes] | None] = re.compile(rb"(?!)").fullmatch

    def take(read: Sequence[Raw]) -> list[int] | None:
        nonlocal match
        cpu_stat, memory_current, memory_stat = read[0], read[1], read[2]
        if not (isinstance(cpu_stat, bytes) and isinstance(memory_current, bytes) and isinstance(memory_stat, bytes)):
            return None
        # No pattern of either file takes a NUL, so that what stands before it and behind it is of one file.
        found, inactive = match(b"%b\0%b" % (cpu_stat, memory_current)), search(memory_stat)
        if found is None or inactive is None or inactive[1] is None or memory_stat.startswith(first):
            pattern, wanted = _layout(cpu_stat, cpu)
            if tuple(wanted) == cpu and b"\0" not in pattern:
                match = re.compile(rb"%b\0%b" % (pattern, _NUMBER)).fullmatch
            return None
        return [*map(int, found.groups()), int(inactive[1])]

    return take


def _counter(key: str, field: str) -> Key:
    return Key(key=key, field=field, counter=True)


def _gauge(key: str, field: str) -> Key:
    return Key(key=key, field=field)


FAST: tuple[KernelFile, ...] = (
    KernelFile(
        name="cpu.stat",
        parse=grammar.flat_keyed,
        keys=(
            _counter("usage_usec", "cpu_usage_usec"),
            _counter("user_usec", "cpu_user_usec"),
            _counter("system_usec", "cpu_system_usec"),
            _counter("nr_periods", "cpu_periods"),
            _counter("nr_throttled", "cpu_throttled_periods"),
            _counter("throttled_usec", "cpu_throttled_usec"),
        ),
    ),
    KernelFile(name="memory.current", parse=grammar.scalar, keys=(_gauge("", "memory_current_bytes"),)),
    KernelFile(
        name="memory.stat", parse=grammar.flat_keyed, keys=(_gauge("inactive_file", "memory_inactive_file_bytes"),)
    ),
)
"""Read every tick: what rates, the peak and the working set are made of. The last, ``memory.stat``, costs the kernel
ten times what the others do, as it adds up all CPUs' counters: it is read if ``memory.current`` moved."""

STILL_TICKS = 5
"""The most ticks from one reading of ``memory.stat`` to the next. The kernel may move pages from list to list without a
charge: in the recordings of real nodes 4 of 10,325 working sets are held so, each at 4 KiB less than it is."""

SLOW: tuple[KernelFile, ...] = (
    KernelFile(
        name="memory.stat",
        parse=grammar.flat_keyed,
        keys=(
            _gauge("anon", "memory_anon_bytes"),
            _gauge("file", "memory_file_bytes"),
            _gauge("kernel", "memory_kernel_bytes"),
            _gauge("kernel_stack", "memory_kernel_stack_bytes"),
            _gauge("shmem", "memory_shmem_bytes"),
            _gauge("active_file", "memory_active_file_bytes"),
            _gauge("slab_reclaimable", "memory_slab_reclaimable_bytes"),
            _gauge("slab_unreclaimable", "memory_slab_unreclaimable_bytes"),
        ),
    ),
    KernelFile(name="memory.peak", parse=grammar.scalar, keys=(_gauge("", "memory_peak_bytes"),), to_the_end=True),
    KernelFile(name="memory.max", parse=grammar.scalar_or_max, keys=(_gauge("", "memory_limit_bytes"),)),
    KernelFile(
        name="memory.events",
        parse=grammar.flat_keyed,
        keys=(
            _counter("high", "memory_high_events"),
            _counter("max", "memory_max_events"),
            _counter("oom", "memory_oom_events"),
            _counter("oom_kill", "memory_oom_kill_events"),
            _counter("oom_group_kill", "memory_oom_group_kill_events"),
        ),
        every_tick_of_pods=True,
        to_the_end=True,
    ),
    KernelFile(name="memory.swap.current", parse=grammar.scalar, keys=(_gauge("", "swap_usage_bytes"),)),
    KernelFile(name="memory.swap.max", parse=grammar.scalar_or_max, keys=(_gauge("", "swap_limit_bytes"),)),
    KernelFile(
        name="cpu.max",
        parse=grammar.quota_period,
        keys=(_gauge("quota", "cpu_quota_usec"), _gauge("period", "cpu_period_usec")),
    ),
    KernelFile(name="pids.current", parse=grammar.scalar, keys=(_gauge("", "tasks"),)),
    KernelFile(
        name="cpu.pressure",
        parse=grammar.pressure,
        keys=(_counter("some", "cpu_pressure_some_usec"), _counter("full", "cpu_pressure_full_usec")),
    ),
    KernelFile(
        name="memory.pressure",
        parse=grammar.pressure,
        keys=(_counter("some", "memory_pressure_some_usec"), _counter("full", "memory_pressure_full_usec")),
    ),
    KernelFile(
        name="io.pressure",
        parse=grammar.pressure,
        keys=(_counter("some", "io_pressure_some_usec"), _counter("full", "io_pressure_full_usec")),
    ),
    KernelFile(
        name="memory.stat",
        parse=grammar.flat_keyed,
        keys=(
            _gauge("file_mapped", "memory_mapped_file_bytes"),
            _counter("pgfault", "memory_page_faults"),
            _counter("pgmajfault", "memory_major_page_faults"),
        ),
    ),
    KernelFile(
        name="cpu.stat",
        parse=grammar.flat_keyed,
        keys=(_counter("nr_bursts", "cpu_burst_periods"), _counter("burst_usec", "cpu_burst_usec")),
    ),
    KernelFile(name="cpu.weight", parse=grammar.scalar, keys=(_gauge("", "cpu_weight"),)),
    KernelFile(name="memory.min", parse=grammar.scalar_or_max, keys=(_gauge("", "memory_min_bytes"),)),
    KernelFile(name="pids.max", parse=grammar.scalar_or_max, keys=(_gauge("", "tasks_limit"),)),
    KernelFile(
        name="cgroup.procs",
        parse=grammar.process_ids,
        keys=(_gauge("lines", "processes"), _gauge("lowest", "process_id")),
    ),
    KernelFile(name="io.stat", parse=grammar.nested_keyed, keys=(_gauge("", "io"),)),
    KernelFile(name="memory.high", parse=grammar.scalar_or_max, keys=(_gauge("", "memory_high_bytes"),)),
)
"""Read every few ticks (``--slow-every``) or more seldom, where something is made of them: :class:`Needs`."""

SELDOM_TURNS = 3
"""How many times the other slow files are read before one is that only :attr:`Needs.seldom` names: every 15 s, as the
kubelet looks at a cgroup every 10 to 20 s. With ``--slow-every 1`` all are read every tick."""

ROOT_FILES: tuple[str, ...] = ("cpu.stat", "memory.stat")
"""What podtally reads of the root cgroup every tick: it has no ``memory.current`` and no limits."""

ROOT_FIELDS = frozenset({"memory_anon_bytes", "memory_file_bytes"})
"""Which details are made of that: of them and a fast value is the node's working set."""

ROOT_SELDOM_FILES: tuple[str, ...] = ("cpu.pressure", "memory.pressure", "io.pressure", "cgroup.procs", "io.stat")
"""What it reads of it seldom."""

DETAIL_FIELDS = frozenset(Details._fields)
READING_FIELDS = frozenset(Reading._fields)

EVERY_TICK_OF_PODS = frozenset(key.field for file in SLOW if file.every_tick_of_pods for key in file.keys)
"""Fields of the details that are of this tick where they are a pod's."""

DERIVED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "memory_working_set_bytes": ("memory_current_bytes", "memory_inactive_file_bytes"),
    "cpu_limit_cores": ("cpu_quota_usec", "cpu_period_usec"),
    "cpu_shares": ("cpu_weight",),
}
"""Properties of a reading, the first, or of its details, and the fields that they are made of."""


def level_of(field: str) -> Literal["reading", "details"] | None:
    """Whether a field or property is a reading's or its details'; ``None`` for what neither has.

    >>> level_of("memory_working_set_bytes"), level_of("cpu_shares"), level_of("cpu_cores")
    ('reading', 'details', None)
    """
    if field in READING_FIELDS or (field in DERIVED_FIELDS and hasattr(Reading, field)):
        return "reading"
    return "details" if field in DETAIL_FIELDS or field in DERIVED_FIELDS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The fields that something is made of, of pods' cgroups and of containers'. A slow row that gives none of them is
    not read; the fast files are read always.
    """

    pods: frozenset[str]
    """Of the cgroups that hold pods too."""
    containers: frozenset[str]
    """Of sandboxes too."""
    seldom: frozenset[str] = frozenset()
    """Of any cgroup: where the other two do not ask for them, every :data:`SELDOM_TURNS`-th reading does."""

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            pods=self.pods | other.pods,
            containers=self.containers | other.containers,
            seldom=self.seldom | other.seldom,
        )


EVERYTHING = Needs(pods=DETAIL_FIELDS, containers=DETAIL_FIELDS)
"""What ``record`` reads: whoever replays it may want any family."""


def slow_rows(fields: frozenset[str]) -> tuple[KernelFile, ...]:
    """The slow rows that give one of ``fields``."""
    return tuple(file for file in SLOW if not fields.isdisjoint(key.field for key in file.keys))


def slow_fields(fields: frozenset[str]) -> frozenset[str]:
    """The fields that are read with ``fields``: those of the same rows."""
    return frozenset(key.field for file in slow_rows(fields) for key in file.keys)


def slow_names(fields: frozenset[str]) -> tuple[str, ...]:
    """Names of the slow files that give one of ``fields``."""
    return tuple(dict.fromkeys(file.name for file in slow_rows(fields)))


def source_of(field: str) -> str | None:
    """``memory.stat: anon`` for ``memory_anon_bytes``; ``None`` for a name that is no field."""
    for file in (*FAST, *SLOW):
        for key in file.keys:
            if key.field == field:
                return f"{file.name}: {key.key}" if key.key else file.name
    return None


def counters(files: tuple[KernelFile, ...]) -> frozenset[str]:
    """Names of the fields that only grow."""
    return frozenset(key.field for file in files for key in file.keys if key.counter)
