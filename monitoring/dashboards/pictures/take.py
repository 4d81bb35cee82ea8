"""Takes the pictures of the dashboards in ``docs/dashboards/``: Grafana's front-end libraries in headless Chromium.

``python -m monitoring.dashboards.pictures.take`` brings up the stage of the tests, a real Prometheus with the shipped
configuration in front of replays of recordings, lets it scrape for ten minutes, asks it all that the panels ask, and
draws the answers. Rows that are folded away are drawn open, so that all can be seen. It needs npm, chromium and Pillow
(``pip install pillow``), none of which the tests need; ``--url`` takes a Prometheus that is there already.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.monitoring import grafana
from tests.monitoring.stage import stage

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[2] / "docs" / "dashboards"

SHOWN_SECONDS = 450
STEP_SECONDS = 5

VALUES: dict[str, dict[str, str]] = {
    "kubectl-top": {"job": "podtally", "instance": "node1|node2"},
    "application": {"job": "podtally", "namespace": "social"},
    "pod": {"job": "podtally", "namespace": "team-c", "pod": "pagecache"},
    "collector": {"job": "podtally|podtally-account", "instance": ".+"},
}
"""What the variables are set to in each picture."""

MOST_BYTES = 150_000

OF_README = ("kubectl-top", "application")
"""Those of which the part above the first row's title is a picture of its own."""


def asked(url: str, panel: grafana.Json, values: dict[str, str], now: float) -> list[list[grafana.Json]]:
    """What Prometheus answers to each target of a panel: a matrix, or a vector for what is of one moment."""
    found = []
    for target in panel["targets"]:
        expression = grafana.filled(target["expr"], values, range_seconds=SHOWN_SECONDS, step_seconds=STEP_SECONDS)
        if target.get("instant"):
            answer = grafana.get(url, "query", query=expression, time=str(now))
        else:
            answer = grafana.get(
                url,
                "query_range",
                query=expression,
                start=str(now - SHOWN_SECONDS),
                end=str(now),
                step=str(STEP_SECONDS),
            )
        found.append(answer["result"])
    return found


def unfolded(name: str) -> list[grafana.Json]:
    """The panels and rows of a dashboard at the places that they have once all rows are open."""
    found: list[grafana.Json] = []
    shift = 0
    for one in grafana.dashboard(name)["panels"]:
        one = json.loads(json.dumps(one))
        one["gridPos"]["y"] += shift
        found.append(one)
        inner = one.pop("panels", []) if one["type"] == "row" else []
        for panel in inner:
            panel["gridPos"]["y"] += shift
            found.append(panel)
        if inner:
            shift += max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in inner) - one["gridPos"]["y"] - 1
    return found


def shown(url: str, name: str, now: float) -> grafana.Json:
    """All that the page draws: the dashboard's panels, and the answers to each by its id."""
    values = grafana.chosen(url, name, **VALUES[name])
    panels = unfolded(name)
    labels = {one["name"]: one["label"] for one in grafana.variables(name)}
    return {
        "title": grafana.dashboard(name)["title"],
        "variables": [
            (labels[key], "All" if value in (".+", ".*") else value.replace("|", " + "))
            for key, value in values.items()
        ],
        "panels": panels,
        "answers": {one["id"]: asked(url, one, values, now) for one in panels if one["type"] != "row"},
        "from": now - SHOWN_SECONDS,
        "to": now,
    }


def bundle(folder: Path) -> tuple[str, str]:
    """The page's style and program, with Grafana's libraries in them. Takes half a minute and 500 MB the first time."""
    for name in ("package.json", "page.jsx"):
        shutil.copy(HERE / name, folder / name)
    for command in (
        ["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps"],
        ["npm", "run", "--silent", "bundle"],
    ):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    style, program = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return style, program


def draw(style: str, program: str, contents: grafana.Json, folder: Path, out: Path) -> None:
    """Open the page without a window and keep what it shows; and what of it is above the first row's title."""
    from PIL import Image, ImageChops

    page = folder / f"{out.stem}.html"
    text = json.dumps(contents).replace("</", "<\\/")
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><style>{style}</style><body style="margin:0"><div id="root"></div>'
        f"<script>window.SHOWN={text}</script><script>{program}</script>",
        encoding="utf-8",
    )
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in contents["panels"]) * 38 + 60
    shot = folder / f"{out.stem}.png"
    subprocess.run(
        [  # noqa: S607 - from the PATH, as the npm above
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size=1224,{height}",
            "--virtual-time-budget=15000",
            f"--screenshot={shot}",
            page.as_uri(),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=120,
    )
    with Image.open(shot) as image:
        drawn = image.convert("RGB")
        if ImageChops.difference(drawn, Image.new("RGB", drawn.size, drawn.getpixel((0, 0)))).getbbox() is None:
            raise SystemExit(f"{page}: the page is empty")
        _keep(drawn, out)
        if out.stem in OF_README:
            first = min(one["gridPos"]["y"] for one in contents["panels"] if one["type"] == "row")
            _keep(drawn.crop((0, 0, drawn.width, first * 38 + 48)), out.with_stem(f"{out.stem}-readme"))


def _keep(drawn: Any, out: Path) -> None:
    """Write a picture in as many colours as make it no larger than a repository should keep."""
    from PIL import Image

    for colors in (128, 96, 80, 64, 56, 48):
        drawn.quantize(colors, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, optimize=True)
        if out.stat().st_size <= MOST_BYTES:
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """Take all pictures, or those named."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards.pictures.take", description=__doc__)
    parser.add_argument("name", nargs="*", default=list(VALUES), help="dashboards, by the names of their files")
    parser.add_argument("--url", help="a Prometheus that has scraped all of it already")
    parser.add_argument("--at", type=float, help="with --url: the end of the time shown, in seconds since the epoch")
    parser.add_argument("--modules", type=Path, help="a folder to keep Grafana's libraries in, for the next time")
    chosen: Any = parser.parse_args(arguments)
    for program in ("npm", "chromium"):
        if shutil.which(program) is None:
            print(f"{program} is not installed, and the pictures are drawn with it", file=sys.stderr)
            return 2
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="podtally-pictures-") as made, ExitStack() as open_:
        folder = Path(made)
        modules = chosen.modules or folder
        modules.mkdir(exist_ok=True)
        style, program = bundle(modules)
        url = chosen.url
        if url is None:
            began = time.monotonic()
            url = open_.enter_context(stage(folder, frames=70, run_of_k6=lambda: time.monotonic() - began - 200))
            time.sleep(600)
        now = chosen.at or time.time()
        for name in chosen.name:
            draw(style, program, shown(url, name, now), folder, OUT / f"{name}.png")
            print(f"written: docs/dashboards/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
