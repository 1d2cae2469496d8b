"""Every figure there is, and how to save one. Importing this loads no matplotlib; drawing does."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import house
from ckpt.reports.figure_frontier import frontier_figure
from ckpt.reports.figure_schedule import schedule_figure
from ckpt.reports.figure_sweep import sweep_figure
from ckpt.reports.figure_timeline import timeline_figure
from ckpt.reports.files import atomic, check_kind
from ckpt.text import paragraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURE_KINDS",
    "frontier_figure",
    "save",
    "schedule_figure",
    "sweep_figure",
    "timeline_figure",
    "to_png",
    "to_svg",
]

FIGURE_KINDS = (".png", ".svg", ".pdf")

_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write ``figure`` in the kind that the extension names (.png .svg .pdf), whole or not at all.

    The same figure gives the same bytes. Raises UsageError for another extension and for a place
    that can't be written to.
    """
    kind = check_kind(path, FIGURE_KINDS)
    with atomic(path) as temporary:
        temporary.write_bytes(_draw(figure, kind))
    return Path(path)


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _draw(figure, ".png")


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, to be put into a page."""
    text = _draw(figure, ".svg").decode()
    return text[text.index("<svg") :]


@house()
def _draw(figure: Figure, kind: str) -> bytes:
    from matplotlib.text import Text

    for text in figure.findobj(Text):  # names of a file's stand in labels, legends and ticks
        if (plain := paragraph(text.get_text().split("\n"))) != text.get_text():
            text.set_text(plain)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind[1:], dpi=160, metadata=_UNDATED[kind])
    return buffer.getvalue()
