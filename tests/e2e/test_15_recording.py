"""A recording taken through the DaemonSet's pod, replayed here."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest
import zstandard

from tests.e2e import pace
from tests.e2e.cluster import get, kubectl, node
from tests.e2e.layout import REPO, RESULTS
from tests.e2e.observing import Container, of_collector, record, samples, table
from tests.e2e.processes import wait_for

pytestmark = pytest.mark.short


def _replayed(recording: Path, path: str) -> str:
    command = [sys.executable, "-m", "collector", "replay", str(recording), "--once", "--path", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _read(recording: Path, ending: str) -> dict[str, str]:
    """The recorded files of that ending."""
    found = {}
    with (
        open(recording, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in tar:
            if member.name.endswith(ending):
                source = tar.extractfile(member)
                assert source is not None
                found[member.name] = source.read().decode()
    return found


def test_a_recording_while_pods_come_and_go_replays_to_what_was_served() -> None:
    """Every counter in the replay's last frame lies between what the live collector served before and after it."""
    replacing = ["delete", "pod", "-l", "app=churn", "--wait=false"]
    threading.Timer(8, lambda: kubectl("-n", "team-a", *replacing)).start()
    before = samples(of_collector("/metrics/resource"))
    recording = record("churn", seconds=40, every=2)
    after = samples(of_collector("/metrics/resource"))
    replayed = samples(_replayed(recording, "/metrics/resource"))
    compared = [
        key
        for key in replayed
        if key in before and key in after and before[key].start_seconds == after[key].start_seconds
    ]
    outside = [
        key for key in compared if not before[key].cpu_seconds <= replayed[key].cpu_seconds <= after[key].cpu_seconds
    ]
    table(
        f"A recording of {recording.stat().st_size / 1024:.0f} KiB, replayed here",
        ["containers in the replay", "served live as well", "outside what was served"],
        [(len(replayed), len(compared), len(outside))],
        file="recordings.md",
    )
    assert outside == []
    pace.enough(len(compared), pace.current().pods(15), pace.current(), 0, pytest.skip)


def test_the_recorded_directories_have_the_times_that_containers_began() -> None:
    """What start times come from is in the recording: `mtime_ns` of every directory."""
    frames = _read(RESULTS / "churn.tar.zst", "frame.json")
    assert frames
    assert all('"mtime_ns"' in text for text in frames.values())


def test_a_recording_of_an_oom_kill_holds_the_kernels_count() -> None:
    """The pod's memory.events keeps the kill after the container is gone."""
    uid = get("pod", "oom", "-n", "team-c")["metadata"]["uid"]
    below = f"-name '*{uid}*' -o -name '*{uid.replace('-', '_')}*'"
    count = f"cat $(find /sys/fs/cgroup -maxdepth 4 -type d {below})/memory.events | awk '/^oom_kill / && $2 > 0'"
    wait_for("an OOM kill of team-c/oom", lambda: node(count, check=False).strip(), 180, every=3)
    recording = record("oom", seconds=10, every=2)
    events = _read(recording, "memory.events")
    killed = {
        name.split("/")[1]
        for name, text in events.items()
        if uid.replace("-", "_") in name.replace("-", "_")
        and any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())
    }
    assert killed, "frames whose memory.events of the pod counts a kill"
    assert Container("team-c", "oom", "quiet") in samples(_replayed(recording, "/metrics/resource"))
