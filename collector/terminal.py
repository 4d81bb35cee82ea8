"""What a person at a terminal sees while something takes long: a progress bar on stderr, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def is_seen() -> bool:
    """Whether there is a terminal, so that the bar is shown."""
    return sys.stderr.isatty()


@contextmanager
def progress(what: str) -> Iterator[Callable[[float, float], None]]:
    """Yields a function to be called with what is done and what there is in all."""
    if not is_seen():
        yield lambda done, total: None
        return
    # rich costs 30 ms and 6 MiB to import: only where it is seen.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
