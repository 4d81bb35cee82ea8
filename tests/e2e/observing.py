"""What tests see of the running cluster: expositions, the metrics API, and a watch over all of them for minutes."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from collector.errors import AnswerError
from tests.e2e import pace
from tests.e2e.cluster import collector_pod, collector_url, kubectl
from tests.e2e.layout import ADMIN_KUBECONFIG, BIN, NODE_ADDRESS, PKI, RESULTS
from tests.e2e.processes import E2EError, inside, wait_for

CPU = "container_cpu_usage_seconds_total"
MEMORY = "container_memory_working_set_bytes"
START = "container_start_time_seconds"


class Container(NamedTuple):
    """A container by name."""

    namespace: str
    pod: str
    name: str


class Sample(NamedTuple):
    """One sample of a container on a page in the form of /metrics/resource."""

    time_seconds: float
    cpu_seconds: float
    memory_bytes: float
    start_seconds: float


def fetch(url: str, *, token: str | None = None, client: str | None = None, timeout: float = 20) -> str:
    """The body that a URL answers with. Raises: OSError, of which URLError and HTTPError are kinds."""
    context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    if client:
        context.load_cert_chain(PKI / f"{client}.crt", PKI / f"{client}.key")
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
        body: bytes = answer.read()
    return body.decode()


def of_kubelet(path: str) -> str:
    """A page of the kubelet's, asked as the administrator."""
    return fetch(f"https://{NODE_ADDRESS}:10250{path}", client="admin")


_url = cache(collector_url)


def of_collector(path: str, namespace: str = "podtally") -> str:
    """A page of podtally's pod, whose address is looked up when the one that is known does not answer."""
    known = _url(namespace)
    try:
        return fetch(known + path)
    except OSError:
        _url.cache_clear()
        if _url(namespace) == known:
            raise
    return fetch(_url(namespace) + path)


def record(name: str, *, seconds: int, every: int, namespace: str = "podtally") -> Path:
    """A recording taken through podtally's pod into a file here."""
    pod = collector_pod(namespace)["metadata"]["name"]
    program = ["-n", namespace, "exec", pod, "--", "podtally"]
    wait_for("a way into the pod", lambda: kubectl(*program, "--version", check=False), 90, every=2)
    out = RESULTS / f"{name}.tar.zst"
    command = [str(BIN / "kubectl"), f"--kubeconfig={ADMIN_KUBECONFIG}", *program]
    with open(out, "wb") as file:
        done = subprocess.run(
            inside([*command, "record", "-", "--duration", f"{seconds}s", "--interval", f"{every}s"]),
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
            timeout=seconds + 250,
        )
    assert done.returncode == 0, done.stderr.decode()
    return out


def samples(page: str) -> dict[Container, Sample]:
    """The containers of a page in the form of /metrics/resource."""
    values: dict[Container, dict[str, tuple[float, float]]] = defaultdict(dict)
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in (CPU, MEMORY, START):
                key = Container(sample.labels["namespace"], sample.labels["pod"], sample.labels["container"])
                values[key][sample.name] = (sample.value, float(sample.timestamp or 0))
    return {
        key: Sample(found[CPU][1], found[CPU][0], found[MEMORY][0], found.get(START, (0.0, 0.0))[0])
        for key, found in values.items()
        if CPU in found and MEMORY in found
    }


def series(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All series of an exposition."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def millicores(quantity: str) -> float:
    """Cores of a Kubernetes quantity, times 1,000."""
    number, unit = re.fullmatch(r"([0-9.]+)([num]?)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"n": 1e-6, "u": 1e-3, "m": 1.0, "": 1e3}[unit]


def memory_bytes(quantity: str) -> float:
    """Bytes of a Kubernetes quantity."""
    number, unit = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}[unit]


_FAILURES = (OSError, HTTPException, ValueError, AnswerError, E2EError, subprocess.TimeoutExpired)


class Watch:
    """Asks for pages again and again in threads of its own, and keeps what came with its time; failures as well, and
    when the node was late.
    """

    def __init__(self) -> None:
        self.lags = pace.Lags(pace.current().answer_seconds)
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: dict[str, list[tuple[float, str]]] = defaultdict(list)

    def every(self, seconds: float, name: str, ask: Callable[[], str], keep: Callable[[float, str], None]) -> None:
        """Ask in a thread until the watch ends."""

        def run() -> None:
            while not self._end.is_set():
                began = time.monotonic()
                now = time.time()
                try:
                    keep(now, ask())
                except _FAILURES as error:
                    self.failures[name].append((now, f"{type(error).__name__}: {error}"))
                self.lags.asked(now, now + time.monotonic() - began)
                self._end.wait(max(0.0, seconds - (time.monotonic() - began)))

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def end(self) -> None:
        """End all threads."""
        self._end.set()
        for thread in self._threads:
            thread.join(30)


class Top(NamedTuple):
    """What the metrics API says of a container: what kubectl top prints, before it rounds."""

    container: Container
    time: str
    window_seconds: float
    cpu_millicores: float
    memory_bytes: float


def tops(answer: str) -> list[Top]:
    """The containers of an answer of metrics.k8s.io."""
    found = []
    for item in json.loads(answer)["items"]:
        place = item["metadata"]["namespace"], item["metadata"]["name"]
        for container in item["containers"]:
            usage = container["usage"]
            key = Container(*place, container["name"])
            window = _duration(item["window"])
            found.append(Top(key, item["timestamp"], window, millicores(usage["cpu"]), memory_bytes(usage["memory"])))
    return found


def _duration(text: str) -> float:
    parts = re.findall(r"([0-9.]+)(ms|h|m|s)", text)
    return sum(float(number) * {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)


def metrics_api() -> str:
    """What kubectl top asks for."""
    return kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, file: str) -> str:
    """A table in Markdown; printed, and kept among the results."""
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    print("\n" + text, flush=True)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with open(Path(RESULTS) / file, "a", encoding="utf-8") as out:
        out.write(text + "\n")
    return text


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
