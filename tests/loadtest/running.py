"""What tests of load tests share: the application on loopback, and a run of the scripts by k6 or by its stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LOADTEST = HERE.parents[1] / "loadtest"
MAIN = LOADTEST / "k6" / "main.js"
STANDIN = ("node", str(HERE / "standin.mjs"))

BEGIN = "-----BEGIN PODTALLY K6 SUMMARY-----\n"
END = "\n-----END PODTALLY K6 SUMMARY-----"

PROFILES = ("load", "stress", "spike", "soak", "autoscale", "latency")
SHORT = {"TIME_SCALE": "0.004", "THINK_SECONDS": "0.03", "USERS": "30"}
"""Each stage is a second or a few."""
SMALL = {"load": "0.04", "stress": "0.01", "spike": "0.01", "soak": "0.05", "autoscale": "0.01", "latency": "0.1"}
"""SCALE by profile: four to eight virtual users, so that the application is never the limit."""


@contextmanager
def application(*arguments: str) -> Iterator[str]:
    """The application on a free port of loopback; its address."""
    command = [sys.executable, str(HERE / "application.py"), "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().split()[-1]}"
        finally:
            process.terminate()


def tell(address: str, fault: str) -> None:
    """Have the application do wrong, or right again."""
    with urllib.request.urlopen(urllib.request.Request(f"{address}/fault/{fault}", method="POST"), timeout=10):
        pass


def k6_program() -> str | None:
    """The k6 that this machine has, if any: $K6, or the one on the path."""
    return os.environ.get("K6") or shutil.which("k6")


def scripts(
    action: str, environment: Mapping[str, str], *, k6: str | None = None, seconds: float = 100
) -> subprocess.CompletedProcess[str]:
    """``inspect`` or ``run`` the scripts with these variables and none of ours, by the stand-in or by a k6."""
    if k6 is None:
        command, variables = [*STANDIN, action, str(MAIN)], dict(environment)
    else:
        flags = {"inspect": ["--execution-requirements"], "run": ["--quiet", "--no-usage-report"]}[action]
        given = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        command, variables = [k6, action, *flags, *given, str(MAIN)], {}
    variables = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=seconds, check=False)


def summary_in(output: str) -> dict[str, Any]:
    """The summary that stands between its two marker lines."""
    _, _, rest = output.partition(BEGIN)
    text, found, _ = rest.partition(END)
    assert found, output
    summary: dict[str, Any] = json.loads(text)
    return summary


def crossed(summary: Mapping[str, Any]) -> set[str]:
    """The thresholds that were not held, as ``metric expression``."""
    return {
        f"{name} {threshold}"
        for name, metric in summary["metrics"].items()
        for threshold, verdict in metric.get("thresholds", {}).items()
        if not verdict["ok"]
    }
