"""A CycloneDX 1.6 SBOM (JSON) of what the image installs, made of pip's own report of the installation.

    python3 supply/sbom.py --report REPORT --lock requirements.lock --site FOLDER --version 0.1.0
        [--wheel FILE] [--base IMAGE] > bom

Run by the image's build, with the standard library alone. ``pip install --report`` names each package with the SHA-256
of the wheel that was installed; a package that the lock file does not have with that very hash is an error. Nothing in
the SBOM is of the machine that made it (no time, no address of an index), so that the same build gives the same bytes.

What the base image brings, Python and Debian's packages, is one component with its digest: ask a scanner about that.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import re
import sys
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "podtally"
_NAMESPACE = uuid.UUID("c9a4d3c5-4f1c-5a2e-9b0e-6d2f8a7f1e53")
_LONGEST_LICENSE = 80
"""Some packages put the whole text of a license where its name is meant to be."""


class SbomError(Exception):
    """What was installed is not what the lock file says."""


def normalized(name: str) -> str:
    """A package's name as indexes compare it (PEP 503).

    >>> normalized("Prometheus_Client")
    'prometheus-client'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def pins(lock: str) -> dict[str, tuple[str, frozenset[str]]]:
    """By name: the version and the hashes of a lock file.

    >>> pins("A_b==1.0 --hash=sha256:" + "0" * 64) == {"a-b": ("1.0", frozenset({"0" * 64}))}
    True
    """
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for entry in re.split(r"\n(?=\S)", lock):
        pin = _PIN.match(entry)
        if pin is not None:
            found[normalized(pin[1])] = (pin[2], frozenset(_HASH.findall(entry)))
    return found


def purl(name: str, version: str) -> str:
    """The package's URL, which is its reference within the SBOM as well."""
    return f"pkg:pypi/{normalized(name)}@{version}"


def _component(item: Mapping[str, Any], locked: Mapping[str, tuple[str, frozenset[str]]]) -> dict[str, Any]:
    metadata = item["metadata"]
    name, version = normalized(metadata["name"]), metadata["version"]
    archive = item.get("download_info", {}).get("archive_info", {})
    sha256 = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
    pinned, hashes = locked.get(name, (None, frozenset()))
    if version != pinned:
        raise SbomError(f"{name} {version} is installed, and the lock file has {pinned or 'none of that name'}")
    if sha256 not in hashes:
        raise SbomError(f"{name} {version} is installed from a file that the lock file does not have: {sha256}")
    component = {
        "type": "library",
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "purl": purl(name, version),
    }
    licenses = _licenses(metadata)
    return {**component, "licenses": licenses} if licenses else component


def _licenses(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a package says of its license: an SPDX expression, else words of its own."""
    if metadata.get("license_expression"):
        return [{"expression": metadata["license_expression"]}]
    said = (metadata.get("license") or "").strip()
    if said and "\n" not in said and len(said) <= _LONGEST_LICENSE:
        return [{"license": {"name": said}}]
    names = [one.rpartition(" :: ")[2] for one in metadata.get("classifier", ()) if one.startswith("License :: ")]
    return [{"license": {"name": name}} for name in sorted(names)]


def license_expressions(site: Path) -> dict[str, str]:
    """By name, the SPDX expressions of what is installed: pip before 25 leaves them out of its report."""
    found = {}
    for one in importlib.metadata.distributions(path=[str(site)]):
        if "License-Expression" in one.metadata:
            found[normalized(one.metadata["Name"])] = one.metadata["License-Expression"]
    return found


def _needed(metadata: Mapping[str, Any], there: Mapping[str, str]) -> list[str]:
    """References to the packages that one names and that are installed; those of its extras left aside."""
    found = set()
    for requirement in metadata.get("requires_dist", ()):
        name, _, marker = requirement.partition(";")
        named = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", name.strip())
        if named is not None and "extra ==" not in marker and normalized(named[0]) in there:
            found.add(there[normalized(named[0])])
    return sorted(found)


def document(
    items: Iterable[Mapping[str, Any]],
    lock: str,
    *,
    version: str,
    wheel_sha256: str | None = None,
    base: str | None = None,
) -> dict[str, Any]:
    """The SBOM. ``items`` are the packages of pip's report. Raises :class:`SbomError` if one is not the lock file's."""
    items = sorted(items, key=lambda item: normalized(item["metadata"]["name"]))
    locked = pins(lock)
    components = [_component(item, locked) for item in items]
    there = {one["name"]: one["bom-ref"] for one in components}
    absent = sorted(set(locked) - set(there) - _conditional(lock))
    if absent:
        raise SbomError(f"the lock file has packages that are not installed: {', '.join(absent)}")
    root: dict[str, Any] = {
        "type": "application",
        "bom-ref": purl(NAME, version),
        "name": NAME,
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": purl(NAME, version),
    }
    if wheel_sha256 is not None:
        root["hashes"] = [{"alg": "SHA-256", "content": wheel_sha256}]
    graph = [
        {"ref": one["bom-ref"], "dependsOn": _needed(item["metadata"], there)}
        for one, item in zip(components, items, strict=True)
    ]
    # The lock file alone says what of it podtally itself names: "via podtally (pyproject.toml)".
    own = sorted(there[name] for name in _own(lock) if name in there)
    found: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": [{"ref": root["bom-ref"], "dependsOn": own}, *graph],
    }
    if base:
        found["components"] = [_base(base), *components]
    serial = uuid.uuid5(_NAMESPACE, json.dumps(found, sort_keys=True))
    return {**found, "serialNumber": f"urn:uuid:{serial}"}


def _conditional(lock: str) -> set[str]:
    """The packages of a lock file that are meant for some Pythons or machines alone."""
    firsts = (entry.partition("\n")[0] for entry in re.split(r"\n(?=\S)", lock))
    return {normalized(pin[1]) for first in firsts if ";" in first and (pin := _PIN.match(first))}


def _own(lock: str) -> list[str]:
    """The packages of a lock file that podtally's own pyproject.toml asks for."""
    entries = re.split(r"\n(?=\S)", lock)
    return [
        normalized(pin[1]) for entry in entries if f"{NAME} (pyproject.toml)" in entry and (pin := _PIN.match(entry))
    ]


def _base(image: str) -> dict[str, Any]:
    """The base image: its name, and its digest where it is given by one."""
    name, _, digest = image.partition("@sha256:")
    slash, colon = name.rfind("/"), name.rfind(":")
    tag = name[colon + 1 :] if colon > slash else ""
    component: dict[str, Any] = {"type": "container", "bom-ref": "base", "name": name[:colon] if tag else name}
    if digest:
        component["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if tag:
        component["version"] = tag
    return component


def main(arguments: list[str] | None = None) -> int:
    """Print the SBOM; exit 1 if what was installed is not what the lock file says."""
    parser = argparse.ArgumentParser(description="print a CycloneDX SBOM of an installation")
    parser.add_argument("--report", required=True, type=Path, help="what pip install --report wrote")
    parser.add_argument("--lock", required=True, type=Path, help="the lock file with hashes")
    parser.add_argument("--version", required=True, help="podtally's")
    parser.add_argument("--wheel", type=Path, help="podtally's wheel, for its hash")
    parser.add_argument("--base", help="the base image")
    parser.add_argument("--site", required=True, type=Path, help="site-packages, for licenses that pip does not report")
    told = parser.parse_args(arguments)
    items = json.loads(told.report.read_bytes())["install"]
    expressions = license_expressions(told.site)
    for item in items:
        item["metadata"].setdefault("license_expression", expressions.get(normalized(item["metadata"]["name"])))
    try:
        made = document(
            items,
            told.lock.read_text(encoding="utf-8"),
            version=told.version,
            wheel_sha256=hashlib.sha256(told.wheel.read_bytes()).hexdigest() if told.wheel else None,
            base=told.base,
        )
    except SbomError as error:
        sys.stderr.write(f"sbom: {error}\n")
        return 1
    sys.stdout.write(json.dumps(made, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
