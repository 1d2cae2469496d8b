"""The command ``ckpt``: one command a file; parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code (see `ckpt.errors` for what they mean)."""
    try:
        from ckpt.cli import app, run  # nearly all that a short command does

        run.heed_signals()
        code = app.call(arguments)
        run.farewell()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
