"""A real Prometheus with the shipped configuration in front of replays: for tests and the dashboards' pictures.

What no recording can have comes from stand-ins: k6's series, and podtally's own families of its comparison with the
kubelet, of the descriptors it holds (a replay holds none), and of its guarded access. Their numbers are made up; names
and labels of podtally's are written by its own code.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from collector.metrics.account import Account, AccountCollector, KubeletAgreement
from monitoring.local import configuration, prometheus
from tests.helpers import free_port, served_in_thread, started
from tests.monitoring.social import all_twelve
from tests.replays import completed, first_frames, write
from tests.support import CAPTURED, FIXTURES

PLAIN = "podtally-plain"
"""The job of a node without pressure files, limits, network, disks, a comparison and k6."""

SUMMARY = "podtally-summary"
"""The job of a collector whose numbers are the kubelet's /stats/summary."""

CADVISOR = "podtally-cadvisor"
ACCOUNT = "podtally-account"
"""The job of the made-up comparison and guard."""

# --- stand-ins ------------------------------------------------------------------------------------------------------


def _account() -> AccountCollector:
    """A collector's account of itself with a comparison and a guard. The numbers are made up."""
    account = Account()
    account.agreement = lambda: KubeletAgreement(
        compared={"cpu": 14, "memory": 15},
        outside={"cpu": 0, "memory": 0},
        ratios={
            ("cpu", "median"): 0.003,
            ("cpu", "worst"): 0.016,
            ("memory", "median"): 0.0,
            ("memory", "worst"): 0.004,
        },
        results={"ok": int(time.time() // 60) % 100_000, "failed": 0},
        age_seconds=time.time() % 60,
    )
    account.descriptors_held, account.descriptors_limit, account.opened_reads = lambda: 520, lambda: 4096, lambda: 0
    account.web_config_successful = lambda: True
    account.refusals = {"no_credentials": 2, "wrong_credentials": 1}
    account.reviews = {("201", "token"): 12, ("201", "access"): 12}
    return AccountCollector(account, lambda: None, lambda: None)


def own_account() -> str:
    """The page of that collector, of its optional families alone: it has no node to be the collector of."""
    registry = CollectorRegistry()
    registry.register(_account())
    families = generate_latest(registry).decode().split("# HELP ")
    optional = (
        "podtally_kubelet_",
        "podtally_descriptors_",
        "podtally_opened_reads",
        "podtally_web_config_",
        "podtally_refused_requests",
        "podtally_reviews",
    )
    return "".join(f"# HELP {family}" for family in families if family.startswith(optional))


K6_STAGES = ((0, 0), (60, 100), (240, 100), (300, 0))
"""Seconds and virtual users of the made-up run; it begins anew after the last."""

_ENDPOINTS = {"home_timeline": (0.6, 0.012), "user_timeline": (0.3, 0.009), "compose": (0.1, 0.034)}
"""Share of the requests (wrk2's mix) and latency at rest in seconds."""


def k6(seconds: float) -> str:
    """What k6 would have written so many seconds into a run: names, labels and units are k6's, the numbers made up."""
    for (begin, low), (end, high) in pairwise(K6_STAGES):
        if begin <= seconds < end:
            users = low + (high - low) * (seconds - begin) / (end - begin)
            break
    else:
        return ""
    run = 'testid="load-1",profile="load",scenario="load"'
    lines = [f"k6_vus{{{run}}} {users:.0f}", f"k6_dropped_iterations_total{{{run}}} {max(0, seconds - 60) // 20:.0f}"]
    lines.append(f'k6_checks_rate{{{run},check="the answer has posts"}} 0.998')
    for endpoint, (share, rest) in _ENDPOINTS.items():
        requests = share * seconds * 80
        for status, expected, part in (("200", "true", 0.998), ("500", "false", 0.002)):
            of = f'{run},endpoint="{endpoint}",status="{status}",expected_response="{expected}"'
            lines.append(f"k6_http_reqs_total{{{of}}} {requests * part:.0f}")
            lines.append(f"k6_http_req_failed_rate{{{of}}} {expected == 'false':d}")
            for percentile, times in ((50, 1), (95, 2.5), (99, 6)):
                latency = rest * times * (1 + (users / 100) ** 2)
                lines.append(f"k6_http_req_duration_p{percentile}{{{of}}} {latency:.5f}")
    return "\n".join((*lines, ""))


START_SECONDS = 90.0
"""How long the replays may take to begin: four at once, on a machine that does other things."""

# --- the stage ------------------------------------------------------------------------------------------------------


def _job(name: str, address: str, path: str = "/metrics", **labels: str) -> dict[str, Any]:
    return {
        "job_name": name,
        "honor_labels": True,
        "metrics_path": path,
        "static_configs": [{"targets": [address], "labels": labels}],
    }


def social(frames: int) -> Callable[[Path], Path]:
    """Makes a recording of the twelve services: that many seconds of it."""

    def make(folder: Path) -> Path:
        return write(all_twelve(first_frames("parity-1hz.tar.zst", frames)), folder / "social.tar")

    return make


@contextmanager
def stage(folder: Path, *, frames: int = 25, run_of_k6: Callable[[], float] | None = None) -> Iterator[str]:
    """The URL of a Prometheus that scrapes all of this; ``run_of_k6``: seconds into k6's run, which begins now."""
    began = time.monotonic()
    into_the_run = run_of_k6 or (lambda: 30 + (time.monotonic() - began) % 240)
    node = write(completed(first_frames(CAPTURED[0], 5)), folder / "node.tar")
    pages: Mapping[str, Callable[[], str]] = {"/account": own_account, "/k6": lambda: k6(into_the_run())}

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=pages[request.path]())

    def at(url: str) -> str:
        return urllib.parse.urlsplit(url).netloc

    with ExitStack() as open_:
        here = ("--listen", "127.0.0.1:0")
        loop = ("--loop", *here)
        labels = ("--pod-labels", "app,service")
        replays = {
            "node1": open_.enter_context(started("replay", node, *loop)),
            "node2": open_.enter_context(started("replay", social(frames)(folder), *labels, *loop)),
            SUMMARY: open_.enter_context(started("replay", FIXTURES / CAPTURED[0], "--source", "summary", *here)),
            PLAIN: open_.enter_context(started("replay", FIXTURES / "missing-files", *loop, "--speed", "2")),
        }
        urls = {name: one.serving(START_SECONDS) for name, one in replays.items()}
        stand_in = at(open_.enter_context(served_in_thread(answer)))
        config = configuration({name: at(urls[name]) for name in ("node1", "node2")})
        config["scrape_configs"] += [
            _job(CADVISOR, at(urls["node1"]), "/metrics/cadvisor", instance="node1"),
            _job(SUMMARY, at(urls[SUMMARY]), instance="node3"),
            _job(PLAIN, at(urls[PLAIN]), instance="node4"),
            _job(ACCOUNT, stand_in, "/account", instance="node1"),
            _job("k6", stand_in, "/k6"),
        ]
        listen = f"127.0.0.1:{free_port()}"
        open_.enter_context(prometheus(folder, config, listen))
        yield f"http://{listen}"
