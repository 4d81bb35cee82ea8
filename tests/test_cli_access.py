"""The program with ``--web.config.file`` and ``--authenticate``: what it refuses, and whom it lets in."""

from __future__ import annotations

import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trustme

from tests.guards import ALICE, PAIR, ApiServer, client_tls, issue, write_config, write_pair
from tests.helpers import DEADLINE_SECONDS, podtally, served_in_thread, started, wait_until
from tests.support import FIXTURES, v2_root

STATIC = FIXTURES / "static-pod"
USERS = f"basic_auth_users: {{alice: {ALICE}}}\n"
HTTP = ("--listen", "127.0.0.1:0")
API = ("--apiserver-url", "https://127.0.0.1:1")


def refused(*arguments: str | Path) -> str:
    """The one sentence of a command that exits 2."""
    done = podtally(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr.rstrip()


def serve_flags(folder: Path) -> list[str | Path]:
    """A node in a temporary directory, with a kubelet that nobody is."""
    root = v2_root(folder / "cgroup")
    return ["--cgroup-root", root, "--proc-root", folder / "proc", "--kubelet-url", "http://127.0.0.1:1"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            (),
            "--authenticate over plain HTTP would have tokens sent in the clear: give --web.config.file with a"
            " tls_server_config, or --listen 127.0.0.1:PORT",
        ),
        (("--listen", "0.0.0.0:0", *API), "--authenticate over plain HTTP would have tokens sent in the clear: give"),
        (
            HTTP,
            "--authenticate asks the API server who a token is of, and none is known: give --apiserver-url",
        ),
        (
            (*HTTP, "--apiserver-url", "http://10.0.0.1"),
            "--authenticate would send callers' tokens to http://10.0.0.1 in the clear: give an https: URL",
        ),
        ((*HTTP, "--apiserver-url", "10.0.0.1"), "--apiserver-url '10.0.0.1' is no URL: give https://HOST:PORT"),
    ],
)
def test_tokens_that_would_be_known_are_not_asked_for(flags: tuple[str, ...], said: str) -> None:
    """Exit 2 and a sentence, before anything is read, where tokens would go over a network in the clear."""
    assert refused("serve", "--authenticate", *flags).startswith(f"podtally serve: {said}")


def test_passwords_and_tokens_contradict_each_other(tmp_path: Path) -> None:
    """A request has one Authorization header: users beside --authenticate are bad usage."""
    config = write_config(tmp_path, USERS)

    assert refused("serve", "--authenticate", *HTTP, *API, "--web.config.file", config) == (
        f"podtally serve: {config}: basic_auth_users and --authenticate contradict each other, as a request has but one"
        " Authorization header: take one out"
    )


@pytest.mark.parametrize("command", [("serve",), ("replay", STATIC)])
def test_a_web_configuration_that_is_no_good_is_one_sentence(tmp_path: Path, command: tuple[str | Path, ...]) -> None:
    """With the file, the line and the key, for each command that serves; a replay that prints does not look at it."""
    config = write_config(tmp_path, "tls_server_config:\n  cert_file: tls.crt\n")

    assert refused(*command, "--web.config.file", config) == (
        f"podtally {command[0]}: {config}:1: tls_server_config: has neither key_file nor key: give one, or leave the"
        " section out for plain HTTP"
    )
    assert podtally("replay", STATIC, "--once", "--web.config.file", config).returncode == 0


def top(url: str, *flags: str | Path, ca: Path) -> subprocess.CompletedProcess[str]:
    """The table of a podtally at a URL."""
    return podtally("top", "--once", "--no-headers", "--url", url, *flags, SSL_CERT_FILE=str(ca))


def test_top_reads_a_podtally_with_tls_and_a_password(tmp_path: Path) -> None:
    """User and password stand in the URL, the CA in SSL_CERT_FILE; what is wrong is told with what to do."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.crt"))
    config = write_config(tmp_path, PAIR + USERS)
    with started("replay", STATIC, "--loop", *HTTP, "--web.config.file", config) as running:
        address = running.url.removeprefix("https://")
        good = top(f"https://alice:wonder%6Cand@{address}/", ca=tmp_path / "ca.crt")
        wrong = top(f"https://alice:x@{address}", ca=tmp_path / "ca.crt")
        unknown = top(f"https://alice:wonderland@{address}", ca=tmp_path / "other.crt")
        loaded = {Path(file.path).name for file in psutil.Process(running.pid).memory_maps()}

    assert running.url.startswith("https://127.0.0.1:")
    assert (good.returncode, "static-web-node1" in good.stdout, good.stderr) == (0, True, "")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"podtally top: https://{address}/api/v1/pods answers HTTP 401: give https://USER:PASSWORD@HOST:PORT, or"
        " --token-file where it takes tokens\n",
    )
    assert unknown.returncode == 2
    assert "name the CA's file in SSL_CERT_FILE, and the host as its certificate does" in unknown.stderr
    assert any("_bcrypt" in name for name in loaded)


def test_serve_lets_in_whom_the_api_server_knows(tmp_path: Path) -> None:
    """End to end: TLS, a token, two reviews; a connection that is kept open does not hold up the end."""
    api, ca, token = ApiServer(), trustme.CA(), tmp_path / "token"
    write_pair(tmp_path, issue(ca))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    token.write_text("good\n")
    config = write_config(tmp_path, PAIR)
    with served_in_thread(api.handle) as api_url:
        flags = [*serve_flags(tmp_path), *HTTP, "--authenticate", "--web.config.file", config]
        with started("serve", *flags, "--apiserver-url", api_url, "--node-name", "node-1") as running:
            host, _, port = running.url.removeprefix("https://").rpartition(":")
            with_token = top(running.url, "--token-file", token, ca=tmp_path / "ca.crt")
            without = top(running.url, ca=tmp_path / "ca.crt")
            token.write_text("poor\n")
            forbidden = top(running.url, "--token-file", token, ca=tmp_path / "ca.crt")
            loaded = {Path(file.path).name for file in psutil.Process(running.pid).memory_maps()}
            with (
                socket.create_connection((host, int(port)), DEADLINE_SECONDS) as plain,
                client_tls(ca).wrap_socket(plain, server_hostname=host) as kept,
            ):
                kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert kept.recv(15) == b"HTTP/1.1 200 OK"
                status = running.terminate()
            logged = "".join(running.lines)

    assert (with_token.returncode, with_token.stderr) == (1, "No running pods found.\n")
    assert (without.returncode, "answers HTTP 401" in without.stderr) == (2, True)
    assert (forbidden.returncode, forbidden.stderr.rpartition("HTTP 403: ")[2]) == (
        2,
        "the token's user may not get nodes/metrics\n",
    )
    assert [spec["resourceAttributes"]["name"] for kind, spec in api.posted if kind != "TokenReview"] == ["node-1"] * 2
    assert not [name for name in loaded if "_bcrypt" in name]
    assert status == 0
    assert "Traceback" not in logged
    assert "Warning" not in logged


def test_passwords_over_plain_http_are_warned_of(tmp_path: Path) -> None:
    """It is allowed, as in the toolkit, and the log says what it is worth."""
    config = write_config(tmp_path, USERS)
    with started("serve", *serve_flags(tmp_path), "--listen", ":0", "--web.config.file", config) as running:
        wait_until(lambda: any("look at http://" in line for line in running.lines))

    assert [line.split(" collector: ")[1] for line in running.lines if "plain HTTP" in line] == [
        f"passwords come in over plain HTTP, for all on the way to read: add tls_server_config to {config}\n"
    ]


def test_a_client_that_speaks_no_tls_is_no_traceback(tmp_path: Path) -> None:
    """Neither who comes and goes, nor who speaks HTTP, nor whose certificate is missing says a word in the log."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    settings = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
    config = write_config(tmp_path, PAIR + settings)
    with started("replay", STATIC, *HTTP, "--web.config.file", config) as running:
        host, _, port = running.url.removeprefix("https://").rpartition(":")
        before = len(running.lines)
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff"):
            with socket.create_connection((host, int(port)), DEADLINE_SECONDS) as plain:
                plain.sendall(said)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(1024):
                    pass
        with (
            suppress(ssl.SSLError, OSError),
            socket.create_connection((host, int(port)), DEADLINE_SECONDS) as plain,
            client_tls(ca).wrap_socket(plain, server_hostname=host) as strange,
        ):
            strange.recv(1)
        status = running.terminate()

    assert (running.lines[before:], status) == ([], 0)
