"""The social network's logic services and its front door as pods of a recording: synthetic, made of real ones.

The captured recording has six pods that are named and labelled like the application's Deployments, and run shell loops.
The six services that it lacks are made here of these: the same files under another uid, other container ids and names.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from itertools import cycle
from typing import Any

from collector.sources.frames import RecordedFrame
from collector.sources.recording import Recording

NAMESPACE = "social"
SERVICES = (
    "compose-post-service",
    "home-timeline-service",
    "media-service",
    "nginx-thrift",
    "post-storage-service",
    "social-graph-service",
    "text-service",
    "unique-id-service",
    "url-shorten-service",
    "user-mention-service",
    "user-service",
    "user-timeline-service",
)
"""The eleven logic services and nginx-thrift (socialNetwork's Helm chart: Deployment, label app and label service)."""

PODS = "kubelet/pods.json"
_INODES_APART = 10_000_000


def all_twelve(recorded: Recording) -> Recording:
    """The recording with a pod for each of the twelve."""
    body = next(one.body for one in recorded.frames[0].answers if one.name == PODS and one.body)
    real = {pod["metadata"]["labels"]["app"]: pod for pod in json.loads(body)["items"] if _is_of_application(pod)}
    lacking = [name for name in SERVICES if name not in real]
    made = list(zip(lacking, cycle(sorted(real)), strict=False))
    return replace(recorded, frames=[_with(frame, made, real) for frame in recorded.frames])


def _is_of_application(pod: dict[str, Any]) -> bool:
    return bool(pod["metadata"]["namespace"] == NAMESPACE)


def _with(frame: RecordedFrame, made: list[tuple[str, str]], real: dict[str, Any]) -> RecordedFrame:
    """One frame with the pods made."""
    dirs, files, errors = dict(frame.dirs), dict(frame.files), dict(frame.errors)
    for nth, (name, of) in enumerate(made, 1):
        uid = real[of]["metadata"]["uid"].replace("-", "_")
        for path in [path for path in frame.dirs if uid in path]:
            one = frame.dirs[path]
            dirs[_renamed(path, name, of)] = one._replace(ino=one.ino + nth * _INODES_APART)
        files |= {_renamed(path, name, of): data for path, data in frame.files.items() if uid in path}
        errors |= {_renamed(path, name, of): number for path, number in frame.errors.items() if uid in path}
    answers = [
        one._replace(body=_answer(one.body, made)) if one.name == PODS and one.body else one for one in frame.answers
    ]
    found = replace(frame, dirs=dirs, files=files, errors=errors, answers=answers)
    found.index("all twelve")
    return found


def _answer(body: bytes, made: list[tuple[str, str]]) -> bytes:
    """The kubelet's list of pods with those that were made."""
    listed = json.loads(body)
    items = {pod["metadata"]["labels"]["app"]: pod for pod in listed["items"] if _is_of_application(pod)}
    listed["items"] += [json.loads(_renamed(json.dumps(items[of]), name, of)) for name, of in made if of in items]
    return json.dumps(listed).encode()


def _renamed(text: str, name: str, of: str) -> str:
    """A path or a pod's JSON with the service's name, and ids, that are the real ones' with other digits."""
    text = text.replace(of, name)
    return re.sub(
        r"[0-9a-f]{64}|[0-9a-f]{8}([-_])[0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}",
        lambda found: _other(found[0], found[1], name),
        text,
    )


def _other(identity: str, dash: str | None, name: str) -> str:
    digits = hashlib.sha256(f"{name} {identity.replace('_', '-')}".encode()).hexdigest()
    if dash is None:
        return digits
    return dash.join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
