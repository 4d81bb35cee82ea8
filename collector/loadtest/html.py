"""A report as one HTML page that can be sent to somebody: style and plots within, no script, nothing fetched. Pure."""

from __future__ import annotations

from typing import Final

from collector.loadtest import plot, telling, words
from collector.loadtest.model import Report, Spans, State
from collector.loadtest.telling import Plot, Section, Table
from collector.printable import as_html

_LIGHT: Final = ("#1f66d1", "#d1541c", "#178a4a", "#8b46d6", "#a97c00", "#0b8793", "#c92a66", "#6f757d")
_DARK: Final = ("#6ea8ff", "#ff9561", "#54c98a", "#bd93f9", "#e0b83c", "#4fcbd8", "#ff7ea8", "#a3a9b1")


def _colours(of: tuple[str, ...]) -> str:
    return " ".join(f"--l{number}: {colour};" for number, colour in enumerate(of))


_STYLE: Final = f"""
:root {{ color-scheme: light dark; --back: #fff; --text: #1c1e21; --dim: #5f646b; --rule: #e1e4e8; --band: #eef3fb;
  --good: #116c38; --bad: #b3261e; --unknown: #8a5a00; {_colours(_LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --back: #16181b; --text: #e6e7e9; --dim: #9aa0a6; --rule: #32363b;
  --band: #1f2733; --good: #63d190; --bad: #ff8a80; --unknown: #f0c060; {_colours(_DARK)} }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 66rem; padding: 0 1rem;
  color: var(--text); background: var(--back); }}
h1 {{ font-size: 1.5rem; margin: 0 0 .25rem; }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .5rem; }}
h3 {{ font-size: .95rem; font-weight: 600; margin: 1.2rem 0 .2rem; }}
p {{ margin: .35rem 0; max-width: 60rem; }} .dim, figcaption {{ color: var(--dim); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin: .5rem 0; }}
th, td {{ text-align: left; padding: .22rem 1.1rem .22rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }}
th {{ font-weight: 600; color: var(--dim); }} th.n, td.n {{ text-align: right; white-space: nowrap; }}
td.first {{ white-space: nowrap; }} tr.sum td {{ font-weight: 600; }}
.passed {{ color: var(--good); }} .failed, .broken {{ color: var(--bad); }}
.missing, .incomplete {{ color: var(--unknown); }}
td.passed, td.failed, td.missing {{ font-weight: 600; white-space: nowrap; }}
svg {{ display: block; }} svg.plot {{ width: 100%; height: auto; max-width: {plot.WIDTH}px; }}
svg.spark {{ width: {plot.SPARK_WIDTH}px; height: {plot.SPARK_HEIGHT}px; }} td.s {{ padding-right: 1.1rem; }}
.load {{ fill: var(--band); }} .grid {{ stroke: var(--rule); fill: none; }}
.tick {{ fill: var(--dim); font: 11px system-ui, sans-serif; }}
.line {{ fill: none; stroke-width: 1.6; stroke-linejoin: round; stroke-linecap: round; }}
{" ".join(f".l{number} {{ stroke: var(--l{number}); }}" for number in range(plot.COLOURS))}
ul.key {{ list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0; padding: 0 0 0 64px;
  font-size: 13px; max-width: {plot.WIDTH - 64}px; }}
ul.key svg {{ display: inline-block; width: 18px; height: 8px; margin-right: .35rem; }}
ul.key .line {{ stroke-width: 3; }}
@media (max-width: 40rem) {{ td.first {{ white-space: normal; }} th, td {{ padding-right: .6rem; }} }}
@media print {{ body {{ margin: 0; }} h2 {{ break-after: avoid; }} figure, table {{ break-inside: avoid; }} }}
figure {{ margin: 0 0 .8rem; }}
"""


def render(report: Report) -> str:
    """The whole page."""
    head = telling.title(report)
    _, _, outcome = head.rpartition(": ")
    first, *others = telling.lead(report)
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{as_html(head)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Load test {as_html(report.run.profile)}: <span class={report.outcome}>{as_html(outcome)}</span></h1>",
        f"<p>{as_html(first)}</p><p class=dim>{as_html(' '.join(others))}</p>",
    ]
    for section in telling.sections(report):
        parts += _section(section, report.run.spans)
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _section(section: Section, spans: Spans) -> list[str]:
    parts = [f"<h2>{as_html(section.title)}</h2>"]
    if section.table is None and len(section.sentences) > 1:
        parts.append(f"<ul>{''.join(f'<li>{as_html(one)}</li>' for one in section.sentences)}</ul>")
    else:
        parts += [f"<p>{as_html(one)}</p>" for one in section.sentences]
    parts += [_plot(one, spans) for one in section.plots]
    if section.table is not None:
        parts.append(_table(section.table, spans))
    parts += [f"<p>{as_html(one)}</p>" for one in section.below]
    return parts


def _plot(shown: Plot, spans: Spans) -> str:
    marks = plot.byte_ticks if shown.value is words.size else plot.ticks
    keys = "".join(
        f'<li><svg viewBox="0 0 18 8"><path class="line l{number % plot.COLOURS}" d="M2 4H16"/></svg>'
        f"{as_html(name)}</li>"
        for number, (name, _) in enumerate(shown.lines)
    )
    plain = len(shown.lines) == 1 and shown.lines[0][0].lower() == shown.title.lower()
    key = "" if plain else f"<ul class=key>{keys}</ul>"
    drawn = plot.lines(shown.title, shown.lines, spans, shown.value, marks)
    return f"<figure><h3>{as_html(shown.title)}</h3>{drawn}{key}</figure>"


def _table(table: Table, spans: Spans) -> str:
    sparks = bool(table.sparks)
    heads = "".join(
        f"<th{' class=n' if number >= table.words_first else ''}>{as_html(text)}</th>"
        + ("<th></th>" if sparks and number == 0 else "")
        for number, text in enumerate(table.head)
    )
    lines = [
        f"<div class=wide><table><thead><tr>{heads}</tr></thead><tbody>"
        if any(table.head)
        else "<div class=wide><table><tbody>"
    ]
    for number, row in enumerate(table.rows):
        small = ""
        if sparks:
            small = f"<td class=s>{plot.spark(table.sparks[number], spans) if number < len(table.sparks) else ''}</td>"
        state = table.states[number] if table.states else None
        cells = [_cell(table, column, text, state) for column, text in enumerate(row)]
        cells.insert(1, small)
        last = sparks and number >= len(table.sparks)
        lines.append(f"<tr{' class=sum' if last else ''}>{''.join(cells)}</tr>")
    lines.append("</tbody></table></div>")
    return "".join(lines)


def _cell(table: Table, column: int, text: str, state: State | None) -> str:
    if column >= table.words_first:
        kind = "n"
    elif column == 0:
        kind = "first"
    else:
        kind = ""
    if state is not None and text.startswith(telling.STATES[state]) and column:
        kind = f"{kind} {state}".strip()
    return f'<td class="{kind}">{as_html(text)}</td>' if kind else f"<td>{as_html(text)}</td>"
