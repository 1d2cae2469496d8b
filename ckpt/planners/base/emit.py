"""From an order of Computes and Backwards to a Schedule: when to free follows from when to compute.

A planner only says *when each value is computed*. Each value is then freed at its last read before
it is computed again (or before the end), so no schedule made here can forget a Free. What a planner
decides by computing a value a second time is that it was not kept in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from ckpt.graph import Graph
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule


def permanent(graph: Graph) -> frozenset[int]:
    """Nodes that are never rematerialized: once computed they stay until their last reader.

    Residents, captured arrays, and their views (which cost nothing to keep); outputs, and the
    values that share a buffer with one.
    """
    kept = {graph.owners[output] for output in graph.outputs}
    kept.update(i for i, node in enumerate(graph.nodes) if node.resident or node.captured)
    return frozenset(i for i, owner in enumerate(graph.owners) if owner in kept)


class Emitter:
    """Writes Computes and Backwards, and knows what is *available*: computed, and held since.

    A value that no one holds is forgotten by `settle`; whoever needs it later computes it again.
    Nothing is freed here: `schedule` puts each Free where the value was last read.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.steps: list[int] = []
        """i for a Compute of node i, ~i for its Backward."""
        self.available = bytearray(node.resident for node in graph.nodes)
        self.permanent = permanent(graph)
        self._holders = [0] * len(graph)
        for i in self.permanent:
            self._holders[i] = 1

    def compute(self, targets: Iterable[int]) -> list[int]:
        """Compute the targets, and what they need, as far as it is not available; ascending.

        Returns the nodes computed. They stay available until `settle` is told of them.
        """
        nodes, available = self.graph.nodes, self.available
        missing = set()
        stack = [target for target in targets if not available[target]]
        while stack:
            i = stack.pop()
            if i in missing:
                continue
            missing.add(i)
            stack.extend(dep for dep in nodes[i].deps if not available[dep])
        order = sorted(missing)
        self.steps.extend(order)
        for i in order:
            available[i] = 1
        return order

    def settle(self, computed: Iterable[int]) -> None:
        """Forget those of the values that nobody holds."""
        for i in computed:
            if not self._holders[i]:
                self.available[i] = 0

    def hold(self, nodes: Iterable[int]) -> None:
        """Keep these available, once computed, until as many `drop`s."""
        for i in nodes:
            self._holders[i] += 1

    def drop(self, nodes: Iterable[int]) -> None:
        """Take back a `hold`; a value without holders is forgotten."""
        for i in nodes:
            self._holders[i] -= 1
            if not self._holders[i]:
                self.available[i] = 0

    def backward(self, node: int) -> None:
        self.steps.append(~node)

    def schedule(
        self, planner: str = "", budget: int | None = None, notes: dict[str, Any] | None = None
    ) -> Schedule:
        """The steps so far with every value freed at its last read."""
        return Schedule(
            free_early(self.graph, self.steps), self.graph.digest, planner, budget, notes or {}
        )


def free_early(graph: Graph, steps: Sequence[int]) -> tuple[Instruction, ...]:
    """Instructions for ``steps`` (i: Compute, ~i: Backward), each value freed at its last read.

    One pass from the end; a read is the last one if the next thing that happens to the value is
    that it is computed again, or nothing. Outputs are live at the end.
    """
    nodes = graph.nodes
    compute, free, backward = _instructions(len(nodes))
    read_later = bytearray(node.resident for node in nodes)
    for output in graph.outputs:
        read_later[output] = 1
    reversed_steps: list[Instruction] = []
    append = reversed_steps.append
    for step in reversed(steps):
        i = step if step >= 0 else ~step
        node = nodes[i]
        if step >= 0:
            if not read_later[i]:
                append(free[i])
            read_later[i] = 0
            reads = node.deps
        else:
            reads = node.residuals
        for read in reads:
            if not read_later[read]:
                read_later[read] = 1
                append(free[read])
        append(compute[i] if step >= 0 else backward[i])
    reversed_steps.reverse()
    return tuple(reversed_steps)


@lru_cache(maxsize=4)
def _instructions(size: int) -> tuple[list[Compute], list[Free], list[Backward]]:
    """One object for each instruction there can be; a schedule names them again and again."""
    return (
        [Compute(i) for i in range(size)],
        [Free(i) for i in range(size)],
        [Backward(i) for i in range(size)],
    )
