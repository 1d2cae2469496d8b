"""What is said of a checkpoint that can't help, and what a profile says to try next."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import BudgetError
from ckpt.machine import simulate
from ckpt.planners import make_schedule, resolve_budget
from ckpt.studies import advice as study
from ckpt.units import format_bytes, parse_bytes

W = np.ones((8, 8))


def said(layers):
    def loss(w):
        x = np.ones((4, 8))
        for layer in layers:
            x = layer(x, w)
        return np.sum(x)

    return study.futile(ckpt.trace(loss, W).graph)


@ckpt.checkpoint
def thin(x, w):
    return np.tanh(x @ w)


@ckpt.checkpoint
def thick(x, w):
    return np.sin(np.tanh(x @ w)) @ w


def plain(x, w):
    return np.sin(np.tanh(x @ w)) @ w


def test_a_block_whose_residuals_are_its_inputs_and_outputs():
    (line,) = said([thin, thin, plain])
    assert "saves nothing" in line
    assert "test_advice.py" in line


def test_a_last_segment():
    (line,) = said([plain, thick])
    assert "last segment" in line


def test_nothing_to_say_where_it_helps():
    assert said([thick, thick, plain, plain]) == []
    assert said([plain]) == []


# -- with figures ----------------------------------------------------------------------------------


def gate(h):
    return h * (1 + np.tanh(0.8 * h))


def down(h, w):
    return gate(h) @ w


def layer(x, w1, w2, down=down):
    return x + down(np.tanh(x @ w1), w2)


def net(layer):
    def loss(params, x):
        for w1, w2 in params:
            x = layer(x, w1, w2)
        return np.mean(x**2)

    return loss


def arguments(layers=4, rows=128):
    params = [(ckpt.spec((16, 64)), ckpt.spec((64, 16))) for _ in range(layers)]
    return params, ckpt.spec((rows, 16))


def profile(loss, *args):
    return ckpt.profile(loss, *(args or arguments()), measure=False)


def test_a_lines_figures_are_those_of_the_checkpoint_that_it_advises():
    first = profile(net(layer)).advised.lines[0]
    followed = profile(net(lambda x, a, b: layer(x, a, b, ckpt.checkpoint(down)))).simulated
    line = gate.__code__.co_firstlineno + 1
    assert first == (f"test_advice.py:{line}", followed.peak, followed.overhead)
    assert followed.peak < 0.6 * profile(net(layer)).simulated.peak
    assert f"{ckpt.units.format_bytes(followed.peak)}" in str(profile(net(layer)))
    assert "return h * (1 + np" in str(profile(net(layer)))


def test_a_plan_in_half_of_it():
    found = profile(net(layer))
    half = ckpt.simulate(
        found.graph, ckpt.make_schedule(found.graph, "chain", found.simulated.peak // 2)
    )
    assert half.recompute_flops
    assert found.advised.sentences == (
        f"Planned, a step holds {ckpt.units.format_bytes(half.peak)} for "
        f"{100 * half.overhead:.1f} % of a forward in recompute.",
    )


def test_checkpoints_that_help_beside_store_all_and_a_plan_at_the_same_peak():
    found = profile(net(ckpt.checkpoint(layer)))
    stored = profile(net(layer)).simulated.peak
    plan = ckpt.simulate(
        found.graph, ckpt.make_schedule(found.graph, "chain", found.simulated.peak)
    )
    assert plan.recompute_flops < found.simulated.recompute_flops
    assert found.advised.sentences == (
        f"With all kept it would be {ckpt.units.format_bytes(stored)}, "
        f"{stored / found.simulated.peak:.1f} times as much.",
        f"Planned, the same peak costs {100 * plan.overhead:.1f} % of a forward in recompute.",
    )
    assert found.advised.lines == ()


def test_checkpoints_that_raise_the_peak_and_why():
    """Beside a store-all that is lower: the comparison alone, since few programs are so unlucky."""
    found = profile(net(ckpt.checkpoint(layer))).simulated
    lower = ckpt.simulate(
        profile(net(layer)).graph,
        ckpt.make_schedule(profile(net(layer)).graph, "chain", found.peak - 1),
    )
    (said,) = study._beside_stored(found, lower)
    assert said.startswith(
        f"Recomputing raises the peak: with all kept it is {ckpt.units.format_bytes(lower.peak)}. "
    )
    assert "inputs are kept" in said


def test_checkpoints_that_lower_nothing():
    def whole(params, x):
        return net(layer)(params, x)

    found = profile(lambda params, x: ckpt.checkpoint(whole)(params, x))
    assert found.simulated.recompute_flops
    assert found.advised.sentences[0].startswith("Recomputing lowers nothing")


def test_parameters_and_gradients_that_set_the_whole_peak():
    found = profile(lambda w, x: np.sum(np.tanh(x @ w)), ckpt.spec((512, 512)), ckpt.spec((2, 512)))
    first, half = found.advised.sentences
    assert first.startswith("Parameters, inputs and gradients are 2 of 2.01 MiB of the whole peak")
    assert half.startswith("No schedule does with half: ")
    with pytest.raises(BudgetError):
        ckpt.make_schedule(found.graph, "brute", found.simulated.peak // 2)


def test_one_instruction_that_sets_the_peak():
    def loss(w, x):
        y = x @ w
        return np.sum(np.exp(y[:, :, None] * y[:, None, :]))

    found = profile(loss, ckpt.spec((32, 32)), ckpt.spec((64, 32)))
    assert "that instruction's own, cotangents and workspace" in found.advised.sentences[0]


@pytest.mark.parametrize(("limit", "value"), [("PATIENCE", 0), ("MOST_NODES", 5)])
def test_a_plan_that_takes_too_long_is_not_tried_and_one_that_is_quick_is_named(
    monkeypatch, limit, value
):
    monkeypatch.setattr(study, limit, value)
    found = profile(net(layer))
    *_, late, quick = found.advised.sentences
    half = found.simulated.peak // 2
    sec = f"{study.PATIENCE:g} s"
    assert late.startswith(f"A plan in {format_bytes(half)}: not tried, it takes longer than {sec}")
    sqrt = simulate(found.graph, make_schedule(found.graph, "sqrt"))
    assert format_bytes(sqrt.peak) in quick
    budget, _, _ = resolve_budget(found.graph, found.advised.budget)
    assert budget >= sqrt.peak
    assert simulate(found.graph, make_schedule(found.graph, "sqrt", budget)).peak <= budget


def test_where_nothing_can_be_cut_and_no_plan_is_tried_the_budget_is_that_of_storing_all(
    monkeypatch,
):
    monkeypatch.setattr(study, "MOST_NODES", 0)
    found = ckpt.profile(lambda x: np.sum(x), np.ones(1000), measure=False)
    assert parse_bytes(found.advised.budget) >= found.simulated.peak


def test_the_verdict_is_made_of_what_is_live_at_the_peak():
    """Kinds and workspace as they are while that instruction runs, and not behind it."""

    def loss(w, x):
        y = x @ w
        return np.sum(np.exp(y[:, :, None] * y[:, None, :]))

    found = profile(loss, ckpt.spec((32, 32)), ckpt.spec((64, 32)))
    cotangents = sum(
        held.nbytes
        for held in ckpt.timeline.holdings(
            found.graph, found.simulated, found.simulated.peak_position
        )
        if held.kind == "cotangents"
    )
    assert f"{ckpt.units.format_bytes(cotangents)} cotangents" in "\n".join(found.verdict())


def test_what_is_written_over_at_the_peak_counts_once():
    @ckpt.checkpoint
    def wide(w, x):
        return np.sum(np.tanh(np.exp(np.sin(x @ w))), axis=1, keepdims=True) * x

    def loss(w, x):
        return np.mean(wide(w, wide(w, x)))

    found = profile(loss, ckpt.spec((8, 256)), ckpt.spec((64, 8)))
    at = found.simulated.peak_position
    assert at in found.simulated.takeovers
    held = ckpt.timeline.holdings(found.graph, found.simulated, at)
    assert sum(h.nbytes for h in held) <= found.simulated.peak
