"""Planned functions: the budget is kept by what XLA compiles, and gradients are the plain ones."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jax")
import jax
import jax.numpy as jnp
import numpy as np

import ckpt
import ckpt.jax
from ckpt.jax.run.conds import opaque
from tests.jax.programs import PROGRAMS, mlp_case, transformer_case

QUIET: dict[str, Any] = {"progress": False}


def same_bits(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.mark.parametrize("budget", ["60%", "35%"])
def test_the_compiled_step_keeps_the_budget_and_the_bits(budget: str) -> None:
    loss, args = mlp_case()
    step = ckpt.jax.plan(loss, *args, budget=budget, **QUIET)
    plain = ckpt.jax.measure(loss, *args)
    limit = plain.nbytes * int(budget[:-1]) // 100
    assert ckpt.jax.measure(step, *args).nbytes <= limit
    assert step.timeline.recompute_flops > 0
    found = step.verify(*args)
    assert (found.equal, found.difference) == (found.count, 0.0)
    assert found.planned.nbytes <= limit < found.plain.nbytes
    assert same_bits(jax.jit(step)(*args), jax.jit(jax.value_and_grad(loss))(*args))
    assert step.certificate.peak == step.timeline.peak
    assert "bit for bit" in str(found)
    assert "conds" not in str(step) and "compilations" in str(step)


def test_within_the_users_jit_with_update_and_donation() -> None:
    loss, (params, x) = mlp_case(depth=12)
    step = ckpt.jax.plan(loss, params, x, budget="30%", **QUIET)

    def train(gradients: Any, params: Any, x: Any) -> Any:
        value, grads = gradients(params, x)
        return value, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    temps = []
    made = []
    for gradients in (jax.value_and_grad(loss), step):
        compiled = (
            jax.jit(lambda p, x, g=gradients: train(g, p, x), donate_argnums=0)
            .lower(params, x)
            .compile()
        )
        temps.append(compiled.memory_analysis().temp_size_in_bytes)
        made.append(compiled(jax.tree.map(jnp.copy, params), x))
    assert temps[1] <= 0.4 * temps[0]
    assert same_bits(*made)


def test_a_plain_step_that_fits_is_returned() -> None:
    loss, args = mlp_case()
    step = ckpt.jax.plan(loss, *args, budget="100%", **QUIET)
    assert step.found.is_plain
    assert step.timeline.recompute_flops == 0
    assert same_bits(jax.jit(step)(*args), jax.jit(jax.value_and_grad(loss))(*args))
    jax.vmap(step, (None, 0))(args[0], args[1][None])  # it has no cond


def test_too_small_a_budget_names_the_smallest() -> None:
    loss, args = mlp_case(depth=6)
    with pytest.raises(ckpt.BudgetError, match="smallest found needs") as error:
        ckpt.jax.plan(loss, *args, budget=1000, **QUIET)
    smallest = error.value.smallest
    assert smallest is not None
    step = ckpt.jax.plan(loss, *args, budget=smallest, **QUIET)
    assert ckpt.jax.measure(step, *args).nbytes == smallest


def test_from_the_graph_alone(capsys: pytest.CaptureFixture[str]) -> None:
    loss, args = transformer_case()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), args)
    step = ckpt.jax.plan(loss, *shapes, budget="40%", compile=False)
    assert "unverified" in str(step)
    stored = ckpt.simulate(step.graph, ckpt.make_schedule(step.graph, "store_all")).peak
    assert step.timeline.peak <= 0.4 * stored
    assert step.verify(*args).limit is None
    assert capsys.readouterr() == ("", "")


def test_no_plan_is_compiled_twice_and_the_cheapest_that_fits_is_taken() -> None:
    loss, args = mlp_case()
    found = ckpt.jax.plan(loss, *args, budget="55%", **QUIET).found
    plans = [row["schedule"].instructions for row in found.tried]
    assert len(set(plans)) == len(plans) <= 6
    fitting = [row["cost"] for row in found.tried if row["temp"].nbytes <= found.limit]
    assert found.timeline.recompute_flops == min(fitting)


def test_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    loss, args = mlp_case(depth=6)
    ckpt.jax.plan(loss, *args, budget="60%")
    said = capsys.readouterr()
    assert "conds (compiled in" in said.err and not said.out


def test_other_shapes_are_planned_anew() -> None:
    loss, (params, x) = mlp_case()
    step = ckpt.jax.plan(loss, params, x, budget="40%", **QUIET)
    half = x[:32]
    assert same_bits(jax.jit(step)(params, half), jax.jit(jax.value_and_grad(loss))(params, half))
    assert len(step.plans) == 2
    assert step.plans[1].timeline.recompute_flops > 0
    jax.jit(step)(params, half + 1)
    assert len(step.plans) == 2


def test_signature_of_value_and_grad() -> None:
    def loss(scale: float, p: dict[str, Any], how: str, n: Any) -> Any:
        h = p["w"]
        for _ in range(4):
            h = getattr(jnp, how)(h * scale)
        return h.sum() + n, {"last": h, "how": how, "n": n}

    args = (2.0, {"w": jnp.ones((4, 4)), "none": None}, "tanh", 3)
    step = ckpt.jax.plan(loss, *args, budget="75%", argnums=(1, 0), has_aux=True, compile=False)
    (value, aux), (of_p, of_scale) = step(*args)
    expected = jax.value_and_grad(lambda s, p: loss(s, p, "tanh", 3), argnums=(1, 0), has_aux=True)(
        2.0, {"w": jnp.ones((4, 4))}
    )
    np.testing.assert_allclose(value, expected[0][0], rtol=1e-6)
    np.testing.assert_allclose(of_p["w"], expected[1][0]["w"], rtol=1e-6)
    np.testing.assert_allclose(of_scale, expected[1][1], rtol=1e-6)
    assert of_p["none"] is None and aux["how"] == "tanh" and aux["n"] == 3


def test_arguments_by_keyword_as_value_and_grad_takes_them() -> None:
    def loss(w: Any, x: Any, scale: Any = 1.0, *, power: int = 2) -> Any:
        return jnp.sum(jnp.tanh(jnp.tanh(x @ w) @ w) ** power) * scale

    w, x = jnp.eye(8), jnp.ones((4, 8))
    step = ckpt.jax.plan(loss, w, x, 2.0, budget="100%", **QUIET)
    right = jax.jit(jax.value_and_grad(loss))(w, x, 2.0)
    assert same_bits(jax.jit(step)(w, scale=2.0, x=x), right)
    assert step.verify(w, scale=2.0, x=x).equal
    with pytest.raises(ckpt.UsageError, match=r"power can be given by keyword alone: plan functoo"):
        step(w, x, 2.0, power=3)
    with pytest.raises(TypeError, match="more"):
        step(w, x, more=3)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_the_other_branch_never_runs(poison: float) -> None:
    """A cotangent that is no number is handed on as in the plain step."""
    loss, (params, x) = mlp_case(depth=6, width=16, batch=8)
    x = x.at[0, 0].set(poison)
    step = ckpt.jax.plan(loss, params, x, budget="40%", compile=False)
    assert step.timeline.recompute_flops > 0
    made, plain = jax.jit(step)(params, x), jax.jit(jax.value_and_grad(loss))(params, x)
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1j, np.zeros(0), np.ones(3, np.int32)])
def test_the_predicate_is_true_of_any_cotangent(value: Any) -> None:
    true, (same,) = jax.jit(lambda v: opaque([v]))(jnp.asarray(value))
    assert bool(true)
    np.testing.assert_array_equal(same, value)
    assert bool(jax.jit(lambda: opaque([])[0])())


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit])
def test_vmap_is_refused_with_advice(outer: Any) -> None:
    loss, (params, x) = mlp_case()
    step = ckpt.jax.plan(loss, params, x, budget="40%", compile=False)
    with pytest.raises(ckpt.UsageError, match="plan the batched function"):
        jax.vmap(outer(step), (None, 0))(params, x[None])


def test_checkpoint_is_differentiated_as_the_function_is() -> None:
    loss, args = mlp_case()
    f = ckpt.jax.checkpoint(loss, *args, budget="40%", **QUIET)
    plain = jax.value_and_grad(loss, argnums=(0, 1))
    made = jax.jit(jax.value_and_grad(f, argnums=(0, 1)))
    assert same_bits(made(*args), jax.jit(plain)(*args))
    temps = [
        jax.jit(g).lower(*args).compile().memory_analysis().temp_size_in_bytes
        for g in (jax.value_and_grad(f, argnums=(0, 1)), plain)
    ]
    assert temps[0] <= 0.45 * temps[1]
    assert same_bits(jax.jit(f)(*args), jax.jit(loss)(*args))
    with pytest.raises(ckpt.UsageError, match="plan the batched function"):
        jax.vmap(jax.grad(f), (None, 0))(args[0], args[1][None])


def test_gradients_flow_to_what_a_checkpointed_function_closes_over() -> None:
    """As in jax.checkpoint, whichever transformation the closed-over parameters are within."""
    loss, (params, x) = mlp_case(depth=6, width=8, batch=16)

    def around(params: Any, x: Any) -> Any:
        f = ckpt.jax.checkpoint(lambda x: loss(params, x), x, budget="60%", compile=False)
        assert f.timeline.recompute_flops > 0
        return f(x)

    plain = jax.grad(loss, argnums=(0, 1))(params, x)
    for gradient in (jax.grad(around, (0, 1)), jax.grad(jax.jit(around), (0, 1))):
        for a, b in zip(*map(jax.tree.leaves, (gradient(params, x), plain)), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_planned_gradients_can_be_differentiated() -> None:
    loss, (params, x) = mlp_case(depth=4, width=8, batch=8)
    step = ckpt.jax.plan(loss, params, x, budget="70%", compile=False)
    f = ckpt.jax.checkpoint(loss, params, x, budget="70%", compile=False)

    def square(gradient: Any) -> Any:
        return jax.grad(lambda p: sum((g**2).sum() for g in jax.tree.leaves(gradient(p))))(params)

    plain = square(lambda p: jax.grad(loss)(p, x))
    for gradient in (lambda p: step(p, x)[1], lambda p: jax.grad(f)(p, x)):
        for a, b in zip(*map(jax.tree.leaves, (square(gradient), plain)), strict=True):
            assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


def test_a_report_has_the_ways_side_by_side() -> None:
    loss, args = mlp_case(depth=6)
    step = ckpt.jax.plan(loss, *args, budget="60%", **QUIET)
    layer = jax.checkpoint(lambda p, x: x + jax.nn.gelu(x @ p[0] + p[1]))

    def per_block(params: Any, x: Any) -> Any:
        for p in params:
            x = layer(p, x)
        return jnp.mean(x * x)

    report = step.report(mine=per_block)
    plain, blocks, planned, mine = report.rows
    assert plain["temp_nbytes"] == step.found.plain.nbytes
    assert planned["temp_nbytes"] == step.found.temp.nbytes < plain["temp_nbytes"]
    one = 64 * 32 * 4  # bytes of a value: no more apart is jax.checkpoint itself
    assert blocks["temp_nbytes"] == pytest.approx(mine["temp_nbytes"], abs=one)
    assert blocks["graph_nbytes"] < plain["graph_nbytes"] and blocks["overhead"] > 0
    assert "jax.checkpoint around each block" in str(report) and "mine" in str(report)


def test_checkpoint_of_a_function_that_returns_more_than_a_loss() -> None:
    def layers(w: Any, x: Any, n: Any) -> Any:
        for _ in range(6):
            x = jnp.tanh(x @ w) + x
        return {"h": x, "n": n + 1, "s": x.sum()}

    args = (jnp.eye(8) * 0.1, jnp.ones((4, 8)), jnp.arange(3))
    f = ckpt.jax.checkpoint(layers, *args, budget="60%", compile=False)

    def loss(g: Any) -> Any:
        return lambda w, x: (lambda o: (o["h"] ** 2).sum() + 3 * o["s"])(g(w, x, args[2]))

    made = jax.grad(loss(f), argnums=(0, 1))(*args[:2])
    for a, b in zip(made, jax.grad(loss(layers), argnums=(0, 1))(*args[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    assert f(*args)["n"].tolist() == [1, 2, 3]


def test_profile_has_the_bytes_that_print_saved_residuals_lacks() -> None:
    loss, args = mlp_case(depth=6)
    found = ckpt.jax.profile(loss, *args)
    text, kept = str(found), [row for row in found.rows() if not row["resident"]]
    assert "6 x float32[64,32] output of " in text and " from programs.py:" in text
    assert "computed and kept for the backward, in all" in text
    total = sum(row["nbytes"] for row in kept)
    assert total == len(kept) * 64 * 32 * 4  # five or six values a layer, of which XLA keeps fewer
    assert len(kept) in (30, 36)
    assert found.to_dict()["compiled_temp_nbytes"] < total


def test_frontier_goes_from_the_smallest_to_the_plain_step() -> None:
    loss, args = mlp_case()
    rows = ckpt.jax.frontier(loss, *args, points=3, progress=False).rows
    assert rows[0]["temp_nbytes"] < 0.5 * rows[-1]["temp_nbytes"]
    assert rows[0]["overhead"] > 0 == rows[-1]["overhead"]
    assert "of plain" in str(ckpt.jax.JaxFrontier(None, rows))  # type: ignore[arg-type]


def test_a_step_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, args = mlp_case(depth=6)
    step = ckpt.jax.plan(loss, *args, budget="60%", **QUIET)
    step.found.limit = 10
    with pytest.raises(ckpt.VerificationError, match="were promised"):
        step.verify(*args)
    step.found.limit = 10**9
    emit = step.found.program.emit

    def off(*a: Any) -> Any:
        def wrong(*arrays: Any) -> Any:
            outputs, gradients = emit(*a)(*arrays)
            return outputs, [g + 1 for g in gradients]

        return wrong

    monkeypatch.setattr(step.found.program, "emit", off)
    with pytest.raises(ckpt.VerificationError, match="more than rounding"):
        step.verify(*args)


def test_a_scan_over_all_layers_is_told_that_no_plan_helps() -> None:
    def loss(ws: Any, x: Any) -> Any:
        return jnp.mean(jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, ws)[0])

    args = (jnp.ones((8, 4, 4)), jnp.ones((2, 4)))
    advice = "as a loop of Python, or put jax.checkpoint around its body"
    assert advice in str(ckpt.jax.profile(loss, *args, compile=False))
    with pytest.raises(ckpt.BudgetError, match=advice):
        ckpt.jax.plan(loss, *args, budget=8, **QUIET)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_planned_and_verified(name: str) -> None:
    loss, args = PROGRAMS[name]()
    step = ckpt.jax.plan(loss, *args, budget="90%", cuts="anywhere", compile=False)
    assert step.verify(*args).difference < 1e-3
