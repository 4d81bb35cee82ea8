"""The HTTP server over replayed recordings, asked through real sockets."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp.test_utils import TestClient, TestServer

from collector.demand import Demand
from collector.errors import UsageError
from collector.loop import LivePace, Loop, ReplayPace
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import Selection, needs
from collector.model import Answer
from collector.server.app import OPENMETRICS, TEXT, Server, parse_listen, wants_gzip, wants_openmetrics
from collector.sources.recording import RecordedAnswers, RecordedTree
from tests.helpers import families
from tests.support import Answers, NoAnswers, collector_over, live, recording, v2_root

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
EXPOSITIONS = ("/metrics", "/metrics/resource", "/metrics/cadvisor")


class Got(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def get(server: Server, path: str, method: str = "GET", **headers: str) -> Got:
    """Ask once; underscores in the names of headers stand for hyphens."""

    async def run() -> Got:
        asked = {key.replace("_", "-"): value for key, value in headers.items()}
        skip = () if "Accept_Encoding" in headers else ("Accept-Encoding",)
        client = TestClient(TestServer(server.application()), auto_decompress=False, skip_auto_headers=skip)
        async with client, client.request(method, path, headers=asked) as response:
            return Got(response.status, dict(response.headers), await response.read())

    return asyncio.run(run())


def loop_over(name: str) -> Loop:
    """A loop over a recording, run through to its last frame."""
    recorded = recording(name)
    tree = RecordedTree(recorded)
    loop = Loop(collector_over(tree, RecordedAnswers(tree)), ReplayPace(tree.gap_ns, recorded.interval_ns, 1.0))
    loop.run_through()
    return loop


def server_of(name: str) -> Server:
    """A server of that loop."""
    return Server(loop_over(name), Selection())


def stable(text: str) -> list[str]:
    """The lines that do not change by being asked for."""
    return [line for line in text.splitlines() if not re.search(r"\b(podtally|process)_", line)]


# --- content negotiation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        ("application/openmetrics-text", OPENMETRICS),
        (BROWSER, TEXT),
        ("text/plain", TEXT),
        ("text/plain;version=1.0.0", TEXT),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited", TEXT),
        ("*/*", TEXT),
        ("application/openmetrics-text;version=abc", TEXT),
        ("application/openmetrics-text;version=", OPENMETRICS),
        ("application/openmetrics-text;version=1..0", TEXT),
        (";;;,,,=;q", TEXT),
        ("application/openmetrics-text;q=0,text/plain", TEXT),
        ("application/openmetrics-text; version=1.0.0; Q=0.000, */*", TEXT),
        ("application/openmetrics-text;q=0,application/openmetrics-text;version=1.0.0;q=0.001", OPENMETRICS),
        ("text/plain;q=0,application/openmetrics-text", OPENMETRICS),
        ("*/*;q=0", TEXT),
        ("text/plain;q=0", TEXT),
    ],
)
@pytest.mark.parametrize("path", EXPOSITIONS)
def test_the_format_is_negotiated(path: str, accept: str, wanted: str) -> None:
    """Prometheus gets OpenMetrics, whatever does not ask for it or asks nonsense gets text."""
    got = get(server_of("static-pod"), path, Accept=accept)

    assert (got.status, got.headers["Content-Type"], got.text.endswith("# EOF\n")) == (
        200,
        wanted,
        wanted == OPENMETRICS,
    )


def test_several_lines_of_a_header_are_one_list() -> None:
    """A proxy may send Accept in two lines."""

    async def run() -> str:
        async with TestClient(TestServer(server_of("static-pod").application())) as client:
            headers = [("Accept", "text/html"), ("Accept", "application/openmetrics-text")]
            async with client.get("/metrics", headers=headers) as response:
                return response.headers["Content-Type"]

    assert asyncio.run(run()) == OPENMETRICS


@pytest.mark.parametrize("path", EXPOSITIONS)
def test_openmetrics_is_parsed_by_its_own_parser(path: str) -> None:
    """What goes out as OpenMetrics is read by prometheus_client's strict parser."""
    got = get(server_of("systemd-containerd.tar.zst"), path, Accept=PROMETHEUS_3)

    assert len(families(got.text, openmetrics=True)) > 5


@pytest.mark.parametrize("path", EXPOSITIONS)
def test_both_formats_have_the_same_series(path: str) -> None:
    """Text and OpenMetrics differ in form, not in what they say."""
    server = server_of("systemd-containerd.tar.zst")

    def samples(text: str, *, openmetrics: bool) -> set[tuple[str, str, float]]:
        return {
            (sample.name, str(sorted(sample.labels.items())), sample.value)
            for family in families(text, openmetrics=openmetrics)
            for sample in family.samples
            if not sample.name.startswith(("podtally_", "process_"))
        }

    text = samples(get(server, path).text, openmetrics=False)
    assert text == samples(get(server, path, Accept=PROMETHEUS_3).text, openmetrics=True)


def test_asking_for_openmetrics_never_raises() -> None:
    """A header of any kind is answered."""
    assert [wants_openmetrics(text) for text in ("", "\x00", "application/openmetrics-text;version=9999999.1.1")] == [
        False,
        False,
        True,
    ]


# --- gzip, HEAD and wrong requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/metrics/resource", "/api/v1/pods", "/"])
def test_gzip_is_the_same_text(path: str) -> None:
    """What is compressed unpacks to what is sent plain."""
    server = server_of("static-pod")

    plain, packed = get(server, path), get(server, path, Accept_Encoding="gzip")

    assert ("Content-Encoding" in plain.headers, packed.headers["Content-Encoding"]) == (False, "gzip")
    assert gzip.decompress(packed.body) == plain.body


def test_metrics_are_packed_when_asked() -> None:
    """/metrics unpacks to the same series; its own account has moved on."""
    server = server_of("static-pod")

    packed = get(server, "/metrics", Accept_Encoding="gzip")

    assert stable(gzip.decompress(packed.body).decode()) == stable(get(server, "/metrics").text)


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("GZIP", True),
        ("*", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("deflate", False),
        (";;,", False),
    ],
)
def test_gzip_is_only_for_those_who_take_it(header: str, wanted: bool) -> None:
    """A client that does not name gzip, or refuses it, gets plain text."""
    assert wants_gzip(header) is wanted


@pytest.mark.parametrize("path", ["/metrics/resource", "/api/v1/pods", "/", "/healthz", "/readyz"])
def test_head_has_the_length_and_no_body(path: str) -> None:
    """HEAD answers as GET does, without the body."""
    server = server_of("static-pod")

    whole, head = get(server, path), get(server, path, "HEAD")

    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(whole.body)))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/metrics/", 404),
        ("GET", "/../etc/passwd", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/api/v1/pods", 405),
        ("PUT", "/", 405),
    ],
)
def test_what_is_not_served_is_refused(method: str, path: str, status: int) -> None:
    """Another path is 404 and another method 405."""
    assert get(server_of("static-pod"), path, method).status == status


def test_metrics_cadvisor_can_be_switched_off() -> None:
    """Its path is 404 and says by which flag, and the page has no link to it."""
    server = Server(loop_over("static-pod"), Selection(cadvisor=False))

    got = get(server, "/metrics/cadvisor")

    assert (got.status, got.text.startswith("/metrics/cadvisor is not served with --no-cadvisor: ")) == (404, True)
    assert ['href="/metrics/cadvisor"' in get(one, "/").text for one in (server, server_of("static-pod"))] == [
        False,
        True,
    ]


# --- the expositions ------------------------------------------------------------------------------------------------


def test_scrapes_never_touch_the_tree() -> None:
    """No path of the server reads anything of the source: only what is published."""
    touched: list[str] = []

    class Counting(RecordedTree):
        def __getattribute__(self, name: str) -> Any:
            touched.append(name)
            return super().__getattribute__(name)

    tree = Counting(recording("static-pod"))
    loop = Loop(collector_over(tree, RecordedAnswers(tree)), LivePace(60))
    loop.first_tick()
    server = Server(loop, Selection())
    before = len(touched)
    assert before > 0

    statuses = [get(server, path).status for path in (*EXPOSITIONS, "/", "/api/v1/pods", "/healthz", "/readyz")]

    assert (statuses, len(touched)) == ([200] * 7, before)


def test_scrapes_outlive_the_node(tmp_path: Path) -> None:
    """When the whole cgroup file system is gone, the last tally is served."""
    root = v2_root(tmp_path / "cgroup")
    loop = Loop(collector_over(live(root), NoAnswers()), LivePace(60))
    loop.first_tick()
    server = Server(loop, Selection())
    before = get(server, "/metrics/resource").text
    shutil.rmtree(root)
    loop.tick()

    assert get(server, "/metrics/resource").text == before
    loop.stop()


def loop_on_demand(tmp_path: Path, demand: Demand, interval: float) -> Loop:
    """A loop over a node that has ticked once, and reads what only /metrics/cadvisor needs on demand."""
    root = v2_root(tmp_path / "cgroup")
    (root / "cgroup.procs").write_text("1\n2\n")
    wanted = needs(DEFAULT_GROUPS)
    loop = Loop(collector_over(live(root), NoAnswers(), needs=wanted, seldom_wanted=demand.at), LivePace(interval))
    loop.first_tick()
    return loop


def families_of_cadvisor(got: Got) -> set[str]:
    """The families of a page."""
    return {line.split()[2] for line in got.text.splitlines() if line.startswith("# TYPE ")}


def test_the_first_to_ask_for_cadvisors_page_waits_for_a_tick(tmp_path: Path) -> None:
    """The tick reads what that page alone needs, so that it is whole at once; nothing is read at the request itself."""
    demand = Demand()
    loop = loop_on_demand(tmp_path, demand, 0.05)
    before = families_of_cadvisor(get(Server(loop, Selection()), "/metrics/cadvisor"))
    loop.start()
    try:
        found = families_of_cadvisor(get(Server(loop, Selection(), demand=demand), "/metrics/cadvisor"))
    finally:
        loop.stop()

    assert ("container_processes" in before, "container_processes" in found) == (False, True)


def test_a_page_that_is_not_served_is_not_waited_for(tmp_path: Path) -> None:
    """With --no-cadvisor the answer comes at once, and nothing is read for who asks."""
    demand = Demand()
    loop = loop_on_demand(tmp_path, demand, 60)
    status = get(Server(loop, Selection(cadvisor=False), demand=demand), "/metrics/cadvisor").status
    loop.stop()

    assert (status, demand.at(time.monotonic_ns())) == (404, False)


def test_cadvisors_page_comes_without_a_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no tick comes in time it has what was read for others, and the rest is absent."""
    monkeypatch.setattr("collector.server.app._LOOKS", 2)
    demand = Demand()
    loop = loop_on_demand(tmp_path, demand, 60)
    found = families_of_cadvisor(get(Server(loop, Selection(), demand=demand), "/metrics/cadvisor"))
    loop.stop()

    assert ("container_cpu_usage_seconds_total" in found, "container_processes" in found) == (True, False)


def test_resource_has_but_the_error_before_the_first_tally() -> None:
    """As the kubelet's page, which says nothing else when it has an error."""
    tree = RecordedTree(recording("static-pod"))
    server = Server(Loop(collector_over(tree, RecordedAnswers(tree)), LivePace(1)), Selection())

    got = get(server, "/metrics/resource")

    samples = [line for line in got.text.splitlines() if not line.startswith("#")]
    assert (got.status, [sample.split() for sample in samples]) == (200, [["resource_scrape_error", "1.0"]])


def test_resource_has_but_the_error_when_the_tally_is_too_old(tmp_path: Path) -> None:
    """Numbers that are older than liveness allows are not handed to metrics-server."""
    loop = Loop(collector_over(live(v2_root(tmp_path / "cgroup")), NoAnswers()), LivePace(1))
    loop.first_tick()
    assert loop.published is not None
    loop.published = loop.published._replace(monotonic_ns=time.monotonic_ns() - 31_000_000_000)

    text = get(Server(loop, Selection()), "/metrics/resource").text

    assert [line for line in text.splitlines() if not line.startswith("#")] == ["resource_scrape_error 1.0"]
    loop.stop()


def test_scrapes_are_counted_by_path() -> None:
    """Podtally's account of itself says how often each exposition was served."""
    server = server_of("static-pod")
    for _ in range(2):
        get(server, "/metrics/resource")

    assert 'podtally_scrapes_total{path="/metrics/resource"} 2.0' in get(server, "/metrics").text.splitlines()


# --- probes ---------------------------------------------------------------------------------------------------------


def test_not_ready_before_the_first_tally() -> None:
    """Before the first tick the process is alive and not ready."""
    tree = RecordedTree(recording("static-pod"))
    server = Server(Loop(collector_over(tree, RecordedAnswers(tree)), LivePace(1)), Selection())

    ready, alive = get(server, "/readyz"), get(server, "/healthz")

    assert (ready.status, ready.text, alive.status) == (503, "not ready: no tally yet\n", 200)


def test_no_pods_before_the_first_tally() -> None:
    """The JSON is a 503 with a reason, the page says the same in words."""
    tree = RecordedTree(recording("static-pod"))
    server = Server(Loop(collector_over(tree, RecordedAnswers(tree)), LivePace(1)), Selection())

    pods, page = get(server, "/api/v1/pods"), get(server, "/")

    assert (pods.status, pods.text) == (503, '{"error": "no tally yet"}')
    assert (page.status, "No tally yet" in page.text) == (200, True)


def test_not_ready_while_nobody_has_named_the_pods(tmp_path: Path) -> None:
    """A tally without names is not ready, and tells how each peer answered."""
    loop = Loop(collector_over(live(v2_root(tmp_path / "cgroup")), NoAnswers()), LivePace(1))
    loop.first_tick()

    got = get(Server(loop, Selection()), "/readyz")

    assert (got.status, got.text) == (
        503,
        "not ready: no answer has named the pods yet\nnames: none\nkubelet: unknown\nAPI server: unknown\n",
    )
    loop.stop()


def test_ready_by_the_api_server_tells_the_kubelets_refusal() -> None:
    """With the names of the API server the collector is ready, and says why it had to."""
    got = get(server_of("static-pod"), "/readyz")

    assert (got.status, got.text) == (
        200,
        "ok\nnames: apiserver\nkubelet: HTTP 403: Forbidden (user=system:serviceaccount:podtally:podtally, verb=get,"
        " resource=nodes, subresource(s)=[pods proxy])\nAPI server: ok\n",
    )


def test_what_a_kubelet_says_is_text_on_the_probes_and_the_page(tmp_path: Path) -> None:
    """Escapes, controls and newlines of its refusal are written out: no line and no markup is its own."""
    said = "\x1b]0;all is well\x07\u202e<script>\nAPI server: ok"

    class Refusing(NoAnswers):
        def take(self) -> list[Answer]:
            return [Answer("kubelet/pods.json", 1, 403, said, None)]

    loop = Loop(collector_over(live(v2_root(tmp_path / "cgroup")), Refusing()), LivePace(1))
    loop.first_tick()
    server = Server(loop, Selection())

    ready, page = get(server, "/readyz").text, get(server, "/").text

    assert ready == (
        "not ready: no answer has named the pods yet\nnames: none\nkubelet: HTTP 403:"
        " \\x1b]0;all is well\\x07\\u202e<script>\\nAPI server: ok\nAPI server: unknown\n"
    )
    assert "\\x1b]0;all is well\\x07\\u202e&lt;script&gt;" in page
    assert not {"\x1b", "\x07", "\u202e", "<script>"} & {*page, *re.findall("<script>", page)}
    loop.stop()


def test_a_failure_is_text_on_the_probes() -> None:
    """Why there is no tally yet, or none for too long."""
    loop = loop_over("static-pod")
    loop.published = None
    loop.failure = "\x1b[2J\nok"
    server = Server(loop, Selection())

    assert get(server, "/readyz").text == "not ready: no tally yet: \\x1b[2J\\nok\n"
    assert "\x1b" not in get(server, "/healthz").text
    loop.stop()


def test_ready_by_memory(tmp_path: Path) -> None:
    """Names once known keep the collector ready when nobody answers any more."""

    class Lost(Answers):
        def take(self) -> list[Answer]:
            return super().take() or [Answer("kubelet/pods.json", 0, None, "gone", None)]

    loop = Loop(collector_over(live(v2_root(tmp_path / "cgroup")), Lost(b'{"items": []}')), LivePace(1))
    loop.first_tick()
    loop.tick()

    got = get(Server(loop, Selection()), "/readyz")

    assert (got.status, got.text) == (200, "ok\nnames: memory\nkubelet: gone\nAPI server: unknown\n")
    loop.stop()


def test_not_alive_without_a_fresh_tally(tmp_path: Path) -> None:
    """A tally older than the limit makes the probe fail with a sentence."""
    loop = Loop(collector_over(live(v2_root(tmp_path / "cgroup")), NoAnswers()), LivePace(1))
    loop.first_tick()
    assert loop.published is not None
    loop.published = loop.published._replace(monotonic_ns=time.monotonic_ns() - 45_000_000_000)

    got = get(Server(loop, Selection()), "/healthz")

    assert got.status == 503
    assert re.fullmatch(r"no successful tick for \d+\.\d s, the limit is 30 s\n", got.text)
    loop.stop()


# --- the address ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "9753", "localhost", ":", ":abc", ":-1", ":65536", "::1", "fd00::7:80", "[::1]"])
def test_what_is_no_address_is_bad_usage(value: str) -> None:
    """An address needs a colon and a port, and an IPv6 host its brackets."""
    with pytest.raises(UsageError) as caught:
        parse_listen(value)

    assert str(caught.value) == f"{value!r} is no address: give HOST:PORT or :PORT, as 127.0.0.1:9753"
