"""What does the tape cost, in time and in memory, against what one would use instead of it?

Question: how much slower than backprop written by hand in NumPy is a training step on the tape, and
how does it compare with PyTorch's eager mode, HIPS autograd and micrograd? What do checkpointed
segments cost in seconds, what does a bound plan gain, and how long do the pieces take?
Theory says: the products are the same, so that from width 256 the ratio is one; at width 16 it is
the price of about 200 nodes a step. A chain costs the same an operation however long it is, but for
caches and Python's cycle collector, which walks live nodes more than once (a part that grows with
the square would show as 10 from 10,000 to 100,000). Of 100 equal layers in 10 segments 10
boundaries, 10 layers' values and a cotangent are live (0.21), and all segments but the last run
forward again but for their last layer, whose output is kept.
Run: python experiments/bench_tape.py [--quick] [--json] [--only steps chain ...]
Found: (two cores, hardly any other load; a load of 5 to 8 by other programs adds up to a tenth to
what is given for width 16) a step on Values takes 2.8 of the time by hand at width 16, 1.06 at 256,
1.01 at 1024; `value_and_grad`, which makes a Value of each array anew, 2.9, 1.05 and 1.01. At width
16 a step takes 0.7 of PyTorch's time and 0.12 of HIPS autograd's; at 256 and 1024 PyTorch takes 0.8
to 0.9 of the time by hand, and is ahead. A chain's operation takes 5.1 us, 0.5 of micrograd's, and
1.6 of one in a chain of 10,000. Segments take 1.30 of plain's time, 0.21 of its peak, and theory's
FLOPs exactly. A bound store-all plan takes 0.92 of eager's time at width 256 and 0.31 at 16, where
it takes 0.99 of the time by hand. Looking for changes in place takes 1.08 of a step's
time at width 16 and 1.05 at 256, 1.09 and 1.37 with check="all" (with a load of 10 by other
programs; both measured in turn). 256 KiB are fingerprinted in 5 us by the sample, half of a copy's
time, and in 73 us whole; `simulate` performs 1.2 million instructions a second; `ckpt --help` takes
1.27 of a bare typer app's time, and importing ckpt 0.56 of importing numpy, which `from ckpt import
Value` takes 2.1 times.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["VECLIB_MAXIMUM_THREADS"] = "1"

import numpy as np

import ckpt
from ckpt import Value
from ckpt.tape.core import apply, changes
from ckpt.tape.core.changes import ALL, fingerprint

Array = Any
Step = Callable[[], Any]
DEPTH = 100
SEGMENTS = 10
ROOT = Path(ckpt.__file__).parents[1]


def row(what: str, measured: float, limit: float | None = None, unit: str = "x") -> dict[str, Any]:
    """One line of the table. A rate has a lower limit, all else an upper one."""
    verdict = "-"
    if limit is not None:
        kept = measured >= limit if unit == "/s" else measured <= limit
        verdict = "within" if kept else "OVER"
    return {"what": what, "measured": measured, "unit": unit, "limit": limit, "verdict": verdict}


def interleaved(steps: Mapping[str, Step], repeat: int) -> dict[str, float]:
    """The median CPU seconds of each step, all in turn, each once before that.

    CPU seconds of the process, since other programs' load lengthens the wall's by far more; with
    one BLAS thread the two are equal on an idle machine.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(found) for name, found in seconds.items()}


# -- a training step: tanh(x @ w), no biases, float32 ----------------------------------------------


def hand(ws: list[Array], x: Array) -> tuple[Array, list[Array]]:
    """Loss and gradients, as one writes them without a tape: only what is needed is kept."""
    kept = [x]
    for w in ws:
        kept.append(np.tanh(kept[-1] @ w))
    h = kept[-1]
    loss = np.sum(h * h)
    g = 2 * h
    grads: list[Array] = [None] * len(ws)
    for k in range(len(ws) - 1, -1, -1):
        h = kept.pop()
        g = g * (1 - h * h)
        grads[k] = kept[-1].T @ g
        if k:
            g = g @ ws[k].T
    return loss, grads


def mlp(ws: Any, x: Any) -> Any:
    for w in ws:
        x = np.tanh(x @ w)
    return np.sum(x * x)


def problem(width: int, batch: int) -> tuple[list[Array], Array]:
    rng = np.random.default_rng(0)
    scale = np.float32(width**-0.5)
    ws = [rng.standard_normal((width, width), dtype=np.float32) * scale for _ in range(DEPTH)]
    return ws, rng.standard_normal((batch, width), dtype=np.float32)


def on_values(ws: list[Array], x: Array) -> Step:
    """A step with Values and ``loss.backward()``, as a training loop has it."""
    values = [Value(w) for w in ws]

    def step() -> tuple[Array, list[Array]]:
        loss = mlp(values, x)
        loss.backward()
        grads = [value.grad for value in values]
        for value in values:
            value.zero_grad()
        return loss.data, grads

    return step


def in_torch(ws: list[Array], x: Array) -> Step:
    import torch

    torch.set_num_threads(1)
    leaves = [torch.from_numpy(w.copy()).requires_grad_() for w in ws]
    data = torch.from_numpy(x)

    def step() -> tuple[Array, list[Array]]:
        h = data
        for w in leaves:
            h = torch.tanh(h @ w)
        loss = (h * h).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        grads = [w.grad for w in leaves]
        for w in leaves:
            w.grad = None
        return loss.item(), grads

    return step


def in_autograd(ws: list[Array], x: Array) -> Step:
    import autograd  # type: ignore[import-untyped]
    import autograd.numpy as anp  # type: ignore[import-untyped]

    def loss(ws: list[Any]) -> Any:
        h = x
        for w in ws:
            h = anp.tanh(anp.dot(h, w))
        return anp.sum(h * h)

    both = autograd.value_and_grad(loss)
    return lambda: both(ws)


def peers(ws: list[Array], x: Array) -> dict[str, Step]:
    makers = {"torch": in_torch, "autograd": in_autograd}
    return {name: make(ws, x) for name, make in makers.items() if importlib.util.find_spec(name)}


def check(steps: Mapping[str, Step]) -> None:
    """Every way finds the gradients that are found by hand, to float32's rounding."""
    want = steps["hand"]()[1]
    for name, step in steps.items():
        for got, exact in zip(step()[1], want, strict=True):
            error = np.abs(np.asarray(got) - exact).max() / np.abs(exact).max()
            if not error < 1e-3:
                raise AssertionError(f"{name}: a gradient is off by {error:.1e}")


def bench_steps(quick: bool) -> Iterator[dict[str, Any]]:
    both = ckpt.value_and_grad(mlp)
    for width, batch, limit, repeat in (
        (16, 4, 3.0, 300),
        (256, 64, 1.1, 25),
        (1024, 256, 1.05, 5),
    ):
        ws, x = problem(width, batch)
        ways: dict[str, Step] = {
            "hand": partial(hand, ws, x),
            "Value, backward()": on_values(ws, x),
            "value_and_grad": partial(both, ws, x),
            **peers(ws, x),
        }
        check(ways)
        seconds = interleaved(ways, max(2, repeat // 5) if quick else repeat)
        name = f"step {width} x {batch}"
        yield row(f"{name}: by hand", seconds["hand"] * 1e3, unit="ms")
        for way in list(ways)[1:]:
            ours = way not in ("torch", "autograd")
            ratio = seconds[way] / seconds["hand"]
            yield row(f"{name}: {way} / by hand", ratio, limit if ours else None)
            if not ours and width == 16:
                ratio = seconds["Value, backward()"] / seconds[way]
                yield row(f"{name}: Value, backward() / {way}", ratio, 1.0)


# -- a chain of scalars ----------------------------------------------------------------------------


def chain_seconds(kind: Any, length: int) -> float:
    """Forward and backward CPU seconds an operation of a chain of scalar operations."""
    gc.collect()
    start = time.process_time()
    x = kind(0.5)
    y = x
    for _ in range(length // 2):
        y = y * 1.0001 + x
    y.backward()
    return (time.process_time() - start) / length


def bench_chain(quick: bool) -> Iterator[dict[str, Any]]:
    cases = {"short": (Value, 10_000), "ours": (Value, 100_000)}
    if importlib.util.find_spec("micrograd"):
        from micrograd.engine import Value as Scalar  # type: ignore[import-untyped]

        cases["micrograd"] = (Scalar, 100_000)
    found: dict[str, list[float]] = {name: [] for name in cases}

    def run() -> None:
        for _ in range(2 if quick else 7):
            for name, case in cases.items():
                found[name].append(chain_seconds(*case))

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)  # micrograd's backward is recursive, so it needs a big stack too
    size = threading.stack_size(2**29)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    threading.stack_size(size)
    sys.setrecursionlimit(before)
    seconds = {name: statistics.median(row) for name, row in found.items()}
    yield row("chain of 100,000: an operation", seconds["ours"] * 1e6, unit="us")
    if "micrograd" in seconds:
        ratio = seconds["ours"] / seconds["micrograd"]
        yield row("chain of 100,000: an operation / micrograd's", ratio, 0.6)
    yield row("chain: an operation of 100,000 / of 10,000", seconds["ours"] / seconds["short"], 2.0)


# -- checkpointed segments -------------------------------------------------------------------------


def in_segments(ws: Any, x: Any) -> Any:
    layers = [lambda h, w=w: np.tanh(h @ w) for w in ws]
    x = ckpt.checkpoint_sequential(layers, SEGMENTS)(x)
    return np.sum(x * x)


def bench_segments(quick: bool) -> Iterator[dict[str, Any]]:
    width, batch = 256, 4096
    ws, x = problem(width, batch)
    plain, segmented = ckpt.value_and_grad(mlp), ckpt.value_and_grad(in_segments)
    for a, b in zip(plain(ws, x)[1], segmented(ws, x)[1], strict=True):
        if not np.array_equal(a, b):
            raise AssertionError("the gradients of the segments aren't plain backward's")
    steps = {"plain": partial(plain, ws, x), "sqrt": partial(segmented, ws, x)}
    seconds = interleaved(steps, 1 if quick else 5)
    name = f"{SEGMENTS} segments / plain, {width} x {batch}"
    yield row(f"{name}: seconds", seconds["sqrt"] / seconds["plain"], 1.4)
    whole = {way: traced_peak(step) for way, step in steps.items()}
    stored, kept = (ckpt.profile(loss, ws, x).measured for loss in (mlp, in_segments))
    assert stored is not None and kept is not None
    yield row(f"{name}: measured peak", kept.peak / stored.peak, 0.25)
    yield row(f"{name}: traced whole peak, eager", whole["sqrt"] / whole["plain"])
    layer = 2 * batch * width * width + batch * width
    theory = (DEPTH - SEGMENTS) * (SEGMENTS - 1) // SEGMENTS * layer
    yield row(f"{name}: recompute FLOPs - theory's", abs(kept.recompute_flops - theory), 0, "FLOP")


def traced_peak(step: Step) -> int:
    """The most bytes that were live in ``step``, gradients among them."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


# -- plans, and the pieces -------------------------------------------------------------------------


def bench_plan(quick: bool) -> Iterator[dict[str, Any]]:
    both = ckpt.value_and_grad(mlp)
    for width, batch, limit, repeat in ((256, 64, 0.95, 25), (16, 4, 0.6, 300)):
        ws, x = problem(width, batch)
        bound = ckpt.plan(mlp, ws, x, planner="store_all")
        steps: Mapping[str, Step] = {
            "hand": partial(hand, ws, x),
            "eager": partial(both, ws, x),
            "plan": partial(bound, ws, x),
        }
        check(steps)
        seconds = interleaved(steps, max(3, repeat // 5) if quick else repeat)
        name = f"store-all plan {width} x {batch}"
        yield row(f"{name}: / value_and_grad", seconds["plan"] / seconds["eager"], limit)
        by_hand = seconds["plan"] / seconds["hand"]
        yield row(f"{name}: / by hand", by_hand, 1.0 if width == 16 else None)


def bench_pieces(quick: bool) -> Iterator[dict[str, Any]]:
    array = np.random.default_rng(0).standard_normal(2**15)
    ways: dict[str, Step] = {
        "sample": lambda: fingerprint(array, 0),
        "whole": lambda: fingerprint(array, ALL),
        "copy": array.copy,
    }
    seconds = interleaved(ways, 200 if quick else 2000)
    for way in ("sample", "whole"):
        yield row(f"fingerprint of 256 KiB, {way}", seconds[way] * 1e6, unit="us")
        yield row(f"fingerprint of 256 KiB, {way} / a copy", seconds[way] / seconds["copy"])
    specs = [ckpt.spec((64, 64), "float32") for _ in range(2000)]
    graph = ckpt.trace(mlp, specs, ckpt.spec((512, 64), "float32")).graph
    schedule = ckpt.make_schedule(graph, "sqrt")
    found = interleaved({"simulate": lambda: ckpt.simulate(graph, schedule)}, 3 if quick else 15)
    rate = len(schedule.instructions) / found["simulate"]
    yield row("simulate: instructions", rate, 500_000, unit="/s")


BARE = """
import typer
app = typer.Typer(no_args_is_help=True, add_completion=False)
def command() -> None:
    "One line of help."
for k in range({count}):
    app.command(f"command{{k}}")(command)
app()
"""


def bench_start(quick: bool) -> Iterator[dict[str, Any]]:
    from ckpt.cli.app import COMMANDS

    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text(BARE.format(count=len(COMMANDS)))
        commands = {
            "ckpt": ["-m", "ckpt", "--help"],
            "typer": [str(bare), "--help"],
            "import ckpt": ["-c", "import ckpt"],
            "import numpy": ["-c", "import numpy"],
            "import ckpt.Value": ["-c", "from ckpt import Value"],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(4 if quick else 12):
            for name, command in commands.items():
                seconds = child_seconds(command)
                if turn:
                    found[name].append(seconds)
    median = {name: statistics.median(seconds) for name, seconds in found.items()}
    yield row("ckpt --help / a bare typer app's", median["ckpt"] / median["typer"], 1.5)
    imported = median["import ckpt"] / median["import numpy"]
    yield row("import ckpt / import numpy", imported, 1.3)
    tape = median["import ckpt.Value"] / median["import numpy"]
    yield row("from ckpt import Value / import numpy", tape)


def child_seconds(arguments: list[str]) -> float:
    """CPU seconds of a Python of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def bench_check(quick: bool) -> Iterator[dict[str, Any]]:
    """What it costs to see changes in place: each step watched by the rest of its ways in turn."""
    for width, batch, limit, repeat in ((16, 4, 1.15, 600), (256, 64, 1.05, 40)):
        ws, x = problem(width, batch)
        ways: dict[str, Step] = {
            "none": partial(ckpt.value_and_grad(mlp), ws, x),
            "default": partial(ckpt.value_and_grad(mlp), ws, x),
            "all": partial(ckpt.value_and_grad(mlp), ws, x),
        }
        closely = {"none": -1, "default": 64 * 1024, "all": ALL}

        def watched(way: str, ways: Any = ways, closely: Any = closely) -> Any:
            # As CKPT_CHECK sets it: the option would also put the step into a context.
            apply._on_tape.__defaults__ = (closely[way],)
            changes.DEFAULT = closely[way]
            return ways[way]()

        before, limit_before = apply._on_tape.__defaults__, changes.DEFAULT
        steps = {way: partial(watched, way) for way in ways}
        seconds = interleaved(steps, max(5, repeat // 10) if quick else repeat)
        apply._on_tape.__defaults__ = before
        changes.DEFAULT = limit_before
        name = f"changes in place, {width} x {batch}"
        yield row(f"{name}: default / none", seconds["default"] / seconds["none"], limit)
        yield row(f"{name}: all / none", seconds["all"] / seconds["none"])


BENCHES = {
    "check": bench_check,
    "steps": bench_steps,
    "chain": bench_chain,
    "segments": bench_segments,
    "plan": bench_plan,
    "pieces": bench_pieces,
    "start": bench_start,
}


def setting() -> dict[str, str]:
    """What the numbers depend on: versions, BLAS, allocator, threads, load."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    tuned = [f"{key}={value}" for key, value in os.environ.items() if key.startswith("MALLOC_")]
    return {
        "python": f"{platform.python_version()}, NumPy {np.__version__}",
        "blas": f"{blas['name']} {blas['version']}, one thread",
        "allocator": f"{' '.join(platform.libc_ver())} malloc, {' '.join(tuned) or 'as it comes'}",
        "machine": f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} as this began",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES))
    options = parser.parse_args()
    settings, rows = setting(), []
    if not options.json:
        print(*(f"{key:10} {value}" for key, value in settings.items()), sep="\n")
        print("medians of interleaved runs, CPU seconds\n")
    for name in options.only:
        for found in BENCHES[name](options.quick):
            rows.append(found)
            if not options.json:
                digits = 0 if found["measured"] >= 1000 else 3
                limit = "" if found["limit"] is None else f"{found['limit']:,}"
                measured = f"{found['measured']:,.{digits}f} {found['unit']}"
                print(
                    f"{found['what']:58} {measured:>16} {limit:>9}  {found['verdict']}", flush=True
                )
    if options.json:
        print(json.dumps({"setting": settings, "rows": rows}))
    return 1 if any(found["verdict"] == "OVER" for found in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
