"""Mixed checkpointing on graphs."""

from __future__ import annotations

import pytest

from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.revolve.mixed import mixed_ops, mixed_tables
from ckpt.planners.revolve.revolve import total_forwards
from ckpt.planners.revolve.stage_ops import BACK, KEEP, TAPE, StageOp
from tests.graphs import chain, uneven_chain


def mixed_forwards(n: int, s: int) -> int:
    """P(n, s): all stage forwards for n steps and s slots."""
    return int(mixed_tables(n, s)[0][n, s])


def test_two_slots_for_three_steps_are_two_tapes() -> None:
    _, choices = mixed_tables(3, 2)
    assert mixed_ops(3, 2, choices) == [
        StageOp(TAPE, 0),
        StageOp(TAPE, 1),
        StageOp(BACK, 2),
        StageOp(BACK, 1),
        StageOp(BACK, 0),
    ]


def test_one_slot_for_three_steps_is_a_restart_then_a_tape() -> None:
    _, choices = mixed_tables(3, 1)
    ops = mixed_ops(3, 1, choices)
    assert [op.kind for op in ops if op.stage == 0] == [KEEP, TAPE, BACK]
    assert mixed_forwards(3, 1) == 5


@pytest.mark.parametrize("s", [1, 2, 4, 8, 19])
def test_recompute_is_the_table(s: int) -> None:
    n = 20
    graph = uneven_chain([10] * n, [1] * n)
    timeline = simulate(graph, make_schedule(graph, f"mixed:{s}"))
    assert timeline.forward_flops + timeline.recompute_flops == mixed_forwards(n, s)
    assert timeline.peak <= (s + 5) * 10 + 1


def test_it_beats_revolve_where_a_tape_is_as_small_as_a_boundary() -> None:
    assert mixed_forwards(50, 4) == 164 < total_forwards(50, 4) == 194
    graph = chain(20)
    peak = simulate(graph, make_schedule(graph, "store_all")).peak
    for budget in (peak * 3 // 4, peak // 2):
        mixed = simulate(graph, make_schedule(graph, "mixed", budget))
        revolve = simulate(graph, make_schedule(graph, "revolve", budget))
        assert mixed.recompute_flops <= revolve.recompute_flops
