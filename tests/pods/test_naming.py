"""Where the names come from, answer by answer."""

from __future__ import annotations

import json
import logging

import pytest

from collector.model import Answer, NamesState
from collector.pods.naming import Naming

KUBELET = "kubelet/pods.json"
APISERVER = "apiserver/pods.json"


def pods(*uids: str) -> bytes:
    """A list of such pods."""
    items = [{"metadata": {"namespace": "n", "name": f"pod-{uid}", "uid": uid}} for uid in uids]
    return json.dumps({"items": items}).encode()


def ok(name: str, time_ns: int, *uids: str) -> Answer:
    """A list that came in."""
    return Answer(name, time_ns, 200, None, pods(*uids))


def refused(name: str, time_ns: int = 0) -> Answer:
    """A refusal."""
    return Answer(name, time_ns, 403, "Forbidden", None)


def lost(name: str, time_ns: int = 0) -> Answer:
    """Nothing answered."""
    return Answer(name, time_ns, None, "Connection refused", None)


def test_nothing_is_known_before_the_first_answer() -> None:
    """Without an answer there are no names, and the state says so."""
    naming = Naming()

    assert (dict(naming.pods), naming.state) == (
        {},
        NamesState(source="none", kubelet="unknown", apiserver="unknown", age_since_ns=None),
    )
    assert not naming.state.known


def test_the_names_follow_who_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Kubelet, then the API server in its place, then memory, then the kubelet again: each change is told once."""
    naming = Naming()
    steps: list[tuple[str, list[str], int | None]] = []
    with caplog.at_level(logging.INFO):
        for answers in (
            [ok(KUBELET, 1, "a")],
            [ok(KUBELET, 2, "a", "b")],
            [refused(KUBELET, 3), ok(APISERVER, 3, "b", "c")],
            [refused(KUBELET, 4), ok(APISERVER, 4, "c")],
            [refused(KUBELET, 5), lost(APISERVER, 5)],
            [refused(KUBELET, 6), lost(APISERVER, 6)],
            [ok(KUBELET, 7, "d")],
        ):
            naming.take(*answers)
            state = naming.state
            steps.append((state.source, sorted(naming.pods), state.age_since_ns))

    assert steps == [
        ("kubelet", ["a"], 1),
        ("kubelet", ["a", "b"], 2),
        ("apiserver", ["b", "c"], 3),
        ("apiserver", ["c"], 4),
        ("memory", ["c"], 4),
        ("memory", ["c"], 4),
        ("kubelet", ["d"], 7),
    ]
    assert caplog.messages == [
        "the kubelet answers with the pods",
        "the kubelet does not name the pods: HTTP 403: Forbidden",
        "the API server answers with the pods",
        "names are taken from the API server until the kubelet answers",
        "the API server does not name the pods: Connection refused",
        "neither the kubelet nor the API server names the pods: the last known names are used",
        "the kubelet answers with the pods",
    ]


def test_memory_is_the_newest_list() -> None:
    """When both fail, the list that came last is used, not the better source's."""
    naming = Naming()
    naming.take(ok(APISERVER, 1, "old"))
    naming.take(ok(KUBELET, 2, "new"))

    naming.take(refused(KUBELET), refused(APISERVER))

    assert (naming.state.source, list(naming.pods), naming.state.age_since_ns) == ("memory", ["new"], 2)


def test_an_answer_that_is_no_list_changes_no_name() -> None:
    """A 200 with something else than pods is a failure: the state tells it, the names stay."""
    naming = Naming()
    naming.take(ok(KUBELET, 1, "a"))

    naming.take(Answer(KUBELET, 2, 200, None, b'{"kind": "Status"}'))

    assert (list(naming.pods), naming.state) == (
        ["a"],
        NamesState(
            source="memory",
            kubelet="HTTP 200: the answer is no list of pods",
            apiserver="unknown",
            age_since_ns=1,
        ),
    )


def test_a_refusal_before_any_list_leaves_no_names() -> None:
    """A kubelet that refuses from the start leaves nothing to remember."""
    naming = Naming()

    naming.take(refused(KUBELET), lost(APISERVER))

    assert naming.state == NamesState(
        source="none", kubelet="HTTP 403: Forbidden", apiserver="Connection refused", age_since_ns=None
    )


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer(KUBELET, 0, 403, "Forbidden", None), "HTTP 403: Forbidden"),
        (Answer(KUBELET, 0, 500, None, None), "HTTP 500"),
        (Answer(KUBELET, 0, 403, "Forbidden", b'{"items": []}'), "HTTP 403: Forbidden"),
        (Answer(KUBELET, 0, None, None, None), "no answer"),
        (Answer(KUBELET, 0, None, "it hangs", None), "it hangs"),
        (Answer(KUBELET, 0, 200, "too large", None), "HTTP 200: too large"),
    ],
)
def test_a_failure_is_told_with_code_and_reason(answer: Answer, state: str) -> None:
    """The state of the kubelet is a sentence with the status code, if there is one, and the reason."""
    naming = Naming()

    naming.take(answer)

    assert naming.state.kubelet == state


def test_answers_are_counted_by_code() -> None:
    """Each answer counts under its source and HTTP status, or under error where nothing answered."""
    naming = Naming()

    naming.take(ok(KUBELET, 1), ok(KUBELET, 2), refused(KUBELET), lost(KUBELET), lost(APISERVER))

    assert naming.answers == {
        ("kubelet", "200"): 2,
        ("kubelet", "403"): 1,
        ("kubelet", "error"): 1,
        ("apiserver", "error"): 1,
    }


def test_items_that_are_no_pods_are_counted_in_all() -> None:
    """Refused items add up over answers."""
    naming = Naming()

    for _ in range(2):
        naming.take(Answer(KUBELET, 1, 200, None, b'{"items": [1, {}]}'))

    assert naming.refused_items == 4


def test_an_answer_to_compare_with_is_ignored() -> None:
    """What a recording has along besides pods changes nothing and counts nowhere."""
    naming = Naming()

    naming.take(Answer("kubelet/stats_summary.json", 1, 500, "no", None))

    assert (naming.state.kubelet, naming.answers) == ("unknown", {})


def test_a_pod_keeps_its_name_as_long_as_its_cgroup() -> None:
    """A kubelet that has just started lists few pods or none: what still has a cgroup keeps its name, the rest goes."""
    naming = Naming()
    naming.take(ok(KUBELET, 1, "a", "b", "c"))
    naming.keep = {"a", "b"}
    naming.take(ok(KUBELET, 2, "b"))
    first = set(naming.pods)
    naming.keep = {"b"}
    naming.take(ok(KUBELET, 3, "b"))

    assert (first, set(naming.pods)) == ({"a", "b"}, {"b"})
