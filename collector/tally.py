"""The one join of live and replay: a frame, the pods' names and the history add up to a tally.

No input but the arguments, no clock, no I/O. The formulas are section 3 of the contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from collector.history import History, Rate
from collector.members import Identity
from collector.model import (
    Account,
    ContainerTally,
    Frame,
    Instant,
    NamesState,
    Pod,
    PodCgroup,
    PodTally,
    Reading,
    Reason,
    Tally,
)

DUPLICATE_KINDS = ("pod", "container")
"""What shares its name with a newer one: a pod whose cgroup outlives it, a container that has ended."""

Number = TypeVar("Number", int, float)


def tally(frame: Frame, pods: Mapping[str, Pod], names: NamesState, history: History, *, node_name: str) -> Tally:
    """Add up ``frame``. ``pods`` is by the uid in the cgroup's name; ``history`` is advanced by this frame."""
    # Those of pods that are gone now are not told apart any more once the history has advanced.
    sandboxes = history.sandbox_leaves
    frame = history.twins.join(frame)
    history.advance(frame)
    accounts = history.accounts
    accounts.begin()
    found = _Found()
    by_name: dict[tuple[str, str], PodTally] = {}
    for cgroup in frame.pods:
        pod = pods.get(cgroup.uid)
        if pod is None:
            found.unnamed.add((cgroup.path, cgroup.ino))
            found.incomplete["unnamed_pod"] += 1
        else:
            _keep(by_name, _pod(frame.instant, pod, cgroup, history, found), found)
    for pod, account in accounts.without_cgroup(pods, frame):
        _keep(by_name, _without_cgroup(frame.instant, pod, account), found)
    accounts.end(frame, pods)
    for one in by_name.values():
        if one.account.reason is not None:
            found.incomplete[one.account.reason] += 1
    sandboxes |= history.sandbox_leaves
    pod_kills, container_kills = history.oom_kills.advance(frame, pods, sandboxes)
    return Tally(
        node_name=node_name,
        instant=frame.instant,
        window_seconds=history.window_ns / 1e9,
        node=frame.node,
        pods=tuple(by_name[key] for key in sorted(by_name)),
        names=names,
        incomplete=found.incomplete,
        unnamed=frozenset(found.unnamed),
        wanted=frozenset(found.unnamed | accounts.wanted),
        doubtful=frozenset(found.doubtful),
        duplicates=found.duplicates,
        slices=frame.slices,
        pod_kills=pod_kills,
        container_kills=container_kills,
        ended=history.endings.advance(frame, pods, sandboxes),
    )


class _Found:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.incomplete: Counter[Reason] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.unnamed: set[Identity] = set()
        self.doubtful: set[Identity] = set()


def _keep(by_name: dict[tuple[str, str], PodTally], one: PodTally, found: _Found) -> None:
    """Of two pods of one name, keep the newer."""
    key = (one.pod.namespace, one.pod.name)
    other = by_name.get(key)
    if other is not None:
        found.duplicates["pod"] += 1
        if _age_rank(other) >= _age_rank(one):
            return
    by_name[key] = one


def _age_rank(one: PodTally) -> tuple[int, int]:
    """Greater for the pod made later; the cgroup's inode decides between pods of one second."""
    return (one.pod.created_ns or 0, one.cgroup.ino)


def _pod(instant: Instant, pod: Pod, cgroup: PodCgroup, history: History, found: _Found) -> PodTally:
    members = history.members(pod, cgroup)
    account = history.accounts.judge(pod, cgroup, members, instant)
    if members.unnamed:
        found.unnamed.update(members.unnamed)
    if members.doubtful:
        found.doubtful.update(members.doubtful)
    if members.duplicates:
        found.duplicates["container"] += members.duplicates
    leaves = cgroup.leaves
    containers: list[ContainerTally] = []
    rates: list[Rate | None] = []
    memory: list[int | None] = []
    offset_ns = instant.time_ns - instant.monotonic_ns
    # What runs in a sandbox leaves nothing in its own cgroup: that is no reading of it.
    for container, number, started_ns in members.containers if account.reason != "sandboxed" else ():
        leaf = leaves[number]
        reading = leaf.reading
        age_ns: int | None = None
        if started_ns is not None:
            age_ns = reading.monotonic_ns + offset_ns - started_ns
        rate, peak = history.rated(leaf, age_ns)
        rates.append(rate)
        memory.append(reading.memory_working_set_bytes)
        cores = None if rate is None else rate.cores
        containers.append(ContainerTally(pod.namespace, pod.name, container, leaf, cores, peak))
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    if containers and pod.phase == "Running" and (account.reason is None or account.values):
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
        account=account,
        containers=tuple(containers),
        sandbox=None if members.presumed is None else leaves[members.presumed],
    )


def _without_cgroup(instant: Instant, pod: Pod, account: Account) -> PodTally:
    """A pod that runs somewhere: of it there is but its name and why its sums are withheld."""
    cgroup = PodCgroup("", 0, pod.uid, "", None, Reading(instant.monotonic_ns), ())
    return PodTally(pod, cgroup, None, None, None, None, None, account, ())


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


def whole_sum(parts: list[Number | None]) -> Number | None:
    """The sum, or ``None`` if any part is missing."""
    total: Number | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else total + part
    return total
