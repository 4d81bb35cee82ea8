"""A line of the campaign's table."""

from __future__ import annotations

from typing import NamedTuple

MIB = 1 << 20


class Row(NamedTuple):
    """What came of an attack."""

    attack: str
    done: str
    """How much of it, in numbers."""
    faults: tuple[str, ...] = ()
    """What must not be; none is well."""
    before_bytes: int | None = None
    """RSS."""
    peak_bytes: int | None = None
    after_bytes: int | None = None
    probes: tuple[int, int] | None = None
    """Answered, of asked."""
    missed_ticks: int | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it held, for the table."""
        return "**FAILED**" if self.faults else "ok"

    def cells(self) -> list[str]:
        """For the table."""
        probes = "-" if self.probes is None else f"{self.probes[0]} of {self.probes[1]}"
        missed = "-" if self.missed_ticks is None else str(self.missed_ticks)
        sizes = [_mib(self.before_bytes), _mib(self.peak_bytes), _mib(self.after_bytes)]
        told = "; ".join(part for part in (*self.faults, self.note) if part)
        return [self.attack, self.done, *sizes, probes, missed, self.verdict, told]


HEADS = ("attack", "done", "RSS before, MiB", "peak", "after", "probes answered", "ticks missed", "", "")


def _mib(number: int | None) -> str:
    return "-" if number is None else f"{number / MIB:.0f}"


def table(rows: list[Row]) -> list[str]:
    """The table in Markdown, without the columns that no row has anything in; nothing without rows."""
    if not rows:
        return []
    cells = [row.cells() for row in rows]
    wanted = [place for place in range(len(HEADS)) if any(line[place] not in ("-", "") for line in cells)]
    lines = [[HEADS[place] for place in wanted], ["---"] * len(wanted)]
    lines += [[line[place].replace("|", "\\|") for place in wanted] for line in cells]
    return [f"| {' | '.join(line)} |" for line in lines]
