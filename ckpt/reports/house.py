"""matplotlib as this project's figures want it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def house() -> Iterator[None]:
    """matplotlib as it is delivered, whatever the user's matplotlibrc, style and MPLBACKEND say.

    His are as they were at the end. A $ in a name is a dollar sign.
    """
    matplotlib = _matplotlib()
    settings = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    # The salt makes the ids in an SVG depend on its contents alone; it can only be set this way.
    settings |= {"svg.hashsalt": "ckpt", "text.parse_math": False}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font doesn't have
        yield


def _matplotlib() -> Any:
    """matplotlib, which can't be imported while MPLBACKEND names a backend that there isn't."""
    backend = os.environ.pop("MPLBACKEND", None)
    first = "matplotlib" not in sys.modules
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if first and backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend
    return matplotlib
