"""Who is let in by password, how often, and with what headers they are answered, through real sockets."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from collector.server.access import Access, Passwords
from collector.server.cache import Expiring
from collector.server.pace import Share
from collector.server.watch import WatchedConfig
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


@pytest.mark.parametrize(
    ("name", "own"), [("alice", b"$2b$07$a"), ("weak", b"$2b$04$w"), ("other", b"$2y$07$o"), ("nobody", None)]
)
@pytest.mark.parametrize("password", ["right", "wrong"])
def test_every_login_takes_the_same_work(name: str, own: bytes | None, password: str) -> None:
    """The time must not tell which names there are: a hash of each cost of the file, in one order, whoever asks."""
    users = {"alice": b"$2b$07$a", "weak": b"$2b$04$w", "other": b"$2y$07$o"}
    checked: list[bytes] = []

    def matches(given: bytes, hashed: bytes) -> bool:
        checked.append(hashed)
        return given == b"right"

    async def run() -> bool:
        passwords = Passwords(matches)
        try:
            return await passwords.are_right(users, basic(name, password), "10.0.0.1")
        finally:
            passwords.close()

    assert asyncio.run(run()) == (own is not None and password == "right")
    assert [one[4:6] for one in checked] == [b"04", b"07"]
    assert (own in checked, sum(len(one) == 60 for one in checked)) == (own is not None, 2 if own is None else 1)


def test_the_fake_hash_lets_nobody_in(tmp_path: Path) -> None:
    """Even if somebody found a password for it."""

    async def run() -> int:
        config = config_of(tmp_path, USERS)
        passwords = Passwords(lambda _password, _hashed: True)
        async with guarded(lambda account: Access(config, None, account, passwords)) as (url, _):
            return await status_of(f"{url}/metrics", Authorization=basic("nobody", "x"))

    assert asyncio.run(run()) == 401


def test_probes_and_known_scrapers_do_not_wait_for_a_check(tmp_path: Path) -> None:
    """While bcrypt is at work the event loop is not; of those who wait too many are sent away, and told until when."""
    checks = Checks()

    async def run() -> tuple[list[int], list[tuple[int, str | None]]]:
        config = config_of(tmp_path, USERS)
        async with guarded(lambda account: Access(config, None, account, Passwords(checks))) as (url, server):
            good = basic("alice", "wonderland")
            assert await status_of(f"{url}/metrics", Authorization=good) == 200
            checks.go.clear()
            asked = [
                asyncio.ensure_future(got(f"{url}/metrics", Authorization=basic("alice", str(number))))
                for number in range(73)
            ]
            await until(lambda: (server._loop.collector.account.refusals or {})["too_many"] == 8)
            meanwhile = [await status_of(f"{url}/healthz"), await status_of(f"{url}/metrics", Authorization=good)]
            checks.go.set()
            answers = await asyncio.gather(*asked)
            return meanwhile, sorted((status, headers.get("Retry-After")) for status, _, headers in answers)

    meanwhile, answers = asyncio.run(run())

    assert meanwhile == [200, 200]
    assert [(status, after) for status, after in answers if after is not None] == [(429, "5")] * 8
    assert [status for status, after in answers if after is None] == [401] * 65
    assert len(checks.hashes) == 1 + 65


@pytest.mark.parametrize(("guessers", "most"), [(1, 3), (40, 42)])
def test_a_first_login_waits_for_a_turn_of_each_guesser(guessers: int, most: int) -> None:
    """After a restart nobody is known: however much is guessed, a login is checked after one guess of each address."""
    users, checked = {"alice": ALICE.encode()}, list[bytes]()
    go = threading.Event()

    def matches(password: bytes, _: bytes) -> bool:
        checked.append(password)
        go.wait(DEADLINE_SECONDS)
        return password == b"wonderland"

    async def run() -> bool:
        passwords = Passwords(matches, Share(1.0))
        guesses = [
            asyncio.ensure_future(
                passwords.are_right(users, basic("alice", f"g{number}"), f"10.0.0.{number % guessers}")
            )
            for number in range(120)
        ]
        await until(lambda: len(checked) == 1)
        login = asyncio.ensure_future(passwords.are_right(users, basic("alice", "wonderland"), "10.1.0.1"))
        await asyncio.sleep(0)
        go.set()
        found = await login
        passwords.close()
        await asyncio.gather(*guesses, return_exceptions=True)
        return found

    assert asyncio.run(run())
    assert checked.index(b"wonderland") < most


def test_a_login_that_was_right_stays_known() -> None:
    """No guess drives it out, and there is no time after which it would have to wait for a turn again."""
    users, checked = {"alice": ALICE.encode()}, list[bytes]()

    def matches(password: bytes, _: bytes) -> bool:
        checked.append(password)
        return password == b"wonderland"

    async def run() -> list[bool]:
        passwords = Passwords(matches, Share(1.0))
        passwords._right = Expiring(2, clock := Clock())
        try:
            found = [await passwords.are_right(users, basic("alice", "wonderland"), "a")]
            for number in range(300):
                await passwords.are_right(users, basic("alice", f"g{number}"), "b")
            clock.seconds += 1e9
            return [*found, await passwords.are_right(users, basic("alice", "wonderland"), "a")]
        finally:
            passwords.close()

    assert asyncio.run(run()) == [True, True]
    assert checked.count(b"wonderland") == 1


def test_bcrypt_has_a_share_of_a_core() -> None:
    """What a check took of its thread's CPU time is what the next one waits for, by the share."""

    class Noted(Share):
        seconds: list[float] = []  # noqa: RUF012 - of this test alone

        def used(self, cpu_seconds: float) -> None:
            self.seconds.append(cpu_seconds)

    spent = iter((10.0, 10.25, 20.0, 20.5))

    async def run() -> None:
        passwords = Passwords(lambda _password, _hashed: False, Noted(0.5), lambda: next(spent))
        for guess in ("a", "b"):
            await passwords.are_right({"alice": ALICE.encode()}, basic("alice", guess), "10.0.0.1")
        passwords.close()

    asyncio.run(run())

    assert Noted.seconds == [0.25, 0.5]


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


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    """Past the burst it is 429; probes are not counted; a new limit begins anew."""

    async def run() -> list[int]:
        text = "rate_limit: {interval: 1h, burst: 2}\n"
        async with guarded(lambda account: Access(config_of(tmp_path, text), None, account)) as (url, _):
            found = [
                await status_of(url + path) for path in ("/healthz", "/metrics", "/metrics", "/metrics", "/readyz")
            ]
            write_config(tmp_path, text.replace("1h", "2h"))
            return [*found, await status_of(f"{url}/metrics")]

    assert asyncio.run(run()) == [200, 200, 200, 429, 200, 200]


def test_who_is_not_let_in_uses_up_nothing(tmp_path: Path) -> None:
    """The limit counts those who are: a flood of wrong passwords leaves the right one all of it."""

    async def run() -> list[tuple[int, str | None]]:
        text = f"{USERS}rate_limit: {{interval: 1h, burst: 2}}\n"
        async with guarded(lambda account: Access(config_of(tmp_path, text), None, account)) as (url, _):
            asked = [basic("alice", "x")] * 5 + [basic("alice", "wonderland")] * 3
            answers = [await got(f"{url}/metrics", Authorization=one) for one in asked]
            return [(status, headers.get("Retry-After")) for status, _, headers in answers]

    assert asyncio.run(run()) == [(401, None)] * 5 + [(200, None)] * 2 + [(429, "3600")]
