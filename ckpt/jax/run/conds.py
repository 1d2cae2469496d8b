"""A schedule as a function that XLA compiles and doesn't undo.

XLA finds that a recomputed value equals the first one and keeps that. What it can't see through is
a `lax.cond` whose predicate it doesn't know: nothing in it is shared with what is outside, and
nothing in it begins before the cotangents that it takes are there. So each run of recomputation is
put into one, together with all Backwards up to the next run: only cotangents, gradients and values
that are still read leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import source_info_util

from ckpt.jax.capture.equations import Equation, value_of
from ckpt.jax.lowering.build import LoweredJoint
from ckpt.schedule import Backward, Compute, Free, Schedule


@dataclass(slots=True)
class Stretch:
    """Equations that are performed together: a run of recomputation and the Backwards behind it."""

    equations: list[Equation] = field(default_factory=list)
    recomputed_flops: int = 0
    again: bool = False
    """It recomputes, so it is put into a cond."""
    reads: list[int] = field(default_factory=list)
    """Variables that come from outside."""
    gives: list[int] = field(default_factory=list)
    """Variables that are read outside, or returned."""


class Emitted:
    """``forward`` and ``backward`` of a schedule, as functions of flat values.

    ``merge``: a run that recomputes no more FLOPs than this, joins the run before. ``barrier``: in
    the form of `jax.checkpoint`, which XLA may undo, instead of conds.
    """

    def __init__(
        self, lowered: LoweredJoint, schedule: Schedule, merge: int = 0, barrier: bool = False
    ) -> None:
        self.lowered = lowered
        self.barrier = barrier
        joint = self.joint = lowered.joint
        ahead, runs = _runs(lowered, schedule)
        self.runs = _merged(runs, merge)
        self.ahead = Stretch(ahead)
        wanted = {v for v in joint.gradients if isinstance(v, int)}
        for run in reversed(self.runs):
            _connect(run, wanted)
        self.kept = sorted(wanted - set(joint.seeds) - set(joint.listing.constants))
        """Variables that the backward reads, arguments among them."""
        results = {v for v in joint.outputs if isinstance(v, int)}
        _connect(self.ahead, wanted | results)

    @property
    def conds(self) -> int:
        return sum(run.again for run in self.runs)

    def forward(self, arrays: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The function's outputs, flattened, and what is kept."""
        env = dict(self.joint.listing.constants)
        env.update(zip(self.joint.inputs, arrays, strict=True))
        env.update(zip(self.ahead.gives, _perform(self.ahead, env), strict=True))
        return [value_of(v, env) for v in self.joint.outputs], [env[v] for v in self.kept]

    def backward(self, kept: Sequence[Any], cotangents: Sequence[Any]) -> list[Any]:
        """The gradients, one for each differentiated leaf."""
        joint = self.joint
        env = dict(joint.listing.constants)
        env.update(zip(self.kept, kept, strict=True))
        env.update(zip(joint.seeds, cotangents, strict=True))
        forward = self.lowered.node_of
        latest = [v for v in joint.seeds if joint.listing.nbytes(v)][:1]
        for run in self.runs:
            flowing = [v for v in run.reads if v not in forward and joint.listing.nbytes(v)]
            latest = flowing or latest
            env.update(zip(run.gives, self._run(run, env, latest[:1]), strict=True))
        kinds = [joint.arguments.abstract[k] for k in joint.arguments.targets]
        return [
            jnp.broadcast_to(jnp.asarray(value_of(v, env), kind.dtype), kind.shape)
            for v, kind in zip(joint.gradients, kinds, strict=True)
        ]

    def _run(self, run: Stretch, env: dict[int, Any], flowing: list[int]) -> list[Any]:
        if not run.again:
            return _perform(run, env)
        if self.barrier:
            held = lax.optimization_barrier([env[v] for v in run.reads])
            return _perform(run, dict(zip(run.reads, held, strict=True)))
        true, known = opaque([env[v] for v in flowing])
        env = {**env, **dict(zip(flowing, known, strict=True))}
        fixed = {v: env[v] for v in run.reads if v in self.joint.listing.constants}
        given = [v for v in run.reads if v not in fixed]

        def body(*values: Any) -> list[Any]:
            return _perform(run, {**fixed, **dict(zip(given, values, strict=True))})

        values = [env[v] for v in given]
        never = partial(_never, jax.eval_shape(body, *values))
        return list(lax.cond(true, body, never, *values))


def opaque(values: list[Any]) -> tuple[Any, list[Any]]:
    """A True that the compiler can't know, and that waits for ``values``; and these."""
    true, *known = lax.optimization_barrier((jnp.bool_(True), *values))
    return true, known


def _never(kinds: list[Any], *values: Any) -> list[Any]:
    """What a branch would give that is never taken: NaN, so that it would be seen."""
    return [_filled(kind) for kind in kinds]


def _filled(kind: Any) -> Any:
    if jnp.issubdtype(kind.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, kind)
        empty = jnp.zeros(data.shape, data.dtype)
        return jax.random.wrap_key_data(empty, impl=jax.random.key_impl(kind))
    filling = np.nan if jnp.issubdtype(kind.dtype, np.inexact) else 0
    full = jnp.full(kind.shape, filling, kind.dtype)
    return lax.convert_element_type(full, kind.dtype)


def _perform(run: Stretch, env: dict[int, Any]) -> list[Any]:
    """The equations in their order; what the run gives."""
    own = {v: env[v] for v in run.reads}
    for equation in run.equations:
        with source_info_util.user_context(
            equation.info.traceback, name_stack=equation.info.name_stack
        ):
            made = equation.results(own)
        own.update(zip(equation.outs, made, strict=True))
    return [own[v] for v in run.gives]


def _runs(lowered: LoweredJoint, schedule: Schedule) -> tuple[list[Equation], list[Stretch]]:
    """What is done before the first Backward or recomputation, and the runs from there on."""
    graph, backward = lowered.graph, lowered.joint.backward
    done = bytearray(len(graph))
    ahead: list[Equation] = []
    runs: list[Stretch] = []
    computing = False
    for instruction in schedule:
        match instruction:
            case Free():
                continue
            case Compute(node):
                again, done[node] = bool(done[node]), 1
                equation = lowered.equation_of.get(node)
                if equation is None:  # a result, which was made with its call
                    continue
                if not runs and not again:
                    ahead.append(equation)
                    continue
                if not runs or not computing:
                    runs.append(Stretch())
                computing = True
                runs[-1].equations.append(equation)
                if again:
                    runs[-1].again = True
                    runs[-1].recomputed_flops += graph[node].flops
            case Backward(step):
                if not runs:
                    runs.append(Stretch())
                computing = False
                runs[-1].equations.append(backward[step])
            case _:
                assert_never(instruction)
    return ahead, runs


def _merged(runs: list[Stretch], merge: int) -> list[Stretch]:
    """A run that recomputes little, joins the one before, whose cond it shares."""
    found: list[Stretch] = []
    for run in runs:
        if found and (not run.again or run.recomputed_flops <= merge):
            found[-1].equations += run.equations
            found[-1].recomputed_flops += run.recomputed_flops
        else:
            found.append(run)
    return found


def _connect(run: Stretch, wanted: set[int]) -> None:
    """What it reads and gives, given what is ``wanted`` behind it; updates that."""
    made: set[int] = set()
    reads: dict[int, None] = {}
    for equation in run.equations:
        reads.update((v, None) for v in equation.reads if v not in made)
        made.update(equation.outs)
    run.reads = list(reads)
    run.gives = sorted(made & wanted)
    wanted -= made
    wanted |= set(reads)
