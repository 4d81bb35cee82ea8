"""Grafana's manifests as kubectl builds them: security settings, what is mounted, who may do what, the data source."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.dashboards.generate import DASHBOARDS
from monitoring.dashboards.schema import VERSION
from tests.daemonset.test_manifests import build as build_daemonset
from tests.daemonset.test_manifests import pod_of
from tests.manifests import Manifest, kustomize, needs_kubectl, only

MONITORING = Path(__file__).resolve().parents[2] / "monitoring"
LOGIN = "overlays/grafana-login"
BUILDS = ("grafana", ".", LOGIN, "overlays/persistent")

pytestmark = needs_kubectl


@cache
def build(name: str) -> tuple[Manifest, ...]:
    """Grafana's objects of a directory below monitoring/, built once for all tests."""
    return tuple(
        one
        for one in kustomize(MONITORING / name)
        if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "grafana"
    )


def spec_of(name: str) -> Manifest:
    """The Deployment's pod."""
    spec: Manifest = only("Deployment", build(name))["spec"]["template"]["spec"]
    return spec


def environment_of(name: str) -> dict[str, Any]:
    """The container's variables: their values, or where they come from."""
    [container] = spec_of(name)["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def files_of(objects: tuple[Manifest, ...] | list[Manifest]) -> dict[str, tuple[str, str]]:
    """The files of the ConfigMaps: their text, and the name of their ConfigMap."""
    return {
        file: (text, one["metadata"]["name"])
        for one in objects
        if one["kind"] == "ConfigMap"
        for file, text in one["data"].items()
    }


@pytest.mark.parametrize("name", BUILDS)
def test_objects(name: str) -> None:
    """A Deployment, its Service, and ConfigMaps: two of provisioning and one a dashboard. No right, no Secret."""
    kinds = sorted(one["kind"] for one in build(name))

    assert kinds == sorted(["Deployment", "Service", *["ConfigMap"] * (2 + len(DASHBOARDS))])
    assert {one["metadata"]["namespace"] for one in build(name)} == {"monitoring"}


@pytest.mark.parametrize("name", BUILDS)
def test_security(name: str) -> None:
    """As unprivileged as the collector, under Grafana's own uid, without a token, and with a read-only root."""
    spec = spec_of(name)
    [container] = spec["containers"]
    own = {"runAsUser": 472, "runAsGroup": 472}
    collector = pod_of(build_daemonset("base"))["spec"]

    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == collector["containers"][0]["securityContext"] | own
    assert spec["securityContext"] == collector["securityContext"] | own | {"fsGroup": 472}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "serviceAccountName"} & spec.keys()
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["data", "tmp"]
    assert all("emptyDir" in one for one in spec["volumes"] if one["name"] in writable)


def test_the_image_is_named_in_one_place_and_pinned() -> None:
    """By a version, and it is the version whose types `make schema` checks by."""
    [image] = yaml.safe_load((MONITORING / "grafana" / "kustomization.yaml").read_text("utf-8"))["images"]
    [container] = spec_of("grafana")["containers"]

    assert container["image"] == f"{image['newName']}:{image['newTag']}"
    assert image["newTag"] == VERSION


def test_nobody_can_do_more_than_look() -> None:
    """Anonymous viewers alone: no admin account, no login, no password; and seen in the cluster alone."""
    found = environment_of("grafana")

    assert found["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert found["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert found["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert (found["GF_AUTH_DISABLE_LOGIN_FORM"], found["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")
    assert not [name for name in found if "PASSWORD" in name]
    assert only("Service", build("grafana"))["spec"]["type"] == "ClusterIP"


def test_a_login_takes_its_password_from_a_secret() -> None:
    """With the component nobody looks without a name, and the password is in no file here."""
    found = environment_of(LOGIN)

    assert found["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert found["GF_SECURITY_ADMIN_PASSWORD"] == {"secretKeyRef": {"name": "grafana-admin", "key": "password"}}
    assert found["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "false"


def test_every_dashboard_is_where_the_provider_looks() -> None:
    """Each JSON is in a ConfigMap that is mounted at the provider's path, and one of them is the first page."""
    files = files_of(build("grafana"))
    provider = yaml.safe_load(files["dashboards.yaml"][0])["providers"][0]
    [container] = spec_of("grafana")["containers"]
    mount = next(one for one in container["volumeMounts"] if one["mountPath"] == provider["options"]["path"])
    volume = next(one for one in spec_of("grafana")["volumes"] if one["name"] == mount["name"])
    mounted = {source["configMap"]["name"] for source in volume["projected"]["sources"]}

    assert {files[f"{name}.json"][1] for name in DASHBOARDS} == mounted
    home = environment_of("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home.removeprefix(f"{provider['options']['path']}/").removesuffix(".json") in DASHBOARDS
    assert provider["allowUiUpdates"] is False


def test_the_data_source_is_the_prometheus_beside_it() -> None:
    """By its Service's name and port, with the scrape interval of its configuration: $__rate_interval hangs on it."""
    objects = kustomize(MONITORING)
    files = files_of(objects)
    [source] = yaml.safe_load(files["datasources.yaml"][0])["datasources"]
    service = next(one for one in objects if one["kind"] == "Service" and one["metadata"]["name"] == "prometheus")

    assert source["url"] == f"http://prometheus:{service['spec']['ports'][0]['port']}"
    scraped = yaml.safe_load(files["prometheus.yml"][0])["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped == "5s"


def test_the_names_of_configmaps_change_with_their_content() -> None:
    """So that a changed dashboard rolls the pod: the Deployment mounts nothing by a name that stays."""
    names = {one["metadata"]["name"] for one in build("grafana") if one["kind"] == "ConfigMap"}
    volumes = spec_of("grafana")["volumes"]
    mounted = {one["configMap"]["name"] for one in volumes if "configMap" in one} | {
        source["configMap"]["name"] for one in volumes for source in one.get("projected", {}).get("sources", [])
    }

    assert mounted == names
    assert all(len(name.rpartition("-")[2]) == 10 for name in names)


def test_the_sidecars_configmaps_are_the_same_dashboards() -> None:
    """Under the label that the grafana chart's sidecar takes, as a string, and under names that stay."""
    objects = kustomize(MONITORING / "overlays" / "grafana-sidecar")

    assert [one["metadata"]["labels"]["grafana_dashboard"] for one in objects] == ["1"] * len(DASHBOARDS)
    assert sorted(one["metadata"]["name"] for one in objects) == sorted(
        f"podtally-dashboard-{name}" for name in DASHBOARDS
    )
    shown = {json.loads(text)["uid"] for text, _ in files_of(objects).values()}
    assert len(shown) == len(DASHBOARDS)
