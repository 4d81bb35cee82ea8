"""``podtally top``: the table of pods, once for scripts or live on a terminal."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable

from collector import table
from collector.errors import UsageError
from collector.server import api
from collector.table import Sort, Usage

Rows = Callable[[], list[Usage] | None]
"""The rows of now; ``None``: not yet."""

_URL_TIMEOUT_SECONDS = 10


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


def from_url(url: str, *, containers: bool) -> Rows:
    """Rows of a running podtally's API. The function raises :class:`UsageError` if it does not answer as one."""
    address = url.rstrip("/") + "/api/v1/pods"
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--url {url!r} is no URL: give http://HOST:PORT")

    # Only here: with http.client they cost a MiB.
    import urllib.error
    import urllib.request

    def rows() -> list[Usage]:
        try:
            with urllib.request.urlopen(address, timeout=_URL_TIMEOUT_SECONDS) as response:
                return api.usages(json.load(response), containers=containers)
        except urllib.error.HTTPError as error:
            error.close()
            raise UsageError(f"{address} answers HTTP {error.code}: is it podtally, and has it a tally?") from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise UsageError(f"{address} cannot be reached: {reason}; is podtally running there?") from error
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{address} does not answer as podtally does") from error

    return rows


def show_once(view: View, rows: list[Usage]) -> int:
    """Print the table; 1 if there is no row, as then the script that asked has nothing."""
    if not view.shown(rows):
        sys.stderr.write(f"No running pods found{f' in namespace {view.namespace}' if view.namespace else ''}.\n")
        return 1
    sys.stdout.write(view.text(rows))
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
                live.update(Text(view.text(found), no_wrap=True), refresh=True)
            stop.wait(interval)
    return 0
