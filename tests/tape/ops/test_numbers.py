"""Numbers where NumPy lets them have an axis, and where it doesn't."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt

TAKEN = {
    "sum": lambda v: np.sum(v, axis=0),
    "add.reduce": lambda v: np.add.reduce(v, axis=-1),
    "prod": lambda v: np.prod(v, axis=-1),
    "max": lambda v: np.max(v, axis=0),
    "ptp": lambda v: np.ptp(v, axis=0) + v,
    "cumsum": lambda v: np.cumsum(v, axis=0)[0],
    "argsort": lambda v: np.argsort(v) + v,
    "argmax": lambda v: np.argmax(v, axis=0) + v,
    "all": lambda v: np.all(v, axis=0) * v,
    "take": lambda v: np.take(v, 0, axis=0),
    "repeat": lambda v: np.repeat(v, 2, axis=0),
}
REFUSED = {
    "sort": lambda v: np.sort(v, axis=0),
    "partition": lambda v: np.partition(v, 0, axis=-1),
    "mean": lambda v: np.mean(v, axis=0),
    "flip": lambda v: np.flip(v, 0),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_number_has_an_axis_where_numpy_gives_it_one(name):
    def loss(x):
        return np.sum(TAKEN[name](np.sum(x * x)))

    x = np.array([0.5, -1.0])
    plain = loss(x)
    value, grad = ckpt.value_and_grad(loss)(x)
    assert value == plain
    planned = ckpt.plan(loss, x, planner="store_all")(x)
    assert planned[0] == plain
    np.testing.assert_array_equal(planned[1], grad)


@pytest.mark.parametrize("name", REFUSED)
def test_elsewhere_it_has_none(name):
    for run in (lambda f, x: f(x), lambda f, x: ckpt.grad(f)(x), lambda f, x: ckpt.trace(f, x)):
        with pytest.raises(np.exceptions.AxisError):
            run(lambda x: np.sum(REFUSED[name](np.sum(x))), np.ones(2))
