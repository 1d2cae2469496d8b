"""What does tracing cost, and what does the tape cost beside the arithmetic?

Question: can any net of the literature be profiled on a laptop in seconds, without its memory? Does
a program of many small steps trace in time linear in its nodes? And run: is a wave equation's step
dearer on the tape than written out by hand?
Theory says: a trace touches shapes only, so its time and memory follow the number of nodes and not
the model's size; the tape's own work, a few microseconds a node, is lost beside 512 KiB arrays.
Seconds are of the processor, so that other work on the machine counts little.
Run: python experiments/bench_trace.py [--steps 400] [--long] [-o plots/bench_trace.csv]
Found: gpt3 (175 billion parameters, 4433 nodes) traces in 0.17 s; the largest graph of the presets,
an LSTM of 1000 steps with 72,026 nodes, in 2.1 s and 240 MiB. A node costs 42 µs at a hundred
nodes and 39 µs at a hundred thousand (with other work on both cores), and to compile a step 122 µs
at 500 nodes, 150 at 5,000 and 193 at 50,000. A wave equation's step on the tape costs 0.99 to 1.03
of the same calls by hand, checkpointed in segments 0.98; ten thousand steps cost 1.08 times as much
a step as one thousand.
"""

from __future__ import annotations

import argparse
import csv
import gc
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ckpt.models import build
from ckpt.models.presets import PRESETS
from ckpt.planners import make_schedule
from ckpt.tape.eager.grad import value_and_grad
from ckpt.tape.execution.program import trace

LIMITS = {"gpt3": 5.0}
"""Seconds promised; 30 for the others."""
RESIDENT_LIMIT_MIB = 300


class Row(NamedTuple):
    """One measurement, and what we promise."""

    case: str
    nodes: int
    seconds: float
    quantity: str
    value: float
    limit: float


def preset_row(name: str) -> Row:
    """A preset predicted in a fresh process: import, trace, schedule, simulation."""
    command = [sys.executable, __file__, "--child", name]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    nodes, seconds, resident = printed.split()
    limit = LIMITS.get(name, 30.0)
    if float(seconds) > limit:
        raise SystemExit(f"{name} took {seconds} s to trace, and {limit} s are promised")
    case = f"{name}, batch {PRESETS[name][1]['batch']}"
    return Row(
        case, int(nodes), float(seconds), "resident MiB", float(resident), RESIDENT_LIMIT_MIB
    )


def child(name: str) -> None:
    """Trace and predict one preset; print nodes, seconds of the trace, and most MiB resident."""
    from ckpt.studies.profile import profile

    workload = build(name)
    start = time.process_time()
    nodes = len(trace(workload.loss, *workload.specs()).graph)
    seconds = time.process_time() - start
    profile(workload.loss, *workload.specs())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(nodes, seconds, resident)


def linear_rows() -> Iterator[Row]:
    """Microseconds a node of wave equations from a hundred nodes to a hundred thousand."""
    build_and_trace(20)
    least = 0.0
    for steps in (33, 333, 3_333, 33_333):
        nodes, seconds = min((build_and_trace(steps) for _ in range(3)), key=lambda found: found[1])
        each = 1e6 * seconds / nodes
        least = least or each
        yield Row(f"wave, {steps} steps", nodes, seconds, "µs a node", each, 2 * least)


def compile_rows() -> Iterator[Row]:
    """Microseconds a node that it takes to compile a store-all step, with an arena for it."""
    least = 0.0
    for depth in (167, 1_667, 16_667):
        workload = build("mlp", depth=depth)
        program = trace(workload.loss, *workload.specs())
        schedule = make_schedule(program.graph, "store_all")
        (seconds,) = alternately(partial(program.compile, schedule))
        each = 1e6 * seconds / len(program.graph)
        least = least or each
        case = f"compile an MLP of {depth} layers"
        yield Row(case, len(program.graph), seconds, "µs a node", each, 2 * least)


def build_and_trace(steps: int) -> tuple[int, float]:
    workload = build("wave", depth=steps, size=256)
    gc.collect()
    start = time.process_time()
    program = trace(workload.loss, *workload.specs())
    return len(program.graph), time.process_time() - start


def overhead_rows(steps: int, long: bool) -> Iterator[Row]:
    """The wave equation on the tape, over the same NumPy calls by hand."""
    for count in (steps // 4, steps // 2, steps):
        workload = build("wave", depth=count, size=256)
        arrays = workload.arrays()
        step = partial(value_and_grad(workload.loss), *arrays)
        ours, theirs = alternately(step, partial(by_hand, *arrays, count))
        case = f"wave 256x256 float64, {count} steps, eager"
        yield Row(case, 3 * count, ours, "ratio to by hand", ours / theirs, 1.1)
    # Segments of 100 steps; by hand: each step once more, but for the last segment.
    ours, forward, both = alternately(
        segmented(1_000),
        partial(by_hand, *arrays, steps, backward=False),
        partial(by_hand, *arrays, 100),
    )
    expected = 10 * both + 900 * forward / steps
    case = "wave 256x256 float64, 1000 steps, 10 segments"
    yield Row(case, 3_000, ours, "ratio to by hand", ours / expected, 1.1)
    if long:
        (seconds,) = alternately(segmented(10_000), repeat=1)
        case = "wave 256x256 float64, 10000 steps, 100 segments"
        ratio = seconds / 10 / ours
        yield Row(case, 30_000, seconds, "ratio a step to 1000 steps", ratio, 1.15)


def segmented(count: int) -> Callable[[], Any]:
    """One training step through ``count`` time steps, checkpointed a hundred at a time."""
    workload = build("wave", depth=count, size=256, segments=count // 100)
    return partial(value_and_grad(workload.loss), *workload.arrays())


def alternately(*works: Callable[[], Any], repeat: int = 3) -> list[float]:
    """The least seconds of each, run in turns so that the machine's moods meet all of them."""
    best = [float("inf")] * len(works)
    for _ in range(repeat):
        for k, work in enumerate(works):
            start = time.process_time()
            work()
            best[k] = min(best[k], time.process_time() - start)
    return best


def by_hand(speed: Any, start: Any, observed: Any, steps: int, backward: bool = True) -> Any:
    """Loss and gradient of `ckpt.models.wave`, its adjoint written out."""
    u = before = start
    laplacians = []
    for _ in range(steps):
        laplacian = five_points(u)
        laplacians.append(laplacian)
        u, before = 2.0 * u - before + speed * laplacian, u
        if not backward:
            laplacians.clear()
    misfit = u - observed
    loss = np.mean(np.square(misfit))
    if not backward:
        return loss
    gradient = np.zeros_like(speed)
    g, g_before = misfit * (2.0 / misfit.size), np.zeros_like(misfit)
    while laplacians:
        gradient += g * laplacians.pop()
        g, g_before = g_before + five_points(speed * g) + 2.0 * g, -g
    return loss, gradient


def five_points(u: Any) -> Any:
    p = np.pad(u, ((0, 0), (1, 1), (1, 1)))
    return (
        p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2]
        - 4.0 * p[:, 1:-1, 1:-1]
    )  # fmt: skip


def rows(steps: int, long: bool) -> Iterator[Row]:
    yield from map(preset_row, PRESETS)
    yield from linear_rows()
    yield from compile_rows()
    yield from overhead_rows(steps, long)


def main() -> int:
    """Print each measurement beside its limit; 1 if one is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=400, help="of the wave equation that is run")
    parser.add_argument("--long", action="store_true", help="run 10,000 steps too (minutes)")
    parser.add_argument("-o", "--output", type=Path, help="a CSV file of the measurements")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return 0
    found = []
    for row in rows(arguments.steps, arguments.long):
        verdict = "" if row.value <= row.limit else f"  ABOVE {row.limit:.4g}"
        print(
            f"{row.case:52} {row.nodes:7} nodes {row.seconds:8.3f} s  "
            f"{row.value:7.2f} {row.quantity}{verdict}",
            flush=True,
        )
        found.append(row)
    versions = f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores"
    print(f"Python {versions}", file=sys.stderr)
    if arguments.output:
        with arguments.output.open("w", newline="") as file:
            csv.writer(file).writerows([(*Row._fields, "python"), *((*r, versions) for r in found)])
        print(f"wrote {arguments.output}", file=sys.stderr)
    return int(any(row.value > row.limit for row in found))


if __name__ == "__main__":
    sys.exit(main())
