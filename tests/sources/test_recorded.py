"""Recordings that the DaemonSet's own pod took on a real node: what they hold that older ones do not."""

from __future__ import annotations

import pytest

from tests.replays import last_tally, replayed
from tests.support import RECORDED, recording


@pytest.mark.parametrize("name", RECORDED)
def test_every_directory_has_the_time_it_was_made(name: str) -> None:
    """Start times are known without asking anybody: each directory of each frame has its mtime."""
    times = [entry.mtime_ns for frame in recording(name).frames for entry in frame.dirs.values()]
    assert len(times) > 100
    assert None not in times


def test_pods_that_end_are_gone() -> None:
    """Of a burst that ends the last six are there at first and one in the last frame: none stays behind."""
    tallies = list(replayed("churn.tar.zst").tallies())
    first, last = ({one.pod.name for one in tally.pods} for tally in (tallies[0], tallies[-1]))
    first, last = ({name for name in names if name.startswith("churn-")} for names in (first, last))
    assert (len(first), len(last)) == (6, 1)
    assert last < first


def test_a_pod_that_is_replaced_has_its_successor_and_no_trace_of_itself() -> None:
    """A deployment's pod goes while its successor starts: by the end that one alone is there, whole, with rates."""
    tallies = list(replayed("replaced.tar.zst").tallies())
    churn = [{one.pod.name: one for one in tally.pods if one.pod.name.startswith("churn-")} for tally in tallies]
    assert len(churn[0]) > 1
    [(name, one)] = churn[-1].items()
    assert sum(name in found and len(found) > 1 for found in churn) > 0, "both are seen at once"
    assert [container.container.name for container in one.containers] == ["main"]
    assert one.incomplete is None
    assert one.cpu_cores is not None
    assert tallies[-1].unnamed == frozenset()


def test_a_recording_of_a_live_node_tells_its_runtime() -> None:
    """By the container ids of the kubelet's list."""
    assert recording("replaced.tar.zst").meta.runtime == "containerd"


def test_the_pod_keeps_the_count_of_its_containers_oom_kills() -> None:
    """The container that was killed is another by now; the pod's cgroup still tells of every kill."""
    [oom] = [one for one in last_tally("oom.tar.zst").pods if one.pod.name == "oom"]
    assert oom.reading.details is not None
    assert (oom.reading.details.memory_oom_kill_events or 0) > 10
