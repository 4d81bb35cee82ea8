"""Writes the dashboards that Grafana reads, ``monitoring/grafana/dashboards/*.json``, from the code beside this file.

``python -m monitoring.dashboards.generate`` writes them; ``--check`` exits 1 with a diff if one is not what the code
gives.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.dashboards.application import application
from monitoring.dashboards.itself import itself
from monitoring.dashboards.kubectl_top import kubectl_top
from monitoring.dashboards.parts import as_json
from monitoring.dashboards.pod import pod

OUT = Path(__file__).resolve().parents[1] / "grafana" / "dashboards"

DASHBOARDS: dict[str, Callable[[], Dashboard]] = {
    "kubectl-top": kubectl_top,
    "application": application,
    "pod": pod,
    "collector": itself,
}
"""By the name of their file."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.dashboards.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 with a diff if a dashboard is not current")
    checked = parser.parse_args(arguments).check
    stale = False
    for name, make in DASHBOARDS.items():
        path, text = OUT / f"{name}.json", as_json(make())
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        if old == text:
            continue
        if not checked:
            path.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(OUT.parents[2])}")
            continue
        stale = True
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), text.splitlines(True), path.name, "what the code gives")
        )
    if stale:
        print("\nThe dashboards are not current: `make docs` writes them anew.")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
