"""The catalogue as Markdown and JSON."""

from __future__ import annotations

import json
import re

from collector.metrics import docs
from collector.metrics.cadvisor_catalogue import CADVISOR, SCRAPE_ERROR
from collector.metrics.catalogue import CATALOGUE, CONTAINER, POD
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


def test_the_stated_number_of_series_is_not_exceeded() -> None:
    """No pod of a real node has more series than the page says a pod costs at the most."""
    tally = last_tally("systemd-containerd.tar.zst")
    lines = NativeExposition(Selection()).render(tally, openmetrics=False).splitlines()
    for pod in tally.pods:
        own = [line for line in lines if f'pod="{pod.pod.name}"' in line]
        assert len(own) <= docs.series_per_pod(len(pod.containers))
