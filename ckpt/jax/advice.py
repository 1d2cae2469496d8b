"""What a plan can't change, and what to do about it."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.units import format_bytes


def advice(graph: Graph) -> list[str]:
    """Where no plan helps: one loop makes most of what is kept."""
    kept = {i: n.nbytes for i, n in enumerate(graph) if graph.step_readers[i] and not n.resident}
    loops = [
        i for i, n in enumerate(graph)
        if n.call and n.op in ("scan", "while")
        and sum(kept.get(r, 0) for r in graph.results[i]) > sum(kept.values()) / 2
    ]  # fmt: skip
    return [
        f"a {graph[i].op} at {graph[i].source} keeps "
        f"{format_bytes(sum(kept.get(r, 0) for r in graph.results[i]))}, most of all, and is one "
        "node: no plan helps it; write its turns as a loop of Python, or put jax.checkpoint around "
        "its body"
        for i in loops
    ]
