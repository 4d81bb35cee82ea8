"""The grammars of the kernel's files: values, malformed lines, absent keys, and any bytes at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.cgroup import grammar
from collector.cgroup.grammar import Malformed
from collector.model import NO_LIMIT

Grammar = Callable[[bytes], Mapping[bytes, Any]]

PRESSURE = b"some avg10=0.10 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=55\n"

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


PARTS = st.sampled_from(
    [b"some ", b"full ", b"total=", b"max", b"0", b"7", b" ", b"\n", b"\t", b"\r", b"-", b"usage_usec", b":", b" kB"]
)
FILES = st.binary(max_size=40) | st.lists(PARTS, max_size=12).map(b"".join)


def in_range(value: Any) -> bool:
    """A word, a number that is not negative, or no limit."""
    return isinstance(value, bytes) or (isinstance(value, int | float) and value >= 0)


@pytest.mark.parametrize("parse", GRAMMARS)
@given(data=FILES)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_give_values_or_malformed(parse: Grammar, data: bytes) -> None:
    """Any bytes give values in their range, or Malformed and no other exception."""
    try:
        values = parse(data)
    except Malformed:
        return
    assert all(in_range(value) for value in values.values())


@given(data=FILES)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_give_a_number_none_or_malformed_for_one_key(data: bytes) -> None:
    """Any bytes give one key's number, None or Malformed."""
    try:
        value = grammar.flat_key(data, b"usage_usec")
    except Malformed:
        return
    assert value is None or value >= 0


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers(0, 2**64 - 1), min_size=1))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_one_key_is_what_the_whole_file_says(values: dict[str, int]) -> None:
    """flat_key finds each key's value as flat_keyed does."""
    data = "".join(f"{key} {value}\n" for key, value in values.items()).encode()
    words = grammar.flat_keyed(data)
    assert {key: grammar.flat_key(data, key) for key in words} == {key: int(word) for key, word in words.items()}
