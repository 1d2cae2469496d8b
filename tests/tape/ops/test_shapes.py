"""Shapes, joining, splitting and rearranging: what is a view, and what the copies cost."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import UnsupportedError
from tests.tape.ops.checking import check_agreement, check_op, layouts

RNG = np.random.default_rng(2)
X = RNG.normal(size=(2, 3, 4))
Y = RNG.normal(size=(2, 3, 4))

VIEWS = {
    "reshape": lambda x, np=np: np.reshape(x, (4, -1)),
    "reshape F": lambda x: np.reshape(x, (4, 6), order="F"),
    "ravel": lambda x, np=np: np.ravel(x),
    "transpose": lambda x, np=np: np.transpose(x),
    "transpose axes": lambda x: np.transpose(x, (1, -1, 0)),
    "swapaxes": lambda x, np=np: np.swapaxes(x, 0, -1),
    "moveaxis": lambda x, np=np: np.moveaxis(x, 0, -1),
    "moveaxis several": lambda x: np.moveaxis(x, (0, 2), (1, 0)),
    "rollaxis": lambda x, np=np: np.rollaxis(x, 2),
    "rollaxis start": lambda x, np=np: np.rollaxis(x, 0, 3),
    "matrix_transpose": lambda x: np.matrix_transpose(x),
    "permute_dims": lambda x: np.permute_dims(x, (2, 0, 1)),
    "expand_dims": lambda x, np=np: np.expand_dims(x, 1),
    "expand_dims several": lambda x: np.expand_dims(x, (0, -1)),
    "squeeze": lambda x, np=np: np.squeeze(x[:1]),
    "squeeze axis": lambda x, np=np: np.squeeze(x[:1], axis=0),
    "broadcast_to": lambda x: np.broadcast_to(x, (5, 2, 3, 4)),
    "broadcast_to ones": lambda x: np.broadcast_to(x[:, :1], (2, 3, 4)),
    "atleast_1d": lambda x, np=np: np.atleast_1d(x),
    "atleast_2d": lambda x, np=np: np.atleast_2d(x[0, 0]),
    "atleast_3d": lambda x, np=np: np.atleast_3d(x[0]),
    "atleast_3d of 1d": lambda x, np=np: np.atleast_3d(x[0, 0]),
    "flip": lambda x: np.flip(x, 1),
    "flip all": lambda x: np.flip(x),
    "flipud": lambda x, np=np: np.flipud(x),
    "fliplr": lambda x, np=np: np.fliplr(x),
    "rot90": lambda x, np=np: np.rot90(x),
    "rot90 k": lambda x: np.rot90(x, 3, (1, 2)),
    "rot90 twice": lambda x: np.rot90(x, 2, (0, 2)),
    "rot90 never": lambda x, np=np: np.rot90(x, 4),
    "diagonal": lambda x: np.diagonal(x, 1, 1, 2),
    "diagonal below": lambda x: np.diagonal(x, -1, 2, 0),
    "x.T": lambda x: x.T,
    "x.mT": lambda x: x.mT,
    "methods": lambda x: x.reshape(6, 4).swapaxes(0, 1).reshape((2, 2, -1)).transpose(1, 0, 2),
    "flatten": lambda x: x.flatten(),
}

COPIES = {
    "roll": lambda x, np=np: np.roll(x, 2, 1),
    "roll all": lambda x, np=np: np.roll(x, -3),
    "roll several": lambda x: np.roll(x, (1, 2), (0, 2)),
    "tile": lambda x, np=np: np.tile(x, (2, 1, 3)),
    "tile more": lambda x, np=np: np.tile(x, (3, 1, 1, 2)),
    "tile number": lambda x: np.tile(x, 2),
    "repeat": lambda x, np=np: np.repeat(x, 3, axis=1),
    "repeat all": lambda x, np=np: np.repeat(x, 2),
    "repeat each": lambda x: np.repeat(x, [2, 0, 1], axis=1),
    "pad": lambda x, np=np: np.pad(x, ((1, 0), (0, 2), (3, 1)), "constant"),
    "pad value": lambda x: np.pad(x, 1, constant_values=2.5),
    "pad edge": lambda x: np.pad(x, (2, 1), "edge"),
    "pad reflect": lambda x: np.pad(x, ((1, 1), (0, 0), (2, 3)), "reflect"),
    "pad wrap": lambda x: np.pad(x, 1, "wrap"),
    "pad symmetric": lambda x: np.pad(x, 2, "symmetric"),
    "tril": lambda x, np=np: np.tril(x),
    "triu": lambda x, np=np: np.triu(x, 1),
    "tril below": lambda x, np=np: np.tril(x, -1),
    "trace": lambda x: np.trace(x, 1, 1, 2),
    "diag of vector": lambda x, np=np: np.diag(x[0, 0]),
    "diag above": lambda x, np=np: np.diag(x[0, 0], 2),
    "diag below": lambda x, np=np: np.diag(x[0, 0], -1),
    "diag of matrix": lambda x: np.diag(x[0], 1),
    "diagflat": lambda x: np.diagflat(x),
    "concatenate": lambda x, np=np: np.concatenate([x, x * 2], axis=1),
    "concatenate flat": lambda x: np.concatenate([x, x * 2], axis=None),
    "concatenate plain": lambda x, np=np: np.concatenate([Y, x, Y], axis=-1),
    "stack": lambda x, np=np: np.stack([x, x * x, Y], axis=1),
    "stack last": lambda x, np=np: np.stack([x, x * x], -1),
    "vstack": lambda x, np=np: np.vstack([x[0], x[1]]),
    "vstack rows": lambda x, np=np: np.vstack([x[0, 0], x[0, 1]]),
    "hstack": lambda x, np=np: np.hstack([x[0], x[1]]),
    "hstack rows": lambda x, np=np: np.hstack([x[0, 0], x[0, 1]]),
    "dstack": lambda x, np=np: np.dstack([x[0], x[1]]),
    "column_stack": lambda x, np=np: np.column_stack([x[0, 0], x[0, 1], x[0].T]),
    "append": lambda x, np=np: np.append(x, x * 2, axis=0),
    "block": lambda x: np.block([[x[0], x[1]], [x[1] * 2, np.ones((3, 4))]]),
    "split": lambda x, np=np: np.split(x, 2, axis=2)[1],
    "split at": lambda x, np=np: np.split(x, [1, 3], axis=2)[1],
    "array_split": lambda x, np=np: np.array_split(x, 3, axis=2)[0],
    "vsplit": lambda x, np=np: np.vsplit(x, 2)[0],
    "hsplit": lambda x, np=np: np.hsplit(x, 3)[2],
    "dsplit": lambda x, np=np: np.dsplit(x, 2)[1],
    "unstack": lambda x: np.unstack(x, axis=1)[2],
    "broadcast_arrays": lambda x: np.broadcast_arrays(x[:, :1], Y)[0],
}


@pytest.mark.parametrize("name", [*VIEWS, *COPIES])
def test_gradients_and_layouts(name):
    f = {**VIEWS, **COPIES}[name]
    made = f(ckpt.Value(X))
    plain = f(X)
    assert np.array_equal(made.data, plain)
    check_op(f, X)
    for array in layouts(X, ("F", "rows", "columns", "reversed")):
        check_agreement(f, array)
        assert np.array_equal(f(ckpt.Value(array)).data, f(array))


SMALL_ONLY = {
    "reshape F", "broadcast_to", "broadcast_to ones", "methods", "diagflat", "block", "stack",
    "concatenate plain", "broadcast_arrays", "array_split", "vsplit", "hsplit", "dsplit",
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in (*VIEWS, *COPIES) if n not in SMALL_ONLY])
def test_memory_of_large_arrays_is_as_declared(name):
    f = {**VIEWS, **COPIES}[name]
    shape = {"split": (40, 3, 240), "split at": (40, 3, 240), "repeat each": (40, 3, 240)}
    x = RNG.normal(size=shape.get(name, (42, 40, 44)))
    for array in layouts(x, ("C", "F", "columns")):
        check_agreement(f, array, exact=False)


@pytest.mark.parametrize("name", VIEWS)
def test_views_cost_no_bytes(name):
    if name in ("reshape F", "rot90 never"):
        return
    program = ckpt.trace(lambda x: np.sum(VIEWS[name](x) ** 2), X)
    for node in program.graph:
        if node.op not in ("parameter", "power", "sum"):
            assert node.alias_of is not None, node
            assert node.flops == node.workspace == 0


def test_parts_of_a_split_share_one_buffer():
    program = ckpt.trace(
        lambda x: sum(np.sum(p**2) for p in np.split(x * 2, 4)), np.ones((8, 1000))
    )
    parts = [n for n in program.graph if n.op == "getitem"]
    assert len(parts) == 4
    assert len({n.alias_of for n in parts}) == 1


def test_numbers_and_empty_arrays():
    number = np.float64(1.5)
    for f in (
        lambda x: np.reshape(x, (1, 1)),
        lambda x: np.expand_dims(x, 0),
        lambda x: np.atleast_3d(x),
        lambda x: np.broadcast_to(x, (3, 2)),
        lambda x: np.squeeze(np.reshape(x, (1,))),
        lambda x: np.tile(x, 3),
        lambda x: np.stack([x, x * 2]),
        lambda x: np.hstack([x, x * x]),
        lambda x: np.transpose(x),
        lambda x: np.ravel(x),
    ):
        check_op(f, number)
    empty = np.zeros((0, 3))
    for f in (
        lambda x: np.reshape(x, (3, 0)),
        lambda x: x.T,
        lambda x: np.concatenate([x, np.ones((2, 3)) * np.sum(x)]),
        lambda x: np.tile(x, (2, 2)),
        lambda x: np.roll(x, 1, 1),
        lambda x: np.flip(x),
        lambda x: np.pad(x, 1),
    ):
        check_op(f, empty, differences=False)


def test_concatenating_dtypes_and_axes():
    single = X.astype(np.float32)
    check_agreement(lambda x, y: np.concatenate([x, y]), single, X)
    a, b = ckpt.grad(lambda x, y: np.sum(np.concatenate([x, y])), (0, 1))(single, X)
    assert (a.dtype, b.dtype) == (np.float32, np.float64)
    check_agreement(lambda x, y: np.stack([x, y], dtype=np.float32), X, X * 2)


def test_errors_are_numpys():
    x = ckpt.Value(X)
    with pytest.raises(ValueError, match="reshape"):
        np.reshape(x, (5, 5))
    with pytest.raises(ValueError, match=r"dimension|shapes"):
        np.concatenate([x, x[:, :2]])
    with pytest.raises(ValueError, match="at least one"):
        np.stack([])
    with pytest.raises(ValueError, match="shapes differ"):
        np.stack([x, x[0]])
    with pytest.raises(ValueError, match="array_split"):
        np.split(x, 3, axis=2)
    with pytest.raises(np.exceptions.AxisError):
        np.concatenate([x, x], axis=4)
    with pytest.raises(UnsupportedError, match="orders C and F"):
        np.ravel(x, order="K")
    with pytest.raises(UnsupportedError, match="modes constant"):
        np.pad(x, 1, "mean")
    with pytest.raises(UnsupportedError, match=r"np\.stack"):
        np.add([x, x], 1)
