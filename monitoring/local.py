"""Prometheus with the shipped configuration on this machine, in front of a collector that replays a recording.

`make monitor` runs it; tests take :func:`configuration` and :func:`prometheus` from here, so that what a newcomer sees,
what is tested and what runs in a cluster differ in how the targets are found and in nothing else.
"""

from __future__ import annotations

import argparse
import http
import http.client
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import yaml

from monitoring.address import LocalError, need_free, reached_at

HERE = Path(__file__).resolve().parent
CONFIGURATION = HERE / "prometheus" / "prometheus.yml"
FLAGS = ("--web.enable-remote-write-receiver",)
"""Of the Deployment's arguments those that are not about files and ports."""

DEADLINE_SECONDS = 60.0

HOW_TO_INSTALL = (
    "Prometheus is not installed, or not on the PATH: apt-get install prometheus (Debian, Ubuntu), "
    "brew install prometheus (macOS), or take it from https://prometheus.io/download/"
)


ELSEWHERE = "make monitor LISTEN=127.0.0.1:9754"
PROMETHEUS_ELSEWHERE = "make monitor PROMETHEUS=127.0.0.1:9091"
"""What to do where an address is taken."""


def configuration(targets: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """The shipped configuration with these targets, address by node, in place of those that Kubernetes would tell.

    They come with the labels that its discovery gives, so that relabelling is as shipped. ``changes`` are of
    ``global``.
    """
    config: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    config["global"] |= changes
    config["rule_files"] = [str(CONFIGURATION.parent / pattern) for pattern in config["rule_files"]]
    for job in config["scrape_configs"]:
        del job["kubernetes_sd_configs"]
        job["static_configs"] = [
            {
                "targets": [address],
                "labels": {
                    "__meta_kubernetes_pod_node_name": node,
                    "__meta_kubernetes_pod_container_port_name": "metrics",
                },
            }
            for node, address in targets.items()
        ]
    return config


def query(url: str, expression: str, **more: str) -> list[dict[str, Any]]:
    """The result of an instant query. Raises: OSError while Prometheus does not answer, or refuses the query."""
    arguments = urllib.parse.urlencode({"query": expression, **more})
    with urllib.request.urlopen(f"{url}/api/v1/query?{arguments}", timeout=10) as answer:
        return list(json.load(answer)["data"]["result"])


@contextmanager
def prometheus(
    folder: Path, config: Mapping[str, Any], listen: str, more: Sequence[str] = FLAGS
) -> Iterator[subprocess.Popen[bytes]]:
    """Prometheus with this configuration, its data and log in ``folder``, until the block ends. Raises: LocalError."""
    program = shutil.which("prometheus")
    if program is None:
        raise LocalError(HOW_TO_INSTALL)
    need_free(listen, PROMETHEUS_ELSEWHERE)
    reached = reached_at(listen, PROMETHEUS_ELSEWHERE)
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={listen}",
                *more,
            ],
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, f"http://{reached}", log)
        yield process
    finally:
        _end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                pass
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "rror" in line]
    raise LocalError(f"Prometheus does not serve at {url}: {lines[-1] if lines else 'it says nothing of why'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


TRY = (
    ("CPU in cores as kubectl top prints it", "topk(5, pod_cpu_usage_cores)"),
    ("bursts that the average hides", "topk(5, pod_cpu_usage_peak_cores - on (namespace, pod) pod_cpu_usage_cores)"),
    ("memory by workload", "topk(5, namespace_workload:pod_memory_usage_bytes:sum)"),
)
"""What a newcomer may ask first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay a recording with Prometheus in front of it, until Ctrl-C or one of the two ends."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.local", description=__doc__)
    parser.add_argument("recording", help="what the collector replays, in a loop")
    parser.add_argument("--listen", default="127.0.0.1:9753", help="the collector's address (default: %(default)s)")
    parser.add_argument("--prometheus", default="127.0.0.1:9090", help="Prometheus' address (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if shutil.which("prometheus") is None:
        print(HOW_TO_INSTALL, file=sys.stderr)
        return 2
    # Not what is set for SIGINT: a shell that starts it in the background has that ignored.
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, _end_at_once)
    try:
        need_free(chosen.listen, ELSEWHERE)
        need_free(chosen.prometheus, PROMETHEUS_ELSEWHERE)
        with (
            _replaying(chosen.recording, chosen.listen) as collector,
            tempfile.TemporaryDirectory(prefix="podtally-prometheus-") as folder,
        ):
            reached = reached_at(chosen.listen, ELSEWHERE)
            config = configuration({_node_of(collector, reached): reached})
            with prometheus(Path(folder), config, chosen.prometheus) as server:

                def alive() -> bool:
                    return collector.poll() is None and server.poll() is None

                _tell(reached, f"http://{reached_at(chosen.prometheus, PROMETHEUS_ELSEWHERE)}", alive)
                while alive():
                    time.sleep(0.5)
                who = "Prometheus" if collector.poll() is None else "the collector"
                print(f"{who} has ended, and so does the rest", file=sys.stderr)
                return 1
    except LocalError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


def _end_at_once(*_: object) -> NoReturn:
    """Leave by way of what ends the two. Once: ``timeout`` and make both hand a signal on."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _replaying(recording: str, listen: str) -> Iterator[subprocess.Popen[bytes]]:
    """The collector, until the block ends. Ctrl-C is not of its terminal, so that it is ended after Prometheus."""
    process = subprocess.Popen(
        [sys.executable, "-m", "collector", "replay", recording, "--loop", "--listen", listen], start_new_session=True
    )
    try:
        yield process
    finally:
        _end(process)


def _node_of(collector: subprocess.Popen[bytes], address: str) -> str:
    """The node of the recording, once it is served. Raises: LocalError if it is not, or another program answers."""
    end = time.monotonic() + DEADLINE_SECONDS
    while collector.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://{address}/api/v1/pods", timeout=5) as answer:
                node = str(json.load(answer)["node"])
        except (http.client.HTTPException, ValueError, LookupError, TypeError, OSError) as error:
            # Nobody answers yet, or the collector has no tick yet.
            unanswered = isinstance(error, OSError) and not isinstance(error, urllib.error.HTTPError)
            if not unanswered and getattr(error, "code", None) != http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise LocalError(
                    f"what answers at http://{address}/ is not the collector: choose another address: {ELSEWHERE}"
                ) from error
            time.sleep(0.1)
        else:
            # Who answers while ours cannot serve there is another podtally.
            if collector.poll() is None:
                return node
    raise LocalError(f"the collector does not serve at {address}")


def _has(url: str, expression: str) -> bool:
    try:
        return bool(query(url, expression))
    except OSError:
        return False  # it has ended, or is ending


def _tell(listen: str, url: str, alive: Callable[[], bool]) -> None:
    """Say where to look and what to ask, once the first numbers are there."""
    while not _has(url, "pod_cpu_usage_cores"):
        if not alive():
            return
        time.sleep(0.5)
    print(f"The collector: http://{listen}/   Prometheus: {url}/   Ctrl-C ends both, and nothing is kept.")
    for what, expression in TRY:
        asked = urllib.parse.urlencode({"g0.expr": expression, "g0.tab": "0", "g0.range_input": "5m"})
        print(f"  {what}:\n    {expression}\n    {url}/graph?{asked}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
