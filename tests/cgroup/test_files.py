"""The rows that say which kernel files are read and what becomes of them."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.cgroup import grammar
from collector.cgroup.files import (
    FAST,
    ROOT_FILES,
    ROOT_SELDOM_FILES,
    SLOW,
    KernelFile,
    Raw,
    Values,
    counters,
    extractor,
    fast_extractor,
    source_of,
)
from collector.cgroup.grammar import Malformed
from collector.errors import Absent
from collector.model import Details, Reading

ROWS = (*FAST, *SLOW)

SAMPLES = {
    "cpu.stat": b"usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 1\n"
    b"nr_bursts 7\nburst_usec 8\n",
    "memory.current": b"4096\n",
    "memory.stat": b"anon 1\nfile 2\nkernel 3\nkernel_stack 4\nshmem 5\nfile_mapped 9\ninactive_file 6\nactive_file 7\n"
    b"slab_reclaimable 8\nslab_unreclaimable 12\npgfault 10\npgmajfault 11\n",
    "memory.peak": b"4097\n",
    "memory.max": b"max\n",
    "memory.events": b"low 9\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n",
    "memory.swap.current": b"0\n",
    "memory.swap.max": b"5\n",
    "cpu.max": b"max 100000\n",
    "pids.current": b"2\n",
    "cpu.pressure": b"some avg10=0.00 total=1\nfull avg10=0.00 total=2\n",
    "memory.pressure": b"some avg10=0.00 total=3\nfull avg10=0.00 total=4\n",
    "io.pressure": b"some avg10=0.00 total=5\nfull avg10=0.00 total=6\n",
    "cpu.weight": b"100\n",
    "memory.min": b"0\n",
    "memory.high": b"max\n",
    "pids.max": b"max\n",
    "cgroup.procs": b"12\n11\n",
    "io.stat": b"254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
}


def fields(rows: tuple[KernelFile, ...]) -> list[str]:
    """The fields that rows fill, in order."""
    return [key.field for row in rows for key in row.keys]


def test_the_fast_rows_fill_each_field_of_a_reading_once() -> None:
    """Every field of Reading but its times, its details and an upstream's word is read by one fast row, in order."""
    others = ("monotonic_ns", "details", "told_working_set_bytes", "slow_ns", "seldom_ns")
    assert fields(FAST) == [name for name in Reading._fields if name not in others]


def test_the_slow_rows_fill_each_field_of_the_details_once() -> None:
    """Every field of Details is read by one slow row, in the order of the fields."""
    assert fields(SLOW) == list(Details._fields)


def test_no_key_of_a_file_is_read_twice() -> None:
    """A file and a key stand in one row alone."""
    assert [
        where for where, n in Counter((row.name, key.key) for row in ROWS for key in row.keys).items() if n > 1
    ] == []


def test_each_row_has_a_sample_here() -> None:
    """The samples that these tests parse are of exactly the files that are read."""
    assert {row.name for row in ROWS} == SAMPLES.keys()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_grammar_of_a_row_gives_all_its_keys(row: KernelFile) -> None:
    """The keys that a row wants are the ones that its grammar makes of the kernel's file."""
    lacking = {key.key.encode() for key in row.keys} - row.parse(SAMPLES[row.name]).keys()

    assert lacking == set(), f"add the key to SAMPLES[{row.name!r}]"


def test_the_root_files_are_files_of_rows() -> None:
    """What is read of the root cgroup is among what is read of any."""
    assert {*ROOT_FILES, *ROOT_SELDOM_FILES} - {row.name for row in ROWS} == set()


def test_the_source_of_a_field_is_its_file_and_key() -> None:
    """A keyed file's source names the key, a scalar's the file alone, and no field has none."""
    assert [source_of(name) for name in ("memory_anon_bytes", "memory_current_bytes", "cpu_cores")] == [
        "memory.stat: anon",
        "memory.current",
        None,
    ]


def test_what_only_grows_is_told() -> None:
    """The counters are the ones that the kernel documents as such."""
    assert sorted(counters(ROWS)) == [
        "cpu_burst_periods",
        "cpu_burst_usec",
        "cpu_periods",
        "cpu_pressure_full_usec",
        "cpu_pressure_some_usec",
        "cpu_system_usec",
        "cpu_throttled_periods",
        "cpu_throttled_usec",
        "cpu_usage_usec",
        "cpu_user_usec",
        "io_pressure_full_usec",
        "io_pressure_some_usec",
        "memory_high_events",
        "memory_major_page_faults",
        "memory_max_events",
        "memory_oom_events",
        "memory_oom_group_kill_events",
        "memory_oom_kill_events",
        "memory_page_faults",
        "memory_pressure_full_usec",
        "memory_pressure_some_usec",
    ]


# --- taking values out ----------------------------------------------------------------------------------------------


def plain(row: KernelFile, data: bytes) -> Values:
    """The values by the row's grammar alone."""
    if row.parse is grammar.flat_keyed and len(row.keys) == 1:
        return (grammar.flat_key(data, row.keys[0].key.encode()),)
    found = row.parse(data)
    values = [found.get(key.key.encode()) for key in row.keys]
    return tuple(grammar.number(value) if isinstance(value, bytes) else value for value in values)


def outcome(take: object, *arguments: object) -> object:
    """What a function gives, or that it found its input malformed."""
    try:
        return take(*arguments)  # type: ignore[operator]
    except Malformed:
        return Malformed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_extractor_gives_what_the_grammar_gives_twice(row: KernelFile) -> None:
    """The second reading of a file, whose layout is known by then, gives the same as the first."""
    take = extractor(row)
    expected = plain(row, SAMPLES[row.name])
    assert [take(SAMPLES[row.name]), take(SAMPLES[row.name])] == [expected, expected]


def test_an_extractor_sees_that_the_layout_has_changed() -> None:
    """Other keys, another order or fewer keys after a known layout give those files' values."""
    row = FAST[0]
    take = extractor(row)
    take(SAMPLES["cpu.stat"])
    others = [b"user_usec 5\nusage_usec 9\n", b"", b"x 1\n" + SAMPLES["cpu.stat"], SAMPLES["cpu.stat"]]
    assert [take(data) for data in others] == [plain(row, data) for data in others]


def test_an_extractor_refuses_lines_that_run_together() -> None:
    """What is malformed for the grammar is malformed for an extractor that knows the layout as well."""
    take = extractor(FAST[0])
    take(SAMPLES["cpu.stat"])
    with pytest.raises(Malformed):
        take(SAMPLES["cpu.stat"].replace(b"\n", b" "))


LINES = st.sampled_from(
    ["usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec", "nr_bursts"]
).flatmap(
    lambda key: st.sampled_from(["0", "7", "123456", "x", "-1", "", "1 2", "9" * 20, "9" * 21]).map(
        (key + " {}").format
    )
)
CPU_STATS = st.lists(LINES, max_size=8, unique_by=lambda line: line.partition(" ")[0]).map(
    lambda lines: "".join(line + "\n" for line in lines).encode()
)


@given(st.lists(CPU_STATS | st.just(SAMPLES["cpu.stat"]), max_size=4))
@settings(max_examples=300)
def test_an_extractor_gives_what_the_grammar_gives_whatever_came_before(files: list[bytes]) -> None:
    """What an extractor has seen changes nothing in what it gives, malformed files included."""
    take = extractor(FAST[0])
    assert [outcome(take, data) for data in files] == [outcome(plain, FAST[0], data) for data in files]


# --- the files of every tick at one go ------------------------------------------------------------------------------

OFTEN = tuple(SAMPLES[row.name] for row in FAST)
"""The fast files as they mostly are."""


def row_by_row(read: Sequence[Raw]) -> object:
    """The values of the fast files, each taken by its own row; ``None`` where one has not all of its values."""
    values: list[object] = []
    for row, data in zip(FAST, read, strict=False):
        found = outcome(plain, row, data) if isinstance(data, bytes) else None
        if not isinstance(found, tuple) or None in found:
            return None
        values += found
    return values


def test_the_fast_files_are_taken_at_one_go_from_the_second_on() -> None:
    """The first reading of a layout tells it, the second gives all values in the order of a reading's fields."""
    take = fast_extractor()

    assert take(OFTEN) is None
    assert take(OFTEN) == [9, 5, 4, 3, 2, 1, 4096, 6]


def test_what_is_read_beside_the_fast_files_is_not_looked_at() -> None:
    """A pod's memory.events, read every tick as well, stands behind them."""
    take = fast_extractor()
    take(OFTEN)

    assert take((*OFTEN, b"x")) == take(OFTEN) is not None


CPU, CURRENT, STAT = OFTEN
ODD: dict[str, tuple[Raw, Raw, Raw]] = {
    "cpu.stat lacks a key": (CPU.replace(b"nr_periods 3\n", b""), CURRENT, STAT),
    "cpu.stat is malformed": (CPU.replace(b"nr_periods 3", b"nr_periods 1_0"), CURRENT, STAT),
    "cpu.stat has a number of 21 digits": (CPU.replace(b"usage_usec 9", b"usage_usec " + b"9" * 21), CURRENT, STAT),
    "cpu.stat has a key twice": (b"usage_usec 8\n" + CPU, CURRENT, STAT),
    "cpu.stat ends in memory.current": (CPU[:-2], b"8\n" + CURRENT, STAT),
    "cpu.stat has a NUL": (CPU.replace(b"burst_usec 8\n", b"burst_usec 8\n\0"), CURRENT, STAT),
    "cpu.stat is empty": (b"", CURRENT, STAT),
    "memory.current is empty": (CPU, b"", STAT),
    "memory.current is signed": (CPU, b"+4096\n", STAT),
    "memory.current is no number": (CPU, b"max\n", STAT),
    "memory.stat lacks the key": (CPU, CURRENT, STAT.replace(b"inactive_file", b"inactive_fil")),
    "memory.stat is malformed": (CPU, CURRENT, STAT.replace(b"inactive_file 6", b"inactive_file x")),
    "memory.stat has the key twice, malformed": (CPU, CURRENT, b"\ninactive_file x\ninactive_file 6\n"),
    "memory.stat begins with the key": (CPU, CURRENT, b"inactive_file 6\ninactive_file 7\n"),
    "memory.stat has nothing": (CPU, CURRENT, b""),
    "cpu.stat is not there": (Absent("cpu.stat", errno.ENOENT), CURRENT, STAT),
    "memory.current is not there": (CPU, Absent("memory.current", errno.ENOENT), STAT),
    "memory.stat is not there": (CPU, CURRENT, Absent("memory.stat", errno.ENOENT)),
}


@pytest.mark.parametrize("read", ODD.values(), ids=ODD)
def test_odd_fast_files_are_left_to_their_rows(read: tuple[Raw, Raw, Raw]) -> None:
    """What is not as it mostly is gives no values at one go, however often it comes, and spoils nothing for others."""
    take = fast_extractor()
    take(OFTEN)

    assert [take(read), take(read)] == [None, None]
    take(OFTEN)
    assert take(OFTEN) == row_by_row(OFTEN)


NUMBERS = st.sampled_from([b"0\n", b"4096\n", b"4096", b" 7 \n", b"-1\n", b"", b"9" * 21 + b"\n", b"1\n2\n", b"1\0\n"])
MEMORY_STATS = st.lists(
    st.sampled_from([b"anon 1\n", b"inactive_file 6\n", b"inactive_file x\n", b"inactive_file", b"\n", b"\0", b"x"])
).map(b"".join)


@given(
    st.lists(st.tuples(CPU_STATS | st.just(CPU), NUMBERS | st.just(CURRENT), MEMORY_STATS | st.just(STAT)), max_size=4)
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_the_fast_files_at_one_go_give_what_their_rows_give(readings: list[tuple[bytes, bytes, bytes]]) -> None:
    """Whatever came before: values at one go are those of row by row, or there are none."""
    take = fast_extractor()
    for read in [OFTEN, OFTEN, *readings]:
        found = take(read)
        assert found is None or found == row_by_row(read)
