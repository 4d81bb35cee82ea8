"""What the node itself says of the cgroups of its pods: every directory, whether processes are in it, and which."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from tests.e2e.cluster import node

_READ = r"""
import json, os
root = "/sys/fs/cgroup/"
found = []
def text(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        return ""
for folder, _, _ in os.walk(root + "kubepods.slice" if os.path.isdir(root + "kubepods.slice") else root + "kubepods"):
    names = [text(f"/proc/{pid}/comm").strip() for pid in text(folder + "/cgroup.procs").split()]
    found.append({
        "path": folder[len(root):],
        "ino": os.stat(folder).st_ino,
        "events": text(folder + "/cgroup.events"),
        "processes": names,
        "cpu_stat": text(folder + "/cpu.stat"),
        "memory_current": text(folder + "/memory.current"),
    })
print(json.dumps(found))
"""


class Leaf(NamedTuple):
    """A cgroup of a pod's, or below it."""

    path: str
    """Relative to the cgroup root."""
    ino: int
    events: str
    """``cgroup.events`` as it was read."""
    processes: tuple[str, ...]
    """Names of the processes that are in it, not of those below."""
    cpu_usec: int
    memory_bytes: int | None
    """``None`` where the cgroup has no memory controller."""

    @property
    def populated(self) -> str:
        """What ``cgroup.events`` says."""
        found = re.search(r"^populated (\d)", self.events, re.MULTILINE)
        return found[1] if found else "?"

    @property
    def below(self) -> str:
        """Its path below the pod's cgroup, ids cut short."""
        parts = PurePosixPath(self.path).parts
        at = next((index for index, part in enumerate(parts) if _POD.search(part)), 0)
        return re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1…", "/".join(parts[at + 1 :])) or "."

    def name_of(self, pod: dict[str, Any]) -> str:
        """The container of the pod's status whose id is in the path."""
        status = pod["status"]
        for one in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            identifier = one.get("containerID", "").rpartition("/")[2]
            if identifier and identifier in self.path:
                return str(one["name"])
        return "pod" if self.below == "." else "no status"


_POD = re.compile(r"pod[0-9a-f]{8}[-_]?[0-9a-f]{4}")


def node_leaves() -> list[Leaf]:
    """Every cgroup at and below kubepods, as it is now."""
    found = json.loads(node("python3 -", stdin=_READ.encode()))
    return [
        Leaf(
            one["path"],
            one["ino"],
            one["events"],
            tuple(one["processes"]),
            int(re.search(r"usage_usec (\d+)", one["cpu_stat"])[1]),  # type: ignore[index]
            int(one["memory_current"]) if one["memory_current"] else None,
        )
        for one in found
        if "usage_usec" in one["cpu_stat"]
    ]


def leaves_of(pod: dict[str, Any], leaves: Iterable[Leaf]) -> list[Leaf]:
    """Those of a pod, its own cgroup first."""
    uid = pod["metadata"].get("annotations", {}).get("kubernetes.io/config.hash") or pod["metadata"]["uid"]
    names = {uid, uid.replace("-", "_")}
    return sorted(
        (leaf for leaf in leaves if any(name in leaf.path for name in names)),
        key=lambda leaf: (leaf.path.count("/"), leaf.ino),
    )


def runtime_of_node() -> str:
    """The runtime that the node was started with."""
    found = re.search(r"e2e\.runtime=(\w+)", node("cat /proc/cmdline"))
    return found[1] if found else "runc"
