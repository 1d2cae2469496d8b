"""Every NumPy function that has a rule, of arguments in odd layouts: traced, planned, the same."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import ckpt
from ckpt.tape.core import tree
from ckpt.tape.core.dispatch import name_of
from tests.tape.ops.test_keywords import calls, floats, functions
from tests.tape.test_strides import wrong_strides

DEPENDS = {
    "allclose", "argwhere", "array2string", "array_equal", "array_repr", "array_str", "digitize",
    "eig", "eigvals", "flatnonzero", "isfortran", "nonzero", "searchsorted",
}  # fmt: skip
"""What they give, its shape or its dtype depends on values, so they can't be traced."""


def layouts(a, deep):
    """Every other element backwards, and broadcast; F-order, a transposed block, of one element."""
    grown = np.zeros([2 * n for n in a.shape], a.dtype)
    back = grown[tuple([slice(None, None, -2)] * a.ndim)]
    back[...] = a
    yield back
    yield np.broadcast_to(a[:1], a.shape)
    if not deep:
        return
    yield np.asfortranarray(a)
    yield np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(a.ndim - 1, *range(a.ndim - 1))
    yield a[:1]


def loss_of(function, given, option, numbers):
    def loss(*arrays):
        places = dict(zip(numbers, arrays, strict=True))
        made = function(*(places.get(k, a) for k, a in enumerate(given)), **option)
        parts = [p for p in tree.leaves(made) if getattr(p, "requires_grad", False)]
        total = 0 * sum(np.sum(np.real(array)) for array in arrays)
        for part in parts:
            total = total + np.sum(np.abs(part) if part.dtype.kind == "c" else np.sin(part) * part)
        return total

    return loss


@pytest.mark.parametrize("function", functions(), ids=name_of)
def test_layouts_of_every_function(function, pytestconfig):
    """A trace infers the strides that the run makes; a planned step has the plain step's bits."""
    deep = "slow" in pytestconfig.getoption("markexpr").replace("not slow", "")
    given, options = calls(function)
    numbers = [k for k, a in enumerate(given) if floats(a) and a.ndim]
    for option in options if deep else options[:1]:
        loss = loss_of(function, given, option, numbers)
        argnums = tuple(range(len(numbers)))
        for k, number in enumerate(numbers):
            for odd in layouts(given[number], deep):
                arrays = [given[n] for n in numbers]
                arrays[k] = odd
                with warnings.catch_warnings(), np.errstate(all="ignore"):
                    warnings.simplefilter("ignore")
                    try:
                        right = ckpt.value_and_grad(loss, argnums)(*arrays)
                    except (ckpt.CkptError, ValueError, TypeError, IndexError):
                        continue  # not of such an argument, or with no such option
                    if function.__name__ in DEPENDS:
                        with pytest.raises(ckpt.AbstractError):
                            ckpt.trace(loss, *arrays)
                        continue
                    where = f"{option} {odd.shape} {odd.strides}"
                    wrong = wrong_strides(loss, *arrays)
                    assert not wrong, f"{where}: {wrong[0]}"
                    step = ckpt.plan(loss, *arrays, argnums=argnums, planner="recompute_all")
                    for _ in range(2):  # the second finds the arena as the first has left it
                        assert bits(step(*arrays)) == bits(right), where


def bits(results):
    return [np.asarray(leaf).tobytes() for leaf in tree.leaves(results)]
