"""A PodList, as the kubelet's ``/pods`` and the API server's ``/api/v1/pods`` give it, to :class:`Pod` values. Pure.

An item that is not a pod is left out and counted; the rest of the list is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from collector.errors import AnswerError
from collector.model import Container, ContainerState, Pod

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CONFIG_HASH = "kubernetes.io/config.hash"
_CONFIG_MIRROR = "kubernetes.io/config.mirror"

_STATUS_LISTS: tuple[tuple[str, Literal["app", "init", "ephemeral"]], ...] = (
    ("initContainerStatuses", "init"),
    ("containerStatuses", "app"),
    ("ephemeralContainerStatuses", "ephemeral"),
)


class PodList(NamedTuple):
    """The pods of an answer."""

    pods: dict[str, Pod]
    """By the uid that is in the name of the pod's cgroup."""
    refused: int
    """Items that are no pods."""


def parse_pods(body: bytes, source: str, told_ns: int = 0) -> PodList:
    """Read a PodList that was asked for at ``told_ns``. Raises :class:`AnswerError` if ``body`` is not one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"{source}: the list of pods is not JSON: {error}") from error
    # null is Go's nil slice. A list without the key is none: a Status, say, must not take all names away.
    items = value["items"] if isinstance(value, dict) and "items" in value else {}
    if items is None:
        items = []
    if not isinstance(items, list):
        raise AnswerError(f"{source}: the answer is no list of pods")
    pods: dict[str, Pod] = {}
    refused = 0
    for item in items:
        try:
            pod = _pod(item, told_ns)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            refused += 1
            continue
        pods[pod.uid] = pod
    return PodList(pods, refused)


def _word(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    # A lone surrogate is legal JSON and no text: it could not be written out again.
    value.encode()
    return value


def _words(value: Any) -> dict[str, str]:
    return {_word(key): text for key, text in (value or {}).items() if isinstance(text, str) and _is_text(text)}


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
    owner_kind, owner_name = _owner(metadata)
    return Pod(
        namespace=_word(metadata["namespace"]),
        name=_word(metadata["name"]),
        uid=uid,
        phase=_text(status.get("phase")),
        qos_class=_text(status.get("qosClass")),
        node=_text(spec.get("nodeName")),
        created_ns=parse_time_ns(metadata.get("creationTimestamp")),
        host_network=spec.get("hostNetwork") is True,
        labels=_words(metadata.get("labels")),
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


def _owner(metadata: dict[str, Any]) -> tuple[str, str]:
    """Kind and name of the workload: a ReplicaSet of a Deployment is told by the pod-template-hash in its name."""
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller") is True:
            kind, name = _text(owner.get("kind")), _text(owner.get("name"))
            template = _text((metadata.get("labels") or {}).get("pod-template-hash"))
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


def _dicts(value: Any) -> Iterable[dict[str, Any]]:
    return value if isinstance(value, list) else []
