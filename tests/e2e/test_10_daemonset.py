"""The DaemonSet as it is shipped, on a real kubelet."""

from __future__ import annotations

import pytest

from tests.e2e import pace
from tests.e2e.cluster import collector_process, get, kubectl, node
from tests.e2e.observing import of_collector, of_kubelet, samples, series
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.short


def test_it_runs_unprivileged_under_the_security_context_that_it_ships() -> None:
    """The kernel's own account of the process: uid, capabilities, seccomp, no new privileges, read-only root."""
    process = collector_process()
    status = node(f"cat /proc/{process}/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert found["Uid"].split() == ["65534"] * 4
    assert (found["CapEff"].strip(), found["CapBnd"].strip()) == ("0" * 16, "0" * 16)
    assert (found["Seccomp"].strip(), found["NoNewPrivs"].strip()) == ("2", "1")


def test_its_account_may_read_pods_and_no_more() -> None:
    """What the API server says that the ServiceAccount may do."""
    asked = [
        ("get", "nodes", "pods"),
        ("list", "pods", ""),
        ("get", "nodes", "proxy"),
        ("get", "nodes", "metrics"),
        ("get", "secrets", ""),
        ("create", "pods", "exec"),
    ]
    may = [which for which in asked if _may(*which)]
    assert may == asked[:2]


def _may(verb: str, resource: str, subresource: str) -> bool:
    account = "--as=system:serviceaccount:podtally:podtally"
    more = [f"--subresource={subresource}"] if subresource else []
    return kubectl("auth", "can-i", verb, resource, *more, account, "-A", check=False).strip() == "yes"


def test_doctor_in_the_pod_finds_nothing_wrong() -> None:
    """`podtally doctor`, run as a person would; a container that starts just then has no name for a moment.

    It notes, and no more, that the base gives it no hostPID to see the pods' networks with.
    """

    def all_ok() -> bool:
        shown = kubectl("-n", "podtally", "exec", "daemonset/podtally", "--", "podtally", "doctor", check=False)
        words = [line.split()[0] for line in shown.splitlines()]
        return words.count("note") == 1 and set(words) == {"ok", "note", "->"}

    wait_for("a doctor who finds nothing", all_ok, 60, every=2)


def test_every_container_of_the_kubelets_page_is_on_ours() -> None:
    """Both pages name the same containers; what starts or ends just now is waited for."""
    wait_for(
        "the same containers as the kubelet",
        lambda: set(samples(of_kubelet("/metrics/resource"))) <= set(samples(of_collector("/metrics/resource"))),
        90,
        every=2,
    )


def test_every_pod_cgroup_of_the_node_has_its_pods_name() -> None:
    """Static, guaranteed, burstable, best-effort and crashing pods alike, under this driver's slices."""

    def named() -> bool:
        living = {
            (pod["metadata"]["namespace"], pod["metadata"]["name"])
            for pod in get("pods", "-A")["items"]
            if pod["status"]["phase"] == "Running"
        }
        found = {
            (dict(labels)["namespace"], dict(labels)["pod"])
            for name, labels in series(of_collector("/metrics"))
            if name == "pod_cgroup_cpu_usage_seconds_total"
        }
        return living == found

    wait_for("a pod_cgroup_* series for each running pod and for no other", named, 60, every=2)


def test_an_oom_kill_is_counted_on_its_pod() -> None:
    """The kernel counts the kill in the pod's cgroup, which outlives the container's."""

    def killed() -> float:
        found = series(of_collector("/metrics"))
        wanted = (("event", "oom_kill"), ("namespace", "team-c"), ("pod", "oom"))
        return found.get(("pod_cgroup_memory_events_total", wanted), 0.0)

    wait_for("an OOM kill of team-c/oom", killed, 120, every=3)


def test_a_burst_of_pods_is_named_and_then_gone() -> None:
    """Twelve pods at once, fewer on a slow node: each is seen, and none stays when they are deleted."""
    number, seconds = pace.current().pods(12, least=4), round(pace.current().seconds(240))
    kubectl("-n", "team-a", "scale", "deployment/churn", f"--replicas={number}")
    kubectl("-n", "team-a", "rollout", "status", "deployment/churn", f"--timeout={seconds}s", timeout=260)

    def churning() -> int:
        return sum(key.pod.startswith("churn-") for key in samples(of_collector("/metrics/resource")))

    wait_for(f"all {number}", lambda: churning() == number, 30, every=1)
    kubectl("-n", "team-a", "scale", "deployment/churn", "--replicas=1")
    wait_for("the end of all but one", lambda: churning() == 1, 90, every=1)
