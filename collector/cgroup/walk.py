"""The walk: one tick over the kubepods trees of a node gives a :class:`collector.model.Frame`.

Directories are held open from tick to tick by the source, so that a tick costs little more than its reads. A cgroup
that vanishes between listing and reading is normal: it is dropped, and its parent is listed again in the same tick, so
that what took its place is in the frame too. What is read, and how often, says ``cgroup/files.py``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from collector.cgroup import grammar, paths
from collector.cgroup.files import DETAIL_FIELDS, FAST, READING_FIELDS, ROOT_FILES, SLOW, KernelFile
from collector.errors import Absent, Gone, ParseError, PodtallyError, SourceError, UnsupportedNode
from collector.model import Details, Frame, Instant, Leaf, NodeReading, PodCgroup, QosClass, Reading
from collector.seams import Directory, Tree

log = logging.getLogger(__name__)

_SEARCH_DEPTH = 6
"""How deep a nested kubepods is looked for: ``system.slice/docker-<id>.scope/kubelet.slice/kubelet-kubepods.slice``
of a kind node seen from its host is four deep, one more nesting is six."""

_SEARCH_LIMIT = 4096
"""Directories looked at in that search at the most."""

_SEARCH_EVERY = 10
"""Ticks between two searches while none is found and the root has not changed."""


class _Node:
    """A cgroup that is followed from tick to tick."""

    __slots__ = ("age", "children", "details", "directory", "key", "path", "stale")

    def __init__(self, path: str, key: str, directory: Directory) -> None:
        self.path = path
        self.key = key
        self.directory = directory
        self.children: dict[str, _Node] = {}
        self.details = Details()
        self.age = -1
        """Ticks since it was first read."""
        self.stale = True
        """The children must be listed again, whatever the directory says."""

    def close(self) -> None:
        for child in self.children.values():
            child.close()
        self.directory.close()


class Walker:
    """Follows every pod's cgroups on a node. Not thread-safe: one walker, one thread."""

    def __init__(self, tree: Tree, *, slow_every: int = 5, kubepods: str | None = None) -> None:
        """``kubepods`` is the path of the kubepods directory relative to the root; found by looking if ``None``."""
        self._tree = tree
        self._slow_every = slow_every
        self._given = kubepods.strip("/") if kubepods else None
        self._root: _Node | None = None
        self._tops: dict[str, _Node] = {}
        self._errors: Counter[str] = Counter()
        self._told: set[str] = set()
        self._files_read = 0
        self._cgroups = 0
        self._ticks = -1

    def tick(self) -> Frame:
        """Read the node once.

        Raises :class:`EndOfRecording` after the last frame of a recording, and :class:`SourceError` if the cgroup
        root itself cannot be read: nothing else gets out.
        """
        instant = self._tree.begin()
        self._ticks += 1
        self._errors = Counter()
        self._files_read = 0
        self._cgroups = 0
        node = self._read_node(instant)
        self._follow_tops()
        pods: list[PodCgroup] = []
        for path, top in list(self._tops.items()):
            try:
                pods.extend(self._walk_pods(top, "Guaranteed"))
            except Gone:
                self._tops.pop(path).close()
        return Frame(instant, node, tuple(pods), dict(self._errors), self._files_read, self._cgroups)

    @property
    def kubepods(self) -> tuple[str, ...]:
        """Paths of the kubepods directories that are followed."""
        return tuple(self._tops)

    def close(self) -> None:
        """Let go of all directories."""
        for top in self._tops.values():
            top.close()
        if self._root is not None:
            self._root.close()

    # --- the node ---------------------------------------------------------------------------------------------------

    def _read_node(self, instant: Instant) -> NodeReading:
        if self._root is None:
            self._root = _Node(".", "", self._tree.open("."))
        reading = self._read(self._root, ROOT_FILES, every_detail=True)
        swap: dict[bytes, int] = {}
        try:
            self._files_read += 1
            swap = dict(grammar.meminfo(self._tree.read_proc("meminfo")))
        except grammar.Malformed as error:
            self._count(ParseError("/proc/meminfo", error.line))
        except SourceError as error:
            self._count(error)
        return NodeReading(reading, swap.get(b"SwapTotal"), swap.get(b"SwapFree"))

    # --- finding kubepods -------------------------------------------------------------------------------------------

    def _follow_tops(self) -> None:
        """Open the kubepods directories that are not followed yet: a kubelet may come up after the collector."""
        assert self._root is not None  # set by _read_node
        changed = self._root.directory.subdirectories() is not None
        if self._tops:
            # Both drivers' trees may stand side by side at the root of a node that went from one to the other.
            at_root = not any("/" in path for path in self._tops)
            search = changed and at_root
        else:
            search = changed or self._ticks % _SEARCH_EVERY == 0
        if not search:
            return
        for path in [self._given] if self._given is not None else find_kubepods(self._tree):
            if path not in self._tops:
                try:
                    self._tops[path] = _Node(path, "", self._tree.open(path))
                except Gone:
                    continue

    # --- pods and their leaves --------------------------------------------------------------------------------------

    def _walk_pods(self, node: _Node, qos: QosClass) -> list[PodCgroup]:
        """Pods below a kubepods or a QoS directory. Raises :class:`Gone` if the directory itself has vanished."""
        pods: list[PodCgroup] = []

        def visit(child: _Node) -> None:
            below = paths.qos_class(child.path.rpartition("/")[2])
            if below is None:
                pods.append(self._read_pod(child, qos))
            else:
                pods.extend(self._walk_pods(child, below))

        self._cgroups += 1
        self._visit_children(node, _pod_or_qos, visit)
        return pods

    def _read_pod(self, node: _Node, qos: QosClass) -> PodCgroup:
        reading = self._read(node)
        leaves: list[Leaf] = []

        def visit(child: _Node) -> None:
            reading = self._read(child)
            leaves.append(Leaf(child.path, child.directory.ino, child.key, child.directory.mtime_ns, reading))

        self._visit_children(node, paths.container_id, visit)
        directory = node.directory
        return PodCgroup(node.path, directory.ino, node.key, qos, directory.mtime_ns, reading, tuple(leaves))

    def _visit_children(self, node: _Node, key_of: Callable[[str], str | None], visit: Callable[[_Node], None]) -> None:
        """Visit each child cgroup; where one has vanished, list again and visit what has taken its place."""
        self._refresh(node, key_of)
        names = list(node.children)
        for _ in range(2):
            for name in names:
                try:
                    visit(node.children[name])
                except Gone:
                    node.children.pop(name).close()
                    node.stale = True
            if not node.stale:
                return
            names = self._refresh(node, key_of)

    def _refresh(self, node: _Node, key_of: Callable[[str], str | None]) -> list[str]:
        """Bring ``node.children`` up to date; the names that are new. Raises :class:`Gone`."""
        names = node.directory.subdirectories(force=node.stale)
        if names is None:
            return []
        node.stale = False
        fresh: list[str] = []
        for name in node.children.keys() - set(names):
            node.children.pop(name).close()
        for name in names:
            key = key_of(name)
            if key is None:
                continue
            path = f"{node.path}/{name}"
            try:
                directory = self._tree.open(path)
            except SourceError as error:
                if not isinstance(error, Gone):
                    self._count(error)
                    node.stale = True
                continue
            known = node.children.get(name)
            if known is not None and known.directory.ino == directory.ino:
                directory.close()
                continue
            if known is not None:
                known.close()
            node.children[name] = _Node(path, key, directory)
            fresh.append(name)
        return fresh

    # --- one cgroup -------------------------------------------------------------------------------------------------

    def _read(self, node: _Node, only: tuple[str, ...] | None = None, *, every_detail: bool = False) -> Reading:
        """Read one cgroup. Raises :class:`Gone`; any other error leaves values out and is counted."""
        directory = node.directory
        values: list[object] = [None] * len(READING_FIELDS)
        values[0] = directory.stamp()
        self._cgroups += 1
        raw: dict[str, bytes] = {}
        for file in FAST:
            if only is None or file.name in only:
                self._read_file(node, file, raw, values, READING_FIELDS)
        node.age += 1
        # In turns, told apart by inode, so that no tick bears the slow files of all cgroups.
        if every_detail or node.age == 0 or (node.age + directory.ino) % self._slow_every == 0:
            details: list[object] = [None] * len(DETAIL_FIELDS)
            for file in SLOW:
                if only is None or file.name in only:
                    self._read_file(node, file, raw, details, DETAIL_FIELDS)
            node.details = Details(*details)  # type: ignore[arg-type]  # the parsers give what the fields hold
        values[-1] = node.details
        return Reading(*values)  # type: ignore[arg-type]  # likewise

    def _read_file(
        self, node: _Node, file: KernelFile, raw: dict[str, bytes], values: list[object], slots: dict[str, int]
    ) -> None:
        name = file.name
        try:
            data = raw.get(name)
            if data is None:
                self._files_read += 1
                data = raw[name] = node.directory.read(name)
        except Absent:
            return
        except Gone:
            raise
        except SourceError as error:
            self._count(error)
            return
        try:
            if len(file.keys) == 1 and file.parse is grammar.flat_keyed:
                key = file.keys[0]
                values[slots[key.field]] = grammar.flat_key(data, key.key.encode())
                return
            parsed = file.parse(data)
            for key in file.keys:
                value = parsed.get(key.key.encode())
                if value is not None:
                    values[slots[key.field]] = grammar.number(value) if isinstance(value, bytes) else value
        except grammar.Malformed as error:
            self._count(ParseError(f"{node.path}/{name}", error.line))

    def _count(self, error: PodtallyError) -> None:
        self._errors[error.reason] += 1
        text = str(error)
        if text not in self._told and len(self._told) < 1000:
            self._told.add(text)
            log.warning("%s (told once)", text)


def _pod_or_qos(name: str) -> str | None:
    return "" if paths.qos_class(name) else paths.pod_uid(name)


def find_kubepods(tree: Tree) -> list[str]:
    """Paths of the kubepods directories nearest to the root; none if there is no kubelet (yet).

    Raises :class:`UnsupportedNode` if several nodes' trees are found, as on a machine that runs kind clusters.
    """
    level = [""]
    looked_at = 0
    for _ in range(_SEARCH_DEPTH):
        found: list[str] = []
        below: list[str] = []
        for parent in level:
            looked_at += 1
            if looked_at > _SEARCH_LIMIT:
                return []
            try:
                directory = tree.open(parent or ".")
            except SourceError:
                # Vanished or closed to us: there is no kubepods to be had in it.
                continue
            names = directory.subdirectories() or []
            directory.close()
            for name in sorted(names):
                path = f"{parent}/{name}" if parent else name
                (found if paths.is_kubepods(name) else below).append(path)
        if found:
            if len({path.rpartition("/")[0] for path in found}) > 1:
                raise UnsupportedNode(
                    f"several nodes' pods are below this cgroup root ({', '.join(found)}): choose one with --kubepods"
                )
            return found
        level = below
    return []
