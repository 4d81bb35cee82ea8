"""The manifests as kubectl builds them: security settings, rights, probes, names, and flags that the program knows."""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from collector import __version__
from collector.flags import FLAGS

REPO = Path(__file__).resolve().parents[2]
DAEMONSET = REPO / "daemonset"
COMPONENTS = ("podmonitor", "kubelet-insecure-tls", "before-1.33", "verify", "hostport-tls", "networkpolicy")
OVERLAYS = tuple(f"overlays/{name}" for name in COMPONENTS)
BUILDS = (".", "base", *OVERLAYS)

Manifest = dict[str, Any]  # a Kubernetes object as YAML has it
Rule = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # API groups, resources, verbs

BASE_RULES: list[Rule] = [
    (("",), ("nodes/pods",), ("get",)),
    (("",), ("pods",), ("get", "list", "watch")),
]
ADDED_RULES: dict[str, list[Rule]] = {
    "overlays/before-1.33": [(("",), ("nodes/proxy",), ("get",))],
    "overlays/verify": [
        (("",), ("nodes/metrics", "nodes/stats"), ("get",)),
        (("metrics.k8s.io",), ("pods",), ("get", "list")),
    ],
    "overlays/hostport-tls": [
        (("authentication.k8s.io",), ("tokenreviews",), ("create",)),
        (("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
    ],
}
ADDED_KINDS: dict[str, list[str]] = {
    "overlays/podmonitor": ["PodMonitor"],
    "overlays/hostport-tls": ["ConfigMap"],
    "overlays/networkpolicy": ["NetworkPolicy"],
}
TLS = "overlays/hostport-tls"
BASE_KINDS = ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "Namespace", "Service", "ServiceAccount"]

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed, and it is what builds these manifests."
)


def kustomize(directory: Path) -> list[Manifest]:
    """All objects that `kubectl kustomize` makes of a directory."""
    done = subprocess.run(
        ["kubectl", "kustomize", str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kubectl warns: {done.stderr}"
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def build(name: str) -> tuple[Manifest, ...]:
    """The objects of one directory below daemonset/, built once for all tests."""
    return tuple(kustomize(DAEMONSET / name))


def only(kind: str, objects: tuple[Manifest, ...] | list[Manifest]) -> Manifest:
    """The one object of a kind."""
    found = [thing for thing in objects if thing["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def pod_of(objects: tuple[Manifest, ...] | list[Manifest]) -> Manifest:
    """The DaemonSet's pod template."""
    template: Manifest = only("DaemonSet", objects)["spec"]["template"]
    return template


def container_of(objects: tuple[Manifest, ...] | list[Manifest]) -> Manifest:
    """The DaemonSet's one container; there is no other, of any sort."""
    spec = pod_of(objects)["spec"]
    assert "initContainers" not in spec
    assert len(spec["containers"]) == 1
    container: Manifest = spec["containers"][0]
    return container


def rules_of(objects: tuple[Manifest, ...] | list[Manifest]) -> list[Rule]:
    """The rules of the one ClusterRole."""
    return [
        (tuple(rule["apiGroups"]), tuple(rule["resources"]), tuple(rule["verbs"]))
        for rule in only("ClusterRole", objects)["rules"]
    ]


def strings_of(node: object) -> Iterator[str]:
    """Every string in a manifest, keys left out."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from strings_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from strings_of(value)


def with_components(directory: Path, *names: str) -> list[Manifest]:
    """A kustomization of one's own over the base, with components in the order given."""
    shutil.copytree(DAEMONSET, directory / "daemonset")
    (directory / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": ["daemonset/base"],
                "components": [f"daemonset/components/{name}" for name in names],
                "images": [{"name": "podtally", "newName": "elsewhere/podtally", "newTag": "9.9.9"}],
            }
        ),
        encoding="utf-8",
    )
    return kustomize(directory)


def test_every_directory_is_tested() -> None:
    """Each component has an overlay of its name, and this file tests all of them."""
    assert sorted(path.name for path in (DAEMONSET / "components").iterdir()) == sorted(COMPONENTS)
    assert sorted(path.name for path in (DAEMONSET / "overlays").iterdir()) == sorted(COMPONENTS)


@pytest.mark.parametrize("name", BUILDS)
def test_objects(name: str) -> None:
    """Every build makes the base's objects, those that its component is for, and nothing else."""
    assert sorted(thing["kind"] for thing in build(name)) == sorted(BASE_KINDS + ADDED_KINDS.get(name, []))


def test_root_is_base() -> None:
    """`kubectl apply -k daemonset/` applies the base as it stands."""
    assert build(".") == build("base")


@pytest.mark.parametrize("name", BUILDS)
def test_namespace(name: str) -> None:
    """All namespaced objects and the role binding's subject are in the namespace podtally, which is among them."""
    assert only("Namespace", build(name))["metadata"]["name"] == "podtally"
    for thing in build(name):
        if thing["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            assert thing["metadata"]["namespace"] == "podtally", thing["kind"]
    binding = only("ClusterRoleBinding", build(name))
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "podtally", "namespace": "podtally"}]
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "podtally"}


def test_namespace_admits_the_hostpath_and_says_so() -> None:
    """The namespace is labelled for Pod Security, because its other levels forbid every hostPath."""
    labels = only("Namespace", build("base"))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"


@pytest.mark.parametrize("name", BUILDS)
def test_security(name: str) -> None:
    """The container is unprivileged in every respect that Kubernetes has a setting for."""
    context = container_of(build(name))["securityContext"]
    assert context == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod_of(build(name))["spec"]["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@pytest.mark.parametrize("name", BUILDS)
def test_host(name: str) -> None:
    """Of the host the pod has /sys/fs/cgroup, read-only, no namespace, and a port where the overlay is for one."""
    spec = pod_of(build(name))["spec"]
    for setting in ("hostPID", "hostNetwork", "hostIPC"):
        assert not spec.get(setting, False), setting
    container = container_of(build(name))
    assert [port.get("hostPort") for port in container["ports"]] == [9753 if name == TLS else None]
    assert [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume] == ["/sys/fs/cgroup"]
    assert [volume["name"] for volume in spec["volumes"]] == ["cgroup", *(["web", "tls"] if name == TLS else [])]
    assert container["volumeMounts"][0] == {"name": "cgroup", "mountPath": "/host/sys/fs/cgroup", "readOnly": True}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


@pytest.mark.parametrize("name", BUILDS)
def test_token(name: str) -> None:
    """The ServiceAccount's token is mounted into the collector's pods, and by the account itself into none."""
    assert only("ServiceAccount", build(name))["automountServiceAccountToken"] is False
    spec = pod_of(build(name))["spec"]
    assert spec["automountServiceAccountToken"] is True
    assert spec["serviceAccountName"] == only("ServiceAccount", build(name))["metadata"]["name"]


@pytest.mark.parametrize("name", BUILDS)
def test_scheduling(name: str) -> None:
    """The pods run on every Linux node whatever its taints, are evicted last, and are replaced a tenth at a time."""
    spec = pod_of(build(name))["spec"]
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["terminationGracePeriodSeconds"] == 5
    assert only("DaemonSet", build(name))["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": "10%"},
    }


@pytest.mark.parametrize("name", BUILDS)
def test_resources(name: str) -> None:
    """Memory is limited and CPU is not, so that the collector is never throttled out of its ticks."""
    assert container_of(build(name))["resources"] == {
        "requests": {"cpu": "20m", "memory": "96Mi"},
        "limits": {"memory": "256Mi"},
    }


@pytest.mark.parametrize("name", BUILDS)
def test_rights(name: str) -> None:
    """The rights are exactly the base's two rules and what the overlay is for, all of them reading or asking."""
    assert rules_of(build(name)) == BASE_RULES + ADDED_RULES.get(name, [])
    for _, resources, verbs in rules_of(build(name)):
        asking = set(resources) <= {"tokenreviews", "subjectaccessreviews"}
        assert set(verbs) <= ({"create"} if asking else {"get", "list", "watch"})


@pytest.mark.parametrize("name", BUILDS)
def test_nodes_proxy(name: str) -> None:
    """The right that lets its holder run commands in any pod stands in one overlay alone."""
    granted = any({"nodes/proxy", "nodes/*", "*"} & set(resources) for _, resources, _ in rules_of(build(name)))
    assert granted == (name == "overlays/before-1.33")


def test_prices_are_named() -> None:
    """The two components that weaken security say in their own file what they let others do."""
    before = (DAEMONSET / "components/before-1.33/kustomization.yaml").read_text(encoding="utf-8")
    assert "DANGER" in before
    assert "run commands in any container of any pod" in before
    insecure = (DAEMONSET / "components/kubelet-insecure-tls/kustomization.yaml").read_text(encoding="utf-8")
    assert "The price" in insecure


@pytest.mark.parametrize("name", BUILDS)
def test_probes(name: str) -> None:
    """The three probes ask for paths of the contract on a port that the container has."""
    container = container_of(build(name))
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": 9753}
    expected = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    for probe, path in expected.items():
        scheme = {"scheme": "HTTPS"} if name == TLS else {}
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics", **scheme}, probe
    assert {key for key in container if key.endswith("Probe")} == set(expected)


@pytest.mark.parametrize("name", BUILDS)
def test_service(name: str) -> None:
    """The Service is headless, and its selector and port meet the DaemonSet's pods."""
    service = only("Service", build(name))["spec"]
    assert service["clusterIP"] == "None"
    labels = pod_of(build(name))["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert only("DaemonSet", build(name))["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert [(port["name"], port["port"], port["targetPort"]) for port in service["ports"]] == [
        ("metrics", 9753, "metrics")
    ]


@pytest.mark.parametrize("name", BUILDS)
def test_scrape_annotations(name: str) -> None:
    """The annotations for hand-written scrape configurations name the port that the container listens on."""
    annotations = pod_of(build(name))["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(container_of(build(name))["ports"][0]["containerPort"])
    assert annotations.get("prometheus.io/scheme") == ("https" if name == TLS else None)
    assert "--listen=:9753" in container_of(build(name))["args"]


def environment_of(name: str) -> dict[str, str]:
    """The container's environment, variables of the pod's own fields by the field's path."""
    entries = container_of(build(name))["env"]
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in entries
    }


@pytest.mark.parametrize("name", BUILDS)
def test_environment(name: str) -> None:
    """The program is told where the host's cgroups are mounted, the node's name and its kubelet; nothing adds to it."""
    mount = container_of(build(name))["volumeMounts"][0]["mountPath"]
    insecure = {"PODTALLY_KUBELET_INSECURE_TLS": "true"} if "insecure" in name else {}
    secured = {"PODTALLY_WEB_CONFIG_FILE": "/etc/podtally/web/web.yml", "PODTALLY_AUTHENTICATE": "true"}
    assert environment_of(name) == {
        "PODTALLY_NODE_NAME": "spec.nodeName",
        "PODTALLY_CGROUP_ROOT": mount,
        "HOST_IP": "status.hostIP",
        "PODTALLY_KUBELET_URL": "https://$(HOST_IP):10250",
        "SSL_CERT_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        **insecure,
        **(secured if name == TLS else {}),
    }
    assert pod_of(build(name))["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", BUILDS)
def test_variables_are_defined_before_their_use(name: str) -> None:
    """Kubernetes replaces $(NAME) by variables that stand further up only."""
    defined: set[str] = set()
    for variable, value in environment_of(name).items():
        assert set(re.findall(r"\$\((\w+)\)", value)) <= defined
        defined.add(variable)


def test_image() -> None:
    """The image is named by kustomize's images: and nowhere else, is never `latest`, and is pulled only when absent."""
    base = yaml.safe_load((DAEMONSET / "base/kustomization.yaml").read_text(encoding="utf-8"))
    assert [image["name"] for image in base["images"]] == ["podtally"]
    image = base["images"][0]
    for path in DAEMONSET.rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if path.name != "kustomization.yaml" and document["kind"] == "DaemonSet":
                assert container_of([document])["image"] == "podtally", "a bare name, for images: to replace"
            if path.parent != DAEMONSET / "base":
                assert "images" not in document, path
    for name in BUILDS:
        container = container_of(build(name))
        assert container["image"] == f"{image['newName']}:{image['newTag']}"
        assert container["imagePullPolicy"] == "IfNotPresent"


def test_image_tag_is_the_version() -> None:
    """The image's tag is the package's version."""
    assert container_of(build("base"))["image"].endswith(f":{__version__}")


def test_flags_exist() -> None:
    """Every flag and every PODTALLY_ variable in any manifest is one of the program's, for the command that runs."""
    known = {flag.name for flag in FLAGS if "serve" in flag.commands}
    variables = {flag.variable for flag in FLAGS if "serve" in flag.commands}
    for name in BUILDS:
        command, *arguments = container_of(build(name))["args"]
        assert command == "serve"
        assert {argument.partition("=")[0].removeprefix("--") for argument in arguments} <= known
        assert {variable for variable in environment_of(name) if variable.startswith("PODTALLY_")} <= variables


def test_kubelet_insecure_tls() -> None:
    """Kubelet certificates are checked unless the overlay for self-signed ones is applied."""
    assert not any(
        "insecure" in string.lower() for name in BUILDS if "insecure" not in name for string in strings_of(build(name))
    )


def test_hostport_tls_finds_its_files() -> None:
    """The web configuration is mounted under its hashed name, and names the Secret's files by the mounts' paths."""
    objects = build(TLS)
    config = only("ConfigMap", objects)
    volumes = {volume["name"]: volume for volume in pod_of(objects)["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container_of(objects)["volumeMounts"]}
    assert volumes["web"]["configMap"]["name"] == config["metadata"]["name"] != "podtally-web"
    assert environment_of(TLS)["PODTALLY_WEB_CONFIG_FILE"] == f"{mounts['web']}/{next(iter(config['data']))}"
    settings = yaml.safe_load(config["data"]["web.yml"])["tls_server_config"]
    named = {posixpath.normpath(posixpath.join(mounts["web"], settings[key])) for key in ("cert_file", "key_file")}
    assert named == {f"{mounts['tls']}/tls.crt", f"{mounts['tls']}/tls.key"}
    assert volumes["tls"]["secret"] == {"secretName": "podtally-tls"}


def test_networkpolicy() -> None:
    """The policy is for the collector's pods, lets one namespace in, and lets out to the kubelet and the API server."""
    objects = build("overlays/networkpolicy")
    spec = only("NetworkPolicy", objects)["spec"]
    assert spec["podSelector"]["matchLabels"].items() <= pod_of(objects)["metadata"]["labels"].items()
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    [rule] = spec["ingress"]
    assert rule["ports"] == [{"port": container_of(objects)["ports"][0]["name"], "protocol": "TCP"}]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    assert sorted(port["port"] for rule in spec["egress"] for port in rule["ports"]) == [443, 6443, 10250]


def test_podmonitor() -> None:
    """The PodMonitor selects the collector's pods and keeps the samples' own namespace, pod and container labels."""
    objects = build("overlays/podmonitor")
    spec = only("PodMonitor", objects)["spec"]
    labels = pod_of(objects)["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    assert spec["jobLabel"] in labels
    assert len(spec["podMetricsEndpoints"]) == 1
    endpoint = spec["podMetricsEndpoints"][0]
    assert endpoint["port"] == container_of(objects)["ports"][0]["name"]
    assert (endpoint["path"], endpoint["interval"], endpoint["honorLabels"]) == ("/metrics", "5s", True)
    to_node = {rule["targetLabel"]: rule["sourceLabels"] for rule in endpoint["relabelings"] if "targetLabel" in rule}
    node = ["__meta_kubernetes_pod_node_name"]
    assert to_node == {"node": node, "instance": node}
    dropped = [rule["regex"] for rule in endpoint["relabelings"] if rule.get("action") == "labeldrop"]
    assert dropped == ["container"], "a pod's series have no container label, and must not get the collector's"


def test_podmonitor_without_honor_labels() -> None:
    """Where an administrator forces honorLabels off, relabelling puts the samples' own labels back."""
    rules = only("PodMonitor", build("overlays/podmonitor"))["spec"]["podMetricsEndpoints"][0]["metricRelabelings"]
    *restoring, drop = rules
    assert {(rule["sourceLabels"][0], rule["targetLabel"]) for rule in restoring} == {
        ("exported_namespace", "namespace"),
        ("exported_pod", "pod"),
        ("exported_node", "node"),
    }
    assert all(rule["regex"] == "(.+)" for rule in restoring), "an absent label must not overwrite"
    assert drop["action"] == "labeldrop"
    for rule in restoring:
        assert re.fullmatch(drop["regex"], rule["sourceLabels"][0])


@pytest.mark.parametrize("order", [COMPONENTS, tuple(reversed(COMPONENTS))])
def test_components_combine(tmp_path: Path, order: tuple[str, ...]) -> None:
    """All components together, in any order, add up to what each adds alone, under an image named from outside."""
    objects = with_components(tmp_path, *order)
    assert sorted(thing["kind"] for thing in objects) == sorted(
        BASE_KINDS + [kind for kinds in ADDED_KINDS.values() for kind in kinds]
    )
    added = [rule for rules in ADDED_RULES.values() for rule in rules]
    assert sorted(rules_of(objects)) == sorted(BASE_RULES + added)
    assert {"name": "PODTALLY_KUBELET_INSECURE_TLS", "value": "true"} in container_of(objects)["env"]
    assert container_of(objects)["image"] == "elsewhere/podtally:9.9.9"


def test_the_lines_held_ready_are_right(tmp_path: Path) -> None:
    """The commented-out lines in daemonset/kustomization.yaml, once uncommented, switch all components on."""
    shutil.copytree(DAEMONSET, tmp_path / "daemonset")
    path = tmp_path / "daemonset" / "kustomization.yaml"
    text = re.sub(r"^# (components:|  - )", r"\1", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    assert yaml.safe_load(text)["components"] == [f"components/{name}" for name in COMPONENTS]
    assert sorted(rules_of(kustomize(tmp_path / "daemonset"))) == sorted(
        BASE_RULES + [rule for rules in ADDED_RULES.values() for rule in rules]
    )
