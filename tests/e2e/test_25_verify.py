"""``podtally verify`` against the real metrics-server and kubelet: in the pod, from outside, and all the time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cluster import deploy, kubectl
from tests.e2e.layout import ADMIN_KUBECONFIG, BIN, HERE, REPO
from tests.e2e.observing import of_collector, series, table
from tests.e2e.processes import inside, wait_for

IN_THE_POD = ("-n", "podtally", "exec", "daemonset/podtally", "--", "podtally")
SECONDS = 150


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(inside(command), cwd=REPO, capture_output=True, text=True, check=False, timeout=400)


def _kubectl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As it ends, whatever it says."""
    wait_for("a way into the pod", lambda: kubectl(*IN_THE_POD, "--version", check=False), 90, every=2)
    return _run([str(BIN / "kubectl"), f"--kubeconfig={ADMIN_KUBECONFIG}", *arguments])


@pytest.fixture(scope="module")
def overlay() -> Iterator[None]:
    """The rights of the overlay verify; those of the base again afterwards."""
    deploy(HERE / "manifests" / "podtally-verify")
    yield
    kubectl("-n", "podtally", "set", "env", "daemonset/podtally", "PODTALLY_VERIFY_INTERVAL-")
    deploy()


def _told(title: str, rows: list[dict[str, Any]]) -> None:
    """A line for each peer and quantity."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in rows:
        counts.setdefault((row["source"], row["quantity"]), Counter())[row["verdict"]] += 1
    verdicts = ["agree", "explained", "outside", "not-comparable"]
    table(
        title,
        ["peer", "quantity", *verdicts],
        [(*key, *(count[one] for one in verdicts)) for key, count in sorted(counts.items())],
        file="verify.md",
    )


def _check(rows: list[dict[str, Any]]) -> None:
    assert {row["source"] for row in rows} == {"metrics-api", "summary", "resource"}
    compared = [row for row in rows if row["verdict"] in ("agree", "explained")]
    assert {row["source"] for row in compared} == {"metrics-api", "summary", "resource"}
    assert sum(row["window"] == "exact" for row in compared) > 20
    far = [row for row in rows if row["ratio"] is not None and abs(row["ratio"] - 1) > 0.06]
    assert [row for row in far if not row["reason"]] == []


def test_without_the_rights_it_says_which_are_missing() -> None:
    """The base has none of the three; the one line that gives them stands beside each."""
    done = _kubectl(*IN_THE_POD, "verify", "--duration", "15s")

    assert done.stdout == ""
    for peer in ("the metrics API", "the kubelet's /stats/summary", "the kubelet's /metrics/resource"):
        assert f"{peer} is left out: HTTP 403: " in done.stderr
    assert done.stderr.count("kubectl apply -k daemonset/overlays/verify") == 3


def test_in_the_pod_all_three_peers_agree(overlay: None) -> None:
    """With the overlay's rights, over windows that are known to the millisecond."""
    done = _kubectl(*IN_THE_POD, "verify", "--json", "--duration", f"{SECONDS}s")
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    _told("podtally verify in the DaemonSet's pod", rows)
    assert [row for row in rows if row["verdict"] == "outside"] == []
    assert done.returncode == 0, done.stderr
    _check(rows)


def test_from_outside_it_says_the_same() -> None:
    """Through the API server's proxy, with the administrator's kubeconfig."""
    command = [sys.executable, "-m", "collector", "verify", f"--kubeconfig={ADMIN_KUBECONFIG}", "--json"]
    done = _run([*command, "--duration", f"{SECONDS}s"])
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    _told("podtally verify by a kubeconfig", rows)
    assert [row for row in rows if row["verdict"] == "outside"] == []
    assert done.returncode == 0, done.stderr
    _check(rows)


def test_the_collector_compares_all_the_time(overlay: None) -> None:
    """With --verify-interval the differences are among its metrics, and small."""
    kubectl("-n", "podtally", "set", "env", "daemonset/podtally", "PODTALLY_VERIFY_INTERVAL=30s")
    kubectl("-n", "podtally", "rollout", "status", "daemonset/podtally", "--timeout=300s", timeout=320)

    def differences() -> dict[tuple[str, str], float]:
        return {
            (dict(labels)["quantity"], dict(labels)["statistic"]): value
            for (name, labels), value in series(of_collector("/metrics")).items()
            if name == "podtally_kubelet_difference_ratio"
        }

    wait_for("a comparison of CPU", lambda: ("cpu", "median") in differences(), 180, every=5)
    found = differences()
    table(
        "podtally_kubelet_difference_ratio",
        ["quantity", "statistic", "difference %"],
        [(*key, value * 100) for key, value in sorted(found.items())],
        file="verify.md",
    )
    page = series(of_collector("/metrics"))
    assert found["cpu", "median"] < 0.05
    assert sum(value for (name, _), value in page.items() if name == "podtally_kubelet_outside_containers") == 0
