"""Pods of a tree of files that come and go, and the kubelet's list of them."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from random import Random
from typing import Any

from bench.tree import Tree


class Comings:
    """A node whose pods are removed and made again, and whose containers are started anew."""

    def __init__(self, tree: Tree, seed: int) -> None:
        self._tree = tree
        self._random = Random(f"comings/{seed}")
        self._lock = threading.Lock()
        items = json.loads(tree.pods_json)["items"]
        self._items: dict[str, dict[str, Any]] = {item["metadata"]["uid"]: item for item in items}
        kubepods = tree.cgroup_root / "kubepods.slice"
        self._places = {uid: next(kubepods.rglob(f"*pod{uid.replace('-', '_')}.slice")) for uid in self._items}
        self._there = set(self._items)
        self._aside = tree.cgroup_root.parent / "aside"
        self._made = 0

    def pods_json(self) -> bytes:
        """What the kubelet says."""
        with self._lock:
            return json.dumps({"kind": "PodList", "items": [self._items[uid] for uid in sorted(self._there)]}).encode()

    def change(self) -> None:
        """A pod comes, goes, or starts a container anew."""
        with self._lock:
            gone = sorted(self._items.keys() - self._there)
            if gone and self._random.random() < 0.5:
                self._come(self._random.choice(gone))
            elif self._random.random() < 0.5 and len(self._there) > len(self._items) // 2:
                self._go(self._random.choice(sorted(self._there)))
            else:
                self._start_anew(self._random.choice(sorted(self._there)))

    def settle(self) -> None:
        """All pods are there again."""
        with self._lock:
            for uid in sorted(self._items.keys() - self._there):
                self._come(uid)

    def _go(self, uid: str) -> None:
        self._aside.mkdir(exist_ok=True)
        shutil.move(self._places[uid], self._aside / uid)
        self._there.remove(uid)

    def _come(self, uid: str) -> None:
        """Other inodes, as of a pod that the kubelet has made again: its own the lowest, then its sandbox'."""
        aside, pod = self._aside / uid, self._places[uid]
        pod.mkdir()
        for path in sorted(aside.iterdir(), key=lambda path: path.stat().st_ino):
            if path.is_dir():
                shutil.copytree(path, pod / path.name)
            else:
                shutil.copy(path, pod)
        shutil.rmtree(aside)
        self._there.add(uid)

    def _start_anew(self, uid: str) -> None:
        self._made += 1
        status = self._items[uid]["status"]["containerStatuses"][-1]
        old = status["containerID"].removeprefix("containerd://")
        new = f"a{self._made:063x}"
        pod = self._places[uid]
        shutil.copytree(self._leaf(pod, old), self._leaf(pod, new))
        shutil.rmtree(self._leaf(pod, old))
        status["containerID"] = f"containerd://{new}"
        status["restartCount"] += 1

    @staticmethod
    def _leaf(pod: Path, container_id: str) -> Path:
        return pod / f"cri-containerd-{container_id}.scope"
