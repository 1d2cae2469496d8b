"""Arguments in another memory order than was traced.

Layout decides the bits of sums, so a step is performed as the arrays lie, and never on memory read
by other strides: the same ops in the same order, what they make laid out as the plain step would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ckpt.errors import ScheduleError, TapeError
from ckpt.machine import simulate
from ckpt.schedule import Schedule
from ckpt.tape.traced.trace import Traced, relaid
from ckpt.units import format_bytes


def layout(array: Any) -> tuple[int, ...]:
    """The strides that say where elements lie: of axes longer than one."""
    if 0 in array.shape:
        return ()
    return tuple(s for n, s in zip(array.shape, array.strides, strict=True) if n > 1)


def layouts(arrays: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    return tuple(map(layout, arrays))


def as_given(traced: Traced, schedule: Schedule, arrays: Sequence[Any]) -> Traced:
    """The program for arguments that lie as ``arrays`` do.

    Raises TapeError where the schedule can't be performed then, or takes more bytes than copies of
    those arrays would, laid out as traced.
    """
    nodes = [traced.entries[position].node for _, position in traced.leaves]
    others = [
        k for k, (array, node) in enumerate(zip(arrays, nodes, strict=True))
        if layout(array) != layout(node.value)
    ]  # fmt: skip
    if not others:
        return traced
    made = relaid(traced, arrays)
    promised = simulate(traced.graph, schedule).peak + sum(arrays[k].nbytes for k in others)
    try:
        peak = simulate(made.graph, replace(schedule, graph=made.graph.digest)).peak
    except ScheduleError:
        needs = "the schedule is no longer one of the program"
    else:
        if peak <= promised:
            return made
        needs = f"the step needs {format_bytes(peak)}, and {format_bytes(promised)} is all it may"
    number, node = others[0], nodes[others[0]]
    raise TapeError(
        f"array {number} of the arguments ({arrays[number].dtype}{list(node.shape)}) has strides "
        f"{arrays[number].strides} and had {node.value.strides} when traced; laid out like this "
        f"{needs}: {_advice(node.value)}"
    )


def _advice(array: Any) -> str:
    dense = array.itemsize
    for n, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        if n > 1 and stride != dense:
            return "trace and plan with an array that lies like this one"
        dense *= n
    return "pass np.ascontiguousarray(it), or trace and plan with this one"
