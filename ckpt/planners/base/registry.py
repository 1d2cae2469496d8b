"""What a planner is, and the table of them.

A planner turns a Graph and a budget in bytes (or None: no bound) into a Schedule whose simulated
peak is within the budget, or raises BudgetError: the promise is kept here, in one place. Its
docstring states source, guarantee, what it ignores, and cost. To add one: a function under
`@planner`. One of ours is a file in the room of its family, its name in `_MODULES`, and
`tests/planners/test_contract.py` holds it to what it says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost
from ckpt.schedule import Schedule, describe_instruction
from ckpt.text import unknown
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

_MODULES = {
    "store_all": "ckpt.planners.simple.store_all",
    "recompute_all": "ckpt.planners.simple.recompute_all",
    "as_written": "ckpt.planners.simple.as_written",
    "every": "ckpt.planners.simple.every",
    "sqrt": "ckpt.planners.simple.every",
    "greedy": "ckpt.planners.simple.greedy",
    "revolve": "ckpt.planners.revolve.revolve",
    "mixed": "ckpt.planners.revolve.mixed",
    "chain": "ckpt.planners.chain.chain",
    "ilp": "ckpt.planners.exact.ilp",
    "lp_round": "ckpt.planners.exact.lp_round",
    "dtr": "ckpt.planners.online.dtr",
    "beam": "ckpt.planners.search.beam",
    "auto": "ckpt.planners.search.auto",
    "brute": "ckpt.planners.exact.brute",
}
"""Name -> the module that defines it, imported when first asked for."""

BUILT_IN = tuple(_MODULES)


@dataclass(frozen=True)
class Planner:
    """A planning function under its name, with what it promises."""

    name: str
    function: Callable[..., Schedule]
    monotone: bool
    """A larger budget never costs more recompute."""
    takes: str | None
    """The option that ``name:value`` sets, as in ``every:4``."""

    def __call__(
        self, graph: Graph, budget: int | None = None, cost: Cost | None = None, **options: Any
    ) -> Schedule:
        """A schedule for ``graph`` whose simulated peak is at most ``budget`` bytes.

        ``cost`` is what it minimises, FLOPs by default; planners that weigh none don't take it.
        Raises BudgetError if this planner finds none, UsageError for an option it doesn't have.
        """
        return self.simulated(graph, budget, cost, **options).schedule

    def simulated(
        self, graph: Graph, budget: int | None = None, cost: Cost | None = None, **options: Any
    ) -> Timeline:
        """The same, and what the schedule comes to."""
        takes = list(inspect.signature(self.function).parameters)[2:]
        known = [name for name in takes if name != "cost"]
        for option in options:
            if option not in known:
                has = f"its options are {', '.join(known)}" if known else "it has no options"
                raise UsageError(f"planner {self.name} has no option {option!r}; {has}")
        if "cost" in takes and cost is not None:
            options["cost"] = cost
        made = self.function(graph, budget, **options)
        if not made.graph:
            made = replace(made, graph=graph.digest, planner=self.name, budget=budget)
        timeline = simulate(graph, made)
        if not fits(timeline, budget):
            raise over_budget(graph, timeline, self.name, budget)
        return timeline

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.function) or ""


_REGISTRY: dict[str, Planner] = {}


def planner(
    name: str, *, monotone: bool = True, takes: str | None = None
) -> Callable[[Callable[..., Schedule]], Callable[..., Schedule]]:
    """Register a planning function ``(graph, budget, *, option=default, ...) -> Schedule``.

    ::

        @ckpt.planner("mine")
        def mine(graph: ckpt.Graph, budget: int | None = None, *, keep: int = 3) -> ckpt.Schedule:
            return ckpt.Schedule([ckpt.Compute(i) for i in graph.computed] + …)

        ckpt.plan(loss, params, x, planner="mine", budget="64MiB", keep=5)

    ``takes`` names the option that ``"mine:5"`` sets, and ``monotone`` says that a larger budget
    never costs more recompute. An option called ``cost`` is handed the `Cost` to minimise.
    """

    def register(function: Callable[..., Schedule]) -> Callable[..., Schedule]:
        _REGISTRY[name] = Planner(name, function, monotone, takes)
        return function

    return register


def names() -> list[str]:
    """Every planner's name, the built-in ones in the order in which they are taught."""
    return list(dict.fromkeys((*_MODULES, *_REGISTRY)))


def get(name: str) -> tuple[Planner, dict[str, Any]]:
    """The planner called ``name`` and the options that ``name:value`` carries (``every:4``)."""
    if not isinstance(name, str):
        raise UsageError(f"a planner is named by a text, not by {name!r}")
    stem, _, value = name.partition(":")
    if stem not in _REGISTRY and stem in _MODULES:
        import_module(_MODULES[stem])
    if stem not in _REGISTRY:
        raise UsageError(unknown("planner", name, names()))
    found = _REGISTRY[stem]
    if not value:
        return found, {}
    if found.takes is None:
        raise UsageError(f"planner {stem} takes no value, so write {stem!r} and not {name!r}")
    kind = type(inspect.signature(found.function).parameters[found.takes].default)
    try:
        return found, {found.takes: kind(value) if kind is not type(None) else int(value)}
    except ValueError:
        raise UsageError(f"{value!r} in {name!r} is no {kind.__name__}") from None


def fits(timeline: Timeline, budget: int | None) -> bool:
    return budget is None or timeline.peak <= budget


def over_budget(graph: Graph, timeline: Timeline, name: str, budget: int | None) -> BudgetError:
    """The error for a planner whose smallest schedule, ``timeline``, exceeds ``budget``."""
    text = describe_instruction(timeline.schedule.instructions[timeline.peak_position], graph)
    return BudgetError(
        f"{name}: no schedule within {format_bytes(budget or 0)} ({budget} bytes); the smallest "
        f"that it finds needs {format_bytes(timeline.peak)} ({timeline.peak} bytes), set by {text}",
        smallest=timeline.peak,
        instruction=text,
    )
