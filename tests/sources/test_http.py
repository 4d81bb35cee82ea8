"""The kubelet's and the API server's answers, asked of real servers on 127.0.0.1."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from collector.errors import UsageError
from collector.model import Answer
from collector.pods.strip import strip
from collector.sources import http
from collector.sources.http import (
    Endpoint,
    LiveAnswers,
    LiveReviewer,
    Question,
    base_url,
    client_tls,
    fetch,
    is_loopback_url,
    node_pods_path,
    tls_context,
)
from tests.helpers import (
    EMPTY_LIST,
    Certificate,
    Handler,
    Peer,
    certificate,
    certificate_of_bare_ca,
    free_port,
    self_signed_certificate,
    served,
    until,
)

NO_PODS = strip(EMPTY_LIST)
KUBELET = "kubelet/pods.json"
APISERVER = "apiserver/pods.json"

FORBIDDEN = "Forbidden (user=system:serviceaccount:podtally:podtally, verb=get, resource=nodes, subresource(s)=[pods])"


def kubelet(url: str, tls: ssl.SSLContext | None | None = None, token_file: str | None = None) -> Question:
    """The question for the kubelet's pods."""
    endpoint = Endpoint(name="the kubelet", url=url, token_file=token_file, tls=lambda: tls)
    return Question(answer=KUBELET, endpoint=endpoint, path="/pods")


def apiserver(url: str) -> Question:
    """The question for the API server's pods of the node."""
    endpoint = Endpoint(name="the API server", url=url, token_file=None, tls=lambda: None)
    return Question(answer=APISERVER, endpoint=endpoint, path=node_pods_path("node-1"))


async def ask(question: Question, *, timeout_seconds: float = 10.0) -> Answer:
    """Ask once; the time of the answer is not looked at."""
    async with aiohttp.ClientSession() as session:
        answer = await fetch(session, question, timeout_seconds=timeout_seconds)
    return answer._replace(time_ns=0)


async def ask_served(handler: Handler, *, timeout_seconds: float = 10.0) -> tuple[str, Answer]:
    """Serve in the clear, and ask; the URL and the answer."""
    async with served(handler) as url:
        return url, await ask(kubelet(url), timeout_seconds=timeout_seconds)


async def ask_over_tls(
    peer: Peer, shown: Certificate, client: ssl.SSLContext | None, token_file: str | None = None
) -> Answer:
    """Serve with TLS, and ask."""
    async with served(peer.handle, shown.server) as url:
        return await ask(kubelet(url, client, token_file))


# --- TLS and the token ----------------------------------------------------------------------------------------------


def test_a_certificate_of_the_given_ca_is_accepted(tmp_path: Path) -> None:
    """A kubelet whose certificate the CA file vouches for is asked, and its list comes back."""
    shown = certificate(tmp_path)

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", shown.ca_file, insecure=False)))

    assert answer == Answer(KUBELET, 0, 200, None, NO_PODS)


def test_a_ca_without_key_usage_is_accepted(tmp_path: Path) -> None:
    """A CA without keyUsage, which Python 3.13 refuses by default and Go accepts, is accepted."""
    shown = certificate_of_bare_ca(tmp_path)

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", shown.ca_file, insecure=False)))

    assert answer == Answer(KUBELET, 0, 200, None, NO_PODS)


def test_a_self_signed_certificate_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """A self-signed kubelet is not asked; the sentence names serverTLSBootstrap, the flag and the flag's price."""
    shown, trusted = self_signed_certificate(tmp_path), certificate(tmp_path)
    peer = Peer()

    answer = asyncio.run(ask_over_tls(peer, shown, tls_context("https:", trusted.ca_file, insecure=False)))

    assert (answer.status, answer.body, peer.asked) == (None, None, [])
    assert (answer.error or "").partition(": the ")[2] == (
        "kubelet's certificate is refused: self-signed certificate: it is not signed by the cluster's CA: turn on"
        " serverTLSBootstrap in the kubelet's configuration, or give the CA that signed it with --kubelet-ca-file, or"
        " pass --kubelet-insecure-tls, whose price is that whoever can answer at the node's address gets this service"
        " account's token"
    )
    assert answer.kind == "unknown_signer"


def test_a_certificate_of_another_ca_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """A certificate signed by an unknown CA, as a kubelet makes them for itself, is refused likewise."""
    shown, trusted = certificate(tmp_path), certificate(tmp_path)

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", trusted.ca_file, insecure=False)))

    assert "or pass --kubelet-insecure-tls, whose price is" in (answer.error or "")


def test_a_certificate_for_another_address_names_the_url(tmp_path: Path) -> None:
    """A certificate of the right CA for another address does not send the user to serverTLSBootstrap."""
    shown = certificate(tmp_path, "10.0.0.7")

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", shown.ca_file, insecure=False)))

    assert ": give --kubelet-url with a name or address that is in it" in (answer.error or "")
    assert answer.kind == "wrong_name"


@pytest.mark.parametrize(("days", "kind"), [((-2, -1), "expired"), ((1, 2), "not_yet_valid")])
def test_a_certificate_of_another_time_is_told_as_such(tmp_path: Path, days: tuple[float, float], kind: str) -> None:
    """One that has expired, and one that is not valid yet, are told from those that are wrong."""
    shown = certificate(tmp_path, valid_days=days)

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", shown.ca_file, insecure=False)))

    assert (answer.body, answer.kind) == (None, kind)


def test_an_unverified_api_server_names_its_address(tmp_path: Path) -> None:
    """The kubelet's flag is not offered for the API server, whose address is named."""
    shown, trusted = certificate(tmp_path), certificate(tmp_path)

    async def run() -> tuple[str, Answer]:
        async with served(Peer().handle, shown.server) as url:
            endpoint = Endpoint(
                name="the API server",
                url=url,
                token_file=None,
                tls=client_tls("https:", trusted.ca_file, insecure=False),
            )
            return url, await ask(Question(answer=APISERVER, endpoint=endpoint, path="/"))

    url, answer = asyncio.run(run())

    assert (answer.error or "").startswith(f"{url}: ")
    assert "insecure" not in (answer.error or "")


def test_the_insecure_flag_accepts_any_certificate(tmp_path: Path) -> None:
    """With verification off, a self-signed kubelet answers."""
    answer = asyncio.run(
        ask_over_tls(Peer(), self_signed_certificate(tmp_path), tls_context("https:", None, insecure=True))
    )

    assert answer == Answer(KUBELET, 0, 200, None, NO_PODS)


def test_the_token_is_read_anew_for_each_question(tmp_path: Path) -> None:
    """A token that is rotated between two questions is sent with the second."""
    shown, token, peer = certificate(tmp_path), tmp_path / "token", Peer()
    question_tls = tls_context("https:", shown.ca_file, insecure=False)

    async def run() -> None:
        async with served(peer.handle, shown.server) as url:
            for text in ("one", "two\n"):
                token.write_text(text)
                await ask(kubelet(url, question_tls, str(token)))

    asyncio.run(run())

    assert peer.asked == [("/pods", "Bearer one"), ("/pods", "Bearer two")]


def test_no_token_goes_over_the_network_in_the_clear(tmp_path: Path) -> None:
    """A kubelet's read-only port, plain HTTP, is asked without the token."""
    token, peer = tmp_path / "token", Peer()
    token.write_text("secret")

    async def run() -> Answer:
        async with served(peer.handle) as url:
            return await ask(kubelet(url, None, str(token)))

    answer = asyncio.run(run())

    assert (answer.status, peer.asked) == (200, [("/pods", None)])


def test_a_token_that_cannot_be_read_is_told_with_its_path(tmp_path: Path) -> None:
    """A missing token file is the reason of an answer that did not come."""
    shown, missing = certificate(tmp_path), str(tmp_path / "missing")

    answer = asyncio.run(ask_over_tls(Peer(), shown, tls_context("https:", shown.ca_file, insecure=False), missing))

    assert (answer.status, answer.body) == (None, None)
    assert (answer.error or "").endswith(f"No such file or directory: '{missing}'")
    assert answer.kind == "no_token"


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    """No header without a token in it is sent: the reason is told, and nobody is asked."""
    shown, empty, peer = certificate(tmp_path), tmp_path / "token", Peer()
    empty.write_text(" \n")

    answer = asyncio.run(ask_over_tls(peer, shown, tls_context("https:", shown.ca_file, insecure=False), str(empty)))

    assert (answer.status, answer.kind, peer.asked) == (None, "no_token", [])
    assert (answer.error or "").endswith(f"{empty} holds no token")


def test_a_ca_file_that_is_none_is_bad_usage(tmp_path: Path) -> None:
    """A CA file without a certificate is told by its path."""
    file = tmp_path / "ca.crt"
    file.write_text("nothing")

    with pytest.raises(UsageError, match=f"^cannot read the CA certificates {file}: "):
        tls_context("https:", str(file), insecure=False)


# --- refusals and failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (403, FORBIDDEN.encode() + b"\n", FORBIDDEN),
        (401, b"Unauthorized", "Unauthorized"),
        (403, b'{"kind": "Status", "message": "pods is forbidden", "code": 403}', "pods is forbidden"),
        (403, b'{"kind": "Status", "message": null}', '{"kind": "Status", "message": null}'),
        (500, b"", "Internal Server Error"),
        (503, b"\xff\xfe\n more", "\ufffd\ufffd"),
        (400, b"[" * 100_000, "[" * 300),
    ],
)
def test_a_refusal_has_status_and_reason(status: int, body: bytes, reason: str) -> None:
    """The reason is a Status object's message, else the first line of the text, else what HTTP calls the status."""
    _, answer = asyncio.run(ask_served(Peer(body, status).handle))

    assert answer == Answer(KUBELET, 0, status, reason, None)


def test_a_redirect_is_not_followed() -> None:
    """No kubelet redirects, and the token must not go elsewhere."""
    peer = Peer()

    async def redirect(request: web.Request) -> web.StreamResponse:
        await peer.handle(request)
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    _, answer = asyncio.run(ask_served(redirect))

    assert (answer, len(peer.asked)) == (Answer(KUBELET, 0, 302, "Found", None), 1)


def test_a_refused_connection_is_told_plainly() -> None:
    """The reason names the address and what the system says, and no object of the program."""
    url = f"http://127.0.0.1:{free_port()}"

    answer = asyncio.run(ask(kubelet(url)))

    assert answer == Answer(KUBELET, 0, None, f"{url} cannot be reached: Connection refused", None, "refused")


def test_a_host_that_is_unknown_is_told_plainly() -> None:
    """A name that nobody knows (RFC 6761) is an answer with a reason."""
    answer = asyncio.run(ask(kubelet("https://kubelet.invalid:10250")))

    assert (answer.error or "").startswith("https://kubelet.invalid:10250 cannot be reached: ")
    assert answer.kind == "unreachable"


def test_tls_to_a_peer_without_it_is_told_plainly() -> None:
    """TLS to a port that speaks plain HTTP is told as such."""

    async def run() -> tuple[str, Answer]:
        async with served(Peer().handle) as url:
            https = url.replace("http:", "https:")
            return https, await ask(kubelet(https, tls_context("https:", None, insecure=True)))

    url, answer = asyncio.run(run())

    assert (answer.error or "").startswith(f"{url} cannot be reached: no TLS connection (")
    assert answer.kind == "no_tls"


def test_a_peer_that_hangs_is_given_up() -> None:
    """A kubelet that never answers costs one timeout, and is told as such."""

    async def hang(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    url, answer = asyncio.run(ask_served(hang, timeout_seconds=0.2))

    assert answer == Answer(KUBELET, 0, None, f"{url} did not answer within 0.2 s", None, "timeout")


async def _oversize(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(65):
        await response.write(b" " * (1 << 20))
    return response


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (KUBELET, "the list of pods has more than 64 KiB around its items"),
        ("kubelet/stats_summary.json", "the answer is larger than 8 MiB"),
        ("kubelet/metrics_cadvisor.txt", "the answer is larger than 32 MiB"),
        ("review", "the answer is larger than 1 MiB"),
    ],
)
def test_an_answer_that_is_too_large_is_none(name: str, error: str) -> None:
    """More than an answer of its kind can honestly be is not kept in memory, and is told."""

    async def run() -> Answer:
        async with served(_oversize) as url:
            return await ask(Question(answer=name, endpoint=kubelet(url).endpoint, path="/"))

    assert asyncio.run(run()) == Answer(name, 0, 200, error, None, "too_large")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0" * 100,
        b"HTTP/1.1 200\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_peer_that_speaks_no_http_is_an_answer_with_a_reason(said: bytes) -> None:
    """Whatever bytes come back, asking does not raise."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run() -> tuple[str, Answer]:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return url, await ask(kubelet(url))

    url, answer = asyncio.run(run())

    assert (answer.status, answer.body, answer.kind) == (None, None, "broken")
    assert (answer.error or "").startswith(f"{url}: ")


# --- addresses ------------------------------------------------------------------------------------------------------


def test_an_ipv6_address_is_asked(tmp_path: Path) -> None:
    """An IPv6 host as a manifest writes it, without brackets, is reached and verified."""
    shown = certificate(tmp_path)

    async def run() -> Answer:
        async with served(Peer().handle, shown.server, "::1") as url:
            written = url.replace("[", "").replace("]", "")
            return await ask(
                kubelet(base_url("--kubelet-url", written), tls_context("https:", shown.ca_file, insecure=False))
            )

    assert asyncio.run(run()) == Answer(KUBELET, 0, 200, None, NO_PODS)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("https://10.0.0.7:10250/", "https://10.0.0.7:10250"),
        ("https://fd00::7:10250", "https://[fd00::7]:10250"),
        ("https://[fd00::7]:10250", "https://[fd00::7]:10250"),
        ("http://node:10255", "http://node:10255"),
        ("https://proxy/node/", "https://proxy/node"),
    ],
)
def test_a_url_is_brought_in_form(written: str, url: str) -> None:
    """A URL loses its last slash and gains the brackets that it lacks."""
    assert base_url("--kubelet-url", written) == url


@pytest.mark.parametrize(
    "written",
    ["", "node", "node:10250", "ftp://node", "https://", "https://[::1", "https://node:abc", "https://n:99999"],
)
def test_what_is_no_url_is_bad_usage(written: str) -> None:
    """What is no URL is refused in a sentence that names the flag and shows the form."""
    with pytest.raises(UsageError) as caught:
        base_url("--kubelet-url", written)

    assert str(caught.value) == f"--kubelet-url {written!r} is no URL: give https://HOST:PORT"


# --- asking on and on -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(answers: LiveAnswers) -> AsyncIterator[LiveAnswers]:
    """Run it beside the test."""
    task = asyncio.ensure_future(answers.run())
    try:
        yield answers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_the_api_server_is_asked_only_while_the_kubelet_fails() -> None:
    """The API server is left alone while the kubelet answers, asked while it refuses, and left alone again."""
    node, api = Peer(), Peer()
    counts: list[int] = []

    async def rounds(number: int) -> None:
        done = len(node.asked) + number
        await until(lambda: len(node.asked) >= done)

    async def run() -> None:
        async with (
            served(node.handle) as node_url,
            served(api.handle) as api_url,
            asking(LiveAnswers(kubelet(node_url), apiserver(api_url), interval=0.02)),
        ):
            await rounds(3)
            counts.append(len(api.asked))
            node.status = 403
            await rounds(3)
            node.status = 200
            await rounds(2)
            counts.append(len(api.asked))
            await rounds(3)
            counts.append(len(api.asked))

    asyncio.run(run())

    assert counts[0] == 0
    assert counts[1] >= 2
    assert counts[2] == counts[1]


def test_the_api_server_is_asked_for_this_node_from_its_cache() -> None:
    """Without a kubelet to ask, the API server gets one question, with the node's name in it."""
    api = Peer()

    async def run() -> None:
        async with served(api.handle) as url, asking(LiveAnswers(None, apiserver(url), interval=60)) as answers:
            await until(answers.first_round.is_set)

    asyncio.run(run())

    assert api.asked == [("/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0", None)]


def test_a_kubelet_without_a_list_makes_the_api_server_be_asked() -> None:
    """A 200 whose body is too large to be a list is a failure of the kubelet; both answers are for one tick."""
    api = Peer()

    async def run() -> list[Answer]:
        async with (
            served(_oversize) as node_url,
            served(api.handle) as api_url,
            asking(LiveAnswers(kubelet(node_url), apiserver(api_url), interval=60)) as answers,
        ):
            await until(answers.first_round.is_set)
            return [answer._replace(time_ns=0) for answer in answers.take()]

    assert asyncio.run(run()) == [
        Answer(KUBELET, 0, 200, "the list of pods has more than 64 KiB around its items", None, "too_large"),
        Answer(APISERVER, 0, 200, None, NO_PODS),
    ]


def test_a_wish_is_fulfilled_at_once_but_not_more_often_than_the_gap() -> None:
    """A hundred wishes make one question, and a second one has to wait until the gap of a second is over."""
    node = Peer()

    async def run() -> int:
        async with served(node.handle) as url, asking(LiveAnswers(kubelet(url), None, interval=600)) as answers:
            await until(answers.first_round.is_set)
            for _ in range(100):
                answers.ask()
            await until(lambda: len(node.asked) >= 2)
            await asyncio.sleep(0.2)
            return len(node.asked)

    questions = asyncio.run(run())

    assert questions == 2
    assert node.moments[1] - node.moments[0] >= 0.95


def test_a_wish_after_the_end_is_harmless() -> None:
    """A tick of the last moment may ask when the event loop is closed."""
    node = Peer()

    async def run() -> LiveAnswers:
        async with served(node.handle) as url, asking(LiveAnswers(kubelet(url), None, interval=600)) as answers:
            await until(answers.first_round.is_set)
            return answers

    asyncio.run(run()).ask()

    assert len(node.asked) == 1


def test_one_answer_of_a_name_is_taken_at_a_time() -> None:
    """Answers that came between two ticks are taken one a tick, in order: none is dropped."""
    node = Peer()

    async def count(request: web.Request) -> web.StreamResponse:
        node.body = b'{"items": [%s]}' % b", ".join([b"null"] * len(node.asked))
        return await node.handle(request)

    async def run() -> list[list[int]]:
        async with served(count) as url, asking(LiveAnswers(kubelet(url), None, interval=0.01)) as answers:
            await until(lambda: len(node.asked) >= 4)
            return [[(answer.body or b"").count(b"null") for answer in answers.take()] for _ in range(3)]

    assert asyncio.run(run()) == [[0], [1], [2]]


def test_lists_that_no_tick_takes_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else is asked, as by the DaemonSet, a third of that is room enough."""
    monkeypatch.setattr(http, "_MOST_WAITING_BYTES", 3 * len(NO_PODS))
    node = Peer()

    async def run() -> int:
        async with served(node.handle) as url, asking(LiveAnswers(kubelet(url), None, interval=0.01)) as answers:
            await until(lambda: len(node.asked) >= 8)
            return len([answer for _ in range(20) for answer in answers.take()])

    assert asyncio.run(run()) == 3


def test_answers_that_no_tick_takes_are_bounded_in_bytes() -> None:
    """While ticks hang the oldest answers go, so that what waits is at most 48 MiB."""
    node, pages = Peer(), Peer(b" " * (7 << 20))

    async def run() -> int:
        async with served(node.handle) as node_url, served(pages.handle) as url:
            question = Question(answer="kubelet/stats_summary.json", endpoint=kubelet(url).endpoint, path="/")
            live = LiveAnswers(kubelet(node_url), None, interval=60, extras=(question,), extras_interval=0.0)
            async with asking(live) as answers:
                await until(lambda: len(pages.asked) >= 12)
                taken = [answer for _ in range(20) for answer in answers.take()]
        return sum(len(answer.body or b"") for answer in taken)

    assert 7 << 20 <= asyncio.run(run()) <= 48 << 20


@pytest.mark.parametrize("tell_refusals", [False, True])
def test_an_extra_that_is_refused_is_named_once(caplog: pytest.LogCaptureFixture, *, tell_refusals: bool) -> None:
    """What is to be along and is refused is asked again, and told once; it is an answer to whoever compares."""
    node, extra = Peer(), Peer(b"Forbidden", 403)

    async def run() -> tuple[tuple[str, ...], list[Answer]]:
        async with served(node.handle) as node_url, served(extra.handle) as extra_url:
            question = Question(
                answer="kubelet/stats_summary.json", endpoint=kubelet(extra_url).endpoint, path="/stats"
            )
            live = LiveAnswers(
                kubelet(node_url),
                None,
                interval=60,
                extras=(question,),
                extras_interval=0.01,
                tell_refusals=tell_refusals,
            )
            async with asking(live) as answers:
                await until(lambda: len(extra.asked) >= 3)
                return answers.refused, answers.take()

    with caplog.at_level(logging.INFO):
        refused, taken = asyncio.run(run())

    assert refused == ("kubelet/stats_summary.json",)
    assert (("kubelet/stats_summary.json", 403) in [(one.name, one.status) for one in taken]) == tell_refusals
    assert caplog.messages == ["kubelet/stats_summary.json is left out: HTTP 403: Forbidden"]


def test_certificates_are_read_anew_when_their_file_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A CA that rotates is followed without a restart; one that is gone leaves the last, told once."""
    first, second = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.crt"
    first.cert_pem.write_to_path(str(file))
    current = client_tls("https:", str(file), insecure=False)
    before, same = current(), current()
    modified_ns = file.stat().st_mtime_ns
    second.cert_pem.write_to_path(str(tmp_path / "next.crt"))
    (tmp_path / "next.crt").rename(file)
    os.utime(file, ns=(modified_ns, modified_ns))
    after = current()
    file.unlink()

    assert before is same
    assert before is not after
    assert [current(), current()] == [after, after]
    assert len(caplog.messages) == 1
    assert client_tls("http:", str(file), insecure=False)() is None


def test_certificates_that_change_under_one_mtime_are_read_anew(tmp_path: Path) -> None:
    """Who writes a file may give it the mtime that it had; it is another file all the same."""
    first, second = trustme.CA(), trustme.CA()
    file = tmp_path / "ca.crt"
    first.cert_pem.write_to_path(str(file))
    os.utime(file, ns=(1, 1))
    current = client_tls("https:", str(file), insecure=False)
    before = current()
    second.cert_pem.write_to_path(str(tmp_path / "new"))
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(file)

    assert current() is not before


# --- lists of pods --------------------------------------------------------------------------------------------------

POD = (
    b'{"metadata": {"namespace": "n", "name": "p", "uid": "u", "annotations": {"a": "SECRET"}}, "spec": {"containers":'
    b' [{"name": "c", "env": [{"name": "E", "value": "SECRET"}], "args": ["SECRET"], "command": ["SECRET"]}]}}'
)
LIST = b'{"kind": "PodList", "items": [%s]}' % POD


@pytest.mark.parametrize("name", [KUBELET, APISERVER, "apiserver/team-a/pods.json"])
def test_a_list_of_pods_is_stripped(name: str) -> None:
    """Nothing of a pod that podtally does not read is in an answer, whoever gave the list."""

    async def run() -> Answer:
        async with served(Peer(LIST).handle) as url:
            return await ask(Question(answer=name, endpoint=kubelet(url).endpoint, path="/"))

    answer = asyncio.run(run())

    assert answer == Answer(name, 0, 200, None, strip(LIST))
    assert b"SECRET" not in (answer.body or b"")


def test_a_list_that_is_asked_for_raw_is_whole() -> None:
    """To be recorded as it comes, it keeps its environment."""

    async def run() -> Answer:
        async with served(Peer(LIST).handle) as url:
            return await ask(replace(kubelet(url), raw=True))

    assert asyncio.run(run()).body == LIST


def test_a_raw_list_has_a_bound() -> None:
    """What is to be kept whole is held whole: above 16 MiB it is none."""
    body = b'{"items": [%s]}' % b", ".join([b'"' + b"x" * (1 << 20) + b'"'] * 17)

    async def run() -> list[Answer]:
        async with served(Peer(body).handle) as url:
            return [await ask(replace(kubelet(url), raw=raw)) for raw in (True, False)]

    raw, usual = asyncio.run(run())

    assert raw.error == "the answer is larger than 16 MiB, as much as --raw-answers keeps"
    assert (raw.kind, raw.body) == ("too_large", None)
    assert (usual.body or b"").count(b"null") == 17


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"kind": "Status"}', LIST[:-2], LIST[:-2] + b', {"a": }]}', b"", b"null"]
)
def test_what_is_no_whole_list_is_none(body: bytes) -> None:
    """Half a list is not the list, and neither is a page to sign in."""
    _, answer = asyncio.run(ask_served(Peer(body).handle))

    assert (answer.status, answer.body, answer.kind) == (200, None, "not_the_list")


# --- reviews --------------------------------------------------------------------------------------------------------


def test_a_review_is_posted_as_json(tmp_path: Path) -> None:
    """What is created is an answer as what is found is; over plain HTTP without our token."""
    token = tmp_path / "token"
    token.write_text("secret")
    seen: list[tuple[str, str, str | None, str | None, bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(
            (
                request.method,
                request.path,
                request.content_type,
                request.headers.get("Authorization"),
                await request.read(),
            )
        )
        return web.Response(status=201, body=b"{}")

    async def run() -> Answer:
        async with served(handle) as url:
            endpoint = Endpoint(name="the API server", url=url, token_file=str(token), tls=lambda: None)
            reviewer = LiveReviewer(endpoint)
            try:
                return await reviewer.create("/reviews", b'{"a": 1}')
            finally:
                await reviewer.close()

    answer = asyncio.run(run())

    assert (answer.status, answer.error, answer.body) == (201, None, b"{}")
    assert seen == [("POST", "/reviews", "application/json", None, b'{"a": 1}')]


def test_a_reviewer_that_was_never_asked_is_closed() -> None:
    """There is nothing to let go of."""
    endpoint = Endpoint(name="the API server", url="http://127.0.0.1:1", token_file=None, tls=lambda: None)

    asyncio.run(LiveReviewer(endpoint).close())


@pytest.mark.parametrize(
    ("url", "stays"),
    [
        ("http://127.0.0.1:8001", True),
        ("http://[::1]:8001", True),
        ("http://localhost:8001", True),
        ("http://10.0.0.1", False),
        ("http://127.0.0.1.example", False),
        ("http://", False),
    ],
)
def test_loopback_is_told_from_a_network(url: str, stays: bool) -> None:
    """Only an address of this machine is one."""
    assert is_loopback_url(url) is stays
