"""What there is: the models, and the functions that have a rule."""

from __future__ import annotations

from typing import Any

from ckpt.models import build
from ckpt.tape.core.abstract import spec
from ckpt.tape.core.op import ADAPTERS, BY_NAME, NUMPY, OUT, Op
from ckpt.tape.traced.derived import forward_kernel
from ckpt.tape.traced.trace import trace


def model_row(name: str) -> dict[str, Any]:
    """A model or preset as it stands: its options, and what one forward computes and keeps.

    ``activations_nbytes`` are the buffers that some Backward reads, inputs and parameters aside.
    """
    workload = build(name)
    graph = trace(workload.loss, *workload.specs(), name=name).graph
    kept = {graph.owners[i] for i, readers in enumerate(graph.backward_readers) if readers}
    shown = {k: v for k, v in workload.options.items() if v is not None}
    return {
        "model": name,
        "options": " ".join(f"{k}={v}" for k, v in shown.items()),
        "parameters_nbytes": sum(n.nbytes for n in graph if n.resident and n.requires_grad),
        "nodes": len(graph),
        "forward_flops": graph.forward_flops,
        "activations_nbytes": sum(graph[i].nbytes for i in kept if not graph[i].resident),
    }


def op_rows() -> list[dict[str, Any]]:
    """Every op: the NumPy functions it stands for, what its rules read, its FLOPs on 64x64 arrays.

    Functions that are rewritten in terms of others (``np.vstack``) come last, without rules.
    """
    import ckpt.nn
    import ckpt.tape.core.value  # noqa: F401  - both register their ops

    functions: dict[Op, list[str]] = {}
    for function, op in NUMPY.items():
        functions.setdefault(op, []).append(_numpy_name(function))
    rows = [
        {
            "op": op.name,
            "functions": ", ".join(sorted(set(functions.get(op, ())))),
            "residuals": _residuals(op),
            "flops": _flops(op),
        }
        for op in sorted(BY_NAME.values(), key=lambda op: op.name)
    ]
    adapted = sorted({_numpy_name(f) for f in ADAPTERS if f not in NUMPY})
    return rows + [
        {"op": "", "functions": name, "residuals": "(made of other ops)", "flops": None}
        for name in adapted
    ]


def _numpy_name(function: Any) -> str:
    """``np.linalg.inv``, as a user writes it."""
    module = (getattr(function, "__module__", None) or "numpy").replace("numpy", "np", 1)
    return f"{module}.{getattr(function, '__name__', function)}"


def _residuals(op: Op) -> str:
    """For each operand with a rule, what that rule reads: ``x: w; w: x``."""
    if not op.differentiable:
        return "(no gradient)"
    names = op.operands or (op.variadic,)
    parts = []
    for name, rule in zip(names, op.rules(len(names)), strict=True):
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
