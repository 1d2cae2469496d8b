"""`sweep`: memory against recompute cost, over depths and strategies, predicted and measured."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

from ckpt import workers
from ckpt.errors import CkptError, UsageError
from ckpt.models import build
from ckpt.reports.reproduce import reproduction
from ckpt.studies.journal import Journal
from ckpt.studies.points import PLANNED, Point, check_strategy, is_row, run_point
from ckpt.studies.swept import Sweep
from ckpt.units import at_least, format_bytes, listed, rounded_up
from ckpt.witness import available, keeping_books

REFERENCE = "store_all"
STRATEGIES = (REFERENCE, "per_layer", "sqrt", PLANNED)
SHARES = (1, 2, 5, 10, 20, 30, 40, 45, 50, 55, 60, 70, 80, 90, 100)
"""Percent of a forward that the best plans at the greatest depth may recompute."""
BEST = tuple(f"{PLANNED}@{share}%" for share in SHARES)
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
    witness: str | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    path: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
    **options: Any,
) -> Sweep:
    """Run ``model`` at each depth under each strategy; return a row (see `points.COLUMNS`) a point.

    Up to ``depth`` (default: the model's own), ``points`` depths (5, or 8 if nothing is measured)
    at even ratios, or the ``depths`` given. A strategy is ``store_all``, ``per_layer``, ``sqrt`` or
    ``segments:K`` (the model's own `checkpoint_sequential`); ``planned``, the least peak that
    `chain` reaches with at most sqrt's recompute, or ``planned@20%``, with at most that share of a
    forward; or any planner's name with its option and budget (``every:4``, ``chain@25%``).
    ``segments`` are numbers of segments to try at the largest depth. With the default strategies
    `SHARES` are planned there, too, and predicted only: what memory costs, and beside each plan the
    recompute that no schedule in its memory can do without (``bound_flops``). ``options`` are the
    model's (width, batch, dtype, ...).

    With ``measure``, each point is executed: peak under ``witness`` (`ckpt.witness`), the median of
    ``repeats`` untraced steps by the clock and in CPU time, the peak of an eager step, and its
    gradients, which are compared with those of store_all at the same depth, bit for bit. Points of
    one process take turns, be it in threads. Without, nothing is allocated.

    ``jobs`` (processes), ``executor`` (any of `concurrent.futures`) or ``cluster`` (the address of
    a Dask scheduler) say where points run (see `workers.pool`; a script that asks for ``jobs``
    needs the ``if __name__ == "__main__":`` of any that spawns processes). ``on_row`` is
    called with each row as it is made. ``path`` (.jsonl) receives each row at once; a sweep that
    was stopped goes on from there, if its arguments and versions are those in ``<path>.meta.json``.

    A point that fails alone (no plan within its budget, memory short) is a row with an ``error``.
    Raises UsageError for arguments that can't be used, and the first error if every point fails.
    """
    chosen = plan(
        model, depth=depth, depths=depths, points=points, strategies=strategies,
        segments=segments, measure=measure, repeats=repeats, seed=seed,
        witness=witness, **options,
    )  # fmt: skip
    rows = run(chosen, jobs=jobs, executor=executor, cluster=cluster, path=path, on_row=on_row)
    return Sweep(rows, chosen, jobs)


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
    witness: str | None = None,
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
    if witness is not None:
        available(witness)
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
    wanted += [(depths[-1], f"segments:{k}") for k in _numbers(depths[-1], segments)]
    for _, strategy in wanted:
        check_strategy(strategy)
    made = [
        Point(model, d, s, dict(options), seed, measure, repeats, witness)
        for d, s in dict.fromkeys(wanted)
    ]
    if tuple(strategies) == STRATEGIES:
        made += [
            Point(model, depths[-1], strategy, dict(options), seed, measure=False)
            for strategy in BEST
        ]
    if "segments" not in known and any(p.needs_segments for p in made):
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


def _numbers(depth: int, segments: Sequence[int] | None) -> list[int]:
    """The numbers of segments to try."""
    found = [at_least(1, "segments", k) for k in listed("segments", segments or ())]
    if max(found, default=1) > depth:
        raise UsageError(f"segments must be from 1 to the depth {depth}, not {segments}")
    return sorted(set(found))


def run(
    points: Sequence[Point],
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    path: str | os.PathLike[str] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """The rows of ``points``, in their order; see `sweep` for the rest."""
    tell = on_row or (lambda row: None)
    rows: dict[tuple[int, str], Row] = {}
    keys = {p.key for p in with_references(points)}

    def sound(row: Row) -> Row | None:
        return row if is_row(row) and (row["depth"], row["strategy"]) in keys else None

    with nullcontext() if path is None else Journal(path, about(points, jobs), sound) as journal:
        for row in journal.rows if journal else ():
            rows[row["depth"], row["strategy"]] = row
            tell(row)
        tasks = [p for p in with_references(points) if p.key not in rows]
        tasks.sort(key=lambda p: (-p.depth, p.strategy != REFERENCE))  # the longest ones first
        with (
            keeping_books(),
            closing(
                workers.each(run_point, tasks, jobs=jobs, executor=executor, cluster=cluster)
            ) as made,
        ):
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
        **({} if first.witness is None else {"witness": first.witness}),
    }
    with workers.one_thread() if jobs else nullcontext():
        return reproduction("ckpt sweep", arguments, seed=first.seed)


def with_references(points: Sequence[Point]) -> list[Point]:
    """``points`` and, at each depth, store_all, whose gradients the others' must equal."""
    references = [replace(p, strategy=REFERENCE) for p in points]
    return list({p.key: p for p in [*references, *points]}.values())


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
                + (f": {row['untrusted']}" if row["untrusted"] else "")
            )
    return found


def verdict(rows: Sequence[Row]) -> list[str]:
    """What the sweep found at its greatest depth, and what was run, in a few lines."""
    fine = [row for row in rows if not row["error"]]
    full = {name: row for name, row in _deepest(fine).items() if name not in BEST}
    least = min(full.values(), key=lambda row: row["predicted_peak_nbytes"])
    text = f"{least['model']}, {least['depth']:,} layers: {_told(least)} of a forward in recompute"
    others = [_told(row) for row in full.values() if row is not least]
    lines = textwrap.wrap("; ".join([text, *others[:4]]).replace(" %", "\xa0%"), 80)
    measured = [row for row in fine if row["measured_peak_nbytes"] is not None]
    if not measured:
        return [
            *(line.replace("\xa0", " ") for line in lines),
            "Predicted by simulation; nothing was run.",
        ]
    same = sum(row["gradients_equal"] is True for row in measured)
    points = "1 point was" if len(measured) == 1 else f"{len(measured)} points were"
    off = max(
        abs(row["measured_peak_nbytes"] / max(row["predicted_peak_nbytes"], 1) - 1)
        for row in measured
    )
    text = (
        f"{points} run: {same} with store_all's gradients, bit for bit; "
        f"measured peaks within {100 * off:.1f} % of the predicted."
    )
    if more := sum(row["strategy"] in BEST for row in fine):
        text += f" {more} more plans, predicted only, are in the figure and the files."
    return [line.replace("\xa0", " ") for line in (*lines, *textwrap.wrap(text, 80))]


def _told(row: Row) -> str:
    peak = format_bytes(row["predicted_peak_nbytes"])
    return f"{row['strategy']} holds {peak} for {100 * row['overhead']:.1f} %"


def next_budget(rows: Sequence[Row]) -> str:
    """The budget that is worth planning for: that of the planned curve's end, rounded up."""
    planned = _deepest([row for row in rows if not row["error"]]).get(PLANNED)
    if planned is None:
        return "25%"
    return rounded_up(planned["predicted_peak_nbytes"])


def _deepest(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows at the greatest depth, by strategy."""
    depth = max((row["depth"] for row in rows), default=0)
    return {row["strategy"]: row for row in rows if row["depth"] == depth}


def remarks(rows: Sequence[Row]) -> list[str]:
    """What a reader of the rows should know, a line each: where checkpointing can't help."""
    found = [row["error"] for row in rows if row["error"]]
    fine = [row for row in rows if not row["error"]]
    found += sorted({f"untrusted: {row['untrusted']}" for row in fine if row["untrusted"]})
    full = _deepest(fine)
    plain, layered = full.get("store_all"), full.get("per_layer")
    if plain and layered and plain["depth"] > 1:
        saved = 1 - layered["predicted_peak_nbytes"] / plain["predicted_peak_nbytes"]
        if saved < 0.05:
            found.append(
                f"per_layer saves nothing on {plain['model']}: what a layer keeps for backward is "
                "little more than its neighbour's input, which checkpointing keeps too"
            )
    return found
