"""What the training experiments share: one optimiser, one loop, one comparison."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from figure_training import training_figure

import ckpt
from ckpt.models.base import Workload
from ckpt.reports.figure import save
from ckpt.studies.profile import profile
from ckpt.tape.core import tree
from ckpt.units import format_bytes, format_seconds

PLOTS = Path(__file__).resolve().parent.parent / "plots"
Row = dict[str, Any]


class Adam:
    """Kingma & Ba 2015, Algorithm 1. Updates the parameters' arrays in place."""

    def __init__(self, params: Any, rate: float) -> None:
        self.params = list(tree.leaves(params))
        self.rate = rate
        self.mean = [np.zeros_like(p) for p in self.params]
        self.square = [np.zeros_like(p) for p in self.params]
        self.turn = 0

    def step(self, grads: Any) -> None:
        self.turn += 1
        correct_mean, correct_square = 1 - 0.9**self.turn, 1 - 0.999**self.turn
        for p, g, m, s in zip(self.params, tree.leaves(grads), self.mean, self.square, strict=True):
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            p -= self.rate * (m / correct_mean) / (np.sqrt(s / correct_square) + 1e-8)


def train(
    step: Callable[..., Any], params: Any, batches: Iterable[tuple[Any, ...]], rate: float
) -> list[Row]:
    """Train ``params`` in place; a row a step: loss and seconds."""
    optimiser = Adam(params, rate)
    rows = []
    for number, batch in enumerate(batches, 1):
        start = time.perf_counter()
        loss, grads = step(params, *batch)
        optimiser.step(grads)
        rows.append({"step": number, "loss": float(loss), "seconds": time.perf_counter() - start})
    return rows


def compare(
    name: str,
    workloads: dict[str, Workload],
    batches: Callable[[], Iterable[tuple[Any, ...]]],
    *,
    rate: float,
    seed: int,
    caption: str,
) -> dict[str, list[Row]]:
    """Train each workload from the same parameters on the same batches; print, draw, return."""
    runs, timelines = {}, {}
    for label, workload in workloads.items():
        params, *_ = workload.arrays(seed)
        first = next(iter(batches()))
        found = profile(workload.loss, params, *first)
        assert found.measured is not None
        rows = train(ckpt.value_and_grad(workload.loss), params, batches(), rate)
        for row in rows:
            row["peak_nbytes"] = found.measured.peak
        runs[label], timelines[label] = rows, found.measured
        seconds = float(np.median([row["seconds"] for row in rows]))
        print(
            f"{label:>10}: loss {rows[0]['loss']:.4f} -> {rows[-1]['loss']:.4f} in {len(rows)} "
            f"steps, measured peak {format_bytes(found.measured.peak)}, "
            f"{format_seconds(seconds)} a step, recompute {100 * found.simulated.overhead:.0f} %"
        )
    losses = [[row["loss"] for row in rows] for rows in runs.values()]
    print("losses identical, bit for bit:", all(row == losses[0] for row in losses))
    figure = training_figure(runs, timelines=timelines, title=name, caption=caption)
    for kind in ("png", "svg"):
        path = PLOTS / f"{name.split(':')[0].replace(' ', '_')}.{kind}"
        save(figure, path)
        print("wrote", path.relative_to(PLOTS.parent))
    return runs
