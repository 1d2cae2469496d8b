"""simulate == execute for every model, under several planners, and the same gradients."""

from __future__ import annotations

import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.models import build
from ckpt.planners import make_schedule
from ckpt.program import execute
from ckpt.schedule import Schedule
from ckpt.studies.measure import tolerance
from ckpt.timeline import holdings
from tests.models.small import SMALL

DROPOUT = {"vgg": {"dropout": 0.4}, "gpt": {"dropout": 0.1}}


def least(graph: Graph) -> Schedule:
    """The chain planner's schedule of half of store-all's peak, or else of its least."""
    try:
        return make_schedule(graph, "chain", "50%")
    except BudgetError as error:
        return make_schedule(graph, "chain", error.smallest)


@pytest.mark.parametrize("name", SMALL)
def test_simulated_and_executed_bytes_agree(name: str) -> None:
    """Live bytes at each instruction, the peak that tracemalloc sees, and the gradients' bits."""
    model, options = SMALL[name]
    options = {**options, **DROPOUT.get(name, {})}
    workload = build(model, **options)
    plain = workload.trace()
    eager = plain.digest(plain.plain(*workload.arrays()))
    peaks = {}
    for case in ("store_all", "sqrt", "chain", "segments"):
        chosen = build(model, **options, segments=3) if case == "segments" else workload
        program = chosen.trace()
        schedule = least(program.graph) if case == "chain" else None
        if schedule is None:
            planner = "as_written" if case == "segments" else case
            schedule = make_schedule(program.graph, planner, None)
        simulated = simulate(program.graph, schedule)
        run = execute(program, schedule, *chosen.arrays(), trace_memory=True)
        assert simulated.same_live_bytes(run.timeline) is None
        live = len(holdings(program.graph, simulated, simulated.peak_position))
        allowed = tolerance(simulated, live, len(program.graph))
        assert abs(run.timeline.peak - simulated.peak) <= allowed, case
        assert program.digest(run.result) == eager, case
        peaks[case] = simulated.peak
    if name != "mlp":  # whose only residuals are its layers' boundaries
        assert min(peaks.values()) < peaks["store_all"]
