"""What an attack on a program that serves is, what it is given, and what it tells."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from attack.node import PODS, Served, Watch
from bench.tree import Tree


@dataclass(slots=True)
class Told:
    """What an attack did."""

    done: int = 0
    faults: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Under:
    """What an attack is given."""

    node: Served
    watch: Watch
    tree: Tree
    count: int
    deadline: float
    """Monotonic."""

    @property
    def over(self) -> bool:
        """Whether to end now."""
        return time.monotonic() > self.deadline or self.watch.runs_away


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One of them."""

    name: str
    count: int
    """In a whole campaign."""
    seconds: float
    """How long it may take there, and how long it takes where ``count`` is of no moment."""
    act: Callable[[Under], Told]
    setting: Callable[[Path], Setting] | None = None
    """How the program is started for it, with files in a folder; ``None``: by default."""
    pods: int = PODS
    settles: bool = True
    """Whether it holds afterwards what it held before; else the peak alone is judged: Python's allocator keeps memory of which
    a little is in use."""
    beside: bool = False
    """Whether it is run beside the fuzzers: it takes long, and little CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the program is started."""

    arguments: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By which this scraper is let in."""
    most_files: int | None = None
