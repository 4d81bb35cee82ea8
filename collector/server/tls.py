"""TLS of the server: a context of what the web configuration says, and one that is another for each connection."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from collector.server.webconfig import Pem, Tls


def build(tls: Tls, read: Callable[[Pem], bytes]) -> ssl.SSLContext:
    """A server's context; ``read`` gives what a setting's file or text holds. Raises :class:`UsageError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.minimum, tls.maximum
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_ciphers:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _set_ciphers(context, tls)
    if tls.curve is not None:
        assert tls.curve_place is not None
        try:
            context.set_ecdh_curve(tls.curve)
        except (ValueError, ssl.SSLError) as error:
            raise tls.curve_place.error(f"{ssl.OPENSSL_VERSION} has it not: leave the key out") from error
    _load_pair(context, tls, read(tls.cert), read(tls.key))
    if tls.client_auth != ssl.CERT_NONE:
        _verify_clients(context, tls, read)
    return context


def _set_ciphers(context: ssl.SSLContext, tls: Tls) -> None:
    if tls.ciphers is None:
        return
    assert tls.ciphers_place is not None
    try:
        context.set_ciphers(":".join(tls.ciphers))
        known = {str(one["name"]) for one in context.get_ciphers()}
    except ssl.SSLError:
        known = set()
    if missing := [name for name in tls.ciphers if name not in known]:
        raise tls.ciphers_place.error(f"{ssl.OPENSSL_VERSION} has no {', '.join(missing)}: take it out")


@contextmanager
def _as_file(data: bytes) -> Iterator[str]:
    """The path of a file in memory: OpenSSL's loaders take paths alone, and a key is not to be written anywhere."""
    descriptor = os.memfd_create("podtally", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    # Without this OpenSSL would ask on the terminal, and wait.
    raise _Encrypted


def _load_pair(context: ssl.SSLContext, tls: Tls, cert: bytes, key: bytes) -> None:
    try:
        with _as_file(cert) as cert_file, _as_file(key) as key_file:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
    except _Encrypted as error:
        raise tls.key.place.error("the key is encrypted: write it without a password") from error
    except ssl.SSLError as error:
        reason = error.reason or str(error)
        if reason == "KEY_VALUES_MISMATCH" or reason == "KEY_TYPE_MISMATCH":
            raise tls.key.place.error(
                f"the key does not belong to the certificate of {tls.cert.place.key}: give both of one pair"
            ) from error
        if b"-----BEGIN CERTIFICATE-----" not in cert:
            raise tls.cert.place.error("holds no certificate in PEM form: give one") from error
        if b"PRIVATE KEY-----" not in key:
            raise tls.key.place.error("holds no private key in PEM form: give one") from error
        raise tls.cert.place.error(f"certificate and key cannot be used ({reason}): give others") from error


def _verify_clients(context: ssl.SSLContext, tls: Tls, read: Callable[[Pem], bytes]) -> None:
    context.verify_mode = tls.client_auth
    # As Go does, take whatever is in the file for trusted, an intermediate as well.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if tls.client_ca is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    else:
        try:
            with _as_file(read(tls.client_ca)) as file:
                context.load_verify_locations(file)
        except ssl.SSLError as error:
            raise tls.client_ca.place.error("holds no certificate in PEM form: give the CA's") from error
    if tls.allowed_sans is not None:
        context.sslobject_class = _checking(tls.allowed_sans)


def _checking(allowed: frozenset[str]) -> type[ssl.SSLObject]:
    class Checked(ssl.SSLObject):
        """Ends the handshake with a client whose certificate has none of the names."""

        def do_handshake(self) -> None:
            super().do_handshake()
            if not alternative_names(self.getpeercert()) & allowed:
                raise ssl.SSLCertVerificationError("the client's certificate has none of client_allowed_sans")

    return Checked


def alternative_names(certificate: Any) -> set[str]:
    """Host names, addresses (as they are commonly written), URIs and mail addresses of a peer's certificate.

    >>> sorted(alternative_names({"subjectAltName": (("DNS", "a.b"), ("IP Address", "2001:DB8:0:0:0:0:0:1"))}))
    ['2001:db8::1', 'a.b']
    """
    found: set[str] = set()
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        if kind == "IP Address":
            found.add(str(ipaddress.ip_address(value.strip())))
        elif kind in ("DNS", "URI", "email"):
            found.add(value)
    return found


class _Fresh(ssl.SSLContext):
    """Begins each connection by the context of that moment, which is all that asyncio asks of a server's."""

    current: Callable[[], ssl.SSLContext]

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """A connection of the context of now."""
        return self.current().wrap_bio(*args, **kwargs)


def fresh(current: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context for a listening socket that is ``current()`` for each connection."""
    context = _Fresh(ssl.PROTOCOL_TLS_SERVER)
    context.current = current
    return context
