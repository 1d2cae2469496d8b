"""Every figure there is, and how to save one. Importing this loads no matplotlib; drawing does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.reports.exports import plain
from ckpt.reports.figure_frontier import frontier_figure
from ckpt.reports.figure_schedule import schedule_figure
from ckpt.reports.figure_sweep import sweep_figure
from ckpt.reports.figure_timeline import timeline_figure
from ckpt.reports.files import atomic, check_kind
from ckpt.reports.reproduce import environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FIGURE_KINDS",
    "frontier_figure",
    "save",
    "schedule_figure",
    "sweep_figure",
    "timeline_figure",
    "to_svg",
]

FIGURE_KINDS = (".png", ".svg", ".pdf")


def save(
    figure: Figure, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None
) -> Path:
    """Write ``figure`` in the kind that the extension names (.png .svg .pdf), whole or not at all.

    In its metadata is ``about``, or what any figure depends on (`ckpt.reports.reproduce`), as JSON.
    The same figure made alike gives the same bytes. Raises UsageError for another extension and for
    a place that can't be written to.
    """
    from ckpt.reports.picture import draw

    kind = check_kind(path, FIGURE_KINDS)
    with atomic(path) as temporary:
        told = json.dumps(plain(environment() if about is None else about))
        temporary.write_bytes(draw(figure, kind, told))
    return Path(path)


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, to be put into a page."""
    from ckpt.reports.picture import draw

    text = draw(figure, ".svg").decode()
    return text[text.index("<svg") :]
