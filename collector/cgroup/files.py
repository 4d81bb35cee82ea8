"""Which kernel files are read, how often, and which value each key becomes: the one place where this is said.

A row's fields are names of :class:`collector.model.Reading` (fast files) or :class:`collector.model.Details`, and the
rows stand in the order of those fields: a cgroup's reading is what its files' values give, one after the other.
``docs/metrics.md`` takes the source column of each metric from here. To read a further key, add a field to the model
and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter

from collector.cgroup import grammar
from collector.model import Details, Limit, Reading

Parser = Callable[[bytes], Mapping[bytes, bytes] | Mapping[bytes, int] | Mapping[bytes, Limit]]


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


_BEYOND_U64 = 10**grammar.U64_DIGITS

Values = tuple[Limit | None, ...]
"""Values of the keys of a file, in the order of its row; ``None`` for a key that the file lacks."""


def extractor(file: KernelFile) -> Callable[[bytes], Values]:
    """A function that takes the row's values out of the file's bytes, and raises :class:`grammar.Malformed`.

    It gives what ``file.parse`` gives. Files of one kernel all have the same keys in the same order, so that for flat
    keyed ones the places of the wanted words are kept from one cgroup to the next: making a dict of a ``memory.stat``
    costs more than reading it.
    """
    keys = tuple(key.key.encode() for key in file.keys)

    def parsed(data: bytes) -> Values:
        found = file.parse(data)
        values = (found.get(key) for key in keys)
        return tuple(grammar.number(value) if isinstance(value, bytes) else value for value in values)

    if file.parse is grammar.scalar:
        return lambda data: (grammar.number(data.strip()),)
    if file.parse is not grammar.flat_keyed:
        return parsed
    if len(keys) == 1:
        return lambda data: (grammar.flat_key(data, keys[0]),)

    layout: list[bytes] = []
    places: Callable[[list[bytes]], tuple[bytes, ...]] | None = None

    def by_place(data: bytes) -> Values:
        nonlocal layout, places
        words = data.split()
        if places is not None and words[::2] == layout and data.count(b"\n") == len(layout):
            found = places(words)
            # What number() asks of each word, asked of all at once.
            digits = b"".join(found)
            if digits.isdigit() and len(digits) <= grammar.U64_DIGITS * len(found):
                numbers = tuple(map(int, found))
                if max(numbers) < _BEYOND_U64:
                    return numbers
        values = parsed(data)
        names = words[::2]
        if all(key in names for key in keys):
            layout, places = names, itemgetter(*(2 * names.index(key) + 1 for key in keys))
        return values

    return by_place


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
"""Read every tick: what rates, the peak and the working set are made of."""

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
    KernelFile(name="memory.min", parse=grammar.scalar_or_max, keys=(_gauge("", "memory_min_bytes"),)),
    KernelFile(name="memory.high", parse=grammar.scalar_or_max, keys=(_gauge("", "memory_high_bytes"),)),
    KernelFile(name="cpu.weight", parse=grammar.scalar, keys=(_gauge("", "cpu_weight"),)),
)
"""Read every few ticks (``--slow-every``)."""

ROOT_FILES: tuple[str, ...] = ("cpu.stat", "memory.stat")
"""What the root cgroup has of the above and podtally reads: it has no ``memory.current`` and no limits."""

DETAIL_FIELDS = frozenset(Details._fields)
READING_FIELDS = frozenset(Reading._fields)

EVERY_TICK_OF_PODS = frozenset(key.field for file in SLOW if file.every_tick_of_pods for key in file.keys)
"""Fields of the details that are of this tick where they are a pod's."""

DERIVED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "memory_working_set_bytes": ("memory_current_bytes", "memory_inactive_file_bytes"),
    "cpu_limit_cores": ("cpu_quota_usec", "cpu_period_usec"),
}
"""Properties of a reading, the first, or of its details, and the fields that they are made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """The fields that something is made of, of pods' cgroups and of containers'. A slow file that gives none of them is
    not read; the fast files are read always.
    """

    pods: frozenset[str]
    containers: frozenset[str]

    def __or__(self, other: Needs) -> Needs:
        return Needs(pods=self.pods | other.pods, containers=self.containers | other.containers)


EVERYTHING = Needs(pods=DETAIL_FIELDS, containers=DETAIL_FIELDS)
"""What ``record`` reads: whoever replays it may want any family."""


def slow_names(fields: frozenset[str]) -> tuple[str, ...]:
    """Names of the slow files that give one of ``fields``."""
    return tuple(file.name for file in SLOW if not fields.isdisjoint(key.field for key in file.keys))


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
