"""The functions that have a rule, and what each rule reads."""

from __future__ import annotations

from typing import Any

from ckpt.tape.core.abstract import spec
from ckpt.tape.core.dispatch import name_of
from ckpt.tape.core.op import ADAPTERS, BY_NAME, NUMPY, OUT, Op
from ckpt.tape.core.rules import rules_of
from ckpt.tape.ops.conventions import CONVENTIONS
from ckpt.tape.traced.derived import forward_kernel


def op_rows() -> list[dict[str, Any]]:
    """Every op: the NumPy functions it stands for, what its rules read, its FLOPs on 64x64 arrays,
    and what its rules give where there is no derivative.

    Functions that are rewritten in terms of others (``np.vstack``) come last, without rules.
    """
    import ckpt.nn  # noqa: F401  - registers its ops

    functions: dict[Op, list[str]] = {}
    for function, op in NUMPY.items():
        functions.setdefault(op, []).append(name_of(function))
    rows = [
        {
            "op": op.name,
            "functions": ", ".join(sorted(set(functions.get(op, ())))),
            "residuals": _residuals(op),
            "flops": _flops(op),
            "without_derivative": CONVENTIONS.get(op.name, ""),
        }
        for op in sorted(BY_NAME.values(), key=lambda op: op.name)
    ]
    adapted = sorted({name_of(f) for f in ADAPTERS if f not in NUMPY})
    return rows + [
        {
            "op": "",
            "functions": name,
            "residuals": "(made of other ops)",
            "flops": None,
            "without_derivative": "",
        }
        for name in adapted
    ]


_NO_WORD = {"without_derivative": ""}


def _residuals(op: Op) -> str:
    """For each operand with a rule, what that rule reads: ``x: w; w: x``."""
    if not op.differentiable:
        return "(no gradient)"
    names = op.operands or (op.variadic,)
    parts = []
    for name, rule in zip(names, rules_of(op, len(names)), strict=True):
        if rule is not None:
            reads = ["out" if k == OUT else names[k] for k in rule.reads]
            parts.append(f"{name}: {', '.join(reads) or 'nothing'}")
    return "; ".join(parts)


def _flops(op: Op) -> int | None:
    """FLOPs of the op on 64x64 operands and its default options; None if it takes no such."""
    count = len(op.operands) or 2
    try:
        kernel = forward_kernel(op, (spec((64, 64)),) * count, dict(op.static) or None)
    except Exception:  # whatever an op says to operands that aren't meant for it
        return None
    return kernel.flops
