"""Certificates: true numbers, and optimal only where it is proven."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ckpt.errors import BudgetError, UsageError
from ckpt.machine import simulate
from ckpt.planners.base import registry as base
from ckpt.planners.bounds.certificate import ALWAYS, WHOLE, Certificate, certify
from tests.graphs import uneven_chain, unit_chain

SIZES, FLOPS = [8, 3, 12, 5, 9, 2, 14, 1], [5, 9, 2, 40, 7, 7, 1, 3]


def test_store_all_is_optimal_and_any_schedule_is_meant() -> None:
    graph = unit_chain(8)
    plan = base.get("store_all")[0](graph)
    found = certify(graph, plan)
    assert found.optimal
    assert found.gap == 0
    assert found.recompute == 0
    assert found.budget == found.peak == simulate(graph, plan).peak
    assert found.assumptions == (ALWAYS, WHOLE)
    assert "optimal" in str(found)


def test_optimal_is_never_claimed_for_what_brute_force_beats() -> None:
    graph = uneven_chain(SIZES, FLOPS)
    brute = base.get("brute")[0]
    top = simulate(graph, brute(graph)).peak
    seen = set()
    for name in ("greedy", "lp_round", "ilp", "recompute_all", "brute"):
        for budget in range(top // 2, top + 1, top // 8):
            try:
                plan = base.get(name)[0](graph, budget)
            except BudgetError:
                continue
            found = certify(graph, plan, budget)
            best = simulate(graph, brute(graph, budget)).recompute_flops
            assert found.within
            assert (found.bound.cost or 0) <= best <= found.recompute
            assert found.floor <= found.peak
            if found.optimal and found.assumptions == (ALWAYS, WHOLE):
                assert found.recompute == best
            seen.add((name, found.optimal))
    assert ("ilp", True) in seen
    assert ("recompute_all", False) in seen


def test_a_planners_own_proof_is_told_with_its_assumptions() -> None:
    graph = uneven_chain(SIZES, FLOPS)
    budget = 44
    plan = base.get("ilp")[0](graph, budget)
    found = certify(graph, plan, effort=0)
    assert found.optimal
    assert found.gap > 0
    assert found.class_gap == 0
    assert "computes between two Backwards go in the order of the program, each at most once" in (
        found.assumptions
    )
    assert "for its class, by ilp" in str(found)
    assert "none does with less" in found.verdict
    # For a larger budget, or another graph, that proof says nothing.
    assert certify(graph, plan, budget + 1).class_bound is None
    assert certify(graph, replace(plan, graph="another")).class_bound is None


def test_a_schedule_above_the_budget_is_not_optimal() -> None:
    graph = unit_chain(8)
    found = certify(graph, base.get("store_all")[0](graph), 5)
    assert not found.within
    assert not found.optimal
    assert "ABOVE the budget" in str(found)


def test_a_budget_that_nothing_meets_is_said_to_be_impossible() -> None:
    graph = unit_chain(8)
    found = certify(graph, base.get("store_all")[0](graph), 2)
    assert found.bound.cost is None
    assert "no schedule fits" in str(found)


def test_it_says_what_sets_the_floor_and_the_gap_of_recompute() -> None:
    graph = unit_chain(8)
    plan = base.get("recompute_all")[0](graph)
    found = certify(graph, plan, 10)
    assert found.floor == 4
    assert "backward" in found.floor_instruction
    assert found.recompute == simulate(graph, plan).recompute_flops > 0
    assert found.gap == 1.0  # nothing need be recomputed in ten bytes
    share = found.recompute / found.forward
    assert found.gap_forward == share
    assert found.verdict == (
        f"Recompute {100 * share:.1f} % of a forward (a step "
        f"{100 * found.recompute / (found.forward + found.backward):.1f} % longer). "
        "No schedule within this budget does with less than 0.0 %."
    )
    assert f"at most {100 * share:.1f} points of a forward" in str(found)


def test_json_round_trip() -> None:
    graph = uneven_chain(SIZES, FLOPS)
    found = certify(graph, base.get("ilp")[0](graph, 44))
    text = json.dumps(found.to_json())
    assert Certificate.from_json(json.loads(text)) == found
    assert json.loads(text)["optimal"] is True
    with pytest.raises(UsageError, match="damaged"):
        Certificate.from_json({k: v for k, v in found.to_json().items() if k != "peak"})
    with pytest.raises(UsageError, match="version"):
        Certificate.from_json(found.to_json() | {"version": 99})
