"""Who is who in a pod's cgroup: its containers, its sandbox, and what has no name. Pure.

The rules are those of the contract's section 3. A status has three states of a container: running, ended, and awaited,
which the runtime has made and the status does not call running yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from collector.model import Container, Leaf, Pod, PodCgroup, start_ns

Identity = tuple[str, int]
Place = tuple[str, int, str, int | None, bool | None]
"""What a leaf is known by: all of it but its reading."""

SETTLED_NS: Final = 10_000_000_000
"""A status that was asked for so long after a leaf came names it, if it is a container's: the kubelet looks at the
runtime every second, and its list follows the API server by some seconds."""


class Members(NamedTuple):
    """Who is who, and since when: the same for as long as the pod's status and its leaves are."""

    pod: Pod
    started_ns: int | None
    """Of the pod's cgroup, as its directory tells it."""
    places: list[Place]
    """Of the leaves; the same object for as long as the leaves are the same."""
    begun_ns: int | None
    """The start of the pod's cgroup, or of whichever of its containers began before that."""
    containers: tuple[tuple[Container, int, int | None], ...]
    """The running containers by name, the number of the leaf of each, and its start."""
    unnamed: tuple[Identity, ...]
    """Leaves without a name, the sandbox left out and what has ended."""
    starting: tuple[Identity, ...]
    """Leaves of awaited containers."""
    missing: tuple[Container, ...]
    """Containers that the status calls running and that have no leaf."""
    sandbox: int | None
    """The number of its leaf."""
    presumed: int | None
    """The number of the leaf that is it, unless that is of a container that is awaited; it may be among the unnamed."""
    doubtful: tuple[Identity, ...]
    """Leaves without a name of which one more than the sandbox is there: whether they have processes is to be read."""
    duplicates: int
    """Leaves that share their name with a newer one."""


def find(
    pod: Pod, cgroup: PodCgroup, sandbox: Identity | None, met_ns: Callable[[Leaf], int], places: list[Place]
) -> Members:
    """Tell the leaves apart. ``sandbox``: the one that was found before; ``met_ns``: wall time at which a leaf was
    first seen.
    """
    named: dict[str, tuple[Container, int, int | None]] = {}
    nameless: list[int] = []
    starting: list[Identity] = []
    duplicates = 0
    leaves = cgroup.leaves
    # The order of a listing is the source's; the later of two leaves of one id is the one with the higher inode.
    for number in sorted(range(len(leaves)), key=lambda number: (-leaves[number].ino, leaves[number].path)):
        leaf = leaves[number]
        container = pod.containers.get(leaf.container_id)
        if container is None:
            nameless.append(number)
        elif container.state == "awaited":
            starting.append(leaf[:2])
        elif container.state == "ended" or container.name in named:
            # An ended container's cgroup that is still there, or one id in two leaves: never two of one name.
            duplicates += 1
        else:
            named[container.name] = (container, number, start_ns(leaf, container))
    missing = [one for one in pod.containers.values() if one.state == "running" and one.name not in named]
    awaits = pod.awaits or bool(missing)
    presumed = _sandbox(cgroup, pod, nameless, sandbox) if nameless else None
    own = presumed
    if presumed is not None and leaves[presumed][:2] != sandbox and len(nameless) == len(leaves) and awaits:
        # No status names a later leaf, and one may come to name this: see _sandbox.
        own = presumed if pod.told_ns - met_ns(leaves[presumed]) >= SETTLED_NS else None
    unnamed = [leaves[number][:2] for number in nameless if number != own and not leaves[number].is_empty]
    starts = [cgroup.begun_ns, *(started_ns for _, _, started_ns in named.values())]
    return Members(
        pod=pod,
        started_ns=cgroup.started_ns,
        places=places,
        begun_ns=min((start for start in starts if start is not None), default=None),
        containers=tuple(named[name] for name in sorted(named)),
        unnamed=tuple(unnamed),
        starting=tuple(starting),
        missing=tuple(missing),
        sandbox=own,
        presumed=presumed,
        doubtful=tuple(leaves[number][:2] for number in nameless) if unnamed or len(nameless) > 1 else (),
        duplicates=duplicates,
    )


def _sandbox(cgroup: PodCgroup, pod: Pod, nameless: list[int], known: Identity | None) -> int | None:
    """The number of the leaf that is the pod's sandbox, of those that no status names.

    The runtime makes it before any container, so that it has the lowest inode. Once found it stays, so that a container
    with a lower, reused inode does not displace it. Some runtimes make none (CRI-O without an infra container): there
    the lowest is a container's. A status that names a later leaf names all containers that were made before that one,
    and so does one that was asked for long after the leaf came; else the leaf may be of a container that is awaited.
    In a recording without inodes the sandbox is the one leaf without a name, if there is just one.
    """
    leaves = cgroup.leaves
    there = [number for number in nameless if not leaves[number].is_empty] or nameless
    for number in there:
        if leaves[number][:2] == known:
            return number
    if not cgroup.ino:
        return there[0] if len(there) == 1 else None
    named = [number for number, leaf in enumerate(leaves) if leaf.container_id in pod.containers]
    lowest = min((*named, *there), key=lambda number: (leaves[number].ino, leaves[number].path))
    return None if lowest in named else lowest
