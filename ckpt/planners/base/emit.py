"""From an order of Computes and Backwards to a Schedule: when to free follows from when to compute.

A planner only says *when each value is computed*. Each value is then freed at its last read before
it is computed again (or before the end), so no schedule made here can forget a Free. What a planner
decides by computing a value a second time is that it was not kept in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any, assert_never

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.reads import permanent
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule

Action = Compute | Backward
"""An instruction that isn't a Free."""

COMPUTED, FREED = 2, 5
"""The work of an action: when it is chosen, and when it is freed behind and simulated."""


def needed_only(
    graph: Graph, actions: Sequence[Action], kept: Collection[int] = ()
) -> list[Action]:
    """``actions`` without Computes that nothing reads, unless they are of values ``kept``."""
    wanted = set(graph.outputs)
    reverse: list[Action] = []
    for action in reversed(actions):
        match action:
            case Backward(k):
                wanted.update(graph.steps[k].reads)
            case Compute(i):
                if i not in wanted and i not in kept:
                    continue
                wanted.discard(i)
                wanted.update(graph[i].deps)
            case _:
                assert_never(action)
        reverse.append(action)
    return reverse[::-1]


def compute_all(graph: Graph) -> list[Action]:
    """Every value that is needed once, then every step of the backward."""
    return [*map(Compute, graph.computed), *map(Backward, range(len(graph.steps)))]


class Emitter:
    """Writes Computes and Backwards, and knows what is *available*: computed, and held since.

    A value that no one holds is forgotten by `settle`; whoever needs it later computes it again. A
    call is forgotten at once: its results stand for it. Nothing is freed here: `schedule` puts each
    Free where the value was last read.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.actions: list[Action] = []
        self.available = bytearray(node.resident for node in graph.nodes)
        self.permanent = permanent(graph)
        self._holders = [0] * len(graph)
        for i in self.permanent:
            self._holders[i] = 1

    def compute(self, targets: Iterable[int]) -> list[int]:
        """Compute the targets, and what they need, as far as it is not available; ascending.

        A call that runs makes all its results: those that are held are computed with it, or it
        would run again for their sake. Returns the nodes computed. They stay available until
        `settle` is told of them.
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
            if nodes[i].call:
                results = self.graph.results[i]
                stack.extend(r for r in results if self._holders[r] and not available[r])
        order = sorted(missing)
        clock.spend(COMPUTED * len(order))
        compute, _, _ = vocabulary(len(nodes), len(self.graph.steps))
        self.actions += [compute[i] for i in order]
        for i in order:
            available[i] = not nodes[i].call
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

    def backward(self, step: int) -> None:
        self.actions.append(Backward(step))

    def schedule(
        self, planner: str = "", budget: int | None = None, notes: dict[str, Any] | None = None
    ) -> Schedule:
        """The actions so far with every value freed at its last read."""
        return Schedule(
            free_early(self.graph, self.actions),
            self.graph.digest,
            planner,
            budget,
            notes=notes or {},
        )


def free_early(graph: Graph, actions: Sequence[Action]) -> tuple[Instruction, ...]:
    """Instructions for ``actions``, each value freed at its last read.

    One pass from the end; a read is the last one if the next thing that happens to the value is
    that it is computed again, or nothing. Outputs are live at the end.
    """
    clock.spend(FREED * len(actions))
    nodes, steps = graph.nodes, graph.steps
    _, free, _ = vocabulary(len(nodes), len(steps))
    read_later = bytearray(node.resident for node in nodes)
    for output in graph.outputs:
        read_later[output] = 1
    reverse: list[Instruction] = []
    append = reverse.append
    for action in reversed(actions):
        match action:
            case Compute(i):
                if not read_later[i]:
                    append(free[i])
                read_later[i] = 0
                reads = nodes[i].deps
            case Backward(k):
                reads = steps[k].reads
            case _:
                assert_never(action)
        for read in reads:
            if not read_later[read]:
                read_later[read] = 1
                append(free[read])
        append(action)
    reverse.reverse()
    return tuple(reverse)


@lru_cache(maxsize=4)
def vocabulary(nodes: int, steps: int) -> tuple[list[Compute], list[Free], list[Backward]]:
    """One object for each instruction there can be; a schedule names them again and again."""
    numbers = range(nodes)
    return [*map(Compute, numbers)], [*map(Free, numbers)], [*map(Backward, range(steps))]
