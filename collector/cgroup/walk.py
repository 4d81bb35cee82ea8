"""The walk: one tick over the kubepods trees of a node gives a :class:`collector.model.Frame`.

Directories are held open from tick to tick by the source, so that a tick costs little more than its reads. A cgroup
that vanishes between listing and reading is normal: it is dropped, and its parent is listed again in the same tick, so
that what took its place is in the frame too. What is read, and how often, says ``cgroup/files.py``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, count
from operator import itemgetter, lt
from typing import TypeVar, cast

from collector.cgroup import grammar, paths
from collector.cgroup.files import (
    EVERYTHING,
    FAST,
    ROOT_FIELDS,
    ROOT_FILES,
    ROOT_SELDOM_FILES,
    SELDOM_TURNS,
    SLOW,
    STILL_TICKS,
    Hold,
    KernelFile,
    Needs,
    Raw,
    Value,
    Values,
    extractor,
    fast_extractor,
    holder,
    slow_rows,
)
from collector.cgroup.find import Found, find_kubepods
from collector.errors import Absent, Gone, ParseError, PodtallyError, SourceError
from collector.model import (
    Details,
    Frame,
    Instant,
    Interface,
    Leaf,
    NodeReading,
    Other,
    PodCgroup,
    QosClass,
    Reading,
    Slice,
)
from collector.seams import Directory, Glimpse, Tree

log = logging.getLogger(__name__)

_SEARCH_EVERY = 10
"""Ticks between two searches for kubepods, where the root does not tell that there is something new."""


_make = tuple.__new__
"""Makes a named tuple of its fields in their order, in half the time that calling its class takes."""

Rows = tuple[KernelFile, ...]
Parsed = TypeVar("Parsed")


class _Row:
    """A row of ``cgroup/files.py`` made ready for reading."""

    __slots__ = ("absent", "extract", "file", "hold", "keep", "name")

    def __init__(self, file: KernelFile, *, keep: bool, fast: bool = False) -> None:
        self.file = file
        # Those of every tick are held together: see Walker._hold_fast.
        self.hold = None if fast else holder(file)
        self.name = file.name
        self.extract = extractor(file)
        self.absent: Values = (None,) * len(file.keys)
        self.keep = keep
        """What the file held is kept, so as not to parse it again unchanged. Seldom ones are not worth the memory."""


class _Files:
    """Rows that are read together."""

    __slots__ = ("names", "numbers", "pick", "rows")

    def __init__(self, rows: list[_Row], wanted: Rows, read_before: tuple[str, ...]) -> None:
        self.rows = rows
        self.names = tuple(dict.fromkeys(file.name for file in wanted if file.name not in read_before))
        self.numbers = tuple(number for number, row in enumerate(rows) if row.file in wanted)
        """Of the rows that these files are of. Others keep the values that they have."""
        order = (*self.names, *read_before)
        self.pick = _picker([order.index(rows[number].name) for number in self.numbers])
        """Takes what was read for each of them out of what was read now and, after it, before: ``memory.stat`` has a
        fast row and slow ones, and one reading serves all.
        """


def _picker(places: list[int]) -> Callable[[list[Raw]], Sequence[Raw]]:
    return itemgetter(*places) if len(places) > 1 else lambda every: tuple(every[place] for place in places)


class _Plan:
    """What is read of a kind of cgroup."""

    __slots__ = (
        "always",
        "counted",
        "every_tick",
        "extract",
        "fast",
        "of_seldom",
        "seldom",
        "slow",
        "still",
        "to_the_end",
        "whole",
    )

    def __init__(
        self, slow: Rows, seldom: Rows, *, fast: Rows = FAST, pods: bool = False, always: bool = False
    ) -> None:
        seldom = tuple(file for file in seldom if file not in slow)
        rows = [_Row(file, keep=file not in seldom) for file in SLOW]
        self.fast = _Files([_Row(file, keep=True, fast=True) for file in FAST], fast, ())
        self.extract = fast_extractor() if fast == FAST else None
        """Takes the values of all the fast ones, which stand before others that are read every tick."""
        counted = tuple(file for file in slow if pods and file.every_tick_of_pods)
        self.counted = _Files(rows, counted, ())
        """The slow rows that are read every tick."""
        self.every_tick = (*self.fast.names, *self.counted.names)
        self.still = tuple(name for name in self.every_tick if name != "memory.stat") if self.extract else None
        """What is read every tick of a cgroup whose ``memory.current`` may stand still; ``None`` for one without it."""
        at_turns = tuple(file for file in slow if file not in counted)
        self.slow = _Files(rows, at_turns, self.every_tick)
        self.whole = _Files(rows, (*at_turns, *seldom), self.every_tick)
        """What is slow, and then what is read seldom."""
        self.seldom = self.whole.names[len(self.slow.names) :]
        """Names of what is read seldom."""
        self.of_seldom = tuple(number for number in self.whole.numbers if number not in self.slow.numbers)
        """The rows of what is read seldom, and of other files' keys that are wanted with it."""
        self.to_the_end = (*self.fast.names, *(file.name for file in slow if file.to_the_end))
        """What is read between two ticks."""
        self.always = always
        """Read the slow files every tick."""


def _root_plan() -> _Plan:
    of_root = tuple(file for file in SLOW if file.name in (*ROOT_FILES, *ROOT_SELDOM_FILES))
    fast = tuple(file for file in FAST if file.name in ROOT_FILES)
    return _Plan(slow_rows(ROOT_FIELDS), of_root, fast=fast, always=True)


_ROOT = _root_plan()
"""The node's working set is made of two slow keys and a fast one: they must be of one reading."""


_FAST_COUNTERS = len(FAST[0].keys)
"""The first values of the fast files: those of cpu.stat, all of which are counters."""

_STAT = (FAST[2].name,)

_NOTHING = [0] * _FAST_COUNTERS


class _Known:
    """What the files of a cgroup held when they were last read, and what came of them."""

    __slots__ = ("data", "flat", "least", "values")

    def __init__(self, rows: Rows) -> None:
        self.least: dict[int, Values] = {}
        """What rows with counters held when they could be read last."""
        self.data: list[bytes | None] = [None] * len(rows)
        self.values: list[Values] = [(None,) * len(file.keys) for file in rows]
        self.flat: Sequence[Value | None] = list(chain.from_iterable(self.values))


_Identity = tuple[str, int, str, int | None, bool | None]


class _Node:
    """A cgroup that is followed from tick to tick."""

    __slots__ = (
        "age",
        "children",
        "details",
        "directory",
        "fast",
        "held",
        "identity",
        "key",
        "least",
        "moves",
        "network",
        "number",
        "path",
        "raw",
        "reading",
        "seldom_ns",
        "slow",
        "slow_ns",
        "stale",
        "turn",
        "unread",
        "young",
    )

    def __init__(self, path: str, key: str, directory: Directory, *, number: int = 0, young: int = 0) -> None:
        self.path = path
        self.key = key
        self.directory = directory
        self.number = number
        """Tells turns apart, so that no tick bears all. Inodes do not: each cgroup takes as many of them as the next,
        and those of a whole node may be alike by any divisor."""
        self.identity: _Identity = (path, directory.ino, key, directory.mtime_ns, None)
        """What is told of a leaf beside its reading."""
        self.children: dict[str, _Node] = {}
        self.unread: list[str] = []
        """Paths of children that could not be opened, or its own if they could not be listed."""
        self.fast = _Known(FAST)
        self.slow = _Known(SLOW)
        self.details = Details()
        self.held = False
        """Its CPU counter is lower than it was, and shown as it was."""
        self.least: list[int] = _NOTHING
        """The counters of the fast files, none of which falls while the cgroup lives."""
        self.raw: list[bytes | None] | None = None
        """What the files of every tick held; ``None`` for one that failed or is malformed, which is looked at anew, and
        counted anew, at the next reading."""
        self.turn: tuple[bytes | None, ...] | None = None
        """What the slow ones held, likewise."""
        self.moves = True
        """``memory.current`` was another at the last reading than at the one before."""
        self.slow_ns: int | None = None
        self.seldom_ns: int | None = None
        self.reading: Reading | None = None
        """A leaf's last reading."""
        self.network: tuple[Interface, ...] | None = None
        """A pod's interfaces, or the node's, as they were last read."""
        self.age = -1
        """Ticks since it was first read."""
        self.young = young
        """For so many ticks its slow files are read in each: it may not live until its turn."""
        self.stale = True
        """The children must be listed again, whatever the directory says."""

    def begin_anew(self) -> None:
        """Forget what its counters were."""
        self.least, self.held = _NOTHING, False
        self.slow.least.clear()
        for child in self.children.values():
            child.begin_anew()

    def close(self) -> None:
        for child in self.children.values():
            child.close()
        self.directory.close()


class Walker:
    """Follows every pod's cgroups on a node. Not thread-safe: one walker, one thread."""

    def __init__(
        self,
        tree: Tree,
        *,
        slow_every: int = 5,
        kubepods: str | None = None,
        needs: Needs = EVERYTHING,
        seldom_wanted: Callable[[int], bool] | None = None,
        passes: Callable[[], int] = lambda: 0,
    ) -> None:
        """``kubepods`` is the path of the kubepods directory relative to the root; found by looking if ``None``.

        ``needs``: slow files that give none of these fields are not read. ``seldom_wanted``: whether, at a monotonic
        time, somebody wants what is read seldom; if ``None``, always. ``passes``: how often a recording has begun anew.
        """
        self._tree = tree
        self._seldom_wanted = seldom_wanted
        self._passes = passes
        self._pass = 0
        self._reads_seldom = self._has_seldom = seldom_wanted is None
        """What is read seldom is read in this tick, of those whose turn it is; and it was in the last."""
        self._reads_all = False
        """It is read of all in this tick, as it is wanted anew."""
        of_pods, seldom = slow_rows(needs.pods), slow_rows(needs.seldom)
        self._pod = _Plan(of_pods, seldom, pods=True)
        self._slice = _Plan(of_pods, seldom)
        self._container = _Plan(slow_rows(needs.containers), seldom)
        self._slow_every = slow_every
        self._seldom_every = slow_every * SELDOM_TURNS if slow_every > 1 else 1
        self._given = kubepods.strip("/") if kubepods else None
        self._root: _Node | None = None
        self._tops: dict[str, _Node] = {}
        self._slices: list[Slice] = []
        self._devices: Mapping[tuple[int, int], str] | None = None
        self._sees_processes = False
        """The processes of some pod were seen: those of the node can be."""
        self._network_read_at = -1
        """The tick of the last reading of the node's network."""
        self._errors: Counter[str] = Counter()
        self._told: set[str] = set()
        self._uids: frozenset[str] = frozenset()
        """Of the pods of the last tick."""
        self._expected: frozenset[str] = frozenset()
        """Uids of pods that run, by their names."""
        self._missing: frozenset[str] = frozenset()
        """Those that had no cgroup when the last search was due."""
        self._search_now = False
        self._undecided: Found | None = None
        """The last search, if it could not tell which of several trees are this node's."""
        self._held_back: list[Glimpse] = []
        """What went after it was read: it is among the leaves of the frame."""
        self._files_read = 0
        self._falls = 0
        self._held: list[tuple[str, int]] = []
        self._unread: list[str] = []
        self._cgroups = 0
        self._ticks = -1
        self._numbers = count()
        self.doubtful: Collection[tuple[str, int]] = ()
        """Identities of leaves of which is read whether a process is in them."""
        self.seldom: Collection[tuple[str, int]] = ()
        """Identities of leaves that need not be read every tick: sandboxes, a quarter of a usual node's cgroups, whose
        readings go into no sum. They are read when their slow files are."""

    def tick(self) -> Frame:
        """Read the node once.

        Raises :class:`EndOfRecording` after the last frame of a recording and :class:`SourceError` if the cgroup root
        itself cannot be read: nothing else gets out.
        """
        instant = self._tree.begin()
        if self._seldom_wanted is not None:
            self._reads_seldom = self._seldom_wanted(instant.monotonic_ns)
            self._reads_all = self._reads_seldom and not self._has_seldom
        self._ticks += 1
        if self._passes() != self._pass:
            self._pass = self._passes()
            self._begin_anew()
        self._errors = Counter()
        self._files_read = 0
        self._falls = 0
        self._held = []
        self._unread = []
        self._cgroups = 0
        self._slices = []
        reading = self._read_root()
        self._read_network_of_node(reading)
        self._follow_tops()
        pods = self._walk_tops()
        self._add_gone(pods)
        self._read_network_of_node(reading)
        node = self._read_node(reading)
        self._has_seldom = self._reads_seldom
        return self._frame(instant, node, pods)

    def _frame(self, instant: Instant, node: NodeReading, pods: list[PodCgroup]) -> Frame:
        slices, errors = tuple(sorted(self._slices)), dict(self._errors)
        return Frame(
            instant,
            node,
            tuple(pods),
            errors,
            self._files_read,
            self._cgroups,
            slices,
            tuple(self._unread),
            self._falls,
            frozenset(self._held),
        )

    def _begin_anew(self) -> None:
        """A recording begins again: its counters step back, and that is no fall."""
        for top in self._tops.values():
            top.begin_anew()
        if self._root is not None:
            self._root.begin_anew()

    def expect(self, frame: Frame, uids: Collection[str]) -> Frame:
        """Take in the ``uids`` of pods that run, by the names that are known at the end of a tick; its ``frame``, with
        pods where these tell which of several nodes' trees is this node's. If they do not tell either, raises
        :class:`UnsupportedNode`.
        """
        if uids is not self._expected:
            uids = frozenset(uids)
            self._search_now = bool(uids) and not self._expected and uids.isdisjoint(self._uids)
            self._expected = uids
        if self._undecided is None or not self._expected:
            return frame
        if self._search_now:
            self._search_now = False
            self._search()
        if self._undecided is not None:
            several = self._undecided.several
            if several is not None:
                raise several
            return frame
        return self._frame(frame.instant, frame.node, self._walk_tops())

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

    def _read_root(self) -> Reading:
        if self._root is None:
            self._root = _Node(".", "", self._tree.open("."))
        try:
            return self._read(self._root, _ROOT)
        except Gone:
            # Mounted anew: this tick fails, the next one opens what is there then.
            self._root.close()
            self._root = None
            raise

    def _read_network_of_node(self, reading: Reading) -> None:
        """Next to the root's reading, whose time it bears; after the walk if that has been the first to see a pod's
        process: process 1 is the node's first where those are seen, else it is podtally itself.
        """
        root = self._root
        assert root is not None  # _read_root has opened it
        if not self._sees_processes or reading.seldom_ns is None:
            root.network = None
        elif reading.seldom_ns == reading.monotonic_ns and self._network_read_at != self._ticks:
            self._network_read_at = self._ticks
            root.network = self._read_proc("1/net/dev", grammar.interfaces)

    def _read_node(self, reading: Reading) -> NodeReading:
        """What ``/proc`` says of the node. A sandbox may hide it: then its swap, say, is not known."""
        root = self._root
        assert root is not None  # _read_root has opened it
        memory = self._read_proc("meminfo", _meminfo) or {}
        if reading.seldom_ns is None:
            self._devices = None
        elif reading.seldom_ns == reading.monotonic_ns:
            self._devices = self._read_proc("partitions", grammar.partitions)
        return NodeReading(
            reading,
            memory.get(b"SwapTotal"),
            memory.get(b"SwapFree"),
            memory.get(b"MemTotal"),
            self._devices,
            root.network,
            root.directory.mtime_ns,
        )

    def _read_proc(self, name: str, parse: Callable[[bytes], Parsed]) -> Parsed | None:
        """``/proc/<name>``; ``None`` where it is not there or cannot be read."""
        self._files_read += 1
        try:
            return parse(self._tree.read_proc(name))
        except grammar.Malformed as error:
            self._count(ParseError(f"/proc/{name}", error.line))
        except SourceError as error:
            if not isinstance(error, Absent):
                self._count(error)
        return None

    # --- finding kubepods -------------------------------------------------------------------------------------------

    def _follow_tops(self) -> None:
        """Open the kubepods directories that are not followed yet: a kubelet may come up after the collector, or make
        its pods in another place when it is started anew.
        """
        assert self._root is not None  # _read_root has opened it
        names = self._list(self._root)
        if self._given is None:
            if self._is_due(names):
                self._search()
        elif not self._tops and (names is not None or self._ticks % _SEARCH_EVERY == 0):
            self._follow([self._given])
            if not self._tops:
                self._tell_once(f"there is no cgroup {self._given} on this node (yet): podtally doctor tells more")

    def _is_due(self, names: list[str] | None) -> bool:
        """True if kubepods is to be looked for; ``names`` are those at the root, if they may have changed."""
        in_turn = self._ticks % _SEARCH_EVERY == 0
        if self._search_now:
            self._search_now = False
            return True
        if not self._tops or not self._uids:
            return in_turn or names is not None
        if names is not None and any(paths.is_kubepods(name) and name not in self._tops for name in names):
            # Both drivers' trees may stand side by side at the root of a node that went from one to the other.
            return True
        if not in_turn:
            return False
        # One that has just ended, or begins, is missing for a moment.
        missing, before = self._expected - self._uids, self._missing
        self._missing = missing
        return bool(missing & before) or (bool(missing) and missing == self._expected)

    def _search(self) -> None:
        """Look for kubepods, and follow what is this node's from now on."""
        found = find_kubepods(self._tree, self._expected)
        for error in found.errors:
            self._count(error)
        if found.cut_short:
            self._tell_once(
                "the search for kubepods has ended at its bounds, not all cgroups of this node were looked at: if pods"
                " are missing, give the path with --kubepods"
            )
        self._undecided = found if found.undecided and not self._tops else None
        if found.chosen:
            # What could not be looked at is not known to be another's.
            for path in () if found.errors or found.cut_short else self._tops.keys() - set(found.tops):
                self._tops.pop(path).close()
            self._follow(found.tops)
        elif found.undecided:
            if not self._tops:
                tops = ", ".join(top for trees in found.undecided for top in trees.tops)
                what = found.several or f"several kubepods are below this cgroup root, and none has pods ({tops})"
                self._tell_once(f"{what}: until a pod of this node's is in one of them, none is followed")
        elif not self._tops:
            self._tell_once("there is no kubepods cgroup on this node (yet): podtally doctor tells more")

    def _follow(self, tops: Iterable[str]) -> None:
        for path in tops:
            if path not in self._tops:
                try:
                    self._tops[path] = _Node(path, "", self._tree.open(path))
                except SourceError as error:
                    # One that is gone again, or not there yet, is normal.
                    if not isinstance(error, Gone):
                        self._count(error)

    # --- pods and their leaves --------------------------------------------------------------------------------------

    def _walk_tops(self) -> list[PodCgroup]:
        """All pods."""
        pods: list[PodCgroup] = []
        for path, top in list(self._tops.items()):
            try:
                pods.extend(self._walk_pods(top, "Guaranteed"))
            except Gone:
                self._tops.pop(path).close()
        self._uids = frozenset(pod.uid for pod in pods)
        return pods

    def _walk_pods(self, node: _Node, qos: QosClass) -> list[PodCgroup]:
        """Pods below a kubepods or a QoS directory. Raises :class:`Gone` if the directory itself has vanished."""
        pods: list[PodCgroup] = []

        def visit(child: _Node) -> None:
            below = paths.qos_class(child.path.rpartition("/")[2])
            if below is None:
                pods.append(self._read_pod(child, qos))
            else:
                pods.extend(self._walk_pods(child, below))

        reading, directory = self._read(node, self._slice), node.directory
        self._visit_children(node, _pod_or_qos, visit)
        self._unread += node.unread
        # Not before, as it may have vanished meanwhile.
        self._slices.append(Slice(node.path, directory.ino, directory.mtime_ns, reading))
        return pods

    def _read_pod(self, node: _Node, qos: QosClass) -> PodCgroup:
        known, values, counted = node.age >= 0, node.slow.values, self._pod.counted.numbers
        before = [values[number] for number in counted]
        if not known:
            node.directory.watch(self._container.to_the_end)
        reading = self._read(node, self._pod)
        # An event is in the count of the container that it befell too, which may not live until its turn.
        counts = known and before != [values[number] for number in counted]
        leaves: list[Leaf] = []
        others: list[Other] = []

        def visit(child: _Node) -> None:
            if not child.key:
                others.append(self._read_other(child))
                return
            reading = child.reading
            if reading is None or child.identity[:2] not in self.seldom or self._turn(child):
                child.reading = reading = self._read(child, self._container, turn=counts)
            else:
                child.directory.stamp()
                child.age += 1
            if self.doubtful or child.identity[4] is not None:
                self._read_populated(child)
            leaves.append(_make(Leaf, (*child.identity, reading)))

        self._visit_children(node, _container_or_other, visit)
        directory = node.directory
        if reading.seldom_ns is None:
            node.network = None
        elif reading.seldom_ns == reading.monotonic_ns:
            node.network = self._read_network(node)
        return PodCgroup(
            node.path,
            directory.ino,
            node.key,
            qos,
            directory.mtime_ns,
            reading,
            tuple(leaves),
            node.network,
            (),
            tuple(node.unread),
            tuple(others),
        )

    def _read_populated(self, leaf: _Node) -> None:
        """Whether a process is in a leaf that has no name; of any other that is not known. Raises :class:`Gone`."""
        populated: bool | None = None
        if leaf.identity[:2] in self.doubtful:
            value = self._read_key(leaf, "cgroup.events", b"populated")
            populated = None if value is None else bool(value)
        leaf.identity = (*leaf.identity[:4], populated)

    def _read_other(self, other: _Node) -> Other:
        """A cgroup that is no container's: its CPU alone. Raises :class:`Gone`."""
        other.directory.stamp()
        self._cgroups += 1
        return Other(other.path, other.directory.ino, self._read_key(other, "cpu.stat", b"usage_usec"))

    def _read_key(self, node: _Node, name: str, key: bytes) -> int | None:
        """One key of one file; ``None`` if it cannot be read. Raises :class:`Gone`."""
        self._files_read += 1
        (data,) = node.directory.read_all((name,), often=False)
        if isinstance(data, bytes):
            try:
                return grammar.flat_key(data, key)
            except grammar.Malformed as error:
                self._count(ParseError(f"{node.path}/{name}", error.line))
        elif not isinstance(data, Absent):
            self._count(data)
        return None

    def _read_network(self, pod: _Node) -> tuple[Interface, ...] | None:
        """The interfaces that a process of the pod sees: of its sandbox, which is made first, else of a container.

        The process' cgroup is read before and after: an id that is in it both times was not another process' meanwhile.
        """
        assert self._root is not None  # _read_root has opened it
        if self._root.details.process_id == 0:
            # The kernel's own threads cannot be seen: this is another PID namespace than the node's.
            self._sees_processes = False
            return None
        for leaf in sorted(pod.children.values(), key=lambda leaf: leaf.directory.ino):
            if leaf.details.process_id is None:
                continue
            # Not that of a container where the sandbox' cannot be seen: podtally sees its own in any namespace.
            process = self._process_of(leaf) if leaf.details.process_id else None
            if not process:
                return None
            self._sees_processes = True
            found = self._read_proc(f"{process}/net/dev", grammar.interfaces)
            return found if self._process_of(leaf) == process else None
        return None

    def _process_of(self, leaf: _Node) -> int | None:
        """The lowest id of a process in the leaf; ``None`` or 0 where none can be seen."""
        self._files_read += 1
        try:
            (data,) = leaf.directory.read_all(("cgroup.procs",), often=False, hold=False)
            return grammar.process_ids(data).get(b"lowest") if isinstance(data, bytes) else None
        except (Gone, grammar.Malformed):
            # Its reading tells of it.
            return None

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
            found = [glimpse.files.get(files.rows[number].name) for number in files.numbers]
            self._parse(glimpse.path, files, found, known)
        at_ns = glimpse.monotonic_ns
        reading = Reading._make((at_ns, *fast.flat, Details._make(slow.flat), None, at_ns, None))
        return Leaf(glimpse.path, glimpse.ino, key, glimpse.mtime_ns, None, reading)

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
            node.unread = [node.path] if node.stale else []
            return []
        node.unread = []
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
                    node.unread.append(path)
                continue
            known = node.children.get(name)
            if known is not None and known.directory.ino == directory.ino:
                directory.close()
                continue
            if known is not None:
                known.close()
            node.children[name] = _Node(
                path, key, directory, number=next(self._numbers), young=self._slow_every if self._ticks else 0
            )
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
        turn = turn or plan.always or self._turn(node)
        raw = self._read_every_tick(node, plan, turn=turn)
        # At first in any case.
        whole = turn and (node.age < 0 or self._reads_all or (node.age + 1 + node.number) % self._seldom_every == 0)
        if whole and not self._reads_seldom:
            whole = False
            self._forget_seldom(node, plan)
        node.age += 1
        if raw != node.raw:
            node.raw = self._parse_every_tick(node, plan, raw)
        if node.held:
            self._held.append((node.path, directory.ino))
        if turn:
            files = plan.whole if whole else plan.slow
            every = directory.read_all(plan.slow.names, often=False)
            node.slow_ns = stamp
            if whole:
                if plan.seldom:
                    every += directory.read_all(plan.seldom, often=False, hold=False)
                node.seldom_ns = stamp
            self._files_read += len(every)
            found = files.pick([*every, *raw])
            if found != node.turn:
                self._parse(node.path, files, found, node.slow, counted=raw)
                node.turn = tuple(node.slow.data[number] for number in plan.slow.numbers)
                node.details = Details._make(node.slow.flat)
        return _make(Reading, (stamp, *node.fast.flat, node.details, None, node.slow_ns, node.seldom_ns))

    def _read_every_tick(self, node: _Node, plan: _Plan, *, turn: bool) -> list[Raw]:
        """The files of every tick; ``memory.stat`` as it was where it need not be read. Raises :class:`Gone`."""
        last, directory = node.raw, node.directory
        stat = last[2] if last is not None and plan.still is not None else None
        if stat is None or last is None or plan.still is None:
            raw = directory.read_all(plan.every_tick, often=True)
        elif turn or node.moves or (node.age + 1 + node.number) % STILL_TICKS == 0:
            raw = directory.read_all(plan.every_tick, often=True)
            node.moves = raw[1] != last[1]
        else:
            raw = directory.read_all(plan.still, often=True)
            node.moves = raw[1] != last[1]
            if not node.moves:
                self._files_read += len(raw)
                raw.insert(2, stat)
                return raw
            raw[2:2] = directory.read_all(_STAT, often=True)
        self._files_read += len(raw)
        return raw

    def _parse_every_tick(self, node: _Node, plan: _Plan, raw: list[Raw]) -> list[bytes | None]:
        """Take in what has changed of the files of every tick; what of them is kept."""
        fast, slow, size = node.fast, node.slow, len(plan.fast.names)
        values = plan.extract(raw) if plan.extract is not None else None
        kept: list[bytes | None]
        if values is not None:
            fast.flat = values
            kept = cast(list[bytes | None], raw[:size])
            # Nine times in ten none has fallen: this way of asking takes a third of a loop's time.
            if True in map(lt, values, node.least):
                self._hold_fast(node)
            else:
                node.least = values[:_FAST_COUNTERS]
                node.held = False
        else:
            self._parse(node.path, plan.fast, raw[:size], fast)
            kept = [fast.data[number] for number in plan.fast.numbers]
            self._hold_fast(node)
        if len(raw) > size:
            counted = node.raw[size:] if node.raw is not None else None
            if raw[size:] != counted:
                self._parse(node.path, plan.counted, raw[size:], slow)
                node.details = Details._make(slow.flat)
                counted = [slow.data[number] for number in plan.counted.numbers]
            kept += counted
        return kept

    def _hold_fast(self, node: _Node) -> None:
        """Put what they were before in place of the fast counters that are lower now, and remember the others."""
        values, least = list(node.fast.flat), list(node.least)
        node.held = isinstance(values[0], int) and values[0] < least[0]
        for number in range(_FAST_COUNTERS):
            value = values[number]
            if not isinstance(value, int):
                continue
            if value < least[number]:
                values[number] = least[number]
                self._falls += 1
            else:
                least[number] = value
        node.fast.flat, node.least = values, least

    def _forget_seldom(self, node: _Node, plan: _Plan) -> None:
        """What is not read any more is absent: else it would be told for what it was once."""
        if node.seldom_ns is None:
            return
        for number in plan.of_seldom:
            node.slow.values[number], node.slow.data[number] = plan.whole.rows[number].absent, None
        node.slow.flat = list(chain.from_iterable(node.slow.values))
        node.details = Details._make(node.slow.flat)
        node.seldom_ns = None

    def _turn(self, node: _Node) -> bool:
        """True if the slow files are due."""
        return node.age < node.young or (node.age + 1 + node.number) % self._slow_every == 0 or self._reads_all

    def _parse(
        self,
        path: str,
        files: _Files,
        found: Sequence[Raw | None],
        known: _Known,
        counted: Sequence[Raw] = (),
    ) -> None:
        """Bring ``known`` up to date with what was ``found`` for the rows of ``files``. An unchanged file, as most are
        from tick to tick, is not parsed again. Errors among ``counted`` are those of an earlier call and not counted
        again.
        """
        rows, values, parsed = files.rows, known.values, known.data
        for index, data in zip(files.numbers, found, strict=True):
            if data == parsed[index]:
                continue
            row = rows[index]
            if isinstance(data, bytes):
                try:
                    values[index] = row.extract(data)
                    parsed[index] = data if row.keep else None
                    if row.hold is not None:
                        self._hold(known, index, row.hold)
                    continue
                except grammar.Malformed as error:
                    self._count(ParseError(f"{path}/{row.name}", error.line))
            elif data is not None and not isinstance(data, Absent) and not any(data is one for one in counted):
                self._count(data)
            values[index], parsed[index] = row.absent, None
        known.flat = list(chain.from_iterable(values))

    def _hold(self, known: _Known, index: int, hold: Hold) -> None:
        """Hold the counters of a row at what they were before, where they are lower now."""
        values = known.values[index]
        known.values[index], known.least[index], falls = hold(known.least.get(index, values), values)
        self._falls += falls

    def _count(self, error: PodtallyError) -> None:
        self._errors[error.reason] += 1
        self._tell_once(f"{error} (told once)")

    def _tell_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 1000:
            self._told.add(text)
            log.warning("%s", text)


def _meminfo(data: bytes) -> Mapping[bytes, int]:
    """The first line, MemTotal, and those from SwapTotal to SwapFree, which stand together; all of the file where they
    do not. The other fifty lines would take as long as five cgroups.
    """
    begin = data.find(b"\nSwapTotal:") + 1
    end = data.find(b"\n", data.find(b"\nSwapFree:", begin) + 1)
    return grammar.meminfo(data[: data.find(b"\n") + 1] + data[begin:end] if 0 < begin < end else data)


def _pod_or_qos(name: str) -> str | None:
    return "" if paths.qos_class(name) else paths.pod_uid(name)


def _container_or_other(name: str) -> str:
    """The id of a container's leaf; empty for any other cgroup in a pod's."""
    return paths.container_id(name) or ""
