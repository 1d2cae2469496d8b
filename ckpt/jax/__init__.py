"""JAX: plan a function to a byte budget, in a form that XLA obeys.

::

    step = ckpt.jax.plan(loss, params, x, y, budget="40%")
    value, grads = jax.jit(step)(params, x, y)  # as jax.value_and_grad(loss)

CPU, measured; elsewhere unproven: `verify` is how it is proven on a machine.
"""

from __future__ import annotations

from ckpt.errors import MissingExtraError

try:
    import jax  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError("JAX", "jax", "ckpt.jax") from None

from ckpt.jax.api import checkpoint, frontier, measure, plan, profile, trace
from ckpt.jax.report import JaxFrontier, JaxProfile
from ckpt.jax.run.program import JaxProgram
from ckpt.jax.search import Temp
from ckpt.jax.step import GradientStep, RematerializedFunction
from ckpt.jax.verification import JaxVerification
from ckpt.jax.ways import Ways

__all__ = [
    "GradientStep", "JaxFrontier", "JaxProfile", "JaxProgram", "JaxVerification",
    "RematerializedFunction", "Temp", "Ways",
    "checkpoint", "frontier", "measure", "plan", "profile", "trace",
]  # fmt: skip
