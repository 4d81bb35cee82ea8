"""Which metrics and labels an expression names: enough of PromQL's grammar for that, and no more."""

from __future__ import annotations

import re
from typing import NamedTuple

from collector.metrics.catalogue import BY_NAME, Metric

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|(?P<comment>\#[^\n]*)|(?P<variable>\$\w+|\$\{[^}]*\})"""
    r"""|(?P<number>\d[\w.]*)|(?P<name>[A-Za-z_:][\w:]*)|(?P<sign>=~|!~|!=|==|>=|<=|\S)"""
)
_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan", "atan2"}

TARGET_LABELS = frozenset({"job", "instance", "node"})
"""What the scrape configuration gives to each series."""


class Named(NamedTuple):
    """What an expression names."""

    metrics: frozenset[str]
    labels: frozenset[str]


def names(expression: str) -> Named:
    """The metrics and the labels of an expression; strings, durations, functions and variables left aside.

    >>> sorted(names('sum by (pod) (rate(a_total{b=~"c"}[5m])) / on (pod) group_left (d) e offset 1h').metrics)
    ['a_total', 'e']
    >>> sorted(names('sum by (pod) (rate(a_total{b=~"c"}[5m])) / on (pod) group_left (d) e offset 1h').labels)
    ['b', 'd', 'pod']
    """
    tokens = [(one.lastgroup, one.group()) for one in _TOKEN.finditer(expression) if one.lastgroup != "comment"]
    metrics: set[str] = set()
    labels: set[str] = set()
    in_braces = in_list = in_range = False
    for index, (kind, text) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        before = tokens[index - 1][1] if index else ""
        if kind == "sign":
            in_range = text == "[" or (in_range and text != "]")
            in_braces = text == "{" or (in_braces and text != "}")
            in_list = (text == "(" and before in _LISTS) or (in_list and text != ")")
        elif kind == "name" and not in_range:
            if in_braces or in_list:
                labels.add(text)
            elif following not in ("(", "by", "without") and text not in _LISTS | _WORDS:
                metrics.add(text)
    return Named(frozenset(metrics), frozenset(labels))


def unknown(expression: str, *, also: dict[str, frozenset[str]]) -> list[str]:
    """Metrics that are neither in the catalogue nor in ``also`` (labels by name), and labels that none of them has."""
    named = names(expression)
    lost = sorted(name for name in named.metrics if name not in also and _family(name) is None)
    known = set(TARGET_LABELS)
    for name in named.metrics:
        row = _family(name)
        known |= also.get(name, frozenset()) | (frozenset(row.labels) if row is not None else frozenset())
    return lost + [f"{{{label}}}" for label in sorted(named.labels - known)]


def _family(name: str) -> Metric | None:
    """The catalogue's row of a series, those of a summary included."""
    return BY_NAME.get(name) or BY_NAME.get(re.sub(r"_(?:sum|count)$", "", name))
