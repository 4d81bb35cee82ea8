"""The catalogue keeps the rules of naming, and every row has a value."""

from __future__ import annotations

import re

import pytest

from collector.cgroup.files import CONTAINER_FILES, DETAIL_FIELDS, FAST, READING_FIELDS, SLOW, source_of
from collector.metrics.catalogue import CATALOGUE, CONTAINER, POD, Metric
from collector.model import ContainerTally, Details, PodTally, Reading

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


def test_every_value_of_a_container_is_read_of_containers() -> None:
    """A file that is read of pods alone feeds no family of containers."""
    read = {key.field for file in (*FAST, *SLOW) if file.name in CONTAINER_FILES for key in file.keys}
    used = {one.field for metric in CONTAINER for one in metric.series} & (READING_FIELDS | DETAIL_FIELDS)

    assert used <= read | {"cpu_quota_usec"}


def test_pod_series_carry_namespace_and_pod_and_container_series_container_as_well() -> None:
    """Uid and node stand on pod_info alone."""
    for metric in (*POD, *CONTAINER):
        extra = {one.label[0] for one in metric.series if one.label}
        own = {"namespace", "pod"} | ({"container"} if metric.scope == "container" else set())
        assert set(metric.labels) == own | extra
