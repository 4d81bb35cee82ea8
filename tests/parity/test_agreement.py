"""The comparison with the kubelet that goes on all the time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collector.metrics.account import KubeletAgreement
from collector.model import RESOURCE_PAGE, Answer, PodTally, Tally
from collector.parity.agreement import Agreement
from tests.replays import replayed
from tests.support import recording

NAME = "parity-1hz.tar.zst"


def observed(*, every: int, since: int = 0, change: object = None) -> Agreement:
    """The recording, with the kubelet's answers about so many seconds apart."""
    agreement = Agreement(float(every))
    next_ns = recording(NAME).frames[since].instant.time_ns
    for frame, tally in zip(recording(NAME).frames, replayed(NAME).tallies(), strict=True):
        pages = [answer for answer in frame.answers if answer.name == RESOURCE_PAGE and answer.time_ns >= next_ns]
        for page in pages:
            next_ns = page.time_ns + every * 1_000_000_000
        agreement.observe(change(tally) if callable(change) else tally, pages)
    return agreement


@pytest.fixture(scope="module")
def real() -> KubeletAgreement:
    """A comparison once a minute, as a node makes it."""
    return observed(every=60).now()


def test_a_real_kubelet_agrees(real: KubeletAgreement) -> None:
    """The median of CPU is under a percent, also of small containers, and nothing is outside."""
    assert real.results == {"ok": 3, "refused": 0, "malformed": 0}
    assert real.compared == {"cpu": 22, "memory": 24}
    assert 0 < real.ratios["cpu", "median"] < 0.01
    assert real.ratios["cpu", "median"] < real.ratios["cpu", "worst"] < 0.05
    assert real.ratios["memory", "worst"] < 0.05
    assert real.outside == {"cpu": 0, "memory": 0}


def _with_more(pod: PodTally) -> PodTally:
    leaves = []
    for leaf in pod.cgroup.leaves:
        usage, memory = leaf.reading.cpu_usage_usec, leaf.reading.memory_current_bytes
        assert usage is not None
        assert memory is not None
        more = leaf.reading._replace(cpu_usage_usec=usage * 2, memory_current_bytes=memory * 2)
        leaves.append(leaf._replace(reading=more))
    return pod._replace(cgroup=pod.cgroup._replace(leaves=tuple(leaves)))


def _wrong(tally: Tally) -> Tally:
    return replace(tally, pods=tuple(map(_with_more, tally.pods)))


def test_numbers_of_ours_that_are_wrong_show() -> None:
    """Twice the CPU is a worst of 100% and containers outside, so that an alert can fire."""
    found = observed(every=60, change=_wrong).now()

    assert found.ratios["cpu", "worst"] == pytest.approx(1, abs=0.1)
    assert found.outside["cpu"] > 5
    assert found.outside["memory"] > 0


def test_one_answer_alone_compares_memory_and_no_cpu() -> None:
    """A rate needs two samples; what cannot be said is not said."""
    found = observed(every=1000, since=60).now()

    assert (found.compared["cpu"], found.compared["memory"]) == (0, 22)
    assert ("cpu", "median") not in found.ratios
    assert ("memory", "median") in found.ratios


def test_before_the_first_answer_there_is_nothing_but_the_count() -> None:
    """No 0 that would look like agreement."""
    assert Agreement(60).now() == KubeletAgreement({}, {}, {}, {"ok": 0, "refused": 0, "malformed": 0}, None)


def test_old_differences_are_not_shown() -> None:
    """After three intervals without a comparison, their age alone is."""
    agreement = observed(every=60)
    agreement._interval_seconds = 0.0
    found = agreement.now()

    assert (found.compared, found.outside, found.ratios) == ({}, {}, {})
    assert found.age_seconds is not None


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (Answer(RESOURCE_PAGE, 1, 403, "forbidden", None), "refused"),
        (Answer(RESOURCE_PAGE, 1, None, "no route", None), "refused"),
        (Answer(RESOURCE_PAGE, 1, 200, None, b"<html>container_cpu{"), "malformed"),
    ],
)
def test_an_answer_that_gives_nothing_is_counted(answer: Answer, result: str) -> None:
    """By what became of it; other answers are none of its business."""
    agreement = Agreement(60)
    tallies = replayed("systemd-containerd.tar.zst").tallies()
    agreement.observe(next(tallies), [answer, answer._replace(name="kubelet/pods.json")])
    agreement.observe(next(tallies), [])

    assert agreement.now().results == {"ok": 0, "refused": 0, "malformed": 0, result: 1}
