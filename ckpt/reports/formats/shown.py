"""What every result of a study can do: be drawn, written, opened, and shown by a notebook."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ckpt.reports.exports import to_html
from ckpt.reports.formats import registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Shown:
    """A result with a ``title``, a ``summary`` in a line or two, a table, a figure and a page."""

    @property
    def title(self) -> str:
        raise NotImplementedError

    def summary(self) -> str:
        """What it comes to, in a line or two."""
        raise NotImplementedError

    def records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of its table: integers, with the unit in each column's name."""
        raise NotImplementedError

    def table(self) -> str:
        """The table as people read it, what is alike in one row, as an HTML ``<table>``."""
        return to_html(self.records())

    def figure(self) -> Figure:
        """Its picture."""
        raise NotImplementedError

    def page(self) -> str:
        """One HTML file that needs nothing else."""
        raise NotImplementedError

    def as_json(self) -> Any:
        """What a ``.json`` file of it holds."""
        return {"title": self.title, "rows": self.records()}

    def export(self, path: Any) -> Path:
        """Write it as the ending of ``path`` says; UsageError for one that isn't known."""
        return registry.write(self, path)

    def plot(self, path: Any = None) -> Any:
        """The Figure; with a ``path``, written there as its ending says (.html: the page)."""
        return self.figure() if path is None else self.export(path)

    def show(self) -> Any:
        """Open the page: below the cell in a notebook, else in a browser; return its file."""
        if (display := _notebook()) is not None:
            return display(_Framed(self.page()))
        with tempfile.NamedTemporaryFile(
            "w", suffix=".html", prefix="ckpt-", delete=False, encoding="utf-8"
        ) as file:
            file.write(self.page())
        webbrowser.open(Path(file.name).as_uri())
        return Path(file.name)

    def _repr_html_(self) -> str:
        summary = escape(self.summary()).replace("\n", "<br>")
        return f'<div class="ckpt"><p>{summary}</p>{self.table()}</div>'


class _Framed:
    """A page below a cell: in a frame of its own, out of the notebook's reach and styles."""

    def __init__(self, page: str) -> None:
        self.page = page

    def _repr_html_(self) -> str:
        return (
            '<iframe sandbox="allow-scripts" title="ckpt" width="100%" height="900" '
            f'style="border:0" srcdoc="{escape(self.page)}"></iframe>'
        )


def _notebook() -> Any:
    """What displays an object below the cell of a notebook that is running; None elsewhere."""
    import sys

    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    return display if hasattr(get_ipython(), "kernel") else None
