"""Checkmate's program: equal to a search of its whole class, never above its budget, honest when
the clock stops it."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain as joined
from itertools import combinations
from random import Random

import pytest

from ckpt.errors import BudgetError, MissingExtraError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry as base
from ckpt.planners.base.cost import flops
from ckpt.planners.base.reads import closure
from ckpt.planners.exact.checkmate import Checkmate, perform
from ckpt.planners.exact.epochs import Epochs, epochs_of, join
from ckpt.schedule import Compute
from tests.graphs import Build, masked, mlp, random_graph, residual_net, uneven_chain

ilp = base.get("ilp")[0]
brute = base.get("brute")[0]


def class_search(space: Epochs, budget: int) -> int | None:
    """Least recompute in the class: tries every set that each epoch may begin with."""
    graph = space.graph
    nodes = graph.nodes
    best: dict[tuple[frozenset[int], frozenset[int]], int] = {(frozenset(), frozenset()): 0}
    for t, epoch in enumerate(space.epochs):
        keepable = space.epochs[t + 1].keepable if t + 1 < len(space.epochs) else frozenset()
        nxt: dict[tuple[frozenset[int], frozenset[int]], int] = {}
        for (live, spent), cost in best.items():
            for kept in subsets(keepable & (live | set(epoch.computable))):
                if any(
                    graph.owners[i] not in kept and not nodes[graph.owners[i]].resident
                    for i in kept
                ):
                    continue
                computed = closure(graph, epoch.residuals | kept, live)
                if not computed <= set(epoch.computable) or computed & spent:
                    continue
                if not epoch_fits(space, t, live, computed, kept, budget):
                    continue
                key = (kept, spent | {i for i in computed if nodes[i].captured})
                total = cost + sum(nodes[i].flops for i in computed)
                nxt[key] = min(nxt.get(key, total), total)
        best = nxt
    forward = sum(nodes[i].flops for i in graph.needed)
    return min(best.values()) - forward if best else None


def subsets(items: frozenset[int]) -> list[frozenset[int]]:
    rows = joined.from_iterable(combinations(sorted(items), k) for k in range(len(items) + 1))
    return [frozenset(row) for row in rows]


def epoch_fits(
    space: Epochs,
    t: int,
    live: frozenset[int],
    computed: set[int],
    kept: frozenset[int],
    budget: int,
) -> bool:
    graph, epoch = space.graph, space.epochs[t]
    done = max((s.backwards.stop for s in space.epochs[:t]), default=0)

    def held(values: set[int]) -> int:
        owners = {graph.owners[i] for i in values}
        return sum(graph[o].nbytes for o in owners if not graph[o].resident)

    now = set(live)
    order = sorted(computed)
    for position, i in enumerate(order):
        now.add(i)
        if held(now) + graph[i].workspace + graph.between[done] > budget:
            return False
        later = set().union(*(graph[j].deps for j in order[position + 1 :]), ())
        now &= later | epoch.residuals | kept
    for q in epoch.backwards:
        pending = set().union(*(graph.steps[p].reads for p in epoch.backwards if p >= q))
        now &= pending | kept
        if held(now) + graph.steps[q].during > budget:
            return False
    return True


def budgets(graph: Graph, space: Epochs) -> range:
    top = perform(space, space.all_kept()).peak
    return range(top // 3, top + 1, max(1, top // 9))


@pytest.mark.parametrize("seed", range(24))
def test_it_equals_a_search_of_its_class(seed: int) -> None:
    graph = random_graph(Random(seed), 5)
    for groups, parts in ((None, 1), (join(graph), 1), (None, 2)):
        space = epochs_of(graph, groups, forward_epochs=parts)
        model = Checkmate(space, flops(graph))
        for budget in budgets(graph, space):
            found = model.cheapest(budget, time_limit=30)
            best = class_search(space, budget)
            if best is None:
                assert found.x is None
                continue
            timeline = perform(space, model.kept(found.x))
            assert timeline.peak <= budget
            assert timeline.recompute_flops <= best == model.recompute_bound(found.value)


@pytest.mark.parametrize("seed", range(12))
def test_never_below_brute_force_and_equal_where_order_does_not_matter(seed: int) -> None:
    rng = Random(seed)
    n = rng.randint(4, 6)
    graph = uneven_chain(
        [*(rng.randint(1, 9) for _ in range(n)), 0], [rng.randint(1, 9) for _ in range(n + 1)]
    )
    top = simulate(graph, brute(graph)).peak
    for budget in range(top // 2, top, max(1, top // 8)):
        try:
            best = simulate(graph, brute(graph, budget)).recompute_flops
        except BudgetError:
            with pytest.raises(BudgetError):
                ilp(graph, budget)
            continue
        plan = ilp(graph, budget, forward_epochs=len(graph))
        timeline = simulate(graph, plan)
        assert timeline.peak <= budget
        assert timeline.recompute_flops == best
        assert plan.notes["status"] == "optimal"


def test_the_program_has_no_slack_in_its_least_peak() -> None:
    """What it says is the least peak of the class is the peak that the simulation finds."""
    for seed in range(15):
        graph = random_graph(Random(seed), 6)
        space = epochs_of(graph)
        model = Checkmate(space, flops(graph))
        least = model.smallest(time_limit=30)
        peak = perform(space, model.kept(least.x)).peak
        assert peak == round(least.value * model.byte_unit)
        assert class_search(space, peak) is not None
        assert class_search(space, peak - 1) is None


def test_checkmates_chain_counts_a_peak_after_the_result_is_allocated() -> None:
    """n unit steps, each Backward reading its input (Jain et al. 2020, §2).

    A step holds its input and its result at once, and a Backward its residual and two cotangents,
    of which the loss's has no bytes: all n - 1 values and one cotangent take n bytes.
    """
    n = 8
    b = Build()
    x = b.resident(1, name="x")
    for _ in range(n - 1):
        x = b.op("step", x, nbytes=1, flops=1, reads=[0])
    graph = b.graph(b.op("loss", x, nbytes=0, flops=1, reads=[0]))
    top = simulate(graph, ilp(graph)).peak
    assert top == n
    costs = []
    for budget in range(top, 2, -1):
        timeline = simulate(graph, ilp(graph, budget))
        assert timeline.peak <= budget
        costs.append(timeline.recompute_flops)
        assert costs[-1] == simulate(graph, brute(graph, budget)).recompute_flops
    assert costs == sorted(costs)
    assert costs[0] == 0
    # Three bytes hold a value and a step's two cotangents: the loss leaves the last two values, and
    # each of the others is computed from the start.
    assert costs[-1] == sum(range(1, n - 2))
    with pytest.raises(BudgetError) as caught:
        ilp(graph, 2)
    assert caught.value.smallest == 3


def test_a_captured_array_is_computed_once() -> None:
    graph = masked(3)
    top = simulate(graph, ilp(graph)).peak
    plan = ilp(graph, int(top * 0.8))
    timeline = simulate(graph, plan)
    assert timeline.peak <= int(top * 0.8)
    assert timeline.recompute_flops > 0
    assert all(timeline.counts[i] == 1 for i, node in enumerate(graph) if node.captured)


def test_it_recomputes_values_and_not_views() -> None:
    b = Build()
    x = b.resident(8)
    for _ in range(4):
        x = b.op("tanh", x, nbytes=8, flops=8, reads=["out"])
        x = b.op("reshape", x, nbytes=8, view=True, kinds="view")
    graph = b.graph(b.op("sum", x, nbytes=0, flops=8, kinds="view"))
    top = simulate(graph, ilp(graph)).peak
    timeline = simulate(graph, ilp(graph, top - 8))
    assert timeline.peak <= top - 8
    assert timeline.recompute_flops == 8  # one tanh more, and its view for nothing


def test_when_nothing_fits_the_smallest_budget_is_one_that_it_meets() -> None:
    graph = mlp([4, 6, 6, 4])
    with pytest.raises(BudgetError) as caught:
        ilp(graph, 64)
    assert caught.value.smallest is not None
    assert caught.value.instruction is not None
    assert simulate(graph, ilp(graph, caught.value.smallest)).peak == caught.value.smallest


def test_the_clock_stops_it_with_a_schedule_and_its_gap() -> None:
    graph = residual_net(8)
    budget = simulate(graph, ilp(graph)).peak * 6 // 10
    plan = ilp(graph, budget, time_limit=0.5)
    timeline = simulate(graph, plan)
    assert timeline.peak <= budget
    assert plan.notes["status"] == "stopped by the clock at 0.5 s"
    cost = timeline.recompute_flops
    assert 0 < plan.notes["gap"] <= 1
    assert plan.proof is not None
    assert plan.notes["gap"] == pytest.approx((cost - plan.proof.bound) / cost)


def test_a_large_graph_is_coarsened_and_says_so() -> None:
    graph = residual_net(40)
    budget = simulate(graph, ilp(graph)).peak // 2
    plan = ilp(graph, budget, time_limit=5)
    assert simulate(graph, plan).peak <= budget
    assert plan.proof is not None
    assert any(
        "recomputed only at 8 of the 162 Backwards" in words for words in plan.proof.assumptions
    )


def test_without_a_budget_nothing_is_recomputed() -> None:
    graph = mlp([4, 4, 4])
    plan = ilp(graph)
    assert [s.node for s in plan if isinstance(s, Compute)] == sorted(
        i for i in graph.needed if not graph[i].resident
    )
    assert simulate(graph, plan).recompute_flops == 0


def test_without_scipy_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net(3)
    budget = simulate(graph, ilp(graph)).peak - 1
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingExtraError, match=r"planner ilp needs scipy.*ckpt-profiler\[ilp\]"):
        ilp(graph, budget)


def test_scipy_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, ckpt.planners.exact.ilp, ckpt.planners.bounds.certificate; "
        "print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_48_nodes_are_proven_within_a_minute(share: float) -> None:
    rng = Random(2)
    graph = uneven_chain(
        [*(rng.randint(1, 20) for _ in range(23)), 1], [rng.randint(1, 20) for _ in range(24)]
    )
    budget = int(simulate(graph, ilp(graph)).peak * share)
    plan = ilp(graph, budget, time_limit=60)
    assert plan.notes["status"] == "optimal"
    assert simulate(graph, plan).peak <= budget
