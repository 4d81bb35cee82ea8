"""A web configuration on disk: real handshakes with what it says, and what happens when it changes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from collector.errors import UsageError
from collector.server.access import Access
from collector.server.watch import WatchedConfig
from tests.guards import ALICE, PAIR, Clock, basic, client_tls, guarded, issue, status_of, write_config, write_pair
from tests.helpers import until


def test_a_pair_is_served_from_files_and_from_text(tmp_path: Path) -> None:
    """Paths are relative to the configuration, wherever the program runs; keys in the file itself do as well."""
    ca = trustme.CA()
    issued = issue(ca)
    write_pair(tmp_path, issued)
    texts = {"cert": issued.cert_chain_pems[0].bytes().decode(), "key": issued.private_key_pem.bytes().decode()}
    inline = "tls_server_config:\n" + "".join(
        f"  {key}: |\n" + "".join(f"    {line}\n" for line in text.splitlines()) for key, text in texts.items()
    )

    async def run(text: str) -> int:
        config = WatchedConfig(write_config(tmp_path, text))
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            assert url.startswith("https:")
            return await status_of(f"{url}/metrics/resource", tls=client_tls(ca))

    assert [asyncio.run(run(text)) for text in (PAIR, inline)] == [200, 200]


def test_without_tls_the_rest_holds_over_http(tmp_path: Path) -> None:
    """A file with users alone is plain HTTP with passwords, as in the toolkit."""

    async def run() -> list[int]:
        config = WatchedConfig(write_config(tmp_path, f"basic_auth_users: {{alice: {ALICE}}}\n"))
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            assert url.startswith("http:")
            return [
                await status_of(f"{url}/metrics"),
                await status_of(f"{url}/metrics", Authorization=basic("alice", "wonderland")),
            ]

    assert asyncio.run(run()) == [401, 200]


@pytest.mark.parametrize(
    ("text", "files", "said"),
    [
        (
            PAIR,
            {},
            "2: tls_server_config.cert_file: cannot read {}/tls.crt: No such file or directory; give a file that",
        ),
        (PAIR, {"tls.key": b""}, "3: tls_server_config.key_file: holds no private key in PEM form: give one"),
        (PAIR, {"tls.crt": b"x"}, "2: tls_server_config.cert_file: holds no certificate in PEM form: give one"),
        (
            PAIR + "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n",
            {"ca.crt": b""},
            "4: tls_server_config.client_ca_file: holds no certificate in PEM form: give the CA's",
        ),
        (
            PAIR.replace("tls.crt", "."),
            {},
            "2: tls_server_config.cert_file: cannot read {}/.: Is a directory; give a fi",
        ),
        (
            PAIR.replace("tls.crt", "pipe"),
            {},
            "2: tls_server_config.cert_file: cannot read {}/pipe: it is no regular fi",
        ),
        (
            PAIR,
            {"tls.crt": b"x" * 2_000_000},
            "2: tls_server_config.cert_file: cannot read {}/tls.crt: it is larger tha",
        ),
    ],
)
def test_a_file_that_is_no_good_is_named(tmp_path: Path, text: str, files: dict[str, bytes], said: str) -> None:
    """The sentence has the line of the setting, the path and what is wrong with it."""
    os.mkfifo(tmp_path / "pipe")
    if files:
        write_pair(tmp_path, issue(trustme.CA()))
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    with pytest.raises(UsageError) as caught:
        WatchedConfig(write_config(tmp_path, text))

    assert str(caught.value).startswith(f"{tmp_path}/web.yml:{said.format(tmp_path)}")


def test_a_key_of_another_pair_is_told(tmp_path: Path) -> None:
    """Certificate and key that do not belong together are refused at the start."""
    write_pair(tmp_path, issue(trustme.CA()))
    write_pair(tmp_path, issue(trustme.CA()), cert=False)

    with pytest.raises(
        UsageError, match=r"3: tls_server_config.key_file: the key does not belong to the certificate of"
    ):
        WatchedConfig(write_config(tmp_path, PAIR))


def test_an_encrypted_key_is_told_and_nobody_is_asked(tmp_path: Path) -> None:
    """OpenSSL would ask for the password on the terminal, and a container has none."""
    from cryptography.hazmat.primitives import serialization

    issued = issue(trustme.CA())
    write_pair(tmp_path, issued)
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(
        UsageError, match=r"3: tls_server_config.key_file: the key is encrypted: write it without a pass"
    ):
        WatchedConfig(write_config(tmp_path, PAIR))


def test_no_configuration_is_told(tmp_path: Path) -> None:
    """A path that leads nowhere is one sentence."""
    with pytest.raises(UsageError) as caught:
        WatchedConfig(str(tmp_path / "none.yml"))

    assert str(caught.value) == f"cannot read the web configuration {tmp_path}/none.yml: No such file or directory"


# --- clients' certificates, versions and suites ---------------------------------------------------------------------


async def outcome(url: str, tls: ssl.SSLContext) -> int | str:
    """The status, or ``refused`` where the connection is not let up."""
    try:
        return await status_of(f"{url}/metrics/resource", tls=tls)
    except (aiohttp.ClientError, OSError):
        return "refused"


@pytest.mark.parametrize(
    ("settings", "without", "stranger", "friend"),
    [
        ("RequireAndVerifyClientCert\n  client_ca_file: ca.crt", "refused", "refused", 200),
        ("VerifyClientCertIfGiven\n  client_ca_file: ca.crt", 200, "refused", 200),
        ("RequireAndVerifyClientCert", "refused", "refused", "refused"),
        (
            "RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [prometheus.example]",
            "refused",
            "refused",
            200,
        ),
        (
            "RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: ['::2', '10.0.0.2']",
            "refused",
            "refused",
            200,
        ),
        (
            "RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [example]",
            "refused",
            "refused",
            "refused",
        ),
    ],
)
def test_clients_certificates_are_verified(
    tmp_path: Path, settings: str, without: int | str, stranger: int | str, friend: int | str
) -> None:
    """Who has none, who has one of another CA, and who has the right one get what client_auth_type says."""
    ca, clients, others = trustme.CA(), trustme.CA(), trustme.CA()
    write_pair(tmp_path, issue(ca))
    clients.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    config = WatchedConfig(write_config(tmp_path, f"{PAIR}  client_auth_type: {settings}\n"))

    async def run() -> list[int | str]:
        found: list[int | str] = []
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            for signer in (None, others, clients):
                tls = client_tls(ca)
                if signer is not None:
                    signer.issue_cert("prometheus.example", "::2").configure_cert(tls)
                found.append(await outcome(url, tls))
        return found

    assert asyncio.run(run()) == [without, stranger, friend]


def test_an_intermediate_ca_is_enough(tmp_path: Path) -> None:
    """As in Go, whatever stands in client_ca_file is trusted, without the root above it."""
    ca, root = trustme.CA(), trustme.CA()
    middle = root.create_child_ca()
    write_pair(tmp_path, issue(ca))
    middle.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    settings = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
    config = WatchedConfig(write_config(tmp_path, PAIR + settings))

    async def run() -> int | str:
        tls = client_tls(ca)
        middle.issue_cert("prometheus.example").configure_cert(tls)
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            return await outcome(url, tls)

    assert asyncio.run(run()) == 200


@pytest.mark.parametrize(
    ("settings", "newest", "suites", "wanted"),
    [
        ("min_version: TLS13", "TLSv1_2", None, "refused"),
        ("min_version: TLS13", "TLSv1_3", None, 200),
        ("max_version: TLS12", "TLSv1_3", None, 200),
        ("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]", "TLSv1_2", None, 200),
        (
            "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]",
            "TLSv1_2",
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "refused",
        ),
        ("curve_preferences: [CurveP384]\n  prefer_server_cipher_suites: false", "TLSv1_3", None, 200),
        ("curve_preferences: [X25519]", "TLSv1_2", None, 200),
    ],
)
def test_versions_and_suites_are_what_is_written(
    tmp_path: Path, settings: str, newest: str, suites: str | None, wanted: int | str
) -> None:
    """A client that speaks nothing of what is allowed is not let up."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, f"{PAIR}  {settings}\n"))

    async def run() -> int | str:
        tls = client_tls(ca)
        tls.maximum_version = getattr(ssl.TLSVersion, newest)
        if suites is not None:
            tls.set_ciphers(suites)
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            return await outcome(url, tls)

    assert asyncio.run(run()) == wanted


def test_a_curve_is_the_only_one(tmp_path: Path) -> None:
    """A client that offers another curve alone is not let up."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, f"{PAIR}  curve_preferences: [CurveP384]\n"))

    async def run() -> list[int | str]:
        found = []
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            for curve in ("secp521r1", "secp384r1"):
                tls = client_tls(ca)
                tls.set_ecdh_curve(curve)
                found.append(await outcome(url, tls))
        return found

    assert asyncio.run(run()) == ["refused", 200]


def test_failed_handshakes_leave_nothing(tmp_path: Path) -> None:
    """A port that is probed by those who speak no TLS keeps none of their buffers, without Python's own collections."""
    ca = trustme.CA()
    write_pair(tmp_path, issue(ca))
    config = WatchedConfig(write_config(tmp_path, PAIR))

    async def run() -> tuple[int | str, int]:
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            port = int(url.rpartition(":")[2])
            before = sum(isinstance(one, ssl.SSLObject) for one in gc.get_objects())
            for _ in range(100):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
            left = sum(isinstance(one, ssl.SSLObject) for one in gc.get_objects()) - before
            return await outcome(url, client_tls(ca)), left

    gc.collect()
    gc.disable()
    try:
        status, left = asyncio.run(run())
    finally:
        gc.enable()

    assert status == 200
    assert left < 20


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of the configuration."""
    return [record.getMessage() for record in caplog.records if record.name == "collector.server.watch"]


# --- change -----------------------------------------------------------------------------------------------------------


def mounted(folder: Path, number: int, issued: trustme.LeafCert, text: str = PAIR) -> None:
    """A secret as Kubernetes mounts it: files are links through ``..data``, which is exchanged at one stroke."""
    version = folder / f"..version{number}"
    version.mkdir()
    write_pair(version, issued)
    write_config(version, text)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    for name in ("tls.crt", "tls.key", "web.yml"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for old in folder.glob("..version*"):
        if old != version:
            shutil.rmtree(old)


def test_a_rotated_pair_is_served_without_a_request_lost(tmp_path: Path) -> None:
    """The pair is exchanged under load as Kubernetes does: every client is answered, in the end by the newest."""
    cas = [trustme.CA() for _ in range(6)]
    tls = ssl.create_default_context()
    for ca in cas:
        ca.configure_trust(tls)
    mounted(tmp_path, 0, issue(cas[0]))
    config = WatchedConfig(str(tmp_path / "web.yml"))
    answers: list[int] = []

    async def run() -> int:
        done = asyncio.Event()

        async def load(url: str) -> None:
            while not done.is_set():
                answers.append(await status_of(f"{url}/metrics/resource", tls=tls))

        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            tasks = [asyncio.ensure_future(load(url)) for _ in range(4)]
            for number, ca in enumerate(cas[1:], 1):
                before = len(answers)
                await until(lambda: len(answers) >= before + 8)  # noqa: B023 - it is awaited here
                mounted(tmp_path, number, issue(ca))
            done.set()
            await asyncio.gather(*tasks)
            return await status_of(f"{url}/metrics", tls=client_tls(cas[-1]))

    assert asyncio.run(run()) == 200
    assert set(answers) == {200}
    assert config.successful


def test_a_pair_that_does_not_match_yet_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Between the new certificate and its key the old pair is shown, and the log says so once."""
    caplog.set_level(logging.INFO)
    old, new = trustme.CA(), trustme.CA()
    write_pair(tmp_path, issue(old))
    config = WatchedConfig(write_config(tmp_path, PAIR), clock=Clock())
    issued = issue(new)

    async def run() -> list[tuple[int | str, bool]]:
        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            write_pair(tmp_path, issued, key=False)
            found = [(await outcome(url, client_tls(old)), config.successful) for _ in range(3)]
            write_pair(tmp_path, issued, cert=False)
            found.append((await outcome(url, client_tls(new)), config.successful))
        return found

    assert asyncio.run(run()) == [(200, False)] * 3 + [(200, True)]
    assert logged(caplog) == [
        f"the last good web configuration stays in force: {tmp_path}/web.yml:3: tls_server_config.key_file: the key"
        " does not belong to the certificate of tls_server_config.cert_file: give both of one pair",
        f"the web configuration {tmp_path}/web.yml has changed and is in force",
    ]


def test_a_broken_configuration_leaves_the_last_good_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Through every request while it is broken; once it is mended it is in force, and the metric says both."""
    users = "basic_auth_users: {{{}: " + ALICE + "}}\n"
    config = WatchedConfig(write_config(tmp_path, users.format("alice")))

    async def run() -> tuple[list[int], list[str]]:
        metrics: list[str] = []
        found: list[int] = []

        async def ask(url: str, name: str) -> None:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{url}/metrics", headers={"Authorization": basic(name, "wonderland")}) as response,
            ):
                found.append(response.status)
                lines = (await response.text()).splitlines()
                metrics.extend(line for line in lines if line.startswith("podtally_web_config_reload"))

        async with guarded(lambda account: Access(config, None, account)) as (url, _):
            await ask(url, "alice")
            write_config(tmp_path, "basic_auth_user: {}\n")
            for _ in range(3):
                await ask(url, "alice")
            os.unlink(config.path)
            await ask(url, "alice")
            write_config(tmp_path, users.format("bob"))
            await ask(url, "alice")
            await ask(url, "bob")
        return found, metrics

    found, metrics = asyncio.run(run())

    assert found == [200, 200, 200, 200, 200, 401, 200]
    assert [line.split()[1] for line in metrics] == ["1.0", "0.0", "0.0", "0.0", "0.0", "1.0"]
    assert [message.rpartition("stays in force: ")[2][:90] for message in logged(caplog)] == [
        f"{tmp_path}/web.yml:1: basic_auth_user: is no key of this form"[:90],
        f"cannot read the web configuration {tmp_path}/web.yml: No such file or directory"[:90],
    ]


def test_what_was_read_half_written_is_read_again(tmp_path: Path) -> None:
    """A file may be written on within the grain of its times: what is no good is tried again after a second."""
    clock = Clock()
    path = tmp_path / "web.yml"
    config = WatchedConfig(write_config(tmp_path, ""), clock=clock)
    path.write_text("rate_limit: {interval: [")
    os.utime(path, ns=(1, 1))
    assert not config.successful
    size, written = path.stat().st_size, path.stat()
    path.write_text("#" * size)
    os.utime(path, ns=(1, 1))
    config._stamps[str(path)] = (written.st_dev, written.st_ino, size, 1, path.stat().st_ctime_ns)
    assert not config.successful

    clock.seconds += 1.0

    assert config.successful


@pytest.mark.parametrize(("before", "after", "what"), [(PAIR, "", "off"), ("", PAIR, "on")])
def test_tls_is_not_turned_on_or_off_while_it_runs(
    tmp_path: Path, before: str, after: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The scheme of a port is for clients to rely on: that takes a restart, and the log says so."""
    write_pair(tmp_path, issue(trustme.CA()))
    config = WatchedConfig(write_config(tmp_path, before))
    write_config(tmp_path, after)

    assert not config.successful
    assert (config.now().context is not None) == (before == PAIR)
    assert caplog.messages == [
        f"the last good web configuration stays in force: {tmp_path}/web.yml: tls_server_config cannot be turned {what}"
        " while podtally runs: restart"
    ]


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request costs a stat of each file, and no reading."""
    write_pair(tmp_path, issue(trustme.CA()))
    config = WatchedConfig(write_config(tmp_path, PAIR))
    first = config.now()
    monkeypatch.setattr(WatchedConfig, "_read", None)

    assert all(config.now() is first for _ in range(10))


def test_what_the_flags_rule_out_is_refused_later_too(tmp_path: Path) -> None:
    """A change that contradicts the command line is no good either."""

    def check(config: object) -> None:
        if getattr(config, "users", None):
            raise UsageError("no users")

    config = WatchedConfig(write_config(tmp_path, ""), check)
    write_config(tmp_path, f"basic_auth_users: {{alice: {ALICE}}}\n")

    assert not config.successful
    assert config.now().config.users == {}
