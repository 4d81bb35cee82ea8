"""The one join of live and replay: a frame, the pods' names and the history add up to a tally.

No input but the arguments, no clock, no I/O. The formulas are section 3 of the contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from collector.history import History, Identity, Members, Rate
from collector.model import (
    Container,
    ContainerTally,
    Frame,
    Instant,
    NamesState,
    Pod,
    PodCgroup,
    PodTally,
    Tally,
    start_ns,
)

INCOMPLETE_REASONS = ("unnamed_pod", "unnamed_container", "unread_container")
"""Why a pod's sums are withheld: no answer names the pod; no status names one of its leaves and it is not the sandbox;
CPU or memory of a container could not be read."""

DUPLICATE_KINDS = ("pod", "container")
"""What shares its name with a newer one: a pod whose cgroup outlives it, a container that has ended."""

Number = TypeVar("Number", int, float)


def tally(frame: Frame, pods: Mapping[str, Pod], names: NamesState, history: History, *, node_name: str) -> Tally:
    """Add up ``frame``. ``pods`` is by the uid in the cgroup's name; ``history`` is advanced by this frame."""
    # Those of pods that are gone now are not told apart any more once the history has advanced.
    sandboxes = history.sandbox_leaves
    history.advance(frame)
    incomplete: Counter[str] = Counter()
    duplicates: Counter[str] = Counter()
    unnamed: set[Identity] = set()
    by_name: dict[tuple[str, str], PodTally] = {}
    for cgroup in frame.pods:
        pod = pods.get(cgroup.uid)
        if pod is None:
            unnamed.add((cgroup.path, cgroup.ino))
            incomplete["unnamed_pod"] += 1
            continue
        one = _pod(frame.instant, pod, cgroup, history, unnamed, duplicates)
        key = (pod.namespace, pod.name)
        other = by_name.get(key)
        if other is not None:
            duplicates["pod"] += 1
            if _age_rank(other) >= _age_rank(one):
                continue
        by_name[key] = one
    for one in by_name.values():
        if one.incomplete is not None:
            incomplete[one.incomplete] += 1
    sandboxes |= history.sandbox_leaves
    pod_kills, container_kills = history.oom_kills.advance(frame, pods, sandboxes)
    return Tally(
        node_name=node_name,
        instant=frame.instant,
        window_seconds=history.window_ns / 1e9,
        node=frame.node,
        pods=tuple(by_name[key] for key in sorted(by_name)),
        names=names,
        incomplete=incomplete,
        unnamed=frozenset(unnamed),
        duplicates=duplicates,
        slices=frame.slices,
        pod_kills=pod_kills,
        container_kills=container_kills,
        ended=history.endings.advance(frame, pods, sandboxes),
    )


def _age_rank(one: PodTally) -> tuple[int, int]:
    """Greater for the pod made later; the cgroup's inode decides between pods of one second."""
    return (one.pod.created_ns or 0, one.cgroup.ino)


def _pod(
    instant: Instant,
    pod: Pod,
    cgroup: PodCgroup,
    history: History,
    unnamed: set[Identity],
    duplicates: Counter[str],
) -> PodTally:
    members = _members(pod, cgroup, history)
    unnamed.update(members.unnamed)
    if members.duplicates:
        duplicates["container"] += members.duplicates
    incomplete = "unnamed_container" if members.unnamed else None
    leaves = cgroup.leaves
    containers: list[ContainerTally] = []
    rates: list[Rate | None] = []
    memory: list[int | None] = []
    offset_ns = instant.time_ns - instant.monotonic_ns
    for container, number, started_ns in members.containers:
        leaf = leaves[number]
        reading = leaf.reading
        age_ns: int | None = None
        if started_ns is not None:
            age_ns = reading.monotonic_ns + offset_ns - started_ns
        rate, peak = history.rated(leaf, age_ns)
        rates.append(rate)
        working_set = reading.memory_working_set_bytes
        memory.append(working_set)
        cores = None if rate is None else rate.cores
        containers.append(ContainerTally(pod.namespace, pod.name, container, leaf, cores, peak))
        if incomplete is None and (reading.cpu_usage_usec is None or working_set is None):
            incomplete = "unread_container"
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    if containers and pod.phase == "Running" and not members.unnamed:
        cpu_cores = whole_sum([one.cpu_cores for one in containers])
        memory_bytes = whole_sum(memory)
    begun_ns = members.begun_ns
    age_ns = None if begun_ns is None else cgroup.reading.monotonic_ns + offset_ns - begun_ns
    whole, peak = history.rated(cgroup, age_ns)
    return PodTally(
        pod=pod,
        cgroup=cgroup,
        cpu_cores=cpu_cores,
        memory_bytes=memory_bytes,
        cgroup_cpu_cores=whole.cores if whole else None,
        overhead_cpu_cores=_overhead_cores(whole, cpu_cores, rates, history.gap_ns),
        cpu_peak_cores=peak,
        incomplete=incomplete,
        containers=tuple(containers),
        sandbox=None if members.sandbox is None else leaves[members.sandbox],
    )


def _overhead_cores(
    whole: Rate | None, cpu_cores: float | None, rates: list[Rate | None], slack_ns: int
) -> float | None:
    """The pod cgroup's rate minus the containers', where all are over one span: else it would be the difference of
    two spans, as while a container is younger than the window.
    """
    if whole is None or cpu_cores is None:
        return None
    for rate in rates:
        if rate is None or abs(rate.since_ns - whole.since_ns) > slack_ns:
            return None
    return whole.cores - cpu_cores


def _members(pod: Pod, cgroup: PodCgroup, history: History) -> Members:
    """Who is who among the leaves; found anew only if the status or the leaves are others than in the last frame."""
    identity, places = cgroup[:2], [leaf[:4] for leaf in cgroup.leaves]
    known = history.members.get(identity)
    if known is not None and known.pod is pod and known.started_ns == cgroup.started_ns and known.places == places:
        return known
    named: dict[str, tuple[Container, int, int | None]] = {}
    without: list[int] = []
    duplicates = 0
    leaves = cgroup.leaves
    # The order of a listing is the source's; the later of two leaves of one id is the one with the higher inode.
    for number in sorted(range(len(leaves)), key=lambda number: (-leaves[number].ino, leaves[number].path)):
        leaf = leaves[number]
        container = pod.containers.get(leaf.container_id)
        if container is None:
            without.append(number)
        elif not container.running or container.name in named:
            # An ended container's cgroup that is still there, or one id in two leaves: never two of one name.
            duplicates += 1
        else:
            named[container.name] = (container, number, start_ns(leaf, container))
            history.forget_sandbox(leaf)
    sandbox = history.sandbox(cgroup, pod.containers.keys()) if without else None
    starts = [cgroup.begun_ns, *(started_ns for _, _, started_ns in named.values())]
    found = history.members[identity] = Members(
        pod=pod,
        started_ns=cgroup.started_ns,
        places=places,
        begun_ns=min((start for start in starts if start is not None), default=None),
        containers=tuple(named[name] for name in sorted(named)),
        unnamed=tuple(leaves[number][:2] for number in without if leaves[number] is not sandbox),
        sandbox=next((number for number in without if leaves[number] is sandbox), None),
        duplicates=duplicates,
    )
    return found


def whole_sum(parts: list[Number | None]) -> Number | None:
    """The sum, or ``None`` if any part is missing."""
    total: Number | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else total + part
    return total
