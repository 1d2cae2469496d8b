"""Cost by measured seconds: a graph whose FLOPs are replaced by the time each forward took."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

from ckpt.graph import Graph
from ckpt.planners import make_schedule
from ckpt.tape.core.node import TapeNode
from ckpt.tape.execution.run import execute
from ckpt.tape.traced.trace import Program

REPEATS = 3


class _Clock:
    """An Observer that adds up, per node, the seconds of its Computes."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.start = 0.0

    def before(self, kind: int, node: TapeNode) -> None:
        self.start = time.perf_counter()

    def after(self, kind: int, node: TapeNode) -> None:
        self.taken.append(time.perf_counter() - self.start)


def with_seconds(program: Program, args: tuple[Any, ...]) -> Graph:
    """The program's graph with nanoseconds of forward in place of FLOPs: a median of a few runs.

    The planners then weigh recomputation by time. A run needs as much memory as store-all.
    """
    graph = program.graph
    schedule = make_schedule(graph, "store_all")
    runs = []
    for _ in range(REPEATS + 1):  # the first one warms up
        clock = _Clock()
        execute(program, schedule, args, observer=clock)
        runs.append(clock.taken)
    taken: dict[int, float] = {}
    for at, step in enumerate(schedule.instructions):
        taken.setdefault(step.node, statistics.median(run[at] for run in runs[1:]))
    nodes = [
        node if node.resident else replace(node, flops=max(round(1e9 * taken.get(i, 0.0)), 1))
        for i, node in enumerate(graph)
    ]
    return Graph(tuple(nodes), graph.losses, graph.outputs, graph.name)
