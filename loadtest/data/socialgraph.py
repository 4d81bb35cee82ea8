"""Gives the social network its data: users, who follows whom, and posts. Run by the Job beside it, or by hand.

    TARGET=http://nginx-thrift.social-network.svc:8080 python3 socialgraph.py

It needs Python 3.11 and nothing else. What is there already is left as it is: a user whose name "already existed" is
done, and a user with enough posts gets no more, so that it may be run again after it was broken off. What fails is
tried again, because a few calls in a thousand fail on an application that is quite sound.

The graph is generated, of the size of Reed98, or read from an edge list: two numbers a line, as in
``datasets/social-graph/socfb-Reed98/socfb-Reed98.edges`` of DeathStarBench. Edges go both ways. Users are numbered anew
from 0 in the order of their numbers, so that lists that begin at 1 leave no gap.

Exit 0: all is there, and the sample of timelines was read; 1: something is missing; 2: bad settings or a bad edge list.
"""

from __future__ import annotations

import json
import logging
import os
import random
import string
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

log = logging.getLogger("socialgraph")

T = TypeVar("T")

TIMEOUT_SECONDS = 15.0
"""A little more than the application's own limit of 10 s between its services."""
PROGRESS_SECONDS = 5.0
SAMPLE = 20
"""How many users' timelines are read at the end."""
LEAST_POSTS = 5
"""The load test's reads begin at the fifth post at the latest."""
_OK = 200
_SERVER_ERROR = 500


class SettingsError(Exception):
    """A setting or an edge list that cannot be used; says which, and what would do."""


class Failed(Exception):
    """A call that failed for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says."""

    target: str
    edges_file: Path | None
    users: int
    edges_a_user: int
    posts_a_user: int
    concurrency: int
    tries: int
    wait_seconds: int
    seed: int


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings of an environment. Raises: SettingsError."""

    def count(name: str, fallback: int, least: int = 1) -> int:
        text = environment.get(name) or str(fallback)
        if not text.isdecimal() or int(text) < least:
            raise SettingsError(f"{name} is {text!r}: write a whole number of {least} or more, such as {fallback}")
        return int(text)

    target = environment.get("TARGET", "http://nginx-thrift.social-network.svc:8080").rstrip("/")
    address = urlsplit(target)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SettingsError(
            f"TARGET is {target!r}: write an address such as http://nginx-thrift.social-network.svc:8080"
        )
    edges = environment.get("EDGES_FILE")
    settings = Settings(
        target=target,
        edges_file=Path(edges) if edges else None,
        users=count("USERS", 962, 2),
        edges_a_user=count("EDGES_A_USER", 20),
        posts_a_user=count("POSTS_A_USER", 10, LEAST_POSTS),
        concurrency=count("CONCURRENCY", 20),
        tries=count("TRIES", 6),
        wait_seconds=count("WAIT_SECONDS", 300),
        seed=count("SEED", 1, 0),
    )
    if settings.edges_file is None and settings.edges_a_user >= settings.users:
        raise SettingsError(
            f"EDGES_A_USER is {settings.edges_a_user}: of {settings.users} users nobody can have so many"
        )
    return settings


def say(error: Exception) -> None:
    """What a person has to know of an error, which is its text."""
    log.error("%s", error)


# --- the graph ------------------------------------------------------------------------------------------------------


class Graph(NamedTuple):
    """Users from 0 to ``users`` - 1, and the pairs that follow each other, the lower number first."""

    users: int
    edges: list[tuple[int, int]]


def generated(users: int, edges_a_user: int, seed: int) -> Graph:
    """A graph by preferential attachment: each user knows some of those before him, the well known rather than others.

    >>> generated(4, 1, 1).users, len(generated(962, 20, 1).edges)
    (4, 18840)
    """
    chance = random.Random(seed)  # noqa: S311
    edges: set[tuple[int, int]] = set()
    ends: list[int] = list(range(edges_a_user))
    for user in range(edges_a_user, users):
        known: set[int] = set()
        while len(known) < edges_a_user:
            known.add(chance.choice(ends))
        edges |= {(other, user) for other in known}
        ends += [*sorted(known), *[user] * edges_a_user]
    return Graph(users, sorted(edges))


def read_edges(lines: Iterable[str], name: str) -> Graph:
    """The graph of an edge list. Raises: SettingsError naming the line.

    >>> read_edges(["# a comment", "7 3", "3,7", "9 3 1.0"], "edges")
    Graph(users=3, edges=[(0, 1), (0, 2)])
    """
    pairs: set[tuple[int, int]] = set()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0][0] in "#%":
            continue
        if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
            raise SettingsError(f"{name}, line {number}: two numbers should stand in it, not {line.strip()!r}")
        a, b = sorted((int(words[0]), int(words[1])))
        if a != b:
            pairs.add((a, b))
    if not pairs:
        raise SettingsError(f"{name} holds no edges: two numbers a line are what it should hold")
    index = {user: place for place, user in enumerate(sorted({user for pair in pairs for user in pair}))}
    return Graph(len(index), sorted((index[a], index[b]) for a, b in pairs))


def graph_of(settings: Settings) -> Graph:
    """The graph that the settings ask for. Raises: SettingsError."""
    if settings.edges_file is None:
        return generated(settings.users, settings.edges_a_user, settings.seed)
    try:
        text = settings.edges_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"EDGES_FILE: {settings.edges_file} cannot be read: {error}") from error
    graph = read_edges(text.splitlines(), str(settings.edges_file))
    if graph.users != settings.users:
        log.warning(
            "%s has %d users: set USERS=%d for the load test too, which asks for %d",
            settings.edges_file,
            graph.users,
            graph.users,
            settings.users,
        )
    return graph


# --- the application ------------------------------------------------------------------------------------------------


class Application:
    """The front's API, over connections that are kept, one for each thread. To be closed."""

    def __init__(self, target: str, tries: int) -> None:
        self._address = urlsplit(target)
        self._tries = tries
        self._mine = threading.local()
        self._opened: list[HTTPConnection] = []
        self.retried = Counter[str]()
        """How often which call was tried again."""

    def _connection(self) -> HTTPConnection:
        if not hasattr(self._mine, "connection"):
            make = HTTPSConnection if self._address.scheme == "https" else HTTPConnection
            assert self._address.hostname is not None, "settings_of has seen to it"
            self._mine.connection = make(self._address.hostname, self._address.port, timeout=TIMEOUT_SECONDS)
            self._opened.append(self._mine.connection)
        connection: HTTPConnection = self._mine.connection
        return connection

    def close(self) -> None:
        """End the connections, of threads that are over."""
        for connection in self._opened:
            connection.close()

    def _once(self, method: str, path: str, body: str | None) -> tuple[int, str]:
        """Status and text of one call. Raises: OSError or HTTPException; the next one has a connection of its own."""
        connection = self._connection()
        headers = {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {}
        try:
            connection.request(method, self._address.path + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace").strip()
        except (OSError, HTTPException):
            connection.close()
            raise

    def call(self, what: str, method: str, path: str, body: str | None = None, *, done: str | None = None) -> str:
        """The text of a call's 200, or of a refusal that says ``done``. Raises: Failed, after all tries.

        A refusal below 500 is not tried again: the call itself is wrong.
        """
        said = ""
        for number in range(self._tries):
            if number:
                self.retried[what] += 1
                time.sleep(min(5.0, 0.1 * 2**number) * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                status, text = self._once(method, path, body)
            except (OSError, HTTPException) as error:
                said = f"no answer: {error or type(error).__name__}"
                continue
            if status == _OK or (done is not None and done in text):
                return text
            said = f"{status} {text[:200]}"
            if status < _SERVER_ERROR:
                break
        raise Failed(f"{what}: {said}")

    def form(self, what: str, path: str, fields: Mapping[str, object], *, done: str | None = None) -> str:
        """Post a form. Raises: Failed."""
        return self.call(what, "POST", path, urlencode(fields), done=done)

    def register(self, user: int) -> None:
        """Register a user; one that is there is registered. Raises: Failed."""
        fields = {
            "first_name": f"first_name_{user}",
            "last_name": f"last_name_{user}",
            "username": f"username_{user}",
            "password": f"password_{user}",
            "user_id": user,
        }
        self.form(f"register user {user}", "/wrk2-api/user/register", fields, done="already exist")

    def follow(self, pair: tuple[int, int]) -> None:
        """Have two users follow each other. Raises: Failed."""
        for user, followee in (pair, pair[::-1]):
            fields = {"user_id": user, "followee_id": followee}
            self.form(f"user {user} follows {followee}", "/wrk2-api/user/follow", fields)

    def timeline(self, which: str, user: int, count: int) -> list[object]:
        """The newest posts of a timeline, "home" or "user". Raises: Failed, also if it is no list of posts."""
        query = urlencode({"user_id": user, "start": 0, "stop": count})
        what = f"{which} timeline of user {user}"
        try:
            read = json.loads(self.call(what, "GET", f"/wrk2-api/{which}-timeline/read?{query}"))
        except ValueError as error:
            raise Failed(f"{what}: the answer is no JSON: {error}") from error
        # An empty list is "{}" from the real front: Lua has but one kind of table.
        return read if isinstance(read, list) else []

    def post(self, user: int, users: int, chance: random.Random) -> None:
        """One post with mentions, links and media. Raises: Failed."""

        def text(length: int, of: str) -> str:
            return "".join(chance.choices(of, k=length))

        letters = string.ascii_letters + string.digits
        mentions = [f" @username_{chance.randrange(users)}" for _ in range(chance.randint(0, 5))]
        links = [f" http://{text(64, letters)}" for _ in range(chance.randint(0, 5))]
        media = [text(18, string.digits) for _ in range(chance.randint(0, 4))]
        fields = {
            "username": f"username_{user}",
            "user_id": user,
            "text": text(256, letters) + "".join(mentions) + "".join(links),
            "media_ids": json.dumps(media),
            "media_types": json.dumps(["png"] * len(media)),
            "post_type": 0,
        }
        self.form(f"post of user {user}", "/wrk2-api/post/compose", fields)


def wait_for(application: Application, seconds: float) -> None:
    """Wait until the front answers, whatever it says. Raises: Failed."""
    end = time.monotonic() + seconds
    while True:
        try:
            application.timeline("home", 0, 1)
            return
        except Failed as failed:
            if "no answer" not in str(failed):
                return
            if time.monotonic() > end:
                raise Failed(f"nothing answers ({failed}): is TARGET right, and is nginx-thrift Ready?") from failed
            log.info("waiting for the application (%s)", failed)
            time.sleep(2)


# --- the work -------------------------------------------------------------------------------------------------------


def each(name: str, items: Sequence[T], do: Callable[[T], object], concurrency: int) -> list[str]:
    """Do something for each, several at a time, and tell of it every few seconds; what failed for good, in words."""
    failures: list[str] = []
    told = time.monotonic()

    def safely(item: T) -> str | None:
        try:
            do(item)
        except Failed as failed:
            return str(failed)
        return None

    with ThreadPoolExecutor(concurrency) as pool:
        for number, failure in enumerate(pool.map(safely, items), 1):
            if failure is not None:
                failures.append(failure)
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                log.info("%s: %d of %d", name, number, len(items))
    log.info("%s: %d, of which %d failed", name, len(items), len(failures))
    return failures


def fill(application: Application, graph: Graph, settings: Settings) -> list[str]:
    """Register, follow, post: a post goes to those who follow its author by then. What failed for good, in words."""
    users = range(graph.users)

    def posts(user: int) -> None:
        chance = random.Random(settings.seed * graph.users + user)  # noqa: S311
        there = len(application.timeline("user", user, settings.posts_a_user))
        for _ in range(settings.posts_a_user - there):
            application.post(user, graph.users, chance)

    return [
        *each("users registered", users, application.register, settings.concurrency),
        *each("pairs that follow each other", graph.edges, application.follow, settings.concurrency),
        *each("users with posts", users, posts, settings.concurrency),
    ]


def empty_timelines(application: Application, graph: Graph, settings: Settings) -> list[str]:
    """Read a sample of timelines by their content; those that hold nothing, in words."""
    followers = {user for edge in graph.edges for user in edge}
    sample = random.Random(settings.seed).sample(range(graph.users), min(SAMPLE, graph.users))  # noqa: S311

    def read(user: int) -> None:
        for which in ("user", "home"):
            if (which == "user" or user in followers) and not application.timeline(which, user, settings.posts_a_user):
                raise Failed(f"{which} timeline of user {user}: empty")

    return each("users whose timelines were read", sample, read, settings.concurrency)


def run(settings: Settings) -> int:
    """All of it; the exit status. Raises: SettingsError."""
    graph = graph_of(settings)
    application = Application(settings.target, settings.tries)
    log.info("%d users, %d pairs, at %s", graph.users, len(graph.edges), settings.target)
    with closing(application):
        try:
            wait_for(application, settings.wait_seconds)
        except Failed as failed:
            say(failed)
            return 1
        failures = fill(application, graph, settings)
        failures += empty_timelines(application, graph, settings)
    if application.retried:
        log.info("%d calls were tried again", application.retried.total())
    if failures:
        log.error("%d failed for good; the first of them:", len(failures))
        for failure in failures[:5]:
            log.error("  %s", failure)
        log.error("Look at the pods (kubectl get pods) and their logs, and run this again: what is done stays done.")
        return 1
    log.info("done: set USERS=%d for the load test", graph.users)
    return 0


def main() -> int:
    """Run by the environment's settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        return run(settings_of(os.environ))
    except SettingsError as error:
        say(error)
        return 2


if __name__ == "__main__":
    sys.exit(main())
