"""Cost by measured seconds: how long each node's Compute and each step of the backward took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from ckpt.planners import make_schedule
from ckpt.planners.base.cost import Cost
from ckpt.program import Program
from ckpt.schedule import Backward, Compute, Free

REPEATS = 3


class _Clock:
    """An Observer that takes the time of each instruction."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.start = 0.0

    def before(self, position: int) -> None:
        self.start = time.perf_counter()

    def after(self, position: int, count: Callable[[], tuple[Sequence[int], int]]) -> None:
        self.taken.append(time.perf_counter() - self.start)


def measured_cost(program: Program, args: tuple[Any, ...]) -> Cost:
    """Nanoseconds, medians of a few runs. Each needs as much memory as store-all."""
    graph = program.graph
    schedule = make_schedule(graph, "store_all")
    runs = []
    for _ in range(REPEATS + 1):  # the first one warms up
        clock = _Clock()
        program.execute(schedule, *args, observe=clock)
        runs.append(clock.taken)
    nodes, steps = [0] * len(graph), [0] * len(graph.steps)
    for instruction, *taken in zip(schedule, *runs[1:], strict=True):
        nanoseconds = max(round(1e9 * statistics.median(taken)), 1)
        match instruction:
            case Compute(node):
                nodes[node] = nanoseconds
            case Backward(step):
                steps[step] = nanoseconds
            case Free():
                pass
            case _:
                assert_never(instruction)
    return Cost("nanoseconds", tuple(nodes), tuple(steps))
