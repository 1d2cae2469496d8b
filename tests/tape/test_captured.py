"""What a traced function reads beside its arguments: plain memory is captured, and a Value whose
gradient would be lost is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import AbstractError, TapeError
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
C = RNG.standard_normal((3, 4))

READERS = {
    "first operand": lambda w, other: np.sum(other * w),
    "second operand": lambda w, other: np.sum(w * other),
    "one of many": lambda w, other: np.sum(np.concatenate([w, other, w])),
    "in a composite op": lambda w, other: np.sum(np.var(other) * w),
    "where no gradient flows": lambda w, other: np.sum(w * (other > 0)),
    "an index into it": lambda w, other: np.sum(w * other[1]),
}


def of_another_trace() -> Any:
    found: list[Any] = []

    def leaks(w: Any) -> Any:
        found.append(w)
        return np.sum(w)

    ckpt.trace(leaks, X)
    return found[0]


def computed_in_another_trace() -> Any:
    found: list[Any] = []

    def leaks(w: Any) -> Any:
        found.append(np.tanh(w))
        return np.sum(w)

    ckpt.trace(leaks, X)
    return found[0]


STRANGERS = {
    "a leaf": lambda: Value(C),
    "computed": lambda: np.tanh(Value(C)),
    "a parameter of another trace": of_another_trace,
    "computed in another trace": computed_in_another_trace,
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("reader", READERS)
def test_a_value_that_needs_a_gradient_must_be_an_argument(stranger: str, reader: str) -> None:
    other = STRANGERS[stranger]()
    with pytest.raises(TapeError, match="isn't among its arguments; pass it in"):
        ckpt.trace(lambda w: READERS[reader](w, other), X)


def test_a_trace_within_a_trace_reads_nothing_of_the_one_around_it() -> None:
    def outer(w: Any) -> Any:
        ckpt.trace(lambda v: np.sum(v * w), X)
        return np.sum(w)

    with pytest.raises(TapeError, match="isn't among its arguments"):
        ckpt.trace(outer, X)


def test_an_input_of_another_trace_has_no_values_to_capture() -> None:
    found: list[Any] = []

    def leaks(w: Any, x: Any) -> Any:
        found.append(x)
        return np.sum(w * x)

    ckpt.trace(leaks, X, C)
    with pytest.raises(AbstractError):
        ckpt.trace(lambda w: np.sum(w * found[0]), X)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("constant", [C, ckpt.stop_gradient(Value(C))], ids=["array", "Value"])
def test_what_needs_no_gradient_is_captured(reader: str, constant: Any) -> None:
    def loss(w: Any) -> Any:
        return np.sum(np.sin(w)) + READERS[reader](w, constant)

    program = ckpt.trace(loss, X)
    expected = ckpt.value_and_grad(loss)(X)
    schedule = store_all(program.graph)
    same(expected, program.execute(schedule, X), "executed")
    same(expected, program.compile(schedule)(X), "compiled")


def captured(loss: Any) -> list[Any]:
    return [node for node in ckpt.trace(loss, X).graph if node.captured]


def test_an_array_is_captured_once_however_often_it_is_met() -> None:
    (node,) = captured(lambda w: np.sum(w * C + C) + np.sum(np.tanh(w) * C))
    assert node.nbytes == C.nbytes
    assert node.source.startswith("test_captured.py:")


def test_two_arrays_alike_are_two() -> None:
    other = C.copy()
    assert len(captured(lambda w: np.sum(w * C * other))) == 2


def test_numbers_are_not_captured() -> None:
    assert not captured(lambda w: np.sum(w * 2.0 + np.float64(3.0) - 1))
