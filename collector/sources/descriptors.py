"""Descriptors: how many the process may open, and whose they are.

Readers hold as many as they can get, and clients come as they like: each has a share of its own, so that neither takes
what the other needs.
"""

from __future__ import annotations

import os
import resource
from typing import Final, NamedTuple

RESERVE: Final = 64
"""Descriptors left for the kubelet's connection, the log, inotify and files opened for one read."""

_LEAST_CONNECTIONS: Final = 8
_MOST_CONNECTIONS: Final = 128
"""Scrapers, people and probes of one node are a few; what is more costs memory."""


class Shares(NamedTuple):
    """Who may hold how many."""

    readers: int
    """Files and directories of cgroups."""
    clients: int
    """Connections of those who ask."""


def shares(limit: int) -> Shares:
    """How ``limit`` descriptors are shared out.

    >>> shares(1_048_576), shares(256), shares(40)
    (Shares(readers=1048384, clients=128), Shares(readers=160, clients=32), Shares(readers=0, clients=8))
    """
    clients = max(_LEAST_CONNECTIONS, min(_MOST_CONNECTIONS, limit // 8))
    return Shares(max(0, limit - RESERVE - clients), clients)


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (ValueError, OSError):
            # Some sandboxes forbid it: the soft limit holds, and files beyond it are opened for each read.
            return soft
    return soft


def limit_of_readers(most: int, held: int) -> int | None:
    """How many of ``most`` descriptors readers may hold by now, who hold ``held``; ``None`` if not even that can be
    looked up, as there is none left.

    What others have open beyond their share is taken from the readers'.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        others = len(os.listdir("/proc/self/fd")) - held
    except OSError:
        return None
    return most if others <= limit - most else max(0, min(most, limit - others - RESERVE))
