"""The portfolio and the local search: never worse, within the budget, and exact where it can be."""

from __future__ import annotations

import random

import pytest

import ckpt
from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.models import build
from ckpt.planners.base import registry as base
from ckpt.planners.base.clock import Deadline, Progress, StoppedError
from ckpt.planners.base.cost import flops
from ckpt.planners.bounds import lower
from ckpt.planners.bounds.certificate import ALWAYS, WHOLE, certify
from ckpt.planners.bounds.simple import memory_floor
from ckpt.planners.search.drafts import Draft, Sheet
from ckpt.planners.search.improve import improve
from ckpt.planners.search.rollouts import Roller, Situation, Units
from ckpt.schedule import Backward, Compute, Schedule
from tests.graphs import Build, mlp, random_graph, unet, zoo

auto, beam, brute, chain, dtr, store_all = (
    base.get(name)[0] for name in ("auto", "beam", "brute", "chain", "dtr", "store_all")
)


def random_chain(stages: int, seed: int) -> Graph:
    """Stages of small random integers: a tape of its own, an output, both read by its Backward."""
    rng = random.Random(seed)
    b = Build()
    x = b.resident(rng.randint(1, 8), name="x")
    for _ in range(stages):
        tape = b.op(
            "tape", x, nbytes=rng.randint(1, 8), flops=rng.randint(1, 9), reads=[0],
            work=rng.randint(0, 3),
        )  # fmt: skip
        x = b.op(
            "out", tape, nbytes=rng.randint(1, 8), flops=rng.randint(1, 9),
            reads=rng.choice([[0], ["out"], [0, "out"]]), backward_work=rng.randint(0, 3),
        )  # fmt: skip
    return b.graph(x, name=f"chain-{stages}-{seed}")


def budgets(graph: Graph, *fractions: float) -> list[int]:
    stored = simulate(graph, store_all(graph)).peak
    return [int(stored * fraction) for fraction in fractions]


@pytest.mark.parametrize("stages", [2, 4, 5, 6])
@pytest.mark.parametrize("seed", range(4))
def test_auto_is_exact_on_chains_of_up_to_six_stages(stages: int, seed: int) -> None:
    graph = random_chain(stages, seed)
    for budget in budgets(graph, 0.8, 0.6, 0.5, 0.4):
        try:
            exact = simulate(graph, brute(graph, budget)).recompute_flops
        except BudgetError as error:
            with pytest.raises(BudgetError, match=rf"\({error.smallest} bytes\), set by"):
                auto(graph, budget)
            continue
        schedule = auto(graph, budget)
        timeline = simulate(graph, schedule)
        assert timeline.peak <= budget
        assert timeline.recompute_flops == exact
        assert schedule.notes["optimal"] is True


@pytest.mark.parametrize("name", zoo())
def test_auto_is_never_worse_than_what_it_contains(name: str) -> None:
    graph = zoo()[name]
    for budget in budgets(graph, 0.85, 0.55):
        try:
            schedule = auto(graph, budget, iterations=40)
        except BudgetError as error:
            budget = error.smallest or 0
            schedule = auto(graph, budget, iterations=40)
        timeline = simulate(graph, schedule)
        assert timeline.peak <= budget
        for row in schedule.notes["portfolio"].values():
            if isinstance(row, dict):
                assert timeline.recompute_flops <= row["recompute_cost"]


def test_auto_is_deterministic() -> None:
    graph = unet(6, 4096)
    (budget,) = budgets(graph, 0.6)
    schedule = auto(graph, budget)
    assert schedule.notes["iterations"] > 0
    assert "stopped_early" not in schedule.notes
    assert schedule == auto(graph, budget)


def test_auto_beats_chain_on_a_unet() -> None:
    graph = unet(6, 4096)
    (budget,) = budgets(graph, 0.6)
    chained = simulate(graph, chain(graph, budget)).recompute_flops
    schedule = auto(graph, budget)
    assert simulate(graph, schedule).recompute_flops < 0.8 * chained
    assert 0 < schedule.notes["iterations"] <= 400


def test_auto_asks_chain_for_longer_stages_too() -> None:
    """Which keep more for a moment, and so recompute less of this LSTM."""
    workload = build("lstm", depth=4, layers=1)
    graph = ckpt.trace(workload.loss, *workload.specs()).graph
    (budget,) = budgets(graph, 0.5)
    schedule = auto(graph, budget, iterations=0)
    cost = {k: v["recompute_cost"] for k, v in schedule.notes["portfolio"].items() if "chain" in k}
    assert cost["chain:16"] < cost["chain"]
    assert simulate(graph, schedule).recompute_flops <= min(cost.values())


def test_enough_memory_is_store_all() -> None:
    graph = unet(4)
    schedule = auto(graph)
    assert simulate(graph, schedule).recomputations == 0
    assert schedule.notes["portfolio"].keys() == {"store_all"}
    assert schedule.notes["optimal"] is True


def test_a_hundred_layers() -> None:
    rng = random.Random(1)
    graph = mlp([rng.choice([32, 64, 96, 128]) for _ in range(101)], 16)
    (budget,) = budgets(graph, 0.5)
    timeline = simulate(graph, auto(graph, budget))
    assert timeline.peak <= budget
    assert timeline.recompute_flops < simulate(graph, dtr(graph, budget)).recompute_flops


def test_it_ends_at_the_bound_which_is_proven_once(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = zoo()["unet"]
    (budget,) = budgets(graph, 0.85)
    heard: list[Progress] = []
    with Deadline(tell=heard.append).running():
        schedule = auto(graph, budget)
    cost = simulate(graph, schedule).recompute_flops
    assert cost > 0
    assert schedule.notes["optimal"] is True
    assert not {"beam", "brute"} & schedule.notes["portfolio"].keys()
    assert [round(p.bound * graph.forward_flops) for p in heard][-1] < cost  # before it was proven
    monkeypatch.setattr(lower, "pair_bound", None)
    found = certify(graph, schedule)
    assert found.optimal
    assert (found.bound.name, found.bound.cost) == ("linear program", cost)
    assert found.assumptions == (ALWAYS, WHOLE)


# -- improve ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo())
def test_a_plan_is_priced_as_simulate_prices_it(name: str) -> None:
    graph = zoo()[name]
    sheet = Sheet(graph, flops(graph))
    for budget in budgets(graph, 1.0, 0.8, 0.6):
        try:
            schedule = dtr(graph, budget)
        except BudgetError:
            continue
        draft = Draft(sheet, sheet.actions_of(schedule))
        timeline = simulate(graph, Schedule(tuple(draft.instructions())))
        assert timeline.peak == draft.peak
        assert timeline.recompute_flops == draft.cost - graph.forward_flops
        steps = [h for h, p in zip(timeline.columns["high"], timeline.columns["phase"], strict=True)
                 if p != 3]  # fmt: skip
        assert steps == list(draft.high)


def test_a_needless_recomputation_goes_and_values_are_freed_early() -> None:
    graph = random_chain(3, 0)
    forward = [Compute(i) for i in range(1, 7)]
    schedule = Schedule((*forward, *map(Backward, range(len(graph.steps)))))
    stored = simulate(graph, store_all(graph)).peak
    assert simulate(graph, schedule).peak > stored
    assert simulate(graph, improve(graph, schedule, iterations=0).schedule).peak == stored

    twice = base.get("recompute_all")[0](graph)
    assert simulate(graph, twice).recompute_flops > 0
    assert (
        simulate(graph, improve(graph, twice, stored, iterations=0).schedule).recompute_flops == 0
    )


@pytest.mark.parametrize("seed", range(6))
def test_improve_is_within_the_budget_never_worse_and_near_the_optimum(seed: int) -> None:
    graph = random_chain(6, 100 + seed)
    before = filled = after = exact = 0
    for budget in budgets(graph, 0.85, 0.75, 0.65, 0.55):
        try:
            schedule = dtr(graph, budget)
        except BudgetError:
            continue
        improved = improve(graph, schedule, budget).schedule
        timeline = simulate(graph, improved)
        assert timeline.peak <= budget
        assert timeline.recompute_flops <= simulate(graph, schedule).recompute_flops
        assert improved == improve(graph, schedule, budget).schedule
        before += simulate(graph, schedule).recompute_flops
        greedy = improve(graph, schedule, budget, iterations=0).schedule
        filled += simulate(graph, greedy).recompute_flops
        after += timeline.recompute_flops
        exact += simulate(graph, brute(graph, budget)).recompute_flops
    assert exact <= after <= 1.2 * exact
    assert after <= filled <= before
    assert after < before or before == exact


@pytest.mark.parametrize("seed", [*range(0, 60, 4), 192])
def test_improve_takes_any_graph(seed: int) -> None:
    # 192: a schedule that recomputes, with nothing that could be recomputed instead.
    graph = random_graph(random.Random(seed), 4 + seed % 24)
    for budget in budgets(graph, 0.9, 0.75, 0.6):
        try:
            schedule = dtr(graph, budget)
        except BudgetError:
            continue
        timeline = simulate(graph, improve(graph, schedule, budget, 15).schedule)
        assert timeline.peak <= budget
        assert timeline.recompute_flops <= simulate(graph, schedule).recompute_flops


# -- the deadline ----------------------------------------------------------------------------------


def test_a_search_that_is_stopped_gives_the_best_it_has() -> None:
    graph = unet(6, 4096)
    (budget,) = budgets(graph, 0.6)
    heard = []

    def hear(progress: Progress) -> None:
        heard.append(progress)
        if progress.recompute is not None:
            deadline.stop("Ctrl-C")

    deadline = Deadline(tell=hear)
    with deadline.running():
        schedule = auto(graph, budget)
    assert schedule.notes["stopped_early"] == "Ctrl-C"
    timeline = simulate(graph, schedule)
    assert timeline.peak <= budget
    whole = simulate(graph, auto(graph, budget))
    assert 0 < whole.recompute_flops < timeline.recompute_flops
    assert heard[0].recompute is None
    assert heard[-1].recompute == pytest.approx(timeline.overhead)


def test_without_a_plan_the_error_names_the_floor_and_the_smallest() -> None:
    graph = unet(6, 4096)
    floor = memory_floor(graph).nbytes
    with pytest.raises(
        BudgetError, match=rf"there is no schedule .*\({floor} bytes\), proven"
    ) as e:
        auto(graph, floor - 1)
    assert e.value.smallest is not None
    assert simulate(graph, auto(graph, e.value.smallest)).peak <= e.value.smallest
    deadline = Deadline()
    deadline.stop("Ctrl-C")
    with deadline.running(), pytest.raises(StoppedError):
        dtr(mlp([32] * 300, 16), 10**6)


def test_a_deadline_ends_by_time_and_by_that_around_it() -> None:
    outer, inner = Deadline(0.0), Deadline(100.0)
    with outer.running(), inner.running():
        assert inner.reason == "time limit of 0 s"
    assert Deadline(100.0).reason == ""


# -- the beam --------------------------------------------------------------------------------------


def test_a_beam_keeps_its_promise_and_beats_eviction_without_look_ahead() -> None:
    graph = unet(6, 4096)
    planned = evicted = 0
    for budget in budgets(graph, 0.8, 0.6):
        timeline = simulate(graph, beam(graph, budget, work=100_000))
        assert timeline.peak <= budget
        planned += timeline.recompute_flops
        evicted += simulate(graph, dtr(graph, budget)).recompute_flops
        assert timeline.schedule == beam(graph, budget, work=100_000)
    assert 0 < planned < evicted


@pytest.mark.parametrize("name", zoo())
def test_a_rollout_costs_what_its_schedule_does(name: str) -> None:
    graph = zoo()[name]
    units = Units(graph, flops(graph))
    for budget in budgets(graph, 0.9, 0.7):
        roller = Roller(units, budget, 0.25)
        state, rows, rolled = Situation(0, frozenset(), 0), [], None
        for _ in units.reads:
            rolled = roller.roll(state)
            if rolled is None:
                break
            state = rolled.after
            rows.append(rolled.computed)
        if rolled is not None:
            timeline = simulate(graph, units.schedule(rows))
            assert timeline.recompute_flops <= rolled.cost - graph.forward_flops
