"""Which paths a source has nothing for, and why: the answer to a question for them."""

from __future__ import annotations

from collections.abc import Mapping

from collector.model import SourceName

_NO_CGROUPS = (
    "not served with --source {}: cAdvisor's families are of cgroup files, which are not read then; a podtally with"
    " --source cgroup serves it"
)

_CADVISOR = "/metrics/cadvisor"
_NO_CADVISOR = (
    "not served with --no-cadvisor: its families are made of files that are not read then; leave the flag out"
)

_WHY_NOT: Mapping[tuple[SourceName, str], str] = {
    ("summary", _CADVISOR): _NO_CGROUPS.format("summary"),
    ("metrics-api", _CADVISOR): _NO_CGROUPS.format("metrics-api"),
    ("metrics-api", "/metrics/resource"): (
        "not served with --source metrics-api: the kubelet's page is of cumulative counters, and the metrics API tells"
        " but rates; a podtally with --source cgroup or summary serves it"
    ),
}


def why_not(source: SourceName, path: str, *, cadvisor: bool) -> str | None:
    """Why a path is not served; ``None`` if it is. ``cadvisor``: ``/metrics/cadvisor`` is, if the source has it."""
    why = _WHY_NOT.get((source, path))
    return _NO_CADVISOR if why is None and path == _CADVISOR and not cadvisor else why
