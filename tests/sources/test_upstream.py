"""The live upstreams, asked of real servers on 127.0.0.1: paths, tokens, TLS, timeouts, and how often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from collector.model import Answer
from collector.sources.http import Endpoint, LiveAnswers, Question, tls_context
from collector.sources.upstream import LiveClock, LiveUpstream, OnDemand, metrics_path, pods_path, summary_path
from tests.helpers import Peer, certificate, served, until

SUMMARY = "kubelet/stats_summary.json"


def question(url: str, answer: str = SUMMARY, path: str = "/stats/summary", *, ca_file: str | None = None) -> Question:
    """A question of the kubelet."""
    endpoint = Endpoint(
        name="the kubelet", url=url, token_file=None, tls=lambda: tls_context(url, ca_file, insecure=False)
    )
    return Question(answer=answer, endpoint=endpoint, path=path)


@asynccontextmanager
async def running(upstream: LiveUpstream | OnDemand) -> AsyncIterator[None]:
    """Ask until the end of the block."""
    task = asyncio.ensure_future(upstream.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first_of(upstream: LiveUpstream) -> dict[str, Answer]:
    """What came in first, by name."""
    taken: list[Answer] = []

    def came() -> bool:
        taken.extend(upstream.take())
        return bool(taken)

    async with running(upstream):
        await until(came)
    return {answer.name: answer for answer in taken}


def test_the_paths_are_those_that_kubectl_top_asks_for() -> None:
    """Of a namespace, or of all; the pods from the API server's cache."""
    assert (summary_path(), metrics_path("team-a"), metrics_path(None)) == (
        "/stats/summary",
        "/apis/metrics.k8s.io/v1beta1/namespaces/team-a/pods",
        "/apis/metrics.k8s.io/v1beta1/pods",
    )
    assert (pods_path("team-a"), pods_path(None)) == (
        "/api/v1/namespaces/team-a/pods?resourceVersion=0",
        "/api/v1/pods?resourceVersion=0",
    )


def test_an_answer_comes_in_over_verified_tls(tmp_path: Path) -> None:
    """The kubelet's certificate is verified, the token goes along, and the body comes back as it is."""
    shown, token, peer = certificate(tmp_path), tmp_path / "token", Peer(b'{"pods": []}')
    token.write_text("secret\n")

    async def run() -> dict[str, Answer]:
        async with served(peer.handle, shown.server) as url:
            tls = tls_context(url, shown.ca_file, insecure=False)
            endpoint = Endpoint(name="the kubelet", url=url, token_file=str(token), tls=lambda: tls)
            asked = Question(answer=SUMMARY, endpoint=endpoint, path=summary_path())
            return await first_of(LiveUpstream((asked,), interval=60))

    answers = asyncio.run(run())

    assert (answers[SUMMARY].status, answers[SUMMARY].body) == (200, b'{"pods": []}')
    assert peer.asked == [("/stats/summary", "Bearer secret")]


def test_a_certificate_of_another_ca_is_an_answer_without_a_body(tmp_path: Path) -> None:
    """Nothing is sent to who is not known, and the reason is the answer's."""
    shown, other, peer = certificate(tmp_path), certificate(tmp_path), Peer()

    async def run() -> dict[str, Answer]:
        async with served(peer.handle, shown.server) as url:
            return await first_of(LiveUpstream((question(url, ca_file=other.ca_file),), interval=60))

    answer = asyncio.run(run())[SUMMARY]

    assert (answer.status, answer.body, peer.asked) == (None, None, [])
    assert "the kubelet's certificate" in (answer.error or "")


async def refuse(_: web.Request) -> web.StreamResponse:
    """As the API server does."""
    return web.json_response({"kind": "Status", "message": "pods.metrics.k8s.io is forbidden"}, status=403)


async def hang(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await asyncio.sleep(3600)
    return web.Response()


async def flood(request: web.Request) -> web.StreamResponse:
    """More than anybody wants."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(9):
        await response.write(b" " * (1 << 20))
    return response


@pytest.mark.parametrize(
    ("handler", "status", "error"),
    [
        (refuse, 403, "pods.metrics.k8s.io is forbidden"),
        (hang, None, "did not answer within 0.2 s"),
        (flood, 200, "the answer is larger than 8 MiB"),
    ],
)
def test_what_goes_wrong_is_an_answer(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], status: int | None, error: str
) -> None:
    """A refusal, a peer that hangs and one that does not end: each is handed over with its reason, in bounded time."""

    async def run() -> dict[str, Answer]:
        seconds = 0.2 if handler is hang else 10.0
        async with served(handler) as url:
            return await first_of(LiveUpstream((question(url),), interval=60, timeout_seconds=seconds))

    answer = asyncio.run(run())[SUMMARY]

    assert (answer.status, answer.body) == (status, None)
    assert (answer.error or "").endswith(error)


def test_one_that_is_slow_does_not_hold_up_the_others() -> None:
    """Questions are asked together, so that a round lasts as long as its slowest: here the first one's answer waits for
    the second one to be asked.
    """

    async def run() -> dict[str, Answer]:
        quick_asked = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            if request.path == "/quick":
                quick_asked.set()
            await quick_asked.wait()
            return web.Response(body=b"{}")

        async with served(answer) as url:
            asked = tuple(question(url, name, f"/{name}") for name in ("slow", "quick"))
            return await first_of(LiveUpstream(asked, interval=60))

    answers = asyncio.run(run())

    assert {name: answer.status for name, answer in answers.items()} == {"slow": 200, "quick": 200}


def test_it_is_asked_every_interval_and_not_more_often() -> None:
    """Asking for names again asks those who know names, never the upstream."""
    upstream_peer, names_peer = Peer(b'{"pods": []}'), Peer()
    interval, begun = 0.3, time.monotonic()

    async def run() -> None:
        async with served(upstream_peer.handle) as url, served(names_peer.handle) as names_url:
            names = LiveAnswers(question(names_url, "kubelet/pods.json", "/pods"), None, interval=60)
            upstream = LiveUpstream((question(url),), interval=interval, names=names)
            async with running(upstream):
                await until(lambda: len(names_peer.asked) == 1)
                upstream.ask()
                await until(lambda: len(names_peer.asked) == 2)
                await until(lambda: len(upstream_peer.asked) >= 5)
                taken = {answer.name for answer in upstream.take()}
        assert taken == {"kubelet/pods.json", SUMMARY}

    asyncio.run(run())

    assert all(at - begun >= number * interval - 0.01 for number, at in enumerate(upstream_peer.moments))


def test_the_last_of_several_answers_is_taken_once() -> None:
    """Ticks that fall behind find the newest answer, and nothing piles up."""
    peer = Peer(b'{"pods": []}')

    async def run() -> tuple[list[Answer], list[Answer]]:
        async with served(peer.handle) as url:
            upstream = LiveUpstream((question(url),), interval=0.02)
            async with running(upstream):
                await until(lambda: len(peer.asked) >= 3)
                peer.body = b'{"pods": null}'
                await until(lambda: len(peer.asked) >= 6)
            return upstream.take(), upstream.take()

    first, second = asyncio.run(run())

    assert ([answer.body for answer in first], second) == ([b'{"pods": null}'], [])


def test_what_is_asked_on_demand_is_not_asked_without() -> None:
    """Names are asked for and come in; the question is asked once it is wanted, and its answer comes in once."""
    asked_peer, names_peer = Peer(b'{"pods": []}'), Peer()

    async def run() -> None:
        async with served(asked_peer.handle) as url, served(names_peer.handle) as names_url:
            names = LiveAnswers(question(names_url, "kubelet/pods.json", "/pods"), None, interval=60)
            one = OnDemand(names, question(url), interval=60)
            async with running(one):
                await until(lambda: len(names_peer.asked) == 1)
                one.ask()
                await until(lambda: len(names_peer.asked) == 2)
                assert not asked_peer.asked
                one.want()
                await until(lambda: len(asked_peer.asked) == 1)
                taken: list[str] = []

                def came() -> bool:
                    taken.extend(answer.name for answer in one.take())
                    return SUMMARY in taken

                await until(came)
                assert SUMMARY not in [answer.name for answer in one.take()]

    asyncio.run(run())


def test_what_is_asked_on_demand_is_asked_no_more_often_than_its_interval() -> None:
    """However often it is wanted, as at each tick."""
    peer, interval = Peer(b'{"pods": []}'), 0.3

    async def run() -> None:
        async with served(peer.handle) as url, served(Peer().handle) as names_url:
            names = LiveAnswers(question(names_url, "kubelet/pods.json", "/pods"), None, interval=60)
            one = OnDemand(names, question(url), interval=interval)

            def wanted() -> bool:
                one.want()
                return len(peer.asked) >= 4

            async with running(one):
                await until(wanted)

    asyncio.run(run())

    assert all(later - earlier >= interval - 0.05 for earlier, later in pairwise(peer.moments))


def test_what_is_wanted_no_more_is_asked_no_more() -> None:
    """A want of the time in which it may not be asked again is none of later: the pod may have ended since."""
    peer, names_peer = Peer(b'{"pods": []}'), Peer()

    async def run() -> None:
        async with served(peer.handle) as url, served(names_peer.handle) as names_url:
            names = LiveAnswers(question(names_url, "kubelet/pods.json", "/pods"), None, interval=0.2)
            one = OnDemand(names, question(url), interval=0.2)

            def asked() -> bool:
                if not peer.asked:
                    one.want()
                return bool(peer.asked)

            async with running(one):
                await until(asked)
                one.want()
                # Three further intervals of the same length, of a question that is asked in each.
                enough = len(names_peer.asked) + 4
                await until(lambda: len(names_peer.asked) >= enough)

    asyncio.run(run())

    assert len(peer.asked) == 1


def test_the_clock_is_the_machines() -> None:
    """Both clocks go on."""
    clock = LiveClock()
    first, second = clock.begin(), clock.begin()

    assert second.time_ns >= first.time_ns > 1_700_000_000 * 10**9
    assert second.monotonic_ns >= first.monotonic_ns
