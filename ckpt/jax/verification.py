"""Does a planned step give what the plain one gives, within what was promised?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ckpt.errors import VerificationError
from ckpt.jax.search import Found, Temp, compiled_temp
from ckpt.units import format_bytes


@dataclass(frozen=True)
class JaxVerification:
    """What compiling and running both steps showed."""

    plain: Temp
    planned: Temp
    limit: int | None
    """The promise in bytes of temporaries; None: it was planned from the graph alone."""
    equal: int
    """How many of ``count`` results are the plain step's bit for bit."""
    count: int
    difference: float
    """The largest difference of a number, over the largest number of its array."""

    def __str__(self) -> str:
        bits = (
            "results equal the plain step's bit for bit"
            if self.equal == self.count
            else f"{self.equal} of {self.count} results equal the plain step's bit for bit, the "
            f"largest relative difference is {self.difference:.2g}: XLA fused otherwise"
        )
        promised = "nothing was promised" if self.limit is None else (
            f"promised {format_bytes(self.limit)}"
        )  # fmt: skip
        return (
            f"verified on {jax.default_backend()}: {format_bytes(self.planned.nbytes)} of "
            f"temporaries ({promised}), {format_bytes(self.plain.nbytes)} in the plain step; {bits}"
        )


def hold_to_promises(found: Found, arrays: list[Any]) -> JaxVerification:
    """Compile and run both.

    Raises VerificationError where the compiled step needs more than was promised, or a result
    differs by more than rounding does.
    """
    program, kinds = found.program, found.program.arguments.abstract
    plain_step, plain = compiled_temp(program.simple, kinds)
    step, planned = plain_step, plain
    if not found.is_plain:
        step, planned = compiled_temp(program.emit(found.schedule, found.merge), kinds)
    limit = found.limit if found.temp is not None else None
    if limit is not None and planned.nbytes > limit:
        raise VerificationError(
            f"the compiled step needs {format_bytes(planned.nbytes)} ({planned.nbytes} bytes) of "
            f"temporaries, and {format_bytes(limit)} ({limit} bytes) were promised"
        )
    expected = jax.tree.leaves(plain_step(*arrays))
    given = jax.tree.leaves(step(*arrays))
    equal, worst = 0, 0.0
    for k, (a, b) in enumerate(zip(expected, given, strict=True)):
        same, off = compared(a, b)
        equal += same
        worst = max(worst, off)
        inexact = jnp.issubdtype(a.dtype, jnp.inexact)
        allowed = float(jnp.finfo(a.dtype).eps) ** 0.5 if inexact else 0.0
        if not same and not off <= allowed:
            raise VerificationError(
                f"result {k} differs from the plain step's by {off:.3g} of its largest number, "
                "which is more than rounding does"
            )
    return JaxVerification(plain, planned, limit, equal, len(expected), worst)


def compared(a: Any, b: Any) -> tuple[bool, float]:
    """Are they equal bit for bit; else the largest difference over the largest number."""
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    a, b = np.asarray(a), np.asarray(b)
    if a.tobytes() == b.tobytes():
        return True, 0.0
    if a.shape != b.shape:
        return False, float("inf")
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    x, y = a.astype(wide), b.astype(wide)
    strange = ~np.isfinite(x)
    if not np.array_equal(strange, ~np.isfinite(y)) or not np.array_equal(
        x[strange], y[strange], equal_nan=True
    ):
        return False, float("inf")
    x, y = x[~strange], y[~strange]
    largest = float(np.abs(x).max(initial=0.0))
    off = float(np.abs(x - y).max(initial=0.0))
    return False, off / largest if largest else off
