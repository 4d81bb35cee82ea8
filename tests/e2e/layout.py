"""Where the test node's parts are: the cache outside the repository, the network, the ports. One place for each."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]

CACHE = Path(
    os.environ.get("PODTALLY_E2E_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "podtally" / "e2e"
)
"""What is built once and kept: programs, root file system, images. Nothing of it is committed."""

BIN = CACHE / "bin"
ROOTFS = CACHE / "rootfs"
BASE_DISK = CACHE / "base.img"
IMAGES = CACHE / "images"
IMAGE_DISK = CACHE / "images.img"
"""The node's second disk: what its containerd keeps, with the images in it."""
PKI = CACHE / "pki"
RUN = CACHE / "run"
LOGS = RUN / "logs"
"""One folder with every log of a run; where a failure says to look."""
RESULTS = RUN / "results"
"""The tables and recordings that a run made."""

NAMESPACE = "podtally-e2e"
"""The network namespace of all processes on the host: nothing of the host's own network is used or changed."""
TAP = "tap0"
HOST_ADDRESS = "192.168.76.1"
NODE_ADDRESS = "192.168.76.2"
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
NODE = "node1"

API_PORT = 6443
ETCD_PORT = 2379
METRICS_SERVER_PORT = 10443
SECOND_METRICS_SERVER_PORT = 10444
PROMETHEUS_PORT = 9090
COLLECTOR_PORT = 9753

ADMIN_KUBECONFIG = PKI / "admin.kubeconfig"
SSH_KEY = PKI / "ssh_key"
