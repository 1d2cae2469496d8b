"""Perform the lines of a schedule one by one, on real arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ckpt.program import Observer
from ckpt.tape.execution.lines import Code, Line, Var
from ckpt.tape.execution.meter import Meter


def perform(code: Code, arrays: Sequence[Any], observe: Observer | None = None) -> dict[Var, Any]:
    """Run the code on the argument arrays; return what its results are.

    Each array goes at its last use, or when the schedule lets go of it, whichever is later.
    """
    env: dict[Var, Any] = dict(zip(code.arguments, arrays, strict=True))
    dying = _last_uses(code)
    meter = Meter(arrays)
    start = 0
    for position, end in enumerate(code.ends):
        if observe is not None:
            observe.before(position)
        for at in range(start, end):
            _run(code.lines[at], env)
            for var in dying[at]:
                del env[var]
        start = end
        if observe is not None:
            observe.after(position, partial(meter.after, code.changes[position], env))
    for at in range(start, len(code.lines)):
        _run(code.lines[at], env)
    return {var: env[var] for var in code.results}


def _run(line: Line, env: dict[Var, Any]) -> None:
    if line.kind == "drop":
        return
    given = [_value(source, env) for source in line.sources]
    result = line.result
    if line.kind == "do":
        line.function(*given)
        return
    assert result is not None
    if line.kind == "over":
        target = env[line.target]
        line.function(*given, out=target, **(line.params or {}))
        env[result] = target
        return
    made = line.function(*given, **(line.params or {}))
    env[result] = made[()] if type(made) is np.ndarray and not made.ndim else made


def _value(source: Any, env: dict[Var, Any]) -> Any:
    if isinstance(source, Var):
        return env[source]
    if isinstance(source, (tuple, list)) and any(isinstance(item, Var) for item in source):
        return tuple(_value(item, env) for item in source)
    return source


def _last_uses(code: Code) -> list[list[Var]]:
    """For each line, the variables that nothing uses after it."""
    last: dict[Var, int] = {}
    for at, line in enumerate(code.lines):
        for var in line.variables():
            last[var] = at
    kept = {*code.arguments, *code.held, *code.results}
    dying: list[list[Var]] = [[] for _ in code.lines]
    for var, at in last.items():
        if var not in kept:
            dying[at].append(var)
    return dying
