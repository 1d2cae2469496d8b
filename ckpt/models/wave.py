"""Two equations stepped in time, and the gradient of a misfit with respect to the medium: the world
of Revolve (Griewank and Walther, 2000), as in seismic inversion (Kukreja et al., 2018)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.models.base import Array, Workload, run_layers
from ckpt.tape.core.op import op


@op()
def laplacian(u: Any) -> Any:
    """The five-point sum over the last two axes of (batch, rows, columns), zeros around."""
    p = np.pad(u, ((0, 0), (1, 1), (1, 1)))
    return (
        p[:, 2:, 1:-1] + p[:, :-2, 1:-1] + p[:, 1:-1, 2:] + p[:, 1:-1, :-2]
        - 4.0 * p[:, 1:-1, 1:-1]
    )  # fmt: skip


laplacian.vjp(u=lambda g: laplacian(g))  # it is its own transpose, and keeps nothing


@op()
def leapfrog(u: Any, before: Any, push: Any) -> Any:
    """The next time level from two. One op instead of three: no temporaries, fewer nodes."""
    return 2.0 * u - before + push


leapfrog.vjp(u=lambda g: 2.0 * g, before=lambda g: -g, push=lambda g: g)


def wave(
    *,
    depth: int = 100,
    size: int = 128,
    batch: int = 1,
    dtype: str = "float64",
    segments: int | None = None,
) -> Workload:
    """``depth`` leapfrog steps of u_tt = speed (u_xx + u_yy), ``batch`` experiments at once.

    The parameter is the squared speed at each of ``size`` x ``size`` points, in units of the grid's
    step per time step; a step keeps its Laplacian. Two time levels cross every cut.
    """

    def loss(speed: Any, start: Any, observed: Any) -> Any:
        def step(state: Any) -> Any:
            u, before = state
            return leapfrog(u, before, speed * laplacian(u)), u

        u, _ = run_layers([step] * depth, (start, start), segments)
        return np.mean(np.square(u - observed))

    speed = Array((1, size, size), 0.01, mean=0.2)
    field = Array((batch, size, size), 1.0)
    return Workload(loss, (speed, field, field), dtype)


def heat(
    *,
    depth: int = 100,
    size: int = 128,
    batch: int = 1,
    dtype: str = "float64",
    segments: int | None = None,
) -> Workload:
    """``depth`` Euler steps of u_t = k (u_xx + u_yy); the parameter is k at each point.

    One value crosses every cut, and all steps are equal, as Revolve assumes.
    """

    def loss(conductivity: Any, start: Any, observed: Any) -> Any:
        def step(u: Any) -> Any:
            return u + conductivity * laplacian(u)

        return np.mean(np.square(run_layers([step] * depth, start, segments) - observed))

    conductivity = Array((1, size, size), 0.01, mean=0.2)
    field = Array((batch, size, size), 1.0)
    return Workload(loss, (conductivity, field, field), dtype)
