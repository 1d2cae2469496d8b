"""The portfolio: every planner that takes the graph, and the local search for the best."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ckpt.errors import BudgetError, MissingExtraError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry
from ckpt.planners.base.clock import Deadline, Progress, StoppedError
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import planner
from ckpt.planners.bounds.floor import budget_floor
from ckpt.planners.bounds.lower import EFFORT, lower_bounds
from ckpt.planners.bounds.simple import memory_floor
from ckpt.planners.search.improve import improve
from ckpt.schedule import Proof, Schedule
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

QUICK = (
    "store_all", "sqrt", "every", "chain", "as_written", "greedy", "mixed", "revolve",
    "dtr:msps", "dtr",
)  # fmt: skip
"""The planners that any graph is given to: two that answer at once, then the best first, as far as
the clock lets them; those of one's own come behind them,
then the linear program, the local search, and unless little can be left to save, `beam`."""

CLOSE = 1 / 1000
"""A gap of this share of the forward is not worth a beam."""

EXACT_NODES, EXACT_STATES = 24, 25_000
"""`brute` is asked about graphs that compute at most so many nodes, for so many states."""

SOLVER_NODES = 24
"""`lp_round` is asked about graphs that compute at most so many nodes: it is slow. `ilp` is not
asked: where it is quick, `brute` is quicker."""

QUADRATIC_NODES = 200
"""Above so many computed nodes `recompute_all`, whose schedules grow with their square, is asked
only if all others fail."""

FINALISTS = 4
"""How many schedules are improved; none that costs more than WORTH times the best."""

WORTH = 1.5

WORK, LITTLE_WORK = 1_000_000, 300_000
"""Of each finalist, iterations times instructions stay below this; below the second once the gap is
`CLOSE`."""

PROOF_SECONDS = 5.0
"""Once no schedule can fit, how long the smallest that there is may be looked for."""


@planner("auto", monotone=False, takes="iterations")
def auto(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    iterations: int = 200,
    time_limit: float | None = 60.0,
) -> Schedule:
    """The cheapest schedule of all planners, improved by local search.

    Source: none; see `search.improve` for the search. Schedules compare by the cost of recomputing,
    then by peak.
    Guarantee: never worse than any planner it asked, which ``notes["portfolio"]`` lists with what
    each returned. The schedule's ``proof`` is the bound of `bounds.lower_bounds`, and where that is
    met the search ends; for a last thousandth of the forward no `beam` is asked. On graphs of up to
    24 computed nodes `brute` is asked too, and where it answers the proof is that. The result is
    optimal where ``notes["optimal"]`` says so, under ``notes["assumptions"]``. Work is counted in
    iterations: the same everywhere, unless ``time_limit`` seconds are over before. Then it is the
    best so far, and ``notes["stopped_early"]`` says so.
    Ignores: monotony. A larger budget may, rarely, cost more.
    Cost: that of the planners asked, and ``iterations`` steps of the search for each of a few
    schedules, fewer of long ones; ``notes["iterations"]`` tells how many.

    Raises BudgetError where it finds none, with the smallest that is found and what is proven.
    """
    clock = Deadline(time_limit)
    with clock.running():
        return _Portfolio(graph, budget, cost or flops(graph), clock).run(iterations)


class _Portfolio:
    """What was found so far, and what is proven."""

    def __init__(self, graph: Graph, budget: int | None, cost: Cost, clock: Deadline) -> None:
        self.graph = graph
        self.budget = budget
        self.cost = cost
        self.clock = clock
        self.forward = cost.forward(graph) or 1
        self.computed = len(graph.computed)
        self.found: list[tuple[tuple[int, int], int, Timeline]] = []
        """By cost, peak, and the order in which they came."""
        self.portfolio: dict[str, Any] = {}
        self.refusals: list[BudgetError] = []
        self.iterations = 0
        self.proof: Proof | None = None
        self.impossible = False

    def run(self, iterations: int) -> Schedule:
        try:
            self.ask_all()
            self.prove(EFFORT)
            if self.found and not self.done:
                self.improve_best(iterations // 4)
            if not self.close:
                self.ask("beam", {})
            if self.found and not self.done:
                self.improve_all(iterations)
        except StoppedError:
            pass  # the best so far stands
        if not self.found:
            raise self.refusal()
        timeline = min(self.found, key=lambda row: row[:2])[2]
        best = timeline.schedule
        notes = {
            "from": best.planner,
            "portfolio": self.portfolio,
            "iterations": self.iterations,
            "optimal": self.done,
            "assumptions": "; ".join(self.proof.assumptions if self.proof else ()) or "none",
        }
        if self.clock.reason:
            notes["stopped_early"] = self.clock.reason
        return replace(
            best, graph=self.graph.digest, planner="auto", budget=self.budget,
            proof=self.proof, notes=notes,
        )  # fmt: skip

    @property
    def best(self) -> int | None:
        """The least recomputation cost so far."""
        return min((key[0] for key, _, _ in self.found), default=None)

    @property
    def done(self) -> bool:
        """No schedule costs less."""
        return self.best is not None and self.best <= self.bound

    @property
    def close(self) -> bool:
        """Could so little be saved that nobody need look for it?"""
        return self.best is not None and self.best - self.bound <= CLOSE * self.forward

    @property
    def bound(self) -> int:
        """No schedule within the budget recomputes for less."""
        return 0 if self.proof is None else self.proof.bound

    # -- the portfolio -----------------------------------------------------------------------------

    def ask_all(self) -> None:
        for name, options in self.candidates():
            if name == "recompute_all" and self.computed > QUADRATIC_NODES and self.found:
                continue
            self.ask(name, options)
            if name == "sqrt":
                self.prove(0)
            if self.done:
                return

    def candidates(self) -> list[tuple[str, dict[str, Any]]]:
        """Planners to ask, with options."""
        own = [name for name in registry.names() if name not in registry.BUILT_IN]
        names = [*QUICK, *own]
        if self.computed <= SOLVER_NODES:
            names.append("lp_round")
        asked: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in names]
        if self.computed <= EXACT_NODES:
            asked.append(("brute", {"max_nodes": EXACT_NODES, "max_states": EXACT_STATES}))
        return [*asked, ("recompute_all", {})]

    def ask(self, name: str, options: dict[str, Any]) -> None:
        self.report(f"asking {name}")
        found, given = registry.get(name)
        if found.name in ("dtr", "beam") and (self.found or self.refusals):
            options = {**options, "smallest": False}
        if found.name == "dtr" and self.best is not None:  # no more than is worth improving
            options = {**options, "max_cost": int(self.forward + WORTH * self.best)}
        try:
            timeline = found.simulated(self.graph, self.budget, self.cost, **given, **options)
        except BudgetError as error:
            self.refusals.append(error)
            none = "found none that is worth improving" if "max_cost" in options else "found none"
            self.portfolio[name] = (
                none if error.smallest is None else f"needs {error.smallest} bytes"
            )
        except (MissingExtraError, UsageError) as error:
            self.portfolio[name] = f"refused: {error}"
        else:
            key = self.add(timeline)
            self.portfolio[name] = {"recompute_cost": key[0], "peak_nbytes": key[1]}
            if name == "brute" and timeline.schedule.proof is not None:
                self.proof = timeline.schedule.proof

    def add(self, timeline: Timeline) -> tuple[int, int]:
        key = self.cost.recompute(timeline.counts), timeline.peak
        self.found.append((key, len(self.found), timeline))
        return key

    # -- proofs ------------------------------------------------------------------------------------

    def prove(self, effort: int) -> None:
        """What no schedule can do; where none fits at all, little more time is spent."""
        if self.budget is None or self.impossible or self.done:
            return
        self.report("proving what is possible")
        self.impossible = memory_floor(self.graph).nbytes > self.budget
        if not self.impossible:
            best = lower_bounds(
                self.graph, self.budget, self.cost, effort=effort, known=self.best
            )[0]  # fmt: skip
            self.impossible = best.cost is None
            self.proof = Proof(best.cost or 0, self.cost.unit, (), best.name, best.solver)
        if self.impossible:
            self.clock.shorten(PROOF_SECONDS)

    def report(self, doing: str) -> None:
        best = None if self.best is None else self.best / self.forward
        self.clock.report(Progress(doing, best, self.bound / self.forward))

    # -- improvement -------------------------------------------------------------------------------

    def improve_all(self, iterations: int) -> None:
        """The local search for each of the best, and once more for the best of these."""
        ranked = sorted(self.found, key=lambda row: row[:2])
        most = ranked[0][0][0] * WORTH
        finalists = [timeline for key, _, timeline in ranked[:FINALISTS] if key[0] <= most]
        for timeline in finalists:
            self.improve(timeline, iterations // 4)
            if self.close:
                return
        self.improve_best(iterations)

    def improve_best(self, iterations: int) -> None:
        self.improve(min(self.found, key=lambda row: row[:2])[2], iterations)

    def improve(self, timeline: Timeline, iterations: int) -> None:
        schedule = timeline.schedule
        self.report(f"improving what {schedule.planner} found")
        work = LITTLE_WORK if self.close else WORK
        allowed = min(iterations, work // max(len(schedule), 1))
        better = improve(self.graph, schedule, self.budget, allowed, cost=self.cost)
        self.iterations += better.iterations
        self.add(simulate(self.graph, better.schedule))

    # -- none --------------------------------------------------------------------------------------

    def refusal(self) -> Exception:
        """Why there is none: the least that any planner needs, and the least there can be."""
        known = [error for error in self.refusals if error.smallest is not None]
        if not known and not self.clock.reason:
            return UsageError(f"auto: no planner takes this graph: {self.portfolio}")
        best = min(known, key=lambda error: error.smallest or 0, default=None)
        floor = budget_floor(self.graph, best.smallest if best else None)
        budget = self.budget or 0
        self.impossible |= floor.nbytes > budget
        none = "there is no schedule" if self.impossible else "found no schedule"
        stopped = f", stopped early ({self.clock.reason})" if self.clock.reason else ""
        text = f"auto: {none} within {format_bytes(budget)} ({budget} bytes){stopped}; "
        proven = (
            f"none needs less than {format_bytes(floor.nbytes)} ({floor.nbytes} bytes), proven by "
            f"{floor.instruction}"
        )
        if best is None:
            return BudgetError(text + proven)
        between = "" if best.smallest == floor.nbytes else "; between the two it is undecided"
        return BudgetError(
            f"{text}the smallest that any planner finds needs {format_bytes(best.smallest or 0)} "
            f"({best.smallest} bytes), set by {best.instruction}; {proven}{between}",
            smallest=best.smallest,
            instruction=best.instruction,
        )
