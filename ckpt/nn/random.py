"""Dropout. Its mask is a node, a byte an element, drawn again from the generator's saved state."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.tape.core.abstract import AbstractArray, fresh
from ckpt.tape.core.op import op
from ckpt.tape.ops.pointwise.arithmetic import anywhere
from ckpt.tape.ops.pointwise.buffers import buffers

_DRAW = 1 << 13
"""Uniform numbers drawn at a time: 32 KiB of float32."""


@op(
    infer=lambda *, rng, shape, keep: AbstractArray(shape, bool),
    flops=lambda out, **_: out.size,
    workspace=lambda out, **_: 4 * min(out.size, _DRAW),
    random=True,
)
def dropout_mask(*, rng: Any, shape: tuple[int, ...], keep: float) -> Any:
    """True with probability ``keep``, from float32 uniform numbers."""
    out = np.empty(shape, bool)
    flat = out.reshape(-1)
    numbers = np.empty(min(out.size, _DRAW), np.float32)
    for start in range(0, out.size, _DRAW):
        part = flat[start : start + _DRAW]
        drawn = rng.random(out=numbers[: part.size], dtype=np.float32)
        np.less(drawn, keep, out=part)
    return out if shape else out[()]


@op(
    infer=lambda x, mask, *, scale: fresh(np.multiply, x.shape, x, mask),
    flops=lambda out, x, mask, *, scale: 2 * out.size,
    workspace=lambda out, x, mask, *, scale: buffers(out, x, mask),
    over=anywhere,
)
def masked(x: Any, mask: Any, *, scale: float, out: Any = None) -> Any:
    """x * scale where the mask is True, 0 elsewhere."""
    made = np.multiply(x, mask, out=out)
    made *= scale
    return made


masked.vjp(x=lambda g, mask, scale: masked(g, mask, scale=scale), mask=None)


def dropout(x: Any, rate: float, rng: np.random.Generator) -> Any:
    """Zero each element with probability ``rate``, and scale the others by 1 / (1 - rate).

    ``rng`` advances as it would by ``rng.random(x.shape, dtype=np.float32)``. A checkpointed
    function, and any schedule, draws each mask again from the state that the generator was in.
    At rate 0 nothing is drawn and x is returned as it is (Srivastava et al., 2014).
    """
    if not 0 <= rate < 1:
        raise UsageError(f"the dropout rate must be at least 0 and below 1, not {rate}")
    if rate == 0:
        return x
    if not isinstance(rng, np.random.Generator):
        raise UsageError(
            f"dropout draws from a numpy.random.Generator (np.random.default_rng(seed)), "
            f"not from a {type(rng).__name__}"
        )
    mask = dropout_mask(rng=rng, shape=tuple(x.shape), keep=1.0 - rate)
    return masked(x, mask, scale=1.0 / (1.0 - rate))
