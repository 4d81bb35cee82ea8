"""monitoring/prometheus as it is shipped, by its own discovery on a real cluster. Runs last, over what is left."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import deploy, get, kubectl, node
from tests.e2e.layout import BIN, HERE, NODE, REPO
from tests.e2e.observing import fetch, table
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.apart

OVERLAY = HERE / "manifests" / "monitoring"


@pytest.fixture(scope="module", autouse=True)
def monitoring() -> Iterator[None]:
    """Applied as docs/quickstart.md says, into a namespace that is there; all of it is taken away again."""
    deploy()
    kubectl("create", "namespace", "monitoring")
    kubectl("apply", "-k", str(OVERLAY))
    _rolled_out()
    wait_for("the first rates and sums", lambda: query("namespace_workload:pod_cpu_usage_cores:sum"), 180, every=2)
    yield
    kubectl("delete", "-k", str(OVERLAY), "--wait=false")
    kubectl("delete", "namespace", "monitoring", "--wait=true")


def _rolled_out() -> None:
    kubectl("-n", "monitoring", "rollout", "status", "deployment/prometheus", "--timeout=600s", timeout=620)


def pod() -> dict[str, Any]:
    """Prometheus' pod that is not going away."""
    found = get("pods", "-n", "monitoring", "-l", "app.kubernetes.io/name=prometheus")["items"]
    [living] = [one for one in found if "deletionTimestamp" not in one["metadata"]]
    return dict(living)


def ask(path: str) -> Any:
    """The data of Prometheus' API, at its pod's own address."""
    return json.loads(fetch(f"http://{pod()['status']['podIP']}:9090/api/v1/{path}"))["data"]


def query(expression: str) -> list[dict[str, Any]]:
    """The result of an expression now; nothing while it does not answer."""
    try:
        return list(ask(f"query?{urllib.parse.urlencode({'query': expression})}")["result"])
    except OSError:
        return []


def test_promtool_of_that_release_takes_the_configuration_as_it_is() -> None:
    """Nothing in it is replaced here, discovery included."""
    file = REPO / "monitoring" / "prometheus" / "prometheus.yml"
    done = subprocess.run(
        [str(BIN / "promtool"), "check", "config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_finds_the_collector_by_its_node() -> None:
    """One target, up, under the node's name; no address of a pod's is in its labels."""
    [found] = query("up")
    assert found["metric"] == {"__name__": "up", "job": "podtally", "instance": NODE, "node": NODE}
    assert found["value"][1] == "1"


def test_its_account_may_look_for_podtallys_pods_alone() -> None:
    """What the API server says of the ServiceAccount."""
    asked = [("list", "pods", "podtally"), ("list", "pods", "team-a"), ("get", "secrets", "podtally")]
    account = "--as=system:serviceaccount:monitoring:prometheus"
    may = [kubectl("auth", "can-i", *of[:2], "-n", of[2], account, check=False).strip() == "yes" for of in asked]
    assert may == [True, False, False]
    assert kubectl("auth", "can-i", "list", "pods", "-A", account, check=False).strip() == "no"


def test_it_runs_unprivileged() -> None:
    """The kernel's own account of the process: uid, capabilities, seccomp, no new privileges."""
    container = pod()["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    process = node(f"ctr -n k8s.io tasks ls | awk '$1 == \"{container}\" {{print $2}}'").strip()
    found = dict(line.split(":\t", 1) for line in node(f"cat /proc/{process}/status").splitlines() if ":\t" in line)
    assert found["Uid"].split() == ["65534"] * 4
    assert (found["CapEff"].strip(), found["CapBnd"].strip()) == ("0" * 16, "0" * 16)
    assert (found["Seccomp"].strip(), found["NoNewPrivs"].strip()) == ("2", "1")


def test_samples_speak_of_the_pods() -> None:
    """Namespace and pod are those of the pods that run, and not the collector's; nothing is renamed."""
    living = {
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for one in get("pods", "-A")["items"]
        if one["status"]["phase"] == "Running"
    }
    found = [one["metric"] for one in query("pod_cpu_usage_cores")]
    shown = {(labels["namespace"], labels["pod"]) for labels in found}
    table(
        "Prometheus in the cluster",
        ["pods that run", "of them with pod_cpu_usage_cores", "namespaces"],
        [(len(living), len(living & shown), len({namespace for namespace, _ in shown}))],
        file="monitoring.md",
    )
    assert len(living & shown) > len(living) / 2
    assert {namespace for namespace, _ in shown} > {"podtally", "team-a"}
    assert {labels["instance"] for labels in found} == {NODE}
    assert [name for name in ask("labels") if name.startswith("exported_")] == []
    assert {one["metric"]["node"] for one in query("pod_info")} == {NODE}


def test_all_rules_are_loaded_and_evaluate() -> None:
    """Each rule of both files, none with an error."""

    def evaluated() -> list[dict[str, Any]]:
        return [rule for group in ask("rules")["groups"] for rule in group["rules"]]

    wait_for("all rules' first evaluation", lambda: all(rule["health"] != "unknown" for rule in evaluated()), 60)
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated() if rule["health"] != "ok"] == []
    files = (REPO / "monitoring" / "prometheus" / "rules").glob("*.yml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    assert len(evaluated()) == sum(len(group["rules"]) for group in groups)
    assert {one["metric"]["namespace"] for one in query("namespace:pod_memory_usage_bytes:sum")} > {"team-a"}


def test_a_changed_rule_rolls_the_pod(tmp_path: Path) -> None:
    """Another file, another name of its ConfigMap, another pod, which has the new rule; nobody deletes a pod."""
    before = pod()["metadata"]["name"]
    for name in ("monitoring", "tests/e2e/manifests/monitoring"):
        shutil.copytree(REPO / name, tmp_path / name)
    file = tmp_path / "monitoring" / "prometheus" / "rules" / "alerts.yml"
    file.write_text(file.read_text(encoding="utf-8").replace("for: 1m\n", "for: 61s\n", 1), encoding="utf-8")
    kubectl("apply", "-k", str(tmp_path / "tests/e2e/manifests/monitoring"))
    _rolled_out()
    assert pod()["metadata"]["name"] != before

    def durations() -> list[float]:
        try:
            return [rule.get("duration") for group in ask("rules")["groups"] for rule in group["rules"]]
        except OSError:
            return []

    wait_for("the new rule", lambda: 61 in durations(), 60, every=1)
