"""One point of a sweep: a model at a depth under a strategy, predicted and measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ckpt import planners
from ckpt.errors import CkptError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.models import Workload, build, memory
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.chain.chain import least_peak
from ckpt.program import Program
from ckpt.schedule import Schedule
from ckpt.studies.journal import is_sound
from ckpt.studies.measure import measured, peaks, tolerance, witnesses
from ckpt.text import unknown
from ckpt.timeline import Timeline, holdings
from ckpt.units import GIB, parse_bytes
from ckpt.witness import WITNESSES, alone

AS_WRITTEN = ("store_all", "per_layer", "sqrt", "segments")
"""Strategies that are the model's own `checkpoint_sequential`."""

PLANNED = "planned"
"""The least peak that `chain` reaches with at most sqrt's recompute; with ``@20%``, with at most
that share of a forward. All other strategies are planners' names."""

EFFORT = 3_000_000
"""What the bound of a planned point may take; see `lower_bounds`."""

COLUMNS = (
    "model",
    "depth",
    "strategy",
    "segments",
    "planner",
    "parameters_nbytes",
    "gradient_nbytes",
    "predicted_peak_nbytes",
    "measured_peak_nbytes",
    "predicted_whole_peak_nbytes",
    "measured_whole_peak_nbytes",
    "eager_peak_nbytes",
    "forward_flops",
    "recompute_flops",
    "backward_flops",
    "step_flops",
    "overhead",
    "bound_flops",
    "recomputations",
    "seconds",
    "cpu_seconds",
    "gradients_equal",
    "agrees",
    "nodes",
    "instructions",
    "dtype",
    "width",
    "batch",
    "seed",
    "gradients_digest",
    "witness",
    "process_peak_nbytes",
    "memray_peak_nbytes",
    "untrusted",
    "error",
    "exit_code",
)
"""Of a row, in order; what wasn't measured is None."""


_TEXTS = ("model", "strategy", "planner", "dtype", "gradients_digest", "witness", "untrusted",
          "error")  # fmt: skip
_FLAGS = ("gradients_equal", "agrees")
_REALS = ("seconds", "cpu_seconds", "overhead")
_MAY_LACK = (
    "segments", "measured_peak_nbytes", "measured_whole_peak_nbytes", "eager_peak_nbytes",
    "seconds", "cpu_seconds", "gradients_equal", "agrees", "gradients_digest", "width", "batch",
    "exit_code", "bound_flops", "witness", "process_peak_nbytes", "memray_peak_nbytes", "untrusted",
    "error",
)  # fmt: skip


def is_row(row: Mapping[str, Any]) -> bool:
    """Is this, from a file, a row as `run_point` makes them where nothing went wrong?"""
    return row.get("error") is None and is_sound(
        row, COLUMNS, texts=_TEXTS, flags=_FLAGS, reals=_REALS, may_lack=_MAY_LACK
    )


@dataclass(frozen=True)
class Point:
    """What one row of a sweep is about. Plain data: it travels to a worker process."""

    model: str
    depth: int
    strategy: str
    """``store_all``, ``per_layer``, ``sqrt``, ``segments:K``, ``planned``, ``planned@20%``, or a
    planner: ``chain@25%``."""
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    measure: bool = True
    repeats: int = 1
    witness: str | None = None

    @property
    def key(self) -> tuple[int, str]:
        return self.depth, self.strategy

    @property
    def segments(self) -> int | None:
        """Into how many checkpointed segments the model is cut; None: it isn't."""
        stem, _, value = self.strategy.partition(":")
        if stem == "segments":
            return min(int(value), self.depth)
        return {"per_layer": self.depth, "sqrt": sqrt_segments(self.depth)}.get(stem)

    @property
    def is_planned(self) -> bool:
        return self.strategy.partition("@")[0] == PLANNED

    @property
    def share(self) -> float | None:
        """Of a forward, the most that ``planned@20%`` may recompute; None: what sqrt does."""
        _, at, value = self.strategy.partition("@")
        return float(value.removesuffix("%")) / 100 if self.is_planned and at else None

    @property
    def needs_segments(self) -> bool:
        """Is it, or is it measured by, the model's own checkpointing?"""
        return self.segments is not None or self.strategy == PLANNED

    @property
    def planner(self) -> tuple[str, str | None]:
        """The planner, and its budget if the strategy names one."""
        if self.strategy.partition(":")[0] in AS_WRITTEN:
            return "as_written", None
        name, _, budget = self.strategy.partition("@")
        return name, budget or None


def sqrt_segments(depth: int) -> int:
    return max(1, round(math.sqrt(depth)))


def check_strategy(strategy: str) -> None:
    """Raise UsageError for a strategy that is neither one of ours nor a planner's name."""
    if not isinstance(strategy, str):
        raise UsageError(f"a strategy is named by a text, not by {strategy!r}")
    stem, _, value = strategy.partition(":")
    if stem == "segments" and not (value.isdecimal() and len(value) < 19 and int(value) > 0):
        raise UsageError(f"{strategy!r} needs a number of segments; write for example segments:10")
    if stem in AS_WRITTEN:
        if value and stem != "segments":
            raise UsageError(f"strategy {stem} takes no value, so write {stem!r}, not {strategy!r}")
        return
    planner, at, budget = strategy.partition("@")
    if planner == PLANNED:
        if at and not re.fullmatch(r"\d{1,6}(\.\d{1,3})?%", budget):
            raise UsageError(
                f"{strategy!r} needs the share of a forward that it may recompute; write for "
                "example planned@20%"
            )
        return
    if at:
        parse_bytes(budget, of=GIB)
    try:
        planners.get(planner)
    except UsageError as error:
        if stem.partition("@")[0] in planners.names():
            raise
        known = dict.fromkeys([*AS_WRITTEN[:3], "segments:K", PLANNED, *planners.names()])
        raise UsageError(
            f"{unknown('strategy', strategy, known)}, or a planner with a budget as in chain@25%"
        ) from error


def run_point(point: Point) -> dict[str, Any]:
    """The row of ``point``. What goes wrong with this point alone is its ``error``.

    A planner may find nothing within its budget, or memory may be short: the other points of the
    sweep still count. ``exit_code`` is then that of the error. Points of one process take
    turns; ``untrusted`` says why a figure may not be the point's own.
    """
    with alone():
        return _row(point)


def _row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row.update(model=point.model, depth=point.depth, strategy=point.strategy, seed=point.seed)
    try:
        workload, program = _traced(point.model, point.depth, point.segments, _items(point.options))
        chosen = workload.options
        row.update({name: chosen.get(name) for name in ("dtype", "width", "batch")})
        schedule = _schedule(program, point)
        timeline = simulate(program.graph, schedule)
        row.update(_predicted(point, program, schedule, timeline))
        if point.is_planned:
            known = timeline.recompute_flops
            bounds = lower_bounds(program.graph, timeline.peak, effort=EFFORT, known=known)
            row["bound_flops"] = bounds[0].cost
        if point.measure:
            memory.require(_needed(timeline), f"{point.strategy} at depth {point.depth}")
            with alone() as company:  # planners have threads of their own
                row.update(_measured(point, workload, program, schedule, timeline))
            row["untrusted"] = company.untrusted
    except MemoryError as error:
        text = str(error) or "out of memory"
        row.update(error=f"{point.strategy} at depth {point.depth}: {text}", exit_code=2)
    except CkptError as error:
        row.update(error=str(error), exit_code=error.exit_code)
    return row


def simulated(point: Point) -> tuple[Graph, Timeline, Timeline]:
    """The program of ``point``, its step, and store-all's beside it, all on shapes alone."""
    _, program = _traced(point.model, point.depth, point.segments, _items(point.options))
    graph = program.graph
    kept = simulate(graph, planners.make_schedule(graph, "store_all"))
    return graph, simulate(graph, _schedule(program, point)), kept


def _items(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(options.items()))


@lru_cache(maxsize=2)
def _traced(
    model: str, depth: int, segments: int | None, options: Sequence[tuple[str, Any]]
) -> tuple[Workload, Program]:
    """A model and its trace, remembered for the next strategies on the same programs."""
    given = {**dict(options), "depth": depth}
    if segments is not None:
        given["segments"] = segments
    workload = build(model, **given)
    return workload, workload.trace()


def _schedule(program: Program, point: Point) -> Schedule:
    if point.is_planned:
        return _planned(program, point)
    name, budget = point.planner
    if budget is not None:
        return planners.make_schedule(program.graph, name, budget)
    planner, options = planners.get(name)
    return planner(program.graph, None, **options)


def _planned(program: Program, point: Point) -> Schedule:
    """By ``chain``, the least peak for the recompute that ``point`` allows."""
    graph = program.graph
    if point.share is not None:
        stored = planners.make_schedule(graph, "store_all")
        most = int(point.share * simulate(graph, stored).forward_flops)
    else:
        _, root = _traced(
            point.model, point.depth, sqrt_segments(point.depth), _items(point.options)
        )
        most = simulate(root.graph, planners.get("as_written")[0](root.graph)).recompute_flops
    return least_peak(graph, most)


def _predicted(
    point: Point, program: Program, schedule: Schedule, timeline: Timeline
) -> dict[str, Any]:
    graph = program.graph
    return {
        "segments": point.segments,
        "planner": schedule.planner,
        "parameters_nbytes": sum(n.nbytes for n in graph if n.resident and n.requires_grad),
        "gradient_nbytes": timeline.gradients_beside,
        "predicted_peak_nbytes": timeline.peak,
        "predicted_whole_peak_nbytes": timeline.whole_peak,
        "forward_flops": timeline.forward_flops,
        "recompute_flops": timeline.recompute_flops,
        "backward_flops": timeline.backward_flops,
        "step_flops": timeline.step_flops,
        "overhead": timeline.overhead,
        "recomputations": timeline.recomputations,
        "nodes": len(graph),
        "instructions": len(schedule),
    }


def _measured(
    point: Point, workload: Workload, program: Program, schedule: Schedule, timeline: Timeline
) -> dict[str, Any]:
    arrays = workload.arrays(point.seed)
    first, *others = witnesses(program, point.witness) or [None]
    execution, taken = measured(program, schedule, arrays, repeats=point.repeats, witness=first)
    found = execution.timeline
    row = {
        "measured_peak_nbytes": found.peak,
        "measured_whole_peak_nbytes": found.whole_peak,
        "seconds": taken.clock,
        "cpu_seconds": taken.cpu,
        "witness": first.name if first is not None else None,
        "agrees": agrees(program, timeline, found),
        "gradients_digest": program.digest(execution.result),
    }
    del execution, found
    for name, peak in peaks(program, schedule, arrays, others).items():
        row[f"{name}_peak_nbytes"] = peak
    if schedule.planner == "as_written":
        program.plain(*arrays)  # what a first call writes and compiles stays, and is no step's
        _, row["eager_peak_nbytes"] = program.measure(program.plain, *arrays)
    return row


def agrees(program: Program, predicted: Timeline, measured: Timeline) -> bool:
    """Are the live bytes equal at each instruction, and the peaks within the stated tolerance?"""
    if predicted.same_live_bytes(measured) is not None:
        return False
    live = len(holdings(program.graph, predicted, predicted.peak_position))
    allowed = tolerance(predicted, live, len(program.graph))
    kind: Any = WITNESSES.get(measured.measured["witness"] or "")
    if kind is None or not kind.sees_scratch:
        return abs(measured.peak - predicted.peak) <= allowed
    return abs(measured.peak - predicted.peak_with_scratch) <= allowed + int(kind.resolution)


def _needed(timeline: Timeline) -> int:
    """Bytes that a measured step takes: a hundredth more than predicted."""
    return timeline.whole_peak + timeline.whole_peak // 100
