"""The folder of a run: what is kept of it, and the reports that are made of that. I/O."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from collector.errors import UsageError
from collector.loadtest import html, markdown, report
from collector.loadtest.model import Kept, Report

RUN: Final = "run.json"
LOG: Final = "k6.log"
PEER: Final = "metrics-api.jsonl"
ANSWERS: Final = "prometheus"
HTML: Final = "report.html"
MARKDOWN: Final = "report.md"
JSON: Final = "report.json"


class Folder:
    """A run's folder. What cannot be read or written raises :class:`UsageError`."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @classmethod
    def new(cls, path: str) -> Folder:
        """Make a folder for a new run; an empty one may be there."""
        made = cls(path)
        try:
            made.path.mkdir(parents=True, exist_ok=True)
            if any(made.path.iterdir()):
                raise UsageError(f"{path} is not empty: name another folder by --out")
        except OSError as error:
            raise UsageError(f"{path} cannot be made a folder of: {error.strerror}") from error
        return made

    def write(self, name: str, body: bytes | str) -> None:
        """Keep a file. One that is written is whole, or not there."""
        to = self.path / name
        try:
            to.parent.mkdir(exist_ok=True)
            part = to.with_name(f".{to.name}.part")
            part.write_bytes(body.encode() if isinstance(body, str) else body)
            part.replace(to)
        except OSError as error:
            raise UsageError(f"{to} cannot be written: {error.strerror}") from error

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.path / name} cannot be read: {error.strerror}") from error

    def kept(self) -> Kept:
        """All that is kept."""
        if not self.path.is_dir():
            raise UsageError(f"{self.path} is no folder: name that of a run, as podtally loadtest run has told it")
        run = self._read(RUN)
        if run is None:
            raise UsageError(
                f"{self.path} has no {RUN}: name the folder of a run, as podtally loadtest run has told it"
            )
        answers = {}
        folder = self.path / ANSWERS
        for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
            body = self._read(f"{ANSWERS}/{name}")
            if name.endswith(".json") and body is not None:
                answers[name.removesuffix(".json")] = body
        return Kept(run=run, log=self._read(LOG), answers=answers, peer=self._read(PEER))

    def report(self) -> Report:
        """Make the reports, and give what is in them."""
        made = report.make(self.kept(), str(self.path / RUN))
        self.write(HTML, html.render(made))
        self.write(MARKDOWN, markdown.render(made))
        self.write(JSON, report.to_json(made))
        return made
