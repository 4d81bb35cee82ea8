"""The walk: one tick over the kubepods trees of a node gives a :class:`collector.model.Frame`.

Directories are held open from tick to tick by the source, so that a tick costs little more than its reads. A cgroup
that vanishes between listing and reading is normal: it is dropped, and its parent is listed again in the same tick, so
that what took its place is in the frame too. What is read, and how often, says ``cgroup/files.py``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from itertools import chain

from collector.cgroup import grammar, paths
from collector.cgroup.files import EVERYTHING, FAST, ROOT_FILES, SLOW, KernelFile, Needs, Values, extractor, slow_names
from collector.errors import Absent, Gone, ParseError, PodtallyError, SourceError, UnsupportedNode
from collector.model import Details, Frame, Instant, Leaf, Limit, NodeReading, PodCgroup, QosClass, Reading
from collector.seams import Directory, Glimpse, Tree

log = logging.getLogger(__name__)

_SEARCH_DEPTH = 6
"""How deep a nested kubepods is looked for: ``system.slice/docker-<id>.scope/kubelet.slice/kubelet-kubepods.slice``
of a kind node seen from its host is four deep, one more nesting is six."""

_SEARCH_LIMIT = 4096
"""Directories looked at in that search at the most."""

_SEARCH_EVERY = 10
"""Ticks between two searches while none is found and the root has not changed."""


class _Row:
    """A row of ``cgroup/files.py`` made ready for reading."""

    __slots__ = ("absent", "extract", "name")

    def __init__(self, file: KernelFile) -> None:
        self.name = file.name
        self.extract = extractor(file)
        self.absent: Values = (None,) * len(file.keys)


class _Files:
    """Rows that are read together."""

    __slots__ = ("_places", "names", "rows")

    def __init__(self, files: tuple[KernelFile, ...], only: tuple[str, ...], read_before: tuple[str, ...]) -> None:
        wanted = [file.name for file in files if file.name in only]
        self.rows = [_Row(file) for file in files]
        self.names = tuple(name for name in wanted if name not in read_before)
        order = (*self.names, *read_before)
        places = [order.index(name) if name in wanted else None for name in (row.name for row in self.rows)]
        self._places = None if places == list(range(len(self.names))) else places

    def by_row(
        self, raw: list[bytes | SourceError], before: list[bytes | SourceError]
    ) -> list[bytes | SourceError | None]:
        """What was read, in the order of the rows; ``None`` for a file that this kind of cgroup has not.

        ``before`` is what was read for other rows: ``memory.stat`` has a fast and a slow row, and one reading serves
        both.
        """
        if self._places is None:
            return [*raw]
        every = [*raw, *before]
        return [None if place is None else every[place] for place in self._places]


_FAST_NAMES = tuple(file.name for file in FAST)


class _Plan:
    """What is read of a kind of cgroup."""

    __slots__ = ("always", "counted", "every_tick", "fast", "slow", "to_the_end")

    def __init__(
        self, slow: tuple[str, ...], *, fast: tuple[str, ...] = _FAST_NAMES, pods: bool = False, always: bool = False
    ) -> None:
        self.fast = _Files(FAST, fast, ())
        self.counted = tuple(
            index for index, file in enumerate(SLOW) if pods and file.every_tick_of_pods and file.name in slow
        )
        """Places of the slow rows that are read every tick."""
        self.every_tick = (*self.fast.names, *(SLOW[index].name for index in self.counted))
        self.slow = _Files(SLOW, slow, self.every_tick)
        self.to_the_end = (*self.fast.names, *(file.name for file in SLOW if file.to_the_end and file.name in slow))
        """What is read between two ticks."""
        self.always = always
        """Read the slow files every tick."""


_ROOT = _Plan(ROOT_FILES, fast=ROOT_FILES, always=True)
"""The node's working set is made of two slow keys and a fast one: they must be of one reading."""


class _Known:
    """What the files of a cgroup held when they were last read, and what came of them."""

    __slots__ = ("data", "flat", "raw", "values")

    def __init__(self, rows: tuple[KernelFile, ...]) -> None:
        self.raw: list[bytes | SourceError] | None = None
        """All that is read every tick, if it was bytes in the grammar of its row."""
        self.data: list[bytes | None] = [None] * len(rows)
        self.values: list[Values] = [(None,) * len(file.keys) for file in rows]
        self.flat: list[Limit | None] = list(chain.from_iterable(self.values))


class _Node:
    """A cgroup that is followed from tick to tick."""

    __slots__ = ("age", "children", "details", "directory", "fast", "key", "path", "reading", "slow", "stale", "young")

    def __init__(self, path: str, key: str, directory: Directory, young: int = 0) -> None:
        self.path = path
        self.key = key
        self.directory = directory
        self.children: dict[str, _Node] = {}
        self.fast = _Known(FAST)
        self.slow = _Known(SLOW)
        self.details = Details()
        self.reading: Reading | None = None
        """A leaf's last reading."""
        self.age = -1
        """Ticks since it was first read."""
        self.young = young
        """For so many ticks its slow files are read in each: it may not live until its turn."""
        self.stale = True
        """The children must be listed again, whatever the directory says."""

    def close(self) -> None:
        for child in self.children.values():
            child.close()
        self.directory.close()


class Walker:
    """Follows every pod's cgroups on a node. Not thread-safe: one walker, one thread."""

    def __init__(
        self, tree: Tree, *, slow_every: int = 5, kubepods: str | None = None, needs: Needs = EVERYTHING
    ) -> None:
        """``kubepods`` is the path of the kubepods directory relative to the root; found by looking if ``None``.

        ``needs``: slow files that give none of these fields are not read.
        """
        self._tree = tree
        self._pod = _Plan(slow_names(needs.pods), pods=True)
        self._container = _Plan(slow_names(needs.containers))
        self._slow_every = slow_every
        self._given = kubepods.strip("/") if kubepods else None
        self._root: _Node | None = None
        self._tops: dict[str, _Node] = {}
        self._errors: Counter[str] = Counter()
        self._told: set[str] = set()
        self._told_none = False
        self._held_back: list[Glimpse] = []
        """What went after it was read: it is among the leaves of the frame."""
        self._files_read = 0
        self._cgroups = 0
        self._ticks = -1
        self.seldom: Collection[tuple[str, int]] = ()
        """Identities of leaves that need not be read every tick: sandboxes, a quarter of a usual node's cgroups, whose
        readings go into no sum. They are read when their slow files are."""

    def tick(self) -> Frame:
        """Read the node once.

        Raises :class:`EndOfRecording` after the last frame of a recording, :class:`SourceError` if the cgroup root
        itself cannot be read, and :class:`UnsupportedNode` if several nodes' pods are found: nothing else gets out.
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
        self._add_gone(pods)
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
        try:
            reading = self._read(self._root, _ROOT)
        except Gone:
            # Mounted anew: this tick fails, the next one opens what is there then.
            self._root.close()
            self._root = None
            raise
        swap: dict[bytes, int] = {}
        try:
            self._files_read += 1
            swap = dict(grammar.meminfo(self._tree.read_proc("meminfo")))
        except grammar.Malformed as error:
            self._count(ParseError("/proc/meminfo", error.line))
        except SourceError as error:
            # A sandbox may hide /proc: then the node's swap is not known.
            if not isinstance(error, Absent):
                self._count(error)
        return NodeReading(reading, swap.get(b"SwapTotal"), swap.get(b"SwapFree"))

    # --- finding kubepods -------------------------------------------------------------------------------------------

    def _follow_tops(self) -> None:
        """Open the kubepods directories that are not followed yet: a kubelet may come up after the collector."""
        assert self._root is not None  # set by _read_node
        changed = self._list(self._root) is not None
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
                except SourceError as error:
                    # One that is gone again, or not there yet, is normal.
                    if not isinstance(error, Gone):
                        self._count(error)
        if not self._tops and not self._told_none:
            self._told_none = True
            what = f"no cgroup {self._given}" if self._given is not None else "no kubepods cgroup"
            log.warning("there is %s on this node (yet): podtally doctor tells more", what)

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
        before, known = node.slow.values.copy(), node.age >= 0
        if not known:
            node.directory.watch(self._container.to_the_end)
        reading = self._read(node, self._pod)
        # An event is in the count of the container that it befell too, which may not live until its turn.
        counts = known and any(node.slow.values[index] != before[index] for index in self._pod.counted)
        leaves: list[Leaf] = []

        def visit(child: _Node) -> None:
            directory = child.directory
            if child.reading is None or (child.path, directory.ino) not in self.seldom or self._turn(child):
                child.reading = self._read(child, self._container, turn=counts)
            else:
                directory.stamp()
                child.age += 1
            leaves.append(Leaf(child.path, directory.ino, child.key, directory.mtime_ns, child.reading))

        self._visit_children(node, paths.container_id, visit)
        directory = node.directory
        return PodCgroup(node.path, directory.ino, node.key, qos, directory.mtime_ns, reading, tuple(leaves))

    def _add_gone(self, pods: list[PodCgroup]) -> None:
        """Give to pods what has gone of them since the last tick. Asked for after the walk, so that what went in the
        middle of it is in this frame one way or the other, and each is told of as gone in the first frame without it.
        """
        glimpses = [*self._held_back, *self._tree.glimpses()]
        self._held_back = []
        places = {pod.path: place for place, pod in enumerate(pods)} if glimpses else {}
        for glimpse in glimpses:
            place = places.get(glimpse.path.rpartition("/")[0])
            if place is None:
                continue
            pod = pods[place]
            if any((leaf.path, leaf.ino) == (glimpse.path, glimpse.ino) for leaf in pod.leaves):
                self._held_back.append(glimpse)
            elif (leaf := self._glimpsed(glimpse)) is not None:
                pods[place] = pod._replace(gone=(*pod.gone, leaf))

    def _glimpsed(self, glimpse: Glimpse) -> Leaf | None:
        """A leaf that has gone, as the source saw it between two ticks; ``None`` for what is no container's."""
        key = paths.container_id(glimpse.path.rpartition("/")[2])
        if key is None:
            return None
        fast, slow = _Known(FAST), _Known(SLOW)
        for files, known in ((self._container.fast, fast), (self._container.slow, slow)):
            found = ((index, glimpse.files.get(row.name)) for index, row in enumerate(files.rows))
            self._parse(glimpse.path, files.rows, found, known)
        reading = Reading._make((glimpse.monotonic_ns, *fast.flat, Details._make(slow.flat)))
        return Leaf(glimpse.path, glimpse.ino, key, glimpse.mtime_ns, reading)

    def _visit_children(self, node: _Node, key_of: Callable[[str], str | None], visit: Callable[[_Node], None]) -> None:
        """Visit each child cgroup; where one has vanished, list again and visit what has taken its place."""
        self._refresh(node, key_of)
        names = list(node.children)
        for _ in range(2):
            vanished = False
            for name in names:
                try:
                    visit(node.children[name])
                except Gone:
                    node.children.pop(name).close()
                    node.stale = vanished = True
            if not vanished:
                return
            names = self._refresh(node, key_of)

    def _refresh(self, node: _Node, key_of: Callable[[str], str | None]) -> list[str]:
        """Bring ``node.children`` up to date; the names that are new. Raises :class:`Gone`."""
        names = self._list(node)
        if names is None:
            return []
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
            node.children[name] = _Node(path, key, directory, young=self._slow_every if self._ticks else 0)
            fresh.append(name)
        return fresh

    def _list(self, node: _Node) -> list[str] | None:
        """Child cgroups, ``None`` where they are as before or cannot be listed. Raises :class:`Gone`."""
        try:
            names = node.directory.subdirectories(force=node.stale)
        except Gone:
            raise
        except SourceError as error:
            self._count(error)
            node.stale = True
            return None
        node.stale = False
        return names

    # --- one cgroup -------------------------------------------------------------------------------------------------

    def _read(self, node: _Node, plan: _Plan, *, turn: bool = False) -> Reading:
        """Read one cgroup, its slow files too if it is their ``turn``. Raises :class:`Gone`; any other error leaves
        values out and is counted.
        """
        directory = node.directory
        stamp = directory.stamp()
        self._cgroups += 1
        raw = directory.read_all(plan.every_tick, often=True)
        self._files_read += len(raw)
        fast = raw
        turn = turn or plan.always or self._turn(node)
        if plan.counted:
            size = len(plan.fast.names)
            fast, counted = raw[:size], raw[size:]
            if counted != node.slow.raw and not turn:
                whole = self._parse(node.path, plan.slow.rows, zip(plan.counted, counted, strict=True), node.slow)
                node.slow.raw = counted if whole else None
                node.details = Details._make(node.slow.flat)
        if fast != node.fast.raw:
            whole = self._parse(node.path, plan.fast.rows, enumerate(plan.fast.by_row(fast, [])), node.fast)
            # A file that failed or is malformed is looked at anew, and counted anew, at the next reading.
            node.fast.raw = fast if whole else None
        node.age += 1
        if turn:
            slow = directory.read_all(plan.slow.names, often=False)
            self._files_read += len(slow)
            self._parse(node.path, plan.slow.rows, enumerate(plan.slow.by_row(slow, raw)), node.slow)
            node.details = Details._make(node.slow.flat)
        return Reading._make((stamp, *node.fast.flat, node.details))

    def _turn(self, node: _Node) -> bool:
        """True if the slow files are due: at first, then in turns told apart by inode, so that no tick bears all."""
        return node.age < node.young or (node.age + 1 + node.directory.ino) % self._slow_every == 0

    def _parse(
        self,
        path: str,
        rows: list[_Row],
        found: Iterable[tuple[int, bytes | SourceError | None]],
        known: _Known,
    ) -> bool:
        """Bring ``known`` up to date with what was ``found``, by the place of its row; whether all was bytes in their
        grammar. An unchanged file, as most are from tick to tick, is not parsed again.
        """
        values, parsed = known.values, known.data
        whole = True
        for index, data in found:
            if data == parsed[index]:
                continue
            row = rows[index]
            if isinstance(data, bytes):
                try:
                    values[index] = row.extract(data)
                    parsed[index] = data
                    continue
                except grammar.Malformed as error:
                    self._count(ParseError(f"{path}/{row.name}", error.line))
            elif data is not None and not isinstance(data, Absent):
                self._count(data)
            whole = False
            values[index], parsed[index] = row.absent, None
        known.flat = list(chain.from_iterable(values))
        return whole

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
                try:
                    names = directory.subdirectories() or []
                finally:
                    directory.close()
            except SourceError:
                # Vanished or closed to us: there is no kubepods to be had in it.
                continue
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
