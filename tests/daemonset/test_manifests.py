"""The manifests as kubectl builds them: security settings, rights, probes, names, and flags that the program knows."""

from __future__ import annotations

import posixpath
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from collector import __version__
from collector.flags import FLAGS, build_parser, resolve
from collector.server.webconfig import parse
from tests.manifests import Manifest, kustomize, needs_kubectl, only

REPO = Path(__file__).resolve().parents[2]
DAEMONSET = REPO / "daemonset"
COMPONENTS = (
    "podmonitor",
    "kubelet-insecure-tls",
    "before-1.33",
    "verify",
    "hostport-tls",
    "networkpolicy",
    "hostpid",
    "fill-from-summary",
    "source-summary",
)
OVERLAYS = tuple(f"overlays/{name}" for name in COMPONENTS)
BUILDS = (".", "base", *OVERLAYS)
METRICS_API = "overlays/source-metrics-api"
"""One pod in a namespace: not made of the base, and so not among the builds that are."""

Rule = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # API groups, resources, verbs

BASE_RULES: list[Rule] = [
    (("",), ("nodes/pods",), ("get",)),
    (("",), ("pods",), ("list",)),
]
ADDED_RULES: dict[str, list[Rule]] = {
    "overlays/before-1.33": [(("",), ("nodes/proxy",), ("get",))],
    "overlays/verify": [
        (("",), ("nodes/metrics", "nodes/stats"), ("get",)),
        (("metrics.k8s.io",), ("pods",), ("list",)),
    ],
    "overlays/hostport-tls": [
        (("authentication.k8s.io",), ("tokenreviews",), ("create",)),
        (("authorization.k8s.io",), ("subjectaccessreviews",), ("create",)),
    ],
    "overlays/fill-from-summary": [(("",), ("nodes/stats",), ("get",))],
}
ADDED_KINDS: dict[str, list[str]] = {
    "overlays/podmonitor": ["PodMonitor"],
    "overlays/hostport-tls": ["ConfigMap"],
    "overlays/networkpolicy": ["NetworkPolicy"],
}
ADDED_ENVIRONMENT: dict[str, dict[str, str]] = {
    "overlays/kubelet-insecure-tls": {"PODTALLY_KUBELET_INSECURE_TLS": "true"},
    "overlays/hostport-tls": {
        "PODTALLY_WEB_CONFIG_FILE": "/etc/podtally/web/web.yml",
        "PODTALLY_AUTHENTICATE": "true",
    },
    "overlays/fill-from-summary": {"PODTALLY_FILL_FROM": "summary"},
}
TLS = "overlays/hostport-tls"
HOSTPID = "overlays/hostpid"
SUMMARY = "overlays/source-summary"
COMBINATIONS = [
    chosen
    for chosen in (
        *combinations(COMPONENTS, 2),
        *((second, first) for first, second in combinations(COMPONENTS, 2)),
        *(
            tuple(one for one in order if one != without)
            for order in (COMPONENTS, tuple(reversed(COMPONENTS)))
            for without in ("hostport-tls", "source-summary")
        ),
    )
    if not {"hostport-tls", "source-summary"} <= set(chosen)
]
"""Each two components and all of them, as they are listed and the other way round; without those two that exclude each
other. A component patches what the base has, so that what goes wrong goes wrong between two.
"""
README = DAEMONSET / "README.md"
METRICS_SERVER = REPO / "docs" / "metrics-server.md"
BASE_KINDS = ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "Namespace", "Service", "ServiceAccount"]

pytestmark = needs_kubectl


@cache
def build(name: str) -> tuple[Manifest, ...]:
    """The objects of one directory below daemonset/, built once for all tests."""
    return tuple(kustomize(DAEMONSET / name))


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


def expected_rules(*names: str) -> list[Rule]:
    """The rules of the base with these overlays: source-summary has one in the place of another, the others add."""
    base = [BASE_RULES[0], (("",), ("nodes/stats",), ("get",))] if SUMMARY in names else BASE_RULES
    return base + [rule for name in names for rule in ADDED_RULES.get(name, [])]


def expected_environment(*names: str) -> dict[str, str]:
    """The container's environment, likewise, in its order."""
    where = {"PODTALLY_SOURCE": "summary"} if SUMMARY in names else {"PODTALLY_CGROUP_ROOT": "/host/sys/fs/cgroup"}
    return {
        "PODTALLY_NODE_NAME": "spec.nodeName",
        **where,
        "HOST_IP": "status.hostIP",
        "PODTALLY_KUBELET_URL": "https://$(HOST_IP):10250",
        "SSL_CERT_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        **{key: value for name in names for key, value in ADDED_ENVIRONMENT.get(name, {}).items()},
    }


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
    """Each component has an overlay of its name, one overlay stands alone, and this file tests all of them."""
    assert sorted(path.name for path in (DAEMONSET / "components").iterdir()) == sorted(COMPONENTS)
    overlays = sorted(f"overlays/{path.name}" for path in (DAEMONSET / "overlays").iterdir())
    assert overlays == sorted((*OVERLAYS, METRICS_API))


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


@pytest.mark.parametrize("name", BUILDS)
def test_namespace_admits_the_hostpath_and_says_so(name: str) -> None:
    """The namespace is labelled for Pod Security, because its other levels forbid every hostPath; where there is none,
    the strictest level holds.
    """
    labels = only("Namespace", build(name))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == ("restricted" if name == SUMMARY else "privileged")


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
    """Of the host the pod has /sys/fs/cgroup, read-only, and a port or the PID namespace where an overlay is for it.

    With the kubelet's summary it has nothing of it.
    """
    spec = pod_of(build(name))["spec"]
    for setting in ("hostNetwork", "hostIPC"):
        assert not spec.get(setting, False), setting
    assert spec.get("hostPID", False) == (name == HOSTPID)
    container = container_of(build(name))
    assert [port.get("hostPort") for port in container["ports"]] == [9753 if name == TLS else None]
    cgroup = [] if name == SUMMARY else ["cgroup"]
    paths = [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume]
    assert paths == ["/sys/fs/cgroup" for _ in cgroup]
    assert [volume["name"] for volume in spec["volumes"]] == [*cgroup, *(["web", "tls"] if name == TLS else [])]
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "cgroup"]
    assert mounts == [{"name": "cgroup", "mountPath": "/host/sys/fs/cgroup", "readOnly": True} for _ in cgroup]
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
    assert rules_of(build(name)) == expected_rules(name)
    for _, resources, verbs in rules_of(build(name)):
        asking = set(resources) <= {"tokenreviews", "subjectaccessreviews"}
        assert set(verbs) <= ({"create"} if asking else {"get", "list"})


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
    """The environment of a build's container."""
    return environment_in(container_of(build(name)))


def environment_in(container: Manifest) -> dict[str, str]:
    """A container's environment, variables of the pod's own fields by the field's path."""
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container["env"]
    }


@pytest.mark.parametrize("name", BUILDS)
def test_environment(name: str) -> None:
    """The program is told where the host's cgroups are mounted, the node's name and its kubelet; nothing adds to it."""
    assert environment_of(name) == expected_environment(name)
    mounts = [mount["mountPath"] for mount in container_of(build(name))["volumeMounts"] if mount["name"] == "cgroup"]
    assert mounts == [value for key, value in environment_of(name).items() if key == "PODTALLY_CGROUP_ROOT"]
    assert pod_of(build(name))["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("name", BUILDS)
def test_variables_are_defined_before_their_use(name: str) -> None:
    """Kubernetes replaces $(NAME) by variables that stand further up only."""
    defined: set[str] = set()
    for variable, value in environment_of(name).items():
        assert set(re.findall(r"\$\((\w+)\)", value)) <= defined
        defined.add(variable)


def test_image() -> None:
    """The image is named by kustomize's images: of the base, and of the one overlay that is not made of it; it is never
    `latest`, and is pulled only when absent.
    """
    base = yaml.safe_load((DAEMONSET / "base/kustomization.yaml").read_text(encoding="utf-8"))
    assert [image["name"] for image in base["images"]] == ["podtally"]
    image = base["images"][0]
    for path in DAEMONSET.rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if path.name != "kustomization.yaml" and document["kind"] == "DaemonSet":
                assert container_of([document])["image"] == "podtally", "a bare name, for images: to replace"
            if path.parent == DAEMONSET / METRICS_API and path.name == "kustomization.yaml":
                assert document["images"] == base["images"], "what is not made of the base names it once more"
            elif path.parent != DAEMONSET / "base":
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
    web = parse(config["data"]["web.yml"].encode(), f"{mounts['web']}/web.yml")
    assert web.tls is not None, "the program would refuse --authenticate over plain HTTP"
    assert posixpath.normpath(str(web.tls.cert.path)) == f"{mounts['tls']}/tls.crt"
    assert posixpath.normpath(str(web.tls.key.path)) == f"{mounts['tls']}/tls.key"
    assert web.tls.client_auth == ssl.CERT_NONE, "the kubelet's probes have no certificate"
    assert not web.users, "a request has one Authorization header, and that is the token's"
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


@pytest.mark.parametrize("chosen", COMBINATIONS, ids="+".join)
def test_components_combine(tmp_path: Path, chosen: tuple[str, ...]) -> None:
    """Any components, in any order, add up to what each adds alone, under an image named from outside."""
    objects = with_components(tmp_path, *chosen)
    names = [f"overlays/{name}" for name in chosen]
    kinds = [kind for name in names for kind in ADDED_KINDS.get(name, [])]
    assert sorted(thing["kind"] for thing in objects) == sorted(BASE_KINDS + kinds)
    assert rules_of(objects) == expected_rules(*names)
    container = container_of(objects)
    assert list(environment_in(container).items()) == list(expected_environment(*names).items())
    like = build(next((name for name in (TLS, SUMMARY) if name in names), "base"))
    expected = container_of(like)
    for key in expected.keys() - {"env", "image"}:
        assert container[key] == expected[key], key
    assert container["image"] == "elsewhere/podtally:9.9.9"
    assert pod_of(objects)["spec"]["volumes"] == pod_of(like)["spec"]["volumes"]
    assert only("Namespace", objects) == only("Namespace", like)
    assert pod_of(objects)["metadata"] == pod_of(like)["metadata"]


def test_one_pod_of_a_namespace_needs_nothing_of_the_cluster() -> None:
    """The overlay for the metrics API makes no object outside of its one namespace, and a Role that reads."""
    objects = build(METRICS_API)
    kinds = sorted(thing["kind"] for thing in objects)
    assert kinds == ["Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]
    namespace = yaml.safe_load((DAEMONSET / METRICS_API / "kustomization.yaml").read_text(encoding="utf-8"))[
        "namespace"
    ]
    assert {thing["metadata"]["namespace"] for thing in objects} == {namespace}
    rules = [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in only("Role", objects)["rules"]]
    assert rules == [([""], ["pods"], ["list"]), (["metrics.k8s.io"], ["pods"], ["list"])]
    binding = only("RoleBinding", objects)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "podtally"}
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "podtally", "namespace": namespace}]


def test_one_pod_of_a_namespace_is_as_harmless_as_the_nodes_pods() -> None:
    """It has the base's container in all but what is of a node: no mount, no volume, nothing of the node's name."""
    objects = build(METRICS_API)
    spec = only("Deployment", objects)["spec"]
    template, base = spec["template"], pod_of(build("base"))
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"}), "two would export each series twice"
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["annotations"] == base["metadata"]["annotations"]
    kept = {"containers", "volumes", "affinity", "tolerations", "priorityClassName"}
    assert template["spec"] == {
        **{key: value for key, value in base["spec"].items() if key not in kept},
        "containers": template["spec"]["containers"],
    }
    [container] = template["spec"]["containers"]
    assert {key: value for key, value in container.items() if key != "env"} == {
        key: value for key, value in container_of(build("base")).items() if key not in ("env", "volumeMounts")
    }
    assert environment_in(container) == {
        "PODTALLY_SOURCE": "metrics-api",
        "SSL_CERT_FILE": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    }
    service, like = only("Service", objects), only("Service", build("base"))
    assert service["spec"] == like["spec"]
    assert only("ServiceAccount", objects)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", [METRICS_API, *BUILDS])
def test_the_sources_are_ones_that_the_program_has(name: str) -> None:
    """Each build runs the program with flags and variables that it takes together."""
    [workload] = [thing for thing in build(name) if thing["kind"] in ("DaemonSet", "Deployment")]
    [container] = workload["spec"]["template"]["spec"]["containers"]
    found = resolve(build_parser("0").parse_args(container["args"]), environment_in(container))
    expected = {METRICS_API: "metrics-api", SUMMARY: "summary"}.get(name, "cgroup")
    assert found.reads == expected


@pytest.mark.parametrize("name", [".", "base", *(name for name in OVERLAYS if name != TLS)])
def test_only_hostport_tls_opens_the_node(name: str) -> None:
    """No other build has a port of the node's, a Secret, a ConfigMap, or a right to ask who others are."""
    assert not {"Secret", "ConfigMap"} & {thing["kind"] for thing in build(name)}
    spec = pod_of(build(name))["spec"]
    assert all(volume.keys() == {"name", "hostPath"} for volume in spec["volumes"])
    assert all(port.keys() == {"name", "containerPort", "protocol"} for port in container_of(build(name))["ports"])
    assert not any(
        {"tokenreviews", "subjectaccessreviews"} & set(resources) for _, resources, _ in rules_of(build(name))
    )


def test_the_lines_held_ready_are_right(tmp_path: Path) -> None:
    """The commented-out lines in daemonset/kustomization.yaml, once uncommented, switch all components on."""
    shutil.copytree(DAEMONSET, tmp_path / "daemonset")
    path = tmp_path / "daemonset" / "kustomization.yaml"
    text = re.sub(r"^# (components:|  - )", r"\1", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    assert yaml.safe_load(text)["components"] == [f"components/{name}" for name in COMPONENTS]
    assert rules_of(kustomize(tmp_path / "daemonset")) == expected_rules(*OVERLAYS)


# --- documents


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def manifests(document: Path) -> list[Manifest]:
    """The complete Kubernetes objects that a document shows."""
    found = [one for block in blocks(document, "yaml") for one in yaml.safe_load_all(block)]
    return [one for one in found if "kind" in one]


def test_the_readme_lists_all_components() -> None:
    """The README's table has a row for each component, in the order in which they are held ready."""
    table = README.read_text(encoding="utf-8").split("## Components")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == COMPONENTS


def shown(directory: Path, *components: str) -> list[Manifest]:
    """What the README's kustomization over these components builds, beside the objects that the README shows."""
    shutil.copytree(DAEMONSET, directory / "path" / "to" / "daemonset")
    paths = [f"path/to/daemonset/components/{name}" for name in components]
    texts = [block for block in blocks(README, "yaml") if "kind: Kustomization" in block]
    [text] = [text for text in texts if sorted(yaml.safe_load(text).get("components", [])) == sorted(paths)]
    kustomization = yaml.safe_load(text)
    kustomization["components"] = paths
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
    [reader] = [block for block in blocks(README, "yaml") if "kind: ServiceAccount" in block]
    (directory / "podtally-metrics-reader.yaml").write_text(reader, encoding="utf-8")
    return kustomize(directory)


@pytest.mark.parametrize("order", [("podmonitor", "hostport-tls"), ("hostport-tls", "podmonitor")])
def test_the_readmes_podmonitor_over_tls(tmp_path: Path, order: tuple[str, ...]) -> None:
    """The README's patch has the PodMonitor scrape by verified TLS, with a token that may get nodes/metrics alone."""
    objects = shown(tmp_path, *order)
    [endpoint] = only("PodMonitor", objects)["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"
    secret = only("Secret", objects)
    assert endpoint["authorization"]["credentials"] == {"name": secret["metadata"]["name"], "key": "token"}
    volumes = {volume["name"]: volume for volume in pod_of(objects)["spec"]["volumes"]}
    assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": volumes["tls"]["secret"]["secretName"], "key": "ca.crt"}
    assert f"DNS:{endpoint['tlsConfig']['serverName']}\n" in METRICS_SERVER.read_text(encoding="utf-8")
    assert secret["type"] == "kubernetes.io/service-account-token"
    account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
    [binding] = [
        thing for thing in objects if thing["kind"] == "ClusterRoleBinding" and thing["metadata"]["name"] == account
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "podtally"}]
    [role] = [thing for thing in objects if thing["kind"] == "ClusterRole" and thing["metadata"]["name"] == account]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]
    assert account in [thing["metadata"]["name"] for thing in objects if thing["kind"] == "ServiceAccount"]


def test_the_readmes_networkpolicies(tmp_path: Path) -> None:
    """The README's patch names another namespace, and its policy for the nodes' port is for the same pods and port."""
    policy = only("NetworkPolicy", shown(tmp_path, "networkpolicy"))
    [rule] = policy["spec"]["ingress"]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "YOUR-NAMESPACE"}}}]
    beside = only("NetworkPolicy", manifests(README))
    assert beside["metadata"]["name"] != policy["metadata"]["name"]
    assert beside["metadata"]["namespace"] == policy["metadata"]["namespace"]
    assert beside["spec"]["podSelector"] == policy["spec"]["podSelector"]
    assert beside["spec"]["ingress"][0]["ports"] == rule["ports"]


def test_the_readmes_other_kustomization(tmp_path: Path) -> None:
    """The README's example of several components builds as it stands."""
    objects = shown(tmp_path, "podmonitor", "kubelet-insecure-tls")
    assert container_of(objects)["image"] == "YOUR-REGISTRY/podtally:0.1.0"
    assert only("PodMonitor", objects)


def test_the_readmes_namespace_for_one_pod(tmp_path: Path) -> None:
    """The README's kustomization over the overlay for the metrics API moves it to another namespace and image."""
    shutil.copytree(DAEMONSET, tmp_path / "path" / "to" / "daemonset")
    [text] = [text for text in blocks(README, "yaml") if f"daemonset/{METRICS_API}" in text]
    # A namespace's name is lower case: the README's is one to be replaced.
    (tmp_path / "kustomization.yaml").write_text(text.replace("YOUR-NAMESPACE", "team-a"), encoding="utf-8")
    objects = kustomize(tmp_path)
    assert {thing["metadata"]["namespace"] for thing in objects} == {"team-a"}
    assert only("RoleBinding", objects)["subjects"][0]["namespace"] == "team-a"
    [container] = only("Deployment", objects)["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "YOUR-REGISTRY/podtally:0.1.0"


def test_the_patch_of_metrics_server() -> None:
    """The documented arguments ask podtally's port of the node, and verify by a CA that is mounted where they say."""
    [patch] = [yaml.safe_load(block) for block in blocks(METRICS_SERVER, "yaml") if block.startswith("spec:")]
    spec = patch["spec"]["template"]["spec"]
    [container] = spec["containers"]
    arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])
    assert arguments["kubelet-port"] == str(container_of(build(TLS))["ports"][0]["hostPort"])
    assert not {"kubelet-use-node-status-port", "kubelet-insecure-tls"} & arguments.keys()
    [mount], [volume] = container["volumeMounts"], spec["volumes"]
    assert mount["name"] == volume["name"]
    assert arguments["kubelet-certificate-authority"] == f"{mount['mountPath']}/ca.crt"
    assert f"create configmap {volume['configMap']['name']} --from-file=ca.crt" in METRICS_SERVER.read_text("utf-8")


def test_the_certificate_is_for_the_secret_that_is_mounted() -> None:
    """The Secret that the document makes, and the one that cert-manager is told to, is the one that the pods mount."""
    secret = {volume["name"]: volume for volume in pod_of(build(TLS))["spec"]["volumes"]}["tls"]["secret"]["secretName"]
    assert only("Certificate", manifests(METRICS_SERVER))["spec"]["secretName"] == secret
    assert f"create secret generic {secret} --type=kubernetes.io/tls" in METRICS_SERVER.read_text(encoding="utf-8")


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed, and it is what the document uses."
)
def test_the_documented_certificate(tmp_path: Path) -> None:
    """The document's openssl commands make a pair that strict clients accept at each node's address and by its name."""
    [script] = [block for block in blocks(METRICS_SERVER, "sh") if "openssl" in block]
    first, _, rest = script.partition("\n")
    assert first.startswith("names=$(kubectl get nodes ")
    subprocess.run(
        ["sh", "-e", "-c", f"names=IP:10.0.0.11,IP:fd00::1,\n{rest}"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=60,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cafile=tmp_path / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python does by itself from 3.13 on
    for name in ("10.0.0.11", "fd00::1", "podtally.podtally.svc"):
        shake_hands(client, server, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(client, server, "10.0.0.12")


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A handshake in memory, of a client that asks for a name. Raises what the client raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    asking = client.wrap_bio(to_client, to_server, server_hostname=name)
    for side in (asking, answering, asking, answering):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert asking.version()


def test_nodes_addresses_of_all_families_become_names(tmp_path: Path) -> None:
    """The document's JSONPath gives each address a name of its own, also where nodes have two."""
    [script] = [block for block in blocks(METRICS_SERVER, "sh") if "openssl" in block]
    path = re.findall(r"-o jsonpath='([^']*)'", script)[0]
    # kubectl takes a JSONPath offline for its own configuration alone: the same one, over lists that this can hold.
    path = path.replace(".items[*].status.addresses", ".users[*].user.exec.env").replace("@.type", "@.name")
    users = [
        [("InternalIP", "10.0.0.11"), ("Hostname", "a"), ("InternalIP", "fd00::1")],
        [("InternalIP", "10.0.0.12"), ("ExternalIP", "192.0.2.1")],
    ]
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "users": [
            {
                "name": str(number),
                "user": {
                    "exec": {
                        "apiVersion": "client.authentication.k8s.io/v1",
                        "command": "none",
                        "interactiveMode": "Never",
                        "env": [{"name": kind, "value": address} for kind, address in addresses],
                    }
                },
            }
            for number, addresses in enumerate(users)
        ],
    }
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    path = path.replace(".address", ".value")
    done = subprocess.run(
        ["kubectl", f"--kubeconfig={file}", "config", "view", "--raw", "-o", f"jsonpath={path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "IP:10.0.0.11,IP:fd00::1,IP:10.0.0.12,"
