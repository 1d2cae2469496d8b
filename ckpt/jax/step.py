"""The planned function: called, jitted and differentiated as the plain one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.jax.advice import advice
from ckpt.jax.capture.arguments import arguments_of, arrays_among, can_run
from ckpt.jax.capture.closed import closed_over
from ckpt.jax.run.conds import Emitted
from ckpt.jax.run.program import JaxProgram
from ckpt.jax.run.unbatched import unbatched
from ckpt.jax.search import Found, from_graph, search, whisper
from ckpt.jax.verification import JaxVerification, hold_to_promises
from ckpt.jax.ways import Ways, own_row, plain_rows, planned_row
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.bounds.certificate import Certificate, certify
from ckpt.schedule import Schedule
from ckpt.studies.plan import Plan
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, format_flops


@dataclass(frozen=True)
class Asked:
    """How a function is planned, for whatever shapes it is given."""

    budget: int | str
    argnums: int | tuple[int, ...] | None = 0
    has_aux: bool = False
    scalar: bool = True
    compile: bool = True
    cuts: str = "blocks"
    progress: bool = True
    name: str = ""


class _PlannedFunction:
    """What planned functions share: a plan for each kind of arguments."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], asked: Asked) -> None:
        self.function = function
        self.asked = asked
        self.plans: list[Found] = []
        program = self._traced(args)
        if asked.compile:
            found = search(program, asked.budget, asked.cuts, whisper if asked.progress else None)
        else:
            found = from_graph(program, asked.budget, asked.cuts)
        self.plans.append(found)
        self.__name__ = f"planned_{program.name}"
        self.__doc__ = getattr(function, "__doc__", None)

    def _traced(self, args: tuple[Any, ...]) -> JaxProgram:
        asked = self.asked
        function, around = self.function, ()
        if asked.argnums is None:
            function, around = closed_over(function, args)
        return JaxProgram(
            function, args, around=around, argnums=asked.argnums, has_aux=asked.has_aux,
            scalar=asked.scalar, twice=True, name=asked.name,
        )  # fmt: skip

    @property
    def found(self) -> Found:
        """The plan for the arguments that it was planned with."""
        return self.plans[0]

    def _ready(self, args: tuple[Any, ...]) -> Found:
        """The plan for such arguments; of other shapes a new one, from the graph alone."""
        for found in self.plans:
            given = arguments_of((*args, *found.program.around), self.asked.argnums)
            if found.program.arguments.like(given):
                return found
        first = self.found
        budget: int | str = self.asked.budget
        if first.temp is not None and not str(budget).strip().endswith("%"):
            budget = int(first.limit / first.ratio)  # as many bytes of the graph as that comes to
        made = from_graph(self._traced(args), budget, self.asked.cuts)
        self.plans.append(made)
        return made

    def _positional(self, args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments in the function's order, as it was planned with them."""
        if not named:
            return args
        bound = inspect.signature(self.function).bind(*args, **named)
        if bound.kwargs:
            raise UsageError(
                f"{', '.join(bound.kwargs)} can be given by keyword alone: plan functools.partial "
                "of the function, with it"
            )
        return bound.args

    # -- the plan ----------------------------------------------------------------------------------

    @property
    def graph(self) -> Graph:
        return self.found.program.graph

    @property
    def schedule(self) -> Schedule:
        return self.found.schedule

    @cached_property
    def timeline(self) -> Timeline:
        """The schedule, simulated: the graph's bytes, which XLA's stay below."""
        return self.found.timeline

    @cached_property
    def certificate(self) -> Certificate:
        """How far from the best the plan can be, by the graph's bytes."""
        return certify(self.graph, self.schedule, self.timeline.peak)

    @cached_property
    def plan(self) -> Plan:
        """The plan as data: to save, draw and look at."""
        return Plan(self.graph, self.schedule, self.certificate)

    def save(self, path: Any) -> None:
        self.plan.save(path)

    def report(self, **others: Callable[..., Any]) -> Ways:
        """Bytes of the graph and of the compiled step, side by side: plain, with `jax.checkpoint`
        around each block, planned; and ``others``, the same function written otherwise. Compiles
        all but the plain and the planned step, which are compiled already."""
        found = self.found
        rows = [*plain_rows(found.program, found.plain), planned_row(found)]
        rows += [own_row(name, function, found.program) for name, function in others.items()]
        return Ways(rows)

    def __str__(self) -> str:
        found, timeline = self.found, self.timeline
        stored = simulate(self.graph, make_schedule(self.graph, "store_all"))
        share = f"{100 * timeline.overhead:.1f} % of a forward recomputed"
        lines = []
        if found.plain is not None and found.temp is not None:
            less = 100 * found.temp.nbytes / max(found.plain.nbytes, 1)
            lines.append(
                f"{found.program.name}: {format_bytes(found.temp.nbytes)} of temporaries, "
                f"compiled, within {format_bytes(found.limit)}"
            )
            lines.append(
                f"plain step: {format_bytes(found.plain.nbytes)} compiled, which makes it "
                f"{less:.0f} %; report() has jax.checkpoint beside them"
            )
            seconds = found.plain.seconds + sum(row["temp"].seconds for row in found.tried)
            lines.append(f"{1 + len(found.tried)} compilations took {seconds:.1f} s")
        else:
            lines.append(f"{found.program.name}: planned from the graph alone, and unverified")
        what = "the plain step, as it is" if found.is_plain else share
        lines.append(
            f"graph: {format_bytes(timeline.peak)} of values at its peak, before XLA fuses, and "
            f"{format_bytes(stored.peak)} in the plain step; {what} "
            f"({format_flops(timeline.recompute_flops)})"
        )
        lines += advice(self.graph)
        if jax.default_backend() != "cpu":
            lines.append("unproven on this backend: run verify")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.found.program.name}>"


class GradientStep(_PlannedFunction):
    """``value, grads = step(*args)``, as `jax.value_and_grad`: pure, to be jitted by the caller.

    Arguments of other shapes are planned anew, from the graph alone. Under `jax.vmap` it raises.
    It can be differentiated again: the result is right, and bound to no budget.
    """

    def __call__(self, *args: Any, **named: Any) -> Any:
        args = self._positional(args, named)
        found = self._ready(args)
        arrays = arrays_among(args)
        if found.is_plain:
            return found.program.result(*found.program.simple(*arrays))
        step = found.program.emit(found.schedule, found.merge)
        return found.program.result(*step(*unbatched(arrays)))

    def verify(self, *args: Any, **named: Any) -> JaxVerification:
        """Compile and run the plain and the planned step on these arguments.

        Raises VerificationError where the promise isn't kept, or results differ by more than
        rounding does.
        """
        args = self._positional(args, named)
        found = self._ready(args)
        if not can_run(*args):
            raise UsageError("these are shapes alone: verify runs both steps, and needs arrays")
        return hold_to_promises(found, found.program.flat(args))


class RematerializedFunction(_PlannedFunction):
    """The function itself; differentiated, it keeps and recomputes what was planned. Gradients flow
    to its arguments and to what it closes over."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        args = self._positional(args, named)
        found = self._ready(args)
        program = found.program
        if found.is_plain:
            return self.function(*args)
        emitted = Emitted(program.lowered, found.schedule, found.merge)
        targets = program.arguments.targets
        seeds = len(program.joint.seeds)

        @jax.custom_vjp
        def run(*arrays: Any) -> list[Any]:
            return emitted.forward(arrays)[0]

        def forward(*arrays: Any) -> tuple[list[Any], list[Any]]:
            return emitted.forward(arrays)

        def backward(kept: list[Any], cotangents: list[Any]) -> tuple[Any, ...]:
            flowing = emitted.backward(unbatched(kept), unbatched(cotangents[:seeds]))
            gradients = dict(zip(targets, flowing, strict=True))
            return tuple(gradients.get(k) for k in range(len(program.joint.inputs)))

        run.defvjp(forward, backward)
        return program.joint.returned.rebuild(run(*arrays_among((*args, *program.around))))
