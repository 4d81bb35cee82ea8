"""Ticks over answers, good and bad: what is served, for how long, and what is told of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from collector.metrics.account import Account
from collector.model import Answer, Instant, SourceName, Tally
from collector.upstream.collect import KINDS, METRICS_API, SUMMARY, UpstreamCollector
from tests.replays import replayed_upstream
from tests.support import SECOND_NS, case, recording

PARITY = "parity-1hz.tar.zst"
BEGUN_NS = 1_795_414_000 * SECOND_NS
NODE = "kubelet/pods.json"
CLUSTER = "apiserver/pods.json"


@dataclass
class Peers:
    """A clock that a test sets and the answers that it has put there; satisfies Clock and AnswerSource."""

    second: int = 0
    answers: list[Answer] = field(default_factory=list)
    asked: int = 0

    def begin(self) -> Instant:
        return Instant(BEGUN_NS + self.second * SECOND_NS, self.second * SECOND_NS)

    def take(self) -> list[Answer]:
        taken, self.answers = self.answers, []
        return taken

    def ask(self) -> None:
        self.asked += 1

    def put(self, name: str, body: Any, status: int | None = 200, error: str | None = None) -> None:
        """An answer of now: bytes as they are, a list as the items of an object, ``None`` for none."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        self.answers.append(Answer(name, self.begin().time_ns, status, error, data))


def time_text(second: int) -> str:
    """A whole second of the tests' clock."""
    return f"2026-11-23T06:{6 + (40 + second) // 60:02d}:{(40 + second) % 60:02d}Z"


def pod(
    name: str, *containers: str, running: bool = True, uid: str = "", created: int = 0, **more: Any
) -> dict[str, Any]:
    """A pod as the kubelet or the API server lists it, with containers that all run, since second 0, or do not."""
    state = {"running": {"startedAt": time_text(0)}} if running else {"terminated": {}}
    statuses = [{"name": one, "containerID": f"containerd://{name}-{one}", "state": state} for one in containers]
    return {
        "metadata": {
            "namespace": "a",
            "name": name,
            "uid": uid or f"uid-{name}",
            "creationTimestamp": time_text(created),
        },
        "status": {"phase": "Running", "containerStatuses": statuses, **more},
    }


def listed(*pods: Mapping[str, Any]) -> dict[str, Any]:
    """A list of pods."""
    return {"items": pods}


def sampled(second: int, *pods: tuple[str, Mapping[str, int]], uid: str = "") -> dict[str, Any]:
    """A summary: each pod with the milliseconds of CPU that its containers have used by a second."""

    def measured(used_ms: int) -> dict[str, Any]:
        return {
            "cpu": {"time": time_text(second), "usageCoreNanoSeconds": used_ms * 1_000_000, "usageNanoCores": 1},
            "memory": {
                "time": time_text(second),
                "usageBytes": 3 << 20,
                "workingSetBytes": 2 << 20,
                "rssBytes": 1 << 20,
            },
        }

    return {
        "pods": [
            {
                "podRef": {"namespace": "a", "name": name, "uid": uid or f"uid-{name}"},
                "containers": [{"name": one, **measured(used_ms)} for one, used_ms in containers.items()],
                **measured(sum(containers.values())),
            }
            for name, containers in pods
        ]
    }


def measured_by_api(second: int, *pods: tuple[str, Mapping[str, int]]) -> dict[str, Any]:
    """The metrics API's list: each pod with its containers' millicores, and 2 MiB for each."""
    return {
        "items": [
            {
                "metadata": {"namespace": "a", "name": name},
                "timestamp": time_text(second),
                "window": "15s",
                "containers": [
                    {"name": one, "usage": {"cpu": f"{cores}m", "memory": "2Mi"}} for one, cores in containers.items()
                ],
            }
            for name, containers in pods
        ]
    }


def collector(peers: Peers, source: SourceName = "summary", *, namespaces: tuple[str, ...] = ()) -> UpstreamCollector:
    """One that serves for a minute what it was told last."""
    return UpstreamCollector(
        KINDS[source], clock=peers, answers=peers, stale_after_ns=60 * SECOND_NS, node_name="n", namespaces=namespaces
    )


def sums(tally: Tally) -> dict[str, tuple[float | None, int | None]]:
    """CPU and memory of each pod."""
    return {one.pod.name: (one.cpu_cores, one.memory_bytes) for one in tally.pods}


# --- good answers ---------------------------------------------------------------------------------------------------


def test_before_the_first_answer_there_is_nothing() -> None:
    """The first tick has no pods, and says that nobody has answered yet."""
    tally = collector(Peers()).tick()

    assert (tally.pods, tally.names.source, tally.source) == ((), "none", "summary")
    assert tally.upstream is not None
    assert (tally.upstream.state, tally.upstream.up, tally.upstream.age_seconds(0)) == ("unknown", False, None)


def test_a_second_sample_makes_the_rates() -> None:
    """The first answer gives counters and memory, the next sample the CPU of each container and their sum."""
    peers = Peers(20)
    one = collector(peers)
    peers.put(NODE, listed(pod("p", "x", "y")))
    peers.put(SUMMARY.answer, sampled(15, ("p", {"x": 1000, "y": 500})))
    assert sums(one.tick()) == {"p": (None, 4 << 20)}

    peers.second = 30
    peers.put(SUMMARY.answer, sampled(30, ("p", {"x": 2500, "y": 500})))
    tally = one.tick()
    assert sums(tally) == {"p": (0.1, 4 << 20)}
    (found,) = tally.pods
    assert found.sample == (BEGUN_NS + 30 * SECOND_NS, 15 * SECOND_NS)
    assert found.cgroup_cpu_cores == 0.1


def test_an_answer_is_served_until_the_next_and_grows_old() -> None:
    """Between answers each tick serves the last one, with its age and the samples' own times."""
    peers = Peers(20)
    one = collector(peers, "metrics-api")
    peers.put(CLUSTER, listed(pod("p", "x")))
    peers.put(METRICS_API.answer, measured_by_api(10, ("p", {"x": 16})))
    first = one.tick()
    peers.second = 29
    later = one.tick()

    assert sums(first) == sums(later) == {"p": (0.016, 2 << 20)}
    assert [tally.upstream.age_seconds(tally.instant.time_ns) for tally in (first, later) if tally.upstream] == [0, 9]
    times = [tally.instant.wall_ns(tally.pods[0].containers[0].reading.monotonic_ns) for tally in (first, later)]
    assert times == [BEGUN_NS + 10 * SECOND_NS] * 2


@pytest.mark.parametrize("sampled_already", [True, False])
@pytest.mark.parametrize("source", ["summary", "metrics-api"])
@pytest.mark.parametrize("state", [{"waiting": {}}, {"waiting": {"reason": "ContainerCreating"}}])
def test_a_container_that_is_about_to_run_is_a_part_of_the_sum(
    state: dict[str, Any], source: SourceName, sampled_already: bool
) -> None:
    """The runtime has made it and the status does not call it running: with its sample or without, the sums of the
    others would be of a part, and the names are asked for again.
    """
    peers = Peers()
    one = pod("p", "main")
    one["status"]["containerStatuses"].append({"name": "side", "containerID": "containerd://new", "state": state})
    peers.put(NODE, listed(one))
    used = {"main": 100, "side": 10} if sampled_already else {"main": 100}
    said = sampled(0, ("p", used)) if source == "summary" else measured_by_api(0, ("p", used))
    peers.put(KINDS[source].answer, said)
    tally = collector(peers, source).tick()

    assert sums(tally) == {"p": (None, None)}
    assert dict(tally.incomplete) == {"starting_container": 1}
    assert (tally.unnamed, peers.asked) == (frozenset(), 1)


# --- values that cannot be true -------------------------------------------------------------------------------------


def test_a_working_set_above_the_usage_is_in_no_sum() -> None:
    """Of two containers one has a working set of 2^64 - 4096: it has none, the pod has no sums, and it is counted."""
    replayed = replayed_upstream(case("s-ws-huge"), "summary")
    *_, last = replayed.tallies()
    (one,) = last.pods

    assert [(each.container.name, each.memory_bytes) for each in one.containers] == [("side", 30 << 20), ("web", None)]
    assert (one.cpu_cores, one.memory_bytes, one.incomplete) == (None, None, "unread_container")
    assert one.reading.memory_working_set_bytes == 126_877_696
    assert replayed.account.refused_items == len(case("s-ws-huge").frames)


@pytest.mark.parametrize(("ahead", "kept"), [(60, True), (61, False)])
@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_a_sample_of_the_future_is_none(source: SourceName, ahead: int, kept: bool) -> None:
    """Another clock may be a minute ahead; what is later would never be too old."""
    peers = Peers()
    peers.put(NODE, listed(pod("p", "main")))
    said = sampled(ahead, ("p", {"main": 100})) if source == "summary" else measured_by_api(ahead, ("p", {"main": 1}))
    peers.put(KINDS[source].answer, said)
    tally = collector(peers, source).tick()

    assert [bool(one.containers) for one in tally.pods] == [kept]


# --- what is not whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed_pods", "incomplete"),
    [
        ([pod("p", "x", "y", "z")], {"unread_container": 1}),
        ([pod("p", "x")], {"unnamed_container": 1}),
        ([pod("p", "x", "y"), pod("q", "x")], {"unread_container": 1}),
        ([], {"unnamed_pod": 1}),
        ([pod("p", "x", "y"), pod("q", "x", running=False)], {}),
        ([pod("p", "x", "y"), pod("q", "x", phase="Pending")], {}),
    ],
)
@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_a_pod_that_is_not_whole_is_counted(
    source: SourceName, listed_pods: list[dict[str, Any]], incomplete: dict[str, int]
) -> None:
    """A running container without a sample, a sample without a name: no sum, and a reason."""
    peers = Peers(20)
    one = collector(peers, source)
    values = {"x": 100, "y": 200}
    if source == "summary":
        peers.put(NODE, listed(*listed_pods))
        peers.put(SUMMARY.answer, sampled(15, ("p", values)))
    else:
        peers.put(CLUSTER, listed(*listed_pods))
        peers.put(METRICS_API.answer, measured_by_api(15, ("p", values)))
    tally = one.tick()

    assert tally.incomplete == incomplete
    assert {one.pod.name for one in tally.pods if one.memory_bytes is not None} == (
        {"p"} if not incomplete else set()
    ) or (len(listed_pods) == 2)
    assert peers.asked == int("unnamed_pod" in incomplete or "unnamed_container" in incomplete)


def test_a_pod_that_does_not_run_has_no_sums() -> None:
    """As kubectl top: a Pending pod's init container has its own series, and the pod has none."""
    peers = Peers(20)
    peers.put(NODE, listed(pod("p", "x", phase="Pending")))
    peers.put(SUMMARY.answer, sampled(15, ("p", {"x": 100})))
    (found,) = collector(peers).tick().pods

    assert (found.memory_bytes, found.incomplete, len(found.containers)) == (None, None, 1)


def test_a_sample_from_before_the_containers_start_is_not_its_own() -> None:
    """After a restart the metrics API still tells of the container before: what it used is not the new one's."""
    peers = Peers(40)
    one = collector(peers, "metrics-api")
    restarted = pod("p", "x")
    restarted["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = time_text(30)
    peers.put(CLUSTER, listed(restarted))
    peers.put(METRICS_API.answer, measured_by_api(29, ("p", {"x": 100})))
    before = one.tick()
    peers.put(METRICS_API.answer, measured_by_api(30, ("p", {"x": 7})))

    assert (sums(before), before.incomplete) == ({"p": (None, None)}, {"unread_container": 1})
    assert sums(one.tick()) == {"p": (0.007, 2 << 20)}


def test_of_two_pods_of_one_name_the_newer_is_exported() -> None:
    """A summary that still has the pod before this one: one series each, the other is counted."""
    peers = Peers(20)
    peers.put(NODE, listed(pod("p", "x", uid="new", created=5), pod("p", "x", uid="old", created=1)))
    both = sampled(15, ("p", {"x": 100}), uid="new")["pods"] + sampled(15, ("p", {"x": 900}), uid="old")["pods"]
    peers.put(SUMMARY.answer, {"pods": both})
    tally = collector(peers).tick()

    assert [one.pod.uid for one in tally.pods] == ["new"]
    assert (tally.duplicates["pod"], tally.pods[0].reading.cpu_usage_usec) == (1, 100_000)


# --- bad answers ----------------------------------------------------------------------------------------------------

BAD = [
    (
        403,
        b'{"kind": "Status"}',
        "forbidden",
        "403",
        "HTTP 403: forbidden (podtally's account needs get on nodes/stats, ",
    ),
    (500, None, "boom", "500", "HTTP 500: boom"),
    (None, None, "did not answer within 10 s", "error", "did not answer within 10 s"),
    (200, b"<html>", None, "malformed", "the kubelet's /stats/summary is not JSON: "),
    (200, b'{"kind": "Status"}', None, "malformed", "the kubelet's /stats/summary has no list of pods"),
    (200, None, "the answer is larger than 8 MiB", "200", "HTTP 200: the answer is larger than 8 MiB"),
]


@pytest.mark.parametrize(("status", "body", "error", "code", "said"), BAD)
def test_a_bad_answer_leaves_the_last_good_one(
    status: int | None, body: bytes | None, error: str | None, code: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes, the last good answer is served, the bad one is counted by its code, and told once."""
    caplog.set_level(logging.WARNING, "collector.upstream")
    peers = Peers(20)
    one = collector(peers)
    peers.put(NODE, listed(pod("p", "x")))
    peers.put(SUMMARY.answer, sampled(15, ("p", {"x": 100})))
    good = one.tick()
    for second in (30, 40, 50):
        peers.second = second
        peers.put(SUMMARY.answer, body if status == 200 else None, status, error)
        tally = one.tick()

    assert sums(tally) == sums(good) == {"p": (None, 2 << 20)}
    assert tally.upstream is not None
    assert tally.upstream.state.startswith(said)
    assert (tally.upstream.up, tally.upstream.age_seconds(tally.instant.time_ns)) == (False, 30)
    assert tally.upstream.sentence(tally.instant.time_ns).endswith("; what it said 30 s ago is served for 30 s more")
    assert one.account.upstream_requests == ({"200": 4} if code == "200" else {"200": 1, code: 3})
    assert len(caplog.messages) == 1


def test_after_the_limit_there_is_nothing() -> None:
    """Neither values nor zeros: the pods are gone, the names are still known, and the next good answer is served."""
    peers = Peers(20)
    one = collector(peers)
    peers.put(NODE, listed(pod("p", "x")))
    peers.put(SUMMARY.answer, sampled(20, ("p", {"x": 100})))
    one.tick()
    peers.second = 80
    assert sums(one.tick()) == {"p": (None, 2 << 20)}
    peers.second = 81
    peers.put(SUMMARY.answer, None, None, "gone")
    gone = one.tick()
    peers.second = 90
    peers.put(SUMMARY.answer, sampled(85, ("p", {"x": 100})))
    back = one.tick()

    assert gone.upstream is not None
    assert gone.upstream.sentence(gone.instant.time_ns) == "the kubelet's /stats/summary: gone; nothing is served"
    assert (gone.pods, gone.incomplete, gone.node.reading.cpu_usage_usec, gone.names.known) == ((), {}, None, True)
    assert sums(back) == {"p": (None, 2 << 20)}


def test_a_sample_older_than_the_limit_is_not_served() -> None:
    """An upstream that answers, and whose samples do not move, is as good as one that does not answer."""
    peers = Peers(20)
    one = collector(peers)
    for second in (20, 50, 80, 81):
        peers.second = second
        peers.put(NODE, listed(pod("p", "x")))
        peers.put(SUMMARY.answer, sampled(20, ("p", {"x": 100})))
        tally = one.tick()
        expected = {"unread_container": 1} if second == 81 else {}
        assert tally.incomplete == expected
    assert tally.upstream is not None
    assert tally.upstream.up
    assert sums(tally) == {"p": (None, None)}


def test_names_that_are_refused_leave_the_last_known() -> None:
    """The kubelet's list of pods and its summary are asked apart: one may fail without the other."""
    peers = Peers(20)
    one = collector(peers)
    peers.put(NODE, listed(pod("p", "x")))
    peers.put(SUMMARY.answer, sampled(15, ("p", {"x": 100})))
    one.tick()
    peers.put(NODE, None, 403, "forbidden")
    tally = one.tick()

    assert (tally.names.source, tally.names.kubelet, sums(tally)) == (
        "memory",
        "HTTP 403: forbidden",
        {"p": (None, 2 << 20)},
    )


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (403, "podtally's account needs list on pods.metrics.k8s.io, as daemonset/overlays/source-metrics-api"),
        (404, "the cluster has no metrics API: install metrics-server"),
        (503, "metrics-server, which answers for the metrics API, is not ready"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, hint: str) -> None:
    """A missing right, a missing metrics-server and one that is not ready are told apart."""
    peers = Peers()
    peers.put(METRICS_API.answer, None, status, "no")
    tally = collector(peers, "metrics-api").tick()

    assert tally.upstream is not None
    assert tally.upstream.state.startswith(f"HTTP {status}: no ({hint}")


# --- several namespaces ---------------------------------------------------------------------------------------------


def test_namespaces_are_asked_and_fail_apart() -> None:
    """Of two namespaces one is refused: the other's pods are served, the whole is not up and as old as the older."""
    peers = Peers(20)
    one = collector(peers, "metrics-api", namespaces=("a", "b"))
    for namespace in "ab":
        own = listed(pod(f"p-{namespace}", "x"))
        own["items"][0]["metadata"]["namespace"] = namespace
        values = measured_by_api(15, (f"p-{namespace}", {"x": 5}))
        values["items"][0]["metadata"]["namespace"] = namespace
        peers.put(f"apiserver/{namespace}/pods.json", own)
        peers.put(f"metrics-api/{namespace}/pods.json", values)
    both = one.tick()
    peers.second = 50
    peers.put("metrics-api/b/pods.json", None, 403, "forbidden")
    peers.put("apiserver/b/pods.json", None, 403, "forbidden")
    peers.put("metrics-api/a/pods.json", values | {"items": measured_by_api(45, ("p-a", {"x": 6}))["items"]})
    after = one.tick()
    peers.second = 81
    last = one.tick()

    assert sums(both) == {"p-a": (0.005, 2 << 20), "p-b": (0.005, 2 << 20)}
    assert sums(after) == {"p-a": (0.006, 2 << 20), "p-b": (0.005, 2 << 20)}
    assert after.upstream is not None
    assert (after.upstream.up, after.upstream.age_seconds(after.instant.time_ns)) == (False, 30)
    assert sums(last) == {"p-a": (0.006, 2 << 20)}
    assert one.account.upstream_requests == {"200": 3, "403": 1}
    assert one.account.answers == {("apiserver", "200"): 2, ("apiserver", "403"): 1}
    assert (after.names.source, after.names.kubelet, after.names.apiserver) == (
        "memory",
        "not asked",
        "HTTP 403: forbidden",
    )


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_every_answer_of_a_recording_is_good(source: SourceName) -> None:
    """A whole recording goes through without a refusal, and every answer in it is counted."""
    one = replayed_upstream(PARITY, source)
    tallies = list(one.tallies())
    answers = [answer for frame in recording(PARITY).frames for answer in frame.answers]

    assert len(tallies) == len(recording(PARITY).frames)
    assert one.account.upstream_requests == {"200": sum(answer.name == KINDS[source].answer for answer in answers)}
    assert one.account.refused_items == 0
    assert isinstance(one.account, Account)
