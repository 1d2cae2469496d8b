"""Functions of plain arrays: NumPy itself computes them in an eager step, so a planned step, a
region and a schedule have NumPy's bits too, and hold what NumPy's own code holds."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import abstract
from ckpt.tape.core.dispatch import name_of
from ckpt.tape.core.op import NUMPY, ROUNDED
from ckpt.units import KIB
from tests.tape.ops.test_keywords import calls, floats, functions
from tests.tape.ops.test_layouts import DEPENDS, bits, layouts

W = np.ones(2)


def of_plain(function, given, option, numbers):
    """A loss of w alone, and what the function makes of the arrays in these places."""

    def loss(w, *arrays):
        places = dict(zip(numbers, arrays, strict=True))
        made = function(*(places.get(k, a) for k, a in enumerate(given)), **option)
        return np.sum(w * w), list(tree.leaves(made))

    return loss


def larger(a, seed):
    """More elements than NumPy adds in one go."""
    grown = np.tile(a, [7 if n > 1 else 1 for n in a.shape])
    return grown + 0.1 * np.random.default_rng(seed).random(grown.shape).astype(a.dtype)


def same_bits(loss, arrays):
    """Is a planned step's result the eager step's? None: the call isn't for such arrays."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            right = ckpt.value_and_grad(loss, 0, has_aux=True)(W, *arrays)
        except (ckpt.CkptError, ValueError, TypeError, IndexError, np.linalg.LinAlgError):
            return None
        try:
            step = ckpt.plan(loss, W, *arrays, argnums=0, has_aux=True, planner="recompute_all")
        except (ckpt.AbstractError, ckpt.UnsupportedError):
            return None
        return bits(step(W, *arrays)) == bits(right)


@pytest.mark.parametrize("function", functions(), ids=name_of)
def test_every_function_of_plain_arrays_has_numpys_bits(function, pytestconfig):
    deep = "slow" in pytestconfig.getoption("markexpr").replace("not slow", "")
    given, options = calls(function)
    numbers = [k for k, a in enumerate(given) if floats(a) and a.ndim]
    compared = 0
    for option in options if deep else options[:1]:
        loss = of_plain(function, given, option, numbers)
        small = [given[k] for k in numbers]
        for arrays in (small, [larger(a, k) for k, a in enumerate(small)]):
            odd = [
                [*arrays[:k], other, *arrays[k + 1 :]]
                for k in range(len(arrays))
                for other in layouts(arrays[k], deep)
            ]
            for variant in [arrays, *odd]:
                shown = [(a.shape, a.strides) for a in variant]
                same = same_bits(loss, variant)
                assert same in (True, None), f"{option} {shown}"
                compared += same is not None
    assert compared or function.__name__ in {*DEPENDS, "lstsq", "matrix_rank"}  # refused


HELD = {
    "cond": np.linalg.cond, "cond1": lambda a: np.linalg.cond(a, 1),
    "condF": lambda a: np.linalg.cond(a, "fro"), "dot": lambda a: np.dot(a, a),
    "eigvalsh": np.linalg.eigvalsh, "einsum": lambda a: np.einsum("ij,kj,lj->kl", a, a, a),
    "einsum of two": lambda a: np.einsum("ij,kj->ki", a, a),
    "einsum of kinds": lambda a: np.einsum("ij,jk->ik", a, np.real(a).astype("f4")),
    "einsum by a path": lambda a: np.einsum("ij,jk,kl->il", a, a, a, optimize=True),
    "inner": lambda a: np.inner(a, a), "kron": lambda a: np.kron(a[:9, :9], a),
    "matrix_norm": np.linalg.matrix_norm, "nuclear": lambda a: np.linalg.norm(a, "nuc"),
    "matrix_power": lambda a: np.linalg.matrix_power(a, 3),
    "multi_dot": lambda a: np.linalg.multi_dot([a, a, a]), "nanmean": np.nanmean,
    "nansum": lambda a: np.nansum(a, axis=0), "norm": np.linalg.norm,
    "norm 3": lambda a: np.linalg.norm(a, 3, axis=1), "partition": lambda a: np.partition(a, 3),
    "norm of rows": lambda a: np.linalg.norm(a, axis=1), "pinv": np.linalg.pinv,
    "hermitian": lambda a: np.linalg.pinv(a, hermitian=True), "svdvals": np.linalg.svdvals,
    "svd": lambda a: np.linalg.svd(a, compute_uv=False), "vdot": lambda a: np.vdot(a, a),
    "tensordot": lambda a: np.tensordot(a, a, axes=1), "vector_norm": np.linalg.vector_norm,
}  # fmt: skip


EXACT = {"dot", "eigvalsh", "einsum of two", "inner", "partition", "svd", "svdvals"}
"""Of arrays in C order, what is held; of the others as much at most."""


@pytest.mark.parametrize("name", HELD)
def test_numpys_own_code_keeps_the_promise(name):
    plain = np.random.default_rng(0).standard_normal((96, 96)) + np.eye(96)
    for a in (plain, (plain * (1 + 0.2j))[:, ::-1]):

        def loss(w, a):
            return np.sum(w * w), HELD[name](a)

        step = ckpt.plan(loss, W, a, argnums=0, has_aux=True, planner="store_all")
        assert any(node.op == "as_numpy" for node in step.graph.nodes)
        found = step.verify(W, a)  # raises where the measured peak is above the promise
        if name in EXACT and a is plain:
            assert found.measured == pytest.approx(found.promised, abs=8 * KIB)


def test_every_function_of_the_table_is_tried_here():
    tried = {function.__name__ for function in ROUNDED} - {"pow", "svd"}
    assert tried <= {name.split()[0] for name in HELD}


KINDS = ("?", "i1", "i8", "f2", "f4", "f8", "c8", "c16")


def elementwise():
    return [f for f in NUMPY if isinstance(f, np.ufunc) and NUMPY[f].forward is f]


@pytest.mark.parametrize("ufunc", elementwise(), ids=name_of)
def test_buffers_of_every_ufunc_and_dtype(ufunc):
    """np.sqrt takes integers as float64, and copies them piece by piece."""
    tried = 0
    for kinds in itertools.product(KINDS, repeat=ufunc.nin):
        arrays = [np.full((96, 96), 2).astype(kind) for kind in kinds]
        with np.errstate(all="ignore"):
            try:
                ufunc(*arrays)
            except TypeError:
                continue
            tracemalloc.start()
            ufunc(*arrays)
            measured = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        given = [abstract(a) for a in arrays]
        try:
            out = NUMPY[ufunc].infer(*given)
        except ckpt.CkptError:
            continue
        predicted = out.nbytes + NUMPY[ufunc].workspace(out, *given)
        assert abs(measured - predicted) < 4096, kinds
        tried += 1
    assert tried


def test_what_a_region_draws_is_numpys_too():
    """A region records what it draws, so that what follows is of Values there."""

    def loss(w, x, rng):
        x = nn.dropout(x, 0.3, rng)
        made = np.einsum("ij,ij", x, x) * np.linalg.eigvalsh(x.T @ x) + np.dot(x.T, x)
        return np.sum(w * made) * np.linalg.norm(x)

    x, w = np.random.default_rng(0).random((5, 4)), np.ones((4, 4))
    right = bits(ckpt.value_and_grad(loss)(w, x, np.random.default_rng(1)))
    wrapped = ckpt.value_and_grad(lambda *args: ckpt.checkpoint(loss)(*args))
    assert bits(wrapped(w, x, np.random.default_rng(1))) == right
    step = ckpt.plan(loss, w, x, np.random.default_rng(1), argnums=0, planner="recompute_all")
    assert bits(step(w, x, np.random.default_rng(1))) == right
