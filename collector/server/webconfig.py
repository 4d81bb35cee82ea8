"""The file of ``--web.config.file``, in the form of Prometheus' exporter-toolkit: text to values, every mistake named.

Whatever this server cannot do as it is written is refused, with the file, the line, the key and what to write in its
place: a setting that is silently left out would be believed to hold.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from collector.errors import UsageError

HIGHEST_BCRYPT_COST = 18
"""A check at this cost takes a node some 15 s of CPU; each step doubles it."""

LARGEST_BYTES = 256 << 10
_DEEPEST = 12
"""Of levels: stream, document, and ten mappings or lists in each other, of which the form has three."""
_MOST_EVENTS = 20_000
"""Of YAML: two for a user, so there may be some 9,900."""

CIPHER_SUITES: Mapping[str, str | None] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    # Those of TLS 1.3 are always on, in Go's servers as here.
    "TLS_AES_128_GCM_SHA256": None,
    "TLS_AES_256_GCM_SHA384": None,
    "TLS_CHACHA20_POLY1305_SHA256": None,
}
"""Go's names of the suites that it holds to be secure, with OpenSSL's."""

_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_OLD_VERSIONS = ("TLS10", "TLS11")

_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED_CLIENT_AUTH = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")

_HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that may be set, with the values that they may have, if these are few."""

_BCRYPT = re.compile(r"\$2[abxy]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

_DURATION_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h)"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a setting stands, for the sentences about it."""

    file: str
    line: int
    key: str

    def error(self, text: str) -> UsageError:
        """The error to raise: where, and what is to be done."""
        return UsageError(f"{self.file}:{self.line}: {self.key}: {text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pem:
    """A certificate or a key: the file that it is in, or its text."""

    place: Place
    path: str | None = None
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """``tls_server_config``."""

    place: Place
    cert: Pem
    key: Pem
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    client_ca: Pem | None = None
    """``None``: the system's CAs, if clients' certificates are verified."""
    allowed_sans: frozenset[str] | None = None
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] | None = None
    """OpenSSL's names of the suites for TLS 1.2; ``None``: its default."""
    ciphers_place: Place | None = None
    prefer_server_ciphers: bool = True
    curve: str | None = None
    curve_place: Place | None = None


@dataclass(frozen=True, slots=True)
class RateLimit:
    """``rate_limit``: a request an interval, and a burst of so many."""

    interval_seconds: float
    burst: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The whole file."""

    tls: Tls | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """bcrypt hashes by name."""
    rate_limit: RateLimit | None = None


class _Section:
    """A mapping of the file, key by key: each may stand once, and what nobody asked for is unknown."""

    def __init__(self, file: str, name: str, node: Any, known: tuple[str, ...] | None) -> None:
        """``known``: the keys that there are; ``None`` where keys are names."""
        self._file = file
        self._name = name
        self._values: dict[str, tuple[Place, Any]] = {}
        if node is None or _is_null(node):
            return
        here = Place(file, node.start_mark.line + 1, name or "the file")
        if node.id != "mapping":
            raise here.error("must be a mapping of keys to values")
        for key, value in node.value:
            if key.id != "scalar":
                raise Place(file, key.start_mark.line + 1, name or "the file").error("a key must be plain text")
            place = self._place(key.value, key.start_mark.line + 1)
            if known is not None and key.value not in known:
                raise place.error(f"is no key of this form: take it out, or write one of {', '.join(known)}")
            if key.value in self._values:
                raise place.error(f"stands twice, first in line {self._values[key.value][0].line}: take one out")
            self._values[key.value] = (place, value)

    def _place(self, key: str, line: int) -> Place:
        return Place(self._file, line, f"{self._name}.{key}" if self._name else key)

    def __iter__(self) -> Iterator[str]:
        """The keys that are there, those without a value included."""
        return iter(self._values)

    def place(self, key: str) -> Place:
        """Where a key stands that is there."""
        return self._values[key][0]

    def section(self, key: str, *known: str, names: bool = False) -> _Section:
        """A mapping below this one; an empty one if it is not there."""
        place, node = self._values.get(key, (None, None))
        return _Section(self._file, place.key if place else key, node, None if names else known)

    def text(self, key: str) -> str | None:
        """A text; ``None`` if it is not there or empty."""
        if key not in self._values:
            return None
        place, node = self._values[key]
        return _scalar(place, node) or None

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        if key not in self._values or _is_null(self._values[key][1]):
            return default
        place, node = self._values[key]
        if node.id != "scalar" or node.tag != "tag:yaml.org,2002:bool":
            raise place.error("must be true or false")
        return str(node.value).lower() in ("true", "yes", "on", "y")

    def texts(self, key: str) -> list[str]:
        """A list of texts; none if it is not there."""
        if key not in self._values or _is_null(self._values[key][1]):
            return []
        place, node = self._values[key]
        if node.id != "sequence":
            raise place.error("must be a list: a line with a hyphen for each")
        return [_scalar(place, one) for one in node.value]


def _is_null(node: Any) -> bool:
    return bool(node.id == "scalar" and node.tag == "tag:yaml.org,2002:null")


def _scalar(place: Place, node: Any) -> str:
    if node.id != "scalar":
        raise place.error("must be text")
    return "" if _is_null(node) else str(node.value)


def _check_extent(events: Iterable[Any], file: str) -> None:
    """Refuse what no web configuration is, as soon as the events of its text show it.

    Composing 100,000 brackets takes the loader in Python seconds, and the one in C the process.
    """
    depth = 0
    for number, event in enumerate(events):
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        line = event.start_mark.line + 1
        if depth > _DEEPEST:
            raise UsageError(f"{file}:{line}: is nested too deeply: the form has three levels; mend that line")
        if number >= _MOST_EVENTS:
            raise UsageError(
                f"{file}:{line}: has more than {_MOST_EVENTS:,} values; no web configuration has: give the right file"
            )


def parse(text: bytes, file: str) -> WebConfig:
    """The values of the file's text; paths in it are relative to its directory. Raises :class:`UsageError`."""
    # Only where there is such a file: yaml costs memory on every node.
    import yaml

    if len(text) > LARGEST_BYTES:
        raise UsageError(
            f"{file}: is larger than {LARGEST_BYTES >> 10} KiB; no web configuration is: give the right file"
        )
    # The one in C is some thirty times as fast, and requests wait meanwhile; it is in the packages for Linux.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        decoded = text.decode()
        _check_extent(yaml.parse(decoded, Loader=loader), file)
        node = yaml.compose(decoded, Loader=loader)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}: is no UTF-8 text: write it anew as YAML") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{file}:{line}: is no YAML: {error.problem or error.context}; mend that line") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{file}: is no YAML: {' '.join(str(error).split())}; write it anew") from error
    top = _Section(file, "", node, ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"))
    return WebConfig(tls=_tls(top, file), headers=_headers(top), users=_users(top), rate_limit=_rate_limit(top))


# --- tls_server_config ----------------------------------------------------------------------------------------------

_TLS_KEYS = (
    "cert_file",
    "key_file",
    "cert",
    "key",
    "client_auth_type",
    "client_ca_file",
    "client_ca",
    "client_allowed_sans",
    "min_version",
    "max_version",
    "cipher_suites",
    "prefer_server_cipher_suites",
    "curve_preferences",
)


def _tls(top: _Section, file: str) -> Tls | None:
    section = top.section("tls_server_config", *_TLS_KEYS)
    if not list(section):
        return None
    place = top.place("tls_server_config")
    cert, key = _pem(section, file, "cert"), _pem(section, file, "key")
    for one, name in ((cert, "cert"), (key, "key")):
        if one is None:
            raise place.error(f"has neither {name}_file nor {name}: give one, or leave the section out for plain HTTP")
    assert cert is not None
    assert key is not None
    auth, client_ca, sans = _client_auth(section, file)
    minimum, maximum, ciphers = _versions_and_ciphers(section)
    return Tls(
        place=place,
        cert=cert,
        key=key,
        client_auth=auth,
        client_ca=client_ca,
        allowed_sans=sans,
        minimum=minimum,
        maximum=maximum,
        ciphers=ciphers,
        ciphers_place=section.place("cipher_suites") if ciphers else None,
        prefer_server_ciphers=section.flag("prefer_server_cipher_suites", True),
        curve=(curve := _curve(section)),
        curve_place=section.place("curve_preferences") if curve else None,
    )


def _pem(section: _Section, file: str, name: str) -> Pem | None:
    path, text = section.text(f"{name}_file"), section.text(name)
    if path is not None and text is not None:
        raise section.place(name).error(f"stands beside {name}_file: take one of the two out")
    if path is not None:
        return Pem(place=section.place(f"{name}_file"), path=os.path.join(os.path.dirname(file), path))
    return Pem(place=section.place(name), text=text) if text is not None else None


def _client_auth(section: _Section, file: str) -> tuple[ssl.VerifyMode, Pem | None, frozenset[str] | None]:
    word = section.text("client_auth_type") or "NoClientCert"
    client_ca, sans = _pem(section, file, "client_ca"), section.texts("client_allowed_sans")
    if word in _UNVERIFIED_CLIENT_AUTH:
        raise section.place("client_auth_type").error(
            f"{word} takes certificates that nobody verifies, which podtally cannot do: write"
            " RequireAndVerifyClientCert with client_ca_file, or NoClientCert"
        )
    if word not in _CLIENT_AUTH:
        raise section.place("client_auth_type").error(f"{word!r} is none of {', '.join(_CLIENT_AUTH)}")
    auth = _CLIENT_AUTH[word]
    if client_ca is not None and auth == ssl.CERT_NONE:
        raise client_ca.place.error("is of no use without client_auth_type: RequireAndVerifyClientCert: write that too")
    if sans and auth != ssl.CERT_REQUIRED:
        raise section.place("client_allowed_sans").error(
            "is checked with client_auth_type: RequireAndVerifyClientCert alone: write that too"
        )
    return auth, client_ca, frozenset(sans) if sans else None


def _version(section: _Section, key: str, default: str) -> ssl.TLSVersion:
    word = section.text(key) or default
    if word in _OLD_VERSIONS:
        raise section.place(key).error(f"{word} is not spoken by podtally: write TLS12 or TLS13")
    if word not in _VERSIONS:
        raise section.place(key).error(f"{word!r} is none of {', '.join(_VERSIONS)}")
    return _VERSIONS[word]


def _versions_and_ciphers(section: _Section) -> tuple[ssl.TLSVersion, ssl.TLSVersion, tuple[str, ...] | None]:
    minimum, maximum = _version(section, "min_version", "TLS12"), _version(section, "max_version", "TLS13")
    if minimum > maximum:
        raise section.place("min_version").error("is above max_version: no client could connect; write TLS12")
    words = section.texts("cipher_suites")
    for word in words:
        if word not in CIPHER_SUITES:
            raise section.place("cipher_suites").error(
                f"{word!r} is no suite that Go's tls.CipherSuites() lists: take it out, or write one of"
                f" {', '.join(CIPHER_SUITES)}"
            )
    ciphers = tuple(name for word in words if (name := CIPHER_SUITES[word]) is not None)
    if words and not ciphers:
        if maximum < ssl.TLSVersion.TLSv1_3:
            raise section.place("cipher_suites").error("has no suite for TLS 1.2, and max_version is TLS12: add one")
        minimum = ssl.TLSVersion.TLSv1_3
    return minimum, maximum, ciphers or None


def _curve(section: _Section) -> str | None:
    words = section.texts("curve_preferences")
    for word in words:
        if word not in _CURVES:
            raise section.place("curve_preferences").error(f"{word!r} is none of {', '.join(_CURVES)}")
    if len(words) > 1:
        raise section.place("curve_preferences").error(
            "names several curves, of which Python can set but one: leave one, or the key out for OpenSSL's own order"
        )
    return _CURVES[words[0]] if words else None


# --- the other sections ---------------------------------------------------------------------------------------------


def _headers(top: _Section) -> dict[str, str]:
    section = top.section("http_server_config", "http2", "headers")
    if section.flag("http2", False):
        raise section.place("http2").error("podtally speaks HTTP/1.1 alone: write false, or leave it out")
    given = section.section("headers", *_HEADERS)
    found: dict[str, str] = {}
    for name in given:
        value = given.text(name)
        if value is None:
            continue
        if not value.isprintable() or not value.isascii():
            raise given.place(name).error("has a character that no header may have: write printable ASCII")
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise given.place(name).error(f"{value!r} is none of {', '.join(_HEADERS[name])}")
        found[name] = value
    return found


def _users(top: _Section) -> dict[str, bytes]:
    section = top.section("basic_auth_users", names=True)
    found: dict[str, bytes] = {}
    for name in section:
        place = section.place(name)
        if not name or ":" in name:
            raise place.error("no user can have this name: HTTP ends it at the first colon; choose another")
        # The value is not shown: whoever wrote a password in place of a hash would find it in the log.
        matched = _BCRYPT.fullmatch(section.text(name) or "")
        if matched is None:
            raise place.error("is no bcrypt hash: write the output of htpasswd -nBC 10 '' behind its colon")
        cost = int(matched[1])
        if not 4 <= cost <= HIGHEST_BCRYPT_COST:
            raise place.error(
                f"has the bcrypt cost {cost}, and podtally takes 4 to {HIGHEST_BCRYPT_COST}: hash it anew with 10"
            )
        found[name] = matched[0].encode()
    return found


def _rate_limit(top: _Section) -> RateLimit | None:
    section = top.section("rate_limit", "interval", "burst")
    interval, burst = section.text("interval"), section.text("burst")
    seconds = _duration(section.place("interval"), interval) if interval is not None else 0.0
    if burst is not None and not re.fullmatch(r"[0-9]{1,9}", burst):
        raise section.place("burst").error("must be a whole number")
    if not seconds:
        return None
    if burst is None or int(burst) == 0:
        raise section.place("interval").error("without a burst of 1 or more would refuse every request: give burst")
    return RateLimit(seconds, int(burst))


def _duration(place: Place, text: str) -> float:
    if text == "0":
        return 0.0
    if not re.fullmatch(f"({_DURATION_PART})+", text):
        raise place.error(f"{text!r} is no duration: write 1s, 500ms or 1m30s")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in re.findall(_DURATION_PART, text))
