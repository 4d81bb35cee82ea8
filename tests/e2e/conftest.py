"""What the end-to-end tests share: Prometheus from the first test on, and ten minutes of watching."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
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


@dataclass
class Observing:
    """A span that is being watched: it goes on while other tests run."""

    watch: Watch
    seen: Observed

    def whole(self) -> Observed:
        """Wait until it is as long as it is to be, and end it."""
        while (left := self.seen.began + OBSERVE_SECONDS - time.time()) > 0:
            print(f"    watching for {left:.0f} s more, {len(self.seen.answers)} answers so far", flush=True)
            time.sleep(min(60.0, left))
        self.watch.end()
        self.seen.ended = time.time()
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
    watch.every(1.0, "ours", lambda: of_collector("/metrics/resource"), seen.ours.add)
    watch.every(5.0, "kubelet", lambda: of_kubelet("/metrics/resource"), seen.kubelet.add)
    watch.every(7.0, "metrics API", metrics_api, lambda _, text: seen.answers.extend(tops(text)))
    yield Observing(watch, seen)
    watch.end()


@pytest.fixture(scope="session")
def observed(observing: Observing | None) -> Observed:
    """The ten minutes that several tests look at, when they are over."""
    assert observing is not None, "it is watched because this is asked for"
    return observing.whole()
