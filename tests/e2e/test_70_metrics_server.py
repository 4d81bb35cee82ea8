"""A second metrics-server that reads podtally's page in place of the kubelet's. Runs late: it redeploys."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import deploy, kubectl, start_metrics_server
from tests.e2e.layout import COLLECTOR_PORT, HERE, METRICS_SERVER_PORT, NODE_ADDRESS, PKI, SECOND_METRICS_SERVER_PORT
from tests.e2e.observing import Container, Top, fetch, metrics_api, table, tops
from tests.e2e.processes import E2EError, stop, wait_for

PAGE = f"https://{NODE_ADDRESS}:{COLLECTOR_PORT}/metrics/resource"


@pytest.fixture(scope="module", autouse=True)
def over_tls() -> Iterator[None]:
    """The overlay hostport-tls, as daemonset/README.md says to apply it; the base again afterwards."""
    pair = [f"--cert={PKI / 'collector.crt'}", f"--key={PKI / 'collector.key'}"]
    kubectl("-n", "podtally", "create", "secret", "tls", "podtally-tls", *pair)
    deploy(HERE / "manifests" / "podtally-tls")
    yield
    stop("metrics-server-2")
    _serve(METRICS_SERVER_PORT)
    kubectl("delete", "-k", str(HERE / "manifests" / "podtally-tls"), "--wait=true")
    kubectl("apply", "-k", str(HERE / "manifests" / "podtally"))  # what runs after this waits for it


def _serve(port: int) -> None:
    """Have the metrics API answered by the metrics-server at that port."""
    change = json.dumps({"ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
    kubectl("-n", "kube-system", "patch", "endpointslice", "metrics-server-host", "--type=merge", "-p", change)


def _status(token: str | None) -> int:
    try:
        fetch(PAGE, token=token)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_only_who_may_read_the_nodes_metrics_is_let_in() -> None:
    """No token, a false one, one without the right, and metrics-server's, asked at the node's address over TLS."""
    tokens = {
        name: kubectl("-n", namespace, "create", "token", name).strip()
        for namespace, name in (("kube-system", "metrics-server"), ("team-a", "default"))
    }
    answers = [_status(token) for token in (None, "no-such-token", tokens["default"], tokens["metrics-server"])]
    assert answers == [401, 401, 403, 200]


def test_kubectl_top_answers_through_podtally() -> None:
    """The API shows each container that it showed by the kubelet, with like numbers."""
    by_kubelet = {top.container: top for top in tops(metrics_api())}
    start_metrics_server("metrics-server-2", SECOND_METRICS_SERVER_PORT, COLLECTOR_PORT)
    _serve(SECOND_METRICS_SERVER_PORT)
    steady = [key for key, top in by_kubelet.items() if key.pod in ("steady", "throttled")]
    found: dict[Container, Top] = {}

    def answered() -> bool:
        found.clear()
        try:
            answer = metrics_api()
        except E2EError:  # until it has read by whom the API server's questions are vouched for
            return False
        found.update({top.container: top for top in tops(answer)})
        return set(steady) <= set(found)

    wait_for("the second metrics-server's answers", answered, 120, every=3)
    print(kubectl("top", "pods", "-A", "--containers"))
    rows = [
        (
            "/".join(key),
            by_kubelet[key].cpu_millicores,
            top.cpu_millicores,
            by_kubelet[key].memory_bytes,
            top.memory_bytes,
        )
        for key, top in sorted(found.items())
        if key in by_kubelet
    ]
    columns = ["container", "by the kubelet (m)", "by podtally (m)", "memory by the kubelet", "by podtally"]
    table("The metrics API, served from the kubelet and then from podtally", columns, rows, file="metrics-server.md")
    missing = {
        key
        for key in by_kubelet
        if key.pod not in ("oom", "crashing") and not key.pod.startswith(("churn", "podtally"))
    }
    assert missing - set(found) == set()
    for key in steady:
        if by_kubelet[key].cpu_millicores > 90:
            assert found[key].cpu_millicores == pytest.approx(by_kubelet[key].cpu_millicores, rel=0.05)
