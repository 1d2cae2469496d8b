"""What changes from one trace of a function to the next would be frozen into a plan."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import jax
import numpy as np
from jax.extend import core

from ckpt.errors import TapeError
from ckpt.jax.capture.sources import source_of


def check_alike(one: Any, other: Any) -> None:
    """Raise TapeError where two traces of a function differ, naming the first line that does."""
    eqn = _first_difference(one.jaxpr, other.jaxpr, one.consts, other.consts)
    if eqn is not None:
        where = source_of(eqn.source_info)
        raise TapeError(
            f"{eqn.primitive.name}{f' at {where}' if where else ''} differs from one trace to the "
            "next, and a plan would freeze that (a random number of NumPy, a counter, a clock): "
            "pass it as an argument"
        )


def _first_difference(one: Any, other: Any, consts: Any = (), others: Any = ()) -> Any:
    """The first equation of a jaxpr that isn't the other's; None: there is none."""
    names: dict[Any, Any] = dict(zip(one.invars, other.invars, strict=False))
    for v, w, a, b in zip(one.constvars, other.constvars, consts, others, strict=False):
        if _same(a, b):
            names[v] = w
    for a, b in zip_longest(one.eqns, other.eqns):
        if a is None or b is None:
            return a or b
        operands = zip_longest(a.invars, b.invars)
        if a.primitive is not b.primitive or not all(_paired(v, w, names) for v, w in operands):
            return b
        if a.params.keys() != b.params.keys():
            return b
        for key, value in a.params.items():
            found = _difference(value, b.params[key])
            if found is not None:
                return b if found is True else found
        names.update(zip(a.outvars, b.outvars, strict=False))
    alike = all(_paired(v, w, names) for v, w in zip_longest(one.outvars, other.outvars))
    return None if alike or not other.eqns else other.eqns[-1]


def _paired(v: Any, w: Any, names: dict[Any, Any]) -> bool:
    if isinstance(v, core.Literal) or isinstance(w, core.Literal):
        return type(v) is type(w) and _same(v.val, w.val)
    return names.get(v) is w and w is not None


def _difference(a: Any, b: Any) -> Any:
    """Of two parameters: the equation within them that differs, or True; None: they're alike."""
    if a is b:
        return None
    if isinstance(a, core.Jaxpr) and isinstance(b, core.Jaxpr):
        return _first_difference(a, b)
    if isinstance(a, core.ClosedJaxpr) and isinstance(b, core.ClosedJaxpr):
        return _first_difference(a.jaxpr, b.jaxpr, a.consts, b.consts)
    if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
        pairs = zip_longest(a, b)
        return next((found for x, y in pairs if (found := _difference(x, y)) is not None), None)
    return None if _same(a, b) else True


def _same(a: Any, b: Any) -> bool:
    """Are two constants alike? Functions, which are made anew by each trace, are."""
    if a is b or callable(a):
        return True
    if any(isinstance(value, jax.core.Tracer) for value in (a, b)):
        return False
    numbers = (jax.Array, np.ndarray, np.generic, bool, int, float, complex)
    if isinstance(a, numbers) and isinstance(b, numbers):
        if hasattr(a, "dtype") and jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        x, y = np.asarray(a), np.asarray(b)
        return (x.shape, x.dtype, x.tobytes()) == (y.shape, y.dtype, y.tobytes())
    return not isinstance(a, (str, np.dtype)) or bool(a == b)
