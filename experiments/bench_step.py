"""How near does a training step come to the NumPy that one would write by hand for it?

Question: of steps that are mostly calls, mostly memory and mostly products, how much time does the
eager tape take, and a planned step (store-all, bound to its arrays), over the same step written by
hand with fresh arrays? What do hand-written reused buffers, HIPS autograd, PyTorch, jax.jit and
micrograd take in the same run?
Theory says: the products and ufuncs are the same, so where arrays are large an eager step comes to
one, and where they are small it is the price of its nodes. A planned step pays no page faults, and
no Python but the calls.
Run: python experiments/bench_step.py [--rounds 15] [--only mlp16 ...] [--threads 1 2] [--json]
[--folder plots], and --rows FILE ... to draw what --json said
Each round runs all ways of a case in turn (short steps twice in a row, of which it times the
second), on one thread in CPU seconds of the process, on several (of BLAS as of ckpt) by the clock;
a row is the median over rounds of the ratio to the hand-written one in the same round. Gradients
are compared first. How many cores other processes had meanwhile is said with the rows.
Found: (plots/bench_step.png: two cores that had nothing else to do, all libraries in one process)
on one thread, planned (HIPS autograd: 2.0 to 38), MLP 100 x 16 0.75, 100 x 256 0.99 (its products
alone 0.87, all its calls 0.95), 24 x 256 at batch 8192 0.94, gelu of 16 MiB 0.76 and from its
formula 1.27, transformer at batch 8 1.10 and at batch 64 1.08, conv net 0.72 (PyTorch 0.45);
eagerly 2.90, 1.10, 0.97, 0.91, 1.23, 1.34, 0.72; chains of 900 and 100,000 scalars (on busy cores)
0.79 and 0.38 of micrograd's time, by a number 0.64 and 0.33: of 100,000 a third is the collector's,
which passes five times over what lives, and next to nothing of 900. On two threads, over the step
by hand with as many of BLAS: 0.73, 0.94, 0.96, 0.47 and 0.79, 1.15, 1.18, 0.90. The gelu alone
gains from the second core; between products OpenBLAS's own threads spin on it (with
OPENBLAS_THREAD_TIMEOUT=4 they sleep).
Much is malloc's: here it keeps its pages. In a process of its own, where it gives them back and the
step by hand meets page faults, the wide MLP is 0.50 to 0.86 planned (products 0.40 to 0.57), the
gelu 0.54 to 0.61, the transformer 0.83 at batch 8 and 0.70 to 1.07 at batch 64. A gelu's 27 calls
on tiles that are there take 15 to 17 ms, planned it takes 15, and 3 more of page faults where its
gradient's pages are new; by hand 18 to 20 ms, or 29 to 33. An eager step of 100 x 256 is 1.06 to
1.08 in a process of its own: its calls on fresh arrays alone 1.01, the check of in-place changes
0.02, and the rest is what 300 nodes take at width 16, too, 5 us each.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ.get("THREADS", "1")
os.environ["MKL_NUM_THREADS"] = os.environ.get("THREADS", "1")
os.environ["OMP_NUM_THREADS"] = os.environ.get("THREADS", "1")
os.environ["VECLIB_MAXIMUM_THREADS"] = os.environ.get("THREADS", "1")

import bench_nn
import numpy as np
from figure_speed import speed_figure

import ckpt
from ckpt import Value, nn
from ckpt.reports.figure import save
from ckpt.tape.core.tree import leaves, rebuild

Array = Any
Step = Callable[[], Any]
THREADS = int(os.environ["OMP_NUM_THREADS"])
A, C = 0.044715, float(np.sqrt(2 / np.pi))


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


# -- multilayer perceptrons: h = f(h @ w + b), the loss the sum of squares -------------------------


def mlp(np: Any, activation: Any, params: Any, x: Any) -> Any:
    for w, b in params:
        x = activation(x @ w + b)
    return np.sum(x * x)


def gelu(np: Any, x: Any) -> Any:
    """As one writes it from its formula."""
    return 0.5 * x * (1 + np.tanh(C * (x + A * (x * x * x))))


def hand_mlp(gelus: bool, params: Any, x: Array) -> tuple[Any, Any]:
    tape = []
    for w, b in params:
        u = x @ w
        u += b
        if gelus:
            y, t = bench_nn.hand_gelu(u)
            tape.append((x, u, t))
        else:
            y = np.tanh(u, out=u)
            tape.append((x, y, None))
        x = y
    loss = np.sum(x * x)
    g = 2 * x
    grads: list[Any] = []
    for w, _ in reversed(params):
        x, y, t = tape.pop()
        if t is not None:
            g = bench_nn.hand_gelu_back(g, y, t)
        else:
            d = y * y
            g *= np.subtract(1, d, out=d)
        grads.append((x.T @ g, g.sum(0)))
        if tape:
            g = g @ w.T
    return loss, grads[::-1]


def hand_mlp_reusing(params: Any, x: Array) -> Step:
    """The tanh one with every array but the gradients allocated beforehand."""
    shape = len(x), params[0][0].shape[1]
    kept = [np.empty(shape, x.dtype) for _ in params]
    g, d, other = (np.empty(shape, x.dtype) for _ in range(3))

    def step() -> tuple[Any, Any]:
        h = x
        for (w, b), y in zip(params, kept, strict=True):
            np.dot(h, w, y)
            np.add(y, b, y)
            h = np.tanh(y, y)
        np.multiply(h, h, d)
        loss = np.add.reduce(d, None)
        here, there = np.multiply(h, 2, g), other
        grads: list[Any] = []
        for k in range(len(params) - 1, -1, -1):
            np.multiply(kept[k], kept[k], d)
            np.subtract(1, d, d)
            np.multiply(here, d, here)
            below = kept[k - 1] if k else x
            grads.append((below.T.dot(here), np.add.reduce(here, 0)))
            if k:
                np.dot(here, params[k][0].T, there)
                here, there = there, here
        return loss, grads[::-1]

    return step


def mlp_in_torch(gelus: bool, params: Any, x: Any) -> Any:
    import torch

    for w, b in params:
        x = torch.addmm(b, x, w)
        x = torch.nn.functional.gelu(x, approximate="tanh") if gelus else torch.tanh(x)
    return (x * x).sum()


def mlp_case(depth: int, width: int, batch: int, gelus: bool) -> dict[str, Step]:
    rng = np.random.default_rng(0)
    params = [
        (normal(rng, width, width, scale=width**-0.5), normal(rng, width, scale=0.1))
        for _ in range(depth)
    ]
    x = normal(rng, batch, width)
    steps: dict[str, Step] = {"hand": partial(hand_mlp, gelus, params, x)}
    if not gelus:
        steps["hand, reused buffers"] = hand_mlp_reusing(params, x)
    steps |= of_ckpt(partial(mlp, np, nn.gelu if gelus else np.tanh), params, x)
    if gelus:
        formula = of_ckpt(partial(mlp, np, partial(gelu, np)), params, x)
        steps |= {f"{way}, gelu's formula": step for way, step in formula.items()}
    make = (lambda np: partial(gelu, np)) if gelus else (lambda np: np.tanh)
    steps |= peers(lambda np: partial(mlp, np, make(np)), params, x)
    return {**steps, **in_torch(partial(mlp_in_torch, gelus), params, x)}


def gelu_case(rows: int) -> dict[str, Step]:
    """Forward and backward of a gelu, of a float32 array of ``rows`` KiB."""
    rng = np.random.default_rng(0)
    x, weights = normal(rng, rows, 256), normal(rng, rows, 256)

    def loss(activation: Any, np: Any, x: Any, weights: Any) -> Any:
        return np.sum(activation(x) * weights)

    def hand() -> tuple[Any, Any]:
        y, t = bench_nn.hand_gelu(x)
        y *= weights
        return np.sum(y), bench_nn.hand_gelu_back(weights, x, t)

    def loss_in_torch(x: Any, weights: Any) -> Any:
        import torch

        return (torch.nn.functional.gelu(x, approximate="tanh") * weights).sum()

    formula = of_ckpt(partial(loss, partial(gelu, np), np), x, weights)
    return {
        "hand": hand,
        **of_ckpt(partial(loss, nn.gelu, np), x, weights),
        **{f"{way}, gelu's formula": step for way, step in formula.items()},
        **peers(lambda np: partial(loss, partial(gelu, np), np), x, weights),
        **in_torch(loss_in_torch, x, weights),
    }


# -- a transformer of elementary functions, and a conv net: shapes and hand-written in bench_nn ----


def normed(np: Any, x: Any, g: Any, b: Any) -> Any:
    z = x - np.mean(x, axis=-1, keepdims=True)
    return z / np.sqrt(np.mean(z * z, axis=-1, keepdims=True) + bench_nn.EPS) * g + b


def transformer(np: Any, p: Any, tokens: Array, targets: Array, future: Array) -> Any:
    batch, length = tokens.shape
    heads, width = bench_nn.HEADS, bench_nn.WIDTH
    x = np.reshape(p["tokens"][tokens] + p["positions"], (-1, width))
    for layer in p["layers"]:
        h = normed(np, x, layer["g1"], layer["b1"])
        qkv = h @ layer["qkv"] + layer["qkv_b"]
        qkv = np.transpose(np.reshape(qkv, (batch, length, 3, heads, -1)), (2, 0, 3, 1, 4))
        a = qkv[0] @ np.swapaxes(qkv[1], -1, -2) * (width // heads) ** -0.5 + future
        a = np.exp(a - np.max(a, axis=-1, keepdims=True))
        a = a / np.sum(a, axis=-1, keepdims=True)
        out = np.reshape(np.transpose(a @ qkv[2], (0, 2, 1, 3)), (-1, width))
        x = x + (out @ layer["out"] + layer["out_b"])
        h = normed(np, x, layer["g2"], layer["b2"])
        h = gelu(np, h @ layer["up"] + layer["up_b"])
        x = x + (h @ layer["down"] + layer["down_b"])
    logits = normed(np, x, p["g"], p["b"]) @ p["head"]
    logits = logits - np.max(logits, axis=-1, keepdims=True)
    picked = logits[np.arange(len(x)), np.reshape(targets, -1)]
    return np.mean(np.log(np.sum(np.exp(logits), axis=-1)) - picked)


def transformer_in_torch(p: Any, tokens: Any, targets: Any, future: Any) -> Any:
    from torch.nn import functional as nn

    batch, length = tokens.shape
    heads, width = bench_nn.HEADS, bench_nn.WIDTH
    x = (p["tokens"][tokens] + p["positions"]).reshape(-1, width)
    for w in p["layers"]:
        h = nn.layer_norm(x, (width,), w["g1"], w["b1"], bench_nn.EPS)
        qkv = (h @ w["qkv"] + w["qkv_b"]).reshape(batch, length, 3, heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5 + future).softmax(-1)
        x = x + ((a @ v).transpose(1, 2).reshape(-1, width) @ w["out"] + w["out_b"])
        h = nn.layer_norm(x, (width,), w["g2"], w["b2"], bench_nn.EPS)
        h = nn.gelu(h @ w["up"] + w["up_b"], approximate="tanh")
        x = x + (h @ w["down"] + w["down_b"])
    x = nn.layer_norm(x, (width,), p["g"], p["b"], bench_nn.EPS)
    return nn.cross_entropy(x @ p["head"], targets.reshape(-1))


def transformer_case(batch: int) -> dict[str, Step]:
    rng = np.random.default_rng(0)
    length = bench_nn.SEQUENCE
    tokens, targets = rng.integers(0, bench_nn.VOCABULARY, (2, batch, length))
    future = np.triu(np.full((length, length), -1e9, np.float32), 1)
    params = bench_nn.transformer_params(rng)
    return {
        "hand": lambda: bench_nn.hand_transformer(params, tokens, targets),
        **of_ckpt(partial(transformer, np), params, tokens, targets, future),
        **peers(lambda np: partial(transformer, np), params, tokens, targets, future),
        **in_torch(transformer_in_torch, params, tokens, targets, future),
    }


def conv_in_torch(ws: Any, x: Any) -> Any:
    import torch

    for w in ws:
        x = torch.relu(torch.nn.functional.conv2d(x, w, padding=1))
    return (x * x).mean()


def conv_case() -> dict[str, Step]:
    rng = np.random.default_rng(0)
    n = bench_nn
    params, images = n.conv_params(rng), normal(rng, n.IMAGES, n.CHANNELS, n.SIZE, n.SIZE)
    return {
        "hand": partial(n.hand_conv, params, images),
        **of_ckpt(n.conv_loss, params, images),
        **in_torch(conv_in_torch, params, images),
    }


# -- the ways --------------------------------------------------------------------------------------


def of_ckpt(loss: Any, *args: Any) -> dict[str, Step]:
    return {
        "eager": partial(ckpt.value_and_grad(loss), *args),
        "planned": partial(ckpt.plan(loss, *args, planner="store_all"), *args),
    }


def peers(loss_in: Callable[[Any], Any], *args: Any) -> dict[str, Step]:
    """The same function in the libraries that have NumPy's names, where they are installed."""
    steps: dict[str, Step] = {}
    if importlib.util.find_spec("autograd"):
        import autograd  # type: ignore[import-untyped]
        import autograd.numpy as anp  # type: ignore[import-untyped]

        steps["autograd"] = partial(autograd.value_and_grad(loss_in(anp)), *args)
    if importlib.util.find_spec("jax"):
        import jax  # type: ignore[import-not-found, unused-ignore]
        import jax.numpy as jnp  # type: ignore[import-not-found, unused-ignore]

        compiled = jax.jit(jax.value_and_grad(loss_in(jnp)))
        steps["jax.jit"] = lambda: jax.block_until_ready(compiled(*args))
    return steps


def in_torch(loss: Callable[..., Any], params: Any, *data: Array) -> dict[str, Step]:
    """A loss of tensors in PyTorch, eagerly, where that is installed."""
    if not importlib.util.find_spec("torch"):
        return {}
    import torch

    torch.set_num_threads(THREADS)
    given = rebuild(params, lambda a: torch.from_numpy(a.copy()).requires_grad_())
    rest = [torch.from_numpy(a) for a in data]

    def step() -> tuple[Any, Any]:
        value = loss(given, *rest)
        value.backward()
        grads = rebuild(given, lambda a: a.grad)
        for leaf in leaves(given):
            leaf.grad = None
        return value.item(), grads

    return {"torch": step}


def check(steps: dict[str, Step]) -> None:
    """Every way finds the gradients that are found by hand, to float32's rounding."""
    want = steps["hand"]()[1]
    for name, step in steps.items():
        got = step()[1]
        for a, b in zip(leaves(got), leaves(bench_nn._like(want, got)), strict=True):
            error = np.abs(np.asarray(a) - b).max() / np.abs(b).max()
            if not error < 1e-2:
                raise AssertionError(f"{name}: a gradient is off by {error:.1e}")


LONG = 0.1
"""Seconds of a step from which on nothing of a cache is left from its beginning at its end."""


def timed(step: Step, again: bool = False) -> float:
    """CPU seconds of one thread, or of several the time that they take; ``again``: of the second of
    two steps in a row, whose arrays are in the cache, and not another way's."""
    clock = time.process_time if THREADS == 1 else time.perf_counter
    if again:
        step()
    start = clock()
    step()
    return clock() - start


def compared(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """The seconds of the first step, and of each other one the ratio to it."""
    again = {name: timed(step) < LONG for name, step in steps.items()}
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            gc.collect()  # or this step pays for the cycles that another way's left
            found[name].append(timed(step, again[name]))
    first, *others = found
    ratios = {
        name: statistics.median(a / b for a, b in zip(found[name], found[first], strict=True))
        for name in others
    }
    return {first: statistics.median(found[first]), **ratios}


def cores_of_others(work: Callable[[], dict[str, float]]) -> tuple[dict[str, float], float]:
    """What it gives, and how many cores other processes had meanwhile (nan where nobody says)."""
    began = time.monotonic(), _seconds_of_all() - time.process_time()
    found = work()
    elapsed = time.monotonic() - began[0]
    others = _seconds_of_all() - time.process_time() - began[1]
    return found, max(others, 0.0) / elapsed


def _seconds_of_all() -> float:
    """CPU seconds of all processes since the machine started, as Linux says."""
    try:
        said = Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    except OSError:
        return math.nan
    user, nice, system, _idle, _waiting, *interrupts = map(int, said)
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


# -- chains of scalars: x * a, then + b, all three of them Values ----------------------------------


def chain(kind: Any, length: int) -> Step:
    def step() -> float:
        x, a, b = kind(0.5), kind(0.999), kind(0.001)
        y = x
        for _ in range(length // 2):
            y = y * a + b
        y.backward()
        return float(a.grad)

    return step


def numbers_chain(length: int) -> Step:
    """On Values and Python numbers."""

    def step() -> float:
        x = Value(0.5)
        y = x
        for _ in range(length // 2):
            y = y * 0.999 + 0.001
        y.backward()
        return float(x.grad)

    return step


def chain_case(length: int, rounds: int) -> dict[str, float]:
    """Micrograd's is the first where it is installed. Its backward is recursive."""
    steps: dict[str, Step] = {}
    if importlib.util.find_spec("micrograd"):
        from micrograd.engine import Value as Scalar  # type: ignore[import-untyped]

        steps["micrograd"] = chain(Scalar, length)
    steps |= {"eager": chain(Value, length), "eager, x * 0.999": numbers_chain(length)}
    found: dict[str, float] = {}
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    size = threading.stack_size(2**29)
    thread = threading.Thread(target=lambda: found.update(compared(steps, rounds)))
    thread.start()
    thread.join()
    threading.stack_size(size)
    sys.setrecursionlimit(before)
    first = next(iter(steps))
    return {**found, first: found[first] / length}


CASES: dict[str, tuple[str, Callable[[], dict[str, Step]], int]] = {
    "mlp16": ("MLP with bias 100 x 16, batch 4", partial(mlp_case, 100, 16, 4, False), 8),
    "mlp256": ("MLP with bias 100 x 256, batch 64", partial(mlp_case, 100, 256, 64, False), 1),
    "wide": ("MLP 24 x 256, batch 8192, gelu", partial(mlp_case, 24, 256, 8192, True), 0),
    "gelu": ("gelu of 16 MiB", partial(gelu_case, 2**14), 1),
    "transformer": ("transformer 12 x 128, batch 8", partial(transformer_case, 8), 1),
    "large": ("transformer 12 x 128, batch 64", partial(transformer_case, 64), 0),
    "conv": ("conv 20 x 32 channels", conv_case, 0),
}
"""Name -> title, the ways, and how many more rounds it takes (small steps are noisier)."""
CHAINS = {"chain900": 900, "chain100000": 100_000}


def on(threads: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a run of its own on so many threads, which libraries ask for as they begin."""
    command = [sys.executable, __file__, "--rounds", str(options.rounds), "--json"]
    found = subprocess.run(
        [*command, "--only", *options.only], env={**os.environ, "THREADS": str(threads)},
        stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    rows: list[dict[str, Any]] = json.loads(found.stdout)
    return rows


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[*CASES, *CHAINS], default=[*CASES, *CHAINS])
    parser.add_argument("--threads", nargs="+", type=int, help="a run on each of these numbers")
    parser.add_argument("--folder", type=Path, help="where to draw the figure (plots)")
    parser.add_argument("--note", default="", help="more words below the figure")
    parser.add_argument("--rows", nargs="+", type=Path, help="what --json said, to draw it")
    options = parser.parse_args(arguments)
    if options.rows:
        rows = [row for path in options.rows for row in json.loads(path.read_text())]
    elif options.threads:
        rows = [row for n in options.threads for row in on(n, options)]
        if not options.json:
            print(table(rows))
    else:
        rows = measured(options)
    if options.json:
        print(json.dumps(rows))
    if options.folder:
        taken = max(row.get("others", math.nan) for row in rows)
        said = f"others had {taken:.1f} of {os.cpu_count()} cores at most" * (taken == taken)
        caption = f"float32, medians of paired rounds; {said}. {options.note}"
        figure = speed_figure(rows, caption.strip())
        for kind in ("png", "svg"):
            print("wrote", save(figure, options.folder / f"bench_step.{kind}"), file=sys.stderr)
    return rows


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    for name in options.only:
        if name in CASES:
            title, make, more = CASES[name]
            steps = make()
            check(steps)
            work = partial(compared, steps, options.rounds * (1 + more))
        else:
            title = f"chain of {CHAINS[name]:,} scalar operations, each"
            rounds = options.rounds * (1 + 50 * (name == "chain900"))
            work = partial(chain_case, CHAINS[name], rounds)
        found, others = cores_of_others(work)
        for way, ratio in found.items():
            row = {"case": title, "way": way, "measured": ratio, "threads": THREADS}
            rows.append({**row, "others": others})
            first = way == next(iter(found))
            shown = f"{ratio * 1e6:10.2f} us" if first else f"{ratio:10.3f} x"
            busy = f"  others {others:.2f} cores" if first else ""
            out = sys.stderr if options.json else sys.stdout
            print(f"{title if first else '':44} {way:26} {shown}{busy}", file=out, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line a case and way, a column a number of threads."""
    counts = sorted({row["threads"] for row in rows})
    lines = [f"{'':70}" + "".join(f"{n:>9} thread{'s' * (n > 1)}" for n in counts)]
    for case, way in dict.fromkeys((row["case"], row["way"]) for row in rows):
        found = {r["threads"]: r["measured"] for r in rows if (r["case"], r["way"]) == (case, way)}
        first = next(row["way"] for row in rows if row["case"] == case) == way
        shape = "14.3g} s" if first else "14.2f} x"
        cells = "".join(("{:" + shape).format(found[n]) for n in counts if n in found)
        lines.append(f"{case if first else '':44}{way:26}{cells}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
