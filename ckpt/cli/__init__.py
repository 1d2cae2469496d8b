"""The command ``ckpt``: one command a file; parse, call, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (see `ckpt.errors` for what they mean)."""
    from ckpt.cli import signals

    signals.heed()  # before all else that is imported
    from ckpt.cli import app

    if (line := os.environ.pop("_CKPT_COMPLETE_LINE", None)) is not None:
        for word in app.complete(line, os.environ.pop("_CKPT_COMPLETE_BREAKS", "")):
            print(word)
        sys.exit(0)
    code = app.call(arguments)
    signals.farewell(code)
    sys.exit(code)
