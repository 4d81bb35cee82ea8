"""So many ticks in a row, for an instruction counter: the same work in every run, whatever else the machine does.

``valgrind --tool=callgrind --callgrind-out-file=/dev/null .venv/bin/python -m bench.ticks 25 110``: of two runs with
different numbers of ticks the difference is what ticks cost, with what ``--without`` says of the tree's own growth
taken off.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bench.run import SLOW_EVERY, _Answers
from bench.tree import advance, make_tree
from collector.cgroup.walk import Walker
from collector.demand import Demand
from collector.garbage import spare_collections
from collector.history import History
from collector.loop import Collector
from collector.metrics.catalogue import DEFAULT_GROUPS
from collector.metrics.native import needs
from collector.sources.live import LiveTree


def main() -> None:
    """Tick, and say how many pods had their sums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ticks", type=int)
    parser.add_argument("pods", type=int)
    parser.add_argument("--without", action="store_true", help="let the tree grow, and do not tick")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        tree = make_tree(Path(folder) / "tree", arguments.pods)
        live = LiveTree(str(tree.cgroup_root), str(tree.proc_root))
        collector = Collector(
            walker=Walker(live, slow_every=SLOW_EVERY, needs=needs(DEFAULT_GROUPS), seldom_wanted=Demand().at),
            answers=_Answers(tree.pods_json),
            history=History(window_ns=15_000_000_000, interval_ns=1_000_000_000),
            node_name="bench",
        )
        result = collector.tick()
        spare_collections()
        for _ in range(arguments.ticks):
            advance(tree)
            if not arguments.without:
                result = collector.tick()
        collector.close()
    whole = sum(pod.memory_bytes is not None for pod in result.pods)
    print(f"{arguments.ticks} ticks, {whole} of {len(result.pods)} pods whole")


if __name__ == "__main__":
    main()
