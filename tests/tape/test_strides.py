"""The strides that a trace infers are the real ones, whatever the layout of the arguments."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from math import factorial
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.tape.execution import run
from tests.tape.ops.checking import lossy, store_all

RNG = np.random.default_rng(0)


def layouts(a: Any) -> Iterator[Any]:
    """The array in every order of axes, reversed, strided, and broadcast along each axis."""
    for order in itertools.permutations(range(a.ndim)):
        made = np.empty([a.shape[k] for k in order], a.dtype).transpose(np.argsort(order))
        made[...] = a
        yield made
    for index in ([slice(None, None, -1)] * a.ndim, [slice(None, None, 2)] * a.ndim):
        grown = np.zeros([2 * n for n in a.shape], a.dtype)
        made = grown[tuple(index)][tuple(slice(n) for n in a.shape)]
        made[...] = a
        yield made
    for axis, n in enumerate(a.shape):
        yield np.broadcast_to(a.take([0] if n else [], axis), a.shape)


def wrong_strides(function: Callable[..., Any], *args: Any) -> list[str]:
    """Each line of a traced run whose result doesn't lie as was inferred."""
    program = ckpt.trace(lossy(function), *args)
    found: list[str] = []
    perform = run._run

    def checked(line: Any, env: Any) -> None:
        perform(line, env)
        if line.result is None or line.kind in ("drop", "do"):
            return
        made, array = env[line.result], line.result.array
        several = isinstance(made, (tuple, list))
        for real, inferred in zip(made, array, strict=True) if several else [(made, array)]:
            lies = [s for n, s in zip(real.shape, real.strides, strict=True) if n > 1]
            said = [s for n, s in zip(inferred.shape, inferred.strides, strict=True) if n > 1]
            if real.shape != inferred.shape or (real.size and lies != said):
                found.append(f"{line.function}: {real.shape} {real.strides}, {inferred.strides}")

    run._run = checked
    try:
        with np.errstate(all="ignore"):
            program.execute(store_all(program.graph), *args)
    finally:
        run._run = perform
    return found


V = RNG.normal(size=3)
SQUARE = RNG.normal(size=(2, 3, 3)) + 4 * np.eye(3)
SYMMETRIC = SQUARE @ np.swapaxes(SQUARE, -1, -2)
INDEX = RNG.integers(0, 2, (2, 3))


def first(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: function(x)[0]


ANY: dict[str, Callable[..., Any]] = {
    "sin": np.sin,
    "square": np.square,
    "add": lambda x: x + x.T.T * 2,
    "matmul": lambda x: x @ np.ones((x.shape[-1], 2)),
    "times a row": lambda x: x * np.arange(float(x.shape[-1])),
    "sum": lambda x: np.sum(x, axis=-1),
    "sum, kept": lambda x: np.sum(x, axis=0, keepdims=True),
    "mean": lambda x: np.mean(x, axis=(0, -1)),
    "var": lambda x: np.var(x, axis=-1, keepdims=True),
    "max": lambda x: np.max(x, axis=0),
    "prod": lambda x: np.prod(x, axis=-1),
    "cumsum": lambda x: np.cumsum(x, axis=0),
    "cumprod": lambda x: np.cumprod(x, axis=-1),
    "sort": lambda x: np.sort(x, axis=-1),
    "flip": lambda x: np.sin(np.flip(x)),
    "roll": lambda x: np.roll(x, 1, axis=0),
    "reshape": lambda x: np.reshape(x, -1),
    "reshape F": lambda x: np.reshape(x, -1, order="F"),
    "swap": lambda x: np.exp(np.swapaxes(x, 0, -1)),
    "concatenate": lambda x: np.concatenate([x, x * 2]),
    "stack": lambda x: np.stack([x, x * 2], axis=-1),
    "repeat": lambda x: np.repeat(x, 2, axis=-1),
    "tile": lambda x: np.tile(x, 2),
    "pad": lambda x: np.pad(x, 1),
    "where": lambda x: np.where(x > 0, x, 0),
    "gather": lambda x: x[np.array([0, 0])],
    "gather a block": lambda x: x[INDEX.T % x.shape[0]],
    "gather reversed": lambda x: x[(INDEX % x.shape[0])[:, ::-1]],
    "take": lambda x: np.take(x, INDEX.T % x.shape[-1], axis=-1),
    "gather behind": lambda x: x[..., INDEX % x.shape[-1]],
    "slice": lambda x: np.sin(x[::-1]),
    "diff": lambda x: np.diff(x, axis=0),
    "clip": lambda x: np.clip(x, -1, 1),
    "norm": lambda x: np.linalg.norm(x, axis=-1),
    "outer": lambda x: np.outer(x, V),
    "tensordot": lambda x: np.tensordot(x, x, axes=([0], [0])),
    "einsum": lambda x: np.einsum("...i,...j->...ji", x, x),
    "fft": lambda x: np.abs(np.fft.fft(x, axis=0)),
    "rfft": lambda x: np.abs(np.fft.rfft(x)),
    "broadcast": lambda x: np.sin(np.broadcast_to(x, (2, *x.shape))),
    "astype": lambda x: x.astype("f4"),
    "softmax": lambda x: nn.softmax(x),
    "gelu": nn.gelu,
    "relu": nn.relu,
    "log_softmax": lambda x: nn.log_softmax(x),
    "layer_norm": lambda x: nn.layer_norm(x, np.ones(x.shape[-1]), np.zeros(x.shape[-1])),
    "squeeze": lambda x: np.sin(np.expand_dims(x, 0)),
    "trapezoid": lambda x: np.trapezoid(x, axis=0),
    "logsumexp": lambda x: np.log(np.sum(np.exp(x), axis=0)),
    "power": lambda x: np.power(np.abs(x), 1.5),
    "partition": lambda x: np.partition(x, 0, axis=0),
    "interp": lambda x: np.maximum(x, x[..., :1]),
    "kron": lambda x: np.kron(x, np.ones(2)),
    "triu": lambda x: np.triu(x) if x.ndim > 1 else x,
    "trace": lambda x: np.trace(x) if x.ndim > 1 else x,
}
SQUARES: dict[str, Callable[..., Any]] = {
    "inv": np.linalg.inv,
    "det": np.linalg.det,
    "slogdet": lambda x: np.linalg.slogdet(x)[1],
    "solve": lambda x: np.linalg.solve(x, x[..., :2]),
    "solve a vector": lambda x: np.linalg.solve(x, np.ones(3)),
    "solve for it": lambda x: np.linalg.solve(4 * np.eye(3), x),
    "cholesky": np.linalg.cholesky,
    "solve for a stack": lambda x: np.linalg.solve(x, x[::-1, ..., :1] + 1),
    "solve stack": lambda x: np.linalg.solve(x[..., :1, :1], x.mT[..., :1, :]),
    "qr": first(np.linalg.qr),
    "qr of more columns": lambda x: np.linalg.qr(x[..., :2, :])[1],
    "svd of more columns": lambda x: np.linalg.svd(x[..., :2, :], full_matrices=False)[2] ** 2,
    "qr r": lambda x: np.linalg.qr(x)[1],
    "eigh": lambda x: np.linalg.eigh(x)[0],
    "eigh v": lambda x: np.abs(np.linalg.eigh(x)[1]),
    "svd": lambda x: np.linalg.svd(x)[1],
    "svd u": lambda x: np.abs(np.linalg.svd(x, full_matrices=False)[0]),
    "pinv": np.linalg.pinv,
    "power": lambda x: np.linalg.matrix_power(x, 3),
    "matmul": lambda x: x @ x.swapaxes(-1, -2),
    "T": lambda x: np.sin(x.mT) @ x,
}
SHAPES = [(3,), (2, 3), (3, 1), (2, 1, 3)]


@pytest.mark.parametrize("name", ANY)
def test_strides(name: str) -> None:
    tried = 0
    for shape in SHAPES:
        for x in layouts(RNG.normal(size=shape)):
            try:
                ANY[name](x)
            except (ValueError, IndexError):
                continue
            wrong = wrong_strides(ANY[name], x)
            assert not wrong, f"of {x.shape} {x.strides}: {wrong[0]}"
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("name", SQUARES)
def test_strides_of_matrices(name: str) -> None:
    several = np.stack([SYMMETRIC, 2 * SYMMETRIC, 3 * SYMMETRIC])
    for stack in (SYMMETRIC, SYMMETRIC[0], SYMMETRIC[:1], SYMMETRIC + 0j, several):
        orders = factorial(stack.ndim)
        for x in itertools.islice(layouts(stack), 0, orders + 2 * (stack.ndim > 2), stack.ndim - 1):
            wrong = wrong_strides(lambda x: np.real(SQUARES[name](x)), x)
            assert not wrong, f"of {x.shape} {x.strides}: {wrong[0]}"
