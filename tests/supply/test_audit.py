"""The audit: which pinned versions fall under which advisories of a database on disk."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.version import Version

from supply.audit import AuditError, audit, is_affected, main

PINNED = {"aiohttp": "3.14.5", "pyyaml": "6.0"}


def advisory(name: str = "aiohttp", ecosystem: str = "PyPI", **affected: Any) -> dict[str, Any]:
    """An advisory of one package, as OSV has it."""
    events = [{"introduced": "0"}, {"fixed": "3.15.0"}]
    return {
        "id": "PYSEC-2026-1",
        "modified": "2026-11-02T03:04:05Z",
        "aliases": ["CVE-2026-1"],
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": name},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
                **affected,
            }
        ],
    }


def database(folder: Path, *records: dict[str, Any]) -> Path:
    """A checkout of such records."""
    for number, record in enumerate(records):
        path = folder / "vulns" / "x" / f"PYSEC-{number}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(record))
    return folder


def zipped(folder: Path, *records: dict[str, Any]) -> Path:
    """A zip of such records."""
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, record in enumerate(records):
            archive.writestr(f"PYSEC-{number}.json", json.dumps(record))
    return path


@pytest.mark.parametrize("form", [database, zipped])
def test_a_version_in_a_range_is_found(tmp_path: Path, form: Any) -> None:
    """With the advisory's names and the version that mends it, in both forms of a database."""
    result = audit(form(tmp_path, advisory(), advisory("flask")), PINNED)

    (found,) = result.found
    assert found == ("aiohttp", "3.14.5", "PYSEC-2026-1", ("CVE-2026-1",), ("3.15.0",))
    assert (result.records, result.newest) == (2, "2026-11-02")


def test_names_are_compared_as_indexes_compare_them(tmp_path: Path) -> None:
    """PyYAML is pyyaml."""
    record = advisory("PyYAML", ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "5"}]}])

    assert [one.name for one in audit(database(tmp_path, record), PINNED).found] == ["pyyaml"]


@pytest.mark.parametrize(
    "record",
    [
        advisory(ecosystem="npm"),
        {**advisory(), "withdrawn": "2026-11-03T00:00:00Z"},
        advisory(ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}]),
        advisory(ranges=[], versions=["3.14.4"]),
        advisory("aiohttp-jinja2"),
    ],
    ids=["another ecosystem", "withdrawn", "of commits", "another version", "another name"],
)
def test_what_is_not_of_a_pinned_version_is_not_found(tmp_path: Path, record: dict[str, Any]) -> None:
    """Neither by a like name nor by a range of something else."""
    assert audit(database(tmp_path, record), PINNED).found == ()


@pytest.mark.parametrize(
    ("events", "inside"),
    [
        ([{"introduced": "0"}, {"fixed": "3.14.5"}], False),
        ([{"introduced": "0"}, {"fixed": "3.14.6"}], True),
        ([{"introduced": "3.14.5"}], True),
        ([{"introduced": "3.14.6"}], False),
        ([{"introduced": "0"}, {"last_affected": "3.14.5"}], True),
        ([{"introduced": "0"}, {"last_affected": "3.14.4"}], False),
        ([{"introduced": "0"}, {"fixed": "1"}, {"introduced": "3.14"}, {"fixed": "3.15"}], True),
        ([{"fixed": "1"}, {"introduced": "3.9"}, {"introduced": "0"}, {"fixed": "3.10"}], False),
    ],
)
def test_the_last_event_that_is_not_after_a_version_decides(events: list[dict[str, str]], inside: bool) -> None:
    """OSV's own algorithm, by versions and not by text."""
    affected = {"ranges": [{"type": "ECOSYSTEM", "events": events}]}

    assert is_affected(Version("3.14.5"), affected) == inside


def test_a_listed_version_is_found() -> None:
    """Versions are compared as versions: 6.0.0 is 6.0."""
    assert is_affected(Version("6.0"), {"versions": ["6.0.0"]})


def test_nothing_is_no_database(tmp_path: Path) -> None:
    """An empty folder must not pass for one in which nothing is known."""
    with pytest.raises(AuditError, match="has no advisories"):
        audit(tmp_path, PINNED)


@pytest.mark.parametrize("text", ["name: aiohttp\n- [", "- name: aiohttp"])
def test_a_broken_advisory_is_told(tmp_path: Path, text: str) -> None:
    """What cannot be read may be the one that counts."""
    (tmp_path / "PYSEC-1.yaml").write_text(text)

    with pytest.raises(AuditError, match=r"the advisory PYSEC-1\.yaml "):
        audit(tmp_path, PINNED)


def test_the_program_says_what_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 and a line for each; 0 if none is known; 2 without a database."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("aiohttp==3.14.5 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    folder = database(tmp_path / "db", advisory())

    assert main([str(folder), str(lock)]) == 1
    assert capsys.readouterr().out == (
        "aiohttp 3.14.5: PYSEC-2026-1, CVE-2026-1; mended in 3.15.0\n"
        "1 pinned packages, 1 advisories, the newest of 2026-11-02: 1 known\n"
    )
    lock.write_text("aiohttp==3.15.0\n")
    assert main([str(folder), str(lock)]) == 0
    assert main([str(tmp_path / "nowhere"), str(lock)]) == 2
    assert capsys.readouterr().err.startswith("audit: ")
