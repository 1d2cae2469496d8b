"""What a reader of a profile would try next, with figures: plans beside it, and its lines."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.clock import Deadline, StoppedError, stopped
from ckpt.planners.base.lower import lower
from ckpt.planners.bounds.simple import memory_floor
from ckpt.text import WIDTH
from ckpt.timeline import Holding, Timeline, holdings
from ckpt.units import format_bytes, format_flops, part, rounded_up

PATIENCE = 2.0
"""Seconds of work that a profile plans for, at most."""

MOST_NODES = 20_000
"""A step of more takes too long to be simulated a few times over."""

LINES = 4
"""Lines of source that are tried, those that hold most at the peak, and shown."""

ALIKE = 1.01
"""Peaks nearer than this are the same."""

WORTH = 0.05
"""Of the peak: a line that saves less isn't shown."""


HALF = "50%"


@dataclass(frozen=True)
class Advice:
    """What is said below a profile's verdict; sentences, then a row a line of source."""

    sentences: tuple[str, ...]
    lines: tuple[tuple[str, int, float], ...]
    """Where, the peak if backward recomputes what is made there, its recompute in forwards."""
    peak: int = 0
    """With nothing recomputed."""
    budget: str | None = None
    """One to plan within, in which there is a plan; None: half is too little."""

    def rows(self, texts: Mapping[str, str]) -> list[str]:
        """The lines as they are printed, with what the source says in them."""
        if not self.lines:
            return []
        told = [
            "if @checkpoint had a line and what reads it recomputed (in % of a forward):",
            f"  {'peak':>9} {'less':>6} {'recompute':>10}  line",
        ]
        for where, peak, overhead in self.lines:
            less = f"{100 * (1 - peak / self.peak):.0f} %"
            again = f"{100 * overhead:.1f} %"
            row = f"  {format_bytes(peak):>9} {less:>6} {again:>10}  {where}  "
            first, *others = textwrap.wrap(texts.get(where, ""), WIDTH - len(row)) or [""]
            told += [f"{row}{first}".rstrip(), *(" " * len(row) + other for other in others)]
        return told


def advise(graph: Graph, timeline: Timeline) -> Advice:
    """Beside ``timeline`` of ``graph``: store-all, `chain` in half of that or in the same peak, and
    each line of source whose values might be recomputed. Takes `PATIENCE` at most."""
    stored = simulate(graph, make_schedule(graph, "store_all"))
    said = [*_what_sets_it(graph, timeline), *_beside_stored(timeline, stored)]
    lines: tuple[tuple[str, int, float], ...] = ()
    tried = None
    if len(graph) <= MOST_NODES:
        clock = Deadline(PATIENCE, clock=time.thread_time)
        with clock.running(), suppress(StoppedError):
            lines = () if timeline.recompute_flops else tuple(_by_line(graph, stored))
            tried = _planned(graph, timeline, stored)
    told, budget = tried or _untried(graph, timeline, stored)
    return Advice((*said, *told), lines, stored.peak, budget)


def _what_sets_it(graph: Graph, timeline: Timeline) -> list[str]:
    """Where no checkpoint helps: parameters and gradients, backward's own bytes, one value."""
    peak, beside = timeline.peak, timeline.resident + timeline.gradients_beside
    said = []
    if beside > 2 * peak:
        said.append(
            f"Parameters, inputs and gradients are {part(beside, timeline.whole_peak)} of the "
            "whole peak, and no checkpoint frees them."
        )
    if not peak:
        return said
    found = holdings(graph, timeline, timeline.peak_position)
    values = sum(held.nbytes for held in found if held.kind in ("activations", "captured"))
    largest = max(found, key=lambda held: held.nbytes, default=None)
    if peak - values > peak / 2:
        said.append(
            f"{format_bytes(peak - values)} of it are that instruction's own, cotangents and "
            "workspace: no checkpoint frees them."
        )
    elif largest is not None and largest.nbytes > peak / 2:
        share = f"{100 * largest.nbytes / peak:.0f} %"
        said.append(f"One value is {share} of it: {_named(graph, largest)}.")
    return said


def _named(graph: Graph, held: Holding) -> str:
    if held.whose is None:
        return "a cotangent"
    node = graph[held.whose]
    return f"{format_bytes(held.nbytes)} of {node.op}" + (f", {node.source}" * bool(node.source))


def _beside_stored(timeline: Timeline, stored: Timeline) -> list[str]:
    """What the program's own checkpoints come to."""
    if not timeline.recompute_flops:
        return []
    if timeline.peak > ALIKE * stored.peak:
        return [
            f"Recomputing raises the peak: with all kept it is {format_bytes(stored.peak)}. A "
            "block's inputs are kept for it, and all in it is live again at once."
        ]
    if ALIKE * timeline.peak > stored.peak:
        return [
            "Recomputing lowers nothing: with all kept it peaks as high, since what is "
            "recomputed is all live again when backward comes to it."
        ]
    ratio = stored.peak / timeline.peak
    return [f"With all kept it would be {format_bytes(stored.peak)}, {ratio:.1f} times as much."]


def _planned(graph: Graph, timeline: Timeline, stored: Timeline) -> tuple[list[str], str | None]:
    """`chain` in the peak of the program's own checkpoints, or in half of store-all's; and a budget
    to go on with."""
    same = _lowered(timeline, stored)
    limit, budget = (timeline.peak, rounded_up(timeline.peak)) if same else (stored.peak // 2, HALF)
    try:
        found = simulate(graph, make_schedule(graph, "chain", limit))
    except (BudgetError, UsageError):
        return ([], budget) if same else ([_none_in_half(graph, limit)], None)
    if not same:
        return [f"Planned, a step holds {format_bytes(found.peak)} for {_share(found)}."], budget
    if found.recompute_flops >= timeline.recompute_flops:
        return ["In that peak the planner chain finds nothing cheaper."], budget
    return [f"Planned, the same peak costs {_share(found)}."], budget


def _untried(graph: Graph, timeline: Timeline, stored: Timeline) -> tuple[list[str], str]:
    """Where planning takes too long: √n segments, which take no search, and a budget in which there
    is a plan."""
    same, half = _lowered(timeline, stored), stored.peak // 2
    limit = format_bytes(timeline.peak if same else half)
    said = [f"A plan in {limit}: not tried, it takes longer than {PATIENCE:g} s; ckpt plan does."]
    if same:
        return said, rounded_up(timeline.peak)
    try:
        found = simulate(graph, make_schedule(graph, "sqrt"))
    except UsageError:  # there is nothing to cut
        found = stored
    if found.peak < stored.peak:
        said.append(f"In √n segments it holds {format_bytes(found.peak)} for {_share(found)}.")
    least = min(found.peak, stored.peak)
    return said, HALF if least <= half else rounded_up(least)


def _lowered(timeline: Timeline, stored: Timeline) -> bool:
    """Do the program's own checkpoints lower the peak?"""
    return bool(timeline.recompute_flops) and ALIKE * timeline.peak < stored.peak


def _none_in_half(graph: Graph, half: int) -> str:
    floor = memory_floor(graph)
    if floor.nbytes > half:
        return (
            f"No schedule does with half: {format_bytes(floor.nbytes)} are the least there is, "
            f"for {floor.instruction}."
        )
    return "The planner chain finds no plan in half of that; ckpt plan asks all others."


def _share(timeline: Timeline) -> str:
    return f"{100 * timeline.overhead:.1f} % of a forward in recompute"


def _by_line(graph: Graph, stored: Timeline) -> list[tuple[str, int, float]]:
    """The lines that are worth recomputing, those that save most for least first."""
    at_peak: dict[str, int] = {}
    for held in holdings(graph, stored, stored.peak_position):
        if held.kind == "activations" and held.whose is not None and graph[held.whose].source:
            where = graph[held.whose].source
            at_peak[where] = at_peak.get(where, 0) + held.nbytes
    owners = graph.owners
    residuals = {owners[i] for i, readers in enumerate(graph.step_readers) if readers}
    found = []
    for where in sorted(at_peak, key=lambda w: -at_peak[w])[:LINES]:
        if stopped():
            break
        rest = [i for i in residuals if graph[i].source != where]
        tried = simulate(graph, lower(graph, rest))
        if stored.peak - tried.peak > WORTH * stored.peak:
            found.append((where, tried.peak, tried.overhead))
    worth = partial(_worth, stored.peak)
    return sorted(found, key=worth, reverse=True)


def _worth(stored: int, line: tuple[str, int, float]) -> float:
    """Bytes saved for recompute, of which a little costs nothing to speak of."""
    return (stored - line[1]) / (line[2] + 1e-3)


# -- where checkpointing can't help, and why ------------------------------------------------------


def futile(graph: Graph) -> list[str]:
    """A line for each outermost `@checkpoint` region that saves nothing worth its recompute.

    Two cases. A block whose residuals are its own inputs and outputs: those stay anyway. And a last
    segment: backward begins with it, so all it let go of is back before anything else has filled
    the room.
    """
    regions: dict[int, list[int]] = {}
    for i, node in enumerate(graph):
        if node.regions and i in graph.needed:
            regions.setdefault(node.regions[0], []).append(i)
    found: dict[str, int] = {}
    for nodes in regions.values():
        line = _verdict(graph, nodes)
        if line:
            found[line] = found.get(line, 0) + 1
    return [f"{line} ({times} blocks)" if times > 1 else line for line, times in found.items()]


def _verdict(graph: Graph, nodes: list[int]) -> str:
    inside = set(nodes)
    first, last = nodes[0], nodes[-1]
    flops = sum(graph[i].flops for i in nodes)
    where = graph[first].source or graph[first].op
    saved = _kept(graph, nodes, inside)
    if not saved:
        return (
            f"checkpoint at {where}: saves nothing, since all that its backward reads are its own "
            "inputs and outputs, which stay anyway: drop it, or put several layers in one block"
        )
    after = [i for i in range(last + 1, len(graph)) if i in graph.needed and not graph[i].resident]
    later = _kept(graph, after, set())
    if later < saved // 2:
        return (
            f"checkpoint at {where}: it is the last segment, and backward begins with it: what it "
            f"lets go of ({format_bytes(saved)}) is recomputed ({format_flops(flops)}) before "
            f"anything else needs the room: leave it plain"
        )
    return ""


def _kept(graph: Graph, nodes: list[int], inside: set[int]) -> int:
    """Bytes of the buffers among ``nodes`` that a backward reads and nothing outside holds."""
    read: set[int] = set()
    held: set[int] = set()
    for i in nodes:
        owner = graph.owners[i]
        if graph[owner].resident or graph[owner].captured or graph[i].keep:
            continue
        if graph.step_readers[i]:
            read.add(owner)
        if inside and (
            owner not in inside
            or any(r not in inside for r in graph.readers[i])
            or any(graph.steps[k].at not in inside for k in graph.step_readers[i])
            or i in graph.outputs
        ):
            held.add(owner)
    return sum(graph[o].nbytes for o in read - held)
