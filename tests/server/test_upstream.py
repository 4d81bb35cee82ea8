"""The server over an upstream's answers: paths, probes, page and JSON, while it answers and when it does not."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from collector.loop import LivePace, Loop, Published
from collector.metrics.native import Selection
from collector.model import Answer, SourceName
from collector.server.api import document
from collector.server.app import Server
from collector.server.page import render
from collector.sources.recording import RecordedAnswers, RecordedTree
from collector.upstream.collect import KINDS, UpstreamCollector
from tests.helpers import families
from tests.support import recording

PARITY = "parity-1hz.tar.zst"


class Failing(RecordedAnswers):
    """The answers of a recording, of the upstream none but the first: then it is down."""

    def __init__(self, tree: RecordedTree, name: str) -> None:
        super().__init__(tree)
        self._name = name
        self._given = False

    def take(self) -> list[Answer]:
        answers = super().take()
        for index, answer in enumerate(answers):
            if answer.name == self._name:
                if self._given:
                    answers[index] = answer._replace(status=500, error="boom <b>", body=None)
                self._given = True
        return answers


def loop_over(source: SourceName, *, frames: int, failing: bool = False) -> Loop:
    """A loop over the first frames of a recording; an answer is served for a minute."""
    tree = RecordedTree(recording(PARITY))
    kind = KINDS[source]
    collector = UpstreamCollector(
        kind,
        clock=tree,
        answers=Failing(tree, kind.answer) if failing else RecordedAnswers(tree),
        stale_after_ns=60_000_000_000,
        node_name="node1" if source == "summary" else "",
    )
    loop = Loop(collector, LivePace(1))
    for _ in range(frames):
        loop.tick()
    return loop


def get(loop: Loop, path: str) -> tuple[int, str]:
    """Ask once."""

    async def run() -> tuple[int, str]:
        app = Server(loop, Selection()).application()
        async with TestClient(TestServer(app)) as client, client.get(path) as response:
            return response.status, await response.text()

    return asyncio.run(run())


def published(loop: Loop) -> Published:
    """What the loop has published."""
    assert loop.published is not None
    return loop.published


@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_both_formats_are_sound(source: SourceName) -> None:
    """/metrics is read by both of prometheus_client's parsers, and says what it is made of."""
    server = Server(loop_over(source, frames=40), Selection())
    names = [
        {family.name for family in families(server.metrics_text(openmetrics=strict), openmetrics=strict)}
        for strict in (False, True)
    ]

    assert names[0] == names[1]
    assert f'podtally_source_info{{source="{source}"}} 1.0' in server.metrics_text(openmetrics=False).splitlines()


def test_metrics_resource_is_served_of_a_summary() -> None:
    """With the kubelet's families, and times in whole seconds."""
    status, text = get(loop_over("summary", frames=40), "/metrics/resource")

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert (status, "resource_scrape_error 0.0" in lines) == (200, True)
    assert {line.split("{")[0].split(" ")[0] for line in lines} == {
        *("container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds"),
        *("container_swap_limit_bytes", "container_swap_usage_bytes", "pod_cpu_usage_seconds_total"),
        *("pod_memory_working_set_bytes", "pod_swap_usage_bytes", "node_cpu_usage_seconds_total"),
        *("node_memory_working_set_bytes", "node_swap_usage_bytes", "resource_scrape_error"),
    }
    assert all(line.endswith("000") for line in lines if line.startswith("pod_cpu"))


def test_metrics_resource_has_but_the_error_once_nothing_is_served() -> None:
    """As the kubelet's, which says nothing else when it has an error."""
    text = get(loop_over("summary", frames=80, failing=True), "/metrics/resource")[1]

    assert [line for line in text.splitlines() if not line.startswith("#")] == ["resource_scrape_error 1.0"]


def test_metrics_resource_of_the_metrics_api_is_404_and_says_why() -> None:
    """Rates cannot be made counters; the page has no link to what is not served."""
    loop = loop_over("metrics-api", frames=40)

    assert get(loop, "/metrics/resource") == (
        404,
        "/metrics/resource is not served with --source metrics-api: the kubelet's page is of cumulative counters, and"
        " the metrics API tells but rates; a podtally with --source cgroup or summary serves it\n",
    )
    page = get(loop, "/")[1]
    assert ('href="/metrics"' in page, 'href="/metrics/resource"' in page) == (True, False)


@pytest.mark.parametrize("source", ["summary", "metrics-api"])
def test_metrics_cadvisor_of_an_upstream_is_404_and_says_why(source: SourceName) -> None:
    """No upstream tells what cAdvisor's families are made of."""
    status, text = get(loop_over(source, frames=1), "/metrics/cadvisor")

    assert (status, text.startswith(f"/metrics/cadvisor is not served with --source {source}: ")) == (404, True)


def test_the_probes_say_how_the_upstream_answers() -> None:
    """While it answers, both are 200 and say when it was asked."""
    loop = loop_over("metrics-api", frames=11)

    assert get(loop, "/readyz") == (
        200,
        "ok\nthe metrics API: ok, asked 6 s ago\nnames: kubelet\nkubelet: ok\nAPI server: ok\n",
    )
    status, text = get(loop, "/healthz")
    assert (status, text.splitlines()[1:]) == (200, ["the metrics API: ok, asked 6 s ago"])


def test_the_probes_say_what_is_served_of_an_upstream_that_is_down() -> None:
    """What it said last is served: ready, with the reason, its age and how long it will be."""
    status, text = get(loop_over("summary", frames=30, failing=True), "/readyz")

    first, second = text.splitlines()[:2]
    assert (status, first) == (200, "ok")
    assert second == ("the kubelet's /stats/summary: HTTP 500: boom <b>; what it said 30 s ago is served for 30 s more")


def test_not_ready_once_nothing_is_served() -> None:
    """After the limit /readyz is 503 with the reason, and /healthz stays 200, as a restart would not mend it."""
    loop = loop_over("summary", frames=80, failing=True)

    ready, alive = get(loop, "/readyz"), get(loop, "/healthz")

    line = "the kubelet's /stats/summary: HTTP 500: boom <b>; nothing is served"
    assert (ready[0], ready[1].splitlines()[:2]) == (503, ["not ready: nothing to serve", line])
    assert (alive[0], alive[1].splitlines()[1]) == (200, line)


def test_the_metrics_tell_of_an_upstream_that_is_down() -> None:
    """Up, age and code while the last answer is served; afterwards no age, no pod's series, and no zeros."""
    before = Server(loop_over("summary", frames=30, failing=True), Selection()).metrics_text(openmetrics=False)
    after = Server(loop_over("summary", frames=80, failing=True), Selection()).metrics_text(openmetrics=False)

    assert {"podtally_upstream_up 0.0", 'podtally_upstream_requests_total{code="500"} 7.0'} <= {*before.splitlines()}
    assert ("podtally_upstream_age_seconds 3" in before, "\npod_memory_usage_bytes{" in before) == (True, True)
    assert "podtally_upstream_up 0.0" in after.splitlines()
    assert "podtally_pods 0.0" in after.splitlines()
    assert [line for line in after.splitlines() if line.startswith(("pod_", "podtally_upstream_age"))] == []


def test_the_page_says_how_old_its_numbers_are() -> None:
    """In place of a window there are the samples' ages; who is down is told, as text."""
    summary = render(published(loop_over("summary", frames=40)), None)
    down = render(published(loop_over("summary", frames=30, failing=True)), None)

    assert "by the kubelet&#x27;s /stats/summary, " in summary
    assert " s old, as <code>kubectl top pods</code>" in summary
    assert "HTTP 500: boom &lt;b&gt;; what it said" in down


def test_the_document_tells_source_upstream_and_samples() -> None:
    """Scripts see what the numbers are made of, and each pod's time and window."""
    found = json.loads(json.dumps(document(published(loop_over("metrics-api", frames=40)))))

    (pod,) = [one for one in found["pods"] if one["name"] == "burner"]
    assert (found["node"], found["source"], found["window_seconds"]) == ("", "metrics-api", None)
    assert found["upstream"] == {
        "peer": "the metrics API",
        "state": "ok",
        "age_seconds": found["upstream"]["age_seconds"],
    }
    assert pod["sample"] == {"time": "2026-11-23T06:08:35.000Z", "window_seconds": 14.421}
    assert (pod["cgroup"]["memory_usage_bytes"], pod["cgroup"]["cpu_usage_seconds"]) == (None, None)
    assert pod["containers"][0]["cgroup"]["memory_working_set_bytes"] == pod["memory_bytes"]
