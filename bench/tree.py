"""Synthetic kubepods trees of any size, to measure a tick on.

A tree is made of plain files with the contents' shape of a real node's. Put it on a tmpfs (`/dev/shm`): there a file
costs the reader about as little as a file system can, so that what is measured is the reader. A real cgroupfs makes
the text on each read and is slower, the same for every reader: compare readers on one tree, not trees.

The directory made is a one-frame recording too (`sys/fs/cgroup/`, `proc/`, `kubelet/pods.json`), so that the program
can be started on it. Every pod has two containers and a sandbox leaf, with containerd's names under the systemd driver.

    python -m bench.tree --pods 110 /dev/shm/tree
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Qos = Literal["guaranteed", "burstable", "besteffort"]

CONTAINERS = ("app", "sidecar")
PLACES: tuple[Qos, ...] = ("burstable", "burstable", "besteffort", "guaranteed")
"""The QoS classes of the pods, in turn: most pods of real clusters are Burstable."""

STEP_USEC = 50_000
"""CPU that a leaf uses between two calls of `advance`: 50 millicores at one tick a second."""

KIB = 1024
MIB = 1024 * KIB

_PRESSURE = "some avg10=0.00 avg60=0.12 avg300=0.08 total=219304\nfull avg10=0.00 avg60=0.10 avg300=0.06 total=126153\n"
_CONSTANT = {
    "cpu.max": "max 100000\n",
    "cpu.pressure": _PRESSURE,
    "cpu.weight": "4\n",
    "io.pressure": _PRESSURE,
    "io.stat": "254:0 rbytes=1048576 wbytes=65536 rios=256 wios=16 dbytes=0 dios=0\n",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n",
    "memory.high": "max\n",
    "memory.max": "max\n",
    "memory.min": "0\n",
    "memory.pressure": _PRESSURE,
    "memory.swap.current": "0\n",
    "memory.swap.max": "0\n",
    "pids.current": "1\n",
    "pids.max": "max\n",
}
"""Files whose contents do not matter to the numbers."""

_MEMORY_STAT = """\
anon {anon}
file {file}
kernel {kernel}
kernel_stack {eighth}
pagetables {quarter}
sec_pagetables 0
percpu 0
sock 0
vmalloc 0
shmem 0
file_mapped 0
file_dirty 0
file_writeback 0
swapcached 0
anon_thp 0
file_thp 0
shmem_thp 0
inactive_anon {anon}
active_anon 0
inactive_file {inactive}
active_file {active}
unevictable 0
slab_reclaimable {quarter}
slab_unreclaimable {eighth}
slab {slab}
workingset_refault_anon 0
workingset_refault_file 0
workingset_activate_anon 0
workingset_activate_file 0
workingset_restore_anon 0
workingset_restore_file 0
workingset_nodereclaim 0
pgscan 0
pgsteal 0
pgscan_kswapd 0
pgscan_direct 0
pgsteal_kswapd 0
pgsteal_direct 0
pgfault 1000
pgmajfault 0
pgrefill 0
pgactivate 0
pgdeactivate 0
pglazyfree 0
pglazyfreed 0
thp_fault_alloc 0
thp_collapse_alloc 0
"""
"""memory.stat with the keys of Linux 6.1 in their order."""


@dataclass(frozen=True)
class Group:
    """A cgroup whose counters grow, and how many leaves' use it shows."""

    path: Path
    leaves: int


@dataclass
class Tree:
    """A tree on disk. `advance` rewrites the files of `groups`; `ticks` is how often it has."""

    cgroup_root: Path
    proc_root: Path
    pods_json: bytes
    groups: list[Group]
    ticks: int = 0


def make_tree(root: Path, pods: int) -> Tree:
    """Makes a tree of so many pods below `root`, which must be empty or absent."""
    if root.exists() and any(root.iterdir()):
        raise FileExistsError(f"{root} is not empty")
    cgroup_root, proc_root = root / "sys/fs/cgroup", root / "proc"
    kubepods = cgroup_root / "kubepods.slice"
    places: dict[Qos, Path] = {
        "guaranteed": kubepods,
        "burstable": kubepods / "kubepods-burstable.slice",
        "besteffort": kubepods / "kubepods-besteffort.slice",
    }
    per_pod = len(CONTAINERS) + 1
    of_qos = {qos: [n for n in range(pods) if PLACES[n % len(PLACES)] == qos] for qos in places}
    groups = [Group(cgroup_root, per_pod * pods), Group(kubepods, per_pod * pods)]
    groups += [Group(places[qos], per_pod * len(of_qos[qos])) for qos in places if qos != "guaranteed"]
    for path in (proc_root, root / "kubelet", *places.values()):
        path.mkdir(parents=True, exist_ok=True)
    items: list[dict[str, Any]] = []
    for qos, numbers in of_qos.items():
        for number in numbers:
            made, item = _make_pod(places[qos], qos, number)
            groups += made
            items.append(item)
    for group in groups:
        _write_group(group, is_root=group.path == cgroup_root)
    busy = per_pod * pods * 300
    (proc_root / "stat").write_text(f"cpu {busy * 3 // 5} 0 {busy * 2 // 5} 1000000 0 0 0 0 0 0\nbtime 1700000000\n")
    (proc_root / "meminfo").write_text("MemTotal: 67108864 kB\nMemFree: 33554432 kB\nMemAvailable: 50331648 kB\n")
    pods_json = json.dumps({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).encode()
    (root / "kubelet/pods.json").write_bytes(pods_json)
    return Tree(cgroup_root, proc_root, pods_json, groups)


def advance(tree: Tree) -> None:
    """Lets every leaf use 50 ms more, and memory come and go, and brings pods, slices and the root in step.

    The files are rewritten in place: their inodes stay and descriptors held open see the new text, as on cgroupfs.
    """
    tree.ticks += 1
    for group in tree.groups:
        _rewrite(group.path / "cpu.stat", _cpu_stat(group.leaves, tree.ticks))
        if group.path != tree.cgroup_root:
            _rewrite(group.path / "memory.current", f"{_memory(group.leaves, tree.ticks)}\n")


def _make_pod(place: Path, qos: Qos, number: int) -> tuple[list[Group], dict[str, Any]]:
    """Makes the directories of a pod; returns its growing cgroups and its item of the pod list."""
    uid = f"{number:08x}-0000-4000-8000-{number:012x}"
    prefix = "kubepods" if qos == "guaranteed" else f"kubepods-{qos}"
    pod = place / f"{prefix}-pod{uid.replace('-', '_')}.slice"
    pod.mkdir()
    # The sandbox has the lowest inode of a pod. Not every file system numbers directories in the order of making.
    made = [pod / f"{n}" for n in range(len(CONTAINERS) + 1)]
    for path in made:
        path.mkdir()
    made.sort(key=lambda path: path.stat().st_ino)
    ids = [f"{leaf:032x}{number:032x}" for leaf in range(len(made))]
    leaves = [path.rename(pod / f"cri-containerd-{leaf_id}.scope") for path, leaf_id in zip(made, ids, strict=True)]
    statuses = [
        {
            "name": name,
            "state": {"running": {"startedAt": "2023-11-14T22:13:20Z"}},
            "lastState": {},
            "ready": True,
            "restartCount": 0,
            "image": "docker.io/lab/busybox:1",
            "imageID": f"sha256:{0:064x}",
            "containerID": f"containerd://{container_id}",
            "started": True,
        }
        for name, container_id in zip(CONTAINERS, ids[1:], strict=True)
    ]
    item = {
        "metadata": {
            "name": f"bench-{number:04}",
            "namespace": f"team-{number % 8}",
            "uid": uid,
            "creationTimestamp": "2023-11-14T22:13:00Z",
            "labels": {"app": "bench"},
        },
        "spec": {"nodeName": "bench", "containers": [{"name": name} for name in CONTAINERS]},
        "status": {
            "phase": "Running",
            "startTime": "2023-11-14T22:13:00Z",
            "containerStatuses": statuses,
            "qosClass": {"guaranteed": "Guaranteed", "burstable": "Burstable", "besteffort": "BestEffort"}[qos],
        },
    }
    return [Group(pod, len(leaves)), *(Group(leaf, 1) for leaf in leaves)], item


def _write_group(group: Group, *, is_root: bool) -> None:
    """Writes all files of a new cgroup; the root has neither memory.current nor limits."""
    files = {"cpu.stat": _cpu_stat(group.leaves, 0), "memory.stat": _memory_stat(group.leaves)}
    if is_root:
        files["cgroup.controllers"] = "cpuset cpu io memory hugetlb pids rdma misc\n"
    else:
        files |= _CONSTANT
        files["memory.current"] = f"{_memory(group.leaves, 0)}\n"
        files["memory.peak"] = f"{64 * MIB * group.leaves}\n"
        files["cgroup.procs"] = "4242\n" if group.leaves == 1 else ""
    for name, text in files.items():
        with open(f"{group.path}/{name}", "wb") as file:
            file.write(text.encode())


def _rewrite(path: Path, text: str) -> None:
    """Replaces a file's contents without a moment in which it is empty."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(fd, os.pwrite(fd, text.encode(), 0))
    finally:
        os.close(fd)


def _cpu_stat(leaves: int, ticks: int) -> str:
    """cpu.stat of a cgroup over so many leaves: 3 s each to begin with."""
    usage = leaves * (3_000_000 + ticks * STEP_USEC)
    user = usage * 3 // 5
    return (
        f"usage_usec {usage}\nuser_usec {user}\nsystem_usec {usage - user}\n"
        "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\nnr_bursts 0\nburst_usec 0\n"
    )


def _memory(leaves: int, ticks: int) -> int:
    """memory.current of a cgroup over so many leaves: 14 MiB each, and up to 252 KiB more by turns."""
    return leaves * (14 * MIB + ticks % 64 * 4 * KIB)


def _memory_stat(leaves: int) -> str:
    """memory.stat of a cgroup over so many leaves; it adds up to 14 MiB each."""
    anon, inactive, active, kernel = (leaves * size for size in (8 * MIB, 4 * MIB, MIB, MIB))
    return _MEMORY_STAT.format(
        anon=anon,
        file=inactive + active,
        kernel=kernel,
        eighth=kernel // 8,
        quarter=kernel // 4,
        slab=kernel // 8 * 3,
        inactive=inactive,
        active=active,
    )


def main(arguments: list[str] | None = None) -> int:
    """Makes one tree from the command line."""
    parser = argparse.ArgumentParser(prog="bench.tree", description="Make a synthetic kubepods tree.")
    parser.add_argument("--pods", type=int, default=110, metavar="N", help="pods to make (default: 110)")
    parser.add_argument("out", type=Path, metavar="OUT", help="directory to make it in, best on a tmpfs")
    options = parser.parse_args(arguments)
    if options.pods < 0:
        parser.error("--pods must not be negative")
    try:
        tree = make_tree(options.out, options.pods)
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{options.pods} pods, {len(tree.groups)} cgroups in {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
