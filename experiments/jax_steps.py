"""What the experiments on JAX share: two models of blocks, ways to run a step, rows, a figure."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

import ckpt.jax
from ckpt.errors import BudgetError
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.drawing import best_of
from ckpt.reports.style import BLACK, BLUE, ORANGE, VERMILLION
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class JaxCase:
    """A stack of blocks: ``loss_of(wrap)`` is its loss with each block wrapped."""

    name: str
    loss_of: Callable[[Wrap], Callable[..., Any]]
    args: tuple[Any, ...]


def layer(p: Any, x: Any) -> Any:
    return x + jax.nn.gelu(x @ p["w"] + p["b"])


def norm(x: Any, scale: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale


def block(p: Any, x: Any, heads: int = 4) -> Any:
    batch, length, width = x.shape
    parts = jnp.split(norm(x, p["n1"]) @ p["qkv"], 3, -1)
    q, k, v = (a.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for a in parts)
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e30)
    mixed = (jax.nn.softmax(scores, -1) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
    x = x + mixed @ p["out"]
    return x + jax.nn.gelu(norm(x, p["n2"]) @ p["up"]) @ p["down"]


def stacked(one: Callable[..., Any]) -> Callable[[Wrap], Callable[..., Any]]:
    def loss_of(wrap: Wrap) -> Callable[..., Any]:
        wrapped = wrap(one)

        def loss(params: Any, x: Any) -> Any:
            for p in params:
                x = wrapped(p, x)
            return jnp.mean(x * x)

        return loss

    return loss_of


def mlp(depth: int = 32, width: int = 512, batch: int = 1024) -> JaxCase:
    keys = jax.random.split(jax.random.key(0), depth)
    params = [
        {"w": jax.random.normal(k, (width, width)) * width**-0.5, "b": jnp.zeros(width)}
        for k in keys
    ]
    name = f"MLP, {depth} x {width}, batch {batch}"
    return JaxCase(name, stacked(layer), (params, jax.random.normal(keys[0], (batch, width))))


def transformer(depth: int = 8, width: int = 256, batch: int = 4, length: int = 256) -> JaxCase:
    shapes = {"qkv": (1, 3), "out": (1, 1), "up": (1, 4), "down": (4, 1)}
    keys = jax.random.split(jax.random.key(0), depth)

    def one(key: Any) -> Any:
        made: dict[str, Any] = {"n1": jnp.ones(width), "n2": jnp.ones(width)}
        for (name, (a, b)), k in zip(shapes.items(), jax.random.split(key, 4), strict=True):
            made[name] = jax.random.normal(k, (a * width, b * width)) * (a * width) ** -0.5
        return made

    x = jax.random.normal(keys[0], (batch, length, width))
    name = f"transformer, {depth} x {width}, {batch} x {length}"
    return JaxCase(name, stacked(block), ([one(k) for k in keys], x))


def as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def dots_saved(function: Callable[..., Any]) -> Callable[..., Any]:
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return jax.checkpoint(function, policy=policy)


def measured(case: JaxCase, budgets: Sequence[str], *, rounds: int = 3) -> list[Row]:
    """A row a way to run the step: temporaries, and time over the plain step's, in turns."""
    loss, args = case.loss_of(as_it_is), case.args
    ways: dict[str, tuple[Any, Row]] = {
        "plain": (jax.value_and_grad(loss), {}),
        "jax.checkpoint per block": (jax.value_and_grad(case.loss_of(jax.checkpoint)), {}),
        "jax.checkpoint, dots kept": (jax.value_and_grad(case.loss_of(dots_saved)), {}),
    }
    for budget in budgets:
        try:
            step = ckpt.jax.plan(loss, *args, budget=budget)
        except BudgetError as error:
            print(f"  {budget}: {error}", flush=True)
            continue
        timeline = step.timeline
        ways[f"planned, {budget}"] = step, {
            "budget_nbytes": step.found.limit,
            "recompute": timeline.recompute_flops / (step.graph.forward_flops
                                                     + step.graph.backward_flops),
            "compile_seconds": sum(row["temp"].seconds for row in step.found.tried),
        }  # fmt: skip
    compiled = {}
    rows: list[Row] = []
    reference: Any = None
    for way, (function, more) in ways.items():
        step = jax.jit(function).lower(*args).compile()
        compiled[way] = step
        result = jax.tree.leaves(jax.block_until_ready(step(*args)))
        reference = reference or result
        same = sum(bool((a == b).all()) for a, b in zip(result, reference, strict=True))
        rows.append(
            {"model": case.name, "way": way, "temp_nbytes":
             step.memory_analysis().temp_size_in_bytes, "same": same, "results": len(result),
             "xla_flops": step.cost_analysis()["flops"], **more}
        )  # fmt: skip
    seconds: dict[str, list[float]] = {way: [] for way in compiled}
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for _ in range(rounds):
        for way, step in compiled.items():
            before = clock()
            jax.block_until_ready(step(*args))
            seconds[way].append(clock() - before)
    plain = statistics.median(seconds["plain"])
    for row in rows:
        row["time"] = statistics.median(seconds[row["way"]]) / plain
        row["share"] = row["temp_nbytes"] / rows[0]["temp_nbytes"]
    return rows


def print_rows(rows: Sequence[Row]) -> None:
    print(rows[0]["model"])
    for row in rows:
        recompute = f", recompute {row['recompute']:.3f} of a step" if "recompute" in row else ""
        met = ""
        if "budget_nbytes" in row:
            met = ", met" if row["temp_nbytes"] <= row["budget_nbytes"] else ", NOT MET"
        print(
            f"  {row['way']:26} {format_bytes(row['temp_nbytes']):>9} {row['share']:.3f} of plain, "
            f"time {row['time']:.2f}, bits {row['same']} of {row['results']}{recompute}{met}",
            flush=True,
        )


def figure_of(rows: Sequence[Row], *, title: str, caption: str) -> Figure:
    """Temporaries against time, a panel for each model; plans are joined by steps."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure = new_figure(max(4.6 * len(names), 7), 4.6, title=title, caption=caption)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    looks = {
        "plain": (BLACK, "o"),
        "jax.checkpoint per block": (ORANGE, "D"),
        "jax.checkpoint, dots kept": (BLUE, "^"),
    }
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row["model"] == name]
        dress(axes, title=name, x="time of a step, plain = 1", y="XLA's temporaries", grid="both")
        for way, (colour, marker) in looks.items():
            for row in own:
                if row["way"] == way:
                    axes.plot(row["time"], row["temp_nbytes"], color=colour, marker=marker,
                              linestyle="none", label=way, markersize=9)  # fmt: skip
        planned = [row for row in own if row["way"].startswith("planned")]
        if planned:
            points = [(row["time"], row["temp_nbytes"]) for row in planned]
            axes.plot(*zip(*points, strict=True), color=VERMILLION, marker="s",
                      linestyle="none", label="ckpt.jax, over budgets", markersize=6)  # fmt: skip
            axes.step(*zip(*best_of(points), strict=True), where="post", color=VERMILLION,
                      linewidth=1.4)  # fmt: skip
        most = max(row["temp_nbytes"] for row in own)
        axes.set_ylim(0, 1.06 * most)
        byte_axis(axes.yaxis, high=most)
    legend(panels[0], loc="upper right")
    return figure
