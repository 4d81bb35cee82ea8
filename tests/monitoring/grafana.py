"""Dashboards as Grafana reads them: panels, targets, and variables filled in by asking a Prometheus."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from monitoring import local
from tests.helpers import REPO

FOLDER = REPO / "monitoring" / "grafana" / "dashboards"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))

Json = dict[str, Any]

SCRAPE_SECONDS = 5
"""The data source's timeInterval, which is the scrape interval."""


@cache
def dashboard(name: str) -> Json:
    """A dashboard's JSON. Nobody changes it."""
    found: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


class Panel(NamedTuple):
    """A panel, and whether it stands in a row that is folded away."""

    json: Json
    folded: bool

    @property
    def title(self) -> str:
        return str(self.json["title"])

    @property
    def says_when_absent(self) -> str | None:
        """What stands in place of the panel's contents where it has none."""
        text: str | None = self.json["fieldConfig"]["defaults"].get("noValue")
        return text

    @property
    def expressions(self) -> list[str]:
        return [target["expr"] for target in self.json["targets"]]


def panels(name: str) -> Iterator[Panel]:
    """A dashboard's panels, rows left aside."""
    for one in dashboard(name)["panels"]:
        if one["type"] == "row":
            yield from (Panel(inner, folded=True) for inner in one["panels"])
        else:
            yield Panel(one, folded=False)


def variables(name: str) -> list[Json]:
    """The variables that ask Prometheus, in order."""
    return [one for one in dashboard(name)["templating"]["list"] if one["type"] == "query"]


def marks(name: str) -> list[Json]:
    """The annotations that ask Prometheus."""
    return [one for one in dashboard(name)["annotations"]["list"] if "expr" in one]


def filled(text: str, values: Mapping[str, str], *, range_seconds: int = 900, step_seconds: int = 5) -> str:
    """Text with its variables filled in, Grafana's own as well; what is no variable, as $1, stays."""
    rate = max(step_seconds + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)
    own = {
        "__rate_interval": f"{rate}s",
        "__rate_interval_ms": str(rate * 1000),
        "__interval": f"{step_seconds}s",
        "__range": f"{range_seconds}s",
    }
    known = {**own, **values}
    return re.sub(r"\$(\w+)", lambda found: known.get(found[1], found[0]), text)


def get(url: str, path: str, **arguments: str) -> Any:
    """The data of an answer of Prometheus' API. Raises: OSError where it refuses."""
    with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}", timeout=30) as answer:
        return json.load(answer)["data"]


def instant(url: str, expression: str, **more: str) -> list[Json]:
    """The series of an instant query."""
    return local.query(url, expression, **more)


def options(url: str, variable: Json, values: Mapping[str, str]) -> list[str]:
    """What a variable's query offers, as Grafana's Prometheus data source asks for it."""
    query = filled(variable["query"], values)
    if found := re.fullmatch(r"label_names\((.+)\)", query):
        names = get(url, "labels", **{"match[]": f'{{__name__=~".*{found[1]}.*"}}'})
    elif found := re.fullmatch(r"label_values\((.+),\s*(\w+)\)", query):
        names = get(url, f"label/{found[2]}/values", **{"match[]": found[1]})
    else:
        raise AssertionError(f"no query that Grafana's data source knows: {query}")
    keep = variable.get("regex")
    return sorted(one for one in names if not keep or re.search(keep.strip("/"), one))


def chosen(url: str, name: str, **fixed: str) -> dict[str, str]:
    """The values that the variables have when the dashboard is opened: all, or the first, but for the fixed ones."""
    values: dict[str, str] = {}
    for variable in variables(name):
        offered = options(url, variable, values)
        at_first = variable["current"].get("value") if variable.get("current") else None
        if variable["name"] in fixed:
            values[variable["name"]] = fixed[variable["name"]]
        elif variable.get("includeAll"):
            values[variable["name"]] = variable["allValue"]
        else:
            values[variable["name"]] = at_first if at_first in offered else (offered or [""])[0]
    return values
