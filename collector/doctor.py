"""``podtally doctor``: what is readable and reachable, and the next step for each fault.

Each check gives findings; it never raises for what it finds. The sources are handed in, so that the same checks run on
a node and on a recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from collector.cgroup import grammar, paths
from collector.cgroup.files import FAST, slow_names
from collector.cgroup.walk import Walker, find_kubepods
from collector.errors import SourceError, UnsupportedNode, UsageError
from collector.history import History
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import needs
from collector.model import Answer, Frame
from collector.pods.naming import APISERVER, KUBELET, Naming
from collector.seams import Tree
from collector.tally import tally

Level = Literal["ok", "note", "fault"]

_NEEDS = needs(DEFAULT_GROUPS)
_OF_PODS = frozenset(file.name for file in FAST) | frozenset(slow_names(_NEEDS.pods))
_OF_CONTAINERS = frozenset(file.name for file in FAST) | frozenset(slow_names(_NEEDS.containers))
"""What is read without --collect. That opt-in files are not there, as in an older recording, is no finding."""


class Finding(NamedTuple):
    """One line of the doctor's."""

    level: Level
    what: str
    next_step: str = ""


def check_cgroups(tree: Tree, kubepods: str | None) -> Iterator[Finding]:
    """The tree of pods and its files. ``tree`` has begun a tick."""
    yield Finding("ok", "cgroup v2")
    try:
        tops = [kubepods.strip("/")] if kubepods else find_kubepods(tree)
    except UsageError as error:
        yield Finding("fault", str(error), "run podtally with --kubepods and one of these paths")
        return
    if not tops:
        yield Finding(
            "fault",
            "no kubepods cgroup is found",
            "start the kubelet; in a pod, mount the host's /sys/fs/cgroup and give it with --cgroup-root",
        )
        return
    for top in tops:
        try:
            tree.open(top).close()
        except SourceError as error:
            yield Finding("fault", f"kubepods cannot be opened: {error}", "give an existing path with --kubepods")
            return
        yield Finding("ok", f"kubepods at /{top}, {paths.driver(top)} driver")


def _pods(frame: Frame) -> str:
    return f"{len(frame.pods)} pod{'' if len(frame.pods) == 1 else 's'}"


def check_files(tree: Tree, frame: Frame) -> Iterator[Finding]:
    """Which of the files that podtally reads the kernel gives, told from one container, else one pod."""
    leaves = [leaf.path for pod in frame.pods for leaf in pod.leaves]
    if not frame.pods:
        yield Finding("note", "no pod has a cgroup on this node")
        return
    yield Finding("ok", f"{_pods(frame)} with {len(leaves)} containers and sandboxes")
    missing: set[str] = set()
    denied: set[str] = set()
    # One container and one pod stand for all: some files are read of pods alone.
    for path, names in ((leaves[0] if leaves else None, _OF_CONTAINERS), (frame.pods[0].path, _OF_PODS)):
        if path is None:
            continue
        try:
            directory = tree.open(path)
        except SourceError as error:
            yield Finding("note", f"the cgroup that was to be looked at cannot be opened: {error}", "run it again")
            return
        for name in sorted(names):
            try:
                directory.read(name)
            except SourceError as error:
                (denied if error.reason == "denied" else missing).add(name)
        directory.close()
    if denied:
        yield Finding("fault", f"no right to read {', '.join(sorted(denied))}", "run as a user that may read cgroupfs")
    needed = [name for name in sorted(missing) if name in {file.name for file in FAST}]
    if needed:
        yield Finding("fault", f"absent: {', '.join(needed)}", "boot with the cpu and memory controllers enabled")
    optional = [name for name in sorted(missing) if name not in needed]
    pressure = [name for name in optional if name.endswith(".pressure")]
    if pressure:
        yield Finding("note", f"absent: {', '.join(pressure)}; pressure families are left out", "boot with psi=1")
    others = [name for name in optional if name not in pressure]
    if others:
        yield Finding("note", f"absent on this kernel or cgroup: {', '.join(others)}; their families are left out")
    if not missing and not denied:
        yield Finding("ok", "all kernel files that podtally reads are there")


def check_descriptors(frame: Frame, limit: int) -> Finding:
    """Whether all files can be held open."""
    leaves = sum(len(pod.leaves) for pod in frame.pods)
    needed = (frame.cgroups - leaves) * (1 + len(_OF_PODS)) + leaves * (1 + len(_OF_CONTAINERS))
    if needed <= limit:
        return Finding("ok", f"about {needed} descriptors needed, {limit} may be held")
    return Finding(
        "note",
        f"about {needed} descriptors needed, {limit} may be held: further files are opened for each read",
        "raise the limit of open files (LimitNOFILE of the container runtime) to spare CPU",
    )


_KUBELET_STEPS = {
    401: "the kubelet takes no bearer tokens: turn on authentication.webhook in its configuration, and check the token",
    403: "grant get on nodes/pods (daemonset/base/rbac.yaml); before Kubernetes 1.33, use"
    " daemonset/overlays/before-1.33",
}


def check_answers(answers: Iterable[Answer]) -> Iterator[Finding]:
    """What the kubelet and the API server said to the question for pods."""
    naming = Naming()
    found = {answer.name: answer for answer in answers if answer.name in (KUBELET, APISERVER)}
    for name, peer in ((KUBELET, "the kubelet"), (APISERVER, "the API server")):
        answer = found.get(name)
        if answer is None:
            continue
        naming.take(answer)
        state = naming.state.kubelet if name == KUBELET else naming.state.apiserver
        if state == "ok":
            yield Finding("ok", f"{peer} names the pods")
            continue
        step = _KUBELET_STEPS.get(answer.status or 0, "") if name == KUBELET else ""
        if not step:
            step = (
                "check --kubelet-url and that the node lets this pod reach it"
                if name == KUBELET
                else "grant list on pods (daemonset/base/rbac.yaml) for the names while the kubelet does not answer"
            )
        # The API server is but the second choice.
        level: Level = "fault" if name == KUBELET or KUBELET not in found else "note"
        yield Finding(level, f"{peer} does not name the pods: {state}", step)
    if KUBELET not in found:
        yield Finding("note", "there is no answer of the kubelet to look at")


def check_names(frame: Frame, answers: Iterable[Answer]) -> Iterator[Finding]:
    """Whether every cgroup has a name."""
    naming = Naming()
    naming.take(*answers)
    if not naming.state.known or not frame.pods:
        return
    history = History(window_ns=1, interval_ns=1)
    result = tally(frame, naming.pods, naming.state, history, node_name="")
    if not result.unnamed:
        yield Finding("ok", f"all cgroups of {_pods(frame)} and containers have names")
        return
    unnamed = sorted(path for path, _ in result.unnamed)
    one = len(unnamed) == 1
    shown = unnamed[0] if one else f"among them {', '.join(unnamed[:3])}"
    yield Finding(
        "note",
        f"{'1 cgroup has' if one else f'{len(unnamed)} cgroups have'} no name: {shown}",
        "normal for seconds after a pod starts or ends; if it stays, the kubelet does not know these pods",
    )


def examine(
    tree: Tree, answers: list[Answer], *, kubepods: str | None, descriptor_limit: int | None
) -> Iterator[Finding]:
    """All checks in order, on the first tick of ``tree``."""
    walker = Walker(tree, slow_every=1, kubepods=kubepods)
    try:
        frame = walker.tick()
    except UnsupportedNode:
        # Several trees of pods: check_cgroups tells.
        frame = None
    finally:
        walker.close()
    cgroups = list(check_cgroups(tree, kubepods))
    yield from cgroups
    if frame is not None and not any(finding.level == "fault" for finding in cgroups):
        yield from check_files(tree, frame)
        if descriptor_limit is not None:
            yield check_descriptors(frame, descriptor_limit)
        yield from check_answers(answers)
        yield from check_names(frame, answers)
    else:
        yield from check_answers(answers)
    try:
        grammar.meminfo(tree.read_proc("meminfo"))
    except (SourceError, grammar.Malformed) as error:
        yield Finding("note", f"{error}; the node's swap is left out", "on a node, give its /proc with --proc-root")


def unsupported(error: UnsupportedNode, answers: Iterable[Answer]) -> Iterator[Finding]:
    """What is left to tell where the cgroup tree cannot be read at all."""
    yield Finding("fault", str(error))
    yield from check_answers(answers)


_MARKS: dict[Level, str] = {"ok": "ok   ", "note": "note ", "fault": "FAULT"}


def render(findings: Iterable[Finding]) -> tuple[str, int]:
    """The text, and how many faults there are."""
    lines: list[str] = []
    faults = 0
    for finding in findings:
        faults += finding.level == "fault"
        lines.append(f"{_MARKS[finding.level]} {finding.what}")
        if finding.next_step and finding.level != "ok":
            lines.append(f"      -> {finding.next_step}")
    return "\n".join(lines) + "\n", faults
