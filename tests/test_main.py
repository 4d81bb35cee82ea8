"""The program's entry point: an interrupt while it is being imported ends it without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib

import pytest

from collector.__main__ import main
from tests.helpers import REPO, environment

AT_IMPORT = """
import os, runpy, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), {number:d})
sys.meta_path.insert(0, Interrupt())
sys.argv = ["podtally", "--version"]
runpy.run_module("collector", run_name="__main__")
"""


def interrupted(name: str, number: int, *before: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of the program that gets a signal as it comes to import a module."""
    done = subprocess.run(
        [*before, sys.executable, "-c", AT_IMPORT.format(name=name, number=number)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["collector.cli", "argparse", "prometheus_client", "aiohttp", "collector.server.app"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_during_imports_is_no_traceback(name: str, number: int) -> None:
    """The status is a shell's, by a handler: SIGTERM without one does nothing to a container's first process."""
    assert interrupted(name, number) == (128 + number, "", "")


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    """A shell without job control starts its background jobs so."""
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    status, stdout, stderr = interrupted("aiohttp", signal.SIGINT, *ignoring)

    assert (status, stdout.startswith("podtally "), stderr) == (0, True, "")


def test_the_command_is_this_entry_point() -> None:
    """What pip installs as podtally imports nothing heavy before the guard."""
    scripts = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert scripts == {"podtally": f"{main.__module__}:{main.__name__}"}
