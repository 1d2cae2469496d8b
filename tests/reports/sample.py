"""Hand-made graphs and the schedules of simple strategies, for reports to draw."""

from __future__ import annotations

from typing import Any

from ckpt.graph import Graph, Node
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.simulate import simulate
from ckpt.timeline import Timeline

UNIT = 256 * 1024


def residual_chain(depth: int, unit: int = UNIT) -> Graph:
    """x, then ``depth`` blocks of norm, matmul, gelu, matmul, add; then a scalar loss."""
    nodes = [
        Node(
            name="x", op="input", shape=(256, 256), nbytes=unit, resident=True, requires_grad=False
        )
    ]

    def parameter() -> int:
        nodes.append(Node(name="w", op="parameter", shape=(256,), nbytes=unit // 8, resident=True))
        return len(nodes) - 1

    def add(
        op: str, deps: tuple[int, ...], size: int, reads: tuple[int, ...], work: int = 0
    ) -> int:
        how = "handed" if op == "add" else "fresh"
        kinds = tuple(how if nodes[d].requires_grad else None for d in deps)
        nodes.append(
            Node(
                name=op,
                op=op,
                deps=deps,
                shape=(256, size // 1024) if size > 4 else (),
                nbytes=size,
                flops=size * (64 if op == "matmul" else 1),
                backward_flops=size * (128 if op == "matmul" else 2),
                residuals=reads,
                workspace=work,
                backward_workspace=tuple(work if kind else 0 for kind in kinds),
                cotangents=kinds,
                source=f"model.py:{3 + len(nodes) % 7}",
            )
        )
        return len(nodes) - 1

    h = 0
    for _ in range(depth):
        w1, w2 = parameter(), parameter()
        normed = add("layer_norm", (h,), unit, (h,), unit // 2)
        up = add("matmul", (normed, w1), 4 * unit, (normed, w1))
        act = add("gelu", (up,), 4 * unit, (up,), 2 * unit)
        down = add("matmul", (act, w2), unit, (act, w2))
        h = add("add", (h, down), unit, ())
    loss = add("mean", (h,), 4, ())
    return Graph(tuple(nodes), (loss,), name="residual_mlp")


def schedule(graph: Graph, kept: set[int] | None = None, planner: str = "store_all") -> Schedule:
    """Forward, then backward. A node outside ``kept`` is freed after its last forward reader, and
    recomputed with what it needs before the Backward that reads it."""
    steps: list[Instruction] = []
    live = {i for i, node in enumerate(graph) if node.resident}
    kept = set(range(len(graph))) if kept is None else kept | set(graph.outputs)

    def compute(i: int) -> None:
        steps.append(Compute(i))
        live.add(i)

    def free(i: int) -> None:
        steps.append(Free(i))
        live.discard(i)

    last = {i: max(readers, default=i) for i, readers in enumerate(graph.readers)}
    for i, node in enumerate(graph):
        if not node.resident:
            compute(i)
            for j in sorted(live - kept):
                if last[j] <= i and not graph[j].resident:
                    free(j)
    for i in graph.backward_order:
        missing: set[int] = set()
        wanted = list(graph[i].residuals)
        while wanted:
            j = wanted.pop()
            if j not in live and j not in missing:
                missing.add(j)
                wanted.extend(graph[j].deps)
        for j in sorted(missing):
            compute(j)
        steps.append(Backward(i))
        for j in sorted(live):
            fixed = graph[j].resident or j in graph.outputs
            if not fixed and j >= i - 1 and all(r >= i for r in graph.backward_readers[j]):
                free(j)
    return Schedule(tuple(steps), graph.digest, planner)


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
