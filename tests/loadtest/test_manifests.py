"""The load test's manifests as kubectl builds them: rights, security, names, deadlines; the application's values."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest.data.socialgraph import settings_of
from tests.loadtest.running import LOADTEST, PROFILES
from tests.loadtest.test_scripts import STATED

Manifest = dict[str, Any]  # a Kubernetes object as YAML has it

NEEDS_KUBECTL = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed, and it is what builds these manifests."
)
JOBS = (*(f"jobs/{profile}" for profile in PROFILES), "data")
TARGET = "http://nginx-thrift.social-network.svc:8080"


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
    """The objects of one directory below loadtest/, built once for all tests."""
    return tuple(kustomize(LOADTEST / name))


def only(kind: str, objects: tuple[Manifest, ...] | list[Manifest]) -> Manifest:
    """The one object of a kind."""
    (found,) = [thing for thing in objects if thing["kind"] == kind]
    return found


def container_of(job: Manifest) -> Manifest:
    """The one container of a Job's pods."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found: Manifest = container
    return found


def environment_of(job: Manifest) -> dict[str, str]:
    """The environment of a Job's container, a variable of the pod's own fields by the field's path."""
    return {
        entry["name"]: entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
        for entry in container_of(job)["env"]
    }


def seconds_of(duration: str) -> int:
    """The seconds of a duration as `14m30s`."""
    minutes, seconds = re.fullmatch(r"(\d+)m(\d+)s", duration).groups()  # type: ignore[union-attr]
    return 60 * int(minutes) + int(seconds)


def test_every_directory_is_tested() -> None:
    """There is a Job for each profile, and nothing else beside their base."""
    assert sorted(path.name for path in (LOADTEST / "jobs").iterdir()) == sorted((*PROFILES, "base"))


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_objects(name: str) -> None:
    """A Job, its scripts and its namespace; the autoscaler with its profile; no account, role or Secret anywhere."""
    more = ["HorizontalPodAutoscaler"] if name == "jobs/autoscale" else []
    assert sorted(thing["kind"] for thing in build(name)) == sorted(["ConfigMap", "Job", "Namespace", *more])


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_namespace(name: str) -> None:
    """All is in the namespace loadtest, which is among them and admits restricted pods alone; the autoscaler is in the
    application's.
    """
    namespace = only("Namespace", build(name))
    assert namespace["metadata"]["name"] == "loadtest"
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    for thing in build(name):
        if thing["kind"] != "Namespace":
            where = "social-network" if thing["kind"] == "HorizontalPodAutoscaler" else "loadtest"
            assert thing["metadata"]["namespace"] == where, thing["kind"]


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_security(name: str) -> None:
    """The pods are unprivileged in every respect that Kubernetes has a setting for, have no token, and see no host."""
    spec = only("Job", build(name))["spec"]["template"]["spec"]
    user = 65534 if name == "data" else 12345
    assert container_of(only("Job", build(name)))["securityContext"] == {
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    context = dict(spec["securityContext"])
    context.pop("fsGroup", None)
    assert context == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert "serviceAccountName" not in spec
    assert {kind for volume in spec["volumes"] for kind in volume} <= {"name", "configMap", "emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_scripts_are_mounted_by_a_name_with_their_hash(name: str) -> None:
    """The Job mounts the very ConfigMap that is built with it, read-only."""
    job, scripts = only("Job", build(name)), only("ConfigMap", build(name))
    mounted = {
        v["name"]: v["configMap"]["name"] for v in job["spec"]["template"]["spec"]["volumes"] if "configMap" in v
    }
    assert mounted == {"scripts": scripts["metadata"]["name"]}
    assert re.search(r"-[a-z0-9]{10}$", scripts["metadata"]["name"])
    (mount,) = [mount for mount in container_of(job)["volumeMounts"] if mount["name"] == "scripts"]
    assert (mount["mountPath"], mount["readOnly"]) == ("/scripts", True)
    folder = LOADTEST / ("data" if name == "data" else "k6")
    files = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".js", ".py")}
    assert scripts["data"] == files
    (path,) = [
        word for word in (*container_of(job).get("args", ()), *container_of(job).get("command", ())) if "/" in word
    ]
    assert path.removeprefix("/scripts/") in files


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_images_are_pinned(name: str) -> None:
    """No image is taken by a tag that moves, and each is pulled only when absent."""
    container = container_of(only("Job", build(name)))
    assert re.search(r"@sha256:[0-9a-f]{64}$|:\d+\.\d+\.\d+$", container["image"]), container["image"]
    assert container["imagePullPolicy"] == "IfNotPresent"


@NEEDS_KUBECTL
def test_the_data_jobs_python_is_the_dockerfiles() -> None:
    """The image of the data Job is the base of podtally's own, so that it is pulled but once where that is built."""
    base = re.search(r"^ARG BASE=(\S+?):\S+?(@\S+)$", (LOADTEST.parent / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    assert container_of(only("Job", build("data")))["image"] == base[1] + base[2]


@NEEDS_KUBECTL
@pytest.mark.parametrize("profile", PROFILES)
def test_job_of_a_profile(profile: str) -> None:
    """Its name, label and PROFILE are the profile's; it is run once, and its deadline leaves five minutes to start."""
    job = only("Job", build(f"jobs/{profile}"))
    labels = {
        "app.kubernetes.io/name": "k6",
        "app.kubernetes.io/part-of": "podtally",
        "podtally.io/profile": profile,
    }
    assert job["metadata"]["name"] == f"k6-{profile}"
    assert job["metadata"]["labels"] == job["spec"]["template"]["metadata"]["labels"] == labels
    assert environment_of(job)["PROFILE"] == profile
    assert job["spec"]["activeDeadlineSeconds"] == seconds_of(STATED[profile][2]) + 300
    spec = job["spec"]["template"]["spec"]
    assert (job["spec"]["backoffLimit"], spec["restartPolicy"]) == (0, "Never")
    assert "ttlSecondsAfterFinished" not in job["spec"], "its log is the result"
    assert spec["terminationGracePeriodSeconds"] >= 60


@NEEDS_KUBECTL
@pytest.mark.parametrize("profile", PROFILES)
def test_environment_of_a_profile(profile: str) -> None:
    """What a run is told; nothing but k6's own settings and what the scripts read."""
    environment = environment_of(only("Job", build(f"jobs/{profile}")))
    read = (LOADTEST / "k6/settings.js").read_text(encoding="utf-8")
    known = set(re.findall(r"__ENV\.(\w+)|(?:number|address)\('(\w+)'", read))
    known_names = {name for pair in known for name in pair if name} | {"PROMETHEUS_URL"}
    assert {name for name in environment if not name.startswith("K6_")} <= known_names
    assert environment["TARGET"] == TARGET
    assert environment["TESTID"] == "metadata.name"
    assert environment["USERS"] == environment_of(only("Job", build("data")))["USERS"]
    assert environment["K6_PROMETHEUS_RW_SERVER_URL"] == "$(PROMETHEUS_URL)/api/v1/write"
    assert environment["K6_NO_USAGE_REPORT"] == "true"
    assert environment["K6_AUTO_EXTENSION_RESOLUTION"] == "false"


@NEEDS_KUBECTL
@pytest.mark.parametrize("name", JOBS)
def test_variables_are_defined_before_their_use(name: str) -> None:
    """Kubernetes replaces $(NAME) in a variable by those above it, and in arguments by all."""
    job = only("Job", build(name))
    defined: set[str] = set()
    for variable, value in environment_of(job).items():
        assert set(re.findall(r"\$\((\w+)\)", value)) <= defined
        defined.add(variable)
    for argument in container_of(job).get("args", ()):
        assert set(re.findall(r"\$\((\w+)\)", argument)) <= defined


@NEEDS_KUBECTL
def test_k6_is_not_throttled() -> None:
    """k6 has no limit on CPU, and keeps away from the front's node where there is another."""
    job = only("Job", build("jobs/load"))
    assert container_of(job)["resources"] == {
        "requests": {"cpu": "500m", "memory": "512Mi"},
        "limits": {"memory": "4Gi"},
    }
    away = job["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    (term,) = away["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["labelSelector"] == {"matchLabels": {"app": "nginx-thrift"}}


@NEEDS_KUBECTL
def test_autoscaler() -> None:
    """It scales nginx-thrift, and nothing that holds data, by CPU alone."""
    spec = only("HorizontalPodAutoscaler", build("jobs/autoscale"))["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-thrift"}
    assert [metric["resource"]["name"] for metric in spec["metrics"]] == ["cpu"]
    assert build("autoscaler") == (only("HorizontalPodAutoscaler", build("jobs/autoscale")),), (
        "so that it can be deleted"
    )


@NEEDS_KUBECTL
def test_data_job() -> None:
    """The program takes its settings; another pod goes on after a failure, but not with settings that are no use."""
    job = only("Job", build("data"))
    settings = settings_of(environment_of(job))
    assert (settings.target, settings.users, settings.edges_a_user, settings.posts_a_user) == (TARGET, 962, 20, 10)
    assert job["spec"]["backoffLimit"] > 0
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [2])


@NEEDS_KUBECTL
def test_edge_list(tmp_path: Path) -> None:
    """With a list put where the file says, the data Job reads it; nothing else of it changes."""
    shutil.copytree(LOADTEST, tmp_path / "loadtest", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "loadtest/edge-list/social.edges").write_text("0 1\n")
    objects = kustomize(tmp_path / "loadtest/edge-list")
    job, plain = only("Job", objects), only("Job", build("data"))
    (edges,) = [thing for thing in objects if thing["kind"] == "ConfigMap" and "social.edges" in thing["data"]]

    added = set(environment_of(job).items()) - set(environment_of(plain).items())
    assert added == {("EDGES_FILE", "/edges/social.edges")}
    (volume,) = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "edges"]
    assert volume["configMap"]["name"] == edges["metadata"]["name"]
    assert {"name": "edges", "mountPath": "/edges", "readOnly": True} in container_of(job)["volumeMounts"]


@NEEDS_KUBECTL
def test_operator() -> None:
    """The TestRun has the same scripts, image, variables and tags as the Job, and its evidence is not cleaned up."""
    objects, job = build("operator"), only("Job", build("jobs/load"))
    run, runner = only("TestRun", objects)["spec"], only("TestRun", objects)["spec"]["runner"]
    environment = {entry["name"]: entry["value"] for entry in runner["env"]}
    of_job = environment_of(job)

    assert run["script"]["configMap"] == {"name": only("ConfigMap", objects)["metadata"]["name"], "file": "main.js"}
    assert runner["image"] == run["initializer"]["image"] == container_of(job)["image"]
    assert runner["resources"] == container_of(job)["resources"]
    assert set(of_job) - set(environment) == {"PROFILE", "PROMETHEUS_URL", "RESULTS"}
    same = set(environment) - {"TESTID", "K6_PROMETHEUS_RW_SERVER_URL"}
    assert {name: environment[name] for name in same} == {name: of_job[name] for name in same}
    assert environment["K6_PROMETHEUS_RW_SERVER_URL"] == f"{of_job['PROMETHEUS_URL']}/api/v1/write"
    assert run["args"][:2] == ["-e", f"PROFILE={of_job['PROFILE']}"]
    assert f"testid={environment['TESTID']}" in run["args"]
    assert "cleanup" not in run


# --- the application ------------------------------------------------------------------------------------------------

LOGIC = (
    *("compose-post", "home-timeline", "media", "post-storage", "social-graph", "text", "unique-id", "url-shorten"),
    *("user-mention", "user", "user-timeline"),
)
SUBCHARTS = {
    *(f"{name}-service" for name in LOGIC),
    *(f"{name}-memcached" for name in ("media", "post-storage", "url-shorten", "user")),
    *(f"{name}-mongodb" for name in ("media", "post-storage", "social-graph", "url-shorten", "user", "user-timeline")),
    *(f"{name}-redis" for name in ("home-timeline", "social-graph", "user-timeline")),
    *("nginx-thrift", "media-frontend", "jaeger"),
}


def values() -> Manifest:
    """The values for the application's chart."""
    found: Manifest = yaml.safe_load((LOADTEST / "socialnetwork-values.yaml").read_text(encoding="utf-8"))
    return found


def test_values_are_of_subcharts_that_exist() -> None:
    """Helm passes a misspelt name over in silence."""
    assert len(SUBCHARTS) == 27
    assert set(values()) - {"global"} <= SUBCHARTS


def test_the_front_has_two_cpus() -> None:
    """nginx-thrift has 2 CPU and 2 Gi, requested in full, as maps: the chart would render a string as one."""
    both = {"cpu": "2", "memory": "2Gi"}
    assert values()["nginx-thrift"]["container"]["resources"] == {"requests": both, "limits": both}


@pytest.mark.parametrize("name", ["nginx-thrift", "media-frontend"])
def test_nothing_is_cloned_that_moves(name: str) -> None:
    """The init containers take one commit of the application's own repository, by a git that is pinned.

    The chart puts each argument into YAML without quotes, so that it must be a plain scalar there.
    """
    init = values()[name]["initContainer"]
    flag, command = init["args"]
    assert (flag, init["imageVersion"]) == ("-c", "2.45.2")
    assert "delimitrou/DeathStarBench.git 6ecb09706140f8730b5385c08f1386c654c3c526 " in command
    assert "clone" not in command
    assert yaml.safe_load(f"- {command}") == [command]
