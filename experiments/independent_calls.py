"""What would a second core give that runs independent calls of a planned step beside each other?

Question: a compiled step does one call after the other. Elementwise work on large arrays is shared
among threads, and so are products of stacks of small matrices; large products are BLAS's, which has
threads of its own. Of the calls that are left on one core, how many could run beside one that they
don't depend on, within the bytes that the plan promises, and how much time would that be?
Theory says: a backward's step is a chain, so what is independent are mostly the two gradients of a
product, which are BLAS's; and handing a call to another thread takes about 40 us.
Run: python experiments/independent_calls.py [--only mlp256 ...] [--rounds 3] [--json]
Each line of the step's code is timed by itself (CPU seconds of the thread, the least of the
rounds). Two lines make a pair if the later one depends on none from the first on, and nothing in
between on what it writes, and if its result, made so early, takes no byte above the peak that is
promised. Pairs are chosen greedily, those first that save most; one saves the shorter line's time
less the hand-over, which is measured in the same run. So what is found is more than any thread
could give. The share is of the step's time on one core; "with one BLAS thread" counts products too.
Found: of seven cases 0 to 2.1 % of a step (2.1 % a transformer at batch 8, 1.2 % at batch 64), less
than a tenth of what BLAS's own second thread saves in the same steps, of which products are 57 to
95 %: so independent calls aren't run beside each other. Held to one thread BLAS would leave 20 to
29 % for the pairs of a product's gradients; where a core is to spare, give it to BLAS.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from step_calls import code_of
from step_ways import CASES

import ckpt
from ckpt.tape.core.op import NUMPY
from ckpt.tape.execution.arena import block, place
from ckpt.tape.execution.arguments import check_arguments
from ckpt.tape.execution.lines import Code, Line, Var
from ckpt.tape.execution.run import _run as run_line
from ckpt.tape.execution.run import _value as value_of
from ckpt.tape.ops.linear.stacks import SMALL, lanes_of_stack
from ckpt.tape.ops.tiles import lanes_of, share
from ckpt.tape.traced.tiled import TiledRun

WINDOW = 12
"""Lines apart at most."""


class Call(NamedTuple):
    """A line of a step's code, by its place."""

    at: int
    seconds: float
    kind: str
    """``shared`` among threads already, of ``BLAS``, or on ``one`` core."""


def own_seconds(code: Code, arrays: Sequence[Any], rounds: int) -> list[float]:
    """What each line takes by itself, over an arena as in a compiled step."""
    memory = block(place(code))
    best = [float("inf")] * len(code.lines)
    for _ in range(rounds):
        env: dict[Var, Any] = dict(zip(code.arguments, arrays, strict=True))
        for at, line in enumerate(code.lines):
            result, writes = line.result, line.writes
            if line.kind == "call" and result is not None and result.placed and writes:
                a = result.array
                out = np.ndarray(a.shape, a.dtype, memory, result.offset, a.strides)
                env[result] = out
                given = [value_of(source, env) for source in line.sources]
                call = partial(writes, *given, out=out, **(line.params or {}))
            else:
                call = partial(run_line, line, env)
            start = time.thread_time()
            call()
            best[at] = min(best[at], time.thread_time() - start)
    return best


def kind_of(line: Line) -> str:
    """Who has threads for it."""
    if isinstance(line.function, TiledRun):
        return "shared" if line.function.lanes > 1 else "one"
    arrays = [v.array for v in line.variables()]
    if line.op is NUMPY[np.matmul]:
        x, w, out = arrays
        if lanes_of_stack(x, w, out) > 1:
            return "shared"
        return "BLAS" if out.size * x.shape[-1] > SMALL and len(out.shape) == 2 else "one"
    if line.op is not None and "conv" in line.op.name:
        return "BLAS"
    fill = line.op.fill if line.op is not None else None
    if fill is not None and not fill.is_ufunc and lanes_of(arrays[-1].nbytes) > 1:
        return "shared"
    return "one"


def hand_over() -> float:
    """Seconds that it takes to hand a call to another thread, and to wait for it."""
    ckpt.threads(2)

    def nothing(lane: int, numbers: Iterator[int]) -> None:
        for _ in numbers:
            pass

    found = []
    for _ in range(300):
        start = time.perf_counter()
        share(nothing, 2, 2)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def pairs(code: Code, calls: Sequence[Call], price: float, limit: int) -> float:
    """Seconds that pairs of these calls save."""
    reads, writes = zip(*map(_touched, code.lines), strict=True)
    live = _live(code)
    outside = {var.root for var in code.results}
    counted = {call.at: call.seconds for call in calls}
    found = []
    for first in counted:
        for later in range(first + 1, min(first + WINDOW, len(code.lines))):
            gain = min(counted[first], counted.get(later, 0.0)) - price
            between = range(first, later)
            apart = not any(
                writes[k] & (reads[later] | writes[later]) or reads[k] & writes[later]
                for k in between
            )
            result = code.lines[later].result
            inside = result is not None and result.root is result and result not in outside
            nbytes = code.lines[later].result.array.nbytes if inside else 0
            if gain > 0 and apart and max(live[k] for k in between) + nbytes <= limit:
                found.append((gain, first, later))
    taken: set[int] = set()
    saved = 0.0
    for gain, first, later in sorted(found, reverse=True):
        if taken.isdisjoint((first, later)):
            taken |= {first, later}
            saved += gain
    return saved


def _touched(line: Line) -> tuple[set[Var], set[Var]]:
    """The buffers that a line reads, and those that it writes."""
    every = {v.root for v in line.variables()}
    if line.kind in ("view", "drop"):
        return set(), set()
    if line.kind == "do":
        return every, every
    assert line.result is not None
    made = {line.result.root}
    return every - made if line.kind == "call" else every, made


def _live(code: Code) -> list[int]:
    """Bytes of the buffers in use at each line, results and arguments aside."""
    spans: dict[Var, list[int]] = {}
    for at, line in enumerate(code.lines):
        if line.kind != "drop":
            for var in line.variables():
                spans.setdefault(var.root, [at, at])[1] = at
    live = [0] * len(code.lines)
    for var in spans.keys() - {v.root for v in (*code.results, *code.arguments)}:
        for at in range(spans[var][0], spans[var][1] + 1):
            live[at] += var.array.nbytes
    return live


def row(name: str, rounds: int, price: float) -> dict[str, Any]:
    """What the second core would give in one of bench_step's cases."""
    title, make, _ = CASES[name]
    planned = make()["planned"]()
    step, args = planned.func, planned.args  # type: ignore[attr-defined]
    code = code_of(step)
    seconds = own_seconds(code, check_arguments(step.program.traced, args), rounds)
    calls = [
        Call(at, seconds[at], kind_of(line))
        for at, line in enumerate(code.lines)
        if line.kind in ("call", "over", "do")
    ]
    total = sum(call.seconds for call in calls)
    limit = ckpt.simulate(step.graph, step.schedule).peak
    ones = [call for call in calls if call.kind == "one"]
    with_blas = [call for call in calls if call.kind != "shared"]
    shares = {
        kind: sum(c.seconds for c in calls if c.kind == kind) / total
        for kind in ("BLAS", "shared", "one")
    }
    return {
        "case": title, "seconds": total, **shares,
        "saved": pairs(code, ones, price, limit) / total,
        "saved with one BLAS thread": pairs(code, with_blas, price, limit) / total,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cases = [name for name in CASES if not name.startswith("chain")]
    parser.add_argument("--only", nargs="+", choices=cases, default=cases)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    price = hand_over()
    rows = [row(name, options.rounds, price) for name in options.only]
    if options.json:
        print(json.dumps(rows))
        return rows
    print(f"handing a call over takes {price * 1e6:.0f} us")
    columns = ("BLAS", "shared", "one", "saved", "saved with one BLAS thread")
    for found in rows:
        said = ", ".join(f"{column} {found[column]:.1%}" for column in columns)
        print(f"{found['case']}: {found['seconds'] * 1e3:.1f} ms, of which {said}")
    return rows


if __name__ == "__main__":
    main()
