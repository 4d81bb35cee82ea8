"""Bytes changed at random, by a seed: quick, since it is done ten million times."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

Bytes = Sequence[bytes]

NUMBERS: Bytes = (
    *(b"0", b"-1", b"+5", b"007", b"1_0", b"0x10", b"1e400", b"nan", b"inf", b"1.5"),
    *(b"18446744073709551615", b"18446744073709551616", b"99999999999999999999", b"100000000000000000000"),
    *(b"9" * 4301, b"\xd9\xa1", b"\xef\xbc\x91"),
)
"""What may stand for a number: the ends of 64 bits and of twenty digits, more digits than ``int`` takes, digits that
are none in ASCII."""

BLANKS: Bytes = (b" ", b"\n", b"\r\n", b"\0", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xc2\xa0", b"\xe2\x80\xa8")
"""What Python, the kernel and other readers do not all take for a blank or the end of a line."""

_ROUNDS = (1, 1, 1, 1, 2, 2, 3, 6)
_LENGTHS = (1, 1, 2, 5, 20, 200)
_number = re.compile(rb"\d+").search


def changed(data: bytes, random: Random, words: Bytes) -> bytes:
    """``data`` with one to six changes: ``words`` set in or over something, parts taken out, doubled or moved, a byte
    changed, the end cut off.
    """
    chance = random.random
    for _ in range(_ROUNDS[int(chance() * 8)]):
        at = int(chance() * (len(data) + 1))
        kind = int(chance() * 10)
        if kind < 2:
            data = data[:at] + words[int(chance() * len(words))] + data[at:]
        elif kind < 5:
            found = _number(data, at)
            if found is not None:
                number = NUMBERS[int(chance() * len(NUMBERS))]
                data = data[: found.start()] + number + data[found.end() :]
        elif kind == 5:
            data = data[:at] + bytes((int(chance() * 256),)) + data[at + 1 :]
        elif kind == 6:
            data = data[:at] + data[at + _LENGTHS[int(chance() * 6)] :]
        elif kind == 7:
            data = data[:at] + data[at : at + _LENGTHS[int(chance() * 6)]] + data[at:]
        elif kind == 8:
            begin = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at) + 1 or len(data)
            data = data[end:] + data[begin:end] + data[:begin]
        else:
            data = data[:at]
    return data


def renumbered(data: bytes, random: Random) -> bytes:
    """``data`` with another number, or none, in the place of one: what stands around it stays."""
    chance = random.random
    found = _number(data, int(chance() * len(data)))
    if found is None:
        return data
    number = NUMBERS[int(chance() * len(NUMBERS))] if chance() < 0.5 else b"%d" % int(10 ** (chance() * 21))
    return data[: found.start()] + number + data[found.end() :]


# --- documents ------------------------------------------------------------------------------------------------------

JUNK: Bytes = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b"1e999", b"NaN", b"-Infinity", b"9" * 4301, b"1" * 30),
    *(b'""', b'"x"', b"[]", b"{}", b"[null]", b"[1]", b'["a"]', b"[[]]", b"[{}]", b'{"":""}', b'{"a":null}'),
    *(b'"\\ud800"', b'"\\u0000"', b'"\\u001b]0;x\\u0007"', b'"a\\nb"', b'"<script>alert(1)</script>"', b'"\xff"'),
    *(b'"9999-99-99T99:99:99Z"', b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-14:00"', b'"2026-01-01"'),
    *(b'"' + b"x" * 5000 + b'"', b'"' + b"9" * 4301 + b'"', b'"1e999"', b'"-5n"', b'"1Ei"', b"[" * 30, b'{"a":' * 30),
)
"""What may stand for a value of JSON; some of it is none."""


class Document:
    """A document of JSON whose values can be told apart without reading it anew."""

    def __init__(self, value: Any) -> None:
        self.spans: list[tuple[int, int]] = []
        self._parts: list[bytes] = []
        self._length = 0
        self._write(value)
        self.data = b"".join(self._parts)

    def _put(self, part: bytes) -> None:
        self._parts.append(part)
        self._length += len(part)

    def _write(self, value: Any) -> None:
        begin = self._length
        if isinstance(value, dict):
            for number, (key, one) in enumerate(value.items()):
                self._put((b"," if number else b"{") + json.dumps(key).encode() + b":")
                self._write(one)
            self._put(b"}" if value else b"{}")
        elif isinstance(value, list):
            for number, one in enumerate(value):
                self._put(b"," if number else b"[")
                self._write(one)
            self._put(b"]" if value else b"[]")
        else:
            self._put(json.dumps(value).encode())
        self.spans.append((begin, self._length))

    def changed(self, random: Random) -> bytes:
        """It with up to three values in whose place something else stands, or one of its other values."""
        data = self.data
        spans = sorted(
            {self.spans[int(random.random() * len(self.spans))] for _ in range(1 + int(random.random() * 3))}
        )
        for begin, end in reversed(spans):
            if random.random() < 0.7:
                other = JUNK[int(random.random() * len(JUNK))]
            else:
                other_begin, other_end = self.spans[int(random.random() * len(self.spans))]
                other = self.data[other_begin:other_end]
            data = data[:begin] + other + data[end:]
        return data
