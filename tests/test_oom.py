"""OOM kills by name: what is counted to whom, and that no counter steps back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import pytest

from collector.cgroup.carry import Carry
from collector.cgroup.walk import Walker
from collector.history import History
from collector.loop import Collector
from collector.model import Container, Details, Frame, Instant, Leaf, NodeReading, Pod, PodCgroup, Reading, Tally
from collector.oom import OomKills
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.replays import replayed
from tests.support import CAPTURED, RECORDED, SECOND_NS, SYNTHETIC, recording

LINGER = 30 * SECOND_NS

# --- on real recordings ---------------------------------------------------------------------------------------------


def counted(tallies: Iterable[Tally], pod: str) -> list[dict[str, int]]:
    """The counters of a pod, ``""``, and of its containers, after each frame."""
    return [
        {one.container: one.kills for one in (*tally.pod_kills, *tally.container_kills) if one.pod == pod}
        for tally in tallies
    ]


def test_a_kill_whose_container_is_gone_is_counted_to_it() -> None:
    """In a captured recording three processes are killed between two frames and their container is gone by the second,
    its own count with it: the pod's counter has the fifteen before and these, the container's has these, and that of
    the other one stays at 0.
    """
    before, after = ({"": pod, "main": main, "quiet": 0} for pod, main in ((15, 0), (18, 3)))

    assert counted(replayed("churn.tar.zst").tallies(), "oom") == [before] * 4 + [after] * 6


def test_what_was_counted_before_the_first_frame_is_no_containers_where_it_has_several() -> None:
    """A pod of two containers that begins with 102 kills of ended ones has them in its own counter alone."""
    assert counted(replayed("oom.tar.zst").tallies(), "oom")[-1] == {"": 102, "main": 0, "quiet": 0}


@pytest.mark.parametrize("name", [*SYNTHETIC, *CAPTURED, *RECORDED])
def test_no_counter_steps_back_over_three_passes(name: str) -> None:
    """Of one name no counter is ever lower than it was, the seams of a looped replay included, and the containers'
    never add up to more than their pod's.
    """
    recorded = recording(name)
    tree = RecordedTree(recorded, loop=True)
    collector = Collector(
        walker=Walker(tree, slow_every=1),
        answers=RecordedAnswers(tree),
        history=History(window_ns=15 * SECOND_NS, interval_ns=recorded.interval_ns, linger_ns=LINGER),
        node_name="n",
        adjust=Carry(lambda: tree.passes).adjust,
    )
    seen: dict[tuple[str, str, str], int] = {}
    for _ in range(3 * len(recorded.frames)):
        tally = collector.tick()
        for one in (*tally.pod_kills, *tally.container_kills):
            assert one.kills >= seen.get(one[:3], 0)
            seen[one[:3]] = one.kills
        for pod in tally.pod_kills:
            containers = [one.kills for one in tally.container_kills if one[:2] == pod[:2]]
            assert sum(containers) <= pod.kills


# --- by hand --------------------------------------------------------------------------------------------------------


NONE: Mapping[str, int | None] = MappingProxyType({})


class Cgroup(NamedTuple):
    """A pod's cgroup: its count, and those of its containers; ``None`` could not be read."""

    kills: int | None
    containers: Mapping[str, int | None] = NONE
    gone: Mapping[str, int | None] = NONE
    uid: str = "u"
    ino: int = 1


def reading(count: int | None) -> Reading:
    """A reading with that many kills."""
    return Reading(0, details=Details(memory_oom_kill_events=count))


def _leaves(uid: str, containers: Mapping[str, int | None]) -> tuple[Leaf, ...]:
    """Containers of a pod by their ids, with their counts."""
    return tuple(
        Leaf(f"pod{uid}/{id_}", hash(id_), id_, None, None, reading(count)) for id_, count in containers.items()
    )


class Node:
    """Counters over frames a second apart. A container's id is its name and a number: ``a1``, ``a2``."""

    def __init__(self, *names: str, pod: str = "p", linger_ns: int = LINGER) -> None:
        """``names``: ids that statuses know."""
        self.kills = OomKills(linger_ns)
        self.pods: dict[str, Pod] = {}
        self.name("u", *names, pod=pod)
        self.second = 0

    def name(self, uid: str, *ids: str, pod: str = "p", init: tuple[str, ...] = ()) -> None:
        """A pod with containers of these ids."""
        self.pods[uid] = Pod(
            namespace="ns",
            name=pod,
            uid=uid,
            phase="Running",
            qos_class="",
            node="",
            created_ns=None,
            host_network=False,
            labels={},
            owner_kind="",
            owner_name="",
            containers={
                one: Container(
                    name=one.rstrip("0123456789"),
                    container_id=one,
                    kind="init" if one in init else "app",
                    state="running",
                    image="",
                    started_ns=None,
                )
                for one in ids
            },
        )

    def frame(self, *cgroups: Cgroup, after: int = 1) -> dict[str, int]:
        """The counters after a frame, ``after`` seconds after the one before."""
        self.second += after
        made = tuple(
            PodCgroup(
                f"pod{one.uid}",
                one.ino,
                one.uid,
                "Burstable",
                None,
                reading(one.kills),
                _leaves(one.uid, one.containers),
                gone=_leaves(one.uid, one.gone),
            )
            for one in cgroups
        )
        at = Instant(self.second * SECOND_NS, self.second * SECOND_NS)
        pods, containers = self.kills.advance(
            Frame(at, NodeReading(Reading(0)), made, {}, 0, 0), self.pods, {("podu/pause", hash("pause"))}
        )
        return {one.container or one.pod: one.kills for one in (*pods, *containers)}


def test_a_kill_in_a_live_container_is_its_own() -> None:
    """A child process that is killed while its container lives on is counted by the container's own count."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))

    assert node.frame(Cgroup(1, {"a1": 1, "b1": 0})) == {"p": 1, "a": 1, "b": 0}
    assert node.frame(Cgroup(1, {"a1": 1, "b1": 0})) == {"p": 1, "a": 1, "b": 0}


def test_a_restart_continues_the_counter() -> None:
    """The next container of the name has a count of its own, which is added."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    node.frame(Cgroup(2, {"a1": 2, "b1": 0}))
    node.name("u", "a1", "a2", "b1")
    node.frame(Cgroup(2, {"a2": 0, "b1": 0}))

    assert node.frame(Cgroup(3, {"a2": 1, "b1": 0})) == {"p": 3, "a": 3, "b": 0}


def test_a_kill_that_was_half_read_is_counted_once() -> None:
    """A container whose own count had the first of two kills before it went is given but the other."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    node.frame(Cgroup(1, {"a1": 1, "b1": 0}))

    assert node.frame(Cgroup(2, {"b1": 0})) == {"p": 2, "a": 2, "b": 0}


def test_a_kill_between_the_readings_of_pod_and_container_is_counted_once() -> None:
    """The pod is read before its containers: a kill in between shows in the container's count a frame before the pod's,
    or in the pod's a frame after the container has gone.
    """
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    assert node.frame(Cgroup(0, {"a1": 1, "b1": 0})) == {"p": 0, "a": 1, "b": 0}
    assert node.frame(Cgroup(1, {"a1": 1, "b1": 0})) == {"p": 1, "a": 1, "b": 0}
    node.frame(Cgroup(1, {"b1": 0}))
    assert node.frame(Cgroup(2, {"b1": 0})) == {"p": 2, "a": 2, "b": 0}


def test_of_several_that_end_at_once_nobody_is_blamed() -> None:
    """Two containers of other names are gone with the kill: the pod's counter alone has it, then and later."""
    node = Node("a1", "b1", "c1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0, "c1": 0}))

    assert node.frame(Cgroup(1, {"c1": 0})) == {"p": 1, "a": 0, "b": 0, "c": 0}
    assert node.frame(Cgroup(1, {"c1": 0}), after=40) == {"p": 1, "a": 0, "b": 0, "c": 0}


def test_the_sandbox_is_not_suspected() -> None:
    """A pod's end takes its sandbox with its container: the kill is the container's."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"pause": 0, "a1": 0}))

    assert node.frame(Cgroup(1)) == {"p": 1, "a": 1, "b": 0}


def test_the_only_container_of_a_pod_has_all_its_kills() -> None:
    """With one container there is no doubt: its counter is the pod's, from the first frame on."""
    node = Node("a1")

    assert node.frame(Cgroup(7, {"pause": 0, "a1": 0})) == {"p": 7, "a": 7}
    assert node.frame(Cgroup(8, {"pause": 0})) == {"p": 8, "a": 8}


def test_a_container_that_was_never_seen_has_its_kill_in_a_pod_of_one() -> None:
    """Born and killed between two frames, it leaves its kill in the pod's count: the pod has no other to blame."""
    node = Node("a1")
    node.frame(Cgroup(0, {"pause": 0}))

    assert node.frame(Cgroup(1, {"pause": 0})) == {"p": 1, "a": 1}


def test_a_container_seen_between_two_frames_has_its_kill() -> None:
    """One that came and went between two frames is suspected as one that has ended is, and its own count is exact."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"b1": 0}))
    node.name("u", "a1", "a2", "b1")

    assert node.frame(Cgroup(1, {"b1": 0}, gone={"a1": 0})) == {"p": 1, "a": 1, "b": 0}
    assert node.frame(Cgroup(2, {"b1": 0}, gone={"a2": 1})) == {"p": 2, "a": 2, "b": 0}


def test_a_container_that_was_read_once_more_before_it_went_is_counted_once() -> None:
    """One of the last frame that is gone with a kill more than it had has that kill, and no other."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    node.frame(Cgroup(1, {"a1": 1, "b1": 0}))

    assert node.frame(Cgroup(2, {"b1": 0}, gone={"a1": 2})) == {"p": 2, "a": 2, "b": 0}
    assert node.frame(Cgroup(2, {"b1": 0})) == {"p": 2, "a": 2, "b": 0}


def test_a_kill_waits_for_the_name_of_its_container() -> None:
    """A container that no status has named yet when it ends gets its kill with its name, if that comes in time."""
    node = Node("b1")
    node.name("u", "b1", "c1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    assert node.frame(Cgroup(1, {"b1": 0})) == {"p": 1, "b": 0, "c": 0}
    node.name("u", "a1", "b1", "c1")

    assert node.frame(Cgroup(1, {"b1": 0}), after=20) == {"p": 1, "a": 1, "b": 0, "c": 0}


def test_a_name_that_comes_too_late_is_given_nothing() -> None:
    """After the time to linger the kill stays in the pod's counter alone."""
    node = Node("b1")
    node.name("u", "b1", "c1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))
    for after in (1, 1, 31):
        node.frame(Cgroup(1, {"b1": 0}), after=after)
    node.name("u", "a1", "b1", "c1")

    assert node.frame(Cgroup(1, {"b1": 0})) == {"p": 1, "a": 0, "b": 0, "c": 0}


def test_where_the_dead_had_a_part_before_the_first_frame_all_begin_at_zero() -> None:
    """A live container's own count is not told then: before a restart of the collector its counter may have been
    higher, and a lower one that is not 0 would be new kills to increase().
    """
    node = Node("a1", "b1")

    assert node.frame(Cgroup(5, {"a1": 1, "b1": 0})) == {"p": 5, "a": 0, "b": 0}
    assert node.frame(Cgroup(6, {"a1": 2, "b1": 0})) == {"p": 6, "a": 1, "b": 0}


def test_live_containers_that_account_for_all_begin_with_their_own() -> None:
    """Where no kill of the first frame is a dead one's, each container has what its own count says."""
    assert Node("a1", "b1").frame(Cgroup(3, {"a1": 2, "b1": 1})) == {"p": 3, "a": 2, "b": 1}


def test_a_pod_that_comes_later_counts_from_its_first_kill() -> None:
    """What a pod that is new to a running collector has counted befell it since: a live one's count is its own."""
    node = Node("a1", "b1")
    node.frame()

    assert node.frame(Cgroup(2, {"a1": 1, "b1": 0})) == {"p": 2, "a": 1, "b": 0}


def test_counters_linger_and_go() -> None:
    """After its pod a counter stays for the time to linger, and is gone at the next frame."""
    node = Node("a1")
    node.frame(Cgroup(1, {"a1": 1}))

    assert node.frame(after=30) == {"p": 1, "a": 1}
    assert node.frame(after=1) == {}


def test_a_pod_of_the_same_name_goes_on() -> None:
    """Within the time to linger another uid adds to the counters; later it begins with its own."""
    node = Node("a1")
    node.frame(Cgroup(2, {"a1": 2}))
    node.name("v", "a2")
    assert node.frame(Cgroup(1, {"a2": 1}, uid="v"), after=30) == {"p": 3, "a": 3}
    node.frame(after=31)
    node.name("w", "a3")

    assert node.frame(Cgroup(1, {"a3": 1}, uid="w")) == {"p": 1, "a": 1}


def test_of_two_pods_of_a_name_each_holds_its_own_containers() -> None:
    """An old cgroup can outlive its pod: what it alone had goes with it, and what the newer has stays."""
    node = Node("a1", "old1")
    node.name("v", "a2")
    both = Cgroup(0, {"a1": 0, "old1": 0}), Cgroup(0, {"a2": 0}, uid="v")
    assert node.frame(*both) == {"p": 0, "a": 0, "old": 0}

    assert node.frame(both[1], after=30) == {"p": 0, "a": 0, "old": 0}
    assert node.frame(both[1]) == {"p": 0, "a": 0}


def test_a_cgroup_made_again_adds_its_count() -> None:
    """Another inode at the pod's path is another cgroup, whose count began at 0."""
    node = Node("a1")
    node.frame(Cgroup(2, {"a1": 2}))

    assert node.frame(Cgroup(1, {"a1": 1}, ino=2)) == {"p": 3, "a": 3}


def test_a_cgroup_that_comes_back_is_not_counted_again() -> None:
    """A pod that is missing in a frame, as at the seam of a looped replay, goes on where it was."""
    node = Node("a1")
    node.frame(Cgroup(2, {"a1": 2}))
    node.frame()

    assert node.frame(Cgroup(2, {"a1": 2})) == {"p": 2, "a": 2}


def test_a_pod_without_a_name_is_counted_when_it_gets_one() -> None:
    """Kills before the first answer are not lost, however late it comes."""
    node = Node()
    node.pods.clear()
    node.frame(Cgroup(0, {"a1": 0}))
    assert node.frame(Cgroup(1)) == {}
    node.name("u", "a1")

    assert node.frame(Cgroup(1), after=100) == {"p": 1, "a": 1}


def test_without_the_file_there_is_no_counter() -> None:
    """A kernel or cgroup without memory.events has no counter, which is not one of 0."""
    node = Node("a1")

    assert node.frame(Cgroup(None, {"a1": None})) == {}
    assert node.frame(Cgroup(0, {"a1": 0})) == {"p": 0, "a": 0}


def test_a_count_that_cannot_be_read_keeps_the_counter() -> None:
    """A frame in which memory.events gave an error changes nothing, and what came meanwhile is counted after it."""
    node = Node("a1")
    node.frame(Cgroup(1, {"a1": 1}))

    assert node.frame(Cgroup(None, {"a1": None})) == {"p": 1, "a": 1}
    assert node.frame(Cgroup(2, {"a1": 2})) == {"p": 2, "a": 2}


def test_a_container_that_waits_for_its_restart_keeps_its_counter() -> None:
    """Back-off may be longer than the time to linger: the counter is there at 0 when the container is killed again."""
    node = Node("a1", "b1")
    node.frame(Cgroup(0, {"a1": 0, "b1": 0}))

    assert node.frame(Cgroup(0, {"b1": 0}), after=300) == {"p": 0, "a": 0, "b": 0}


def test_an_init_container_that_is_done_lets_go_of_a_counter_of_zero() -> None:
    """It will not run again: its counter goes after the time to linger, unless it has something to tell."""
    node = Node()
    node.name("u", "a1", "setup1", init=("setup1",))
    node.frame(Cgroup(0, {"setup1": 0}))
    assert node.frame(Cgroup(0, {"a1": 0}), after=30) == {"p": 0, "a": 0, "setup": 0}
    assert node.frame(Cgroup(0, {"a1": 0})) == {"p": 0, "a": 0}

    other = Node()
    other.name("u", "a1", "setup1", init=("setup1",))
    other.frame(Cgroup(1, {"setup1": 1}))
    assert other.frame(Cgroup(1, {"a1": 0}), after=300) == {"p": 1, "a": 0, "setup": 1}


# --- any order of events --------------------------------------------------------------------------------------------


class Kernel:
    """A pod whose containers are killed, end and are made again, in an order that ``random`` chooses."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.names = "abc"[: random.randint(1, 3)]
        self.made: list[str] = []
        self.live: dict[str, int] = {}
        self.ended: dict[str, int] = {}
        """With their last counts, since the last frame."""
        self.suffered = dict.fromkeys(self.names, 0)
        for name in self.names:
            self.make(name)

    def make(self, name: str) -> None:
        """A container of this name is started."""
        self.made.append(f"{name}{len(self.made)}")
        self.live[self.made[-1]] = 0

    def step(self) -> None:
        """Something happens, or nothing."""
        random = self.random
        one = random.choice([*self.live, ""])
        name = random.choice(self.names)
        if one and random.random() < 0.5:
            if random.random() < 0.7:
                self.live[one] += 1
                self.suffered[one[0]] += 1
            if random.random() < 0.7:
                self.ended[one] = self.live.pop(one)
        elif not any(other.startswith(name) for other in self.live):
            self.make(name)

    def steps(self, most: int) -> None:
        """A few of these."""
        for _ in range(self.random.randint(0, most)):
            self.step()


@pytest.mark.parametrize("seed", range(200))
def test_in_any_order_of_events_each_kill_is_counted_once_to_its_own(seed: int) -> None:
    """Kills and ends before, between and after the readings of the pod and of its containers, where each container that
    ends has been read to its end: no counter steps back or has a kill too many, the pod's is at any time what it has
    counted, and in the end every container's is what befell it.
    """
    kernel = Kernel(Random(seed))
    node = Node()
    held: dict[str, int] = {}
    before: dict[str, int] = {}
    for number in range(30):
        kernel.ended = {}
        if number < 28:
            kernel.steps(3)
        total = sum(kernel.suffered.values())
        if number < 28:
            kernel.steps(1)
        leaves = dict(kernel.live)
        if number < 28:
            kernel.steps(1)
        gone = {id_: count for id_, count in (held | kernel.ended).items() if id_ not in leaves}
        held = {id_: count for id_, count in kernel.ended.items() if id_ in leaves}
        node.name("u", *kernel.made)
        counters = node.frame(Cgroup(total, leaves, gone))

        assert counters["p"] == total
        assert all(counters[name] <= kernel.suffered[name] for name in kernel.names)
        assert all(counters[name] >= count for name, count in before.items())
        before = counters
    assert {name: before[name] for name in kernel.names} == kernel.suffered
