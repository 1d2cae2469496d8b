"""Saved graphs, schedules, timelines and plans: reading them, and saying what they hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ckpt import graph as graphs
from ckpt import schedule as schedules
from ckpt import timeline as timelines
from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.reports.files import acyclic, read_json, read_text
from ckpt.reports.ledger import why
from ckpt.reports.table import render
from ckpt.reports.words import line_of
from ckpt.schedule import Schedule, describe_instruction
from ckpt.text import filled, printable
from ckpt.timeline import Timeline, holdings
from ckpt.units import FLOP_NOTE, format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@runtime_checkable
class Planned(Protocol):
    """A graph, a schedule of it, and what that comes to: a saved plan."""

    graph: Graph
    schedule: Schedule
    timeline: Timeline


Document = Planned | Graph | Schedule | Timeline

READERS: dict[str, Callable[[Any], Any]] = {
    graphs.FORMAT: Graph.from_json,
    schedules.FORMAT: Schedule.from_json,
    timelines.FORMAT: Timeline.from_json,
}
"""Format -> what reads such a document. Whoever saves another kind adds its own."""


def read(path: str | Path) -> Any:
    """What a JSON file of ckpt's holds, by its ``format``; UsageError for any other file."""
    with acyclic():
        data = read_json(path)
        kind = data.get("format") if isinstance(data, dict) else None
        if not isinstance(kind, str) or kind not in READERS:
            raise UsageError(f"{path}: its format is {kind!r}, and none of {', '.join(READERS)}")
        try:
            return READERS[kind](data)
        except UsageError as error:
            raise type(error)(f"{path}: {error}") from None


def pair(path: Path, schedule: Path | None = None) -> tuple[Graph, Timeline]:
    """A graph and a schedule of it, simulated: of one plan, or of a graph and a schedule file.

    The schedule may be text, a line an instruction. Raises UsageError where files are missing, of
    another kind, or for different graphs, and ScheduleError where the schedule can't be performed.
    """
    document = read(path)
    if isinstance(document, Planned):
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
        if isinstance(document, Planned):
            document = document.schedule
        if not isinstance(document, Schedule):
            raise UsageError(f"{path} holds a {_kind(document)}, not a schedule")
    else:
        text = read_text(path)
        try:
            with acyclic():
                document = Schedule.from_text(text)
        except UsageError as error:
            raise type(error)(f"{path}, {error}") from None
    if document.graph and document.graph != graph.digest:
        raise UsageError(f"{path} is for graph {document.graph}, and not for {graph.digest}")
    return document


def _kind(document: Document) -> str:
    return type(document).__name__.lower()


def describe(document: Document, *, instructions: bool = False) -> str:
    """The document in words; with ``instructions``, its schedule, a line an instruction."""
    if isinstance(document, Graph):
        return _graph(document)
    schedule = document if isinstance(document, Schedule) else document.schedule
    if instructions:
        return schedule.to_text(document.graph if isinstance(document, Planned) else None)
    if isinstance(document, Planned):
        return f"{document}\n"
    if isinstance(document, Timeline):
        return filled(totals(document)) + "\n"
    return (
        printable(
            f"{len(schedule)} instructions by {schedule.planner or 'hand'} for graph "
            f"{schedule.graph or '(any)'}"
        )
        + "\n"
    )


def _graph(graph: Graph) -> str:
    nodes = [
        {
            "node": i,
            "name": node.name,
            "op": node.op,
            "deps": " ".join(map(str, node.deps)),
            "shape": "x".join(map(str, node.shape)) or "scalar",
            "dtype": node.dtype,
            "nbytes": node.nbytes,
            "forward_flops": node.flops,
            "source": node.source,
        }
        for i, node in enumerate(graph)
    ]
    steps = [
        {
            "backward": k,
            "of": step.label,
            "reads": " ".join(map(str, step.reads)),
            "during_nbytes": step.during,
            "backward_flops": step.flops,
            "source": step.source,
        }
        for k, step in enumerate(graph.steps)
    ]
    title = f"{graph.name or 'graph'}, {graph.digest}"
    return render(nodes, title=title) + "\n" + render(steps)


def draw(document: Document) -> Figure:
    """A plan's schedule over its nodes, or a timeline's live bytes; UsageError for the others."""
    from ckpt.reports.figure import schedule_figure, timeline_figure

    if isinstance(document, Planned):
        return schedule_figure(document.graph, document.timeline)
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
        f"({format_bytes(timeline.gradients_beside)})",
        f"  forward     {format_flops(timeline.forward_flops):>11}",
        f"  recompute   {format_flops(timeline.recompute_flops):>11}  "
        f"{100 * timeline.overhead:.1f} % of forward, {timeline.recomputations} recomputations",
        f"  backward    {format_flops(timeline.backward_flops):>11}",
        FLOP_NOTE,
    ]


def explained(graph: Graph, timeline: Timeline, top: int | None = 10) -> list[str]:
    """`totals`, the instruction that sets the peak, and what is live then, largest first."""
    position = timeline.peak_position
    instruction = timeline.schedule.instructions[position]
    held = holdings(graph, timeline, position)
    return [
        *totals(timeline),
        f"the peak is at instruction {position}, {describe_instruction(instruction, graph)}:",
        *(f"    {text}" for text in [line_of(instruction, graph)] if text),
        "live then, largest first, and for whose backward:",
        *(f"  {line}" for line in why(graph, held, peak=timeline.peak, top=top)),
    ]
