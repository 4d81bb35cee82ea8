"""The Job that runs k6: its place in a kustomization, what it is told, and what has become of it. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from yaml import YAMLError, safe_load_all

from collector.errors import UsageError
from collector.loadtest.summary import time_of
from collector.upstream.quantity import quantity

CONTAINER: Final = "k6"


class Placed(NamedTuple):
    """The Job of a kustomization."""

    namespace: str
    name: str
    container: str
    objects: tuple[Any, ...]
    """All objects of the kustomization, the Job told what it was to be told."""


def placed(manifests: bytes, folder: str, told: Mapping[str, str]) -> Placed:
    """The Job among objects, with variables set in its container. Raises :class:`UsageError` if there is none."""
    try:
        objects = [one for one in safe_load_all(manifests) if one]
    except YAMLError as error:
        raise UsageError(f"{folder} gives no YAML: {error}") from error
    objects = copy.deepcopy(objects)
    jobs = [one for one in objects if isinstance(one, dict) and one.get("kind") == "Job"]
    if len(jobs) != 1:
        raise UsageError(
            f"{folder} has {len(jobs)} Jobs, and one is run: is it a folder of loadtest/jobs, or an overlay of one?"
        )
    try:
        metadata, containers = jobs[0]["metadata"], jobs[0]["spec"]["template"]["spec"]["containers"]
        container = next((one for one in containers if one["name"] == CONTAINER), containers[0])
        set_variables(container, told)
        return Placed(metadata.get("namespace", "default"), metadata["name"], container["name"], tuple(objects))
    except (KeyError, TypeError, IndexError) as error:
        raise UsageError(f"{folder}: its Job has no {error}") from error


def set_variables(container: dict[str, Any], told: Mapping[str, str]) -> None:
    """Set environment variables of a container, those that it has and new ones, before all others."""
    kept = [one for one in container.get("env") or [] if one["name"] not in told]
    container["env"] = [*({"name": name, "value": value} for name, value in told.items()), *kept]


Phase = Literal["waiting", "running", "ended", "stuck"]


class Status(NamedTuple):
    """What has become of the Job."""

    phase: Phase
    text: str
    """Of one that waits or is stuck: for what."""
    pod: str | None
    node: str | None
    exit_code: int | None
    ending: str | None
    started: float | None
    finished: float | None
    limit_cores: float | None


_STUCK: Final = (
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "ErrImageNeverPull",
)
"""Reasons to wait that nothing but a change of the Job ends."""


def is_active(job: Any) -> bool:
    """Whether a Job is at work."""
    return bool((job.get("status") or {}).get("active"))


def status(job: Any | None, pods: Sequence[Any], container: str) -> Status:
    """How far a Job is, by itself and its pods."""
    nothing = Status("waiting", "no pod yet", None, None, None, None, None, None, None)
    failed = _failure(job)
    if job is None:
        return nothing._replace(phase="ended", ending="the Job was deleted")
    if not pods:
        return nothing._replace(phase="ended", ending=failed) if failed else nothing
    pod = max(pods, key=lambda one: str(one["metadata"].get("creationTimestamp", "")))
    spec, said = pod["spec"], pod.get("status") or {}
    of: Mapping[str, Any] = next((one for one in said.get("containerStatuses") or [] if one["name"] == container), {})
    state = of.get("state") or {}
    base = nothing._replace(
        pod=pod["metadata"]["name"], node=spec.get("nodeName"), limit_cores=_limit(spec, container), text=""
    )
    if ended := state.get("terminated"):
        reason = ended.get("reason")
        return base._replace(
            phase="ended",
            exit_code=ended.get("exitCode"),
            ending=failed if failed == "DeadlineExceeded" else reason,
            started=time_of(ended.get("startedAt")),
            finished=time_of(ended.get("finishedAt")),
        )
    if said.get("phase") == "Failed" or failed:
        return base._replace(phase="ended", ending=said.get("reason") or failed or "its pod failed")
    if running := state.get("running"):
        return base._replace(phase="running", started=time_of(running.get("startedAt")))
    return _waits(base, said, state)


def _waits(base: Status, said: Mapping[str, Any], state: Mapping[str, Any]) -> Status:
    waiting = state.get("waiting") or {}
    for one in said.get("initContainerStatuses") or []:
        waiting = (one.get("state") or {}).get("waiting") or waiting
    reason = waiting.get("reason") or ""
    message = " ".join(str(waiting.get("message") or "").split())[:300]
    if reason in _STUCK:
        return base._replace(phase="stuck", text=f"{reason}: {message}".removesuffix(": "))
    unplaced = next(
        (
            one
            for one in said.get("conditions") or []
            if one.get("type") == "PodScheduled" and one.get("status") == "False"
        ),
        None,
    )
    if unplaced is not None:
        return base._replace(
            text=f"no node takes the pod: {' '.join(str(unplaced.get('message') or '').split())[:300]}"
        )
    return base._replace(text=reason or "the pod is about to start")


def _failure(job: Any | None) -> str | None:
    for one in ((job or {}).get("status") or {}).get("conditions") or []:
        if one.get("type") == "Failed" and one.get("status") == "True":
            return str(one.get("reason") or "Failed")
    return None


def _limit(spec: Mapping[str, Any], container: str) -> float | None:
    of: Mapping[str, Any] = next((one for one in spec.get("containers") or [] if one["name"] == container), {})
    return cores((of.get("resources") or {}).get("limits", {}).get("cpu"))


def cores(text: object) -> float | None:
    """A quantity of CPU; ``None`` if it is none.

    >>> cores("2"), cores("1500m"), cores(None)
    (2.0, 1.5, None)
    """
    try:
        return float(quantity(str(text))) if text is not None else None
    except ValueError:
        return None


def testid(profile: str, moment: str) -> str:
    """The name of a run: of its profile and its time, fit for a label and for a name of a file.

    >>> testid("Stress 2", "20261124t080000z")
    'stress-2-20261124t080000z'
    """
    return f"{re.sub('[^a-z0-9]+', '-', profile.lower()).strip('-') or 'run'}-{moment}"
