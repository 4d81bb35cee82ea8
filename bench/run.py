"""``make bench``: what a tick and a scrape cost, beside a plain C loop over the same files and beside a naive reader.

Machines differ and are noisy: read the ratios, which are taken within one run. Each size runs in a process of its own,
so that its memory is its own. The table goes to stdout and to ``docs/bench.md``.

    python -m bench.run [--pods 30,110,250,500,1000] [--no-write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector as Registered

from bench.naive import naive_read
from bench.tree import Tree, advance, make_tree
from collector.cgroup.files import FAST, slow_names
from collector.cgroup.walk import Walker
from collector.demand import Demand
from collector.garbage import spare_collections
from collector.history import History
from collector.loop import Collector, LivePace, Loop
from collector.metrics.catalogue import ALL_GROUPS, DEFAULT_GROUPS
from collector.metrics.native import NativeExposition, Selection, needs
from collector.model import Answer, Tally
from collector.pods.naming import KUBELET
from collector.seams import Directory
from collector.server.app import Server
from collector.sources.live import LiveTree

ROOT = Path(__file__).resolve().parent.parent
TICKS = 40
SCRAPES = 20
TURNS = 5
PAUSES = 10
SLOW_EVERY = 5
PROGRAM_SECONDS = 15
AIMED_AT = 110
"""Pods of the node that the aims are for."""
DEPLOYED = {"MALLOC_MMAP_THRESHOLD_": "65536", "SSL_CERT_FILE": os.devnull}
"""The environment that the image and the DaemonSet give it, which here has no cluster's CA."""
PROMETHEUS_ACCEPT = "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
CGROUP2_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


# --- the yardsticks -------------------------------------------------------------------------------------------------


def compile_c(folder: Path) -> Path | None:
    """The C reader, compiled; ``None`` without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    program = folder / "cread"
    subprocess.run([compiler, "-O2", "-o", str(program), str(ROOT / "bench" / "cread.c")], check=True)
    return program


def c_read(program: Path, paths: list[str], rounds: int, pause_seconds: int = 0) -> float:
    """CPU ns a file of the C reader."""
    command = [str(program), str(rounds), str(pause_seconds)]
    result = subprocess.run(command, input="\n".join(paths) + "\n", capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout)["cpu_ns_per_file"])


def our_read(root: Path, paths: list[str], rounds: int) -> float:
    """CPU ns a file of podtally's reading through held descriptors, nothing parsed."""
    tree = LiveTree(str(root))
    reads: list[tuple[Directory, tuple[str, ...]]] = []
    for folder, group in groupby(paths, key=os.path.dirname):
        names = tuple(os.path.basename(path) for path in group)
        reads.append((tree.open(os.path.relpath(folder, root)), names))
    for directory, names in reads:
        directory.read_all(names, often=True)
    begun = time.process_time_ns()
    for _ in range(rounds):
        for directory, names in reads:
            directory.read_all(names, often=True)
    spent = time.process_time_ns() - begun
    for directory, _names in reads:
        directory.close()
    return spent / (rounds * len(paths))


def compare_reads(root: Path, paths: list[str], rounds: int, program: Path | None) -> dict[str, float | None]:
    """The three ways of reading, by turns and the best of each: a noisy machine is noisy for all of them."""
    ours = [our_read(root, paths, rounds)]
    plain = [c_read(program, paths, rounds)] if program is not None else []
    for _ in range(TURNS - 1):
        ours.append(our_read(root, paths, rounds))
        if program is not None:
            plain.append(c_read(program, paths, rounds))
    naive = naive_read(paths, max(1, rounds // 10))["cpu_ns_per_file"]
    return {"read_ns": min(ours), "c_ns": min(plain, default=None), "naive_ns": naive}


@contextmanager
def at_work() -> Iterator[None]:
    """Keep the processors awake by work that gives way to all other: pods that use CPU do not let them sleep, and here
    it is a script that makes the counters grow.
    """
    spinning = [
        subprocess.Popen([sys.executable, "-c", "import os; os.nice(19)\nwhile True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def cost_of_waking(paths: list[str], program: Path) -> float:
    """How many times as much the C reader's files cost it if it reads them once a second, on an idle machine."""
    in_a_row = min(c_read(program, paths, max(5, 60_000 // len(paths))) for _ in range(TURNS))
    return c_read(program, paths, PAUSES, 1) / in_a_row


# --- one size -------------------------------------------------------------------------------------------------------


class _Answers:
    def __init__(self, body: bytes) -> None:
        self._answers = [Answer(KUBELET, time.time_ns(), 200, None, body)]

    def take(self) -> list[Answer]:
        taken, self._answers = self._answers, []
        return taken

    def ask(self) -> None:
        return


def tick_files(root: Path) -> list[str]:
    """The files that an average tick reads: the fast three of each cgroup, and the slow ones of every fifth."""
    fast = {file.name for file in FAST}
    slow = {*slow_names(needs(DEFAULT_GROUPS).pods)} - fast
    paths: list[str] = []
    folders = sorted(path for path in (root / "kubepods.slice").rglob("*") if path.is_dir())
    for number, folder in enumerate(folder for folder in folders if "-pod" in folder.name or folder.suffix == ".scope"):
        names = sorted(fast | slow) if number % SLOW_EVERY == 0 else sorted(fast)
        paths += [str(folder / name) for name in names if (folder / name).exists()]
    return paths


def measure_groups(tree: Tree, groups: frozenset[str]) -> dict[str, Any]:
    """What ticks and scrapes cost with these groups of families, and the last tally."""
    live, demand = LiveTree(str(tree.cgroup_root), str(tree.proc_root)), Demand()
    collector = Collector(
        walker=Walker(live, slow_every=SLOW_EVERY, needs=needs(groups), seldom_wanted=demand.at),
        answers=_Answers(tree.pods_json),
        history=History(window_ns=15_000_000_000, interval_ns=1_000_000_000),
        node_name="bench",
    )
    loop = Loop(collector, LivePace(1.0))
    server = Server(loop, Selection(groups=groups))
    loop.first_tick()
    spare_collections()
    ticks = _ticks(tree, loop)
    demand.ask()
    loop.tick()
    asked = _ticks(tree, loop)
    scrapes: list[float] = []
    dropins: list[float] = []
    text = dropin = ""
    for _ in range(SCRAPES):
        loop.tick()
        begun = time.process_time()
        text = server.metrics_text(openmetrics=False)
        scrapes.append((time.process_time() - begun) * 1e3)
        begun = time.process_time()
        dropin = server.cadvisor_text(openmetrics=False)
        dropins.append((time.process_time() - begun) * 1e3)
    published = loop.published
    assert published is not None
    held = live.held
    collector.close()
    return {
        "cgroups": collector.account.cgroups,
        **ticks,
        **{f"asked_{name}": value for name, value in asked.items()},
        "scrape_ms": statistics.median(scrapes),
        "scrape_bytes": len(text.encode()),
        "series": sum(not line.startswith("#") for line in text.splitlines()),
        "cadvisor_ms": statistics.median(dropins),
        "cadvisor_bytes": len(dropin.encode()),
        "cadvisor_series": sum(not line.startswith("#") for line in dropin.splitlines()),
        "held": held,
        "descriptor_limit": live.descriptor_limit,
        "tally": published.tally,
    }


def _ticks(tree: Tree, loop: Loop) -> dict[str, float]:
    """What ticks in a row cost, and how many files each reads."""
    walls: list[float] = []
    cpus: list[float] = []
    account = loop.collector.account
    files = account.files_read
    for _ in range(TICKS):
        advance(tree)
        wall, cpu = time.perf_counter(), time.process_time()
        loop.tick()
        cpus.append((time.process_time() - cpu) * 1e3)
        walls.append((time.perf_counter() - wall) * 1e3)
    return {
        "files": (account.files_read - files) // TICKS,
        "tick_wall_ms": statistics.median(walls),
        "tick_cpu_ms": statistics.median(cpus),
    }


def measure(pods: int, program: Path | None) -> dict[str, Any]:
    """All numbers of one size."""
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=place, prefix="podtally-bench-") as folder:
        tree = make_tree(Path(folder), pods)
        usual = measure_groups(tree, DEFAULT_GROUPS)
        tally = usual.pop("tally")
        assert len(tally.pods) == pods
        row = usual | {"pods": pods, "generate_latest_ms": generate_latest_ms(tally)}
        if pods == AIMED_AT:
            row["all"] = measure_groups(tree, ALL_GROUPS)
            del row["all"]["tally"]
        paths = tick_files(tree.cgroup_root)
        rounds = max(5, 60_000 // len(paths))
        if pods == AIMED_AT and program is not None:
            row["waking"] = cost_of_waking(paths, program)
        return row | compare_reads(tree.cgroup_root, paths, rounds, program)


# --- the program itself ---------------------------------------------------------------------------------------------


@contextmanager
def kubelet(body: bytes) -> Iterator[str]:
    """A stand-in for the kubelet's ``/pods``, over plain HTTP: its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure_program(pods: int, collect: str, *, cadvisor: bool) -> dict[str, float]:
    """CPU share and RSS of ``podtally serve`` at one tick a second, scraped every 5 s with gzip as Prometheus does;
    ``/metrics/cadvisor`` too, every 15 s.
    """
    place = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    port = free_port()
    with tempfile.TemporaryDirectory(dir=place, prefix="podtally-bench-") as folder:
        tree = make_tree(Path(folder), pods)
        with kubelet(tree.pods_json) as url:
            command = [
                sys.executable,
                "-m",
                "collector",
                "serve",
                "--listen",
                f"127.0.0.1:{port}",
                "--kubelet-url",
                url,
            ]
            command += ["--cgroup-root", str(tree.cgroup_root), "--proc-root", str(tree.proc_root)]
            command += ["--log-level", "error", "--collect", collect]
            program = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **DEPLOYED})
            try:
                watched = psutil.Process(program.pid)
                _steps(tree, port, 5, cadvisor=cadvisor)
                before, begun = watched.cpu_times(), time.monotonic()
                scrapes = _steps(tree, port, PROGRAM_SECONDS, cadvisor=cadvisor)
                after, ended = watched.cpu_times(), time.monotonic()
                spent = after.user + after.system - before.user - before.system
                return {
                    "core_percent": 100 * spent / (ended - begun),
                    "program_rss_mib": watched.memory_info().rss / (1 << 20),
                    "scrape_wall_ms": statistics.median(scrapes),
                }
            finally:
                program.terminate()
                program.wait(10)


def measure_both(pods: int, collect: str, *, cadvisor: bool = False) -> dict[str, float]:
    """The same on an idle machine, and its CPU share on one that is at work."""
    idle = measure_program(pods, collect, cadvisor=cadvisor)
    with at_work():
        work = measure_program(pods, collect, cadvisor=cadvisor)
    return {**idle, "work_percent": work["core_percent"]}


def _steps(tree: Tree, port: int, seconds: int, *, cadvisor: bool) -> list[float]:
    """Let the tree live for so many seconds; how long each scrape took, in ms."""
    scrapes: list[float] = []
    for second in range(seconds):
        advance(tree)
        time.sleep(1)
        if second % 5 == 4:
            scrapes.append(_scrape(f"http://127.0.0.1:{port}/metrics"))
        if cadvisor and second % 15 == 4:
            _scrape(f"http://127.0.0.1:{port}/metrics/cadvisor")
    return scrapes


def _scrape(url: str) -> float:
    """How long an exposition takes, in ms."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip", "Accept": PROMETHEUS_ACCEPT})
    begun = time.perf_counter()
    with urllib.request.urlopen(request, timeout=10) as response:
        response.read()
    return (time.perf_counter() - begun) * 1e3


class _Families(Registered):
    """The same families as prometheus_client's objects."""

    def __init__(self, tally: Tally) -> None:
        self._families: list[Metric] = []
        for metric, lines in NativeExposition(Selection()).families(tally):
            make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            family = make(metric.name.removesuffix("_total"), metric.help, labels=metric.labels)
            for line in lines:
                series, _, value = line.rpartition(" ")
                labels = dict(pair.split("=", 1) for pair in series.partition("{")[2].rstrip("}").split(","))
                family.add_metric([labels[name].strip('"') for name in metric.labels], float(value))
            self._families.append(family)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def generate_latest_ms(tally: Tally) -> float:
    """What prometheus_client takes to write the same series."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(tally))
    spent: list[float] = []
    for _ in range(5):
        begun = time.process_time()
        generate_latest(registry)
        spent.append((time.process_time() - begun) * 1e3)
    return statistics.median(spent)


# --- real kernel files ----------------------------------------------------------------------------------------------


@contextmanager
def real_cgroups(count: int) -> Iterator[list[str]]:
    """Files of real, empty cgroups, where this machine lets us make some; none elsewhere."""
    mount = next((path for path in CGROUP2_MOUNTS if (path / "cgroup.controllers").exists()), None)
    made: list[Path] = []
    try:
        if mount is not None and os.access(mount, os.W_OK):
            top = mount / f"podtally-bench-{os.getpid()}"
            top.mkdir()
            made.append(top)
            for number in range(count):
                (top / f"{number}").mkdir()
                made.append(top / f"{number}")
        names = ("cpu.stat", "cpu.pressure", "memory.pressure", "io.pressure")
        yield [str(path / name) for path in made[1:] for name in names if (path / name).exists()]
    finally:
        for path in reversed(made):
            path.rmdir()


def measure_real(program: Path | None) -> dict[str, Any] | None:
    """Reading real kernfs files, the three ways; ``None`` where that cannot be done."""
    if program is None:
        return None
    with real_cgroups(200) as paths:
        if not paths:
            return None
        root = Path(paths[0]).parent.parent
        return {"files": len(paths), **compare_reads(root, paths, 60, program)}


# --- the page -------------------------------------------------------------------------------------------------------


def machine() -> str:
    """One line on what this was run on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def page(rows: list[dict[str, Any]], real: dict[str, Any] | None) -> str:
    """``docs/bench.md``."""
    lines = [
        "# What it costs",
        "",
        "Written by `make bench`. Times are CPU times on this machine:",
        f"{machine()}.",
        "Another machine gives other times; compare the ratios, which are taken within one run. Interpreters differ too: one",
        "that is built without profile-guided optimisation, as pyenv's are unless told otherwise, takes a third more.",
        "The image's is built with it, and so is Debian's: `make bench VENV=.venv-bench PYTHON=/usr/bin/python3`.",
        "",
        "Synthetic trees of plain files on a tmpfs, two containers and a sandbox a pod; every container's and pod's CPU",
        "counter and memory change from tick to tick. *core*: CPU of a tick a second as a share of one core. *x C*: time a",
        "file beside a C loop of `pread` over the same files, opened once, nothing parsed.",
        "",
        *aims(rows, real),
        "## A tick",
        "",
        "| pods | cgroups | files read | tick, ms CPU | ms wall | core | us a pod | us a file, tick | us a file, read alone |"
        " C, us | read, x C | naive `open().read()`, us | naive, x C | held descriptors |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        c = row["c_ns"]
        lines.append(
            f"| {row['pods']} | {row['cgroups']} | {row['files']} | {row['tick_cpu_ms']:.2f} | {row['tick_wall_ms']:.2f}"
            f" | {row['tick_cpu_ms'] / 10:.2f}% | {row['tick_cpu_ms'] * 1e3 / row['pods']:.0f}"
            f" | {row['tick_cpu_ms'] * 1e3 / row['files']:.2f} | {row['read_ns'] / 1e3:.2f}"
            f" | {_us(c)} | {_ratio(row['read_ns'], c)} | {row['naive_ns'] / 1e3:.2f} | {_ratio(row['naive_ns'], c)}"
            f" | {row['held']} of {row['descriptor_limit']} |"
        )
    lines += [
        "",
        "## A scrape",
        "",
        "| pods | series | bytes | ms CPU to write | `generate_latest`, ms | of `/metrics/cadvisor`: series | bytes | ms CPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['pods']} | {row['series']} | {row['scrape_bytes']} | {row['scrape_ms']:.2f}"
        f" | {row['generate_latest_ms']:.1f}"
        f" | {row['cadvisor_series']} | {row['cadvisor_bytes']} | {row['cadvisor_ms']:.2f} |"
        for row in rows
    ]
    lines += [
        "",
        "## The program",
        "",
        f"`podtally serve` as a process of its own over {PROGRAM_SECONDS} s: a tick a second, asked by HTTP with gzip every 5 s.",
        *waking(rows),
        "",
        "| pods | of one core, machine at work | machine idle | RSS, MiB | scrape over HTTP, ms |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['pods']} | {row['work_percent']:.2f}% | {row['core_percent']:.2f}% | {row['program_rss_mib']:.1f}"
        f" | {row['scrape_wall_ms']:.1f} |"
        for row in rows
    ]
    lines.append("")
    lines += by_groups(rows)
    if real is not None:
        lines += [
            "## Real kernel files",
            "",
            f"{real['files']:.0f} files of real cgroups (`cpu.stat` and the pressure files), where the kernel makes the text"
            " on each read.",
            "",
            "| | us a file | x C |",
            "|---|---|---|",
            f"| C, held descriptor and pread | {_us(real['c_ns'])} | 1.00 |",
            f"| podtally, read alone | {_us(real['read_ns'])} | {_ratio(real['read_ns'], real['c_ns'])} |",
            f"| Python `open().read()` | {_us(real['naive_ns'])} | {_ratio(real['naive_ns'], real['c_ns'])} |",
            "",
        ]
    return "\n".join(lines)


def waking(rows: list[dict[str, Any]]) -> list[str]:
    """Why two figures are given."""
    factor = next((row["waking"] for row in rows if "waking" in row), None)
    told = f": the C loop costs {factor:.2f} x as much once a second as in a row" if factor is not None else ""
    return [
        f"A processor that sleeps from tick to tick is slower when it wakes up{told}.",
        "Pods that use CPU, as all do here, keep it awake; on this machine, where a script makes the counters grow, work that",
        "gives way to all other does.",
    ]


def by_groups(rows: list[dict[str, Any]]) -> list[str]:
    """What the groups that are off by default cost."""
    row = next((row for row in rows if "all" in row), None)
    if row is None:
        return []
    lines = [
        "## With all groups",
        "",
        f"`--collect all` beside the default, at {AIMED_AT} pods; and with `/metrics/cadvisor` asked for every 15 s too,",
        "whose files are read only then.",
        "",
        "| `--collect` | scraped | files read | tick, ms CPU | series | bytes | ms CPU to write | held descriptors |"
        " the program, of one core, machine at work | machine idle | RSS, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in (("default", row), ("all", row["all"])):
        lines += [
            f"| {name} | {scraped} | {one[asked + 'files']} | {one[asked + 'tick_cpu_ms']:.2f} | {one['series']}"
            f" | {one['scrape_bytes']} | {one['scrape_ms']:.2f} | {one['held']}"
            f" | {one[asked + 'work_percent']:.2f}% | {one[asked + 'core_percent']:.2f}%"
            f" | {one[asked + 'program_rss_mib']:.1f} |"
            for scraped, asked in (("`/metrics`", ""), ("and `/metrics/cadvisor`", "asked_"))
        ]
    return [*lines, ""]


def aims(rows: list[dict[str, Any]], real: dict[str, Any] | None) -> list[str]:
    """What was aimed at for a node with 110 pods, and what this run gave: a miss is told."""
    row = next((row for row in rows if row["pods"] == AIMED_AT), None)
    if row is None:
        return []
    found: list[tuple[str, str, bool]] = [
        ("a tick a second under 1% of a core", f"{row['tick_cpu_ms'] / 10:.2f}%", row["tick_cpu_ms"] < 10),
        *_of_program("the program under 1% of a core, scraped every 5 s", row, 1),
        *_of_program("the same with all groups on under 2% of a core", row["all"], 2),
        ("RSS under 48 MiB", f"{row['program_rss_mib']:.1f} MiB", row["program_rss_mib"] < 48),
        ("5,000 series written in far less than 20 ms", f"{row['scrape_ms']:.1f} ms", row["scrape_ms"] < 10),
    ]
    if real is not None:
        ratio = real["read_ns"] / real["c_ns"]
        found.append(("reading within 1.5 x the C loop, kernel files", f"{ratio:.2f} x", ratio <= 1.5))
    if row["c_ns"]:
        ratio = row["read_ns"] / row["c_ns"]
        found.append(("reading within 1.5 x the C loop, plain files", f"{ratio:.2f} x", ratio <= 1.5))
    largest = rows[-1]
    growth = (largest["tick_cpu_ms"] / largest["pods"]) / (row["tick_cpu_ms"] / row["pods"])
    told = f"a pod costs {growth:.2f} x as much at {largest['pods']} pods"
    if largest is not row:
        found.append(("linear in pods", told, growth <= 1.25))
    lines = ["## Against the aims, at 110 pods", "", "| aim | this run | |", "|---|---|---|"]
    lines += [f"| {aim} | {value} | {'met' if met else '**missed**'} |" for aim, value, met in found]
    return [*lines, ""]


def _of_program(aim: str, one: dict[str, Any], percent: float) -> list[tuple[str, str, bool]]:
    return [
        (f"{aim}, machine {where}", f"{one[key]:.2f}%", one[key] < percent)
        for where, key in (("at work", "work_percent"), ("idle", "core_percent"))
    ]


def _us(ns: float | None) -> str:
    return "-" if ns is None else f"{ns / 1e3:.2f}"


def _ratio(ns: float, base: float | None) -> str:
    return "-" if not base else f"{ns / base:.2f}"


def main() -> int:
    """Run all sizes, print the page, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pods", default="30,110,250,500,1000", help="sizes, comma-separated")
    parser.add_argument("--no-write", action="store_true", help="print only, leave docs/bench.md alone")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--program", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        row = measure(arguments.measure, arguments.program) | measure_both(arguments.measure, "default")
        if "all" in row:
            row["all"] |= measure_both(arguments.measure, "all")
            for collect, one in (("default", row), ("all", row["all"])):
                asked = measure_both(arguments.measure, collect, cadvisor=True)
                one |= {f"asked_{name}": value for name, value in asked.items()}
        print(json.dumps(row))
        return 0
    with tempfile.TemporaryDirectory(prefix="podtally-bench-") as folder:
        program = compile_c(Path(folder))
        if program is None:
            print("no C compiler (cc) found: the table has no C column", file=sys.stderr)
        rows: list[dict[str, Any]] = []
        for pods in arguments.pods.split(","):
            print(f"{pods} pods ...", file=sys.stderr)
            command = [sys.executable, "-m", "bench.run", "--measure", pods]
            command += ["--program", str(program)] if program is not None else []
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
        text = page(rows, measure_real(program))
    print(text)
    if not arguments.no_write:
        (ROOT / "docs" / "bench.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
