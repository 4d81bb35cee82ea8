"""A run from apply to report: a kubectl that plays back, and a real Prometheus with a recording of a real node."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from collector.errors import ClusterError, UsageError
from collector.loadtest.kubectl import Kubectl
from collector.loadtest.model import Report
from collector.loadtest.prometheus import OverHttp, Prometheus, ThroughKubectl
from collector.loadtest.queries import FAMILIES, queries
from collector.loadtest.run import Pace, Plan, run
from collector.loadtest.words import iso
from collector.metrics.catalogue import CATALOGUE
from tests.helpers import Peer, podtally, served_in_thread
from tests.loadtest.running import LOADTEST
from tests.loadtest.runs import LOGS, PlayedKubectl, Says, prometheus
from tests.support import recording

RECORDING = "systemd-containerd.tar.zst"
NAMESPACE = "team-b"
FRAMES = [frame.instant.time_ns / 1e9 for frame in recording(RECORDING).frames]
PACE = Pace(poll_seconds=0.01, peer_seconds=0, settle_seconds=0, scrape_seconds=0)

CONTAINER = {"name": "k6", "resources": {}}
REFUSED = "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
FORBIDDEN = (
    'Error from server (Forbidden): jobs.batch is forbidden: User "jane" cannot create resource "jobs" in API group'
    ' "batch" in the namespace "loadtest"'
)


class OfTheRecording:
    """A Prometheus whose now is the recording's end."""

    def __init__(self, url: str) -> None:
        self._asked = OverHttp(url)
        self.where = self._asked.where

    def query(self, expression: str, time: float | None = None) -> bytes:
        """See :class:`Prometheus`."""
        return self._asked.query(expression, min(time or FRAMES[-1], FRAMES[-1]))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prometheus with the recording's samples."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("Prometheus is not installed (Debian: prometheus)")
    with prometheus(tmp_path_factory.mktemp("prometheus"), RECORDING) as found:
        yield found


def pods(state: Mapping[str, Any]) -> Says:
    """The pods of the Job, its container in a state; it stands in a pod's name that the recording has."""
    pod = {
        "metadata": {"name": "burner", "creationTimestamp": iso(FRAMES[0])},
        "spec": {"nodeName": "node1", "containers": [CONTAINER]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "k6", "state": state}]},
    }
    return {"out": json.dumps({"items": [pod]})}


def ended(code: int, reason: str = "Completed") -> Says:
    """A pod whose k6 ran from the second frame to the last but one."""
    times = {"startedAt": iso(FRAMES[1]), "finishedAt": iso(FRAMES[-2])}
    return pods({"terminated": {"exitCode": code, "reason": reason, **times}})


RUNNING = pods({"running": {"startedAt": iso(FRAMES[1])}})
JOB = {"out": json.dumps({"metadata": {"name": "k6"}, "status": {"active": 1}})}
OLD = {"out": json.dumps({"metadata": {"name": "k6"}, "status": {"succeeded": 1}})}
PROGRESS = "running (00m10.0s), 005/010 VUs, 99 complete\nload   [  50% ] 005/010 VUs  00m10.0s/00m20.0s\n"


def log_of(name: str) -> str:
    """A log of the scripts', of a run with no times of its own: the container's count."""
    return (LOGS / name).read_text().replace('"started":"', '"begun":"').replace('"ended":"', '"over":"')


def answers(**changes: Sequence[Says]) -> dict[str, Sequence[Says]]:
    """What kubectl says in a run that goes well."""
    played: dict[str, Sequence[Says]] = {
        "kustomize": [{"out": (LOADTEST / "jobs" / "base" / "job.yaml").read_text()}],
        "get job": [{"out": ""}, JOB],
        "apply": [{"out": "job.batch/k6 created"}],
        "get pods": [{"out": '{"items": []}'}, RUNNING, RUNNING, ended(0)],
        "logs burner -n default -c k6 --tail": [{"out": PROGRESS}],
        "logs burner": [{"out": log_of("load-held.log")}],
        "get --raw /apis/metrics": [{"err": "Error from server (NotFound): the server could not find the resource"}],
        "get node node1": [{"out": '{"status": {"capacity": {"cpu": "2"}}}'}],
        "delete job": [{"out": ""}],
    }
    return {**played, **{name.replace("_", " "): says for name, says in changes.items()}}


def plan(out: Path, **changes: Any) -> Plan:
    """A plan for the recording's times."""
    values: dict[str, Any] = {
        "profile": "load",
        "folder": "jobs/load",
        "out": str(out),
        "testid": "k6-load-7xk2p",
        "namespaces": (NAMESPACE,),
        "before_seconds": 30.0,
        "after_seconds": 0.0,
        "start_seconds": 10.0,
        "told": {"SCALE": "0.1"},
    }
    return Plan(**{**values, **changes})


def made(tmp_path: Path, asked: Prometheus, played: Mapping[str, Sequence[Says]]) -> tuple[Report, PlayedKubectl]:
    """The report of a run, and the kubectl that was asked."""
    player = PlayedKubectl(tmp_path, played)
    return run(plan(tmp_path / "out"), Kubectl(program=player.program), asked, PACE), player


def test_every_family_that_is_asked_for_is_podtallys() -> None:
    """The queries name families of the catalogue."""
    assert {metric.name for metric in CATALOGUE} >= FAMILIES


def test_a_run_from_apply_to_report(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The Job is told its name and applied, progress is told, and the report is made of real samples and kept."""
    caplog.set_level("INFO")
    found, player = made(tmp_path, OfTheRecording(url), answers())

    applied = next(given for called, given in player.calls() if called.startswith("apply"))
    env = json.loads(applied)["items"][0]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TESTID", "value": "k6-load-7xk2p"} in env
    assert {"name": "SCALE", "value": "0.1"} in env
    assert "0:10 of 0:20 min, 5 virtual users" in caplog.messages
    assert capfd.readouterr().out == ""

    out = tmp_path / "out"
    assert {one.name for one in out.iterdir()} == {
        *("run.json", "k6.log", "metrics-api.jsonl", "prometheus", "report.html", "report.md", "report.json")
    }
    services = {one.workload.name for one in found.services}
    assert {"burner", "sidecar"} <= services
    assert found.client.capacity_cores == 2
    assert found.client.cpu_cores.mean is None, "k6 is in another namespace, where nobody is"
    assert "NotFound" in (found.agreement.why_not or "")
    assert any("The span before the load is partial" in note for note in found.notes)


def test_all_families_of_the_recording_come_back(url: str) -> None:
    """A real Prometheus takes every query, and the pods' and containers' have series of what the recording has."""
    asked = OfTheRecording(url)
    for query in queries((NAMESPACE, "team-a"), NAMESPACE, "burner", "t"):
        result = json.loads(asked.query(f"{query.selector}[60s]", FRAMES[-1]))["data"]["result"]
        names = {one["metric"]["__name__"] for one in result}
        if query.name in ("pods", "containers", "client"):
            assert len(names) > 4, query.name
        assert names <= FAMILIES
        assert {one["metric"].get("stalled", "some") for one in result} <= {"some"}


def test_an_earlier_job_is_deleted_first(tmp_path: Path, url: str) -> None:
    """Apply would leave it as it is, and nothing would run."""
    _, player = made(tmp_path, OfTheRecording(url), answers(get_job=[OLD, JOB]))

    order = [called.split()[0] for called, _ in player.calls()]
    assert order.index("delete") < order.index("apply")


def test_a_job_at_work_is_left_alone(tmp_path: Path, url: str) -> None:
    """Two loads at once are no test; nothing is applied or deleted."""
    player = PlayedKubectl(tmp_path, answers(get_job=[JOB]))

    with pytest.raises(UsageError, match="the Job default/k6 is at work"):
        run(plan(tmp_path / "out"), Kubectl(program=player.program), OfTheRecording(url), PACE)

    assert {called.split()[0] for called, _ in player.calls()} == {"kustomize", "get"}
    assert not (tmp_path / "out").exists()


def test_a_namespace_without_pods_is_refused_before_any_load(tmp_path: Path, url: str) -> None:
    """A load whose effect nobody would see is not made."""
    player = PlayedKubectl(tmp_path, answers())

    with pytest.raises(UsageError, match=r"has no pod_info of pods in the namespace nowhere"):
        run(
            plan(tmp_path / "out", namespaces=(NAMESPACE, "nowhere")),
            Kubectl(program=player.program),
            OfTheRecording(url),
            PACE,
        )

    assert [called.split()[0] for called, _ in player.calls()] == ["kustomize"]


def test_a_target_that_does_not_answer_is_a_broken_run(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """k6 ended with 107: the sentence that it ended with is shown."""
    played = answers(get_pods=[ended(107, "Error")], logs_burner=[{"out": log_of("load-nothing-answers.log")}])

    found, _ = made(tmp_path, OfTheRecording(url), played)

    assert found.outcome == "broken"
    assert any("nothing answers at http://nginx-thrift" in message for message in caplog.messages)


def test_an_image_that_is_not_there_is_told_at_once(tmp_path: Path, url: str) -> None:
    """It is not waited for, and the next step is named."""
    stuck = pods({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})

    with pytest.raises(UsageError, match=r"ImagePullBackOff: Back-off pulling image\n  -> kubectl -n default describe"):
        made(tmp_path, OfTheRecording(url), answers(get_pods=[stuck]))


def test_a_log_that_is_refused_is_told_in_the_report(tmp_path: Path, url: str) -> None:
    """The run is over: what there is is kept, and what is missing is named."""
    refused = 'Error from server (Forbidden): pods "burner" is forbidden: User "jane" cannot get resource "pods/log"'

    found, _ = made(tmp_path, OfTheRecording(url), answers(logs_burner=[{"err": refused}]))

    assert found.outcome != "passed"
    assert any(note.startswith("k6.log is missing: kubectl logs burner -n default") for note in found.notes)


def test_an_api_server_that_is_away_for_a_moment_is_waited_for(tmp_path: Path, url: str) -> None:
    """A test of half an hour is not lost by one answer."""
    played = answers(get_pods=[RUNNING, {"err": "Unable to connect to the server: timeout"}, ended(0)])

    assert made(tmp_path, OfTheRecording(url), played)[0].summary is not None


def test_an_interrupted_run_ends_the_load(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops waiting does not leave a load behind."""
    player = PlayedKubectl(tmp_path, answers())
    kubectl = Kubectl(program=player.program)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kubectl, "pods_of", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(plan(tmp_path / "out"), kubectl, OfTheRecording(url), PACE)

    assert player.calls()[-1][0].startswith("delete job k6 -n default")


def test_prometheus_is_reached_through_the_api_server(tmp_path: Path) -> None:
    """The path is the Service's proxy, the expression is escaped."""
    path = "get --raw /api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query?query=up%5B5s%5D"
    player = PlayedKubectl(tmp_path, {path: [{"out": "{}"}]})

    assert ThroughKubectl(Kubectl(program=player.program), "monitoring/prometheus:9090").query("up[5s]", 1.0) == b"{}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (REFUSED, "-> no cluster answers: --kubeconfig FILE, --context NAME or KUBECONFIG names one"),
        (FORBIDDEN, "-> your account lacks this right"),
        ('error: context "x" does not exist', "-> kubectl config get-contexts"),
        ('Error from server (NotFound): services "prometheus" not found', "-> kubectl apply -k monitoring/"),
        ("Error from server (ServiceUnavailable): no endpoints available", "--prometheus-url URL"),
    ],
)
def test_what_kubectl_refuses_has_a_next_step(tmp_path: Path, error: str, said: str) -> None:
    """Kubectl's own words, and what to do."""
    player = PlayedKubectl(tmp_path, {"get --raw": [{"err": error}]})

    with pytest.raises(ClusterError) as caught:
        ThroughKubectl(Kubectl(program=player.program), "monitoring/prometheus:9090").query("up", 1.0)

    assert error in str(caught.value)
    assert said in str(caught.value)


UNHANDLED = (
    'E1124 10:00:00.123456   12345 memcache.go:265] "Unhandled Error" err="couldn\'t get current server API group list:'
    ' Get \\"http://localhost:8080/api?timeout=32s\\": dial tcp 127.0.0.1:8080: connect: connection refused"\n'
)
"""What kubectl's library logs of each of its tries, before kubectl says what is wrong."""


def test_what_kubectls_library_logs_is_not_told(tmp_path: Path) -> None:
    """Five tries told at length hide neither kubectl's own line nor what to do."""
    player = PlayedKubectl(tmp_path, {"get job": [{"err": UNHANDLED * 5 + REFUSED + "\n"}]})

    with pytest.raises(ClusterError) as caught:
        Kubectl(program=player.program).job("loadtest", "k6-load")

    said, step = str(caught.value).splitlines()
    assert said == f"kubectl get job k6-load -n loadtest --ignore-not-found -o json: {REFUSED}"
    assert step.startswith("  -> no cluster answers")


def test_a_log_is_told_where_kubectl_says_nothing_else(tmp_path: Path) -> None:
    """Its last line is better than an exit status."""
    player = PlayedKubectl(tmp_path, {"get job": [{"err": UNHANDLED}]})

    with pytest.raises(ClusterError, match="connection refused"):
        Kubectl(program=player.program).job("loadtest", "k6-load")


def test_what_is_long_is_cut_between_words_and_keeps_its_next_step(tmp_path: Path) -> None:
    """The next step is found in all that kubectl said, not in what is shown of it."""
    player = PlayedKubectl(tmp_path, {"get job": [{"err": "wordy " * 200 + "(Forbidden)"}]})

    with pytest.raises(ClusterError) as caught:
        Kubectl(program=player.program).job("loadtest", "k6-load")

    said, step = str(caught.value).splitlines()
    assert said.endswith(" wordy ...")
    assert len(said) < 700
    assert step.startswith("  -> your account lacks this right")


def test_a_command_is_named_with_the_cluster_that_it_asked(tmp_path: Path) -> None:
    """It can be tried by hand as it stands."""
    player = PlayedKubectl(tmp_path, {"--context kind get node": [{"out": "no JSON"}]})

    with pytest.raises(ClusterError, match=r"^kubectl get node n1 -o json --context kind gives no JSON"):
        Kubectl(program=player.program, context="kind").node("n1")


def test_a_kubeconfig_that_is_no_file_is_told(tmp_path: Path) -> None:
    """Before kubectl goes on without it, and Prometheus is blamed."""
    player = PlayedKubectl(tmp_path, {})

    done = podtally(
        *("loadtest", "run", "load", "--jobs", LOADTEST / "jobs", "--kubeconfig", "/nosuch"),
        PATH=str(Path(player.program).parent),
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "--kubeconfig /nosuch: there is no such file: give the one that kubectl reads" in done.stderr
    assert not (tmp_path / "calls.jsonl").exists()


def something_else(status: int) -> AbstractContextManager[str]:
    """A web server that is not Prometheus; its URL."""
    return served_in_thread(Peer(b"<!doctype html><h1>Welcome</h1>", status).handle)


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_that_is_not_prometheus_is_doubted(tmp_path: Path, status: int) -> None:
    """A page of another server's, found or not: the flag that names another place is told, and nothing is applied."""
    player = PlayedKubectl(tmp_path, answers())

    with (
        something_else(status) as url,
        pytest.raises(ClusterError, match=r"is that Prometheus\? --prometheus-url names another place"),
    ):
        run(plan(tmp_path / "out"), Kubectl(program=player.program), OverHttp(url), PACE)

    assert [called.split()[0] for called, _ in player.calls()] == ["kustomize"]


def test_who_is_not_let_in_is_not_sent_elsewhere() -> None:
    """Synthetic: a proxy before Prometheus asks for a password, which tells nothing of what is behind it."""
    with something_else(401) as url, pytest.raises(ClusterError) as caught:
        OverHttp(url).query("up", 1.0)

    assert "is that Prometheus?" not in str(caught.value)


def test_a_prometheus_that_is_not_there_is_told() -> None:
    """The URL, why, and the flag."""
    with pytest.raises(ClusterError, match=r"http://127\.0\.0\.1:9 cannot be reached: .*--prometheus-url"):
        OverHttp("http://127.0.0.1:9/").query("up", 1.0)


def test_prometheus_own_words_are_told(url: str) -> None:
    """An expression that it does not take; that it is Prometheus is not doubted."""
    with pytest.raises(ClusterError, match=r"answers HTTP 400: .*parse error") as caught:
        OverHttp(url).query("{", 1.0)

    assert "is that Prometheus?" not in str(caught.value)


@pytest.mark.parametrize("bad", ["monitoring", "a/b/c", "/prometheus:9090", "monitoring/"])
def test_a_service_that_is_none_is_refused(tmp_path: Path, bad: str) -> None:
    """NAMESPACE/NAME:PORT."""
    with pytest.raises(UsageError, match="write NAMESPACE/NAME:PORT"):
        ThroughKubectl(Kubectl(program=PlayedKubectl(tmp_path, {}).program), bad)


def test_without_kubectl_nothing_is_run() -> None:
    """One sentence, that says what it is for and where it is had."""
    done = podtally("loadtest", "run", "load", "--jobs", LOADTEST / "jobs", PATH="/nonexistent")

    assert (done.returncode, done.stdout) == (2, "")
    assert "kubectl is not in PATH, and it is what reaches the cluster: install it" in done.stderr


def test_a_profile_that_is_none_is_refused() -> None:
    """Those that there are are named, and base is none."""
    done = podtally("loadtest", "run", "lod", "--jobs", LOADTEST / "jobs")

    assert done.returncode == 2
    assert "has no profile lod: there are autoscale, latency, load, soak, spike, stress\n" in done.stderr


def test_a_folder_that_is_not_empty_is_not_written_to(tmp_path: Path, url: str) -> None:
    """Two runs are not mingled, and nothing is applied."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    player = PlayedKubectl(tmp_path, answers())

    with pytest.raises(UsageError, match="is not empty: name another folder by --out"):
        run(plan(tmp_path / "out"), Kubectl(program=player.program), OfTheRecording(url), PACE)

    assert not [called for called, _ in player.calls() if called.startswith("apply")]
