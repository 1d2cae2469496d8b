"""Ways to run a step side by side: bytes of the graph, and of what XLA compiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckpt.graph import Graph
from ckpt.jax.run.program import JaxProgram
from ckpt.jax.search import Found, Temp, compiled_temp, narrowest
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.lower import lower
from ckpt.planners.base.stages import find_stages
from ckpt.schedule import Schedule
from ckpt.units import format_bytes


@dataclass(eq=False)
class Ways:
    """A row for each way to run a step. ``graph_nbytes`` is the peak of its values, equation by
    equation; ``temp_nbytes`` what the compiled step needs beside arguments and results, None where
    it wasn't compiled."""

    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        lines = [f"{'graph':>10} {'compiled':>10}  recomputed"]
        for row in self.rows:
            graph, temp, overhead = (row[k] for k in ("graph_nbytes", "temp_nbytes", "overhead"))
            lines.append(
                f"{'' if graph is None else format_bytes(graph):>10} "
                f"{'' if temp is None else format_bytes(temp):>10}  "
                f"{'' if overhead is None else f'{100 * overhead:.1f} %':>10}  {row['way']}"
            )
        return "\n".join(lines)


def per_block(graph: Graph) -> Schedule | None:
    """What `jax.checkpoint` around each block keeps and recomputes: a block lies between two cuts
    that few bytes cross, as those of a transformer. None: there are no blocks."""
    width = narrowest(graph)
    if width is None:
        return None
    stages = find_stages(graph, widest=width)
    kept = {node for k in range(len(stages)) for node in stages.boundary(k)}
    return lower(graph, kept, stages.cuts[1:-1], planner="per block")


def plain_rows(program: JaxProgram, plain: Temp | None) -> list[dict[str, Any]]:
    """The plain step, and `jax.checkpoint` around each of its blocks, which is compiled if the
    plain step was."""
    graph = program.graph
    stored = simulate(graph, make_schedule(graph, "store_all"))
    rows = [_row("the plain step", stored.peak, plain, 0.0)]
    schedule = per_block(graph)
    if schedule is not None:
        timeline = simulate(graph, schedule)
        temp = None
        if plain is not None:
            step = program.emit(schedule, barrier=True)
            temp = compiled_temp(step, program.arguments.abstract)[1]
        way = "in the form of jax.checkpoint around each block" + (
            ", which XLA may undo" if temp else ""
        )
        rows.append(_row(way, timeline.peak, temp, timeline.overhead))
    return rows


def planned_row(found: Found) -> dict[str, Any]:
    timeline = found.timeline
    return _row("planned", timeline.peak, found.temp, timeline.overhead)


def own_row(name: str, function: Callable[..., Any], program: JaxProgram) -> dict[str, Any]:
    """The user's own way to write the function, compiled."""
    args = program.arguments.fill(program.arguments.abstract)
    own = JaxProgram(function, args, argnums=program.arguments.argnums, has_aux=program.has_aux)
    return _row(name, None, compiled_temp(own.simple, own.arguments.abstract)[1], None)


def _row(way: str, graph: int | None, temp: Temp | None, overhead: float | None) -> dict[str, Any]:
    return {"way": way, "graph_nbytes": graph, "temp_nbytes": temp.nbytes if temp else None,
            "overhead": overhead}  # fmt: skip
