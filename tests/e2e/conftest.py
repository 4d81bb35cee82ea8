"""What the end-to-end tests share: Prometheus from the first test on, and ten minutes of watching."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from collector.model import Answer
from collector.parity.peers import parse_pod_metrics
from collector.parity.resource import Owner
from collector.parity.verification import Row, Verification
from tests.e2e import pace
from tests.e2e.observing import Watch, metrics_api, of_collector, of_kubelet
from tests.e2e.prometheus import start_prometheus

TOLERANCE = 0.01
"""Of memory the aim; of CPU below the aim for the worst, so that what differs by more is held to our readings."""

OBSERVE_SECONDS = float(os.environ.get("PODTALLY_E2E_OBSERVE_SECONDS") or 600)
"""On a slow node longer: as many samples come of it."""


def pytest_configure(config: pytest.Config) -> None:
    """The short set runs on the second driver and kernel too; what is apart would take `make e2e` over half an hour."""
    config.addinivalue_line("markers", "short: runs on every driver and kernel, in a minute or two")
    config.addinivalue_line("markers", "runtime: of one runtime; runs with `--runtime NAME`, on a node of its own")
    config.addinivalue_line(
        "markers", "apart: what stands beside the DaemonSet; runs with `--apart`, on a node of its own"
    )


@dataclass
class Observed:
    """What was seen of one span."""

    began: float = 0.0
    ended: float = 0.0
    verification: Verification = field(
        default_factory=lambda: Verification(TOLERANCE, late_seconds=pace.current().late_seconds)
    )
    shown: set[Owner] = field(default_factory=set)
    """Containers that kubectl top showed."""
    answers: int = 0
    lags: pace.Lags = field(default_factory=pace.Lags)
    """When the node did not keep up."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ours(self, _: float, page: str) -> None:
        """Take a page of podtally's in."""
        with self.lock:
            self.verification.add_our_page(page)

    def theirs(self, name: str) -> Callable[[float, str], None]:
        """Takes a peer's answers in."""

        def keep(now: float, text: str) -> None:
            with self.lock:
                self.verification.add_answer(Answer(name, round(now * 1e9), 200, None, text.encode()))

        return keep

    def judged(self, rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
        """Those that can be judged, and those of which an end lies where the node did not keep up."""
        judged: list[Row] = []
        slow: list[Row] = []
        for row in rows:
            ends = (row.end_ns if row.begin_ns is None else row.begin_ns, row.end_ns)
            (slow if any(self.lags.touch(end / 1e9) for end in ends) else judged).append(row)
        return judged, slow

    def metrics_api(self, now: float, text: str) -> None:
        """Take an answer of the metrics API in, and note what it shows."""
        self.theirs("metrics-api/pods.json")(now, text)
        self.answers += 1
        for pod in parse_pod_metrics(text.encode()):
            self.shown |= {pod.owner._replace(container=name) for name in pod.containers}


@dataclass
class Observing:
    """A span that is being watched: it goes on while other tests run."""

    watch: Watch
    seen: Observed

    def whole(self) -> Observed:
        """Wait until it is as long as it is to be, and end it."""
        seconds = pace.current().seconds(OBSERVE_SECONDS)
        while (left := self.seen.began + seconds - time.time()) > 0:
            print(f"    watching for {left:.0f} s more, {self.seen.answers} answers so far", flush=True)
            time.sleep(min(60.0, left))
        self.watch.end()
        self.seen.ended, self.seen.lags = time.time(), self.watch.lags
        print(f"    {pace.current()}; it lagged {len(self.seen.lags.spans)} times", flush=True)
        for name, failures in self.watch.failures.items():
            print(f"    {name}: {len(failures)} questions failed, the last: {failures[-1][1][:200]}", flush=True)
        return self.seen


@pytest.fixture(scope="session")
def prometheus() -> float:
    """Prometheus scrapes from now on; the time since when."""
    start_prometheus()
    return time.time()


@pytest.fixture(scope="session", autouse=True)
def observing(request: pytest.FixtureRequest) -> Iterator[Observing | None]:
    """Our page, the kubelet's and the metrics API side by side, from the first test on if a later one looks at them."""
    if not any("observed" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    request.getfixturevalue("prometheus")
    seen, watch = Observed(began=time.time()), Watch()
    watch.every(1.0, "ours", lambda: of_collector("/metrics/resource"), seen.ours)
    resource = seen.theirs("kubelet/metrics_resource.txt")
    watch.every(8.0, "kubelet", lambda: of_kubelet("/metrics/resource"), resource)
    watch.every(7.0, "metrics API", metrics_api, seen.metrics_api)
    yield Observing(watch, seen)
    watch.end()


@pytest.fixture(scope="session")
def observed(observing: Observing | None) -> Observed:
    """The ten minutes that several tests look at, when they are over."""
    assert observing is not None, "it is watched because this is asked for"
    return observing.whole()
