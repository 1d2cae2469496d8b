"""Programs that once broke the tape: shared leaves, several losses of a block, nested gradients."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import BackwardTwiceError, NonFiniteError, TapeError, UsageError

RNG = np.random.default_rng(0)
X = np.array([1.0, 2.0, 3.0])
P = [RNG.standard_normal((4, 8)), RNG.standard_normal((8, 1))]
INPUT = RNG.standard_normal((5, 4))


def f(x):
    return np.sum(np.tanh(x) * x * x)


def plans(function, *args, planner="store_all", **options):
    """A plan gives what eager does, and keeps its promise."""
    step = ckpt.plan(function, *args, planner=planner, **options)
    assert step.verify(*args).equal
    return step


# -- leaves and constants that several losses read ----------


@pytest.mark.parametrize("wrap", [lambda g: g, ckpt.checkpoint])
@pytest.mark.parametrize("first", [0, 1])
def test_two_losses_of_one_parameter_before_their_backwards(wrap, first):
    w = Value(np.full((2, 2), 0.5))
    c = ckpt.stop_gradient(Value(np.full((2, 2), 2.0)))
    block = wrap(lambda w: np.tanh(w @ w) * c * c)
    losses = [np.sum(block(w)), np.sum(np.sin(w) * w * c * c) + np.sum(block(w))]
    losses.insert(0, losses.pop(first))
    for loss in losses:
        loss.backward()
    together = ckpt.grad(lambda w: 2 * np.sum(np.tanh(w @ w) * 4) + np.sum(np.sin(w) * w * 4))(
        np.full((2, 2), 0.5)
    )
    np.testing.assert_allclose(w.grad, together, rtol=1e-14)


def test_two_losses_of_one_inner_value_say_the_way_out():
    h = Value(X) * 2
    a, b = np.sum(h * h), np.sum(np.sin(h) * h)
    a.backward()
    with pytest.raises(BackwardTwiceError, match="retain_graph=True"):
        b.backward()


@pytest.mark.parametrize("retain", [False, True])
def test_results_of_one_block_go_into_several_losses(retain):
    def run(wrap):
        w = Value(X)
        a, b = wrap(lambda w: (np.tanh(np.sin(w)), np.exp(np.cos(w) * w)))(w)
        np.sum(a * a).backward(retain_graph=retain)
        np.sum(b * b).backward()
        return w.grad

    np.testing.assert_array_equal(run(ckpt.checkpoint), run(lambda g: g))


def test_a_retained_backward_before_one_that_reaches_more_of_nested_blocks():
    def run(wrap):
        w = Value(X)
        inner = wrap(lambda v: np.sin(v) * v)

        @wrap
        def block(w):
            h = np.sin(w)
            return np.tanh(inner(h)), np.exp(np.cos(h) * h)

        a, b = (np.sum(y * y) for y in block(w))
        a.backward(retain_graph=True)
        (a + b).backward()
        return w.grad

    np.testing.assert_array_equal(run(ckpt.checkpoint), run(lambda g: g))


# -- gradients inside of functions ----------


def test_an_inner_gradient_depends_on_the_outer_argument_through_a_closure():
    assert ckpt.grad(lambda a: a * ckpt.grad(lambda b: a * a * b * b)(3.0))(2.0) == 72.0
    assert ckpt.grad(lambda a: a * ckpt.grad(lambda b: b * b)(3.0))(2.0) == 6.0


@pytest.mark.parametrize("given", [lambda x: x, lambda x: ckpt.stop_gradient(Value(x))])
def test_a_gradient_penalty(given):
    def net(p, x):
        return np.sum(np.tanh(x @ p[0]) @ p[1])

    def loss(p):
        return net(p, INPUT) + np.sum(ckpt.grad(lambda x: net(p, x))(given(INPUT)) ** 2)

    found = ckpt.grad(loss)(P)[1]
    for k in range(8):
        step = np.zeros((8, 1))
        step[k] = 1e-5
        slope = (loss([P[0], P[1] + step]) - loss([P[0], P[1] - step])) / 2e-5
        assert found[k, 0] == pytest.approx(slope, rel=1e-6)
    plans(loss, P)
    plans(
        lambda p, x: net(p, x) + np.sum(ckpt.grad(lambda x: net(p, x))(x) ** 2),
        P, INPUT, planner="recompute_all",
    )  # fmt: skip


def test_a_block_around_a_gradient():
    def product(x):
        return np.sum(ckpt.grad(f)(x) * x)

    expected = ckpt.grad(product)(X)
    np.testing.assert_array_equal(ckpt.grad(ckpt.checkpoint(product))(X), expected)

    def blocked(x):
        return np.sum(ckpt.grad(ckpt.checkpoint(f))(x) * x)

    np.testing.assert_array_equal(ckpt.grad(ckpt.checkpoint(blocked))(X), expected)
    plans(ckpt.checkpoint(blocked), X, planner="as_written")


def test_a_backward_of_its_own_inside_of_a_block():
    @ckpt.checkpoint
    def block(w):
        y = Value(X)
        np.sum(np.tanh(y) * y).backward()
        return np.tanh(w) * y.grad

    w = Value(X)
    np.sum(block(w)).backward()
    expected = ckpt.grad(
        lambda w: np.sum(np.tanh(w) * ckpt.grad(lambda y: np.sum(np.tanh(y) * y))(X))
    )
    np.testing.assert_array_equal(w.grad, expected(X))


def test_aux_holds_arrays():
    (_, aux), _ = ckpt.value_and_grad(lambda w: (np.sum(w * w), {"y": w * 2}), has_aux=True)(X)
    assert type(aux["y"]) is np.ndarray


@pytest.mark.parametrize("argnums", ["a", 1.5, (0, "b")])
def test_argnums_are_positions(argnums):
    with pytest.raises(UsageError, match="argnums"):
        ckpt.grad(f, argnums)(X)


# -- planned steps ----------


def test_arguments_are_matched_by_key_and_structure():
    def loss(p, x):
        return np.sum(np.tanh(x @ p["w"]) @ p["v"])

    square = {k: RNG.standard_normal((4, 4)) for k in "wv"}
    step = ckpt.plan(loss, square, INPUT, planner="store_all")
    turned = {k: square[k] for k in "vw"}
    value, grads = step(turned, INPUT)
    expected = ckpt.value_and_grad(loss)(turned, INPUT)
    assert value == expected[0]
    for key in "wv":
        np.testing.assert_array_equal(grads[key], expected[1][key])
    for other in ({"w": square["w"], "u": square["v"]}, [*square.values()], square["w"], None):
        with pytest.raises(TapeError, match="argument 0 was a dict with the keys 'w', 'v'"):
            step(other, INPUT)
    with pytest.raises(TapeError, match="a list"):
        step({**turned, "w": [turned["w"]]}, INPUT)


@pytest.mark.parametrize("number", [2.0, 2, np.float32(2)])
def test_numbers_as_parameters(number):
    step = ckpt.plan(lambda w, x: np.sum(w * w * x), number, X, planner="store_all")
    value, g = step(3, X)
    assert (value, g) == (54.0, 36.0)


def test_a_loss_that_is_a_parameter():
    with pytest.raises(TapeError, match="nothing to compute"):
        ckpt.plan(lambda w: w, 2.0)


def test_dicts_of_other_classes():
    given = defaultdict(list, a=X)
    found = ckpt.grad(lambda p: np.sum(p["a"] ** 2))(given)
    assert type(found) is defaultdict
    step = plans(lambda p: np.sum(p["a"] ** 2), given)
    assert type(step(given)[1]) is defaultdict


def test_index_arrays_live_until_the_backward_that_reads_them():
    """They reach the rule inside a tuple."""
    table = RNG.standard_normal((50, 64))
    rows = RNG.integers(0, 50, (30, 20))

    def loss(p):
        a = p[[1, 1, 3], ::2]
        b = p[np.arange(50) % 7][:, [0, 0, 5]]
        return np.sum(a * a) + np.sum(np.exp(b)) + np.sum(np.take(p, rows, axis=0) ** 2)

    program = ckpt.trace(loss, table)
    for planner in ("store_all", "recompute_all"):
        step = program.compile(ckpt.make_schedule(program.graph, planner))
        value, g = step(table)
        expected = ckpt.value_and_grad(loss)(table)
        assert value == expected[0]
        np.testing.assert_array_equal(g, expected[1])


def test_workspace_beside_the_reused_buffers_keeps_the_promise():
    """np.std and np.var allocate while they run, when the arena is held already."""

    def loss(p, x):
        h = x @ p
        n = (h - np.mean(h, -1, keepdims=True)) / np.std(h, -1, keepdims=True)
        return np.sum(n**3) + np.sum(np.var(n, axis=0, ddof=1))

    plans(loss, RNG.standard_normal((128, 128)), RNG.standard_normal((300, 128)))


@pytest.mark.parametrize("data", [0.0, np.array([1.0, 0.0])])
def test_an_infinity_in_a_backward_is_named(data):
    with ckpt.check_finite(), np.errstate(divide="ignore"):
        loss = np.sum(np.sqrt(Value(data)))
        with pytest.raises(NonFiniteError, match="backward of sqrt gave inf"):
            loss.backward()
        with pytest.raises(NonFiniteError, match="backward of sqrt gave inf"):
            ckpt.grad(lambda x: np.sum(np.sqrt(x)))(data)
        ckpt.grad(f)(X)
