"""What the end-to-end tests share: Prometheus from the first test on, and ten minutes of watching."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

import pytest

from tests.e2e.observing import Top, Track, Watch, metrics_api, of_collector, of_kubelet, tops
from tests.e2e.prometheus import start_prometheus

OBSERVE_SECONDS = float(os.environ.get("PODTALLY_E2E_OBSERVE_SECONDS") or 600)


def pytest_configure(config: pytest.Config) -> None:
    """The short set is what runs on the second driver and kernel."""
    config.addinivalue_line("markers", "short: runs on every driver and kernel, in a minute or two")


@dataclass
class Observed:
    """What was seen of one span."""

    began: float = 0.0
    ended: float = 0.0
    ours: Track = field(default_factory=Track)
    kubelet: Track = field(default_factory=Track)
    answers: list[Top] = field(default_factory=list)


def observe(seconds: float) -> Observed:
    """Watch our page, the kubelet's and the metrics API side by side."""
    seen = Observed(began=time.time())
    watch = Watch()
    watch.every(1.0, "ours", lambda: of_collector("/metrics/resource"), seen.ours.add)
    watch.every(5.0, "kubelet", lambda: of_kubelet("/metrics/resource"), seen.kubelet.add)
    watch.every(7.0, "metrics API", metrics_api, lambda _, text: seen.answers.extend(tops(text)))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(60.0, max(0.0, end - time.monotonic())))
        print(f"    {time.time() - seen.began:.0f} of {seconds:.0f} s, {len(seen.answers)} answers", flush=True)
    watch.end()
    seen.ended = time.time()
    for name, failures in watch.failures.items():
        print(f"    {name}: {len(failures)} questions failed, the last: {failures[-1][1][:200]}", flush=True)
    return seen


@pytest.fixture(scope="session")
def prometheus() -> float:
    """Prometheus scrapes from now on; the time since when."""
    start_prometheus()
    return time.time()


@pytest.fixture(scope="session")
def observed(prometheus: float) -> Observed:
    """The ten minutes that several tests look at."""
    return observe(OBSERVE_SECONDS)
