"""The doctor on pods whose sums are withheld: which, why, what is at the root of it, and the next step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from collector.cgroup import paths
from collector.errors import SourceError
from collector.model import MEANINGS, Frame, PodTally, Reason, Tally
from collector.seams import Tree

Level = Literal["ok", "note", "fault"]


class Finding(NamedTuple):
    """One line of the doctor's."""

    level: Level
    what: str
    next_step: str = ""


_SHOWN: Final = 3
"""Pods, or cgroups, that a finding names."""

_PASSES: Final = "normal for seconds after a pod starts or ends; if it stays, the kubelet does not know these pods"
_UNREAD_STEPS: Final[Mapping[str, str]] = {
    "denied": "run as a user that may read cgroupfs",
    "exhausted": "raise the limit of open files (LimitNOFILE of the container runtime), or find who holds them",
}
_DRIVERS: Final = (
    "let both use one driver: cgroupDriver of the kubelet's configuration, and SystemdCgroup (containerd) or"
    " cgroup_manager (CRI-O) of the runtime's; then start the pods anew"
)
_SANDBOX_STEP: Final = (
    "no cgroup tells of them: to take the kubelet's own numbers for such pods (--fill-from summary, docs/sources.md),"
    " kubectl apply -k daemonset/overlays/fill-from-summary"
)
_UNFILLED_STEP: Final = (
    "--fill-from is on, and the kubelet's /stats/summary has no whole sample of them: it knows what the runtime tells,"
    " and asks every 10 to 20 s"
)
_ELSEWHERE: Final = ("", "system.slice", "system.slice/containerd.service", "system.slice/crio.service")
"""Where a container's cgroup is found that is not in its pod's."""


def check_pods(tree: Tree, frame: Frame, result: Tally) -> Iterator[Finding]:
    """What is withheld in a tally, and why; one line where nothing is. ``tree`` is in the tick of ``frame``."""
    withheld: dict[Reason, list[PodTally]] = {}
    for pod in result.pods:
        if pod.incomplete is not None:
            withheld.setdefault(pod.incomplete, []).append(pod)
    for reason, check in _CHECKS.items():
        pods = withheld.get(reason)
        if pods:
            found = check(tree, pods)
            unfilled = reason == "sandboxed" and result.fill is not None
            yield found._replace(next_step=_UNFILLED_STEP) if unfilled else found
    named = {path for path, _ in result.unnamed}
    unnamed = sorted(named & {pod.path for pod in frame.pods})
    if unnamed:
        yield Finding("note", f"{_cgroups(len(unnamed))} no name: {_some(unnamed)}", _PASSES)
    if not withheld and not unnamed and frame.pods:
        yield Finding(
            "ok",
            f"the account of {_pods(len({one.uid for one in frame.pods}))} is whole: all that run are named and read",
        )


def _pods(count: int) -> str:
    return f"{count} pod{'' if count == 1 else 's'}"


def _cgroups(count: int) -> str:
    return "1 cgroup of a pod has" if count == 1 else f"{count} cgroups of pods have"


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    left = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {left} more" if left > 0 else "")


def _name(pod: PodTally) -> str:
    return f"{pod.pod.namespace}/{pod.pod.name}"


def _told(reason: Reason, pods: list[PodTally]) -> str:
    return f"{_pods(len(pods))} without sums, {reason}: {_some(map(_name, pods))}: {MEANINGS[reason]}"


def _unread(tree: Tree, pods: list[PodTally]) -> Finding:
    for path in (path for pod in pods for path in pod.cgroup.unread):
        try:
            directory = tree.open(path)
            try:
                directory.subdirectories(force=True)
            finally:
                directory.close()
        except SourceError as error:
            return Finding("fault", f"{_told('unread_container', pods)} ({error})", _UNREAD_STEPS.get(error.reason, ""))
    return Finding("fault", _told("unread_container", pods), "the log of podtally names each file, once")


def _sandboxed(_: Tree, pods: list[PodTally]) -> Finding:
    classes = sorted({pod.pod.runtime_class for pod in pods} - {""})
    by = f"; runtimeClassName {', '.join(classes)}" if classes else ""
    return Finding("fault", f"{_told('sandboxed', pods)}{by}", _SANDBOX_STEP)


def _missing(tree: Tree, pods: list[PodTally]) -> Finding:
    told = _told("missing_container", pods)
    names = {f"{_name(pod)}/{name}" for pod in pods for name in pod.account.missing}
    ids = {
        one.container_id
        for pod in pods
        for one in pod.pod.containers.values()
        if one.running and one.name in pod.account.missing
    }
    for parent in _ELSEWHERE:
        for name in _children(tree, parent or "."):
            if any(name.endswith(container_id) for container_id in ids) and ".slice:" in name:
                where = f"{parent}/{name}" if parent else name
                return Finding(
                    "fault",
                    f"{told}; one of them is at /{where}: the runtime's cgroup driver is not the kubelet's",
                    _DRIVERS,
                )
    return Finding(
        "fault",
        f"{told} ({_some(names)})",
        "look where it is: cat /proc/<its process id>/cgroup on the node; if it is in another tree, see --kubepods",
    )


def _children(tree: Tree, path: str) -> list[str]:
    try:
        directory = tree.open(path)
        try:
            return directory.subdirectories(force=True) or []
        finally:
            directory.close()
    except SourceError:
        # Not there on this node, or closed to us: nothing is to be found in it.
        return []


def _starting(_: Tree, pods: list[PodTally]) -> Finding:
    return Finding("note", _told("starting_container", pods), "normal for seconds after a container is made")


def _unnamed(_: Tree, pods: list[PodTally]) -> Finding:
    for pod in pods:
        running = [one.container.name for one in pod.containers]
        if running and not pod.pod.awaits and not pod.account.missing:
            ids = sorted(
                leaf.container_id
                for leaf in pod.cgroup.leaves
                if leaf.container_id not in pod.pod.containers and leaf != pod.sandbox
            )
            whose = f"container {running[0]}" if len(running) == 1 else f"one of {', '.join(running)}"
            return Finding(
                "note",
                f"{_told('unnamed_container', pods)}; all containers of {_name(pod)} run under their names, and one"
                f" more does: {whose} may stand twice, the other being {_some(one[:12] for one in ids)}",
                "normal for seconds after a container starts; if it stays, the kubelet has lost track of one: restart"
                " it or delete the pod",
            )
    return Finding("note", _told("unnamed_container", pods), _PASSES)


def _unaccounted(_: Tree, pods: list[PodTally]) -> Finding:
    pod = max(pods, key=lambda one: one.account.growth.unknown_usec if one.account.growth else 0)
    growth = pod.account.growth
    figures = ""
    if growth is not None:
        figures = (
            f"; {_name(pod)} used {growth.used_usec / 1e3:.0f} ms of CPU in {growth.span_ns / 1e9:.1f} s, of which"
            f" {growth.unknown_usec / 1e3:.0f} ms are in no cgroup below it that podtally knows"
        )
    places = sorted({paths.driver(one.cgroup.path) for one in pods})
    return Finding(
        "fault",
        f"{_told('unaccounted', pods)}{figures}",
        f"look what runs in it: systemd-cgls or find on its cgroup, /{pod.cgroup.path} ({', '.join(places)} driver)",
    )


_CHECKS: Final[Mapping[Reason, Callable[[Tree, list[PodTally]], Finding]]] = {
    "unread_container": _unread,
    "sandboxed": _sandboxed,
    "missing_container": _missing,
    "starting_container": _starting,
    "unnamed_container": _unnamed,
    "unaccounted": _unaccounted,
}
