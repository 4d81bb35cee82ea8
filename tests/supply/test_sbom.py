"""The SBOM: valid by CycloneDX' own schema, whole, the same each time, and refused where it would not be true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from supply.sbom import SbomError, document, main, normalized, pins

REPO = Path(__file__).resolve().parents[2]
LOCK = (REPO / "requirements.lock").read_text(encoding="utf-8")
PINS = pins(LOCK)
NEEDS = {"aiohttp": ["yarl>=1.17", "Brotli; extra == 'speedups'", "attrs (>=17.3.0)"]}
LICENSES: dict[str, dict[str, Any]] = {
    "aiohttp": {"license_expression": "Apache-2.0 AND MIT"},
    "yarl": {"license": "Apache-2.0"},
    "attrs": {"license": "line\n" * 100, "classifier": ["License :: OSI Approved :: MIT License"]},
}


def installed(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The packages of the lock file as pip reports them, each from the first of its wheels."""
    return [
        {
            "download_info": {
                "url": "https://index.internal/simple/x.whl",
                "archive_info": {"hashes": {"sha256": min(hashes)}},
            },
            "metadata": {
                "name": name.replace("-", "_"),
                "version": version,
                "requires_dist": NEEDS.get(name, []),
                **LICENSES.get(name, {}),
                **changes.get(name, {}),
            },
        }
        for name, (version, hashes) in PINS.items()
    ]


def made(**changes: dict[str, Any]) -> dict[str, Any]:
    """The SBOM of that installation."""
    base = "python:3.13-slim-bookworm@sha256:" + "c" * 64
    return document(installed(**changes), LOCK, version="0.1.0", wheel_sha256="a" * 64, base=base)


def component(bom: dict[str, Any], name: str) -> dict[str, Any]:
    """One of the components."""
    found: dict[str, Any] = next(one for one in bom["components"] if one["name"] == name)
    return found


def test_it_is_valid_by_the_schema() -> None:
    """CycloneDX' JSON schema of version 1.6, and strictly: no key that it does not know."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(made())) is None


def test_it_is_valid_without_wheel_and_base() -> None:
    """As make sbom makes it."""
    bom = document(installed(), LOCK, version="0.1.0")

    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is None


def test_each_pinned_package_is_a_component_with_the_hash_of_its_wheel() -> None:
    """Name, version, hash and URL are those of the lock file and of the report."""
    found = {one["name"]: one for one in made()["components"] if one["type"] == "library"}

    assert {name: one["version"] for name, one in found.items()} == {name: pin[0] for name, pin in PINS.items()}
    assert all(one["hashes"] == [{"alg": "SHA-256", "content": min(PINS[name][1])}] for name, one in found.items())
    assert found["aiohttp"]["purl"] == f"pkg:pypi/aiohttp@{PINS['aiohttp'][0]}"


def test_the_graph_begins_with_what_podtally_asks_for() -> None:
    """The root depends on the dependencies of pyproject.toml, a package on what it names beside its extras."""
    graph = {one["ref"].partition("@")[0]: one["dependsOn"] for one in made()["dependencies"]}
    names = [one.partition("@")[0].removeprefix("pkg:pypi/") for one in graph["pkg:pypi/podtally"]]

    assert names == [
        "aiohttp",
        "bcrypt",
        "kubernetes",
        "prometheus-client",
        "psutil",
        "pyyaml",
        "rich",
        "zstandard",
    ]
    assert graph["pkg:pypi/aiohttp"] == [f"pkg:pypi/{name}@{PINS[name][0]}" for name in ("attrs", "yarl")]


def test_licenses_are_what_the_packages_say() -> None:
    """An expression, words of its own, or classifiers where the text of a license stands in place of its name."""
    bom = made()

    assert component(bom, "aiohttp")["licenses"] == [{"expression": "Apache-2.0 AND MIT"}]
    assert component(bom, "yarl")["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert component(bom, "attrs")["licenses"] == [{"license": {"name": "MIT License"}}]


def test_the_base_image_is_a_component_with_its_digest() -> None:
    """What it brings is not listed: the digest says where to look."""
    base = component(made(), "python")

    assert (base["type"], base["version"]) == ("container", "3.13-slim-bookworm")
    assert base["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]


@pytest.mark.parametrize(
    ("image", "name", "tag"),
    [("localhost:5000/base", "localhost:5000/base", None), ("localhost:5000/base:1", "localhost:5000/base", "1")],
)
def test_a_base_image_by_its_name_alone(image: str, name: str, tag: str | None) -> None:
    """A port of a registry is no tag."""
    base = document(installed(), LOCK, version="0.1.0", base=image)["components"][0]

    assert (base["name"], base.get("version")) == (name, tag)


def test_it_is_the_same_each_time_and_names_no_index() -> None:
    """No time, no random number, nothing of the machine that made it."""
    first, second = json.dumps(made()), json.dumps(made())

    assert first == second
    assert "index.internal" not in first


def test_another_version_is_refused() -> None:
    """What is installed and not pinned so is an error by name."""
    with pytest.raises(SbomError, match=r"yarl 0\.1 is installed, and the lock file has "):
        made(yarl={"version": "0.1"})


def test_another_file_is_refused() -> None:
    """A wheel whose hash the lock file does not have is an error by name."""
    items = installed()
    items[0]["download_info"]["archive_info"]["hashes"]["sha256"] = "f" * 64

    with pytest.raises(SbomError, match="is installed from a file that the lock file does not have: f"):
        document(items, LOCK, version="0.1.0")


def test_what_is_pinned_and_not_installed_is_refused() -> None:
    """An SBOM that lists less than the lock file is not whole."""
    items = [one for one in installed() if normalized(one["metadata"]["name"]) != "yarl"]

    with pytest.raises(SbomError, match="packages that are not installed: yarl"):
        document(items, LOCK, version="0.1.0")


def test_the_program_prints_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the files that the image's build has; a sentence and exit 1 where they do not fit together."""
    report, lock, wheel = tmp_path / "report.json", tmp_path / "requirements.lock", tmp_path / "podtally.whl"
    report.write_text(json.dumps({"version": "1", "install": installed()}))
    lock.write_text(LOCK)
    wheel.write_bytes(b"")
    metadata = tmp_path / "site" / "bcrypt-1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Name: bcrypt\nVersion: 1\nLicense-Expression: Apache-2.0\n")
    arguments = ["--report", str(report), "--lock", str(lock), "--version", "0.1.0", "--wheel", str(wheel)]
    arguments += ["--site", str(tmp_path / "site")]

    assert main(arguments) == 0
    bom = json.loads(capsys.readouterr().out)
    assert component(bom, "bcrypt")["licenses"] == [{"expression": "Apache-2.0"}]
    assert bom["metadata"]["component"]["hashes"][0]["content"].startswith("e3b0c44298fc1c14")

    lock.write_text(LOCK.replace("aiohttp==", "aiohttp==9"))
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("sbom: aiohttp ")
