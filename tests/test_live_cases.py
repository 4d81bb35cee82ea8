"""Situations from public bug reports, live: a node whose counters grow, a kubelet, and ``podtally serve``.

Each stands for its kind; what was seen where is in the sentence of the test.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

from collector.doctor import check_answers
from collector.model import Answer
from collector.pods.naming import KUBELET
from collector.sources.http import Endpoint, Question, fetch
from tests.helpers import (
    DEADLINE_SECONDS,
    Certificate,
    Handler,
    certificate,
    free_port,
    podtally,
    self_signed_certificate,
    served,
    served_in_thread,
)
from tests.livecases import (
    MIB,
    Kubelet,
    Node,
    Serving,
    container_id,
    node_flags,
    pod,
    pod_list,
    pod_path,
    pod_uid,
    serving,
    status,
)

UID = pod_uid("web")
POD = pod_path(UID)
MAIN = container_id("main")
SIDECAR = container_id("sidecar")

SELDOM = ("--pods-interval", "10m")
"""The kubelet is asked when a name is missing, and not by the clock."""
OFTEN = ("--pods-interval", "1s")

SOON = 50
"""Ticks in which what is asked for at once, and then after 1, 2 and 4 s, has been asked for."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node without a pod."""
    folder = tmp_path / "node"
    folder.mkdir()
    with Node(folder) as made:
        yield made


def leaf(identity: str, prefix: str = "cri-containerd") -> str:
    """The cgroup of a container of the pod."""
    return f"{POD}/{prefix}-{identity}.scope"


def add_pod(node: Node, identity: str = MAIN) -> None:
    """A pod with a sandbox and a container of 100 MiB that uses a quarter of a core."""
    node.slice(POD)
    node.add(leaf(container_id("sandbox")))
    node.add(leaf(identity), 0.25, 100 * MIB)


# --- descriptors ----------------------------------------------------------------------------------------------------


@contextmanager
def without_descriptors(serve: Serving) -> Iterator[None]:
    """Nothing can be opened by the process: all numbers below its limit are taken."""
    before = resource.prlimit(serve.running.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(serve.running.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(serve.running.pid, resource.RLIMIT_NOFILE, before)


BOTH = pod_list(pod("web", UID, status("main", MAIN), status("sidecar", SIDECAR)))


def test_a_leaf_that_cannot_be_opened_withholds_its_pod(node: Node) -> None:
    """Out of descriptors as a container comes (cadvisor#2363, kubernetes#58081), half a pod is not told as a whole."""
    add_pod(node)
    kubelet = Kubelet(pod_list(pod("web", UID, status("main", MAIN))))
    with serving(node, kubelet, *OFTEN) as serve, serve.keeping():
        serve.wait(lambda: serve.memory == 100 * MIB)
        with without_descriptors(serve):
            node.add(leaf(SIDECAR), 0.25, 90 * MIB)
            kubelet.body = BOTH
            serve.wait_for_answers()
            (told,) = serve.pods()
            incomplete = serve.series("podtally_pods_incomplete")
        serve.wait(lambda: serve.memory == 190 * MIB)

    assert (told["cpu_cores"], told["memory_bytes"], told["incomplete"]) == (None, None, "unread_container")
    assert sum(incomplete.values()) == incomplete['reason="unread_container"'] == 1


def test_descriptors_are_held_again_when_there_are_some(node: Node) -> None:
    """After a moment without descriptors as many may be held as before, and all is read."""
    add_pod(node)
    kubelet = Kubelet(pod_list(pod("web", UID, status("main", MAIN))))
    with serving(node, kubelet, *OFTEN) as serve, serve.keeping():
        serve.wait(lambda: serve.memory == 100 * MIB)
        before = serve.value("podtally_descriptors_limit")
        with without_descriptors(serve):
            node.add(leaf(SIDECAR), 0.25, 90 * MIB)
            kubelet.body = BOTH
            serve.wait(lambda: serve.series("podtally_read_errors_total")['reason="exhausted"'] > 0)
            lowered = serve.value("podtally_descriptors_limit")
        serve.wait(lambda: serve.memory == 190 * MIB)
        serve.wait_for_ticks(1)
        after = serve.value("podtally_descriptors_limit")

    assert lowered == 0
    assert before == after


def test_out_of_descriptors_pods_are_served_without_what_cannot_be_read(node: Node) -> None:
    """``/metrics`` has the pods and not ``process_*``: that is no error of the server, and not for the log."""
    add_pod(node)
    with (
        serving(node, Kubelet(pod_list(pod("web", UID, status("main", MAIN)))), *OFTEN) as serve,
        serve.keeping(),
    ):
        serve.wait(lambda: serve.memory == 100 * MIB)
        with without_descriptors(serve):
            code, text = serve.get()
        whole = serve.get()[1]
        log = "".join(serve.running.lines)

    assert (code, "pod_memory_usage_bytes{" in text, "\nprocess_" in text) == (200, True, False)
    assert "\nprocess_resident_memory_bytes " in whole
    assert "ERROR" not in log


def test_a_flood_of_idle_connections_is_bounded(node: Node) -> None:
    """400 connections where 256 files may be open (asyncio's accept loop): pods and probes are served on new ones, the
    log has a line, and the descriptors of those who read are not touched.
    """
    add_pod(node)
    kubelet = Kubelet(pod_list(pod("web", UID, status("main", MAIN))))
    with serving(node, kubelet, *OFTEN, most_files=256) as serve, ExitStack() as flood:
        serve.wait(lambda: serve.memory == 100 * MIB)
        held = serve.value("podtally_descriptors_held")
        for _ in range(400):
            flood.enter_context(socket.create_connection(("127.0.0.1", serve.port), timeout=DEADLINE_SECONDS))
        pages = {path: serve.get(path) for path in ("/healthz", "/readyz", "/metrics", "/metrics/resource")}
        serve.wait_for_ticks(3)
        held_after = serve.value("podtally_descriptors_held")
        sockets = [
            name
            for name in os.listdir(f"/proc/{serve.running.pid}/fd")
            if os.readlink(f"/proc/{serve.running.pid}/fd/{name}").startswith("socket:")
        ]
        errors = serve.series("podtally_read_errors_total")
        serve.running.terminate()

    assert {path: code for path, (code, _) in pages.items()} == dict.fromkeys(pages, 200)
    assert "pod_memory_usage_bytes{" in pages["/metrics"][1]
    assert "\nprocess_resident_memory_bytes " in pages["/metrics"][1]
    assert len(sockets) < 64
    assert (held_after, sum(errors.values())) == (held, 0)
    assert [line.split(": ", 1)[1] for line in serve.running.lines if " INFO " not in line] == [
        "there are more than 32 connections: those that are idle for longest are closed (told once)\n"
    ]


# --- statuses and leaves --------------------------------------------------------------------------------------------

WITHOUT_SANDBOX = pytest.param(False, id="without a sandbox")
WITH_SANDBOX = pytest.param(True, id="with a sandbox")


def add_crio(node: Node, identity: str, *, sandbox: bool) -> None:
    """A pod of CRI-O's, with an infra container or without."""
    node.slice(POD)
    if sandbox:
        node.add(f"{POD}/crio-{container_id('sandbox')}", memory=0)
    node.add(leaf(identity, "crio"), 0.25, 100 * MIB)


@pytest.mark.parametrize("sandbox", [WITH_SANDBOX, WITHOUT_SANDBOX])
def test_a_container_that_restarts_is_back_when_the_kubelet_knows_it(node: Node, *, sandbox: bool) -> None:
    """CRI-O without an infra container (cri-o#6856): the new container is asked about at once and again, and its pod is
    back with the first answer that names it.
    """
    old, new = MAIN, container_id("again")
    add_crio(node, old, sandbox=sandbox)
    kubelet = Kubelet(pod_list(pod("web", UID, status("web", old, scheme="cri-o"))))
    with serving(node, kubelet, *SELDOM) as serve:
        serve.wait(lambda: serve.memory == 100 * MIB)
        before = kubelet.questions
        node.remove(leaf(old, "crio"))
        node.add(leaf(new, "crio"), 0.25, 110 * MIB)
        # The first answer is of a kubelet that does not know yet.
        assert serve.within(SOON, lambda: kubelet.questions > before)
        ended = {"terminated": {"exitCode": 1, "containerID": f"cri-o://{old}"}}
        kubelet.body = pod_list(
            pod("web", UID, status("web", new, scheme="cri-o", lastState=ended, restartCount=1)),
        )
        assert serve.within(SOON, lambda: serve.memory == 110 * MIB)
        assert kubelet.questions - before <= 3


@pytest.mark.parametrize("sandbox", [WITH_SANDBOX, WITHOUT_SANDBOX])
def test_a_short_life_leaves_its_final_reading(node: Node, *, sandbox: bool) -> None:
    """A container that crashes after some ticks is told of after its end, by what it had used."""
    crash = [container_id("crash 1"), container_id("crash 2")]
    add_crio(node, crash[0], sandbox=sandbox)
    kubelet = Kubelet(pod_list(pod("web", UID, status("web", crash[0], scheme="cri-o"))))

    def waiting(ended: str) -> bytes:
        state = {"waiting": {"reason": "CrashLoopBackOff"}}
        last = {"terminated": {"containerID": f"cri-o://{ended}", "exitCode": 1}}
        return pod_list(pod("web", UID, status("web", ended, state, scheme="cri-o", lastState=last)))

    with serving(node, kubelet, *SELDOM) as serve:
        serve.wait(lambda: serve.memory == 100 * MIB)
        node.remove(leaf(crash[0], "crio"))
        kubelet.body = waiting(crash[0])
        serve.wait_for_ticks(3)
        kubelet.body = pod_list(pod("web", UID, status("web", crash[1], scheme="cri-o", restartCount=1)))
        node.add(leaf(crash[1], "crio"), 1.0, 150 * MIB)
        serve.wait_for_ticks(5)
        node.remove(leaf(crash[1], "crio"))
        kubelet.body = waiting(crash[1])
        peak = "pod_container_final_memory_peak_bytes"
        assert serve.within(SOON, lambda: serve.value(peak) == 150 * MIB)
        cpu = serve.value("pod_container_final_cpu_usage_seconds")

    assert cpu is not None
    assert cpu > 0


def test_a_new_container_that_waits_with_an_id_is_awaited(node: Node) -> None:
    """While a status has the new id and no state yet (kubernetes#122763, #126543), the kubelet is asked again and
    again; the pod is withheld until it says running, and there with that answer.
    """
    kubelet = Kubelet()
    with serving(node, kubelet, *SELDOM) as serve:
        created = {"waiting": {"reason": "ContainerCreating"}}
        kubelet.body = pod_list(pod("web", UID, status("main", "", created), phase="Pending"))
        node.slice(POD)
        node.add(leaf(container_id("sandbox")))
        serve.wait(lambda: [one["name"] for one in serve.pods()] == ["web"])

        kubelet.body = pod_list(pod("web", UID, status("main", MAIN, {"waiting": {}}), phase="Pending"))
        before = kubelet.questions
        node.add(leaf(MAIN), 0.25, 100 * MIB)
        assert serve.within(SOON, lambda: kubelet.questions >= before + 3)
        told = serve.pods()
        kubelet.body = pod_list(pod("web", UID, status("main", MAIN)))
        running = kubelet.questions
        whole = serve.within(SOON, lambda: serve.memory == 100 * MIB)
        last = kubelet.questions

    assert [(one["cpu_cores"], one["memory_bytes"]) for one in told] == [(None, None)]
    assert whole
    # One may have been on its way.
    assert last - running <= 2


def test_a_running_container_without_a_leaf_withholds_its_pod(node: Node) -> None:
    """Where the runtime's cgroup driver is not the kubelet's (kubernetes#106514, #103366), the pod is absent with a
    reason, on each page, and doctor has a fault that names the driver.
    """
    node.slice(POD)
    node.add(f"system.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice:cri-containerd:{MAIN}", 0.3, 90 * MIB)
    kubelet = Kubelet(pod_list(pod("web", UID, status("main", MAIN))))
    with serving(node, kubelet, *OFTEN) as serve:
        serve.wait_for_answers(3)
        told = [(one["name"], one["cpu_cores"], one["memory_bytes"], one["incomplete"]) for one in serve.pods()]
        incomplete = serve.series("podtally_pods_incomplete")
        with served_in_thread(kubelet.handle) as url:
            doctor = podtally("doctor", *node_flags(node, url))

    assert [one[:3] for one in told] == [("web", None, None)]
    assert told[0][3]
    assert [name for name, count in incomplete.items() if count] == [f'reason="{told[0][3]}"']
    assert doctor.returncode == 1
    assert "cgroup driver" in doctor.stdout


# --- what the kubelet answers ---------------------------------------------------------------------------------------

GOOD = pod_list(pod("web", UID, status("main", MAIN)))


def says(code: int, body: bytes = b"", **headers: str) -> Handler:
    """Answers so, whatever is asked."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, body=body, headers=headers)

    return answer


async def cut(request: web.Request) -> web.StreamResponse:
    """Half of what was announced, and the end."""
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
    await response.prepare(request)
    await response.write(GOOD[: len(GOOD) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def cut_chunks(request: web.Request) -> web.StreamResponse:
    """A chunk, and no last one."""
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(GOOD[:64])
    assert request.transport is not None
    request.transport.close()
    return response


async def reset(request: web.Request) -> web.StreamResponse:
    """A connection that ends by a reset."""
    assert request.transport is not None
    accepted = request.transport.get_extra_info("socket")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.close()
    return web.Response()


async def silence(_: web.Request) -> web.StreamResponse:
    """Nothing, for longer than anybody waits."""
    await asyncio.sleep(DEADLINE_SECONDS)
    return web.Response(body=GOOD)


async def drip(request: web.Request) -> web.StreamResponse:
    """A byte at a time, likewise."""
    response = web.StreamResponse(headers={"Content-Length": str(len(GOOD))})
    await response.prepare(request)
    for number in range(len(GOOD)):
        await response.write(GOOD[number : number + 1])
        await asyncio.sleep(0.3)
    return response


def of_bytes(item: bytes) -> bytes:
    """A list with another item beside the good one."""
    return GOOD[:-2] + b"," + item + b"]}"


ELSE = "something else answers there: give the kubelet's own address"
BREAKS = "what comes back breaks off or is no HTTP"
LARGE = "no node's pods are so much"
LATE = "see whether the node or its kubelet is overloaded"


class Broken(NamedTuple):
    """An answer that is not the list, and how doctor's next step begins; empty where it is a list all the same."""

    answer: Handler
    step: str


BROKEN = {
    "401": Broken(says(401, b"Unauthorized"), "the kubelet takes no bearer tokens"),
    "403": Broken(says(403, b"Forbidden (user=podtally, verb=get, resource=nodes)\n"), "grant get on nodes/pods"),
    "429": Broken(says(429, b"Too many requests\n", **{"Retry-After": "1"}), "podtally asks again by itself"),
    "500": Broken(says(500, b"Internal Error: failed to list pods\n"), "the kubelet fails by itself: read its log"),
    "503 without a body": Broken(says(503), "the kubelet fails by itself: read its log"),
    "302": Broken(says(302, Location="https://login.example/"), f"no kubelet sends one elsewhere, {ELSE}"),
    "204": Broken(says(204), ELSE),
    "a page to sign in": Broken(says(200, b"<html>Sign in</html>"), ELSE),
    "a failed Status": Broken(says(200, json.dumps({"kind": "Status", "status": "Failure"}).encode()), ELSE),
    "no body": Broken(says(200), ELSE),
    "null": Broken(says(200, b"null"), ELSE),
    "items {}": Broken(says(200, b'{"items":{}}'), ELSE),
    "bytes that are no UTF-8": Broken(says(200, b'{"items":[{"metadata":{"name":"\xff\xfe"}}]}'), ELSE),
    "items null": Broken(says(200, b'{"kind":"PodList","items":null}'), ""),
    "items []": Broken(says(200, b'{"items":[]}'), ""),
    "items that are no pods": Broken(says(200, b'{"items":[null,1,"x",{}]}'), ""),
    "a mark of byte order": Broken(says(200, b"\xef\xbb\xbf" + GOOD), ""),
    "UTF-16": Broken(says(200, GOOD.decode().encode("utf-16")), ""),
    "half an answer": Broken(cut, BREAKS),
    "chunks without an end": Broken(cut_chunks, BREAKS),
    "a reset": Broken(reset, BREAKS),
    "a pod of 17 MiB": Broken(says(200, of_bytes(b'{"x":"' + b"y" * (17 * MIB) + b'"}')), ""),
    "200 MiB from a gzip": Broken(
        says(200, gzip.compress(b"{" + b" " * (200 * MIB), 1), **{"Content-Encoding": "gzip"}), LARGE
    ),
    "a byte at a time": Broken(drip, LATE),
    "nothing": Broken(silence, LATE),
}
SLOW = ("a byte at a time", "nothing")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_has_its_next_step(name: str) -> None:
    """The next step of doctor's is of the kind of the failure, and not that the kubelet cannot be reached."""

    async def ask() -> Answer:
        async with served(BROKEN[name].answer) as url, aiohttp.ClientSession() as session:
            endpoint = Endpoint(name="the kubelet", url=url, token_file=None, tls=lambda: None)
            question = Question(answer=KUBELET, endpoint=endpoint, path="/pods")
            return await fetch(session, question, timeout_seconds=0.3 if name in SLOW else DEADLINE_SECONDS)

    (finding,) = check_answers([asyncio.run(ask())])

    step = BROKEN[name].step
    assert finding.level == ("fault" if step else "ok")
    assert finding.next_step.startswith(step)


SHARES = 4
"""The answers are given by so many kubelets at one time, as none is asked more than once a second."""


@pytest.mark.parametrize("share", [*range(SHARES), *SLOW])
def test_broken_answers_are_survived(node: Node, share: int | str) -> None:
    """Whatever the kubelet answers, the pods that were known keep their sums, and a good answer ends it."""
    add_pod(node)
    quick = [name for name in BROKEN if name not in SLOW]
    names = quick[share::SHARES] if isinstance(share, int) else [share]
    kubelet = Kubelet(GOOD)
    kept: dict[str, tuple[float | None, int]] = {}
    with serving(node, kubelet, *OFTEN) as serve:
        serve.wait(lambda: serve.memory == 100 * MIB)
        for name in names:
            kubelet.answer = BROKEN[name].answer
            serve.wait_for_answers()
            kept[name] = serve.memory, serve.get("/readyz")[0]
        kubelet.answer = None
        serve.wait_for_answers()
        told = serve.get("/readyz")
        last = serve.memory
        serve.running.terminate()

    assert kept == dict.fromkeys(names, (100 * MIB, 200))
    assert (told[0], "kubelet: ok" in told[1], last) == (200, True, 100 * MIB)
    assert "Traceback" not in "".join(serve.running.lines)


# --- certificates ---------------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """A certificate of the kubelet's, where it listens, and how doctor's next step begins."""

    made: Callable[[Path], Certificate]
    step: str
    host: str = "127.0.0.1"
    bracketed: bool = True
    flags: tuple[str, ...] = ()


NAME = "give --kubelet-url with a name or address that is in it"
CERTIFICATES = {
    "of the address": Shown(certificate, ""),
    "of a name alone": Shown(lambda folder: certificate(folder, "kubelet.example"), NAME),
    "of a common name alone": Shown(lambda folder: certificate(folder, common_name="127.0.0.1"), NAME),
    "expired": Shown(lambda folder: certificate(folder, valid_days=(-2, -1)), "renew it: with serverTLSBootstrap"),
    "not yet valid": Shown(lambda folder: certificate(folder, valid_days=(1, 2)), "set the clocks"),
    "self-signed": Shown(
        lambda folder: replace(self_signed_certificate(folder), ca_file=certificate(folder).ca_file),
        "it is not signed by the cluster's CA: turn on serverTLSBootstrap",
    ),
    "self-signed, not verified": Shown(self_signed_certificate, "", flags=("--kubelet-insecure-tls",)),
    "of an IPv6 address": Shown(certificate, "", host="::1"),
    "of an IPv6 address without brackets": Shown(certificate, "", host="::1", bracketed=False),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_certificate_that_is_refused_has_its_next_step(name: str, node: Node, tmp_path: Path) -> None:
    """Doctor tells what is wrong with the kubelet's certificate, and what to do about just that; a proxy of the
    environment's is not asked.
    """
    add_pod(node)
    shown = CERTIFICATES[name]
    made = shown.made(tmp_path)
    proxy = f"http://127.0.0.1:{free_port()}"
    with served_in_thread(Kubelet(GOOD).handle, made.server, shown.host) as url:
        written = url if shown.bracketed else url.replace("[", "").replace("]", "")
        flags = [*node_flags(node, written), "--kubelet-ca-file", made.ca_file, *shown.flags]
        done = podtally("doctor", *flags, HTTPS_PROXY=proxy, https_proxy=proxy)

    lines = done.stdout.splitlines()
    refused = [number for number, line in enumerate(lines) if "certificate is refused" in line]
    steps = [lines[number + 1].strip() for number in refused]
    assert len(steps) == (1 if shown.step else 0), done
    assert all(step.startswith(f"-> {shown.step}") for step in steps)
    assert ("ok    the kubelet names the pods" in lines) is not bool(shown.step)
