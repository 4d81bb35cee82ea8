"""CPU rates of the kubelet's samples.

A sample brings a cumulative counter, a time cut to whole seconds, and the kubelet's own rate, ``usageNanoCores``. That
one is exact, as it is made of times that are not cut (cAdvisor, ``info/v2/conversion.go``: ``InstCpuStats``), but its
span is not told: from the kubelet's sample before, mostly 10 to 20 s, and now and then a second, when something made
the kubelet take one in between. Two samples that podtally has seen give a rate over a span that is known, but for up to
a second on either side.

A counter of one life does not fall, nor does it grow faster than a node has CPUs. Where it is lower it is held at what
it was until that is passed; less than half of that has begun anew, as a pod's does when its node is booted, and its
start stays what it was. Where it has grown too fast the value is absent. Both are counted.

So the two are held together: the counters and the seconds bound what the rate over the known span can be. Where the
kubelet's own lies within, it is taken, exact; where it does not, it is of another span, and the rate of the two samples
is taken. ``docs/sources.md`` has the numbers.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from collector.upstream.samples import CORES_LIMIT, Measured, PodSample, Snapshot

_SECOND_NS = 1_000_000_000

SPAN_NS = 10 * _SECOND_NS
"""The earlier sample is the newest that is so much older: the least time that lies between two of the kubelet's own."""

SHORTEST_SPAN_NS = 5 * _SECOND_NS
"""Over less a second is too much of an error: there is no rate yet."""

_Key = tuple[str, str, int | None]
"""Pod's uid, container or nothing for the pod itself, and start: what begins anew has no history."""


class _Seen(NamedTuple):
    time_ns: int
    usage_usec: int


class Rates:
    """The samples seen, by pod and container."""

    def __init__(self) -> None:
        self._seen: dict[_Key, deque[_Seen]] = {}
        self._refused = 0

    def settle(self, snapshot: Snapshot) -> Snapshot:
        """Take the samples of an answer in; the same answer with the rates that can be stood for."""
        seen: dict[_Key, deque[_Seen]] = {}
        self._refused = 0
        pods = tuple(self._pod(pod, seen) for pod in snapshot.pods)
        # What is not in an answer has ended.
        self._seen = seen
        return snapshot._replace(pods=pods, refused_values=snapshot.refused_values + self._refused)

    def _pod(self, pod: PodSample, seen: dict[_Key, deque[_Seen]]) -> PodSample:
        whole = None if pod.whole is None else self._rated((pod.path, "", pod.whole.started_ns), pod.whole, seen)
        containers = {
            name: self._rated((pod.path, name, measured.started_ns), measured, seen)
            for name, measured in pod.containers.items()
        }
        return pod._replace(whole=whole, containers=containers)

    def _rated(self, key: _Key, measured: Measured, seen: dict[_Key, deque[_Seen]]) -> Measured:
        told, usage_usec = measured.cpu_cores, measured.reading.cpu_usage_usec
        samples = seen[key] = self._seen.get(key, deque())
        if usage_usec is None:
            return measured._replace(cpu_cores=None, window_ns=None)
        if samples:
            last = samples[-1]
            if last.usage_usec // 2 <= usage_usec < last.usage_usec:
                self._refused += measured.time_ns != last.time_ns
                usage_usec = last.usage_usec
                measured = measured._replace(reading=measured.reading._replace(cpu_usage_usec=usage_usec))
            most_usec = CORES_LIMIT * (abs(measured.time_ns - last.time_ns) + _SECOND_NS) // 1000
            if usage_usec - last.usage_usec > most_usec:
                self._refused += 1
                return measured._replace(
                    cpu_cores=None, window_ns=None, reading=measured.reading._replace(cpu_usage_usec=None)
                )
        now = _Seen(measured.time_ns, usage_usec)
        if samples and (usage_usec < samples[-1].usage_usec or now.time_ns < samples[-1].time_ns):
            # What has begun anew, and what a clock says that was set back, is no history.
            samples.clear()
        if not samples or samples[-1] != now:
            samples.append(now)
        while len(samples) > 1 and samples[1].time_ns <= now.time_ns - SPAN_NS:
            samples.popleft()
        before = samples[0]
        span_ns = now.time_ns - before.time_ns
        if span_ns < SHORTEST_SPAN_NS:
            return measured._replace(cpu_cores=None, window_ns=None)
        used_ns = (usage_usec - before.usage_usec) * 1000
        cores = used_ns / span_ns
        if told is not None and used_ns / (span_ns + _SECOND_NS) <= told <= used_ns / (span_ns - _SECOND_NS):
            cores = told
        return measured._replace(cpu_cores=cores, window_ns=span_ns)
