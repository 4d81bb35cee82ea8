"""What answers of a kubelet may cost in memory, whatever it says: each measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from aiohttp import web

from tests.helpers import DEADLINE_SECONDS, Handler, environment, served_in_thread

MIB = 1 << 20

ASKER = """
import asyncio, gc, sys
import aiohttp
from collector.garbage import spare_collections
from collector.model import Answer
from collector.pods.naming import Naming
from collector.sources.http import Endpoint, Question, fetch

url, name, path, times = sys.argv[1:5]
gc.disable()  # nothing may depend on when cycles are looked for
spare_collections()


def resident(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) // 1024


async def main():
    endpoint = Endpoint(name="the kubelet", url=url, token_file=None, tls=lambda: None)
    naming = Naming()
    async with aiohttp.ClientSession() as session:

        async def ask(path):
            answer = await fetch(session, Question(answer=name, endpoint=endpoint, path=path), timeout_seconds=120)
            naming.take(answer)
            return answer.status, answer.kind

        said = [await ask(path)]
        before = resident("VmRSS")
        said += [await ask(path) for _ in range(int(times))]
    after, most = resident("VmRSS"), resident("VmHWM")
    print(before, after, most, len(naming.pods), naming.refused_items, sorted(set(said), key=str))


asyncio.run(main())
"""
"""Asks so many times, and prints MiB before, after and at the most, the pods that are named, and what was answered."""


def asked(handler: Handler, name: str, times: int) -> tuple[int, int, int, int, int, str]:
    """What asking a kubelet so often, and once before, costs: MiB that are resident before, after and at the most; then
    the pods that are named, items refused, and what was answered.
    """
    with served_in_thread(handler) as url:
        done = subprocess.run(
            [sys.executable, "-c", ASKER, url, name, "/", str(times)],
            # glibc's threshold moves up with what is freed: whether it gives a block back must not hang on that.
            env=environment(MALLOC_MMAP_THRESHOLD_="65536"),
            capture_output=True,
            text=True,
            timeout=4 * DEADLINE_SECONDS,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    *numbers, said = done.stdout.strip().split(" ", 5)
    before, after, most, pods, refused = map(int, numbers)
    return before, after, most, pods, refused, said


def cutting(begin: bytes) -> Handler:
    """A kubelet that promises 16 MiB, sends nearly 8 and hangs up."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(16 * MIB)})
        await response.prepare(request)
        await response.write(begin)
        for _ in range(8):
            await response.write(b"x" * (MIB - 100))
        assert request.transport is not None
        request.transport.close()
        return response

    return handle


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("kubelet/stats_summary.json", b'{"pods": ["'),
        ("kubelet/pods.json", b'{"items": [{"metadata": {"name": "'),
    ],
)
def test_answers_that_are_cut_leave_nothing(name: str, begin: bytes) -> None:
    """After 60 answers that break off after 8 MiB as much is resident as before, without one look for cycles."""
    before, after, _, _, _, said = asked(cutting(begin), name, 60)

    assert said == "[(None, 'broken')]"
    assert after - before <= 8


def tenants(ordinary: int, huge: int) -> Handler:
    """A node of ordinary pods and of some with 150,000 environment entries."""

    def pod(number: int, more: str = "") -> bytes:
        metadata = f'{{"namespace": "n", "name": "p{number}", "uid": "u-{number}"}}'
        status = f'[{{"name": "c", "state": {{"running": {{}}}}, "containerID": "containerd://{number:064x}"}}]'
        spec = f'{{"containers": [{{"name": "c"{more}}}]}}'
        text = f'{{"metadata": {metadata}, "spec": {spec}, "status": {{"containerStatuses": {status}}}}}'
        return text.encode()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"kind": "PodList", "items": [' + b", ".join(pod(n) for n in range(ordinary)))
        more = ', "env": [' + ",".join(['{"name":"a"}'] * 150_000) + "]"
        for number in range(huge):
            await response.write(b", " + pod(ordinary + number, more))
        await response.write(b"]}")
        await response.write_eof()
        return response

    return handle


def test_a_list_of_64_mib_is_read_in_the_memory_of_one_item() -> None:
    """110 pods and 34 of a tenant with 150,000 environment entries each, 64 MiB: all are named, under half of the limit
    of the DaemonSet, and what was taken is given back.
    """
    before, after, most, pods, refused, said = asked(tenants(110, 34), "kubelet/pods.json", 1)

    assert (pods, refused, said) == (144, 0, "[(200, None)]")
    assert most <= 128
    assert after - before <= 8


def test_a_pod_that_is_too_large_takes_no_other_name() -> None:
    """A pod of 40 MiB is skipped and counted; the others are named."""

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"items": [{"metadata": {"namespace": "n", "name": "p", "uid": "u"}}, {"x": "')
        for _ in range(40):
            await response.write(b"x" * MIB)
        await response.write(b'"}]}')
        await response.write_eof()
        return response

    before, after, most, pods, refused, _ = asked(handle, "kubelet/pods.json", 1)

    assert (pods, refused) == (1, 2)
    assert most <= 96
    assert after - before <= 8
