"""The shipped configuration, but for how targets are found, in a real Prometheus over a replay of a real node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.table import usages
from monitoring import local
from tests.helpers import REPO, free_port, started, wait_until
from tests.monitoring.test_rules import rules
from tests.support import FIXTURES, collector_over, recording

RECORDING = FIXTURES / "systemd-containerd.tar.zst"

WAIT_SECONDS = 120.0
"""How long rates and rules are waited for; on an idle machine they take ten seconds."""

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)"),
    pytest.mark.timeout(300),
]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until Prometheus has come to it."""
    wait_until(condition, WAIT_SECONDS, every=0.25)


class Stack(NamedTuple):
    """A Prometheus, and in it what it has scraped of a collector."""

    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an expression now."""
        return local.query(self.url, expression)

    def get(self, path: str) -> Any:
        """The data of Prometheus' API at a path."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as answer:
            return json.load(answer)["data"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both, with rates and rules evaluated once at least."""
    listen = f"127.0.0.1:{free_port()}"
    with started("replay", RECORDING, "--loop", "--speed", "10", "--listen", "127.0.0.1:0") as replay:
        served = replay.serving(WAIT_SECONDS)
        address = urllib.parse.urlsplit(served).netloc
        config = local.configuration({"node1": address}, scrape_interval="1s", scrape_timeout="1s")
        for job in config["scrape_configs"]:
            assert "scrape_interval" not in job
        with local.prometheus(tmp_path_factory.mktemp("prometheus"), config, listen):
            found = Stack(f"http://{listen}")
            wait_for(lambda: bool(found.query("namespace_workload:pod_cpu_usage_cores:sum")))
            yield found


def test_series_have_the_pods_labels_and_the_nodes_name(stack: Stack) -> None:
    """Namespace and pod are the sample's own; job, instance and node are the target's; nothing is renamed."""
    tree = RecordedTree(recording(RECORDING.name))
    frames = [
        {(row.namespace, row.pod) for row in usages(tally, containers=False)}
        for tally in collector_over(tree, RecordedAnswers(tree)).tallies()
    ]
    found = [one["metric"] for one in stack.query("last_over_time(pod_memory_usage_bytes[10m])")]
    # Some pods come and go: whether a scrape has met one of them is chance.
    assert set.intersection(*frames) <= {(one["namespace"], one["pod"]) for one in found} <= set.union(*frames)
    assert len(set.intersection(*frames)) >= 10
    for labels in found:
        assert labels.keys() - {"__name__"} == {"namespace", "pod", "job", "instance", "node"}
        assert (labels["job"], labels["instance"], labels["node"]) == ("podtally", "node1", "node1")
    renamed = [name for name in stack.get("labels") if name.startswith("exported_")]
    assert renamed == []


def test_the_target_is_the_node(stack: Stack) -> None:
    """`up` outlives a collector's pod: it has no address in it.

    On a busy machine a scrape may take longer than its second: the next one is then looked at.
    """
    wait_for(lambda: [one["value"][1] for one in stack.query("up")] == ["1"])
    [up] = stack.query("up")
    assert up["metric"] == {"__name__": "up", "job": "podtally", "instance": "node1", "node": "node1"}


def test_every_rule_evaluates(stack: Stack) -> None:
    """Prometheus has all rules loaded, and each is evaluated without an error or a warning."""

    def evaluated() -> list[dict[str, Any]]:
        return [rule for group in stack.get("rules")["groups"] for rule in group["rules"]]

    # The last group's turn comes within its 15 s.
    wait_for(lambda: all(rule["health"] != "unknown" for rule in evaluated()))
    found = evaluated()
    assert [rule["name"] for rule in found] == [rule.get("alert") or rule["record"] for rule in rules()]
    assert [(rule["name"], rule.get("lastError")) for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("name", ["pod_cpu_usage_cores", "pod_memory_usage_bytes"])
def test_recorded_sums_are_the_sums(stack: Stack, name: str) -> None:
    """At the moment of an evaluation what is recorded by namespace, and by workload, adds up to what the pods have.

    A scrape of just that moment may come in after the evaluation, or not at all: the next one is then looked at.
    """

    def numbers(expression: str, **at: str) -> list[float]:
        return [float(one["value"][1]) for one in local.query(stack.url, expression, **at)]

    def adds_up() -> bool:
        for moment in numbers(f"max(timestamp(namespace_workload:{name}:sum))"):
            whole, *sums = (
                numbers(f"sum({what})", time=str(moment))
                for what in (name, f"namespace:{name}:sum", f"namespace_workload:{name}:sum")
            )
            return len(whole) == 1 and whole[0] > 0 and all(one == pytest.approx(whole) for one in sums)
        return False

    wait_for(adds_up)
    kept = stack.query(f"last_over_time(namespace_workload:{name}:sum[10m])")
    assert any("workload_name" not in one["metric"] for one in kept), "pods that no workload made"


def test_the_quickstarts_first_queries_are_answered(stack: Stack) -> None:
    """Each curl of the page, at this Prometheus' address, prints a result that is not empty, once a scrape succeeds."""
    page = (REPO / "docs" / "quickstart.md").read_text(encoding="utf-8")
    commands = re.findall(r"^curl -s 127\.0\.0\.1:9090/(\S+) --data-urlencode '([^']+)'$", page, re.MULTILINE)
    assert len(commands) == 3
    for path, form in commands:
        data = urllib.parse.urlencode([tuple(form.split("=", 1))]).encode()

        def answered(url: str = f"{stack.url}/{path}", data: bytes = data) -> bool:
            with urllib.request.urlopen(url, data=data, timeout=10) as answer:
                return bool(json.load(answer)["data"]["result"])

        wait_for(answered)


def test_nothing_fires_that_is_not_so(stack: Stack) -> None:
    """On a collector that works no alert on itself fires."""
    firing = [one["labels"]["alertname"] for one in stack.get("alerts")["alerts"] if one["state"] == "firing"]
    assert [name for name in firing if name.startswith("Podtally")] == []


def test_k6_can_write(stack: Stack) -> None:
    """The receiver of remote writes is there: what is no write is refused by it, not for want of it."""
    request = urllib.request.Request(f"{stack.url}/api/v1/write", data=b"no snappy", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    with refused.value as answer:
        assert answer.code == 400


def test_the_lines_held_ready_are_right(tmp_path: Path) -> None:
    """The commented lines of prometheus.yml, once uncommented, are a configuration that promtool takes."""
    shipped = local.CONFIGURATION.read_text(encoding="utf-8")
    text = re.sub(r"^( *)# ((?:- job|alerting|  ).*)$", r"\1\2", shipped, flags=re.MULTILINE)
    config = yaml.safe_load(text)
    assert [job["job_name"] for job in config["scrape_configs"]] == ["podtally", "cadvisor"]
    assert config["alerting"]["alertmanagers"]
    shared = [(job["kubernetes_sd_configs"], job["relabel_configs"]) for job in config["scrape_configs"]]
    assert shared[0] == shared[1]
    for job in config["scrape_configs"]:
        # Debian builds Prometheus without discovery in Kubernetes.
        del job["kubernetes_sd_configs"]
    config["rule_files"] = [str(local.CONFIGURATION.parent / pattern) for pattern in config["rule_files"]]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    checked = subprocess.run(
        ["promtool", "check", "config", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    assert "2 rule files found" in checked.stdout
