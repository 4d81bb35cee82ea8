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
"""

from __future__ import annotations

from typing import Any

from collector.model import Details, Reading
from collector.pods.answer import parse_time_ns
from collector.upstream.samples import Measured, PodSample, Snapshot, items_of, snapshot, word

_WHAT = "the kubelet's /stats/summary"
_LIMIT = 1 << 64
_NS_PER_USEC = 1000


def parse(body: bytes) -> Snapshot:
    """Read an answer. Raises :class:`collector.errors.AnswerError` if it is not one."""
    value, items = items_of(body, "pods", _WHAT)
    return snapshot(items, _pod, _measured(value.get("node")))


def _pod(item: dict[str, Any]) -> PodSample:
    of = item["podRef"]
    containers: dict[str, Measured] = {}
    for entry in item.get("containers") or []:
        measured = _measured(entry)
        if measured is not None:
            containers[word(entry["name"])] = measured
    return PodSample(word(of["namespace"]), word(of["name"]), word(of["uid"]), _measured(item), containers)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(of: dict[str, Any], key: str) -> int | None:
    value = of.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LIMIT:
        return None
    return value


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else (first + second) % _LIMIT


def _pressure(of: dict[str, Any], share: str) -> int | None:
    return _number(_object(_object(of.get("psi")).get(share)), "total")


def _measured(value: Any) -> Measured | None:
    """A container, a pod or the node: all three have the same parts. ``None`` without a time."""
    of = _object(value)
    cpu, memory, swap, io = (_object(of.get(part)) for part in ("cpu", "memory", "swap", "io"))
    time_ns = parse_time_ns(cpu.get("time")) or parse_time_ns(memory.get("time"))
    if time_ns is None:
        return None
    usage_ns = _number(cpu, "usageCoreNanoSeconds") or None
    current, working_set = _number(memory, "usageBytes") or None, _number(memory, "workingSetBytes")
    nanocores = _number(cpu, "usageNanoCores")
    return Measured(
        time_ns=time_ns,
        reading=Reading(
            monotonic_ns=0,
            cpu_usage_usec=None if usage_ns is None else usage_ns // _NS_PER_USEC,
            memory_current_bytes=current,
            # A working set of 0 beside some usage is a page cache that is not in recent use.
            told_working_set_bytes=working_set if working_set or current else None,
            details=Details() if usage_ns is None or current is None else _details(cpu, memory, swap, io),
        ),
        cpu_cores=None if nanocores is None else nanocores / 1e9,
        started_ns=parse_time_ns(of.get("startTime")),
    )


def _details(cpu: dict[str, Any], memory: dict[str, Any], swap: dict[str, Any], io: dict[str, Any]) -> Details:
    return Details(
        memory_anon_bytes=_number(memory, "rssBytes"),
        memory_limit_bytes=_sum(_number(memory, "availableBytes"), _number(memory, "workingSetBytes")),
        swap_usage_bytes=_number(swap, "swapUsageBytes"),
        swap_limit_bytes=_sum(_number(swap, "swapAvailableBytes"), _number(swap, "swapUsageBytes")),
        cpu_pressure_some_usec=_pressure(cpu, "some"),
        cpu_pressure_full_usec=_pressure(cpu, "full"),
        memory_pressure_some_usec=_pressure(memory, "some"),
        memory_pressure_full_usec=_pressure(memory, "full"),
        io_pressure_some_usec=_pressure(io, "some"),
        io_pressure_full_usec=_pressure(io, "full"),
    )
