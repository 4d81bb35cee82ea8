"""What Prometheus is asked of a run, and its answers as series. Pure.

Each query is a range selector, asked for at the end of the span: Prometheus gives the samples as they are, each with
the time of its scrape. ``query_range`` would fill gaps of up to five minutes with the last value before them, and a gap
is to be seen here as a gap.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from collector.errors import AnswerError
from collector.loadtest.fields import LATEST_SECONDS, MOST_NUMBER
from collector.loadtest.model import Point, Series, Span

_POD: Final = (
    "pod_info",
    "pod_cpu_usage_cores",
    "pod_memory_usage_bytes",
    "pod_oom_kills_total",
    "pod_cgroup_cpu_usage_seconds_total",
    "pod_cgroup_cpu_periods_total",
    "pod_cgroup_cpu_throttled_periods_total",
    "pod_cgroup_cpu_throttled_seconds_total",
    "pod_cgroup_cpu_limit_cores",
    "pod_cgroup_memory_limit_bytes",
    "pod_cgroup_cpu_pressure_seconds_total",
    "pod_cgroup_memory_pressure_seconds_total",
    "pod_cgroup_io_pressure_seconds_total",
)

_CONTAINER: Final = (
    "pod_container_cpu_usage_seconds_total",
    "pod_container_cpu_periods_total",
    "pod_container_cpu_throttled_periods_total",
    "pod_container_cpu_throttled_seconds_total",
    "pod_container_cpu_limit_cores",
    "pod_container_memory_working_set_bytes",
    "pod_container_memory_limit_bytes",
)

_CLIENT: Final = (
    "pod_cpu_usage_cores",
    "pod_cgroup_cpu_periods_total",
    "pod_cgroup_cpu_throttled_periods_total",
    "pod_cgroup_cpu_pressure_seconds_total",
    "pod_container_cpu_periods_total",
    "pod_container_cpu_throttled_periods_total",
)

_KUBELET: Final = ("podtally_kubelet_compared_containers", "podtally_kubelet_outside_containers")

K6: Final = ("k6_vus", "k6_http_reqs_total", "k6_http_req_duration_p95")
"""What k6 writes to Prometheus by itself."""

FAMILIES: Final = frozenset((*_POD, *_CONTAINER, *_CLIENT, *_KUBELET))
"""What is used of podtally's."""


class Query(NamedTuple):
    """A question, and the name that its answer is kept under."""

    name: str
    selector: str

    def over(self, span: Span) -> str:
        """The expression that gives all samples of a span, asked for at its end."""
        return f"{self.selector}[{math.ceil(span.seconds) + 1}s]"


def _selector(families: tuple[str, ...], *matchers: str) -> str:
    return "{" + ",".join((f'__name__=~"{"|".join(families)}"', *matchers)) + "}"


def queries(namespaces: tuple[str, ...], job_namespace: str, pod: str | None, testid: str) -> list[Query]:
    """All that is asked. Names of namespaces and pods hold nothing that a regular expression or a string minds."""
    of = f'namespace=~"{"|".join(namespaces)}"'
    # An empty alternative takes the families that have no such label.
    found = [
        Query("pods", _selector(_POD, of, 'stalled=~"some|"')),
        Query("containers", _selector(_CONTAINER, of)),
        Query("kubelet", _selector(_KUBELET)),
        Query("k6", _selector(K6, f'testid="{testid}"')),
    ]
    if pod is not None:
        found.append(
            Query("client", _selector(_CLIENT, f'namespace="{job_namespace}"', f'pod="{pod}"', 'stalled=~"some|"'))
        )
    return found


def there(namespaces: tuple[str, ...]) -> str:
    """How many pods of the application podtally tells of."""
    return f'count by (namespace) (pod_info{{namespace=~"{"|".join(namespaces)}"}})'


def _data(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"Prometheus' answer is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise AnswerError("Prometheus' answer is no object")
    if document.get("status") != "success":
        raise AnswerError(f"Prometheus refuses: {_told(document.get('error'))}")
    data = document.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("result"), list):
        raise AnswerError("Prometheus' answer has no result")
    return data


def _told(error: object) -> str:
    return error[:_LONGEST_TOLD] if isinstance(error, str) and error else "without a reason"


_LONGEST_TOLD: Final = 300


def series_of(body: bytes) -> list[Series]:
    """The series of an answer to a range selector. Raises :class:`AnswerError` if it is none.

    A value that is no number, as of a percentile of nothing, is no sample; nor is one that nothing can have been.
    """
    data = _data(body)
    try:
        return [
            Series(_labels(one).get("__name__", ""), _labels(one), tuple(_points(one["values"])))
            for one in data["result"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AnswerError("Prometheus' answer has series without their samples") from error


def _labels(series: Any) -> dict[str, str]:
    labels: dict[str, str] = series["metric"]
    if not all(isinstance(value, str) for value in labels.values()):
        raise TypeError("a label that is no text")
    return labels


def _points(values: Any) -> Iterator[Point]:
    """In the order of time, one a moment."""
    found = {float(time): float(value) for time, value in values}
    for time, value in sorted(found.items()):
        if not 0 <= time <= LATEST_SECONDS:
            raise ValueError("a time that is none")
        if abs(value) <= MOST_NUMBER:
            yield Point(time, value)


def counts_of(body: bytes) -> dict[str, int]:
    """By namespace, the numbers of an answer to :func:`there`. Raises :class:`AnswerError` if it is none."""
    data = _data(body)
    try:
        return {one["metric"]["namespace"]: round(float(one["value"][1])) for one in data["result"]}
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise AnswerError("Prometheus' answer has no numbers by namespace") from error


NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""Names of namespaces and of pods."""
