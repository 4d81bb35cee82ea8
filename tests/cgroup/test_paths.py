"""What the name of a cgroup directory says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.cgroup import paths
from collector.model import QosClass

UID = "2fc932ce-fdcc-454b-97bd-aadfdeb4c340"
ESCAPED = UID.replace("-", "_")
STATIC = "47fb762397f374d2a14c7cb57cad7e8f"
ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kubepods", True),
        ("kubepods.slice", True),
        ("kubelet-kubepods.slice", True),
        ("a-b-kubepods.slice", True),
        ("kubepods-burstable.slice", False),
        ("kubepods.scope", False),
        ("mykubepods", False),
        ("mykubepods.slice", False),
        ("kubelet-kubepods", False),
        ("kubepods.slice.d", False),
        ("", False),
    ],
)
def test_kubepods_is_told_by_its_last_word(name: str, expected: bool) -> None:
    """Both drivers' kubepods directories are known, nested ones included, and nothing else is."""
    assert paths.is_kubepods(name) is expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("burstable", "Burstable"),
        ("besteffort", "BestEffort"),
        ("kubepods-burstable.slice", "Burstable"),
        ("kubelet-kubepods-besteffort.slice", "BestEffort"),
        ("guaranteed", None),
        ("Burstable", None),
        ("kubepods-burstable", None),
        (f"kubepods-burstable-pod{ESCAPED}.slice", None),
        ("", None),
    ],
)
def test_two_qos_classes_have_directories(name: str, expected: QosClass | None) -> None:
    """Burstable and BestEffort are told from the name; Guaranteed pods have no directory of their own."""
    assert paths.qos_class(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"kubepods-pod{ESCAPED}.slice", UID),
        (f"kubepods-burstable-pod{ESCAPED}.slice", UID),
        (f"kubelet-kubepods-besteffort-pod{ESCAPED}.slice", UID),
        (f"kubepods-pod{STATIC}.slice", STATIC),
        (f"pod{UID}", UID),
        (f"pod{STATIC}", STATIC),
        ("podmy_uid", None),
        ("pod", None),
        ("kubepods-pod.slice", None),
        ("pod-x", None),
        (f"xpod{UID}", None),
        (f"pod{UID}\n", None),
        (f"pod{UID}/x", None),
        ("podä", None),
        (f"kubepods-pod{ESCAPED}.scope", None),
        ("", None),
    ],
)
def test_a_pod_uid_has_its_dashes_again(name: str, expected: str | None) -> None:
    """The uid that systemd needs escaped and the plain one of cgroupfs give the uid as the API server writes it."""
    assert paths.pod_uid(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ID, ID),
        (f"cri-containerd-{ID}.scope", ID),
        (f"crio-{ID}.scope", ID),
        (f"docker-{ID}.scope", ID),
        (f"libpod-{ID}.scope", ID),
        (f"crio-{ID}", ID),
        (f"crio-conmon-{ID}.scope", None),
        (f"libpod-conmon-{ID}.scope", None),
        (f"{ID}.slice", None),
        (ID.upper(), None),
        (ID[:-1], None),
        (ID + "0", None),
        (ID + "\n", None),
        ("container", None),
        ("init.scope", None),
        ("", None),
    ],
)
def test_a_container_id_is_64_hex_digits_after_a_known_prefix(name: str, expected: str | None) -> None:
    """Each runtime's leaf gives its id; conmon and foreign directories give none."""
    assert paths.container_id(name) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("kubepods.slice", "systemd"), ("kubelet.slice/kubelet-kubepods.slice", "systemd"), ("kubepods", "cgroupfs")],
)
def test_the_driver_is_told_by_the_suffix(path: str, expected: str) -> None:
    """Only systemd makes slices."""
    assert paths.driver(path) == expected


WORDS = st.sampled_from(["kubepods", "burstable", "pod", UID, ESCAPED, ID, "-", "_", ".", ".slice", ".scope", "crio-"])
NAMES = st.lists(WORDS | st.text(max_size=3), max_size=6).map("".join)


@given(NAMES)
@settings(max_examples=400)
def test_any_name_gives_an_answer_in_its_range(name: str) -> None:
    """Any string gives a bool, a QoS class, a uid, an id or None: never an exception, never a strange value."""
    assert paths.is_kubepods(name) in (True, False)
    assert paths.qos_class(name) in ("Burstable", "BestEffort", None)
    assert re.fullmatch(r"[0-9A-Za-z.-]+", paths.pod_uid(name) or "x")
    assert re.fullmatch(r"[0-9a-f]{64}", paths.container_id(name) or ID)


@given(NAMES)
@settings(max_examples=400)
def test_a_name_is_one_thing_at_the_most(name: str) -> None:
    """No name is taken for two of kubepods, QoS directory, pod and container."""
    said = (paths.is_kubepods(name), paths.qos_class(name), paths.pod_uid(name), paths.container_id(name))
    assert sum(map(bool, said)) <= 1
