"""Checkmate's integer program, on our instructions and our memory model.

Source: Jain et al. 2020 (arXiv:1910.02653), §4. Where this differs:

- Backwards have one order and run once, so only Computes are decided, and the stages are the
  Backwards (`ckpt.planners.exact.stagewise`) instead of every node of the joint graph.
- Cotangents, and what a Backward needs beyond activations, are the same in every schedule: they
  are constants beside each stage (`ckpt.planners.base.memory`).
- Memory is counted by buffer, not by value: a buffer lives until the last use of its owner or of
  any view. An owner stays live with its views (it costs nothing), and isn't computed meanwhile.
- ``FREE`` is bounded by each of its conditions apart, instead of by their sum over kappa: the
  linear relaxation is tighter.
- Only what is kept need be integral: then the least ``R``, and the most ``FREE``, are integral too.

Columns, for stage t and node i: ``R[t,i]`` i is computed in t; ``S[t,i]`` i is live when t begins;
``FREE[t,o,k]`` the buffer of o goes after k is computed in t; ``U[t,k]`` bytes live as k has been
computed.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, floor, gcd, inf
from typing import Any

from ckpt.graph import Graph
from ckpt.planners.exact.solver import Program, Solution
from ckpt.planners.exact.stagewise import Stagewise
from ckpt.schedule import Schedule
from ckpt.simulate import simulate
from ckpt.timeline import Timeline

KEEP = 0.5
"""An integral column is 0 or 1 to within a tolerance; above this it is 1."""


class Checkmate:
    """The program for one graph and its stages; the budget is set when it is solved."""

    def __init__(self, space: Stagewise) -> None:
        self.space = space
        self.graph: Graph = space.graph
        self.program = Program()
        self.r: dict[tuple[int, int], int] = {}
        self.s: dict[tuple[int, int], int] = {}
        nodes = self.graph.nodes
        needed = [i for i in sorted(self.graph.needed) if not nodes[i].resident]
        self.byte_unit, _ = unit(nodes[i].nbytes for i in needed)
        self.flop_unit, self.whole = unit(nodes[i].flops for i in needed)
        self.step = 0.5 if self.whole else 1e-4
        """Less than any two costs differ by, in units; or the least that the solver can tell."""
        self.forward = sum(nodes[i].flops for i in needed)
        self.cap = self.program.column(0, inf)
        self._members: dict[int, list[int]] = {}
        for i in needed:
            self._members.setdefault(self.graph.owners[i], []).append(i)
        self._columns(needed)
        for t in range(len(space.stages)):
            self._dependencies(t)
            self._compute_memory(t)
            self._backward_memory(t)
        costs = [(c, cost) for c, cost in enumerate(self.program.objective) if cost]
        self.cutoff = self.program.row(costs)

    # -- building ----------------------------------------------------------------------------------

    def _bytes(self, owner: int) -> float:
        node = self.graph.nodes[owner]
        return 0.0 if node.resident else node.nbytes / self.byte_unit

    def _columns(self, needed: list[int]) -> None:
        program, nodes = self.program, self.graph.nodes
        for t, stage in enumerate(self.space.stages):
            for i in sorted(stage.keepable):
                self.s[t, i] = program.column(integer=True)
            for i in stage.computable:
                self.r[t, i] = program.column(cost=nodes[i].flops / self.flop_unit)
        for i in needed:
            times = [(self.r[t, i], 1.0) for t in range(len(self.space.stages)) if (t, i) in self.r]
            program.row(times, low=1, high=1 if nodes[i].captured else inf)

    def _present(self, t: int, i: int) -> list[tuple[int, float]]:
        """The columns that make node i available in stage t: computed there, or kept."""
        return [(table[t, i], 1.0) for table in (self.r, self.s) if (t, i) in table]

    def _dependencies(self, t: int) -> None:
        """What is computed, read or kept must be available; what is live isn't computed."""
        program, nodes, stage = self.program, self.graph.nodes, self.space.stages[t]
        for j in stage.computable:
            if (t, j) in self.s:
                program.row(self._present(t, j), high=1)
            for dep in dict.fromkeys(nodes[j].deps):
                if not nodes[dep].resident:
                    program.row([*self._present(t, dep), (self.r[t, j], -1.0)], low=0)
        for i in sorted(stage.residuals):
            program.row(self._present(t, i), low=1)
        for i in sorted(stage.keepable):
            program.row([*self._present(t - 1, i), (self.s[t, i], -1.0)], low=0)
            owner = self.graph.owners[i]
            if owner != i and not nodes[owner].resident:
                program.row([(self.s[t, owner], 1.0), (self.s[t, i], -1.0)], low=0)

    def _compute_memory(self, t: int) -> None:
        """After each Compute of stage t, what is live is within the cap."""
        program, nodes, stage = self.program, self.graph.nodes, self.space.stages[t]
        cotangents = self.space.memory.between[self._done(t)] / self.byte_unit
        held = {self.graph.owners[i] for i in stage.residuals}
        users = self._users(stage.computable)
        live = [(self.s[t, i], self._bytes(i)) for i in sorted(stage.keepable)
                if self.graph.owners[i] == i and nodes[i].nbytes]  # fmt: skip
        for k in stage.computable:
            owner = self.graph.owners[k]
            size = self._bytes(k) if owner == k else 0.0
            if size or nodes[k].workspace:
                now = program.column(0, inf)
                program.row([*live, (self.r[t, k], size), (now, -1.0)], low=0, high=0)
                work = nodes[k].workspace / self.byte_unit
                program.row([(now, 1.0), (self.r[t, k], work), (self.cap, -1.0)], high=-cotangents)
                live = [(now, 1.0)]
            touched = {self.graph.owners[dep] for dep in nodes[k].deps}
            for o in sorted(touched - held):
                if not nodes[o].resident and nodes[o].nbytes:
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
        """During each Backward of stage t: what it and those after it read, and what is kept."""
        order, nodes = self.graph.backward_order, self.graph.nodes
        after = self.space.stages[t + 1].keepable if t + 1 < len(self.space.stages) else ()
        kept = [i for i in sorted(after) if self.graph.owners[i] == i and nodes[i].nbytes]
        reading: set[int] = set()
        for q in reversed(self.space.stages[t].backwards):
            reading |= {self.graph.owners[j] for j in nodes[order[q]].residuals}
            fixed = self.space.memory.during[q] / self.byte_unit
            fixed += sum(self._bytes(o) for o in reading)
            terms = [(self.s[t + 1, i], self._bytes(i)) for i in kept if i not in reading]
            self.program.row([*terms, (self.cap, -1.0)], high=-fixed)

    def _done(self, t: int) -> int:
        """How many Backwards are done when stage t begins."""
        return max((s.backwards.stop for s in self.space.stages[:t]), default=0)

    # -- solving -----------------------------------------------------------------------------------

    def cheapest(
        self,
        budget: float,
        *,
        time_limit: float,
        integer: bool = True,
        below: int | None = None,
    ) -> Solution:
        """Least FLOPs within ``budget`` bytes; ``below``: only if less than this is recomputed."""
        program = self.program
        program.low[self.cap] = program.high[self.cap] = budget / self.byte_unit
        program.row_high[self.cutoff] = inf
        if below is not None:
            program.row_high[self.cutoff] = (below + self.forward) / self.flop_unit - self.step
        return program.solve(time_limit=time_limit, integer=integer)

    def smallest(self, *, time_limit: float) -> Solution:
        """Least peak in bytes (over `byte_unit`) of any schedule of the class."""
        self.program.low[self.cap], self.program.high[self.cap] = 0, inf
        self.program.row_high[self.cutoff] = inf
        objective = [0.0] * len(self.program.low)
        objective[self.cap] = 1.0
        return self.program.solve(time_limit=time_limit, objective=objective)

    def kept(self, x: Any, threshold: float = KEEP) -> list[set[int]]:
        """For each stage, the nodes whose ``S`` is above ``threshold``."""
        kept: list[set[int]] = [set() for _ in self.space.stages]
        for (t, i), column in self.s.items():
            if x[column] > threshold:
                kept[t].add(i)
        return kept

    def recompute_bound(self, value: float) -> int:
        """Recompute FLOPs that a bound on the objective proves; see `proven_flops`."""
        return max(0, proven_flops(value, self.flop_unit, self.whole) - self.forward)


def perform(space: Stagewise, kept: list[set[int]] | list[frozenset[int]]) -> Timeline:
    """The simulated schedule that begins each stage with ``kept``."""
    return simulate(
        space.graph, Schedule(tuple(space.instructions(kept)), graph=space.graph.digest)
    )


def unit(sizes: Iterable[int]) -> tuple[float, bool]:
    """What to divide by, and whether that leaves whole numbers.

    The common divisor, unless it leaves numbers too large for a solver's tolerances.
    """
    found = [size for size in sizes if size]
    common = gcd(*found) or 1
    if max(found, default=0) <= common * 10**4:
        return float(common), True
    return max(found) / 10**3, False


def proven_flops(value: float, flop_unit: float, whole: bool) -> int:
    """FLOPs that a solver's bound proves, its tolerance (1e-7 of it) allowed for.

    Where every cost is a whole number of units, so is the optimum: the bound is rounded up.
    """
    if value == -inf:
        return 0
    if whole:
        return ceil(value * (1 - 1e-7) - 1e-4) * int(flop_unit)
    return floor(value * flop_unit * (1 - 1e-6))
