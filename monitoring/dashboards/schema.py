"""Holds the dashboards against Grafana's own packages: @grafana/schema's types, and the unit ids of @grafana/data.

``python -m monitoring.dashboards.schema`` (``make schema``) takes both and a TypeScript compiler from the npm
registry into a temporary folder, some 50 MB, and compiles the JSON as values of the types: the dashboards, and each
panel's options and field settings by its kind. It is no part of ``make test``, which keeps what it needs of them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monitoring.dashboards.generate import OUT

VERSION = "13.2.3"
"""Of Grafana: the image that monitoring/grafana/kustomization.yaml names."""

TYPESCRIPT = "5.9"

KINDS = ("timeseries", "stat", "table", "barchart")
"""The kinds of panels, as the schema names them."""

TYPES = "node_modules/@grafana/schema/dist/types"

OF_PROMETHEUS = ("expr", "titleFormat", "textFormat", "useValueForTime")
"""What the Prometheus data source keeps on an annotation itself, which @grafana/data's type lets any data source do."""

Json = dict[str, Any]


def npm(folder: Path, *arguments: str) -> str:
    """Run npm in a folder. Raises: CalledProcessError."""
    done = subprocess.run(
        ["npm", *arguments],  # noqa: S607 - from the PATH, as the user has it
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def literal_enums(text: str) -> str:
    r"""Declarations in which an enum is the union of its values: JSON has these, and TypeScript takes none for an enum.

    >>> print(literal_enums('export declare enum A {\n    One = "one",\n    Two = "two"\n}'))
    export declare namespace A { type One = "one"; type Two = "two"; }
    export type A = "one" | "two";
    """

    def rewritten(found: re.Match[str]) -> str:
        members = re.findall(r"^\s*(\w+) = (\"[^\"]*\"|-?\d+)", found[2], re.MULTILINE)
        inside = " ".join(f"type {name} = {value};" for name, value in members)
        values = " | ".join(dict.fromkeys(value for _, value in members))
        return f"export declare namespace {found[1]} {{ {inside} }}\nexport type {found[1]} = {values};"

    return re.sub(r"export declare enum (\w+) \{(.*?)\}", rewritten, text, flags=re.DOTALL)


def panels(dashboard: Json) -> Iterator[Json]:
    """All panels but rows."""
    for one in dashboard["panels"]:
        yield from panels(one) if one["type"] == "row" else [one]


def program(dashboards: dict[str, Json]) -> str:
    """What is compiled: the JSON, as values of Grafana's types."""
    lines = [f'import type {{ Dashboard }} from "./{TYPES}/raw/dashboard/x/types.gen";']
    lines += [f'import type * as {kind} from "./{TYPES}/raw/composable/{kind}/panelcfg/x/types.gen";' for kind in KINDS]
    for name, dashboard in dashboards.items():
        for one in dashboard["annotations"]["list"]:
            for key in OF_PROMETHEUS:
                one.pop(key, None)
        lines.append(f"export const {name.replace('-', '_')}: Dashboard = {json.dumps(dashboard)};")
        for panel in panels(dashboard):
            kind, of = panel["type"], f"{name.replace('-', '_')}_{panel['id']}"
            lines.append(f"export const {of}: Partial<{kind}.Options> = {json.dumps(panel['options'])};")
            custom = panel["fieldConfig"]["defaults"].get("custom")
            if custom:
                lines.append(f"export const {of}_custom: Partial<{kind}.FieldConfig> = {json.dumps(custom)};")
    return "\n".join((*lines, ""))


def faults_of_form(folder: Path, dashboards: dict[str, Json]) -> list[str]:
    """What the TypeScript compiler has against the dashboards."""
    npm(folder, "install", "--no-audit", "--no-fund", f"@grafana/schema@{VERSION}", f"typescript@{TYPESCRIPT}")
    for path in (folder / TYPES).rglob("*.d.ts"):
        path.write_text(literal_enums(path.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "check.ts").write_text(program(dashboards), encoding="utf-8")
    done = subprocess.run(
        [str(folder / "node_modules/.bin/tsc"), "--noEmit", "--strict", "--skipLibCheck", "check.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()


def units_of_grafana(folder: Path) -> set[str]:
    """The ids that @grafana/data lists."""
    archive = npm(folder, "pack", "--silent", f"@grafana/data@{VERSION}").split()[-1]
    shutil.unpack_archive(folder / archive, folder / "data", filter="data")
    text = (folder / "data/package/dist/esm/valueFormats/categories.mjs").read_text(encoding="utf-8")
    return set(re.findall(r'\bid: "([^"]+)"', text))


def units(dashboards: dict[str, Json]) -> set[str]:
    """The units that the dashboards have, their own suffixes left aside."""
    found = set()
    for dashboard in dashboards.values():
        for panel in panels(dashboard):
            config = panel["fieldConfig"]
            found.add(config["defaults"].get("unit"))
            found |= {one["value"] for over in config["overrides"] for one in over["properties"] if one["id"] == "unit"}
    return {one for one in found if one and not one.startswith("suffix:")}


def main() -> int:
    """Check all dashboards."""
    if shutil.which("npm") is None:
        print("skipped: npm is not installed, and Grafana's packages come with it")
        return 0
    dashboards = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(OUT.glob("*.json"))}
    with tempfile.TemporaryDirectory(prefix="podtally-schema-") as made:
        folder = Path(made)
        (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        faults = [f"no unit of Grafana's: {one}" for one in sorted(units(dashboards) - units_of_grafana(folder))]
        faults += faults_of_form(folder, dashboards)
    print("\n".join(faults) or f"{len(dashboards)} dashboards are of Grafana {VERSION}'s types, and so are their units")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
