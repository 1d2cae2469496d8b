"""A traced function is a Program: live bytes, peak and bits, for every schedule."""

from __future__ import annotations

import pytest

pytest.importorskip("jax")
import jax
import numpy as np

import ckpt
from ckpt.jax.run.program import JaxProgram
from ckpt.program import Program
from tests.jax.programs import PROGRAMS, mlp_case, transformer_case

PLANNERS = ("store_all", "recompute_all", "sqrt", "chain", "dtr")


def near(a: object, b: object) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_schedule_holds_what_was_predicted_and_gives_the_same_bits(name: str) -> None:
    function, args = PROGRAMS[name]()
    program = JaxProgram(function, args)
    assert isinstance(program, Program)
    plain = program.plain(*args)
    near(plain, jax.value_and_grad(function)(*args))
    for planner in PLANNERS:
        try:
            schedule = ckpt.make_schedule(program.graph, planner)
        except ckpt.UsageError:
            continue
        predicted = ckpt.simulate(program.graph, schedule)
        run = ckpt.execute(program, schedule, *args)
        assert predicted.same_live_bytes(run.timeline) is None, planner
        assert run.timeline.peak <= predicted.peak
        assert program.digest(run.result) == program.digest(plain), planner


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("planner", ["recompute_all", "chain"])
def test_every_schedule_compiles_to_the_same_gradients(name: str, planner: str) -> None:
    function, args = PROGRAMS[name]()
    program = JaxProgram(function, args)
    schedule = ckpt.make_schedule(program.graph, planner)
    step = jax.jit(program.emit(schedule))
    made = program.result(*step(*program.flat(args)))
    near(made, jax.jit(jax.value_and_grad(function))(*args))


@pytest.mark.parametrize("case", [mlp_case, transformer_case])
def test_flops_are_those_that_xla_counts(case: object) -> None:
    function, args = case(width=128)  # type: ignore[operator]
    graph = JaxProgram(function, args).graph
    compiled = jax.jit(jax.value_and_grad(function)).lower(*args).compile()
    assert graph.forward_flops + graph.backward_flops == pytest.approx(
        compiled.cost_analysis()["flops"], rel=0.04
    )


def test_a_graph_is_data_and_says_where_values_come_from() -> None:
    function, args = PROGRAMS["transformer"]()
    graph = JaxProgram(function, args).graph
    assert ckpt.Graph.from_json(graph.to_json()) == graph
    assert graph.digest == JaxProgram(function, args).graph.digest
    assert all(n.source.startswith("programs.py:") for n in graph if not n.resident)
    assert "argument 0[0]['qkv']" in {n.name for n in graph if n.resident}
    assert list(graph.positions) == sorted(graph.positions, reverse=True)


def test_a_users_own_checkpoint_is_replaced_by_the_plan() -> None:
    function, args = mlp_case()
    graph = JaxProgram(jax.checkpoint(function), args).graph
    dots = [n for n in graph if n.op == "dot_general"]
    assert len(dots) == 8  # each product once, and none among what the backward repeats
    assert "tanh" not in {step.label for step in graph.steps}
    assert len([n for n in graph if n.op == "tanh"]) == 8


def test_a_scan_is_one_node_whose_residuals_count() -> None:
    function, args = PROGRAMS["dropout"]()
    graph = JaxProgram(function, args).graph
    (scan,) = [i for i, n in enumerate(graph) if n.op == "scan" and n.call]
    kept = [r for r in graph.results[scan] if graph.step_readers[r]]
    assert sum(graph[r].nbytes for r in kept) >= 3 * 4 * 8 * 4  # tanh of each of three turns
    assert graph[scan].flops > 3 * 2 * 4 * 8 * 8
