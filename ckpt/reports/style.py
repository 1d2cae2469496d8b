"""How things look: one colour, marker and dash for each planner, one colour for each kind of bytes.

The colours are Okabe and Ito's (Color Universal Design, 2008), told apart by readers with any
of the common colour deficiencies; markers and dashes repeat the distinction for print in grey.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from ckpt.reports.rows import stem
from ckpt.text import printable

BLACK, GREY = "#000000", "#8A8A8A"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"

IMPOSSIBLE = "#E7E2DA"
"""The ground where no schedule can be."""

TEXT, FAINT, GRID = "#222222", "#666666", "#E4E4E4"

SOLID, DASHED, DOTTED, DASHDOT = "solid", "dashed", "dotted", "dashdot"


class Look(NamedTuple):
    """A line's colour, marker and dash, in matplotlib's terms."""

    colour: str
    marker: str
    dash: str

    @property
    def scale(self) -> float:
        """By how much the marker must grow to weigh as much as a square."""
        return {"*": 1.5, "P": 1.25, "X": 1.25, ".": 1.4}.get(self.marker, 1.0)


LOOKS = {
    "store_all": Look(VERMILLION, "s", SOLID),
    "per_layer": Look(ORANGE, "D", DASHED),
    "sqrt": Look(BLUE, "o", SOLID),
    "every": Look(SKY, "v", DASHDOT),
    "segments": Look(SKY, ".", SOLID),
    "greedy": Look(GREEN, "^", DASHED),
    "revolve": Look(PURPLE, "P", SOLID),
    "mixed": Look(PURPLE, "X", DASHED),
    "chain": Look(GREEN, "h", SOLID),
    "ilp": Look(BLACK, "d", SOLID),
    "lp_round": Look(BLACK, "1", DOTTED),
    "dtr": Look(ORANGE, ">", DASHDOT),
    "beam": Look(SKY, "p", DASHED),
    "auto": Look(VERMILLION, "*", DASHED),
    "recompute_all": Look(GREY, "<", SOLID),
    "as_written": Look(GREY, "H", DASHED),
    "brute": Look(BLACK, "8", DASHDOT),
}

_BY = {"planned": "chain"}
"""Strategies that are a planner's work, and look like it."""

KIND_COLOURS = {
    "resident": "#C4C4C4",
    "captured": YELLOW,
    "states": BLUE,
    "activations": SKY,
    "cotangents": ORANGE,
    "gradients": GREEN,
    "workspace": PURPLE,
}

PHASE_COLOURS = {"forward": "#7FA7C4", "recompute": VERMILLION, "backward": "#5B5B5B"}
"""For thin bands and, made paler, for the ground behind a timeline."""

_SPARE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
_SPARE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p")
_SPARE_DASHES = (DASHED, DOTTED, DASHDOT, SOLID)


def look(name: str) -> Look:
    """How the planner or strategy called ``name`` is drawn; ``every:4`` looks like ``every``.

    An unknown name gets a look of its own that depends on nothing but the name.
    """
    known = LOOKS.get(_BY.get(stem(name), stem(name)))
    if known is not None:
        return known
    number = zlib.crc32(stem(name).encode())
    return Look(
        _SPARE_COLOURS[number % len(_SPARE_COLOURS)],
        _SPARE_MARKERS[number // 8 % len(_SPARE_MARKERS)],
        _SPARE_DASHES[number // 128 % len(_SPARE_DASHES)],
    )


def ink(colour: str) -> str:
    """``colour`` dark enough to be read as text on white (a contrast of about 4.5 to 1)."""
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    lightness = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    factor = min(1.0, (0.18 / lightness) ** (1 / 2.2)) if lightness else 1.0
    return "#" + "".join(f"{round(255 * factor * part):02X}" for part in (red, green, blue))


def words(name: str) -> str:
    """A name as it is read in a figure: ``store_all -> store all``."""
    return printable(name.replace("_", " "), 60)
