"""Measures a run: the bytes of the arrays that are held, by owner, and what tracemalloc sees.

It reads arrays, never a node's declared bytes, so that agreement with `simulate` means something;
and it allocates nothing while it measures.
"""

from __future__ import annotations

import tracemalloc
from array import array as int_array
from typing import Any

import numpy as np

from ckpt.graph import Graph
from ckpt.schedule import Schedule
from ckpt.tape.core.node import TapeNode
from ckpt.tape.eager.interpreter import BACKWARD, COMPUTE, owner
from ckpt.timeline import BACKWARD as BACKWARD_PHASE
from ckpt.timeline import FORWARD, FREE, RECOMPUTE, Timeline

_ACTIVATIONS, _CAPTURED, _COTANGENTS, _GRADIENTS = range(4)


class Meter:
    """An Observer that fills the columns of a Timeline."""

    def __init__(
        self, graph: Graph, nodes: list[TapeNode], length: int, trace_memory: bool
    ) -> None:
        self.graph = graph
        self.trace_memory = trace_memory
        self.numbers = {node: i for i, node in enumerate(nodes)}
        self.resident = {
            id(owner(node.value)) for node, n in zip(nodes, graph, strict=True) if n.resident
        }
        self.leaves = {node for node, n in zip(nodes, graph, strict=True) if n.resident}
        self.captured = {node for node, n in zip(nodes, graph, strict=True) if n.captured}
        self.held: list[dict[int, list[int]]] = [{}, {}, {}, {}]
        self.totals = [0, 0, 0, 0]
        blank = [0] * length
        self.columns = [int_array("q", blank) for _ in range(4)]
        self.high = int_array("q", blank)
        self.flops = int_array("q", blank)
        self.phase = int_array("q", blank)
        self.counts = int_array("q", [0] * len(nodes))
        self.at = 0
        self.before_value: Any = None
        self.before_cotangents: list[tuple[TapeNode, Any]] = []
        self.base = 0

    def __enter__(self) -> Meter:
        if self.trace_memory:
            tracemalloc.start()
            self.base = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_: object) -> None:
        if self.trace_memory:
            tracemalloc.stop()

    def before(self, kind: int, node: TapeNode) -> None:
        if kind == BACKWARD:
            seen = self.before_cotangents
            seen.append((node, node.cotangent))
            for dep in dict.fromkeys(node.inputs or ()):
                if type(dep) is TapeNode and dep.requires_grad:
                    seen.append((dep, dep.cotangent))
            if not self.totals[_COTANGENTS] and not self.held[_COTANGENTS]:
                self._add(_COTANGENTS, node.cotangent)  # the seed
        elif kind != COMPUTE:
            self.before_value = node.value
        if self.trace_memory:
            tracemalloc.reset_peak()

    def after(self, kind: int, node: TapeNode) -> None:
        peak = tracemalloc.get_traced_memory()[1] if self.trace_memory else 0
        at = self.at
        number = self.numbers[node]
        recorded = self.graph.nodes[number]
        values = _CAPTURED if node in self.captured else _ACTIVATIONS
        if kind == COMPUTE:
            self._add(values, node.value)
            self.flops[at] = recorded.flops
            self.phase[at] = RECOMPUTE if self.counts[number] else FORWARD
            self.counts[number] += 1
        elif kind == BACKWARD:
            for dep, was in self.before_cotangents:
                if dep.cotangent is not was:
                    group = _GRADIENTS if dep in self.leaves else _COTANGENTS
                    if was is not None:
                        self._drop(group, was)
                    if dep.cotangent is not None:
                        self._add(group, dep.cotangent)
            was = None
            self.before_cotangents.clear()
            self.flops[at] = recorded.backward_flops
            self.phase[at] = BACKWARD_PHASE
        else:
            self._drop(values, self.before_value)
            self.before_value = None
            self.phase[at] = FREE
        for column, total in zip(self.columns, self.totals, strict=True):
            column[at] = total
        if self.trace_memory:
            # Captured arrays were made before; gradients are a constant beside the peak.
            self.high[at] = peak - self.base + self.totals[_CAPTURED] - self.totals[_GRADIENTS]
        self.at = at + 1

    def _add(self, group: int, value: Any) -> None:
        for array in value if isinstance(value, tuple) else (value,):
            if group != _COTANGENTS and isinstance(array, np.generic):
                self.totals[group] += array.nbytes  # a number is shared only as it is handed on
                continue
            held_by = array if group == _CAPTURED else owner(array)  # of its base, only that part
            if id(owner(array)) in self.resident:
                continue
            held = self.held[group].get(id(held_by))
            if held is None:
                self.held[group][id(held_by)] = [1, held_by.nbytes]
                self.totals[group] += held_by.nbytes
            else:
                held[0] += 1

    def _drop(self, group: int, value: Any) -> None:
        for array in value if isinstance(value, tuple) else (value,):
            if group != _COTANGENTS and isinstance(array, np.generic):
                self.totals[group] -= array.nbytes
                continue
            key = id(array if group == _CAPTURED else owner(array))
            held = self.held[group].get(key)
            if held is None:
                continue
            held[0] -= 1
            if not held[0]:
                self.totals[group] -= held[1]
                del self.held[group][key]

    def timeline(self, schedule: Schedule, seconds: float) -> Timeline:
        live = [sum(row) for row in zip(*self.columns[:3], strict=True)]
        high = self.high if self.trace_memory else int_array("q", live)
        columns = dict(
            zip(("activations", "captured", "cotangents", "gradients"), self.columns, strict=True)
        )
        workspace = int_array("q", [max(h - v, 0) for h, v in zip(high, live, strict=True)])
        return Timeline(
            schedule=schedule,
            columns={
                **columns,
                "workspace": workspace,
                "high": high,
                "flops": self.flops,
                "phase": self.phase,
            },
            counts=self.counts,
            resident=self.graph.resident_nbytes,
            gradients_total=self.graph.gradient_nbytes,
            source="execute",
            measured={"seconds": seconds, "tracemalloc": self.trace_memory},
        )
