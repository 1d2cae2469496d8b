"""A schedule as lines of Python over aten's ops: those that `execute` performs one by one are those
that a compiled step runs behind each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import torch

from ckpt.errors import ScheduleError
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.torch.capture.kernels import UNREAD, Ref
from ckpt.torch.capture.record import AtenCall
from ckpt.torch.lowering.backward import stand_in
from ckpt.torch.lowering.build import Lowered
from ckpt.torch.lowering.forward import Piece
from ckpt.torch.run.bindings import bound


def copy_of(tensor: torch.Tensor) -> torch.Tensor:
    """A copy with the same strides."""
    made = torch.empty_strided(
        tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device
    )
    return made.copy_(tensor)


def get_state(source: Any) -> torch.Tensor:
    """The state of a generator, or of a device's own."""
    if isinstance(source, torch.Generator):
        return source.get_state()
    return torch.cuda.get_rng_state(source) if "cuda" in source else torch.get_rng_state()


def set_state(source: Any, state: torch.Tensor) -> None:
    if isinstance(source, torch.Generator):
        source.set_state(state)
    elif "cuda" in source:
        torch.cuda.set_rng_state(state, source)
    else:
        torch.set_rng_state(state)


def seen_as(
    tensor: torch.Tensor, dtype: torch.dtype, size: Any, stride: Any, offset: int
) -> torch.Tensor:
    """The bytes of another dtype."""
    made = torch.empty(0, dtype=dtype, device=tensor.device)
    return made.set_(tensor.untyped_storage(), offset, size, stride)


@dataclass(slots=True)
class Lines:
    """What one instruction does."""

    text: list[str] = field(default_factory=list)
    delivers: list[int] = field(default_factory=list)
    """Gradients handed over behind it."""


class StepWriter:
    """Writes a schedule of a lowered step.

    Names: ``v7`` the value of node 7, ``r7`` its generator's state, ``s0`` a loss's cotangent,
    ``g3`` a cotangent's buffer, ``p3`` a gradient's, ``L0`` a leaf as some call reads it.
    """

    def __init__(self, lowered: Lowered, schedule: Schedule) -> None:
        self.lowered = lowered
        self.captured = lowered.captured
        self.graph = lowered.graph
        self.schedule = schedule
        self.env: dict[str, Any] = {
            "AS": torch.as_strided, "COPY": copy_of, "GET": get_state, "SET": set_state,
            "SEEN": seen_as, "CONJ": torch._conj, "NEG": torch._neg_view,
        }  # fmt: skip
        self.leaves: dict[Ref, str] = {}
        self.read_in: dict[str, set[int]] = {}
        """Of each leaf that is read once the forward is done, the parts of the backward that do."""
        self.read_again: set[int] = set()
        """Storages of the forward that are read once it is done."""
        self.forward_done = False
        self._part = 0
        self._functions: dict[int, str] = {}
        self._constants: list[Any] = []
        self._stand_ins: dict[Ref, str] = {}
        self._base = self._bases()
        self._live: set[int] = set()
        self._made: set[int] = set()
        self._twice = _computed_twice(schedule)
        self._last = {i.node: p for p, i in enumerate(schedule) if isinstance(i, Compute)}
        self._in_order()
        takeovers = simulate(self.graph, schedule).takeovers
        self.lines = [
            self._instruction(position, instruction, position in takeovers)
            for position, instruction in enumerate(schedule)
        ]
        self.forward_done = False
        self.outputs = [
            self.literal(o, self.read) if isinstance(o, Ref) else "None"
            for o in self.captured.outputs
        ]  # fmt: skip

    def _bases(self) -> dict[int, Ref]:
        """Of each storage, the geometry of the variable that holds it."""
        found: dict[int, Ref] = {}
        for call in (*self.captured.calls, *self.lowered.backwards.calls):
            for out in call.outs:
                if out is not None and out.version in call.makes:
                    found.setdefault(self.lowered.versions[out.version].storage, out)
        for k, output in enumerate(self.captured.losses):  # a cotangent is laid out as its loss is
            seed = next(n for n, v in enumerate(self.lowered.versions) if v.seed == k)
            loss = self.captured.outputs[output]
            storage = self.lowered.versions[seed].storage
            found[storage] = replace(loss, version=seed, offset=0, conj=False, neg=False)
        return found

    def _in_order(self) -> None:
        """Random draws come in the program's order, or the generator would give others."""
        first = dict.fromkeys(
            i.node for i in self.schedule
            if isinstance(i, Compute) and self._draws(self.lowered.pieces[i.node])
        )  # fmt: skip
        if list(first) != sorted(first):
            raise ScheduleError(
                "this schedule draws random numbers in another order than the program"
            )

    def _draws(self, piece: Piece) -> bool:
        return any(self.captured.calls[c].random for c in piece.calls)

    # -- the step as one function ------------------------------------------------------------------

    def function(self, mark: Callable[[], None] | None = None) -> Callable[..., Iterator[Any]]:
        """A generator function of (leaves, gradients handed over): it yields the outputs, is sent
        the losses' cotangents, and yields whenever it has handed gradients over."""
        names = "".join(f"{name}, " for name in self.leaves.values())
        text = ["def step(L, H):"]
        if names:
            text.append(f"    {names}= L")
        backward = False
        for lines, instruction in zip(self.lines, self.schedule, strict=True):
            if isinstance(instruction, Backward) and not backward:
                backward = True
                text.append(f"    {self.seeds()} = yield {self.results()}")
            text += [f"    {line}" for line in lines.text]
            if mark is not None:
                text.append("    MARK()")
            if lines.delivers:
                text += [f"    {line}" for line in self.handing_over(lines.delivers)]
                text.append("    yield")
        if not backward:
            text.append(f"    yield {self.results()}")
        env = {**self.env, "MARK": mark}
        exec(compile("\n".join(text), "<a planned step>", "exec"), env)
        made: Callable[..., Iterator[Any]] = env["step"]
        return made

    def results(self) -> str:
        return f"({''.join(f'{text}, ' for text in self.outputs)})"

    def seeds(self) -> str:
        return "".join(f"s{k}, " for k in range(len(self.captured.losses)))

    def handing_over(self, gradients: list[int]) -> Iterator[str]:
        refs = [self.lowered.backwards.gradients[n] for n in gradients]
        for ref in refs:
            yield f"H.append({self.read(ref)})"
        for ref in refs:
            yield f"{self.variable(ref.version)} = None"

    # -- instructions ------------------------------------------------------------------------------

    def _instruction(self, position: int, instruction: Any, takes: bool) -> Lines:
        lines = Lines()
        match instruction:
            case Compute(node):
                self._compute(node, position, takes, lines.text)
                self._live.add(node)
                self._made.add(node)
            case Free(node):
                self._live.discard(node)
                self._free(node, lines.text)
            case Backward(step):
                self.forward_done = True
                code = self.lowered.steps[step]
                self._call(code.call, lines.text, {}, again=False)
                lines.text += [f"{self._backward_name(buffer)} = None" for buffer in code.dies]
                lines.delivers = code.delivers
                self._part += bool(code.delivers)
            case _:
                assert_never(instruction)
        return lines

    def _compute(self, node: int, position: int, takes: bool, text: list[str]) -> None:
        piece, again = self.lowered.pieces[node], node in self._made
        if not piece.calls:
            return
        calls = [self.captured.calls[c] for c in piece.calls]
        draws = self._draws(piece) and node in self._twice
        source = next((self._generator(c) for c in calls if c.random), "") if draws else ""
        if draws:
            text.append(f"q = GET({source}); SET({source}, r{node})" if again
                        else f"r{node} = GET({source})")  # fmt: skip
        names: dict[int, str] = {}
        if piece.over is not None:
            old = f"v{piece.over}"
            text.append(f"v{node} = {old}" if takes else f"v{node} = COPY({old})")
            names[self._version_before(calls[0])] = f"v{node}"
        if piece.kind == "call":
            for result in self.graph.results[node]:
                version = self.lowered.pieces[result].version
                names[version] = "_" if result in self._live else f"v{result}"
            for k, version in enumerate(calls[0].makes):
                names.setdefault(version, f"u{node}_{k}" if self._size(version) else "_")
        else:
            for call in calls:
                for version in (*call.makes, *(after for _, after in call.writes)):
                    if self.lowered.versions[version].leaf is None:
                        same = self._storage(version) == self._storage(piece.version)
                        names[version] = f"v{node}" if same else "_"
        for call in calls:
            self._call(call, text, names, again)
        if draws and again:
            text.append(f"SET({source}, q); q = None")
            if self._last[node] == position:
                text.append(f"r{node} = None")

    def _free(self, node: int, text: list[str]) -> None:
        piece = self.lowered.pieces[node]
        if piece.kind == "call":
            for result in self.graph.results[node]:
                if result not in self._live:
                    text.append(f"v{result} = None")
            for k, version in enumerate(self.captured.calls[piece.calls[0]].makes):
                if version not in self.lowered.node_of and self._size(version):
                    text.append(f"u{node}_{k} = None")
        elif piece.kind == "result" and next(iter(piece.deps)) in self._live:
            pass  # the call has a share in it
        elif piece.kind != "effect":
            text.append(f"v{node} = None")

    def _call(self, call: AtenCall, text: list[str], names: dict[int, str], again: bool) -> None:
        changed = {
            self._storage(before) for before, _ in call.writes
            if self.lowered.versions[before].leaf is not None
        }  # fmt: skip

        def read(ref: Ref) -> str:
            found = self.read(ref, names)
            # A second run leaves the user's own tensors as the first one made them.
            return f"COPY({found})" if again and self._storage(ref.version) in changed else found

        args = [self.literal(a, read) for a in call.args]
        args += [f"{k}={self.literal(v, read)}" for k, v in call.kwargs.items()]
        does = f"{self._function(call)}({', '.join(args)})"
        if not call.makes:
            text.append(does)
            return
        left, seen = [], set()
        for out in call.outs:
            own = out is not None and out.version in call.makes and out.version not in seen
            if own:
                assert out is not None
                seen.add(out.version)
                left.append(names.get(out.version) or self.variable(out.version))
            else:
                left.append("_")
        text.append(f"{', '.join(left)} = {does}")
        if "_" in left:
            text.append("_ = None")

    # -- words -------------------------------------------------------------------------------------

    def read(self, ref: Ref, names: dict[int, str] | None = None) -> str:
        """The expression of a tensor as a call sees it."""
        if ref.version == UNREAD:
            return self._unread(ref)
        version = self.lowered.versions[ref.version]
        if version.leaf is not None:
            name = self.leaves.setdefault(ref, f"L{len(self.leaves)}")
            if self.forward_done:
                self.read_in.setdefault(name, set()).add(self._part)
            return name
        if self.forward_done:
            self.read_again.add(version.storage)
        name = (names or {}).get(ref.version) or self.variable(ref.version)
        base = self._base.get(self.lowered.backwards.buffer(ref.version))
        if base is None or base.geometry != ref.geometry:
            shape = f"{ref.size}, {ref.stride}, {ref.offset}"
            if base is not None and base.dtype != ref.dtype:
                name = f"SEEN({name}, {self.constant(ref.dtype)}, {shape})"
            else:
                name = f"AS({name}, {shape})"
        name = f"CONJ({name})" if ref.conj else name
        return f"NEG({name})" if ref.neg else name

    def _unread(self, ref: Ref) -> str:
        name = self._stand_ins.get(ref)
        if name is None:
            name = self._stand_ins[ref] = self.constant(stand_in(ref.dtype, ref.size, ref.stride))
        return name

    def variable(self, version: int) -> str:
        found = self.lowered.versions[version]
        if found.seed is not None:
            return f"s{found.seed}"
        if version in self.lowered.node_of:
            return f"v{self.lowered.node_of[version]}"
        return self._backward_name(self.lowered.backwards.buffer(version))

    def _backward_name(self, buffer: int) -> str:
        return f"{'p' if buffer in self.lowered.backwards.resting else 'g'}{buffer}"

    def _storage(self, version: int) -> int:
        return self.lowered.versions[version].storage

    def _size(self, version: int) -> int:
        return self.lowered.versions[version].nbytes

    def _version_before(self, call: AtenCall) -> int:
        return next(b for b, _ in call.writes if self.lowered.versions[b].leaf is None)

    def _generator(self, call: AtenCall) -> str:
        own = call.kwargs.get("generator")
        if own is not None:
            return self.constant(own)
        made = [*call.makes, *(after for _, after in call.writes)][0]
        return repr(str(self.lowered.versions[made].device))

    def _function(self, call: AtenCall) -> str:
        function = bound(call)
        name = self._functions.get(id(function))
        if name is None:
            name = f"f{len(self._functions)}"
            self._functions[id(function)] = name
            self.env[name] = function
        return name

    def literal(self, value: Any, read: Callable[[Ref], str]) -> str:
        if isinstance(value, Ref):
            return read(value)
        if isinstance(value, list):
            return "[" + ", ".join(self.literal(v, read) for v in value) + "]"
        if isinstance(value, tuple):
            return "(" + "".join(f"{self.literal(v, read)}, " for v in value) + ")"
        if value is None or type(value) in (bool, int, str):
            return repr(value)
        if type(value) is float and math.isfinite(value):
            return repr(value)
        return self.constant(value)

    def constant(self, value: Any) -> str:
        for k, known in enumerate(self._constants):
            if known is value:
                return f"c{k}"
        self._constants.append(value)
        name = f"c{len(self._constants) - 1}"
        self.env[name] = value
        return name


def _computed_twice(schedule: Schedule) -> set[int]:
    seen: set[int] = set()
    twice: set[int] = set()
    for instruction in schedule:
        if isinstance(instruction, Compute):
            (twice if instruction.node in seen else seen).add(instruction.node)
    return twice
