"""Who is who among a pod's leaves."""

from __future__ import annotations

import pytest

from collector.members import SETTLED_NS, Members, find
from collector.model import Leaf, Pod, PodCgroup, Reading
from tests.statuses import pod as status


def leaf(name: str, ino: int, *, populated: bool | None = None, memory_bytes: int | None = 4096) -> Leaf:
    """A leaf whose container id is its name."""
    return Leaf(f"p/{name}", ino, name, None, populated, Reading(0, memory_current_bytes=memory_bytes))


def members(pod: Pod, *leaves: Leaf, ino: int = 1, known: tuple[str, int] | None = None, met_ns: int = 0) -> Members:
    """Who is who."""
    cgroup = PodCgroup("p", ino, "u", "Burstable", None, Reading(0), leaves)
    return find(pod, cgroup, known, lambda _: met_ns, [one[:5] for one in leaves])


def sandbox(found: Members) -> str | None:
    """The path of the sandbox' leaf."""
    return None if found.sandbox is None else found.places[found.sandbox][0]


def test_the_sandbox_is_the_lowest_leaf_without_a_name() -> None:
    """The runtime makes it first: a status that names a later leaf would name it too, if it were a container's."""
    found = members(status(running=["a"]), leaf("a", 7), leaf("pause", 5))

    assert sandbox(found) == "p/pause"
    assert found.unnamed == ()


def test_a_pod_whose_lowest_leaf_is_named_has_no_sandbox() -> None:
    """With the infra container dropped, a leaf without a name is a container whose name is not known yet."""
    found = members(status(running=["a"]), leaf("a", 5), leaf("b", 7))

    assert (sandbox(found), found.unnamed) == (None, (("p/b", 7),))


@pytest.mark.parametrize(
    "pod",
    [
        status(awaits=True),
        status(running=["old"]),
        status(ended=["old"], awaits=True),
    ],
)
def test_a_lone_leaf_is_no_sandbox_while_a_container_is_awaited(pod: Pod) -> None:
    """CRI-O without an infra container: the only leaf is of the container that waits, or that has started again."""
    found = members(pod, leaf("new", 5), met_ns=100)

    assert (sandbox(found), found.unnamed) == (None, (("p/new", 5),))


def test_a_lone_leaf_is_the_sandbox_where_nothing_is_awaited() -> None:
    """All containers have ended for good: what is left is the sandbox."""
    assert sandbox(members(status(ended=["a"]), leaf("pause", 5))) == "p/pause"


def test_a_lone_leaf_is_the_sandbox_once_a_status_had_time_to_name_it() -> None:
    """Asked for long after the leaf came, a status would name it, if it were a container's."""
    early, late = status(awaits=True, told_ns=SETTLED_NS - 1), status(awaits=True, told_ns=SETTLED_NS)

    assert sandbox(members(early, leaf("pause", 5))) is None
    assert sandbox(members(late, leaf("pause", 5))) == "p/pause"


def test_the_sandbox_is_remembered() -> None:
    """A container that gets a lower inode than the sandbox does not displace it."""
    found = members(status(running=["a"]), leaf("pause", 5), leaf("late", 3), leaf("a", 6), known=("p/pause", 5))

    assert (sandbox(found), found.unnamed) == ("p/pause", (("p/late", 3),))


def test_a_status_that_names_the_sandbox_wins() -> None:
    """A remembered sandbox that a status names is a container after all."""
    found = members(status(running=["a"]), leaf("a", 5), leaf("b", 6), known=("p/a", 5))

    assert (sandbox(found), [one.name for one, _, _ in found.containers]) == (None, ["a"])


def test_a_leaf_without_processes_has_ended() -> None:
    """An old sandbox' cgroup that stays is neither the sandbox nor a missing part."""
    pod = status(running=["a"])
    leaves = (leaf("leaked", 3, populated=False), leaf("pause", 5, populated=True), leaf("a", 6))
    found = members(pod, *leaves, known=("p/leaked", 3))

    assert (sandbox(found), found.unnamed) == ("p/pause", ())
    assert found.doubtful == (("p/pause", 5), ("p/leaked", 3))


@pytest.mark.parametrize(("memory_bytes", "unnamed"), [(0, 0), (4096, 1), (None, 1)])
def test_where_populated_was_not_read_memory_tells(memory_bytes: int | None, unnamed: int) -> None:
    """No process is in a cgroup that no memory is charged to."""
    leaves = (leaf("pause", 2), leaf("a", 6), leaf("x", 7, memory_bytes=memory_bytes))

    assert len(members(status(running=["a"]), *leaves).unnamed) == unnamed


def test_without_inodes_the_one_leaf_without_a_name_is_the_sandbox() -> None:
    """A recording made with cp has no inodes: one such leaf is the sandbox, of two neither is."""
    pod, one, other, named = status(running=["c"]), leaf("a", 0), leaf("b", 0), leaf("c", 0)

    assert sandbox(members(pod, one, named, ino=0)) == "p/a"
    assert sandbox(members(pod, one, other, named, ino=0)) is None


def test_an_awaited_container_is_neither_running_nor_ended() -> None:
    """Its leaf is told apart, and is no duplicate; without a leaf it is not missing."""
    found = members(status(running=["a"], awaited=["b", "c"]), leaf("pause", 2), leaf("a", 3), leaf("b", 4))

    assert found.starting == (("p/b", 4),)
    assert (found.duplicates, found.missing) == (0, ())


def test_a_running_container_without_a_leaf_is_missing() -> None:
    """The others are there."""
    found = members(status(running=["a", "b"]), leaf("pause", 2), leaf("a", 3))

    assert [one.name for one in found.missing] == ["b"]


def test_an_ended_containers_leaf_is_a_duplicate() -> None:
    """Its cgroup stays for a moment: it is exported nowhere."""
    found = members(status(running=["a"], ended=["b"]), leaf("pause", 2), leaf("a", 3), leaf("b", 4))

    assert (found.duplicates, found.unnamed) == (1, ())
