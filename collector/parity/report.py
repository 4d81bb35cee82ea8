"""What ``podtally verify`` prints of its rows: a table for each peer, the reasons, the sums; or JSON, a row a line."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Final

from collector.parity.verification import LEAST, MEBIBYTE, PEERS, Quantity, Refusal, Row, Source, Verdict
from collector.printable import printable
from collector.table import align, time_text

LARGE_CORES: Final = 0.05
"""Below 50m a difference says more of where in a second the CPU was used than of agreement."""

_RANK: Final[dict[Verdict, int]] = {"not-comparable": 0, "agree": 1, "explained": 2, "outside": 3}

LARGE_BYTES: Final = 10 * MEBIBYTE

Steps = Mapping[tuple[Source, int | None], str]
"""What to do about a peer that answers with a status."""

STEPS: Final[Steps] = {
    ("metrics-api", 403): "kubectl apply -k daemonset/overlays/verify gives list on pods.metrics.k8s.io",
    ("metrics-api", 404): "install metrics-server, which serves it:"
    " kubectl apply -f https://github.com/kubernetes-sigs/metrics-server/releases/latest/download/components.yaml",
    ("metrics-api", 503): "metrics-server does not answer: kubectl -n kube-system get pods -l k8s-app=metrics-server",
    ("summary", 403): "kubectl apply -k daemonset/overlays/verify gives get on nodes/stats",
    ("resource", 403): "kubectl apply -k daemonset/overlays/verify gives get on nodes/metrics",
}
"""For podtally's own account, on the node."""

_PROXY_STEP: Final = (
    "kubectl create clusterrolebinding podtally-verify --clusterrole=system:kubelet-api-admin --user=$USER gives get on"
    " nodes/proxy, which is much; or run it in the DaemonSet's pod, which needs less:"
    " kubectl -n podtally exec daemonset/podtally -- podtally verify"
)
KUBECONFIG_STEPS: Final[Steps] = {
    **STEPS,
    ("metrics-api", 403): "kubectl create clusterrolebinding podtally-verify-top"
    " --clusterrole=system:aggregated-metrics-reader --user=$USER gives list on pods.metrics.k8s.io",
    ("summary", 403): _PROXY_STEP,
    ("resource", 403): _PROXY_STEP,
}
"""For a person's own account, through the API server."""


def as_json(row: Row) -> str:
    """One object. ``time`` is the end of the window; ``window_seconds`` is null for memory, which is of a moment."""
    window = None if row.begin_ns is None else (row.end_ns - row.begin_ns) / 1e9
    return json.dumps(
        {
            "namespace": row.namespace,
            "pod": row.pod,
            "container": row.container,
            "source": row.source,
            "quantity": row.quantity,
            "ours": row.ours,
            "theirs": row.theirs,
            "ratio": row.ratio,
            "window": row.window,
            "verdict": row.verdict,
            "reason": row.reason,
            "time": time_text(row.end_ns),
            "window_seconds": window,
        }
    )


def refusal_text(refusal: Refusal, steps: Steps) -> str:
    """Which peer could not be compared with, why, and the one line that mends it."""
    status = f"HTTP {refusal.status}: " if refusal.status is not None else ""
    step = steps.get((refusal.source, refusal.status), "podtally doctor tells more")
    return f"{PEERS[refusal.source]} is left out: {status}{printable(refusal.error)}\n  -> {step}\n"


Place = tuple[str, str, str | None]


def latest(rows: Iterable[Row]) -> dict[Source, dict[Place, dict[Quantity, Row]]]:
    """Of each pod and container the latest row that compares, else the latest."""
    found: dict[Source, dict[Place, dict[Quantity, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        of = found[row.source][row.namespace, row.pod, row.container]
        before = of.get(row.quantity)
        if before is None or _is_better(row, before):
            of[row.quantity] = row
    return found


def _is_better(row: Row, than: Row) -> bool:
    # A pod that is left out now is left out, whatever it was before.
    first, second = (one.verdict != "not-comparable" or one.reason.startswith("left out") for one in (row, than))
    return (first, row.end_ns) >= (second, than.end_ns)


def render(rows: Sequence[Row], tolerance: float, *, containers: bool) -> str:
    """The whole text for a person: what matters most stands last, where a terminal shows it.

    ``containers``: a line for each container too, as ``kubectl top pods --containers`` has them.
    """
    shown = latest(rows)
    parts = [
        f"podtally and {PEERS[source]}\n" + _table(shown[source], containers=containers)
        for source in PEERS
        if source in shown
    ]
    told = [row for of in shown.values() for by in of.values() for row in by.values() if row.reason]
    if told:
        parts.append("What differs by more than 5%, and why\n" + _reasons(told))
    parts.append(f"All values seen, pods and containers (tolerance {tolerance:.0%})\n" + sums(rows))
    return "\n".join(parts)


def _table(of: dict[Place, dict[Quantity, Row]], *, containers: bool) -> str:
    names = ["NAMESPACE", "POD", *(["NAME"] if containers else [])]
    lines = [[*names, "CPU", "THEIRS", "DIFF", "MEMORY", "THEIRS", "DIFF", "VERDICT"]]
    for (namespace, pod, container), by in of.items():
        if container is not None and not containers:
            continue
        verdict = max((row.verdict for row in by.values()), key=_RANK.__getitem__)
        cells = [cell for quantity in LEAST for cell in _cells(by.get(quantity))]
        lines.append([namespace, pod, *([container or ""] if containers else []), *cells, verdict])
    return align(lines)


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    return [value_text(row.ours, row.quantity), value_text(row.theirs, row.quantity), _difference(row)]


def value_text(value: float | None, quantity: Quantity) -> str:
    """Millicores or Mi with one digit more than kubectl top; ``-`` for absent.

    >>> value_text(0.0164, "cpu"), value_text(1572864, "memory"), value_text(None, "cpu")
    ('16.4m', '1.5Mi', '-')
    """
    if value is None:
        return "-"
    return f"{value * 1000:.1f}m" if quantity == "cpu" else f"{value / MEBIBYTE:.1f}Mi"


def _difference(row: Row) -> str:
    return "-" if row.ratio is None else f"{(row.ratio - 1) * 100:+.1f}%"


def _reasons(rows: list[Row]) -> str:
    """By reason, as one reason may hold for all pods of a node."""
    groups: dict[tuple[int, Source, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[_RANK[row.verdict], row.source, row.reason].append(row)
    lines: list[str] = []
    # The gravest last; what says the same of several stands once.
    for (_, source, reason), of in sorted(groups.items(), key=lambda item: item[0][0]):
        places = list(dict.fromkeys("/".join(part for part in row[:3] if part) for row in of))
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        quantities = ", ".join(sorted({row.quantity for row in of}))
        verdict = of[0].verdict
        lines.append(printable(f"{verdict}: {quantities} of {', '.join(places[:3])}{more}, {PEERS[source]}"))
        lines.append(f"  {printable(reason)}")
    return "\n".join(lines) + "\n"


def sums(rows: Iterable[Row]) -> str:
    """How many of each verdict, by peer and quantity; the differences of what is large and has a known window."""
    groups: dict[tuple[Source, Quantity], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.source, row.quantity].append(row)
    lines = [["PEER", "QUANTITY", "AGREE", "EXPLAINED", "OUTSIDE", "NOT COMPARABLE", "LARGE", "MEDIAN", "WORST"]]
    for source in PEERS:
        for quantity in LEAST:
            of = groups.get((source, quantity))
            if of:
                counts = Counter(row.verdict for row in of)
                verdicts = [str(counts[one]) for one in ("agree", "explained", "outside", "not-comparable")]
                lines.append([source, quantity, *verdicts, *_spread(of)])
    return align(lines)


def large_differences(rows: Iterable[Row]) -> list[float]:
    """Relative differences of what has a known window and is above 50m or 10Mi."""
    least: dict[Quantity, float] = {"cpu": LARGE_CORES, "memory": LARGE_BYTES}
    return [
        row.difference
        for row in rows
        if row.difference is not None and row.window == "exact" and (row.theirs or 0.0) > least[row.quantity]
    ]


def _spread(rows: list[Row]) -> list[str]:
    found = large_differences(rows)
    return [str(len(found)), *([f"{median(found):.2%}", f"{max(found):.2%}"] if found else ["-", "-"])]
