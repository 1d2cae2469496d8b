"""`@checkpoint` keeps nothing but its inputs and gives the plain gradients, bit for bit - also
where other checkpoints go silently wrong."""

from __future__ import annotations

import gc
import tracemalloc
import warnings

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import BackwardTwiceError, MutationError
from ckpt.tape.core.changes import ALL, fingerprint

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((16, 16)) / 4 for _ in range(6)]
X = RNG.standard_normal((8, 16))


def same(function, *args):
    """With and without the decorator, gradients are the same bits."""
    plain = ckpt.value_and_grad(lambda a: function(a, lambda f: f))(*args)
    made = ckpt.value_and_grad(lambda a: function(a, ckpt.checkpoint))(*args)
    assert plain[0] == made[0]
    for p, q in zip(plain[1], made[1], strict=True):
        np.testing.assert_array_equal(p, q)
        assert np.any(p)


def block(w):
    return lambda x: np.tanh(x @ w) * 2 + x


def test_chain_of_blocks():
    def loss(ws, wrap):
        x = X
        for w in ws:
            x = wrap(block(w))(x)
        return np.mean(x * x)

    same(loss, WEIGHTS)


def test_nested():
    def loss(ws, wrap):
        def pair(x, a, b):
            x = wrap(block(a))(x)
            return np.sin(wrap(block(b))(x)) + x

        x = X
        for a, b in zip(ws[::2], ws[1::2], strict=True):
            x = wrap(pair)(x, a, b)
        return np.mean(x * x)

    same(loss, WEIGHTS)


def test_deeply_nested():
    def loss(ws, wrap):
        def go(x, k):
            x = np.tanh(x @ ws[k])
            return wrap(go)(x, k + 1) * x if k + 1 < len(ws) else x

        return np.mean(wrap(go)(X, 0))

    same(loss, WEIGHTS)


def test_keyword_arguments_and_nested_structures():
    def loss(ws, wrap):
        @wrap
        def f(state, *, scale, extra):
            x, others = state["x"], state["others"]
            return {"x": np.tanh(x @ others[0]) * scale, "rest": (others[1] + extra["b"], 3, None)}

        out = f({"x": X, "others": [ws[0], ws[1]]}, scale=ws[2], extra={"b": ws[3]})
        return np.sum(out["x"][:, 0]) + np.sum(out["rest"][0] ** 2)

    same(loss, [WEIGHTS[0], WEIGHTS[1], X, WEIGHTS[3]])


def test_outputs_that_are_inputs_and_blocks_without_gradients():
    def loss(ws, wrap):
        same_x, y = wrap(lambda x: (x, np.tanh(x)))(ws[0])
        constant = wrap(lambda: np.tanh(X))()
        return np.sum(same_x * y) + np.sum(constant)

    same(loss, WEIGHTS[:1])


def test_used_twice():
    def loss(ws, wrap):
        f = wrap(block(ws[0]))
        return np.mean(f(f(X)) * f(X))

    same(loss, WEIGHTS[:1])


def test_captured_values():
    def loss(ws, wrap):
        h = np.tanh(X @ ws[0])

        @wrap
        def f(x):
            return np.sin(h * x) @ ws[1]

        return np.mean(f(np.exp(-h)) ** 2)

    same(loss, WEIGHTS[:2])


def test_a_value_of_one_block_read_by_a_later_one():
    def loss(ws, wrap):
        skip, x = wrap(lambda x: (np.tanh(x @ ws[0]), np.sin(x @ ws[1])))(X)
        x = wrap(lambda x: np.cos(x @ ws[2]))(x)
        return np.mean(wrap(lambda x, s: x * s * s)(x, skip))

    same(loss, WEIGHTS[:3])


def test_policy_keeps_by_op_and_by_name():
    def loss(ws, wrap):
        def f(x):
            return np.sin(ckpt.name(np.tanh(x @ ws[0]), "act")) @ ws[1]

        return np.mean(wrap(f)(X) ** 2)

    plain = ckpt.grad(lambda ws: loss(ws, lambda f: f))(WEIGHTS[:2])
    for keep in ("matmul", ["act"], lambda name: name in ("act", "sin")):
        kept = ckpt.grad(lambda ws, keep=keep: loss(ws, ckpt.checkpoint(keep=keep)))(WEIGHTS[:2])
        for p, q in zip(plain, kept, strict=True):
            np.testing.assert_array_equal(p, q)
    program = ckpt.trace(lambda ws: loss(ws, ckpt.checkpoint(keep="matmul")), WEIGHTS[:2])
    assert [n.op for n in program.graph if n.keep] == ["matmul", "matmul"]


# -- where replaying Python goes silently wrong ----------------------------------------------------


def test_user_code_runs_once():
    calls = []

    def loss(w):
        @ckpt.checkpoint
        def f(x):
            calls.append(1)
            return np.tanh(x @ w)

        return np.mean(f(X))

    ckpt.grad(loss)(WEIGHTS[0])
    assert calls == [1]


def test_numpy_random_numbers():
    def loss(ws, wrap):
        rng = np.random.default_rng(1)
        x = X
        for w in ws:
            x = wrap(lambda x, w=w: np.tanh(x @ w) * (rng.random(x.shape) < 0.5))(x)
        return np.mean(x)

    same(loss, WEIGHTS)


def test_legacy_global_random_numbers():
    def loss(ws, wrap):
        np.random.seed(3)
        f = wrap(lambda x: np.tanh(x @ ws[0]) * np.random.rand(*x.shape))
        return np.mean(f(X))

    same(loss, WEIGHTS[:1])


def test_late_bound_loop_closure():
    def loss(ws, wrap):
        x = X
        for w in ws:
            x = wrap(lambda x: np.tanh(x @ w))(x)  # noqa: B023
        return np.mean(x)

    same(loss, WEIGHTS)


def test_counter_and_running_mean():
    def loss(ws, wrap):
        state = {"n": 0, "mean": np.zeros(16)}

        def f(x):
            state["n"] += 1
            state["mean"] = 0.9 * state["mean"] + 0.1 * np.mean(stop(x), axis=0)
            return np.tanh((x - state["mean"]) @ ws[0]) * state["n"]

        x = X
        for _ in range(3):
            x = wrap(f)(x)
        assert state["n"] == 3
        return np.mean(x)

    def stop(x):
        return ckpt.stop_gradient(x)

    same(loss, WEIGHTS[:1])


def test_values_that_differ_between_calls():
    def loss(ws, wrap):
        seen = iter(range(1, 100))
        f = wrap(lambda x: np.tanh(x @ ws[0]) * next(seen))
        return np.mean(f(f(X)))

    same(loss, WEIGHTS[:1])


@pytest.mark.parametrize("size", [3, 16, 300])
def test_a_captured_array_changed_in_place_is_named(size):
    mask = np.ones((size, size))
    w = Value(np.full((size, size), 0.5))
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w * mask))(w))
    mask[0, 1] = 7.0
    with pytest.raises(MutationError, match=rf"{size}x{size} float64 array .* changed in place"):
        loss.backward()
    assert w.grad is None


def test_a_parameter_changed_before_backward():
    w = Value(np.ones((4, 4)))
    loss = np.sum(np.tanh(w @ w))
    w.data -= 0.1
    with pytest.raises(MutationError, match=r"test_checkpoint\.py:\d+: a 4x4 .* changed in place"):
        loss.backward()
    loss = np.sum(np.tanh(w @ w))
    w.data = w.data - 0.1
    with pytest.raises(MutationError, match=r"changed \(p\.data"):
        loss.backward()


def test_a_parameter_written_into_before_backward_of_a_block():
    w = Value(np.ones((4, 4)))
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w @ w))(w))
    w.data[0, 0] = 3.0
    with pytest.raises(MutationError, match="changed in place"):
        loss.backward()


def test_training_steps_may_change_parameters_between():
    w = Value(np.ones((4, 4)))
    for _ in range(3):
        loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w @ w))(w))
        loss.backward()
        w.data -= 0.1 * w.grad
        w.zero_grad()
    assert np.all(np.isfinite(w.data))


def test_fingerprint_sees_swapped_rows_and_single_bits():
    a = RNG.standard_normal((256, 256))
    swapped, flipped = a.copy(), a.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    flipped.view(np.uint8)[100, 7] ^= 1
    assert len({fingerprint(v, ALL) for v in (a, swapped, flipped)}) == 3
    assert fingerprint(a) == fingerprint(a.copy())
    for odd in (a.T, a[::2], a[:, ::-1], a[:0], a[0, :3], np.asfortranarray(a)):
        fingerprint(odd)


# -- errors, memory --------------------------------------------------------------------------------


def test_an_exception_inside_leaves_nothing_behind():
    @ckpt.checkpoint
    def broken(x):
        raise ZeroDivisionError

    w = Value(WEIGHTS[0])
    with pytest.raises(ZeroDivisionError):
        broken(w)
    np.sum(w * w).backward()
    np.testing.assert_array_equal(w.grad, 2 * w.data)


def test_backward_twice():
    w = Value(WEIGHTS[0])
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w @ w))(w))
    loss.backward(retain_graph=True)
    first = w.grad.copy()
    loss.backward()
    np.testing.assert_array_equal(w.grad, 2 * first)
    with pytest.raises(BackwardTwiceError):
        loss.backward()


def peak(layers, wrap, width=128, batch=512):
    ws = [Value(np.eye(width)) for _ in range(layers)]
    x = np.ones((batch, width))

    def f(w):
        return wrap(lambda x: np.tanh(np.sin(np.tanh(x @ w) * 2)))

    gc.collect()
    tracemalloc.start()
    base = tracemalloc.get_traced_memory()[0]
    h = x
    for w in ws:
        h = f(w)(h)
    loss = np.mean(h)
    del h
    loss.backward()
    high = tracemalloc.get_traced_memory()[1] - base
    tracemalloc.stop()
    return (high - sum(w.grad.nbytes for w in ws)) / x.nbytes


def test_memory_falls_to_the_boundaries_and_one_block():
    """Plain: 3 kept values a layer. Checkpointed: one boundary a layer, and one block's values."""
    plain, checkpointed = peak(16, lambda f: f), peak(16, ckpt.checkpoint)
    assert 45 < plain < 50
    assert 16 < checkpointed < 24


def test_a_replay_drops_each_value_at_its_last_use():
    """One block of many layers: no more than its residuals, and those go as backward passes."""
    ws = [Value(np.eye(64)) for _ in range(12)]

    def body(x):
        for w in ws:
            x = np.tanh(x @ w)
        return x

    def high(wrap):
        gc.collect()
        tracemalloc.start()
        base = tracemalloc.get_traced_memory()[0]
        loss = np.mean(wrap(body)(np.ones((1024, 64))))
        loss.backward()
        found = tracemalloc.get_traced_memory()[1] - base
        tracemalloc.stop()
        for w in ws:
            w.zero_grad()
        return found

    assert high(ckpt.checkpoint) < 1.1 * high(lambda f: f)


def test_memory_is_gone_without_the_garbage_collector():
    ws = [Value(w) for w in WEIGHTS]
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        for turn in range(6):
            x = np.ones((256, 16))
            for w in ws:
                x = ckpt.checkpoint(block(w))(x)
            loss = np.mean(x)
            loss.backward()
            del x, loss, w
            if turn == 3:  # the first turns fill caches
                base = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] - base < 4096
        tracemalloc.stop()
        assert gc.collect() < 20
    finally:
        gc.enable()


def test_sequential_equals_the_plain_composition():
    ws = WEIGHTS

    def loss(values, segments):
        layers = [block(w) for w in values]
        if segments is None:
            x = X
            for layer in layers:
                x = layer(x)
        else:
            x = ckpt.checkpoint_sequential(layers, segments)(X)
        return np.mean(x)

    plain = ckpt.grad(loss)(ws, None)
    for segments in range(1, len(ws) + 1):
        made = ckpt.grad(loss)(ws, segments)
        for p, q in zip(plain, made, strict=True):
            np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("segments", [0, -1, 7])
def test_sequential_refuses_a_wrong_number_of_segments(segments):
    with pytest.raises(ckpt.CkptError, match=f"between 1 and the 6 functions, not {segments}"):
        ckpt.checkpoint_sequential([block(w) for w in WEIGHTS], segments)


def test_warnings_are_quiet_where_checkpointing_helps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ckpt.grad(lambda w: np.mean(ckpt.checkpoint(block(w))(X)))(WEIGHTS[0])
