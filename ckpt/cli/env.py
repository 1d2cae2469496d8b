"""``ckpt env``: what a figure depends on here, for a report of a bug."""

from __future__ import annotations

from ckpt.cli import options as o
from ckpt.cli.run import document


def env(json: o.Json = False) -> None:
    """Print versions, BLAS and threads, malloc's variables, witnesses and CPU, for a bug report."""
    from ckpt.reports.exports import dumps
    from ckpt.reports.reproduce import environment
    from ckpt.text import printable
    from ckpt.witness import ALL, available

    facts = {**environment(), "witnesses": [found.name for found in available(ALL)]}
    if json:
        document(dumps(facts))
        return
    for name, found in facts.items():
        if isinstance(found, dict):
            found = ", ".join(f"{key} {value}" for key, value in found.items() if value is not None)
        elif isinstance(found, list):
            found = ", ".join(found)
        print(printable(f"{name:<10} {found or 'none set'}"))
