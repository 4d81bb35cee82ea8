"""Bytes that hang in cycles are collected by how many they are."""

from __future__ import annotations

import gc
import weakref

from collector.garbage import Left


class Cycle:
    """Refers to itself, as a connection does whose exception is kept."""

    def __init__(self) -> None:
        self.itself = self


def test_bytes_are_collected_past_the_bound_and_not_before() -> None:
    """However few objects they hang in; and counting begins anew then."""
    collected: list[int] = []
    left = Left(100, lambda: collected.append(1))

    for size_bytes in (60, 39, 1, 99, 1, 250):
        left.add(size_bytes)

    assert len(collected) == 3


def test_what_is_left_behind_is_collected() -> None:
    """By Python's own collector, which may be off."""
    gc.disable()
    try:
        one = Cycle()
        gone = weakref.ref(one)
        del one
        left = Left(100)
        left.add(99)
        kept = gone() is not None
        left.add(1)
    finally:
        gc.enable()

    assert (kept, gone()) == (True, None)
