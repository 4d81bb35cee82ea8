"""Which metrics and labels a query names, held to the catalogue."""

from __future__ import annotations

import re
from collections.abc import Mapping

import promql_parser
from promql_parser import AggregateExpr, BinaryExpr, Expr, MatrixSelector, VectorSelector

from collector.metrics.catalogue import BY_NAME, Metric

TARGET_LABELS = frozenset({"job", "instance", "node"})
"""What the scrape configuration gives to each series."""


def parts_of(expression: str) -> list[Expr]:
    """All nodes of a query. Raises: ValueError where it is none."""
    found: list[Expr] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return found


def selectors(expression: str) -> list[VectorSelector]:
    """What a query selects, of ranges as well."""
    return [
        one.vector_selector if isinstance(one, MatrixSelector) else one
        for one in parts_of(expression)
        if isinstance(one, VectorSelector | MatrixSelector)
    ]


def metrics(expression: str) -> set[str]:
    """The names of what a query selects."""
    return {one.name or "" for one in selectors(expression)}


def unknown(expression: str, *, also: Mapping[str, frozenset[str]]) -> list[str]:
    """Metrics that are neither in the catalogue nor in ``also``, which has their labels; matchers of labels that their
    metric has not; and labels after by, on and group_left that none of the query's metrics has.
    """
    wrong: list[str] = []
    there = set(TARGET_LABELS)
    for one in selectors(expression):
        name = one.name or ""
        row = _family(name)
        if row is None and name not in also:
            wrong.append(name)
            continue
        labels = TARGET_LABELS | also.get(name, frozenset()) | frozenset(row.labels if row is not None else ())
        wrong += [f"{name}{{{match.name}}}" for match in one.matchers.matchers if match.name not in labels]
        there |= labels
    for node in parts_of(expression):
        named: list[str] = []
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            named += node.modifier.labels
        if isinstance(node, BinaryExpr) and node.modifier is not None:
            named += node.modifier.matching.labels if node.modifier.matching else []
            named += node.modifier.group_labels or []
        wrong += [f"{{{label}}}" for label in named if label not in there]
    return sorted(set(wrong))


def _family(name: str) -> Metric | None:
    """The catalogue's row of a series, those of a summary included."""
    return BY_NAME.get(name) or BY_NAME.get(re.sub(r"_(?:sum|count)$", "", name))
