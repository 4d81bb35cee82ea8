"""Values of a load test, with units in their names. ``None`` is absent, never 0. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

PartName = Literal["before", "during", "after"]
PARTS: Final[tuple[PartName, ...]] = ("before", "during", "after")


class Span(NamedTuple):
    """From when to when."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.begin

    def holds(self, time: float) -> bool:
        """Whether a time is in it, ends included."""
        return self.begin <= time <= self.end


class Spans(NamedTuple):
    """The three parts of what is looked at."""

    before: Span
    during: Span
    after: Span

    @property
    def whole(self) -> Span:
        """From the first to the last moment."""
        return Span(self.before.begin, self.after.end)


class Point(NamedTuple):
    """A sample."""

    time: float
    value: float


class Series(NamedTuple):
    """Samples of Prometheus' in order of time, each with the time of its scrape. ``name`` is the family's."""

    name: str
    labels: Mapping[str, str]
    points: tuple[Point, ...]


class Workload(NamedTuple):
    """A service: what owns pods, as ``pod_info`` tells it."""

    namespace: str
    kind: str
    name: str


# --- what is kept of a run ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run was, and how it ended: ``run.json`` of its folder."""

    profile: str
    testid: str
    spans: Spans
    namespaces: tuple[str, ...]
    """Where the application is."""
    job: str
    """Namespace and name of the Job."""
    pod: str | None
    """The name of k6's pod; with the Job's namespace it is the place of k6's own CPU."""
    job_namespace: str
    exit_code: int | None
    """k6's; ``None`` if its container told none."""
    ending: str | None
    """What Kubernetes says of the end, where it is not k6's: OOMKilled, DeadlineExceeded."""
    client_limit_cores: float | None
    node_cores: float | None
    node: str | None
    prometheus: str
    """Where Prometheus was asked."""
    podtally: str
    """The version that ran it."""
    missing: Mapping[str, str]
    """What could not be fetched, by the name of the kept file, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The files of a run's folder, as they are. What is ``None`` is not there."""

    run: bytes
    log: bytes | None
    answers: Mapping[str, bytes]
    """Prometheus' answers by the name of their query."""
    peer: bytes | None
    """The metrics API's answers, one a line."""


# --- k6 -------------------------------------------------------------------------------------------------------------


class Threshold(NamedTuple):
    """What k6 held a metric to."""

    metric: str
    expression: str
    held: bool


class Requests(NamedTuple):
    """Requests of an endpoint, or of all."""

    endpoint: str | None
    """``None``: all."""
    number: int | None
    per_second: float | None
    failed_share: float | None
    checks_share: float | None
    """Of the checks that were made, those that held."""
    median_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    most_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What k6 said of its run at the end."""

    profile: str | None
    testid: str | None
    scale: float | None
    target: str | None
    started: float | None
    ended: float | None
    duration_seconds: float | None
    vus_most: int | None
    total: Requests
    endpoints: tuple[Requests, ...]
    thresholds: tuple[Threshold, ...]
    dropped_iterations: int | None


# --- what is found --------------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    """A gauge over a span: its mean and its greatest value. ``None``: no sample."""

    mean: float | None
    most: float | None


class Use(NamedTuple):
    """A gauge of a service before, during and after."""

    before: Usage
    during: Usage
    after: Usage

    def mean_factor(self) -> float | None:
        """During by before, both means; ``None`` if one is absent or nothing was used before."""
        return _factor(self.during.mean, self.before.mean)

    def most_factor(self) -> float | None:
        """The greatest during by the mean before."""
        return _factor(self.during.most, self.before.mean)


def _factor(during: float | None, before: float | None) -> float | None:
    return during / before if during is not None and before else None


SignalName = Literal["oom", "memory-limit", "throttling", "cpu-limit", "memory-pressure", "cpu-pressure", "io-pressure"]


class Signal(NamedTuple):
    """A sign of saturation that lasted."""

    name: SignalName
    pod: str
    container: str | None
    """``None``: the whole pod's cgroup."""
    since_seconds: float
    """From the beginning of the load."""
    share: float
    """Of periods, of the limit or of time, in the mean from then on; of kills, their number."""
    limit: float | None
    """In cores or bytes."""


class Track(NamedTuple):
    """A gauge on an even grid of time; a gap is ``None``."""

    begin: float
    step: float
    values: tuple[float | None, ...]

    def points(self) -> list[Point]:
        """The values that are there."""
        return [
            Point(self.begin + number * self.step, value)
            for number, value in enumerate(self.values)
            if value is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a service used."""

    workload: Workload
    pods_most: int
    cpu_cores: Use
    memory_bytes: Use
    cpu_limit_cores: float | None
    """Of all its pods, as there were most; ``None`` where a pod has no limit or it is not known."""
    memory_limit_bytes: float | None
    throttled_seconds: float | None
    """While under load, of the cgroup of each pod that was throttled most; ``None`` without a limit."""
    throttled_share: float | None
    """Likewise, throttled periods by all periods."""
    oom_kills: int | None
    signals: tuple[Signal, ...]
    """Those that began under load, the earliest first."""
    already: tuple[Signal, ...]
    """Those that held before it."""
    cpu: Track
    memory: Track


class Client(NamedTuple):
    """k6 itself."""

    cpu_cores: Usage
    capacity_cores: float | None
    """Its limit, else its node's CPUs."""
    capacity_is: Literal["limit", "node"] | None
    busy_share: float | None
    """Of its capacity, the 95th percentile under load."""
    throttled_share: float | None
    pressure_share: float | None
    """Share of time in which some of its tasks waited for CPU."""

    @property
    def starved(self) -> bool | None:
        """Whether k6 lacked CPU, so that latency is its own as well; ``None`` if that is not known."""
        shares = (
            (self.busy_share, BUSY_SHARE),
            (self.throttled_share, THROTTLED_SHARE),
            (self.pressure_share, PRESSURE_SHARE),
        )
        if any(share is not None and share > least for share, least in shares):
            return True
        return None if self.busy_share is None else False


BUSY_SHARE: Final = 0.8
"""A client that uses more of its CPU measures itself."""
THROTTLED_SHARE: Final = 0.05
PRESSURE_SHARE: Final = 0.2


class Compared(NamedTuple):
    """A quantity of a service, ours and the metrics API's over the same windows."""

    workload: Workload
    quantity: Literal["cpu", "memory"]
    samples: int
    ours: float
    theirs: float
    agrees: bool
    within: int
    """How many single samples agree."""

    @property
    def difference(self) -> float | None:
        """As a share of theirs, with its sign."""
        return (self.ours - self.theirs) / self.theirs if self.theirs else None


class Agreement(NamedTuple):
    """With kubectl top."""

    source: Literal["metrics-api", "kubelet"] | None
    """The metrics API's samples; else what ``serve --verify-interval`` found of the kubelet's."""
    tolerance: float
    compared: tuple[Compared, ...]
    kubelet_compared: int | None
    kubelet_outside: int | None
    """Of all comparisons of the kubelet's with ours under load."""
    why_not: str | None


class Coverage(NamedTuple):
    """How much of a part there are samples of."""

    part: PartName
    span: Span
    share: float | None
    """``None``: none was asked for, as Prometheus did not answer."""


State = Literal["passed", "failed", "missing"]

Weight = Literal["required", "optional", "told"]
"""What a criterion does to the verdict: missing is no success; missing is none of its business; nothing at all."""


class Criterion(NamedTuple):
    """One of what success is made of."""

    name: str
    state: State
    weight: Weight
    text: str


Outcome = Literal["passed", "failed", "incomplete", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is told of a run."""

    run: Run
    outcome: Outcome
    because: str
    criteria: tuple[Criterion, ...]
    summary: Summary | None
    exit_meaning: str
    client: Client
    services: tuple[Service, ...]
    total_cpu: Use
    total_memory: Use
    saturated: tuple[Workload, ...]
    """Services in the order in which they saturated under load."""
    agreement: Agreement
    coverage: tuple[Coverage, ...]
    notes: tuple[str, ...]
    """What is missing, partial or in doubt, a sentence each."""
    load: Mapping[str, Sequence[tuple[str, Track]]]
    """k6's own series over time: by plot, names and tracks."""
