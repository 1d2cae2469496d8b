"""Binomial checkpointing: the fewest forwards for a chain of equal steps and a number of slots.

====  ===============================================================================
n     steps (stages of the chain)
s     slots: snapshots that may be held at once, the initial state's among them
r     sweeps: the most often that any step is advanced without a Backward after it
β     β(s, r) = C(s + r, s), the longest chain that s slots and r sweeps can do
η     untaped forwards: advances that no Backward follows
====  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import comb
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.cost import flops
from ckpt.planners.base.registry import over_budget, planner
from ckpt.planners.base.stages import find_stages
from ckpt.planners.base.tried import tried
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, StageOp, emit
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline

MOST_FORWARDS = 2_000_000


@planner("revolve", monotone=False, takes="slots")
def revolve(graph: Graph, budget: int | None = None, *, slots: int | None = None) -> Schedule:
    """Snapshots at binomial distances, each dropped and placed again as the backward proceeds.

    Source: Griewank & Walther 2000 (Algorithm 799), theorem for n steps and s snapshots; a slot
    holds one boundary, so its bytes are those of the largest. ``slots`` fixes s; by default it is
    the most that fit the budget, found by halving, each try simulated.

    Guarantee: for equal stages the fewest stage forwards that s snapshots allow, when only
    boundaries are kept. Ignores: that stages differ in bytes and FLOPs (so with unequal ones a
    larger budget may cost more), and that a tape could be kept instead of a boundary (see mixed).
    Cost: O(η + n) a try, log n tries; numbers of slots that take more than MOST_FORWARDS are tried
    only if asked for by ``slots``. Raises UsageError where the graph can't be cut, or for
    ``slots`` < 1.
    """
    if slots is not None and slots < 1:
        raise UsageError(f"revolve: {slots} slots; the initial state needs one")
    stages = find_stages(graph)

    def plan(s: int) -> Timeline:
        notes = {
            "stages": len(stages),
            "slots": s,
            "slot_nbytes": stages.boundary_nbytes,
            "untaped_forwards": eta(len(stages), s),
        }
        ops = revolve_ops(len(stages), s)
        return simulate(graph, emit(stages, ops, "revolve", budget, notes))

    n = len(stages)
    fewest = next(s for s in range(1, n + 1) if s == n or total_forwards(n, s) <= MOST_FORWARDS)
    return most_slots(graph, plan, budget, slots, range(fewest, n + 1), "revolve")


def eta(n: int, s: int) -> int:
    """Untaped forwards for n steps and s slots (the initial state's among them), in closed form.

    η = r n - C(s + r, r - 1) for the smallest r with n <= β(s, r). Total forwards, each step's one
    taped forward included, are η + n.
    """
    r = sweeps(n, s)
    return r * n - comb(s + r, r - 1) if r else 0


def total_forwards(n: int, s: int) -> int:
    """All stage forwards, the n that a Backward follows at once included."""
    return eta(n, s) + n


def sweeps(n: int, s: int) -> int:
    """The smallest r with n <= β(s, r)."""
    if s == 1:
        return n - 1
    r, reach = 0, 1
    while reach < n:
        r += 1
        reach = reach * (s + r) // r
    return r


def split(n: int, s: int) -> int:
    """How far to advance before the next snapshot: an optimal one, the least there is.

    Any k is optimal that leaves both parts their number of sweeps: β(s, r-2) <= k <= β(s, r-1) and
    β(s-1, r-1) <= n - k <= β(s-1, r).
    """
    r = sweeps(n, s)
    shortest = comb(s + r - 2, s) if r > 1 else 1
    return max(1, shortest, n - comb(s - 1 + r, s - 1))


def revolve_ops(n: int, s: int) -> list[StageOp]:
    """The stage operations for n stages and s slots: η of KEEP and ADVANCE, n of BACK."""
    ops: list[StageOp] = []
    known: dict[tuple[int, int], int] = {}
    waiting = [(0, n, s)]  # parts of the chain (first stage, length, slots), the next one last
    while waiting:
        start, length, slots = waiting.pop()
        while length > 1:
            if slots == 1:
                step = length - 1
            else:
                step = known.get((length, slots), 0)
                if not step:
                    step = known[length, slots] = split(length, slots)
            ops.append(StageOp(KEEP, start))
            ops += [StageOp(ADVANCE, k) for k in range(start + 1, start + step)]
            waiting.append((start, step, slots))
            start, length, slots = start + step, length - step, max(slots - 1, 1)
        ops.append(StageOp(BACK, start))
    return ops


def most_slots(
    graph: Graph,
    plan: Callable[[int], Timeline],
    budget: int | None,
    slots: int | None,
    choices: range,
    *planner: Any,
) -> Schedule:
    """The schedule of ``plan(s)`` for the given s, or the largest in ``choices`` that fits.

    Halving takes for granted that peaks grow with s. Where they don't, the schedule found still
    fits, but another s might be cheaper. It comes to few slots, whose plans are long, only if more
    don't fit. Raises BudgetError if the fewest slots don't.
    """
    if slots is not None or budget is None:
        choices = range(slots or choices[-1], (slots or choices[-1]) + 1)
    known = tried(graph, flops(graph), *planner)
    best: int | None = None
    middle = choices.stop
    low, high = choices.start - 1, choices.stop  # low fits or is outside, high doesn't or is
    while high - low > 1:
        clock.check()
        middle = (low + high) // 2
        peak = known.figures_of(middle, partial(plan, middle)).peak
        if budget is None or peak <= budget:
            low = best = middle
        else:
            high = middle
    if best is None:
        raise over_budget(graph, plan(middle), planner[0], budget)
    return plan(best).schedule
