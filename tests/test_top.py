"""The table of ``top``: what is shown of the rows, and the rows of a running podtally."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from aiohttp import web

from collector.errors import UsageError
from collector.table import Usage
from collector.top import View, from_url, show_live, show_once
from tests.helpers import Handler, Peer, certificate, served_in_thread

ROWS = [
    Usage("team-b", "web", "", 0.05, 3 << 20),
    Usage("team-a", "db", "", 0.1, 18 << 20),
    Usage("team-a", "cache", "", None, None),
]


def view(namespace: str | None = None) -> View:
    """By CPU."""
    return View(containers=False, sort="cpu", namespace=namespace, headers=True)


def test_all_namespaces_are_shown_with_their_column() -> None:
    """Without a namespace every pod is shown, and the namespace stands first."""
    assert view().text(ROWS) == (
        "NAMESPACE   NAME    CPU(cores)   MEMORY(bytes)\n"
        "team-a      db      100m         18Mi\n"
        "team-b      web     50m          3Mi\n"
        "team-a      cache   <unknown>    <unknown>\n"
    )


def test_one_namespace_is_shown_without_its_column() -> None:
    """With -n only its pods are shown."""
    assert view("team-b").text(ROWS) == "NAME   CPU(cores)   MEMORY(bytes)\nweb    50m          3Mi\n"


def test_a_table_with_rows_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows go to stdout, and the exit status is 0."""
    status = show_once(view("team-b"), ROWS)

    assert (status, *capsys.readouterr()) == (0, view("team-b").text(ROWS), "")


@pytest.mark.parametrize(
    ("namespace", "rows", "said"),
    [
        (None, [], "No running pods found.\n"),
        ("team-c", ROWS, "No running pods found in namespace team-c.\n"),
    ],
)
def test_a_table_without_rows_is_a_sentence(
    namespace: str | None, rows: list[Usage], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to show is told on stderr; stdout stays empty and the status is 1."""
    status = show_once(view(namespace), rows)

    assert (status, *capsys.readouterr()) == (1, "", said)


def test_without_a_terminal_table_follows_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A live table that is piped prints one table a round, and none before the first tally."""
    stop, answers = threading.Event(), [None, ROWS[:1], ROWS[:1]]

    def rows() -> list[Usage] | None:
        found = answers.pop(0)
        if not answers:
            stop.set()
        return found

    status = show_live(view(), rows, stop, 0.001)

    assert (status, capsys.readouterr().out) == (0, (view().text(ROWS[:1]) + "\n") * 2)


def test_a_running_podtally_gives_rows() -> None:
    """The rows of --url are those of the API."""
    body = b"""{"pods": [{"namespace": "n", "name": "p", "phase": "Running", "containers": [{}], "cpu_cores": 0.5,
        "memory_bytes": 1}, {"namespace": "n", "name": "q", "phase": "Succeeded", "containers": []}]}"""
    peer = Peer(body)
    with served_in_thread(peer.handle) as url:
        rows = from_url(url + "/", containers=False)()

    assert (rows, peer.asked) == ([Usage("n", "p", "", 0.5, 1)], [("/api/v1/pods", None)])


async def _truncated(_: web.Request) -> web.Response:
    return web.Response(body=b'{"pods": [', content_type="application/json")


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (Peer(b"{}").handle, "does not answer as podtally does"),
        (Peer(b"<html>").handle, "does not answer as podtally does"),
        (Peer(b"\xff").handle, "does not answer as podtally does"),
        (_truncated, "does not answer as podtally does"),
        (Peer(b"no", 503).handle, "answers HTTP 503: is it podtally, and has it a tally?"),
        (Peer(b"no", 404).handle, "answers HTTP 404: is it podtally, and has it a tally?"),
    ],
)
def test_another_server_is_told_as_such(handler: Handler, said: str) -> None:
    """Whatever answers at the URL and is no podtally is bad usage, in a sentence with the address."""
    with served_in_thread(handler) as url, pytest.raises(UsageError) as caught:
        from_url(url, containers=False)()

    assert str(caught.value) == f"{url}/api/v1/pods {said}"


def test_nobody_at_the_url_is_told_as_such() -> None:
    """A refused connection names the address and the question to ask."""
    with served_in_thread(Peer().handle) as url:
        pass

    with pytest.raises(UsageError) as caught:
        from_url(url, containers=False)()

    assert str(caught.value) == (
        f"{url}/api/v1/pods cannot be reached: [Errno 111] Connection refused; is podtally running there?"
    )


@pytest.mark.parametrize("url", ["", "localhost:9753", "ftp://host", "file:///etc/passwd"])
def test_what_is_no_url_is_told_before_it_is_asked(url: str) -> None:
    """Only http and https are asked."""
    with pytest.raises(UsageError) as caught:
        from_url(url, containers=False)

    assert str(caught.value) == f"--url {url!r} is no URL: give http://HOST:PORT"


def test_a_password_of_the_url_goes_to_its_host_alone() -> None:
    """It is sent as basic authentication, is in no message, and does not follow a redirect."""
    peer, other = Peer(b'{"pods": []}'), Peer(b"{}")

    async def move(request: web.Request) -> web.StreamResponse:
        await peer.handle(request)
        raise web.HTTPFound(f"{other_url}/pods")

    with served_in_thread(peer.handle) as url, served_in_thread(other.handle) as other_url:
        from_url(url.replace("http://", "http://alice:wonder%20land@"), containers=False)()
        with served_in_thread(move) as moved, pytest.raises(UsageError) as caught:
            from_url(moved.replace("http://", "http://alice:wonder%20land@"), containers=False)()

    assert peer.asked == [("/api/v1/pods", "Basic YWxpY2U6d29uZGVyIGxhbmQ=")] * 2
    assert other.asked == [("/pods", None)]
    assert "wonder" not in str(caught.value)


def test_a_token_goes_over_https_alone(tmp_path: Path) -> None:
    """--token-file is sent to an https: URL, read anew for each table, and never in the clear."""
    shown, peer, token = certificate(tmp_path), Peer(b'{"pods": []}'), tmp_path / "token"
    token.write_text("abc\n")
    with served_in_thread(peer.handle) as url:
        from_url(url, containers=False, token_file=str(token))()
    with served_in_thread(peer.handle, shown.server) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", shown.ca_file)
        rows = from_url(url, containers=False, token_file=str(token))
        rows()
        token.write_text("def\n")
        rows()
        token.unlink()
        with pytest.raises(UsageError) as caught:
            rows()

    assert [told for _, told in peer.asked] == [None, "Bearer abc", "Bearer def"]
    assert str(caught.value).startswith(f"cannot read the token of --token-file {token}: ")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "answers HTTP 401: give https://USER:PASSWORD@HOST:PORT, or --token-file where it takes tokens"),
        (403, "answers HTTP 403: the token's user may not get nodes/metrics"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(status: int, said: str) -> None:
    """Who is not let in learns how to ask."""
    with served_in_thread(Peer(b"no", status).handle) as url, pytest.raises(UsageError) as caught:
        from_url(url, containers=False)()

    assert str(caught.value) == f"{url}/api/v1/pods {said}"
