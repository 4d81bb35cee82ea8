"""Known vulnerabilities of what the lock files pin, by a database of advisories on disk: no network is used.

    python3 -m supply.audit DATABASE [LOCK ...]

``DATABASE`` is a folder of advisories in the OSV form, as a checkout of ``github.com/pypa/advisory-database`` has them
(YAML), or a zip of them, as OSV gives one for each ecosystem (JSON). Exit 0: none is known; 1: some are; 2: bad usage.

A database knows what was known on the day it was made: that day is printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.version import InvalidVersion, Version

from supply.sbom import normalized, pins

LOCKS = ("requirements.lock", "requirements-dev.lock")
_SUFFIXES = (".json", ".yaml", ".yml")


class AuditError(Exception):
    """The database is none, or a lock file cannot be read."""


class Found(NamedTuple):
    """An advisory that a pinned version falls under."""

    name: str
    version: str
    advisory: str
    aliases: tuple[str, ...]
    fixed: tuple[str, ...]
    """The versions that mend it, as far as the advisory says."""


def records(database: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of all advisories. Raises :class:`AuditError` if there are none."""
    count = 0
    try:
        if database.is_dir():
            for path in sorted(database.rglob("*")):
                if path.suffix in _SUFFIXES and path.is_file() and ".git" not in path.parts:
                    count += 1
                    yield path.name, path.read_text(encoding="utf-8", errors="replace")
        else:
            with zipfile.ZipFile(database) as archive:
                for name in sorted(archive.namelist()):
                    if name.endswith(_SUFFIXES):
                        count += 1
                        yield name, archive.read(name).decode(errors="replace")
    except (OSError, zipfile.BadZipFile) as error:
        raise AuditError(f"{database} cannot be read as a folder or a zip of advisories: {error}") from error
    if not count:
        raise AuditError(
            f"{database} has no advisories: give a checkout of pypa/advisory-database, or OSV's zip of PyPI"
        )


def _parsed(name: str, text: str) -> Mapping[str, Any]:
    try:
        record = json.loads(text) if name.endswith(".json") else yaml.load(text, Loader=_LOADER)  # noqa: S506 - safe
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise AuditError(f"the advisory {name} cannot be read: {error}") from error
    if not isinstance(record, dict):
        raise AuditError(f"the advisory {name} is none")
    return record


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAMED = re.compile(r"""["']?name["']?\s*:\s*["']?([A-Za-z0-9][A-Za-z0-9._-]*)""")
_MODIFIED = re.compile(r"""["']?modified["']?\s*:\s*["']?(\d{4}-\d{2}-\d{2})""")


def _version(text: object) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:
        return None


def is_affected(version: Version, affected: Mapping[str, Any]) -> bool:
    """Whether a version is under an ``affected`` of OSV: listed, or in a range (https://ossf.github.io/osv-schema)."""
    if any(_version(one) == version for one in affected.get("versions") or ()):
        return True
    return any(
        _is_in(version, one.get("events") or ()) for one in affected.get("ranges") or () if one["type"] == "ECOSYSTEM"
    )


def _is_in(version: Version, events: Iterable[Mapping[str, Any]]) -> bool:
    """OSV's own algorithm: the last event that is not after the version decides."""
    told = [(_version(at), kind) for event in events for kind, at in event.items()]
    # "introduced: 0" is before every version.
    known = sorted(((at or Version("0.dev0"), kind) for at, kind in told), key=lambda one: one[0])
    inside = False
    for at, kind in known:
        if kind == "introduced" and version >= at:
            inside = True
        elif (kind == "fixed" and version >= at) or (kind == "last_affected" and version > at):
            inside = False
    return inside


def _fixed(affected: Mapping[str, Any]) -> tuple[str, ...]:
    ranges = [one for one in affected.get("ranges") or () if one["type"] == "ECOSYSTEM"]
    return tuple(str(event["fixed"]) for one in ranges for event in one.get("events") or () if "fixed" in event)


class Audit(NamedTuple):
    """What a database says."""

    found: tuple[Found, ...]
    records: int
    newest: str
    """The day of the newest advisory."""


def audit(database: Path, pinned: Mapping[str, str]) -> Audit:
    """Hold pinned versions, by name, against a database. Raises :class:`AuditError`."""
    found, count, newest = [], 0, ""
    for name, text in records(database):
        count += 1
        newest = max([newest, *_MODIFIED.findall(text)])
        # Most advisories are of packages that are not pinned: their text is enough to tell.
        if not {normalized(one) for one in _NAMED.findall(text)} & pinned.keys():
            continue
        record = _parsed(name, text)
        if record.get("withdrawn"):
            continue
        for affected in record.get("affected") or ():
            package = affected.get("package") or {}
            of = normalized(str(package.get("name", "")))
            version = _version(pinned.get(of)) if package.get("ecosystem") == "PyPI" else None
            if version is not None and is_affected(version, affected):
                aliases = tuple(str(one) for one in record.get("aliases") or ())
                found.append(Found(of, pinned[of], str(record.get("id", name)), aliases, _fixed(affected)))
    return Audit(tuple(sorted(set(found))), count, newest)


def main(arguments: list[str] | None = None) -> int:
    """Print what is known; the exit status."""
    parser = argparse.ArgumentParser(description="hold the lock files against a database of advisories on disk")
    parser.add_argument("database", type=Path, help="a checkout of pypa/advisory-database, or OSV's zip of PyPI")
    parser.add_argument("locks", nargs="*", type=Path, default=[Path(one) for one in LOCKS], metavar="LOCK")
    told = parser.parse_args(arguments)
    try:
        pinned = {
            name: version
            for lock in told.locks
            for name, (version, _) in pins(lock.read_text(encoding="utf-8")).items()
        }
        result = audit(told.database, pinned)
    except (AuditError, OSError) as error:
        sys.stderr.write(f"audit: {error}\n")
        return 2
    for one in result.found:
        fixed = f"; mended in {', '.join(one.fixed)}" if one.fixed else "; not mended yet"
        sys.stdout.write(f"{one.name} {one.version}: {', '.join((one.advisory, *one.aliases))}{fixed}\n")
    known = "none is known" if not result.found else f"{len(result.found)} known"
    day = result.newest or "no day"
    sys.stdout.write(f"{len(pinned)} pinned packages, {result.records} advisories, the newest of {day}: {known}\n")
    return int(bool(result.found))


if __name__ == "__main__":
    sys.exit(main())
