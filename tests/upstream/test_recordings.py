"""What an upstream said on a real node, and what is exported of it: the same values, and kubectl's very text."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest

from collector import table
from collector.metrics import resource
from collector.metrics.catalogue import ALL_GROUPS, CATALOGUE
from collector.metrics.native import NativeExposition, Selection
from collector.model import SourceName, Tally
from collector.parity.resource import Theirs, parse
from collector.upstream import summary
from collector.upstream.quantity import quantity
from collector.upstream.rates import Rates
from tests.helpers import families
from tests.replays import replayed_upstream
from tests.support import CAPTURED, SECOND_NS, recording

PARITY = "parity-1hz.tar.zst"
RECORDINGS = (*CAPTURED, PARITY)
SUMMARY = "kubelet/stats_summary.json"
METRICS_API = "metrics-api/pods.json"
KUBECTL = "metrics-api/kubectl_top_pods_containers.txt"
RESOURCE = "kubelet/metrics_resource.txt"

Owner = tuple[str, str, str]
"""Namespace, pod, container; no container for the pod itself."""


def bodies(name: str, answer: str) -> Iterator[tuple[int, bytes]]:
    """Frames of a recording that have an answer, and its body."""
    for number, frame in enumerate(recording(name).frames):
        for one in frame.answers:
            if one.name == answer and one.body is not None:
                yield number, one.body


@cache
def tallies(name: str, source: SourceName) -> list[Tally]:
    """The tallies of all frames."""
    return list(replayed_upstream(name, source).tallies())


def exported(tally: Tally) -> dict[str, dict[Owner, float]]:
    """The series of ``/metrics`` of a tally, of all groups, but for those with a label of their own and pod_info."""
    text = NativeExposition(Selection(groups=ALL_GROUPS)).render(tally, openmetrics=False)
    return {
        sample.name: {
            (one.labels["namespace"], one.labels["pod"], one.labels.get("container", "")): one.value
            for one in family.samples
            if one.labels.keys() <= {"namespace", "pod", "container"}
        }
        for family in families(text, openmetrics=False)
        for sample in family.samples[:1]
    }


# --- the kubelet's summary ------------------------------------------------------------------------------------------


def summary_values(pods: list[dict[str, Any]]) -> dict[str, dict[Owner, float]]:
    """The values that an answer has for pods and containers, under the names that they are exported by."""
    found: dict[str, dict[Owner, float]] = {}
    for pod in pods:
        for prefix, of, container in (
            ("pod_cgroup", pod, ""),
            *(("pod_container", one, one["name"]) for one in pod.get("containers", [])),
        ):
            owner = (pod["podRef"]["namespace"], pod["podRef"]["name"], container)
            cpu, memory = of["cpu"], of["memory"]
            if cpu["usageCoreNanoSeconds"] == memory["usageBytes"] == 0:
                continue  # what the kubelet does not have yet
            values = {
                "cpu_usage_seconds_total": cpu["usageCoreNanoSeconds"] / 1e9,
                "memory_working_set_bytes": memory["workingSetBytes"],
                "memory_usage_bytes": memory["usageBytes"],
                "memory_rss_bytes": memory["rssBytes"],
            }
            if prefix == "pod_cgroup":
                values["swap_usage_bytes"] = of["swap"]["swapUsageBytes"]
            if "availableBytes" in memory:
                values["memory_limit_bytes"] = memory["availableBytes"] + memory["workingSetBytes"]
            for suffix, value in values.items():
                found.setdefault(f"{prefix}_{suffix}", {})[owner] = value
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_each_value_of_the_summary_is_exported_as_it_is(name: str) -> None:
    """In each frame with an answer, counters, memory and limits of pods and running containers are the kubelet's."""
    compared = 0
    for number, body in bodies(name, SUMMARY):
        tally = tallies(name, "summary")[number]
        ours, theirs = exported(tally), summary_values(json.loads(body)["pods"])
        owners = {(pod.pod.namespace, pod.pod.name, "") for pod in tally.pods} | {
            (one.namespace, one.pod, one.container.name) for pod in tally.pods for one in pod.containers
        }
        for family, values in theirs.items():
            assert ours.get(family, {}) == {owner: value for owner, value in values.items() if owner in owners}
            compared += len(values)
        # What is left out has no name or does not run by then, and the sums of a pod that lacks it are withheld.
        left_out = {owner for values in theirs.values() for owner in values} - owners
        assert len(left_out) <= 2 * sum(tally.incomplete.values())
    assert compared > 500


def test_a_zero_of_the_kubelets_for_what_it_does_not_know_is_absent() -> None:
    """Who has just started is in the answer with zeros for all values: none of them is exported."""
    zeros = set()
    for name in CAPTURED:
        for number, body in bodies(name, SUMMARY):
            ours = exported(tallies(name, "summary")[number])
            for pod in json.loads(body)["pods"]:
                for of, container in ((pod, ""), *((one, one["name"]) for one in pod.get("containers", []))):
                    owner = (pod["podRef"]["namespace"], pod["podRef"]["name"], container)
                    if of["cpu"]["usageCoreNanoSeconds"] == 0:
                        zeros.add(owner)
                        own = {family for family, series in ours.items() if owner in series}
                        assert own <= {"pod_cpu_usage_cores", "pod_memory_usage_bytes"}  # of its containers
    assert {bool(container) for _, _, container in zeros} == {True, False}


def pages(name: str) -> dict[tuple[Any, float], set[int | None]]:
    """The kubelet's own samples on ``/metrics/resource``: series and value, with the whole seconds of their times."""
    found: dict[tuple[Any, float], set[int | None]] = {}
    for _, body in bodies(name, RESOURCE):
        for one in parse(body.decode()):
            found.setdefault((one.key, one.value), set()).add(whole_second(one))
    return found


def whole_second(one: Theirs) -> int | None:
    """A sample's time, cut as the summary cuts it."""
    return None if one.time_ms is None else one.time_ms // 1000


def test_metrics_resource_of_the_summary_is_the_kubelets() -> None:
    """Each sample that has the time of one on the kubelet's own page has its value, to the last digit."""
    theirs = pages(PARITY)
    times = {(key, second) for (key, _), seconds in theirs.items() for second in seconds}
    compared = 0
    for tally in tallies(PARITY, "summary"):
        for one in parse(resource.render(tally, openmetrics=False)):
            if one.key.name.endswith("start_time_seconds") or (one.key, whole_second(one)) not in times:
                continue
            compared += 1
            assert whole_second(one) in theirs.get((one.key, one.value), set()), one
    assert compared > 10_000


def test_the_limit_made_of_the_summary_is_the_kernels() -> None:
    """The answer's availableBytes and workingSetBytes add up to the memory.max that is recorded beside them."""
    compared = 0
    for number, body in bodies(PARITY, SUMMARY):
        files = recording(PARITY).frames[number].files
        limits = {
            path.rpartition("/")[0].rpartition("pod")[2].removesuffix(".slice").replace("_", "-"): data.strip()
            for path, data in files.items()
            if path.endswith(".slice/memory.max") and "-pod" in path
        }
        for pod in summary.parse(body).pods:
            assert pod.whole is not None
            limit = pod.whole.reading.details.memory_limit_bytes
            if pod.uid in limits:
                compared += 1
                assert limits[pod.uid] == (b"max" if limit is None else str(limit).encode())
    assert compared > 100


class Rated(NamedTuple):
    """A CPU rate, and the one that unrounded times give over the same two samples."""

    ours: float
    exact: float

    @property
    def difference(self) -> float:
        """Relative."""
        return abs(self.ours / self.exact - 1)


def rated(name: str, every_ns: int) -> list[Rated]:
    """The rates of containers above 5m, asked for so often; times are those of the kubelet's ``/metrics/resource``."""
    times: dict[tuple[Owner, int], int] = {}
    for _, body in bodies(name, RESOURCE):
        for one in parse(body.decode()):
            if one.key.name == "container_cpu_usage_seconds_total" and one.time_ms is not None:
                times[one.key.owner, round(one.value * 1e6)] = one.time_ms
    rates, asked_ns, found = Rates(), 0, []
    seen: dict[Owner, list[tuple[int, int]]] = {}
    for number, body in bodies(name, SUMMARY):
        at_ns = recording(name).frames[number].instant.time_ns
        if at_ns - asked_ns < every_ns:
            continue
        asked_ns = at_ns
        for pod in rates.settle(summary.parse(body)).pods:
            for container, measured in pod.containers.items():
                owner, usage_usec = (pod.namespace, pod.name, container), measured.reading.cpu_usage_usec
                samples = seen.setdefault(owner, [])
                if usage_usec is None or (measured.time_ns, usage_usec) in samples:
                    continue
                samples.append((measured.time_ns, usage_usec))
                if measured.cpu_cores is None or measured.window_ns is None:
                    continue
                before = next(usec for time_ns, usec in samples if time_ns == measured.time_ns - measured.window_ns)
                first_ms, last_ms = times.get((owner, before)), times.get((owner, usage_usec))
                if first_ms is not None and last_ms is not None and last_ms > first_ms:
                    exact = (usage_usec - before) / 1000 / (last_ms - first_ms)
                    found += [Rated(measured.cpu_cores, exact)] if exact >= 0.005 else []
    return found


def test_rates_of_the_summary_are_nearly_exact() -> None:
    """The numbers of docs/sources.md: asked every 10 s, beside what unrounded times give over the same spans."""
    found = [one for name in RECORDINGS for one in rated(name, 10 * SECOND_NS)]
    differences = sorted(one.difference for one in found)
    exact = sum(one < 0.002 for one in differences) / len(differences)

    assert len(found) > 100
    assert (statistics.median(differences) < 0.0001, exact > 0.85, differences[-1] < 0.08) == (True, True, True)


# --- the metrics API ------------------------------------------------------------------------------------------------


def test_each_value_of_the_metrics_api_is_exported_as_it_is() -> None:
    """Each container's CPU and working set is the answer's, and a pod's is the sum of its containers'."""
    compared = 0
    for number, body in bodies(PARITY, METRICS_API):
        tally = tallies(PARITY, "metrics-api")[number]
        ours = exported(tally)
        incomplete = {(pod.pod.namespace, pod.pod.name) for pod in tally.pods if pod.incomplete is not None}
        for item in json.loads(body)["items"]:
            pod = (item["metadata"]["namespace"], item["metadata"]["name"])
            cores = {one["name"]: float(quantity(one["usage"]["cpu"])) for one in item["containers"]}
            memory = {one["name"]: int(quantity(one["usage"]["memory"])) for one in item["containers"]}
            for name in cores:
                assert ours["pod_container_cpu_usage_cores"][*pod, name] == cores[name]
                assert ours["pod_container_memory_working_set_bytes"][*pod, name] == memory[name]
            compared += len(cores)
            if pod in incomplete:
                # Its status names a container as running that the metrics API does not have.
                assert (*pod, "") not in ours["pod_cpu_usage_cores"].keys() | ours["pod_memory_usage_bytes"].keys()
                continue
            assert ours["pod_cpu_usage_cores"][*pod, ""] == pytest.approx(sum(cores.values()), abs=1e-12)
            assert ours["pod_memory_usage_bytes"][*pod, ""] == sum(memory.values())
    assert compared > 400


def test_the_table_is_what_kubectl_printed() -> None:
    """The tally of each frame prints as `kubectl top pods -A --containers` did at that time, word for word."""
    printed = list(bodies(PARITY, KUBECTL))
    for number, body in printed:
        tally = tallies(PARITY, "metrics-api")[number]
        rows = table.sort_usages(table.usages(tally, containers=True), "name")
        ours = table.render(rows, containers=True, namespaces=True)
        assert lines(ours) == lines(body.decode())
    assert sum(bool(body) for _, body in printed) == 22


def lines(text: str) -> list[list[str]]:
    """The words of each line below the heads. kubectl prints no heads where it has no rows."""
    return [line.split() for line in text.splitlines()[1:]]


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_the_families_are_those_of_the_catalogue(source: SourceName) -> None:
    """Over a recording, an upstream fills the families that the catalogue says it does, all of them and no other."""
    filled = {family for tally in tallies(PARITY, source) for family in exported(tally)}

    assert filled == {row.name for row in CATALOGUE if source in row.sources and row.scope != "self"}


@pytest.mark.parametrize(("name", "source"), [*((name, "summary") for name in RECORDINGS), (PARITY, "metrics-api")])
def test_no_number_is_derived_across_samples(name: str, source: SourceName) -> None:
    """Pod and containers are sampled at different times: there is no overhead and no peak."""
    pods = [pod for tally in tallies(name, source) for pod in tally.pods]

    assert pods
    assert {(pod.overhead_cpu_cores, pod.overhead_memory_bytes, pod.cpu_peak_cores) for pod in pods} == {
        (None, None, None)
    }
