"""``podtally top``: the table of pods, once for scripts or live on a terminal."""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Callable
from typing import NamedTuple

from collector import table, web
from collector.errors import UsageError
from collector.server import api
from collector.table import Sort, Usage

Rows = Callable[[], list[Usage] | None]
"""The rows of now; ``None``: not yet."""

_URL_TIMEOUT_SECONDS = 10
_MOST_BYTES = 64 << 20
"""Ten times what a node of 500 pods has on a page."""


class View:
    """What of the rows is shown, and how."""

    def __init__(self, *, containers: bool, sort: Sort, namespace: str | None, headers: bool) -> None:
        self.containers = containers
        self._sort = sort
        self.namespace = namespace
        self._headers = headers

    def shown(self, rows: list[Usage]) -> list[Usage]:
        """The rows of the namespace that is looked at."""
        return [row for row in rows if self.namespace in (None, row.namespace)]

    def text(self, rows: list[Usage]) -> str:
        """The table."""
        return table.render(
            table.sort_usages(self.shown(rows), self._sort),
            containers=self.containers,
            namespaces=self.namespace is None,
            headers=self._headers,
        )


def _refusal(address: str, status: int) -> UsageError:
    if status == 401:
        return UsageError(
            f"{address} answers HTTP 401: give https://USER:PASSWORD@HOST:PORT, or --token-file where it takes tokens"
        )
    if status == 403:
        return UsageError(f"{address} answers HTTP 403: the token's user may not get nodes/metrics")
    return UsageError(f"{address} answers HTTP {status}: is it podtally, and has it a tally?")


class Page(NamedTuple):
    """A page of a running podtally's."""

    address: str
    """Without user and password."""
    get: Callable[[], str]
    """Raises :class:`UsageError` if there is no answer."""


def page_of_url(url: str, path: str, *, token_file: str | None = None) -> Page:
    """The page ``path`` of the podtally at ``url``. ``token_file``: a bearer token to send, over HTTPS alone."""
    try:
        base, authorization = web.without_userinfo(url)
    except ValueError:
        raise UsageError(f"--url {url!r} is no URL: give http://HOST:PORT") from None
    address = base.rstrip("/") + path
    secure = address.startswith("https:")

    # Only here: they cost a MiB.
    import http.client
    import urllib.error
    import urllib.request

    tls = web.client_tls() if secure else None

    def request() -> urllib.request.Request:
        made = urllib.request.Request(address)
        told = authorization
        if told is None and token_file is not None and secure:
            try:
                with open(token_file, encoding="ascii") as file:
                    told = f"Bearer {file.read().strip()}"
            except (OSError, ValueError) as error:
                raise UsageError(f"cannot read the token of --token-file {token_file}: {error}") from error
        if told is not None:
            # Where it is sent on to is none of its business.
            made.add_unredirected_header("Authorization", told)
        return made

    def get() -> str:
        try:
            with urllib.request.urlopen(request(), timeout=_URL_TIMEOUT_SECONDS, context=tls) as response:
                body: bytes = response.read(_MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(address, error.code) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", error)
            asked = "is podtally running there?"
            if isinstance(reason, ssl.SSLCertVerificationError):
                asked = "name the CA's file in SSL_CERT_FILE, and the host as its certificate does"
            raise UsageError(f"{address} cannot be reached: {reason}; {asked}") from error
        if len(body) > _MOST_BYTES:
            raise UsageError(f"{address} answers with more than {_MOST_BYTES >> 20} MiB: is it podtally?")
        return body.decode(errors="replace")

    return Page(address, get)


def from_url(url: str, *, containers: bool, token_file: str | None = None) -> Rows:
    """Rows of a running podtally's API. The function raises :class:`UsageError` if it does not answer as one."""
    page = page_of_url(url, "/api/v1/pods", token_file=token_file)

    def rows() -> list[Usage]:
        text = page.get()
        try:
            return api.usages(json.loads(text), containers=containers)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"{page.address} does not answer as podtally does") from error

    return rows


def show_once(view: View, rows: list[Usage]) -> int:
    """Print the table; 1 if there is no row, as then the script that asked has nothing."""
    if not view.shown(rows):
        sys.stderr.write(f"No running pods found{f' in namespace {view.namespace}' if view.namespace else ''}.\n")
        return 1
    sys.stdout.write(view.text(rows))
    sys.stderr.writelines(f"{note}\n" for note in table.notes(view.shown(rows)))
    return 0


def show_live(view: View, rows: Rows, stop: threading.Event, interval: float) -> int:
    """Redraw until stopped; without a terminal, print table after table."""
    if not sys.stdout.isatty():
        while not stop.is_set():
            found = rows()
            if found is not None:
                sys.stdout.write(view.text(found) + "\n")
                sys.stdout.flush()
            stop.wait(interval)
        return 0
    from rich.live import Live
    from rich.text import Text

    with Live(Text("waiting for the first rates ..."), screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            found = rows()
            if found is not None:
                notes = "".join(f"{note}\n" for note in table.notes(view.shown(found)))
                live.update(Text(f"{view.text(found)}\n{notes}", no_wrap=True), refresh=True)
            stop.wait(interval)
    return 0
