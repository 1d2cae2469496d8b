"""What does a budget of compiled temporaries cost in time, and is it kept?

Question: temporaries and time of plain steps, of `jax.checkpoint` around blocks (with and without a
policy), and of `ckpt.jax` over budgets; inside a jit with an update and donated parameters; FLOPs
of the graph against XLA's; how long planning takes without compiling.
Theory says: on CPU XLA undoes `jax.checkpoint`; conds stay. At half the temporaries a step should
take no longer than 1 + 1.2 times the recompute in shares of the step.
Run: python experiments/bench_jax.py [--tiny] [--rounds 3] [--folder plots] (CPU, one thread; needs
the extra ``jax``; about ten minutes)
Found: every budget of 75, 50, 35 and 25 % met, all bits the plain step's. The smallest step, over
plain: MLP of 32 layers 26 of 192 MiB (0.135), transformer of 8 31 of 281 (0.110); `jax.checkpoint`
around blocks 0.68 and 1.01. Inside a jit with update and donation 0.20. At half the temporaries
1.11 of plain's time for 0.25 of a step in recompute (MLP), and 0.77 for 0.10 (transformer). FLOPs
over XLA's 0.999 and 0.987. A transformer of 24 layers is traced and planned in 1.5 s of CPU;
compiling that plan took 36 s. The machine was busy with other work, so that this run took an hour.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import jax
from jax_steps import (
    JaxCase,
    Row,
    as_it_is,
    figure_of,
    measured,
    mlp,
    print_rows,
    transformer,
)  # fmt: skip

import ckpt.jax
from ckpt.reports.figure import save

PLOTS = Path(__file__).resolve().parent.parent / "plots"
SMALLEST = {"MLP": "14%", "transformer": "13%"}


def inside_a_jit(case: JaxCase, budget: str) -> tuple[int, int]:
    """Temporaries of a training step with plain gradients, and with planned ones."""
    loss = case.loss_of(as_it_is)
    found = []
    for gradients in (jax.value_and_grad(loss), ckpt.jax.plan(loss, *case.args, budget=budget)):

        def train(params, x, gradients=gradients):
            value, grads = gradients(params, x)
            return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)

        compiled = jax.jit(train, donate_argnums=0).lower(*case.args).compile()
        found.append(compiled.memory_analysis().temp_size_in_bytes)
    return found[0], found[1]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=PLOTS)
    options = parser.parse_args(argv)
    tiny = options.tiny
    print(f"jax {jax.__version__}, {jax.default_backend()}, {os.environ['XLA_FLAGS']}", flush=True)
    cases = [mlp(8, 32, 64), transformer(4, 32, 2, 16)] if tiny else [mlp(), transformer()]
    rows: list[Row] = []
    for case in cases:
        loss = case.loss_of(as_it_is)
        smallest = SMALLEST[case.name.partition(",")[0]]
        budgets = ["60%"] if tiny else ["75%", "50%", "35%", "25%", smallest]
        found = measured(case, budgets, rounds=options.rounds)
        print_rows(found)
        rows += found
        graph = ckpt.jax.trace(loss, *case.args).graph
        flops = graph.forward_flops + graph.backward_flops
        print(f"  FLOPs of the graph over XLA's: {flops / found[0]['xla_flops']:.4f}", flush=True)
    before, after = inside_a_jit(cases[0], "60%" if tiny else "20%")
    print(f"inside a jit with update and donation: {after} of {before} B, {after / before:.3f}")
    deep = transformer(6, 32, 2, 16) if tiny else transformer(24)
    start = time.process_time()
    step = ckpt.jax.plan(deep.loss_of(as_it_is), *deep.args, budget="40%", compile=False)
    seconds = time.process_time() - start
    temp = ckpt.jax.measure(step, *deep.args)
    print(
        f"{deep.name}: graph and plan {seconds:.1f} s of CPU, without compiling; compiling then "
        f"takes {temp.seconds:.1f} s"
    )
    caption = (
        f"jax {jax.__version__}, one thread of a CPU; temporaries by XLA's own memory analysis, "
        "CPU seconds, medians of interleaved steps."
    )
    for kind in ("png", "svg"):
        title = "The same step within fewer bytes, compiled: what it costs in time"
        save(figure_of(rows, title=title, caption=caption), options.folder / f"bench_jax.{kind}")
    return rows


if __name__ == "__main__":
    main()
