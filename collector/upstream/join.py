"""The one join of what an upstream says with the pods' names, to a tally. Pure.

A container is exported where a status names it as running and the upstream has a sample of it. The sums are exported
where that is so of all running containers, and none is about to run, as the contract's section 3 asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from collector.model import (
    WHOLE,
    Account,
    Container,
    ContainerTally,
    Instant,
    Leaf,
    NamesState,
    NodeReading,
    Pod,
    PodCgroup,
    PodTally,
    Reading,
    Reason,
    Sample,
    SourceName,
    Tally,
    Upstream,
)
from collector.tally import whole_sum
from collector.upstream.samples import Measured, PodSample, Snapshot


class Part(NamedTuple):
    """An answer, and the pods that it is of."""

    snapshot: Snapshot
    pods: Mapping[str, Pod]
    """By uid."""


def join(
    parts: Iterable[Part],
    instant: Instant,
    *,
    source: SourceName,
    upstream: Upstream,
    names: NamesState,
    node_name: str,
) -> Tally:
    """Add up what was answered, as of ``instant``. Samples older than the upstream's limit are left out."""
    found = _Found()
    by_name: dict[tuple[str, str], PodTally] = {}
    node: Measured | None = None
    at = At(instant, instant.time_ns - upstream.stale_after_ns)
    for part in parts:
        node = part.snapshot.node or node
        for pod, sample in _matched(part, found):
            one = tally_pod(at, pod, sample, source)
            path = sample.path if sample is not None else pod.uid
            found.awaited.update((f"{path}/{name}", 0) for name in _awaited(pod))
            if sample is not None:
                found.unnamed.update((f"{path}/{name}", 0) for name in _without_name(pod, sample))
            key = (pod.namespace, pod.name)
            other = by_name.get(key)
            if other is not None:
                found.duplicates["pod"] += 1
                if (other.pod.created_ns or 0) >= (pod.created_ns or 0):
                    continue
            by_name[key] = one
    found.incomplete.update(one.incomplete for one in by_name.values() if one.incomplete is not None)
    return Tally(
        node_name=node_name,
        instant=instant,
        window_seconds=None,
        node=at.node(node),
        pods=tuple(by_name[key] for key in sorted(by_name)),
        names=names,
        incomplete=found.incomplete,
        unnamed=frozenset(found.unnamed),
        wanted=frozenset(found.unnamed | found.awaited),
        duplicates=found.duplicates,
        source=source,
        upstream=upstream,
    )


class _Found:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.incomplete: Counter[Reason] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.unnamed: set[tuple[str, int]] = set()
        """As paths: uid or namespace and name of the pod, and the container; there is no inode."""
        self.awaited: set[tuple[str, int]] = set()
        """Likewise, of containers that are about to run."""


class At(NamedTuple):
    """The moment that a tally is of, and the wall time before which a sample is too old."""

    instant: Instant
    oldest_ns: int

    def reading(self, measured: Measured) -> Reading:
        """The reading, at its time on the tally's clock."""
        since_ns = measured.time_ns - self.instant.time_ns
        return measured.reading._replace(monotonic_ns=self.instant.monotonic_ns + since_ns)

    def fresh(self, measured: Measured | None) -> Measured | None:
        """``None`` in place of what is too old."""
        return measured if measured is not None and measured.time_ns >= self.oldest_ns else None

    def node(self, measured: Measured | None) -> NodeReading:
        """The node's reading; empty where there is none."""
        measured = self.fresh(measured)
        if measured is None:
            return NodeReading(Reading(self.instant.monotonic_ns))
        usage_bytes = measured.reading.details.swap_usage_bytes
        total_bytes = measured.reading.details.swap_limit_bytes
        free_bytes = None
        if usage_bytes is not None and isinstance(total_bytes, int):
            free_bytes = total_bytes - usage_bytes
        return NodeReading(self.reading(measured), total_bytes if isinstance(total_bytes, int) else None, free_bytes)


def _matched(part: Part, found: _Found) -> Iterator[tuple[Pod, PodSample | None]]:
    """Each pod with its sample; ``None`` for one that runs and that the upstream does not speak of."""
    without = dict(part.pods)
    uids = _newest_uids(part.pods.values())
    for sample in part.snapshot.pods:
        uid = sample.uid if sample.uid is not None else uids.get((sample.namespace, sample.name), "")
        pod = part.pods.get(uid)
        if pod is None:
            found.incomplete["unnamed_pod"] += 1
            found.unnamed.add((sample.path, 0))
            continue
        without.pop(uid, None)
        yield pod, sample
    for pod in without.values():
        if pod.phase == "Running" and any(container.state != "ended" for container in pod.containers.values()):
            yield pod, None


def _newest_uids(pods: Iterable[Pod]) -> dict[tuple[str, str], str]:
    ordered = sorted(pods, key=lambda pod: pod.created_ns or 0)
    return {(pod.namespace, pod.name): pod.uid for pod in ordered}


def _without_name(pod: Pod, sample: PodSample) -> list[str]:
    """Names of sampled containers that no status of the pod knows."""
    known = {container.name for container in pod.containers.values()}
    return [name for name in sample.containers if name not in known]


def _awaited(pod: Pod) -> list[str]:
    """Names of containers that are about to run."""
    return [container.name for container in pod.containers.values() if container.state == "awaited"]


def tally_pod(at: At, pod: Pod, sample: PodSample | None, source: SourceName) -> PodTally:
    """One pod with what an upstream says of it. ``sample``: with its rates settled, ``None`` if it says nothing."""
    samples = sample.containers if sample is not None else {}
    named = {container.name: container for container in pod.containers.values() if container.running}
    # Those may have begun to work already, and their samples may be there: without them the sums are of a part.
    reason: Reason | None = "starting_container" if _awaited(pod) else None
    if reason is None and sample is not None and _without_name(pod, sample):
        reason = "unnamed_container"
    unread = False
    containers: list[ContainerTally] = []
    kept: list[Measured] = []
    for name in sorted(named):
        container = named[name]
        measured = at.fresh(_of_this_life(samples.get(name), container))
        if measured is None or not _is_whole(measured):
            unread = True
        if measured is not None:
            kept.append(measured)
            leaf = Leaf("", 0, container.container_id, measured.started_ns, None, at.reading(measured))
            containers.append(ContainerTally(pod.namespace, pod.name, container, leaf, measured.cpu_cores))
    if unread:
        reason = "unread_container"
    cpu_cores: float | None = None
    memory_bytes: int | None = None
    if containers and pod.phase == "Running" and reason is None:
        cpu_cores = whole_sum([one.cpu_cores for one in containers])
        memory_bytes = whole_sum([one.memory_bytes for one in containers])
    whole = at.fresh(sample.whole) if sample is not None else None
    return PodTally(
        pod=pod,
        cgroup=PodCgroup(
            path="",
            ino=0,
            uid=pod.uid,
            qos_class="",
            started_ns=whole.started_ns if whole is not None else None,
            reading=at.reading(whole) if whole is not None else Reading(at.instant.monotonic_ns),
            leaves=tuple(one.leaf for one in containers),
        ),
        cpu_cores=cpu_cores,
        memory_bytes=memory_bytes,
        cgroup_cpu_cores=whole.cpu_cores if whole is not None else None,
        # Pod and containers are sampled at different times, over different spans: their difference would be of these.
        overhead_cpu_cores=None,
        cpu_peak_cores=None,
        account=WHOLE if reason is None else Account(reason),
        containers=tuple(containers),
        sample=_sample(kept),
        source=source,
    )


def _of_this_life(measured: Measured | None, container: Container) -> Measured | None:
    """``None`` for a sample of the container of that name that was before this one. Both times are whole seconds."""
    if measured is None or container.started_ns is None or measured.time_ns >= container.started_ns:
        return measured
    return None


def _is_whole(measured: Measured) -> bool:
    """True if it has CPU and memory. A rate may have to wait for a second sample: then there is the counter."""
    has_cpu = measured.reading.cpu_usage_usec is not None or measured.cpu_cores is not None
    return has_cpu and measured.reading.memory_working_set_bytes is not None


def _sample(kept: list[Measured]) -> Sample | None:
    if not kept:
        return None
    windows = [measured.window_ns for measured in kept if measured.window_ns is not None]
    return Sample(min(measured.time_ns for measured in kept), max(windows, default=None))
