"""``make attack``: all attacks, bounded in time; a table to stdout and to ``docs/attack.md``; exit 1 if one succeeded.

    python -m attack.run [--seconds 900] [--seed 1] [--only NAME] [--no-write]

A shorter campaign than of 900 s does its share of each attack, and writes nothing.

``--only`` runs what has the words in its name; with ``--block`` one block of a fuzzer's inputs, as an escape names it.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attack import churn, ends, fuzz, requests, served
from attack.attacks import ATTACKS
from attack.fuzz import Done, Target
from attack.inputs import ANSWERS, LOAD_TESTS, WEB_CONFIGURATIONS
from attack.kernel import KERNEL_FILES
from attack.node import MIB, limit_bytes
from attack.recordings import RECORDINGS
from attack.rows import Row, table
from attack.under import Attack
from bench.run import machine

ROOT: Final = Path(__file__).resolve().parent.parent
WHOLE_SECONDS: Final = 900.0
"""Of a whole campaign, for which the numbers are; a shorter one does its share of each."""
LEAST_INPUTS: Final = 10_000_000
TICKS: Final = 1_000_000
_STARTS: Final = 40
_LEAST_STARTS: Final = 6
_STOPPED_SECONDS: Final = 40.0
_LAST_SECONDS: Final = 20.0
"""For what is under way when the time is over."""
_TICKS_SHARE: Final = 0.65
"""Of the time, at the most, what the ticks in a row have; the fuzzers have what they leave."""

TARGETS: Final = (KERNEL_FILES, ANSWERS, RECORDINGS, WEB_CONFIGURATIONS, LOAD_TESTS)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Campaign:
    """What is run, for how long, and what came of it."""

    def __init__(self, seconds: float, seed: int, only: str) -> None:
        self.begun = time.monotonic()
        self.seconds = seconds
        self.share = min(1.0, seconds / WHOLE_SECONDS)
        self.seed = seed
        self.only = only
        self.workers = os.cpu_count() or 1
        self.rows: list[Row] = []
        self.done: dict[str, Done] = {}
        self.inputs: list[Row] = []
        self.escapes: list[str] = []

    def wanted(self, name: str) -> bool:
        """Whether it is run."""
        return self.only.lower() in name.lower()

    def until(self, share: float) -> float:
        """The moment at which so much of the time is over."""
        return self.begun + share * self.seconds

    def add(self, make: Callable[[], Row | Sequence[Row]]) -> None:
        """A row, told as soon as it is there."""
        made = make()
        for row in [made] if isinstance(made, Row) else made:
            self.rows.append(row)
            _say(" | ".join(cell for cell in row.cells() if cell not in ("", "-")))

    def run(self) -> None:
        """All of it: attacks one after the other, and beside them, at the least of priorities, what computes all the time,
        and what takes long.
        """
        end = self.until(1.0) - _LAST_SECONDS
        with ThreadPoolExecutor() as beside:
            going = [beside.submit(self._attack, attack, end) for attack in ATTACKS if attack.beside]
            going.append(beside.submit(self._compute, end))
            for attack in ATTACKS:
                if not attack.beside:
                    self._attack(attack, end)
            if self.wanted("signals"):
                self.add(lambda: ends.signals(self.seed, max(_LEAST_STARTS, round(_STARTS * self.share)), end))
            if self.wanted("stopped"):
                self.add(lambda: ends.stopped(max(3.0, _STOPPED_SECONDS * self.share)))
            if self.wanted("recording with"):
                self.add(lambda: ends.bombs(end))
            if self.wanted(requests.NAME):
                inputs = max(1000, round(requests.INPUTS * self.share))
                self.done[requests.NAME] = requests.run(self.seed, inputs, end)
            for each in going:
                each.result()
        order = [attack.name for attack in ATTACKS]
        self.rows.sort(key=lambda row: order.index(row.attack) if row.attack in order else len(order))
        self._tell_inputs()

    def _attack(self, attack: Attack, deadline: float) -> None:
        if self.wanted(attack.name):
            self.add(lambda: served.run(attack, self.share, deadline))

    def _compute(self, deadline: float) -> None:
        self._ticks()
        targets = [target for target in TARGETS if self.wanted(target.name)]
        if targets:
            self.done |= fuzz.run(targets, self.seed, self.share, deadline, self.workers)

    def _ticks(self) -> None:
        if not self.wanted("ticks in a row"):
            return
        ticks = max(1000, round(TICKS * self.share))
        parts = churn.run(self.seed, ticks, self.until(_TICKS_SHARE), self.workers)
        self.add(lambda: churned(parts, ticks))

    def _tell_inputs(self) -> None:
        what = {target.name: target.what for target in TARGETS}
        for name, one in self.done.items():
            self.inputs.append(fuzzed(name, what.get(name, "changed bytes, to a program that serves"), one))
            self.escapes += [escape.told() for escape in one.escapes]
        if not self.only:
            total = sum(one.inputs for one in self.done.values())
            least = round(LEAST_INPUTS * self.share)
            faults = (f"fewer than {least:,} in this time",) if total < least else ()
            self.inputs.append(Row("all", f"{total:,}", faults))


def fuzzed(name: str, what: str, done: Done) -> Row:
    """What became of a target's inputs."""
    note = f"{what}; {done.taken:,} taken, the others refused" if not done.escapes else what
    faults = (f"{len(done.escapes)} escaped",) if done.escapes else ()
    return Row(name, f"{done.inputs:,}", faults, note=note)


def churned(parts: Sequence[churn.Churned], wanted: int) -> Row:
    """What became of ticks in a row."""
    done = sum(part.ticks for part in parts)
    faults = [fault for part in parts for fault in part.wrong[:2]]
    growth = max(part.growth_bytes for part in parts)
    if growth > served.GROWTH_BYTES:
        faults.append(f"it grows: {growth / MIB:.1f} MiB after the first quarter")
    if done < wanted:
        faults.append(f"fewer than {wanted:,} in this time")
    changes, jumps, failures = (sum(getattr(part, name) for part in parts) for name in ("changes", "jumps", "failures"))
    return Row(
        "ticks in a row, under churn",
        f"{done:,}",
        tuple(faults),
        before_bytes=max(max(part.rss_bytes[: 1 + len(part.rss_bytes) // 4]) for part in parts),
        peak_bytes=max(max(part.rss_bytes) for part in parts),
        after_bytes=max(part.rss_bytes[-1] for part in parts),
        note=f"{changes:,} pods and containers came or went, {jumps:,} jumps of the clock, {failures:,} failing cgroups",
    )


def page(campaign: Campaign) -> str:
    """``docs/attack.md``."""
    failed = sum(bool(row.faults) for row in (*campaign.rows, *campaign.inputs))
    verdict = "All held." if not failed else f"**{failed} failed.**"
    lines = [
        "# What it was attacked with",
        "",
        f"Written by `make attack`, of {campaign.seconds:.0f} s, with seed {campaign.seed}; `make attack ATTACK_SECONDS=300` does a",
        "third of everything. On this machine:",
        f"{machine()}.",
        "",
        f"{verdict} Each attack is on a program of its own, started as the DaemonSet starts it, with a node of files and a",
        "kubelet of the attack's. Well is: what it holds (RSS) afterwards is what it held before, within"
        f" {served.GROWTH_BYTES // MIB} MiB; the peak",
        f"is under the manifest's limit of {limit_bytes() // MIB} MiB; each probe of `/healthz` meanwhile is answered; no traceback is",
        "logged; SIGTERM ends it. Ticks that the machine let it miss are told, and are no fault.",
        "",
        "## While it serves",
        "",
        *table(campaign.rows),
        "",
        "## Inputs",
        "",
        "None may *escape*: raise what its reader does not document, differ between two readers, or take a second. Seeds",
        "are cut from recordings of real nodes (`attack/seeds`); the same seed gives the same inputs.",
        "",
        *table(campaign.inputs),
        "",
    ]
    if campaign.escapes:
        lines += ["What escaped, cut down:", "", "```", *campaign.escapes, "```", ""]
    return "\n".join(lines)


def _one_block(target: Target, seed: int, block: int) -> int:
    logging.disable()
    done = fuzz.run_block(target, seed, block, target.block)
    print(f"{target.name}, block {block} of seed {seed}: {done.inputs:,} inputs, {done.taken:,} taken")
    for escape in done.escapes:
        print(escape.told())
    return 1 if done.escapes else 0


def main(arguments: list[str] | None = None) -> int:
    """Run it, print the page, write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=WHOLE_SECONDS, help="how long it may take (default: 900)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random (default: 1)")
    parser.add_argument("--only", default="", metavar="NAME", help="what has this in its name; nothing is written then")
    parser.add_argument("--block", type=int, help="with --only: one block of a fuzzer's inputs")
    parser.add_argument("--no-write", action="store_true", help="print only, leave docs/attack.md alone")
    options = parser.parse_args(arguments)
    if options.seconds <= 0:
        parser.error("--seconds must be above 0")
    if options.block is not None:
        targets = [target for target in TARGETS if target.name == options.only]
        if not targets:
            parser.error(f"--block needs --only with one of {', '.join(target.name for target in TARGETS)}")
        return _one_block(targets[0], options.seed, options.block)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    campaign = Campaign(options.seconds, options.seed, options.only)
    campaign.run()
    if not campaign.rows and not campaign.inputs:
        parser.error(f"nothing has {options.only!r} in its name")
    text = page(campaign)
    print(text)
    if not options.no_write and not options.only and options.seconds >= WHOLE_SECONDS:
        (ROOT / "docs" / "attack.md").write_text(text, encoding="utf-8")
    return 1 if any(row.faults for row in (*campaign.rows, *campaign.inputs)) else 0


if __name__ == "__main__":
    sys.exit(main())
