"""An attack on the program while it serves, from its start to the verdict: what it held before, at its peak and after."""

from __future__ import annotations

import http.client
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attack.node import MIB, NotUp, Served, Watch, limit_bytes, served, tree, wait_for
from attack.rows import Row
from attack.under import Attack, Setting, Told, Under

GROWTH_BYTES: Final = 8 * MIB
"""How much more it may hold after an attack than before."""

_SETTLES_WITHIN_SECONDS: Final = 20.0
"""What the program may let go of late, as of connections that it closes by a timer."""

_LEAST_SECONDS: Final = 6.0
"""Of an attack, however short the campaign."""

_PAGES: Final = ("/metrics", "/metrics/resource", "/metrics/cadvisor", "/api/v1/pods", "/", "/readyz")
_WARM_ROUNDS: Final = 6
_MISSED: Final = 'podtally_ticks_total{result="missed"}'


def run(attack: Attack, share: float, deadline: float) -> Row:
    """Run ``share`` of an attack, until its time or the ``deadline`` (monotonic) is over; the row."""
    if time.monotonic() > deadline:
        return Row(attack.name, "0", ("not begun: the time was over",))
    try:
        return _run(attack, share, deadline)
    except (OSError, http.client.HTTPException, NotUp) as error:
        return Row(attack.name, "0", (f"not begun: {' '.join(str(error).split())[:300]}",))


def _run(attack: Attack, share: float, deadline: float) -> Row:
    count = max(1, round(attack.count * share))
    lasts = math.inf if attack.beside else max(_LEAST_SECONDS, attack.seconds * share)
    with tempfile.TemporaryDirectory(prefix="podtally-attack-") as folder, tree(attack.pods) as of:
        setting = attack.setting(Path(folder)) if attack.setting is not None else Setting()
        with served(
            of, *setting.arguments, tls=setting.tls, headers=setting.headers, most_files=setting.most_files
        ) as node:
            _warm(node)
            before_bytes, missed = node.program.rss_bytes(), node.value(_MISSED)
            with Watch(node) as watch:
                under = Under(node, watch, of, count, min(deadline, time.monotonic() + lasts))
                told = _act(attack, under)
                settles_within = 1.0 if watch.runs_away else _SETTLES_WITHIN_SECONDS
                wait_for(lambda: node.program.rss_bytes() <= before_bytes + GROWTH_BYTES, settles_within)
                after_bytes = node.program.rss_bytes()
            peak_bytes = max(watch.peak_bytes, node.program.peak_bytes())
            missed_ticks = _missed_since(node, missed)
            faults = list(told.faults)
            if attack.count and told.done < count:
                faults.append(f"ended after {told.done}, of {count}")
            faults += verdicts(before_bytes, peak_bytes, after_bytes if attack.settles else None, limit_bytes())
            faults += ended_well(node)
            if watch.answered < watch.asked:
                faults.append(f"{watch.asked - watch.answered} probes were not answered")
    return Row(
        attack=attack.name,
        done=f"{told.done:,}",
        faults=tuple(faults),
        before_bytes=before_bytes,
        peak_bytes=peak_bytes,
        after_bytes=after_bytes,
        probes=(watch.answered, watch.asked),
        missed_ticks=missed_ticks,
        note=told.note,
    )


def _act(attack: Attack, under: Under) -> Told:
    """What it did; what the program does not let it do is a fault of the program's."""
    try:
        return attack.act(under)
    except (OSError, http.client.HTTPException) as error:
        return Told(faults=[f"{type(error).__name__}: {error}"])


def _warm(node: Served) -> None:
    """All that is made at first use is there: pages, with and without gzip, and the files of ``/metrics/cadvisor``."""
    wait_for(node.ready, 30)
    for _ in range(_WARM_ROUNDS):
        for page in _PAGES:
            node.get(page)
            node.get(page, Accept_Encoding="gzip")
        time.sleep(0.2)


def _missed_since(node: Served, missed: float) -> int | None:
    try:
        return round(node.value(_MISSED) - missed)
    except (OSError, http.client.HTTPException):
        return None


def verdicts(before_bytes: int, peak_bytes: int, after_bytes: int | None, most_bytes: int) -> Sequence[str]:
    """What is wrong with these sizes; ``after_bytes`` is ``None`` where it does not matter."""
    faults = []
    if peak_bytes > most_bytes:
        faults.append(f"the peak is above the manifest's {most_bytes // MIB} MiB")
    if after_bytes is not None and after_bytes > before_bytes + GROWTH_BYTES:
        faults.append(f"it holds {(after_bytes - before_bytes) / MIB:.0f} MiB more than before")
    return faults


def ended_well(node: Served) -> list[str]:
    """What is wrong with the program's end, and with what it has logged."""
    if not node.program.alive:
        return [f"it has died: exit status {node.program.process.returncode}"]
    status = node.program.end()
    logged = node.program.logged()
    faults = [f"exit status {status} upon SIGTERM"] if status else []
    faults += [f"{logged.count('Traceback')} tracebacks in the log"] if "Traceback" in logged else []
    return faults
