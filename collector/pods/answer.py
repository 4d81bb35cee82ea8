"""A PodList, as the kubelet's ``/pods`` and the API server's ``/api/v1/pods`` give it, to :class:`Pod` values. Pure.

An item that is not a pod is left out and counted; the rest of the list is used. What is read of a pod is said once, in
:data:`READ`: nothing else of it is kept (:mod:`collector.pods.strip`), so that what is not there is not read either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from collector.errors import AnswerError
from collector.model import Container, ContainerState, Pod
from collector.pods.cut import Cutter, Item

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CONFIG_HASH = "kubernetes.io/config.hash"
_CONFIG_MIRROR = "kubernetes.io/config.mirror"

_STATUS_LISTS: tuple[tuple[str, Literal["app", "init", "ephemeral"]], ...] = (
    ("initContainerStatuses", "init"),
    ("containerStatuses", "app"),
    ("ephemeralContainerStatuses", "ephemeral"),
)


MOST_STRIPPED: Final = 32 << 10
"""Characters that are kept of a pod: a usual one has 1,000 to 2,000. One with more is refused."""
MOST_LABELS: Final = 128
"""Labels that are kept of a pod, the first ones by name as the API gives them: each has up to 380 characters."""
MOST_CONTAINERS: Final = 256
"""Containers that a pod may have of a kind. One with more is refused."""

_SURELY_FITS: Final = MOST_STRIPPED // 8
"""An item this long is no longer than :data:`MOST_STRIPPED` once it is stripped: escapes make six characters of one."""

_TERMINATED = {"containerID": None, "exitCode": None}
_STATUS = {
    "name": None,
    "containerID": None,
    "image": None,
    "imageID": None,
    "state": {"running": {"startedAt": None}, "terminated": _TERMINATED},
    "lastState": {"terminated": _TERMINATED},
}
_CONTAINER = {"name": None, "image": None, "restartPolicy": None}

READ: Final[Mapping[str, Any]] = {
    "metadata": {
        "namespace": None,
        "name": None,
        "uid": None,
        "creationTimestamp": None,
        "deletionTimestamp": None,
        "labels": str,
        "annotations": {_CONFIG_HASH: None, _CONFIG_MIRROR: None},
        "ownerReferences": [{"controller": None, "kind": None, "name": None}],
    },
    "spec": {
        "nodeName": None,
        "hostNetwork": None,
        "restartPolicy": None,
        "runtimeClassName": None,
        "containers": [_CONTAINER],
        "initContainers": [_CONTAINER],
        "ephemeralContainers": [_CONTAINER],
    },
    "status": {"phase": None, "qosClass": None, **{key: [_STATUS] for key, _ in _STATUS_LISTS}},
}
"""What is read of a pod, and so all that is kept of it: objects by their keys, lists by what each of them is, ``None``
for a value, ``str`` for an object of texts. A field that is read and does not stand here fails a test."""

_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class PodList(NamedTuple):
    """The pods of an answer."""

    pods: dict[str, Pod]
    """By the uid that is in the name of the pod's cgroup."""
    refused: int
    """Items that are no pods, or larger than any honest one."""


def parse_pods(body: bytes, source: str, told_ns: int = 0) -> PodList:
    """Read a PodList that was asked for at ``told_ns``, stripped or as it came: both say the same.

    Raises :class:`AnswerError` if ``body`` is not one.
    """
    pods: dict[str, Pod] = {}
    refused = 0
    try:
        for item in _items(body):
            fits = item.length <= _SURELY_FITS or stripped(item.value) is not None
            pod = pod_of(item.value, told_ns) if fits else None
            if pod is None:
                refused += 1
            else:
                pods[pod.uid] = pod
    except AnswerError as error:
        raise type(error)(f"{source}: {error}") from error
    return PodList(pods, refused)


def _items(body: bytes) -> Iterator[Item]:
    cutter = Cutter()
    yield from cutter.feed(body)
    yield from cutter.end()


def pod_of(item: Any, told_ns: int) -> Pod | None:
    """The pod that an item of a list is; ``None`` if it is none."""
    try:
        return _pod(item, told_ns)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def stripped(item: Any) -> str | None:
    """What is read of an item of a list, as JSON; ``None`` if that is no pod, or is larger than any honest one."""
    if pod_of(item, 0) is None:
        return None
    text = _ENCODER.encode(_kept(item, READ))
    return text if len(text) <= MOST_STRIPPED else None


def _kept(value: Any, read: Any) -> Any:
    """Of a value what is read of it. One of another type is read as if it were not there, or as true or false."""
    if read is None:
        if isinstance(value, dict | list):
            return [0] if value else []
        return value
    if read is str:
        return _words(value) if isinstance(value, dict) else None
    if isinstance(read, list):
        return [_kept(one, read[0]) for one in value] if isinstance(value, list) else None
    return {key: _kept(value[key], of) for key, of in read.items() if key in value} if isinstance(value, dict) else None


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    # A lone surrogate is legal JSON and no text: it could not be written out again.
    value.encode()
    return value


def _words(value: Any) -> dict[str, str]:
    """The first labels of a pod, as many as are kept."""
    found = ((_word(key), text) for key, text in (value or {}).items() if isinstance(text, str) and _is_text(text))
    return dict(islice(found, MOST_LABELS))


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def parse_time_ns(value: Any) -> int | None:
    """An RFC 3339 time as nanoseconds since the epoch; ``None`` where there is none, or none in UTC's calendar.

    >>> parse_time_ns("2026-11-23T05:28:33Z")
    1795411713000000000
    """
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            return None
        since = moment.astimezone(UTC) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _pod(item: dict[str, Any], told_ns: int) -> Pod:
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    uid = _word(metadata["uid"])
    if _CONFIG_MIRROR in annotations:
        # The API server's mirror of a static pod has a uid of its own; the cgroup is named by the static pod's.
        uid = _word(annotations.get(_CONFIG_HASH) or annotations[_CONFIG_MIRROR])
    labels = _words(metadata.get("labels"))
    owner_kind, owner_name = _owner(metadata, labels)
    return Pod(
        namespace=_word(metadata["namespace"]),
        name=_word(metadata["name"]),
        uid=uid,
        phase=_text(status.get("phase")),
        qos_class=_text(status.get("qosClass")),
        node=_text(spec.get("nodeName")),
        created_ns=parse_time_ns(metadata.get("creationTimestamp")),
        host_network=spec.get("hostNetwork") is True,
        labels=labels,
        owner_kind=owner_kind,
        owner_name=owner_name,
        containers=_containers(status, _spec_images(spec)),
        runtime_class=_text(spec.get("runtimeClassName")),
        awaits=_awaits(status, spec),
        ending=bool(metadata.get("deletionTimestamp")),
        told_ns=told_ns,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) and _is_text(value) else ""


def _owner(metadata: dict[str, Any], labels: Mapping[str, str]) -> tuple[str, str]:
    """Kind and name of the workload: a ReplicaSet of a Deployment is told by the pod-template-hash in its name."""
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") is True:
            kind, name = _text(owner.get("kind")), _text(owner.get("name"))
            template = labels.get("pod-template-hash", "")
            if kind == "ReplicaSet" and template and name.endswith("-" + template):
                return "Deployment", name[: -len(template) - 1]
            if kind == "Node":
                # The mirror of a static pod is owned by its node in the API server, by nothing in the kubelet.
                break
            return kind, name
    return "", ""


def _bare_id(value: Any) -> str:
    """``containerd://<id>`` -> ``<id>``; ``""`` before the container is made."""
    return _text(value).rpartition("://")[2]


def _spec_images(spec: dict[str, Any]) -> dict[str, str]:
    """Images by the container's name, as they were asked for."""
    lists = (_dicts(spec.get(key)) for key in ("containers", "initContainers", "ephemeralContainers"))
    return {_text(entry.get("name")): _text(entry.get("image")) for entries in lists for entry in entries}


def _containers(status: dict[str, Any], spec_images: dict[str, str]) -> dict[str, Container]:
    containers: dict[str, Container] = {}
    for key, kind in _STATUS_LISTS:
        for entry in _dicts(status.get(key)):
            name = _word(entry["name"])
            state = entry.get("state") or {}
            running = state.get("running")
            current = _bare_id(entry.get("containerID"))
            for ended in (state.get("terminated"), (entry.get("lastState") or {}).get("terminated")):
                if isinstance(ended, dict) and (ended_id := _bare_id(ended.get("containerID"))):
                    containers[ended_id] = Container(
                        name=name, container_id=ended_id, kind=kind, state="ended", image="", started_ns=None
                    )
            if current:
                containers[current] = Container(
                    name=name,
                    container_id=current,
                    kind=kind,
                    state=_state(state, ended=current in containers),
                    image=_text(entry.get("image")) or spec_images.get(name, "") or _text(entry.get("imageID")),
                    started_ns=parse_time_ns(running.get("startedAt")) if isinstance(running, dict) else None,
                )
    return containers


def _state(state: dict[str, Any], *, ended: bool) -> ContainerState:
    """The state of the container of the current id; ``ended`` if that is one of a terminated state.

    The kubelet says ``waiting: {}`` of a container that the runtime has created and not started, with its id already
    (``convertContainerStatusToRuntimeStatus``, kubernetes#122763), and ``waiting`` with a reason and the ended one's id
    of one that waits to be started again.
    """
    if isinstance(state.get("running"), dict):
        return "running"
    return "ended" if ended or isinstance(state.get("terminated"), dict) else "awaited"


def _awaits(status: dict[str, Any], spec: dict[str, Any]) -> bool:
    """Whether a leaf may come that the status does not name yet: of a container that waits, or of one that has
    terminated and may be started again.
    """
    if status.get("phase") in ("Succeeded", "Failed"):
        return False
    policy = spec.get("restartPolicy") or "Always"
    sidecars = {_text(one.get("name")) for one in _dicts(spec.get("initContainers")) if one.get("restartPolicy")}
    for key, kind in _STATUS_LISTS:
        for entry in _dicts(status.get(key)):
            state = entry.get("state") or {}
            ended = state.get("terminated")
            if isinstance(ended, dict):
                starts_again = policy == "Always" or (policy == "OnFailure" and bool(ended.get("exitCode")))
                if starts_again and (kind == "app" or _text(entry.get("name")) in sidecars):
                    return True
            elif not isinstance(state.get("running"), dict):
                return True
    return False


def _dicts(value: Any) -> list[dict[str, Any]]:
    """Of containers or their statuses."""
    if not isinstance(value, list):
        return []
    if len(value) > MOST_CONTAINERS:
        raise ValueError("more containers than any honest pod has")
    return value
