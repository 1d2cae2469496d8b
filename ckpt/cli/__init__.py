"""The command ``ckpt``: one command a file; parse, call, print."""

from ckpt.cli.app import main

__all__ = ["main"]
