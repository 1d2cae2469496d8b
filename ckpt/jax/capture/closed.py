"""Values that a function closes over, as arguments: gradients flow to them as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ckpt.jax.capture.arguments import arguments_of, arrays_among
from ckpt.jax.capture.joint import Returned


def closed_over(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function with one argument more, a list of what it closes over and what may be
    differentiated around it, as a model's parameters are within `jax.grad`; and that argument.
    Without such values the function itself, and nothing."""
    arguments = arguments_of(args)
    returned = Returned(False)

    def flat(*arrays: Any) -> Any:
        return returned.part(function(*arguments.fill(list(arrays))), None)

    converted, values = jax.closure_convert(flat, *arguments.abstract)

    def of(*given: Any) -> Any:
        *own, around = given
        smooth, rest = converted(*arrays_among(tuple(own)), *around)
        return returned.rebuild([*smooth, *rest])

    return (of, (values,)) if values else (function, ())
