"""The seams between the program and where its bytes come from: cgroups, answers, and reviews of who asks.

Whatever stands below a seam (a live node, a recording, a tee around either, a test's directory) is used by the same
code above it. Parsing is above, so that a mended parser mends old recordings too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from collector.errors import Gone, SourceError
from collector.model import Answer, Instant


class Glimpse(NamedTuple):
    """A cgroup that has gone between two ticks, as it was read there last."""

    path: str
    ino: int
    mtime_ns: int | None
    monotonic_ns: int
    files: Mapping[str, bytes]
    """Those that could be read."""


class Directory(Protocol):
    """A cgroup directory that a source holds open: one identity, for as long as it lives."""

    ino: int
    """0 in a recording that lacks it: the path alone is the identity."""
    mtime_ns: int | None
    """When it was made, by the earliest of its files' times; ``None`` in a recording that lacks it."""

    def stamp(self) -> int:
        """Monotonic time, taken just before this cgroup's files are read."""

    def subdirectories(self, *, force: bool = False) -> list[str] | None:
        """Names of the child cgroups, or ``None`` where nothing seems to have changed since they were last given.

        ``force``: list them in any case. One cgroup made and another removed between two ticks leave no trace in
        a kernfs directory; the removed one's files do say it, and then the caller forces.
        """

    def read(self, name: str) -> bytes:
        """The whole of one file. Raises :class:`SourceError`; :class:`Gone` if the cgroup has been removed."""

    def read_all(self, names: tuple[str, ...], *, often: bool, hold: bool = True) -> list[bytes | SourceError]:
        """Several files in one call, each whole or the error that it gave. Raises :class:`Gone` as ``read`` does.

        ``often``: they are read every tick, so that holding them open is worth more than holding others. Without
        ``hold`` they are read so seldom that it is worth nothing.
        """

    def watch(self, names: tuple[str, ...]) -> None:
        """Have child cgroups followed that come between two ticks, and ``names`` of them read, where the source can."""

    def close(self) -> None:
        """Let go of what is held open."""


def read_each(read: Callable[[str], bytes], names: tuple[str, ...]) -> list[bytes | SourceError]:
    """``read_all`` by way of ``read``, for directories to which a call costs nothing."""
    results: list[bytes | SourceError] = []
    for name in names:
        try:
            results.append(read(name))
        except Gone:
            raise
        except SourceError as error:
            results.append(error)
    return results


class Clock(Protocol):
    """What the time is: a live machine's, or a recording's, frame after frame."""

    def begin(self) -> Instant:
        """Start the next tick. Raises :class:`EndOfRecording`."""


class Tree(Clock, Protocol):
    """Where cgroups come from."""

    def open(self, path: str) -> Directory:
        """Open the directory ``path``, ``.`` for the root. Raises :class:`SourceError`."""

    def glimpses(self) -> list[Glimpse]:
        """Children of watched directories that have gone since the last call. Called once a tick, at its end."""

    def read_proc(self, name: str) -> bytes:
        """``/proc/<name>``, whole. Raises :class:`SourceError`."""


class AnswerSource(Protocol):
    """Where answers come from: pollers of a live node, or a recording."""

    def take(self) -> list[Answer]:
        """Answers since the last call, one of a name at the most."""

    def ask(self) -> None:
        """A pod or container has no name: ask again soon. Rate-limited by the source."""


class Reviewer(Protocol):
    """Who makes reviews of tokens and rights: the API server."""

    async def create(self, path: str, body: bytes) -> Answer:
        """Post a review; its answer, or why there is none. Never raises for what the peer or the network does."""

    async def close(self) -> None:
        """Let go of connections."""
