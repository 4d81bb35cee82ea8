"""The program with ``--fill-from``: against a kubelet, on recordings, and refusals."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from aiohttp import web

from collector.model import STATS_SUMMARY
from tests.filled import Use, answered, summary
from tests.helpers import podtally, served_in_thread, started, wait_until
from tests.replays import write
from tests.support import CASES as RECORDINGS
from tests.support import FIXTURES, LEAF_A, UID, v2_root
from tests.test_cli import fetched, told

NAME = "gvisor-empty-subcontainers"
ELSEWHERE = "5f3c0c6e-9a2e-4d0f-8a39-6a4c1c1f0d0e"
RIGHT = "podtally's account needs get on nodes/stats, as daemonset/overlays/fill-from-summary gives it"


class Kubelet:
    """Answers with a pod whose cgroup is there and, if it is to, with one of a sandboxed runtime that has none."""

    def __init__(self, *, sandboxed: bool, status: int = 200) -> None:
        self.asked: list[str] = []
        self._uids = [(UID, "here", "")] + ([(ELSEWHERE, "boxed", "gvisor")] if sandboxed else [])
        self._status = status

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Names, or numbers of now."""
        self.asked.append(request.path)
        now = datetime.now(timezone.utc)
        if request.path == "/pods":
            return web.json_response({"items": [self._pod(*one) for one in self._uids]})
        if self._status != 200:
            return web.json_response({"kind": "Status", "message": "no right"}, status=self._status)
        return web.json_response(summary(0, int(now.timestamp()) * 10**9, ELSEWHERE, {"c": Use(0.5, 3 << 20)}))

    @staticmethod
    def _pod(uid: str, name: str, runtime_class: str) -> object:
        id_ = LEAF_A if not runtime_class else "e" * 64
        status = {
            "name": "c",
            "containerID": f"containerd://{id_}",
            "state": {"running": {"startedAt": "2023-01-01T00:00:00Z"}},
        }
        spec = {"runtimeClassName": runtime_class} if runtime_class else {}
        return {
            "metadata": {"namespace": "a", "name": name, "uid": uid},
            "spec": spec,
            "status": {"phase": "Running", "containerStatuses": [status]},
        }


def flags(tmp_path: Path, url: str) -> list[str | Path]:
    """Of a program over a made-up cgroup tree and the kubelet."""
    root = v2_root(tmp_path / "cgroup")
    return ["--cgroup-root", root, "--proc-root", tmp_path / "proc", "--kubelet-url", url, "--fill-from", "summary"]


def test_serve_fills_from_the_kubelet(tmp_path: Path) -> None:
    """A pod without cgroups has the kubelet's numbers, and /readyz says so."""
    kubelet = Kubelet(sandboxed=True)
    with (
        served_in_thread(kubelet.handle) as url,
        started("serve", *flags(tmp_path, url), "--listen", "127.0.0.1:0") as running,
    ):
        wait_until(told(f"{running.url}/readyz", "filling in: 1 pod; the kubelet's /stats/summary: ok, asked "))
        page = fetched(f"{running.url}/metrics")[1].splitlines()
        document = json.loads(fetched(f"{running.url}/api/v1/pods")[1])
        html = fetched(f"{running.url}/")[1]

    assert 'pod_memory_usage_bytes{namespace="a",pod="boxed"} 3.145728e+06' in page
    assert "podtally_pods_filled 1.0" in page
    assert "podtally_upstream_up 1.0" in page
    assert {pod["name"]: pod["source"] for pod in document["pods"]} == {"boxed": "summary", "here": "cgroup"}
    assert "The numbers of a/boxed are the kubelet's own" in html


def test_serve_asks_for_nothing_on_a_node_without_such_a_pod(tmp_path: Path) -> None:
    """The names alone are asked for, and /readyz says why."""
    kubelet = Kubelet(sandboxed=False)
    with (
        served_in_thread(kubelet.handle) as url,
        started("serve", *flags(tmp_path, url), "--pods-interval", "1s", "--listen", "127.0.0.1:0") as running,
    ):
        wait_until(told(f"{running.url}/readyz", "ok\n"))
        wait_until(lambda: len(kubelet.asked) >= 4)
        ready = fetched(f"{running.url}/readyz")[1]
        page = fetched(f"{running.url}/metrics")[1]

    assert set(kubelet.asked) == {"/pods"}
    assert "filling in: no pod needs it" in ready.splitlines()
    assert "podtally_pods_filled 0.0" in page
    assert "podtally_upstream" not in page


def test_a_missing_right_is_told_and_nothing_else_suffers(tmp_path: Path) -> None:
    """The pod stays withheld with its reason; the log tells it once, /readyz and the doctor in a sentence."""
    kubelet = Kubelet(sandboxed=True, status=403)
    with served_in_thread(kubelet.handle) as url:
        arguments = flags(tmp_path, url)
        with started("serve", *arguments, "--listen", "127.0.0.1:0") as running:
            wait_until(told(f"{running.url}/readyz", RIGHT))
            status = fetched(f"{running.url}/readyz")[0]
            page = fetched(f"{running.url}/metrics")[1].splitlines()
            wait_until(lambda: any(RIGHT in line for line in running.lines))
            running.terminate()
        doctor = podtally("doctor", *arguments)

    assert status == 200
    assert [RIGHT in line for line in running.lines].count(True) == 1
    assert 'podtally_pods_incomplete{reason="sandboxed"} 1.0' in page
    assert "podtally_upstream_up 0.0" in page
    assert (
        "FAULT no pod can be filled, the kubelet's /stats/summary does not answer: HTTP 403: no right" in doctor.stdout
    )
    assert doctor.returncode == 1


def test_the_doctor_tells_what_is_filled(tmp_path: Path) -> None:
    """Of a node that needs it, once the kubelet has answered."""
    with served_in_thread(Kubelet(sandboxed=True).handle) as url:
        done = podtally("doctor", *flags(tmp_path, url))

    assert "ok    the kubelet's /stats/summary answers, and 1 pod is filled from it: a/boxed\n" in done.stdout


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with the kubelet's numbers of a pod that cgroups tell nothing of."""
    return write(answered(NAME), tmp_path_factory.mktemp("recorded") / "r.tar.zst")


def test_replay_fills_from_the_recording(recorded: Path) -> None:
    """What the kubelet said then."""
    done = podtally("replay", recorded, "--fill-from", "summary", "--once")

    assert 'pod_cpu_usage_cores{namespace="default",pod="gv"} 0.25' in done.stdout.splitlines()


def test_top_fills_from_the_recording(recorded: Path) -> None:
    """As kubectl top would print it."""
    done = podtally("top", "--recording", recorded, "--fill-from", "summary", "--once", "-A")

    assert [line.split() for line in done.stdout.splitlines()[1:]] == [["default", "gv", "250m", "90Mi"]]


def test_verify_compares_nothing_of_a_filled_pod(recorded: Path) -> None:
    """The kubelet's numbers agree with the kubelet's: that is no agreement of podtally's."""
    done = podtally("verify", "--recording", recorded, "--fill-from", "summary", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    assert rows
    assert {(row["ours"], row["verdict"], row["reason"]) for row in rows} == {
        (None, "not-comparable", "filled: its numbers are the kubelet's own")
    }


def test_the_doctor_of_a_recording_tells_what_is_filled(recorded: Path) -> None:
    """And finds no fault with the pod any more."""
    done = podtally("doctor", "--recording", recorded, "--fill-from", "summary")

    assert "FAULT" not in done.stdout
    assert "the kubelet's /stats/summary answers, and 1 pod is filled from it: default/gv\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("replay", RECORDINGS / f"{NAME}.tar.zst", "--fill-from", "summary", "--once"),
            f"podtally replay: {RECORDINGS / NAME}.tar.zst has no {STATS_SUMMARY}, which --fill-from summary is made"
            " of: record it with an account that may read it, as the overlay verify gives it\n",
        ),
        (
            ("replay", FIXTURES / "systemd-containerd.tar.zst", "--fill-from", "summary", "--loop"),
            "podtally replay: --loop moves the frames' times over its seam, --fill-from summary has samples with times"
            " of their own: leave one of them out\n",
        ),
        (
            ("serve", "--source", "summary", "--fill-from", "summary"),
            "podtally serve: --fill-from is of no use with --source summary: leave it out, or choose --source cgroup\n",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments: tuple[str | Path, ...], said: str) -> None:
    """Exit 2, and what to do."""
    done = podtally(*arguments)

    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
