"""The reference machine: it performs a schedule on bytes and FLOPs alone, and refuses a wrong one.

What it accepts is the grammar of schedules, and the peak it finds is the only judge of a budget.
The memory model, which `execute` keeps to the byte:

- A Compute makes a buffer, or for a view takes a share in its owner's. A buffer goes with its last
  share, so a view that is still live pins an owner that was freed - and a second Compute of that
  owner makes a second buffer. A call makes the buffers of all its results, and has a share in each.
- What backward makes and keeps is known beforehand: the graph's rows, whatever the schedule.
- An instruction that may overwrite a value does, if the value's Free is in the run right behind and
  nobody shares its buffer: which is gone then when the instruction ends. Of several it takes the
  one that saves most.
- The generator's state behind a random draw is held from its first Compute to its last.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import assert_never

from ckpt.errors import ScheduleError
from ckpt.graph import Graph, Overwrites
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule, describe_instruction
from ckpt.timeline import BACKWARD, FORWARD, FREE, KINDS, RECOMPUTE, Buffers, Timeline

ACTIVATIONS, CAPTURED, STATES, COTANGENTS, GRADIENTS = KINDS


def simulate(graph: Graph, schedule: Schedule) -> Timeline:
    """Perform ``schedule`` without arrays and return what was live, when, and what it cost.

    Raises ScheduleError, naming the instruction and what would mend it, for a Compute whose dep is
    freed, that is live already or that was captured; a Backward whose reads are missing, that is
    out of order, or that begins without the outputs; a Free of what isn't live; a missing Backward
    or output.
    """
    machine = _Machine(graph, schedule)
    machine.perform()
    machine.check_end()
    return machine.timeline()


class _Machine:
    """What is live, in which buffer; and parallel columns, a row an instruction or a buffer."""

    def __init__(self, graph: Graph, schedule: Schedule) -> None:
        self.graph = graph
        self.schedule = schedule
        self.end = len(schedule.instructions)
        self.live = bytearray(node.resident for node in graph.nodes)
        self.counts = [0] * len(graph)
        self.here = self.end
        """The instruction that is refused."""
        self.done = 0
        """Steps of the backward."""
        self.outputs = frozenset(o for o in graph.outputs if not graph[o].resident)

        # A row an instruction. ``beside`` is what is held while it runs beyond what is live after
        # it; of a Backward, beyond what is live of the forward.
        self.beside = [0] * self.end
        self.scratch = [0] * self.end
        self.flops = [0] * self.end
        self.phase = [FREE] * self.end
        self.takeovers: dict[int, int] = {}

        # A row a buffer.
        self.shares: list[int] = []
        self.whose: list[int | None] = []
        self.kinds: list[str] = []
        self.nbytes: list[int] = []
        self.born: list[int] = []
        self.died: list[int] = []

        self.buffer_of = [-1] * len(graph)
        """The buffer in which a live value lies, or, of a result, in which its call put it; -1: a
        resident's."""
        self.unusual = [
            bool(n.call or n.overwrites or n.workspace_again or n.state_nbytes or n.scratch)
            for n in graph.nodes
        ]
        self.last_draw = self._last_draws()

    def perform(self) -> None:
        """Every instruction; in one loop, since calls would double its time."""
        graph, instructions = self.graph, self.schedule.instructions
        nodes, count = graph.nodes, len(graph)
        live, counts, buffer_of, shares = self.live, self.counts, self.buffer_of, self.shares
        beside, flops, phase = self.beside, self.flops, self.phase
        is_result = [len(n.deps) == 1 and nodes[n.deps[0]].call for n in nodes]

        for position, instruction in enumerate(instructions):
            match instruction:
                case Free(i):
                    if not 0 <= i < count or not live[i] or nodes[i].resident:
                        raise self.refusal(position)
                    if self.done and i in self.outputs:
                        raise self.refusal(position)
                    live[i] = 0
                    buffer = buffer_of[i]
                    if buffer >= 0:
                        shares[buffer] -= 1
                        if not shares[buffer]:
                            self.died[buffer] = position
                    if nodes[i].call:
                        for result in graph.results[i]:
                            self.let_go(buffer_of[result], position)
                case Compute(i):
                    if not 0 <= i < count or live[i]:
                        raise self.refusal(position)
                    node = nodes[i]
                    if node.captured and counts[i]:
                        raise self.refusal(position)
                    for dep in node.deps:
                        if not live[dep]:
                            raise self.refusal(position)
                    live[i] = 1
                    if is_result[i]:
                        shares[buffer_of[i]] += 1
                    elif node.alias_of is None:
                        buffer_of[i] = self.make(
                            i, CAPTURED if node.captured else ACTIVATIONS, node.nbytes, position
                        )
                    else:
                        buffer_of[i] = buffer = buffer_of[node.alias_of]
                        if buffer >= 0:
                            shares[buffer] += 1
                    beside[position] = node.workspace
                    flops[position] = node.flops
                    if self.unusual[i]:
                        self.unusually(i, position)
                    phase[position] = RECOMPUTE if counts[i] else FORWARD
                    counts[i] += 1
                case Backward(k):
                    if k != self.done or k >= len(graph.steps):
                        raise self.refusal(position)
                    step = graph.steps[k]
                    for read in step.reads:
                        if not live[read]:
                            raise self.refusal(position)
                    if not k and not all(live[output] for output in self.outputs):
                        raise self.refusal(position)
                    beside[position] = step.during
                    if step.overwrites:
                        beside[position] += self.take_over(step.overwrites, position)
                    self.scratch[position] = step.scratch
                    flops[position] = step.flops
                    phase[position] = BACKWARD
                    self.done += 1
                case _:
                    assert_never(instruction)

    # -- buffers -----------------------------------------------------------------------------------

    def make(self, whose: int | None, kind: str, nbytes: int, born: int, died: int = -1) -> int:
        """A buffer with one share; it dies at instruction ``died``, or when it is let go of."""
        self.shares.append(1)
        self.whose.append(whose)
        self.kinds.append(kind)
        self.nbytes.append(nbytes)
        self.born.append(born)
        self.died.append(self.end if died < 0 else died)
        return len(self.shares) - 1

    def let_go(self, buffer: int, position: int) -> None:
        """Take a share back; the last one takes the buffer with it."""
        self.shares[buffer] -= 1
        if not self.shares[buffer]:
            self.died[buffer] = position

    def unusually(self, i: int, position: int) -> None:
        """What few Computes do."""
        node, again = self.graph[i], self.counts[i] > 0
        self.scratch[position] = node.scratch
        for result in self.graph.results.get(i, ()):
            kind = CAPTURED if self.graph[result].captured else ACTIVATIONS
            nbytes = self.graph[result].nbytes
            if self.live[result]:  # from before: then the call lets go of the second one at once
                self.beside[position] += nbytes
                self.shares[self.buffer_of[result]] += 1
            else:
                self.buffer_of[result] = self.make(result, kind, nbytes, position)
        if node.overwrites:
            self.beside[position] += self.take_over(node.overwrites, position)
        if again:
            self.beside[position] += node.workspace_again
        last = self.last_draw.get(i, position)
        if last == position and again:
            self.beside[position] += node.state_nbytes
        elif last > position and not again:
            self.make(i, STATES, node.state_nbytes, position, last)

    def take_over(self, overwrites: Overwrites, position: int) -> int:
        """Let the instruction write over that one of these which dies with it and saves most: what
        it holds more then, beside what is live after it (a value that dies is not)."""
        freed = set()
        instructions, after = self.schedule.instructions, position + 1
        while after < self.end and isinstance(instruction := instructions[after], Free):
            freed.add(instruction.node)
            after += 1
        dying = [
            (saved, -value) for value, saved in overwrites
            if value in freed and self.buffer_of[value] >= 0
            and self.shares[self.buffer_of[value]] == 1
        ]  # fmt: skip
        if not dying:
            return 0
        saved, negated = max(dying)
        value = -negated
        self.died[self.buffer_of[value]] = position
        self.buffer_of[value] = -1
        self.takeovers[position] = value
        return self.graph[value].nbytes - saved

    def _last_draws(self) -> dict[int, int]:
        """For each random draw with a state to remember, the last instruction that computes it."""
        draws = {i for i, node in enumerate(self.graph) if node.state_nbytes}
        if not draws:
            return {}
        return {
            instruction.node: position
            for position, instruction in enumerate(self.schedule.instructions)
            if isinstance(instruction, Compute) and instruction.node in draws
        }

    # -- the end -----------------------------------------------------------------------------------

    def check_end(self) -> None:
        """Raise ScheduleError if a Backward or an output is missing."""
        graph = self.graph
        if self.done < len(graph.steps):
            raise ScheduleError(
                f"the schedule ends without backward {self.done} "
                f"({graph.describe_step(self.done)}): add it"
            )
        for output in graph.outputs:
            if not self.live[output]:
                raise ScheduleError(
                    f"the schedule ends without output {output} ({graph.describe(output)}) live: "
                    "compute it, or don't free it"
                )

    def timeline(self) -> Timeline:
        """All columns, from the buffers."""
        graph = self.graph
        at = [p for p, phase in enumerate(self.phase) if phase == BACKWARD]
        buffers = self.buffers(at)
        change = {kind: [0] * (self.end + 1) for kind in KINDS}
        for kind, nbytes, born, died in zip(*buffers.columns[1:], strict=True):
            column = change[kind]
            column[born] += nbytes
            column[died] -= nbytes
        columns = {kind: list(accumulate(row[:-1])) for kind, row in change.items()}
        counted = [columns[kind] for kind in KINDS]
        if not graph.counts_gradients:
            counted.pop()
        live = list(map(sum, zip(*counted, strict=True)))
        high = [a + b for a, b in zip(live, self.beside, strict=True)]
        for k, p in enumerate(at):  # what a step holds beside the forward's is known as a whole
            high[p] -= graph.between[k + 1]
        columns |= {
            "live": live,
            "workspace": [h - v for h, v in zip(high, live, strict=True)],
            "high": high,
            "scratch": self.scratch,
            "flops": self.flops,
            "phase": self.phase,
        }
        return Timeline(
            schedule=self.schedule,
            columns=columns,
            counts=self.counts,
            buffers=buffers,
            takeovers=self.takeovers,
            resident=graph.resident_nbytes,
            gradients_beside=graph.gradient_nbytes,
        )

    def buffers(self, at: Sequence[int]) -> Buffers:
        """Those of the forward and of the backward, whose steps ran ``at`` these instructions."""
        kinds = {"seed": COTANGENTS, "cotangent": COTANGENTS, "gradient": GRADIENTS}
        ends = [*at, *[self.end] * (len(self.graph.steps) + 1 - len(at))]
        for row in self.graph.rows:
            self.make(row.whose, kinds[row.kind], row.nbytes, ends[row.first], ends[row.last])
        return Buffers(self.whose, self.kinds, self.nbytes, self.born, self.died)

    # -- refusals ----------------------------------------------------------------------------------

    def refusal(self, position: int) -> ScheduleError:
        """Why the instruction at ``position`` can't be performed."""
        graph, instruction = self.graph, self.schedule.instructions[position]
        self.here = position
        match instruction:
            case Compute(number) | Free(number):
                if not 0 <= number < len(graph):
                    why = f"the graph has no node {number}"
                    return ScheduleError(f"instruction {position}: {why}", position)
                freeing = isinstance(instruction, Free)
                why = self.why_not_free(number) if freeing else self.why_not_compute(number)
            case Backward(number):
                if not 0 <= number < len(graph.steps):
                    why = f"the backward has no step {number}, but {len(graph.steps)} steps"
                    return ScheduleError(f"instruction {position}: {why}", position)
                why = self.why_not_backward(number)
            case _:
                assert_never(instruction)
        where = f"instruction {position}, {describe_instruction(instruction, graph)}"
        return ScheduleError(f"{where}: {why}", position)

    def why_not_free(self, i: int) -> str:
        if self.graph[i].resident:
            return "an input or parameter is resident and can't be freed: drop this instruction"
        if self.live[i]:
            return "it is an output, live from the first Backward to the end: don't free it"
        freed = self.last(Free(i))
        was = "it was never computed" if freed is None else f"instruction {freed} freed it"
        return f"it isn't live: {was}; drop this instruction"

    def why_not_compute(self, i: int) -> str:
        node = self.graph[i]
        if node.resident:
            return "an input or parameter is resident: drop this instruction"
        if self.live[i]:
            since = self.last(Compute(i))
            return f"it is live since instruction {since}: drop this, or free it first"
        if node.captured and self.counts[i]:
            return "a captured value can't be rematerialized: keep it until its last reader"
        return f"a dep isn't live: {self.absent(next(d for d in node.deps if not self.live[d]))}"

    def why_not_backward(self, k: int) -> str:
        if k < self.done:
            return f"instruction {self.last(Backward(k))} did it already: drop this"
        if k > self.done:
            return (
                "the backward has one order, so that sums of cotangents keep their bits: "
                f"backward {self.done} comes next"
            )
        missing = [r for r in self.graph.steps[k].reads if not self.live[r]]
        if missing:
            return f"what it reads isn't live: {self.absent(missing[0])}"
        output = next(o for o in sorted(self.outputs) if not self.live[o])
        return f"the first Backward comes after the outputs: {self.absent(output)}"

    def absent(self, i: int) -> str:
        freed = self.last(Free(i))
        name = f"{i} ({self.graph.describe(i)})"
        if freed is None:
            return f"{name} was never computed: put 'compute {i}' before it"
        again = "" if self.graph[i].captured else f", or put 'compute {i}' before this"
        return f"{name} was freed by instruction {freed}: free it later{again}"

    def last(self, instruction: Instruction) -> int | None:
        """Where the machine met this instruction last."""
        past = self.schedule.instructions[: self.here]
        return next((p for p in range(len(past) - 1, -1, -1) if past[p] == instruction), None)
