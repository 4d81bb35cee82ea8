"""The table of pods, line for line as kubectl top pods prints it."""

from __future__ import annotations

import pytest

from collector.model import Tally
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.table import Sort, Usage, cpu_text, memory_text, render, sort_usages, usages
from tests.support import collector_over, recording

MEASURED = (
    # Of the metrics API's pods.json in frame 148 of parity-1hz: nanocores and Ki.
    ("social", "compose-post-service-5b5567474b-lgcz9", "compose-post-service", 158982883, 388),
    ("social", "user-timeline-service-df4d786f8-nnbtl", "exporter", 12049140, 372),
    ("social", "user-timeline-service-df4d786f8-nnbtl", "user-timeline-service", 13240804, 20940),
    ("team-a", "churn-85479d8bb-v9phh", "main", 0, 236),
    ("team-b", "burner", "burn", 99566144, 256),
    ("team-c", "pagecache", "main", 1778606, 6452),
    ("team-c", "tmpfs", "main", 0, 49520),
    ("team-c", "tmpfs", "second", 0, 248),
)
ROWS = [Usage(namespace, pod, name, nano / 1e9, kibi * 1024) for namespace, pod, name, nano, kibi in MEASURED]

# The same lines of kubectl_top_pods_containers.txt beside it; kubectl pads the last column with blanks, podtally not.
KUBECTL = """\
NAMESPACE   POD                                     NAME                    CPU(cores)   MEMORY(bytes)
social      compose-post-service-5b5567474b-lgcz9   compose-post-service    159m         0Mi
social      user-timeline-service-df4d786f8-nnbtl   exporter                13m          0Mi
social      user-timeline-service-df4d786f8-nnbtl   user-timeline-service   14m          20Mi
team-a      churn-85479d8bb-v9phh                   main                    0m           0Mi
team-b      burner                                  burn                    100m         0Mi
team-c      pagecache                               main                    2m           6Mi
team-c      tmpfs                                   main                    0m           48Mi
team-c      tmpfs                                   second                  0m           0Mi
"""


def test_the_table_is_kubectls() -> None:
    """The metrics API's values give the text that kubectl printed of them, with -A and --containers."""
    assert render(ROWS, containers=True, namespaces=True) == KUBECTL


def test_a_namespace_needs_no_column() -> None:
    """Without -A kubectl leaves the namespace out; without --containers the pod's column is NAME."""
    rows = [Usage("team-b", "burner", "", 0.099566144, 262144)]

    assert render(rows, containers=False, namespaces=False) == (
        "NAME     CPU(cores)   MEMORY(bytes)\nburner   100m         0Mi\n"
    )


def test_heads_can_be_left_out() -> None:
    """--no-headers leaves the values' own widths."""
    assert render([Usage("n", "p", "", 0.001, 1 << 20)], containers=False, namespaces=True, headers=False) == (
        "n   p   1m   1Mi\n"
    )


def test_no_rows_and_no_heads_are_no_text() -> None:
    """Nothing to print is nothing, not an empty line."""
    assert render([], containers=False, namespaces=True, headers=False) == ""


@pytest.mark.parametrize(
    ("nanocores", "text"),
    [
        ((0,), "0m"),
        ((1,), "1m"),
        ((1_000_000,), "1m"),
        ((1_000_001,), "2m"),
        ((400_016, 400_016, 400_016), "2m"),
        ((999_999, 1), "1m"),
        ((15_999_999_999,), "16000m"),
    ],
)
def test_millicores_are_rounded_up(nanocores: tuple[int, ...], text: str) -> None:
    """Kubectl adds nanocores up and rounds the sum up once."""
    assert cpu_text(sum(one / 1e9 for one in nanocores)) == text


def test_parts_of_a_nanocore_are_dropped() -> None:
    """The metrics API knows whole nanocores: half of one more is not rounded up to a millicore."""
    assert cpu_text(0.0010000005) == "1m"


@pytest.mark.parametrize(
    ("value_bytes", "text"),
    [(0, "0Mi"), (1_048_575, "0Mi"), (1_048_576, "1Mi"), (50_708_480, "48Mi"), (None, "<unknown>")],
)
def test_mebibytes_are_rounded_down(value_bytes: int | None, text: str) -> None:
    """Kubectl divides by 1024 * 1024 and drops the rest."""
    assert memory_text(value_bytes) == text


@pytest.mark.parametrize(("by", "order"), [("name", "abcd"), ("cpu", "bcad"), ("memory", "acdb")])
def test_the_greatest_come_first(by: Sort, order: str) -> None:
    """By CPU or memory the greatest is first, equals go by name, and what is absent is last."""
    rows = [
        Usage("n", "d", "", None, 1),
        Usage("n", "c", "", 0.1, 2),
        Usage("n", "b", "", 0.1, None),
        Usage("n", "a", "", 0.0, 3),
    ]

    assert "".join(row.pod for row in sort_usages(rows, by)) == order


def last_tally(fixture: str) -> Tally:
    """The tally of the last frame."""
    tree = RecordedTree(recording(fixture))
    return list(collector_over(tree, RecordedAnswers(tree)).tallies())[-1]


def test_a_pods_line_is_the_sum_of_its_containers() -> None:
    """Of a layout made to be checked by hand: 50m + 30m of web, 100m of the Guaranteed db."""
    tally = last_tally("cri-dockerd")

    assert render(usages(tally, containers=False), containers=False, namespaces=True) == (
        "NAMESPACE   NAME   CPU(cores)   MEMORY(bytes)\n"
        "team-a      web    80m          15Mi\n"
        "team-b      db     100m         18Mi\n"
    )


def test_only_running_pods_have_lines() -> None:
    """Kubectl prints no pod whose containers have all ended."""
    tally = last_tally("systemd-containerd.tar.zst")

    shown = {(row.namespace, row.pod) for row in usages(tally, containers=False)}
    running = {(pod.pod.namespace, pod.pod.name) for pod in tally.pods if pod.containers and pod.pod.phase == "Running"}
    assert shown == running
    assert len(shown) < len(tally.pods)
