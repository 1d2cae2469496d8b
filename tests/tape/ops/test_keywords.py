"""Every option of every NumPy function that takes Values: as NumPy has it, or refused."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest

import ckpt
import ckpt.tape
from ckpt.errors import CkptError, MutationError, UnsupportedError
from ckpt.tape.core import tree
from ckpt.tape.core.dispatch import name_of
from ckpt.tape.core.op import ADAPTERS, NUMPY

RNG = np.random.default_rng(0)
A = RNG.uniform(0.2, 0.8, (3, 3))
B = RNG.uniform(0.25, 0.75, (3, 3))
S = A + A.T + 3 * np.eye(3)
V = RNG.uniform(0.2, 0.8, 4)
C = RNG.uniform(0.2, 0.8, (2, 3, 4))
MASK = np.array([True, False, True])

OPTIONS = {
    "axis": [0, -1, (0, 1)], "keepdims": [True], "dtype": [np.float32, int, "f8", complex],
    "ddof": [1], "correction": [1], "mean": [np.array(0.5)], "where": [True, MASK],
    "initial": [0, 2.0], "order": ["C", "F", "K"], "subok": [True, False], "copy": [True, False],
    "mode": ["raise", "wrap", "clip", "constant", "reduced", "complete", "r"],
    "casting": ["unsafe", "same_kind"], "like": [None], "out": [None], "kind": ["stable"],
    "stable": [True], "returned": [True, False], "nan": [3.0], "posinf": [3.0], "neginf": [3.0],
    "endpoint": [False], "retstep": [True], "num": [5], "prepend": [1.0], "append": [1.0],
    "n": [2], "k": [1, -1], "offset": [1, -1], "axis1": [1], "axis2": [0], "axes": [(1, 0), 0],
    "norm": ["ortho", "forward"], "s": [(2, 2)],
    "ord": [1, 2, np.inf, -np.inf, "fro", "nuc", 0, -1],
    "compute_uv": [False], "full_matrices": [False], "hermitian": [True], "UPLO": ["U"],
    "upper": [True], "rcond": [1e-3], "rtol": [1e-3], "decimals": [1, -1], "deg": [True],
    "default": [2.0], "shift": [1, (1, 1)], "start": [1], "edge_order": [2], "dx": [0.5],
    "x": [np.arange(3.0)], "to_end": [9.0], "to_begin": [9.0], "optimize": [True, "optimal"],
    "device": ["cpu", None], "axisa": [0], "axisb": [0], "axisc": [0], "side": ["right"],
    "right": [True], "equal_nan": [True], "atol": [1.0], "tol": [50], "p": [1, 2, -2, "fro"],
    "shape": [(3, 3)], "minlength": [9], "weights": [np.arange(1.0, 4), B],
    "sorter": [np.array([3, 1, 0, 2])], "descending": [True], "min": [0.3], "max": [0.6],
}  # fmt: skip
OF_TEXT = {
    "max_line_width", "precision", "suppress_small", "separator", "prefix", "formatter",
    "threshold", "edgeitems", "sign", "floatmode", "suffix", "legacy",
}  # fmt: skip
"""Options of what makes strings, which are NumPy's own functions."""
ELSEWHERE = {"varargs": "test_choosing", "kwargs": "here", "b": "test_linalg"}
"""Arguments of some number or kind of their own, and where they are tried."""
ARGUMENTS = {
    "take": (A, [2, 0]), "compress": ([True, False, True], A), "extract": (A > 0.5, A),
    "where": (A > 0.5, A, A.T), "select": ([A > 0.5], [A]),
    "choose": (np.array([0, 1, 0]), [A[0], A[1]]), "pad": (A, 1), "roll": (A, 1), "tile": (A, 2),
    "repeat": (A, 2), "reshape": (A, (9,)), "moveaxis": (C, 0, -1), "rollaxis": (C, 2),
    "swapaxes": (A, 0, 1), "broadcast_to": (A, (2, 3, 3)), "expand_dims": (A, 0),
    "array_split": (A, 2), "split": (A, 3), "vsplit": (A, 3), "hsplit": (A, 3), "dsplit": (C, 2),
    "concatenate": ([A, A],), "stack": ([A, A],), "vstack": ([A, A],), "hstack": ([A, A],),
    "dstack": ([A, A],), "column_stack": ([A, A],), "block": ([[A, A]],), "append": (A, A),
    "einsum": ("ij,jk", A, A), "tensordot": (A, A), "dot": (A, A), "inner": (A, A),
    "vdot": (A, A), "outer": (V, V), "kron": (A, A), "cross": (A, A), "matrix_power": (A, 2),
    "multi_dot": ([A, A, A],), "solve": (S, A), "tensorsolve": (S, A[0]), "tensorinv": (S, 1),
    "take_along_axis": (A, np.argsort(A, 1), 1), "partition": (A, 1), "argpartition": (A, 1),
    "searchsorted": (np.sort(V), V), "digitize": (V, np.array([0.3, 0.5])),
    "bincount": (np.array([0, 1, 1, 2]), V), "full_like": (A, 1.0), "astype": (A, "f4"),
    "ldexp": (A, 2), "linspace": (A[0], A[1]), "clip": (A, 0.3, 0.6), "squeeze": (A[None],),
    "isclose": (A, A.T), "allclose": (A, A), "array_equal": (A, A), "hfft": (A.astype(complex),),
    "diagflat": (V,), "vecdot": (A, A), "matvec": (A, A[0]), "vecmat": (A[0], A), "matmul": (A, A),
    "can_cast": (A, "f4"), "result_type": (A, "f4"), "common_type": (A, A),
    "broadcast_arrays": (A, A[0]), "arccosh": (A + 1,),
}  # fmt: skip
WRITES = {"copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal"}
INTEGERS = {"gcd", "lcm", "left_shift", "right_shift", "bitwise_and", "bitwise_or", "bitwise_xor"}
UNSET = {"empty_like", "invert"} | WRITES | INTEGERS
PADDINGS = [
    *({"mode": m} for m in ("constant", "edge", "reflect", "symmetric", "wrap", "mean")),
    *({"constant_values": v} for v in (2.0, (1.0, 2.0), ((1.0, 2.0), (3.0, 4.0)))),
    {"mode": "reflect", "reflect_type": "odd"}, {"mode": "mean", "stat_length": 2},
]  # fmt: skip


def calls(function):
    """Arguments, and options one at a time."""
    name = function.__name__
    if isinstance(function, np.ufunc):
        given = ARGUMENTS.get(name, (A, B)[: function.nin])
        names = ["where", "casting", "order", "dtype", "subok"]
    else:
        given = ARGUMENTS.get(name, (S if "linalg" in name_of(function) else A,))
        names = list(inspect.signature(function).parameters)[len(given) :]
        names = ["optimize", "dtype", "order", "casting", "out"] if name == "einsum" else names
    options = [{n: v} for n in names for v in OPTIONS.get(n, ())]
    return given, [{}, *(PADDINGS if name == "pad" else options)]


def functions():
    import ckpt.nn  # noqa: F401

    found = {name_of(f): f for f in {**NUMPY, **ADAPTERS} if not isinstance(_of(f), np.ufunc)}
    return [f for n, f in sorted(found.items()) if n[:3] == "np." and f.__name__ not in UNSET]


def _of(function):
    """The ufunc whose method this is."""
    return getattr(function, "__self__", None)


def floats(x):
    return isinstance(x, np.ndarray) and x.dtype.kind in "fc"


def leaves(result):
    return [x.data if isinstance(x, ckpt.Value) else x for x in tree.leaves(result)]


def test_no_option_goes_untried():
    """One that a new NumPy brings is decided, and tried, before this passes."""
    for function in functions():
        if not isinstance(function, np.ufunc) and function is not np.einsum:
            given, _ = calls(function)
            names = list(inspect.signature(function).parameters)[len(given) :]
            untried = set(names) - {*OPTIONS, *OF_TEXT, *ELSEWHERE}
            assert not untried, f"{name_of(function)}: {untried}"


@pytest.mark.parametrize("function", functions(), ids=name_of)
def test_every_option_is_numpys_or_refused(function):
    given, options = calls(function)
    for option in options:
        said = f"{name_of(function)} {option}"
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                right = function(*given, **option)
            except Exception:
                continue  # NumPy doesn't take it
            try:
                made = function(
                    *(tree.rebuild(a, lambda x: ckpt.Value(x) if floats(x) else x) for a in given),
                    **option,
                )
            except CkptError:
                assert option or function.__name__ in ("lstsq", "matrix_rank"), said
                continue
        for ours, theirs in zip(leaves(made), leaves(right), strict=True):
            ours, theirs = np.asarray(ours), np.asarray(theirs)
            assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), said
            if theirs.dtype.kind in "fciub":
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12, err_msg=said)


@pytest.mark.parametrize("function", functions(), ids=name_of)
def test_every_option_has_its_gradient(function):
    """By differences, whatever of it isn't refused; sums of whole numbers have none."""
    given, options = calls(function)
    numbers = [k for k, a in enumerate(given) if floats(a)]
    if not numbers or function is np.linalg.cholesky:  # whose gradient is of symmetric changes
        return
    for option in options:

        def loss(*arrays, option=option):
            places = dict(zip(numbers, arrays, strict=True))
            made = function(*(places.get(k, a) for k, a in enumerate(given)), **option)
            parts = [p for p in tree.leaves(made) if getattr(p, "requires_grad", False)]
            parts = [p for p in parts if p.dtype.kind in "fc" and p.dtype.itemsize >= 8]
            vectors = function.__name__ in ("eig", "eigh", "svd")  # of any sign or phase
            return [np.abs(p) for p in parts] if vectors else parts

        arrays = [given[k] for k in numbers]
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                function(*given, **option)
                if loss(*map(ckpt.Value, arrays)):
                    ckpt.gradcheck(loss, *arrays, argnums=tuple(range(len(arrays))), rtol=1e-4)
            except (UnsupportedError, MutationError, TypeError, ValueError, np.linalg.LinAlgError):
                continue
