"""Each paper-scale experiment at a small size, and the numbers that it is about."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.tape.core.op import NUMPY

GB = 10**9

Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs an experiment with options; it must draw its figure twice, as png and svg."""

    def runs(name: str, *options: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = import_module(name).main([*options, "--folder", str(tmp_path)])
        assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.png", f"{name}.svg"]
        return rows

    return runs


def only(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in rows if wanted.items() <= row.items()]


def test_chen_sqrt_trades_a_forward_for_memory(run: Run) -> None:
    rows = run("chen_sqrt", "--blocks", "12", "24", "--size", "32", "--batch", "2", "--width", "8")
    for layers in (38, 74):
        stored, sqrt = (only(rows, layers=layers, planner=p)[0] for p in ("store_all", "sqrt"))
        assert stored["recompute_overhead"] == 0
        assert sqrt["peak_nbytes"] < 0.7 * stored["peak_nbytes"]
        assert 0.5 < sqrt["recompute_overhead"] <= 1
        chain = only(rows, layers=layers, planner="chain:at sqrt's cost")[0]
        assert chain["peak_nbytes"] <= sqrt["peak_nbytes"]
        assert chain["recompute_overhead"] <= sqrt["recompute_overhead"]


def test_the_thousand_layers_take_what_chen_et_al_print() -> None:
    """48 GB -> 7 GB for 30 % of time (arXiv:1604.06174, abstract); in GiB here, and FLOPs."""
    planning = import_module("planning")
    graph = planning.trace("chen-resnet-1000", batch=32)
    stored, sqrt = (planning.plan_row(graph, p) for p in ("store_all", "sqrt"))
    assert stored["peak_nbytes"] == pytest.approx(48 * GB, rel=0.1)
    assert sqrt["peak_nbytes"] == pytest.approx(7 * GB, rel=0.1)
    assert sqrt["step_overhead"] == pytest.approx(0.30, abs=0.03)


def test_chen_lstm_keeps_seven_vectors_a_layer(run: Run) -> None:
    options = ["--width", "64", "--batch", "8", "--vocab", "32", "--layers", "3"]
    rows = run("chen_lstm", "--steps", "12", "24", "--long", "48", *options)
    stored = only(rows, planner="store_all")
    assert [row["steps"] for row in stored] == [12, 24, 48]
    beyond = {row["peak_nbytes"] - row["theory_nbytes"] for row in stored}
    assert max(beyond) - min(beyond) <= 64  # a constant, but for a few scalars
    for row in only(rows, planner="sqrt"):
        assert 0 < row["recompute_overhead"] <= 1


def test_revolve_advances_as_often_as_the_closed_form_says(run: Run) -> None:
    rows = run("revolve_wave", "--steps", "40", "120", "--memory-steps", "30", "--size", "8")
    counted = [row for row in rows if "closed_form" in row]
    assert len(counted) == 8
    assert all(row["advances"] == row["closed_form"] > 0 for row in counted)
    budgets = [row for row in rows if row.get("budget_nbytes") and row["outcome"] == "fits"]
    assert budgets
    assert all(row["peak_nbytes"] <= row["budget_nbytes"] for row in budgets)


def test_checkmate_batches_fit_the_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run("checkmate_bytes", "--nets", "vgg16:64", "mobilenet-v1:64", "--memory", "4GB")
    kept = only(rows, net="vgg16", batch=64)[0]
    # without batch norm, what backwards read is every layer's output, but for the last ones
    assert kept["store_all_peak_nbytes"] == pytest.approx(kept["layer_outputs_nbytes"], rel=0.05)
    planning = import_module("planning")
    largest = only(rows, net="mobilenet-v1", planner="store_all")[0]["largest_batch"]
    for batch, fits in ((largest, True), (largest + 1, False)):
        graph = planning.trace("mobilenet-v1", batch=batch)
        assert (planning.simulated(graph, "store_all").whole_peak <= 4 * GB) == fits
    batches = [row["largest_batch"] for row in only(rows, net="mobilenet-v1") if "planner" in row]
    assert batches == sorted(batches)


def test_a_gpt_layer_keeps_what_korthikanti_et_al_count(run: Run) -> None:
    sizes = ["--sequence", "32", "--sequences", "32", "64", "--batch", "2"]
    for row in run("gpt_layer_bytes", *sizes):
        itemsize = 4 if row["dtype"] == "float32" else 2
        statistics = 4 * itemsize * 2 * row["sequence"]  # mean and deviation of two norms
        assert row["nbytes"] == row["paper_nbytes"] + statistics


def test_no_planner_beats_the_optimum_or_the_bound(run: Run) -> None:
    rows = run("planner_gaps", "--chains", "2", "--stages", "5", "--models", "mlp", "--large")
    plans = [row for row in rows if "beyond_overhead" in row]
    assert {row["planner"] for row in plans} >= {"greedy", "chain", "dtr", "auto", "ilp"}
    assert all(row["beyond_overhead"] > -1e-12 for row in plans)
    assert all(row["peak_nbytes"] <= row["budget_nbytes"] for row in plans)
    chains = [row for row in plans if row["graph"].startswith("chain")]
    assert all(abs(row["beyond_overhead"]) < 1e-12 for row in only(chains, planner="auto"))


def test_a_step_is_compared_with_the_same_one_by_hand() -> None:
    """Every way's gradients are compared before anything is timed."""
    bench_step = import_module("bench_step")
    ways = ["planned", "planned, calls alone"]
    options = ["--only", "mlp16", "--rounds", "1", "--pages", "kept", "--ways", *ways]
    first, *others = bench_step.main(options)
    assert first["way"] == "hand" and [row["way"] for row in others] == ways
    assert 0 < first["measured"] < 1 and all(0 < row["measured"] < 10 for row in others)


def test_calls_alone_are_those_of_the_step() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 64, 64))
    step = ckpt.plan(lambda w, x: np.sum(np.tanh(x @ w)), w, x, planner="store_all")
    alone = import_module("step_calls").CallsAlone(step, (w, x))
    loss, gradient = step(w, x)
    for _ in range(2):
        again = alone()
        assert again[0] == loss and np.array_equal(again[1], gradient)
    assert len(alone.taken) >= 6 and 0 < alone.seconds < 1


def test_the_figure_shows_a_row_once_with_pages_kept_if_that_was_measured() -> None:
    def row(pages: str, threads: int) -> dict[str, Any]:
        return {"case": "a", "way": "planned", "threads": threads, "pages": pages}

    rows = [row("kept", 1), row("given back", 1), row("given back", 2)]
    assert import_module("bench_step").drawn(rows) == [rows[0], rows[2]]


def test_what_a_second_core_would_save_of_a_step() -> None:
    [small] = import_module("independent_calls").main(["--only", "mlp16", "--rounds", "2"])
    assert small["one"] == pytest.approx(1)  # none of its calls has threads
    assert 0 <= small["saved"] <= small["saved with one BLAS thread"] < 0.5


def test_a_pair_is_of_calls_that_do_not_depend_on_each_other() -> None:
    calls = import_module("independent_calls")
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((8, 8)), rng.standard_normal((8, 8))
    step = ckpt.plan(
        lambda w, x: np.sum(np.tanh(x @ w) @ w), w, x, planner="store_all", argnums=(0, 1)
    )
    code = calls.code_of(step)
    products = [at for at, line in enumerate(code.lines) if line.op is NUMPY[np.matmul]]
    found = [calls.Call(at, 1.0, "BLAS") for at in products]
    assert len(products) == 6
    assert calls.pairs(code, found, 0.25, 1 << 20) == 2 * 0.75  # two gradients of each product
    assert calls.pairs(code, found, 1.0, 1 << 20) == 0
    assert calls.pairs(code, found, 0.25, 0) < 2 * 0.75
