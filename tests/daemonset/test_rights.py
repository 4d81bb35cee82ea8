"""Rights: what each build of daemonset/ grants is what the program can ask for with it, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import yaml

from collector import cli
from collector.model import Answer
from collector.server.reviews import TOKEN_REVIEWS
from collector.sources import http
from tests.daemonset.test_manifests import BUILDS, DAEMONSET, METRICS_API, build, environment_in
from tests.manifests import Manifest, needs_kubectl, only

pytestmark = needs_kubectl

TREE = Path(__file__).resolve().parents[1] / "fixtures" / "cgroupfs" / "static-pod" / "frames" / "0000"
OLD = "overlays/before-1.33"
SUMMARY = "overlays/source-summary"
VERIFY = "overlays/verify"


class Right(NamedTuple):
    """A right as RBAC has it."""

    group: str
    resource: str
    verb: str


KUBELET = {"/pods": "nodes/pods", "/metrics": "nodes/metrics", "/stats": "nodes/stats"}
"""By the beginning of a path the subresource that the kubelet asks about (``pkg/kubelet/server/auth.go``)."""
VERBS = {"GET": "list", "POST": "create"}
"""Of a path that names no object (``k8s.io/apiserver/pkg/endpoints/request/requestinfo.go``)."""


def right(peer: str, method: str, path: str) -> Right:
    """The right that a request needs."""
    path = path.partition("?")[0]
    if peer == "the kubelet":
        assert method == "GET"
        return Right("", next(of for begin, of in KUBELET.items() if path.startswith(begin)), "get")
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3 if group else 2 :]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    assert "watch=" not in path
    assert len(rest) == 1, f"{path} names an object: its verb would be get"
    return Right(group, rest[0], VERBS[method])


PATHS = [
    ("the kubelet", "GET", "/pods", Right("", "nodes/pods", "get")),
    ("the kubelet", "GET", "/metrics/cadvisor", Right("", "nodes/metrics", "get")),
    ("the API server", "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Da", Right("", "pods", "list")),
    ("the API server", "GET", "/api/v1/namespaces/a/pods", Right("", "pods", "list")),
    ("the API server", "GET", "/apis/metrics.k8s.io/v1beta1/pods", Right("metrics.k8s.io", "pods", "list")),
    ("the API server", "POST", TOKEN_REVIEWS, Right("authentication.k8s.io", "tokenreviews", "create")),
]


@pytest.mark.parametrize(("peer", "method", "path", "needed"), PATHS)
def test_a_path_needs_a_right(peer: str, method: str, path: str, needed: Right) -> None:
    """The table of rights says of a path what the kubelet and the API server ask RBAC about."""
    assert right(peer, method, path) == needed


class _Enough(Exception):
    """All has been asked."""


class Requests:
    """Stands where requests leave the program: notes them, and refuses them all but the question who a token is of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.needed: set[Right] = set()
        monkeypatch.setattr(http, "_asked", self._asked)
        monkeypatch.setattr(http, "SERVICE_ACCOUNT", str(tmp_path))
        monkeypatch.setattr(cli, "_run_server", self._serve)
        monkeypatch.setattr(cli, "_Asking", self._asking)
        monkeypatch.setattr(cli, "_web_config", lambda *_, **__: None)
        (tmp_path / "namespace").write_text("metrics", encoding="ascii")

    async def _asked(self, session: aiohttp.ClientSession, question: http.Question, method: str, *_: object) -> Answer:
        self.needed.add(right(question.endpoint.name, method, question.path))
        if question.path == TOKEN_REVIEWS:
            body = {"status": {"authenticated": True, "user": {"username": "prometheus"}}}
            return Answer(question.answer, 0, 201, None, json.dumps(body).encode())
        return Answer(question.answer, 0, 403, "Forbidden", None)

    def _serve(self, *arguments: Any, **_: Any) -> int:
        background, reviews = arguments[4], arguments[7] if len(arguments) > 7 else None
        asyncio.run(self._round(background, reviews))
        raise _Enough

    @contextmanager
    def _asking(self, asker: Any) -> Iterator[None]:
        asyncio.run(self._round(asker.run, None))
        raise _Enough
        yield

    async def _round(self, run: Callable[[], Awaitable[None]], reviews: Any) -> None:
        """Let who asks ask until nothing new is asked, what is asked on demand too."""
        task = asyncio.ensure_future(run())
        want = getattr(run.__self__, "want", lambda: None)  # type: ignore[attr-defined]
        known = -1
        while known != len(self.needed):
            known = len(self.needed)
            for _ in range(50):
                await asyncio.sleep(0)
                want()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if reviews is not None:
            await reviews.decide("Bearer token", "192.0.2.1")
            await reviews.close()

    def of(self, command: str, container: Manifest, *more: str) -> None:
        """Run a command as the build's container would, with its environment, until it has asked."""
        given = container["args"] if command == "serve" else [command]
        with pytest.raises(_Enough):
            cli.main([*given, *more])


def needed_by(name: str, commands: dict[str, tuple[str, ...]], requests: Requests, monkeypatch: Any) -> set[Right]:
    """All that these commands ask for in a container of a build."""
    kind = "Deployment" if name == METRICS_API else "DaemonSet"
    (container,) = only(kind, build(name))["spec"]["template"]["spec"]["containers"]
    for variable, value in environment_in(container).items():
        if variable.startswith("PODTALLY_"):
            monkeypatch.setenv(variable, value)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("PODTALLY_KUBELET_URL", "https://127.0.0.1:10250")
    monkeypatch.setenv("PODTALLY_LISTEN", "127.0.0.1:0")
    roots = ("--cgroup-root", str(TREE / "sys/fs/cgroup"), "--proc-root", str(TREE / "proc"))
    own = roots if kind == "DaemonSet" and name != SUMMARY else ()
    for command, flags in commands.items():
        requests.of(command, container, *flags, *own)
    return requests.needed


def granted(name: str) -> set[Right]:
    """All that a build's roles grant."""
    return {
        Right(group, resource, verb)
        for role in build(name)
        if role["kind"] in ("ClusterRole", "Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


COMMANDS: dict[str, dict[str, tuple[str, ...]]] = {
    VERIFY: {"serve": ("--listen", "127.0.0.1:0"), "verify": (), "record": ("-",)},
}
"""What is run in the pods beside serve."""

OF_OLD_KUBELETS = {Right("", "nodes/proxy", "get")}
"""What a kubelet before 1.33 asks about in the place of nodes/pods."""
GONE_WITHOUT = {Right("", "pods", "list")}
"""What source-summary asks for while the kubelet does not answer, and has no right to: it goes without."""


@pytest.mark.parametrize("name", [*BUILDS, METRICS_API])
def test_each_right_is_used_and_each_request_has_its_right(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A build grants what the program asks for when it runs as the build says, and no right beside that."""
    commands = COMMANDS.get(name, {"serve": ("--listen", "127.0.0.1:0")})
    needed = needed_by(name, commands, Requests(monkeypatch, tmp_path), monkeypatch)
    if name == OLD:
        needed |= OF_OLD_KUBELETS
    if name == SUMMARY:
        assert needed >= GONE_WITHOUT
        needed -= GONE_WITHOUT
    assert granted(name) == needed


def test_the_document_names_the_rights_that_are_granted() -> None:
    """docs/security.md lists each right of the builds, and none that no build grants."""
    text = (DAEMONSET.parent / "docs" / "security.md").read_text(encoding="utf-8")
    section = text.partition("## What podtally itself may do")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| ") and " on `" in line]
    told = {
        (verb, resource.strip("`"))
        for verb, _, resources in (row.partition(" of ")[0].partition(" on ") for row in rows)
        for resource in resources.split(", ")
    }
    every = {one for name in (*BUILDS, METRICS_API) for one in granted(name)}
    assert told == {
        (one.verb, f"{one.resource}.{one.group}" if one.group == "metrics.k8s.io" else one.resource) for one in every
    }


def test_no_rule_has_a_wildcard() -> None:
    """Neither groups nor resources nor verbs are given by a star, in any role of daemonset/."""
    roles = [
        one
        for path in DAEMONSET.rglob("*.yaml")
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if one and one.get("kind") in ("ClusterRole", "Role")
    ]
    assert roles
    assert not [rule for one in roles for rule in one["rules"] for words in rule.values() if "*" in words]
