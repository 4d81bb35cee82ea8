"""The cluster: control plane on the host, one node in QEMU; up, down, and the ways in."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e import build, pace, pki, runtimes
from tests.e2e.layout import (
    ADMIN_KUBECONFIG,
    API_PORT,
    BASE_DISK,
    BIN,
    COLLECTOR_PORT,
    ETCD_PORT,
    HERE,
    HOST_ADDRESS,
    IMAGE_DISK,
    LOGS,
    METRICS_SERVER_PORT,
    NODE,
    NODE_ADDRESS,
    PKI,
    RESULTS,
    ROOTFS,
    RUN,
    SERVICE_NETWORK,
    SSH_KEY,
)
from tests.e2e.processes import (
    E2EError,
    inside,
    need,
    network_down,
    network_up,
    running,
    start,
    started,
    stop,
    wait_for,
)

BEGAN = time.monotonic()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Say what begins, and how long it took."""
    began = time.monotonic()
    print(f"[{began - BEGAN:6.1f} s] {name} ...", flush=True)
    yield
    print(f"[{time.monotonic() - BEGAN:6.1f} s] {name}: {time.monotonic() - began:.1f} s", flush=True)


# --- ways in --------------------------------------------------------------------------------------------------------


def kubectl(*arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 120) -> str:
    """What kubectl prints, run as the cluster's administrator; a slow node is given longer.

    Raises: E2EError with what it said.
    """
    timeout = pace.current().seconds(timeout)
    command = inside([str(BIN / "kubectl"), f"--kubeconfig={ADMIN_KUBECONFIG}", *arguments])
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=timeout)
    if check and done.returncode:
        raise E2EError(f"kubectl {' '.join(arguments[:6])}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def get(*arguments: str) -> Any:
    """What kubectl gets, as JSON."""
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def ssh_command(*command: str) -> list[str]:
    """The command that runs another on the node by ssh."""
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "ConnectTimeout": "10",
        "ControlMaster": "auto",
        "ControlPath": str(RUN / "ssh.sock"),
        "ControlPersist": "600",
    }
    flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    return inside(["ssh", "-q", "-i", str(SSH_KEY), *flags, f"root@{NODE_ADDRESS}", *command])


def node(command: str, *, stdin: bytes | None = None, check: bool = True, timeout: float = 300) -> str:
    """A shell command on the node; its output. Raises: E2EError with what it said."""
    done = subprocess.run(ssh_command(command), input=stdin, capture_output=True, check=False, timeout=timeout)
    if check and done.returncode:
        raise E2EError(f"on the node, {command[:120]!r} gave {done.returncode}: {done.stderr.decode()[-1500:]}")
    return done.stdout.decode()


def put(content: bytes, path: str, mode: str = "644") -> None:
    """Write a file on the node; its folder is made if need be."""
    node(f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}", stdin=content)


# --- up and down ----------------------------------------------------------------------------------------------------


def prepare() -> None:
    """Build what is not yet in the cache."""
    need("ip", "qemu-system-x86_64", "qemu-img", package_hint="apt-get install iproute2 qemu-system-x86 qemu-utils")
    for what, make in (
        ("programs of Kubernetes", build.programs),
        ("Prometheus", build.prometheus),
        ("the node's disk", build.disk),
        ("images", build.images),
        ("images in a disk of the node's", build.image_disk),
    ):
        with stage(what):
            make()


def up(driver: str = "systemd", kernel: str = "older", runtime: str = "runc") -> None:
    """Bring the cluster up on a fresh disk, up to a Ready node with metrics-server."""
    if running("qemu"):
        raise E2EError("a node is up already: python -m tests.e2e down ends it.")
    for folder in (LOGS, RESULTS):
        folder.mkdir(parents=True, exist_ok=True)
    network_up()
    with stage("control plane"):
        control_plane()
    with stage(f"node ({driver} driver, kernel {build.kernels()[kernel]}, {runtime})"):
        boot(driver, build.kernels()[kernel], runtimes.RUNTIMES[runtime])
        wait_for("ssh to the node", lambda: _answers("true"), 600)
    with stage("node Ready"):
        wait_for("the node's Ready", node_ready, 600)
    with stage("the node's pace"):
        measure_pace()
    with stage("metrics-server"):
        metrics_server()


def control_plane() -> None:
    """etcd, API server, controller manager, scheduler."""
    client, peer = f"http://127.0.0.1:{ETCD_PORT}", f"http://127.0.0.1:{ETCD_PORT + 1}"
    start(
        "etcd",
        [
            str(BIN / "etcd"),
            f"--data-dir={RUN / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ],
    )
    api_server()
    start(
        "kube-controller-manager",
        [
            str(BIN / "kube-controller-manager"),
            f"--kubeconfig={ADMIN_KUBECONFIG}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--node-monitor-grace-period=180s",  # a node that lags is no node that is lost
            f"--root-ca-file={PKI / 'ca.crt'}",
            f"--service-account-private-key-file={PKI / 'sa.key'}",
        ],
    )
    start(
        "kube-scheduler",
        [
            str(BIN / "kube-scheduler"),
            f"--kubeconfig={ADMIN_KUBECONFIG}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
    )


def api_server() -> None:
    """Start the API server and wait until it is ready."""
    start(
        "kube-apiserver",
        [
            str(BIN / "kube-apiserver"),
            f"--advertise-address={HOST_ADDRESS}",
            f"--secure-port={API_PORT}",
            f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
            f"--client-ca-file={PKI / 'ca.crt'}",
            f"--tls-cert-file={PKI / 'apiserver.crt'}",
            f"--tls-private-key-file={PKI / 'apiserver.key'}",
            f"--kubelet-client-certificate={PKI / 'kubelet-client.crt'}",
            f"--kubelet-client-key={PKI / 'kubelet-client.key'}",
            f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={PKI / 'sa.pub'}",
            f"--service-account-signing-key-file={PKI / 'sa.key'}",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-aggregator-routing=true",
            f"--proxy-client-cert-file={PKI / 'front-proxy.crt'}",
            f"--proxy-client-key-file={PKI / 'front-proxy.key'}",
            f"--requestheader-client-ca-file={PKI / 'ca.crt'}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
        ],
    )
    wait_for("the API server", lambda: kubectl("get", "--raw", "/readyz", check=False) == "ok", 120)


def boot(driver: str, release: str, runtime: runtimes.Runtime) -> None:
    """Start the virtual machine on fresh layers over the kept disks."""
    drives: list[str] = []
    own = runtimes.disk(runtime)
    for name, base in (("disk", BASE_DISK), ("images", IMAGE_DISK), *([("runtime", own)] if own else [])):
        layer = RUN / f"{name}.qcow2"
        layer.unlink(missing_ok=True)
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(layer)]
        subprocess.run(create, check=True)
        drives += ["-drive", f"file={layer},if=virtio,format=qcow2,cache=unsafe,aio=threads"]
    start(
        "qemu",
        [
            *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=1024"),
            # QEMU 7.2 emulates cmpxchg16b so that newer kernels double-fault.
            *("-cpu", "max,-cx16", "-smp", "2", "-m", "6144", "-nographic", "-no-reboot"),
            *(
                "-kernel",
                str(ROOTFS / f"boot/vmlinuz-{release}"),
                "-initrd",
                str(ROOTFS / f"boot/initrd.img-{release}"),
            ),
            "-append",
            " ".join(
                [
                    "root=/dev/vda rw console=ttyS0 psi=1 mitigations=off net.ifnames=0",
                    f"e2e.driver={driver} e2e.runtime={runtime.name}",
                    *runtime.boot,
                ]
            ),
            *drives,
            *("-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no"),
            *("-device", "virtio-net-pci,netdev=n0", "-device", "virtio-rng-pci"),
        ],
    )


def measure_pace() -> pace.Pace:
    """Let the node do a fixed piece of work, and keep how long it took: waits and numbers of pods follow it."""
    script = f"for n in 1 2 3 4 5; do a=$(date +%s%N); {pace.WORK}; b=$(date +%s%N); echo $((b-a)); done"
    found = pace.of_work(int(line) / 1e9 for line in node(script, timeout=600).split())
    pace.keep(found)
    print(f"    {found}", flush=True)
    return found


def _answers(command: str) -> bool:
    try:
        node(command, timeout=15)
    except (E2EError, subprocess.TimeoutExpired):
        return False
    return True


def import_image(archive: Path) -> None:
    """An image into the node's containerd; the layers that it has already are not sent."""
    known = set(node("ctr -n k8s.io content ls -q").split())
    node("ctr -n k8s.io images import --local -", stdin=build.without(archive, known))


def node_ready() -> bool:
    """Whether the node is Ready to the API server."""
    shown = kubectl("get", "node", NODE, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}", check=False)
    return shown.strip() == "True"


def metrics_server() -> None:
    """metrics-server on the host, reached by the aggregator, reading the kubelet at the node's address."""
    kubectl("apply", "-f", str(HERE / "manifests" / "metrics-server.yaml"))
    start_metrics_server("metrics-server", METRICS_SERVER_PORT, 10250)
    kubectl("apply", "-f", str(HERE / "manifests" / "metrics-api.yaml"))


def service_account_kubeconfig(name: str) -> Path:
    """A kubeconfig with the bearer token of metrics-server's account, as it has in a pod."""
    token = kubectl("-n", "kube-system", "create", "token", "metrics-server", "--duration=24h").strip()
    file = PKI / f"{name}.kubeconfig"
    pki.write_kubeconfig(file, "admin")
    config = json.loads(file.read_text())
    config["users"][0]["user"] = {"token": token}
    file.write_text(json.dumps(config))
    return file


def start_metrics_server(name: str, port: int, kubelet_port: int) -> None:
    """A metrics-server that reads that port of every node's address, with its account's token."""
    config = service_account_kubeconfig(name)
    start(
        name,
        [
            str(BIN / "metrics-server"),
            *(f"--{kind}kubeconfig={config}" for kind in ("", "authentication-", "authorization-")),
            f"--kubelet-port={kubelet_port}",
            f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=15s",
            f"--secure-port={port}",
            f"--tls-cert-file={PKI / 'metrics-server.crt'}",
            f"--tls-private-key-file={PKI / 'metrics-server.key'}",
        ],
    )


def deploy(
    overlay: Path = HERE / "manifests" / "podtally", *, namespace: str = "podtally", what: str = "daemonset/podtally"
) -> None:
    """Apply podtally's manifests and wait until its pod is Ready. Raises: E2EError."""
    kubectl("apply", "-k", str(overlay))
    rolled_out(namespace, what)


def rolled_out(namespace: str = "podtally", what: str = "daemonset/podtally") -> None:
    """Wait until podtally's pod is Ready: 20 s on the older kernel, minutes on the newer one while a dozen other pods
    start beside it. Raises: E2EError.
    """
    seconds = round(pace.current().seconds(600))
    kubectl("-n", namespace, "rollout", "status", what, f"--timeout={seconds}s", timeout=620)


def collector_pod(namespace: str = "podtally") -> dict[str, Any]:
    """The pod of the DaemonSet, or of podtally in another namespace, that is not going away."""
    pods = get("pods", "-n", namespace, "-l", "app.kubernetes.io/name=podtally")["items"]
    living = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if len(living) != 1:
        raise E2EError(f"there should be one pod of podtally in {namespace}, and there are {len(living)}")
    return dict(living[0])


def collector_process() -> str:
    """The id, on the node, of the collector's process."""
    container = collector_pod()["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    return node(f"ctr -n k8s.io tasks ls | awk '$1 == \"{container}\" {{print $2}}'").strip()


def collector_url(namespace: str = "podtally") -> str:
    """Where podtally's pod answers: its own address, which the host has a route to."""
    return f"http://{collector_pod(namespace)['status']['podIP']}:{COLLECTOR_PORT}"


def gather_logs() -> None:
    """Put the node's logs beside the host's."""
    for name, command in {
        "kubelet": "journalctl -u kubelet --no-pager",
        "runtime": "journalctl -u containerd -u crio --no-pager",
        "kernel": "dmesg",
    }.items():
        (LOGS / f"node-{name}.log").write_text(node(command, check=False))
    (LOGS / "pods.txt").write_text(kubectl("get", "pods", "-A", "-o", "wide", check=False, timeout=30))
    (LOGS / "events.txt").write_text(kubectl("get", "events", "-A", check=False, timeout=30))
    (LOGS / "collector.log").write_text(
        kubectl("-n", "podtally", "logs", "daemonset/podtally", "--prefix", check=False, timeout=30)
    )
    (LOGS / "collector-previous.log").write_text(
        kubectl("-n", "podtally", "logs", "daemonset/podtally", "--previous", check=False, timeout=30)
    )


def down() -> None:
    """End every process that was started, and take network and disk away. Logs and results stay."""
    if running("qemu"):
        subprocess.run(ssh_command("-O", "exit"), capture_output=True, check=False)
    for name in reversed(started()):
        stop(name, seconds=3)  # an API server waits 20 s for its watchers; nothing of it is kept
    network_down()
    pace.forget()
    for layer in RUN.glob("*.qcow2"):
        layer.unlink()
    shutil.rmtree(RUN / "etcd", ignore_errors=True)
