"""A report as Markdown. Pure."""

from __future__ import annotations

import re
from typing import Final

from collector.loadtest import telling
from collector.loadtest.model import Report
from collector.loadtest.telling import Section, Table
from collector.printable import printable


def render(report: Report) -> str:
    """The whole document."""
    parts = [f"# {_text(telling.title(report))}", " ".join(_line(one) for one in telling.lead(report))]
    for section in telling.sections(report):
        parts += _section(section)
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}"]
    if section.table is None and len(section.sentences) > 1:
        parts.append("\n".join(f"- {_line(one)}" for one in section.sentences))
    elif section.sentences:
        parts.append(" ".join(_line(one) for one in section.sentences))
    if section.table is not None:
        parts.append(_table(section.table))
    if section.below:
        parts.append(" ".join(_line(one) for one in section.below))
    return parts


_SPECIAL: Final = re.compile(r"[\\`*_\[\]|~]")
_BEGINS: Final = re.compile(r"\s*(?:[-+#=>]|\d+[.)])")
"""What at the beginning of a line is a list, a heading, a rule or a quotation."""


def _text(text: str) -> str:
    r"""Text of somebody's as Markdown shows it, letter by letter: neither markup nor HTML, on one line.

    Of ``<`` and ``&`` the entities: there are readers that take HTML out of Markdown before they look at a backslash.

    >>> _text("<b>_x_ | [y](z)")
    '&lt;b>\\_x\\_ \\| \\[y\\](z)'
    """
    return _SPECIAL.sub(r"\\\g<0>", printable(text)).replace("&", "&amp;").replace("<", "&lt;")


def _line(text: str) -> str:
    r"""Likewise where a line begins.

    >>> _line("# no heading"), _line("1. no list"), _line("2 pods")
    ('\\# no heading', '1\\. no list', '2 pods')
    """
    shown = _text(text)
    begins = _BEGINS.match(shown)
    return shown if begins is None else f"{shown[: begins.end() - 1]}\\{shown[begins.end() - 1 :]}"


def _table(table: Table) -> str:
    rule = ["---" if number < table.words_first else "---:" for number in range(len(table.head))]
    lines = [list(table.head), rule, *([_text(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
