"""What monitoring/README.md, docs/quickstart.md and docs/from-sidecars.md tell to type and to ask."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from collector.metrics.cadvisor_catalogue import CADVISOR
from collector.metrics.catalogue import BY_NAME
from tests.daemonset.test_manifests import build as build_daemonset
from tests.manifests import kustomize, needs_kubectl, only
from tests.monitoring.promql import metrics

REPO = Path(__file__).resolve().parents[2]
README = REPO / "monitoring" / "README.md"
QUICKSTART = REPO / "docs" / "quickstart.md"
SIDECARS = REPO / "docs" / "from-sidecars.md"
PAGES = (README, QUICKSTART, SIDECARS, REPO / "docs" / "alerts.md")


def text_of(page: Path) -> str:
    """The page."""
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_directories_that_are_applied_are_there(page: Path) -> None:
    """Each `kubectl apply -k` and `delete -k` of a page is of a directory with a kustomization."""
    for path in re.findall(r"kubectl (?:apply|delete) -k (\S+?)[`\s]", text_of(page)):
        assert (REPO / path / "kustomization.yaml").is_file(), path


@needs_kubectl
def test_what_the_quickstart_waits_for_and_forwards_is_there() -> None:
    """Each workload and Service that the page names is among the objects that it has applied by then."""
    objects = (*build_daemonset("."), *kustomize(REPO / "monitoring"))
    there = {
        (thing["metadata"].get("namespace"), f"{thing['kind']}/{thing['metadata']['name']}".lower())
        for thing in objects
    }
    asked = set(re.findall(r"kubectl -n (\S+) .*?((?:daemonset|deployment|service)/\w+)", text_of(QUICKSTART)))
    assert len(asked) >= 3
    assert asked <= there


def test_links_of_the_readme_lead_somewhere() -> None:
    """Each relative link names a file, and each anchor a heading of it."""
    for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", text_of(README)):
        file = README.parent / target
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, anchor


def test_the_readme_lists_all_overlays() -> None:
    """The table has a row for each overlay."""
    table = text_of(README).split("## Overlays")[1].split("\n## ")[0]
    folders = sorted(path.name for path in (REPO / "monitoring" / "overlays").iterdir())
    assert sorted(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == folders


@needs_kubectl
def test_the_readmes_own_directory(tmp_path: Path) -> None:
    """The kustomization that the README shows builds, with a volume and the image from elsewhere."""
    shutil.copytree(REPO / "monitoring", tmp_path / "path" / "to" / "monitoring")
    [text] = re.findall(r"^```yaml\n(.*?)^```", text_of(README), re.MULTILINE | re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(text.replace("YOUR-REGISTRY", "elsewhere"), encoding="utf-8")
    objects = kustomize(tmp_path)
    [deployment] = [
        thing for thing in objects if thing["kind"] == "Deployment" and thing["metadata"]["name"] == "prometheus"
    ]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("elsewhere/prom/prometheus:v")
    assert only("PersistentVolumeClaim", objects)


def test_what_replaces_a_sidecars_metrics_is_exported() -> None:
    """Each metric of the page, in its tables, its text and its queries, is in a catalogue; the first keeps its name."""
    known = BY_NAME.keys() | {family.name for family in CADVISOR}
    shown = re.findall(r"`((?:pod|podtally|process|container)_[a-z_]+)`", text_of(SIDECARS))
    assert len(shown) > 30
    assert sorted(set(shown) - known) == []
    prose = re.sub(r"^```.*?^```$", "", text_of(SIDECARS), flags=re.MULTILINE | re.DOTALL)
    queries = [code for code in re.findall(r"`([^`]+)`", prose) if re.search(r"\b(?:by|unless)\s", code)]
    assert len(queries) >= 3
    assert [query for query in queries if not metrics(query) <= known] == []
    rows = re.findall(r"^\| `(\w+)` \|.*?\| `(\w+)` \|", text_of(SIDECARS), re.MULTILINE)
    assert ("pod_cpu_usage_cores", "pod_cpu_usage_cores") in rows


def test_the_relabelling_drops_what_it_says() -> None:
    """The sidecars' series of the shared name, and no other, match the rule."""
    [text] = re.findall(r"^```yaml\n(.*?)^```", text_of(SIDECARS), re.MULTILINE | re.DOTALL)
    [rule] = yaml.safe_load(text)["metric_relabel_configs"]
    assert (rule["source_labels"], rule["action"]) == (["__name__"], "drop")
    assert re.fullmatch(rule["regex"], "pod_cpu_usage_cores")
    assert not re.fullmatch(rule["regex"], "pod_cpu_usage_cores_total")
