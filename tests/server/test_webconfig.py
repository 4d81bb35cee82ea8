"""The form of the web configuration: what it takes, and the sentence for each thing that it does not."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import UsageError
from collector.server.webconfig import CIPHER_SUITES, RateLimit, WebConfig, parse
from tests.guards import ALICE, PAIR

WHOLE = f"""\
tls_server_config:
  cert_file: tls.crt
  key_file: /elsewhere/tls.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  client_allowed_sans: [prometheus, "10.0.0.1"]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: "1"
    Content-Security-Policy: ""
basic_auth_users:
  alice: {ALICE}
rate_limit:
  interval: 1m30s
  burst: 3
"""


def refused(text: str) -> str:
    """The sentence."""
    with pytest.raises(UsageError) as caught:
        parse(text.encode(), "etc/web.yml")
    return str(caught.value)


def test_the_whole_form_is_taken() -> None:
    """Every section has its values, paths are relative to the file, an empty header is none."""
    config = parse(WHOLE.encode(), "etc/web.yml")

    tls = config.tls
    assert tls is not None
    assert tls.client_ca is not None
    assert [tls.cert.path, tls.key.path, tls.client_ca.path] == ["etc/tls.crt", "/elsewhere/tls.key", "etc/ca.crt"]
    assert (tls.client_auth, tls.allowed_sans) == (ssl.CERT_REQUIRED, frozenset({"prometheus", "10.0.0.1"}))
    assert (tls.minimum, tls.maximum) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert (tls.ciphers, tls.prefer_server_ciphers, tls.curve) == (
        ("ECDHE-RSA-AES128-GCM-SHA256",),
        False,
        "prime256v1",
    )
    assert config.headers == {"X-Frame-Options": "deny", "X-Content-Type-Options": "nosniff", "X-XSS-Protection": "1"}
    assert config.users == {"alice": ALICE.encode()}
    assert config.rate_limit == RateLimit(90.0, 3)


def test_the_defaults_are_the_toolkits() -> None:
    """TLS 1.2 and 1.3, the server's order of suites, no client's certificate, nobody to log in, no header, no limit."""
    config = parse(PAIR.encode(), "web.yml")

    tls = config.tls
    assert tls is not None
    assert (tls.minimum, tls.maximum) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    assert (tls.client_auth, tls.ciphers, tls.prefer_server_ciphers, tls.curve) == (ssl.CERT_NONE, None, True, None)
    assert (config.headers, config.users, config.rate_limit) == ({}, {}, None)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "tls_server_config:\n", "tls_server_config: {}\nrate_limit: {interval: 0, burst: 0}\n"]
)
def test_an_empty_file_is_plain_http_for_all(text: str) -> None:
    """As in the toolkit, nothing is configured by saying nothing."""
    assert parse(text.encode(), "web.yml") == WebConfig()


def test_secrets_are_not_shown() -> None:
    """Neither a key nor a hash is in what a configuration prints as."""
    text = f"tls_server_config: {{cert: C, key: sEcReT}}\nbasic_auth_users: {{alice: {ALICE}}}\n"

    shown = repr(parse(text.encode(), "web.yml"))

    assert "sEcReT" not in shown
    assert ALICE not in shown


def test_suites_of_tls_13_alone_mean_tls_13_alone() -> None:
    """In Go a list without a suite for TLS 1.2 leaves that version without any."""
    config = parse((PAIR + "  cipher_suites: [TLS_AES_256_GCM_SHA384]\n").encode(), "web.yml")

    assert config.tls is not None
    assert (config.tls.minimum, config.tls.ciphers) == (ssl.TLSVersion.TLSv1_3, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "tls_server_confg: {}\n",
            "1: tls_server_confg: is no key of this form: take it out, or write one of tls_serv",
        ),
        (
            PAIR + "  cert_fil: x\n",
            "4: tls_server_config.cert_fil: is no key of this form: take it out, or write one of",
        ),
        (PAIR + "  cert_file: y\n", "4: tls_server_config.cert_file: stands twice, first in line 2: take one out"),
        ("rate_limit: 3\n", "1: rate_limit: must be a mapping of keys to values"),
        ("- a\n", "1: the file: must be a mapping of keys to values"),
        ("? [a]\n: b\n", "1: the file: a key must be plain text"),
        ("a: [\n", "2: is no YAML: did not find expected node content; mend that line"),
        ("a: b\n---\nc: d\n", "2: is no YAML: but found another document; mend that line"),
        ("a: \x00\n", " is no YAML: unacceptable character #x0000: control characters are not allowed in "),
        (PAIR.replace("tls.crt", "[a]"), "2: tls_server_config.cert_file: must be text"),
        (
            "tls_server_config:\n  min_version: TLS12\n",
            "1: tls_server_config: has neither cert_file nor cert: give one, or leave the section out for plain HTTP",
        ),
        ("tls_server_config:\n  cert: C\n  key_file: ''\n", "1: tls_server_config: has neither key_file nor key: give"),
        (PAIR + "  cert: C\n", "4: tls_server_config.cert: stands beside cert_file: take one of the two out"),
        (
            PAIR + "  client_auth_type: RequireAnyClientCert\n",
            "4: tls_server_config.client_auth_type: RequireAnyClientCert takes certificates that nobody verifies,"
            " which podtally cannot do: write RequireAndVerifyClientCert with client_ca_file, or NoClientCert",
        ),
        (
            PAIR + "  client_auth_type: RequestClientCert\n",
            "4: tls_server_config.client_auth_type: RequestClientCert t",
        ),
        (PAIR + "  client_auth_type: Yes!\n", "4: tls_server_config.client_auth_type: 'Yes!' is none of NoClientCert,"),
        (
            PAIR + "  client_ca_file: ca.crt\n",
            "4: tls_server_config.client_ca_file: is of no use without client_auth_type: RequireAndVerifyClientCert:",
        ),
        (
            PAIR + "  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: [a]\n",
            "5: tls_server_config.client_allowed_sans: is checked with client_auth_type: RequireAndVerifyClientCert al",
        ),
        (
            PAIR + "  client_allowed_sans: a\n",
            "4: tls_server_config.client_allowed_sans: must be a list: a line with a",
        ),
        (
            PAIR + "  min_version: TLS10\n",
            "4: tls_server_config.min_version: TLS10 is not spoken by podtally: write TLS",
        ),
        (
            PAIR + "  max_version: TLS11\n",
            "4: tls_server_config.max_version: TLS11 is not spoken by podtally: write TLS",
        ),
        (PAIR + "  min_version: '1.2'\n", "4: tls_server_config.min_version: '1.2' is none of TLS12, TLS13"),
        (
            PAIR + "  min_version: TLS13\n  max_version: TLS12\n",
            "4: tls_server_config.min_version: is above max_version: no client could connect; write TLS12",
        ),
        (
            PAIR + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n",
            "4: tls_server_config.cipher_suites: 'TLS_RSA_WITH_RC4_128_SHA' is no suite that Go's tls.CipherSuites()",
        ),
        (
            PAIR + "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n",
            "4: tls_server_config.cipher_suites: has no suite for TLS 1.2, and max_version is TLS12: add one",
        ),
        (
            PAIR + "  prefer_server_cipher_suites: 1\n",
            "4: tls_server_config.prefer_server_cipher_suites: must be true o",
        ),
        (
            PAIR + "  curve_preferences: [P256]\n",
            "4: tls_server_config.curve_preferences: 'P256' is none of CurveP256,",
        ),
        (
            PAIR + "  curve_preferences: [X25519, CurveP256]\n",
            "4: tls_server_config.curve_preferences: names several curves, of which Python can set but one: leave one,",
        ),
        (
            "http_server_config: {http2: true}\n",
            "1: http_server_config.http2: podtally speaks HTTP/1.1 alone: write false, or leave it out",
        ),
        (
            "http_server_config:\n  headers:\n    Server: x\n",
            "3: http_server_config.headers.Server: is no key of this form: take it out, or write one of Content",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: DENY\n",
            "3: http_server_config.headers.X-Frame-Options: 'DENY' is none of deny, sameorigin",
        ),
        (
            'http_server_config:\n  headers:\n    X-XSS-Protection: "a\\r\\nb"\n',
            "3: http_server_config.headers.X-XSS-Protection: has a character that no header may have: write printable",
        ),
        (
            "basic_auth_users:\n  alice: secret\n",
            "2: basic_auth_users.alice: is no bcrypt hash: write the output of htpasswd -nBC 10 '' behind its colon",
        ),
        ("basic_auth_users:\n  alice:\n", "2: basic_auth_users.alice: is no bcrypt hash: write the output of htpasswd"),
        (
            f"basic_auth_users:\n  alice: {ALICE.replace('$04$', '$31$')}\n",
            "2: basic_auth_users.alice: has the bcrypt cost 31, and podtally takes 4 to 18: hash it anew with 10",
        ),
        (
            f"basic_auth_users:\n  'a:b': {ALICE}\n",
            "2: basic_auth_users.a:b: no user can have this name: HTTP ends it a",
        ),
        (f"basic_auth_users: [alice, {ALICE}]\n", "1: basic_auth_users: must be a mapping of keys to values"),
        ("rate_limit:\n  interval: 5\n", "2: rate_limit.interval: '5' is no duration: write 1s, 500ms or 1m30s"),
        (
            "rate_limit:\n  interval: 1s\n",
            "2: rate_limit.interval: without a burst of 1 or more would refuse every req",
        ),
        ("rate_limit:\n  burst: many\n", "2: rate_limit.burst: must be a whole number"),
    ],
)
def test_what_is_not_taken_is_named(text: str, said: str) -> None:
    """A sentence with the file, the line, the key and what to do."""
    assert refused(text).startswith(f"etc/web.yml:{said}")


def test_a_password_in_place_of_a_hash_is_not_told() -> None:
    """The log is no place for it."""
    assert "secret" not in refused("basic_auth_users: {alice: secret}\n")


def test_what_is_no_text_is_one_sentence() -> None:
    """A wrong encoding is no traceback."""
    with pytest.raises(UsageError, match=r"^web\.yml: is no UTF-8 text: write it anew as YAML$"):
        parse(b"\xff", "web.yml")


@given(st.binary(max_size=200))
def test_no_file_is_a_traceback(text: bytes) -> None:
    """Whatever is in the file, it is a configuration or a sentence."""
    with suppress(UsageError):
        parse(text, "web.yml")


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: " + "[" * 100_000, "1: is nested too deeply: the form has three levels; mend that line"),
        ("a:\n " + "{a: " * 1000, "2: is nested too deeply: the form has three levels; mend that line"),
        ("- " * 1000, "1: is nested too deeply: the form has three levels; mend that line"),
        ("? " * 1000, "1: is nested too deeply: the form has three levels; mend that line"),
        (
            "a: [\n" + "[],\n" * 15_000,
            "9999: has more than 20,000 values; no web configuration has: give the right file",
        ),
        ("#" * (256 << 10) + "\n", " is larger than 256 KiB; no web configuration is: give the right file"),
    ],
)
def test_a_hostile_file_is_refused_before_it_is_composed(
    text: str, said: str, loader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its size, its nesting or its number of values; also where yaml has been built without its part in C."""
    if loader == "SafeLoader":
        monkeypatch.delattr(yaml, "CSafeLoader")
    monkeypatch.setattr(yaml, "compose", lambda *_, **__: pytest.fail("it was composed"))

    assert refused(text) == f"etc/web.yml:{said}"


def test_thousands_of_users_are_taken() -> None:
    """What is hostile is far from what is large."""
    text = "basic_auth_users:\n" + "".join(f"  user-{number}: {ALICE}\n" for number in range(3000))

    assert len(parse(text.encode(), "web.yml").users) == 3000


def test_every_suite_is_known_to_openssl() -> None:
    """The names on the right are OpenSSL's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    names = [name for name in CIPHER_SUITES.values() if name is not None]
    context.set_ciphers(":".join(names))

    assert set(names) <= {one["name"] for one in context.get_ciphers()}
