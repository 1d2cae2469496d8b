"""Products of matrices. A multiply-add is 2 FLOPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.tape.abstract import AbstractArray, fresh
from ckpt.tape.op import op


def _infer_matmul(x: Any, w: Any) -> AbstractArray:
    xs, ws = x.shape, w.shape
    if not xs or not ws:
        raise ValueError("matmul: a scalar operand is not allowed; use * instead")
    rows = xs[-2:-1]
    columns = ws[-1:] if len(ws) > 1 else ()
    if xs[-1] != ws[-2 if len(ws) > 1 else 0]:
        raise ValueError(f"matmul: shapes {xs} and {ws} don't match")
    shape = (*np.broadcast_shapes(xs[:-2], ws[:-2]), *rows, *columns)
    return fresh(np.matmul, shape, x, w)


def _matmul_flops(out: Any, x: Any, w: Any) -> int:
    return 2 * int(out.size) * int(x.shape[-1])


@op(np.matmul, infer=_infer_matmul, flops=_matmul_flops)
def matmul(x: Any, w: Any) -> Any:
    return np.matmul(x, w)


def _matmul_x(g: Any, x_shape: Any, w: Any) -> Any:
    if len(w.shape) == 1:
        return np.expand_dims(g, -1) * w
    if len(x_shape) == 1:
        return np.matmul(np.expand_dims(g, -2), np.swapaxes(w, -1, -2))[..., 0, :]
    return np.matmul(g, w.mT)


def _matmul_w(g: Any, x: Any, w_shape: Any) -> Any:
    if len(x.shape) == 1:
        return x * g if len(w_shape) == 1 else np.expand_dims(x, -1) * np.expand_dims(g, -2)
    if len(w_shape) == 1:
        return np.matmul(np.swapaxes(x, -1, -2), np.expand_dims(g, -1))[..., 0]
    return np.matmul(x.mT, g)


matmul.forward = np.matmul  # the ufunc itself: one call less a product
matmul.vjp(x=_matmul_x, w=_matmul_w)
