"""The values that pass through the house, units in their names. Imports nothing but the standard library.

``None`` is a reading that is absent. 0 is a value. :data:`NO_LIMIT` is the kernel's ``max``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

NO_LIMIT: Final = math.inf
"""What the kernel prints as ``max``: there is no limit. Neither absent nor a number to export."""

Limit = int | float
"""A limit in its unit, or :data:`NO_LIMIT`."""

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]


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
    memory_min_bytes: Limit | None = None
    memory_high_bytes: Limit | None = None
    cpu_weight: int | None = None

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

    @property
    def memory_working_set_bytes(self) -> int | None:
        """``memory.current`` minus ``memory.stat: inactive_file``, never below 0: the kubelet's working set."""
        if self.memory_current_bytes is None or self.memory_inactive_file_bytes is None:
            return None
        return max(0, self.memory_current_bytes - self.memory_inactive_file_bytes)


class Leaf(NamedTuple):
    """A cgroup that a container runtime made below a pod's: a container or the pod's sandbox."""

    path: str
    ino: int
    container_id: str
    started_ns: int | None
    """Wall time of the cgroup's making: the mtime of its directory; ``None`` in a recording that lacks it."""
    reading: Reading


class PodCgroup(NamedTuple):
    """A cgroup that the kubelet made for a pod, and its leaves."""

    path: str
    ino: int
    uid: str
    qos_class: QosClass
    started_ns: int | None
    reading: Reading
    leaves: tuple[Leaf, ...]
    gone: tuple[Leaf, ...] = ()
    """Leaves that have gone since the last tick and were read after it, most of them too young to be in any frame."""


class NodeReading(NamedTuple):
    """The root cgroup and ``/proc/meminfo``. The root has no ``memory.current``: usage is anon + file."""

    reading: Reading
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None

    @property
    def memory_working_set_bytes(self) -> int | None:
        """``memory.stat``: anon + file - inactive_file of the root cgroup, as the kubelet counts the node."""
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


AnswerName = Literal["kubelet/pods.json", "apiserver/pods.json"]


class Answer(NamedTuple):
    """One HTTP answer, or the lack of one, as it came in. ``name`` is its path in a recording."""

    name: str
    time_ns: int
    status: int | None
    """HTTP status; ``None`` when nothing answered."""
    error: str | None
    """Why there is no body: the reason of a refusal or of a failed connection."""
    body: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as a status of its pod names it."""

    name: str
    container_id: str
    kind: Literal["app", "init", "ephemeral"]
    running: bool
    image: str
    started_ns: int | None


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


class PodTally(NamedTuple):
    """A named pod that has a cgroup."""

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
    incomplete: str | None
    """Why the sums are withheld, or ``None``."""
    containers: tuple[ContainerTally, ...]

    @property
    def reading(self) -> Reading:
        """The reading of the pod's cgroup."""
        return self.cgroup.reading

    @property
    def overhead_memory_bytes(self) -> int | None:
        """The kernel's account minus the sum of containers."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What one tick adds up to: immutable, published as a whole."""

    node_name: str
    instant: Instant
    window_seconds: float
    node: NodeReading
    pods: tuple[PodTally, ...]
    """By namespace and name, one of each."""
    names: NamesState
    incomplete: Mapping[str, int] = field(default_factory=dict)
    """Pods whose sums are withheld, by reason."""
    unnamed: frozenset[tuple[str, int]] = frozenset()
    """Identities (path, inode) of pod cgroups and leaves that no answer names."""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    """Pods and containers that share a name with a newer one and are not exported, by what they are."""
    pod_kills: tuple[Kills, ...] = ()
    """By namespace and name; of pods that have ended too, for a while."""
    container_kills: tuple[Kills, ...] = ()
    """By namespace, pod and name, likewise."""
    ended: tuple[Ended, ...] = ()
    """Containers that have ended within a while, the last of each name."""
