"""The program itself, as a process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from collector import __version__
from collector.metrics.catalogue import BY_NAME
from collector.sources.recording import load
from tests.helpers import (
    DEADLINE_SECONDS,
    Peer,
    certificate,
    environment,
    families,
    free_port,
    podtally,
    served_in_thread,
    started,
    until,
    wait_until,
)
from tests.support import FIXTURES, LEAF_A, LEAF_B, UID, v2_root

HERE = Path(__file__).parent
STATIC = FIXTURES / "static-pod"
REAL = FIXTURES / "systemd-containerd.tar.zst"
TABLE = """\
NAMESPACE     NAME               CPU(cores)   MEMORY(bytes)
kube-system   static-web-node1   50m          10Mi
team-a        db                 100m         18Mi
"""

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def fetched(url: str, **headers: str) -> tuple[int, str]:
    """Status and text of a page."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that was refused has said: one line, on stderr alone, with exit status 2."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr.rstrip()


# --- usage ----------------------------------------------------------------------------------------------------------


def test_the_version_is_told() -> None:
    """--version prints name and version."""
    done = podtally("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"podtally {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "podtally: the following arguments are required: COMMAND; podtally --help tells what there is"),
        (("top", "--contaners"), "podtally top: unknown --contaners; podtally top --help tells what there is"),
        (("serve", "--listen", "9753"), "podtally serve: argument --listen: '9753' is no address: give HOST:PORT or"),
        (
            ("serve", "--collect", "cpu,mem"),
            "podtally serve: --collect: 'mem' is no group of metrics; there are cpu, memory, oom, details, pressure,",
        ),
        (("replay", STATIC, "--linger", "soon"), "podtally replay: argument --linger: 'soon' is no duration: write 1s"),
        (("serve", "--cgroup-root", "/nonexistent"), "podtally serve: cannot read the cgroup root /nonexistent: No"),
        (("top", "--kubelet-url", "https://[::1"), "podtally top: --kubelet-url 'https://[::1' is no URL: give https"),
        (("replay", "/nonexistent"), "podtally replay: cannot read the recording /nonexistent: No such file or dir"),
        (("replay", __file__), f"podtally replay: {__file__} is no recording: neither a directory nor a tar archive"),
        (("replay", HERE), f"podtally replay: {HERE} is no recording: it has neither frames/ nor sys/fs/cgroup/;"),
        (("replay", FIXTURES), f"podtally replay: {FIXTURES} holds more than one recording, 'cgroup-v1/' and "),
        (("replay", FIXTURES / "cgroup-v1"), f"podtally replay: {FIXTURES}/cgroup-v1: sys/fs/cgroup is a cgroup v1"),
        (("record", "/nonexistent/r.tar", "--from", STATIC), "podtally record: cannot write the recording /nonexi"),
        (
            ("replay", STATIC, "--openmetrics", "/nonexistent/x.om"),
            "podtally replay: cannot write /nonexistent/x.om: ther",
        ),
        (("record", STATIC, "--from", STATIC), f"podtally record: {STATIC} is there already: give a new name, or"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: tuple[str | Path, ...], said: str) -> None:
    """Exit 2 and one sentence that names the command, the place and what to do; no traceback."""
    assert one_sentence(podtally(*arguments)).startswith(said)


@pytest.mark.parametrize("name", ["cgroup-v1", "hybrid"])
def test_a_node_without_cgroup_v2_is_one_sentence(name: str) -> None:
    """Serve on a v1 or hybrid tree says so, and how to boot the node."""
    root = FIXTURES / name / "frames/0000/sys/fs/cgroup"
    version = "v1" if name == "cgroup-v1" else "hybrid"

    said = one_sentence(podtally("serve", "--cgroup-root", root, "--listen", "127.0.0.1:0"))

    assert said.startswith(f"podtally serve: {root} is a cgroup {version} tree")
    assert said.endswith("boot the node with systemd.unified_cgroup_hierarchy=1")


def test_a_truncated_recording_is_one_sentence(tmp_path: Path) -> None:
    """A recording that was cut short is refused whole."""
    cut = tmp_path / "cut.tar.zst"
    cut.write_bytes(REAL.read_bytes()[:20_000])

    assert one_sentence(podtally("replay", cut, "--once")).startswith(f"podtally replay: {cut} is truncated")


def test_a_full_disk_is_one_sentence() -> None:
    """What cannot be written for want of space is told as such."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "collector", "metrics"],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stderr) == (
        2,
        "podtally metrics: cannot write: No space left on device; free some, or write elsewhere\n",
    )


def with_a_reader_of_one_byte(arguments: str) -> subprocess.CompletedProcess[str]:
    """The program with a pipe on stdout whose reader goes after a byte."""
    command = f"{sys.executable} -m collector {arguments} --log-level error | head -c 1 >/dev/null"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_recording_whose_reader_has_gone_is_told_to_be_lost() -> None:
    """Record - | head -c 1 is no success, of a recording that no pipe holds: what the reader has is not one."""
    done = with_a_reader_of_one_byte(f"record - --from {REAL}")

    assert (done.returncode, done.stderr) == (
        1,
        "podtally record: the reader of stdout has gone: what it has is not whole\n",
    )


@pytest.mark.parametrize("arguments", ["metrics", f"replay {STATIC} --once"])
def test_a_reader_that_has_enough_is_no_error(arguments: str) -> None:
    """| head -c 1 ends the program in silence."""
    done = with_a_reader_of_one_byte(arguments)

    assert (done.returncode, done.stderr) == (0, "")


def test_metrics_are_told_as_json() -> None:
    """Metrics --json is the catalogue for tools, metrics a page of Markdown."""
    as_json, as_text = podtally("metrics", "--json"), podtally("metrics")

    assert {row["name"] for row in json.loads(as_json.stdout)} >= BY_NAME.keys()
    assert (as_json.stderr, as_text.stderr, as_text.stdout.startswith("#")) == ("", "", True)


def test_the_kubelets_times_are_given_when_asked_for() -> None:
    """/metrics/cadvisor has no times, and with --cadvisor-timestamps each sample but limits and starts has one."""
    plain = podtally("replay", STATIC, "--once", "--path", "/metrics/cadvisor").stdout.splitlines()
    timed = podtally("replay", STATIC, "--once", "--path", "/metrics/cadvisor", "--cadvisor-timestamps").stdout
    ends = {line.partition("{")[0]: line.rpartition("} ")[2].split() for line in timed.splitlines() if "{" in line}

    assert {len(line.rpartition("} ")[2].split()) for line in plain if "{" in line} == {1}
    assert {name for name, words in ends.items() if len(words) == 1} == {
        name for name in ends if name.startswith(("container_spec_", "container_start_time_"))
    }
    assert {words[1][:9] for words in ends.values() if len(words) == 2} == {"170000000"}


# --- replay ---------------------------------------------------------------------------------------------------------


@needs_promtool
@pytest.mark.parametrize("path", ["/metrics", "/metrics/resource", "/metrics/cadvisor"])
def test_promtool_finds_nothing_to_say(path: str) -> None:
    """Promtool check metrics is content with all expositions of a real recording."""
    text = podtally("replay", REAL, "--once", "--path", path).stdout
    assert len(text) > 1000

    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_collect_chooses_families() -> None:
    """--collect exports the groups that it names, and podtally's own account whatever it names."""
    lines = podtally("replay", STATIC, "--once", "--collect", "memory,no-memory,pressure").stdout.splitlines()
    families = {line.split()[2] for line in lines if line.startswith("# TYPE ")}

    assert {name for name in families if name.startswith("pod_")} == {
        f"pod_cgroup_{of}_pressure_seconds_total" for of in ("cpu", "memory", "io")
    }
    assert "podtally_build_info" in families


def test_linger_says_how_long_the_ended_are_told_of() -> None:
    """With --linger 0s a container's last reading is told in the one frame that first lacks it; by default it is there
    for 30 s.
    """
    of_last_frame = (
        podtally("replay", FIXTURES / "churn.tar.zst", "--once", "--linger", linger).stdout for linger in ("0s", "1h")
    )

    assert [text.count("\npod_container_final_cpu_usage_seconds{") for text in of_last_frame] == [0, 2]


def test_once_keeps_recorded_times() -> None:
    """/metrics/resource of replay --once has the time of the last frame, in milliseconds."""
    lines = podtally("replay", STATIC, "--once", "--path", "/metrics/resource").stdout.splitlines()

    assert "node_cpu_usage_seconds_total" in {line.split()[0] for line in lines}
    times = {line.split()[2] for line in lines if not line.startswith("#") and len(line.split()) == 3}
    assert times
    assert all(time.startswith("170000000") for time in times)


def test_openmetrics_go_to_a_file(tmp_path: Path) -> None:
    """Replay --openmetrics FILE writes there, and to stdout for -."""
    file = tmp_path / "samples"

    to_file = podtally("replay", STATIC, "--openmetrics", file)
    to_stdout = podtally("replay", STATIC, "--openmetrics", "-")

    assert (to_file.returncode, to_file.stdout, file.read_text()) == (0, "", to_stdout.stdout)
    assert families(to_stdout.stdout, openmetrics=True)


def test_a_replay_in_a_loop_serves_and_ends_at_once() -> None:
    """Replay --loop serves all paths over its seam, and SIGTERM ends it, held up by nothing, with exit 0."""
    with started("replay", STATIC, "--loop", "--speed", "100", "--listen", "127.0.0.1:0") as running:
        url = running.url
        wait_until(lambda: 'podtally_ticks_total{result="ok"} 2.0' not in fetched(f"{url}/metrics")[1])
        statuses = [
            fetched(url + path)[0] for path in ("/metrics/resource", "/api/v1/pods", "/", "/healthz", "/readyz")
        ]
        status = running.terminate()

    assert (statuses, status) == ([200] * 5, 0)


def test_a_port_in_use_is_one_sentence() -> None:
    """The second collector on a port says so, and how to choose another."""
    with started("replay", STATIC, "--listen", "127.0.0.1:0") as running:
        listen = running.url.removeprefix("http://")
        done = podtally("replay", STATIC, "--listen", listen, "--log-level", "error")

    assert one_sentence(done) == (
        f"podtally replay: the address {listen} is in use: is another podtally running? Choose another with --listen"
    )


# --- record ---------------------------------------------------------------------------------------------------------


def exposed(recording: Path) -> list[str]:
    """What a recording exposes, podtally's account of itself left aside."""
    text = podtally("replay", recording, "--once", "--log-level", "error").stdout
    return [line for line in text.splitlines() if not re.search(r"\b(podtally|process)_", line)]


@pytest.mark.parametrize("name", ["r", "r.tar", "r.tar.gz", "r.tar.zst"])
def test_a_recording_of_a_recording_is_equal(tmp_path: Path, name: str) -> None:
    """A recording is made of another in each form, without a word, and its replay exposes what the original does."""
    out = tmp_path / name

    done = podtally("record", out, "--from", STATIC)

    assert (done.returncode, done.stdout) == (0, "")
    assert len(exposed(out)) > 50
    assert exposed(out) == exposed(STATIC)


def test_a_node_is_recorded_live(tmp_path: Path) -> None:
    """Recording for 3 s takes a frame a second, with the kubelet's list, and names what it was refused."""
    refused: set[str] = set()

    async def kubelet(request: web.Request) -> web.Response:
        if request.path != "/pods":
            refused.add(request.path)
            return web.Response(text="Forbidden", status=403)
        await until(lambda: len(refused) == 3)  # the recording begins once there is a list
        return web.Response(body=pod_list())

    root, out = v2_root(tmp_path / "cgroup"), tmp_path / "live.tar.zst"
    with served_in_thread(kubelet) as url:
        done = podtally("record", out, "--duration", "3s", *node_flags(root, url))

    recorded = load(out)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].endswith(
        "left out, as they were not answered: kubelet/metrics_cadvisor.txt, kubelet/metrics_resource.txt,"
        " kubelet/stats_summary.json"
    )
    assert 2 <= len(recorded.frames) <= 4  # a tick that comes late has missed those before it
    assert recorded.meta.cgroup_driver == "cgroupfs"
    assert podtally("top", "--once", "--recording", out).stdout.split()[4:6] == ["team-a", "web"]


def test_a_recording_goes_to_stdout(tmp_path: Path) -> None:
    """With - for OUT, a .tar.zst goes to stdout, as kubectl exec brings it to a laptop."""
    root, out = v2_root(tmp_path / "cgroup"), tmp_path / "piped.tar.zst"
    command = [sys.executable, "-m", "collector", "record", "-", "--duration", "1s", "--interval", "100ms"]
    with served_in_thread(Peer(pod_list()).handle) as url, open(out, "wb") as file:
        done = subprocess.run(
            [*command, *map(str, node_flags(root, url))],
            env=environment(),
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    assert (done.returncode, done.stderr) == (0, b"")
    assert len(load(out).frames) >= 1


# --- top and doctor -------------------------------------------------------------------------------------------------


def test_top_of_a_recording() -> None:
    """Top --once --recording prints the table of the last frame, as kubectl top pods -A would."""
    done = podtally("top", "--once", "--recording", STATIC)

    assert (done.returncode, done.stdout) == (0, TABLE)


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (("--sort", "cpu", "-n", "team-a"), "NAME   CPU(cores)   MEMORY(bytes)\ndb     100m         18Mi\n"),
        (
            ("--containers", "--no-headers"),
            "kube-system   static-web-node1   web   50m    10Mi\nteam-a        db                 db    100m   18Mi\n",
        ),
        (
            ("-A", "--sort", "memory", "--no-headers"),
            "team-a        db                 100m   18Mi\nkube-system   static-web-node1   50m    10Mi\n",
        ),
    ],
)
def test_top_takes_kubectls_flags(arguments: tuple[str, ...], table: str) -> None:
    """-n, -A, --containers, --sort and --no-headers do what they do in kubectl."""
    assert podtally("top", "--once", "--from", STATIC, *arguments).stdout == table


def test_top_of_a_running_podtally() -> None:
    """Top --url prints the same table from the API of a collector, which has read all its frames."""
    with started("replay", STATIC, "--speed", "1000", "--listen", "127.0.0.1:0") as running:
        url = running.url
        wait_until(lambda: "has ended" in fetched(f"{url}/healthz")[1])
        done = podtally("top", "--once", "--url", url)

    assert (done.returncode, done.stdout, done.stderr) == (0, TABLE, "")


def test_top_of_a_namespace_without_pods() -> None:
    """A namespace with nothing to show is told, with exit 1 and no table."""
    done = podtally("top", "--once", "--recording", FIXTURES / "two-uids", "-n", "nope")

    assert (done.returncode, done.stdout, done.stderr) == (1, "", "No running pods found in namespace nope.\n")


_NO_NETWORK = (
    "      -> on a node, mount /proc without hidepid and give it with --proc-root; in a recording, it is there if it"
    " was made with daemonset/overlays/hostpid"
)


@pytest.mark.parametrize(
    ("name", "status", "last"),
    [
        ("crio-conmon", 0, _NO_NETWORK),
        ("static-pod", 1, _NO_NETWORK),
        ("cgroup-v1", 1, "note  there is no answer of the kubelet to look at"),
    ],
)
def test_the_doctor_ends_with_what_it_found(name: str, status: int, last: str) -> None:
    """Exit 1 where there is a fault, 0 where there is none; the findings are on stdout and nothing on stderr."""
    done = podtally("doctor", "--recording", FIXTURES / name)

    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (status, last, "")


# --- serve ----------------------------------------------------------------------------------------------------------


def pod_list() -> bytes:
    """A kubelet's list for the tree of the temporary directory."""
    status = {"name": "main", "containerID": f"containerd://{LEAF_B}", "state": {"running": {}}}
    item = {
        "metadata": {"namespace": "team-a", "name": "web", "uid": UID, "labels": {"app": "shop"}},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "qosClass": "Burstable", "containerStatuses": [status]},
    }
    return json.dumps({"items": [item]}).encode()


def node_flags(root: Path, kubelet_url: str) -> list[str | Path]:
    """The flags of a command that reads the node in a temporary directory."""
    proc = root.parent / "proc"
    return ["--cgroup-root", root, "--proc-root", proc, "--kubelet-url", kubelet_url, "--node-name", "node-1"]


def grow(root: Path, usec: int) -> None:
    """Let the container and its pod use CPU."""
    pod = root / "kubepods" / "burstable" / f"pod{UID}"
    for folder in (pod, pod / LEAF_A, pod / LEAF_B):
        folder.mkdir(exist_ok=True)
        (folder / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\n")


def told(url: str, sought: str) -> Callable[[], bool]:
    """Whether a page has a text by now."""
    return lambda: sought in fetched(url)[1]


def test_serve_names_the_pods_of_a_node(tmp_path: Path) -> None:
    """End to end: cgroups of a directory, names of a kubelet over verified TLS with a token, series with labels."""
    shown, token, peer = certificate(tmp_path), tmp_path / "token", Peer(pod_list())
    token.write_text("secret")
    root = v2_root(tmp_path / "cgroup")
    (root / "cgroup.procs").write_text("1\n2\n")
    grow(root, 2_000_000)
    with served_in_thread(peer.handle, shown.server) as url:
        flags = [*node_flags(root, url), "--kubelet-ca-file", shown.ca_file, "--token-file", token]
        with started("serve", *flags, "--listen", "127.0.0.1:0", "--pod-labels", "app") as running:
            wait_until(told(f"{running.url}/readyz", "ok\nnames: kubelet\nkubelet: ok\nAPI server: unknown\n"))
            lines = fetched(f"{running.url}/metrics")[1].splitlines()
            resource = fetched(f"{running.url}/metrics/resource")[1]
            wait_until(told(f"{running.url}/metrics/cadvisor", "container_processes{"))
            cadvisor = fetched(f"{running.url}/metrics/cadvisor")[1]
            loaded = {Path(file.path).name for file in psutil.Process(running.pid).memory_maps()}
            status = running.terminate()

    assert status == 0
    assert set(peer.asked) == {("/pods", "Bearer secret")}
    assert (
        'pod_info{label_app="shop",namespace="team-a",node="node-1",pod="web",qos_class="Burstable",'
        f'source="cgroup",uid="{UID}",workload_kind="",workload_name=""}} 1.0'
    ) in lines
    assert 'pod_container_cpu_usage_seconds_total{container="main",namespace="team-a",pod="web"} 2.0' in lines
    assert 'container_cpu_usage_seconds_total{container="main",namespace="team-a",pod="web"} 2' in resource
    assert 'container_processes{container="",id="/",image="",name="",namespace="",pod=""} 2' in cadvisor
    assert not [name for name in loaded if any(word in name for word in ("zstd", "yaml", "_bcrypt"))]


def test_serve_falls_back_to_the_api_server(tmp_path: Path) -> None:
    """A kubelet that refuses is told in /readyz with its reason, and the API server's names are used."""
    shown, api = certificate(tmp_path), Peer(pod_list())
    root, refusing = v2_root(tmp_path / "cgroup"), Peer(b"Forbidden (user=podtally)", 403)
    with served_in_thread(refusing.handle, shown.server) as url, served_in_thread(api.handle, shown.server) as api_url:
        host, _, port = api_url.removeprefix("https://").rpartition(":")
        flags = [*node_flags(root, url), "--kubelet-ca-file", shown.ca_file, "--listen", "127.0.0.1:0"]
        with started("serve", *flags, KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port) as running:
            wait_until(told(f"{running.url}/readyz", "names: apiserver"))
            status, text = fetched(f"{running.url}/readyz")
            pods = json.loads(fetched(f"{running.url}/api/v1/pods")[1])["pods"]
            wait_until(lambda: any("names are taken" in line for line in running.lines))

    assert (status, text) == (
        200,
        "ok\nnames: apiserver\nkubelet: HTTP 403: Forbidden (user=podtally)\nAPI server: ok\n",
    )
    assert [pod["name"] for pod in pods] == ["web"]
    assert {path for path, _ in api.asked} == {"/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0"}
    assert [line.split(": ", 1)[1] for line in running.lines if " WARNING " in line] == [
        "the kubelet does not name the pods: HTTP 403: Forbidden (user=podtally)\n",
        "names are taken from the API server until the kubelet answers\n",
    ]


def test_serve_without_any_names_is_not_ready(tmp_path: Path) -> None:
    """A collector that nobody answers serves what the kernel says, and is not ready."""
    root, url = v2_root(tmp_path / "cgroup"), f"http://127.0.0.1:{free_port()}"
    with started("serve", *node_flags(root, url), "--listen", "127.0.0.1:0") as running:
        wait_until(told(f"{running.url}/readyz", "Connection refused"))
        status, text = fetched(f"{running.url}/readyz")
        resource = fetched(f"{running.url}/metrics/resource")

    assert (status, text) == (
        503,
        "not ready: no answer has named the pods yet\nnames: none\n"
        f"kubelet: {url} cannot be reached: Connection refused\nAPI server: unknown\n",
    )
    assert (resource[0], "node_cpu_usage_seconds_total" in resource[1]) == (200, True)


def test_serve_does_not_import_what_it_does_not_need() -> None:
    """rich, kubernetes, zstandard and yaml cost memory on every node: the server's modules do not import them."""
    code = "import collector.cli, sys; print(*{name.partition('.')[0] for name in sys.modules}, *sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )

    assert {"rich", "kubernetes", "zstandard", "yaml", "tarfile", "bcrypt", "collector.server.access"} & {
        *done.stdout.split()
    } == set()


def test_the_package_runs_from_anywhere(tmp_path: Path) -> None:
    """Python -m collector is the program, whatever the working directory."""
    done = subprocess.run(
        [sys.executable, "-m", "collector", "--version"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, f"podtally {__version__}\n")
    assert os.listdir(tmp_path) == []


def test_top_says_that_a_recording_has_no_names(tmp_path: Path) -> None:
    """A cp of the cgroups alone is told to lack the pods' list, not to have no pods."""
    shutil.copytree(FIXTURES / "static-pod" / "frames" / "0000" / "sys", tmp_path / "r" / "sys")

    done = podtally("top", "--once", "--recording", str(tmp_path / "r"))

    assert done.returncode == 2
    assert "names no pods: it has neither kubelet/pods.json nor apiserver/pods.json" in done.stderr
