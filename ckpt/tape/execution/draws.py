"""Random nodes of a schedule draw what an eager run would, and the same when recomputed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpt.schedule import Compute, Schedule
from ckpt.tape.core.generators import random_state, replayed
from ckpt.tape.execution.arguments import generators_given
from ckpt.tape.traced.trace import Traced


class Draws:
    """The generators of one run, and the state of each before a node drew from it."""

    def __init__(self, traced: Traced, schedule: Schedule) -> None:
        self.traced = traced
        self.nodes = {
            i: e.node for i, e in enumerate(traced.entries) if e.node.op and e.node.op.random
        }
        first = dict.fromkeys(
            s.node for s in schedule if isinstance(s, Compute) and s.node in self.nodes
        )
        self.in_order = list(first) == list(self.nodes)
        self.states: dict[int, Any] = {}
        self.generators: dict[Any, Any] = {}

    def begin(self, args: tuple[Any, ...]) -> None:
        """Take the generators among a call's arguments; draw beforehand if the order demands it.

        Where the schedule doesn't draw in the program's order, each node's state is settled here,
        so that every schedule draws what an eager run does.
        """
        if not self.nodes:
            return
        self.generators = generators_given(self.traced, args)
        self.states.clear()
        if not self.in_order:
            for i in self.nodes:
                self._draw(i)

    def forward(self, i: int) -> Callable[..., Any]:
        """The forward of random node i."""
        return lambda *arrays: self._draw(i, *arrays)

    def _draw(self, i: int, *arrays: Any) -> Any:
        node = self.nodes[i]
        assert node.op is not None and node.params is not None
        params = dict(node.params)
        params["rng"] = self.generators.get(params["rng"], params["rng"])
        if i in self.states:
            params["rng"] = replayed(params, self.states[i])
        else:
            self.states[i] = random_state(params)
        return node.op.forward(*arrays, **params)
