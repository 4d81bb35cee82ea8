"""Answers that are none, and items that are none. Synthetic: no recording has such."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import AnswerError
from collector.upstream import metrics_api, summary
from collector.upstream.samples import Snapshot, without_future

TIME = "2026-11-23T06:08:46Z"
TIME_NS = 1795414126 * 1_000_000_000

NO_ITEMS: tuple[Any, ...] = (None, 1, "x", [], {})
PARSERS = {"pods": summary.parse, "items": metrics_api.parse}


def of_summary(**parts: Any) -> dict[str, Any]:
    """A pod of the kubelet's summary with one container."""
    measured = {
        "cpu": {"time": TIME, "usageNanoCores": 1, "usageCoreNanoSeconds": 2000},
        "memory": {"time": TIME, "usageBytes": 300, "workingSetBytes": 200, "rssBytes": 100},
    }
    container = {"name": "c", "startTime": TIME, **measured, **parts}
    return {"podRef": {"name": "p", "namespace": "a", "uid": "u"}, "containers": [container], **measured}


def of_metrics_api(**parts: Any) -> dict[str, Any]:
    """A pod of the metrics API with one container."""
    return {
        "metadata": {"name": "p", "namespace": "a"},
        "timestamp": TIME,
        "window": "15s",
        "containers": [{"name": "c", "usage": {"cpu": "1m", "memory": "1Ki"}}],
        **parts,
    }


def read(key: str, *items: Any) -> Snapshot:
    """An answer with these items."""
    return PARSERS[key](json.dumps({key: items}).encode())


@pytest.mark.parametrize("key", PARSERS)
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is not JSON"),
        (b"<html>", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "has no list of"),
        (b"null", "has no list of"),
        (b'{"kind": "Status", "code": 403}', "has no list of"),
        (b'{"items": 3, "pods": 3}', "has no list of"),
    ],
)
def test_what_is_no_answer_is_told(key: str, body: bytes, said: str) -> None:
    """A body that is not what was asked for is an error, not an empty answer."""
    with pytest.raises(AnswerError, match=said):
        PARSERS[key](body)


@pytest.mark.parametrize("key", PARSERS)
def test_no_pods_are_an_answer(key: str) -> None:
    """Null, as Go writes an empty list, is one."""
    assert PARSERS[key](b'{"%s": null}' % key.encode()) == Snapshot((), None, 0)


@pytest.mark.parametrize(
    ("key", "item"),
    [
        *(("pods", item) for item in NO_ITEMS),
        ("pods", {"podRef": None}),
        ("pods", {"podRef": {"name": "p"}}),
        ("pods", {"podRef": {"name": "p", "namespace": "a", "uid": "\ud800"}}),
        ("pods", of_summary(name=1)),
        *(("items", item) for item in NO_ITEMS),
        ("items", {"metadata": {}}),
        ("items", of_metrics_api(timestamp="now")),
        ("items", of_metrics_api(window="15")),
        ("items", of_metrics_api(containers=[{"name": "c"}])),
        ("items", of_metrics_api(containers=[{"name": "c", "usage": {"cpu": "x", "memory": "1"}}])),
        ("items", of_metrics_api(containers=[{"name": "c", "usage": {"cpu": "-1", "memory": "1"}}])),
        ("items", of_metrics_api(containers=[{"name": "c", "usage": {"cpu": "8193", "memory": "1"}}])),
        ("items", of_metrics_api(containers=[{"name": "c", "usage": {"cpu": "1", "memory": "8Ei"}}])),
        ("items", of_metrics_api(window="0s")),
        ("items", of_metrics_api(metadata={"name": "", "namespace": "a"})),
    ],
)
def test_an_item_that_is_none_is_left_out_and_counted(key: str, item: Any) -> None:
    """The items beside it are used."""
    good = of_summary() if key == "pods" else of_metrics_api()
    snapshot = read(key, good, item)

    assert ([pod.name for pod in snapshot.pods], snapshot.refused) == (["p"], 1)


@pytest.mark.parametrize(
    ("memory", "told", "refused"),
    [
        ({"usageBytes": 300, "workingSetBytes": 300}, 300, 0),
        ({"usageBytes": 300, "workingSetBytes": 0}, 0, 0),
        ({"usageBytes": 0, "workingSetBytes": 0}, None, 0),
        ({"usageBytes": 300, "workingSetBytes": 301}, None, 1),
        ({"usageBytes": 300, "workingSetBytes": -1}, None, 1),
        ({"usageBytes": 300, "workingSetBytes": True}, None, 1),
        ({"usageBytes": 300, "workingSetBytes": (1 << 64) - 4096}, None, 1),
        ({"usageBytes": 1 << 63, "workingSetBytes": 1 << 63}, None, 2),
        ({"workingSetBytes": 1 << 63}, None, 1),
        ({"usageBytes": 300, "workingSetBytes": "200"}, None, 1),
        ({"usageBytes": 300}, None, 0),
        (None, None, 0),
    ],
)
def test_a_working_set_is_a_number_or_absent(memory: Any, told: int | None, refused: int) -> None:
    """0 beside some usage is a value; 0 beside none is absent. What is no number of bytes, or above the usage that it
    is a part of, is absent and counted.
    """
    snapshot = read("pods", of_summary(memory=memory))

    assert snapshot.pods[0].containers["c"].reading.memory_working_set_bytes == told
    assert (snapshot.refused, snapshot.refused_values) == (0, refused)


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"cpu": {"time": TIME, "usageCoreNanoSeconds": -1}}, "cpu_usage_usec"),
        ({"cpu": {"time": TIME, "usageCoreNanoSeconds": 1 << 63}}, "cpu_usage_usec"),
        ({"cpu": {"time": TIME, "usageCoreNanoSeconds": 1, "psi": {"some": {"total": -1}}}}, "cpu_pressure_some_usec"),
        ({"swap": {"swapUsageBytes": 1 << 63}}, "swap_usage_bytes"),
        ({"swap": {"swapUsageBytes": 1, "swapAvailableBytes": 1 << 63}}, "swap_limit_bytes"),
        (
            {"memory": {"time": TIME, "usageBytes": 9, "workingSetBytes": 1, "availableBytes": 1 << 64}},
            "memory_limit_bytes",
        ),
        ({"memory": {"time": TIME, "usageBytes": 9, "workingSetBytes": 1, "rssBytes": -1}}, "memory_anon_bytes"),
    ],
)
def test_a_value_that_cannot_be_true_is_absent_and_counted(parts: dict[str, Any], field: str) -> None:
    """Below 0, or more than any node has; what is made of it is absent too, and the rest of the container stays."""
    snapshot = read("pods", of_summary(**parts))
    reading = snapshot.pods[0].containers["c"].reading

    assert next(getattr(of, field) for of in (reading, reading.details) if hasattr(of, field)) is None
    assert snapshot.refused_values == 1


@pytest.mark.parametrize(("nanocores", "told"), [(8191 * 10**9, 8191.0), (8192 * 10**9, None), (-1, None)])
def test_a_rate_that_no_node_has_the_cpus_for_is_absent(nanocores: int, told: float | None) -> None:
    """As where a counter fell and the kubelet has subtracted below zero."""
    snapshot = read("pods", of_summary(cpu={"time": TIME, "usageCoreNanoSeconds": 1, "usageNanoCores": nanocores}))

    assert (snapshot.pods[0].containers["c"].cpu_cores, snapshot.refused_values) == (told, int(told is None))


def test_the_nodes_own_values_are_held_to_the_same() -> None:
    """Its working set is a part of its usage as well."""
    node = {"memory": {"time": TIME, "usageBytes": 1, "workingSetBytes": 2}}
    snapshot = summary.parse(json.dumps({"node": node, "pods": []}).encode())

    assert snapshot.node is not None
    assert (snapshot.node.reading.memory_working_set_bytes, snapshot.refused_values) == (None, 1)


def test_what_is_of_the_future_is_left_out_and_counted() -> None:
    """A sample is none, and a start alone is absent."""
    snapshot = read("pods", of_summary(), of_summary(startTime="2099-01-01T00:00:00Z"))
    early, in_time = without_future(snapshot, TIME_NS - 1), without_future(snapshot, TIME_NS)

    assert ([(one.whole, one.containers) for one in early.pods], early.refused_values) == ([(None, {})] * 2, 4)
    assert [one.containers["c"].started_ns for one in in_time.pods] == [TIME_NS, None]
    assert in_time.refused_values == 1


def test_a_container_without_a_time_is_not_measured() -> None:
    """Without the time of its sample nothing can be said of its age."""
    (pod,) = read("pods", of_summary(cpu={"usageCoreNanoSeconds": 1}, memory={"usageBytes": 1})).pods

    assert pod.containers == {}


def test_limits_are_made_in_the_kubelets_arithmetic() -> None:
    """A swap limit of 0 below some usage wraps around in 64 bits, and back."""
    swap = {"swapUsageBytes": 4096, "swapAvailableBytes": (1 << 64) - 4096}
    (pod,) = read("pods", of_summary(swap=swap)).pods

    details = pod.containers["c"].reading.details
    assert (details.swap_usage_bytes, details.swap_limit_bytes, details.memory_limit_bytes) == (4096, 0, None)


def test_a_pod_of_the_metrics_api_is_of_its_time_and_window() -> None:
    """Each container has the item's time and window, its cores and its working set, and nothing else."""
    (pod,) = read("items", of_metrics_api()).pods
    measured = pod.containers["c"]

    assert (pod.uid, pod.whole) == (None, None)
    assert (measured.time_ns, measured.window_ns, measured.cpu_cores) == (TIME_NS, 15_000_000_000, 0.001)
    assert (measured.reading.memory_working_set_bytes, measured.reading.memory_current_bytes) == (1024, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["podRef", "containers", "cpu", "memory", "swap", "io", "startTime", "node"]))
def test_no_part_of_a_summary_breaks_the_reading_of_it(value: Any, part: str) -> None:
    """Whatever stands in an item's place or in a part of it, the answer is read."""
    body = json.dumps({"node": value, "pods": [{**of_summary(**{part: value}), part: value}, value]}).encode()

    assert summary.parse(body).refused <= 2


@given(JSON, st.sampled_from(["metadata", "timestamp", "window", "containers"]))
def test_no_part_of_the_metrics_api_breaks_the_reading_of_it(value: Any, part: str) -> None:
    """Whatever stands in an item's place or in a part of it, the answer is read."""
    assert read("items", of_metrics_api(**{part: value}), value).refused <= 2
