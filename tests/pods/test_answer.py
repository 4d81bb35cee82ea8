"""Pod lists, as the kubelet and the API server give them."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import AnswerError
from collector.model import Container, Pod
from collector.pods.answer import PodList, parse_pods, parse_time_ns
from tests.support import recording

STARTED_NS = 1_700_000_000_000_000_000
STARTED = "2023-11-14T22:13:20Z"


def item(**changes: Any) -> dict[str, Any]:
    """A pod with what every pod has; ``changes`` are its metadata, spec or status, merged."""
    whole: dict[str, Any] = {
        "metadata": {"namespace": "team-a", "name": "web", "uid": "u-1"},
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Running", "qosClass": "Burstable"},
    }
    for part, values in changes.items():
        whole[part] = {**whole[part], **values}
    return whole


def parsed(*items: Any) -> PodList:
    """The list of these items."""
    return parse_pods(json.dumps({"kind": "PodList", "items": items}).encode(), "the kubelet")


def only(**changes: Any) -> Pod:
    """The one pod of such a list."""
    (pod,) = parsed(item(**changes)).pods.values()
    return pod


def running(name: str, container_id: str, **more: Any) -> dict[str, Any]:
    """The status of a container that runs."""
    state = {"running": {"startedAt": STARTED}}
    return {"name": name, "containerID": f"containerd://{container_id}", "image": "img:1", "state": state, **more}


def container(name: str, container_id: str, **changes: Any) -> Container:
    """What is made of it."""
    values: dict[str, Any] = {
        "name": name,
        "container_id": container_id,
        "kind": "app",
        "state": "running",
        "image": "img:1",
        "started_ns": STARTED_NS,
    }
    return Container(**{**values, **changes})


def ended(name: str, container_id: str, kind: str = "app") -> Container:
    """What is made of one that has ended."""
    return container(name, container_id, kind=kind, state="ended", image="", started_ns=None)


def test_a_pod_has_what_the_answer_says() -> None:
    """All fields of a pod come from its metadata, spec and status."""
    pod = only(
        metadata={"labels": {"app": "web", "odd": 1}, "creationTimestamp": STARTED},
        spec={"hostNetwork": True},
        status={"containerStatuses": [running("main", "aa")]},
    )

    assert pod == Pod(
        namespace="team-a",
        name="web",
        uid="u-1",
        phase="Running",
        qos_class="Burstable",
        node="node1",
        created_ns=STARTED_NS,
        host_network=True,
        labels={"app": "web"},
        owner_kind="",
        owner_name="",
        containers={"aa": container("main", "aa")},
    )


def test_a_pod_needs_no_more_than_its_identity() -> None:
    """A pod without spec and status, as one that is just bound, has empty texts and no containers."""
    (pod,) = parsed({"metadata": {"namespace": "n", "name": "p", "uid": "u"}}).pods.values()

    assert (pod.phase, pod.qos_class, pod.node, pod.created_ns, pod.containers) == ("", "", "", None, {})


def test_native_sidecars_are_named_by_the_init_statuses() -> None:
    """Init containers that run, which are the native sidecars, and ephemeral ones are named beside the app's."""
    pod = only(
        status={
            "initContainerStatuses": [running("proxy", "aa")],
            "containerStatuses": [running("main", "bb")],
            "ephemeralContainerStatuses": [running("debug", "cc")],
        }
    )

    assert pod.containers == {
        "aa": container("proxy", "aa", kind="init"),
        "bb": container("main", "bb"),
        "cc": container("debug", "cc", kind="ephemeral"),
    }


def test_ended_containers_keep_their_names() -> None:
    """The container that ended before the current one is named through lastState, as one that does not run."""
    last = {"terminated": {"containerID": "containerd://old"}}
    pod = only(status={"containerStatuses": [running("main", "new", lastState=last)]})

    assert pod.containers == {"old": ended("main", "old"), "new": container("main", "new")}


def test_a_container_that_waits_for_its_restart_is_named() -> None:
    """In a crash loop the current id is the ended one's, and no container runs."""
    status = {
        "name": "main",
        "containerID": "cri-o://one",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"containerID": "cri-o://one"}},
    }

    assert only(status={"containerStatuses": [status]}).containers == {"one": ended("main", "one")}


def test_a_container_that_is_not_made_yet_has_no_id() -> None:
    """A status without a containerID names nothing."""
    status = {"name": "main", "state": {"waiting": {"reason": "ContainerCreating"}}}

    assert only(status={"containerStatuses": [status]}).containers == {}


def test_a_static_pod_of_the_kubelet_is_found_by_its_own_uid() -> None:
    """The kubelet's list has the static pod itself: its uid is the one of the cgroup."""
    pod = only(metadata={"uid": "h" * 32, "annotations": {"kubernetes.io/config.hash": "h" * 32}})

    assert pod.uid == "h" * 32


def test_a_mirror_pod_is_found_by_the_hash() -> None:
    """The API server's mirror has a uid of its own: the cgroup is named by kubernetes.io/config.hash."""
    annotations = {"kubernetes.io/config.hash": "h" * 32, "kubernetes.io/config.mirror": "h" * 32}
    owners = [{"kind": "Node", "name": "node1", "controller": True}]
    listed = parsed(item(metadata={"uid": "random", "annotations": annotations, "ownerReferences": owners}))

    assert {uid: (pod.uid, pod.owner_kind) for uid, pod in listed.pods.items()} == {"h" * 32: ("h" * 32, "")}


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        ({}, ("", "")),
        ({"ownerReferences": [{"kind": "StatefulSet", "name": "db", "controller": True}]}, ("StatefulSet", "db")),
        ({"ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "controller": True}]}, ("ReplicaSet", "rs")),
        ({"ownerReferences": [{"kind": "Job", "name": "no-controller"}]}, ("", "")),
        (
            {
                "labels": {"pod-template-hash": "5b55"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5b55", "controller": True}],
            },
            ("Deployment", "web"),
        ),
    ],
)
def test_the_owner_is_the_workload(metadata: dict[str, Any], owner: tuple[str, str]) -> None:
    """The controlling owner is the workload; a ReplicaSet with the pod's template hash stands for its Deployment."""
    pod = only(metadata=metadata)

    assert (pod.owner_kind, pod.owner_name) == owner


@pytest.mark.parametrize(
    "bad",
    [
        None,
        1,
        [],
        {},
        {"metadata": None},
        {"metadata": {"namespace": "n", "name": "p"}},
        {"metadata": {"namespace": "n", "name": "", "uid": "u"}},
        {"metadata": {"namespace": "n", "name": "\ud800", "uid": "u"}},
        item(status={"containerStatuses": [1]}),
        item(status={"containerStatuses": [{"name": None}]}),
        item(metadata={"labels": ["a"]}),
    ],
)
def test_an_item_that_is_no_pod_is_left_out_and_counted(bad: Any) -> None:
    """One malformed item does not take the names of the others away."""
    listed = parsed(bad, item(metadata={"uid": "u-2"}))

    assert (list(listed.pods), listed.refused) == (["u-2"], 1)


def test_a_nil_slice_is_an_empty_list() -> None:
    """Go writes a list without items as null."""
    assert parse_pods(b'{"kind": "PodList", "items": null}', "the kubelet") == PodList({}, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff\xff",
        b"[" * 100_000,
        b"null",
        b"[]",
        b"{}",
        b'{"kind": "Status", "status": "Failure"}',
        b'{"items": {"a": 1}}',
        b'{"items": "pods"}',
    ],
)
def test_what_is_no_list_of_pods_is_an_answer_error(body: bytes) -> None:
    """Whatever has no items, a Status object above all, is no empty list: it must not take the names away."""
    with pytest.raises(AnswerError, match=r"^the kubelet: the "):
        parse_pods(body, "the kubelet")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    (
        "metadata",
        "spec",
        "status",
        "uid",
        "name",
        "namespace",
        "labels",
        "annotations",
        "ownerReferences",
        "controller",
        "kind",
        "creationTimestamp",
        "containerStatuses",
        "initContainerStatuses",
        "state",
        "lastState",
        "running",
        "terminated",
        "containerID",
        "startedAt",
        "hostNetwork",
        "kubernetes.io/config.mirror",
        "kubernetes.io/config.hash",
    )
)
POD_LIKE = st.recursive(
    JSON | st.just("0001-01-01T00:00:00+23:59") | st.just("9999-12-31T23:59:59.5-23:59"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


@given(st.lists(POD_LIKE | st.builds(item, metadata=st.dictionaries(KEYS, POD_LIKE, max_size=4))))
def test_any_items_give_pods_or_are_counted(items: list[Any]) -> None:
    """Whatever JSON is in the list, each item is a pod or is counted."""
    listed = parsed(*items)

    assert len(listed.pods) + listed.refused <= len(items)
    assert all(pod.uid == uid for uid, pod in listed.pods.items())


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_list_or_an_answer_error(body: bytes) -> None:
    """Whatever a peer answers, there is a list or an AnswerError and nothing else."""
    with suppress(AnswerError):
        assert isinstance(parse_pods(body, "the kubelet"), PodList)


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        (STARTED, STARTED_NS),
        ("2023-11-14T23:13:20+01:00", STARTED_NS),
        ("2023-11-14T22:13:20.5Z", STARTED_NS + 500_000_000),
        ("2023-11-14T22:13:20", None),
        ("yesterday", None),
        (None, None),
        (1, None),
    ],
)
def test_times_are_rfc_3339(text: object, time_ns: int | None) -> None:
    """A time with its zone is nanoseconds since the epoch; anything else is none."""
    assert parse_time_ns(text) == time_ns


# --- real answers ---------------------------------------------------------------------------------------------------


def listed_of(fixture: str, name: str) -> PodList:
    """The first such answer of a recording."""
    answers = recording(fixture).frames[0].answers
    (body,) = [answer.body for answer in answers if answer.name == name]
    assert body is not None
    return parse_pods(body, name)


@pytest.mark.parametrize("fixture", ["systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst"])
def test_the_kubelet_and_the_api_server_name_the_same_pods(fixture: str) -> None:
    """On a real node both lists name the same containers by the same uids, the static pod's mirror included."""
    kubelet, api = (listed_of(fixture, name) for name in ("kubelet/pods.json", "apiserver/pods.json"))

    def named(listed: PodList) -> dict[str, tuple[str, str, set[str]]]:
        return {uid: (pod.namespace, pod.name, set(pod.containers)) for uid, pod in listed.pods.items()}

    assert (named(kubelet), kubelet.refused, api.refused) == (named(api), 0, 0)


def test_a_real_list_has_each_kind_of_pod() -> None:
    """The recorded node's pods: their workloads, and the kinds and states of their containers, counted."""
    pods = listed_of("systemd-containerd.tar.zst", "kubelet/pods.json").pods.values()

    assert Counter(pod.owner_kind for pod in pods) == {"": 11, "Deployment": 1, "Job": 1}
    assert Counter((one.kind, one.running) for pod in pods for one in pod.containers.values()) == {
        ("app", True): 15,
        ("app", False): 3,
        ("init", True): 1,
        ("init", False): 1,
    }
