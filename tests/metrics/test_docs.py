"""The catalogue as Markdown and JSON."""

from __future__ import annotations

import json

import pytest

from collector.metrics import docs
from collector.metrics.catalogue import ALL_GROUPS, CATALOGUE, DEFAULT_GROUPS, GROUPS, groups_of
from collector.metrics.native import NativeExposition, Selection
from tests.replays import last_tally


def test_every_metric_has_a_row() -> None:
    """Each name is in the page once, with its help and where it comes from."""
    page = docs.as_markdown()

    for metric in CATALOGUE:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` |")]
        assert metric.help.replace("|", "\\|") in row


def test_the_json_is_the_catalogue() -> None:
    """The JSON has each metric with its name, type and labels."""
    rows = json.loads(docs.as_json())

    assert [(row["name"], row["type"], tuple(row["labels"])) for row in rows] == [
        (metric.name, metric.type, metric.labels) for metric in CATALOGUE
    ]


@pytest.mark.parametrize("word", ["default", "all", *(one.name for one in GROUPS)])
def test_the_stated_number_of_series_is_not_exceeded(word: str) -> None:
    """No pod of a real node has more series than the page says that a pod and its containers cost at the most."""
    tally = last_tally("systemd-containerd.tar.zst")
    groups = groups_of([word])
    stated = docs.cost(groups)
    lines = NativeExposition(Selection(groups=groups)).render(tally, openmetrics=False).splitlines()
    for pod in tally.pods:
        own = [line for line in lines if f'pod="{pod.pod.name}"' in line]
        final = sum(line.startswith("pod_container_final_") for line in own)
        containers = {one.name for one in pod.pod.containers.values()}
        assert len(own) - final <= stated.pod + stated.container * len(containers)
        assert final <= stated.ended


def test_a_pod_with_limits_costs_what_is_stated() -> None:
    """A pod of one container with limits of CPU and memory has all series of the groups that are on by default."""
    tally = last_tally("systemd-containerd.tar.zst")
    lines = NativeExposition(Selection()).render(tally, openmetrics=False).splitlines()
    own = [line for line in lines if 'pod="guaranteed"' in line]

    stated = docs.cost(DEFAULT_GROUPS)
    assert len(own) == stated.pod + stated.container


def test_each_group_stands_in_the_page() -> None:
    """A group has its row, with what it costs, and every family names its group."""
    page = docs.as_markdown()

    for group in GROUPS:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{group.name}` |")]
        assert group.what in row
    assert {metric.group for metric in CATALOGUE} == ALL_GROUPS | {""}
