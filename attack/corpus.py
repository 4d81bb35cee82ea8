"""The seeds that the fuzzers change: small files in ``attack/seeds``, cut from the recordings of real nodes.

``python -m attack.corpus`` writes those that come from recordings anew; the web configurations are written by hand.
"""

from __future__ import annotations

import json
import re
import tarfile
from functools import cache
from pathlib import Path

import zstandard

from tests.support import FIXTURES

SEEDS = Path(__file__).resolve().parent / "seeds"
KERNEL = "kernel.json"

_RECORDINGS = ("systemd-containerd", "churn", "hostpid", "parity-1hz")
"""Two drivers, two kernels, one with ``hostPID``, and one with the metrics API's answers."""

_PROC = ("meminfo", "partitions")
_TEXTS = 6
"""Of one name, at the most."""
_LONG = ("cgroup.procs", "meminfo", "net/dev")
_LINES_OF_A_FILE = 8
"""Of those, at the most."""
_SPEC = ("containers", "hostNetwork", "nodeName", "runtimeClassName")
_LINES_OF_A_PAGE = 1
"""Of each family."""


@cache
def kernel_files() -> dict[str, list[bytes]]:
    """Texts of each of the kernel's files, no two of which differ in their numbers alone."""
    known: dict[str, list[str]] = json.loads((SEEDS / KERNEL).read_text(encoding="utf-8"))
    return {name: [text.encode() for text in texts] for name, texts in known.items()}


@cache
def seed(path: str) -> bytes:
    """A seed by its path."""
    return (SEEDS / path).read_bytes()


def _frame(recording: str) -> dict[str, bytes]:
    """The files of a recording's first frame."""
    files: dict[str, bytes] = {}
    with (
        zstandard.open(FIXTURES / f"{recording}.tar.zst", "rb") as packed,
        tarfile.open(fileobj=packed, mode="r|") as archive,
    ):
        for member in archive:
            found = re.search(r"(?:^|/)frames/0+/(.+)", member.name)
            content = archive.extractfile(member) if found is not None else None
            if found is not None and content is not None:
                files[found[1]] = content.read()
    return files


def _page(text: bytes) -> bytes:
    """A page in the text format with a few samples of each family."""
    kept: list[str] = []
    samples = 0
    for line in text.decode().splitlines():
        samples = 0 if line.startswith("#") else samples + 1
        if samples <= _LINES_OF_A_PAGE:
            kept.append(line)
    return ("\n".join(kept) + "\n").encode()


def _some_of(body: bytes, key: str) -> bytes:
    """A list of an answer with its first item, on one line as peers send it, without what nobody reads."""
    value = json.loads(body)
    value[key] = value[key][:1]
    for item in value[key]:
        item.get("metadata", {}).pop("managedFields", None)
        item["spec"] = {name: one for name, one in item.get("spec", {}).items() if name in _SPEC}
        for container in item["spec"].get("containers", ()):
            for name in container.keys() - {"name", "image", "resources"}:
                del container[name]
        for name in item.keys() & {"network", "volume", "ephemeral-storage"}:
            del item[name]
    for name in value.get("node", {}).keys() - {"nodeName", "startTime", "cpu", "memory"}:
        del value["node"][name]
    return json.dumps(value, separators=(",", ":")).encode()


def cut() -> dict[str, bytes]:
    """The seeds that come from recordings, by path."""
    kernel: dict[str, dict[bytes, bytes]] = {name: {} for name in sorted(read_names())}
    found: dict[str, bytes] = {}
    for recording in _RECORDINGS:
        for path, data in _frame(recording).items():
            folder, _, name = path.rpartition("/")
            name = "net/dev" if path.endswith("net/dev") else name
            if name in kernel and (folder.startswith(("sys/", "proc/")) or name in _PROC):
                data = b"".join(data.splitlines(keepends=True)[: _LINES_OF_A_FILE if name in _LONG else None])
                kernel[name].setdefault(re.sub(rb"\d+", b"0", data), data)
            elif path in ("kubelet/pods.json", "metrics-api/pods.json"):
                found[path] = _some_of(data, "items")
            elif path == "kubelet/stats_summary.json":
                found[path] = _some_of(data, "pods")
            elif path == "kubelet/metrics_resource.txt":
                found[path] = _page(data)
    texts = {name: [data.decode() for data in several.values()][:_TEXTS] for name, several in kernel.items()}
    found[KERNEL] = (json.dumps(texts, indent=1) + "\n").encode()
    return found


def read_names() -> set[str]:
    """The names of the kernel's files that podtally reads."""
    from collector.cgroup.files import FAST, SLOW

    return {file.name for file in (*FAST, *SLOW)} | {"cgroup.events", "net/dev", *_PROC}


if __name__ == "__main__":
    for file, data in cut().items():
        path = SEEDS / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
