"""`sweep`: its points, its numbers, its executors, and going on where it was stopped."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from math import isqrt
from pathlib import Path
from typing import Any

import pytest

from ckpt.errors import BudgetError, CkptError, UsageError
from ckpt.studies import sweep as study
from ckpt.studies.points import AS_WRITTEN, COLUMNS, Point, run_point
from ckpt.studies.sweep import plan, run, spread, sweep
from ckpt.studies.swept import Sweep
from ckpt.units import parse_bytes

SMALL: dict[str, Any] = {"width": 16, "batch": 64}


def by_key(rows: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    return {(row["depth"], row["strategy"]): row for row in rows}


def test_default_points() -> None:
    points = plan()
    assert {p.depth for p in points} == {4, 9, 20, 45, 100}
    assert [p.strategy for p in points[:4]] == ["store_all", "per_layer", "sqrt", "planned"]
    full = {p.strategy: p for p in points if p.depth == 100}
    assert list(full) == ["store_all", "per_layer", "sqrt", "planned", *study.BEST]
    assert not any(full[name].measure for name in study.BEST)
    assert full["per_layer"].segments == 100
    assert full["sqrt"].segments == 10
    assert full["planned@20%"].share == 0.2


def test_planned_holds_less_than_sqrt_for_no_more_recompute_and_bounds_are_below_it() -> None:
    rows = by_key(sweep(depth=25, points=2, measure=False, **SMALL))
    for depth in (4, 25):
        root, planned = rows[depth, "sqrt"], rows[depth, "planned"]
        assert planned["recompute_flops"] <= root["recompute_flops"]
        assert planned["predicted_peak_nbytes"] < root["predicted_peak_nbytes"]
    best = [rows[25, name] for name in study.BEST]
    for row, share in zip(best, study.SHARES, strict=True):
        assert row["overhead"] <= share / 100
        assert 0 <= row["bound_flops"] <= row["recompute_flops"]
    peaks = [row["predicted_peak_nbytes"] for row in best]
    assert peaks == sorted(peaks, reverse=True)
    text = " ".join(study.verdict(list(rows.values())))
    assert text.startswith("residual_mlp, 25 layers: ")
    assert "nothing was run" in text
    assert (
        parse_bytes(study.next_budget(list(rows.values())))
        >= rows[25, "planned"]["predicted_peak_nbytes"]
    )


def test_depths_are_spread_at_even_ratios() -> None:
    assert spread(4, 100, 5) == [4, 9, 20, 45, 100]
    assert spread(1, 1, 5) == [1]
    assert spread(3, 3, 1) == [3]
    assert spread(1, 3, 5) == [1, 2, 3]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_true(dtype: str) -> None:
    rows = sweep(depth=9, depths=[9], dtype=dtype, segments=[3, 9], **SMALL)
    assert all(tuple(row) == COLUMNS for row in rows)
    found = by_key(rows)
    plain, root = found[9, "store_all"], found[9, "sqrt"]
    for row in (row for row in rows if row["strategy"] not in study.BEST):
        assert row["gradients_equal"] is True
        assert row["agrees"] is True
        assert row["error"] is None
        assert row["seconds"] > 0
        assert row["cpu_seconds"] > 0
        assert row["dtype"] == dtype
        assert abs(row["measured_peak_nbytes"] / row["predicted_peak_nbytes"] - 1) < 0.6
        assert row["step_flops"] == sum(
            row[f"{phase}_flops"] for phase in ("forward", "recompute", "backward")
        )
        beside = row["predicted_whole_peak_nbytes"] - row["predicted_peak_nbytes"]
        assert beside > row["parameters_nbytes"] + row["gradient_nbytes"]
    assert plain["recompute_flops"] == plain["recomputations"] == 0
    assert plain["forward_flops"] == root["forward_flops"]
    assert root["predicted_peak_nbytes"] < 0.6 * plain["predicted_peak_nbytes"]
    assert 0 < root["overhead"] < 1
    for name, same in (("segments:3", "sqrt"), ("segments:9", "per_layer")):
        for column in ("predicted_peak_nbytes", "recompute_flops", "gradients_digest"):
            assert found[9, name][column] == found[9, same][column]


def test_peaks_grow_as_theory_says() -> None:
    depths = [16, 64, 256]
    rows = by_key(sweep(depths=depths, strategies=["store_all", "sqrt"], measure=False, **SMALL))
    for a, b in ((16, 64), (64, 256)):
        plain = [rows[d, "store_all"]["predicted_peak_nbytes"] for d in (a, b)]
        root = [rows[d, "sqrt"]["predicted_peak_nbytes"] for d in (a, b)]
        assert plain[1] / plain[0] == pytest.approx(4, rel=0.1)
        assert root[1] / root[0] == pytest.approx(2, rel=0.15)


def test_recompute_of_a_tanh_chain_is_exact() -> None:
    """All but the last segment's layers are computed again, save what no Backward reads."""
    depth, width, batch = 100, 32, 64
    row = sweep("mlp", depths=[depth], strategies=["sqrt"], measure=False, width=width, batch=batch)
    layer = 2 * batch * width * width + batch * width
    segments = isqrt(depth)
    layers = (segments - 1) * (depth // segments - 1)
    assert row[0]["recompute_flops"] == layers * layer


def test_nothing_is_measured_when_it_need_not_be() -> None:
    for row in sweep(depth=5, points=2, measure=False, **SMALL):
        assert row["predicted_peak_nbytes"] > 0
        for column in ("measured_peak_nbytes", "cpu_seconds", "gradients_equal", "agrees"):
            assert row[column] is None


def test_any_planner_is_a_strategy() -> None:
    names = ["store_all", "revolve", "every:2", "chain@50%", "dtr@60%"]
    rows = by_key(sweep(depths=[8], strategies=names, **SMALL))
    plain = rows[8, "store_all"]
    assert [rows[8, n]["planner"] for n in names[1:]] == ["revolve", "every", "chain", "dtr"]
    for name in names:
        assert rows[8, name]["gradients_equal"] is True
        assert rows[8, name]["agrees"] is True
    limit = plain["predicted_peak_nbytes"]
    assert rows[8, "chain@50%"]["predicted_peak_nbytes"] <= 0.5 * limit
    assert rows[8, "dtr@60%"]["predicted_peak_nbytes"] <= 0.6 * limit


def test_gradients_are_compared_with_store_all_even_where_it_is_not_asked_for() -> None:
    rows = sweep(depths=[4], strategies=["sqrt"], **SMALL)
    assert [row["strategy"] for row in rows] == ["sqrt"]
    assert rows[0]["gradients_equal"] is True


def test_gradients_that_differ_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(point: Point) -> dict[str, Any]:
        other = Point(**{**vars(point), "seed": int(point.strategy == "sqrt")})
        return run_point(other)

    monkeypatch.setattr(study, "run_point", seeded)
    rows = by_key(sweep(depths=[4], **SMALL))
    assert rows[4, "per_layer"]["gradients_equal"] is True
    assert rows[4, "sqrt"]["gradients_equal"] is False
    assert study.failures(list(rows.values())) == [
        "sqrt at depth 4: its gradients differ from store_all's"
    ]


def test_a_point_that_fails_alone_is_a_row() -> None:
    rows = by_key(sweep(depths=[4, 30], strategies=["store_all", "chain@25%"], **SMALL))
    assert "no schedule within" in rows[4, "chain@25%"]["error"]
    assert rows[4, "chain@25%"]["predicted_peak_nbytes"] is None
    assert rows[30, "chain@25%"]["gradients_equal"] is True
    assert any("no schedule within" in remark for remark in study.remarks(list(rows.values())))


def test_a_sweep_in_which_every_point_fails_raises() -> None:
    with pytest.raises(CkptError, match="no schedule within") as caught:
        sweep(depths=[4], strategies=["chain@1B"], **SMALL)
    assert caught.value.exit_code == BudgetError.exit_code


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depths": []}, "depths"),
        ({"depths": [0]}, "depths"),
        ({"depth": 0}, "depth"),
        ({"points": 0}, "points"),
        ({"repeats": 0}, "repeats"),
        ({"strategies": []}, "strategy"),
        ({"strategies": ["nope"]}, "nope"),
        ({"strategies": ["nope@50%"]}, "nope@50%"),
        ({"strategies": ["store_all:2"]}, "takes no value"),
        ({"strategies": ["segments:0"]}, "segments:0"),
        ({"segments": [0]}, "segments"),
        ({"jobs": 0, "depth": 1}, "jobs"),
        ({"model": "nope"}, "nope"),
        ({"breadth": 3}, "breadth"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        sweep(**arguments)


def test_a_measurement_that_does_not_fit_is_a_row_with_both_sizes() -> None:
    with pytest.raises(CkptError, match=r"needs .* are free here"):
        sweep("mlp", depths=[2], strategies=["store_all"], batch=10**10)


def test_any_executor_will_do() -> None:
    seen: list[str] = []
    with ThreadPoolExecutor(1) as executor:
        rows = sweep(
            depths=[3],
            executor=executor,
            measure=False,
            on_row=lambda row: seen.append(row["strategy"]),
            **SMALL,
        )
    assert sorted(seen) == sorted(row["strategy"] for row in rows)
    assert rows == sweep(depths=[3], measure=False, **SMALL)


def test_spawned_workers_have_one_thread_each_and_find_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    there = sweep(depths=[3], jobs=2, measure=False, **SMALL)
    assert there == sweep(depths=[3], measure=False, **SMALL)
    import os

    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    points = plan(depths=[3], **SMALL)
    assert study.about(points, jobs=2)["threads"]["OPENBLAS_NUM_THREADS"] == "1"
    assert study.about(points)["threads"]["OPENBLAS_NUM_THREADS"] == "3"


def test_a_stopped_sweep_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    points = plan(depths=[3, 5], strategies=AS_WRITTEN[:3], **SMALL)

    def stop(row: dict[str, Any]) -> None:
        if path.read_text().count("\n") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(points, path=path, on_row=stop)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(kept) == 4
    calls: list[tuple[int, str]] = []
    rows = run(points, path=path, on_row=lambda row: calls.append((row["depth"], row["strategy"])))
    assert len(calls) == len(set(calls)) == len(points)
    assert len(path.read_text().splitlines()) == len(points)
    found = by_key(rows)
    for row in kept:
        assert found[row["depth"], row["strategy"]]["seconds"] == row["seconds"]
    assert all(row["gradients_equal"] for row in rows)


def test_a_sweep_of_other_arguments_begins_anew_and_keeps_the_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = sweep(depths=[3], path=path, measure=False, **SMALL)
    written = path.read_bytes()
    with pytest.warns(UserWarning, match="of another run, and is now .*rows.1.jsonl"):
        again = sweep(depths=[3], path=path, measure=False, **{**SMALL, "batch": 128})
    assert (tmp_path / "rows.1.jsonl").read_bytes() == written
    assert (tmp_path / "rows.1.jsonl.meta.json").exists()
    assert [r["batch"] for r in again] == [128] * len(first)
    assert len(path.read_text().splitlines()) == len(first)


def test_failures_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    arguments: dict[str, Any] = {"depths": [9], "path": path, "strategies": AS_WRITTEN[:3], **SMALL}
    needs = {r["strategy"]: r["predicted_whole_peak_nbytes"] for r in sweep(**arguments)}
    path.unlink()
    monkeypatch.setattr(
        "ckpt.models.memory.available_nbytes", lambda: needs["store_all"] // 100 * 99
    )
    rows = sweep(**arguments)
    assert [row["strategy"] for row in rows if row["error"]] == ["store_all"]
    assert all(row["gradients_equal"] is None for row in rows)
    monkeypatch.undo()
    assert all(row["gradients_equal"] for row in sweep(**arguments))


def test_remarks_name_the_model_whose_layers_keep_only_their_boundary() -> None:
    assert study.remarks(sweep("mlp", depths=[6], measure=False)) != []
    assert study.remarks(sweep("residual_mlp", depths=[6], measure=False)) == []


@pytest.mark.parametrize(("jobs", "repeats"), [(1, 5), (1, 4), (2, 5), (None, 5)])
def test_cpu_time_is_in_a_table_where_it_is_no_noise(jobs: int | None, repeats: int) -> None:
    points = study.plan(depths=[3], strategies=["store_all"], repeats=repeats, **SMALL)
    found = Sweep([dict.fromkeys(COLUMNS, 1)], points, jobs)
    assert ("CPU time" in found.table()) == (jobs == 1 and repeats >= 5)
