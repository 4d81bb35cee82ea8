"""A cluster as a person's kubeconfig reaches it: the API server, and through its proxy kubelets and podtally's pods.

- podtally: ``GET /api/v1/namespaces/<ns>/pods/<pod>:<port>/proxy/metrics/resource``, authorised as ``get pods/proxy``.
- kubelet: ``GET /api/v1/nodes/<node>/proxy/metrics/resource``, authorised as ``get nodes/proxy``.
- metrics API: ``GET /apis/metrics.k8s.io/v1beta1/pods``.

The kubernetes client, 20 MB of it, knows the forms that a kubeconfig takes; it is imported here alone.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import urllib3
from kubernetes import config
from kubernetes.config.config_exception import ConfigException
from yaml import YAMLError

from collector.errors import UsageError
from collector.model import Answer
from collector.sources.http import refusal_reason

TIMEOUT_SECONDS = 10.0
_OK = 200

POD_LABEL = "app.kubernetes.io/name=podtally"
POD_PORT = "metrics"
"""The name of the port in ``daemonset/base``."""

OUR_PAGE = "podtally/metrics_resource.txt"
"""The name of the answers of podtally's own page."""

OUR_PODS = "podtally/pods.json"
"""Likewise of its ``/api/v1/pods``."""


class Placed(NamedTuple):
    """A pod of podtally's."""

    namespace: str
    name: str
    node: str
    port: int
    scheme: str

    @property
    def proxy_path(self) -> str:
        """Its ``/metrics/resource``, as the API server's proxy has it."""
        return f"{self._proxy}/metrics/resource"

    @property
    def pods_path(self) -> str:
        """Its ``/api/v1/pods``, likewise."""
        return f"{self._proxy}/api/v1/pods"

    @property
    def _proxy(self) -> str:
        scheme = "https:" if self.scheme == "HTTPS" else ""
        return f"/api/v1/namespaces/{self.namespace}/pods/{scheme}{self.name}:{self.port}/proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked again and again; ``answer`` is the name of its answers."""

    answer: str
    path: str
    every_seconds: float


def node_path(node: str, path: str) -> str:
    """A path of a kubelet's, through the API server's proxy."""
    return f"/api/v1/nodes/{quote(node, safe='')}/proxy{path}"


class Cluster:
    """Asks the API server of a kubeconfig. Answers never raise for what the peer or the network does."""

    def __init__(self, kubeconfig: str, context: str | None) -> None:
        """Raises :class:`UsageError` if the file is none or has no such context."""
        # What it would log of a missing file stands in the error.
        logging.getLogger("kubernetes").setLevel(logging.ERROR)
        try:
            api: Any = config.new_client_from_config(config_file=kubeconfig, context=context, persist_config=False)
        except (ConfigException, YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            named = f" with the context {context}" if context else ""
            why = " ".join(str(error).split()) or type(error).__name__
            raise UsageError(f"--kubeconfig {kubeconfig}{named} cannot be used: {why}") from error
        self._configuration = api.configuration
        self._pool: urllib3.PoolManager = api.rest_client.pool_manager

    @property
    def url(self) -> str:
        """Where the API server is."""
        return str(self._configuration.host)

    def get(self, answer: str, path: str) -> Answer:
        """Ask once."""
        time_ns = time.time_ns()
        # Asked for each time: a plugin of the kubeconfig's renews its token.
        token = self._configuration.auth_settings().get("BearerToken", {}).get("value")
        try:
            response = self._pool.request(
                "GET",
                self.url + path,
                headers={"Authorization": token} if token else {},
                timeout=TIMEOUT_SECONDS,
                retries=False,
                redirect=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return Answer(answer, time_ns, None, f"{self.url} does not answer: {error}", None)
        if response.status != _OK:
            return Answer(answer, time_ns, response.status, refusal_reason(response.reason, response.data), None)
        return Answer(answer, time_ns, response.status, None, response.data)

    def podtally(self) -> list[Placed]:
        """The running pods of podtally's. Raises :class:`UsageError` if they cannot be listed or there is none."""
        answer = self.get("pods", f"/api/v1/pods?labelSelector={quote(POD_LABEL, safe='')}")
        if answer.body is None:
            status = f"HTTP {answer.status}: " if answer.status else ""
            raise UsageError(f"podtally's pods cannot be listed: {status}{answer.error}")
        found = [_placed(pod) for pod in json.loads(answer.body)["items"] if pod["status"].get("phase") == "Running"]
        if not found:
            raise UsageError(
                f"the cluster has no running pod with the label {POD_LABEL}: kubectl apply -k daemonset/ brings them"
            )
        return sorted(found)


def _placed(pod: Any) -> Placed:
    metadata, spec = pod["metadata"], pod["spec"]
    container = spec["containers"][0]
    port = next((one["containerPort"] for one in container.get("ports") or [] if one.get("name") == POD_PORT), 9753)
    scheme = (container.get("readinessProbe") or {}).get("httpGet", {}).get("scheme", "HTTP")
    return Placed(metadata["namespace"], metadata["name"], spec["nodeName"], port, scheme)


class Polling:
    """Asks for several things at once, each in a thread of its own, until it is closed."""

    def __init__(self, cluster: Cluster, asked: list[Asked]) -> None:
        self._cluster = cluster
        self._answers: deque[Answer] = deque()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one,), daemon=True) for one in asked]

    def take(self) -> Iterator[Answer]:
        """What came in since."""
        while self._answers:
            yield self._answers.popleft()

    def _run(self, asked: Asked) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._answers.append(self._cluster.get(asked.answer, asked.path))
            due = max(due + asked.every_seconds, time.monotonic())
            self._stop.wait(due - time.monotonic())

    @contextmanager
    def running(self) -> Iterator[Polling]:
        """Ask while in this context."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
