"""JAX as a front end: a function of arrays as a Program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import numpy as np

from ckpt.errors import TapeError, UsageError
from ckpt.jax.capture.arguments import Arguments, arguments_of, arrays_among, can_run
from ckpt.jax.capture.equations import Equation, value_of
from ckpt.jax.capture.joint import Joint, joint_of
from ckpt.jax.lowering.build import LoweredJoint, lower
from ckpt.jax.run.conds import Emitted
from ckpt.program import Observer
from ckpt.schedule import Backward, Compute, Free, Schedule


class JaxProgram:
    """A traced function with its graph: see `ckpt.program.Program`.

    Its result is what `jax.value_and_grad` gives. It is performed equation by equation, so that
    every byte of the graph is really held; XLA, which fuses, holds less: `emit` gives the function
    for it. ``scalar=False`` is for functions that aren't differentiated here, and return anything;
    with ``twice`` they are traced a second time, and refused where that differs.
    """

    witness = None

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        around: tuple[Any, ...] = (),
        argnums: int | tuple[int, ...] | None = 0,
        has_aux: bool = False,
        scalar: bool = True,
        twice: bool = False,
        name: str = "",
    ) -> None:
        if not callable(function):
            raise UsageError(f"a function is needed, not a {type(function).__name__}")
        self.function = function
        self.has_aux = has_aux
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.around = around
        """Arguments behind the caller's own: what the function closed over."""
        self.arguments: Arguments = arguments_of((*args, *around), argnums)
        self.joint: Joint = joint_of(
            self.arguments, function, scalar=scalar, has_aux=has_aux, twice=twice
        )
        self.lowered: LoweredJoint = lower(self.joint, self.name)
        self.graph = self.lowered.graph
        self.real = can_run(*args)

    def flat(self, args: tuple[Any, ...]) -> list[Any]:
        """The arrays among the arguments. TapeError where they aren't like the traced ones."""
        args = (*args, *self.around)
        if not self.arguments.like(arguments_of(args, self.arguments.argnums)):
            raise TapeError(
                "these arguments have other shapes, types or nesting than those that were traced"
            )
        return arrays_among(args)

    # -- equation by equation ----------------------------------------------------------------------

    @cached_property
    def _store_all(self) -> Schedule:
        """Everything once, each value let go of behind its last reader."""
        graph = self.graph
        order: list[Compute | Backward] = [*map(Compute, graph.computed)]
        order += map(Backward, range(len(graph.steps)))
        last: dict[int, int] = {}
        for position, instruction in enumerate(order):
            match instruction:
                case Compute(node):
                    last.update(dict.fromkeys((node, *graph[node].deps), position))
                case Backward(step):
                    last.update(dict.fromkeys(graph.steps[step].reads, position))
        ends: dict[int, list[int]] = {}
        for node, position in last.items():
            if not graph[node].resident and node not in graph.outputs:
                ends.setdefault(position, []).append(node)
        found: list[Compute | Free | Backward] = []
        for position, instruction in enumerate(order):
            found += [instruction, *map(Free, ends.get(position, ()))]
        return Schedule(tuple(found))

    def plain(self, *args: Any) -> Any:
        """The function and its gradients, equation by equation, everything stored."""
        return self.execute(self._store_all, *args)

    def execute(self, schedule: Schedule, *args: Any, observe: Observer | None = None) -> Any:
        """Perform the schedule equation by equation."""
        run = _Held(self.lowered, self.flat(args))
        for position, instruction in enumerate(schedule):
            if observe is not None:
                observe.before(position)
            run.perform(instruction)
            if observe is not None:
                observe.after(position, run.count)
        joint, held = self.joint, run.reading()
        outputs = [value_of(v, held) for v in joint.outputs]
        return self.result(outputs, [value_of(v, held) for v in joint.gradients])

    def result(self, outputs: list[Any], gradients: list[Any]) -> Any:
        """What `jax.value_and_grad` returns."""
        return self.joint.returned.rebuild(outputs), self.arguments.nest(gradients)

    def compile(self, schedule: Schedule) -> EquationStep:
        return EquationStep(self, schedule)

    def measure(self, step: Any, *args: Any) -> tuple[Any, int]:
        """The result, and the most bytes held after an instruction or while one runs, counted on
        the arrays themselves, gradients left out."""
        from ckpt.program import execute

        schedule = step.schedule if isinstance(step, EquationStep) else self._store_all
        found = execute(self, schedule, *args)
        return found.result, found.timeline.peak

    def restored(self, *args: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def digest(self, result: Any) -> str:
        """A hash of the bits of all arrays in a result."""
        made = hashlib.sha256()
        for leaf in jax.tree.leaves(result):
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            if isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
                bits = np.asarray(leaf)
                made.update(f"{bits.shape}{bits.dtype}".encode())
                made.update(bits.tobytes())
        return made.hexdigest()[:16]

    # -- for XLA -----------------------------------------------------------------------------------

    def emit(self, schedule: Schedule, merge: int = 0, barrier: bool = False) -> Callable[..., Any]:
        """The schedule as a function of flat arrays, which gives outputs and gradients, flat; to be
        compiled by XLA."""
        emitted = Emitted(self.lowered, schedule, merge, barrier)
        seeds = [self.joint.listing.avals[v] for v in self.joint.seeds]

        def step(*arrays: Any) -> tuple[list[Any], list[Any]]:
            outputs, kept = emitted.forward(arrays)
            ones = [jnp.ones(a.shape, a.dtype) for a in seeds]
            return outputs, emitted.backward(kept, ones)

        return step

    def simple(self, *arrays: Any) -> tuple[list[Any], list[Any]]:
        """The user's own step, of flat arrays: `jax.value_and_grad` as it is."""
        arguments = self.arguments

        def of(targets: list[Any]) -> Any:
            filled = list(arrays)
            for k, leaf in zip(arguments.targets, targets, strict=True):
                filled[k] = leaf
            made = self.function(*arguments.fill(filled))
            main, aux = made if self.has_aux else (made, None)
            outputs, rest = self.joint.returned.part(main, aux)
            return outputs, rest

        chosen = [arrays[k] for k in arguments.targets]
        outputs, pullback, rest = jax.vjp(of, chosen, has_aux=True)
        (gradients,) = pullback([jnp.ones_like(out) for out in outputs])
        return [*outputs, *rest], gradients


class EquationStep:
    """A schedule as a callable of the user's arguments, performed equation by equation."""

    nbytes = code_nbytes = 0

    def __init__(self, program: JaxProgram, schedule: Schedule) -> None:
        self.program = program
        self.schedule = schedule

    def __call__(self, *args: Any) -> Any:
        return self.program.execute(self.schedule, *args)

    def release(self) -> None:
        """Nothing is held between calls."""


class _Held:
    """The arrays that an execution holds, by variable. A view is held as the array that it is a
    view of, and seen in its own shape when it is read."""

    def __init__(self, lowered: LoweredJoint, arrays: list[Any]) -> None:
        self.lowered = lowered
        joint = self.joint = lowered.joint
        self.own: dict[int, Any] = {}
        self.views: dict[int, tuple[list[Equation], Any]] = {}
        self.resident = dict(joint.listing.constants)
        self.resident.update(zip(joint.inputs, map(jnp.asarray, arrays), strict=True))
        self.calls: dict[int, list[Any]] = {}
        self.last: dict[int, int] = {}
        for k, equation in enumerate(joint.backward):
            self.last.update(dict.fromkeys((*equation.outs, *equation.reads), k))
        results = (*joint.outputs, *joint.gradients)
        self.results = {v for v in results if isinstance(v, int)}
        self.gradients = {v for v in joint.gradients if isinstance(v, int)}

    def reading(self) -> Mapping[int, Any]:
        seen = {v: self._seen(v) for v in self.views}
        return {**self.resident, **self.own, **seen}

    def _seen(self, v: int) -> Any:
        if v in self.views:
            path, value = self.views[v]
            for equation in path:
                value = equation.results({**self.resident, equation.reads[0]: value})[0]
            return value
        return self.own[v] if v in self.own else self.resident[v]

    def _results(self, equation: Equation) -> list[Any]:
        """What it makes: buffers of its own, also where JAX hands on an operand as it is."""
        operands = {v: self._seen(v) for v in equation.reads}
        given = {id(value) for value in operands.values()}
        made = equation.results(operands)
        return [
            jax.block_until_ready(jnp.copy(value) if id(value) in given else value)
            for value in made
        ]

    def perform(self, instruction: Compute | Free | Backward) -> None:
        graph, lowered = self.lowered.graph, self.lowered
        match instruction:
            case Compute(node):
                equation = lowered.equation_of.get(node)
                if equation is None:  # a result of a call
                    call, v = graph[node].deps[0], lowered.variable_of[node]
                    place = lowered.equation_of[call].outs.index(v)
                    self.own[v] = self.calls[call][place]
                elif graph[node].call:
                    self.calls[node] = self._results(equation)
                elif graph[node].alias_of is not None:
                    source = equation.reads[0]
                    path, value = self.views.get(source, ([], None))
                    value = self._seen(source) if value is None else value
                    self.views[lowered.variable_of[node]] = [*path, equation], value
                else:
                    self.own[lowered.variable_of[node]] = self._results(equation)[0]
            case Free(node):
                if graph[node].call:
                    del self.calls[node]
                else:
                    v = lowered.variable_of[node]
                    (self.views if v in self.views else self.own).pop(v)
            case Backward(step):
                if not step:
                    for v in self.joint.seeds:
                        aval = self.joint.listing.avals[v]
                        self.own[v] = jnp.ones(aval.shape, aval.dtype)
                equation = self.joint.backward[step]
                self.own.update(zip(equation.outs, self._results(equation), strict=True))
                known = (*self.joint.seeds, *equation.outs, *equation.reads)
                for v in known:
                    done = self.last.get(v, step) <= step and v not in self.lowered.node_of
                    if done and v not in self.results:
                        self.own.pop(v, None)
            case _:
                assert_never(instruction)

    def count(self) -> tuple[list[int], int]:
        """Bytes by `timeline.KINDS`, each array once."""
        held: dict[int, tuple[int, int]] = {}
        resident = {id(value) for value in self.resident.values()}

        def add(kind: int, value: Any) -> None:
            if id(value) not in resident:
                held[id(value)] = kind, int(value.size * value.dtype.itemsize)

        for v, value in self.own.items():
            backward = v not in self.lowered.node_of
            add((4 if v in self.gradients else 3) if backward else 0, value)
        for _, value in self.views.values():
            add(0, value)
        for values in self.calls.values():
            for value in values:
                add(0, value)
        counts = [0, 0, 0, 0, 0]
        for kind, nbytes in held.values():
            counts[kind] += nbytes
        return counts, 0
