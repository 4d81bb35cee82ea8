"""The direction of imports: what ``docs/architecture.md`` draws is what the code does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "collector"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("doctor", "top", "verify", "loadtest", "backfill", "flags", "logs"),
    ("withheld",),
    ("server", "parity", "terminal", "web"),
    ("loop",),
    ("upstream",),
    ("metrics", "table"),
    ("tally",),
    ("history",),
    ("account", "twins"),
    ("witness", "members", "cgroup"),
    ("oom", "endings"),
    ("sources",),
    ("pods",),
    ("seams", "demand", "failures"),
    ("model",),
    ("errors", "garbage", "printable"),
)
"""Top to bottom. A part imports from floors below its own only; parts of one floor do not know each other."""

ONLY_THE_CLI = "sources"
"""Sources are chosen in one place."""


def parts() -> dict[str, list[Path]]:
    """Files of each part of the package."""
    found: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        name = relative.parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def imports(path: Path) -> set[str]:
    """Parts of the package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            if node.module == "collector":
                found |= {alias.name for alias in node.names if not alias.name.startswith("__")}
            elif node.module.startswith("collector."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("collector.")}
    return found


def floor(part: str) -> int:
    """The floor that a part is on."""
    return next(number for number, names in enumerate(FLOORS) if part in names)


def test_every_part_is_on_a_floor() -> None:
    """A new module is given its place before it is used."""
    assert set(parts()) == {name for names in FLOORS for name in names}


@pytest.mark.parametrize("part", sorted(parts()))
def test_imports_go_down(part: str) -> None:
    """No part imports from its own floor or from above."""
    wrong = {
        f"{path.relative_to(ROOT)} imports collector.{other}"
        for path in parts()[part]
        for other in imports(path)
        if other != part and floor(other) <= floor(part)
    }

    assert wrong == set()


def test_sources_are_chosen_by_the_cli_alone() -> None:
    """Nothing between the seams and the command line knows whether it reads a node or a recording."""
    users = {part for part, paths in parts().items() if any(ONLY_THE_CLI in imports(path) for path in paths)}

    assert users - {ONLY_THE_CLI} == {"cli"}


LOADTEST_EDGE = {"kubectl", "prometheus", "folder", "run"}
"""The modules of ``loadtest`` that read, write, ask and wait."""


def test_the_middle_of_a_load_tests_report_does_no_io() -> None:
    """What is made of k6's and Prometheus' words needs neither, so that a report is made again from kept files."""
    edge = {"subprocess", "urllib.request", "socket", "os", "pathlib", "time", "logging", "shutil", "aiohttp"}
    edge |= {f"collector.loadtest.{name}" for name in LOADTEST_EDGE}
    wrong = set()
    for path in (PACKAGE / "loadtest").glob("*.py"):
        if path.stem in LOADTEST_EDGE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            of = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            wrong |= {
                f"{path.name}: {name}" for name in (*names, of, *(f"{of}.{one}" for one in names)) if name in edge
            }

    assert wrong == set()


def test_the_model_imports_the_standard_library_alone() -> None:
    """Values are leaves of the house."""
    modules = {
        alias.name if isinstance(node, ast.Import) else (node.module or "")
        for node in ast.walk(ast.parse((PACKAGE / "model.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert modules <= {"__future__", "math", "collections.abc", "dataclasses", "typing"}


def test_every_test_says_what_it_holds() -> None:
    """Each test has a docstring: one sentence that states a fact."""
    silent = [
        f"{path.relative_to(ROOT)}::{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_no_error_is_swallowed() -> None:
    """No bare except, and no except of OSError or everything whose body is pass or continue."""
    broad = {"Exception", "BaseException", "OSError", "IOError", "EnvironmentError"}
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else broad
            idle = all(isinstance(step, ast.Pass | ast.Continue) for step in node.body)
            if node.type is None or (names & broad and idle):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")

    assert wrong == []
