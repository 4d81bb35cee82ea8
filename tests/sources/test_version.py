"""Which cgroup version a mount point holds, and the sentences for those that are not v2."""

from __future__ import annotations

import pytest

from collector.errors import UnsupportedNode
from collector.sources.version import CgroupVersion, cgroup_version, require_v2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"cgroup.controllers", "cpu.stat"}, "v2"),
        ({"cgroup.controllers", "memory"}, "v2"),
        ({"memory", "cpu,cpuacct", "systemd"}, "v1"),
        ({"cpuset"}, "v1"),
        ({"memory", "systemd", "unified"}, "hybrid"),
        ({"unified"}, "unknown"),
        ({"home", "etc"}, "unknown"),
        (set(), "unknown"),
    ],
)
def test_the_version_is_told_by_the_names_in_the_root(names: set[str], expected: CgroupVersion) -> None:
    """Only a v2 root has cgroup.controllers; a controller's directory is v1's, with unified beside it a hybrid's."""
    assert cgroup_version(names) == expected


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            {"memory"},
            "/x is a cgroup v1 tree, and podtally reads cgroup v2 only: "
            "boot the node with systemd.unified_cgroup_hierarchy=1",
        ),
        (
            {"memory", "unified"},
            "/x is a cgroup hybrid tree (v1 with an empty v2 beside it), and podtally reads cgroup v2 only: "
            "boot the node with systemd.unified_cgroup_hierarchy=1",
        ),
        (
            set(),
            "/x is no cgroup v2 mount (it has no cgroup.controllers): "
            "give the mount point with --cgroup-root, /sys/fs/cgroup on most nodes",
        ),
    ],
)
def test_another_version_is_refused_in_one_sentence_with_what_to_do(names: set[str], sentence: str) -> None:
    """The whole sentence, for each."""
    with pytest.raises(UnsupportedNode) as refused:
        require_v2(names, "/x")
    assert str(refused.value) == sentence
