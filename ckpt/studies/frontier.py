"""`frontier`: every planner over a range of budgets, on one graph under one accounting."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from ckpt.errors import BudgetError, CkptError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import get, make_schedule, resolve_budget
from ckpt.planners import names as planner_names
from ckpt.planners.bounds.floor import budget_floor
from ckpt.program import Program
from ckpt.reports.exports import to_html
from ckpt.reports.formats.shown import Shown
from ckpt.reports.pages import Reel, page
from ckpt.reports.table import FRONTIER_COLUMNS
from ckpt.schedule import Schedule
from ckpt.studies.budgets.placement import next_budgets
from ckpt.studies.budgets.planned import Row, planned
from ckpt.studies.given import are_arrays, graph_of
from ckpt.studies.measure import measured_peak
from ckpt.text import printable
from ckpt.timeline import Timeline
from ckpt.units import BYTES, at_least, format_bytes, format_flops, in_one_unit, listed

LEFT_OUT = ("as_written", "brute", "ilp", "lp_round")
"""Planners asked only by name: what the program says already, and those for small graphs."""

WORTH_RUNNING = 2.0
"""A schedule that recomputes more than this many forwards is predicted and not executed."""


REFUSED_COLUMNS = ("planner", "refused", "largest_budget_nbytes", "error")
"""Of budgets that a planner refused: how many, the largest, and what was said of that."""


@dataclass(eq=False, repr=False)
class Frontier(Shown):
    """What each planner makes of each budget, what is proved impossible, and where it bends."""

    graph: Graph
    store_all: Timeline
    rows: list[Row] = field(default_factory=list)
    """A row a planner and budget: predicted and measured peak, recompute, bound, gap, error."""
    bounds: list[Row] = field(default_factory=list)
    """Of each budget, the FLOPs that no schedule can recompute less than."""
    schedules: list[Schedule | None] = field(default_factory=list)
    """That of each row; None where the planner refused."""
    untrusted: str | None = None
    """Why measured peaks may not be the runs' own."""

    @cached_property
    def floor_nbytes(self) -> int:
        """No schedule needs less; see `budget_floor`."""
        return budget_floor(self.graph).nbytes

    def best(self) -> list[Row]:
        """The rows that no other beats in both peak and recompute, by rising peak."""
        found: list[Row] = []
        planned = [row for row in self.rows if row["error"] is None]
        for row in sorted(
            planned, key=lambda r: (r["predicted_peak_nbytes"], r["recompute_flops"])
        ):
            if not found or row["recompute_flops"] < found[-1]["recompute_flops"]:
                found.append(row)
        return found

    def by_budget(self) -> list[Row]:
        """A row a budget: the cheapest plan that is within it, and how far from the best it is."""
        bounds = {row["budget_nbytes"]: row["bound_flops"] for row in self.bounds}
        found = []
        for limit in dict.fromkeys(row["budget_nbytes"] for row in self.rows):
            within = [
                row for row in self.rows
                if row["error"] is None and row["predicted_peak_nbytes"] <= limit
            ]  # fmt: skip
            best = min(
                within,
                key=lambda row: (row["recompute_flops"], row["predicted_peak_nbytes"]),
                default={},
            )
            row = {
                "budget_nbytes": limit,
                "planner": best.get("planner") or self._why_none(limit),
                "predicted_peak_nbytes": best.get("predicted_peak_nbytes"),
                "overhead": best.get("overhead"),
            }
            bound = bounds.get(limit)
            if bound is not None:
                row["bound_overhead"] = bound / (self.store_all.forward_flops or 1)
                if best:
                    row["gap_overhead"] = max(0.0, row["overhead"] - row["bound_overhead"])
            found.append(row)
        return found

    def _why_none(self, limit: int) -> str:
        """Why there is no plan within a budget."""
        possible = any(row["budget_nbytes"] == limit for row in self.bounds)
        return "none found" if possible and limit >= self.floor_nbytes else "none exists"

    @property
    def budgets(self) -> tuple[str, dict[int, str]]:
        """A unit, and in it each budget that was tried, rising, as a table's heading has it."""
        limits = sorted({row["budget_nbytes"] for row in self.rows})
        unit, texts = in_one_unit(limits, BYTES) or ("B", [])
        if len(set(texts)) < len(limits):
            unit, texts = "B", [str(limit) for limit in limits]
        return unit, dict(zip(limits, texts, strict=True))

    def by_planner(self) -> list[Row]:
        """A row a planner: its recompute in percent of a forward, at each budget that has a plan.

        Marked ``*`` where no plan holds less for as little recompute, ``-`` where it has none.
        """
        _, heads = self.budgets
        best = {(row["predicted_peak_nbytes"], row["recompute_flops"]) for row in self.best()}
        found: dict[str, Row] = {}
        within = {row["budget_nbytes"] for row in self.rows if row["error"] is None}
        for row in self.rows:
            if row["budget_nbytes"] not in within:
                continue
            text = "- "
            if row["error"] is None:
                point = row["predicted_peak_nbytes"], row["recompute_flops"]
                share = 100 * row["overhead"]
                text = f"{share:.{share < 1000:d}f}{'*' if point in best else ' '}"
            told = found.setdefault(row["planner"], {"planner": row["planner"]})
            told[heads[row["budget_nbytes"]]] = text.rjust(6)
        return list(found.values())

    @property
    def knee(self) -> Row | None:
        """The best row farthest below the line between the ends: where memory gets expensive."""
        best = [row for row in self.best() if row["overhead"] <= WORTH_RUNNING]
        if len(best) < 3:
            return None
        x0, x1 = best[0]["predicted_peak_nbytes"], best[-1]["predicted_peak_nbytes"]
        y0, y1 = best[0]["recompute_flops"], best[-1]["recompute_flops"]

        def depth(row: Row) -> float:
            along = (row["predicted_peak_nbytes"] - x0) / max(x1 - x0, 1)
            down = (row["recompute_flops"] - y1) / max(y0 - y1, 1)
            return float(1.0 - along - down)

        return max(best, key=depth)

    def next_useful(self, budget: int) -> str:
        """What a little more memory than ``budget`` would save, in words."""
        best = self.best()
        now = [row for row in best if row["predicted_peak_nbytes"] <= budget]
        more = [row for row in best if row["predicted_peak_nbytes"] > budget]
        if not more:
            return "more memory saves nothing: nothing is recomputed"
        then = more[0]
        peak = format_bytes(then["predicted_peak_nbytes"])
        if not now:
            return f"the smallest peak found is {peak} ({then['planner']})"
        saved = now[-1]["recompute_flops"] - then["recompute_flops"]
        return (
            f"with {peak} instead of {format_bytes(budget)}, {then['planner']} recomputes "
            f"{format_flops(saved)} less"
        )

    def refusals(self) -> list[str]:
        """Why a planner gave no plan at all or only some, a line each; a budget that is too small
        for it is no reason to speak of."""
        errors = {row["planner"]: row["error"] for row in self.rows if row["error"]}
        return [
            text if text.startswith(name) else f"{name}: {text}"
            for name, text in errors.items()
            if "no schedule within" not in text
        ]

    @property
    def title(self) -> str:
        return f"What memory costs in recompute: {self.graph.name or 'the program'}"

    def __repr__(self) -> str:
        planners = len({row["planner"] for row in self.rows})
        budgets = len({row["budget_nbytes"] for row in self.rows})
        return printable(
            f"<Frontier of {self.graph.name or 'a program'}: {planners} planners at {budgets} "
            f"budgets, {len(self.best())} plans that no other beats>"
        )

    def summary(self) -> str:
        """Whole memory, the least that was reached, and where it bends."""
        least, bends = self.best()[0], self.knee
        text = (
            f"{printable(self.title)}. Store-all needs {format_bytes(self.store_all.peak)}; the "
            f"least reached is {format_bytes(least['predicted_peak_nbytes'])} "
            f"({least['planner']}) for {100 * least['overhead']:.1f} % of a forward in recompute; "
            f"no schedule needs less than {format_bytes(self.floor_nbytes)}."
        )
        if bends is None:
            return text
        return (
            f"{text}\nMemory gets expensive below "
            f"{format_bytes(bends['predicted_peak_nbytes'])}: {bends['planner']} does with that "
            f"for {100 * bends['overhead']:.1f} %."
        )

    def at_budget(self, budget: int) -> Row | None:
        """The least recompute that was found within ``budget`` bytes, whatever it was asked for."""
        fits = [
            row
            for row in self.rows
            if row["error"] is None and row["predicted_peak_nbytes"] <= budget
        ]
        cost = lambda row: (row["recompute_flops"], row["predicted_peak_nbytes"])  # noqa: E731
        return min(fits, key=cost, default=None)

    def timeline_of(self, row: Row) -> Timeline | None:
        """What a row's schedule does. That of an earlier run, of which only the row was kept, is
        planned again; None where that doesn't find it."""
        place = next(k for k, other in enumerate(self.rows) if other is row)
        schedule = self.schedules[place]
        if schedule is None:
            try:
                schedule = make_schedule(self.graph, row["planner"], row["budget_nbytes"])
            except CkptError:
                return None
        timeline = simulate(self.graph, schedule)
        same = timeline.peak, timeline.recompute_flops
        return timeline if same == (row["predicted_peak_nbytes"], row["recompute_flops"]) else None

    def records(self) -> list[Row]:
        return self.rows

    def table(self) -> str:
        return to_html(self.best(), FRONTIER_COLUMNS)

    def page(self) -> str:
        """One HTML file: the best plan found within a budget plays, and a slider chooses it."""
        reels: list[Reel] = []
        missing: dict[tuple[str, ...], str] = {}
        forward = self.store_all.forward_flops or 1
        bounds = {row["budget_nbytes"]: row["bound_flops"] / forward for row in self.bounds}
        budgets = sorted({row["budget_nbytes"] for row in self.rows})
        labels = [format_bytes(budget) for budget in budgets]
        if len(set(labels)) < len(labels):
            labels = [f"{budget:,} B" for budget in budgets]
        for budget, label in zip(budgets, labels, strict=True):
            at = (label,)
            if (row := self.at_budget(budget)) is None:
                missing[at] = f"No plan was found within {label}."
            elif (timeline := self.timeline_of(row)) is None:
                missing[at] = (
                    f"{row['planner']} did with {format_bytes(row['predicted_peak_nbytes'])} for "
                    f"{100 * row['overhead']:.1f} % in an earlier run, whose schedule was not kept."
                )
            else:
                within = replace(timeline, schedule=replace(timeline.schedule, budget=budget))
                name, bound = row["planner"], bounds.get(budget)
                reels.append(Reel(self.graph, within, at, self.store_all, name, bound))
        planned = [row for row in self.rows if row["error"] is None]
        bends = self.knee and self.knee["predicted_peak_nbytes"]
        return page(
            self.title,
            reels,
            choices={"budget": labels},
            missing=missing,
            verdict=self.summary().partition(". ")[2],
            floor=self.floor_nbytes,
            start=next((reel.at for reel in reels if reel.timeline.peak == bends), None),
            parts={
                "Plans that no other beats": self.table(),
                "Every planner": to_html(planned, FRONTIER_COLUMNS),
                "Where there was no plan": to_html(self._refused(), REFUSED_COLUMNS),
            },
        )

    def _refused(self) -> list[Row]:
        """A row a planner that found no plan somewhere."""
        found: dict[str, Row] = {}
        for row in sorted(self.rows, key=lambda row: int(row["budget_nbytes"])):
            if row["error"] is not None:
                told = found.setdefault(row["planner"], {"planner": row["planner"], "refused": 0})
                told |= {"largest_budget_nbytes": row["budget_nbytes"], "error": row["error"]}
                told["refused"] += 1
        return list(found.values())

    def figure(self) -> Any:
        """Peak memory against recompute cost, every planner."""
        from ckpt.reports.figure import frontier_figure

        return frontier_figure(
            self.rows,
            self.bounds,
            knee=self.knee,
            floor_nbytes=self.floor_nbytes,
            forward_flops=self.store_all.forward_flops,
            title=self.title,
        )


def frontier(
    function: Callable[..., Any] | Program | Graph,
    *args: Any,
    planners: Iterable[str] | None = None,
    budgets: Iterable[int | str] | None = None,
    points: int = 8,
    measure: bool | None = None,
    argnums: int | tuple[int, ...] = 0,
    on_row: Callable[[Row], None] | None = None,
    iterations: int = 15,
    time_limit: float | None = 120.0,
    known: Iterable[Row] = (),
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
) -> Frontier:
    """Plan one step of ``function(*args)``, a Program or a Graph, by every planner at some budgets.

    Without ``budgets`` up to ``points`` of them are placed where the curve bends: the floor, what
    store-all needs, the smallest that a planner finds, then where least is known (see
    `placement`); the same ones wherever the planning is done.
    If the arguments are arrays, the schedules that no other beats and each planner's cheapest and
    smallest are executed and measured, but for those that recompute more than `WORTH_RUNNING`
    forwards. ``iterations``
    bounds the local search of ``auto``. A planner's plan for a smaller budget stands where it finds
    nothing cheaper for a larger one. All planning together takes ``time_limit`` seconds, of which
    each row has its share of what is left; one that isn't done then is a row with an error.
    ``on_row`` sees each row as it is made: of `planned.COLUMNS`, and its ``schedule``.
    ``known`` are rows of an earlier run, as ``on_row`` saw them: they are taken as they are.
    ``jobs``, ``executor`` or ``cluster``: where the planning is done, see `workers.pool`; the rows
    are the same, but for times. Planners of one's own, and what is executed, stay here.
    """
    graph, program = graph_of(function, args, argnums)
    _, stored, peak = resolve_budget(graph, None)
    found = Frontier(graph, simulate(graph, stored))
    chosen = listed("planners", planners) if planners is not None else [
        name for name in planner_names() if name not in LEFT_OUT
    ]  # fmt: skip
    for name in chosen:
        get(name)
    if measure is None:
        measure = program is not None and are_arrays(args)
    place: Callable[[Sequence[Row]], list[int]]
    if budgets is None:
        most = at_least(2, "points", points)
        place = partial(_bends, found=found, high=peak, most=most)
    else:
        limits = sorted({resolve_budget(graph, b)[0] or peak for b in listed("budgets", budgets)})
        most, place = len(limits), partial(_in_turn, limits=limits)
    if not chosen or not most:
        raise UsageError("nothing to compare: name at least one planner and one budget")
    errors: list[CkptError] = []
    for each in planned(
        graph, chosen, place, most, iterations=iterations, time_limit=time_limit,
        known=known, on_row=on_row, jobs=jobs, executor=executor, cluster=cluster,
    ):  # fmt: skip
        if each.bound is not None:
            found.bounds.append({"budget_nbytes": each.limit, "bound_flops": each.bound})
        found.rows += each.rows
        found.schedules += each.schedules
        errors += each.errors
    if all(row["error"] for row in found.rows):
        errors = errors or [_refusal(row) for row in found.rows]
        raise next((e for e in errors if isinstance(e, BudgetError)), errors[0])
    if measure:
        if program is None or not are_arrays(args):
            raise UsageError("shapes alone can't be run: pass arrays, or measure=False")
        with program.restored(*args):
            _execute(found, program, args)
    return found


def _refusal(row: Row) -> CkptError:
    """What a row of an earlier run was, about."""
    smallest = row["smallest_nbytes"]
    if smallest is None:
        return UsageError(row["error"])
    return BudgetError(row["error"], smallest=smallest)


def _bends(rows: Sequence[Row], found: Frontier, high: int, most: int) -> list[int]:
    """The floor takes seconds on a large graph, and the first row doesn't wait for it."""
    return next_budgets(rows, found.floor_nbytes if rows else high, high, most)


def _in_turn(rows: Sequence[Row], limits: Sequence[int]) -> list[int]:
    """The largest first: what is said of it may answer for others."""
    asked = {row["budget_nbytes"] for row in rows}
    return [limit for limit in limits if limit not in asked] if rows else [limits[-1]]


def _execute(found: Frontier, program: Program, args: tuple[Any, ...]) -> None:
    """Run the schedules that no other beats, and each planner's cheapest and smallest."""
    chosen = found.best()
    for name in dict.fromkeys(row["planner"] for row in found.rows):
        rows = [r for r in found.rows if r["planner"] == name and r["error"] is None]
        if rows:
            chosen.append(min(rows, key=lambda r: (r["recompute_flops"], r["budget_nbytes"])))
            chosen.append(min(rows, key=lambda r: r["predicted_peak_nbytes"]))
    wanted = {id(row) for row in chosen if row["overhead"] <= WORTH_RUNNING}
    measured: dict[Any, int] = {}
    for row, schedule in zip(found.rows, found.schedules, strict=True):
        if id(row) in wanted and schedule is not None:
            key = schedule.instructions
            if key not in measured:
                measured[key], doubt = measured_peak(program, schedule, args)
                found.untrusted = found.untrusted or doubt
            row["measured_peak_nbytes"] = measured[key]
