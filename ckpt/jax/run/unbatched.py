"""Arrays that `jax.vmap` may not batch."""

from __future__ import annotations

from typing import Any, NoReturn

from jax.extend import core
from jax.interpreters import ad, batching, mlir

from ckpt.errors import UsageError

_unbatched_p = core.Primitive("ckpt_unbatched")
"""The identity, of any order of derivative."""
_unbatched_p.def_impl(lambda value: value)
_unbatched_p.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_unbatched_p, lambda context, value: [value])
ad.deflinear2(_unbatched_p, lambda cotangent, value: [_unbatched_p.bind(cotangent)])


def _refuse(values: Any, axes: Any) -> NoReturn:
    raise UsageError(
        "jax.vmap turns a cond into a select, which runs both its branches and keeps no promise: "
        "plan the batched function instead, ckpt.jax.plan(lambda *a: jnp.mean(jax.vmap(f)(*a)), …)"
    )


batching.primitive_batchers[_unbatched_p] = _refuse


def unbatched(arrays: list[Any]) -> list[Any]:
    """The arrays; UsageError under `jax.vmap`, also where a jit lies in between."""
    return [_unbatched_p.bind(array) for array in arrays]
