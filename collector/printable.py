r"""Text of others as it is shown: what a terminal or a reader of lines would take for a command is written out.

Names, labels, messages and answers come from tenants, kubelets, recordings and URLs. An ESC in one of them sets titles
and clipboards, a newline forges a row, a bidirectional control turns a name around. kubectl writes ESC as ``^[`` and CR
as ``\r`` (``k8s.io/cli-runtime/pkg/printers/terminal.go``), and cuts cells at a newline; here everything that Unicode
calls a control, a format character, a separator of lines, a surrogate or unassigned is written as Python writes it.
What is data for programs (expositions, JSON) is escaped by its own format and not here.
"""

from __future__ import annotations

import logging
from html import escape


def printable(text: str) -> str:
    r"""The text on one line, with nothing in it that a terminal obeys. What is printable, wide or not, stays as it is.

    >>> printable("web-0"), printable("a\x1b[2Jb\nc"), printable("\u202egnp.exe")
    ('web-0', 'a\\x1b[2Jb\\nc', '\\u202egnp.exe')
    """
    # What repr() leaves as it is: the test costs nothing, as nearly all text passes it.
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def paragraph(text: str) -> str:
    r"""The text on as many lines as it has, those after the first set in: none passes for a message of its own.

    >>> print(paragraph("no answer\x07\n  -> look at it\npodtally top: all is well"))
    no answer\x07
      -> look at it
      podtally top: all is well
    """
    first, *others = text.split("\n")
    return "\n".join((printable(first), *(_set_in(printable(line)) for line in others)))


def _set_in(line: str) -> str:
    return line if not line or line.startswith("  ") else f"  {line}"


def as_html(text: str) -> str:
    r"""The text as HTML shows it, letter by letter, within an element or a quoted attribute.

    >>> as_html("<b>\u202e")
    '&lt;b&gt;\\u202e'
    """
    return escape(printable(text))


class LogFormatter(logging.Formatter):
    """Log lines: a message is one line whatever stands in it; a traceback is set in below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line of a record."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        """The traceback, whose last lines are the error's own words."""
        return paragraph(f"\n{super().formatException(ei)}")[1:]  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        """Where the record was made."""
        return paragraph(f"\n{super().formatStack(stack_info)}")[1:]
