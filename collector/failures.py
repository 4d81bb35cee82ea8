"""Why a peer's answer is none, and what to do about it: each kind of failure once.

Where there is an HTTP status it tells the kind; where there is none, who asked does (:mod:`collector.sources.http`),
and a recording keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from collector.model import Answer, FailureKind


class _Steps(NamedTuple):
    kubelet: str
    apiserver: str


_INSECURE = (
    "or pass --kubelet-insecure-tls, whose price is that whoever can answer at the node's address gets this service"
    " account's token"
)
_ELSE = "something else answers there: give the kubelet's own address with --kubelet-url, port 10250 as a rule"
_ELSE_APISERVER = "something else answers there: give the API server's own address with --apiserver-url"
_DROPPED = "is overloaded, and whether a network policy or a firewall drops what this pod sends there"
_LARGE = "no node's pods are so much: {} (kubectl get --raw {} | wc -c)"

_STEPS: Final[Mapping[FailureKind, _Steps]] = {
    "expired": _Steps(
        "renew it: with serverTLSBootstrap approve the kubelet's request (kubectl get csr), else remove"
        f" /var/lib/kubelet/pki/kubelet.crt on the node and restart the kubelet; {_INSECURE}",
        "renew the API server's certificate (kubeadm certs renew apiserver)",
    ),
    "not_yet_valid": _Steps(
        f"set the clocks: the node's is behind that of who signed it; {_INSECURE}",
        "set the clocks: the node's is behind that of who signed it",
    ),
    "wrong_name": _Steps(
        "give --kubelet-url with a name or address that is in it, or have it made with the node's (serverTLSBootstrap),"
        f" {_INSECURE}",
        "give --apiserver-url with a name or address that is in it",
    ),
    "unknown_signer": _Steps(
        "it is not signed by the cluster's CA: turn on serverTLSBootstrap in the kubelet's configuration, or give the"
        f" CA that signed it with --kubelet-ca-file, {_INSECURE}",
        "it is not signed by the CA at hand: give the cluster's with --kubelet-ca-file, where there is no service"
        " account to bring it",
    ),
    "bad_certificate": _Steps(
        f"have the kubelet's certificate made anew (serverTLSBootstrap), {_INSECURE}",
        "have the API server's certificate made anew",
    ),
    "no_tls": _Steps(
        "no TLS, or none that podtally takes, is spoken there: give the kubelet's HTTPS port with --kubelet-url, 10250"
        " as a rule",
        "no TLS, or none that podtally takes, is spoken there: give the API server's HTTPS port with --apiserver-url",
    ),
    "no_token": _Steps(
        "give a file that holds a token with --token-file", "give a file that holds a token with --token-file"
    ),
    "timeout": _Steps(f"see whether the node or its kubelet {_DROPPED}", f"see whether the API server {_DROPPED}"),
    "refused": _Steps(
        "see that the kubelet runs, and listens where --kubelet-url says, on port 10250 as a rule",
        "see that the API server listens where --apiserver-url says",
    ),
    "unreachable": _Steps(
        "check --kubelet-url and that the node lets this pod reach it",
        "check --apiserver-url and that the network lets this pod reach it",
    ),
    "broken": _Steps(
        "what comes back breaks off or is no HTTP: if it stays, read the kubelet's log on the node, and look at what"
        " stands between (a proxy)",
        "what comes back breaks off or is no HTTP: if it stays, look at what stands between (a proxy)",
    ),
    "unauthenticated": _Steps(
        "the kubelet takes no bearer tokens: turn on authentication.webhook in its configuration, and check the token",
        "check the token of podtally's service account (--token-file)",
    ),
    "forbidden": _Steps(
        "grant get on nodes/pods (daemonset/base/rbac.yaml); before Kubernetes 1.33, use"
        " daemonset/overlays/before-1.33",
        "grant list on pods (daemonset/base/rbac.yaml) for the names while the kubelet does not answer",
    ),
    "busy": _Steps(
        "podtally asks again by itself; if it stays, look for who else asks so much, or make --pods-interval longer",
        "podtally asks again by itself; if it stays, look for who else asks so much",
    ),
    "server_error": _Steps(
        "the kubelet fails by itself: read its log on the node (journalctl -u kubelet)",
        "the API server fails by itself: kubectl get --raw '/readyz?verbose' says in what",
    ),
    "redirected": _Steps(f"no kubelet sends one elsewhere, {_ELSE}", _ELSE_APISERVER),
    "too_large": _Steps(
        _LARGE.format("see that the node's own kubelet answers, and what it says", "/api/v1/nodes/NODE/proxy/pods"),
        _LARGE.format("see what the API server says", "'/api/v1/pods?fieldSelector=spec.nodeName=NODE'"),
    ),
    "not_the_list": _Steps(_ELSE, _ELSE_APISERVER),
}

_OF_STATUS: Final[Mapping[int, FailureKind]] = {
    401: "unauthenticated",
    403: "forbidden",
    408: "timeout",
    429: "busy",
    504: "timeout",
}


def kind_of(answer: Answer) -> FailureKind:
    """What kind of failure an answer is from which nothing can be taken."""
    status = answer.status
    if status is None:
        # Older recordings do not tell.
        return answer.kind or "unreachable"
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    if status >= 500:
        return "server_error"
    if 300 <= status < 400:
        return "redirected"
    if status == 200 and answer.body is None:
        # Older recordings do not tell here either, and knew of one reason.
        return answer.kind or "too_large"
    return "not_the_list"


def step(kind: FailureKind, answer_name: str) -> str:
    """What to do about it; ``answer_name``: of whom was asked, by the path of the answer in a recording."""
    steps = _STEPS[kind]
    return steps.kubelet if answer_name.startswith("kubelet/") else steps.apiserver
