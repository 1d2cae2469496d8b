"""Losses: cross-entropy of integer classes or of probabilities, and mean squared error."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.blocks import (
    block_nbytes,
    block_scratch,
    copied_nbytes,
    float_dtype,
    infer_float,
    row_blocks,
    row_buffer,
    rows_in_block,
)
from ckpt.nn.softmax import log_softmax
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op
from ckpt.tape.ops.reducing.reductions import axes_of


def _rows(logits: Any, targets: Any) -> tuple[Any, Any]:
    """Logits and targets as (rows, classes) and (rows,); no target may be out of range."""
    classes = logits.shape[-1]
    targets = np.asarray(targets).reshape(-1)
    if targets.size and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise UsageError(
            f"cross_entropy's targets go from {targets.min()} to {targets.max()}, "
            f"and the logits have classes 0 to {classes - 1}"
        )
    return np.ascontiguousarray(logits).reshape(-1, classes), targets


def _rows_of(logits: Any) -> tuple[int, int]:
    return logits.size // max(logits.shape[-1], 1), logits.shape[-1]


def _numbers(logits: Any, targets: Any) -> int:
    """Three for each row of a block - the greatest, and those that find the target -, and a fourth
    where targets are cast to indices; or one, and the buffer in which it is spread over its row."""
    rows = _rows_of(logits)
    one = 8 * min(rows_in_block(rows), rows[0])
    cast = np.result_type(targets) != np.dtype(np.intp)
    return int(max((3 + cast) * one, one + row_buffer(logits, logits.itemsize)))


@op(
    infer=lambda logits, targets: AbstractArray(logits.shape[:-1], float_dtype(logits)),
    flops=lambda out, logits, targets: 4 * logits.size,
    workspace=lambda out, logits, targets: (
        block_nbytes(_rows_of(logits), logits.itemsize)
        + _numbers(logits, targets)
        + copied_nbytes(logits, targets)
    ),
)
def class_losses(logits: Any, targets: Any) -> Any:
    """logsumexp(logits) - logits[target], along the last axis. Keeps the logits."""
    shape = logits.shape[:-1]
    logits, targets = _rows(logits, targets)
    out = np.empty(len(logits), float_dtype(logits))
    scratch = block_scratch(logits, out.dtype)
    for part in row_blocks(logits.shape):
        rows, right, found = logits[part], targets[part], out[part]
        top = np.max(rows, axis=-1)
        shifted = np.subtract(rows, top[:, None], out=scratch[: len(rows)])
        np.exp(shifted, out=shifted)
        np.sum(shifted, axis=-1, out=found)
        np.log(found, out=found)
        found += top
        found -= rows[np.arange(len(rows)), right]
    out = out.reshape(shape)
    return out if shape else out[()]


@op(
    infer=lambda dy, logits, targets: infer_float(logits),
    flops=lambda out, dy, logits, targets: 6 * logits.size,
    workspace=lambda out, dy, logits, targets: (
        copied_nbytes(dy, logits, targets) + _numbers(logits, targets)
    ),
    over=lambda k, *_: 0 if k == 1 else None,
)
def class_losses_backward(dy: Any, logits: Any, targets: Any, *, out: Any = None) -> Any:
    """dy (softmax(logits) - 1 at the target)."""
    shape = logits.shape
    out = np.empty(shape, float_dtype(logits)) if out is None else out
    logits, targets = _rows(logits, targets)
    dy = np.ascontiguousarray(dy).reshape(-1, 1)
    made = out.reshape(logits.shape)
    for part in row_blocks(logits.shape):
        rows = np.subtract(
            logits[part], np.max(logits[part], axis=-1, keepdims=True), out=made[part]
        )
        np.exp(rows, out=rows)
        rows /= np.sum(rows, axis=-1, keepdims=True)
        rows[np.arange(len(rows)), targets[part]] -= 1
        rows *= dy[part]
    return out


def _backward_logits(g: Any, dy: Any, logits: Any) -> Any:
    p = np.exp(log_softmax(logits))
    return np.expand_dims(dy, -1) * p * (g - np.sum(g * p, axis=-1, keepdims=True))


class_losses.vjp(
    logits=lambda g, logits, targets: class_losses_backward(g, logits, targets), targets=None
)
class_losses_backward.vjp(
    dy=lambda g, dy_shape, dy_dtype, logits, targets: np.sum(
        g * class_losses_backward(np.ones(dy_shape, dy_dtype), logits, targets), axis=-1
    ),
    logits=_backward_logits,
    targets=None,
)


def cross_entropy(logits: Any, targets: Any, *, axis: int = -1, reduction: str = "mean") -> Any:
    """-log softmax(logits)[target], averaged over all but the class axis.

    ``targets`` are integers, of the logits' shape without ``axis``, or probabilities of the logits'
    whole shape. ``reduction`` is "mean", "sum" or "none". Integer targets that aren't a
    class raise UsageError.
    """
    (axis,) = axes_of(axis, logits.ndim)
    if axis != logits.ndim - 1:
        logits = np.moveaxis(logits, axis, -1)
    if np.result_type(targets.dtype).kind in "iu":
        if np.shape(targets) != logits.shape[:-1]:
            raise UsageError(
                f"cross_entropy of logits with shape {logits.shape} (classes last) needs integer "
                f"targets of shape {logits.shape[:-1]}, not {np.shape(targets)}"
            )
        losses = class_losses(logits, targets)
    else:
        if axis != logits.ndim - 1:
            targets = np.moveaxis(targets, axis, -1)
        losses = -np.sum(targets * log_softmax(logits), axis=-1)
    return _reduced(losses, reduction)


def mse(x: Any, y: Any, *, reduction: str = "mean") -> Any:
    """(x - y)², averaged. ``reduction`` is "mean", "sum" or "none"."""
    return _reduced(np.square(x - y), reduction)


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "mean":
        return np.mean(losses)
    if reduction == "sum":
        return np.sum(losses)
    if reduction == "none":
        return losses
    raise UsageError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
