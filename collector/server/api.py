"""``/api/v1/pods``: the tally as JSON, ``null`` for absent. Read by scripts and by ``podtally top --url``."""

from __future__ import annotations

from typing import Any

from collector import table
from collector.loop import Published
from collector.model import NO_LIMIT, REASONS, ContainerTally, Limit, PodTally, Reading, Sample, Tally
from collector.table import Usage, time_text


def _limit(value: Limit | None) -> Limit | str | None:
    return "max" if value == NO_LIMIT else value


def _seconds(usec: int | None) -> float | None:
    return None if usec is None else usec / 1e6


def _reading(reading: Reading) -> dict[str, Any]:
    details = reading.details
    return {
        "cpu_usage_seconds": _seconds(reading.cpu_usage_usec),
        "cpu_throttled_seconds": _seconds(reading.cpu_throttled_usec),
        "cpu_limit_cores": _limit(details.cpu_limit_cores),
        "memory_working_set_bytes": reading.memory_working_set_bytes,
        "memory_usage_bytes": reading.memory_current_bytes,
        "memory_rss_bytes": details.memory_anon_bytes,
        "memory_cache_bytes": details.memory_file_bytes,
        "memory_peak_bytes": details.memory_peak_bytes,
        "memory_limit_bytes": _limit(details.memory_limit_bytes),
        "oom_kills": details.memory_oom_kill_events,
    }


def _container(one: ContainerTally, start_shift_ns: int) -> dict[str, Any]:
    return {
        "name": one.container.name,
        "kind": one.container.kind,
        "id": one.container.container_id,
        "started": None if one.started_ns is None else time_text(one.started_ns + start_shift_ns),
        "cpu_cores": one.cpu_cores,
        "memory_bytes": one.memory_bytes,
        "cgroup": _reading(one.reading),
    }


def _sample(sample: Sample | None, shift_ns: int) -> dict[str, Any] | None:
    if sample is None:
        return None
    window = None if sample.window_ns is None else sample.window_ns / 1e9
    return {"time": time_text(sample.time_ns + shift_ns), "window_seconds": window}


def _upstream(tally: Tally) -> dict[str, Any] | None:
    upstream = tally.upstream
    if upstream is None:
        return None
    return {
        "peer": upstream.peer,
        "state": upstream.state,
        "age_seconds": upstream.age_seconds(tally.instant.time_ns),
    }


def _pod(one: PodTally, shift_ns: int, start_shift_ns: int) -> dict[str, Any]:
    return {
        "namespace": one.pod.namespace,
        "name": one.pod.name,
        "uid": one.pod.uid,
        "phase": one.pod.phase,
        "qos_class": one.pod.qos_class or one.cgroup.qos_class,
        "cpu_cores": one.cpu_cores,
        "cpu_peak_cores": one.cpu_peak_cores,
        "memory_bytes": one.memory_bytes,
        "cgroup": {"cpu_cores": one.cgroup_cpu_cores, **_reading(one.reading)},
        "overhead": {"cpu_cores": one.overhead_cpu_cores, "memory_bytes": one.overhead_memory_bytes},
        "incomplete": one.incomplete,
        "source": one.source,
        "missing": list(one.account.missing),
        "sample": _sample(one.sample, shift_ns),
        "containers": [_container(container, start_shift_ns) for container in one.containers],
    }


def document(published: Published) -> dict[str, Any]:
    """The whole answer."""
    tally = published.tally
    return {
        "node": tally.node_name,
        "source": tally.source,
        "upstream": _upstream(tally),
        "time": time_text(tally.instant.time_ns + published.shift_ns),
        "window_seconds": tally.window_seconds,
        "names": {
            "source": tally.names.source,
            "kubelet": tally.names.kubelet,
            "apiserver": tally.names.apiserver,
        },
        "pods": [_pod(one, published.shift_ns, published.start_shift_ns) for one in tally.pods],
    }


def usages(value: Any, *, containers: bool) -> list[Usage]:
    """The rows of an answer of this API, read back. Raises ``KeyError`` or ``TypeError`` if it is none."""
    rows: list[Usage] = []
    for pod in value["pods"]:
        if pod["phase"] != "Running":
            continue
        # Older ones tell of no missing containers.
        missing = pod.get("missing", [])
        if not table.runs(bool(pod["containers"]), pod.get("incomplete"), missing):
            continue
        if containers:
            rows += [_usage(pod, one["name"], one) for one in pod["containers"]]
            rows += [_usage(pod, name, {"cpu_cores": None, "memory_bytes": None}) for name in missing]
        else:
            rows.append(_usage(pod, "", pod))
    return rows


_MOST = 1e18
"""Of cores or bytes: no pod has more."""


def _usage(pod: Any, container: Any, of: Any) -> Usage:
    why = pod.get("incomplete")
    row = Usage(
        pod["namespace"], pod["name"], container, of["cpu_cores"], of["memory_bytes"], why if why in REASONS else None
    )
    if not all(isinstance(name, str) for name in row[:3]):
        raise TypeError(row)
    if not isinstance(row.cpu_cores, float | int | None) or not isinstance(row.memory_bytes, int | None):
        raise TypeError(row)
    # Neither is NaN, nor infinity.
    if any(value is not None and not 0 <= value <= _MOST for value in (row.cpu_cores, row.memory_bytes)):
        raise TypeError(row)
    return row
