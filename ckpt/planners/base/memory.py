"""What no schedule can change, and so what a planner may know before it has one.

Backwards come in one order, so the bytes that cotangents take between two Backwards, and what a
Backward needs beyond the activations that are live, are the same in every schedule of a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

from ckpt.graph import Graph
from ckpt.schedule import Backward, Compute, Instruction, Schedule
from ckpt.simulate import simulate
from ckpt.timeline import BACKWARD


@dataclass(frozen=True)
class Memory:
    """The part of the memory model that is the same in every schedule of one graph. Bytes."""

    between: tuple[int, ...]
    """``between[k]``: cotangents that are live once k Backwards are done."""
    during: tuple[int, ...]
    """``during[k]``: the most that the k-th Backward holds beside activations and captured."""


def store_all_instructions(graph: Graph) -> list[Instruction]:
    """Every needed node once, then every Backward; nothing is freed."""
    forward = [Compute(i) for i in sorted(graph.needed) if not graph.nodes[i].resident]
    return [*forward, *map(Backward, graph.backward_order)]


def memory_of(graph: Graph) -> Memory:
    """Read the Memory of a graph off a simulation that frees nothing."""
    columns = simulate(graph, Schedule(tuple(store_all_instructions(graph)))).columns
    between, during = [0], []
    for position, phase in enumerate(columns["phase"]):
        if phase == BACKWARD:
            held = columns["activations"][position] + columns["captured"][position]
            during.append(columns["high"][position] - held)
            between.append(columns["cotangents"][position])
    return Memory(tuple(between), tuple(during))
