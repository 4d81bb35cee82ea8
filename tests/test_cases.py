"""Situations from public bug reports: the right value of each, where there was a wrong one."""

from __future__ import annotations

import json

import pytest

from collector.model import PodTally, Reason, Tally
from collector.parity.verification import Verification
from collector.server import api
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.withheld import Finding
from tests.support import Exposed, case, collector_over, expose_all
from tests.test_doctor import findings_in

MEBIBYTE = 1 << 20


def tallies(name: str) -> list[Tally]:
    """After each frame."""
    tree = RecordedTree(case(name))
    return list(collector_over(tree, RecordedAnswers(tree)).tallies())


def pods(name: str) -> list[PodTally]:
    """The one pod after each frame that has it."""
    return [pod for tally in tallies(name) for pod in tally.pods]


def pages(name: str) -> Exposed:
    """What is served after the last frame."""
    tree = RecordedTree(case(name))
    return expose_all(collector_over(tree, RecordedAnswers(tree)))[-1]


WITHHELD: tuple[tuple[str, Reason], ...] = (
    ("driver-mismatch", "missing_container"),
    ("partial-container-elsewhere", "missing_container"),
    ("gvisor-only-sandbox", "sandboxed"),
    ("gvisor-zeros", "sandboxed"),
    ("gvisor-empty-subcontainers", "sandboxed"),
    ("kata-zero", "sandboxed"),
    ("leaf-dir-EACCES", "unread_container"),
    ("leaf-dir-EMFILE", "unread_container"),
    ("evented-pleg-duplicate", "unnamed_container"),
)


@pytest.mark.parametrize(("name", "reason"), WITHHELD)
def test_what_cannot_be_whole_is_withheld_with_its_reason(name: str, reason: Reason) -> None:
    """In no frame is there half a sum or a 0, and the pod is counted."""
    found = tallies(name)

    assert {(pod.cpu_cores, pod.memory_bytes, pod.incomplete) for tally in found for pod in tally.pods} == {
        (None, None, reason)
    }
    assert {tuple(tally.incomplete.items()) for tally in found} == {((reason, 1),)}


@pytest.mark.parametrize(("name", "reason"), WITHHELD)
def test_no_page_shows_a_part_of_what_is_withheld(name: str, reason: Reason) -> None:
    """metrics-server adds up the containers of /metrics/resource: it has none of them; the JSON says why."""
    page = pages(name)

    assert "\npod_cpu_usage_cores{" not in page.metrics
    assert "\npod_memory_usage_bytes{" not in page.metrics
    assert "\ncontainer_cpu_usage_seconds_total{" not in page.resource
    assert "\ncontainer_memory_working_set_bytes{" not in page.resource
    document = json.loads(page.document)
    assert [pod["incomplete"] for pod in document["pods"]] == [reason]
    assert [(row.cpu_cores, row.memory_bytes, row.why) for row in api.usages(document, containers=False)] == [
        (None, None, reason)
    ]


@pytest.mark.parametrize("name", ["gvisor-zeros", "gvisor-empty-subcontainers"])
def test_cgroups_that_say_nothing_have_no_rows(name: str) -> None:
    """A dashboard made for cAdvisor would add up zeros."""
    assert 'container="web"' not in pages(name).cadvisor
    assert "\npod_container_cpu_usage_seconds_total{" not in pages(name).metrics


WHOLE = (
    ("created-state-partial-sum", 0.5, 200 * MEBIBYTE),
    ("driver-switched-control", 0.25, 90 * MEBIBYTE),
    ("driver-switched-empty-twin", 0.25, 90 * MEBIBYTE),
    ("leaked-old-sandbox", 0.2, 88 * MEBIBYTE),
    ("rootless-kind-from-host", 0.2, 88 * MEBIBYTE),
    ("stale-empty-kubepods-at-root", 0.2, 88 * MEBIBYTE),
    ("stale-empty-kubepods-nested", 0.2, 88 * MEBIBYTE),
)


@pytest.mark.parametrize(("name", "cores", "memory_bytes"), WHOLE)
def test_what_is_whole_is_shown(name: str, cores: float, memory_bytes: int) -> None:
    """The sums at the end, none withheld."""
    last = pods(name)[-1]

    assert last.cpu_cores == pytest.approx(cores)
    assert (last.memory_bytes, last.incomplete) == (memory_bytes, None)


def test_a_created_container_is_awaited_and_not_ended() -> None:
    """While the status says ``waiting: {}`` of the container that has a leaf, the other's half is no sum."""
    found = pods("created-state-partial-sum")

    assert [pod.incomplete for pod in found[:10]] == [None] * 10
    assert [pod.incomplete for pod in found[10:11]] == ["unnamed_container"]
    assert {pod.incomplete for pod in found[11:41]} == {"starting_container"}
    assert {pod.memory_bytes for pod in found[11:41]} == {None}
    assert {pod.memory_bytes for pod in found[41:]} == {200 * MEBIBYTE}


def test_a_uid_in_two_trees_is_one_pod() -> None:
    """With the driver switched under it, a pod is told as it is with one tree."""
    assert pages("driver-switched-empty-twin").resource == pages("driver-switched-control").resource


def test_a_counter_that_falls_is_held() -> None:
    """On every page a counter stands until it is passed; the rate is 0.2 throughout, and the peak too."""
    found = tallies("counter-falls-a-little")
    usages = [pod.containers[0].reading.cpu_usage_usec or 0 for tally in found for pod in tally.pods]
    rates = {pod.cpu_cores for tally in found for pod in tally.pods}
    peaks = {round(pod.cpu_peak_cores, 6) for tally in found for pod in tally.pods if pod.cpu_peak_cores is not None}

    assert usages == sorted(usages)
    assert {None if rate is None else round(rate, 6) for rate in rates} == {None, 0.2}
    assert peaks == {0.2}


def test_a_counter_that_falls_is_counted() -> None:
    """The self-metric tells how many counters were held."""
    tree = RecordedTree(case("counter-falls-a-little"))
    collector = collector_over(tree, RecordedAnswers(tree))
    list(collector.tallies())

    assert collector.account.counter_falls > 0


def test_a_clock_that_is_set_leaves_the_rate_of_a_young_container_right() -> None:
    """The wall clock goes forward by 8 s while a container is 2 s old: its rate is 0.2, or not known yet."""
    rates = {pod.cpu_cores for pod in pods("young-clock-forward-8s")}

    assert {None if rate is None else round(rate, 4) for rate in rates} == {None, 0.2}


@pytest.mark.parametrize(
    ("name", "level", "words"),
    [
        ("driver-mismatch", "fault", "the runtime's cgroup driver is not the kubelet's"),
        ("partial-container-elsewhere", "fault", "the runtime's cgroup driver is not the kubelet's"),
        ("kata-zero", "fault", "runtimeClassName kata-qemu"),
        ("gvisor-only-sandbox", "fault", "runtimeClassName gvisor"),
        ("leaf-dir-EACCES", "fault", "Permission denied"),
        ("leaf-dir-EMFILE", "fault", "Too many open files"),
        ("evented-pleg-duplicate", "note", "container web may stand twice"),
    ],
)
def test_the_doctor_names_the_case(name: str, level: str, words: str) -> None:
    """What is at the root of it stands in the finding."""
    assert [finding.level for finding in findings_in(case(name)) if words in finding.what] == [level]


@pytest.mark.parametrize("name", ["leaked-old-sandbox", "driver-switched-empty-twin", "created-state-partial-sum"])
def test_the_doctor_finds_nothing_where_all_is_whole(name: str) -> None:
    """No fault, and the account is said to be whole."""
    found = findings_in(case(name))

    assert [finding for finding in found if finding.level == "fault"] == []
    assert Finding("ok", "the account of 1 pod is whole: all that run are named and read") in found


@pytest.mark.parametrize("name", ["verify-driver-mismatch", "verify-partial-elsewhere"])
def test_verify_tells_what_is_withheld(name: str) -> None:
    """The pod and the container that is missing are not comparable, with the reason; nothing has restarted."""
    tree = RecordedTree(case(name))
    collector = collector_over(tree, RecordedAnswers(tree))
    verification = Verification(0.1)

    def observe(result: Tally, answers: object) -> None:
        verification.add_tally(result)
        for answer in RecordedAnswers(tree).take():
            verification.add_answer(answer)

    collector.observe = observe
    list(collector.tallies())
    rows = verification.rows()
    told = {row.reason.split(":")[1].strip() for row in rows if row.reason.startswith("withheld")}

    assert told == {"missing_container"}
    assert not [row for row in rows if row.reason.startswith("restarted")]
    assert not [row for row in rows if row.verdict == "outside"]
    assert not [row for row in rows if row.container is None and row.verdict != "not-comparable"]
