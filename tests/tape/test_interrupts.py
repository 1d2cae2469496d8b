"""An exception at any point of a backward, and threads: the next one is right or says no."""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from types import CodeType
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value, nn
from ckpt.errors import BackwardTwiceError, CkptError, MutationError

X = np.linspace(0.2, 1.4, 6)


@cache
def struck(code: CodeType) -> frozenset[int]:
    """Where in the code a signal's handler may run: behind calls, at its start, and in loops."""
    found, before = set(), ""
    for instruction in dis.get_instructions(code):
        if before.startswith(("CALL", "RESUME")):
            found.add(instruction.offset)
        before = instruction.opname
        if before.startswith("JUMP_BACKWARD"):
            found.add(instruction.argval)
    return frozenset(found)


class Interrupted:
    """Raises KeyboardInterrupt at the n-th place in the tape's code where Ctrl-C may, at 0 never.

    Python 3.13 tells the instructions only of functions that the trace before saw, too.
    """

    def __init__(self, n: int) -> None:
        self.left = n

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        if "/ckpt/tape/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and frame.f_lasti in struck(frame.f_code):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self._trace

    def __enter__(self) -> None:
        self.before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)


def losses(w: Value) -> tuple[Value, Value, Value]:
    """Two losses of one checkpointed block, and an inner value that retains its gradient."""
    rng = np.random.default_rng(3)
    inner = ckpt.checkpoint(lambda h: np.tanh(h) * np.sin(h))

    @ckpt.checkpoint
    def block(w: Any) -> Any:
        h = nn.dropout(np.exp(w) * X, 0.3, rng)
        return inner(h)[1:] * h[:-1] + np.cos(w[2:3])

    k = (w * 2).retain_grad()
    h = block(k)
    return np.sum(h * 2), np.sum(h * h) + np.sum(k), k


def gradients(chosen: tuple[int, ...]) -> tuple[Any, Any]:
    w = Value(X)
    *both, k = losses(w)
    for number in chosen:
        both[number].backward(retain_graph=True)
    return w.grad, k.grad


def interrupt(loss: Value, n: int, retain: bool) -> bool:
    """Was its backward interrupted?"""
    try:
        with Interrupted(n):
            loss.backward(retain_graph=retain)
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("then", [0, 1], ids=["the same loss", "another loss"])
@pytest.mark.parametrize("rested", [False, True], ids=["first", "added"])
def test_an_interrupt_at_any_instruction(retain: bool, then: int, rested: bool) -> None:
    """Nothing of the interrupted backward is in the gradients, or all where it was done."""
    without, whole = gradients((then,)), gradients((0, then))
    n, right, refused, done = 0, 0, 0, False
    while not done:
        n += 17
        w = Value(X)
        *both, k = losses(w)
        if rested:
            w.grad, k.grad = np.zeros(6), np.zeros(6)
        done = not interrupt(both[0], n, retain)
        finished = w.grad is not None and bool(np.any(w.grad))
        try:
            both[then].backward()
        except BackwardTwiceError:
            refused += 1
            continue
        for got, expected in zip((w.grad, k.grad), whole if finished else without, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-13)
        right += 1
    assert right + refused > 50
    assert right > (50 if retain else 0)
    assert refused == 0 or not retain


def test_an_interrupt_of_grad_leaves_nothing_on_shared_leaves() -> None:
    p = Value(X)
    gradient = ckpt.grad(lambda w: np.sum(w * p * np.sin(p)))  # a Value, since it depends on p
    expected = gradient(X).data
    n, done = 0, False
    while not done:
        n += 5
        done = True
        try:
            with Interrupted(n):
                gradient(X)
        except KeyboardInterrupt:
            done = False
        np.sum(p * 3).backward()
        np.testing.assert_array_equal(p.grad, np.full(6, 3.0))
        p.zero_grad()
        np.testing.assert_array_equal(gradient(X).data, expected)
    assert n > 300


@pytest.mark.parametrize("error", [MutationError, KeyboardInterrupt, ZeroDivisionError])
def test_an_error_in_a_replay(error: type[BaseException]) -> None:
    fails = [False]
    c = np.ones(6)

    @ckpt.op
    def fragile(x):
        if fails[0] and error is not MutationError:
            raise error
        return x * 3

    fragile.vjp(x=lambda g: g * 3)

    def block(w):
        return np.sin(fragile(np.cos(w))) * c

    def gradient(loss: Callable[[Any], Any]) -> Any:
        return ckpt.grad(lambda w: loss(block(w)))(X)

    for again, retain in ((np.sum, True), (lambda h: np.sum(h * h), False)):
        w = Value(X)
        h = ckpt.checkpoint(block)(w)
        first, then = np.sum(h), again(h)
        fails[0], c[0] = True, 2.0 if error is MutationError else 1.0
        with pytest.raises(error):
            first.backward(retain_graph=retain)
        fails[0], c[0] = False, 1.0
        (first if retain else then).backward()
        np.testing.assert_array_equal(w.grad, gradient(again))


def test_an_interrupt_of_a_forward_leaves_no_region_behind() -> None:
    """What is computed after it is an eager value like any other."""
    block = ckpt.checkpoint(lambda w: np.sin(np.exp(w)))
    expected = ckpt.grad(lambda w: np.sum(block(w)))(X)
    n, done = 0, False
    while not done:
        n += 1
        done = True
        with Interrupted(0):
            block(Value(X))
        try:
            with Interrupted(n):
                block(Value(X))
        except KeyboardInterrupt:
            done = False
        assert (Value(X) * 2)._node.region is None
        np.testing.assert_array_equal(ckpt.grad(lambda w: np.sum(block(w)))(X), expected)
    assert n > 100


def test_an_interrupt_of_a_step() -> None:
    """Its buffers hold what they may: the next call writes them anew."""

    def loss(w, rng):
        return np.sum(nn.dropout(np.tanh(w) * w, 0.5, rng) * w[::-1])

    step = ckpt.plan(loss, X, np.random.default_rng(0), planner="recompute_all")
    expected = ckpt.value_and_grad(loss)(X, np.random.default_rng(1))
    n, done = 0, False
    while not done:
        n += 1
        done = True
        with Interrupted(0):
            step(X, np.random.default_rng(4))
        try:
            with Interrupted(n):
                step(X, np.random.default_rng(5))
        except KeyboardInterrupt:
            done = False
        value, gradient = step(X, np.random.default_rng(1))
        assert value == expected[0]
        np.testing.assert_array_equal(gradient, expected[1])
    assert n > 50


# -- threads ---------------------------------------------------------------------------------------


def together(*functions: Callable[[], Any]) -> list[BaseException]:
    """Run them at once, switching as often as Python can; return what they raised."""
    raised: list[BaseException] = []
    gate = threading.Barrier(len(functions))

    def run(function: Callable[[], Any]) -> None:
        try:
            gate.wait()
            function()
        except BaseException as error:
            raised.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=run, args=(function,), daemon=True) for function in functions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(interval)
    return raised


@pytest.mark.parametrize("size", [50, 30_000])
@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["plain", "checkpointed"])
def test_threads_over_different_graphs_of_one_leaf(size: int, wrap: Any) -> None:
    for _ in range(60 if size < 100 else 8):
        w = Value(np.ones(size))
        total = [sum(np.sum(wrap(lambda w, k=k: w * (k + 1.0) + w)(w)) for k in range(9))
                 for _ in range(3)]  # fmt: skip
        assert not together(*[loss.backward for loss in total])
        np.testing.assert_array_equal(w.grad, np.full(size, 3 * (45 + 9.0)))


def test_threads_over_one_graph() -> None:
    """They share inner values too: each backward is whole, or says no."""
    for _ in range(60):
        w = Value(X)
        h = ckpt.checkpoint(lambda w: np.sin(w) * w)(w)
        one, other = np.sum(h), np.sum(h * h)
        assert not together(*[partial(loss.backward, retain_graph=True) for loss in (one, other)])
        expected = ckpt.grad(lambda w: np.sum(h := np.sin(w) * w) + np.sum(h * h))(X)
        np.testing.assert_allclose(w.grad, expected, rtol=1e-13)
        w = Value(X)
        h = np.sin(w) * w
        one, other = np.sum(h), np.sum(h * h)
        raised = together(one.backward, other.backward)
        assert all(isinstance(error, CkptError) for error in raised)
        assert len(raised) == 1


def test_threads_within_one_functions_gradients() -> None:
    p = Value(X)
    expected = ckpt.grad(lambda w: np.sum(w * p * np.sin(p * w)))(X)
    found: list[Any] = []

    def work() -> None:
        for _ in range(40):
            found.append(ckpt.grad(lambda w: np.sum(w * p * np.sin(p * w)))(X))

    assert not together(work, work, work)
    assert len(found) == 120
    assert all(np.array_equal(expected, g) for g in found)
    assert p.grad is None


def test_threads_of_one_step_take_turns() -> None:
    given = [X * k for k in (1.0, 2.0, 3.0)]
    loss = lambda w: np.sum(np.tanh(w) * np.sin(w))  # noqa: E731
    program = ckpt.trace(loss, X)
    step = program.compile(ckpt.make_schedule(program.graph, "store_all"))
    expected = [ckpt.value_and_grad(loss)(x) for x in given]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(300):
            value, gradient = step(given[k])
            if value != expected[k][0] or not np.array_equal(gradient, expected[k][1]):
                wrong.append(k)

    assert not together(*[lambda k=k: work(k) for k in range(3)])
    assert not wrong
