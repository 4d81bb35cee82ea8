"""The JSON: its shape is a contract with scripts and with ``podtally top --url``."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collector.loop import Published
from collector.server.api import document, usages
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.table import Usage, time_text
from collector.table import usages as usages_of_tally
from tests.support import collector_over, recording

SANDBOX_BYTES = (208 + 32) * 1024
"""The pause container of a synthetic layout, and its pod's own kernel memory."""


def published(name: str, frames: int | None = None) -> Published:
    """The tally after so many frames, after all if ``None``."""
    tree = RecordedTree(recording(name))
    tallies = list(collector_over(tree, RecordedAnswers(tree)).tallies())
    return Published(tallies[-1 if frames is None else frames - 1], 0, 0, 0)


def pod_of(name: str, pod: str, frames: int | None = None) -> dict[str, Any]:
    """One pod of the document, as it is read back."""
    found = json.loads(json.dumps(document(published(name, frames))))
    (one,) = [one for one in found["pods"] if one["name"] == pod]
    return dict(one)


def test_the_document_is_as_the_contract_says() -> None:
    """Node, time, window, and where the names come from stand beside the pods."""
    whole = document(published("static-pod"))

    assert [(pod["namespace"], pod["name"]) for pod in whole.pop("pods")] == [
        ("kube-system", "static-web-node1"),
        ("team-a", "db"),
    ]
    assert whole == {
        "node": "node1",
        "source": "cgroup",
        "upstream": None,
        "time": "2023-11-14T22:13:26.000Z",
        "window_seconds": 15.0,
        "names": {
            "source": "apiserver",
            "kubelet": "HTTP 403: Forbidden (user=system:serviceaccount:podtally:podtally, verb=get, resource=nodes,"
            " subresource(s)=[pods proxy])",
            "apiserver": "ok",
        },
    }


def test_a_pod_is_as_the_contract_says() -> None:
    """A pod of 100m and 18 MiB: what kubectl prints, the kernel's account beside it, and their difference."""
    pod = pod_of("static-pod", "db")

    (container,) = pod.pop("containers")
    mebi = 1 << 20
    assert container.pop("cgroup")["memory_usage_bytes"] == 22 * mebi
    assert container == {
        "name": "db",
        "kind": "app",
        "id": container["id"],
        "started": "2023-11-14T22:03:20.000Z",
        "cpu_cores": 0.1,
        "memory_bytes": 18 * mebi,
    }
    assert pod == {
        "namespace": "team-a",
        "name": "db",
        "uid": "2e671d91-3692-4268-b507-55573f7f0113",
        "phase": "Running",
        "qos_class": "Guaranteed",
        "cpu_cores": 0.1,
        "cpu_peak_cores": 0.1,
        "memory_bytes": 18 * mebi,
        "cgroup": {
            "cpu_cores": 0.1,
            "cpu_usage_seconds": 12.63,
            "cpu_throttled_seconds": 0.32,
            "cpu_limit_cores": 0.2,
            "memory_working_set_bytes": 18 * mebi + SANDBOX_BYTES,
            "memory_usage_bytes": 22 * mebi + SANDBOX_BYTES,
            "memory_rss_bytes": 16826368,
            "memory_cache_bytes": 5275648,
            "memory_peak_bytes": 33587200,
            "memory_limit_bytes": 64 * mebi,
            "oom_kills": 0,
        },
        "overhead": {"cpu_cores": 0.0, "memory_bytes": SANDBOX_BYTES},
        "incomplete": None,
        "missing": [],
        "source": "cgroup",
        "sample": None,
    }


def test_what_is_absent_is_null() -> None:
    """Without rates, in the first frame, and without files the keys stand and their values are null."""
    first = pod_of("missing-files", "whole", frames=1)

    assert (first["cpu_cores"], first["overhead"]["cpu_cores"], first["cpu_peak_cores"]) == (None, None, None)
    assert first["cgroup"]["memory_peak_bytes"] is None
    assert first["memory_bytes"] == 18 << 20


def test_a_pod_that_is_not_whole_says_why() -> None:
    """A leaf that nobody names withholds the sums and not the kernel's account."""
    pod = pod_of("missing-files", "half-named")

    assert (pod["incomplete"], pod["cpu_cores"], pod["memory_bytes"]) == ("unnamed_container", None, None)
    assert pod["cgroup"]["memory_working_set_bytes"] is not None


def test_no_limit_is_max() -> None:
    """A cgroup without a limit says so as the kernel does; it is neither null nor a number."""
    assert pod_of("crio-conmon", "batch")["cgroup"]["memory_limit_bytes"] == "max"


@pytest.mark.parametrize("containers", [True, False])
def test_top_reads_what_the_api_writes(containers: bool) -> None:
    """The rows that are read back are those of the tally."""
    shown = published("systemd-containerd.tar.zst")
    written = json.loads(json.dumps(document(shown)))

    assert usages(written, containers=containers) == usages_of_tally(shown.tally, containers=containers)


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"pods": None},
        {"pods": [1]},
        {"pods": [{"phase": "Running", "containers": [1], "namespace": 1, "name": "p", "cpu_cores": 1}]},
        {
            "pods": [
                {
                    "phase": "Running",
                    "containers": [1],
                    "namespace": "n",
                    "name": "p",
                    "cpu_cores": "1",
                    "memory_bytes": 1,
                }
            ]
        },
    ],
)
def test_what_is_not_the_api_is_refused(value: Any) -> None:
    """Another server's JSON is a KeyError or a TypeError, which top makes a sentence of."""
    with pytest.raises((KeyError, TypeError)):
        usages(value, containers=False)


def test_rows_may_have_nulls() -> None:
    """A value that is absent is read back as absent."""
    pod = {
        "phase": "Running",
        "containers": [1],
        "namespace": "n",
        "name": "p",
        "cpu_cores": None,
        "memory_bytes": None,
    }

    assert usages({"pods": [pod]}, containers=False) == [Usage("n", "p", "", None, None)]


def test_times_have_milliseconds_and_a_zone() -> None:
    """A time is RFC 3339 in UTC."""
    assert time_text(1_700_000_000_001_999_999) == "2023-11-14T22:13:20.001Z"
