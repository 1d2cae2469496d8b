"""A figure as bytes, and as a notebook's cell shows it. Importing this loads matplotlib."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from ckpt.reports.house import house
from ckpt.text import paragraph

DPI = 160

_SUBJECT = {".png": "Description", ".svg": "Description", ".pdf": "Subject"}
"""Where a file of each kind says what it depends on."""
_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


@house()
def draw(figure: Figure, kind: str, about: str | None = None) -> bytes:
    """The file of ``figure`` in a kind (.png .svg .pdf): the same bytes for the same figure."""
    for text in figure.findobj(Text):  # names of a file's stand in labels, legends and ticks
        if (plain := paragraph(text.get_text().split("\n"))) != text.get_text():
            text.set_text(plain)
    said = {} if about is None else {_SUBJECT[kind]: about}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind[1:], dpi=DPI, metadata={**_UNDATED[kind], **said})
    return buffer.getvalue()


class Picture(Figure):
    """A Figure that is shown below a cell as it would be saved, at half the size in pixels.

    By itself IPython draws Figures only where pyplot or ``%matplotlib`` has told it how.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = self.get_size_inches() * DPI / 2
        return draw(self, ".png"), {"width": round(width), "height": round(height)}
