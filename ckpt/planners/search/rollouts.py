"""A schedule made by eviction alone, from any moment to the end: what a search can look ahead with.

A *unit* is a buffer: its owner, the views of it, and for a result of a call the call. It is made
and let go of as a whole. A rollout goes through the backward step by step: it computes what the
step reads, in the order of the program, and where room is short lets go of the unit that is
cheapest to do without until it is read again.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.reads import permanent
from ckpt.schedule import Schedule

TINY = 2000
"""Units of at most this fraction of the budget stay once they are computed."""

HALVINGS = {0.0: 0, 0.125: 3, 0.25: 2, 0.5: 1}
"""The exponents there are: so many square roots, which are the same on every machine."""


class Situation(NamedTuple):
    """A moment between two steps of the backward."""

    step: int
    """The next one."""
    live: frozenset[int]
    cost: int
    """Of all Computes so far."""


class Rolled(NamedTuple):
    """What became of a rollout."""

    cost: int
    """Of all Computes to the end."""
    after: Situation
    """When its first step was done."""
    computed: tuple[int, ...]
    """The units computed for that step."""
    choices: tuple[int, ...]
    """How many units each eviction before that step could choose from."""


class Units:
    """A graph by its buffers, for one cost."""

    def __init__(self, graph: Graph, cost: Cost) -> None:
        self.graph = graph
        nodes = graph.nodes
        computed = [i for i in graph.computed if not nodes[i].call]
        owners = dict.fromkeys(self.owner(i) for i in computed)
        self.of = {owner: u for u, owner in enumerate(owners)}
        self.owners = list(owners)
        self.members: list[list[int]] = [[] for _ in owners]
        for i in computed:
            self.members[self.of[self.owner(i)]].append(i)
        self.nbytes = [0 if nodes[graph.owners[o]].resident else nodes[o].nbytes for o in owners]
        self.beside = [nodes[o].workspace for o in owners]
        self.costs = [sum(cost.nodes[i] for i in row) for row in self.members]
        self.deps: list[tuple[int, ...]] = []
        for u, owner in enumerate(owners):
            deps = nodes[owner].deps
            if len(deps) == 1 and nodes[deps[0]].call:
                call = deps[0]
                deps = nodes[call].deps
                self.costs[u] += cost.nodes[call]
                self.beside[u] += graph.making[call] - self.nbytes[u]
            self.deps.append(self.units(deps, u))
        self.readers: list[list[int]] = [[] for _ in owners]
        for u, taken in enumerate(self.deps):
            for dep in taken:
                self.readers[dep].append(u)
        kept = permanent(graph)
        self.fixed = [owner in kept for owner in owners]
        self.reads = [self.units(step.reads) for step in graph.steps] or [()]
        self.reads[0] = tuple(dict.fromkeys([*self.reads[0], *self.units(graph.outputs)]))
        self.last = self._last()
        self.during = [self._during(k) for k in range(len(graph.steps))] or [0]

    def owner(self, i: int) -> int:
        """Of the value's unit: a view of an input is a unit of its own, without bytes."""
        owner = self.graph.owners[i]
        return i if self.graph[owner].resident else owner

    def units(self, values: tuple[int, ...], but: int = -1) -> tuple[int, ...]:
        """Those of the values that are computed."""
        found = (self.of.get(self.owner(i), -1) for i in values)
        return tuple(u for u in dict.fromkeys(found) if u not in (-1, but))

    def _last(self) -> list[int]:
        """For each unit the last step that reads it, or something that takes it."""
        last = [-1] * len(self.owners)
        for k, row in enumerate(self.reads):
            for u in row:
                last[u] = k
        for u in range(len(last) - 1, -1, -1):
            for dep in self.deps[u]:
                last[dep] = max(last[dep], last[u])
        for o in self.units(self.graph.outputs):
            last[o] = len(self.reads)
        return last

    def _during(self, k: int) -> int:
        """What step k holds beside the units, less what it saves by writing over one that dies."""
        step = self.graph.steps[k]
        most = 0
        for value, saved in step.overwrites:
            u = self.of.get(value, -1)
            alone = u >= 0 and not any(i in step.reads for i in self.members[u] if i != value)
            if alone and self.last[u] == k:
                most = max(most, saved)
        return step.during - most

    def schedule(self, rows: list[tuple[int, ...]]) -> Schedule:
        """The units computed before each step, as a schedule of the graph."""
        emitter = Emitter(self.graph)
        emitter.hold(range(len(self.graph)))
        available = emitter.available
        for k, row in enumerate(rows):
            for u in row:
                for i in self.members[u]:
                    available[i] = 0
                emitter.compute([self.owners[u]])
            if not k:
                emitter.compute(self.graph.outputs)
            if self.graph.steps:
                emitter.compute(self.graph.steps[k].reads)
                emitter.backward(k)
        return emitter.schedule("beam")


class Roller:
    """Rollouts within one budget, with one exponent."""

    def __init__(self, units: Units, budget: int, exponent: float) -> None:
        self.units = units
        self.budget = budget
        self.work = 0
        """Units looked at, over all rollouts: their time, the same on every machine."""
        count = len(units.reads)
        self.between, self.during = units.graph.between, units.during
        self.movable = [
            nbytes * TINY > budget and not fixed
            for nbytes, fixed in zip(units.nbytes, units.fixed, strict=True)
        ]
        self.dying: list[list[int]] = [[] for _ in range(count)]
        for u, last in enumerate(units.last):
            if 0 <= last < count:
                self.dying[last].append(u)
        # weight[u][k]: what a unit's price is divided by, if it goes at step k.
        fade = [1.0]
        for distance in range(1, count + 1):
            value = float(distance + 1)
            for _ in range(HALVINGS[exponent]):
                value = sqrt(value)
            fade.append(1 / value if exponent else 1.0)
        self.weight = [
            [fade[after - k] / max(units.nbytes[u], 1) for k, after in enumerate(row)]
            for u, row in enumerate(self._next())
        ]

    def _next(self) -> list[list[int]]:
        """For each unit and step, the first step from there on that reads it, or, of one that none
        reads, something that takes it."""
        units, count = self.units, len(self.units.reads)
        steps: list[list[int]] = [[] for _ in units.owners]
        for k, row in enumerate(units.reads):
            for u in row:
                steps[u].append(k)
        found: list[list[int]] = [[]] * len(steps)
        for u in range(len(steps) - 1, -1, -1):
            if not steps[u]:
                steps[u] = sorted({k for r in units.readers[u] for k in steps[r]})
            ahead: list[int] = []
            after, p = count, len(steps[u]) - 1
            for k in range(count - 1, -1, -1):
                if p >= 0 and steps[u][p] == k:
                    after, p = k, p - 1
                ahead.append(after)
            found[u] = ahead[::-1]
        return found

    def roll(
        self, state: Situation, turn: tuple[int, int] | None = None, limit: float = float("inf")
    ) -> Rolled | None:
        """From ``state`` to the end; None where room runs out, or the cost exceeds ``limit``.

        ``turn`` (e, c): eviction number e before the first step takes the c-th best unit.
        """
        units, budget, weight = self.units, self.budget, self.weight
        nbytes, costs, deps, beside = units.nbytes, units.costs, units.deps, units.beside
        last, readers, movable = units.last, units.readers, self.movable
        first, live, cost = state.step, set(state.live), state.cost
        there = bytearray(len(nbytes))
        for u in live:
            there[u] = 1
        made = bytearray(b"\1" * len(nbytes)) if first else bytearray(len(nbytes))
        held = sum(nbytes[u] for u in live)
        live = {u for u in live if movable[u]}
        price: dict[int, int] = {}
        """What it costs to have a unit again, ancestors that aren't live included."""
        choices: list[int] = []
        done: tuple[int, ...] = ()
        after = state

        def price_of(u: int) -> int:
            seen, stack, total = {u}, [u], 0
            while stack:
                one = stack.pop()
                total += costs[one]
                for dep in deps[one]:
                    if not there[dep] and dep not in seen:
                        seen.add(dep)
                        stack.append(dep)
            self.work += len(seen)
            return total

        def touch(u: int) -> None:
            """What is taken from ``u``, through units that aren't live, has another price now.

            Nothing is any more taken from a unit that is of no use from step k on.
            """
            stack, seen = [u], {u}
            while stack:
                for r in readers[stack.pop()]:
                    if there[r]:
                        price.pop(r, None)
                    elif last[r] >= k and r not in seen and made[r]:
                        seen.add(r)
                        stack.append(r)
            self.work += len(seen) // 2

        for k in range(first, len(units.reads)):
            self.work += 4
            reads = units.reads[k]
            missing = {u for u in reads if not there[u]}
            stack = list(missing)
            while stack:
                for dep in deps[stack.pop()]:
                    if not there[dep] and dep not in missing:
                        missing.add(dep)
                        stack.append(dep)
            order = sorted(missing)
            users: dict[int, int] = dict.fromkeys(reads, 1)
            for u in order:
                for dep in deps[u]:
                    users[dep] = users.get(dep, 0) + 1
            for u in (*order, -1):
                need = nbytes[u] + beside[u] + self.between[k] if u >= 0 else self.during[k]
                over = held + need - budget
                while over > 0:
                    self.work += len(live)
                    rated = []
                    for v in live:
                        if users.get(v):
                            continue
                        if last[v] < k:
                            rated.append((-1.0, v))
                            continue
                        again = price.get(v)
                        if again is None:
                            again = price[v] = price_of(v)
                        rated.append((again * weight[v][k], v))
                    if not rated:
                        return None
                    if k == first and turn is not None and turn[0] == len(choices):
                        if turn[1] >= len(rated):
                            return None
                        gone = sorted(rated)[turn[1]][1]
                    else:
                        gone = min(rated)[1]
                    if k == first:
                        choices.append(len(rated))
                    live.discard(gone)
                    there[gone] = 0
                    held -= nbytes[gone]
                    over -= nbytes[gone]
                    price.pop(gone, None)
                    touch(gone)
                if u < 0:
                    break
                there[u] = made[u] = 1
                if movable[u]:
                    live.add(u)
                held += nbytes[u]
                cost += costs[u]
                if cost > limit:
                    return None
                self.work += 4
                touch(u)
                for dep in deps[u]:
                    users[dep] -= 1
            for u in self.dying[k]:
                if there[u]:
                    there[u] = 0
                    live.discard(u)
                    held -= nbytes[u]
            if k == first:
                done = tuple(order)
                left = frozenset(u for u, is_live in enumerate(there) if is_live)
                after = Situation(k + 1, left, cost)
        return Rolled(cost, after, done, tuple(choices))
