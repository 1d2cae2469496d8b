"""Cotangents as arrays: whose memory they lie in, how they are fitted, and how they are summed."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.tape.core.node import Parts, TapeNode

ndarray = np.ndarray


def contribute(dep: TapeNode, new: Any, g: Any) -> None:
    """Add ``new``, which a rule made of the incoming cotangent ``g``, to the cotangent of ``dep``.

    The first is kept as it comes, and said to be ``own`` if it is an array that nothing else
    shares. The next is added in place into whichever of the two is; if neither is, into a new one.
    """
    if new.shape != dep.shape or new.dtype != dep.dtype:
        new = fit(new, dep.shape, dep.dtype)
    if new is g:
        own = False
    elif type(new) is ndarray and new.base is not None:
        new, own = adopt(new, g) if dep.shape else (new[()], True)
    else:
        own = True
    current = dep.cotangent
    if current is None:
        if not own and dep.op is None:
            new, own = copy(new), True  # a gradient owns its array
        dep.cotangent = new
        dep.own = own
    elif dep.own:
        current += new
        dep.cotangent = current  # a NumPy scalar is added out of place
    elif own:
        new += current
        dep.cotangent = new
        dep.own = True
    else:
        dep.cotangent = current + new
        dep.own = True


def own_cotangent(dep: TapeNode) -> Any:
    """The cotangent of ``dep`` as an array of its own, to add a part into; zeros at first."""
    if dep.cotangent is None:
        dep.cotangent = zeros_like(dep)
    elif not dep.own:
        dep.cotangent = copy(dep.cotangent)
    dep.own = True
    return dep.cotangent


def fit(cotangent: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Sum a cotangent over the axes along which its operand was broadcast, and cast it."""
    extra = cotangent.ndim - len(shape)
    if (
        extra == 1
        and type(cotangent) is ndarray
        and cotangent.shape[1:] == shape
        and cotangent.dtype == dtype
    ):
        return np.add.reduce(cotangent, 0)
    axes = tuple(range(extra))
    if cotangent.shape[extra:] != shape:
        axes += tuple(
            extra + k
            for k, length in enumerate(shape)
            if length == 1 and cotangent.shape[extra + k] != 1
        )
    if axes and type(cotangent) is ndarray:
        cotangent = np.add.reduce(cotangent, axes)  # np.sum without what it wraps around that
    elif axes:
        cotangent = np.sum(cotangent, axis=axes)
    if cotangent.shape != shape:
        cotangent = np.reshape(cotangent, shape)
    if cotangent.dtype != dtype:
        if dtype.kind != "c" and cotangent.dtype.kind == "c":
            cotangent = np.real(cotangent)
        cotangent = np.astype(cotangent, dtype)
    return cotangent


def adopt(new: Any, g: Any) -> tuple[Any, bool]:
    """A rule's result that is a view: of the incoming cotangent, or of an array all its own?"""
    base = owner(new)
    if base is owner(g) or base.nbytes < new.nbytes:
        return new, False
    if base.nbytes > new.nbytes:
        return copy(new), True  # not to hold the rest of it
    return new, new.flags.writeable  # of one element, what is broadcast is no smaller


def owner(array: Any) -> Any:
    """The object that holds an array's memory."""
    while type(array) is ndarray and array.base is not None:
        array = array.base
    return array


def copy(array: Any) -> Any:
    """A copy with the layout NumPy gives to results."""
    return array.copy(order="K") if type(array) is ndarray else array


def zeros_like(node: TapeNode) -> Any:
    """Where parts of the node's cotangent are added in."""
    if type(node.dtype) is tuple:  # of an op with several results
        return Parts(np.zeros(s, d) for s, d in zip(node.shape, node.dtype, strict=True))
    return np.zeros(node.shape, node.dtype)
