"""A function and its vector-Jacobian product, traced once on shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.extend import core

from ckpt.errors import AbstractError, UnsupportedError, UsageError
from ckpt.jax.capture.arguments import Arguments, is_array
from ckpt.jax.capture.equations import Equation, Listing, Operand, bodies, live_only
from ckpt.jax.capture.sources import source_of
from ckpt.jax.capture.twice import check_alike

_seed_p = core.Primitive("ckpt_cotangent")
"""Marks the cotangents of the outputs, on which every step of the backward depends."""
_seed_p.def_abstract_eval(lambda aval: aval)


@dataclass(slots=True)
class Joint:
    """Forward and backward as equations over one set of variables."""

    arguments: Arguments
    listing: Listing
    inputs: list[int]
    """A variable for each leaf of the arguments that is an array."""
    forward: list[Equation]
    backward: list[Equation]
    outputs: list[Operand]
    """The function's results, flattened: the differentiated ones, then those that aren't."""
    seeds: list[int]
    """The cotangents of the differentiated ones."""
    gradients: list[Operand]
    """For each leaf that is differentiated."""
    returned: Returned


@dataclass(slots=True)
class Returned:
    """What a function returned: how it was nested, and what of it is differentiated."""

    has_aux: bool
    tree: Any = None
    aux_tree: Any = None
    smooth: list[bool] = field(default_factory=list)
    """Of the main result's leaves: they are differentiated."""
    fixed: list[Any] = field(default_factory=list)
    """The other leaves, those of aux behind: a tuple of one that is no array; None: an array."""

    def part(self, main: Any, aux: Any) -> tuple[list[Any], list[Any]]:
        """The leaves that are differentiated, and the other arrays."""
        flat, self.tree = jax.tree.flatten(main)
        extra, self.aux_tree = jax.tree.flatten(aux)
        self.smooth = [is_inexact(leaf) for leaf in flat]
        rest = [leaf for leaf, smooth in zip(flat, self.smooth, strict=True) if not smooth]
        rest += extra
        self.fixed = [None if is_array(leaf) else (leaf,) for leaf in rest]
        chosen = [leaf for leaf, smooth in zip(flat, self.smooth, strict=True) if smooth]
        return list(map(jax.numpy.asarray, chosen)), [leaf for leaf in rest if is_array(leaf)]

    def rebuild(self, outputs: list[Any]) -> Any:
        """What was returned, from the arrays in `part`'s order."""
        count = sum(self.smooth)
        chosen, arrays = iter(outputs[:count]), iter(outputs[count:])
        rest = iter([next(arrays) if f is None else f[0] for f in self.fixed])
        main = jax.tree.unflatten(
            self.tree, [next(chosen) if smooth else next(rest) for smooth in self.smooth]
        )
        return (main, jax.tree.unflatten(self.aux_tree, list(rest))) if self.has_aux else main


def joint_of(
    arguments: Arguments,
    function: Callable[..., Any],
    *,
    scalar: bool = True,
    has_aux: bool = False,
    twice: bool = False,
) -> Joint:
    """Trace ``function`` on the shapes of ``arguments``; ``twice``: to see that nothing changes.

    ``scalar``: it must return a real scalar, or with ``has_aux`` a pair of one and anything. Else
    it returns any nest of arrays, of which those of floating point are differentiated.

    Raises UsageError for what can't be differentiated; AbstractError, UnsupportedError for a
    function that looks at values or has side effects; TapeError where two traces differ.
    """
    returned = Returned(has_aux)

    def both(leaves: list[Any]) -> Any:
        def of(chosen: list[Any]) -> Any:
            filled = list(leaves)
            for k, leaf in zip(arguments.targets, chosen, strict=True):
                filled[k] = leaf
            made = function(*arguments.fill(filled))
            main, aux = _split(made, has_aux)
            return returned.part(_checked_scalar(main) if scalar else main, aux)

        main, pullback, rest = jax.vjp(of, [leaves[k] for k in arguments.targets], has_aux=True)
        seeds = [_seed_p.bind(out) for out in main]
        return main, rest, seeds, *pullback(seeds)

    closed = _traced(both, arguments)
    _refuse_effects(closed)
    if twice:
        check_alike(closed, _traced(both, arguments))
    listing = Listing()
    inputs = [listing.variable(v.aval) for v in closed.jaxpr.invars]
    results = listing.add(closed.jaxpr, closed.consts, list(inputs), None)
    main, rest = sum(returned.smooth), returned.fixed.count(None)
    outputs, seeds = results[: main + rest], results[main + rest : 2 * main + rest]
    forward, backward, same = _parted(listing, seeds)
    gradients = [_now(v, same) for v in results[2 * main + rest :]]
    alive = live_only([*forward, *backward], [*outputs, *gradients])
    wanted = set(map(id, alive))
    return Joint(
        arguments, listing, inputs, [e for e in forward if id(e) in wanted],
        [e for e in backward if id(e) in wanted], outputs, seeds, gradients, returned,
    )  # fmt: skip


def _traced(both: Callable[..., Any], arguments: Arguments) -> Any:
    try:
        return jax.make_jaxpr(lambda leaves: both(leaves))(arguments.abstract)  # never cached
    except jax.errors.ConcretizationTypeError as error:
        raise AbstractError(
            f"the function looks at a traced value ({_first_line(error)}): as under jax.jit, use "
            "jax.lax.cond, jax.numpy.where or a static argument"
        ) from error
    except jax.errors.TracerArrayConversionError as error:
        raise AbstractError(
            f"the function makes a NumPy array of a traced value ({_first_line(error)}): as under "
            "jax.jit, use jax.numpy"
        ) from error
    except (jax.errors.NonConcreteBooleanIndexError, jax.errors.UnexpectedTracerError) as error:
        raise AbstractError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].rstrip(".:")


def _split(returned: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return returned, None
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise UsageError(
            "with has_aux the function returns a pair (loss, auxiliary data), not "
            f"{type(returned).__name__}"
        )
    return returned[0], returned[1]


def _checked_scalar(loss: Any) -> Any:
    shape, dtype = np.shape(loss), jax.numpy.result_type(loss) if is_array(loss) else None
    if dtype is None or shape or not jax.numpy.issubdtype(dtype, np.floating):
        what = f"{dtype}{list(shape)}" if dtype is not None else type(loss).__name__
        raise UsageError(
            f"the function must return a real scalar to be differentiated, not {what}: reduce it, "
            "or say has_aux=True if it returns (loss, auxiliary data)"
        )
    return loss


def is_inexact(leaf: Any) -> bool:
    return is_array(leaf) and jax.numpy.issubdtype(jax.numpy.result_type(leaf), np.inexact)


def _refuse_effects(closed: Any) -> None:
    if not closed.effects:
        return
    guilty = _with_effects(closed.jaxpr)
    if guilty is None:
        raise UnsupportedError(f"the function has side effects: {closed.effects}")
    where = source_of(guilty.source_info)
    raise UnsupportedError(
        f"{guilty.primitive.name}{f' at {where}' if where else ''} has a side effect, which a "
        "recomputation would repeat: take it out of the function"
    )


def _with_effects(jaxpr: Any) -> Any:
    """The innermost equation that has them; None: there is none."""
    for eqn in jaxpr.eqns:
        if eqn.effects:
            inside = map(_with_effects, bodies(eqn.params))
            return next((found for found in inside if found), eqn)
    return None


def _parted(
    listing: Listing, seeds: list[Operand]
) -> tuple[list[Equation], list[Equation], dict[int, int]]:
    """Forward and backward. What of the forward the user's own `jax.checkpoint` repeats in the
    backward is the same value, by the third part: the plan decides what is recomputed."""
    marks = [k for k, e in enumerate(listing.equations) if e.primitive is _seed_p]
    begins = marks[0] if marks else len(listing.equations)
    forward = listing.equations[:begins]
    behind = [e for e in listing.equations[begins:] if e.primitive is not _seed_p]
    known = {_identity(e): e.outs for e in reversed(forward)}
    same: dict[int, int] = {}
    depends = set(seeds)
    backward = []
    for equation in behind:
        equation.ins = tuple(_now(v, same) for v in equation.ins)
        if not depends.isdisjoint(equation.reads):
            depends.update(equation.outs)
        elif (found := known.get(_identity(equation))) is not None:
            same.update(zip(equation.outs, found, strict=True))
            continue
        backward.append(equation)
    return forward, backward, same


def _now(operand: Operand, same: dict[int, int]) -> Operand:
    return same.get(operand, operand) if isinstance(operand, int) else operand


def _identity(equation: Equation) -> Any:
    """Equal for equations that give the same values."""
    ins = tuple(v if isinstance(v, int) else _spelled(v) for v in equation.ins)
    return equation.name, ins, str(equation.params) if equation.params else ""


def _spelled(operand: Operand) -> Any:
    if isinstance(operand, Equation):
        return _identity(operand)
    return str(operand.val), str(operand.aval)
