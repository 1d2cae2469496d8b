"""Scaled dot-product attention, made of nodes whose residuals can be read off a profile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.random import dropout
from ckpt.nn.softmax import masked_softmax


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    scale: float | None = None,
    rate: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Any:
    """softmax(scale q kᵀ) v: q is (..., queries, d), k (..., keys, d), v (..., keys, e).

    ``causal``: no query sees a later key, the last query being at the last key. ``scale`` is
    1/sqrt(d) unless given. ``rate`` is that of dropout on the weights, drawn from ``rng``. Keeps q,
    k, v and the weights; the scores are gone at once (Vaswani et al., 2017, section 3.2.1).
    """
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise UsageError(
            f"attention: q {q.shape} and k {k.shape} need equal last axes, "
            f"k and v {v.shape} equal second-to-last ones"
        )
    if causal and q.shape[-2] > k.shape[-2]:
        raise UsageError(
            f"causal attention of {q.shape[-2]} queries needs as many keys, not {k.shape[-2]}"
        )
    scores = q @ np.swapaxes(k, -1, -2)
    weights = masked_softmax(
        scores, scale=1 / math.sqrt(q.shape[-1]) if scale is None else scale, causal=causal
    )
    if rate:
        weights = dropout(weights, rate, rng)  # type: ignore[arg-type]
    return weights @ v
