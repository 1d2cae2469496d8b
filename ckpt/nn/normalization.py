"""Layer, batch, group and RMS norm: one op (see `ckpt.nn.normalized`) over different axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.normalized import Axes, normalized, row_mean, row_rstd
from ckpt.tape.ops.reducing.reductions import axes_of


def _normalize(x: Any, weight: Any, bias: Any, axes: Axes, eps: float, center: bool = True) -> Any:
    mean = row_mean(x, axes=axes) if center else 0.0
    rstd = row_rstd(x, mean, axes=axes, eps=eps)
    weight = 1.0 if weight is None else _in_dtype(weight, rstd.dtype)
    bias = 0.0 if bias is None else _in_dtype(bias, rstd.dtype)
    return normalized(x, mean, rstd, weight, bias, axes=axes, eps=eps)


def _in_dtype(a: Any, dtype: Any) -> Any:
    """A weight or bias as an array that the op takes: of the result's dtype, and with axes."""
    a = a if hasattr(a, "dtype") else np.asarray(a)
    if a.dtype != dtype:
        if not np.can_cast(a.dtype, dtype, "same_kind"):
            raise UsageError(f"weight and bias of a {dtype} array can't be {a.dtype}")
        a = a.astype(dtype)
    return a if a.ndim else np.reshape(a, 1)


def _trailing(x: Any, axis: int | tuple[int, ...]) -> Axes:
    axes = tuple(sorted(axes_of(axis, x.ndim)))
    if not axes or axes != tuple(range(x.ndim - len(axes), x.ndim)):
        raise UsageError(f"the axes to normalize over are the last ones, not {axis} of {x.ndim}")
    return axes


def layer_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
) -> Any:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, or the last ones.

    ``weight`` and ``bias`` have the shape of those axes (Ba, Kiros and Hinton, 2016,
    arXiv:1607.06450).
    """
    return _normalize(x, weight, bias, _trailing(x, axis), eps)


def rms_norm(
    x: Any, weight: Any = None, *, axis: int | tuple[int, ...] = -1, eps: float = 1e-5
) -> Any:
    """x / sqrt(mean(x²) + eps) * weight over the last axes (Zhang and Sennrich, 2019)."""
    return _normalize(x, weight, None, _trailing(x, axis), eps, center=False)


def batch_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    mean: Any = None,
    variance: Any = None,
    eps: float = 1e-5,
) -> Any:
    """Normalize each channel, axis 1 of (N, C, …), over the batch and the positions.

    ``weight`` and ``bias`` have shape (C,). With ``mean`` and ``variance``, (C,) each, those are
    used in place of the batch's own, as in evaluation (Ioffe and Szegedy, 2015, arXiv:1502.03167).
    """
    if x.ndim < 2:
        raise UsageError(f"batch_norm needs an array of shape (N, C, ...), not {x.shape}")
    shape = (1, x.shape[1], *(1,) * (x.ndim - 2))
    weight, bias = (a if a is None else np.reshape(a, shape) for a in (weight, bias))
    if (mean is None) != (variance is None):
        raise UsageError("batch_norm takes mean and variance together, or neither")
    if mean is not None:
        scale = np.reshape(1 / np.sqrt(variance + eps), shape)
        scale = scale if weight is None else scale * weight
        out = (x - np.reshape(mean, shape)) * scale
        return out if bias is None else out + bias
    return _normalize(x, weight, bias, (0, *range(2, x.ndim)), eps)


def group_norm(
    x: Any, groups: int, weight: Any = None, bias: Any = None, *, eps: float = 1e-5
) -> Any:
    """Normalize each image's channels, axis 1 of (N, C, …), in ``groups`` groups.

    ``weight`` and ``bias`` have shape (C,) (Wu and He, 2018, arXiv:1803.08494).
    """
    n, channels, *rest = x.shape
    if groups < 1 or channels % groups:
        raise UsageError(f"{channels} channels can't be split into {groups} groups")
    split = (groups, channels // groups, *(1,) * len(rest))
    weight, bias = (a if a is None else np.reshape(a, split) for a in (weight, bias))
    grouped = np.reshape(x, (n, groups, channels // groups, *rest))
    out = _normalize(grouped, weight, bias, tuple(range(2, grouped.ndim)), eps)
    return np.reshape(out, x.shape)
