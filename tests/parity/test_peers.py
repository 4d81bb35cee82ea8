"""Reading what peers say."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import AnswerError
from collector.parity.peers import (
    Samples,
    Span,
    parse_pod_metrics,
    parse_resource,
    parse_summary,
)
from collector.parity.resource import Owner
from tests.support import recording


def body(name: str, answer: str) -> bytes:
    """The first answer of that name in a recording."""
    found = (one.body for frame in recording(name).frames for one in frame.answers if one.name == answer)
    return next(one for one in found if one is not None)


def test_a_real_answer_of_the_metrics_api_is_read() -> None:
    """Nanocores and bytes, and the window in nanoseconds."""
    usages = parse_pod_metrics(body("parity-1hz.tar.zst", "metrics-api/pods.json"))
    first = usages[0]

    assert len(usages) == 17
    assert first.owner == Owner("social", "compose-post-service-5b5567474b-lgcz9", "")
    assert first.window_ns == 16_489_000_000
    assert first.containers["compose-post-service"] == (83_626_478, 389_120)


def test_a_real_summary_is_read() -> None:
    """Containers and pods."""
    usages = {one.owner: one for one in parse_summary(body("parity-1hz.tar.zst", "kubelet/stats_summary.json"))}
    quiet = usages[Owner("team-c", "oom", "quiet")]

    assert (quiet.cpu_nanocores, quiet.cpu_nanoseconds, quiet.memory_bytes) == (0, 290_531_000, 237_568)
    assert usages[Owner("team-c", "oom", "")].cpu_nanoseconds == 4_126_577_000


def test_a_real_page_of_the_kubelet_is_read() -> None:
    """With the milliseconds of each sample; the node's rows are left aside."""
    samples = parse_resource(body("parity-1hz.tar.zst", "kubelet/metrics_resource.txt").decode())
    burner = samples[Owner("team-b", "burner", "burn")]

    assert (burner.cpu_nanoseconds, burner.time_ns) == (61_057_694_000, 1_795_414_081_346_000_000)
    assert all(owner.pod for owner in samples)


_KEYS = ("items", "pods", "metadata", "namespace", "name", "containers", "usage", "podRef", "cpu", "time", "timestamp")
_ANSWERS = st.binary() | st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(_KEYS), inner),
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("parse", [parse_pod_metrics, parse_summary])
@given(data=_ANSWERS)
def test_any_bytes_are_an_answer_or_an_error(parse: Callable[[bytes], object], data: bytes) -> None:
    """Never anything else."""
    with suppress(AnswerError):
        parse(data)


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf", "1e19"])
@pytest.mark.parametrize("of", ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"])
def test_a_value_that_cannot_be_true_is_no_sample(of: str, value: str) -> None:
    """The container has none then; the others on the page have theirs."""
    lines = [
        f'{name}{{container="{container}",namespace="a",pod="p"}} {value if (name, container) == (of, "c") else 1} 5000'
        for name in ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
        for container in ("c", "d")
    ]

    assert list(parse_resource("\n".join((*lines, "")))) == [Owner("a", "p", "d")]


def page(*samples: tuple[int, float, int]) -> list[str]:
    """Pages of a container with samples at seconds, with CPU seconds and bytes."""
    labels = '{container="c",namespace="n",pod="p"}'
    return [
        f"container_cpu_usage_seconds_total{labels} {cpu} {second * 1000}\n"
        f"container_memory_working_set_bytes{labels} {memory} {second * 1000}\n"
        for second, cpu, memory in samples
    ]


OWNER = Owner("n", "p", "c")


def samples_of(*made: tuple[int, float, int]) -> Samples:
    """Those samples, each from a page of its own."""
    samples = Samples()
    for text in page(*made):
        samples.add_page(text)
    return samples


def test_a_sample_that_is_shown_again_is_one() -> None:
    """The kubelet shows its last sample until it has a later one."""
    assert len(samples_of((10, 1.0, 5), (10, 1.0, 5), (24, 2.0, 5)).of(OWNER)) == 2


def test_samples_come_in_time_order_whatever_the_order_of_answers() -> None:
    """Two threads may ask."""
    assert [one.time_ns for one in samples_of((24, 2.0, 5), (10, 1.0, 5)).of(OWNER)] == [10 * 10**9, 24 * 10**9]


def test_the_span_of_a_rate_is_found_among_the_samples() -> None:
    """Also where metrics-server, which asks more seldom, skipped one."""
    samples = samples_of((10, 1.0, 5), (24, 2.0, 5), (36, 2.1, 5))

    assert samples.span_of_rate(OWNER, 1.1 / 26 * 1e9, lambda one: True) == Span(10 * 10**9, 36 * 10**9)
    assert samples.span_of_rate(OWNER, 0.5 * 1e9, lambda one: True) is None


def test_a_counter_that_fell_makes_no_pair() -> None:
    """The container restarted in between."""
    assert list(samples_of((10, 5.0, 5), (24, 0.5, 5)).pairs()) == []
