"""What a planner minimises: what it costs to compute each value once more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt.graph import Graph
from ckpt.units import format_bytes, format_flops, format_seconds

FLOPS_A_BYTE = 8
"""What a roofline weighs a byte by: FLOPs that a processor does while it moves one."""


def format_cost(unit: str, amount: float) -> str:
    """An amount in words: ``2.5 GFLOP``, ``64 MiB``, ``4.2 ms``."""
    if unit == "nanoseconds":
        return format_seconds(amount / 1e9)
    return format_bytes(amount) if unit == "bytes" else format_flops(amount)


@dataclass(frozen=True)
class Cost:
    """An amount for each node and each step of the backward, in whole numbers of one unit."""

    unit: str
    """``flops``, ``bytes`` moved, or ``nanoseconds``."""
    nodes: tuple[int, ...]
    steps: tuple[int, ...]

    def forward(self, graph: Graph) -> int:
        """Of computing every value once."""
        return sum(self.nodes[i] for i in graph.computed)

    def backward(self) -> int:
        return sum(self.steps)

    def recompute(self, counts: Sequence[int]) -> int:
        """Of second and later Computes; ``counts`` tells how often each node was computed."""
        return sum((n - 1) * cost for n, cost in zip(counts, self.nodes, strict=True) if n > 1)


def flops(graph: Graph) -> Cost:
    return Cost("flops", tuple(n.flops for n in graph), tuple(s.flops for s in graph.steps))


def moved(graph: Graph) -> Cost:
    """Bytes read and written."""
    nodes = tuple(n.moved_nbytes for n in graph)
    return Cost("bytes", nodes, tuple(s.moved_nbytes for s in graph.steps))


def roofline(graph: Graph) -> Cost:
    """FLOPs, and for each byte moved as many as a processor does meanwhile."""
    flop, byte = flops(graph), moved(graph)
    return Cost(
        "flops",
        tuple(f + FLOPS_A_BYTE * b for f, b in zip(flop.nodes, byte.nodes, strict=True)),
        tuple(f + FLOPS_A_BYTE * b for f, b in zip(flop.steps, byte.steps, strict=True)),
    )
