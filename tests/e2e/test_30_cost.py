"""What each reader of the same pods costs, side by side on the same node in one run: ratios, as all is emulated."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable

from tests.e2e.cluster import collector_process, node
from tests.e2e.layout import BIN, NODE_ADDRESS, PKI, RESULTS
from tests.e2e.observing import of_collector, of_kubelet, table
from tests.e2e.processes import inside

SPAN_SECONDS = 30
QUESTIONS = 8
CADVISOR_PORT = 8081

SERVICES = "/sys/fs/cgroup/system.slice/{}.service/cpu.stat"


def _usage_seconds(file: str) -> float:
    return float(re.search(r"usage_usec (\d+)", node(f"cat {file}"))[1]) / 1e6  # type: ignore[index]


def _process(name_or_pid: str) -> tuple[float, float]:
    """CPU seconds and resident bytes of a process on the node."""
    fields = node(f"cat /proc/{name_or_pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100, int(fields[21]) * 4096


def _collector() -> tuple[str, str]:
    """The process of the collector, and the cgroup file that the kernel counts its CPU in."""
    process = collector_process()
    return process, "/sys/fs/cgroup" + node(f"cut -d: -f3 /proc/{process}/cgroup").strip() + "/cpu.stat"


def _cores(usage: Callable[[], float]) -> float:
    """Cores used over the span, by a counter of CPU seconds."""
    began, at = usage(), time.monotonic()
    time.sleep(SPAN_SECONDS)
    return (usage() - began) / (time.monotonic() - at)


def _cadvisor(interval: str) -> tuple[float, float]:
    """Cores and resident bytes of a standalone cAdvisor with that housekeeping interval."""
    process = node(
        f"systemd-run -q --unit=cadvisor-{interval} /usr/local/bin/cadvisor -listen :{CADVISOR_PORT}"
        f" -housekeeping_interval {interval} && sleep 20 && systemctl show -p MainPID --value cadvisor-{interval}"
    ).strip()
    cores = _cores(lambda: _process(process)[0])
    resident = _process(process)[1]
    node(f"systemctl stop cadvisor-{interval}")
    return cores, resident


def test_podtally_costs_under_a_fifteenth_of_cadvisor() -> None:
    """One tick a second against cAdvisor's housekeeping once a second; and against once in ten."""
    process, file = _collector()
    node("cat > /usr/local/bin/cadvisor && chmod 755 /usr/local/bin/cadvisor", stdin=(BIN / "cadvisor").read_bytes())
    kubelet = node("systemctl show -p MainPID --value kubelet").strip()
    ours = _cores(lambda: _usage_seconds(file))
    ticks = _metric("podtally_tick_cpu_seconds_total"), time.monotonic()
    kubelet_cores = _cores(lambda: _usage_seconds(SERVICES.format("kubelet")))
    ticking = (_metric("podtally_tick_cpu_seconds_total") - ticks[0]) / (time.monotonic() - ticks[1])
    share = _cadvisor_share_of_kubelet()
    every_second, every_second_bytes = _cadvisor("1s")
    every_ten, every_ten_bytes = _cadvisor("10s")
    cgroups = _metric("podtally_cgroups")
    mib = 1 << 20
    table(
        f"Cost of {cgroups:.0f} cgroups, over {SPAN_SECONDS} s each (emulated cores; the ratios count)",
        ["who", "cores", "times podtally's", "RSS MiB"],
        [
            ("podtally, whole program", ours, 1.0, _process(process)[1] / mib),
            ("podtally, its ticks alone", ticking, ticking / ours, ""),
            ("cAdvisor, housekeeping 1 s", every_second, every_second / ours, every_second_bytes / mib),
            ("cAdvisor, housekeeping 10 s", every_ten, every_ten / ours, every_ten_bytes / mib),
            ("kubelet, whole", kubelet_cores, kubelet_cores / ours, _process(kubelet)[1] / mib),
            ("kubelet, cAdvisor's share by its profile", kubelet_cores * share, kubelet_cores * share / ours, ""),
        ],
        file="cost.md",
    )
    assert ours < every_second, "a whole collector costs less than cAdvisor at the same rate"


def _metric(name: str) -> float:
    return float(re.search(rf"^{name} (\S+)$", of_collector("/metrics"), re.MULTILINE)[1])  # type: ignore[index]


def _cadvisor_share_of_kubelet() -> float:
    """The part of the kubelet's CPU that stacks with cAdvisor in them take, by the kubelet's own profile."""
    profile = RESULTS / "kubelet.pprof"
    client = ["--cert", str(PKI / "admin.crt"), "--key", str(PKI / "admin.key"), "--cacert", str(PKI / "ca.crt")]
    address = f"https://{NODE_ADDRESS}:10250/debug/pprof/profile?seconds=30"
    subprocess.run(inside(["curl", "-sSf", *client, "-o", str(profile), address]), check=True, timeout=90)
    shown = subprocess.run(
        ["go", "tool", "pprof", "-top", "-nodecount=1", "-focus=github.com/google/cadvisor", str(profile)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"accounting for [^,]+, ([0-9.]+)% of", shown)
    return float(found[1]) / 100 if found else 0.0


def test_a_scrape_of_ours_costs_less_than_one_of_the_kubelets() -> None:
    """The kubelet asks containerd for all containers at each scrape; the collector writes what it has."""
    _, file = _collector()
    files = [SERVICES.format("kubelet"), SERVICES.format("containerd")]

    def cost(ask: Callable[[], str], counters: list[str]) -> tuple[float, float]:
        idle = [_usage_seconds(name) for name in counters]
        at = time.monotonic()
        time.sleep(20)
        rate = sum(_usage_seconds(name) - before for name, before in zip(counters, idle, strict=True)) / (
            time.monotonic() - at
        )
        before, at, took = sum(map(_usage_seconds, counters)), time.monotonic(), 0.0
        for _ in range(QUESTIONS):
            began = time.monotonic()
            ask()
            took += time.monotonic() - began
            time.sleep(0.5)
        used = sum(map(_usage_seconds, counters)) - before - rate * (time.monotonic() - at)
        return took / QUESTIONS * 1000, max(0.0, used) / QUESTIONS * 1000

    theirs = cost(lambda: of_kubelet("/metrics/resource"), files)
    mine = cost(lambda: of_collector("/metrics/resource"), [file])
    table(
        f"One scrape of /metrics/resource, mean of {QUESTIONS} (CPU above idle)",
        ["who", "latency ms", "CPU ms"],
        [
            ("kubelet with containerd and its shims", *theirs),
            ("podtally (latency with kubectl's look-up of the pod)", *mine),
        ],
        file="cost.md",
    )
    assert mine[1] < theirs[1]
