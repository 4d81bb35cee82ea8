"""``podtally verify`` as a program: on recordings, on a node, and through a kubeconfig."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from collector.model import Answer
from tests.helpers import podtally, served_in_thread
from tests.support import FIXTURES, recording, write_files

SYSTEMD = FIXTURES / "systemd-containerd.tar.zst"

KEYS = ("namespace", "pod", "container", "source", "quantity", "ours", "theirs", "ratio", "window", "verdict", "reason")


def written(folder: Path, name: str, *, frames: int, answers: Callable[[Answer], bytes | None]) -> Path:
    """The first frames of a recording, with what ``answers`` makes of each answer; ``None`` leaves it out."""
    recorded = recording(name)
    files: dict[str, bytes] = {"recording.json": recorded.meta.to_json().encode()}
    for number, frame in enumerate(recorded.frames[:frames]):
        at = f"frames/{number:04d}"
        dirs = {path: {"time_ns": one.time_ns, "ino": one.ino} for path, one in frame.dirs.items()}
        head = {"time_ns": frame.instant.time_ns, "monotonic_ns": frame.instant.monotonic_ns, "dirs": dirs}
        files[f"{at}/frame.json"] = json.dumps(head).encode()
        files |= {f"{at}/sys/fs/cgroup/{path}": data for path, data in frame.files.items()}
        bodies = {answer.name: answers(answer) for answer in frame.answers}
        files |= {f"{at}/{answer}": body for answer, body in bodies.items() if body is not None}
    return write_files(folder, files)


def test_a_recording_is_compared_with_the_answers_that_it_holds(tmp_path: Path) -> None:
    """All three peers, nothing outside, exit 0."""
    recorded = written(tmp_path / "r", "parity-1hz.tar.zst", frames=45, answers=lambda answer: answer.body)
    done = podtally("verify", "--recording", recorded)

    assert (done.returncode, done.stderr) == (0, "")
    for peer in ("the metrics API", "the kubelet's /stats/summary", "the kubelet's /metrics/resource"):
        assert f"podtally and {peer}\n" in done.stdout


def test_json_is_an_object_a_line_for_pods_and_containers() -> None:
    """With the keys of the contract."""
    done = podtally("verify", "--recording", SYSTEMD, "--json", "-n", "team-b")
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    assert {key for row in rows for key in row} >= set(KEYS)
    assert {row["namespace"] for row in rows} == {"team-b"}
    assert {row["source"] for row in rows} == {"summary", "resource"}
    assert {row["container"] for row in rows} >= {None, "burn"}


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording, with the kubelet saying that burner has used twice the CPU."""

    def answers(answer: Answer) -> bytes | None:
        kept = answer.name in ("kubelet/pods.json", "kubelet/metrics_resource.txt")
        return _doubled(answer.body or b"") if kept else None

    return written(tmp_path_factory.mktemp("wrong") / "r", SYSTEMD.name, frames=8, answers=answers)


def _doubled(page: bytes) -> bytes:
    lines = page.decode().splitlines(keepends=True)
    for at, line in enumerate(lines):
        if line.startswith('container_cpu_usage_seconds_total{container="burn"'):
            labels, value, time = line.rsplit(" ", 2)
            lines[at] = f"{labels} {float(value) * 2!r} {time}"
    return "".join(lines).encode()


def test_what_disagrees_is_exit_1_and_stands_last(wrong: Path) -> None:
    """With what our readings allow."""
    done = podtally("verify", "--recording", wrong)

    assert done.returncode == 1
    assert "outside: cpu of team-b/burner/burn, the kubelet's /metrics/resource\n  not found: our readings allow " in (
        done.stdout
    )


def test_a_wider_tolerance_lets_it_pass(wrong: Path) -> None:
    """It is the user's to say."""
    assert podtally("verify", "--recording", wrong, "--tolerance", "100%").returncode == 0


def test_a_recording_without_the_peers_answers_says_how_to_make_one() -> None:
    """The base's rights give no more."""
    done = podtally("verify", "--recording", FIXTURES / "oom.tar.zst")

    assert (done.returncode, done.stdout) == (2, "")
    assert "holds no answer of the metrics API or the kubelet to compare with" in done.stderr
    assert "daemonset/overlays/verify" in done.stderr


def test_a_namespace_without_pods_is_told() -> None:
    """An empty table would look like agreement."""
    done = podtally("verify", "--recording", SYSTEMD, "-n", "nowhere")

    assert done.returncode == 2
    assert "no pod in namespace nowhere was seen" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tolerance", "lots"), "'lots' is no share: write 10% or 0.1"),
        (("--tolerance", "0"), "'0' is not above 0 and at most 100%"),
        (("--url", "http://127.0.0.1:1"), "give --kubeconfig FILE too"),
        (("--context", "kind"), "is of --kubeconfig FILE, which is not given"),
        (("--recording", str(SYSTEMD), "--watch"), "take --watch out"),
        (("--recording", str(SYSTEMD), "--kubeconfig", "x"), "take --kubeconfig out"),
        (("--kubeconfig", "/nowhere"), "--kubeconfig /nowhere: there is no such file: give the one that kubectl reads"),
    ],
)
def test_a_wrong_flag_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    """Exit 2, and no traceback."""
    done = podtally("verify", *arguments)

    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- through a kubeconfig


def kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig with a bearer token."""
    file = folder / "config"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
                "clusters": [{"name": "k", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "secret"}}],
            }
        )
    )
    return file


def test_a_cluster_without_podtally_says_how_to_bring_it(tmp_path: Path) -> None:
    """In place of waiting for it."""

    async def empty(_: web.Request) -> web.StreamResponse:
        return web.json_response({"items": []})

    with served_in_thread(empty) as url:
        done = podtally("verify", "--kubeconfig", kubeconfig(tmp_path, url))

    assert done.returncode == 2
    assert done.stderr.endswith("kubectl apply -k daemonset/ brings them\n")


def test_an_api_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With its URL and the reason."""
    done = podtally("verify", "--kubeconfig", kubeconfig(tmp_path, "http://127.0.0.1:9"))

    assert done.returncode == 2
    assert "podtally's pods cannot be listed: http://127.0.0.1:9 does not answer: " in done.stderr


PODS = {
    "items": [
        {
            "metadata": {"namespace": "podtally", "name": "podtally-x"},
            "spec": {"nodeName": "node1", "containers": [{"ports": [{"name": "metrics", "containerPort": 9753}]}]},
            "status": {"phase": "Running"},
        }
    ]
}


def test_missing_rights_to_the_page_are_told_with_the_ways_around(tmp_path: Path) -> None:
    """The right to pods/proxy, or a port-forward."""

    async def forbids(request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer secret"
        if request.path == "/api/v1/pods":
            return web.json_response(PODS)
        return web.json_response({"message": f"cannot get {request.path}"}, status=403)

    with served_in_thread(forbids) as url:
        done = podtally("verify", "--kubeconfig", kubeconfig(tmp_path, url), "--duration", "5s")

    assert done.returncode == 2
    assert (
        "podtally's page is refused: cannot get /api/v1/namespaces/podtally/pods/podtally-x:9753/proxy" in done.stderr
    )
    assert "kubectl -n podtally port-forward daemonset/podtally 9753" in done.stderr


def test_peers_that_refuse_are_named_with_the_line_that_mends_it(tmp_path: Path) -> None:
    """Our page alone is nothing to compare with."""
    page = (
        'container_cpu_usage_seconds_total{container="c",namespace="n",pod="p"} 1 1000\n'
        'container_memory_working_set_bytes{container="c",namespace="n",pod="p"} 1 1000\n'
    )

    async def some(request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v1/pods":
            return web.json_response(PODS)
        if request.path.startswith("/api/v1/namespaces"):
            return web.Response(text=page)
        return web.json_response({"message": "no"}, status=403 if "nodes" in request.path else 404)

    with served_in_thread(some) as url:
        done = podtally("verify", "--kubeconfig", kubeconfig(tmp_path, url), "--duration", "3s")

    assert done.returncode == 2
    assert "the metrics API is left out: HTTP 404: no\n  -> install metrics-server" in done.stderr
    assert "the kubelet's /metrics/resource is left out: HTTP 403: no\n" in done.stderr
    assert "gives get on nodes/proxy" in done.stderr
