"""Who is let in by password, how often, and with what headers they are answered, through real sockets."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from collector.server.access import Access, Bucket, Passwords
from collector.server.watch import WatchedConfig
from collector.server.webconfig import RateLimit
from tests.guards import ALICE, Clock, basic, got, guarded, status_of, write_config
from tests.helpers import DEADLINE_SECONDS, until

USERS = f"basic_auth_users:\n  alice: {ALICE}\n"
GUARDED = ("/", "/metrics", "/metrics/resource", "/api/v1/pods", "/nothing")


class Checks:
    """bcrypt's place, with an account of what it was asked; it waits while it is held."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.threads: set[str] = set()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.threads.add(threading.current_thread().name)
        self.hashes.append(hashed)
        self.go.wait(DEADLINE_SECONDS)
        return password == b"wonderland" and hashed == ALICE.encode()


def config_of(folder: Path, text: str) -> WatchedConfig:
    """A configuration of this text."""
    return WatchedConfig(write_config(folder, text))


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (basic("alice", "wonderland"), 200),
        (basic("alice", "wonderland").replace("Basic", "bAsIc"), 200),
        (basic("alice", "Wonderland"), 401),
        (basic("alice", ""), 401),
        (basic("bob", "wonderland"), 401),
        (basic("", ""), 401),
        (basic("alice", "x" * 1000), 401),
        (basic("älice", "wonderländ\x00"), 401),
        ("Basic", 401),
        ("Basic !!!", 401),
        ("Basic YWxpY2U=", 401),
        ("Bearer abc", 401),
        ("", 401),
    ],
)
def test_a_password_lets_in(tmp_path: Path, header: str, status: int) -> None:
    """Real hashes have bcrypt's verdict; whatever is no header of that kind is refused."""

    async def run() -> int:
        async with guarded(lambda account: Access(config_of(tmp_path, USERS), None, account)) as (url, _):
            return await status_of(f"{url}/metrics", Authorization=header)

    assert asyncio.run(run()) == status


def test_everything_but_probes_asks_for_it(tmp_path: Path) -> None:
    """Without a password all paths are 401 with a challenge, also those that are not there; probes answer."""

    async def run() -> tuple[list[tuple[int, str | None, str]], list[int]]:
        async with guarded(lambda account: Access(config_of(tmp_path, USERS), None, account)) as (url, server):
            refused = [await got(url + path) for path in GUARDED]
            open_paths = [await status_of(url + path) for path in ("/healthz", "/readyz", "/healthz/", "/healthz/../")]
            text = server.metrics_text(openmetrics=False)
            assert 'podtally_refused_requests_total{reason="unauthenticated"} 7.0' in text.splitlines()
            return [(status, headers.get("WWW-Authenticate"), text) for status, text, headers in refused], open_paths

    refused, open_paths = asyncio.run(run())

    assert refused == [(401, 'Basic realm="podtally", charset="UTF-8"', "Unauthorized\n")] * len(GUARDED)
    assert open_paths == [200, 200, 401, 401]


def test_a_password_is_checked_once(tmp_path: Path) -> None:
    """The scrapes after the first pay no bcrypt, nor do wrong ones that come again; all in a thread of their own."""
    checks = Checks()

    async def run() -> list[int]:
        config = config_of(tmp_path, USERS)
        async with guarded(lambda account: Access(config, None, account, Passwords(checks))) as (url, _):
            found = []
            for header in (basic("alice", "wonderland"), basic("alice", "x"), basic("bob", "y")):
                found += [await status_of(f"{url}/metrics", Authorization=header) for _ in range(3)]
            return found

    assert asyncio.run(run()) == [200] * 3 + [401] * 6
    assert len(checks.hashes) == 3
    assert {name.partition("_")[0] for name in checks.threads} == {"bcrypt"}


def test_an_unknown_user_costs_as_much_as_a_known_one(tmp_path: Path) -> None:
    """The time must not tell which names there are: what is checked has the cost of the users' hashes."""
    checks = Checks()

    async def run() -> int:
        config = config_of(tmp_path, USERS.replace("$04$", "$07$"))
        async with guarded(lambda account: Access(config, None, account, Passwords(checks))) as (url, _):
            return await status_of(f"{url}/metrics", Authorization=basic("nobody", "fakepassword"))

    assert asyncio.run(run()) == 401
    assert [(one[:7], len(one)) for one in checks.hashes] == [(b"$2b$07$", 60)]


def test_the_fake_hash_lets_nobody_in(tmp_path: Path) -> None:
    """Even if somebody found a password for it."""

    async def run() -> int:
        config = config_of(tmp_path, USERS)
        passwords = Passwords(lambda _password, _hashed: True)
        async with guarded(lambda account: Access(config, None, account, passwords)) as (url, _):
            return await status_of(f"{url}/metrics", Authorization=basic("nobody", "x"))

    assert asyncio.run(run()) == 401


def test_probes_and_known_scrapers_do_not_wait_for_a_check(tmp_path: Path) -> None:
    """While bcrypt is at work the event loop is not; of those who wait too many are sent away."""
    checks = Checks()

    async def run() -> tuple[list[int], list[int]]:
        config = config_of(tmp_path, USERS)
        async with guarded(lambda account: Access(config, None, account, Passwords(checks))) as (url, server):
            good = basic("alice", "wonderland")
            assert await status_of(f"{url}/metrics", Authorization=good) == 200
            checks.go.clear()
            asked = [
                asyncio.ensure_future(status_of(f"{url}/metrics", Authorization=basic("alice", str(number % 20))))
                for number in range(40)
            ]
            await until(lambda: server._loop.collector.account.refusals == REFUSED_EIGHT)
            meanwhile = [await status_of(f"{url}/healthz"), await status_of(f"{url}/metrics", Authorization=good)]
            checks.go.set()
            return meanwhile, sorted(await asyncio.gather(*asked))

    meanwhile, answers = asyncio.run(run())

    assert meanwhile == [200, 200]
    assert answers == [401] * 32 + [429] * 8
    assert len(checks.hashes) == 1 + 16


REFUSED_EIGHT = {"forbidden": 0, "review_failed": 0, "too_many": 8, "unauthenticated": 0}


def test_changed_users_hold_at_once(tmp_path: Path) -> None:
    """Who is taken out is not let in by what was remembered of him, and a new password is another."""

    async def run() -> list[int]:
        alice = basic("alice", "wonderland")
        async with guarded(lambda account: Access(config_of(tmp_path, USERS), None, account)) as (url, _):
            found = [await status_of(f"{url}/metrics", Authorization=alice)]
            for text in (USERS.replace("alice", "carol"), USERS, USERS.replace("o7dMp", "o7dMq")):
                write_config(tmp_path, text)
                found.append(await status_of(f"{url}/metrics", Authorization=alice))
            write_config(tmp_path, "")
            return [*found, await status_of(f"{url}/metrics")]

    assert asyncio.run(run()) == [200, 401, 200, 401, 200]


def test_headers_are_on_every_answer(tmp_path: Path) -> None:
    """Also on refusals, on what is not there and on probes; they change with the file."""
    text = "http_server_config: {headers: {X-Frame-Options: deny, Content-Security-Policy: default-src 'self'}}\n"

    async def run() -> list[tuple[str | None, str | None]]:
        async with guarded(lambda account: Access(config_of(tmp_path, text + USERS), None, account)) as (url, _):
            answers = [await got(url + path) for path in (*GUARDED, "/healthz")]
            write_config(tmp_path, "http_server_config: {headers: {X-Frame-Options: sameorigin}}\n")
            answers += [await got(url + path) for path in ("/nothing", "/")]
        return [(one.get("X-Frame-Options"), one.get("Content-Security-Policy")) for _, _, one in answers]

    assert asyncio.run(run()) == [("deny", "default-src 'self'")] * 6 + [("sameorigin", None)] * 2


def test_a_bucket_gives_a_burst_and_then_one_an_interval() -> None:
    """It fills again up to the burst."""
    clock = Clock()
    bucket = Bucket(RateLimit(2.0, 3), clock)
    found = [bucket.take() for _ in range(4)]
    clock.seconds += 2
    found += [bucket.take(), bucket.take()]
    clock.seconds += 1000

    assert [*found, *(bucket.take() for _ in range(4))] == [True, True, True, False, True, False] + [True] * 3 + [False]


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    """Past the burst it is 429, before any password is looked at; probes are not counted; a new limit begins anew."""

    async def run() -> list[int]:
        text = "rate_limit: {interval: 1h, burst: 2}\n"
        async with guarded(lambda account: Access(config_of(tmp_path, text), None, account)) as (url, _):
            found = [
                await status_of(url + path) for path in ("/healthz", "/metrics", "/metrics", "/metrics", "/readyz")
            ]
            write_config(tmp_path, text.replace("1h", "2h"))
            return [*found, await status_of(f"{url}/metrics")]

    assert asyncio.run(run()) == [200, 200, 200, 429, 200, 200]
