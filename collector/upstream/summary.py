"""The kubelet's ``/stats/summary`` (``k8s.io/kubelet/pkg/apis/stats/v1alpha1``), to samples. Pure.

Where the values come from (``pkg/kubelet/stats/helper.go``, ``cadvisorInfoToCPUandMemoryStats``):

- ``usageCoreNanoSeconds`` is ``cpu.stat: usage_usec`` in nanoseconds, ``usageBytes`` is ``memory.current``,
  ``workingSetBytes`` that less ``inactive_file``, ``rssBytes`` is ``memory.stat: anon``.
- ``availableBytes`` is the limit less the working set, and absent without a limit: so their sum is ``memory.max``. The
  same of swap, in unsigned arithmetic of 64 bits.
- ``psi`` totals are the kernel's microseconds.
- What the kubelet does not have yet is 0 there, not absent (``makeContainerStats``), and a pod's is then the sum of
  zeros. No container has run without any CPU or without any memory, so that these two zeros are read as absent, and
  all else with them; metrics-server leaves such pods out.
- Times are cut to whole seconds, as ``metav1.Time`` is.

A value that cannot be true is absent, and counted: one that is no number or out of all bounds, and a working set above
the usage that it is a part of. That a pod's start is after its sample is no contradiction: its status has it later.
"""

from __future__ import annotations

from typing import Any

from collector.model import Details, Reading
from collector.pods.answer import parse_time_ns
from collector.upstream.samples import (
    AMOUNT_LIMIT,
    CORES_LIMIT,
    Measured,
    PodSample,
    Snapshot,
    items_of,
    snapshot,
    word,
)

_WHAT = "the kubelet's /stats/summary"
_WRAP = 1 << 64
_NS_PER_USEC = 1000

_Object = dict[str, Any]


def parse(body: bytes) -> Snapshot:
    """Read an answer. Raises :class:`collector.errors.AnswerError` if it is not one."""
    value, items = items_of(body, "pods", _WHAT)
    reader = _Reader()
    node = reader.measured(value.get("node"))
    return snapshot(items, reader.pod)._replace(node=node, refused_values=reader.refused)


def _object(value: Any) -> _Object:
    return value if isinstance(value, dict) else {}


class _Reader:
    """Reads an answer's items, and counts the values that cannot be true."""

    def __init__(self) -> None:
        self.refused = 0

    def pod(self, item: _Object) -> PodSample:
        """One of the answer's pods. Raises what an item raises that is none."""
        of = item["podRef"]
        containers: dict[str, Measured] = {}
        for entry in item.get("containers") or []:
            measured = self.measured(entry)
            if measured is not None:
                containers[word(entry["name"])] = measured
        return PodSample(word(of["namespace"]), word(of["name"]), word(of["uid"]), self.measured(item), containers)

    def measured(self, value: Any) -> Measured | None:
        """A container, a pod or the node: all three have the same parts. ``None`` without a time."""
        of = _object(value)
        cpu, memory, swap, io = (_object(of.get(part)) for part in ("cpu", "memory", "swap", "io"))
        time_ns = parse_time_ns(cpu.get("time")) or parse_time_ns(memory.get("time"))
        if time_ns is None:
            return None
        usage_ns = self._number(cpu, "usageCoreNanoSeconds") or None
        current, working_set = self._number(memory, "usageBytes") or None, self._number(memory, "workingSetBytes")
        if current is not None and working_set is not None and working_set > current:
            working_set = self._none()
        nanocores = self._number(cpu, "usageNanoCores", CORES_LIMIT * 1_000_000_000)
        details = Details()
        if usage_ns is not None and current is not None:
            details = self._details(cpu, memory, swap, io, working_set)
        return Measured(
            time_ns=time_ns,
            reading=Reading(
                monotonic_ns=0,
                cpu_usage_usec=None if usage_ns is None else usage_ns // _NS_PER_USEC,
                memory_current_bytes=current,
                # A working set of 0 beside some usage is a page cache that is not in recent use.
                told_working_set_bytes=working_set if working_set or current else None,
                details=details,
            ),
            cpu_cores=None if nanocores is None else nanocores / 1e9,
            started_ns=parse_time_ns(of.get("startTime")),
        )

    def _details(self, cpu: _Object, memory: _Object, swap: _Object, io: _Object, working_set: int | None) -> Details:
        swapped = self._number(swap, "swapUsageBytes")
        return Details(
            memory_anon_bytes=self._number(memory, "rssBytes"),
            memory_limit_bytes=self._limit(memory, "availableBytes", working_set),
            swap_usage_bytes=swapped,
            swap_limit_bytes=self._limit(swap, "swapAvailableBytes", swapped),
            cpu_pressure_some_usec=self._pressure(cpu, "some"),
            cpu_pressure_full_usec=self._pressure(cpu, "full"),
            memory_pressure_some_usec=self._pressure(memory, "some"),
            memory_pressure_full_usec=self._pressure(memory, "full"),
            io_pressure_some_usec=self._pressure(io, "some"),
            io_pressure_full_usec=self._pressure(io, "full"),
        )

    def _number(self, of: _Object, key: str, limit: int = AMOUNT_LIMIT) -> int | None:
        value = of.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
            return self._none()
        return value

    def _none(self) -> int | None:
        """In place of a value that cannot be true."""
        self.refused += 1
        return None

    def _limit(self, of: _Object, key: str, used: int | None) -> int | None:
        """The limit of which ``key`` is what is left; below 0 that has been wrapped around."""
        left = self._number(of, key, _WRAP)
        if left is None or used is None:
            return None
        limit = (left + used) % _WRAP
        return limit if limit < AMOUNT_LIMIT else self._none()

    def _pressure(self, of: _Object, share: str) -> int | None:
        return self._number(_object(_object(of.get("psi")).get(share)), "total")
