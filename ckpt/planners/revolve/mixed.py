"""Mixed checkpointing: a slot holds a boundary to restart from, or a tape that needs no restart.

====  ===============================================================================
n     steps (stages of the chain)
s     slots beside the state in hand, each for one boundary or one stage's tape
P     P(n, s): forwards of stages, taped ones included
====  ===============================================================================
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.registry import planner
from ckpt.planners.base.stages import find_stages
from ckpt.planners.revolve.revolve import most_slots
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, TAPE, StageOp, emit
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline

Table = npt.NDArray[np.int64]
NEVER = 2**40


@planner("mixed", monotone=False, takes="slots")
def mixed(
    graph: Graph, budget: int | None = None, *, slots: int | None = None, max_stages: int = 300
) -> Schedule:
    """For each slot, choose between the boundary before a stage and the stage's tape.

    Source: Maddison 2024, the dynamic programme for equal sizes; a slot's bytes are the larger of
    the largest boundary and the largest tape. ``slots`` fixes s; by default it is the most that fit
    the budget, found by halving, each try simulated. Longer chains are cut into ``max_stages``.

    Guarantee: for equal stages the fewest stage forwards that s slots of either kind allow; with
    n - 1 slots it is store-all. Ignores: that stages differ in bytes and FLOPs (so with unequal
    ones a larger budget may cost more). Cost: O(n³) array elements for the table, then O(P) a try.
    Raises UsageError where the graph can't be cut, or for ``slots`` < 1.
    """
    if slots is not None and slots < 1:
        raise UsageError(f"mixed: {slots} slots; a restart needs one")
    stages = find_stages(graph, max_stages=max_stages)
    n = len(stages)
    costs, choices = mixed_tables(n, n - 1 if slots is None else min(slots, n - 1))
    largest_tape = max(stage.tape_nbytes for stage in stages.stages)

    def plan(s: int) -> Timeline:
        notes = {
            "stages": n,
            "slots": s,
            "slot_nbytes": max(stages.boundary_nbytes, largest_tape),
            "forwards": int(costs[n, s]),
        }
        return simulate(graph, emit(stages, mixed_ops(n, s, choices), "mixed", budget, notes))

    return most_slots(graph, plan, budget, slots, range(1, n), "mixed", max_stages)


def mixed_tables(n: int, s: int) -> tuple[Table, Table]:
    """P and the choice behind it for all chains of up to n steps and up to s slots.

    P(n, s) = n if n <= s + 1, else the least of 1 + P(n-1, s-1), which tapes the first step, and of
    i + P(i, s) + P(n-i, s-1), which stores its input and advances i steps. The choice is 0 for a
    tape and i otherwise.
    """
    costs = np.full((n + 1, s + 1), NEVER, dtype=np.int64)
    choices = np.zeros((n + 1, s + 1), dtype=np.int64)
    costs[1] = 1
    for length in range(2, n + 1):
        costs[length, 1:] = 1 + costs[length - 1, :-1]
        if length > 2:
            advance = np.arange(2, length)[:, None]
            stored = advance + costs[2:length, 1:] + costs[length - 2 : 0 : -1, :-1]
            least = stored.min(axis=0)
            better = least < costs[length, 1:]
            costs[length, 1:][better] = least[better]
            choices[length, 1:][better] = 2 + stored.argmin(axis=0)[better]
    return costs, choices


def mixed_ops(n: int, s: int, choices: Table) -> list[StageOp]:
    """The stage operations for n stages and s slots, as ``choices`` says."""
    ops: list[StageOp] = []
    waiting: list[tuple[int, int, int]] = [(0, n, s)]  # length 0: only the BACK of a taped stage
    while waiting:
        start, length, slots = waiting.pop()
        if length <= 1:
            ops.append(StageOp(BACK, start))
            continue
        step = int(choices[length, slots])
        if step == 0:
            ops.append(StageOp(TAPE, start))
            waiting += [(start, 0, 0), (start + 1, length - 1, slots - 1)]
        else:
            ops.append(StageOp(KEEP, start))
            ops += [StageOp(ADVANCE, k) for k in range(start + 1, start + step)]
            waiting += [(start, step, slots), (start + step, length - step, slots - 1)]
    return ops
