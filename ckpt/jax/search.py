"""Plan, compile, measure, tighten or loosen: the cheapest plan whose compiled step fits.

XLA fuses, so the bytes of the graph only guide; what is promised are the bytes of temporaries that
the compiler itself says its step needs.
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.jax.advice import advice
from ckpt.jax.run.conds import Emitted
from ckpt.jax.run.program import JaxProgram
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.stages import cut_at, find_stages, within_calls
from ckpt.planners.chain.chain import Corner
from ckpt.planners.chain.chain import frontier as corners_of
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, parse_bytes

COMPILATIONS = 6
"""How many plans of one kind are compiled, at most."""

CLOSE = 0.92
"""A plan that needs so much of the budget is near enough."""

SHORT = 0.005
"""Of a forward's FLOPs: a run that recomputes less is short, and may share the cond before it."""

STAGES = 6
"""Cuts between blocks are worth it where they make so many stages."""

Say = Callable[[str], None]
Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Temp:
    """What XLA says of a compiled step. Bytes and FLOPs are exact, ``seconds`` are those that it
    took to compile."""

    nbytes: int
    """Of temporaries: what the step allocates beside arguments and results."""
    arguments: int
    outputs: int
    flops: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"{format_bytes(self.nbytes)} of temporaries, beside {format_bytes(self.arguments)} of "
            f"arguments and {format_bytes(self.outputs)} of results"
        )


@dataclass(eq=False)
class Found:
    """A plan, and what was compiled on the way to it."""

    program: JaxProgram
    schedule: Schedule
    limit: int
    """The budget in bytes: of temporaries, or of the graph where nothing was compiled."""
    plain: Temp | None = None
    temp: Temp | None = None
    """Of the planned step."""
    is_plain: bool = False
    """The plain step fits as it is."""
    merge: int = 0
    tried: list[dict[str, Any]] = field(default_factory=list)

    @property
    def timeline(self) -> Timeline:
        return simulate(self.program.graph, self.schedule)

    @property
    def ratio(self) -> float:
        """Compiled bytes for each byte of the graph."""
        peak = self.timeline.peak
        return self.temp.nbytes / peak if self.temp is not None and peak else 1.0


def compiled_temp(function: Callable[..., Any], kinds: Sequence[Any]) -> tuple[Any, Temp]:
    """Compile a function of flat arrays; the executable, and what it needs."""
    before = time.perf_counter()
    made = jax.jit(function).lower(*kinds).compile()
    seconds = time.perf_counter() - before
    memory, cost = made.memory_analysis(), made.cost_analysis() or {}
    if memory is None:
        raise UsageError("this compiler doesn't say what its step needs: plan with compile=False")
    return made, Temp(
        int(memory.temp_size_in_bytes), int(memory.argument_size_in_bytes),
        int(memory.output_size_in_bytes), float(cost.get("flops", 0.0)), seconds,
    )  # fmt: skip


def whisper(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)


def from_graph(program: JaxProgram, budget: int | str, cuts: str = "blocks") -> Found:
    """A plan by the graph's bytes alone."""
    graph = program.graph
    stored = make_schedule(graph, "store_all")
    limit = parse_bytes(budget, of=max(simulate(graph, stored).peak, 1))
    errors = []
    for options in kinds_of_cuts(graph, cuts):
        try:
            schedule = make_schedule(graph, "chain", limit, **options)
            return Found(program, schedule, limit, is_plain=not repeats(graph, schedule))
        except BudgetError as error:
            errors.append(error)
        except UsageError:
            continue  # a graph that can't be cut so
    if errors:
        raise min(errors, key=lambda error: error.smallest or 0)
    schedule = make_schedule(graph, "dtr", limit)
    return Found(program, schedule, limit, is_plain=not repeats(graph, schedule))


def search(
    program: JaxProgram, budget: int | str, cuts: str = "blocks", say: Say | None = None
) -> Found:
    """The cheapest of the plans compiled that fits; BudgetError with the smallest temp found."""
    say = say or (lambda line: None)
    graph, kinds = program.graph, program.arguments.abstract
    stored = make_schedule(graph, "store_all")
    _, plain = compiled_temp(program.simple, kinds)
    limit = parse_bytes(budget, of=max(plain.nbytes, 1))
    say(
        f"plain step: {format_bytes(plain.nbytes)} of temporaries; the budget is "
        f"{format_bytes(limit)} (compiled in {plain.seconds:.1f} s)"
    )
    found = Found(program, stored, limit, plain, plain, is_plain=True)
    if plain.nbytes <= limit:
        return found
    smallest = plain.nbytes
    best: dict[str, Any] | None = None
    peak = simulate(graph, stored).peak
    for options in kinds_of_cuts(graph, cuts):
        for row in _tries(program, limit, options, plain.nbytes / max(peak, 1), say):
            found.tried.append(row)
            smallest = min(smallest, row["temp"].nbytes)
            if row["temp"].nbytes <= limit and (best is None or row["cost"] < best["cost"]):
                best = row
        if best is not None:
            break
    if best is None:
        told = [
            f"no plan that was compiled fits {format_bytes(limit)} ({limit} bytes) of temporaries",
            f"the smallest found needs {format_bytes(smallest)} ({smallest} bytes)",
            *advice(graph),
        ]
        raise BudgetError("; ".join(told), smallest=smallest)
    return Found(
        program, best["schedule"], limit, plain, best["temp"], merge=best["merge"],
        tried=found.tried,
    )  # fmt: skip


def _tries(
    program: JaxProgram, limit: int, options: Options, ratio: float, say: Say
) -> Iterator[dict[str, Any]]:
    """Plans compiled one after the other, between the last that fits and the first that doesn't."""
    graph = program.graph
    try:
        corners = corners_of(graph, **options)
    except UsageError:
        return  # it can't be cut so
    fits, fails, used = -1, len(corners), 0
    row = None
    known: dict[Any, dict[str, Any]] = {}
    while len(known) < COMPILATIONS:
        if fails - fits <= 1 or used > CLOSE * limit:
            break
        guess = bisect_right(corners, limit / ratio, key=lambda corner: corner.budget) - 1
        if not fits < guess < fails:
            guess = (fits + fails) // 2 if fits >= 0 else max(min(fails - 1, guess), 0)
        plan = make_schedule(graph, "chain", corners[guess].budget, **options).instructions
        again = plan in known
        row = known[plan] if again else try_corner(program, corners[guess], options, say)
        known[plan] = row
        ratio = row["temp"].nbytes / max(row["graph"], 1)
        if row["temp"].nbytes <= limit:
            fits, used = guess, row["temp"].nbytes
        else:
            fails = guess
        if not again:
            yield row
    if fits < 0 and fails > 0:
        row = try_corner(program, corners[0], options, say)
        yield row
    if fits < 0 and row and row["temp"].nbytes > limit:
        short = int(SHORT * graph.forward_flops)
        emitted = Emitted(program.lowered, row["schedule"], short)
        if emitted.conds < row["conds"]:
            yield try_corner(program, corners[0], options, say, merge=short)


def try_corner(
    program: JaxProgram, corner: Corner, options: Options, say: Say, merge: int = 0
) -> dict[str, Any]:
    """Compile the plan at a corner of the frontier."""
    graph = program.graph
    schedule = make_schedule(graph, "chain", corner.budget, **options)
    timeline = simulate(graph, schedule)
    emitted = Emitted(program.lowered, schedule, merge)
    _, temp = compiled_temp(program.emit(schedule, merge), program.arguments.abstract)
    say(
        f"planned {format_bytes(timeline.peak)} in the graph: {format_bytes(temp.nbytes)} of "
        f"temporaries, {100 * timeline.overhead:.0f} % of a forward recomputed in {emitted.conds} "
        f"conds (compiled in {temp.seconds:.1f} s)"
    )
    return {
        "schedule": schedule, "merge": merge, "temp": temp, "graph": timeline.peak,
        "cost": timeline.recompute_flops, "overhead": timeline.overhead, "conds": emitted.conds,
        "same_fusions": "widest" in options,
    }  # fmt: skip


def kinds_of_cuts(graph: Graph, cuts: str) -> list[Options]:
    """The planner's options, in the order in which they are tried. Between ``blocks`` little
    crosses, and XLA fuses on either side as in the plain step, so that bits stay the same;
    ``anywhere`` recomputes less, and XLA rounds some sums otherwise."""
    if cuts not in ("blocks", "anywhere"):
        raise UsageError(f"cuts are 'blocks' or 'anywhere', not {cuts!r}")
    width = narrowest(graph) if cuts == "blocks" else None
    anywhere: list[Options] = [{}]
    return anywhere if width is None else [{"options": False, "widest": width}, *anywhere]


def narrowest(graph: Graph) -> int | None:
    """The least bytes of a boundary with which the graph falls into enough stages."""
    inside = within_calls(graph)
    positions = [i for i in graph.computed[1:] if i not in inside]
    everywhere = cut_at(graph, positions).stages[1:]
    for width in sorted({stage.boundary_nbytes for stage in everywhere}):
        try:
            if len(find_stages(graph, widest=width)) >= STAGES:
                return width
        except UsageError:
            continue
    return None


def repeats(graph: Graph, schedule: Schedule) -> bool:
    return simulate(graph, schedule).recomputations > 0
