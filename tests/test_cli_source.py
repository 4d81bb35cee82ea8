"""The program with ``--source``: end to end against a kubelet and an API server, on recordings, and refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from tests.helpers import certificate, environment, free_port, podtally, served_in_thread, started, wait_until
from tests.support import FIXTURES, small_recording, write_files
from tests.test_cli import fetched, told
from tests.upstream.test_collect import listed, measured_by_api, pod, sampled

REAL = FIXTURES / "systemd-containerd.tar.zst"
LISTEN = ("--listen", "127.0.0.1:0")


class Cluster:
    """A kubelet and an API server in one: answers by path, with times of now, and remembers who asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.refused: set[str] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer, or refuse as the API server does."""
        self.asked.append((request.path, request.headers.get("Authorization")))
        if request.path in self.refused:
            return web.json_response({"kind": "Status", "message": f"{request.path} is forbidden"}, status=403)
        if request.path in ("/pods", "/api/v1/namespaces/a/pods"):
            return web.json_response(listed(pod("p", "x", "y")))
        if request.path == "/stats/summary":
            return web.json_response(now(sampled(0, ("p", {"x": 1500, "y": 500}))))
        if request.path == "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods":
            return web.json_response(now(measured_by_api(0, ("p", {"x": 16, "y": 2}))))
        return web.json_response({"kind": "Status", "message": "not found"}, status=404)


def now(answer: object) -> object:
    """The answer with its times moved into the present: what is old is not served."""
    text = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.loads(json.dumps(answer).replace("2026-11-23T06:06:40Z", text))


def paths(cluster: Cluster) -> set[str]:
    """What was asked for."""
    return {path for path, _ in cluster.asked}


def test_serve_is_made_of_the_kubelets_summary(tmp_path: Path) -> None:
    """No cgroup is read: the kubelet is asked over verified TLS with the token, for its pods and its summary alone."""
    shown, token, cluster = certificate(tmp_path), tmp_path / "token", Cluster()
    token.write_text("secret")
    with served_in_thread(cluster.handle, shown.server) as url:
        flags = ["--kubelet-url", url, "--kubelet-ca-file", shown.ca_file, "--token-file", str(token)]
        with started("serve", "--source", "summary", *flags, *LISTEN, PODTALLY_CGROUP_ROOT="/nowhere") as running:
            wait_until(told(f"{running.url}/readyz", "ok\nthe kubelet's /stats/summary: ok, asked "))
            wait_until(told(f"{running.url}/metrics", "pod_memory_usage_bytes{"))
            lines = fetched(f"{running.url}/metrics")[1].splitlines()
            resource = fetched(f"{running.url}/metrics/resource")
            loaded = {Path(file.path).name for file in psutil.Process(running.pid).memory_maps()}
            status = running.terminate()

    assert status == 0
    assert set(cluster.asked) == {("/pods", "Bearer secret"), ("/stats/summary", "Bearer secret")}
    assert 'pod_memory_usage_bytes{namespace="a",pod="p"} 4.194304e+06' in lines
    assert 'pod_container_cpu_usage_seconds_total{container="x",namespace="a",pod="p"} 1.5' in lines
    assert 'podtally_source_info{source="summary"} 1.0' in lines
    assert not [line for line in lines if line.startswith(("podtally_cgroups", "podtally_files", "pod_overhead"))]
    assert (resource[0], 'pod_cpu_usage_seconds_total{namespace="a",pod="p"} 2.0 ' in resource[1]) == (200, True)
    assert not [name for name in loaded if any(word in name for word in ("zstd", "yaml", "_bcrypt"))]


def test_serve_is_made_of_the_metrics_api(tmp_path: Path) -> None:
    """One namespace is asked for, nothing of the cluster and no kubelet; its pods are what kubectl top prints."""
    shown, cluster = certificate(tmp_path), Cluster()
    with served_in_thread(cluster.handle, shown.server) as url:
        flags = ["--apiserver-url", url, "--kubelet-ca-file", shown.ca_file, "-n", "a"]
        with started("serve", "--source", "metrics-api", *flags, *LISTEN) as running:
            wait_until(told(f"{running.url}/metrics", "pod_cpu_usage_cores{"))
            ready = fetched(f"{running.url}/readyz")
            lines = fetched(f"{running.url}/metrics")[1].splitlines()
            table = podtally("top", "--once", "--url", running.url)
            refused = fetched(f"{running.url}/metrics/resource")[0]

    assert paths(cluster) == {"/api/v1/namespaces/a/pods", "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods"}
    assert (ready[0], ready[1].splitlines()[2:]) == (200, ["names: apiserver", "kubelet: not asked", "API server: ok"])
    assert 'pod_cpu_usage_cores{namespace="a",pod="p"} 0.018000000000000002' in lines
    assert table.stdout.splitlines()[1].split() == ["a", "p", "18m", "4Mi"]
    assert refused == 404
    assert "asking the metrics API every 10 s for the pods of a: look at" in "".join(running.lines)


def test_a_missing_right_is_told_with_what_gives_it(tmp_path: Path) -> None:
    """Without the right there are names and no numbers: 503 and a sentence, in /readyz, the log and the doctor."""
    shown, cluster = certificate(tmp_path), Cluster()
    cluster.refused = {"/apis/metrics.k8s.io/v1beta1/namespaces/a/pods"}
    with served_in_thread(cluster.handle, shown.server) as url:
        flags = ["--source", "metrics-api", "--apiserver-url", url, "--kubelet-ca-file", shown.ca_file, "-n", "a"]
        with started("serve", *flags, *LISTEN) as running:
            wait_until(told(f"{running.url}/readyz", "is forbidden"))
            status, text = fetched(f"{running.url}/readyz")
            wait_until(lambda: any(" WARNING " in line for line in running.lines))
            logged = [line for line in running.lines if " WARNING " in line]
        doctor = podtally("doctor", *flags)

    assert (status, text.splitlines()[0]) == (503, "not ready: nothing to serve")
    sentence = (
        "HTTP 403: /apis/metrics.k8s.io/v1beta1/namespaces/a/pods is forbidden (podtally's account needs list"
        " on pods.metrics.k8s.io, as daemonset/overlays/source-metrics-api gives it in its namespace)"
    )
    assert sentence in text
    assert [sentence in line for line in logged] == [True]
    assert (doctor.returncode, doctor.stderr) == (1, "")
    assert doctor.stdout.splitlines() == [
        f"FAULT the metrics API does not answer: {sentence}",
        "ok    the API server names the pods",
    ]


def test_the_doctor_of_a_good_upstream() -> None:
    """On a recording the last answers are looked at."""
    done = podtally("doctor", "--source", "summary", "--recording", REAL)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok    the kubelet's /stats/summary answers",
        "ok    the kubelet names the pods",
        "ok    the API server names the pods",
        "ok    13 pods with running containers",
    ]


def test_the_doctor_asks_the_kubelet(tmp_path: Path) -> None:
    """Names and summary are asked for once, and what is amiss is told with the next step."""
    shown, cluster = certificate(tmp_path), Cluster()
    cluster.refused = {"/pods"}
    with served_in_thread(cluster.handle, shown.server) as url:
        done = podtally("doctor", "--source", "summary", "--kubelet-url", url, "--kubelet-ca-file", shown.ca_file)
    away = f"https://127.0.0.1:{free_port()}"
    gone = podtally("doctor", "--source", "summary", "--kubelet-url", away, "--kubelet-ca-file", shown.ca_file)

    assert done.stdout.splitlines() == [
        "ok    the kubelet's /stats/summary answers",
        "FAULT the kubelet does not name the pods: HTTP 403: /pods is forbidden",
        "      -> grant get on nodes/pods, as daemonset/overlays/source-summary does",
    ]
    assert gone.stdout.splitlines()[:2] == [
        f"FAULT the kubelet's /stats/summary does not answer: {away} cannot be reached: Connection refused",
        "      -> see that the kubelet runs, and listens where --kubelet-url says, on port 10250 as a rule",
    ]
    assert (done.returncode, gone.returncode) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("serve", "--source", "metrics-api"),
            "podtally serve: --source metrics-api asks for the pods of a namespace, and there is no service account to"
            " tell podtally's own: give --namespace NS, or --all-namespaces\n",
        ),
        (
            ("serve", "--source", "metrics-api", "-A"),
            "podtally serve: --source metrics-api asks the API server, and none is known: give --apiserver-url\n",
        ),
        (
            ("replay", FIXTURES / "static-pod", "--source", "summary"),
            f"podtally replay: {FIXTURES / 'static-pod'} has no kubelet/stats_summary.json, which --source summary is"
            " made of: record it with an account that may read it, as the overlay verify gives it\n",
        ),
    ],
)
def test_what_a_source_lacks_is_one_sentence(arguments: tuple[str | Path, ...], said: str) -> None:
    """Exit 2, and what to give."""
    done = podtally(*arguments)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_a_replay_of_an_upstream_prints_and_backfills(tmp_path: Path) -> None:
    """Once prints the exposition of the last frame, --openmetrics has the samples of all."""
    second = 1_000_000_000
    begun = 1_795_414_000 * second
    files = {
        "kubelet/pods.json": json.dumps(listed(pod("p", "x"))).encode(),
        "metrics-api/pods.json": json.dumps(measured_by_api(0, ("p", {"x": 16}))).encode(),
    }
    frames = [{"time_ns": begun + at * second, "monotonic_ns": at * second} for at in (1, 6)]
    made = write_files(tmp_path / "made", small_recording(*frames, files=files))
    once = podtally("replay", made, "--source", "metrics-api", "--once")
    backfill = podtally("replay", REAL, "--source", "summary", "--openmetrics", "-")

    assert [line for line in once.stdout.splitlines() if line.startswith(("pod_cpu", "pod_memory"))] == [
        'pod_cpu_usage_cores{namespace="a",pod="p"} 0.016',
        'pod_memory_usage_bytes{namespace="a",pod="p"} 2.097152e+06',
    ]
    assert 'podtally_upstream_sample_age_seconds{of="oldest"} 6.0' in once.stdout.splitlines()
    assert backfill.stdout.endswith("# EOF\n")
    assert backfill.stdout.count('\npod_memory_usage_bytes{namespace="team-b",pod="burner"}') == 8


def test_a_served_replay_of_an_upstream_is_of_now() -> None:
    """The page, the probes and the JSON of a replay; nothing of it is in the future."""
    with started("replay", REAL, "--source", "summary", "--speed", "20", *LISTEN) as running:
        wait_until(told(f"{running.url}/metrics", "pod_cpu_usage_cores{"))
        found = json.loads(fetched(f"{running.url}/api/v1/pods")[1])
        page = fetched(f"{running.url}/")

    assert all(pod["sample"]["time"] <= found["time"] for pod in found["pods"] if pod["sample"])
    assert (page[0], "the kubelet&#x27;s /stats/summary" in page[1]) == (200, True)


def test_cgroups_alone_do_not_import_other_sources() -> None:
    """What a source does not need costs nothing on every node."""
    code = "import collector.cli, sys; print(*sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert not [name for name in done.stdout.split() if name.startswith(("collector.upstream", "collector.sources.up"))]
