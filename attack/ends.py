"""Signals at random moments, and archives that unpack to far more than they are: programs that are to end well."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

import zstandard

from attack.node import MIB, ROOT, Program, served, tree, wait_for
from attack.rows import Row
from tests.helpers import free_port

_ENDS_WITHIN_SECONDS: Final = 10.0
_STARTED_BY_SECONDS: Final = 3.0
"""Signals are sent up to then, counted from the start: while it imports, makes its first tick, and serves."""

# --- signals --------------------------------------------------------------------------------------------------------


def signals(seed: int, starts: int, deadline: float) -> Row:
    """SIGTERM, SIGINT and SIGHUP to programs that start, or serve while a client does not read."""
    random = Random(f"signals/{seed}")
    faults: Counter[str] = Counter()
    done = 0
    with tree(5) as of, tempfile.TemporaryDirectory(prefix="podtally-attack-") as folder:
        while done < starts and time.monotonic() < deadline:
            number = random.choice((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
            moment = random.random() * _STARTED_BY_SECONDS
            program = Program(
                *("serve", "--listen", f"127.0.0.1:{free_port()}", "--kubelet-url", "http://127.0.0.1:9"),
                *("--cgroup-root", str(of.cgroup_root), "--proc-root", str(of.proc_root)),
                log=Path(folder) / "log",
            )
            try:
                wait_for(lambda program=program: not program.alive, moment)  # type: ignore[misc]
                begun = time.monotonic()
                status = program.end(number, _ENDS_WITHIN_SECONDS)
                spent = time.monotonic() - begun
            finally:
                program.end(signal.SIGKILL)
            done += 1
            if spent >= _ENDS_WITHIN_SECONDS:
                faults[f"{number.name} did not end it within {_ENDS_WITHIN_SECONDS:.0f} s"] += 1
            if "Traceback" in program.logged():
                faults[f"a traceback upon {number.name}"] += 1
            if status not in (0, -number, 128 + number):
                faults[f"exit status {status} upon {number.name}"] += 1
    told = tuple(f"{times} x {what}" for what, times in sorted(faults.items()))
    return Row("signals at random moments", f"{done:,}", told)


def stopped(seconds: float) -> Row:
    """SIGSTOP for so long, then SIGCONT: it is alive at once, and no rate is absurd."""
    faults = []
    with tree(5) as of, served(of) as node:
        node.program.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            node.program.process.send_signal(signal.SIGCONT)
        if not wait_for(node.probe, 5):
            faults.append("not alive 5 s after SIGCONT")
        lines = node.get("/metrics")[1].decode().splitlines()
        rates = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("pod_cpu_usage_cores{")]
        if any(not 0 <= rate < 1000 for rate in rates):
            faults.append(f"a pod uses {max(rates)} cores")
    return Row("stopped and continued", f"{seconds:.0f} s", tuple(faults))


# --- archives -------------------------------------------------------------------------------------------------------

BOMB_BYTES: Final = 768 * MIB
"""What an archive may make of memory: more than any recording that was made takes."""
_LIMITED: Final = f'ulimit -v {3 << 20} && ulimit -t 60 && exec "$0" "$@"'
"""At the most 3 GiB and a minute of CPU, for the machine's sake."""
_GIB: Final = 1 << 30


def _large_member(kind: bytes, size_bytes: int, filling: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo("frames/0000/sys/fs/cgroup/x")
    info.type, info.size = kind, size_bytes
    yield info.tobuf(tarfile.GNU_FORMAT)
    for _ in range(size_bytes // MIB):
        yield filling * MIB
    yield bytes(1024)


def _many_members(number: int) -> Iterator[bytes]:
    for place in range(number):
        yield tarfile.TarInfo(f"frames/0000/sys/fs/cgroup/kubepods/pod{place:07}/cpu.stat").tobuf(tarfile.USTAR_FORMAT)
    yield bytes(1024)


_BOMBS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "a member of 2 GiB": lambda: _large_member(tarfile.REGTYPE, 2 * _GIB, b"\0"),
    "a pax header of 1 GiB": lambda: _large_member(tarfile.XHDTYPE, _GIB, b"1"),
    "a long name of 1 GiB": lambda: _large_member(tarfile.GNUTYPE_LONGNAME, _GIB, b"a"),
    "300,000 empty members": lambda: _many_members(300_000),
}


def bombs(deadline: float) -> list[Row]:
    """Archives of some 100 KB, each read by a program of its own."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="podtally-attack-") as folder:
        for name, parts in _BOMBS.items():
            if time.monotonic() > deadline:
                rows.append(Row(f"recording with {name}", "0", ("not begun: the time was over",)))
                continue
            path = Path(folder) / "bomb.tar.zst"
            with path.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as packed:
                for part in parts():
                    packed.write(part)
            rows.append(_bomb(name, path))
    return rows


def _bomb(name: str, path: Path) -> Row:
    program = subprocess.Popen(
        ["sh", "-c", _LIMITED, sys.executable, "-m", "collector", "replay", str(path), "--once"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert program.stderr is not None
    logged = io.TextIOWrapper(program.stderr, errors="replace").read()
    _, wait_status, used = os.wait4(program.pid, 0)
    program.returncode = status = os.waitstatus_to_exitcode(wait_status)
    peak_bytes = used.ru_maxrss << 10
    faults = []
    if peak_bytes > BOMB_BYTES:
        faults.append(f"the peak is above {BOMB_BYTES // MIB} MiB")
    if "Traceback" in logged:
        faults.append(f"a traceback: {logged.strip().splitlines()[-1][:80]}")
    elif status != 2:
        faults.append(f"exit status {status}, 2 is a refusal's")
    size = f"{path.stat().st_size / 1000:,.0f} KB"
    return Row(f"recording with {name}", size, tuple(faults), peak_bytes=peak_bytes)
