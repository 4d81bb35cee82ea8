"""Where the pods' cgroups are: the kubepods directories below a root, and which of them are this node's kubelet's.

A kubelet makes its kubepods below its ``cgroupRoot``, at any depth, and leaves it behind when it is started with
another root or another cgroup driver: one may be empty, or hold pods without processes. Other nodes' kubelets may have
theirs below the same root, as where kind clusters run. So what a kubepods holds tells more than where it is, and what
the kubelet names tells most. Of several and without a word of the kubelet, the nearest to the root is the node's: other
nodes are guests of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from collector.cgroup import grammar, paths
from collector.errors import Gone, SourceError, UnsupportedNode
from collector.seams import Tree

DEPTH = 12
"""How deep a kubepods is looked for: that of a kind node in rootless Podman, seen from its host, is eight deep
(``user.slice/user-1000.slice/user@1000.service/user.slice/libpod-<id>.scope/container/kubelet.slice``)."""

LIMIT = 4096
"""Directories looked at in one search at the most."""


class Trees(NamedTuple):
    """The kubepods directories below one parent: a kubelet's, of one cgroup driver or, side by side, of both."""

    tops: tuple[str, ...]
    """Their paths."""
    made: frozenset[str]
    """Uids of the pods that have a cgroup in them."""
    living: frozenset[str]
    """Those of which some process is left, as far as the kernel tells."""

    @property
    def depth(self) -> int:
        """How far they are from the root."""
        return self.tops[0].count("/")


class Found(NamedTuple):
    """What a search has found."""

    chosen: tuple[Trees, ...]
    """What is to be followed."""
    undecided: tuple[Trees, ...]
    """Where none is chosen, those of which nothing tells which one is this node's."""
    every: tuple[Trees, ...]
    """All that were found, the nearest to the root first."""
    cut_short: bool
    """The search has ended at its bounds: there may be more."""
    errors: tuple[SourceError, ...]
    """Why some directories could not be looked into."""

    @property
    def tops(self) -> tuple[str, ...]:
        """Paths of the kubepods directories that are to be followed."""
        return tuple(top for trees in self.chosen for top in trees.tops)

    @property
    def several(self) -> UnsupportedNode | None:
        """The error that it is where several hold pods and nothing tells which is this node's."""
        if not any(trees.made for trees in self.undecided):
            return None
        tops = ", ".join(top for trees in self.undecided for top in trees.tops)
        return UnsupportedNode(f"several nodes' pods are below this cgroup root ({tops}): choose one with --kubepods")


def find_kubepods(tree: Tree, expected: Collection[str] = (), *, everywhere: bool = False) -> Found:
    """Look for kubepods, level by level from the root, until those are found that hold the pods.

    ``expected``: uids of pods of this node that run; the search goes on until all of them are found. ``everywhere``:
    it goes on to its bounds in any case. Never within a kubepods: what is in there is the pods' own.
    """
    search = _Search(tree)
    wanted = frozenset(expected)
    for _ in search.levels():
        living = frozenset[str]().union(*(trees.living for trees in search.every))
        if living and wanted <= living and not everywhere:
            search.cut_short = False
            break
    chosen, left = _choose(search.every, wanted)
    return Found(chosen, left, tuple(search.every), search.cut_short, tuple(search.errors))


def _choose(every: list[Trees], expected: frozenset[str]) -> tuple[tuple[Trees, ...], tuple[Trees, ...]]:
    """What is to be followed, or else what it cannot be told of."""
    # Of a uid that the kubelet names no other node has one, so that all who have such are this node's: after a change
    # of the kubelet's cgroupRoot its pods are in two places for a while.
    named = tuple(trees for trees in every if not expected.isdisjoint(trees.living))
    if named:
        return named, ()
    best = [trees for trees in every if trees.living] or [trees for trees in every if trees.made] or every
    nearest = tuple(trees for trees in best if trees.depth == best[0].depth)
    return (nearest, ()) if len(nearest) < 2 else ((), nearest)


class _Search:
    """One walk through the directories."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._left = LIMIT
        self.every: list[Trees] = []
        self.cut_short = False
        self.errors: list[SourceError] = []

    def levels(self) -> Iterator[None]:
        """Look through one level of directories after the other."""
        level = [""]
        for _ in range(DEPTH):
            below: list[str] = []
            for parent in level:
                if self._left == 0:
                    self.cut_short = True
                    break
                self._left -= 1
                found: list[str] = []
                for name in self._names(parent or "."):
                    path = f"{parent}/{name}" if parent else name
                    (found if paths.is_kubepods(name) else below).append(path)
                if found:
                    self.every.append(self._trees(found))
            level = below
            yield
            if not level or self.cut_short:
                return
        self.cut_short = True

    def _names(self, path: str) -> list[str]:
        """Child cgroups in order; none of a directory that has gone or is closed to us: others may have them."""
        try:
            directory = self._tree.open(path)
            try:
                return sorted(directory.subdirectories(force=True) or ())
            finally:
                directory.close()
        except Gone:
            return []
        except SourceError as error:
            self.errors.append(error)
            return []

    def _trees(self, tops: list[str]) -> Trees:
        pods: list[tuple[str, str]] = []
        for top in tops:
            for name in self._names(top):
                below = [name]
                if paths.qos_class(name):
                    below = [f"{name}/{pod}" for pod in self._names(f"{top}/{name}")]
                pods += [(uid, f"{top}/{one}") for one in below if (uid := paths.pod_uid(one.rpartition("/")[2]))]
        living = frozenset(uid for uid, path in pods if self._lives(path))
        return Trees(tuple(tops), frozenset(uid for uid, _ in pods), living)

    def _lives(self, path: str) -> bool:
        """False if a cgroup has no processes, not even below it; true where the kernel does not tell."""
        try:
            directory = self._tree.open(path)
            try:
                (data,) = directory.read_all(("cgroup.events",), often=False, hold=False)
            finally:
                directory.close()
            return not isinstance(data, bytes) or grammar.flat_key(data, b"populated") != 0
        except Gone:
            return False
        except (SourceError, grammar.Malformed):
            # It is there, and its own reading tells what is the matter with it.
            return True
