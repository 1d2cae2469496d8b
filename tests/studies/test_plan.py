"""`plan`: within its budget, equal to plain backward, saved and loaded whole, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.errors import BudgetError, CkptError, TapeError, UnitError, UsageError
from ckpt.tape.core.cotangents import owner
from tests.graphs import uneven_chain

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((32, 32)) / 6 for _ in range(5)]
X = RNG.standard_normal((128, 32))


def loss(ws, x):
    for w in ws:
        x = np.tanh(x @ w) * 2 + np.sin(x)
    return np.mean(x * x)


@pytest.fixture(scope="module")
def step():
    return ckpt.plan(loss, WEIGHTS, X, budget="60%")


def same(found, expected):
    assert found[0] == expected[0]
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_within_the_budget_and_equal(step):
    everything = ckpt.plan(loss, WEIGHTS, X, planner="store_all")
    assert step.timeline.peak <= 0.6 * everything.timeline.peak
    assert step.timeline.flops_by_phase["recompute"] > 0
    assert step.verify(WEIGHTS, X).equal
    same(step(WEIGHTS, X), ckpt.value_and_grad(loss)(WEIGHTS, X))
    assert len(repr(step)) < 200


def test_results_never_lie_in_what_the_next_call_writes(step):
    _, kept = step(WEIGHTS, X)
    before = [g.copy() for g in kept]
    step([w * 2 for w in WEIGHTS], X + 1)
    for g, b in zip(kept, before, strict=True):
        np.testing.assert_array_equal(g, b)
        assert g.flags.writeable
        assert owner(g).nbytes == g.nbytes  # it lies in no larger array


def test_arguments_with_other_strides(step):
    other = [np.asfortranarray(w) for w in WEIGHTS], np.repeat(X, 2, axis=0)[::2]
    same(step(*other), ckpt.value_and_grad(loss)(*other))
    same(step(WEIGHTS, X[::-1]), ckpt.value_and_grad(loss)(WEIGHTS, X[::-1]))


@pytest.mark.parametrize(
    "args",
    [
        (WEIGHTS, X[:7]), (WEIGHTS, X.astype("f4")), (WEIGHTS[:4], X), (tuple(WEIGHTS), X),
        (WEIGHTS,), (WEIGHTS, X, X), (None, X), ("abc", X), ([WEIGHTS], X),
    ],
)  # fmt: skip
def test_other_arguments_are_refused(step, args):
    with pytest.raises(TapeError, match="traced"):
        step(*args)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("budget", ["25", "125%", 0, -5, "0%", "nothing", "", 1.5, True, [1], b"1"])
def test_budgets_that_cannot_be_read(budget, whole):
    with pytest.raises(UnitError):
        ckpt.plan(loss, WEIGHTS, X, budget=budget, whole=whole)


def test_a_budget_below_the_floor_names_one_that_is_met():
    with pytest.raises(BudgetError) as raised:
        ckpt.plan(loss, WEIGHTS, X, budget="1 KiB", planner="greedy")
    smallest = raised.value.smallest
    assert ckpt.plan(loss, WEIGHTS, X, budget=smallest, planner="greedy").timeline.peak <= smallest


def test_a_budget_above_store_all_keeps_everything():
    step = ckpt.plan(loss, WEIGHTS, X, budget="1 TiB")
    assert step.schedule.planner == "store_all"
    assert step.timeline.flops_by_phase["recompute"] == 0


def test_the_whole_peak():
    plain = ckpt.plan(loss, WEIGHTS, X, planner="store_all")
    whole = plain.timeline.peak + plain.graph.resident_nbytes + plain.graph.gradient_nbytes
    step = ckpt.plan(loss, WEIGHTS, X, budget=whole - 40_000, whole=True)
    assert step.timeline.peak <= plain.timeline.peak - 40_000


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"planner": "nobody"}, "unknown planner"),
        ({"planner": None}, "name of one"),
        ({"planner": "sqrt", "foo": 1}, "foo"),
        ({"cost": "euros"}, "euros"),
        ({"argnums": "a"}, "argnums"),
    ],
)
def test_options(options, says):
    with pytest.raises(UsageError, match=says):
        ckpt.plan(loss, WEIGHTS, X, **options)


def test_save_load_bind(step, tmp_path):
    path = tmp_path / "plan.json"
    step.save(path)
    loaded = ckpt.load_plan(path)
    assert str(loaded) == str(ckpt.load_plan(path))
    same(loaded.bind(loss, WEIGHTS, X)(WEIGHTS, X), ckpt.value_and_grad(loss)(WEIGHTS, X))
    with pytest.raises(UsageError, match="another program or other shapes"):
        loaded.bind(loss, WEIGHTS, X[:7])
    with pytest.raises(UsageError, match="another program or other shapes"):
        loaded.bind(lambda ws, x: np.sum(x @ ws[0]), WEIGHTS, X)


def test_damaged_files(step, tmp_path):
    path = tmp_path / "plan.json"
    step.save(path)
    text = path.read_text()
    document = json.loads(text)
    texts = ["", "[]", "null", "3", text[: len(text) // 2], text[:-2]]
    for key in document.keys() - {"environment"}:  # which is no part of the plan
        texts.append(json.dumps({k: v for k, v in document.items() if k != key}))
        texts.extend(json.dumps({**document, key: v}) for v in (None, 99, "x", {}))
    for part, key, value in [
        ("certificate", "peak", 3), ("certificate", "floor", "x"), ("schedule", "graph", "x"),
        ("schedule", "instructions", []), ("graph", "nodes", []), ("certificate", "bounds", []),
    ]:  # fmt: skip
        texts.append(json.dumps({**document, part: {**document[part], key: value}}))
    for damaged in texts:
        path.write_text(damaged)
        with pytest.raises(CkptError) as raised:
            ckpt.load_plan(path)
        assert "\n" not in str(raised.value)
    path.write_bytes(b"\xff\xfe\x00")
    for missing in (path, tmp_path / "nothing.json", tmp_path):
        with pytest.raises(UsageError):
            ckpt.load_plan(missing)


def test_a_mask_drawn_outside_is_refused_and_a_fixed_one_listed():
    with pytest.raises(TapeError, match=r"test_plan\.py:\d+: .* differs from call to call"):
        ckpt.plan(lambda w: np.sum(w * (np.random.rand(*w.shape) > 0.5)), X)
    mask = X > 0
    step = ckpt.plan(lambda w: np.sum(w * w * mask), X, planner="store_all")
    assert len(step.captured) == 1
    assert "128x32 bool" in step.captured[0]


def test_dropout_draws_what_an_eager_run_draws():
    def dropped(w, rng):
        for _ in range(4):
            w = np.tanh(nn.dropout(np.sin(w), 0.5, rng)) * w
        return np.sum(w)

    step = ckpt.plan(dropped, X, np.random.default_rng(0), planner="sqrt")
    a, b = np.random.default_rng(5), np.random.default_rng(5)
    for _ in range(2):
        value, g = step(X, a)
        expected, h = ckpt.value_and_grad(dropped)(X, b)
        assert value == expected
        np.testing.assert_array_equal(g, h)
    assert a.bit_generator.state == b.bit_generator.state


def test_aux():
    def both(w):
        h = np.tanh(w)
        return np.sum(h * w), {"h": h, "n": 3, "none": None}

    step = ckpt.plan(both, X, has_aux=True, planner="store_all")
    step.verify(X)
    (_, aux), _ = step(X)
    np.testing.assert_array_equal(aux["h"], np.tanh(X))
    assert (aux["n"], aux["none"]) == (3, None)
    kept = aux["h"].copy()
    step(X * 2)
    np.testing.assert_array_equal(aux["h"], kept)


def test_out_of_memory_is_said_with_what_would_fit(monkeypatch):
    step = ckpt.plan(loss, WEIGHTS, X, planner="store_all")

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr("ckpt.tape.execution.compiled.block", fails)
    with pytest.raises(ckpt.errors.StepMemoryError, match="smaller budget"):
        step(WEIGHTS, X)
    monkeypatch.undo()
    same(step(WEIGHTS, X), ckpt.value_and_grad(loss)(WEIGHTS, X))


def test_the_verdict_says_each_figure_once() -> None:
    graph = uneven_chain([8, 3, 12, 5, 9], [5, 9, 2, 40, 7])
    kept = ckpt.simulate(graph, ckpt.make_schedule(graph, "store_all"))
    plan = ckpt.plan(graph, budget="80%")
    found, peak = plan.certificate, plan.timeline.peak
    assert found.recompute > 0
    text = plan.verdict
    assert text.startswith(
        f"holds {peak} of {kept.peak} B ({kept.peak / peak:.1f} times less; whole "
        f"{plan.timeline.whole_peak} of {kept.whole_peak} B) for "
        f"{100 * found.recompute / found.forward:.1f} % of a forward, "
    )
    assert text.endswith("% of a step. No schedule within this budget does with less.")
    assert " ".join(str(plan).split()).startswith(text)
    assert all(len(line) <= 80 for line in str(plan).splitlines()[:3])
    stored = ckpt.plan(graph, budget="100%").verdict
    assert stored.startswith(f"holds {kept.peak} B (whole {kept.whole_peak} B) and recomputes")
