"""The program's memory in front of clients that go away, or ask and read nothing, on a node with 110 pods."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web

from bench.run import DEPLOYED
from bench.tree import make_tree
from tests.helpers import Running, served_in_thread, started, wait_until

LIMIT_MIB = 256
"""The DaemonSet's."""
SLACK_MIB = 8
ABORTED = 1000
UNREAD = 200


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """The program over a synthetic node, whose pods a kubelet names."""
    tree = make_tree(tmp_path / "tree", 110)

    async def kubelet(_: web.Request) -> web.StreamResponse:
        return web.Response(body=tree.pods_json, content_type="application/json")

    malloc = DEPLOYED["MALLOC_MMAP_THRESHOLD_"]
    places = ("--cgroup-root", tree.cgroup_root, "--proc-root", tree.proc_root, "--listen", "127.0.0.1:0")
    with (
        served_in_thread(kubelet) as url,
        started(
            "serve", *places, "--kubelet-url", url, "--node-name", "bench", MALLOC_MMAP_THRESHOLD_=malloc
        ) as running,
    ):
        yield running


def mib(running: Running, what: str) -> float:
    """``VmRSS`` or ``VmHWM`` of the program."""
    found = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{running.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def asking(port: int, path: str) -> socket.socket:
    """A client with a small buffer that has asked."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return client


def got(port: int, path: str) -> bytes:
    """A whole answer."""
    with asking(port, path) as client, client.makefile("rb") as file:
        return file.read()


def test_memory_is_what_it_was_after_any_number_of_clients(running: Running) -> None:
    """A thousand scrapes that are given up, as by a time-out, and two hundred that are never read: each of a page of
    megabytes. Memory is as before within 8 MiB, was never near the pod's limit, and probes were answered meanwhile.
    """
    port = int(running.url.rpartition(":")[2])
    wait_until(lambda: got(port, "/readyz").startswith(b"HTTP/1.1 200"))
    for _ in range(2):
        assert len(got(port, "/metrics/cadvisor")) > 4 << 20
        got(port, "/metrics")
    before = mib(running, "VmRSS")

    for _ in range(ABORTED):
        with asking(port, "/metrics/cadvisor") as client:
            client.recv(1)
    with ExitStack() as held:
        for _ in range(UNREAD):
            held.enter_context(asking(port, "/metrics/cadvisor"))
        probes = [got(port, path).startswith(b"HTTP/1.1 200") for path in ("/healthz", "/readyz")]

    assert probes == [True, True]
    wait_until(lambda: mib(running, "VmRSS") <= before + SLACK_MIB)
    assert mib(running, "VmHWM") < LIMIT_MIB / 2
