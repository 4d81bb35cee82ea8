"""The doctor's findings on each layout, and on whatever the peers may answer."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from collector.cgroup import find
from collector.cgroup.walk import Walker
from collector.doctor import (
    Looks,
    check_answers,
    check_cgroups,
    check_descriptors,
    check_network,
    examine,
    examine_upstream,
    render,
    unsupported,
)
from collector.errors import UnsupportedNode
from collector.failures import step
from collector.model import (
    FAILURE_KINDS,
    Answer,
    Details,
    FailureKind,
    Frame,
    Instant,
    Leaf,
    NamesState,
    NodeReading,
    PodCgroup,
    Reading,
    Tally,
    Upstream,
)
from collector.seams import AnswerSource, Tree
from collector.sources.recording import RecordedAnswers, RecordedTree, Recording, load
from collector.sources.tee import RecordingWriter, TeeTree
from collector.withheld import Finding
from tests.support import Answers, Cgroup, MemoryTree, NoAnswers, case, live, recording, v2_root

KUBELET = "kubelet/pods.json"
APISERVER = "apiserver/pods.json"
EMPTY = b'{"items": []}'
PRESSURE = "cpu.pressure, io.pressure, memory.pressure"


NO_NETWORK = Finding(
    "note",
    "no /proc/<pid>/net/dev of the pods' processes can be read: container_network_* are left out",
    "on a node, mount /proc without hidepid and give it with --proc-root; in a recording, it is there if it was"
    " made with daemonset/overlays/hostpid",
)


def findings_of(name: str, *, kubepods: str | None = None) -> list[Finding]:
    """On a fixture."""
    return findings_in(recording(name), kubepods=kubepods)


def findings_in(recorded: Recording, *, kubepods: str | None = None) -> list[Finding]:
    """After the last frame."""
    tree = RecordedTree(recorded)
    looks = Looks(tree, RecordedAnswers(tree), kubepods=kubepods)
    while looks.look():
        pass
    return list(examine(looks, descriptor_limit=None))


def findings_on(
    tree: Tree, answers: AnswerSource, *, kubepods: str | None = None, descriptor_limit: int | None = None
) -> list[Finding]:
    """After one look."""
    looks = Looks(tree, answers, kubepods=kubepods)
    looks.look()
    return list(examine(looks, descriptor_limit=descriptor_limit))


def healthy(pods: int, leaves: int, top: str = "kubepods.slice", driver: str = "systemd") -> list[Finding]:
    """What is said of a node without a fault."""
    found = f"{pods} pod{'s' if pods > 1 else ''}"
    return [
        Finding("ok", "cgroup v2"),
        Finding("ok", f"kubepods at /{top}, {driver} driver"),
        Finding("ok", f"{found} with {leaves} containers and sandboxes"),
        Finding("ok", "all kernel files that podtally reads are there"),
        Finding("ok", "the kubelet names the pods"),
        Finding("ok", f"the account of {found} is whole: all that run are named and read"),
        NO_NETWORK,
    ]


class Given(NoAnswers):
    """Answers that came in."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self._answers = list(answers)

    def take(self) -> list[Answer]:
        return self._answers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("crio-conmon", healthy(2, 5)),
        ("cri-dockerd", healthy(2, 5)),
        ("cri-dockerd-cgroupfs", healthy(3, 6, "kubepods", "cgroupfs")),
        ("crun-subgroup", healthy(1, 2)),
        ("kind-nested", healthy(2, 5, "kubelet.slice/kubelet-kubepods.slice")),
        ("restart", healthy(1, 3)),
        ("two-uids", healthy(2, 4)),
    ],
)
def test_a_healthy_layout_has_no_fault(name: str, expected: list[Finding]) -> None:
    """Each runtime's layout is found, with its driver, its pods and their leaves."""
    assert findings_of(name) == expected


def test_a_node_inside_another_is_found() -> None:
    """A kind node seen from its host is below the container that is the node."""
    (top,) = [finding.what for finding in findings_of("docker-outside-kind") if finding.what.startswith("kubepods at")]

    assert top.startswith("kubepods at /system.slice/docker-")
    assert top.endswith(".scope/kubelet.slice/kubelet-kubepods.slice, systemd driver")


def test_files_that_the_kernel_lacks_are_named() -> None:
    """An old kernel's missing files are notes with the families that go, and no fault."""
    findings = findings_of("missing-files")

    assert [finding for finding in findings if finding.level != "ok"] == [
        Finding("note", f"absent: {PRESSURE}; pressure families are left out", "boot with psi=1"),
        Finding(
            "note",
            "absent on this kernel or cgroup: memory.peak, memory.swap.current, memory.swap.max; their families are"
            " left out",
        ),
        *findings[-2:],
    ]
    assert findings[-2].what.startswith("1 pod without sums, unnamed_container: team-a/half-named: no status names one")
    assert "container batch may stand twice" in findings[-2].what


def test_a_refused_kubelet_is_a_fault_with_the_right_to_grant() -> None:
    """A 403 names the right and the manifest; the API server's names are good news beside it."""
    findings = findings_of("static-pod")

    assert [finding for finding in findings if finding.level == "fault"] == [
        Finding(
            "fault",
            "the kubelet does not name the pods: HTTP 403: Forbidden (user=system:serviceaccount:podtally:podtally,"
            " verb=get, resource=nodes, subresource(s)=[pods proxy])",
            "grant get on nodes/pods (daemonset/base/rbac.yaml); before Kubernetes 1.33, use"
            " daemonset/overlays/before-1.33",
        )
    ]
    assert Finding("ok", "the API server names the pods") in findings


def test_manifests_that_are_named_are_there() -> None:
    """The files that the doctor sends the user to exist."""
    repo = Path(__file__).resolve().parents[1]

    assert (repo / "daemonset/base/rbac.yaml").exists()
    assert (repo / "daemonset/overlays/before-1.33").is_dir()
    assert (repo / "daemonset/overlays/hostpid").is_dir()


@pytest.mark.parametrize("name", ["systemd-containerd.tar.zst", "cgroupfs-containerd.tar.zst"])
def test_a_real_node_has_no_fault(name: str) -> None:
    """Recordings of a real node in good health have no fault."""
    assert [finding for finding in findings_of(name) if finding.level == "fault"] == []


@pytest.mark.parametrize(
    ("answers", "levels", "step"),
    [
        ([Answer(KUBELET, 0, 200, None, EMPTY)], ["ok"], ""),
        ([Answer(KUBELET, 0, 401, "Unauthorized", None)], ["fault"], "the kubelet takes no bearer tokens: turn on"),
        ([Answer(KUBELET, 0, 403, "Forbidden", None)], ["fault"], "grant get on nodes/pods"),
        ([Answer(KUBELET, 0, 500, "oh", None)], ["fault"], "the kubelet fails by itself: read its log"),
        ([Answer(KUBELET, 0, None, "Connection refused", None)], ["fault"], "check --kubelet-url"),
        ([Answer(KUBELET, 0, 200, None, b"<html>")], ["fault"], "something else answers there: give the kubelet's own"),
        ([Answer(KUBELET, 0, 200, "the answer is larger", None)], ["fault"], "no node's pods are so much"),
        ([Answer(KUBELET, 0, 429, "later", None)], ["fault"], "podtally asks again by itself"),
        ([Answer(KUBELET, 0, 504, "late", None)], ["fault"], "see whether the node or its kubelet is overloaded"),
        ([Answer(KUBELET, 0, 302, "Found", None)], ["fault"], "no kubelet sends one elsewhere"),
        ([Answer(KUBELET, 0, 404, "Not Found", None)], ["fault"], "something else answers there"),
        ([Answer(KUBELET, 0, None, "no", None, "refused")], ["fault"], "see that the kubelet runs, and listens where"),
        ([Answer(KUBELET, 0, None, "late", None, "timeout")], ["fault"], "see whether the node or its kubelet is over"),
        ([Answer(KUBELET, 0, None, "no", None, "expired")], ["fault"], "renew it: with serverTLSBootstrap approve"),
        ([Answer(APISERVER, 0, None, "no", None, "expired")], ["fault", "note"], "renew the API server's certificate"),
        ([Answer(APISERVER, 0, None, "no", None)], ["fault", "note"], "check --apiserver-url"),
        (
            [Answer(KUBELET, 0, 200, None, EMPTY), Answer(APISERVER, 0, 403, "no", None)],
            ["ok", "note"],
            "grant list on pods",
        ),
        ([Answer(APISERVER, 0, 403, "no", None)], ["fault", "note"], "grant list on pods"),
        ([], ["note"], ""),
    ],
)
def test_each_answer_has_its_next_step(answers: list[Answer], levels: list[str], step: str) -> None:
    """What the peers answered is a finding each, with what to do about a refusal."""
    findings = list(check_answers(answers))

    assert [finding.level for finding in findings] == levels
    assert any(finding.next_step.startswith(step) for finding in findings)


@pytest.mark.parametrize("kind", FAILURE_KINDS.values())
def test_each_kind_of_failure_has_a_next_step_of_its_own(kind: FailureKind) -> None:
    """No kind sends the user to look for what only another one would have, and none is without a step."""
    steps = {name: step(kind, name) for name in (KUBELET, APISERVER)}

    assert all(steps.values())
    assert "reach it" not in steps[KUBELET] or kind == "unreachable"
    assert "kubelet" not in steps[APISERVER].replace("--kubelet-ca-file", "").replace("kubelet does not answer", "")


def test_a_next_step_is_not_told_twice() -> None:
    """What the sentence of a refused certificate ends with is the next step, and stands there alone."""
    todo = step("expired", KUBELET)
    answer = Answer(KUBELET, 0, None, f"https://n: the certificate is refused: it has expired: {todo}", None, "expired")

    (finding,) = check_answers([answer])

    assert finding == Finding(
        "fault", "the kubelet does not name the pods: https://n: the certificate is refused: it has expired", todo
    )


@pytest.mark.parametrize(
    ("answer", "state", "expected"),
    [
        (Answer("kubelet/stats_summary.json", 0, None, "no", None, "expired"), "no", "renew it: with serverTLS"),
        (Answer("kubelet/stats_summary.json", 0, 500, "no", None), "HTTP 500: no", "the kubelet fails by itself"),
        (Answer("kubelet/stats_summary.json", 0, 403, "no", None), "HTTP 403: no (a hint)", ""),
    ],
)
def test_an_upstreams_next_step_is_of_its_answer(answer: Answer, state: str, expected: str) -> None:
    """Where the source is asked, what to do follows from how it failed as well."""
    tally = Tally(
        node_name="",
        instant=Instant(0, 0),
        window_seconds=None,
        node=NodeReading(Reading(0)),
        pods=(),
        names=NamesState(source="kubelet", kubelet="ok", apiserver="unknown", age_since_ns=0),
        incomplete={},
        source="summary",
        upstream=Upstream(peer="the peer", state=state, answered_ns=0, stale_after_ns=1),
    )

    first = next(iter(examine_upstream(tally, [answer])))

    assert first.level == "fault"
    assert first.next_step.startswith(expected)
    assert bool(first.next_step) == bool(expected)


def test_a_live_tree_is_examined(tmp_path: Path) -> None:
    """A node's own tree gets the same findings and one of its descriptors, and no file stays open."""
    tree = live(v2_root(tmp_path / "cgroup"), descriptor_limit=1000)
    before = len(os.listdir("/proc/self/fd"))

    findings = findings_on(tree, Answers(EMPTY), descriptor_limit=1000)

    assert len(os.listdir("/proc/self/fd")) == before
    assert Finding("ok", "kubepods at /kubepods, cgroupfs driver") in findings
    assert any(finding.what.endswith("descriptors needed, 1000 may be held") for finding in findings)


def test_a_node_without_kubelet_is_told_what_to_start(tmp_path: Path) -> None:
    """Without a kubepods cgroup there is a fault, and what the kubelet said is told all the same."""
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("")
    refused = Given(Answer(KUBELET, 0, None, "Connection refused", None))

    findings = findings_on(live(root), refused, descriptor_limit=10)

    assert [finding.what for finding in findings if finding.level == "fault"] == [
        "no kubepods cgroup is found",
        "the kubelet does not name the pods: Connection refused",
    ]


def test_a_kubepods_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A wrong --kubepods is a fault that names the path."""
    findings = findings_on(live(v2_root(tmp_path / "cgroup")), NoAnswers(), kubepods="/nope")

    assert (
        Finding(
            "fault",
            "kubepods cannot be opened: nope: No such file or directory",
            "give an existing path with --kubepods",
        )
        in findings
    )


@pytest.mark.parametrize(
    ("root", "sandbox", "network", "level", "words"),
    [
        (2, 97, (), "ok", "the network counters of 1 pod can be read"),
        (0, 0, None, "note", "PID namespaces that podtally does not see"),
        (None, 0, None, "note", "PID namespaces that podtally does not see"),
        (2, 97, None, "note", "no /proc/<pid>/net/dev"),
        (None, None, None, "note", "no /proc/<pid>/net/dev"),
    ],
)
def test_the_network_is_told_with_the_reason_for_its_absence(
    root: int | None, sandbox: int | None, network: tuple[()] | None, level: str, words: str
) -> None:
    """Seen processes, those of another PID namespace, and a /proc that hides them are told apart."""

    def of(process: int | None) -> Reading:
        return Reading(0, details=Details(process_id=process))

    pod = PodCgroup("p", 1, "u", "Burstable", None, of(None), (Leaf("p/l", 2, "l", None, None, of(sandbox)),), network)
    finding = check_network(Frame(Instant(0, 0), NodeReading(of(root)), (pod,), {}, 0, 0))

    assert (finding.level, words in finding.what) == (level, True)


def test_too_few_descriptors_are_a_note() -> None:
    """More files than may be held cost CPU, and the doctor says how to spare it."""
    frame = Frame(Instant(0, 0), NodeReading(Reading(0)), (), {}, 0, 100)

    assert check_descriptors(frame, 10).level == "note"


def test_what_cannot_be_read_is_a_fault_beside_the_kubelets_answer() -> None:
    """On a cgroup v1 node the sentence is a finding, and the peers' answers are told as well."""
    findings = list(unsupported(UnsupportedNode("it is v1"), [Answer(KUBELET, 0, 200, None, EMPTY)]))

    assert findings == [Finding("fault", "it is v1"), Finding("ok", "the kubelet names the pods")]


def test_the_text_has_a_line_for_each_finding_and_its_step() -> None:
    """A finding is a line; a note or fault has its next step below; faults are counted."""
    findings = [Finding("ok", "fine", "unseen"), Finding("note", "odd"), Finding("fault", "bad", "do this")]

    assert render(findings) == ("ok    fine\nnote  odd\nFAULT bad\n      -> do this\n", 1)


def test_a_recording_of_a_recording_is_as_well_as_the_recording(tmp_path: Path) -> None:
    """Files that are read of pods alone are not missed in the containers of a recording that podtally made."""
    recorded = recording("systemd-containerd.tar.zst")
    inner = RecordedTree(recorded)
    with RecordingWriter(str(tmp_path / "r"), recorded.meta) as writer:
        tee = TeeTree(inner, writer)
        Walker(tee, slow_every=1).tick()
        tee.flush()

    found = findings_on(RecordedTree(load(tmp_path / "r")), NoAnswers())

    assert Finding("ok", "all kernel files that podtally reads are there") in found


def cgroups_of(tree: Tree, *running_uids: str) -> list[Finding]:
    """What is said of where the pods' cgroups are."""
    return list(check_cgroups(tree, None, running_uids))[1:]


@pytest.mark.parametrize(
    ("name", "left", "followed"),
    [
        ("stale-empty-kubepods-at-root", "kubepods", "kubelet.slice/kubelet-kubepods.slice"),
        ("stale-empty-kubepods-nested", "kubelet/kubepods", "kubelet.slice/kubelet-kubepods.slice"),
    ],
)
def test_a_tree_that_was_left_behind_is_told_of(name: str, left: str, followed: str) -> None:
    """Beside the one that is followed, with why it is not."""
    assert cgroups_of(RecordedTree(case(name))) == [
        Finding("ok", f"kubepods at /{followed}, systemd driver"),
        Finding(
            "note",
            f"kubepods at /{left} is left aside: it has no pods, it is of an earlier cgroup root or driver of the"
            " kubelet's",
        ),
    ]


def test_another_nodes_tree_is_told_of() -> None:
    """Its pods are not those that the kubelet names; one whose pods have no processes was left behind."""
    tree = memory_trees("kubepods/pod0", "a/kubepods/pod1", "b/kubepods/pod2")
    tree.cgroups["b/kubepods/pod2"].files["cgroup.events"] = b"populated 0\n"

    assert [finding.what for finding in cgroups_of(tree, "1")] == [
        "kubepods at /a/kubepods, cgroupfs driver",
        "kubepods at /kubepods is left aside: its pods are not this kubelet's; else give its path with --kubepods",
        "kubepods at /b/kubepods is left aside: its pods have no processes, it is of an earlier cgroup root or driver"
        " of the kubelet's",
    ]


def test_several_nodes_trees_are_a_fault_with_the_flag() -> None:
    """Where no name tells them apart; without pods they are a note."""
    tree = memory_trees("a/kubepods/pod1", "b/kubepods/pod2")
    several = cgroups_of(tree)
    for path in ("a/kubepods/pod1", "b/kubepods/pod2"):
        del tree.cgroups[path]

    assert several == [
        Finding(
            "fault",
            "several nodes' pods are below this cgroup root (a/kubepods, b/kubepods): choose one with --kubepods",
            "run podtally with --kubepods and one of these paths",
        )
    ]
    assert cgroups_of(tree) == [
        Finding(
            "note",
            "several kubepods have no pods: /a/kubepods, /b/kubepods; the one that gets pods is followed",
            "if pods are missing, give the path with --kubepods",
        )
    ]


def test_no_kubepods_is_a_fault_with_all_that_may_be_done() -> None:
    """The kubelet does not run, the root is another's, or the pods' cgroups have a name of their own."""
    assert cgroups_of(memory_trees("a/b")) == [
        Finding(
            "fault",
            "no kubepods cgroup is found",
            "start the kubelet; in a pod, mount the host's /sys/fs/cgroup and give it with --cgroup-root; if the pods'"
            " cgroups have another name, give their path with --kubepods",
        )
    ]


def test_a_search_that_did_not_see_all_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """That it has ended at its bounds, and what it could not look into."""
    monkeypatch.setattr(find, "LIMIT", 3)
    tree = memory_trees("a/b/c/d")
    tree.cgroups["a/b"].listing = errno.EACCES
    denied = cgroups_of(tree)[0]
    tree.cgroups["a/b"].listing = None
    cut_short = cgroups_of(tree)[0]

    assert denied == Finding(
        "note",
        "could not be looked into for kubepods: /a/b",
        "run as a user that may read cgroupfs; where descriptors run out, raise the limit of open files",
    )
    assert cut_short == Finding(
        "note",
        "kubepods was looked for in 4096 cgroups and 12 levels at the most, and this node has more",
        "if pods are missing, give the path with --kubepods",
    )


def memory_trees(*paths: str) -> MemoryTree:
    """Cgroups without files, at these paths and above."""
    parts = [path.split("/") for path in paths]
    made = {"/".join(each[: depth + 1]) for each in parts for depth in range(len(each))}
    return MemoryTree({path: Cgroup(number) for number, path in enumerate((".", *sorted(made)), 1)})


@pytest.mark.parametrize(
    ("state", "kubelet", "apiserver", "expected"),
    [
        (
            "HTTP 403: no (podtally's account needs it)",
            "ok",
            "unknown",
            [
                Finding("fault", "the peer does not answer: HTTP 403: no (podtally's account needs it)"),
                Finding("ok", "the kubelet names the pods"),
            ],
        ),
        (
            "ok",
            "HTTP 403: no",
            "ok",
            [
                Finding("ok", "the peer answers"),
                Finding(
                    "note",
                    "the kubelet does not name the pods: HTTP 403: no",
                    "grant get on nodes/pods, as daemonset/overlays/source-summary does",
                ),
                Finding("ok", "the API server names the pods"),
                Finding("note", "0 pods with running containers"),
                Finding(
                    "note",
                    "1 pod without sums: unnamed_pod: no answer names the pod",
                    "normal for half a minute after a pod starts or ends",
                ),
            ],
        ),
        (
            "it hangs",
            "not asked",
            "it hangs",
            [
                Finding(
                    "fault",
                    "the peer does not answer: it hangs",
                    "check --kubelet-url and that the node lets this pod reach it",
                ),
                Finding(
                    "fault",
                    "the API server does not name the pods: it hangs",
                    "check --apiserver-url and that the network lets this pod reach it",
                ),
            ],
        ),
    ],
)
def test_an_upstream_is_told_with_the_next_step(
    state: str, kubelet: str, apiserver: str, expected: list[Finding]
) -> None:
    """How it answers, who names the pods, and what is missing; one who is not asked is not spoken of."""
    instant = Instant(0, 0)
    tally = Tally(
        node_name="",
        instant=instant,
        window_seconds=None,
        node=NodeReading(Reading(0)),
        pods=(),
        names=NamesState(source="kubelet", kubelet=kubelet, apiserver=apiserver, age_since_ns=0),
        incomplete={"unnamed_pod": 1},
        source="summary",
        upstream=Upstream(peer="the peer", state=state, answered_ns=0, stale_after_ns=1),
    )

    assert list(examine_upstream(tally)) == expected
