"""What the name of a cgroup directory says. Pure; any string gives an answer.

The grammar is the kubelet's (``pkg/kubelet/cm/cgroup_manager_linux.go``) and the runtimes'::

    kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2fc932ce_fdcc_454b_97bd_aadfdeb4c340.slice
    kubepods/burstable/pod2fc932ce-fdcc-454b-97bd-aadfdeb4c340
    kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod<uid>.slice                    kind, --cgroup-root
    cri-containerd-<64 hex>.scope   crio-<64 hex>.scope   docker-<64 hex>.scope   <64 hex>  the runtimes' leaves

Only the last component counts, so that any nesting is understood.
"""

from __future__ import annotations

import re

from collector.model import QosClass

_QOS: dict[str, QosClass] = {"burstable": "Burstable", "besteffort": "BestEffort"}

_POD_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z.-]*")
"""A uid as the API server or the kubelet makes it: a UUID, or 32 hex digits of a static pod; a manifest may choose
its own, so any word is let through: what no answer names is exported nowhere."""

_LEAF = re.compile(r"(?:(?:cri-containerd|crio|docker|libpod)-)?([0-9a-f]{64})(?:\.scope)?")
"""``crio-conmon-<id>.scope`` holds the same id as the container that it watches: the known prefixes keep it out."""


def _slice_word(name: str) -> str:
    """``a-b-word.slice`` -> ``word``, as systemd nests slices; other names are returned as they are."""
    if name.endswith(".slice"):
        return name[: -len(".slice")].rpartition("-")[2]
    return name


def is_kubepods(name: str) -> bool:
    """True if ``name`` is the directory that holds all pods.

    >>> [is_kubepods(n) for n in ("kubepods", "kubepods.slice", "kubelet-kubepods.slice", "kubepods-burstable.slice")]
    [True, True, True, False]
    """
    return _slice_word(name) == "kubepods"


def qos_class(name: str) -> QosClass | None:
    """The QoS class whose pods ``name`` holds; Guaranteed pods have no directory of their own.

    >>> qos_class("kubepods-besteffort.slice"), qos_class("burstable"), qos_class("kubepods-podab.slice")
    ('BestEffort', 'Burstable', None)
    """
    return _QOS.get(_slice_word(name))


def pod_uid(name: str) -> str | None:
    """The uid of the pod whose cgroup ``name`` is, dashes restored, or ``None``.

    >>> pod_uid("kubepods-burstable-pod2fc932ce_fdcc_454b_97bd_aadfdeb4c340.slice")
    '2fc932ce-fdcc-454b-97bd-aadfdeb4c340'
    >>> pod_uid("pod47fb762397f374d2a14c7cb57cad7e8f")
    '47fb762397f374d2a14c7cb57cad7e8f'
    """
    word = _slice_word(name)
    if not word.startswith("pod"):
        return None
    uid = word[len("pod") :]
    if name.endswith(".slice"):
        # systemd reads "-" as nesting, so the kubelet writes "_" in its place (escapeSystemdCgroupName).
        uid = uid.replace("_", "-")
    return uid if _POD_UID.fullmatch(uid) else None


def container_id(name: str) -> str | None:
    """The id of the container or sandbox whose leaf ``name`` is, or ``None``: conmon and foreign directories.

    >>> container_id("crio-conmon-" + "a" * 64 + ".scope") is None
    True
    >>> container_id("docker-" + "a" * 64 + ".scope") == container_id("a" * 64) == "a" * 64
    True
    """
    match = _LEAF.fullmatch(name)
    return match.group(1) if match else None


def driver(kubepods_path: str) -> str:
    """``systemd`` or ``cgroupfs``, from the path of a kubepods directory."""
    return "systemd" if kubepods_path.endswith(".slice") else "cgroupfs"
