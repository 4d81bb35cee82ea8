"""The web configuration as it is on disk now: read anew when a file of it has changed, the last good one kept."""

from __future__ import annotations

import logging
import os
import ssl
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

from collector.errors import UsageError
from collector.server import tls
from collector.server.webconfig import Pem, WebConfig, parse

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20
_RETRY_SECONDS = 1.0
"""A file that is written in place may be read half written, with nothing to tell the halves apart but another try."""

Stamp = tuple[int, ...]


class Loaded(NamedTuple):
    """A configuration that is good, whole."""

    config: WebConfig
    context: ssl.SSLContext | None


class WatchedConfig:
    """A web configuration file.

    Kubernetes swaps a mounted secret's files by a symbolic link: what is looked at is the file behind it. A certificate
    and its key that are exchanged one after the other are no pair in between, and the last pair is shown until they
    are.
    """

    def __init__(
        self,
        path: str,
        check: Callable[[WebConfig], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``check`` raises :class:`UsageError` for what the flags rule out. So does this, if the file is not good."""
        self.path = path
        self._check = check
        self._clock = clock
        self._stamps: dict[str, Stamp] = {}
        self._failure: str | None = None
        self._tried = clock()
        self._loaded = self._load()

    @property
    def successful(self) -> bool:
        """Whether what is on disk is what is in force."""
        self.now()
        return self._failure is None

    def now(self) -> Loaded:
        """The configuration in force. Costs a ``stat`` for each of its files."""
        changed = any(_stamp(path) != stamp for path, stamp in self._stamps.items())
        if changed or (self._failure is not None and self._clock() - self._tried >= _RETRY_SECONDS):
            self._reload(changed)
        return self._loaded

    def context(self) -> ssl.SSLContext:
        """The TLS context in force; there is one or there is none for as long as the program runs."""
        context = self.now().context
        assert context is not None
        return context

    def _reload(self, changed: bool) -> None:
        self._tried = self._clock()
        before = dict(self._stamps)
        try:
            loaded = self._load()
            if (loaded.context is None) != (self._loaded.context is None):
                what = "off" if loaded.context is None else "on"
                raise UsageError(f"{self.path}: tls_server_config cannot be turned {what} while podtally runs: restart")
        except UsageError as error:
            # Those that were not reached this time are looked at none the less.
            self._stamps = {**before, **self._stamps}
            if changed or str(error) != self._failure:
                log.warning("the last good web configuration stays in force: %s", error)
            self._failure = str(error)
            return
        self._failure = None
        self._loaded = loaded
        log.info("the web configuration %s has changed and is in force", self.path)

    def _load(self) -> Loaded:
        self._stamps = {}
        try:
            config = parse(self._read(self.path), self.path)
        except OSError as error:
            raise UsageError(f"cannot read the web configuration {self.path}: {error.strerror}") from error
        self._check(config)
        if config.users:
            # Only where there are users: it costs memory on every node.
            import bcrypt  # noqa: F401
        return Loaded(config, tls.build(config.tls, self._pem) if config.tls is not None else None)

    def _pem(self, pem: Pem) -> bytes:
        if pem.path is None:
            assert pem.text is not None
            return pem.text.encode()
        try:
            return self._read(pem.path)
        except OSError as error:
            raise pem.place.error(f"cannot read {pem.path}: {error.strerror}; give a file that is there") from error

    def _read(self, path: str) -> bytes:
        # Stamped first: what changes between the two is seen as changed the next time.
        self._stamps[path] = _stamp(path)
        # Opening a pipe for reading waits for a writer, and no request would be answered meanwhile.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(0, "it is no regular file")
            data = file.read(_LARGEST_BYTES + 1)
        if len(data) > _LARGEST_BYTES:
            raise OSError(0, f"it is larger than {_LARGEST_BYTES >> 20} MiB")
        return data


def _stamp(path: str) -> Stamp:
    """What differs once a file is another, or has been written; the error's number if it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
