"""The catalogue as Markdown and JSON."""

from __future__ import annotations

import json
import re

import pytest

from collector.metrics import docs
from collector.metrics.cadvisor_catalogue import CADVISOR, SCRAPE_ERROR
from collector.metrics.catalogue import ALL_GROUPS, CATALOGUE, CONTAINER, DEFAULT_GROUPS, GROUPS, POD, groups_of
from collector.metrics.native import NativeExposition, Selection
from tests.replays import last_tally


def test_every_metric_has_a_row() -> None:
    """Each name is in the page's tables once, with its help, where it comes from and the sources that fill it."""
    page = docs.as_markdown().partition("## Other sources")[0]

    for metric in (*CATALOGUE, *CADVISOR, SCRAPE_ERROR):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{metric.name}` |")]
        assert metric.help.replace("|", "\\|") in row
        assert (" | all | " if len(metric.sources) == 3 else f" | {', '.join(metric.sources)} | ") in row


def test_the_families_of_other_sources_have_a_table() -> None:
    """Each family of a pod or container that an upstream fills is there, with the key of each upstream's answer."""
    table = docs.as_markdown().partition("## Other sources")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))

    assert {name: row.split(" | ") for name, row in rows.items()} == {
        metric.name: [metric.told("summary") or "-", metric.told("metrics-api") or "-"]
        for metric in (*POD, *CONTAINER)
        if metric.sources != ("cgroup",)
    }


def test_the_json_is_the_catalogue() -> None:
    """The JSON has each metric with its page, name, type and labels."""
    rows = json.loads(docs.as_json())

    pages = (("/metrics", CATALOGUE), ("/metrics/cadvisor", (*CADVISOR, SCRAPE_ERROR)))
    assert [(row["path"], row["name"], row["type"], tuple(row["labels"])) for row in rows] == [
        (path, metric.name, metric.type, metric.labels) for path, metrics in pages for metric in metrics
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
