"""The values that pass through the house, units in their names. Imports nothing but the standard library.

``None`` is a reading that is absent. 0 is a value. :data:`NO_LIMIT` is the kernel's ``max``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

NO_LIMIT: Final = math.inf
"""What the kernel prints as ``max``: there is no limit. Neither absent nor a number to export."""

Limit = int | float
"""A limit in its unit, or :data:`NO_LIMIT`."""

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

SourceName = Literal["cgroup", "summary", "metrics-api"]
"""Where numbers come from: the node's cgroups, the kubelet's ``/stats/summary``, or ``metrics.k8s.io``."""

SOURCES: Final[tuple[SourceName, ...]] = ("cgroup", "summary", "metrics-api")
FILLERS: Final[tuple[SourceName, ...]] = ("summary",)
"""Those that pods of which cgroups tell nothing may be filled from."""


class DeviceIo(NamedTuple):
    """What ``io.stat`` says of one block device; ``None`` for a counter that the kernel does not print."""

    major: int
    minor: int
    read_bytes: int | None = None
    written_bytes: int | None = None
    reads: int | None = None
    writes: int | None = None
    cost_usage_usec: int | None = None
    cost_wait_usec: int | None = None
    cost_indebt_usec: int | None = None
    cost_indelay_usec: int | None = None


class Interface(NamedTuple):
    """What ``/proc/<pid>/net/dev`` says of one network interface."""

    name: str
    receive_bytes: int
    receive_packets: int
    receive_errors: int
    receive_dropped: int
    transmit_bytes: int
    transmit_packets: int
    transmit_errors: int
    transmit_dropped: int


class Instant(NamedTuple):
    """One moment on both clocks: wall for timestamps, monotonic for intervals."""

    time_ns: int
    monotonic_ns: int

    def wall_ns(self, monotonic_ns: int) -> int:
        """Wall time of a monotonic reading taken near this instant."""
        return self.time_ns + monotonic_ns - self.monotonic_ns


class Details(NamedTuple):
    """What is read of a cgroup every few ticks (``--slow-every``), but for a pod's ``memory.events``, read every tick.

    The file and key of each: ``cgroup/files.py``.
    """

    memory_anon_bytes: int | None = None
    memory_file_bytes: int | None = None
    memory_kernel_bytes: int | None = None
    memory_kernel_stack_bytes: int | None = None
    memory_shmem_bytes: int | None = None
    memory_active_file_bytes: int | None = None
    memory_slab_reclaimable_bytes: int | None = None
    memory_slab_unreclaimable_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_limit_bytes: Limit | None = None
    memory_high_events: int | None = None
    memory_max_events: int | None = None
    memory_oom_events: int | None = None
    memory_oom_kill_events: int | None = None
    memory_oom_group_kill_events: int | None = None
    swap_usage_bytes: int | None = None
    swap_limit_bytes: Limit | None = None
    cpu_quota_usec: Limit | None = None
    cpu_period_usec: int | None = None
    tasks: int | None = None
    cpu_pressure_some_usec: int | None = None
    cpu_pressure_full_usec: int | None = None
    memory_pressure_some_usec: int | None = None
    memory_pressure_full_usec: int | None = None
    io_pressure_some_usec: int | None = None
    io_pressure_full_usec: int | None = None
    memory_mapped_file_bytes: int | None = None
    memory_page_faults: int | None = None
    memory_major_page_faults: int | None = None
    cpu_burst_periods: int | None = None
    cpu_burst_usec: int | None = None
    cpu_weight: int | None = None
    memory_min_bytes: Limit | None = None
    tasks_limit: Limit | None = None
    processes: int | None = None
    process_id: int | None = None
    """The lowest id of a process in the cgroup itself; 0 if it is of a PID namespace that the reader does not see."""
    io: tuple[DeviceIo, ...] | None = None
    memory_high_bytes: Limit | None = None

    @property
    def cpu_shares(self) -> int | None:
        """``cpu.weight`` as the shares that cAdvisor makes of it (``convertCPUWeightToCPULimit``): not always those
        that were asked for, as the way from shares to weight loses some.
        """
        return 2 + (self.cpu_weight - 1) * 262142 // 9999 if self.cpu_weight else None

    @property
    def cpu_limit_cores(self) -> float | None:
        """CPU limit in cores, :data:`NO_LIMIT` where there is none (``cpu.max``: quota over period)."""
        if self.cpu_quota_usec is None or not self.cpu_period_usec:
            return None
        return self.cpu_quota_usec / self.cpu_period_usec


class Reading(NamedTuple):
    """What one tick read of one cgroup, at ``monotonic_ns``. The file and key of each value: ``cgroup/files.py``."""

    monotonic_ns: int
    cpu_usage_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    cpu_periods: int | None = None
    cpu_throttled_periods: int | None = None
    cpu_throttled_usec: int | None = None
    memory_current_bytes: int | None = None
    memory_inactive_file_bytes: int | None = None
    details: Details = Details()
    told_working_set_bytes: int | None = None
    """The working set as an upstream tells it: whole, not the two values that it is made of."""
    slow_ns: int | None = None
    """When the details were read, on the monotonic clock; ``None``: never yet."""
    seldom_ns: int | None = None
    """When those of them were read that are read more seldom still."""

    @property
    def memory_working_set_bytes(self) -> int | None:
        """``memory.current`` minus ``memory.stat: inactive_file``, never below 0: the kubelet's working set."""
        if self.told_working_set_bytes is not None:
            return self.told_working_set_bytes
        if self.memory_current_bytes is None or self.memory_inactive_file_bytes is None:
            return None
        return max(0, self.memory_current_bytes - self.memory_inactive_file_bytes)


class Leaf(NamedTuple):
    """A cgroup that a container runtime made below a pod's: a container or the pod's sandbox."""

    path: str
    ino: int
    container_id: str
    started_ns: int | None
    """Wall time of the cgroup's making: the mtime of its directory, or of its ``cgroup.events`` if that is earlier;
    ``None`` in a recording that lacks it.
    """
    populated: bool | None
    """``cgroup.events: populated``: a process is in it or below. Read of leaves without a name; ``None``: not read."""
    reading: Reading

    @property
    def is_empty(self) -> bool:
        """True if no process is in it: it has ended, or its processes are elsewhere. Where ``populated`` was not read,
        that no memory is charged to it says so.
        """
        if self.populated is not None:
            return not self.populated
        return self.reading.memory_current_bytes == 0


class Other(NamedTuple):
    """A cgroup below a pod's that is no container's by its name: a runtime's monitor (conmon), say."""

    path: str
    ino: int
    cpu_usage_usec: int | None


class PodCgroup(NamedTuple):
    """A cgroup that the kubelet made for a pod, and its leaves."""

    path: str
    ino: int
    uid: str
    qos_class: QosClass | Literal[""]
    """By the cgroup's place; empty where there is but an upstream's word for the pod."""
    started_ns: int | None
    reading: Reading
    leaves: tuple[Leaf, ...]
    network: tuple[Interface, ...] | None = None
    """The interfaces that its processes see; ``None`` where no process of it can be seen."""
    gone: tuple[Leaf, ...] = ()
    """Leaves that have gone since the last tick and were read after it, most of them too young to be in any frame."""
    unread: tuple[str, ...] = ()
    """Paths of leaves whose directory could not be opened; the pod's own if its children could not be listed."""
    others: tuple[Other, ...] = ()
    """What else is below it: its CPU is in the pod's, and it is no part of any sum."""

    @property
    def begun_ns(self) -> int | None:
        """Wall time of its making. Where systemd has set attributes, its directory gets a new mtime with each
        container: it is no younger than the oldest of its leaves.
        """
        starts = (self.started_ns, *(leaf.started_ns for leaf in self.leaves))
        return min((start for start in starts if start is not None), default=None)


class Slice(NamedTuple):
    """A cgroup that holds pods: kubepods itself, or one of its QoS classes."""

    path: str
    ino: int
    started_ns: int | None
    reading: Reading


class NodeReading(NamedTuple):
    """The root cgroup and ``/proc/meminfo``. The root has no ``memory.current``: usage is anon + file."""

    reading: Reading
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    devices: Mapping[tuple[int, int], str] | None = None
    """Names of block devices by major and minor number (``/proc/partitions``)."""
    network: tuple[Interface, ...] | None = None
    """The node's own interfaces; ``None`` where its processes cannot be seen."""
    started_ns: int | None = None
    """Wall time of the root cgroup's making, about when the node was booted."""

    @property
    def memory_working_set_bytes(self) -> int | None:
        """``memory.stat``: anon + file - inactive_file of the root cgroup, as the kubelet counts the node."""
        if self.reading.told_working_set_bytes is not None:
            return self.reading.told_working_set_bytes
        details, inactive = self.reading.details, self.reading.memory_inactive_file_bytes
        if details.memory_anon_bytes is None or details.memory_file_bytes is None or inactive is None:
            return None
        return max(0, details.memory_anon_bytes + details.memory_file_bytes - inactive)

    @property
    def swap_usage_bytes(self) -> int | None:
        """``/proc/meminfo``: SwapTotal - SwapFree."""
        if self.swap_total_bytes is None or self.swap_free_bytes is None:
            return None
        return self.swap_total_bytes - self.swap_free_bytes


class Frame(NamedTuple):
    """What one tick read of the node."""

    instant: Instant
    node: NodeReading
    pods: tuple[PodCgroup, ...]
    errors: Mapping[str, int]
    """Errors of this tick by reason; a cgroup that vanished is not among them."""
    files_read: int
    cgroups: int
    slices: tuple[Slice, ...] = ()
    """What holds the pods: kubepods and the QoS classes."""
    unread: tuple[str, ...] = ()
    """Paths of pods' cgroups that could not be opened, and of slices that could not be listed."""
    falls: int = 0
    """Counters that were lower than before within one life, and were held at what they were."""
    held: frozenset[tuple[str, int]] = frozenset()
    """Identities of the cgroups whose CPU counter is held."""


RESOURCE_PAGE: Final = "kubelet/metrics_resource.txt"
STATS_SUMMARY: Final = "kubelet/stats_summary.json"
METRICS_API: Final = "metrics-api/pods.json"
"""Names of answers, as they stand in a recording, of the kubelet's two pages and of what kubectl top reads."""

AnswerName = Literal["kubelet/pods.json", "apiserver/pods.json"]


FailureKind = Literal[
    "expired",
    "not_yet_valid",
    "wrong_name",
    "unknown_signer",
    "bad_certificate",
    "no_tls",
    "no_token",
    "timeout",
    "refused",
    "unreachable",
    "broken",
    "unauthenticated",
    "forbidden",
    "busy",
    "server_error",
    "redirected",
    "too_large",
    "not_the_list",
]
"""Why an answer is none; :mod:`collector.failures` has what to do about each."""

FAILURE_KINDS: Final[Mapping[str, FailureKind]] = {kind: kind for kind in get_args(FailureKind)}
"""Each by its name."""


class Answer(NamedTuple):
    """One HTTP answer, or the lack of one, as it came in. ``name`` is its path in a recording."""

    name: str
    time_ns: int
    status: int | None
    """HTTP status; ``None`` when nothing answered."""
    error: str | None
    """Why there is no body: the reason of a refusal or of a failed connection."""
    body: bytes | None
    kind: FailureKind | None = None
    """What kind of failure it is, where nothing answered or what came was not asked for; else the status tells."""

    @property
    def failure(self) -> str | None:
        """Why there is no body, with the status code where there is one; ``None`` if there is a body."""
        if self.status == 200 and self.body is not None:
            return None
        if self.status is None:
            return self.error or "no answer"
        return f"HTTP {self.status}{': ' + self.error if self.error else ''}"


ContainerState = Literal["running", "ended", "awaited"]
"""``awaited``: the runtime has made it, and the status does not call it running yet (``waiting`` with a new id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as a status of its pod names it."""

    name: str
    container_id: str
    kind: Literal["app", "init", "ephemeral"]
    state: ContainerState
    image: str
    started_ns: int | None

    @property
    def running(self) -> bool:
        """True if the status calls it running."""
        return self.state == "running"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod as the kubelet or the API server describes it. ``uid`` is the one in its cgroup's name."""

    namespace: str
    name: str
    uid: str
    phase: str
    qos_class: str
    node: str
    created_ns: int | None
    host_network: bool
    labels: Mapping[str, str]
    owner_kind: str
    owner_name: str
    containers: Mapping[str, Container]
    """By container id; of one name, the id of the current status and those of earlier ones."""
    runtime_class: str = ""
    """``runtimeClassName``: which of the node's runtimes runs it, ``""`` for the usual one."""
    awaits: bool = False
    """A container of it has yet to start, or may start again."""
    ending: bool = False
    """It is being deleted."""
    told_ns: int = 0
    """Wall time at which was asked for what is said here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesState:
    """Where the names come from, and how the kubelet and the API server last answered."""

    source: Literal["kubelet", "apiserver", "memory", "none"]
    """``memory``: neither answers, the last known names are used."""
    kubelet: str
    """``ok``, ``unknown`` before the first answer, else a sentence with status code and reason."""
    apiserver: str
    age_since_ns: int | None
    """Wall time of the answer that the names are taken from."""

    @property
    def known(self) -> bool:
        """True once any answer has named the pods."""
        return self.source != "none"


_STARTED_AT_STEP_NS = 1_000_000_000
"""``startedAt`` is cut to whole seconds."""


def start_ns(leaf: Leaf, container: Container) -> int | None:
    """The cgroup's making, as its directory's mtime tells it, or the status' ``startedAt``, whichever is the earlier.

    A cgroup is made before its container runs, so that a later mtime is not of its making: kernfs sets it when it first
    makes an inode for the directory, and, where there is an extended attribute, as systemd sets, at each new child.
    """
    made_ns, told_ns = leaf.started_ns, container.started_ns
    if made_ns is None or (told_ns is not None and told_ns + _STARTED_AT_STEP_NS <= made_ns):
        return told_ns
    return made_ns


class ContainerTally(NamedTuple):
    """A running, named container."""

    namespace: str
    pod: str
    container: Container
    leaf: Leaf
    cpu_cores: float | None
    cpu_peak_cores: float | None = None
    """Highest rate over two successive readings in the trailing 60 s."""

    @property
    def started_ns(self) -> int | None:
        """Wall time of the start."""
        return start_ns(self.leaf, self.container)

    @property
    def memory_bytes(self) -> int | None:
        """Working set."""
        return self.leaf.reading.memory_working_set_bytes

    @property
    def reading(self) -> Reading:
        """The reading of the container's cgroup."""
        return self.leaf.reading


class Sample(NamedTuple):
    """When an upstream took a pod's numbers, and the span of its CPU rates."""

    time_ns: int
    """Wall time, cut to whole seconds; of several containers' samples the oldest."""
    window_ns: int | None
    """``None`` without a rate; of several containers' the longest."""


Reason = Literal[
    "unnamed_pod",
    "unread_container",
    "sandboxed",
    "missing_container",
    "starting_container",
    "unnamed_container",
    "unaccounted",
]
"""Why sums are withheld. Where several are true of a pod, the first is told."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

MEANINGS: Final[Mapping[Reason, str]] = {
    "unnamed_pod": "no answer names the pod",
    "unread_container": "a container's cgroup, its CPU or its memory cannot be read",
    "sandboxed": "its containers run in a sandbox (gVisor, Kata), and their cgroups say nothing",
    "missing_container": "its status calls a container running that has no cgroup in the pod's",
    "starting_container": "the runtime has made a container that its status does not call running yet",
    "unnamed_container": "no status names one of its containers",
    "unaccounted": "its cgroup used more CPU than all that is known in it",
}
"""Each in words, for people: what is so while the sums are absent."""


LASTING: Final[frozenset[Reason]] = frozenset({"unread_container", "sandboxed", "missing_container", "unaccounted"})
"""What does not pass by itself, as a name that the kubelet has yet to tell does."""


class Growth(NamedTuple):
    """What a pod's cgroup used in a span, and how much of it is not known."""

    span_ns: int
    used_usec: int
    unknown_usec: int


@dataclass(frozen=True, slots=True)
class Account:
    """Whether the sums of a pod are whole."""

    reason: Reason | None = None
    """Why they are withheld; ``None`` if they are whole."""
    missing: tuple[str, ...] = ()
    """Names of containers that are called running and have no leaf."""
    growth: Growth | None = None
    """What is unaccounted."""
    values: bool = False
    """But a value of a container is missing: the sum of the others' CPU, or of their memory, is whole."""


WHOLE: Final = Account()


class PodTally(NamedTuple):
    """A named pod that has a cgroup, or that an upstream speaks of, or that runs in no cgroup that is followed."""

    pod: Pod
    cgroup: PodCgroup
    cpu_cores: float | None
    """Sum over the running named containers while the phase is Running: what kubectl top prints."""
    memory_bytes: int | None
    """Likewise, working sets."""
    cgroup_cpu_cores: float | None
    """Rate of the pod cgroup's own counter."""
    overhead_cpu_cores: float | None
    """The kernel's account minus the sum of containers, where all are rated over one span."""
    cpu_peak_cores: float | None
    """Highest rate over two successive readings of the pod cgroup in the trailing 60 s."""
    account: Account
    """Whether the sums are whole, and if not, why they are withheld."""
    containers: tuple[ContainerTally, ...]
    sample: Sample | None = None
    """``None`` where the cgroups were read by podtally, all of them within one tick."""
    sandbox: Leaf | None = None
    source: SourceName = "cgroup"
    """Where the sums and the containers are from. With ``--fill-from`` that may be another than the tally's."""
    told: Reading | None = None
    """What that source tells of the pod's own cgroup, where ``cgroup`` is as podtally has read it."""

    @property
    def incomplete(self) -> Reason | None:
        """Why the sums are withheld; ``None`` if they are not."""
        return self.account.reason

    @property
    def reading(self) -> Reading:
        """The reading of the pod's cgroup."""
        return self.cgroup.reading

    @property
    def told_reading(self) -> Reading:
        """The reading of the pod's cgroup as the source of its containers has it."""
        return self.cgroup.reading if self.told is None else self.told

    @property
    def overhead_memory_bytes(self) -> int | None:
        """The kernel's account minus the sum of containers, where both are of one time."""
        if self.sample is not None:
            return None
        total = self.cgroup.reading.memory_working_set_bytes
        if total is None or self.memory_bytes is None:
            return None
        return total - self.memory_bytes


class Kills(NamedTuple):
    """How many processes of a pod, or of a container of it, were killed as memory ran out: by name, not by cgroup."""

    namespace: str
    pod: str
    container: str
    """``""`` for the pod."""
    kills: int


class Ended(NamedTuple):
    """A container whose cgroup has gone, as it was read last."""

    namespace: str
    pod: str
    container: str
    cpu_usage_usec: int | None
    memory_peak_bytes: int | None
    age_ns: int | None
    """From its start to its last reading; ``None`` if its start is not known."""
    ended_ns: int
    """Wall time of its last reading."""


NOT_NEEDED: Final = "not needed"
"""The state of an upstream that is not asked, as there is nothing to ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """How the upstream answers that a tally is made of."""

    peer: str
    """``the kubelet's /stats/summary`` or ``the metrics API``."""
    state: str
    """``ok``, ``unknown`` before the first answer, :data:`NOT_NEEDED`, else a sentence with status code and reason."""
    answered_ns: int | None
    """Wall time at which was asked what is served; of several answers the oldest. ``None``: nothing is served."""
    stale_after_ns: int
    """How old an answer may become before nothing of it is served."""

    @property
    def up(self) -> bool:
        """True if all that was asked last was answered well."""
        return self.state == "ok"

    @property
    def needed(self) -> bool:
        """False for one that is asked only while a pod has to be filled, and none has."""
        return self.state != NOT_NEEDED

    def age_seconds(self, now_ns: int) -> float | None:
        """Age of what is served; ``None`` if nothing is."""
        return None if self.answered_ns is None else max(0.0, (now_ns - self.answered_ns) / 1e9)

    def sentence(self, now_ns: int) -> str:
        """State and age in words, for people."""
        age = self.age_seconds(now_ns)
        if age is None:
            return f"{self.peer}: {self.state}; nothing is served"
        if self.up:
            return f"{self.peer}: ok, asked {age:.0f} s ago"
        left = max(0.0, self.stale_after_ns / 1e9 - age)
        return f"{self.peer}: {self.state}; what it said {age:.0f} s ago is served for {left:.0f} s more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one tick adds up to: immutable, published as a whole."""

    node_name: str
    """Empty for the metrics API, which is not of one node."""
    instant: Instant
    window_seconds: float | None
    """``None`` where each pod's sample has a span of its own."""
    node: NodeReading
    pods: tuple[PodTally, ...]
    """By namespace and name, one of each."""
    names: NamesState
    incomplete: Mapping[Reason, int] = field(default_factory=dict)
    """Pods whose sums are withheld, by reason."""
    unnamed: frozenset[tuple[str, int]] = frozenset()
    """Identities (path, inode) of pod cgroups and leaves that no answer names."""
    wanted: frozenset[tuple[str, int]] = frozenset()
    """What the kubelet is to be asked about again: those, leaves of containers that start, and containers that it calls
    running and that have no leaf, by id."""
    doubtful: frozenset[tuple[str, int]] = frozenset()
    """Leaves without a name of which it is to be read whether they have processes."""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """Pods and containers that share a name with a newer one and are not exported, by what they are."""
    source: SourceName = "cgroup"
    upstream: Upstream | None = None
    """``None`` for the node's cgroups."""
    fill: Upstream | None = None
    """How the upstream answers from which pods are filled that cgroups tell nothing of; ``None`` without
    ``--fill-from``."""
    slices: tuple[Slice, ...] = ()
    """kubepods and the QoS classes, which have no names."""
    pod_kills: tuple[Kills, ...] = ()
    """By namespace and name; of pods that have ended too, for a while."""
    container_kills: tuple[Kills, ...] = ()
    """By namespace, pod and name, likewise."""
    ended: tuple[Ended, ...] = ()
    """Containers that have ended within a while, the last of each name."""
