"""What does a step cost because malloc gives pages back?

Question: above 128 KiB glibc maps an array anew, zeroed page by page, until frees of large arrays
have raised its thresholds; a variable such as Dask's nanny sets (`MALLOC_TRIM_THRESHOLD_`) keeps
them from rising. How much of a step's CPU time is that, and do both variables take it away?
Theory says: a page fault is about half a microsecond to a page of 4 KiB that takes as long to
fill: of steps that only move memory it may be half, of those that mostly multiply little.
Run: python experiments/keeping_pages.py [--rounds 5] [--steps 6]
Each figure is the least of the rounds, each in a process of its own with one BLAS thread: CPU
seconds (user and system) of a step, and page faults, without variables, as under Dask's nanny, and
with both at 2147483647. The step is that of an MLP of 16 layers, eager and planned at half the
memory.
Found: (two cores under a load of 20) eagerly 114 ms and 11,168 page faults a step, with both 92 ms
and none, under Dask's nanny 191 ms and 41,729; a planned step 100 to 102 ms and none, in each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ckpt.witness import malloc

SETTINGS: dict[str, dict[str, str]] = {
    "unset": {},
    "as Dask's nanny": {"MALLOC_TRIM_THRESHOLD_": "65536"},
    "both": malloc.keeping(),
}

RUN = """
import json, resource, sys, time
import numpy as np
import ckpt
from ckpt.models import build
work = build("mlp", depth=16, width=128, batch=4096)
args = work.arrays(0)
steps = int(sys.argv[1])
eager = ckpt.value_and_grad(work.loss)
planned = ckpt.plan(work.loss, *args, budget="50%", planner="chain")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
found = {}
for name, step in (("eager", eager), ("planned", planned)):
    for _ in range(2):
        step(*args)
    before, pages = time.process_time(), faults()
    for _ in range(steps):
        step(*args)
    found[name] = (time.process_time() - before) / steps, (faults() - pages) / steps
print(json.dumps(found))
"""


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args(argv)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for _ in range(args.rounds):
        for setting, variables in SETTINGS.items():
            for kind, (seconds, faults) in run(variables, args.steps).items():
                key = kind, setting
                best[key] = min(best.get(key, (seconds, faults)), (seconds, faults))
    rows = [
        {"step": kind, "malloc": setting, "cpu_seconds": seconds, "page_faults": faults}
        for (kind, setting), (seconds, faults) in sorted(best.items())
    ]
    for row in rows:
        print(
            f"{row['step']:8} {row['malloc']:16} {1000 * row['cpu_seconds']:7.1f} ms of CPU "
            f"{row['page_faults']:8.0f} page faults"
        )
    return rows


def run(variables: dict[str, str], steps: int) -> dict[str, tuple[float, float]]:
    """CPU seconds and page faults of a step, by kind, in a process with those variables."""
    clean = {k: v for k, v in os.environ.items() if k not in malloc.VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(steps)],
        env={**clean, "OPENBLAS_NUM_THREADS": "1", **variables},
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, tuple[float, float]] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
