"""``/``: the node's pods as ``kubectl top`` prints them, and where to look further. Plain HTML, nothing fetched."""

from __future__ import annotations

from collector import __version__, table
from collector.loop import Published
from collector.model import MEANINGS, Tally
from collector.printable import as_html
from collector.server.paths import why_not
from collector.table import time_text

LINKS = (
    ("/metrics", "podtally's metrics, for Prometheus"),
    ("/metrics/resource", "the kubelet's endpoint of that name, for metrics-server"),
    ("/metrics/cadvisor", "the kubelet's page of that name, for dashboards made for it"),
    ("/api/v1/pods", "this tally as JSON"),
    ("/healthz", "liveness"),
    ("/readyz", "readiness, and where the names come from"),
)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1e21; }
table { border-collapse: collapse; width: 100%; font-family: ui-monospace, monospace; font-size: 14px; }
th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #e3e5e8; }
th { font-weight: 600; } td.n, th.n { text-align: right; }
p.warn { background: #fff4d6; padding: .5rem .75rem; border-radius: 4px; }
h1 { font-size: 1.4rem; margin-bottom: 0; } .dim { color: #63676d; }
@media (prefers-color-scheme: dark) { body { background: #17191c; color: #e6e7e9; } th, td { border-color: #33373c; }
a { color: #8ab4f8; } p.warn { background: #4a3b12; } .dim { color: #9aa0a6; } }
"""


def _span(tally: Tally) -> str:
    """What the CPU is over; of an upstream, also how old its samples are."""
    if tally.window_seconds is not None:
        return f"CPU over {tally.window_seconds:g} s"
    ages = [(tally.instant.time_ns - pod.sample.time_ns) / 1e9 for pod in tally.pods if pod.sample is not None]
    old = f", {min(ages):.0f} to {max(ages):.0f} s old" if ages else ""
    return f"by {tally.upstream.peer}{old}" if tally.upstream is not None else ""


def _warnings(published: Published) -> list[str]:
    tally = published.tally
    names = tally.names
    found = [
        f"{upstream.sentence(tally.instant.time_ns)}."
        for upstream in (tally.upstream, tally.fill)
        if upstream is not None and upstream.needed and not upstream.up
    ]
    if names.source == "none":
        found.append(f"No names yet: the kubelet: {names.kubelet}; the API server: {names.apiserver}.")
    elif names.source == "memory":
        found.append(f"The last known names are shown: the kubelet: {names.kubelet}; API server: {names.apiserver}.")
    elif names.source == "apiserver":
        found.append(f"Names come from the API server: the kubelet: {names.kubelet}.")
    for reason, count in sorted(tally.incomplete.items()):
        found.append(f"{count} pod{'s' if count > 1 else ''} without sums: {reason}: {MEANINGS[reason]}.")
    return found


def render(published: Published | None, failure: str | None, *, cadvisor: bool = True) -> str:
    """The page. ``cadvisor``: with a link to ``/metrics/cadvisor``, if the source has it."""
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>podtally</title>",
        '<meta name=viewport content="width=device-width"><meta http-equiv=refresh content=5>',
        f"<style>{_STYLE}</style></head><body>",
    ]
    if published is None:
        parts.append(f"<h1>podtally</h1><p class=warn>No tally yet{': ' + as_html(failure) if failure else ''}.</p>")
    else:
        tally = published.tally
        running = len(table.usages(tally, containers=False))
        at = time_text(tally.instant.time_ns + published.shift_ns)
        parts.append(f"<h1>{as_html(tally.node_name or 'podtally')}</h1>")
        parts.append(
            f"<p class=dim>{running} of {len(tally.pods)} pods with running containers at {at}, "
            f"{as_html(_span(tally))}, as <code>kubectl top pods</code> prints them. "
            f"podtally {__version__}.</p>"
        )
        if failure:
            parts.append(f"<p class=warn>The last tick failed, this is the tally before it: {as_html(failure)}</p>")
        parts += [f"<p class=warn>{as_html(text)}</p>" for text in _warnings(published)]
        filled = [f"{pod.pod.namespace}/{pod.pod.name}" for pod in tally.pods if pod.source != tally.source]
        if filled:
            whose = (
                f"The numbers of {as_html(', '.join(filled))} are the kubelet's own (<code>--fill-from summary</code>)"
            )
            parts.append(f"<p class=dim>{whose}: cgroups tell nothing of what runs there.</p>")
        parts.append("<table><thead><tr>")
        heads = table.columns(containers=False, namespaces=True)
        parts += [f"<th{' class=n' if index > 1 else ''}>{head}</th>" for index, head in enumerate(heads)]
        parts.append("</tr></thead><tbody>")
        for row in table.sort_usages(table.usages(tally, containers=False), "name"):
            texts = table.cells(row, containers=False, namespaces=True)
            cells = [f"<td{' class=n' if index > 1 else ''}>{as_html(text)}</td>" for index, text in enumerate(texts)]
            parts.append(f"<tr>{''.join(cells)}</tr>")
        parts.append("</tbody></table>")
    parts.append("<ul>")
    source = published.tally.source if published is not None else "cgroup"
    shown = [(path, what) for path, what in LINKS if why_not(source, path, cadvisor=cadvisor) is None]
    parts += [f'<li><a href="{path}">{path}</a> <span class=dim>{what}</span></li>' for path, what in shown]
    parts.append("</ul></body></html>\n")
    return "\n".join(parts)
