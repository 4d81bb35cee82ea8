"""Prometheus, asked by its own URL or through the API server's proxy. I/O; the answers are bytes."""

from __future__ import annotations

import json
import ssl
from typing import Final, Protocol
from urllib.parse import urlencode

from collector import web
from collector.errors import ClusterError, UsageError
from collector.loadtest.kubectl import Kubectl

_TIMEOUT_SECONDS: Final = 60.0
_PROXYS_OWN: Final = frozenset({401, 403})
"""Of what stands before Prometheus and lets nobody in: that says nothing of what is behind it."""

NOT_PROMETHEUS: Final = "is that Prometheus? --prometheus-url names another place"
"""What to do about an answer that is not Prometheus'."""


class Prometheus(Protocol):
    """Whom the samples are asked of."""

    where: str
    """For a person."""

    def query(self, expression: str, time: float | None = None) -> bytes:
        """The answer of ``/api/v1/query`` at a time, or now by Prometheus' own clock.

        Raises :class:`ClusterError` if there is none.
        """


def _path(expression: str, time: float | None) -> str:
    at = {} if time is None else {"time": f"{time:.3f}"}
    return f"/api/v1/query?{urlencode({'query': expression, **at})}"


class OverHttp:
    """By its URL; ``https://USER:PASSWORD@HOST`` sends the password."""

    def __init__(self, url: str) -> None:
        """Raises :class:`UsageError` if it is no URL."""
        try:
            base, self._authorization = web.without_userinfo(url)
        except ValueError:
            raise UsageError(f"--prometheus-url {url!r} is no URL: give http://HOST:PORT") from None
        self.where = base.rstrip("/")
        self._tls = web.client_tls() if self.where.startswith("https:") else None

    def query(self, expression: str, time: float | None = None) -> bytes:
        """See :class:`Prometheus`."""
        import http.client
        import urllib.error
        import urllib.request

        request = urllib.request.Request(self.where + _path(expression, time))
        if self._authorization is not None:
            request.add_unredirected_header("Authorization", self._authorization)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS, context=self._tls) as response:
                body: bytes = response.read()
        except urllib.error.HTTPError as error:
            with error:
                said, ours = _reason(error.read())
            step = "" if ours or error.code in _PROXYS_OWN else f"; {NOT_PROMETHEUS}"
            raise ClusterError(f"{self.where} answers HTTP {error.code}: {said}{step}") from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            step = "is Prometheus there? --prometheus-url names another place"
            if isinstance(reason, ssl.SSLCertVerificationError):
                step = "name the CA's file in SSL_CERT_FILE, and the host as its certificate does"
            raise ClusterError(f"{self.where} cannot be reached: {reason}; {step}") from error
        return body


def _reason(body: bytes) -> tuple[str, bool]:
    """Prometheus' own words of an error, else the beginning of the page; and whether they are Prometheus'."""
    try:
        document = json.loads(body)
        return str(document["error"])[:300], True
    except (ValueError, KeyError, TypeError, RecursionError):
        return " ".join(body.decode(errors="replace").split())[:120] or "without a word", False


class ThroughKubectl:
    """Through the API server's proxy of its Service, as a person's kubeconfig reaches it."""

    def __init__(self, kubectl: Kubectl, service: str) -> None:
        """``service``: NAMESPACE/NAME:PORT. Raises :class:`UsageError` if it is none."""
        namespace, slash, name = service.partition("/")
        if not slash or not namespace or not name or "/" in name:
            raise UsageError(f"--prometheus-service {service!r} is none: write NAMESPACE/NAME:PORT")
        self._kubectl = kubectl
        self._base = f"/api/v1/namespaces/{namespace}/services/{name}/proxy"
        self.where = f"Service {service}, through the API server"
        self._service = service

    def query(self, expression: str, time: float | None = None) -> bytes:
        """See :class:`Prometheus`."""
        try:
            return self._kubectl.raw(self._base + _path(expression, time))
        except ClusterError as error:
            said = str(error)
            step = (
                "\n  -> kubectl apply -k monitoring/ brings a Prometheus; another is named by"
                " --prometheus-service NAMESPACE/NAME:PORT or --prometheus-url URL"
            )
            # Where kubectl's own words have a next step, that one comes first.
            raise ClusterError(
                f"Prometheus cannot be asked, {self.where}: {said}{'' if '->' in said else step}"
            ) from error
