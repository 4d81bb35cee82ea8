"""The catalogue as Markdown and JSON."""

from __future__ import annotations

import json

from collector.metrics import docs
from collector.metrics.catalogue import CATALOGUE
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


def test_the_stated_number_of_series_is_not_exceeded() -> None:
    """No pod of a real node has more series than the page says a pod costs at the most."""
    tally = last_tally("systemd-containerd.tar.zst")
    lines = NativeExposition(Selection()).render(tally, openmetrics=False).splitlines()
    for pod in tally.pods:
        own = [line for line in lines if f'pod="{pod.pod.name}"' in line]
        assert len(own) <= docs.series_per_pod(len(pod.containers))
