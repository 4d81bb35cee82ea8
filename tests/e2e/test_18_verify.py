"""``podtally verify`` against the real metrics-server and kubelet: in the pod and from outside, at the same time.

The rights of the overlay are the ClusterRole's alone: the pod goes on, and so do the ten minutes that are watched.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e import pace
from tests.e2e.cluster import deploy, kubectl
from tests.e2e.layout import ADMIN_KUBECONFIG, BIN, HERE, REPO
from tests.e2e.observing import table
from tests.e2e.processes import inside, wait_for

IN_THE_POD = ("-n", "podtally", "exec", "daemonset/podtally", "--", "podtally")
SECONDS = round(pace.current().seconds(150))

Run = subprocess.CompletedProcess[str]


def _run(command: list[str]) -> Run:
    return subprocess.run(inside(command), cwd=REPO, capture_output=True, text=True, check=False, timeout=SECONDS + 250)


def _kubectl(*arguments: str) -> Run:
    """As it ends, whatever it says."""
    wait_for("a way into the pod", lambda: kubectl(*IN_THE_POD, "--version", check=False), 90, every=2)
    return _run([str(BIN / "kubectl"), f"--kubeconfig={ADMIN_KUBECONFIG}", *arguments])


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Run, Run]]:
    """In the pod, and from outside through the API server's proxy with the administrator's kubeconfig, both at the same
    time. The rights are the overlay verify's; those of the base again afterwards.
    """
    deploy(HERE / "manifests" / "podtally-verify")
    span = ("verify", "--json", "--duration", f"{SECONDS}s")
    outside = [sys.executable, "-m", "collector", *span, f"--kubeconfig={ADMIN_KUBECONFIG}"]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(_kubectl, *IN_THE_POD, *span), pool.submit(_run, outside)
        found = asked[0].result(), asked[1].result()
    yield found
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
    if pace.current().is_slow and len({row["source"] for row in compared}) < 3:
        pytest.skip(f"{pace.TOO_SLOW}: a peer gave nothing to compare within {SECONDS} s; {pace.current()}")
    assert {row["source"] for row in compared} == {"metrics-api", "summary", "resource"}
    far = [row for row in rows if row["ratio"] is not None and abs(row["ratio"] - 1) > 0.06]
    assert [row for row in far if not row["reason"]] == []
    pace.enough(sum(row["window"] == "exact" for row in compared), 21, pace.current(), 0, pytest.skip)


def test_without_the_rights_it_says_which_are_missing() -> None:
    """The base has none of the three; the one line that gives them stands beside each."""
    done = _kubectl(*IN_THE_POD, "verify", "--duration", "15s")

    assert done.stdout == ""
    for peer in ("the metrics API", "the kubelet's /stats/summary", "the kubelet's /metrics/resource"):
        assert f"{peer} is left out: HTTP 403: " in done.stderr
    assert done.stderr.count("kubectl apply -k daemonset/overlays/verify") == 3


@pytest.mark.parametrize(("which", "where"), [(0, "in the DaemonSet's pod"), (1, "by a kubeconfig")])
def test_all_three_peers_agree(runs: tuple[Run, Run], which: int, where: str) -> None:
    """Over windows that are known to the millisecond."""
    done = runs[which]
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    _told(f"podtally verify {where}", rows)
    assert [row for row in rows if row["verdict"] == "outside"] == []
    assert done.returncode == 0, done.stderr
    _check(rows)
