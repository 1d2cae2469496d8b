"""What the commands about plans share: the document, and where it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ckpt.cli.run import note

PLAN_KINDS = (".json", ".html", ".png", ".svg", ".pdf")


def described(plan: Any, verification: Any = None) -> dict[str, Any]:
    """A plan's figures as JSON values."""
    t = plan.timeline
    found = {
        "name": plan.graph.name,
        "planner": plan.schedule.planner,
        "budget_nbytes": plan.schedule.budget,
        "stopped_early": plan.schedule.notes.get("stopped_early"),
        "instructions": len(plan.schedule),
        "predicted_peak_nbytes": t.peak,
        "predicted_whole_peak_nbytes": t.whole_peak,
        "forward_flops": t.forward_flops,
        "recompute_flops": t.recompute_flops,
        "backward_flops": t.backward_flops,
        "overhead": t.overhead,
        "recomputations": t.recomputations,
        "certificate": plan.certificate.to_json(),
    }
    if verification is not None:
        found["measured_peak_nbytes"] = verification.measured
        found["gradients_equal"] = verification.equal
    return found


def save(plan: Any, paths: Sequence[Path]) -> None:
    """The plan itself into .json files, its picture into the others."""
    for path in paths:
        if path.suffix.lower() == ".json":
            plan.save(path)
        else:
            plan.plot(path)
        note(f"wrote {path}")
