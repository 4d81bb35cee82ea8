"""Our numbers against the kubelet's own ``/metrics/resource``, over every frame of every real recording."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from collector.parity.resource import (
    OurReadings,
    Ours,
    Report,
    SeriesKey,
    Theirs,
    Verdict,
    compare,
    count,
    excuse,
    parse,
)
from tests.replays import replayed
from tests.support import recording

RECORDINGS = ("systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst", "parity-1hz.tar.zst")


@cache
def report(name: str) -> Report:
    """A recording's comparison."""
    recorded = recording(name)
    pages = [
        next(
            (one.body.decode() for one in frame.answers if one.name == "kubelet/metrics_resource.txt" and one.body),
            None,
        )
        for frame in recorded.frames
    ]
    return compare(zip(replayed(name).tallies(), pages, strict=True))


@pytest.mark.parametrize("name", RECORDINGS)
def test_no_sample_of_the_kubelet_disagrees(name: str) -> None:
    """CPU lies between our readings on either side; memory is equal where ours are equal and nothing ran in between."""
    assert [one for one in report(name).comparisons if one.verdict == "outside"] == []


def total(name: str, verdict: Verdict, part: str) -> int:
    """How many samples of families with ``part`` in their name have the verdict."""
    return sum(of.get(verdict, 0) for family, of in count(report(name)).items() if part in family)


@pytest.mark.parametrize(
    ("name", "cpu", "memory"),
    [(RECORDINGS[0], 64, 45), (RECORDINGS[1], 75, 47), (RECORDINGS[2], 373, 243)],
)
def test_most_samples_are_compared_and_agree(name: str, cpu: int, memory: int) -> None:
    """The comparison is not empty: so many CPU samples lie between, so many working sets are equal."""
    assert (total(name, "between", "cpu"), total(name, "equal", "working_set")) == (cpu, memory)


@pytest.mark.parametrize(("name", "ran"), [(RECORDINGS[0], 2), (RECORDINGS[1], 4), (RECORDINGS[2], 8)])
def test_working_sets_that_moved_in_between_are_few_and_known(name: str, ran: int) -> None:
    """Where both our readings are equal and the kubelet's differs, the CPU counter shows that something ran."""
    found = [one for one in report(name).comparisons if one.verdict == "ran"]

    assert len(found) == ran
    for one in found:
        assert one.before is not None
        assert one.after is not None
        assert one.before.value == one.after.value
        assert (one.before.cpu_usage_usec or 0) < (one.after.cpu_usage_usec or 0)


@pytest.mark.parametrize("name", RECORDINGS)
def test_each_series_in_one_page_only_has_a_named_reason(name: str) -> None:
    """Pages differ only by containers near their start or end, by scrape_error, and by files that are not recorded."""
    one = report(name)
    reasons = Counter(
        (excuse(one, difference, key), key.name if "swap" in key.name else "")
        for difference in one.differences
        for key in difference.only_theirs | difference.only_ours
    )

    expected = {("start or end", ""), ("scrape_error", ""), ("start or end", "container_swap_limit_bytes")}
    expected |= {("start or end", "container_swap_usage_bytes"), ("start or end", "pod_swap_usage_bytes")}
    if name == "parity-1hz.tar.zst":
        # Its frames have ten files a cgroup, memory.swap.* not among them.
        swap = ("container_swap_limit_bytes", "container_swap_usage_bytes", "pod_swap_usage_bytes")
        expected = {("start or end", ""), ("scrape_error", ""), *(("file not recorded", family) for family in swap)}
    assert set(reasons) == expected


def test_every_page_is_used() -> None:
    """All frames are tallied and all of the kubelet's pages are compared."""
    assert [(report(name).frames, report(name).pages) for name in RECORDINGS] == [(8, 8), (8, 8), (151, 25)]


# --- the comparison itself can fail ---------------------------------------------------------------------------------

CPU = SeriesKey("container_cpu_usage_seconds_total", (("container", "a"), ("namespace", "n"), ("pod", "p")))
MEMORY = CPU._replace(name="container_memory_working_set_bytes")


def readings(key: SeriesKey, *ours: Ours) -> OurReadings:
    """Readings of one series."""
    one = OurReadings()
    one._series[key] = list(ours)
    return one


@pytest.mark.parametrize(
    ("value", "time_ms", "verdict"),
    [
        (1.5, 1500, "between"),
        (1.0, 1500, "between"),
        (0.9, 1500, "outside"),
        (2.1, 1500, "outside"),
        (0.9, 1050, "older"),
        (2.1, 2950, "between"),
        (1.9, 2950, "outside"),
        (3.0, 3500, "newer"),
    ],
)
def test_a_counter_outside_its_bracket_disagrees(value: float, time_ms: int, verdict: Verdict) -> None:
    """The bracket is the readings on either side, those within 100 ms left aside."""
    ours = readings(CPU, *(Ours(at * 1000, float(at), "x", at) for at in (1, 2, 3)), Ours(3200, 3.0, "x", 3))

    assert ours.compare(Theirs(CPU, value, time_ms)).verdict == verdict


@pytest.mark.parametrize(
    ("value", "usage", "verdict"), [(4096, 7, "equal"), (4096, 8, "equal"), (8192, 7, "outside"), (8192, 8, "ran")]
)
def test_memory_of_an_idle_cgroup_must_be_equal(value: float, usage: int, verdict: Verdict) -> None:
    """A working set that differs where nothing ran disagrees; where something ran it is told apart."""
    ours = readings(MEMORY, Ours(1000, 4096, "x", 7), Ours(2000, 4096, "x", usage))

    assert ours.compare(Theirs(MEMORY, value, 1500)).verdict == verdict


def test_a_restart_in_between_is_not_compared() -> None:
    """Readings of two cgroups are no bracket."""
    ours = readings(CPU, Ours(1000, 5, "old", 5), Ours(2000, 1, "new", 1))

    assert ours.compare(Theirs(CPU, 5.1, 1500)).verdict == "restarted"


def test_a_missing_series_without_a_reason_is_told() -> None:
    """A container that the kubelet has and we have not, far from any start or end, has no excuse."""
    name = "systemd-containerd.tar.zst"
    recorded = recording(name)
    pages = [
        next(one.body for one in frame.answers if one.name == "kubelet/metrics_resource.txt" and one.body).decode()
        for frame in recorded.frames
    ]
    ghost = 'container_cpu_usage_seconds_total{container="x",namespace="team-c",pod="hostnet"} 1 1795412409871\n'
    with_ghost = [page + ghost for page in pages]
    one = compare(zip(replayed(name).tallies(), with_ghost, strict=True))
    ghosts = {
        excuse(one, difference, key)
        for difference in one.differences
        for key in difference.only_theirs
        if key.owner.container == "x"
    }

    assert ghosts == {None}


def test_parse_reads_values_labels_and_times() -> None:
    """A sample has its labels, its value and its milliseconds, or no time."""
    page = '# TYPE a gauge\na{pod="p"} 5 1795412409871\n# TYPE b gauge\nb 1\n'

    assert parse(page) == [
        Theirs(SeriesKey("a", (("pod", "p"),)), 5.0, 1795412409871),
        Theirs(SeriesKey("b", ()), 1.0, None),
    ]
