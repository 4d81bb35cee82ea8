"""``podtally doctor``: what is readable and reachable, and the next step for each fault.

Each check gives findings; it never raises for what it finds. The sources are handed in, so that the same checks run on
a node and on a recording.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from collector import failures
from collector.cgroup import grammar, paths
from collector.cgroup.files import FAST, slow_names
from collector.cgroup.find import DEPTH, LIMIT, Found, Trees, find_kubepods
from collector.cgroup.walk import Walker
from collector.errors import EndOfRecording, SourceError, UnsupportedNode
from collector.history import History
from collector.loop import Collector
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import needs
from collector.model import MEANINGS, STATS_SUMMARY, Answer, Frame, Tally
from collector.pods.naming import APISERVER, KUBELET, Naming
from collector.printable import printable
from collector.seams import AnswerSource, Tree
from collector.upstream.collect import KINDS
from collector.withheld import Finding, Level, check_pods

_NEEDS = needs(DEFAULT_GROUPS)
_FAST = frozenset(file.name for file in FAST)
_OF_PODS = _FAST | frozenset(slow_names(_NEEDS.pods))
_OF_CONTAINERS = _FAST | frozenset(slow_names(_NEEDS.containers))
"""What is held open without --collect."""
_SELDOM = frozenset(slow_names(_NEEDS.seldom))
"""What is read beside that. That opt-in files are not there, as in an older recording, is no finding."""


def check_cgroups(tree: Tree, kubepods: str | None, running_uids: Collection[str]) -> Iterator[Finding]:
    """The tree of pods and its files. ``tree`` has begun a tick; ``running_uids`` are of the pods that names call
    running.
    """
    yield Finding("ok", "cgroup v2")
    if kubepods:
        yield from _check_tops(tree, (kubepods.strip("/"),))
        return
    found = find_kubepods(tree, running_uids, everywhere=True)
    yield from _check_search(found)
    yield from _check_tops(tree, found.tops)
    for trees in found.every:
        if trees not in found.chosen and trees not in found.undecided:
            yield from (Finding("note", f"kubepods at /{top} is left aside: {_why_left(trees)}") for top in trees.tops)


def _check_tops(tree: Tree, tops: Iterable[str]) -> Iterator[Finding]:
    """The kubepods directories that are followed."""
    for top in tops:
        try:
            tree.open(top).close()
        except SourceError as error:
            yield Finding("fault", f"kubepods cannot be opened: {error}", "give an existing path with --kubepods")
            return
        yield Finding("ok", f"kubepods at /{top}, {paths.driver(top)} driver")


def _check_search(found: Found) -> Iterator[Finding]:
    """What there is to say of where kubepods is looked for."""
    if found.errors:
        closed = [f"/{error.path}" for error in found.errors]
        some, more = ", ".join(closed[:3]), len(closed) > 3
        yield Finding(
            "note",
            f"could not be looked into for kubepods: {some}{' and others' if more else ''}",
            "run as a user that may read cgroupfs; where descriptors run out, raise the limit of open files",
        )
    if found.cut_short:
        yield Finding(
            "note",
            f"kubepods was looked for in {LIMIT} cgroups and {DEPTH} levels at the most, and this node has more",
            "if pods are missing, give the path with --kubepods",
        )
    if not found.every:
        yield Finding(
            "fault",
            "no kubepods cgroup is found",
            "start the kubelet; in a pod, mount the host's /sys/fs/cgroup and give it with --cgroup-root; if the pods'"
            " cgroups have another name, give their path with --kubepods",
        )
    elif found.several is not None:
        yield Finding("fault", str(found.several), "run podtally with --kubepods and one of these paths")
    elif found.undecided:
        tops = ", ".join(f"/{top}" for trees in found.undecided for top in trees.tops)
        yield Finding(
            "note",
            f"several kubepods have no pods: {tops}; the one that gets pods is followed",
            "if pods are missing, give the path with --kubepods",
        )


def _why_left(trees: Trees) -> str:
    if trees.living:
        return "its pods are not this kubelet's; else give its path with --kubepods"
    if trees.made:
        return "its pods have no processes, it is of an earlier cgroup root or driver of the kubelet's"
    return "it has no pods, it is of an earlier cgroup root or driver of the kubelet's"


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
    # One container and one pod stand for all.
    for path, names in ((leaves[0] if leaves else None, _OF_CONTAINERS), (frame.pods[0].path, _OF_PODS)):
        if path is None:
            continue
        try:
            directory = tree.open(path)
        except SourceError as error:
            yield Finding("note", f"the cgroup that was to be looked at cannot be opened: {error}", "run it again")
            return
        for name in sorted(names | _SELDOM):
            try:
                directory.read(name)
            except SourceError as error:
                (denied if error.reason == "denied" else missing).add(name)
        directory.close()
    if denied:
        yield Finding("fault", f"no right to read {', '.join(sorted(denied))}", "run as a user that may read cgroupfs")
    needed = [name for name in sorted(missing) if name in _FAST]
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


def check_network(frame: Frame) -> Finding:
    """Whether the pods' networks can be read, and why not."""
    readable = sum(pod.network is not None for pod in frame.pods)
    if readable:
        return Finding("ok", f"the network counters of {readable} pod{'' if readable == 1 else 's'} can be read")
    processes = [leaf.reading.details.process_id for pod in frame.pods for leaf in pod.leaves]
    if frame.node.reading.details.process_id == 0 or 0 in processes:
        return Finding(
            "note",
            "the pods' processes are in PID namespaces that podtally does not see: container_network_* are left out",
            "if they are wanted: kubectl apply -k daemonset/overlays/hostpid",
        )
    return Finding(
        "note",
        "no /proc/<pid>/net/dev of the pods' processes can be read: container_network_* are left out",
        "on a node, mount /proc without hidepid and give it with --proc-root; in a recording, it is there if it was"
        " made with daemonset/overlays/hostpid",
    )


def _without(step: str, state: str) -> str:
    """A state whose sentence has the next step already, as that of a certificate has, without it."""
    return state.removesuffix(f": {step}") if step else state


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
        step = failures.step(failures.kind_of(answer), name)
        # The API server is but the second choice.
        level: Level = "fault" if name == KUBELET or KUBELET not in found else "note"
        yield Finding(level, f"{peer} does not name the pods: {_without(step, state)}", step)
    if KUBELET not in found:
        yield Finding("note", "there is no answer of the kubelet to look at")


def check_fill(result: Tally, answer: Answer | None) -> Iterator[Finding]:
    """With ``--fill-from``, while a pod needs it: which pods are filled, or why none can be. ``answer``: the last."""
    fill = result.fill
    if fill is None or not fill.needed:
        return
    filled = sorted(f"{pod.pod.namespace}/{pod.pod.name}" for pod in result.pods if pod.source != result.source)
    if fill.up:
        count = "1 pod is" if len(filled) == 1 else f"{len(filled)} pods are"
        some = f", and {count} filled from it" if filled else ""
        yield Finding("ok", f"{fill.peer} answers{some}{': ' + ', '.join(filled[:3]) if filled else ''}")
    elif fill.state == "unknown":
        yield Finding("note", f"{fill.peer}, which pods are to be filled from, has not answered yet", "run it again")
    else:
        # What to do about a missing right is in the state itself.
        known = answer is None or answer.status == 403
        step = "" if known or answer is None else failures.step(failures.kind_of(answer), answer.name)
        yield Finding("fault", f"no pod can be filled, {fill.peer} does not answer: {_without(step, fill.state)}", step)


class Looks:
    """Looks at a node, or at a recorded one, tick after tick, as ``serve`` does: what is withheld at first may be whole
    once the kubelet has been asked again.
    """

    def __init__(self, tree: Tree, source: AnswerSource, *, kubepods: str | None) -> None:
        self.tree = tree
        self.kubepods = kubepods
        self.walker = Walker(tree, slow_every=1, kubepods=kubepods)
        history = History(window_ns=_WINDOW_NS, interval_ns=_INTERVAL_NS)
        self.collector = Collector(walker=self.walker, answers=self, history=history, node_name="")
        self.result: Tally | None = None
        """Of the last look."""
        self.answers: dict[str, Answer] = {}
        """The last of each name."""
        self._source = source

    def take(self) -> list[Answer]:
        """The answers, for the collector; each is kept, to be told of."""
        answers = self._source.take()
        self.answers |= {answer.name: answer for answer in answers}
        return answers

    def ask(self) -> None:
        """Ask again."""
        self._source.ask()

    def look(self) -> bool:
        """Look once more; false at the end of a recording, and where there are several trees of pods."""
        try:
            self.result = self.collector.tick()
        except (EndOfRecording, UnsupportedNode):
            # What is to be told of several trees tells check_cgroups.
            return False
        return True

    @property
    def running_uids(self) -> Collection[str]:
        """Uids of the pods that names call running."""
        return self.collector.naming.running_uids

    @property
    def settled(self) -> bool:
        """True if nothing is withheld that asking again may mend."""
        if self.result is None or self.result.wanted:
            return False
        fill = self.result.fill
        return fill is None or not fill.needed or fill.state != "unknown"


_WINDOW_NS = 15_000_000_000
_INTERVAL_NS = 1_000_000_000


def examine(looks: Looks, *, descriptor_limit: int | None) -> Iterator[Finding]:
    """All checks in order, once all ``looks`` have been taken: of what the last one saw."""
    looks.walker.close()
    tree, frame, result, answers = looks.tree, looks.collector.frame, looks.result, list(looks.answers.values())
    cgroups = list(check_cgroups(tree, looks.kubepods, looks.running_uids))
    yield from cgroups
    if frame is not None and not any(finding.level == "fault" for finding in cgroups):
        yield from check_files(tree, frame)
        if descriptor_limit is not None:
            yield check_descriptors(frame, descriptor_limit)
        yield from check_answers(answers)
        if result is not None and result.names.known:
            yield from check_pods(tree, frame, result)
            yield from check_fill(result, looks.answers.get(STATS_SUMMARY))
        if frame.pods:
            yield check_network(frame)
    else:
        yield from check_answers(answers)
    try:
        grammar.meminfo(tree.read_proc("meminfo"))
    except (SourceError, grammar.Malformed) as error:
        yield Finding("note", f"{error}; the node's swap is left out", "on a node, give its /proc with --proc-root")


_NAMES_STEPS = {
    "the kubelet": "grant get on nodes/pods, as daemonset/overlays/source-summary does",
    "the API server": "grant list on pods, as daemonset/overlays/source-metrics-api does in its namespace",
}


def _latest(answers: Iterable[Answer], name: str) -> Answer | None:
    """The last answer of a name, or of one that is like it but for a namespace, that has failed; else the last."""
    folder, _, file = name.partition("/")
    latest = {one.name: one for one in answers if one.name.startswith(f"{folder}/") and one.name.endswith(f"/{file}")}
    return next((one for one in latest.values() if one.failure is not None), next(iter(latest.values()), None))


def examine_upstream(tally: Tally, answers: Collection[Answer] = ()) -> Iterator[Finding]:
    """What there is to say of a source that is asked: how it answers, who names its pods, and what is missing.

    ``answers``: those that the tally is made of, for what to do about one that is none.
    """
    upstream, names = tally.upstream, tally.names
    assert upstream is not None
    kind = KINDS[tally.source]

    def step(name: str) -> str:
        answer = _latest(answers, name)
        return failures.step("unreachable" if answer is None else failures.kind_of(answer), name)

    if upstream.up:
        yield Finding("ok", f"{upstream.peer} answers")
    else:
        answer = _latest(answers, kind.answer)
        hinted = upstream.state.startswith("HTTP ") and (answer is None or answer.status in kind.hints)
        # What to do about such a refusal is in the state itself.
        todo = "" if hinted else step(kind.answer)
        yield Finding("fault", f"{upstream.peer} does not answer: {_without(todo, upstream.state)}", todo)
    answered = {"the kubelet": (KUBELET, names.kubelet), "the API server": (APISERVER, names.apiserver)}
    naming = [peer for peer, (_, state) in answered.items() if state == "ok"]
    for peer, (name, state) in answered.items():
        if state == "ok":
            yield Finding("ok", f"{peer} names the pods")
        elif state not in ("unknown", "not asked"):
            todo = _NAMES_STEPS[peer] if state.startswith("HTTP 403") else step(name)
            told = f"{peer} does not name the pods: {_without(todo, state)}"
            yield Finding("note" if naming else "fault", told, todo)
    if not upstream.up or not naming:
        return
    count = len(tally.pods)
    yield Finding("ok" if count else "note", f"{count} pod{'' if count == 1 else 's'} with running containers")
    for reason, number in sorted(tally.incomplete.items()):
        yield Finding(
            "note",
            f"{number} pod{'' if number == 1 else 's'} without sums: {reason}: {MEANINGS[reason]}",
            "normal for half a minute after a pod starts or ends",
        )


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
        lines.append(f"{_MARKS[finding.level]} {printable(finding.what)}")
        if finding.next_step and finding.level != "ok":
            lines.append(f"      -> {printable(finding.next_step)}")
    return "\n".join(lines) + "\n", faults
