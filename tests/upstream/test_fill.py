"""Pods that cgroups tell nothing of, filled from the kubelet's numbers: which, with what, and what else they change."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.metrics.native import NativeExposition, Selection
from collector.model import STATS_SUMMARY, WHOLE, Answer, PodTally, Tally
from collector.sources.recording import RecordedAnswers, RecordedTree, load
from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree
from collector.upstream import summary
from collector.upstream.fill import Filling, fill
from collector.upstream.rates import Rates
from collector.upstream.samples import PodSample, Snapshot
from tests.filled import CASES, MEBIBYTE, Use, answered, filling, measured, pod_of
from tests.replays import replayed
from tests.support import SECOND_NS, Exposed, case, collector_over, expose, expose_all

REFUSED = Answer(STATS_SUMMARY, 0, 403, "Forbidden", None)


def unfilled(name: str) -> list[Tally]:
    """The case without ``--fill-from``."""
    tree = RecordedTree(case(name))
    return list(collector_over(tree, RecordedAnswers(tree)).tallies())


def last(name: str) -> PodTally:
    """The pod of a case after the last frame, filled."""
    [pod] = list(filling(answered(name)).tallies())[-1].pods
    return pod


def page(name: str) -> Exposed:
    """What is served after the last frame."""
    return expose_all(filling(answered(name)))[-1]


def rows(text: str, name: str) -> list[str]:
    """The samples of a family."""
    return [line for line in text.splitlines() if line.startswith(f"{name}{{")]


@pytest.mark.parametrize("name", CASES)
def test_a_pod_that_cgroups_tell_nothing_of_has_the_kubelets_numbers(name: str) -> None:
    """CPU and memory are the sums over all running containers, and the pod says whose they are."""
    pod = last(name)

    assert pod.cpu_cores == pytest.approx(sum(use.cores for use in CASES[name].values()))
    assert pod.memory_bytes == sum(use.memory_bytes for use in CASES[name].values())
    assert (pod.source, pod.account) == ("summary", WHOLE)
    assert [one.container.name for one in pod.containers] == sorted(CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_a_filled_pod_is_counted_as_incomplete_no_more(name: str) -> None:
    """Every tick before the kubelet's first answer would have counted it: here that comes with the first frame."""
    assert [dict(tally.incomplete) for tally in filling(answered(name)).tallies()] == [{}] * len(case(name).frames)


@pytest.mark.parametrize("name", CASES)
def test_the_pods_own_cgroup_stays_the_kernels(name: str) -> None:
    """Its reading, rate and peak are those without filling; between it and the containers there is no difference."""
    pod, [before] = last(name), unfilled(name)[-1].pods

    assert (pod.cgroup, pod.cgroup_cpu_cores, pod.cpu_peak_cores) == (
        before.cgroup,
        before.cgroup_cpu_cores,
        before.cpu_peak_cores,
    )
    assert (pod.overhead_cpu_cores, pod.overhead_memory_bytes) == (None, None)


def test_the_sample_is_the_kubelets() -> None:
    """Its time, and the span between two of its samples that the rate is over."""
    pod = last("gvisor-empty-subcontainers")

    assert pod.sample is not None
    begun_ns = case("gvisor-empty-subcontainers").frames[0].instant.time_ns
    assert (pod.sample.time_ns, pod.sample.window_ns) == (begun_ns + 20 * SECOND_NS, 10 * SECOND_NS)


def test_before_the_second_sample_there_is_memory_and_no_rate() -> None:
    """A rate needs two samples; the counters are there from the first."""
    [pod] = filling(answered("gvisor-empty-subcontainers")).tick().pods

    assert (pod.cpu_cores, pod.memory_bytes) == (None, 90 * MEBIBYTE)
    assert [one.reading.cpu_usage_usec for one in pod.containers] == [250_000_000]


def test_a_pod_of_which_no_cgroup_is_followed_is_the_kubelets_as_a_whole() -> None:
    """Kata's sandbox may be in a tree of its own: then the pod's own numbers are the kubelet's too."""
    [told] = unfilled("gvisor-empty-subcontainers")[-1].pods
    nowhere = told._replace(cgroup=told.cgroup._replace(path="", ino=0, leaves=()))
    tally = replace(unfilled("gvisor-empty-subcontainers")[-1], pods=(nowhere,))

    [pod] = fill(tally, snapshot_of("gvisor-empty-subcontainers"), 60 * SECOND_NS).pods

    assert pod.reading.memory_working_set_bytes == 91 * MEBIBYTE
    assert pod.source == "summary"


def snapshot_of(name: str, **changed: Use | None) -> Snapshot:
    """The last answer about a case; ``changed``: containers of which it says something else, or nothing."""
    at_ns = case(name).frames[20].instant.time_ns
    uses = {key: use for key, use in {**CASES[name], **changed}.items() if use is not None}
    body = {
        "pods": [
            {
                "podRef": {"namespace": "default", "name": "p", "uid": pod_of(name)[0]},
                "containers": [{"name": key, **measured(20, at_ns, use)} for key, use in uses.items()],
                **measured(20, at_ns, Use(0.6, 91 * MEBIBYTE)),
            }
        ]
    }
    return Rates().settle(summary.parse(json.dumps(body).encode()))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"sidecar": None}, id="one is missing"),
        pytest.param({"sidecar": Use(0.0, 40 * MEBIBYTE)}, id="no CPU is known of one"),
        pytest.param({"other": Use(0.1, MEBIBYTE)}, id="one has no name"),
    ],
)
def test_what_the_kubelet_does_not_know_whole_stays_withheld(changed: dict[str, Use | None]) -> None:
    """A sum of a part is no sum, whoever tells it: the pod keeps its reason."""
    tally = unfilled("gvisor-only-sandbox")[-1]

    found = fill(tally, snapshot_of("gvisor-only-sandbox", **changed), 60 * SECOND_NS)

    assert (found.pods, dict(found.incomplete)) == (tally.pods, {"sandboxed": 1})


def test_a_sample_that_is_too_old_fills_nothing() -> None:
    """It is a second old at the last frame: within the limit it is of use, and beyond it is not."""
    tally = unfilled("gvisor-only-sandbox")[-1]
    told = snapshot_of("gvisor-only-sandbox")

    assert fill(tally, told, SECOND_NS // 2).pods == tally.pods
    assert [pod.source for pod in fill(tally, told, 2 * SECOND_NS).pods] == ["summary"]


def test_a_pod_of_which_a_part_is_there_is_not_filled() -> None:
    """One of two containers has a leaf: cgroups can tell of it, and doctor says what is wrong."""
    [pod] = unfilled("partial-container-elsewhere")[-1].pods
    told = PodSample("default", "two", pod.pod.uid, None, {})

    found = fill(unfilled("partial-container-elsewhere")[-1], Snapshot((told,), None, 0), 60 * SECOND_NS)

    assert [one.account.reason for one in found.pods] == ["missing_container"]


def test_the_kubelet_is_asked_only_while_a_pod_needs_it() -> None:
    """Each tick with such a pod wants an answer, and no tick of a node without one does."""
    wanted: list[int] = []
    needing = list(filling(answered("gvisor-empty-subcontainers"), lambda: wanted.append(1)).tallies())
    whole = replayed("restart")
    whole.fill = Filling(whole.account, lambda: pytest.fail("nothing is to be filled")).fill

    assert len(wanted) == len(needing)
    assert {tally.fill.needed for tally in whole.tallies() if tally.fill is not None} == {False}


def test_a_refusal_is_told_once_with_the_right_that_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    """The pods stay withheld with their reason, and nothing else suffers."""
    collector = filling(answered("gvisor-empty-subcontainers", lambda _, at_ns: REFUSED._replace(time_ns=at_ns)))
    with caplog.at_level(logging.WARNING):
        tallies = list(collector.tallies())

    said = "podtally's account needs get on nodes/stats, as daemonset/overlays/fill-from-summary gives it"
    assert [said in record.message for record in caplog.records] == [True]
    assert [tally.pods for tally in tallies] == [tally.pods for tally in unfilled("gvisor-empty-subcontainers")]
    assert tallies[-1].fill is not None
    assert said in tallies[-1].fill.state
    assert collector.account.upstream_requests == {"403": 3}


def test_a_refusal_after_an_answer_leaves_that_for_a_while() -> None:
    """Its age goes on, and so it ends."""
    good = {
        one.time_ns: one
        for frame in answered("gvisor-empty-subcontainers").frames
        for one in frame.answers
        if one.name == STATS_SUMMARY
    }
    collector = filling(
        answered(
            "gvisor-empty-subcontainers",
            lambda seconds, at_ns: good[at_ns] if seconds < 20 else REFUSED._replace(time_ns=at_ns),
        )
    )
    result = list(collector.tallies())[-1]

    assert [pod.source for pod in result.pods] == ["summary"]
    assert result.fill is not None
    assert "what it said 11 s ago is served for 109 s more" in result.fill.sentence(result.instant.time_ns)


@pytest.mark.parametrize("name", CASES)
def test_the_resource_page_has_the_kubelets_samples_at_their_times(name: str) -> None:
    """metrics-server and the autoscaler see the pod; its own row is the kubelet's too."""
    text = page(name).resource
    at_ms = (case(name).frames[20].instant.time_ns) // 1_000_000

    found = {
        (sample.name, sample.labels.get("container", "")): (sample.value, round(float(sample.timestamp) * 1000))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.timestamp is not None and "pod" in sample.labels
    }
    whole = sum(use.memory_bytes for use in CASES[name].values()) + MEBIBYTE
    assert found[("pod_memory_working_set_bytes", "")] == (whole, at_ms)
    for key, use in CASES[name].items():
        assert found[("container_memory_working_set_bytes", key)] == (use.memory_bytes, at_ms)
        assert found[("container_cpu_usage_seconds_total", key)][0] == pytest.approx(use.cores * 1020)


@pytest.mark.parametrize("name", CASES)
def test_the_cadvisor_page_is_as_without_filling(name: str) -> None:
    """It is of cgroups, and these say nothing of the containers."""
    exposition = NativeExposition(Selection())

    assert page(name).cadvisor == expose(unfilled(name)[-1], exposition).cadvisor


def test_every_page_says_whose_the_numbers_are() -> None:
    """The label of pod_info, and the JSON with the sample's time and span."""
    found = page("gvisor-empty-subcontainers")
    [pod] = json.loads(found.document)["pods"]

    assert ['source="summary"' in row for row in rows(found.metrics, "pod_info")] == [True]
    assert rows(found.metrics, "pod_cpu_usage_cores") == ['pod_cpu_usage_cores{namespace="default",pod="gv"} 0.25']
    assert (pod["source"], pod["incomplete"]) == ("summary", None)
    assert pod["sample"] == {"time": "2023-11-14T22:13:40.000Z", "window_seconds": 10.0}
    assert pod["containers"][0]["memory_bytes"] == 90 * MEBIBYTE


def test_without_filling_every_pod_is_of_cgroups() -> None:
    """As the tally's own source is."""
    assert {pod.source for tally in replayed("restart").tallies() for pod in tally.pods} == {"cgroup"}


def test_a_recording_replays_to_the_same_bytes(tmp_path: Path) -> None:
    """What filled a pod while it was recorded fills it again in its replay."""
    tree, out = RecordedTree(answered("gvisor-only-sandbox")), tmp_path / "r.tar.zst"
    with RecordingWriter(str(out), answered("gvisor-only-sandbox").meta) as writer:
        tee = TeeTree(tree, writer)
        recording = collector_over(tee, TeeAnswers(RecordedAnswers(tree), tee))
        recording.fill = Filling(recording.account).fill
        said = expose_all(recording)
        tee.flush()

    assert expose_all(filling(load(out))) == said
    assert '"source": "summary"' in said[-1].document
