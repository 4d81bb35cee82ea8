"""Whole ticks over anything: any bytes of the kernel, any answer of the kubelet, any directory names.

What comes of them is a value, an omission or a counted error: never an exception out of a tick, never a wrong series.
"""

from __future__ import annotations

import copy
import errno
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import currently_in_test_context, event, given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from collector.cgroup.files import FAST, SLOW
from collector.loop import Published
from collector.metrics import resource
from collector.metrics.cadvisor import CadvisorExposition
from collector.metrics.native import NativeExposition, Selection
from collector.model import PodTally, Tally
from collector.seams import AnswerSource
from collector.server import api
from tests.support import LEAF_A, LEAF_B, LEAF_C, UID, Answers, Cgroup, MemoryTree, NoAnswers, collector_over

OFTEN = settings(max_examples=150)

# --- what is held of every tally ------------------------------------------------------------------------------------


def ticks(tree: MemoryTree, answers: AnswerSource, count: int = 3, *, kubepods: str | None = None) -> list[Tally]:
    """Some ticks, each of them held to the rules."""
    collector = collector_over(tree, answers, kubepods=kubepods)
    exposition = NativeExposition(Selection(pod_labels=("app", "a-b")))
    tallies = [collector.tick() for _ in range(count)]
    for tally in tallies:
        hold(tally, exposition)
    collector.close()
    return tallies


def hold(tally: Tally, exposition: NativeExposition) -> None:
    """All that must be true of a tally, whatever was read."""
    native = exposition.render(tally, openmetrics=False)
    strict = exposition.render(tally, openmetrics=True) + "# EOF\n"
    cadvisor = CadvisorExposition(timestamps=True)
    for text in (native, resource.render(tally, openmetrics=False), cadvisor.render(tally, openmetrics=False)):
        well_formed(parse_text(text))
    for text in (strict, resource.render(tally, openmetrics=True), cadvisor.render(tally, openmetrics=True)):
        well_formed(openmetrics.text_string_to_metric_families(text))
    json.loads(json.dumps(api.document(Published(tally, 0, 0, 0)), allow_nan=False))
    for pod in tally.pods:
        whole_or_absent(pod)
    if currently_in_test_context():
        event(f"pods summed: {sum(pod.cpu_cores is not None for pod in tally.pods)} of {len(tally.pods)}")


def well_formed(families: Iterable[Metric]) -> None:
    """No series twice, none of them of two families, and no counter below zero."""
    parsed = list(families)
    series = Counter((sample.name, tuple(sorted(sample.labels.items()))) for one in parsed for sample in one.samples)
    assert [name for name, times in series.items() if times > 1] == []
    assert [name for name, times in Counter(one.name for one in parsed).items() if times > 1] == []
    assert [one.name for one in parsed if one.type == "counter" and any(each.value < 0 for each in one.samples)] == []


def whole_or_absent(pod: PodTally) -> None:
    """A sum is there only while all its parts are: each leaf but one named, each container with its value."""
    unnamed = [leaf for leaf in pod.cgroup.leaves if leaf.container_id not in pod.pod.containers]
    may_sum = pod.pod.phase == "Running" and len(unnamed) <= 1 and len(pod.containers) > 0
    cpu, memory = ([getattr(one, name) for one in pod.containers] for name in ("cpu_cores", "memory_bytes"))
    if pod.cpu_cores is not None:
        assert may_sum
        assert pod.cpu_cores == sum(cpu)
    if pod.memory_bytes is not None:
        assert may_sum
        assert pod.memory_bytes == sum(memory)
    assert all(value is None or value >= 0 for value in (*cpu, *memory, pod.cgroup_cpu_cores, pod.cpu_peak_cores))


# --- the kernel -----------------------------------------------------------------------------------------------------

NAMES = sorted({file.name for file in (*FAST, *SLOW)})
KEYS = ("usage_usec", "user_usec", "inactive_file", "anon", "oom_kill", "max", "some", "full", "avg10=0.00", "total=5")
NUMBERS = ("0", "7", "123456789", "9" * 20, "9" * 21, "-1", "1e3", "nan", "total=", "\t", "\n", "\n", "\n", "\n", "\n")
WORDS = st.sampled_from(KEYS + NUMBERS)
SCALARS = st.integers(0, 2**64 - 1).map(lambda number: b"%d\n" % number)
STATS = st.lists(
    st.tuples(st.sampled_from(["usage_usec", "inactive_file", "anon", "file", "oom"]), st.integers(0, 10**15)),
    max_size=4,
    unique_by=lambda line: line[0],
).map(lambda lines: "".join(f"{key} {value}\n" for key, value in lines).encode())
ERRNOS = st.sampled_from([errno.ENOENT, errno.EACCES, errno.EIO, errno.EOPNOTSUPP, errno.ENODEV, errno.EMFILE, 4095])
CONTENT = st.binary(max_size=30) | st.lists(WORDS, max_size=8).map(lambda words: " ".join(words).encode()) | SCALARS
WHOLE = st.integers(0, 10**15).map(
    lambda number: {
        "cpu.stat": b"usage_usec %d\n" % number,
        "memory.current": b"9\n",
        "memory.stat": b"inactive_file 2\n",
    }
)
ANY = st.dictionaries(st.sampled_from(NAMES), CONTENT | STATS | ERRNOS, max_size=len(NAMES))
FILES = st.one_of(WHOLE, WHOLE, WHOLE, st.tuples(WHOLE, ANY).map(lambda both: both[0] | both[1]), ANY)


def pods_named(*uids: str) -> bytes:
    """A PodList of running pods with containers a and b."""
    states = [
        {"name": leaf[0], "containerID": f"containerd://{leaf}", "state": {"running": {}}} for leaf in (LEAF_A, LEAF_B)
    ]
    return json.dumps(
        {
            "items": [
                {
                    "metadata": {"namespace": "ns", "name": f"pod-{uid}", "uid": uid},
                    "status": {"phase": "Running", "containerStatuses": states},
                }
                for uid in uids
            ]
        }
    ).encode()


@given(contents=st.lists(FILES, min_size=15, max_size=15), meminfo=CONTENT | ERRNOS)
@OFTEN
def test_any_bytes_in_any_kernel_file(contents: list[dict[str, bytes | int]], meminfo: bytes | int) -> None:
    """Three ticks over files of any bytes and errors, in the root, a pod and its leaves, end well."""
    paths = ["kubepods/podx", *(f"kubepods/podx/{leaf}" for leaf in (LEAF_C, LEAF_A, LEAF_B))]
    tree = MemoryTree({".": Cgroup(1), "kubepods": Cgroup(2)}, {"meminfo": meminfo}, step=5)
    tree.cgroups |= {path: Cgroup(number, {}, 1_699_999_000 * 10**9) for number, path in enumerate(paths, 3)}
    collector = collector_over(tree, Answers(pods_named("x")))
    exposition = NativeExposition(Selection())
    for number in range(3):
        for path, files in zip(paths, contents[5 * number :], strict=False):
            tree.cgroups[path].files = files
        # The root is the one that must be there: a tick without it fails as a whole, which the loop counts.
        tree.cgroups["."].files = {k: v for k, v in contents[5 * number + 4].items() if v != errno.ENODEV}
        hold(collector.tick(), exposition)


# --- the kubelet ----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


TEXTS = (
    "a",
    "b",
    "",
    "x y",
    'quo"te',
    "back\\slash",
    "new\nline",
    "ä\u2028",
    "\r",
    "\x00",
    "#",
    "{}",
    "\ud800",
    UID,
    "x",
)
PARTS = (LEAF_A, f"containerd://{LEAF_B}", f"docker://{LEAF_C}", "Running", "Succeeded", "0001-01-01T00:00:00Z", "no")
JUNK: st.SearchStrategy[Any] = JSON | st.sampled_from(TEXTS + PARTS) | st.just({}) | st.just([])


def full_list() -> dict[str, Any]:
    """A PodList of three pods in which everything that podtally reads is there."""

    def status(leaf: str, ended: str) -> dict[str, Any]:
        return {
            "name": leaf[0],
            "containerID": f"containerd://{leaf}",
            "image": "nginx",
            "state": {"running": {"startedAt": "2023-11-14T22:00:00Z"}},
            "lastState": {"terminated": {"containerID": f"containerd://{ended * 64}"}},
        }

    return {
        "kind": "PodList",
        "items": [
            {
                "metadata": {
                    "namespace": "ns",
                    "name": f"web-{uid}",
                    "uid": uid,
                    "creationTimestamp": "2023-11-14T22:00:00Z",
                    "labels": {"app": "web", "pod-template-hash": uid},
                    "annotations": {"kubernetes.io/config.hash": uid, "kubernetes.io/config.mirror": uid},
                    "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": f"web-{uid}"}],
                },
                "spec": {"nodeName": "n", "hostNetwork": True},
                "status": {
                    "phase": "Running",
                    "qosClass": "Guaranteed",
                    "containerStatuses": [status(LEAF_A, "d")],
                    "initContainerStatuses": [status(LEAF_B, "e")],
                    "ephemeralContainerStatuses": [],
                },
            }
            for uid in (UID, "x", "y")
        ],
    }


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container of a document with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((value, key), *places(value[key]))]


@st.composite
def lists(draw: st.DrawFn) -> Any:
    """A good PodList in which some places hold something else, or something from another place, or are gone."""
    document = {"": full_list()}
    for _ in range(draw(st.integers(0, 3))):
        inside, key = draw(st.sampled_from(places(document)))
        other, other_key = draw(st.sampled_from(places(document)))
        what = draw(st.sampled_from(["junk", "copy", "gone"]))
        if what == "gone" and isinstance(inside, dict) and key:
            del inside[key]
        elif what == "copy":
            inside[key] = copy.deepcopy(other[other_key])
        else:
            inside[key] = draw(JUNK)
    return document[""]


def three_pods() -> MemoryTree:
    """Three pods, each with three leaves, that use CPU as time goes."""
    made = {".": Cgroup(1, {"cpu.stat": b"usage_usec 5\n"}), "kubepods": Cgroup(2)}
    files: dict[str, bytes | int] = {
        "cpu.stat": b"usage_usec 5000000\n",
        "memory.current": b"9\n",
        "memory.stat": b"inactive_file 2\n",
    }
    for number, uid in enumerate((UID, "x", "y")):
        for depth, path in enumerate((f"pod{uid}", *(f"pod{uid}/{leaf}" for leaf in (LEAF_C, LEAF_A, LEAF_B)))):
            started_ns = None if depth % 2 else 1_699_999_000 * 10**9
            made[f"kubepods/{path}"] = Cgroup(10 * number + depth + 10, dict(files), started_ns)
    return MemoryTree(made, {"meminfo": b""}, step=5)


@given(st.lists(lists(), min_size=1, max_size=3))
@OFTEN
def test_any_json_of_the_kubelet(values: list[Any]) -> None:
    """Ticks with lists of pods in which anything may stand anywhere end well, as do those after them."""
    ticks(three_pods(), Answers(*(json.dumps(value).encode() for value in values)), 4)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_start_outside_of_the_calendar(time: str) -> None:
    """A start that is in no year in UTC is an omission, not an exception of the API, where the cgroup tells none."""
    tree = three_pods()
    for one in tree.cgroups.values():
        one.mtime_ns = None
    ticks(tree, Answers(json.dumps(full_list()).replace("2023-11-14T22:00:00Z", time).encode()), 1)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=3))
@OFTEN
def test_any_bytes_of_the_kubelet(bodies: list[bytes]) -> None:
    """An answer of any bytes names nothing and ends no tick."""
    before = [pods_named("x"), *bodies]
    assert [len(tally.pods) for tally in ticks(three_pods(), Answers(*before), len(before))] == [1] * len(before)


@given(st.sampled_from([b"[", b'{"items":[', b'{"a":']), st.integers(500, 200_000))
@settings(max_examples=6)
def test_json_of_any_depth(opening: bytes, depth: int) -> None:
    """An answer that is nested deeper than Python can follow is no list of pods, and nothing worse."""
    assert [tally.names.source for tally in ticks(three_pods(), Answers(opening * depth), 1)] == ["none"]


# --- names ----------------------------------------------------------------------------------------------------------

ODD = st.text(st.characters(blacklist_characters="/\x00", blacklist_categories=["Cs"]), min_size=1, max_size=6)
PLAUSIBLE = (f"pod{UID}", "podx", "kubepods-pody.slice", "burstable", "kubepods-besteffort.slice", LEAF_A, LEAF_C)
ALMOST = (
    "pod",
    "pod_",
    ".slice",
    "pod.slice",
    f"crio-conmon-{LEAF_B}.scope",
    "container",
    "podä",
    "caf\udce9",
    "a\nb",
    '"',
)
LEAVES = (f"crio-{LEAF_B}.scope", f"docker-{LEAF_A}.scope")
DIRECTORIES = (st.sampled_from(PLAUSIBLE + ALMOST + LEAVES) | ODD).filter(lambda name: name not in (".", ".."))
PLAIN = st.tuples(st.sampled_from(["podx", "pody"]), st.sampled_from([LEAF_C, LEAF_A, LEAF_B])).map(list)
TREES = st.lists(st.lists(DIRECTORIES, min_size=1, max_size=4) | PLAIN, max_size=10)


@given(trees=st.lists(TREES, min_size=3, max_size=3), body=lists().map(lambda value: json.dumps(value).encode()))
@OFTEN
def test_any_directory_names(trees: list[list[list[str]]], body: bytes) -> None:
    """Three ticks over three trees of any names below kubepods, cgroups made again among them, end well."""
    tree = MemoryTree({}, {"meminfo": b"SwapTotal: 4 kB\n"}, step=5)
    collector = collector_over(tree, Answers(pods_named(UID, "x", "y"), body))
    exposition = NativeExposition(Selection())
    for serial, paths in enumerate(trees):
        tree.cgroups = {".": Cgroup(1), "kubepods": Cgroup(2)}
        for number, parts in enumerate(paths):
            for depth in range(len(parts)):
                path = "/".join(["kubepods", *parts[: depth + 1]])
                files: dict[str, bytes | int] = {
                    "cpu.stat": b"usage_usec %d\n" % (serial * 1000),
                    "memory.current": b"5\n",
                    "memory.stat": b"inactive_file 1\n",
                }
                tree.cgroups.setdefault(path, Cgroup(100 * (serial // 2) + 10 * number + depth + 3, files))
        hold(collector.tick(), exposition)


@given(st.lists(ODD.filter(lambda name: name not in (".", "..")), max_size=6))
@OFTEN
def test_any_names_beside_kubepods(names: list[str]) -> None:
    """Whatever else is at the root and below it, kubepods is found and read."""
    tree = three_pods()
    tree.cgroups |= {name: Cgroup(500 + number) for number, name in enumerate(names)}
    tree.cgroups |= {f"{name}/{name}": Cgroup(600 + number) for number, name in enumerate(names)}
    assert len(ticks(tree, NoAnswers(), 1)[0].unnamed) == 3
