"""Checkmate's integer program, on our instructions and our memory model.

Source: Jain et al. 2020 (arXiv:1910.02653), §4. Where this differs:

- Backwards have one order and run once, so only Computes are decided, and the epochs are the
  Backwards (`ckpt.planners.exact.epochs`) instead of every node of the joint graph.
- Cotangents, and what a Backward needs beyond activations, are the same in every schedule: they
  are constants beside each epoch.
- Memory is counted by buffer, not by value: a buffer lives until the last use of its owner or of
  any view. An owner stays live with its views (it costs nothing), and isn't computed meanwhile.
- ``FREE`` is bounded by each of its conditions apart, instead of by their sum over kappa: the
  linear relaxation is tighter.
- Only what is kept need be integral: then the least ``R``, and the most ``FREE``, are integral too.

Columns, for epoch t and node i: ``R[t,i]`` i is computed in t; ``S[t,i]`` i is live when t begins;
``FREE[t,o,k]`` the buffer of o goes after k is computed in t; ``U[t,k]`` bytes live as k has been
computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.solver import LinearProgram, Solution, proven_cost, unit
from ckpt.planners.exact.epochs import Epochs
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline

KEEP = 0.5
"""An integral column is 0 or 1 to within a tolerance; above this it is 1."""


class Checkmate:
    """The program for one graph and its epochs; the budget is set when it is solved."""

    def __init__(self, space: Epochs, cost: Cost) -> None:
        self.space = space
        self.graph: Graph = space.graph
        self.cost = cost
        self.program = LinearProgram()
        self.r: dict[tuple[int, int], int] = {}
        self.s: dict[tuple[int, int], int] = {}
        needed = self.graph.computed
        self.byte_unit, _ = unit(self.graph[i].nbytes for i in needed)
        self.cost_unit, self.whole = unit(cost.nodes[i] for i in needed)
        self.forward = cost.forward(self.graph)
        self.cap = self.program.column(0, inf)
        self._columns()
        for t in range(len(space.epochs)):
            self._dependencies(t)
            self._compute_memory(t)
            self._backward_memory(t)

    # -- building ----------------------------------------------------------------------------------

    def _bytes(self, owner: int) -> float:
        """Of what is held; a call is not, but its results."""
        node = self.graph.nodes[owner]
        return 0.0 if node.resident or node.call else node.nbytes / self.byte_unit

    def _columns(self) -> None:
        program, nodes = self.program, self.graph.nodes
        for t, epoch in enumerate(self.space.epochs):
            for i in sorted(epoch.keepable):
                self.s[t, i] = program.column(integer=True)
            for i in epoch.computable:
                self.r[t, i] = program.column(cost=self.cost.nodes[i] / self.cost_unit)
        for i in self.graph.computed:
            times = [(self.r[t, i], 1.0) for t in range(len(self.space.epochs)) if (t, i) in self.r]
            program.row(times, low=1, high=1 if nodes[i].captured else inf)

    def _present(self, t: int, i: int) -> list[tuple[int, float]]:
        """The columns that make node i available in epoch t: computed there, or kept."""
        return [(table[t, i], 1.0) for table in (self.r, self.s) if (t, i) in table]

    def _dependencies(self, t: int) -> None:
        """What is computed, read or kept must be available; what is live isn't computed."""
        program, nodes, epoch = self.program, self.graph.nodes, self.space.epochs[t]
        for j in epoch.computable:
            if (t, j) in self.s:
                program.row(self._present(t, j), high=1)
            for dep in dict.fromkeys(nodes[j].deps):
                if not nodes[dep].resident:
                    program.row([*self._present(t, dep), (self.r[t, j], -1.0)], low=0)
        for i in sorted(epoch.residuals):
            program.row(self._present(t, i), low=1)
        for i in sorted(epoch.keepable):
            program.row([*self._present(t - 1, i), (self.s[t, i], -1.0)], low=0)
            owner = self.graph.owners[i]
            if owner != i and not nodes[owner].resident:
                program.row([(self.s[t, owner], 1.0), (self.s[t, i], -1.0)], low=0)

    def _compute_memory(self, t: int) -> None:
        """After each Compute of epoch t, what is live is within the cap."""
        program, nodes, epoch = self.program, self.graph.nodes, self.space.epochs[t]
        cotangents = self.graph.between[self._done(t)] / self.byte_unit
        held = {self.graph.owners[i] for i in epoch.residuals}
        users = self._users(epoch.computable)
        live = [(self.s[t, i], self._bytes(i)) for i in sorted(epoch.keepable)
                if self.graph.owners[i] == i and self._bytes(i)]  # fmt: skip
        for k in epoch.computable:
            owner = self.graph.owners[k]
            size = self._bytes(k) if owner == k else 0.0
            work = (self.graph.making[k] if nodes[k].call else nodes[k].workspace) / self.byte_unit
            if size or work:
                now = program.column(0, inf)
                program.row([*live, (self.r[t, k], size), (now, -1.0)], low=0, high=0)
                program.row([(now, 1.0), (self.r[t, k], work), (self.cap, -1.0)], high=-cotangents)
                live = [(now, 1.0)]
            touched = {self.graph.owners[dep] for dep in nodes[k].deps}
            for o in sorted(touched - held):
                if self._bytes(o):
                    live.append((self._free(t, o, k, users[o]), -self._bytes(o)))

    def _users(self, computable: Iterable[int]) -> dict[int, list[int]]:
        """For each buffer's owner, the nodes among ``computable`` that read it or a view of it."""
        users: dict[int, list[int]] = {}
        for k in computable:
            for owner in {self.graph.owners[dep] for dep in self.graph.nodes[k].deps}:
                users.setdefault(owner, []).append(k)
        return users

    def _free(self, t: int, owner: int, k: int, users: list[int]) -> int:
        """The column FREE[t,owner,k]: k is computed, then nothing reads or keeps the buffer."""
        program = self.program
        free = program.column()
        program.row([(free, 1.0), (self.r[t, k], -1.0)], high=0)
        if (t + 1, owner) in self.s:
            program.row([(free, 1.0), (self.s[t + 1, owner], 1.0)], high=1)
        for later in users:
            if later > k:
                program.row([(free, 1.0), (self.r[t, later], 1.0)], high=1)
        return free

    def _backward_memory(self, t: int) -> None:
        """During each Backward of epoch t: what it and those after it read, and what is kept."""
        steps = self.graph.steps
        after = self.space.epochs[t + 1].keepable if t + 1 < len(self.space.epochs) else ()
        kept = [i for i in sorted(after) if self.graph.owners[i] == i and self._bytes(i)]
        reading: set[int] = set()
        for q in reversed(self.space.epochs[t].backwards):
            reading |= {self.graph.owners[j] for j in steps[q].reads}
            fixed = steps[q].during / self.byte_unit
            fixed += sum(self._bytes(o) for o in reading)
            terms = [(self.s[t + 1, i], self._bytes(i)) for i in kept if i not in reading]
            self.program.row([*terms, (self.cap, -1.0)], high=-fixed)

    def _done(self, t: int) -> int:
        """How many Backwards are done when epoch t begins."""
        return max((s.backwards.stop for s in self.space.epochs[:t]), default=0)

    # -- solving -----------------------------------------------------------------------------------

    def cheapest(
        self,
        budget: float,
        *,
        time_limit: float,
        integer: bool = True,
    ) -> Solution:
        """Least cost within ``budget`` bytes."""
        program = self.program
        program.low[self.cap] = program.high[self.cap] = budget / self.byte_unit
        return program.solve(time_limit=time_limit, integer=integer)

    def smallest(self, *, time_limit: float) -> Solution:
        """Least peak in bytes (over `byte_unit`) of any schedule of the class."""
        self.program.low[self.cap], self.program.high[self.cap] = 0, inf
        objective = [0.0] * len(self.program.low)
        objective[self.cap] = 1.0
        return self.program.solve(time_limit=time_limit, objective=objective)

    def kept(self, x: Any, threshold: float = KEEP) -> list[set[int]]:
        """For each epoch, the nodes whose ``S`` is above ``threshold``."""
        kept: list[set[int]] = [set() for _ in self.space.epochs]
        for (t, i), column in self.s.items():
            if x[column] > threshold:
                kept[t].add(i)
        return kept

    def cheaper(self, best: Timeline | None, other: Timeline | None) -> Timeline | None:
        """Whichever of two recomputes for less, the first if neither does."""
        if best is None or other is None:
            return other if best is None else best
        recompute = self.cost.recompute
        return other if recompute(other.counts) < recompute(best.counts) else best

    def recompute_bound(self, value: float) -> int:
        """The cost of recomputing that a bound on the objective proves; see `proven_cost`."""
        return max(0, proven_cost(value, self.cost_unit, self.whole) - self.forward)


def perform(space: Epochs, kept: list[set[int]] | list[frozenset[int]]) -> Timeline:
    """The simulated schedule that begins each epoch with ``kept``."""
    return simulate(space.graph, Schedule(space.instructions(kept), graph=space.graph.digest))
