"""The reader that one would write first: open, read as text, close, for every file and round.

It is one of the two yardsticks beside podtally's own reading: `cread.c` is what the machine can do, this is what a
plain script does. Both print the same numbers.

    find TREE/sys/fs/cgroup -type f | python -m bench.naive 20
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TypedDict


class ReadCost(TypedDict):
    """What reading cost, as `cread.c` prints it."""

    files: int
    rounds: int
    wall_ns_per_file: float
    cpu_ns_per_file: float


def naive_read(paths: Sequence[str], rounds: int) -> ReadCost:
    """Reads every file `rounds` times and says what one reading of one file cost, in wall time and in CPU time."""
    readings = len(paths) * rounds
    if not readings:
        raise ValueError("nothing to read: no path, or no round")
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(rounds):
        for path in paths:
            with open(path, encoding="utf-8") as file:
                file.read()
    cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
    return {
        "files": len(paths),
        "rounds": rounds,
        "wall_ns_per_file": round(wall / readings, 1),
        "cpu_ns_per_file": round(cpu / readings, 1),
    }


def main() -> int:
    """Reads the paths on stdin as often as the argument says, and prints one line of JSON, as `cread` does."""
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or int(sys.argv[1]) < 1:
        print("usage: python -m bench.naive ROUNDS < PATHS", file=sys.stderr)
        return 2
    paths = sys.stdin.read().splitlines()
    if not paths:
        print("bench.naive: no path on stdin", file=sys.stderr)
        return 2
    try:
        print(json.dumps(naive_read(paths, int(sys.argv[1]))))
    except (OSError, UnicodeDecodeError) as error:
        print(f"bench.naive: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
