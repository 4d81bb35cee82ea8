"""What may not be in the repository, and what must be true of its documents."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from collector import __version__
from collector.flags import FLAGS, SUMMARIES

ROOT = Path(__file__).resolve().parent.parent

DOCUMENTS = [
    *("README.md", "SECURITY.md", "loadtest/README.md"),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]

# Written so that this file does not match itself.
_HOSTS = ("py" + "pi", "python" + "hosted", "reg" + "istry.npmjs", "proxy.go" + "lang", "cra" + "tes")
REGISTRY_HOSTS = re.compile("|".join(rf"{name}\.(?:org|io|com)\b" for name in _HOSTS))
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:" + "|".join(("work", "root", "farm")) + r")/[\w.]")


def tracked() -> list[Path]:
    """Text files that git tracks or would track, fixtures left aside."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        # A copy without git: look at everything but what the commands make.
        listed = [
            str(path.relative_to(ROOT))
            for path in ROOT.rglob("*")
            if path.is_file() and not {".venv", ".git", ".mypy_cache", ".ruff_cache"} & set(path.parts)
        ]
    return [
        ROOT / name
        for name in listed
        if not name.startswith("tests/fixtures/cgroupfs/")
        and (ROOT / name).is_file()
        and not name.endswith((".zst", ".png"))
    ]


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Lines of the repository that match, with their places."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_registry_is_named() -> None:
    """No file carries the address of a package registry: where packages come from is the user's configuration."""
    assert lines_matching(REGISTRY_HOSTS) == []


def test_no_path_of_a_machine_is_named() -> None:
    """No file carries a path of the machine that it was written on."""
    assert lines_matching(MACHINE_PATHS) == []


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_lock_files_have_hashes_and_no_address(name: str) -> None:
    """Each requirement is pinned with hashes, and no line is an index, a link or a host."""
    text = (ROOT / name).read_text(encoding="utf-8")
    requirements = re.findall(r"^([\w.-]+)==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)

    assert len(requirements) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 0
    assert not re.search(r"://|--index|--extra-index|--find-links|--trusted-host", text)


def test_the_dev_lock_holds_the_runtime_lock() -> None:
    """Tests run with the very versions that the image installs."""
    pins = [
        set(re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    ]

    assert pins[0] <= pins[1]


def test_every_dependency_is_locked() -> None:
    """What pyproject.toml asks for is in the lock file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = {
        name.lower()
        for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert {re.split(r"[<>=]", one)[0].lower() for one in project["dependencies"]} <= locked


def test_the_readme_begins_with_run_test_and_apply() -> None:
    """The first commands of the README are make run, make test and kubectl apply -k daemonset/, in this order."""
    commands = re.findall(
        r"^(?:make \w+|kubectl apply \S+ \S+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    assert commands[:3] == ["make run", "make test", "kubectl apply -k daemonset/"]


def test_ci_calls_the_readmes_test_command() -> None:
    """What CI runs is what a contributor runs."""
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("make test")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    """Each relative link of a document names a file that is there."""
    folder = (ROOT / name).parent
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text(encoding="utf-8"))

    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_name_flags_and_commands_that_exist(name: str) -> None:
    """In the documents' command blocks, each podtally command and each of its flags exists in the program."""
    flags = {word for flag in FLAGS for word in (flag.name, flag.also) if word} | {"help", "version"}
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    for line in lines:
        _, called, rest = line.rpartition("podtally ")
        if called and (line.startswith(("podtally ", ".venv/bin/podtally ")) or " -- podtally " in line):
            words = rest.split()
            assert words[0] in SUMMARIES or " ".join(words[:2]) in SUMMARIES, line
            assert set(re.findall(r"--([a-z][a-z.-]+)", rest)) <= flags, line


def test_every_module_is_in_the_package_that_is_installed() -> None:
    """The tests run from the work tree, where a folder that pyproject.toml leaves out would be missed by nobody."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"][
        "find"
    ]

    assert found == {"include": ["collector", "collector.*"]}
    assert [path for path in (ROOT / "collector").rglob("*.py") if not (path.parent / "__init__.py").is_file()] == []


def test_the_changelog_has_the_version() -> None:
    """The version of the package has its entry."""
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
