"""What the commands about plans share: a plan's figures, and which files hold one."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def described(plan: Any, verification: Any = None) -> dict[str, Any]:
    """A plan's figures as JSON values."""
    from ckpt.reports.reproduce import environment

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
        "environment": environment(),
    }
    if verification is not None:
        found["measured_peak_nbytes"] = verification.measured
        found["measured_peaks_nbytes"] = verification.peaks
        found["code_nbytes"] = verification.code
        found["untrusted"] = verification.untrusted
        found["gradients_equal"] = verification.equal
    return found


def as_compiled(step: Any, verification: Any = None) -> dict[str, Any]:
    """The same of a step of JAX, with the temporaries that XLA says its compiled forms need."""
    found = step.found
    temps = {
        "budget_nbytes": found.limit,
        "compiled_temp_nbytes": found.temp.nbytes,
        "plain_compiled_temp_nbytes": found.plain.nbytes,
    }
    if verification is not None:
        temps["compiled_temp_nbytes"] = verification.planned.nbytes
        temps["gradients_equal"] = verification.equal == verification.count
        temps["largest_difference"] = verification.difference
    return {**described(step.plan), **temps}


def is_plan(path: Path) -> bool:
    """Is a plan itself written there, for show, simulate and execute?"""
    name = path.name.lower()
    return name.endswith(".json") and not name.endswith((".trace.json", ".speedscope.json"))
