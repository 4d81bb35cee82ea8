"""Makes a fixture of a recording: some frames, the pods of some namespaces, and what ``record`` does not read.

    python -m tests.e2e.trim RESULTS/crun.tar.zst OUT.tar.zst --frames 12 --namespaces runtimes

Files that a replay does not need are left out, and so are environment, annotations and managed fields of pods. What
:mod:`tests.e2e.leaves` has read of ``cgroup.events`` on the node at the end of the recording stands in every frame.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import zstandard

ROOT = "sys/fs/cgroup"
LEFT_OUT = ("kubelet/metrics_cadvisor.txt",)
POD_LISTS = ("kubelet/pods.json", "apiserver/pods.json")


def _members(recording: Path) -> dict[str, bytes]:
    with (
        open(recording, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        return {
            member.name.removeprefix("./"): source.read()
            for member in tar
            if member.isfile() and (source := tar.extractfile(member)) is not None
        }


def _slim(pod: dict[str, Any]) -> dict[str, Any]:
    """A pod without what tells nothing of its cgroups."""
    metadata = pod["metadata"]
    metadata.pop("managedFields", None)
    kept = {
        key: text for key, text in metadata.pop("annotations", {}).items() if key.startswith("kubernetes.io/config")
    }
    if kept:
        metadata["annotations"] = kept
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in pod["spec"].get(kind, []):
            for name in ("env", "envFrom", "command", "args", "volumeMounts", "livenessProbe", "readinessProbe"):
                container.pop(name, None)
    for name in ("volumes", "tolerations", "affinity"):
        pod["spec"].pop(name, None)
    return pod


def _foreign(pods: list[dict[str, Any]], namespaces: set[str]) -> set[str]:
    """Every spelling of the uids of pods that are not to be kept."""
    uids = set()
    for pod in pods:
        if pod["metadata"]["namespace"] not in namespaces:
            uid = pod["metadata"].get("annotations", {}).get("kubernetes.io/config.hash") or pod["metadata"]["uid"]
            uids |= {uid, uid.replace("-", "_")}
    return uids


def trimmed(recording: Path, leaves: Path, frames: int, namespaces: set[str]) -> Iterator[tuple[str, bytes]]:
    """The members of the fixture."""
    members = _members(recording)
    numbers = sorted({PurePosixPath(name).parts[1] for name in members if name.startswith("frames/")}, key=int)[
        -frames:
    ]
    lists = [json.loads(text) for name, text in members.items() if name.endswith("kubelet/pods.json")]
    foreign = _foreign([pod for one in lists for pod in one["items"]], namespaces)
    events = {leaf["path"]: leaf["events"].encode() for leaf in json.loads(leaves.read_text())}
    meta = json.loads(members["recording.json"])
    yield "recording.json", json.dumps(meta, indent=1).encode()
    # The first frame that is kept has the last list of pods before it.
    first = dict(members)
    for name in POD_LISTS:
        found = [number for number in _numbers(members, name) if int(number) <= int(numbers[0])]
        if found:
            first[f"frames/{numbers[0]}/{name}"] = members[f"frames/{found[-1]}/{name}"]
    for name, data in sorted(first.items()):
        parts = PurePosixPath(name).parts
        if parts[0] != "frames" or parts[1] not in numbers or any(uid in name for uid in foreign):
            continue
        inner = "/".join(parts[2:])
        if inner in LEFT_OUT:
            continue
        if inner == "frame.json":
            yield name, _frame(data, foreign)
            paths = [path for path in json.loads(data)["dirs"] if not any(uid in path for uid in foreign)]
            yield from (
                (f"frames/{parts[1]}/{ROOT}/{path}/cgroup.events", events[path]) for path in paths if path in events
            )
        elif inner in POD_LISTS:
            listed = json.loads(data)
            listed["items"] = [_slim(pod) for pod in listed["items"] if pod["metadata"]["namespace"] in namespaces]
            yield name, json.dumps(listed).encode()
        elif inner == "kubelet/stats_summary.json":
            told = json.loads(data)
            told["pods"] = [pod for pod in told["pods"] if pod["podRef"]["namespace"] in namespaces]
            yield name, json.dumps(told).encode()
        elif inner == "kubelet/metrics_resource.txt":
            lines = data.decode().splitlines(keepends=True)
            kept = {f'namespace="{one}"' for one in namespaces}
            yield name, "".join(one for one in lines if "namespace=" not in one or any(k in one for k in kept)).encode()
        else:
            yield name, data


def _numbers(members: dict[str, bytes], inner: str) -> list[str]:
    """The frames that hold such a file."""
    return sorted((PurePosixPath(n).parts[1] for n in members if n.endswith(f"/{inner}")), key=int)


def _frame(data: bytes, foreign: set[str]) -> bytes:
    frame = json.loads(data)
    for name in ("dirs", "errors"):
        frame[name] = {
            path: value for path, value in frame.get(name, {}).items() if not any(uid in path for uid in foreign)
        }
    for name in LEFT_OUT:
        frame.get("answers", {}).pop(name, None)
    frame.pop("files", None)  # are others now
    return json.dumps(frame).encode()


def main() -> None:
    """Write the fixture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--leaves", type=Path, required=True, help="NAME-leaves.json beside the recording")
    parser.add_argument("--frames", type=int, default=12, help="the last ones")
    parser.add_argument("--namespaces", default="runtimes", help="with commas between them")
    asked = parser.parse_args()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in trimmed(asked.recording, asked.leaves, asked.frames, set(asked.namespaces.split(","))):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    asked.out.write_bytes(zstandard.ZstdCompressor(level=19).compress(packed.getvalue()))
    print(f"{asked.out}: {asked.out.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
