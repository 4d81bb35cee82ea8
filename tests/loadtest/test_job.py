"""The Job of a kustomization, and what has become of it.

The objects are in the API's form and made up: the recordings have no Job of k6's.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from collector.errors import UsageError
from collector.loadtest.job import Status, placed, status
from tests.loadtest.running import LOADTEST, PROFILES

JOB = b"""
kind: Job
metadata: {name: k6-load, namespace: loadtest}
spec: {template: {spec: {containers: [{name: k6, env: [{name: TESTID, valueFrom: {}}, {name: A, value: $(TESTID)}]}]}}}
"""


def pod(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A pod of the Job whose container is in a state."""
    said = {"phase": "Pending", "containerStatuses": [{"name": "k6", "state": state}], **more}
    limits = {"resources": {"limits": {"cpu": "1500m"}}}
    return {
        "metadata": {"name": "k6-load-x", "creationTimestamp": "2026-11-24T08:00:00Z"},
        "spec": {"nodeName": "node1", "containers": [{"name": "k6", **limits}]},
        "status": said,
    }


def of(*pods: dict[str, Any], job: Any = None, **conditions: str) -> Status:
    """The status of a Job with these pods."""
    failed = [{"type": "Failed", "status": "True", "reason": reason} for reason in conditions.values()]
    return status({"status": {"conditions": failed}} if job is None else job, pods, "k6")


def test_variables_are_set_before_those_that_use_them() -> None:
    """$(TESTID) in a variable, as in an argument, is expanded only by what stands before it."""
    found = placed(JOB, "jobs/load", {"TESTID": "load-1", "SCALE": "0.1"})

    env = found.objects[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert (found.namespace, found.name, found.container) == ("loadtest", "k6-load", "k6")
    assert env == [
        {"name": "TESTID", "value": "load-1"},
        {"name": "SCALE", "value": "0.1"},
        {"name": "A", "value": "$(TESTID)"},
    ]


@pytest.mark.parametrize(
    ("manifests", "said"),
    [
        (b"kind: ConfigMap\n", "has 0 Jobs"),
        (JOB + b"---" + JOB, "has 2 Jobs"),
        (b"{", "gives no YAML"),
        (b"kind: Job\nmetadata: {name: x}\n", "its Job has no 'spec'"),
    ],
)
def test_a_kustomization_without_one_job_is_refused(manifests: bytes, said: str) -> None:
    """The sentence says what is wrong with it."""
    with pytest.raises(UsageError, match=said):
        placed(manifests, "jobs/load", {})


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_its_job(profile: str) -> None:
    """Each folder of loadtest/jobs gives the one Job that can be told its run."""
    command = ["kubectl", "kustomize", str(LOADTEST / "jobs" / profile)]
    manifests = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    found = placed(manifests, profile, {"TESTID": "t"})

    assert (found.namespace, found.name, found.container) == ("loadtest", f"k6-{profile}", "k6")


def test_it_is_waited_for_from_the_pod_to_the_container() -> None:
    """No pod, no node, no container: each is said."""
    unplaced = {
        "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
        ]
    }

    assert of().text == "no pod yet"
    assert of(pod({}, **unplaced)).text == "no node takes the pod: 0/1 nodes are available: 1 Insufficient cpu."
    assert of(pod({"waiting": {"reason": "ContainerCreating"}})).text == "ContainerCreating"


def test_what_no_waiting_mends_is_stuck() -> None:
    """An image that is not there does not come by waiting."""
    found = of(pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling\n image"}}))

    assert (found.phase, found.text) == ("stuck", "ImagePullBackOff: Back-off pulling image")


def test_it_runs() -> None:
    """With its beginning, its node and its limit."""
    found = of(pod({"running": {"startedAt": "2026-11-24T08:00:00Z"}}, phase="Running"))

    assert (found.phase, found.node, found.limit_cores, found.started) == ("running", "node1", 1.5, 1795507200.0)


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (99, "Error"), (137, "OOMKilled")])
def test_it_ends(code: int, reason: str) -> None:
    """By the container's exit code and what Kubernetes says of it."""
    times = {"startedAt": "2026-11-24T08:00:00Z", "finishedAt": "2026-11-24T08:14:00Z"}
    found = of(pod({"terminated": {"exitCode": code, "reason": reason, **times}}, phase="Failed"))

    assert (found.phase, found.exit_code, found.ending) == ("ended", code, reason)
    assert (found.finished or 0) - (found.started or 0) == 840


def test_a_deadline_that_passed_is_no_end_of_k6s() -> None:
    """The Job controller ends the pod, whose exit code then says nothing; or it has taken it away."""
    ended = pod({"terminated": {"exitCode": 105, "reason": "Error"}})

    assert of(ended, why="DeadlineExceeded").ending == "DeadlineExceeded"
    assert (of(why="DeadlineExceeded").phase, of(why="DeadlineExceeded").exit_code) == ("ended", None)


def test_an_evicted_pod_has_ended() -> None:
    """Its container tells no code."""
    found = of(pod({}, phase="Failed", reason="Evicted"))

    assert (found.phase, found.exit_code, found.ending) == ("ended", None, "Evicted")


def test_a_job_that_somebody_deleted_has_ended() -> None:
    """It is not waited for any longer."""
    found = status(None, [], "k6")

    assert (found.phase, found.ending) == ("ended", "the Job was deleted")
