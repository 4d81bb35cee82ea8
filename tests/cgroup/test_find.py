"""Where kubepods is looked for, which of several is followed, and when it is looked for again."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from collector.cgroup import find
from collector.cgroup.find import find_kubepods
from collector.cgroup.walk import Walker
from collector.errors import UnsupportedNode
from collector.model import Frame
from collector.sources.recording import RecordedAnswers, RecordedTree, load
from collector.sources.tee import RecordingWriter, TeeAnswers, TeeTree
from tests.support import (
    LEAF_A,
    Cgroup,
    MemoryDirectory,
    MemoryTree,
    case,
    cgroup,
    collector_over,
    expose_all,
    live,
    recording,
    v2_root,
)


def uids(frame: Frame) -> list[str]:
    """Of the pods of a frame."""
    return sorted(pod.uid for pod in frame.pods)


def trees(*tops: str, empty: tuple[str, ...] = (), dead: tuple[str, ...] = ()) -> MemoryTree:
    """A node with a pod, whose uid is a number, below each of ``tops``; none below those that are ``empty``; and one
    without processes, of the uid ``dead``, below those that are ``dead``.
    """
    made = {".": Cgroup(1, {"cpu.stat": b"usage_usec 5\n"})}
    for number, top in enumerate((*tops, *empty, *dead)):
        for path in (f"{top}/"[:at] for at, letter in enumerate(f"{top}/") if letter == "/"):
            made.setdefault(path, Cgroup(len(made) + 10))
        if top not in empty:
            add_pod(made, top, "dead" if top in dead else str(number), living=top not in dead)
    return MemoryTree(made)


def add_pod(cgroups: dict[str, Cgroup], top: str, uid: str, *, living: bool = True) -> None:
    """A pod of one leaf."""
    files: dict[str, bytes | int] = {
        "cpu.stat": b"usage_usec 7\n",
        "cgroup.events": b"populated %d\nfrozen 0\n" % living,
    }
    cgroups[f"{top}/pod{uid}"] = Cgroup(1000 + len(cgroups), files)
    cgroups[f"{top}/pod{uid}/{LEAF_A}"] = Cgroup(1000 + len(cgroups), dict(files))


def remove(cgroups: dict[str, Cgroup], path: str) -> None:
    """With all that is in it."""
    for name in [name for name in cgroups if name == path or name.startswith(f"{path}/")]:
        del cgroups[name]


def ticks(walker: Walker, count: int, expected: frozenset[str] = frozenset()) -> Frame:
    """The last of so many, with these pods named as running."""
    for _ in range(count):
        frame = walker.expect(walker.tick(), expected)
    return frame


# --- one ------------------------------------------------------------------------------------------------------------

KUBEPODS = {
    "systemd-containerd.tar.zst": ("kubepods.slice",),
    "cgroupfs-containerd.tar.zst": ("kubepods",),
    "kind-nested": ("kubelet.slice/kubelet-kubepods.slice",),
    "docker-outside-kind": (f"system.slice/docker-{'0' * 64}.scope/kubelet.slice/kubelet-kubepods.slice",),
}


def masked(path: str) -> str:
    """A path with any container id made zeros."""
    return "/".join(part[:7] + "0" * 64 + part[71:] if part.startswith("docker-") else part for part in path.split("/"))


@pytest.mark.parametrize("name", KUBEPODS)
def test_kubepods_is_found_by_looking(name: str) -> None:
    """At the root for both drivers, and below other roots for kind, from the inside and from the host."""
    walker = Walker(RecordedTree(recording(name)))
    walker.tick()

    assert tuple(map(masked, walker.kubepods)) == KUBEPODS[name]


def test_kubepods_may_be_given() -> None:
    """A path that no search would find is followed when it is given, with or without slashes around it."""
    found = [uids(Walker(trees("odd/place"), kubepods=given).tick()) for given in (None, "odd/place", "/odd/place/")]

    assert found == [[], ["0"], ["0"]]


def test_what_is_given_is_followed_alone() -> None:
    """With a path given nothing else is looked for, whatever the names say."""
    walker = Walker(trees("a/kubepods", "b/kubepods"), kubepods="b/kubepods")

    assert uids(ticks(walker, 30, frozenset({"0"}))) == ["1"]


@pytest.mark.parametrize("above", ["", "kubelet/"])
def test_both_drivers_trees_side_by_side_are_one_node(above: str) -> None:
    """A node that went from one driver to the other has both, at the root or nested, and both are followed."""
    assert uids(Walker(trees(f"{above}kubepods", f"{above}kubepods.slice")).tick()) == ["0", "1"]


def test_within_a_kubepods_none_is_looked_for() -> None:
    """A kind cluster inside a pod of the node is that pod's own, though a pod is missing."""
    tree = trees("kubepods", "kubepods/pod0/x/kubepods")

    assert [one.tops for one in find_kubepods(tree, {"1"}, everywhere=True).every] == [("kubepods",)]


def test_a_directory_that_cannot_be_looked_into_does_not_end_the_search() -> None:
    """Beside it kubepods is found, and the error is told."""
    tree = trees("b/kubepods")
    tree.cgroups["a"] = Cgroup(50, listing=errno.EACCES)
    found = find_kubepods(tree)

    assert (found.tops, [error.reason for error in found.errors]) == (("b/kubepods",), ["denied"])


@pytest.mark.parametrize(("depth", "cut_short"), [(8, False), (12, False), (13, True)])
def test_a_search_goes_down_twelve_levels(depth: int, cut_short: bool) -> None:
    """What is deeper is not looked for, and the search says that there is more."""
    found = find_kubepods(trees("/".join([*"abcdefghijkl"[: depth - 1], "kubepods"])))

    assert (bool(found.chosen), found.cut_short) == (not cut_short, cut_short)


def test_a_search_has_an_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Of too many directories the nearest to the root are looked at, and the log says once that there are more."""
    monkeypatch.setattr(find, "LIMIT", 3)
    walker = Walker(trees("a/b/kubepods", "c/d/kubepods"))
    ticks(walker, 30)

    assert walker.kubepods == ()
    assert [message for message in caplog.messages if "bounds" in message] == [
        "the search for kubepods has ended at its bounds, not all cgroups of this node were looked at: if pods are"
        " missing, give the path with --kubepods"
    ]


@pytest.mark.parametrize(("given", "what"), [(None, "no kubepods cgroup"), ("mistyped", "no cgroup mistyped")])
def test_a_node_without_pods_cgroups_is_told_once(
    given: str | None, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No kubepods is no error, as a kubelet may come up later; a mistyped --kubepods does not pass for that."""
    frame = ticks(Walker(trees(), kubepods=given), 20)

    assert (frame.pods, frame.errors, frame.node.reading.cpu_usage_usec) == ((), {}, 5)
    assert caplog.messages == [f"there is {what} on this node (yet): podtally doctor tells more"]


# --- several --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["stale-empty-kubepods-at-root", "stale-empty-kubepods-nested", "rootless-kind-from-host"]
)
def test_the_tree_that_holds_pods_is_followed(name: str) -> None:
    """Each recording's one pod has its 0.2 cores and 88 MiB, whatever stands beside its tree and however deep it is."""
    tree = RecordedTree(case(name))
    *_, last = collector_over(tree, RecordedAnswers(tree)).tallies()

    assert [(pod.pod.name, round(pod.cpu_cores or 0, 6), pod.memory_bytes) for pod in last.pods] == [
        ("web", 0.2, 88 << 20)
    ]
    assert (dict(last.incomplete), last.unnamed) == ({}, frozenset())


@pytest.mark.parametrize("stale", ["empty", "dead"])
def test_a_tree_without_processes_is_not_followed_before_one_with_them(stale: str) -> None:
    """Nearer to the root, it is empty or its pods' cgroups are: it was left behind."""
    tree = trees("a/kubepods", **{stale: ("kubepods",)})

    assert uids(Walker(tree).tick()) == ["0"]


def test_without_names_the_nearest_to_the_root_is_followed() -> None:
    """Other nodes' trees below it are guests'."""
    assert uids(Walker(trees("a/b/kubepods", "c/kubepods")).tick()) == ["1"]


def test_names_tell_which_of_several_is_the_nodes() -> None:
    """Where two are equally near, none is followed before a name is known, and then the one that has its uid: in the
    same tick.
    """
    walker = Walker(trees("a/kubepods", "b/kubepods"))
    first, second = walker.tick(), walker.tick()
    third = walker.expect(second, frozenset({"1"}))

    assert [uids(frame) for frame in (first, second, third, walker.tick())] == [[], [], ["1"], ["1"]]


def test_names_overrule_what_is_nearest() -> None:
    """The tree that has the named uids is followed from the next tick on, and the other is let go."""
    walker = Walker(trees("kubepods", "a/b/kubepods"))
    first = ticks(walker, 1, frozenset({"1"}))

    assert [uids(first), uids(walker.tick()), walker.kubepods] == [["0"], ["1"], ("a/b/kubepods",)]


def test_a_node_whose_pods_are_in_two_places_has_both() -> None:
    """After a change of the kubelet's root its pods are in the old tree and in the new one for a while: a uid that it
    names is no other node's.
    """
    walker = Walker(trees("kubepods", "a/kubepods", "b/kubepods"))
    ticks(walker, 30, frozenset({"0", "1"}))

    assert walker.kubepods == ("kubepods", "a/kubepods")


def test_several_nodes_that_no_name_tells_apart_are_refused_with_what_to_do() -> None:
    """Where the named pods are in neither, the sentence names both trees and the flag, in this tick and the next."""
    walker = Walker(trees("system.slice/docker-1/kubepods", "system.slice/docker-2/kubepods"))
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(UnsupportedNode) as refused:
            walker.expect(walker.tick(), frozenset({"other"}))
        said.append(str(refused.value))

    assert said == 2 * [
        "several nodes' pods are below this cgroup root (system.slice/docker-1/kubepods, "
        "system.slice/docker-2/kubepods): choose one with --kubepods"
    ]


def test_several_without_pods_are_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """The one that gets pods is followed then, and the log tells once what is waited for."""
    tree = trees(empty=("a/kubepods", "b/kubepods"))
    walker = Walker(tree)
    first = ticks(walker, 1)
    add_pod(tree.cgroups, "b/kubepods", "0")

    assert [uids(first), uids(ticks(walker, 10))] == [[], ["0"]]
    assert caplog.messages == [
        "several kubepods are below this cgroup root, and none has pods (a/kubepods, b/kubepods): until a pod of this"
        " node's is in one of them, none is followed"
    ]


# --- again ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["kubepods", "kubelet.slice/kubelet-kubepods.slice"])
def test_a_kubepods_that_appears_later_is_found(top: str) -> None:
    """At the root or nested, it is found when the root changes."""
    tree = trees()
    walker = Walker(tree)
    first = walker.tick()
    tree.cgroups |= trees(top).cgroups
    second = walker.tick()

    assert [uids(first), uids(second)] == [[], ["0"]]


def test_a_nested_kubepods_that_appears_below_an_old_directory_is_found(tmp_path: Path) -> None:
    """Where the root itself does not change, it is found within ten ticks."""
    root = v2_root(tmp_path / "cgroup")
    shutil.rmtree(root / "kubepods")
    (root / "kubelet.slice").mkdir()
    walker = Walker(live(root))
    walker.tick()
    cgroup(root / "kubelet.slice" / "kubelet-kubepods.slice" / "podx" / LEAF_A)

    assert uids(ticks(walker, 10)) == ["x"]
    walker.close()


def test_a_kubepods_that_goes_and_comes_back_is_followed_again() -> None:
    """A kubelet that makes its tree anew is followed at the next tick."""
    tree = trees("kubepods")
    walker = Walker(tree)
    seen = [uids(walker.tick())]
    kept, tree.cgroups = tree.cgroups, trees().cgroups
    seen.append(uids(walker.tick()))
    tree.cgroups = {path: Cgroup(one.ino + 5, one.files) if path != "." else one for path, one in kept.items()}
    seen.append(uids(walker.tick()))

    assert seen == [["0"], [], ["0"]]


def test_the_other_drivers_tree_that_appears_at_the_root_is_followed_at_once() -> None:
    """Beside the one that is followed already."""
    tree = trees("kubepods")
    walker = Walker(tree)
    walker.tick()
    tree.cgroups |= {"kubepods.slice": Cgroup(900)}
    add_pod(tree.cgroups, "kubepods.slice", "1")

    assert uids(walker.tick()) == ["0", "1"]


def test_a_tree_that_only_looks_like_the_nodes_is_let_go() -> None:
    """A nested kubepods that was there before the kubelet's is followed no longer than until that one has pods."""
    tree = trees("user.slice/u/kubepods")
    walker = Walker(tree)
    first = walker.tick()
    tree.cgroups["kubepods.slice"] = Cgroup(900)
    add_pod(tree.cgroups, "kubepods.slice", "true")

    assert [uids(first), uids(walker.tick()), walker.kubepods] == [["0"], ["true"], ("kubepods.slice",)]


def test_a_root_that_is_changed_at_run_time_is_found() -> None:
    """A kubelet that is started with another cgroupRoot has its pods there; its old tree, which still has one, goes on
    being followed, and no longer than that.
    """
    tree = trees("kubepods")
    add_pod(tree.cgroups, "kubepods", "old")
    tree.cgroups["kubelet"] = Cgroup(900)
    walker = Walker(tree)
    names = frozenset({"0", "old"})
    seen = [uids(ticks(walker, 21, names))]
    tree.cgroups["kubelet/kubepods"] = Cgroup(901)
    remove(tree.cgroups, "kubepods/pod0")
    add_pod(tree.cgroups, "kubelet/kubepods", "0")
    seen.append(uids(ticks(walker, 21, names)))
    remove(tree.cgroups, "kubepods/podold")
    add_pod(tree.cgroups, "kubelet/kubepods", "old")
    seen.append(uids(ticks(walker, 21, names)))

    assert seen == 3 * [["0", "old"]]
    add_pod(tree.cgroups, "kubelet/kubepods", "new")
    remove(tree.cgroups, "kubelet/kubepods/podold")
    ticks(walker, 21, frozenset({"0", "new", "old"}))
    assert walker.kubepods == ("kubelet/kubepods",)


class Opens(MemoryTree):
    """Counts how often a directory that holds no pods is opened: only a search does that."""

    count = 0

    def open(self, path: str) -> MemoryDirectory:
        self.count += path == "system.slice"
        return super().open(path)


@pytest.mark.parametrize(
    ("named", "searches"), [(frozenset({"0"}), 0), (frozenset({"0", "gone"}), 4), (frozenset({"gone"}), 6)]
)
def test_a_search_is_made_no_more_than_every_ten_ticks(named: frozenset[str], searches: int) -> None:
    """And once more as names become known of which no pod is seen; none while each that is named is seen."""
    tree = Opens(trees("kubepods").cgroups | {"system.slice": Cgroup(800)})
    walker = Walker(tree)
    ticks(walker, 51, named)

    assert tree.count == searches


def test_a_tree_that_could_not_be_looked_into_is_not_let_go() -> None:
    """Another node's tree takes its place no sooner than it is known to have none of the named pods."""
    tree = trees("a/kubepods", "kubepods")
    del tree.cgroups["kubepods/pod1"], tree.cgroups[f"kubepods/pod1/{LEAF_A}"]
    walker = Walker(tree)
    first = ticks(walker, 1, frozenset({"0"}))
    tree.cgroups["a"].listing = errno.EMFILE
    add_pod(tree.cgroups, "kubepods", "other")
    after = ticks(walker, 40, frozenset({"0", "missing"}))

    assert (uids(first), "0" in uids(after), after.errors) == (["0"], True, {"exhausted": 1})


def test_a_replay_follows_what_was_followed(tmp_path: Path) -> None:
    """A recording of a search says the same as what was searched."""
    recorded = case("stale-empty-kubepods-nested")
    inner = RecordedTree(recorded)
    with RecordingWriter(str(tmp_path / "r"), recorded.meta) as writer:
        tee = TeeTree(inner, writer)
        said = expose_all(collector_over(tee, TeeAnswers(RecordedAnswers(inner), tee)))
        tee.flush()
    again = RecordedTree(load(tmp_path / "r"))

    assert expose_all(collector_over(again, RecordedAnswers(again))) == said
