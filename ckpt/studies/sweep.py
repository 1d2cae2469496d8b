"""`sweep`: memory against recompute cost, over depths and strategies, predicted and measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from ckpt.errors import CkptError, UsageError
from ckpt.models import build
from ckpt.reports.reproduce import reproduction
from ckpt.studies import workers
from ckpt.studies.journal import Journal
from ckpt.studies.points import Point, check_strategy, is_row, run_point, sqrt_segments
from ckpt.units import at_least, format_bytes, listed

REFERENCE = "store_all"
STRATEGIES = (REFERENCE, "per_layer", "sqrt")
Row = dict[str, Any]


def sweep(
    model: str = "residual_mlp",
    *,
    depth: int | None = None,
    depths: Sequence[int] | None = None,
    points: int | None = None,
    strategies: Sequence[str] = STRATEGIES,
    segments: Sequence[int] | None = None,
    measure: bool = True,
    repeats: int = 1,
    seed: int = 0,
    jobs: int | None = None,
    executor: Executor | None = None,
    path: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
    **options: Any,
) -> list[Row]:
    """Run ``model`` at each depth under each strategy; return a row (see `points.COLUMNS`) a point.

    Up to ``depth`` (default: the model's own), ``points`` depths (5, or 8 if nothing is measured)
    at even ratios, or the ``depths`` given. A strategy is ``store_all``, ``per_layer``, ``sqrt`` or
    ``segments:K`` (the model's own `checkpoint_sequential`), or any planner's name with its option
    and budget (``every:4``, ``chain@25%``). ``segments`` are the numbers of segments that are tried
    at the largest depth; by default five. ``options`` are the model's (width, batch, dtype, ...).

    With ``measure``, each point is executed: peak under `tracemalloc`, the median time of
    ``repeats`` untraced steps, the peak of an eager step, and its gradients, which are compared
    with those of store_all at the same depth, bit for bit. Without, nothing is allocated.

    ``jobs`` and ``executor`` say where points run (see `workers.each`; a script that asks for
    ``jobs`` needs the ``if __name__ == "__main__":`` of any that spawns processes). ``on_row`` is
    called with each row as it is made. ``path`` (.jsonl) receives each row at once; a sweep that
    was stopped goes on from there, if its arguments and versions are those in ``<path>.meta.json``.

    A point that fails alone (no plan within its budget, memory short) is a row with an ``error``.
    Raises UsageError for arguments that can't be used, and the first error if every point fails.
    """
    chosen = plan(
        model, depth=depth, depths=depths, points=points, strategies=strategies,
        segments=segments, measure=measure, repeats=repeats, seed=seed, **options,
    )  # fmt: skip
    return run(chosen, jobs=jobs, executor=executor, path=path, on_row=on_row)


def plan(
    model: str = "residual_mlp",
    *,
    depth: int | None = None,
    depths: Sequence[int] | None = None,
    points: int | None = None,
    strategies: Sequence[str] = STRATEGIES,
    segments: Sequence[int] | None = None,
    measure: bool = True,
    repeats: int = 1,
    seed: int = 0,
    **options: Any,
) -> list[Point]:
    """The points of a sweep, by depth and strategy; see `sweep`. UsageError if there can't be."""
    points, depth = (
        None if number is None else at_least(1, name, number)
        for name, number in (("points", points), ("depth", depth))
    )
    repeats, seed = at_least(1, "repeats", repeats), at_least(0, "seed", seed)
    strategies = listed("strategies", strategies)
    known = build(model, **options, **({} if depth is None else {"depth": depth})).options
    if "depth" not in known:
        raise UsageError(f"model {model} has no depth, so there is nothing to sweep over")
    if depths is None:
        depths = spread(min(4, known["depth"]), known["depth"], points or (5 if measure else 8))
    depths = [at_least(1, "depths", d) for d in listed("depths", depths)]
    if not depths:
        raise UsageError("depths is empty; give at least one")
    if not strategies:
        raise UsageError(f"no strategy to try; choose from {', '.join(STRATEGIES)}, ...")
    depths = sorted(set(depths))
    build(model, **{**options, "depth": depths[-1]})
    wanted = [(d, s) for d in depths for s in strategies]
    wanted += [(depths[-1], f"segments:{k}") for k in _curve(depths[-1], segments, strategies)]
    for _, strategy in wanted:
        check_strategy(strategy)
    made = [
        Point(model, d, s, dict(options), seed, measure, repeats) for d, s in dict.fromkeys(wanted)
    ]
    if "segments" not in known and any(p.segments is not None for p in made):
        raise UsageError(
            f"model {model} has no segments to checkpoint: sweep store_all and planners "
            "(--strategies store_all,chain@50%)"
        )
    return made


def spread(low: int, high: int, number: int) -> list[int]:
    """At most ``number`` whole numbers from ``low`` to ``high``, at even ratios."""
    if number == 1 or low == high:
        return [high]
    return sorted({round(low * (high / low) ** (k / (number - 1))) for k in range(number)})


def _curve(depth: int, segments: Sequence[int] | None, strategies: Sequence[str]) -> list[int]:
    """The numbers of segments to try, those aside that a named strategy has."""
    if segments is None:
        if tuple(strategies) != STRATEGIES or depth < 8:
            return []
        segments = [k for k in spread(2, depth // 2, 5) if k != sqrt_segments(depth)]
    segments = [at_least(1, "segments", k) for k in listed("segments", segments)]
    if max(segments, default=1) > depth:
        raise UsageError(f"segments must be from 1 to the depth {depth}, not {segments}")
    return sorted(set(segments))


def run(
    points: Sequence[Point],
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    path: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """The rows of ``points``, in their order; see `sweep` for the rest."""
    tell = on_row or (lambda row: None)
    rows: dict[tuple[int, str], Row] = {}
    keys = {p.key for p in with_references(points)}

    def sound(row: Mapping[str, Any]) -> bool:
        return is_row(row) and (row["depth"], row["strategy"]) in keys

    with nullcontext() if path is None else Journal(path, about(points, jobs), sound) as journal:
        for row in journal.rows if journal else ():
            rows[row["depth"], row["strategy"]] = row
            tell(row)
        tasks = [p for p in with_references(points) if p.key not in rows]
        tasks.sort(key=lambda p: (-p.depth, p.strategy != REFERENCE))  # the longest ones first
        with closing(workers.each(run_point, tasks, jobs=jobs, executor=executor)) as made:
            for row in made:
                rows[row["depth"], row["strategy"]] = row
                if journal and row["error"] is None:  # a failure is tried again
                    journal.write(row)
                tell(row)
    for row in rows.values():
        _compare(row, rows[row["depth"], REFERENCE])
    found = [rows[p.key] for p in points]
    if all(row["error"] for row in found):
        raise _error(found[0])
    return found


def about(points: Sequence[Point], jobs: int | None = None) -> dict[str, Any]:
    """What it takes to make the rows again: arguments, seed, versions, BLAS, threads."""
    first = points[0]
    arguments = {
        "model": first.model,
        **first.options,
        "points": [f"{p.depth} {p.strategy}" for p in points],
        "measure": first.measure,
        "repeats": first.repeats,
    }
    with workers.one_thread() if jobs else nullcontext():
        return reproduction("ckpt sweep", arguments, seed=first.seed)


def with_references(points: Sequence[Point]) -> list[Point]:
    """``points`` and, at each depth, store_all, whose gradients the others' must equal."""
    references = [replace(p, strategy=REFERENCE) for p in points]
    return list({p.key: p for p in [*points, *references]}.values())


def _compare(row: Row, reference: Row) -> None:
    if row["gradients_digest"] is not None and reference["gradients_digest"] is not None:
        row["gradients_equal"] = row["gradients_digest"] == reference["gradients_digest"]


def _error(row: Row) -> CkptError:
    """The error that a row stands for, with its exit code."""
    error = CkptError(row["error"])
    error.exit_code = row["exit_code"]
    return error


def failures(rows: Sequence[Row]) -> list[str]:
    """What the rows show that must not be, a line each: other gradients, wrong predictions."""
    found = []
    for row in rows:
        where = f"{row['strategy']} at depth {row['depth']}"
        if row["gradients_equal"] is False:
            found.append(f"{where}: its gradients differ from store_all's")
        if row["agrees"] is False:
            found.append(
                f"{where}: the run doesn't agree with the simulation (peak "
                f"{format_bytes(row['measured_peak_nbytes'])} measured, "
                f"{format_bytes(row['predicted_peak_nbytes'])} predicted)"
            )
    return found


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader of the rows should know, a line each: where checkpointing can't help."""
    found = [row["error"] for row in rows if row["error"]]
    fine = [row for row in rows if not row["error"]]
    depth = max((row["depth"] for row in fine), default=0)
    full = {row["strategy"]: row for row in fine if row["depth"] == depth}
    plain, layered = full.get("store_all"), full.get("per_layer")
    if plain and layered and depth > 1:
        saved = 1 - layered["predicted_peak_nbytes"] / plain["predicted_peak_nbytes"]
        if saved < 0.05:
            found.append(
                f"per_layer saves nothing on {plain['model']}: what a layer keeps for backward is "
                "little more than its neighbour's input, which checkpointing keeps too"
            )
    return found
