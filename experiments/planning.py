"""What experiments share: a graph by name, a row a plan, a figure twice, a table of the README."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ckpt
from ckpt.errors import BudgetError, UsageError
from ckpt.models import build
from ckpt.planners import get
from ckpt.reports.figure import save

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from ckpt.graph import Graph
    from ckpt.timeline import Timeline

ROOT = Path(__file__).resolve().parent.parent
PLOTS, README = ROOT / "plots", ROOT / "README.md"
Row = dict[str, Any]


def trace(name: str, **options: Any) -> Graph:
    """The graph of a model or preset, from shapes alone: nothing of its size is allocated."""
    workload = build(name, **options)
    return ckpt.trace(workload.loss, *workload.specs()).graph


def simulated(graph: Graph, planner: str, budget: int | None = None, **options: Any) -> Timeline:
    """The timeline of the planner's schedule within ``budget`` bytes.

    Unlike `ckpt.make_schedule` it plans without simulating store-all first, which would double the
    time of a long program.
    """
    found, given = get(planner)
    return ckpt.simulate(graph, found(graph, budget, **given, **options))


def plan_row(graph: Graph, planner: str, budget: int | None = None, **options: Any) -> Row:
    """Peak and recompute of one plan; without them, and with the reason, where there is none."""
    row: Row = {"planner": planner, "budget_nbytes": budget}
    try:
        timeline = simulated(graph, planner, budget, **options)
    except (BudgetError, UsageError) as error:
        smallest = getattr(error, "smallest", None)
        refusal = "refuses" if smallest is None else "needs more"
        return row | {"least_nbytes": smallest, "outcome": refusal}
    plain = timeline.forward_flops + timeline.backward_flops
    return row | {
        "peak_nbytes": timeline.peak,
        "recompute_overhead": timeline.overhead,
        "step_overhead": timeline.recompute_flops / plain if plain else 0.0,
        "outcome": "fits",
    }


def draw(name: str, figure: Figure, folder: Path = PLOTS) -> None:
    """Save ``figure`` as ``name``.png and .svg."""
    for kind in ("png", "svg"):
        path = save(figure, folder / f"{name}.{kind}")
        print(f"wrote {path.parent.name}/{path.name}")


def write_table(name: str, lines: Sequence[str]) -> None:
    """Put ``lines`` in the README, between the marks of ``name``."""
    before, _, after = _readme(name)
    README.write_text(before + "".join(f"{line}\n" for line in lines) + after)


def table_written(name: str) -> list[str]:
    """The lines that the README has there."""
    return _readme(name)[1].splitlines()


def _readme(name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, _, rest = README.read_text().partition(begin)
    table, _, after = rest.partition(end)
    return before + begin, table, end + after
