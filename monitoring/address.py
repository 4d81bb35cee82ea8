"""Whether an address can be served at, told in the words of the one who chooses it: by a variable of make.

``python -m monitoring.address 127.0.0.1:9753 "make run LISTEN=127.0.0.1:9754"`` asks before anything is started: what
serves there already would answer in the place of what is started, and be taken for it.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Sequence

from collector.errors import UsageError
from collector.server.app import parse_listen

_EVERY_HOST = frozenset({None, "0.0.0.0", "::"})  # noqa: S104 (compared with, not listened on)


class LocalError(Exception):
    """What a person has to know and do, in one sentence."""


def _split(listen: str, instead: str) -> tuple[str | None, int]:
    """Host and port, as the collector itself reads them."""
    try:
        return parse_listen(listen)
    except UsageError as error:
        raise LocalError(f"{listen!r} is no address: give HOST:PORT, as {instead}") from error


def need_free(listen: str, instead: str) -> None:
    """Raises: LocalError, with ``instead`` as what to do, if ``listen`` is no address or cannot be listened on."""
    host, port = _split(listen, instead)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: the last one's end is no use
            probe.bind(address)
    except UnicodeError as error:
        raise LocalError(f"{listen!r} is no address: give HOST:PORT, as {instead}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"the address {listen} is in use: end what serves there"
            raise LocalError(f"{why}, or choose another: {instead}") from error
        # A look-up of the host that fails has a negative number.
        what = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise LocalError(f"the address {listen} cannot be listened on: {what}; choose another: {instead}") from error


def reached_at(listen: str, instead: str) -> str:
    """The address by which this machine reaches who serves at ``listen``, which may be every host.

    >>> reached_at(":9753", ""), reached_at("127.0.0.1:80", "")
    ('127.0.0.1:9753', '127.0.0.1:80')
    """
    host, port = _split(listen, instead)
    return f"127.0.0.1:{port}" if host in _EVERY_HOST else listen


def main(arguments: Sequence[str]) -> int:
    """Exit 2, and one sentence, unless the address can be served at."""
    listen, instead = arguments
    try:
        need_free(listen, instead)
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
