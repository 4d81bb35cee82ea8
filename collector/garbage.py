"""Python's collector of cycles, which counts objects and not bytes.

A connection or a question that fails leaves but a few objects in the cycle of its exception, and these may hold all
that had come: whoever lets go of such bytes says so here, and they are collected by how many they are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

_MOST_LEFT_BYTES: Final = 4 << 20


def spare_collections() -> None:
    """Set the collector to run seldom, and to leave alone what the start has made.

    A tick makes thousands of tuples that are in no cycle and die with the next tick's: by Python's own thresholds it
    costs a tenth more instructions to find that out. They may be spared as no bytes hang in cycles for long:
    exceptions of answers, handshakes and questions are rid of their frames, and :class:`Left` counts the rest.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class Left:
    """Bytes that may hang in cycles that nobody refers to: past a bound they are collected."""

    def __init__(self, most_bytes: int = _MOST_LEFT_BYTES, collect: Callable[[], object] = gc.collect) -> None:
        self._most_bytes = most_bytes
        self._collect = collect
        self._bytes = 0

    def add(self, size_bytes: int) -> None:
        """Say that up to so many more do."""
        self._bytes += size_bytes
        if self._bytes >= self._most_bytes:
            self._bytes = 0
            self._collect()
