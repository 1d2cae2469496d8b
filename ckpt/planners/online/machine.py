"""The machine of dynamic tensor rematerialization: the program in its order, under a budget."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.online.heuristics import Heuristic
from ckpt.schedule import Backward, Compute, Free, Instruction

COMPUTED, EVICTED, SCANNED = 25, 25, 200
"""The work of a Compute; of an eviction; buffers of which the scan is a unit."""


class BufferGraph:
    """The graph by buffers, and the machine that runs it under a budget.

    A buffer is an owner and its views. It is evicted whole, and a view's owner is computed before
    it, so the owner of a live buffer is live.
    """

    def __init__(
        self, graph: Graph, cost: Cost, heuristic: type[Heuristic], max_computes: int,
        max_cost: int | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.prices = cost
        self.heuristic = heuristic
        self.max_computes = max_computes
        self.max_cost = float("inf") if max_cost is None else max_cost
        self.evictions = 0
        self.forward = graph.computed
        owners = {i: graph.owners[i] for i in self.forward}
        index = {owner: b for b, owner in enumerate(dict.fromkeys(owners.values()))}
        self.buffer_of = {i: index[owner] for i, owner in owners.items()}
        self.members: list[list[int]] = [[] for _ in index]
        for i in self.forward:
            self.members[self.buffer_of[i]].append(i)
        # A view of an input or parameter is free of bytes: there is nothing to gain from it.
        # Nor are the bytes of a call its own: they are its results', once those are computed.
        aside = [graph.nodes[o].resident or graph.nodes[o].call for o in index]
        self.size = [
            0 if apart else graph.nodes[o].nbytes for o, apart in zip(index, aside, strict=True)
        ]
        self.captured = [graph.nodes[o].captured for o in index]
        self.fleeting = [graph.nodes[o].call for o in index]
        self.deps = {
            i: [d for d in dict.fromkeys(graph.nodes[i].deps) if d in owners] for i in owners
        }
        self.call_of: dict[int, int | None] = {
            i: row[0] if row and graph.nodes[row[0]].call else None for i, row in self.deps.items()
        }
        """The call that a value is a result of."""
        parents = [
            {self.buffer_of[d] for i in members for d in self.deps[i]} - {b}
            for b, members in enumerate(self.members)
        ]
        self.parents = [sorted(row) for row in parents]
        self.cost = [sum(cost.nodes[i] for i in members) for members in self.members]

        # The program's own reads: by later Computes, by Backwards, and by the caller (outputs).
        self.reads = [0] * len(index)
        for i in self.forward:
            for dep in self.deps[i]:
                self.reads[self.buffer_of[dep]] += 1
        self.residuals = [
            [r for r in dict.fromkeys(step.reads) if r in owners] for step in graph.steps
        ]
        self.outputs = [o for o in graph.outputs if o in owners]
        for row in [*self.residuals, self.outputs]:
            for r in row:
                self.reads[self.buffer_of[r]] += 1

        # retired[k]: buffers that nothing can need once k Backwards are done.
        last = [-1] * len(index)
        for k, row in enumerate(self.residuals):
            for r in row:
                last[self.buffer_of[r]] = k
        for o in self.outputs:
            last[self.buffer_of[o]] = len(self.residuals)
        for i in reversed(self.forward):
            for dep in self.deps[i]:
                b = self.buffer_of[dep]
                last[b] = max(last[b], last[self.buffer_of[i]])
        self.retired: list[list[int]] = [[] for _ in range(len(self.residuals) + 2)]
        for b, k in enumerate(last):
            self.retired[k + 1].append(b)

    def __call__(self, budget: int) -> list[Instruction] | None:
        """What was done within ``budget`` bytes, or None if it ran out of room or of patience."""
        machine = _Memory(self, budget)
        try:
            for values in self._in_order():
                machine.bring([i for i in values if not self.graph[i].call])
                for i in values:
                    machine.release(self.deps[i])
            machine.bring(self.outputs)
            machine.pin(self.outputs)
            for k, residuals in enumerate(self.residuals):
                machine.bring(residuals, backward=k)
                machine.release(residuals)
        except _GaveUpError:
            return None
        self.evictions = machine.evictions
        return machine.instructions

    def _in_order(self) -> Iterator[list[int]]:
        """The program's values in turn, a call and its results together."""
        for i in self.forward:
            if self.graph[i].call:
                yield [i, *(r for r in self.graph.results[i] if r in self.buffer_of)]
            elif self.call_of[i] is None:
                yield [i]

    def together(self, values: list[int]) -> list[int]:
        """``values`` with the results of one call next to each other."""
        rows: list[list[int]] = []
        of_call: dict[int, list[int]] = {}
        for i in values:
            call = self.call_of[i]
            if call is None or call not in of_call:
                rows.append([])
            row = rows[-1] if call is None else of_call.setdefault(call, rows[-1])
            row.append(i)
        return [i for row in rows for i in row]


class _GaveUpError(Exception):
    """All that is live is in use, and the next instruction doesn't fit; or patience is up."""


class _Memory:
    """One run: what is live, who uses it, and when it was last read or written."""

    def __init__(self, run: BufferGraph, budget: int) -> None:
        self.run = run
        self.nodes = run.graph.nodes
        self.budget = budget
        self.instructions: list[Instruction] = []
        self.evictions = self.computes = self.backwards = self.held = self.clock = 0
        self.spent = 0
        self.live = bytearray(len(self.nodes))
        self.is_held = bytearray(len(run.size))  # by buffer
        self.users = [0] * len(run.size)  # ops on the stack that read the buffer
        self.reads = list(run.reads)
        self.is_retired = bytearray(len(run.size))
        self.score = run.heuristic(run.cost, run.parents)
        buffers = len(run.size)
        # By buffer: what it would cost (score without age), the same but infinite unless it may be
        # evicted, and the clock when it was last read or written.
        self.weight = np.ones(buffers)
        self.offered = np.full(buffers, np.inf)
        self.sizes = np.maximum(np.array(run.size, np.float64), 1.0)
        self.last = np.zeros(buffers)

    def bring(self, wanted: list[int], backward: int | None = None) -> None:
        """Make all of ``wanted`` live at once, with whatever they need; then do the Backward."""
        run = self.run
        wanted = run.together(wanted)
        calls = [c for c in {run.call_of[i] for i in wanted if not self.live[i]} if c is not None]
        stack: list[tuple[int | None, list[int]]] = [(None, wanted)]
        self._use([*wanted, *calls])
        while stack:
            node, deps = stack[-1]
            missing = next((d for d in deps if not self.live[d]), None)
            if missing is not None:
                stack.append((missing, run.deps[missing]))
                self._use(run.deps[missing])
                continue
            stack.pop()
            if node is not None:
                self._compute(node)
            elif backward is not None:
                self._backward(backward)
            self._unuse(deps)
        self._unuse(calls)

    def pin(self, nodes: list[int]) -> None:
        """Hold these to the end."""
        self._use(nodes)

    def release(self, read: list[int]) -> None:
        """The program has read these for the last time here."""
        for i in read:
            buffer = self.run.buffer_of[i]
            self.reads[buffer] -= 1
            self._settle(buffer)

    def _use(self, nodes: list[int]) -> None:
        for i in nodes:
            buffer = self.run.buffer_of[i]
            self.users[buffer] += 1
            self.offered[buffer] = np.inf

    def _unuse(self, nodes: list[int]) -> None:
        for i in nodes:
            buffer = self.run.buffer_of[i]
            self.users[buffer] -= 1
            self._settle(buffer)

    def _settle(self, buffer: int) -> None:
        """Once nobody uses it: offer it for eviction, or drop it if the program is done with it."""
        if self.users[buffer] or not self.is_held[buffer]:
            return
        idle = not (self.reads[buffer] or self.run.captured[buffer])
        if self.is_retired[buffer] or idle or self.run.fleeting[buffer]:
            self._drop(buffer)
        elif self.run.size[buffer] and not self.run.captured[buffer]:
            self.offered[buffer] = self.weight[buffer]

    def _drop(self, buffer: int) -> None:
        self.offered[buffer] = np.inf
        self.is_held[buffer] = 0
        owner = self.run.members[buffer][0]
        call = self.run.call_of[owner]
        if call is None or not self.live[call]:  # or else the call still has a share in it
            self.held -= self.run.size[buffer]
        if self.run.fleeting[buffer]:
            self.held -= self._unclaimed(owner)
        for i in self.run.members[buffer]:
            if self.live[i]:
                self.live[i] = 0
                self.instructions.append(Free(i))
        if not self.is_retired[buffer]:
            self.score.evict(buffer)

    def _unclaimed(self, call: int) -> int:
        """Bytes of a call's results that aren't live, which it holds as long as it is."""
        results = self.run.graph.results[call]
        return sum(self.nodes[i].nbytes for i in results if not self.live[i])

    def _compute(self, node: int) -> None:
        self.computes += 1
        if self.computes % 256 == 0:
            clock.spend(256 * COMPUTED)
            clock.check()
        self.spent += self.run.prices.nodes[node]
        if self.computes > self.run.max_computes or self.spent > self.run.max_cost:
            raise _GaveUpError
        buffer = self.run.buffer_of[node]
        graph = self.run.graph
        claimed = self.is_held[buffer] or self.run.call_of[node] is not None
        size = 0 if claimed else self.run.size[buffer]
        need = graph.making[node] if self.run.fleeting[buffer] else self.nodes[node].workspace
        self._make_room(size + need + graph.between[self.backwards])
        self.instructions.append(Compute(node))
        self.live[node] = 1
        self._touch([node, *self.run.deps[node]], self.run.prices.nodes[node])
        if not self.is_held[buffer]:
            self.is_held[buffer] = 1
            self.held += size
            self.score.restore(buffer)
        if self.run.fleeting[buffer]:
            self.held += self._unclaimed(node)

    def _backward(self, step: int) -> None:
        self._make_room(self.run.graph.steps[step].during)
        self.instructions.append(Backward(step))
        self._touch(self.run.residuals[step], self.run.prices.steps[step])
        self.backwards += 1
        for buffer in self.run.retired[self.backwards]:
            self.is_retired[buffer] = 1
            self.score.restore(buffer)
            self._settle(buffer)

    def _touch(self, nodes: list[int], cost: int) -> None:
        """An op of that cost has read or written these; then the clock moves on."""
        for i in nodes:
            self.last[self.run.buffer_of[i]] = self.clock
        self.clock += cost + 1

    def _make_room(self, need: int) -> None:
        """Evict until ``need`` bytes fit beside what is held."""
        while self.held + need > self.budget:
            self._reweigh()
            ages = self.clock - self.last
            candidates = self.offered / ages if self.score.by_age else self.offered
            buffer = int(candidates.argmin())
            if self.offered[buffer] == np.inf:
                raise _GaveUpError
            self.evictions += 1
            clock.spend(EVICTED + len(self.last) // SCANNED)
            self._drop(buffer)

    def _reweigh(self) -> None:
        numerators = self.score.numerators()
        if numerators is not None:
            self.weight = numerators / self.sizes
            self.offered = np.where(self.offered == np.inf, np.inf, self.weight)
            return
        for buffer in self.score.changed:
            if not self.is_held[buffer]:
                continue
            weight = self.score.numerator(buffer)
            if self.score.by_size and self.run.size[buffer]:
                weight /= self.run.size[buffer]
            self.weight[buffer] = weight
            if self.offered[buffer] != np.inf:
                self.offered[buffer] = weight
        self.score.changed.clear()
