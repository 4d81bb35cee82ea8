"""Comparing with the metrics API and the kubelet: real recordings, and made-up nodes for what none of them holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import median

import pytest

from collector.metrics import resource
from collector.model import Answer, PodTally
from collector.parity.readings import SANDBOX
from collector.parity.report import LARGE_CORES, large_differences
from collector.parity.verification import ANSWERS, NOTED, REASONS, Row, Verification
from tests.parity.scenes import MIB, POD, SIDECAR, WEB, Scene, always, steady
from tests.replays import replayed
from tests.support import recording

RECORDINGS = ("systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst", "parity-1hz.tar.zst")


def fed(
    verification: Verification, name: str, change: Callable[[PodTally], PodTally] = lambda pod: pod
) -> Verification:
    """It, with the ticks and answers of a recording; ``change`` makes our numbers others."""
    for frame, tally in zip(recording(name).frames, replayed(name).tallies(), strict=True):
        verification.add_tally(replace(tally, pods=tuple(map(change, tally.pods))))
        for answer in frame.answers:
            verification.add_answer(answer)
    return verification


@cache
def verified(name: str) -> Verification:
    """A recording's comparison."""
    return fed(Verification(0.1), name)


@cache
def rows_of(name: str) -> list[Row]:
    """Its rows."""
    return verified(name).rows()


# --- real recordings


@pytest.mark.parametrize("name", RECORDINGS)
def test_nothing_that_a_real_node_said_is_outside(name: str) -> None:
    """Each value of each peer agrees, is explained, or cannot be compared for a reason that is told."""
    assert [row for row in rows_of(name) if row.verdict == "outside"] == []


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_difference_above_five_percent_has_a_reason_by_name(name: str) -> None:
    """So has every row that is not compared."""
    unnamed = [
        row
        for row in rows_of(name)
        if ((row.difference or 0.0) > NOTED or row.verdict != "agree") and row.reason.partition(":")[0] not in REASONS
    ]

    assert unnamed == []


def test_kubectl_top_agrees_within_half_a_percent_and_two_at_the_worst() -> None:
    """The aim for CPU above 50m over known windows, pods and containers, against the real metrics API."""
    found = large_differences(
        row for row in rows_of("parity-1hz.tar.zst") if row.source == "metrics-api" and row.quantity == "cpu"
    )

    assert len(found) == 36
    assert median(found) < 0.005
    assert max(found) < 0.02


def test_most_windows_of_the_metrics_api_are_known_to_the_millisecond() -> None:
    """They are the kubelet's own samples; what cannot be compared began before the recording."""
    rows = [row for row in rows_of("parity-1hz.tar.zst") if row.source == "metrics-api" and row.quantity == "cpu"]
    compared = [row for row in rows if row.container and row.ours is not None]

    assert (len(compared), sum(row.window == "exact" for row in compared)) == (144, 142)


def test_pods_that_the_metrics_api_left_out_are_told_with_the_reason() -> None:
    """Once metrics-server lost the whole node, two pods came back later than the others, and one pod was new."""
    told = {
        (row.pod.partition("-")[0], row.reason)
        for row in rows_of("parity-1hz.tar.zst")
        if row.reason.startswith("left out") and "as all pods" not in row.reason
    }

    assert {pod for pod, _ in told} == {"multi", "newcomer", "sidecar"}
    assert {reason.partition(",")[0] for pod, reason in told if pod == "newcomer"} == {
        "left out: container newcomer was 20 s old"
    }


def test_a_number_of_ours_that_is_wrong_is_outside() -> None:
    """A third too much CPU in our readings of the recording, and the metrics API's values say so."""
    verification = fed(Verification(0.1), "parity-1hz.tar.zst", _with_a_third_more)
    wrong = [row for row in verification.rows() if row.source == "metrics-api" and row.container and _is_large(row)]

    assert len(wrong) == 18
    assert {row.verdict for row in wrong} == {"outside"}
    assert all(row.reason.startswith("not found: our readings allow ") for row in wrong)


def _is_large(row: Row) -> bool:
    exact = row.window == "exact" and row.ours is not None
    return exact and row.quantity == "cpu" and (row.theirs or 0.0) > LARGE_CORES


def _with_a_third_more(pod: PodTally) -> PodTally:
    leaves = []
    for leaf in pod.cgroup.leaves:
        usage = leaf.reading.cpu_usage_usec
        assert usage is not None
        leaves.append(leaf._replace(reading=leaf.reading._replace(cpu_usage_usec=usage * 4 // 3)))
    return pod._replace(cgroup=pod.cgroup._replace(leaves=tuple(leaves)))


# --- over the same window


def test_a_value_is_compared_over_the_kubelets_own_samples() -> None:
    """The metrics API cuts its time to seconds; the two samples that give its value to the nanocore are its window."""
    scene = Scene().read(WEB, lambda t: 12 + (t * 0.1 if t < 30 else 3 + (t - 30) * 0.3))
    scene.kubelet(20.3, {WEB: (14.03, 10 * MIB)}).kubelet(40.7, {WEB: (18.21, 10 * MIB)})
    scene.metrics_api(40, 20.4, {WEB: (4.18 / 20.4, 10 * MIB)}, answered=45)

    row = scene.row(WEB, "metrics-api")

    assert (row.window, row.verdict, row.reason) == ("exact", "agree", "")
    assert row.ours == pytest.approx(4.18 / 20.4, rel=1e-6)
    assert (row.end_ns - (row.begin_ns or 0)) / 1e9 == 20.4


def test_without_the_kubelets_samples_the_window_is_the_pods() -> None:
    """And the row says that it is not known."""
    scene = Scene().read(WEB, steady(100)).metrics_api(40, 15, {WEB: (0.1, 10 * MIB)}, answered=45)

    row = scene.row(WEB, "metrics-api")

    assert (row.window, row.verdict) == ("window-unknown", "agree")
    assert row.ours == pytest.approx(0.1)


def test_the_first_value_of_a_fresh_container_is_from_its_start() -> None:
    """metrics-server rates a container from its start once it is 10 s old."""
    scene = Scene().read(WEB, lambda t: (t - 20) * 0.2, seconds=range(21, 61), started=20)
    scene.kubelet(32.5, {WEB: (2.5, 10 * MIB)}, starts={WEB: 20})
    scene.metrics_api(32, 12.5, {WEB: (0.2, 10 * MIB)}, answered=35)

    row = scene.row(WEB, "metrics-api")

    assert (row.window, row.verdict) == ("exact", "agree")
    assert row.ours == pytest.approx(0.2)


def test_a_pods_row_is_the_sum_of_its_containers() -> None:
    """As kubectl top pods prints it, each container over its own window."""
    scene = Scene().read(POD, steady(500)).read(WEB, steady(100)).read(SIDECAR, steady(30))
    scene.metrics_api(40, 15, {WEB: (0.1, 10 * MIB), SIDECAR: (0.03, 10 * MIB)}, answered=45)

    row = scene.row(POD, "metrics-api")

    assert row.ours == pytest.approx(0.13)
    assert row.theirs == pytest.approx(0.13)
    assert row.verdict == "agree"


# --- reasons


def test_a_burst_between_two_ticks_is_explained_by_what_our_readings_allow() -> None:
    """A second of CPU at 39.5 s may be in the window that ends then or not: ours says half, theirs all."""
    scene = Scene().read(WEB, lambda t: 12 if t < 40 else 13)
    scene.kubelet(20.0, {WEB: (12.0, 10 * MIB)}).kubelet(39.5, {WEB: (13.0, 10 * MIB)})

    row = scene.row(WEB, "resource")

    assert row.verdict == "explained"
    assert row.reason == "between ticks: our readings allow 0.0m to 51.3m"


def test_a_difference_that_no_reading_allows_is_outside() -> None:
    """Steady CPU has no bursts to hide a difference in."""
    scene = Scene().read(WEB, steady(100))
    scene.kubelet(20.0, {WEB: (14.0, 10 * MIB)}).kubelet(40.0, {WEB: (18.0, 10 * MIB)})

    row = scene.row(WEB, "resource")

    assert row.verdict == "outside"
    assert row.ratio == pytest.approx(0.5)
    assert row.reason == "not found: our readings allow 90.0m to 110.0m over that window"


def test_another_window_is_told_with_its_length() -> None:
    """Of a pod of two containers the window is known of one: the other's was a shorter, later one."""
    scene = Scene().read(POD, steady(1)).read(WEB, lambda t: 12 + max(0, t - 35) * 0.5).read(SIDECAR, steady(30))
    scene.metrics_api(40, 15, {SIDECAR: (0.03, 10 * MIB), WEB: (0.5, 10 * MIB)}, answered=45)

    row = scene.row(WEB, "metrics-api")

    assert (row.window, row.verdict) == ("window-unknown", "explained")
    assert row.reason.startswith("other window: over 11 s that end 5 s later our readings allow ")


@pytest.mark.parametrize(("begun", "verdict"), [(0, "outside"), (35, "not-comparable")])
def test_an_unknown_window_that_may_hold_a_restart_is_not_judged(begun: int, verdict: str) -> None:
    """Steady CPU explains no other value, whatever the window; a container that began in it may."""
    scene = Scene().read(POD, steady(1)).read(WEB, steady(100), seconds=range(begun, 61)).read(SIDECAR, steady(30))
    scene.metrics_api(40, 2, {SIDECAR: (0.03, 10 * MIB), WEB: (0.5, 10 * MIB)}, answered=45)

    assert scene.row(WEB, "metrics-api").verdict == verdict


@pytest.mark.parametrize(("theirs", "verdict"), [(0.0009, "agree"), (0.0021, "outside")])
def test_within_a_millicore_values_agree(theirs: float, verdict: str) -> None:
    """Whatever their ratio: kubectl top shows no digit below."""
    scene = Scene().read(WEB, always(12))
    scene.kubelet(20.0, {WEB: (12.0, 10 * MIB)}).kubelet(40.0, {WEB: (12 + theirs * 20, 10 * MIB)})

    row = scene.row(WEB, "resource")

    assert row.verdict == verdict
    assert (row.reason == "rounding: less than 1m apart") == (verdict == "agree")


def test_memory_that_moved_around_the_sample_is_explained() -> None:
    """The kubelet's reading lies between ours."""
    scene = Scene().read(WEB, steady(100), lambda t: 100 * MIB if t < 40 else 200 * MIB)
    scene.kubelet(39.6, {WEB: (15.96, 150 * MIB)})

    row = scene.row(WEB, "resource", "memory")

    assert (row.verdict, row.reason) == ("explained", "moved: from 100.0Mi to 200.0Mi around it")


@pytest.mark.parametrize(("millicores", "verdict"), [(100, "explained"), (0, "outside")])
def test_memory_that_differs_while_ours_stood_still_needs_something_that_ran(millicores: int, verdict: str) -> None:
    """A process that came and went between two ticks took CPU; without any, nothing explains the difference."""
    scene = Scene().read(WEB, steady(millicores), always(100 * MIB)).kubelet(40.0, {WEB: (12.0, 150 * MIB)})

    assert scene.row(WEB, "resource", "memory").verdict == verdict


def test_the_kubelets_pod_is_explained_by_what_is_beyond_its_containers() -> None:
    """The kubelet's number of a pod is of its whole cgroup: here a sandbox that uses as much as the container."""
    scene = Scene().read(POD, steady(110)).read(WEB, steady(50)).read(POD._replace(container=SANDBOX), steady(50))
    scene.kubelet(20.0, {POD: (14.2, 10 * MIB)}).kubelet(40.0, {POD: (16.4, 10 * MIB)})

    row = scene.row(POD, "resource")

    assert row.ours == pytest.approx(0.05)
    assert row.theirs == pytest.approx(0.11)
    assert (row.verdict, row.reason) == ("explained", "whole pod: sandbox 50.0m, the rest 10.0m")


def test_memory_beyond_a_pods_containers_explains_the_kubelets_number() -> None:
    """Also where nothing tells what it is, as from a page of podtally's."""
    scene = Scene().read(POD, steady(0), always(30 * MIB)).read(WEB, steady(0), always(10 * MIB))
    row = scene.kubelet(40.0, {POD: (12.0, 30 * MIB)}).row(POD, "resource", "memory")

    assert (row.verdict, row.reason) == ("explained", "whole pod: 20.0Mi beyond its containers")


def test_a_pod_whose_whole_cgroup_disagrees_is_outside() -> None:
    """Then what is beyond its containers is no excuse."""
    scene = Scene().read(POD, steady(60)).read(WEB, steady(50))
    scene.kubelet(20.0, {POD: (14.0, 10 * MIB)}).kubelet(40.0, {POD: (18.0, 10 * MIB)})

    assert scene.row(POD, "resource").verdict == "outside"


def test_a_container_that_the_metrics_api_leaves_out_explains_the_pods_difference() -> None:
    """The other containers agree."""
    scene = Scene().read(POD, steady(1)).read(WEB, steady(100)).read(SIDECAR, steady(30))
    scene.metrics_api(40, 15, {WEB: (0.1, 10 * MIB)}, answered=45)

    row = scene.row(POD, "metrics-api")

    assert row.ours == pytest.approx(0.13)
    assert (row.verdict, row.reason) == ("explained", "left out: of the pod, sidecar, 30.0m by us")


def test_a_container_that_restarted_within_the_window_is_not_compared() -> None:
    """Its counter began anew, and so did theirs."""
    scene = Scene().read(WEB, steady(100), seconds=range(31), identity="first")
    scene.read(WEB, lambda t: (t - 31) * 0.1, seconds=range(31, 61), identity="second")
    scene.metrics_api(40, 15, {WEB: (0.1, 10 * MIB)}, answered=45).read(POD, steady(100))

    row = scene.row(WEB, "metrics-api")

    assert (row.ours, row.verdict) == (None, "not-comparable")
    assert row.reason.startswith("restarted: ")


def test_a_container_that_the_kubelet_shows_and_we_never_saw_is_outside() -> None:
    """A fault of ours must not pass for one that cannot be compared."""
    scene = Scene().read(SIDECAR, steady(10)).kubelet(20.0, {WEB: (14.0, MIB)}).kubelet(40.0, {WEB: (16.0, MIB)})

    row = scene.row(WEB, "resource")

    assert (row.verdict, row.reason) == ("outside", "unread: podtally has no reading of it; podtally doctor tells more")


# --- pods that the metrics API lacks


def test_a_container_without_any_cpu_hides_its_pod() -> None:
    """metrics-server drops a pod with a 0."""
    scene = Scene().read(POD, steady(1)).read(WEB, always(0)).read(SIDECAR._replace(pod="other"), steady(5))
    scene.kubelet(40.0, {WEB: (0.0, MIB)})
    scene.metrics_api(40, 15, {SIDECAR._replace(pod="other"): (0.005, MIB)}, answered=45)

    row = scene.row(POD, "metrics-api")

    assert (row.theirs, row.verdict) == (None, "not-comparable")
    assert row.reason == ("left out: container web has used no CPU at all, and metrics-server drops a pod with a 0")


def test_pods_of_other_nodes_are_not_ours_to_compare() -> None:
    """The metrics API knows the whole cluster."""
    scene = Scene().read(POD, steady(1)).read(WEB, steady(100))
    elsewhere = WEB._replace(pod="elsewhere")
    scene.metrics_api(40, 15, {WEB: (0.1, MIB), elsewhere: (0.7, MIB)}, answered=45)

    assert {row.pod for row in scene.verification.rows()} == {"web-0"}


# --- what is not there


def test_a_refused_peer_is_named_until_it_answers() -> None:
    """One that answered once is no refusal."""
    scene = (
        Scene().refuse("metrics-api/pods.json", 403, "forbidden").refuse("kubelet/metrics_resource.txt", 503, "busy")
    )
    scene.kubelet(20.0, {WEB: (1.0, MIB)})

    assert [(one.source, one.status, one.error) for one in scene.verification.refusals] == [
        ("metrics-api", 403, "forbidden")
    ]


@pytest.mark.parametrize("name", sorted(ANSWERS))
@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'{"items": [7], "pods": [7]}', b"container_cpu{ 1"])
def test_an_answer_that_is_none_is_told_and_changes_nothing(name: str, body: bytes) -> None:
    """A log-in page of a proxy, say."""
    verification = Verification(0.1)
    verification.add_answer(Answer(name, 0, 200, None, body))

    assert (verification.answered, len(verification.refusals)) == (set(), 1)


def test_a_page_of_podtallys_serves_in_place_of_ticks() -> None:
    """From a laptop, readings come from a running podtally's /metrics/resource."""
    verification = Verification(0.1)
    for tally in replayed("parity-1hz.tar.zst").tallies():
        verification.add_our_page(resource.render(tally, openmetrics=False))
    for frame in recording("parity-1hz.tar.zst").frames:
        for answer in frame.answers:
            verification.add_answer(answer)
    found = large_differences(
        row for row in verification.rows() if row.source == "metrics-api" and row.quantity == "cpu"
    )

    assert len(found) == 36
    assert median(found) < 0.005
    assert max(found) < 0.02


def test_a_page_that_is_none_of_podtallys_is_told() -> None:
    """Another server may listen at that port."""
    verification = Verification(0.1)
    verification.add_our_page("container_cpu{")

    assert verification.our_failure is not None
    assert not verification.readings.running


def test_a_comparison_that_goes_on_does_not_grow() -> None:
    """Of 150 s with half a minute kept, what is older than that is not there, and what is kept agrees."""
    verification = fed(Verification(0.1, keep_seconds=30), "parity-1hz.tar.zst")
    rows = verification.rows()
    oldest_ns = verification.readings.last_ns - 40 * 10**9

    assert any(row.verdict == "agree" and row.quantity == "cpu" and row.window == "exact" for row in rows)
    assert [row for row in rows if row.end_ns < oldest_ns] == []
    assert [row for row in rows if row.verdict == "outside"] == []


def test_what_a_running_podtally_has_filled_is_not_compared() -> None:
    """Its page does not tell, its JSON does; the kubelet's own numbers are no readings of podtally's."""
    scene = Scene().read(WEB, steady(100))
    scene.verification.add_our_pods(
        '{"node": "n", "source": "cgroup", "pods": [{"namespace": "shop", "name": "web-0", "source": "summary"}]}'
    )
    page = (
        'container_cpu_usage_seconds_total{container="web",namespace="shop",pod="web-0"} 9 1700000070000\n'
        'container_memory_working_set_bytes{container="web",namespace="shop",pod="web-0"} 9 1700000070000\n'
    )
    before_ns = scene.verification.readings.last_ns
    scene.verification.add_our_page(page)

    assert scene.verification.readings.filled == {POD}
    assert scene.verification.readings.last_ns == before_ns


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"pods": 3}', '{"pods": [{}], "node": "n"}'])
def test_what_is_no_document_of_ours_is_passed_over(body: str) -> None:
    """An older podtally, or something else that answers."""
    verification = Verification(0.1)
    verification.add_our_pods(body)

    assert verification.readings.filled == set()
