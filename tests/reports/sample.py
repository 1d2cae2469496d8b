"""Hand-made graphs and the schedules of simple strategies, for reports to draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.timeline import Timeline
from tests.graphs import Build

UNIT = 256 * 1024


def residual_chain(depth: int, unit: int = UNIT) -> Graph:
    """x, then ``depth`` blocks of norm, matmul, gelu, matmul, add; then a scalar loss."""
    b = Build()

    def shaped(i: int, shape: tuple[int, ...], name: str) -> int:
        source = "" if b.nodes[i].resident else f"model.py:{3 + i % 7}"
        b.nodes[i] = replace(b.nodes[i], shape=shape, dtype="float32", name=name, source=source)
        return i

    def parameter() -> int:
        return shaped(b.resident(unit // 8), (256,), "w")

    def add(op: str, *deps: int, size: int, reads: tuple[int, ...] = (), work: int = 0) -> int:
        i = b.op(
            op,
            *deps,
            nbytes=size,
            flops=size * (64 if op == "matmul" else 1),
            reads=reads,
            kinds="handed" if op == "add" else "fresh",
            work=work,
            backward_work=work,
        )
        return shaped(i, (256, size // 1024) if size > 4 else (), op)

    h = shaped(b.resident(unit, grad=False), (256, 256), "x")
    for _ in range(depth):
        w1, w2 = parameter(), parameter()
        normed = add("layer_norm", h, size=unit, reads=(0,), work=unit // 2)
        up = add("matmul", normed, w1, size=4 * unit, reads=(0, 1))
        act = add("gelu", up, size=4 * unit, reads=(0,), work=2 * unit)
        down = add("matmul", act, w2, size=unit, reads=(0, 1))
        h = add("add", h, down, size=unit)
    loss = add("mean", h, size=4)
    graph = b.graph(loss, name="residual_mlp")
    steps = (replace(step, source=graph[step.at or 0].source) for step in graph.steps)
    return replace(graph, steps=tuple(steps))


def schedule(graph: Graph, kept: set[int] | None = None, planner: str = "store_all") -> Schedule:
    """Forward, then backward. A node outside ``kept`` is freed after its last forward reader, and
    recomputed with what it needs before the Backward that reads it."""
    instructions: list[Instruction] = []
    live = {i for i, node in enumerate(graph) if node.resident}
    kept = set(range(len(graph))) if kept is None else kept | set(graph.outputs)

    def compute(i: int) -> None:
        instructions.append(Compute(i))
        live.add(i)

    def free(i: int) -> None:
        instructions.append(Free(i))
        live.discard(i)

    last = {i: max(readers, default=i) for i, readers in enumerate(graph.readers)}
    for i, node in enumerate(graph):
        if not node.resident:
            compute(i)
            for j in sorted(live - kept):
                if last[j] <= i and not graph[j].resident:
                    free(j)
    for k, step in enumerate(graph.steps):
        missing: set[int] = set()
        wanted = list(step.reads)
        while wanted:
            j = wanted.pop()
            if j not in live and j not in missing:
                missing.add(j)
                wanted.extend(graph[j].deps)
        for j in sorted(missing):
            compute(j)
        instructions.append(Backward(k))
        at = step.at or 0
        for j in sorted(live):
            fixed = graph[j].resident or j in graph.outputs
            if not fixed and j >= at - 1 and all(q <= k for q in graph.step_readers[j]):
                free(j)
    return Schedule(tuple(instructions), graph.digest, planner)


def timeline(depth: int, every: int | None = None) -> tuple[Graph, Timeline]:
    """The chain, and its timeline when only the output of every ``every``-th block is kept."""
    graph = residual_chain(depth)
    blocks = [i for i, node in enumerate(graph) if node.op == "add"]
    kept = None if every is None else set(blocks[every - 1 :: every])
    name = "store_all" if every is None else f"every:{every}"
    return graph, simulate(graph, schedule(graph, kept, name))


def sweep_rows(
    measure: bool = True,
    depths: tuple[int, ...] = (1, 4, 16),
    segments: tuple[int, ...] = (2, 4, 8),
) -> list[dict[str, Any]]:
    """Rows of a sweep over the chain; "measured" is the prediction and a little more."""
    plans = [
        (depth, strategy, every)
        for depth in depths
        for strategy, every in (("store_all", None), ("per_layer", 1), ("sqrt", round(depth**0.5)))
    ]
    plans += [(depths[-1], f"segments:{k}", max(1, depths[-1] // k)) for k in segments]
    rows = []
    for depth, strategy, every in plans:
        graph, line = timeline(depth, every)
        rows.append(
            {
                "model": "residual_mlp",
                "depth": depth,
                "strategy": strategy,
                "segments": -(-depth // every) if every else None,
                "predicted_peak_nbytes": line.peak,
                "measured_peak_nbytes": line.peak + 9000 if measure else None,
                "predicted_whole_peak_nbytes": line.whole_peak,
                "forward_flops": line.forward_flops,
                "recompute_flops": line.recompute_flops,
                "step_flops": line.step_flops,
                "overhead": line.overhead,
                "recomputations": line.recomputations,
                "seconds": 1e-11 * line.step_flops if measure else None,
                "gradients_equal": True if measure else None,
                "nodes": len(graph),
                "dtype": "float32",
                "seed": 0,
            }
        )
    return rows


def frontier_rows() -> list[dict[str, Any]]:
    """Peaks and recompute of three made-up planners."""
    return [
        {
            "planner": planner,
            "budget_nbytes": budget * 2**20,
            "predicted_peak_nbytes": budget * 2**20 - 1000,
            "measured_peak_nbytes": budget * 2**20 if planner != "ilp" else None,
            "recompute_flops": factor * (100 - budget) * 10**6,
            "gap_percent": 10.0 * (factor - 1),
        }
        for planner, factor in (("chain", 1), ("ilp", 2), ("recompute_all", 90))
        for budget in (25, 50, 75)
    ]
