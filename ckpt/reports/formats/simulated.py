"""A schedule that was simulated, and no more is known of it: what can be shown and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckpt.graph import Graph
from ckpt.reports.documents import explained
from ckpt.reports.formats.shown import Shown
from ckpt.reports.ledger import step_rows
from ckpt.reports.pages import Reel, as_text, page
from ckpt.text import paragraph
from ckpt.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(eq=False, repr=False)
class Simulation(Shown):
    """A graph and the timeline of a schedule of it. Its ``.json`` is the Timeline."""

    graph: Graph
    timeline: Timeline
    against: Timeline | None = None
    """Another schedule of the graph, to be drawn behind."""

    @property
    def title(self) -> str:
        return f"A schedule of {self.graph.name or 'a graph'}"

    def summary(self) -> str:
        return Reel(self.graph, self.timeline).verdict

    def records(self) -> list[dict[str, Any]]:
        return step_rows(self.graph, self.timeline)

    def as_json(self) -> Any:
        return self.timeline.to_json()

    def figure(self) -> Figure:
        from ckpt.reports.figure import timeline_figure

        return timeline_figure(
            self.timeline,
            graph=self.graph,
            against=self.against,
            title=f"Live bytes over one step of {self.graph.name or 'the program'}",
        )

    def page(self) -> str:
        words = as_text(paragraph(explained(self.graph, self.timeline)))
        reel = Reel(self.graph, self.timeline)
        return page(self.title, [reel], parts={"In words": words})
