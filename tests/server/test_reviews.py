"""Bearer tokens, reviewed by an API server that speaks the real JSON over a real socket."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from collector.server.access import Access
from collector.server.reviews import (
    AUTHENTICATED_SECONDS,
    AUTHORIZED_SECONDS,
    REJECTED_SECONDS,
    STRANGERS_LIMIT,
    UNAUTHORIZED_SECONDS,
    Reviews,
)
from collector.server.watch import WatchedConfig
from collector.server.webconfig import RateLimit
from collector.sources import http
from tests.guards import (
    PAIR,
    ApiServer,
    Clock,
    apiserver,
    client_tls,
    got,
    guarded,
    issue,
    status_of,
    write_config,
    write_pair,
)
from tests.helpers import Handler, certificate, free_port, served, until

PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
GUARDED = ("/", "/metrics", "/metrics/resource", "/api/v1/pods", "/nothing")


@asynccontextmanager
async def reviewing(
    handler: Handler, clock: Clock | None = None, seconds: float = 20.0, strangers: RateLimit = STRANGERS_LIMIT
) -> AsyncIterator[str]:
    """A guarded server whose API server answers by ``handler``; its URL."""
    async with served(handler) as api_url:
        reviewer = http.LiveReviewer(apiserver(api_url), seconds)
        reviews = Reviews(reviewer, "node-1", clock or Clock(), strangers)
        async with guarded(lambda account: Access(None, reviews, account)) as (url, _):
            yield url


def test_the_kubelets_questions_are_asked() -> None:
    """Who the token is of, without an audience; then whether that user may get this node's metrics."""
    api = ApiServer()

    async def run() -> int:
        async with reviewing(api.handle) as url:
            return await status_of(f"{url}/metrics/resource", Authorization="Bearer good")

    assert asyncio.run(run()) == 200
    assert api.posted == [
        ("TokenReview", {"token": "good"}),
        (
            "SubjectAccessReview",
            {
                "user": PROMETHEUS,
                "uid": "u-1",
                "groups": ["system:authenticated"],
                "extra": {"a": ["b"]},
                "resourceAttributes": {
                    "verb": "get",
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": "metrics",
                    "name": "node-1",
                },
            },
        ),
    ]


@pytest.mark.parametrize(
    ("header", "status", "said", "asked"),
    [
        ("Bearer good", 200, "", 2),
        ("bearer  good ", 200, "", 2),
        ("Bearer bad", 401, "Unauthorized\n", 1),
        ("Bearer poor", 403, "Forbidden (user=nobody, verb=get, resource=nodes, subresource(s)=[metrics])\n", 2),
        ("Bearer", 401, "Unauthorized\n", 0),
        ("Bearer ", 401, "Unauthorized\n", 0),
        ("Bearer a b", 401, "Unauthorized\n", 0),
        ("Bearer \u00e4", 401, "Unauthorized\n", 0),
        ("Basic Z29vZDo=", 401, "Unauthorized\n", 0),
        ("good", 401, "Unauthorized\n", 0),
    ],
)
def test_a_token_lets_in(header: str, status: int, said: str, asked: int) -> None:
    """The kubelet's status and sentence; what is no token costs the API server nothing."""
    api = ApiServer()

    async def run() -> tuple[int, str, dict[str, str]]:
        async with reviewing(api.handle) as url:
            return await got(f"{url}/metrics", Authorization=header)

    found, text, headers = asyncio.run(run())

    assert (found, headers.get("WWW-Authenticate")) == (status, 'Bearer realm="podtally"' if status == 401 else None)
    assert (text if status != 200 else "") == said
    assert len(api.posted) == asked


def test_everything_but_probes_asks_for_it() -> None:
    """The kubelet has no token for its probes; every other path, also one that is not there, wants one."""

    async def run() -> list[list[int]]:
        async with reviewing(ApiServer().handle) as url:
            return [
                [await status_of(url + path) for path in (*GUARDED, "/healthz", "/readyz")],
                [await status_of(url + path, Authorization="Bearer good") for path in GUARDED],
            ]

    assert asyncio.run(run()) == [[401] * 5 + [200] * 2, [200] * 4 + [404]]


def test_what_was_learned_is_kept_as_long_as_the_kubelet_keeps_it() -> None:
    """A user for 2 min, a right for 5 min, the lack of one for 30 s, a rejected token for 30 s."""
    api, clock = ApiServer(), Clock()
    counts: list[tuple[int, int]] = []

    async def run() -> list[int]:
        found = []
        async with reviewing(api.handle, clock) as url:

            async def ask(token: str, later: float) -> None:
                clock.seconds += later
                api.posted.clear()
                found.append(await status_of(f"{url}/metrics", Authorization=f"Bearer {token}"))
                counts.append((api.count("TokenReview"), api.count("SubjectAccessReview")))

            await ask("good", 0)
            await ask("good", AUTHENTICATED_SECONDS - 1)
            await ask("good", 1)
            await ask("good", AUTHORIZED_SECONDS - AUTHENTICATED_SECONDS - 1)
            await ask("good", 1)
            await ask("poor", 0)
            await ask("poor", UNAUTHORIZED_SECONDS - 1)
            api.allowed.add("nobody")
            await ask("poor", 1)
            await ask("late", 0)
            api.users["late"] = PROMETHEUS
            await ask("late", REJECTED_SECONDS - 1)
            await ask("late", 1)
        return found

    assert asyncio.run(run()) == [200] * 5 + [403, 403, 200] + [401, 401, 200]
    assert counts == [(1, 1), (0, 0), (1, 0), (1, 0), (0, 1), (1, 1), (0, 0), (0, 1), (1, 0), (0, 0), (1, 0)]


def test_the_kubelets_times() -> None:
    """The defaults of KubeletConfiguration: cacheTTL, cacheAuthorizedTTL, cacheUnauthorizedTTL."""
    assert (AUTHENTICATED_SECONDS, AUTHORIZED_SECONDS, UNAUTHORIZED_SECONDS) == (120, 300, 30)


def test_one_review_is_under_way_for_a_token() -> None:
    """Ten scrapes at once, by one token, cost two reviews, and by two tokens of one user three."""
    api = ApiServer()
    api.users["also-good"] = PROMETHEUS

    async def run() -> list[int]:
        api.hold = asyncio.Event()
        async with reviewing(api.handle) as url:
            asked = [
                asyncio.ensure_future(status_of(f"{url}/metrics", Authorization=f"Bearer {token}"))
                for token in ("good", "also-good") * 5
            ]
            await until(lambda: len(api.posted) == 2)
            api.hold.set()
            return await asyncio.gather(*asked)

    assert asyncio.run(run()) == [200] * 10
    assert (api.count("TokenReview"), api.count("SubjectAccessReview")) == (2, 1)


def test_strangers_cannot_flood_the_api_server() -> None:
    """Four are asked about at once at the most; of those who wait too many are sent away; who is known is let in."""
    api = ApiServer()

    async def run() -> tuple[list[tuple[int, str | None]], int, int]:
        async with reviewing(api.handle, strangers=RateLimit(0.001, 1000)) as url:
            assert await status_of(f"{url}/metrics", Authorization="Bearer good") == 200
            api.posted.clear()
            api.hold = asyncio.Event()
            asked = [
                asyncio.ensure_future(got(f"{url}/metrics", Authorization=f"Bearer guess-{number}"))
                for number in range(76)
            ]
            await until(lambda: (sum(one.done() for one in asked), len(api.posted)) == (8, 4))
            at_once, known = len(api.posted), await status_of(f"{url}/metrics", Authorization="Bearer good")
            api.hold.set()
            answers = await asyncio.gather(*asked)
            return sorted((status, headers.get("Retry-After")) for status, _, headers in answers), at_once, known

    answers, at_once, known = asyncio.run(run())

    assert [(status, after) for status, after in answers if after is not None] == [(429, "5")] * 8
    assert [status for status, after in answers if after is None] == [401] * 68
    assert (at_once, known) == (4, 200)


def test_unknown_tokens_cost_a_bounded_number_of_reviews() -> None:
    """Past the burst one is asked about each interval, however many there are. What was found out still counts, and a
    token that was let in before is asked about again when its time is over, beside the strangers.
    """
    api, clock = ApiServer(), Clock()

    async def run() -> list[int]:
        async with reviewing(api.handle, clock, strangers=RateLimit(3600.0, 5)) as url:

            async def ask(token: str) -> int:
                return await status_of(f"{url}/metrics", Authorization=f"Bearer {token}")

            found = [await ask(token) for token in ("good", "guess-0", "guess-1", "guess-2", "guess-3")]
            waiting = [asyncio.ensure_future(ask(f"late-{number}")) for number in range(20)]
            found += [await ask("guess-0"), await ask("good")]
            clock.seconds += AUTHENTICATED_SECONDS
            found.append(await ask("good"))
            asked = [spec["token"] for kind, spec in api.posted if kind == "TokenReview"]
            assert asked == ["good", "guess-0", "guess-1", "guess-2", "guess-3", "good"]
            for one in waiting:
                one.cancel()
            return found

    assert asyncio.run(run()) == [200] + [401] * 4 + [401, 200, 200]


@pytest.mark.parametrize("loses", ["its user", "its right"])
def test_a_token_that_is_let_in_no_more_is_a_stranger(loses: str) -> None:
    """The place beside the strangers is of those who may read, and no longer than they may."""
    api, clock = ApiServer(), Clock()

    async def run() -> tuple[int, bool]:
        async with served(api.handle) as api_url:
            reviews = Reviews(http.LiveReviewer(apiserver(api_url)), "node-1", clock)
            await reviews.decide("Bearer good", "10.0.0.1")
            assert len(reviews._known) == 1
            if loses == "its user":
                api.users.clear()
            else:
                api.allowed.clear()
            clock.seconds += AUTHORIZED_SECONDS
            verdict = await reviews.decide("Bearer good", "10.0.0.1")
            await reviews.close()
            return verdict.status, len(reviews._known) == 0

    assert asyncio.run(run()) == ({"its user": 401, "its right": 403}[loses], True)


# --- when the API server does not help -------------------------------------------------------------------------------


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of reviews."""
    return [record.getMessage() for record in caplog.records if record.name == "collector.server.reviews"]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (
            403,
            json.dumps({"kind": "Status", "message": "tokenreviews is forbidden: User cannot create"}),
            "HTTP 403: tokenreviews is forbidden: User cannot create; give podtally's service account the right to"
            " create tokenreviews",
        ),
        (
            401,
            json.dumps({"kind": "Status", "message": "Unauthorized"}),
            "HTTP 401: Unauthorized; the API server does not take podtally's own token: look at --token-file",
        ),
        (500, "oops", "HTTP 500: oops"),
        (429, "", "HTTP 429: Too Many Requests"),
        (201, "<html>", "the API server's answer is no TokenReview"),
        (201, "{}", "the API server's answer is no TokenReview"),
        (201, '{"status": []}', "the API server's answer is no TokenReview"),
    ],
)
def test_a_token_that_cannot_be_reviewed_is_refused(
    status: int, body: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As by the kubelet it is 401; the log says why once, and once more when it is over; nothing of it is kept."""
    caplog.set_level(logging.INFO)
    api = ApiServer()
    api.failing["TokenReview"] = (status, body)

    async def run() -> list[int]:
        async with reviewing(api.handle) as url:
            found = [await status_of(f"{url}/metrics", Authorization="Bearer good") for _ in range(3)]
            api.failing.clear()
            return [*found, await status_of(f"{url}/metrics", Authorization="Bearer good")]

    assert asyncio.run(run()) == [401, 401, 401, 200]
    assert complaints(caplog) == [
        f"requests are refused, as their tokens cannot be reviewed: {why}",
        "the API server makes the tokenreviews again",
    ]


def test_a_right_that_cannot_be_reviewed_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """As by the kubelet it is 500, with its sentence; logged once; the metrics tell of both."""
    caplog.set_level(logging.INFO)
    api = ApiServer()
    api.failing["SubjectAccessReview"] = (503, "later")

    async def run() -> tuple[list[tuple[int, str]], list[str]]:
        async with served(api.handle) as api_url:
            reviews = Reviews(http.LiveReviewer(apiserver(api_url)), "node-1")
            async with guarded(lambda account: Access(None, reviews, account)) as (url, server):
                found = [(await got(f"{url}/metrics", Authorization="Bearer good"))[:2] for _ in range(2)]
                return found, server.metrics_text(openmetrics=False).splitlines()

    found, lines = asyncio.run(run())

    text = f"Authorization error (user={PROMETHEUS}, verb=get, resource=nodes, subresource=metrics)\n"
    assert found == [(500, text)] * 2
    assert complaints(caplog) == ["requests are refused, as their users' rights cannot be reviewed: HTTP 503: later"]
    assert 'podtally_refused_requests_total{reason="review_failed"} 2.0' in lines
    assert 'podtally_reviews_total{code="201",kind="token"} 1.0' in lines
    assert 'podtally_reviews_total{code="503",kind="access"} 2.0' in lines


@pytest.mark.parametrize(
    ("extra", "status"),
    [
        ({"allowed": True, "denied": True}, 500),
        ({"allowed": False, "denied": True}, 403),
        ({"allowed": False, "evaluationError": "a webhook is down"}, 403),
        ({"allowed": "yes"}, 403),
    ],
)
def test_only_a_plain_yes_is_one(extra: dict[str, object], status: int) -> None:
    """Denied beats nothing, both at once is an error, and what is not true is false."""
    api = ApiServer()
    api.extra = extra

    async def run() -> int:
        async with reviewing(api.handle) as url:
            return await status_of(f"{url}/metrics", Authorization="Bearer good")

    assert asyncio.run(run()) == status


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": "true", "user": {"username": "x"}},
        {"authenticated": True, "user": {}},
        {"authenticated": True, "user": {"username": 3}},
        {"authenticated": True, "error": "no", "user": {"username": "x"}},
        {"authenticated": True},
        {"user": {"username": "x"}},
    ],
)
def test_only_a_named_user_is_one(status: dict[str, object]) -> None:
    """Whatever else the review says, the token is nobody's."""

    async def review(_: web.Request) -> web.Response:
        return web.json_response({"status": status}, status=201)

    async def run() -> int:
        async with reviewing(review) as url:
            return await status_of(f"{url}/metrics", Authorization="Bearer x")

    assert asyncio.run(run()) == 401


def test_a_name_with_line_breaks_stays_in_its_line() -> None:
    """What a user is called cannot forge a line of the answer."""
    api = ApiServer()
    api.users["odd"] = "a\nb"

    async def run() -> str:
        async with reviewing(api.handle) as url:
            return (await got(f"{url}/metrics", Authorization="Bearer odd"))[1]

    assert asyncio.run(run()) == "Forbidden (user=a?b, verb=get, resource=nodes, subresource(s)=[metrics])\n"


def test_an_api_server_that_is_not_there_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody at its address is 401, told once; probes and the process go on."""

    async def run() -> list[int]:
        reviews = Reviews(http.LiveReviewer(apiserver(f"http://127.0.0.1:{free_port()}")), "node-1")
        async with guarded(lambda account: Access(None, reviews, account)) as (url, _):
            found = [await status_of(f"{url}/metrics", Authorization="Bearer good") for _ in range(3)]
            return [*found, await status_of(f"{url}/healthz")]

    assert asyncio.run(run()) == [401, 401, 401, 200]
    assert len(complaints(caplog)) == 1
    assert complaints(caplog)[0].endswith("cannot be reached: Connection refused")


def test_an_api_server_that_hangs_refuses(caplog: pytest.LogCaptureFixture) -> None:
    """After the time-out it is 401, and a server that stops meanwhile does not wait for it."""
    api = ApiServer()

    async def run() -> int:
        api.hold = asyncio.Event()
        try:
            async with reviewing(api.handle, seconds=0.05) as url:
                return await status_of(f"{url}/metrics", Authorization="Bearer good")
        finally:
            api.hold.set()

    assert asyncio.run(run()) == 401
    assert complaints(caplog)[0].endswith("did not answer within 0.05 s")


# --- the way to the API server, and metrics-server's way to us --------------------------------------------------------


def test_our_own_token_is_read_for_each_review(tmp_path: Path) -> None:
    """Over verified TLS, with the service account's token as it is by then."""
    api, shown, token = ApiServer(), certificate(tmp_path), tmp_path / "token"
    token.write_text("first\n")

    async def run() -> list[int]:
        async with served(api.handle, shown.server) as api_url:
            endpoint = http.Endpoint(
                name="the API server",
                url=api_url,
                token_file=str(token),
                tls=http.client_tls(api_url, shown.ca_file, insecure=False),
            )
            reviews = Reviews(http.LiveReviewer(endpoint), "node-1")
            async with guarded(lambda account: Access(None, reviews, account)) as (url, _):
                found = [await status_of(f"{url}/metrics", Authorization="Bearer good")]
                token.write_text("second\n")
                return [*found, await status_of(f"{url}/metrics", Authorization="Bearer bad")]

    assert asyncio.run(run()) == [200, 401]
    assert api.callers == ["Bearer first", "Bearer first", "Bearer second"]


def test_metrics_server_reads_over_tls_with_its_token(tmp_path: Path) -> None:
    """HTTPS to the node's address, without a server name, with a bearer token, for /metrics/resource."""
    api, ca = ApiServer(), trustme.CA()
    write_pair(tmp_path, issue(ca))

    async def run() -> tuple[int, str]:
        config = WatchedConfig(write_config(tmp_path, PAIR))
        async with served(api.handle) as api_url:
            reviews = Reviews(http.LiveReviewer(apiserver(api_url)), "node-1")
            async with guarded(lambda account: Access(config, reviews, account)) as (url, _):
                tls = client_tls(ca)
                assert await status_of(f"{url}/metrics/resource", tls=tls) == 401
                return (await got(f"{url}/metrics/resource", tls=tls, Authorization="Bearer good"))[:2]

    status, text = asyncio.run(run())

    assert (status, "node_cpu_usage_seconds_total" in text) == (200, True)
