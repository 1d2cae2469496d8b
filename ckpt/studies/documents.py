"""Saved plans, graphs, schedules and timelines: reading them, and saying what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt import graph as graphs
from ckpt import schedule as schedules
from ckpt import timeline as timelines
from ckpt.errors import ScheduleError, UsageError
from ckpt.graph import Graph
from ckpt.reports.ledger import why
from ckpt.reports.table import render
from ckpt.schedule import Schedule, describe_instruction
from ckpt.simulate import holdings, simulate
from ckpt.studies import plan as plans
from ckpt.studies.plan import Plan, load_plan
from ckpt.timeline import Timeline
from ckpt.units import FLOP_NOTE, format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Document = Plan | Graph | Schedule | Timeline


def read(path: Path) -> Document:
    """What a JSON file of ckpt's holds, by its ``format``; UsageError for any other file."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text file, and so no plan or schedule") from None
    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON document, or is cut off: {error}") from None
    kind = data.get("format") if isinstance(data, dict) else None
    readers: dict[str, Any] = {
        graphs.FORMAT: Graph.from_json,
        schedules.FORMAT: Schedule.from_json,
        timelines.FORMAT: Timeline.from_json,
    }
    if kind == plans.FORMAT:
        return load_plan(path)
    if kind not in readers:
        known = ", ".join([plans.FORMAT, *readers])
        raise UsageError(f"{path}: its format is {kind!r}, and none of {known}")
    found: Document = readers[kind](data)
    return found


def pair(path: Path, schedule: Path | None = None) -> tuple[Graph, Timeline]:
    """A graph and a schedule of it, simulated: of one plan, or of a graph and a schedule file.

    The schedule may be text, a line an instruction. Raises UsageError where files are missing, of
    another kind, or for different graphs, and ScheduleError where the schedule can't be performed.
    """
    document = read(path)
    if isinstance(document, Plan):
        if schedule is not None:
            return document.graph, simulate(document.graph, _schedule(schedule, document.graph))
        return document.graph, document.timeline
    if not isinstance(document, Graph):
        raise UsageError(f"{path} holds a {_kind(document)}; simulating needs a plan or a graph")
    if schedule is None:
        raise UsageError(f"{path} is a graph alone: name a schedule's file after it")
    return document, simulate(document, _schedule(schedule, document))


def _schedule(path: Path, graph: Graph) -> Schedule:
    if path.suffix.lower() == ".json":
        document = read(path)
        if isinstance(document, Plan):
            document = document.schedule
        if not isinstance(document, Schedule):
            raise UsageError(f"{path} holds a {_kind(document)}, not a schedule")
    else:
        try:
            document = Schedule.from_text(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"can't read {path}: {error}") from None
    if document.graph and document.graph != graph.digest:
        raise UsageError(f"{path} is for graph {document.graph}, and not for {graph.digest}")
    for position, step in enumerate(document):
        if step.node >= len(graph):
            raise ScheduleError(
                f"{path}, instruction {position}: there is no node {step.node} among the "
                f"{len(graph)} of the graph", position
            )  # fmt: skip
    return document


def _kind(document: Document) -> str:
    return type(document).__name__.lower()


def describe(document: Document, *, instructions: bool = False) -> str:
    """The document in words; with ``instructions``, its schedule, a line an instruction."""
    if isinstance(document, Graph):
        return _graph(document)
    schedule = document if isinstance(document, Schedule) else document.schedule
    if instructions:
        names = [n.name for n in document.graph] if isinstance(document, Plan) else ()
        return schedule.to_text(names)
    if isinstance(document, Plan):
        return f"{document}\n"
    if isinstance(document, Timeline):
        return "\n".join(totals(document)) + "\n"
    return (
        f"{len(schedule)} instructions by {schedule.planner or 'hand'} for graph "
        f"{schedule.graph or '(any)'}\n"
    )


def _graph(graph: Graph) -> str:
    rows = [
        {
            "node": i,
            "name": node.name,
            "op": node.op,
            "deps": " ".join(map(str, node.deps)),
            "residuals": " ".join(map(str, node.residuals)),
            "shape": "x".join(map(str, node.shape)) or "scalar",
            "dtype": node.dtype,
            "nbytes": node.nbytes,
            "forward_flops": node.flops,
            "backward_flops": node.backward_flops,
            "source": node.source,
        }
        for i, node in enumerate(graph)
    ]
    return render(rows, title=f"{graph.name or 'graph'}, {graph.digest}")


def draw(document: Document) -> Figure:
    """A plan's schedule over its nodes, or a timeline's live bytes; UsageError for the others."""
    from ckpt.reports.figure import schedule_figure, timeline_figure

    if isinstance(document, Plan):
        return schedule_figure(document.timeline, lambda i: document.graph[i].name)
    if isinstance(document, Timeline):
        return timeline_figure(document)
    raise UsageError(f"a {_kind(document)} alone has no picture: simulate it, or show a plan")


def totals(timeline: Timeline) -> list[str]:
    """Peak and FLOPs of a timeline, a line each."""
    return [
        f"{len(timeline)} instructions by {timeline.schedule.planner or 'hand'}",
        f"  peak        {format_bytes(timeline.peak):>11}",
        f"  whole peak  {format_bytes(timeline.whole_peak):>11}  with inputs and parameters "
        f"({format_bytes(timeline.resident)}) and gradients "
        f"({format_bytes(timeline.gradients_total)})",
        f"  forward     {format_flops(timeline.forward_flops):>11}",
        f"  recompute   {format_flops(timeline.recompute_flops):>11}  "
        f"{100 * timeline.overhead:.1f} % of forward, {timeline.recomputations} recomputations",
        f"  backward    {format_flops(timeline.backward_flops):>11}",
        FLOP_NOTE,
    ]


def explained(graph: Graph, timeline: Timeline, top: int | None = 10) -> list[str]:
    """`totals`, the instruction that sets the peak, and what is live then, largest first."""
    position = timeline.peak_position
    step = timeline.schedule.instructions[position]
    held = holdings(graph, timeline.schedule, position)
    return [
        *totals(timeline),
        f"the peak is at instruction {position}, {describe_instruction(step, graph)}; live then:",
        *(f"  {line}" for line in why(held, graph.describe, peak=timeline.peak, top=top)),
    ]
