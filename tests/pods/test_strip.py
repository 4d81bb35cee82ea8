"""Lists of pods without what podtally does not read: what is derived of them is what is derived of the whole ones."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import AnswerTooLarge
from collector.pods import strip as stripping
from collector.pods.answer import MOST_CONTAINERS, MOST_LABELS, MOST_STRIPPED, READ, parse_pods, pod_of, stripped
from collector.pods.strip import is_pod_list, strip
from tests.pods.test_answer import KEYS, POD_LIKE, STARTED, item, running
from tests.support import CAPTURED, FIXTURES, RECORDED, SYNTHETIC, recording

REAL = (*CAPTURED, *RECORDED, "parity-1hz.tar.zst", "crun.tar.zst", "crio.tar.zst", "gvisor.tar.zst", "hostpid.tar.zst")


def real_lists(name: str) -> list[bytes]:
    """Different lists of pods of a recording, some of them where there are many."""
    found = {
        answer.body: None
        for frame in recording(name).frames
        for answer in frame.answers
        if is_pod_list(answer.name) and answer.status == 200 and answer.body is not None
    }
    return list(found)[:: len(found) // 6 or 1]


def same(value: Any) -> None:
    """Assert that an item says the same without what is not read."""
    whole = pod_of(value, 5)
    text = stripped(value)
    if text is None:
        assert whole is None
    else:
        assert pod_of(json.loads(text), 5) == whole
        assert stripped(json.loads(text)) == text


def test_all_fixtures_are_looked_at() -> None:
    """Each archive of a node is among the real ones."""
    assert {path.name for path in FIXTURES.glob("*.tar.zst")} == set(REAL)


@pytest.mark.parametrize("name", [*SYNTHETIC, *REAL])
def test_a_stripped_list_says_the_same(name: str) -> None:
    """Of every list of every recording the pods are equal, field by field: what is read is kept."""
    lists = real_lists(name)

    assert lists
    for body in lists:
        assert parse_pods(strip(body), "x", 5) == parse_pods(body, "x", 5)
        assert strip(strip(body)) == strip(body)
        for one in json.loads(body)["items"] or []:
            same(one)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in it."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, "", "x", [], {}, [None], [1], ["a"], [[]], [{}], {"a": None}, {"a": 1}, {"": ""}),
    *(10**30, "\ud800", "\0", "9999-99-99T99:99:99Z", "2026-01-01", [{"controller": True}], {"running": 1}),
    *(
        {"running": {}},
        {"terminated": {}},
        {"terminated": {"exitCode": [1]}},
        float("inf"),
        "kubernetes.io/config.mirror",
    ),
)


@pytest.mark.parametrize("fixture", ["systemd-containerd.tar.zst", "static-pod", "restart"])
def test_a_mutated_item_says_the_same(fixture: str) -> None:
    """With values of a real pod replaced by odd ones, or taken out, the pod is the same or none in both."""
    chosen = random.Random(7)
    for body in real_lists(fixture)[:1]:
        for one in json.loads(body)["items"]:
            for path in chosen.choices(list(places(one)), k=40):
                changed = deepcopy(one)
                if not path:
                    continue
                above = changed
                for key in path[:-1]:
                    above = above[key]
                for odd in chosen.sample(ODD, 6):
                    above[path[-1]] = odd
                    same(changed)
                del above[path[-1]]
                same(changed)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_each_field_that_is_read_may_be_odd(odd: Any) -> None:
    """A value of another type at each place that is read is as odd without the rest."""
    whole = item(
        metadata={
            "labels": {"a": "b"},
            "annotations": {"kubernetes.io/config.mirror": "m", "kubernetes.io/config.hash": "h"},
            "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "x-1"}],
            "creationTimestamp": STARTED,
            "deletionTimestamp": STARTED,
        },
        spec={
            "hostNetwork": True,
            "restartPolicy": "OnFailure",
            "runtimeClassName": "r",
            "containers": [{"name": "a", "image": "i"}],
            "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        },
        status={
            "containerStatuses": [
                running("a", "aa", lastState={"terminated": {"containerID": "x://bb", "exitCode": 1}}),
                {"name": "b", "state": {"terminated": {"containerID": "x://cc", "exitCode": 1}}, "imageID": "z"},
            ]
        },
    )
    for path in places(whole):
        if path:
            changed = deepcopy(whole)
            above = changed
            for key in path[:-1]:
                above = above[key]
            above[path[-1]] = odd
            same(changed)


@given(POD_LIKE | st.builds(item, metadata=st.dictionaries(KEYS, POD_LIKE, max_size=4)))
def test_any_item_says_the_same(value: Any) -> None:
    """Whatever JSON an item is."""
    same(value)


def test_nothing_else_is_kept() -> None:
    """Of a pod with a secret in every field that podtally does not read, none is left."""
    secret = {"name": "c", "env": [{"name": "SECRET", "value": "SECRET"}], "args": ["SECRET"], "command": ["SECRET"]}
    volumes = [{"name": "SECRET", "hostPath": {"path": "SECRET"}}]
    whole = item(
        metadata={"annotations": {"last-applied": "SECRET"}, "managedFields": [{"manager": "SECRET"}]},
        spec={"containers": [secret], "initContainers": [secret], "volumes": volumes, "hostAliases": ["SECRET"]},
        status={"message": "SECRET", "containerStatuses": [running("c", "aa", env="SECRET", message="SECRET")]},
    )
    body = json.dumps({"metadata": {"SECRET": "SECRET"}, "items": [whole, "SECRET", {"SECRET": 1}]}).encode()

    assert b"SECRET" not in strip(body)
    assert json.loads(strip(body))["items"][1:] == [None, None]


def test_what_is_refused_is_counted_in_both() -> None:
    """An item that is no pod is none in the stripped list too, and counts."""
    body = json.dumps({"items": [item(), 7, {"metadata": {}}]}).encode()

    assert parse_pods(strip(body), "x").refused == parse_pods(body, "x").refused == 2


def test_a_field_that_is_not_kept_is_missed() -> None:
    """The law above can fail: each field of the fixtures' pods that is read is kept for a reason."""
    (one,) = (
        item(
            metadata={"labels": {"a": "b"}, "creationTimestamp": STARTED, "deletionTimestamp": STARTED},
            status={"containerStatuses": [running("a", "aa")]},
        ),
    )
    for part, fields in READ.items():
        for field in fields:
            if field in one[part]:
                less = deepcopy(one)
                del less[part][field]
                assert pod_of(less, 0) != pod_of(one, 0), field


@pytest.mark.parametrize(
    "whole",
    [
        item(metadata={"name": "x" * MOST_STRIPPED}),
        item(status={"containerStatuses": [running("c", f"{n:064x}") for n in range(MOST_CONTAINERS + 1)]}),
        item(spec={"containers": [{"name": "c"}] * (MOST_CONTAINERS + 1)}),
        item(status={"containerStatuses": [running("c", "a", image="x" * 1000)] * 40}),
    ],
)
def test_a_pod_that_is_larger_than_honest_ones_is_refused(whole: dict[str, Any]) -> None:
    """It is counted, raw and stripped, and the others are named."""
    body = json.dumps({"items": [whole, item(metadata={"uid": "u-2"})]}).encode()

    for one in (body, strip(body)):
        listed = parse_pods(one, "x")
        assert (list(listed.pods), listed.refused) == (["u-2"], 1)


def test_labels_beyond_a_number_are_left_out() -> None:
    """A pod with more labels than any honest one has its first ones."""
    whole = item(metadata={"labels": {f"l{n:04}": "" for n in range(MOST_LABELS + 5)}})
    body = json.dumps({"items": [whole]}).encode()

    for one in (body, strip(body)):
        (pod,) = parse_pods(one, "x").pods.values()
        assert list(pod.labels) == [f"l{n:04}" for n in range(MOST_LABELS)]


def test_what_is_kept_of_a_list_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of more than fits is refused as a whole."""
    monkeypatch.setattr(stripping, "MOST_KEPT_BYTES", 1000)
    with pytest.raises(AnswerTooLarge, match=r"that podtally reads$"):
        strip(json.dumps({"items": [item()] * 10}).encode())
