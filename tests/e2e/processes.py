"""Programs on the host: started in the cluster's network namespace, remembered by id and start time, ended by them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.e2e import pace
from tests.e2e.layout import HOST_ADDRESS, LOGS, NAMESPACE, NODE_ADDRESS, POD_NETWORK, RUN, TAP


class E2EError(Exception):
    """What a person has to know and do; the command prints it as one sentence and ends."""


def need(*tools: str, package_hint: str) -> None:
    """Refuse, naming them, if programs are missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise E2EError(f"make e2e needs {', '.join(missing)}: {package_hint}")


def wait_for(what: str, condition: Callable[[], object], seconds: float, every: float = 0.5) -> None:
    """Wait until the condition holds, on a slow node for longer. Raises: E2EError naming what has not happened."""
    seconds = pace.current().seconds(seconds)
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise E2EError(f"{what}: not within {seconds:.0f} s; the logs are in {LOGS}")
        time.sleep(every)


def inside(arguments: Sequence[str]) -> list[str]:
    """The same command in the cluster's network namespace."""
    return ["ip", "netns", "exec", NAMESPACE, *arguments]


def _start_ticks(pid: int) -> str | None:
    """When the process started, in clock ticks since boot: a pid that was given again has another."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


_CHILDREN: dict[str, subprocess.Popen[bytes]] = {}
"""What this very process started; the rest is known by its id and start time alone."""


def start(name: str, arguments: Sequence[str], *, cwd: Path | None = None) -> None:
    """Start a program, unless the one of that name still runs. Its output goes to logs/NAME.log."""
    if running(name):
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    (RUN / "pids").mkdir(parents=True, exist_ok=True)
    with open(LOGS / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            inside(arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=cwd
        )
    with suppress(OSError):
        # Linux shares a processor between sessions first, whatever their processes' niceness: without this, each test
        # run beside it would take as much as the whole emulated node, whose kubelet then misses its deadlines.
        Path(f"/proc/{process.pid}/autogroup").write_text("-10")
    _CHILDREN[name] = process
    ticks = _start_ticks(process.pid)
    (RUN / "pids" / name).write_text(f"{process.pid} {ticks}\n")


def pid(name: str) -> int | None:
    """The process of that name, if it is the one that was started."""
    try:
        number, ticks = (RUN / "pids" / name).read_text().split()
    except FileNotFoundError:
        return None
    if name in _CHILDREN:
        _CHILDREN[name].poll()  # a zombie of our own is over
    return int(number) if _start_ticks(int(number)) == ticks else None


def running(name: str) -> bool:
    """Whether the process of that name runs."""
    return pid(name) is not None


def stop(name: str, *, seconds: float = 20) -> None:
    """End it: asked first, made to after a while."""
    number = pid(name)
    if number is not None:
        os.kill(number, signal.SIGTERM)
        end = time.monotonic() + seconds
        while running(name) and time.monotonic() < end:
            time.sleep(0.1)
        if running(name):
            os.kill(number, signal.SIGKILL)
            wait_for(f"the end of {name}", lambda: not running(name), 10)
    (RUN / "pids" / name).unlink(missing_ok=True)


def started() -> list[str]:
    """The names of all that was started, newest last."""
    folder = RUN / "pids"
    return (
        []
        if not folder.is_dir()
        else sorted((p.name for p in folder.iterdir()), key=lambda n: (folder / n).stat().st_mtime)
    )


def _network_is_up() -> bool:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    return NAMESPACE in listed.stdout.split()


def network_up() -> None:
    """Make the namespace with the node's tap device; nothing if it is there."""
    if _network_is_up():
        return
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    for command in (
        "ip link set lo up",
        f"ip tuntap add {TAP} mode tap",
        f"ip address add {HOST_ADDRESS}/24 dev {TAP}",
        f"ip link set {TAP} up",
        f"ip route add {POD_NETWORK} via {NODE_ADDRESS}",
    ):
        subprocess.run(inside(command.split()), check=True)


def network_down() -> None:
    """Take the namespace away."""
    if _network_is_up():
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=True)
