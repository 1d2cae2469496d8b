"""What a search has found and proven so far, and what it asks next."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from ckpt.errors import BudgetError, MissingExtraError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry
from ckpt.planners.base.clock import Deadline, Progress, StoppedError
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.stages import find_stages
from ckpt.planners.bounds.lower import EFFORT, lower_bounds
from ckpt.planners.bounds.simple import memory_floor
from ckpt.planners.search.ahead import Ahead
from ckpt.planners.search.alike import improve_alike
from ckpt.planners.search.lifted import lift
from ckpt.planners.search.refusal import none_fits
from ckpt.planners.search.shortened import FEWEST, MULTIPLE, Shortened
from ckpt.repeats import Repeats, find_repeats
from ckpt.schedule import Proof, Schedule
from ckpt.timeline import Timeline

QUICK = (
    "store_all", "sqrt", "every", "chain", "as_written", "greedy", "mixed", "revolve",
    "dtr:msps", "dtr",
)  # fmt: skip
"""The planners that any graph is given to: two that answer at once, then the best first, as far as
the clock lets them; those of one's own come behind them,
then the linear program, the local search, and unless little can be left to save, `chain` with fewer
stages and `beam`."""

CLOSE = 1 / 1000
"""A gap of this share of the forward is not worth a beam."""

COARSER = (2, 3, 6)
"""Of so many stages `chain` makes one, where its own plan may not be the best."""

EXACT_NODES, EXACT_STATES = 24, 25_000
"""`brute` is asked about graphs that compute at most so many nodes, for so many states."""

SOLVER_NODES = 24
"""`lp_round` is asked about graphs that compute at most so many nodes: it is slow. `ilp` is not
asked: where it is quick, `brute` is quicker."""

QUADRATIC_NODES = 200
"""Above so many computed nodes `recompute_all`, whose schedules grow with their square, is asked
only if all others fail."""

LONG = 2_500
"""Above so many computed nodes, equal blocks are planned once."""

FINALISTS = 4
"""How many schedules are improved; none that costs more than WORTH times the best."""

WORTH = 1.5

WORK, LITTLE_WORK = 1_000_000, 300_000
"""Of each finalist, iterations times instructions stay below this; below the second once the gap is
`CLOSE`."""

PROOF_SECONDS = 5.0
"""Once no schedule can fit, how long the smallest that there is may be looked for."""


class Portfolio:
    """What was found so far, and what is proven."""

    def __init__(
        self, graph: Graph, budget: int | None, cost: Cost, clock: Deadline,
        tell: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.budget = budget
        self.cost = cost
        self.clock = clock
        self.tell = tell
        """Who hears what it turns to; None: whoever listens to the clock."""
        self.forward = cost.forward(graph) or 1
        self.computed = len(graph.computed)
        self.found: list[tuple[tuple[int, int], int, Timeline]] = []
        """By cost, peak, and the order in which they came."""
        self.portfolio: dict[str, Any] = {}
        self.refusals: list[BudgetError] = []
        self.iterations = 0
        self.proof: Proof | None = None
        self.impossible = False

    def search(self, ahead: Ahead, iterations: int) -> None:
        """Of many equal blocks few, and their plan for all; else all planners, the local search for
        the best, unless little can be left to save `beam`, and the local search for the best few.
        """
        self.ahead = ahead
        if self.ask_short(iterations):
            return
        self.ask_all()
        if self.found and not self.done:
            self.begin_improving(self.first, iterations // 4)
        self.prove(EFFORT)
        if self.found and not self.done:
            self.improve(self.first, iterations // 4)
        if not self.close:
            for name in (*self.coarser(), "beam"):
                if not self.done:
                    self.ask(name, {})
        if self.found and not self.done:
            self.improve_all(iterations)

    def search_briefly(self, iterations: int) -> None:
        """All planners but `beam`, and the local search for the best."""
        with closing(Ahead(None, self.graph, self.budget, self.cost)) as self.ahead:
            self.ask_all()
            if self.found and not self.done:
                self.improve(self.first, iterations // 4)

    def result(self) -> Schedule:
        if not self.found:
            reason = self.clock.reason
            if not reason and all(error.smallest is None for error in self.refusals):
                raise UsageError(f"auto: no planner takes this graph: {self.portfolio}")
            raise none_fits(self.graph, self.budget or 0, self.refusals, self.impossible, reason)
        best = self.first.schedule
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
    def first(self) -> Timeline:
        """The best so far."""
        return min(self.found, key=lambda row: row[:2])[2]

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

    # -- equal blocks ------------------------------------------------------------------------------

    def ask_short(self, iterations: int) -> bool:
        """What is found for a graph of few of the equal blocks, done with all, and `chain` if much
        is left to save; False where there aren't many, or neither has a plan."""
        budget = self.budget
        repeats = find_repeats(self.graph) if self.computed > LONG else None
        if budget is None or repeats is None or repeats.count < MULTIPLE + FEWEST:
            return False
        for name in dict.fromkeys(("store_all", "sqrt", *self.ahead.known)):
            self.ask(name, {})
        self.prove(0)
        if self.done or self.impossible:
            return self.done
        before = self.best
        lifted = self.lifted(Shortened(self.graph, repeats), budget, iterations)
        if lifted is not None:
            self.improve_alike(lifted, repeats)
        self.prove(EFFORT)
        if not self.close:
            known = self.best
            self.ask("chain", {})
            if self.best != known:
                self.improve_alike(self.first, repeats)
        return self.best != before

    def lifted(self, short: Shortened, budget: int, iterations: int) -> Timeline | None:
        """A plan for the short graph, done with all blocks."""
        told = f"{short.repeats.count} of {short.repeats.count + short.left_out} equal blocks"
        with Deadline().running() as clock:
            inner = Portfolio(
                short.graph, short.budget(budget), short.cost(self.cost), clock,
                lambda doing: self.report(f"{told}: {doing}"),
            )  # fmt: skip
            with suppress(StoppedError):
                inner.search_briefly(iterations)
            try:
                schedule = inner.result()
            except (BudgetError, UsageError):
                return None
        self.iterations += inner.iterations
        self.portfolio[told] = inner.portfolio
        return lift(short, schedule, budget, self.cost)

    def improve_alike(self, timeline: Timeline, repeats: Repeats) -> None:
        """The local search that does the same in all blocks."""
        self.report("improving all blocks alike")
        schedule, budget = timeline.schedule, self.budget or 0
        better = improve_alike(self.graph, schedule, budget, repeats, self.cost)
        if better is not None:
            self.add(simulate(self.graph, better))

    # -- the portfolio -----------------------------------------------------------------------------

    def ask_all(self) -> None:
        for name, options in self.candidates():
            if name in self.portfolio:
                continue
            if name == "recompute_all" and self.computed > QUADRATIC_NODES and self.found:
                continue
            if name == "dtr:msps":
                self.begin_asking([("dtr:msps", {}), ("dtr", {}), ("beam", {})])
            self.ask(name, options)
            if name == "sqrt":
                self.prove(0)
            if self.done:
                return
            if name == "sqrt":
                self.begin_asking(self.independent())

    def coarser(self) -> list[str]:
        """`chain` with fewer and longer stages, within which more is kept for a moment."""
        if "chain" not in self.portfolio or isinstance(self.portfolio["chain"], str):
            return []
        stages = len(find_stages(self.graph).stages)
        return [f"chain:{stages // n}" for n in COARSER if stages // n > 2]

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

    def independent(self) -> list[tuple[str, dict[str, Any]]]:
        """Those of ours that are asked the same whatever others found."""
        large = {"recompute_all"} if self.computed > QUADRATIC_NODES else set()
        return [
            (name, options) for name, options in self.candidates()
            if name in registry.BUILT_IN and name not in {"dtr", *large}
        ]  # fmt: skip

    def begin_asking(self, candidates: list[tuple[str, dict[str, Any]]]) -> None:
        for name, options in candidates:
            self.ahead.begin_plan(name, self.asked(name, options))

    def asked(self, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """The options, and what follows from what was found."""
        stem = name.partition(":")[0]
        if stem in ("dtr", "beam") and (self.found or self.refusals):
            options = {**options, "smallest": False}
        if stem == "dtr" and self.best is not None:  # no more than is worth improving
            options = {**options, "max_cost": int(self.forward + WORTH * self.best)}
        return options

    def ask(self, name: str, options: dict[str, Any]) -> None:
        self.report(f"asking {name}")
        options = self.asked(name, options)
        try:
            timeline = self.ahead.plan(name, options)
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
        if self.tell is not None:
            self.tell(doing)
        else:
            best = None if self.best is None else self.best / self.forward
            self.clock.report(Progress(doing, best, self.bound / self.forward))

    # -- improvement -------------------------------------------------------------------------------

    def improve_all(self, iterations: int) -> None:
        """The local search for each of the best, and once more for the best of these."""
        ranked = sorted(self.found, key=lambda row: row[:2])
        most = ranked[0][0][0] * WORTH
        finalists = [timeline for key, _, timeline in ranked[:FINALISTS] if key[0] <= most]
        for timeline in finalists:
            self.begin_improving(timeline, iterations // 4)
        for timeline in finalists:
            self.improve(timeline, iterations // 4)
            if self.close:
                return
        self.improve(self.first, iterations)

    def allowed(self, timeline: Timeline, iterations: int) -> int:
        work = LITTLE_WORK if self.close else WORK
        return min(iterations, work // max(len(timeline.schedule), 1))

    def begin_improving(self, timeline: Timeline, iterations: int) -> None:
        self.ahead.begin_improving(timeline, self.allowed(timeline, iterations))

    def improve(self, timeline: Timeline, iterations: int) -> None:
        self.report(f"improving what {timeline.schedule.planner} found")
        better = self.ahead.improved(timeline, self.allowed(timeline, iterations))
        self.iterations += better.iterations
        self.add(simulate(self.graph, better.schedule))
