"""The one join of live and replay: a frame, the pods' names and the history add up to a tally.

No input but the arguments, no clock, no I/O. The formulas are section 3 of the contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from collector.history import History, Rate
from collector.model import (
    Container,
    ContainerTally,
    Frame,
    Instant,
    Leaf,
    NamesState,
    Pod,
    PodCgroup,
    PodTally,
    Reading,
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
    unnamed: set[tuple[str, int]] = set()
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


def _age_ns(instant: Instant, reading: Reading, started_ns: int | None) -> int | None:
    return None if started_ns is None else instant.wall_ns(reading.monotonic_ns) - started_ns


def _pod(
    instant: Instant,
    pod: Pod,
    cgroup: PodCgroup,
    history: History,
    unnamed: set[tuple[str, int]],
    duplicates: Counter[str],
) -> PodTally:
    named, without_name, sandbox = _named_leaves(pod, cgroup, history, duplicates)
    incomplete = "unnamed_container" if without_name else None
    containers: list[ContainerTally] = []
    rates: list[Rate | None] = []
    memory: list[int | None] = []
    starts = [cgroup.begun_ns]
    for name in sorted(named):
        container, leaf = named[name]
        reading = leaf.reading
        starts.append(start_ns(leaf, container))
        rate = history.rate(leaf.path, leaf.ino, reading, _age_ns(instant, reading, starts[-1]))
        rates.append(rate)
        memory.append(reading.memory_working_set_bytes)
        cores, peak = rate.cores if rate else None, history.peak_cores(leaf.path, leaf.ino)
        containers.append(ContainerTally(pod.namespace, pod.name, container, leaf, cores, peak))
        if incomplete is None and (reading.cpu_usage_usec is None or memory[-1] is None):
            incomplete = "unread_container"
    unnamed.update((leaf.path, leaf.ino) for leaf in without_name)
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    if containers and pod.phase == "Running" and not without_name:
        cpu_cores = whole_sum([rate.cores if rate else None for rate in rates])
        memory_bytes = whole_sum(memory)
    started_ns = min((start for start in starts if start is not None), default=None)
    whole = history.rate(cgroup.path, cgroup.ino, cgroup.reading, _age_ns(instant, cgroup.reading, started_ns))
    return PodTally(
        pod=pod,
        cgroup=cgroup,
        cpu_cores=cpu_cores,
        memory_bytes=memory_bytes,
        cgroup_cpu_cores=whole.cores if whole else None,
        overhead_cpu_cores=_overhead_cores(whole, cpu_cores, rates, history.gap_ns),
        cpu_peak_cores=history.peak_cores(cgroup.path, cgroup.ino),
        incomplete=incomplete,
        containers=tuple(containers),
        sandbox=sandbox,
    )


def _overhead_cores(
    whole: Rate | None, cpu_cores: float | None, rates: list[Rate | None], slack_ns: int
) -> float | None:
    """The pod cgroup's rate minus the containers', where all are over one span: else it would be the difference of
    two spans, as while a container is younger than the window.
    """
    if whole is None or cpu_cores is None:
        return None
    if any(rate is None or abs(rate.since_ns - whole.since_ns) > slack_ns for rate in rates):
        return None
    return whole.cores - cpu_cores


def _later_first(leaf: Leaf) -> tuple[int, str]:
    return (-leaf.ino, leaf.path)


def _named_leaves(
    pod: Pod, cgroup: PodCgroup, history: History, duplicates: Counter[str]
) -> tuple[dict[str, tuple[Container, Leaf]], list[Leaf], Leaf | None]:
    """The running containers by name with their leaves, the leaves without a name, and the sandbox."""
    named: dict[str, tuple[Container, Leaf]] = {}
    without: list[Leaf] = []
    # The order of a listing is the source's; the later of two leaves of one id is the one with the higher inode.
    for leaf in sorted(cgroup.leaves, key=_later_first):
        container = pod.containers.get(leaf.container_id)
        if container is None:
            without.append(leaf)
        elif not container.running or container.name in named:
            # An ended container's cgroup that is still there, or one id in two leaves: never two of one name.
            duplicates["container"] += 1
        else:
            named[container.name] = (container, leaf)
            history.forget_sandbox(leaf)
    sandbox = history.sandbox(cgroup, pod.containers.keys()) if without else None
    return named, [leaf for leaf in without if leaf is not sandbox], sandbox


def whole_sum(parts: list[Number | None]) -> Number | None:
    """The sum, or ``None`` if any part is missing."""
    total: Number | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else total + part
    return total
