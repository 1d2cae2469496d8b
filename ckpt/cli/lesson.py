"""``ckpt lesson``: reverse mode, from the beginning."""

from __future__ import annotations

from ckpt.cli.run import note


def lesson() -> None:
    """Learn reverse mode on the tape itself, and what checkpointing does."""
    from ckpt.lesson.lesson import lesson as run

    run(print)
    note("next: ckpt profile mlp --depth 10")
