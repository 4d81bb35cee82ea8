"""Shared by tests of load tests' reports: kept folders, made-up series, a kubectl that plays back, Prometheus."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from collector.loadtest.model import Kept, Point, Run, Series, Span, Spans
from collector.loadtest.report import run_to_json
from monitoring import local
from tests.helpers import FOR_OLD_SAMPLES, free_port, podtally
from tests.support import FIXTURES

LOGS = FIXTURES.parent / "loadtest"
STEADY = LOGS / "steady"

BEGIN = 1_800_000_000.0
SPANS = Spans(Span(BEGIN, BEGIN + 60), Span(BEGIN + 60, BEGIN + 180), Span(BEGIN + 195, BEGIN + 255))
STEP = 5.0

# --- synthetic: what no recording has, a load that rises -------------------------------------------------------------


def run_of(**changes: Any) -> Run:
    """A run that k6 ended well."""
    values: dict[str, Any] = {
        "profile": "load",
        "testid": "k6-load-7xk2p",
        "spans": SPANS,
        "namespaces": ("shop",),
        "job": "loadtest/k6-load",
        "job_namespace": "loadtest",
        "pod": "k6-load-abcde",
        "node": "node1",
        "exit_code": 0,
        "ending": "Completed",
        "client_limit_cores": None,
        "node_cores": 4.0,
        "prometheus": "http://127.0.0.1:9090",
        "podtally": "0.0.0",
        "missing": {},
    }
    return Run(**{**values, **changes})


Made = tuple[str, dict[str, str], list[Point]]
"""A name, labels and samples."""


def made(name: str, of: Callable[[float], float | None], **labels: str) -> Made:
    """A series whose value is a function of the seconds since the beginning."""
    whole = SPANS.whole
    times = [whole.begin + number * STEP for number in range(int(whole.seconds / STEP) + 1)]
    points = [Point(at, value) for at in times if (value := of(at - BEGIN)) is not None]
    return name, labels, points


def series(name: str, of: Callable[[float], float | None], **labels: str) -> Series:
    """The same as the code has it."""
    _, found, points = made(name, of, **labels)
    return Series(name, found, tuple(points))


def answer(*of: Made) -> bytes:
    """Prometheus' answer."""
    result = [
        {"metric": dict(labels, __name__=name), "values": [[point.time, str(point.value)] for point in points]}
        for name, labels, points in of
    ]
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": result}}).encode()


def under(load: float, idle: float) -> Callable[[float], float]:
    """A gauge that is one thing under load and another before and after."""
    return lambda seconds: load if 60 < seconds <= 180 else idle


def counted(load: float, idle: float = 0.0) -> Callable[[float], float]:
    """A counter that grows so much a second."""
    return lambda seconds: idle * seconds + (load - idle) * min(max(seconds - 60, 0.0), 120.0)


WEB = {"namespace": "shop", "pod": "web-5d9-x"}
STORE = {"namespace": "shop", "pod": "store-0"}
CLIENT = {"namespace": "loadtest", "pod": "k6-load-abcde"}
MIB = float(1 << 20)


def shop() -> dict[str, bytes]:
    """Synthetic: `web` rises and is throttled by its limit, `store` takes memory, k6 has CPU to spare."""
    return {
        "pods": answer(
            made("pod_info", lambda _: 1, **WEB, workload_kind="Deployment", workload_name="web"),
            made("pod_info", lambda _: 1, **STORE, workload_kind="StatefulSet", workload_name="store"),
            made("pod_cpu_usage_cores", under(0.48, 0.02), **WEB),
            made("pod_cpu_usage_cores", under(0.1, 0.01), **STORE),
            made("pod_memory_usage_bytes", under(40 * MIB, 30 * MIB), **WEB),
            made("pod_memory_usage_bytes", under(200 * MIB, 100 * MIB), **STORE),
            made("pod_cgroup_cpu_limit_cores", lambda _: 0.5, **WEB),
        ),
        "containers": answer(
            made("pod_container_cpu_usage_seconds_total", counted(0.48, 0.02), **WEB, container="web"),
            made("pod_container_cpu_limit_cores", lambda _: 0.5, **WEB, container="web"),
            made("pod_container_cpu_periods_total", counted(10), **WEB, container="web"),
            made("pod_container_cpu_throttled_periods_total", counted(8), **WEB, container="web"),
            made("pod_container_cpu_throttled_seconds_total", counted(0.4), **WEB, container="web"),
        ),
        "kubelet": answer(),
        "k6": answer(
            made("k6_vus", under(10, 0), testid="local"),
            made("k6_http_reqs_total", counted(36), testid="local", endpoint="compose", status="200"),
            made("k6_http_reqs_total", counted(4), testid="local", endpoint="compose", status="500"),
            made("k6_http_req_duration_p95", under(0.2, 0), testid="local", endpoint="compose", status="200"),
        ),
        "client": answer(
            made("pod_cpu_usage_cores", under(1.0, 0.0), **CLIENT),
            made("pod_cgroup_cpu_pressure_seconds_total", counted(0.05), **CLIENT, stalled="some"),
        ),
    }


def kept(log: str | None = "load-held.log", answers: Mapping[str, bytes] | None = None, **changes: Any) -> Kept:
    """A kept folder: a real log of the scripts', and the made-up shop."""
    return Kept(
        run=run_to_json(run_of(**changes)).encode(),
        log=None if log is None else (LOGS / log).read_bytes(),
        answers=shop() if answers is None else answers,
        peer=None,
    )


# --- kubectl ----------------------------------------------------------------------------------------------------------

_PLAYER = f"""#!{sys.executable}
# Plays back what is written beside it: no cluster is asked. The last answer of a call stays.
import json, pathlib, sys
here = pathlib.Path(__file__).resolve().parent
called = " ".join(sys.argv[1:])
given = "" if sys.stdin is None else sys.stdin.read()
with (here / "calls.jsonl").open("a") as out:
    out.write(json.dumps([called, given]) + "\\n")
answers = json.loads((here / "answers.json").read_text())
for begins, says in answers.items():
    if called.startswith(begins):
        said = says.pop(0) if len(says) > 1 else says[0]
        (here / "answers.json").write_text(json.dumps(answers))
        sys.stdout.write(said.get("out", ""))
        sys.stderr.write(said.get("err", ""))
        sys.exit(said.get("code", 1 if "err" in said else 0))
sys.stderr.write("the player has no answer to: " + called)
sys.exit(9)
"""

Says = Mapping[str, Any]


class PlayedKubectl:
    """A program that answers by the beginnings of its arguments, in turns."""

    def __init__(self, folder: Path, answers: Mapping[str, Sequence[Says]]) -> None:
        self.folder = folder
        self.program = str(folder / "kubectl")
        (folder / "kubectl").write_text(_PLAYER)
        (folder / "kubectl").chmod(0o755)
        (folder / "answers.json").write_text(json.dumps(answers))

    def calls(self) -> list[tuple[str, str]]:
        """Arguments and stdin of each call."""
        lines = (self.folder / "calls.jsonl").read_text().splitlines()
        return [(called, given) for called, given in map(json.loads, lines)]


# --- Prometheus -------------------------------------------------------------------------------------------------------


@contextmanager
def prometheus(folder: Path, recording: str) -> Iterator[str]:
    """A Prometheus with a recording's samples at their own times, which scrapes nothing; its URL."""
    samples, data = folder / "samples.txt", folder / "data"
    written = podtally("replay", FIXTURES / recording, "--openmetrics", samples)
    assert written.returncode == 0, written.stderr
    blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(samples), str(data)]
    done = subprocess.run(blocks, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    listen = f"127.0.0.1:{free_port()}"
    with local.prometheus(folder, {}, listen, FOR_OLD_SAMPLES):
        yield f"http://{listen}"
