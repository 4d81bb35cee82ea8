"""URLs that a user gives: the password that may stand in them, and what their server is verified by."""

from __future__ import annotations

import base64
import ssl
from urllib.parse import unquote, urlsplit


def without_userinfo(url: str) -> tuple[str, str | None]:
    """A URL, and the ``Authorization`` of the user and password that stand in it. ``ValueError`` if it is no URL.

    >>> without_userinfo("https://a:b%40c@host:1/x"), without_userinfo("http://host")
    (('https://host:1/x', 'Basic YTpiQGM='), ('http://host', None))
    """
    parts = urlsplit(url)
    # Asking for a port that is none raises too.
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    name, _, password = userinfo.partition(":")
    encoded = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=host).geturl(), f"Basic {encoded}"


def client_tls() -> ssl.SSLContext:
    """What a server of the user's is verified by: the system's CAs, or ``SSL_CERT_FILE``'s."""
    context = ssl.create_default_context()
    # Python 3.13 refuses a CA without keyUsage by default, which other clients take.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
