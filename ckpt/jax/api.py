"""What a user of JAX calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpt.errors import UsageError
from ckpt.jax.report import JaxFrontier, JaxProfile
from ckpt.jax.run.program import JaxProgram
from ckpt.jax.search import Temp, compiled_temp, kinds_of_cuts, try_corner, whisper
from ckpt.jax.step import Asked, GradientStep, RematerializedFunction
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.chain.chain import frontier as corners_of


def plan(
    f: Callable[..., Any],
    *args: Any,
    budget: int | str,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    compile: bool = True,
    cuts: str = "blocks",
    progress: bool = True,
    name: str = "",
) -> GradientStep:
    """Plan ``jax.value_and_grad(f)`` within ``budget`` bytes of compiled temporaries.

    ``budget`` bounds what XLA says that the compiled step needs beside its arguments and results
    (``memory_analysis().temp_size_in_bytes``): a number, ``"64MiB"``, or ``"25%"`` of the plain
    step's. A few plans are compiled, with a line of ``progress`` each on stderr; with
    ``compile=False`` none is: the budget is then of the graph's bytes, and unverified. ``args`` are
    arrays or `jax.ShapeDtypeStruct`; leaves that aren't arrays are part of the function.

    With ``cuts="blocks"`` what is kept crosses between blocks, as long as that is enough, and XLA
    mostly fuses as in the plain step, so that bits are the same; ``"anywhere"`` recomputes less and
    rounds otherwise here and there. `GradientStep.verify` tells.

    Raises BudgetError, with the smallest temp found; UsageError for arguments that can't be
    differentiated; AbstractError and UnsupportedError for a function that looks at values or has
    side effects.
    """
    asked = Asked(budget, argnums, has_aux, True, compile, cuts, progress, name)
    return GradientStep(f, args, asked)


def checkpoint(
    f: Callable[..., Any],
    *args: Any,
    budget: int | str,
    compile: bool = True,
    cuts: str = "blocks",
    progress: bool = True,
    name: str = "",
) -> RematerializedFunction:
    """``f``, to be differentiated as ``jax.checkpoint(f)`` is, within ``budget`` bytes.

    Gradients flow to all arguments of floating point; otherwise as `plan`. What is measured is the
    function with its whole backward, compiled by itself.
    """
    return RematerializedFunction(
        f, args, Asked(budget, None, False, False, compile, cuts, progress, name)
    )


def trace(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
) -> JaxProgram:
    """``jax.value_and_grad(f)`` as a `ckpt.Program`, for `ckpt.plan`, `ckpt.execute`, …: it runs
    equation by equation, and its peaks are the graph's."""
    return JaxProgram(f, args, argnums=argnums, has_aux=has_aux, name=name)


def profile(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    compile: bool = True,
    name: str = "",
) -> JaxProfile:
    """Which values are kept for the backward, from which lines, and how many bytes they are."""
    program = JaxProgram(f, args, argnums=argnums, has_aux=has_aux, name=name)
    temp = compiled_temp(program.simple, program.arguments.abstract)[1] if compile else None
    return JaxProfile(program, temp)


def measure(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> Temp:
    """What the compiled ``jax.value_and_grad(f)`` needs: of any f, one with `jax.checkpoint`s, say.

    Of a planned step, what that step needs, compiled by itself.
    """
    if isinstance(f, GradientStep):
        found = f._ready(args)
        step = found.program.simple
        if not found.is_plain:
            step = found.program.emit(found.schedule, found.merge)
        return compiled_temp(step, found.program.arguments.abstract)[1]
    program = JaxProgram(f, args, argnums=argnums, has_aux=has_aux)
    return compiled_temp(program.simple, program.arguments.abstract)[1]


def frontier(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    points: int = 5,
    cuts: str = "blocks",
    progress: bool = True,
) -> JaxFrontier:
    """Compiled bytes against recompute, for plans from the smallest to the plain step."""
    if points < 2:
        raise UsageError(f"points is a number of plans, at least 2, not {points}")
    program = JaxProgram(f, args, argnums=argnums, has_aux=has_aux)
    graph, say = program.graph, whisper if progress else (lambda line: None)
    plain = compiled_temp(program.simple, program.arguments.abstract)[1]
    rows = []
    for options in kinds_of_cuts(graph, cuts):
        try:
            corners = corners_of(graph, **options)
        except UsageError:
            continue  # it can't be cut so
        chosen = {round(k * (len(corners) - 1) / (points - 1)) for k in range(points - 1)}
        for k in sorted(chosen):
            row = try_corner(program, corners[k], options, say)
            rows.append(
                {"temp_nbytes": row["temp"].nbytes, "graph_nbytes": row["graph"],
                 "recompute_flops": row["cost"], "overhead": row["overhead"],
                 "conds": row["conds"]}
            )  # fmt: skip
        break
    stored = simulate(graph, make_schedule(graph, "store_all"))
    rows.sort(key=lambda row: row["temp_nbytes"])
    rows.append({"temp_nbytes": plain.nbytes, "graph_nbytes": stored.peak, "recompute_flops": 0,
                 "overhead": 0.0, "conds": 0})  # fmt: skip
    return JaxFrontier(graph, rows)
