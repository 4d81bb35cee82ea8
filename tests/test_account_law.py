"""The law: a sum is whole or absent, whatever a node does; and once it does nothing any more, it is whole again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.account import VANISHED_NS
from collector.model import PodTally, Tally
from tests.support import SECOND_NS
from tests.worlds import MEBIBYTE, REFUSALS, TrueContainer, TruePod, World

QUIET = 60
"""Seconds without a disturbance at the end."""

AGAIN_WHOLE = 30
"""By then all is whole again: a status that is asked for every 10 s, is late, and has been asked for again."""


def memory_of(pod: TruePod, *, elsewhere: bool = False) -> int:
    """What the containers hold that live in the pod's cgroup, or elsewhere."""
    lives = [(one, one.life) for one in pod.containers]
    return sum(one.memory_bytes for one, life in lives if life is not None and life.elsewhere is elsewhere)


def lost_for_good(pod: TruePod, second: int) -> bool:
    """Whether a container of it has been elsewhere for so long that every answer tells."""
    return any(
        one.life is not None and one.life.elsewhere and second - one.life.made > AGAIN_WHOLE for one in pod.containers
    )


def check(world: World, tally: Tally) -> None:
    """What is exported is what lives; nothing of a pod is where a part of it is known to be elsewhere."""
    told = {one.pod.name: one for one in tally.pods}
    for pod in world.pods:
        one = told.get(pod.name)
        if one is None:
            continue
        _check_pod(pod, one, world.tree.seconds)


def _check_pod(pod: TruePod, one: PodTally, second: int) -> None:
    if one.memory_bytes is not None:
        assert one.memory_bytes == memory_of(pod)
        assert not lost_for_good(pod, second)
    if one.cpu_cores is not None:
        # No more than the pod's cgroup and what has ended in it could have used in any second.
        assert one.cpu_cores <= sum(each.milli for each in pod.containers) / 1000 + 0.005
        assert one.memory_bytes is not None
    if one.incomplete is not None:
        assert one.memory_bytes is None
        assert one.cpu_cores is None


containers: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "milli": st.sampled_from([0, 40, 200, 900]),
        "delay": st.integers(0, 3),
        "elsewhere": st.sampled_from([False] * 5 + [True]),
    }
)
pods: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"has_sandbox": st.booleans(), "containers": st.lists(containers, min_size=1, max_size=3)}
)
events = st.tuples(
    st.integers(5, 60),
    st.sampled_from(["restart", "end", "refuse", "silence", "hide"]),
    st.integers(0, 9),
    st.integers(1, 12),
)


def build(drawn: list[dict[str, Any]], late: int) -> tuple[World, list[tuple[int, TruePod, TrueContainer, bool]]]:
    """The world, and when which container starts."""
    world = World(late=late)
    starts = []
    for number, pod in enumerate(drawn):
        made = [
            TrueContainer(f"c{place}", one["milli"], (1 << place) * MEBIBYTE)
            for place, one in enumerate(pod["containers"])
        ]
        true = world.add_pod(f"p{number}", made, has_sandbox=pod["has_sandbox"])
        for one, told in zip(made, pod["containers"], strict=True):
            starts.append((told["delay"], true, one, told["elsewhere"]))
    return world, starts


def happen(world: World, what: str, which: int) -> Any:
    """Let it happen to one of the containers; what ends it, if something does."""
    every = [(pod, one) for pod in world.pods for one in pod.containers]
    pod, one = every[which % len(every)]
    if what in ("restart", "end"):
        world.end(one)
        return (lambda: world.start(pod, one)) if what == "restart" else None
    if what == "refuse":
        one.refused = REFUSALS[which % len(REFUSALS)]

        def readable() -> None:
            one.refused = None

        return readable
    if what == "silence":
        world.kubelet.silent = True

        def speak() -> None:
            world.kubelet.silent = False

        return speak
    pod.hidden_milli = 200

    def leave() -> None:
        pod.hidden_milli = 0

    return leave


@settings(max_examples=60)
@given(drawn=st.lists(pods, min_size=1, max_size=2), late=st.integers(0, 3), happenings=st.lists(events, max_size=6))
def test_a_sum_is_whole_or_absent_and_whole_again_in_the_end(
    drawn: list[dict[str, Any]], late: int, happenings: list[tuple[int, str, int, int]]
) -> None:
    """Nodes of one or two pods, with and without a sandbox, some containers elsewhere, and a kubelet that is late; some
    of them restart, end, cannot be opened, or are joined by what is in no leaf; the kubelet falls silent.
    """
    world, starts = build(drawn, late)
    due: list[tuple[int, Any]] = []
    last = max((second + length for second, _, _, length in happenings), default=5)
    for second in range(last + QUIET):
        for delay, pod, one, elsewhere in starts:
            if delay == second:
                world.start(pod, one, elsewhere=elsewhere)
        for at, what, which, length in happenings:
            if at == second:
                undo = happen(world, what, which)
                if undo is not None:
                    due.append((second + length, undo))
        for at, undo in due:
            if at == second:
                undo()
        tally = world.tick()
        check(world, tally)
        if second >= last + AGAIN_WHOLE:
            _check_quiet(world, tally)


def _check_quiet(world: World, tally: Tally) -> None:
    """Every pod with a living container is whole, but for one of which a part is elsewhere."""
    told = {one.pod.name: one for one in tally.pods}
    for pod in world.pods:
        lives = [one.life for one in pod.containers if one.life is not None]
        if any(life.elsewhere for life in lives):
            assert (told[pod.name].incomplete, told[pod.name].memory_bytes) == ("missing_container", None)
        elif lives:
            assert (told[pod.name].incomplete, told[pod.name].memory_bytes) == (None, memory_of(pod))


@pytest.mark.parametrize("has_sandbox", [True, False])
def test_nothing_that_is_whole_is_withheld_while_containers_churn(has_sandbox: bool) -> None:
    """Ten minutes in which a container ends and starts again every few seconds: a pod beside it is whole, and no reason
    is ever given for it; the container's own is whole in between.
    """
    world = World(late=1)
    calm = world.add_pod(
        "calm", [TrueContainer("a", 200, MEBIBYTE), TrueContainer("b", 20, 2 * MEBIBYTE)], has_sandbox=True
    )
    churning = world.add_pod("churning", [TrueContainer("c", 500, MEBIBYTE)], has_sandbox=has_sandbox)
    for one in calm.containers:
        world.start(calm, one)
    whole = 0
    for second in range(600):
        if second % 12 == 3:
            world.start(churning, churning.containers[0])
        if second % 12 == 11:
            world.end(churning.containers[0])
        told = {one.pod.name: one for one in world.tick().pods}
        if second > VANISHED_NS // SECOND_NS:
            assert told["calm"].incomplete is None
            assert told["calm"].cpu_cores == pytest.approx(0.22, abs=0.001)
        if "churning" in told and told["churning"].memory_bytes is not None:
            whole += 1
            assert told["churning"].memory_bytes == MEBIBYTE

    assert whole > 200
