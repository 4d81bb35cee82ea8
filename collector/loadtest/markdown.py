"""A report as Markdown. Pure."""

from __future__ import annotations

from collector.loadtest import telling
from collector.loadtest.model import Report
from collector.loadtest.telling import Section, Table


def render(report: Report) -> str:
    """The whole document."""
    parts = [f"# {telling.title(report)}", " ".join(telling.lead(report))]
    for section in telling.sections(report):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}"]
    if section.table is None and len(section.sentences) > 1:
        parts.append("\n".join(f"- {_text(one)}" for one in section.sentences))
    elif section.sentences:
        parts.append(" ".join(_text(one) for one in section.sentences))
    if section.table is not None:
        parts.append(_table(section.table))
    if section.below:
        parts.append(" ".join(_text(one) for one in section.below))
    return parts


def _text(text: str) -> str:
    for special in "\\`*_<|":
        text = text.replace(special, f"\\{special}")
    return text


def _table(table: Table) -> str:
    rule = ["---" if number < table.words_first else "---:" for number in range(len(table.head))]
    lines = [list(table.head), rule, *([_text(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
