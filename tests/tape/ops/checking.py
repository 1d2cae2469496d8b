"""Everything that must hold for an op, checked on one function of arrays.

`check_op(f, *arrays)` is what a test of an op calls. A function with a parameter ``np`` is also run
on HIPS autograd's NumPy::

    def f(x, np=np):
        return np.tanh(x)

    check_op(f, rng.normal(size=(3, 4)))
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import ckpt
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.tape.core.rules import rules_of
from ckpt.tape.eager.gradcheck import gradcheck
from ckpt.tape.traced.kernel import trace_kernel
from ckpt.tape.traced.trace import Traced

LAYOUTS = ("C", "F", "rows", "columns", "reversed")
COTANGENTS = ("spread", "C", "F")
"""How the loss weighs the result, and so what layout the op's cotangent has."""


def layouts(array: Any, names: Iterable[str] = LAYOUTS) -> Iterable[Any]:
    """The array in several memory layouts."""
    shape = array.shape
    for name in names:
        if name == "F":
            made = np.asfortranarray(array)
        elif name == "rows":  # every other row of a larger array
            made = np.zeros((2 * shape[0], *shape[1:]), array.dtype)[::2] if shape else array
        elif name == "columns":
            made = np.zeros((*shape[:-1], 2 * shape[-1]), array.dtype)[..., ::2] if shape else array
        elif name == "reversed":
            made = np.zeros(shape, array.dtype)[::-1] if shape else array
        else:
            made = np.ascontiguousarray(array) if shape else array
        if shape:
            made[...] = array
        yield made


def check_op(
    function: Callable[..., Any],
    *arrays: Any,
    double: bool = True,
    differences: bool = True,
    peer: bool = True,
    float32: bool = True,
    exact: bool = True,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> None:
    """Finite differences (of the gradient too, if ``double``), HIPS autograd, dtypes, agreement.

    Unless ``exact``, the op's sums may be in another order than NumPy's.
    """
    if differences:
        gradcheck(function, *arrays, order=2 if double else 1, rtol=rtol, atol=atol)
    if peer and "np" in inspect.signature(function).parameters:
        check_peer(function, *arrays)
    check_agreement(function, *arrays)
    if float32:
        single = [_single(a) for a in arrays]
        check_dtype(function, *single, exact=exact)
        check_agreement(function, *single)


def check_peer(function: Callable[..., Any], *arrays: Any, rtol: float = 1e-9) -> None:
    """The same value and gradients as HIPS autograd's, if that is installed."""
    try:
        import autograd
        import autograd.numpy as peer_np
    except ImportError:
        return
    numbers = differentiable(arrays)

    def theirs(*given: Any) -> Any:
        out = function(*given, np=peer_np)
        out = out * weights(out.shape, out.dtype, "C")
        out = peer_np.sum(out)
        return peer_np.real(out) if out.dtype.kind == "c" else out

    with np.errstate(all="ignore"):
        expected = autograd.grad(theirs, numbers)(*arrays)
        value = theirs(*arrays)
    got, grads = ckpt.value_and_grad(lossy(function), numbers)(*arrays)
    np.testing.assert_allclose(got, value, rtol=rtol, atol=1e-12)
    for ours, peers in zip(grads, expected, strict=True):
        np.testing.assert_allclose(ours, peers, rtol=rtol, atol=1e-10)


def check_dtype(function: Callable[..., Any], *arrays: Any, exact: bool = True) -> None:
    """The result, and each gradient, has the dtype that NumPy and the operand give it."""
    numbers = differentiable(arrays)
    plain = function(*arrays)
    given = [ckpt.Value(a) if k in numbers else a for k, a in enumerate(arrays)]
    out = function(*given)
    assert out.dtype == plain.dtype, f"{out.dtype}, where NumPy gives {plain.dtype}"
    assert out.shape == plain.shape, f"{out.shape}, where NumPy gives {plain.shape}"
    if exact:
        assert np.array_equal(out.data, plain, equal_nan=plain.dtype.kind in "fc")
    else:
        np.testing.assert_allclose(out.data, plain, rtol=1e-4, atol=1e-5)
    out.backward(np.ones(out.shape, out.dtype))
    for k in numbers:
        grad = given[k].grad
        if grad is not None:
            assert grad.dtype == arrays[k].dtype
            assert grad.shape == arrays[k].shape


def check_agreement(
    function: Callable[..., Any],
    *arrays: Any,
    cotangents: Iterable[str] = COTANGENTS,
    tight: bool = True,
    exact: bool = True,
) -> None:
    """Traced, executed and checkpointed, it does what it does eagerly, in the bytes simulated.

    ``tight``: no more is simulated than what the run needs. ``exact``: the bits are the same.
    """
    for kind in cotangents:
        _check_agreement(lossy(function, kind), arrays, tight, exact)


def _check_agreement(loss: Callable[..., Any], arrays: Any, tight: bool, exact: bool) -> None:
    numbers = differentiable(arrays)
    value, grads = ckpt.value_and_grad(loss, numbers)(*arrays)
    again, replayed = ckpt.value_and_grad(ckpt.checkpoint(loss), numbers)(*arrays)
    same(value, again, "checkpointed loss")
    same(grads, replayed, "checkpointed gradients")

    program = ckpt.trace(loss, *arrays, argnums=numbers)
    for node in program.graph:
        assert node.flops >= 0
        assert node.workspace >= 0
    for step in program.graph.steps:
        assert step.flops >= 0
    hands_on_nothing(program.traced)
    schedule = store_all(program.graph)
    simulated = simulate(program.graph, schedule)
    # Small arrays would be lost in the allowance for Python's own objects.
    large = max(node.nbytes for node in program.graph) > 1 << 14
    if large:
        ckpt.execute(program, schedule, *arrays)  # warm: what NumPy and Python allocate once
        gc.freeze()  # so that the meter's garbage collection has little to look at
    run = ckpt.execute(program, schedule, *arrays, trace_memory=large)
    gc.unfreeze()
    got, gradients = run.result
    same(value, got, "executed loss")
    if exact:
        same(grads, gradients, "executed gradients")
    else:
        for a, b in zip(grads, gradients, strict=True):
            slack = 1e-4 if a.itemsize < 8 else 1e-12
            np.testing.assert_allclose(a, b, rtol=slack, atol=slack)
    differs = simulated.same_live_bytes(run.timeline)
    if differs is not None:
        raise AssertionError(
            f"live bytes after instruction {differs}"
            f"\nsimulated {simulated[differs]}\nexecuted  {run.timeline[differs]}"
            f"\n{describe(program.graph)}"
        )
    if not large:
        return
    slack = (1 << 16) + 512 * len(program.graph) + 256 * len(program.graph)
    for position, (a, b) in enumerate(
        zip(simulated.columns["high"], run.timeline.columns["high"], strict=True)
    ):
        if type(schedule.instructions[position]) is Free:
            continue  # what it frees was still there when it began
        # A gradient that came after the high point was not yet part of it.
        made = simulated.columns["gradients"][position]
        made -= simulated.columns["gradients"][position - 1] if position else 0
        low = a - slack - a // 100 - made if tight else 0
        if not low <= b <= a + slack + a // 100:
            raise AssertionError(
                f"instruction {position} reached {b:,} bytes, simulated {a:,}"
                f"\nsimulated {simulated[position]}\nexecuted  {run.timeline[position]}"
                f"\n{describe(program.graph)}"
            )


def hands_on_nothing(traced: Traced) -> None:
    """Our own rules return no residual, so that eager backward needn't look who else holds it."""
    for entry, edges in zip(traced.entries, traced.flow.edges, strict=True):
        for k, edge in enumerate(edges):
            if edge is not None and edge.kernel is not None:
                rule = rules_of(entry.node.op, len(entry.node.inputs))[k]
                kernel = trace_kernel(rule.function, edge.kernel.signature)
                assert kernel.is_fresh or kernel.root == 0, entry.node


def describe(graph: Graph) -> str:
    return "\n".join(f"{i}: {node}" for i, node in enumerate(graph))


def same(a: Any, b: Any, what: str) -> None:
    """Equal bit for bit, dtypes and shapes included."""
    if isinstance(a, (tuple, list)):
        for x, y in zip(a, b, strict=True):
            same(x, y, what)
        return
    a, b = np.asarray(a), np.asarray(b)
    assert a.dtype == b.dtype, what
    assert a.shape == b.shape, what
    # Not tobytes: NaNs may differ in their sign.
    if not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
        off = a != b
        raise AssertionError(f"{what}: {off.sum()} of {a.size} differ, {a[off][:3]} {b[off][:3]}")


def lossy(function: Callable[..., Any], kind: str = "C") -> Callable[..., Any]:
    """A scalar loss of the function's result; ``kind`` names the layout of its cotangent."""

    def loss(*arrays: Any) -> Any:
        out = function(*arrays)
        if kind != "spread":
            out = out * weights(out.shape, out.dtype, kind)
        out = np.sum(out)
        return np.real(out) if out.dtype.kind == "c" else out

    return loss


def weights(shape: tuple[int, ...], dtype: Any, order: str) -> Any:
    """Numbers of several signs and magnitudes, the same at each call."""
    count = int(np.prod(shape))
    made = np.cos(1.0 + np.arange(count, dtype=np.float64))
    if np.dtype(dtype).kind == "c":
        made = made + 1j * np.sin(2.0 + np.arange(count))
    made = made.astype(dtype if np.dtype(dtype).kind in "fc" else np.float64).reshape(shape)
    return np.array(made, order=order)[()]


def differentiable(arrays: Any) -> tuple[int, ...]:
    """Which of the arrays are floats."""
    return tuple(
        k
        for k, a in enumerate(arrays)
        if not isinstance(a, (int, tuple, list)) and np.asarray(a).dtype.kind in "fc"
    )


def _single(array: Any) -> Any:
    """float32 for float64, with the same strides (in elements)."""
    dtype = getattr(array, "dtype", None)
    if dtype == np.float64:
        return _cast(array, np.float32)
    return _cast(array, np.complex64) if dtype == np.complex128 else array


def _cast(array: Any, dtype: Any) -> Any:
    if not array.ndim:
        return dtype(array)
    order = sorted(range(array.ndim), key=lambda k: -abs(array.strides[k]))
    signs = tuple(slice(None, None, -1 if s < 0 else 1) for s in array.strides)
    made = array.transpose(order).astype(dtype, order="C")
    return np.copy(made.transpose(np.argsort(order))[signs], order="K")[signs]


def store_all(graph: Graph) -> Schedule:
    """Compute everything once; free each value after its last reader, forward or backward."""
    last_forward = {i: i for i in range(len(graph))}
    for i, node in enumerate(graph):
        for dep in node.deps:
            last_forward[dep] = i
    read = {r for step in graph.steps for r in step.reads}
    keep = set(graph.outputs) | read
    steps: list[Any] = []
    for i, node in enumerate(graph):
        if not node.resident:
            steps.append(Compute(i))
        for j in sorted({i, *node.deps}):
            if last_forward[j] == i and j not in keep and not graph[j].resident:
                steps.append(Free(j))
    for k, step in enumerate(graph.steps):
        steps.append(Backward(k))
        for r in sorted(set(step.reads)):
            if graph.step_readers[r][-1] == k and not graph[r].resident and r not in graph.outputs:
                steps.append(Free(r))
    return Schedule(tuple(steps))
