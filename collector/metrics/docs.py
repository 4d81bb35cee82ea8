"""The catalogues as Markdown and JSON: ``podtally metrics`` and ``docs/metrics.md``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

from collector.cgroup.files import FAST, SELDOM_TURNS, SLOW, slow_names
from collector.demand import LASTS_NS
from collector.metrics import resource
from collector.metrics.cadvisor_catalogue import CADVISOR, SCRAPE_ERROR, CadvisorMetric
from collector.metrics.catalogue import (
    ALL_GROUPS,
    CATALOGUE,
    CONTAINER,
    CONTAINER_KILLS,
    DEFAULT_GROUPS,
    ENDED,
    GROUPS,
    INFO,
    POD,
    POD_KILLS,
    SELF,
    Metric,
)
from collector.model import LASTING, MEANINGS, REASONS, SOURCES

_OOM = """\
Counters on the *name* of a pod or container: they go on when a container is restarted, or when a pod takes the place
of another of its name within `--linger`, and stay for `--linger` after the last of the name, so that a kill just before
the end is scraped. `increase(pod_oom_kills_total[5m]) > 0` finds kills. What is counted is processes, as the kernel
does: a container whose processes are all killed at once counts them all, and once in
`pod_container_memory_events_total{event="oom_group_kill"}`.

- **The pod's counter is exact.** Its cgroup outlives its containers and is read every tick. After a restart of podtally
  it begins with what the pod's own `memory.events` has.
- **A container's is derived.** Its cgroup is removed with its count, often before that was read. What the pod's count
  has then grown by beyond that of the live containers is counted to the container that has just ended. Where several
  of a pod, with different names, have ended in one tick, or one that was never seen in a pod of several, it stays in
  the pod's counter alone, and the containers' add up to less. Where one that was never seen ends with one that was, it
  is the latter's. Those that live for less than a tick are seen by inotify, and so are exact.
- **After a restart of podtally** the containers of a pod that has several begin at 0 if the dead had a part in the
  pod's count, as nobody can tell which. That a counter steps back to 0 is no kill to `increase()`.
- **What cannot be told**: if a pod's name was another's before, and both had kills, the counter begins with the later
  one's own after a restart of podtally, and `increase()` over that moment takes these for new. And a counter whose
  first sample is not 0, as of a pod that had a kill before it was first scraped, has had no increase: to Prometheus
  there is no sample before.
"""

_ENDED = """\
One series for each name of a container that has ended within `--linger`, once a status names it; of several that bore
one name the last. They tell of containers that live for less than the time from scrape to scrape. They are in no sum,
and all families above end with the container. What it used between its last reading and its end is not in them: the
pod's counters have it.
"""

_REQUESTS = """\
## From `cpu.weight` back to a request

A CPU request becomes shares, 1024 for a core and at least 2, and these become a weight from 1 to 10000. Both steps
round, and the second has two formulas:

| who writes it | weight of s shares | shares of a weight w, about |
|---|---|---|
| runc before 1.3.2 and crun before 1.23; the kubelet for pods | 1 + (s - 2) 9999 / 262142 | 2 + (w - 1) 262142 / 9999 |
| runc from 1.3.2 and crun from 1.23, for containers | 10^((l^2 + 125 l) / 612 - 7/34), rounded up, l = log2(s) | \
2^((sqrt(15625 + 2448 (log10(w) + 7/34)) - 125) / 2) |

So 100m is the weight 17 of a container and 4 of its pod, on one node: the recordings have it, of kubelet 1.36 and runc
1.3.6. By the first formula all requests up to 28m are 1. The weight says exactly how CPU is shared; the request itself
is in the pod's spec alone. `memory.min` has the memory request only where the kubelet's MemoryQoS is on, and no other
file has it.
"""


def _itself() -> str:
    rows = [f"| `{one}` | {MEANINGS[one]} | {'lasts' if one in LASTING else 'passes'} |" for one in REASONS]
    return "\n".join(
        (
            "Reasons of `podtally_pods_incomplete`, of which a pod has one; `docs/account.md` says when each is given:",
            "",
            "| reason | what is so | |",
            "|---|---|---|",
            *rows,
            "",
        )
    )


class _Section(NamedTuple):
    title: str
    text: str
    metrics: tuple[Metric, ...]


_SECTIONS: tuple[_Section, ...] = (
    _Section("Pods", "One series for each pod that has a name and a cgroup.\n", POD),
    _Section("What a pod is", "", INFO),
    _Section("Containers", "One series for each running container; `--no-containers` leaves them out.\n", CONTAINER),
    _Section("OOM kills", _OOM, (*POD_KILLS, *CONTAINER_KILLS)),
    _Section("Containers that have ended", _ENDED, ENDED),
    _Section("podtally itself", _itself(), SELF),
)


def _often(metric: Metric) -> str:
    return "-" if metric.scope == "self" else metric.often


_HEAD = (
    "| name | type | unit | labels | group | sources | what it is | from | read |",
    "|---|---|---|---|---|---|---|---|---|",
)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    where = "all" if metric.sources == SOURCES else ", ".join(metric.sources)
    source = metric.source
    if isinstance(metric, CadvisorMetric) and metric.node:
        source += f"; of `/` {metric.node}"
    if metric.when:
        source += "; only with a limit"
    name, unit, group = f"`{metric.name}`", metric.unit or "-", metric.group or "-"
    return _cells(name, metric.type, unit, labels, group, where, metric.help, source, _often(metric))


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _told() -> list[str]:
    """What the families of the other sources are made of."""
    lines = [
        "## Other sources",
        "",
        "With `--source summary` and `--source metrics-api` the families below are exported, under the same names, if",
        "their group is on, and no others but `pod_info` and podtally's own. [sources.md](sources.md) says how.",
        "",
        "| name | summary: of the kubelet's `/stats/summary` | metrics-api: of `metrics.k8s.io` |",
        "|---|---|---|",
    ]
    rows = [
        _cells(f"`{metric.name}`", metric.told("summary") or "-", metric.told("metrics-api") or "-")
        for metric in (*POD, *CONTAINER)
        if len(metric.sources) > 1
    ]
    return [*lines, *rows, ""]


class Cost(NamedTuple):
    """Series of ``/metrics``, at the most: with limits and all kernel files."""

    pod: int
    """Of a pod."""
    container: int
    """Of each of its containers."""
    ended: int
    """Of a container that has ended, for ``--linger``."""


def cost(groups: Collection[str]) -> Cost:
    """What ``groups`` cost."""

    def series(metrics: tuple[Metric, ...]) -> int:
        return sum(len(metric.series) or 1 for metric in metrics if metric.group in groups)

    return Cost(series((*POD, *POD_KILLS, *INFO)), series((*CONTAINER, *CONTAINER_KILLS)), series(ENDED))


_OF_PODS_EVERY_TICK = frozenset(file.name for file in SLOW if file.every_tick_of_pods)


def _file(name: str) -> str:
    return f"`{name}`{' (of pods every tick)' if name in _OF_PODS_EVERY_TICK else ''}"


def _groups() -> list[str]:
    always = {file.name for file in FAST} | {*slow_names(resource.NEEDS.pods | resource.NEEDS.containers)}
    lines = [
        "## Groups, and what they cost",
        "",
        "`--collect` chooses groups of families; without it those are on that are marked so. For rates, sums and",
        "`/metrics/resource` these files are read in any case:",
        f"{', '.join(f'`{name}`' for name in sorted(always))}.",
        "`memory.stat` is read when `memory.current` moved, and every fifth tick: it costs the kernel ten times what",
        "the others do.",
        "Others are read every few ticks if one of their families is on, else seldom while `/metrics/cadvisor`, which",
        "`serve --no-cadvisor` switches off, is asked for. No scrape reads a file.",
        "",
        "| group | on | what | series of a pod | of each container | of one that ended | files |",
        "|---|---|---|---|---|---|---|",
    ]
    for group in GROUPS:
        fields = {field for metric in CATALOGUE if metric.group == group.name for field in metric.fields}
        files = [_file(name) for name in slow_names(frozenset(fields)) if name not in always]
        lines.append(
            f"| `{group.name}` | {'on' if group.default else ''} | {group.what} |"
            f" {' | '.join(str(count or '') for count in cost({group.name}))} |"
            f" {', '.join(files)} |"
        )
    for title, groups in (("without `--collect`", DEFAULT_GROUPS), ("`all`", ALL_GROUPS)):
        lines.append(f"| **{title}** | | | {' | '.join(f'**{count}**' for count in cost(groups))} | |")
    usual, most = cost(DEFAULT_GROUPS), cost(ALL_GROUPS)
    return [
        *lines,
        "",
        f"So a pod with one container has at most {usual.pod + usual.container} series, with all groups"
        f" {most.pod + most.container}; families of limits",
        "have none where there is no limit, and those of files that the kernel lacks have none.",
        "",
    ]


def as_markdown() -> str:
    """``docs/metrics.md``."""
    lines = [
        "# Metrics",
        "",
        "Generated by `podtally metrics`; `make docs` writes it anew. All families of `/metrics`, then those of",
        "`/metrics/cadvisor`; a value that is absent has no series, and a family without a series is left out.",
        "*sources*: the values of `--source` that the family is exported with; *from*: of the node's cgroups.",
        "*every few ticks*: `--slow-every`.",
        "",
        *_groups(),
    ]
    for title, text, metrics in _SECTIONS:
        lines += [f"## {title}", ""]
        if text:
            lines += [*text.splitlines(), ""]
        lines += [*_HEAD, *(_row(metric) for metric in metrics), ""]
    lines += [
        *_REQUESTS.splitlines(),
        "",
        "## /metrics/cadvisor",
        "",
        "The kubelet's page of that name: names, types, help and labels are cAdvisor's. There are rows of containers,",
        'sandboxes, pods (`container=""`), the QoS classes, kubepods and `/`. What no group that is on needs is read',
        f"*seldom*, one in {SELDOM_TURNS} of the times of `--slow-every`: without `--collect` what the table says, and",
        "of containers the pressure files and pids.current too. It is read while the page is asked for: the first",
        f"request after {LASTS_NS / 60e9:.0f} minutes without one waits for the next tick, which reads all of it.",
        "How the values agree with the kubelet's, and what is left out: [cadvisor.md](cadvisor.md).",
        "",
        *_HEAD,
        *(_row(metric) for metric in (*CADVISOR, SCRAPE_ERROR)),
        "",
        *_told(),
        "## /metrics/resource",
        "",
        "It has the kubelet's families, names, types and timestamps, see",
        "[the kubelet's documentation](https://kubernetes.io/docs/reference/instrumentation/metrics/).",
        "",
    ]
    return "\n".join(lines)


def as_json() -> str:
    """The catalogues for tools."""
    rows = [
        {
            "name": metric.name,
            "type": metric.type,
            "unit": metric.unit,
            "help": metric.help,
            "labels": list(metric.labels),
            "scope": metric.scope,
            "group": metric.group,
            "source": metric.source,
            "sources": list(metric.sources),
            "told": {name: told for name in SOURCES if (told := metric.told(name))},
            "every_tick": not metric.slow and not metric.seldom,
            "path": path,
        }
        for path, metrics in (("/metrics", CATALOGUE), ("/metrics/cadvisor", (*CADVISOR, SCRAPE_ERROR)))
        for metric in metrics
    ]
    return json.dumps(rows, indent=1) + "\n"
