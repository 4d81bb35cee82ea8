"""A real Prometheus on the host that scrapes the DaemonSet's pod at its own address, as one in the cluster would."""

from __future__ import annotations

import json
import shutil
import time
import urllib.parse
from typing import Any

from tests.e2e.cluster import collector_url
from tests.e2e.layout import NODE, PROMETHEUS_PORT, RUN
from tests.e2e.observing import fetch
from tests.e2e.processes import need, start, stop, wait_for

URL = f"http://127.0.0.1:{PROMETHEUS_PORT}"


FOLDER = RUN / "prometheus"
REFRESH_SECONDS = 5


def configuration() -> str:
    """Targets from a file: Debian builds Prometheus without discovery in Kubernetes."""
    return json.dumps(
        {
            "global": {"scrape_interval": "5s", "scrape_timeout": "4s"},
            "scrape_configs": [
                {
                    "job_name": "podtally",
                    "honor_labels": True,
                    "file_sd_configs": [
                        {"files": [str(FOLDER / "targets.json")], "refresh_interval": f"{REFRESH_SECONDS}s"}
                    ],
                }
            ],
        }
    )


def point_at_collector() -> None:
    """Write the pod's address; the node is the instance, so that series outlive the collector's pods."""
    _point_at(urllib.parse.urlsplit(collector_url()).netloc)


def point_at_nobody() -> None:
    """Have it scrape nothing for a while."""
    _point_at()
    time.sleep(2 * REFRESH_SECONDS)


def _point_at(*targets: str) -> None:
    written = FOLDER / "targets.new"
    written.write_text(json.dumps([{"targets": targets, "labels": {"instance": NODE}}]))
    written.rename(FOLDER / "targets.json")


def start_prometheus() -> None:
    """Start it with an empty store."""
    need("prometheus", package_hint="apt-get install prometheus")
    stop("prometheus")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "prometheus.yml").write_text(configuration())
    point_at_collector()
    start(
        "prometheus",
        [
            "prometheus",
            f"--config.file={FOLDER / 'prometheus.yml'}",
            f"--storage.tsdb.path={FOLDER / 'data'}",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}",
        ],
    )
    wait_for("Prometheus' first scrape", _has_scraped, 60)


def _has_scraped() -> bool:
    try:
        return bool(query("up{job='podtally'} == 1"))
    except OSError:  # it does not answer yet
        return False


def query(expression: str, *, path: str = "query", **more: str) -> list[Any]:
    """The result of a query. Raises: OSError if Prometheus does not answer."""
    arguments = urllib.parse.urlencode({"query": expression, **more})
    answer = json.loads(fetch(f"{URL}/api/v1/{path}?{arguments}"))
    return list(answer["data"]["result"])


def over(expression: str, begin: float, *, step: int = 5) -> list[Any]:
    """The same over a span until now."""
    return query(expression, path="query_range", start=str(begin), end=str(time.time()), step=str(step))
