"""Our ``/metrics/cadvisor`` against the kubelet's own, over every frame of the recordings that hold its page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import pytest

from collector.metrics.cadvisor_catalogue import CADVISOR, LEFT_OUT
from collector.model import Tally
from collector.parity.cadvisor import (
    DIFFERS,
    NOT_RECORDED,
    FamilyReport,
    Report,
    by_family,
    compare,
    family_of,
    partitions,
)
from collector.parity.resource import AGREE, SeriesKey
from collector.sources.frames import RecordedFrame
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.support import CAPTURED, collector_over, recording

SYSTEMD, HOSTPID = CAPTURED[0], "hostpid.tar.zst"
COMPARED = (*CAPTURED, HOSTPID)


def page_of(frame: RecordedFrame) -> str | None:
    """The kubelet's page of a frame, where it has one of its own."""
    bodies = [one.body for one in frame.answers if one.name == "kubelet/metrics_cadvisor.txt" and one.body]
    return bodies[0].decode() if bodies else None


def same(page: str) -> str:
    """A page as it is."""
    return page


def frames(name: str, change: Callable[[str], str]) -> Iterator[tuple[Tally, str | None]]:
    """Each tally with the kubelet's page, changed. The older recordings lack /proc/partitions: the page names their one
    device.
    """
    recorded = recording(name)
    with_partitions = [
        replace(frame, proc={"partitions": partitions(page_of(frame) or "")} | frame.proc) for frame in recorded.frames
    ]
    tree = RecordedTree(replace(recorded, frames=with_partitions))
    for tally in collector_over(tree, RecordedAnswers(tree)).tallies():
        page = page_of(tree.frame)
        yield tally, None if page is None else change(page)


@cache
def report(name: str, change: Callable[[str], str] = same) -> Report:
    """The comparison of one recording, made once for all tests."""
    return compare(frames(name, change))


@cache
def families() -> dict[str, FamilyReport]:
    """What became of each family over all recordings."""
    return {one.name: one for one in by_family([report(name) for name in COMPARED])}


def of_status(status: str) -> set[str]:
    """The families of a status."""
    return {name for name, one in families().items() if one.status == status}


def test_each_family_is_equal_differing_or_left_out() -> None:
    """All of the kubelet's families and all of ours, with a reason for each that is not equal."""
    ours = {metric.name for metric in CADVISOR} | {"container_scrape_error"}

    assert of_status("differs") == DIFFERS.keys()
    assert of_status("not recorded") == NOT_RECORDED.keys()
    assert of_status("left out") == LEFT_OUT.keys()
    assert of_status("equal") == ours - DIFFERS.keys() - NOT_RECORDED.keys()
    assert [name for name, one in families().items() if one.status != "equal" and not one.why] == []


def test_every_family_of_the_kubelets_page_is_known() -> None:
    """None of its families is forgotten: each is one of ours or is left out for a reason."""
    known = {metric.name for metric in CADVISOR} | LEFT_OUT.keys() | {"container_scrape_error"}

    assert [name for one in COMPARED for name in report(one).families if name not in known] == []


@pytest.mark.parametrize("name", sorted({metric.name for metric in CADVISOR} - DIFFERS.keys() - NOT_RECORDED.keys()))
def test_no_sample_of_an_equal_family_disagrees(name: str) -> None:
    """Counters lie between our readings on either side, gauges are equal where nothing ran, limits are the same."""
    one = families()[name]

    assert one.verdicts.get("outside", 0) == 0
    assert one.agreeing >= 20


def test_gauges_that_moved_meanwhile_are_few() -> None:
    """Where the readings on both sides differ a gauge cannot be held to one: most can."""
    moved = sum(one.verdicts.get("moved", 0) + one.verdicts.get("ran", 0) for one in families().values())
    moved -= families()["container_last_seen"].verdicts["moved"]

    assert moved < sum(one.agreeing for one in families().values()) / 20


@pytest.mark.parametrize("name", COMPARED)
def test_each_series_in_one_page_alone_has_a_reason(name: str) -> None:
    """Those of the kubelet's that we have not, and of ours that it has not, in the same frame."""
    assert [one for one in report(name).differences if one.reason is None] == []


@pytest.mark.parametrize("name", COMPARED)
def test_what_we_have_more_is_of_cgroups_that_come_or_go(name: str) -> None:
    """We give no series that the kubelet would not give a moment earlier or later, or under its pod's name."""
    reasons = {one.reason for one in report(name).differences if one.ours}
    assert reasons == ({"unnamed by the kubelet"} if name == HOSTPID else {"start or end"})


def test_zeros_of_the_root_are_the_only_ones_withheld() -> None:
    """What the kubelet gives for files that the root has not is 0."""
    lacking = {
        one.key
        for name in CAPTURED
        for one in report(name).differences
        if one.reason == "no such file in the root cgroup"
    }
    values = {one.theirs.value for name in CAPTURED for one in report(name).comparisons if one.theirs.key in lacking}

    assert (len({family_of(key) for key in lacking}), values) == (5, {0.0})


def test_every_page_is_used() -> None:
    """The captured recordings have a page in each of their eight frames, the third in five of six."""
    assert [report(name).pages for name in COMPARED] == [8, 8, 5]


def test_start_times_are_the_kubelets_where_the_makings_are_recorded() -> None:
    """Of pods, slices, sandboxes and containers alike, restarted ones among them."""
    found = [
        one.verdict
        for one in report(HOSTPID).comparisons
        if one.theirs.key.name == "container_start_time_seconds" and one.verdict != "unread"
    ]
    assert (len(found) > 200, set(found)) == (True, {"equal"})


def test_networks_are_read_of_the_node_and_of_each_pod_that_has_one() -> None:
    """Counters of the third recording lie between our readings; a pod on the host's network has none of its own."""
    report_of = report(HOSTPID)
    read = [one for one in report_of.comparisons if one.theirs.key.name == "container_network_receive_bytes_total"]
    between = {dict(one.theirs.key.labels)["id"] for one in read if one.verdict in AGREE}
    host = {dict(one.key.labels)["pod"] for one in report_of.differences if one.reason == "the host's network"}

    assert ("/" in between, len(between) >= 10, host) == (True, True, {"hostnet"})


# --- the comparison itself can fail ---------------------------------------------------------------------------------


def a_byte_more(page: str) -> str:
    """A page whose anonymous memory of idle sandboxes is one byte more."""
    line = re.compile(r'(container_memory_rss\{container="",.*image="registry[^}]*\}) (\d+) ')
    return line.sub(lambda found: f"{found[1]} {int(found[2]) + 1} ", page)


def other_limit(page: str) -> str:
    """A page with other memory limits."""
    return re.sub(r"(container_spec_memory_limit_bytes\{[^}]*\}) .*", r"\1 17", page)


def other_label(page: str) -> str:
    """A page whose containers have another name."""
    return page.replace('container="main"', 'container="other"')


def nameless(page: str) -> str:
    """A page whose kubelet never learnt the names of one container, as a real one did of a static pod's."""
    named = r'container="burn",(.*id="/[^"]*"),image="[^"]*",(.*)name="[^"]*",namespace="team-b",pod="burner"'
    return re.sub(named, r'container="",\1,image="",\2name="",namespace="",pod=""', page)


def further(page: str) -> str:
    """A page with a family that nobody knows."""
    return page + '# TYPE container_new gauge\ncontainer_new{id="/"} 1\n'


def test_another_value_disagrees() -> None:
    """Memory of a cgroup in which nothing ran, and a limit."""
    for change, name in ((a_byte_more, "container_memory_rss"), (other_limit, "container_spec_memory_limit_bytes")):
        found = {one.theirs.key.name for one in report(SYSTEMD, change).comparisons if one.verdict == "outside"}
        assert found - DIFFERS.keys() == {name}


def test_another_label_is_a_series_without_a_reason() -> None:
    """A container of another name is in one page alone, on both sides."""
    lost = {one.ours for one in report(SYSTEMD, other_label).differences if one.reason is None}

    assert lost == {True, False}


def test_a_container_that_the_kubelet_has_no_name_for_is_told_as_that() -> None:
    """Its series are in both pages, under other labels."""
    found = report(SYSTEMD, nameless).differences

    assert [one for one in found if one.reason is None] == []
    assert {one.ours for one in found if one.reason == "unnamed by the kubelet"} == {True, False}


def test_a_family_that_nobody_knows_is_a_series_without_a_reason() -> None:
    """A new family of the kubelet's is told."""
    keys = {one.key for one in report(SYSTEMD, further).differences if one.reason is None}

    assert keys == {SeriesKey("container_new", (("id", "/"),))}
