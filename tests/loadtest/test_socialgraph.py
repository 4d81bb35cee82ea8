"""The data Job's program: the graph, what is done again, what makes it fail; against the application on loopback."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from loadtest.data.socialgraph import SettingsError, generated, read_edges, run, settings_of
from tests.loadtest.running import LOADTEST, application, tell

SMALL = {"USERS": "12", "EDGES_A_USER": "2", "POSTS_A_USER": "6", "WAIT_SECONDS": "1", "TRIES": "6"}


def fill(address: str, **more: str) -> int:
    """Run it; the exit status."""
    return run(settings_of({"TARGET": address, **SMALL, **more}))


def timeline(address: str, which: str, user: int) -> list[dict[str, object]]:
    """What a timeline holds, a hundred posts of it at most."""
    url = f"{address}/wrk2-api/{which}-timeline/read?user_id={user}&start=0&stop=100"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return list(json.load(answer))


def test_the_generated_graph_is_like_reed98() -> None:
    """962 users, some 18 800 pairs, everybody in one of them, a few with many; the same for the same seed."""
    graph = generated(962, 20, 1)
    degrees = Counter(user for edge in graph.edges for user in edge)

    assert (graph.users, len(graph.edges)) == (962, 18840)
    assert len(set(graph.edges)) == len(graph.edges)
    assert set(degrees) == set(range(962))
    assert max(degrees.values()) > 5 * 39 > min(degrees.values())
    assert graph == generated(962, 20, 1) != generated(962, 20, 2)


def test_an_edge_list_is_numbered_from_0() -> None:
    """Lists that begin at 1, leave numbers out, name a pair twice or a user with himself are read as they are meant."""
    graph = read_edges(["% sym unweighted", "1 2", "2 1", "5 5", "", "10,2"], "x.edges")
    assert graph == (3, [(0, 1), (1, 2)])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1 2", "1 b"], "x.edges, line 2: two numbers should stand in it, not '1 b'"),
        (["3"], "x.edges, line 1: two numbers should stand in it, not '3'"),
        (["# nothing"], "x.edges holds no edges"),
    ],
)
def test_an_edge_list_that_is_none(lines: list[str], said: str) -> None:
    """The file and the line are named."""
    with pytest.raises(SettingsError, match=said):
        read_edges(lines, "x.edges")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"TARGET": "nginx-thrift:8080"}, "TARGET is 'nginx-thrift:8080': write an address"),
        ({"USERS": "many"}, "USERS is 'many': write a whole number of 2 or more, such as 962"),
        ({"POSTS_A_USER": "4"}, "POSTS_A_USER is '4': write a whole number of 5 or more"),
        ({"USERS": "20"}, "EDGES_A_USER is 20: of 20 users nobody can have so many"),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], said: str) -> None:
    """A setting that cannot be used is named with its value and what would do."""
    with pytest.raises(SettingsError, match=said):
        settings_of(environment)


def test_as_a_program() -> None:
    """A setting that cannot be used ends it with 2 and one sentence."""
    done = subprocess.run(
        [sys.executable, str(LOADTEST / "data" / "socialgraph.py")],
        env={"PATH": os.environ["PATH"], "EDGES_FILE": "/nowhere.edges"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("EDGES_FILE: /nowhere.edges cannot be read")
    assert "Traceback" not in done.stderr


def test_filled_once_and_for_all() -> None:
    """Every user has his posts and reads others'; a second time nothing is added."""
    with application("--work", "0") as address:
        assert fill(address) == 0
        first = [len(timeline(address, which, user)) for which in ("user", "home") for user in range(12)]
        assert first[:12] == [6] * 12
        assert all(count >= 6 for count in first[12:])

        assert fill(address) == 0
        assert [len(timeline(address, which, user)) for which in ("user", "home") for user in range(12)] == first


def test_an_edge_list_in_place_of_the_generated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The users are those of the list, and a number that differs from USERS is told."""
    edges = tmp_path / "some.edges"
    edges.write_text("1 2\n2 3\n")
    with application("--work", "0") as address, caplog.at_level(logging.WARNING):
        assert fill(address, EDGES_FILE=str(edges)) == 0
        authors = {post["creator"]["user_id"] for post in timeline(address, "home", 1)}  # type: ignore[index]

    assert authors == {"0", "2"}
    assert "has 3 users: set USERS=3 for the load test too" in caplog.text


def test_what_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """An application of which every third call fails is filled all the same.

    Which calls these are is chance, as several are made at a time: six tries of one may all be such, thirty may not.
    """
    with application("--work", "0", "--fault", "flaky") as address, caplog.at_level(logging.INFO):
        assert fill(address, USERS="5", POSTS_A_USER="5", TRIES="30") == 0
        tell(address, "none")
        assert [len(timeline(address, "user", user)) for user in range(5)] == [5] * 5

    assert "calls were tried again" in caplog.text


def test_empty_timelines_fail(caplog: pytest.LogCaptureFixture) -> None:
    """An application that takes everything and gives nothing back is not filled: the sample is read by its content."""
    with application("--work", "0", "--fault", "empty") as address:
        assert fill(address) == 1

    assert "timeline of user" in caplog.text
    assert ": empty" in caplog.text


def test_what_fails_for_good_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """After all tries the exit status is 1, and the first failures are told in the application's words."""
    with application("--work", "0", "--fault", "compose") as address:
        assert fill(address, TRIES="2") == 1

    assert "post of user 0: 500 failure: as told" in caplog.text


def test_nothing_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing listens it waits for as long as it was told, and says what to look at."""
    assert fill("http://127.0.0.1:9", TRIES="1") == 1

    assert "nothing answers" in caplog.text
    assert "is TARGET right, and is nginx-thrift Ready?" in caplog.text
