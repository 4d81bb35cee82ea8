"""Pods as ``kubectl top pods`` prints them: columns, units and rounding, for ``podtally top`` and the page.

kubectl: CPU in millicores rounded up, from whole nanocores; memory in Mi rounded down; a pod's line is the sum of its
containers' exact values, rounded once (``k8s.io/kubectl/pkg/metricsutil/metrics_printer.go``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Literal, NamedTuple

from collector.model import MEANINGS, Reason, Tally
from collector.printable import printable

Sort = Literal["name", "cpu", "memory"]

UNKNOWN = "<unknown>"
"""A value that is absent. kubectl leaves such pods out; here they are shown, so that nothing is silently missing."""

_MEBIBYTE = 1 << 20


class Usage(NamedTuple):
    """A pod or, with a name in ``container``, a container."""

    namespace: str
    pod: str
    container: str
    cpu_cores: float | None
    memory_bytes: int | None
    why: Reason | None = None
    """Why the pod's sums are withheld, if they are."""


def cpu_text(cores: float | None) -> str:
    """Millicores, rounded up from whole nanocores.

    >>> cpu_text(0.0160001), cpu_text(0.1), cpu_text(0.0), cpu_text(None)
    ('17m', '100m', '0m', '<unknown>')
    """
    if cores is None:
        return UNKNOWN
    # Half a thousandth of a nanocore is a float's rounding, not CPU.
    return f"{-(-int(cores * 1e9 + 1e-3) // 1_000_000)}m"


def memory_text(value_bytes: int | None) -> str:
    """Mi, rounded down.

    >>> memory_text(1048575), memory_text(3145728), memory_text(None)
    ('0Mi', '3Mi', '<unknown>')
    """
    return UNKNOWN if value_bytes is None else f"{value_bytes // _MEBIBYTE}Mi"


def time_text(time_ns: int) -> str | None:
    """RFC 3339 in UTC, with milliseconds; ``None`` for a time beyond the year 9999, as a damaged inode may have.

    >>> time_text(1795412409871000000)
    '2026-11-23T05:40:09.871Z'
    """
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000 / 1000, tz=timezone.utc)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def usages(tally: Tally, *, containers: bool) -> list[Usage]:
    """The rows of a tally. A pod without a running container has none, as in kubectl."""
    rows: list[Usage] = []
    for pod in tally.pods:
        namespace, name, why = pod.pod.namespace, pod.pod.name, pod.incomplete
        if pod.pod.phase != "Running" or not runs(bool(pod.containers), why, pod.account.missing):
            continue
        if containers:
            rows += [
                Usage(namespace, name, one.container.name, one.cpu_cores, one.memory_bytes, why)
                for one in pod.containers
            ]
            rows += [Usage(namespace, name, missing, None, None, why) for missing in pod.account.missing]
        else:
            rows.append(Usage(namespace, name, "", pod.cpu_cores, pod.memory_bytes, why))
    return rows


def runs(containers: bool, why: str | None, missing: Sequence[str]) -> bool:
    """Whether a pod has running containers: read ones, or such as are not to be had."""
    return containers or bool(missing) or why == "sandboxed"


def notes(rows: Iterable[Usage]) -> list[str]:
    """Why values are unknown, a line for each reason: what is withheld is told, and not left to be guessed."""
    pods: dict[Reason, list[str]] = {}
    for row in rows:
        name = printable(f"{row.namespace}/{row.pod}")
        if row.why is not None and name not in pods.setdefault(row.why, []):
            pods[row.why].append(name)
    return [
        f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}:"
        f" {reason}: {MEANINGS[reason]}"
        for reason, names in sorted(pods.items())
    ]


_NAMED = 3
"""Pods that are named in a note."""


def sort_usages(rows: Iterable[Usage], by: Sort) -> list[Usage]:
    """By name, or the greatest first; what is absent last."""
    named = sorted(rows, key=lambda row: row[:3])
    if by == "name":
        return named
    value: Callable[[Usage], float | None] = (
        (lambda row: row.cpu_cores) if by == "cpu" else (lambda row: row.memory_bytes)
    )

    def rank(row: Usage) -> float:
        found = value(row)
        return float("inf") if found is None else -found

    return sorted(named, key=rank)


def columns(*, containers: bool, namespaces: bool) -> list[str]:
    """The heads, as kubectl has them."""
    names = ["POD", "NAME"] if containers else ["NAME"]
    return [*(["NAMESPACE"] if namespaces else []), *names, "CPU(cores)", "MEMORY(bytes)"]


def cells(row: Usage, *, containers: bool, namespaces: bool) -> list[str]:
    """One line."""
    names = [row.pod, row.container] if containers else [row.pod]
    return [*([row.namespace] if namespaces else []), *names, cpu_text(row.cpu_cores), memory_text(row.memory_bytes)]


def render(rows: Iterable[Usage], *, containers: bool, namespaces: bool, headers: bool = True) -> str:
    """The table, columns three blanks apart as kubectl's."""
    lines = [columns(containers=containers, namespaces=namespaces)] if headers else []
    lines += [cells(row, containers=containers, namespaces=namespaces) for row in rows]
    return align(lines)


def align(lines: Sequence[Sequence[str]]) -> str:
    r"""Lines of cells, columns three blanks apart. A cell is a name of somebody's: none makes a line of its own.

    >>> align([["a", "b"], ["cc", "d"]])
    'a    b\ncc   d\n'
    """
    if not lines:
        return ""
    lines = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[index]) for line in lines) + 3 for index in range(len(lines[0]))]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
