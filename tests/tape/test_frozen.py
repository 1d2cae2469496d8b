"""No cotangent flows to what needs no gradient: no rule is run for it, no FLOP is counted, and what
only such a rule would read isn't kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value
from tests.graphs import step_of
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
BATCH, WIDE, NARROW = 30, 20, 10
X = RNG.standard_normal((BATCH, WIDE))
W = RNG.standard_normal((WIDE, NARROW))
PRODUCT_FLOPS = 2 * BATCH * WIDE * NARROW


def stop(x: Any) -> Any:
    return ckpt.stop_gradient(x)


CONSTANT = stop(Value(W))


# -- in a graph ------------------------------------------------------------------------------------


def product(w: Any, x: Any) -> Any:
    return np.sum(x @ w)


def test_a_product_with_an_input_is_one_product_backward() -> None:
    """x is an input: the gradient of w is a product, the cotangent of x isn't made."""
    step = step_of(ckpt.trace(product, W, X).graph, "matmul")
    assert step.flops == PRODUCT_FLOPS
    assert step.reads == (1,)  # x, and not w
    both = step_of(ckpt.trace(product, W, X, argnums=(0, 1)).graph, "matmul")
    assert both.flops == 2 * PRODUCT_FLOPS
    assert set(both.reads) == {0, 1}


def test_only_parameters_have_gradients() -> None:
    graph = ckpt.trace(lambda w, x: np.sum((x @ w) * np.ones((BATCH, NARROW))), W, X).graph
    assert [row.whose for row in graph.rows if row.kind == "gradient"] == [0]
    assert graph.gradient_nbytes == W.nbytes


@pytest.mark.parametrize(
    "frozen",
    [lambda x: x, np.tanh, lambda x: W, lambda x: np.sin(x) * W, lambda x: np.sign(x)],
    ids=["input", "computed", "captured", "computed from both", "without a rule"],
)
def test_what_is_frozen_takes_no_step(frozen: Any) -> None:
    """Nor a row, nor a byte: of w * f the gradient of w is f times the cotangent, and no more."""
    graph = ckpt.trace(lambda w, x: np.sum(w * frozen(x)), W, W).graph
    assert [step.label for step in graph.steps] == ["sum", "multiply"]
    step = step_of(graph, "multiply")
    assert step.flops == W.size
    (read,) = step.reads
    assert not graph[read].requires_grad
    assert {graph[row.whose].op for row in graph.rows} == {"sum", "multiply", "parameter"}


def test_a_frozen_operand_keeps_nothing_for_itself() -> None:
    """In h * c, h would be read by the rule of c alone."""
    graph = ckpt.trace(lambda w, c: np.sum((w + 1) * c), W, W).graph
    h = next(i for i, node in enumerate(graph) if node.op == "add")
    assert h not in step_of(graph, "multiply").reads
    last = next(i for i, node in enumerate(graph) if node.op == "multiply")
    timeline = ckpt.simulate(graph, store_all(graph))
    after = next(k for k, i in enumerate(timeline.schedule) if i == ckpt.Compute(last))
    assert ckpt.Free(h) == timeline.schedule.instructions[after + 1]


# -- when it is run --------------------------------------------------------------------------------


def refuse(g: Any) -> Any:
    raise AssertionError("a rule is run for an operand that needs no gradient")


def watched() -> Any:
    """x * y whose rule of y must not be run."""
    op = ckpt.op(name="watched")(lambda x, y: x * y)
    return op.vjp(x=lambda g, y: g * y, y=refuse)


FROZEN: dict[str, Callable[[Any, Any], Any]] = {
    "an argument": lambda w, x: x,
    "an array": lambda w, x: W,
    "a constant": lambda w, x: CONSTANT,
    "computed from an argument": lambda w, x: np.tanh(x),
    "computed from a constant": lambda w, x: np.tanh(CONSTANT),
    "a comparison": lambda w, x: w > 0,
}


@pytest.mark.parametrize("frozen", FROZEN)
def test_its_rule_is_not_run(frozen: str) -> None:
    op = watched()

    def loss(w: Any, x: Any) -> Any:
        return np.sum(op(np.sin(w), FROZEN[frozen](w, x)))

    def plain(w: Any, x: Any) -> Any:
        return np.sum(np.sin(w) * FROZEN[frozen](w, x))

    expected = ckpt.value_and_grad(plain)(W, W)
    same(expected, ckpt.value_and_grad(loss)(W, W), "value_and_grad")
    same(expected, ckpt.value_and_grad(ckpt.checkpoint(loss))(W, W), "checkpointed")
    leaf = Value(W)
    loss(leaf, stop(leaf)).backward()
    same(expected[1], leaf.grad, "backward()")
    program = ckpt.trace(loss, W, W)
    schedule = ckpt.make_schedule(program.graph, "recompute_all")
    same(expected, program.execute(schedule, W, W), "executed")
    same(expected, program.compile(schedule)(W, W), "compiled")

    def slope(w: Any, f: Any) -> Any:
        return np.sum(ckpt.grad(f)(w, W) ** 2)

    same(ckpt.grad(slope)(W, plain), ckpt.grad(slope)(W, loss), "of a gradient")


# -- in memory -------------------------------------------------------------------------------------


def held_after(make: Callable[[Any, Any], Any], argument: Any) -> bool:
    """Is the array of h = w + 1 still there, once make(h, argument) is all that is left of it?"""
    h = Value(W) + 1
    kept = weakref.ref(h.data)
    y = make(h, argument)
    del h
    assert y.requires_grad
    return kept() is not None


READERS = {
    "multiply": lambda h, c: h * c,
    "divide": lambda h, c: h / c,
    "matmul": lambda h, c: h.T @ c,
    "where": lambda h, c: np.where(W > 0, h, c),
    "maximum of a sum": lambda h, c: np.sum(h) * np.sum(c),
    "einsum": lambda h, c: np.einsum("ij,ij->i", h, c),
}


@pytest.mark.parametrize("reader", READERS)
def test_eager_lets_go_of_what_only_a_frozen_operands_rule_would_read(reader: str) -> None:
    assert not held_after(READERS[reader], W)
    assert not held_after(READERS[reader], stop(Value(W)))


@pytest.mark.parametrize("reader", ["multiply", "matmul", "einsum"])
def test_and_keeps_it_where_both_need_gradients(reader: str) -> None:
    assert held_after(READERS[reader], Value(W))


def test_a_plain_array_that_no_rule_reads_is_let_go_of() -> None:
    def kept_by(make: Callable[[Any, Any], Any]) -> bool:
        plain = np.ones((50, 50))
        seen = weakref.ref(plain)
        y = make(Value(np.ones((50, 50))), plain)
        del plain
        assert y.requires_grad
        return seen() is not None

    assert not kept_by(lambda w, plain: w + plain)
    assert not kept_by(lambda w, plain: w - plain)
    assert kept_by(lambda w, plain: w * plain)
