"""Which cgroup version a mount point holds, told from the names in it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from collector.errors import UnsupportedNode

CgroupVersion = Literal["v2", "v1", "hybrid", "unknown"]

_V1_CONTROLLERS = frozenset({"memory", "cpu", "cpuacct", "cpu,cpuacct", "blkio", "pids", "cpuset"})


def cgroup_version(names: Collection[str]) -> CgroupVersion:
    """The version, from the names of the files and directories in the mount point.

    Only a cgroup v2 root has ``cgroup.controllers``; v1 mounts each controller as a directory of a tmpfs; a hybrid
    node does so as well and mounts v2, without the controllers, at ``unified``.

    >>> cgroup_version(["cpu.stat", "cgroup.controllers"]), cgroup_version(["memory", "unified"])
    ('v2', 'hybrid')
    """
    if "cgroup.controllers" in names:
        return "v2"
    if _V1_CONTROLLERS.isdisjoint(names):
        return "unknown"
    return "hybrid" if "unified" in names else "v1"


def require_v2(names: Collection[str], where: str) -> None:
    """Raise :class:`UnsupportedNode`, in one sentence with what to do, unless ``names`` are of a cgroup v2 root."""
    version = cgroup_version(names)
    if version == "v2":
        return
    if version == "unknown":
        raise UnsupportedNode(
            f"{where} is no cgroup v2 mount (it has no cgroup.controllers): "
            "give the mount point with --cgroup-root, /sys/fs/cgroup on most nodes"
        )
    raise UnsupportedNode(
        f"{where} is a cgroup {version} tree{' (v1 with an empty v2 beside it)' if version == 'hybrid' else ''}, "
        "and podtally reads cgroup v2 only: boot the node with systemd.unified_cgroup_hierarchy=1"
    )
