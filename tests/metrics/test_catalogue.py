"""The catalogue keeps the rules of naming, and every row has a value."""

from __future__ import annotations

import re

import pytest

from collector.cgroup.files import DETAIL_FIELDS, READING_FIELDS, source_of
from collector.errors import UsageError
from collector.metrics.catalogue import (
    ALL_GROUPS,
    CATALOGUE,
    CONTAINER,
    CONTAINER_KILLS,
    DEFAULT_GROUPS,
    ENDED,
    GROUPS,
    POD,
    POD_KILLS,
    Metric,
    groups_of,
)
from collector.model import ContainerTally, Details, Ended, Kills, PodTally, Reading

UNITS = {"seconds", "bytes", "cores", "ratio"}


def named(metric: Metric) -> str:
    """A test's id."""
    return metric.name


def test_names_are_unique() -> None:
    """No name is declared twice."""
    names = [metric.name for metric in CATALOGUE]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", CATALOGUE, ids=named)
def test_name_unit_type_and_help_agree(metric: Metric) -> None:
    """Prometheus' naming: base units, the unit in the name, counters end in _total, help is a sentence."""
    stem = metric.name.removesuffix("_total")

    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
    assert metric.name.startswith(("pod_", "podtally_", "process_"))
    assert metric.name.endswith("_total") == (metric.type == "counter")
    assert metric.unit in UNITS | {""}
    assert not metric.unit or stem.endswith("_" + metric.unit)
    assert metric.unit or stem.rpartition("_")[2] not in UNITS
    assert re.fullmatch(r"[A-Z1].*\.|podtally.*\.", metric.help), metric.help
    assert list(metric.labels) == sorted(metric.labels)
    assert metric.source


@pytest.mark.parametrize("metric", [*POD, *CONTAINER], ids=named)
def test_every_series_has_a_field_of_the_model(metric: Metric) -> None:
    """A row's field is one of the tally's item, of its reading or of its details, and says where it comes from."""
    item = PodTally if metric.scope == "pod" else ContainerTally
    for one in metric.series:
        known = one.field in READING_FIELDS | DETAIL_FIELDS or any(
            hasattr(of, one.field) for of in (item, Reading, Details)
        )
        assert known
        assert metric.formula or source_of(one.field)
    if metric.when:
        assert metric.when in DETAIL_FIELDS


@pytest.mark.parametrize("metric", [*POD_KILLS, *CONTAINER_KILLS, *ENDED], ids=named)
def test_every_series_of_a_name_has_a_field_of_the_model(metric: Metric) -> None:
    """A row of what stays after its cgroup has a field of the tally's item, and says what it is made of."""
    item = Ended if metric.scope == "ended" else Kills
    assert {one.field for one in metric.series} <= set(item._fields)
    assert metric.formula


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        ("default", DEFAULT_GROUPS),
        ("all", ALL_GROUPS),
        ("", frozenset()),
        ("cpu memory", frozenset({"cpu", "memory"})),
        ("default requests", DEFAULT_GROUPS | {"requests"}),
        ("no-info no-oom", DEFAULT_GROUPS - {"info", "oom"}),
        ("all no-cpu cpu no-memory", ALL_GROUPS - {"memory"}),
        ("cpu no-cpu", frozenset()),
    ],
)
def test_groups_are_named_taken_away_and_named_again(words: str, groups: frozenset[str]) -> None:
    """The words of --collect count in their order; what begins with a group taken away begins with the default's."""
    assert groups_of(words.split()) == groups


@pytest.mark.parametrize("word", ["cpus", "no-all", "no-default", "no-", "no-no-cpu", "CPU"])
def test_what_is_no_group_is_told_with_those_that_are(word: str) -> None:
    """One sentence names the word and all groups."""
    with pytest.raises(
        UsageError, match=re.escape(f"--collect: {word!r} is no group of metrics; there are cpu, ")
    ) as told:
        groups_of(["cpu", word])
    assert all(group.name in str(told.value) for group in GROUPS)


def test_pod_series_carry_namespace_and_pod_and_container_series_container_as_well() -> None:
    """Uid and node stand on pod_info alone."""
    for metric in (*POD, *CONTAINER, *POD_KILLS, *CONTAINER_KILLS, *ENDED):
        extra = {one.label[0] for one in metric.series if one.label}
        of_containers = metric.name.startswith("pod_container_")
        own = {"namespace", "pod"} | ({"container"} if of_containers else set())
        assert set(metric.labels) == own | extra
