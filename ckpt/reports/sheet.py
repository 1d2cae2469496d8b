"""The Figure that notebooks show without pyplot. Importing this loads matplotlib."""

from __future__ import annotations

from matplotlib.figure import Figure


class Sheet(Figure):
    """A Figure that is its own picture below a cell, as it would be saved, for any screen's pixels.

    IPython draws Figures only where pyplot or ``%matplotlib`` has told it how.
    """

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        from ckpt.reports.figure import to_png

        width, height = self.get_size_inches() * 80
        return to_png(self), {"width": round(width), "height": round(height)}
