"""The grammars of the kernel's files: values, malformed lines, absent keys, and any bytes at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.cgroup import grammar
from collector.cgroup.grammar import Malformed
from collector.model import NO_LIMIT, DeviceIo, Interface

Grammar = Callable[[bytes], Mapping[bytes, Any]]

PRESSURE = b"some avg10=0.10 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=55\n"

IO_STAT = b"254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"

VALUES: list[tuple[Grammar, bytes, Mapping[bytes, Any]]] = [
    (grammar.scalar, b"0\n", {b"": 0}),
    (grammar.scalar, b"8388608\n", {b"": 8388608}),
    (grammar.scalar, b"8388608", {b"": 8388608}),
    (grammar.scalar, b"18446744073709551615\n", {b"": 2**64 - 1}),
    (grammar.scalar_or_max, b"max\n", {b"": NO_LIMIT}),
    (grammar.scalar_or_max, b"0\n", {b"": 0}),
    (grammar.quota_period, b"max 100000\n", {b"quota": NO_LIMIT, b"period": 100000}),
    (grammar.quota_period, b"50000 100000\n", {b"quota": 50000, b"period": 100000}),
    (grammar.flat_keyed, b"", {}),
    (grammar.flat_keyed, b"usage_usec 12\nnew_key 7\n", {b"usage_usec": b"12", b"new_key": b"7"}),
    (grammar.flat_keyed, b"oom_kill 1", {b"oom_kill": b"1"}),
    (grammar.pressure, b"", {}),
    (grammar.pressure, PRESSURE, {b"some": 77, b"full": 55}),
    (grammar.pressure, PRESSURE.splitlines()[0], {b"some": 77}),
    (grammar.process_ids, b"", {b"lines": 0}),
    (grammar.process_ids, b"812\n97\n97\n", {b"lines": 3, b"lowest": 97}),
    (grammar.process_ids, b"0\n0\n", {b"lines": 2, b"lowest": 0}),
    (grammar.nested_keyed, b"", {b"": ()}),
    (grammar.nested_keyed, IO_STAT, {b"": (DeviceIo(254, 0, 4096, 0, 1, 0),)}),
    # Kernels before 5.14 print a device without counters, with or without the end of its line.
    (grammar.nested_keyed, b"8:0\n", {b"": ()}),
    (grammar.nested_keyed, b"8:0 \n" + IO_STAT, {b"": (DeviceIo(254, 0, 4096, 0, 1, 0),)}),
    (grammar.nested_keyed, b"8:0 8:16 " + IO_STAT, {b"": (DeviceIo(254, 0, 4096, 0, 1, 0),)}),
    # Cut short: the last number may lack digits.
    (grammar.nested_keyed, IO_STAT + b"8:0 rbytes=81", {b"": (DeviceIo(254, 0, 4096, 0, 1, 0),)}),
    (grammar.nested_keyed, IO_STAT + b"8:", {b"": (DeviceIo(254, 0, 4096, 0, 1, 0),)}),
    (grammar.nested_keyed, b"8:0 rbytes=1\n8:0 wbytes=2\n", {b"": (DeviceIo(8, 0, 1, 2),)}),
    (
        grammar.nested_keyed,
        b"8:0 cost.vrate=100.00 cost.usage=1 cost.wait=2 cost.indebt=3 cost.indelay=4 use_delay=0\n",
        {b"": (DeviceIo(8, 0, None, None, None, None, 1, 2, 3, 4),)},
    ),
    (grammar.meminfo, b"", {}),
    (grammar.meminfo, b"SwapTotal:  4 kB\nHugePages_Total:   0\nNew: 1 MB\n", {b"SwapTotal": 4096}),
]

MALFORMED: list[tuple[Grammar, bytes, bytes]] = [
    (grammar.scalar, b"", b""),
    (grammar.scalar, b"max\n", b"max"),
    (grammar.scalar, b"-1\n", b"-1"),
    (grammar.scalar, b"+1\n", b"+1"),
    (grammar.scalar, b"1_0\n", b"1_0"),
    (grammar.scalar, b"1.5\n", b"1.5"),
    (grammar.scalar, b"1 2\n", b"1 2"),
    (grammar.scalar, b"1\x00\n", b"1\x00"),
    (grammar.scalar, "٣\n".encode(), "٣".encode()),
    (grammar.scalar, b"1" * 21, b"1" * 21),
    (grammar.scalar_or_max, b"maximum\n", b"maximum"),
    (grammar.scalar_or_max, b"", b""),
    (grammar.quota_period, b"max\n", b"max\n"),
    (grammar.quota_period, b"1 2 3\n", b"1 2 3\n"),
    (grammar.quota_period, b"100000 max\n", b"max"),
    (grammar.quota_period, b"x 100000\n", b"x"),
    (grammar.flat_keyed, b"usage_usec 1\nuser_usec\n", b"user_usec"),
    (grammar.flat_keyed, b"usage_usec 1\n\nuser_usec 2\n", b""),
    (grammar.flat_keyed, b"usage_usec 1 2\n", b"usage_usec 1 2"),
    (grammar.pressure, b"some avg10=0.00 total=x\n", b"x"),
    (grammar.pressure, b"some avg10=0.00\n", b"some avg10=0.00"),
    (grammar.pressure, b"\n", b""),
    (grammar.process_ids, b"12\nx\n", b"x"),
    (grammar.process_ids, b"12\n-3\n", b"-3"),
    (grammar.nested_keyed, b"rbytes=1\n", b"rbytes=1"),
    (grammar.nested_keyed, b"8 rbytes=1\n", b""),
    (grammar.nested_keyed, b"8:0 rbytes=x\n", b"x"),
    (grammar.nested_keyed, b"8:0 rbytes\n", b"rbytes"),
    (grammar.meminfo, b"SwapTotal\n", b"SwapTotal"),
    (grammar.meminfo, b"SwapTotal 4 kB\n", b"SwapTotal 4 kB"),
    (grammar.meminfo, b"SwapTotal: x kB\n", b"x"),
]

GRAMMARS = (
    grammar.scalar,
    grammar.scalar_or_max,
    grammar.quota_period,
    grammar.flat_keyed,
    grammar.pressure,
    grammar.process_ids,
    grammar.nested_keyed,
    grammar.meminfo,
)


@pytest.mark.parametrize(("parse", "data", "expected"), VALUES)
def test_a_file_in_its_grammar_gives_its_values(parse: Grammar, data: bytes, expected: Mapping[bytes, Any]) -> None:
    """Each grammar's files give these values, unknown keys and all, and lack what is absent."""
    assert parse(data) == expected


@pytest.mark.parametrize(("parse", "data", "line"), MALFORMED)
def test_a_file_that_is_not_gives_the_part_that_is_wrong(parse: Grammar, data: bytes, line: bytes) -> None:
    """What is not in the grammar is refused with the line or the word that is not."""
    with pytest.raises(Malformed) as refused:
        parse(data)
    assert refused.value.line == line


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"inactive_file 4096\n", 4096),
        (b"anon 1\ninactive_file 4096\nactive_file 2\n", 4096),
        (b"anon 1\ninactive_file 4096", 4096),
        (b"anon 1\nactive_file 2\n", None),
        (b"anon 1\nxinactive_file 2\n", None),
        (b"inactive_file_x 2\n", None),
        (b"inactive_file", None),
        (b"", None),
    ],
)
def test_one_key_is_found_at_the_start_of_a_line_alone(data: bytes, expected: int | None) -> None:
    """A key that is part of another is not taken for it, and a missing one is None."""
    assert grammar.flat_key(data, b"inactive_file") == expected


@pytest.mark.parametrize("data", [b"inactive_file \n", b"inactive_file x\n", b"inactive_file 1 2\n"])
def test_one_key_with_another_value_than_a_number_is_malformed(data: bytes) -> None:
    """The value of the wanted key must be a number, and one."""
    with pytest.raises(Malformed):
        grammar.flat_key(data, b"inactive_file")


def test_no_limit_is_a_value_of_its_own() -> None:
    """The word max is neither absent nor a number that is exported: it is infinity."""
    assert grammar.scalar_or_max(b"max\n") == {b"": math.inf}


WORDS = [b"some ", b"full ", b"total=", b"max", b"usage_usec", b" kB", b"rbytes=", b"wios=5", b"eth0: ", b" sda\n"]
NUMBERS = [b"0", b"7", b"-", b"8:0 ", b"1 2 3 4 5 6 7 8 "]
PARTS = st.sampled_from([*WORDS, *NUMBERS, b" ", b"\n", b"\t", b"\r", b":", b"|"])
FILES = st.binary(max_size=40) | st.lists(PARTS, max_size=12).map(b"".join)


def in_range(value: Any) -> bool:
    """A word, a number that is not negative, or no limit; or devices with some counter that is not negative."""
    if isinstance(value, tuple):
        return all(
            min(each for each in one if each is not None) >= 0 and any(v is not None for v in one[2:]) for one in value
        )
    return isinstance(value, bytes) or (isinstance(value, int | float) and value >= 0)


@pytest.mark.parametrize("parse", GRAMMARS)
@given(data=FILES)
@settings(max_examples=300)
def test_any_bytes_give_values_or_malformed(parse: Grammar, data: bytes) -> None:
    """Any bytes give values in their range, or Malformed and no other exception."""
    try:
        values = parse(data)
    except Malformed:
        return
    assert all(in_range(value) for value in values.values())


@given(data=FILES)
@settings(max_examples=300)
def test_any_bytes_give_a_number_none_or_malformed_for_one_key(data: bytes) -> None:
    """Any bytes give one key's number, None or Malformed."""
    try:
        value = grammar.flat_key(data, b"usage_usec")
    except Malformed:
        return
    assert value is None or value >= 0


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers(0, 2**64 - 1), min_size=1))
@settings(max_examples=200)
def test_one_key_is_what_the_whole_file_says(values: dict[str, int]) -> None:
    """flat_key finds each key's value as flat_keyed does."""
    data = "".join(f"{key} {value}\n" for key, value in values.items()).encode()
    words = grammar.flat_keyed(data)
    assert {key: grammar.flat_key(data, key) for key in words} == {key: int(word) for key, word in words.items()}


PARTITIONS = b"major minor  #blocks  name\n\n 254        0   12582912 vda\n 259        1     524288 nvme0n1p1\n"
NET_DEV = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier"
    b" compressed\n"
    b"    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0"
    b"          0\n"
    b"  eth0:13836     123    1    2    3     4          5         6     7890      45    8    9   10    11      12"
    b"         13\n"
)


def test_partitions_are_named_by_their_numbers() -> None:
    """Both heads are skipped, and disks and partitions are named alike."""
    assert grammar.partitions(PARTITIONS) == {(254, 0): "vda", (259, 1): "nvme0n1p1"}


def test_interfaces_have_eight_of_the_sixteen_columns() -> None:
    """Bytes, packets, errors and drops of each way; a number may follow the colon at once."""
    assert grammar.interfaces(NET_DEV) == (
        Interface("lo", 0, 0, 0, 0, 0, 0, 0, 0),
        Interface("eth0", 13836, 123, 1, 2, 7890, 45, 8, 9),
    )


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (grammar.partitions, b"major minor  #blocks  name\n 8 0 sda\n"),
        (grammar.partitions, b" 8 x 100 sda\n"),
        (grammar.interfaces, b"eth0: 1 2 3\n"),
        (grammar.interfaces, b"eth0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"),
        (grammar.interfaces, b"eth0: 1 2 3 x 5 6 7 8 9 10 11 12 13 14 15 16\n"),
    ],
)
def test_other_lines_of_proc_are_malformed(parse: Callable[[bytes], object], data: bytes) -> None:
    """A line with too few words, or with a word for a number, is refused."""
    with pytest.raises(Malformed):
        parse(data)


@given(data=FILES)
@settings(max_examples=300)
def test_any_bytes_give_names_interfaces_or_malformed(data: bytes) -> None:
    """Any bytes give devices' names and interfaces with counters that are not negative, or Malformed."""
    with suppress(Malformed):
        assert all(min(numbers) >= 0 for numbers in grammar.partitions(data))
    with suppress(Malformed):
        found = grammar.interfaces(data)
        assert len({one.name for one in found}) == len(found)
        assert all(min(one[1:]) >= 0 for one in found)
