"""Prometheus' manifests as kubectl builds them: rights, security settings, names, what they take from daemonset/."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import prometheus_rule
from tests.daemonset.test_manifests import build as build_daemonset
from tests.daemonset.test_manifests import pod_of
from tests.manifests import Manifest, kustomize, needs_kubectl, only

REPO = Path(__file__).resolve().parents[2]
MONITORING = REPO / "monitoring"
CONFIGURATION = MONITORING / "prometheus" / "prometheus.yml"
KINDS = ["ConfigMap", "ConfigMap", "Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]

pytestmark = needs_kubectl


@cache
def build(name: str) -> tuple[Manifest, ...]:
    """The objects of a directory below monitoring/ that are Prometheus', built once for all tests."""
    return tuple(thing for thing in kustomize(MONITORING / name) if of_prometheus(thing))


def of_prometheus(thing: Manifest) -> bool:
    """Whether it is Prometheus'; Grafana's have tests of their own."""
    labels: dict[str, str] = thing["metadata"].get("labels", {})
    return labels.get("app.kubernetes.io/name") != "grafana"


def spec_of(objects: tuple[Manifest, ...]) -> Manifest:
    """The Deployment's pod."""
    spec: Manifest = only("Deployment", objects)["spec"]["template"]["spec"]
    return spec


def config_maps(objects: tuple[Manifest, ...] | list[Manifest]) -> dict[str, Manifest]:
    """The ConfigMaps by the names that they have before the hash."""
    return {thing["metadata"]["name"].rpartition("-")[0]: thing for thing in objects if thing["kind"] == "ConfigMap"}


def configuration() -> Any:
    """The shipped configuration."""
    return yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "more"), [(".", []), ("prometheus", []), ("overlays/persistent", ["PersistentVolumeClaim"])]
)
def test_objects(name: str, more: list[str]) -> None:
    """Each build makes Prometheus' objects and those it is for: no namespace, nothing of the whole cluster."""
    assert sorted(thing["kind"] for thing in build(name)) == sorted(KINDS + more)


@pytest.mark.parametrize("name", [".", "prometheus", "overlays/persistent"])
def test_namespace(name: str) -> None:
    """All is in one namespace, but for the right to find podtally's pods, which is in podtally's."""
    found = {(thing["kind"], thing["metadata"]["namespace"]) for thing in build(name)}
    assert {kind for kind, namespace in found if namespace == "podtally"} == {"Role", "RoleBinding"}
    assert {namespace for kind, namespace in found if kind not in ("Role", "RoleBinding")} == {"monitoring"}
    assert only("RoleBinding", build(name))["subjects"] == [
        {"kind": "ServiceAccount", "name": "prometheus", "namespace": "monitoring"}
    ]


def test_another_namespace_is_one_line(tmp_path: Path) -> None:
    """The namespace is named in one file: with another there, everything follows but the right in podtally's."""
    shutil.copytree(MONITORING, tmp_path / "monitoring")
    file = tmp_path / "monitoring" / "namespace" / "transformer.yaml"
    file.write_text(file.read_text("utf-8").replace("namespace: monitoring", "namespace: team-x"), encoding="utf-8")
    for thing in kustomize(tmp_path / "monitoring"):
        expected = "podtally" if thing["kind"] in ("Role", "RoleBinding") else "team-x"
        assert thing["metadata"]["namespace"] == expected, thing["kind"]
        assert all(one["namespace"] == "team-x" for one in thing.get("subjects", []))


def test_rights() -> None:
    """It may look at the pods of podtally's namespace, which its configuration names, and nothing else anywhere."""
    role = only("Role", build("prometheus"))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert only("RoleBinding", build("prometheus"))["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    asked = {
        namespace
        for job in configuration()["scrape_configs"]
        for discovery in job["kubernetes_sd_configs"]
        for namespace in discovery["namespaces"]["names"]
    }
    assert asked == {role["metadata"]["namespace"]}


def test_security() -> None:
    """The container is as unprivileged as the collector's own, with a read-only root and no writable mount but one."""
    spec = spec_of(build("prometheus"))
    collector = pod_of(build_daemonset("base"))["spec"]
    [container] = spec["containers"]
    assert container["securityContext"] == collector["containers"][0]["securityContext"]
    assert spec["securityContext"] == {**collector["securityContext"], "fsGroup": 65534}
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["storage"]
    assert all(volume.keys() & {"configMap", "emptyDir"} for volume in spec["volumes"])
    assert only("ServiceAccount", build("prometheus"))["automountServiceAccountToken"] is False
    assert spec["automountServiceAccountToken"] is True


def test_it_finds_the_collectors_pods() -> None:
    """Discovery selects by labels that the DaemonSet's pods have, and keeps the port that they name."""
    labels = pod_of(build_daemonset("base"))["metadata"]["labels"]
    ports = [port["name"] for port in pod_of(build_daemonset("base"))["spec"]["containers"][0]["ports"]]
    for job in configuration()["scrape_configs"]:
        for discovery in job["kubernetes_sd_configs"]:
            assert discovery["role"] == "pod"
            [selector] = discovery["selectors"]
            chosen = dict(part.split("=") for part in selector["label"].split(","))
            assert chosen.items() <= labels.items()
        [keep] = [rule for rule in job["relabel_configs"] if rule.get("action") == "keep"]
        assert re.fullmatch(keep["regex"], ports[0])


def test_targets_are_labelled_as_the_podmonitors() -> None:
    """Both ways of scraping give the same job, node and instance, at the same pace, so that rules fit both."""
    monitor = only("PodMonitor", build_daemonset("overlays/podmonitor"))["spec"]
    [endpoint], [job] = monitor["podMetricsEndpoints"], configuration()["scrape_configs"]
    by_operator = {
        rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint["relabelings"] if "targetLabel" in rule
    }
    by_hand = {rule["target_label"]: rule["source_labels"] for rule in job["relabel_configs"] if "target_label" in rule}
    assert by_hand == by_operator
    assert job["job_name"] == pod_of(build_daemonset("base"))["metadata"]["labels"][monitor["jobLabel"]]
    assert job["honor_labels"] is endpoint["honorLabels"] is True
    paces = configuration()["global"]
    assert (paces["scrape_interval"], paces["scrape_timeout"]) == (endpoint["interval"], endpoint["scrapeTimeout"])


def test_a_change_of_a_file_rolls_the_pod(tmp_path: Path) -> None:
    """The pod mounts both ConfigMaps by names with a hash; a change of a rule changes one of them, and so the pod."""
    shutil.copytree(MONITORING, tmp_path / "monitoring")
    alerts = tmp_path / "monitoring" / "prometheus" / "rules" / "alerts.yml"
    alerts.write_text(alerts.read_text(encoding="utf-8").replace("for: 1m", "for: 2m"), encoding="utf-8")
    before, after = build("prometheus"), tuple(kustomize(tmp_path / "monitoring" / "prometheus"))
    mounted = [
        {volume["name"]: volume["configMap"]["name"] for volume in spec_of(one)["volumes"] if "configMap" in volume}
        for one in (before, after)
    ]
    names = [{key: thing["metadata"]["name"] for key, thing in config_maps(one).items()} for one in (before, after)]
    assert [set(one.values()) for one in mounted] == [set(one.values()) for one in names]
    assert names[0]["prometheus-config"] == names[1]["prometheus-config"]
    assert names[0]["prometheus-rules"] != names[1]["prometheus-rules"]


def test_every_rule_file_is_mounted_where_the_configuration_looks() -> None:
    """The ConfigMap has all files of rules/, and is mounted at that folder beside the configuration."""
    files = {path.name for path in (MONITORING / "prometheus" / "rules").glob("*.yml")}
    assert config_maps(build("prometheus"))["prometheus-rules"]["data"].keys() == files
    [container] = spec_of(build("prometheus"))["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert f"--config.file={mounts['config']}/{CONFIGURATION.name}" in container["args"]
    assert configuration()["rule_files"] == ["rules/*.yml"]
    assert mounts["rules"] == f"{mounts['config']}/rules"


def test_what_k6_and_grafana_ask() -> None:
    """The Service is prometheus:9090, its pod's, and Prometheus takes what k6 writes."""
    service = only("Service", build("prometheus"))
    template = only("Deployment", build("prometheus"))["spec"]["template"]
    assert service["metadata"]["name"] == "prometheus"
    assert [(port["name"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]] == [
        ("http", 9090, "http")
    ]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    [container] = template["spec"]["containers"]
    assert [(port["name"], port["containerPort"]) for port in container["ports"]] == [("http", 9090)]
    assert "--web.enable-remote-write-receiver" in container["args"]


def test_one_at_a_time() -> None:
    """Two would fight for the storage: one replica, ended before the next is started."""
    spec = only("Deployment", build("prometheus"))["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_image() -> None:
    """The image is named in one place, with a release's tag."""
    [container] = spec_of(build("prometheus"))["containers"]
    assert re.fullmatch(r"docker\.io/prom/prometheus:v3\.\d+\.\d+", container["image"])


def test_storage_ends_before_the_volume_is_full() -> None:
    """What is kept is limited to less than the volume holds, with the emptyDir and with the claim."""
    sizes = []
    for name in ("prometheus", "overlays/persistent"):
        spec = spec_of(build(name))
        [kept] = [
            int(found[1])
            for argument in spec["containers"][0]["args"]
            if (found := re.fullmatch(r"--storage\.tsdb\.retention\.size=(\d+)GB", argument))
        ]
        [volume] = [volume for volume in spec["volumes"] if volume["name"] == "storage"]
        if "emptyDir" in volume:
            size = volume["emptyDir"]["sizeLimit"]
        else:
            claim = only("PersistentVolumeClaim", build(name))
            assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
            size = claim["spec"]["resources"]["requests"]["storage"]
        assert kept < int(size.removesuffix("Gi"))
        sizes.append(kept)
    assert sizes[0] < sizes[1]


def test_the_operators_rules_are_the_files() -> None:
    """The PrometheusRule has the groups of all files as `make docs` writes them, and stands beside the PodMonitor."""
    objects = kustomize(MONITORING / "overlays" / "prometheus-operator")
    rule, monitor = only("PrometheusRule", objects), only("PodMonitor", objects)
    groups = [
        group
        for path in sorted((MONITORING / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    assert rule["spec"]["groups"] == groups
    assert prometheus_rule.WRITTEN.read_text(encoding="utf-8") == prometheus_rule.text()
    assert rule["metadata"]["namespace"] == monitor["metadata"]["namespace"] == "podtally"
    assert monitor == only("PodMonitor", build_daemonset("overlays/podmonitor"))


def test_the_operators_labels_that_are_held_ready(tmp_path: Path) -> None:
    """The commented lines, once uncommented, put kube-prometheus-stack's label on both objects."""
    for folder in ("monitoring", "daemonset"):
        shutil.copytree(REPO / folder, tmp_path / folder)
    file = tmp_path / "monitoring" / "overlays" / "prometheus-operator" / "kustomization.yaml"
    text = re.sub(r"^# (labels:|  - )", r"\1", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")
    assert [thing["metadata"]["labels"]["release"] for thing in kustomize(file.parent)] == ["kube-prometheus-stack"] * 2


def test_network_policy_lets_it_in() -> None:
    """The DaemonSet's component networkpolicy admits the namespace that Prometheus is in."""
    policy = only("NetworkPolicy", build_daemonset("overlays/networkpolicy"))["spec"]
    [admitted] = policy["ingress"][0]["from"]
    namespace = only("Deployment", build("prometheus"))["metadata"]["namespace"]
    assert admitted["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
