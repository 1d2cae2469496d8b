"""How long do the planners take?

Question: does planning stay within seconds where a training step takes seconds, on two cores and
plain NumPy?
Theory says: the chain's table takes O(L^3 M) additions for L unequal stages and M slots of memory,
O(p L^2 M) for stages that repeat with period p; every budget is then read off in O(L) choices.
Run: python experiments/bench_planners.py [--repeat 3] [-o plots/bench_planners.csv]
Found: with M = 500 on an idle machine, 100 unequal stages take 0.15 s (rotor's C code: 0.05 s), 300
take 2.0 s (5.8 s), 1000 stages of period 4 take 2.1 s, with one option a
stage or twelve. The table answers every budget; a plan is read off it in 2 to 60 ms.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np

from ckpt.planners.chain.kinds import Kind, Tape, Visit
from ckpt.planners.chain.table import Table

T = TypeVar("T")


class Row(NamedTuple):
    """One measurement; ``limit_seconds`` is what we promise."""

    planner: str
    case: str
    seconds: float
    limit_seconds: float
    detail: str


def random_kind(rng: Random, options: int) -> Kind:
    """A stage of random bytes and FLOPs, with ``options`` ways to keep less and recompute more."""
    crossing, flops = rng.randint(1, 1000), rng.randint(1, 50)
    tape = crossing + rng.randint(0, 4000)
    held = [crossing + (tape - crossing) * (options - o) // options for o in range(options)]
    return Kind(
        once_cost=flops,
        advance_cost=flops,
        advance_peak=crossing + crossing // 2,
        crossing=(crossing,),
        cotangents=crossing,
        tapes=tuple(
            Tape(h, flops + o * flops // (2 * options), h, h + 2 * crossing)
            for o, h in enumerate(held)
        ),
        visits=(Visit(flops, tape + 2 * crossing),),
    )


def chain_tables(repeat: int) -> Iterable[Row]:
    """The chain's table for unequal and for repeating stages, and all that is read off it."""
    cases = [
        # stages, period (0: none), options, seconds promised
        (100, 0, 1, 0.5),
        (100, 0, 12, 0.5),
        (300, 0, 1, 10.0),
        (300, 0, 12, 10.0),
        (1000, 1, 12, 5.0),
        (1000, 4, 12, 5.0),
    ]
    for size, period, options, limit in cases:
        rng = Random(0)
        kinds = [random_kind(rng, options) for _ in range(period + 2 if period else size)]
        sequence = list(range(size))
        if period:  # as a model is: a first and a last stage of their own
            sequence = [period, *(i % period for i in range(size - 2)), period + 1]
        seconds, table = timed(partial(Table, kinds, sequence, 500), repeat)
        shape = f"period {period}" if period else "unequal"
        case = f"{size} stages, {shape}, {options} options, 500 slots"
        detail = f"{table.distinct} segments, {len(table.steps())} steps of the frontier"
        yield Row("chain table", case, seconds, limit, detail)
        seconds, plan = timed(partial(table.operations, table.slots // 4), repeat)
        yield Row("chain plan", case, seconds, limit, f"{len(plan)} operations at a quarter")


def timed(work: Callable[[], T], repeat: int) -> tuple[float, T]:
    """The least seconds of so many runs, and the last result."""
    best = float("inf")
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return best, result


def main() -> int:
    """Print each measurement beside its limit; 1 if one is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=3, help="runs; the fastest counts")
    parser.add_argument("-o", "--output", type=Path, help="a CSV file of the measurements")
    arguments = parser.parse_args()
    rows = []
    for row in chain_tables(arguments.repeat):
        verdict = "" if row.seconds <= row.limit_seconds else "  TOO SLOW"
        print(f"{row.planner:12} {row.case:45} {row.seconds:8.3f} s{verdict}  ({row.detail})")
        rows.append(row)
    versions = f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores"
    print(f"Python {versions}", file=sys.stderr)
    if arguments.output:
        with arguments.output.open("w", newline="") as file:
            csv.writer(file).writerows([(*Row._fields, "python"), *((*r, versions) for r in rows)])
        print(f"wrote {arguments.output}", file=sys.stderr)
    return int(any(row.seconds > row.limit_seconds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
