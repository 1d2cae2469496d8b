"""What a sweep found: its rows, and its points' schedules made again where they are to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from ckpt.reports.exports import to_html
from ckpt.reports.formats.shown import Shown
from ckpt.reports.pages import Reel, page
from ckpt.reports.table import SWEEP_COLUMNS
from ckpt.studies.points import Point, simulated
from ckpt.text import printable
from ckpt.units import format_bytes

REPEATS = 5


class Sweep(list[dict[str, Any]], Shown):
    """The rows of a sweep (see `points.COLUMNS`), one a point of ``points``: a list that can be
    drawn, written and opened. Its tables have CPU time where one process of its own (``jobs``)
    took it `REPEATS` times: with less, noise is larger than the differences."""

    def __init__(
        self, rows: Iterable[dict[str, Any]], points: Sequence[Point], jobs: int | None = None
    ) -> None:
        super().__init__(rows)
        self.points = list(points)
        timed = jobs == 1 and all(p.repeats >= REPEATS for p in points if p.measure)
        self.columns = [c for c in SWEEP_COLUMNS if timed or c != "cpu_seconds"]

    def __repr__(self) -> str:
        depths = sorted({point.depth for point in self.points})
        strategies = dict.fromkeys(point.strategy for point in self.points)
        return printable(
            f"<Sweep of {self.points[0].model}: {len(self)} rows, {len(strategies)} strategies at "
            f"depths {', '.join(map(str, depths))}>"
        )

    @property
    def title(self) -> str:
        return f"{self.points[0].model}: memory against recompute"

    @cached_property
    def deepest(self) -> list[dict[str, Any]]:
        """The rows at the greatest depth that went well, by peak."""
        depth = max(point.depth for point in self.points)
        rows = [row for row in self if row["depth"] == depth and row["error"] is None]
        return sorted(rows, key=lambda row: int(row["predicted_peak_nbytes"]))

    def summary(self) -> str:
        """What each strategy needs at the greatest depth, but for the planned curve."""
        there = {row["strategy"] for row in self.deepest}
        told = ", ".join(
            f"{row['strategy']} {format_bytes(row['predicted_peak_nbytes'])} for "
            f"{row['overhead']:.0%}"
            for row in self.deepest
            if (base := row["strategy"].partition("@")[0]) == row["strategy"] or base not in there
        )
        depth = max(point.depth for point in self.points)
        return printable(
            f"{self.title}. At depth {depth}, peak and recompute as a share of a forward: {told}."
        )

    def records(self) -> list[dict[str, Any]]:
        return list(self)

    def table(self) -> str:
        return to_html(self, self.columns)

    def figure(self) -> Any:
        from ckpt.reports.figure import sweep_figure

        return sweep_figure(list(self))

    def page(self) -> str:
        """One HTML file: depth and strategy are chosen, and that step plays beside store-all.

        The schedules are made again from the points, on shapes alone.
        """
        reels: list[Reel] = []
        missing: dict[tuple[str, ...], str] = {}
        for point, row in zip(self.points, self, strict=True):
            at = str(point.depth), point.strategy
            if row["error"] is not None:
                missing[at] = row["error"]
                continue
            graph, timeline, kept = simulated(point)
            bound = row["bound_flops"] and row["bound_flops"] / row["forward_flops"]
            limit = row["predicted_peak_nbytes"]
            reels.append(Reel(graph, timeline, at, kept, point.strategy, bound, limit))
        shown = sorted(self.deepest, key=lambda row: bool(row["strategy"] != "planned"))
        return page(
            self.title,
            reels,
            choices=["depth", "strategy"],
            missing=missing,
            verdict=self.summary().partition(". ")[2],
            start=next(((str(row["depth"]), row["strategy"]) for row in shown), None),
            parts={"Every point": self.table()},
        )
