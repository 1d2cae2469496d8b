"""A rule's parameter names are its declaration: each is handed what it names, what none names is
poison to touch, and what may not be named is refused where the rule is declared."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value, nn
from ckpt.tape.core.apply import apply
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import BY_NAME, Op
from ckpt.tape.ops.parts import parts
from ckpt.tape.ops.reducing.cumulative import recurrence
from tests.tape.ops.checking import same, store_all, weights

RNG = np.random.default_rng(0)
X = RNG.uniform(0.2, 0.8, (3, 3))

# -- what is handed over ---------------------------------------------------------------------------


def noted(seen: dict[str, Any], names: str) -> Callable[..., Any]:
    """A rule with these parameters, that notes what they are and hands on its cotangent."""

    def rule(*given: Any) -> Any:
        seen.update(zip(names.split(", "), given, strict=True))
        return 1.0 * seen["g"]

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names.split(", ")]
    rule.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return rule


@pytest.mark.parametrize(
    "names", ["g", "g, out", "g, x", "g, y", "x, g", "g, x, y", "g, y, out", "y, x, out, g"]
)
def test_values_by_name_in_any_order(names: str) -> None:
    seen: dict[str, Any] = {}
    op = ckpt.op(name="noting")(lambda x, y: x * y + 1).vjp(x=noted(seen, names), y=None)
    Y = RNG.uniform(0.2, 0.8, (3, 3))
    np.sum(op(Value(X), Value(Y)) * 2.0).backward()
    expected = {"g": np.full((3, 3), 2.0), "x": X, "y": Y, "out": X * Y + 1}
    assert sorted(seen) == sorted(names.split(", "))
    for name, array in seen.items():
        same(expected[name], array, name)


def test_shapes_dtypes_and_options_by_name() -> None:
    seen: dict[str, Any] = {}
    names = "g, x_shape, y_shape, out_shape, x_dtype, y_dtype, out_dtype, scale, shift"

    @ckpt.op(name="noting")
    def op(x: Any, y: Any, *, scale: float = 2.0, shift: float = 0.0) -> Any:
        return x * y * scale + shift

    op.vjp(x=noted(seen, names))
    np.sum(op(Value(X[0].astype("f4")), X, shift=5.0)).backward()
    del seen["g"]
    assert seen == {
        "x_shape": (3,), "y_shape": (3, 3), "out_shape": (3, 3),
        "x_dtype": np.float32, "y_dtype": np.float64, "out_dtype": np.float64,
        "scale": 2.0, "shift": 5.0,
    }  # fmt: skip


def test_of_many_operands() -> None:
    seen: list[Any] = []

    @ckpt.op(name="noting")
    def op(*xs: Any, power: int = 2) -> Any:
        total: Any = 0.0
        for x in xs:
            total = total + x**power
        return total

    def rule(g: Any, k: Any, others: Any, xs_shapes: Any, power: Any) -> Any:
        seen.append((k, others, xs_shapes, power))
        return g * 1.0

    op.vjp(xs=rule)
    np.sum(op(Value(X), X[0], Value(X + 1))).backward()
    (first, last) = seen
    shapes = [(3, 3), (3,), (3, 3)]
    assert (first[0], first[2:]) == (0, (shapes, 2))
    assert (last[0], last[2:]) == (2, (shapes, 2))
    same((X[0], X + 1), first[1], "others")
    same((X, X[0]), last[1], "others")


def test_of_fixed_operands_and_more() -> None:
    seen: dict[str, Any] = {}

    @ckpt.op(name="noting")
    def op(x: Any, *rest: Any) -> Any:
        return x * rest[0] + rest[1]

    op.vjp(x=noted(seen, "g, rest"))
    np.sum(op(Value(X), X + 1, X + 2)).backward()
    same((X + 1, X + 2), seen["rest"], "rest")


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (lambda g, z: g, "names 'z'; it may name g, out, x, y, scale"),
        (lambda g, z_shape: g, "names 'z_shape'"),
        (lambda g, scale_shape: g, "names 'scale_shape'"),
        (lambda g, x_size: g, "names 'x_size'"),
        (lambda g, others: g, "names 'others'"),
        (lambda g, k: g, "names 'k'"),
        (lambda *args: args[0], "names 'args'"),
    ],
)
def test_another_name_is_refused_where_the_rule_is_declared(given: Any, allowed: str) -> None:
    @ckpt.op(name="refusing")
    def op(x: Any, y: Any, *, scale: float = 1.0) -> Any:
        return x * y * scale

    with pytest.raises(TypeError, match=f"a rule of refusing {allowed}"):
        op.vjp(x=given)
    with pytest.raises(TypeError, match="refusing has no operand 'z'"):
        op.vjp(z=lambda g: g)
    assert not op.functions  # and nothing is half declared


def test_a_rule_declared_again_takes_effect() -> None:
    op = ckpt.op(name="twice")(lambda x: x * 2).vjp(x=lambda g, x: g * x)
    same(X, ckpt.grad(lambda w: np.sum(op(w)))(X), "first")
    op.vjp(x=lambda g, out: g * 5 + 0 * out)
    same(np.full_like(X, 5), ckpt.grad(lambda w: np.sum(op(w)))(X), "second")


# -- what is not -----------------------------------------------------------------------------------


class Poison:
    """Stands for a value that no rule declared."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"a rule reads .{name} of a value that it didn't declare")


def tape(loss: Value) -> list[TapeNode]:
    """The nodes that the loss was computed from, and its own."""
    seen = {loss._node}
    stack = [loss._node]
    while stack:
        for source in stack.pop().inputs or ():
            if type(source) is TapeNode and source not in seen:
                seen.add(source)
                stack.append(source)
    return list(seen)


def total(y: Any) -> Any:
    """A scalar loss of a result, or of several, that keeps none of them."""
    if isinstance(y.data, tuple):
        made: Any = 0.0
        for part in parts(y):
            made = made + total(part)
        return made
    y = np.sum(y * weights(y.shape, np.float64, "C"))
    return np.real(y) if y.dtype.kind == "c" else y


def gradients(function: Any, arrays: Any, which: Any, poisoned: bool) -> Any:
    """By plain backward, nothing of the tape kept but what some rule declared."""
    leaves = [Value(a) if k in which else a for k, a in enumerate(arrays)]
    # Of a leaf the user holds the value, so the operands are computed.
    loss = total(function(*[x + 0.0 if isinstance(x, Value) else x for x in leaves]))
    if not isinstance(loss, Value) or not loss.requires_grad:
        return None
    names = {node.op.name for node in tape(loss) if node.op is not None}
    for node in tape(loss) if poisoned else ():
        if node.value is None:
            node.value = Poison()
    loss.backward(retain_graph=True)
    return names, [leaf.grad for leaf in leaves if isinstance(leaf, Value)]


OURS = [
    op
    for op in BY_NAME.values()
    if any(f is not None and f.__module__.startswith("ckpt.") for f in op.functions.values())
]
SPECIAL: dict[str, Callable[[Any], Any]] = {
    "cholesky": lambda x: np.linalg.cholesky(x @ x.T + 3 * np.eye(3)),
    "getitem": lambda x: x[1:, 0] * x[0, 1:],
    "gather": lambda x: x[[0, 2, 2], :2],
    "roll": lambda x: np.roll(x, 1, axis=0),
    "pad": lambda x: np.pad(x, 1),
    "diagonal": np.diagonal,
    "reshape": lambda x: np.reshape(x, (9,)),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 3, 3)),
    "take": lambda x: np.take(x, [2, 0], axis=1),
    "take_along_axis": lambda x: np.take_along_axis(x, np.argsort(x, axis=0), axis=0),
    "masked": lambda x: nn.dropout(x, 0.5, np.random.default_rng(0)),
    "convolution": lambda x: nn.conv2d(
        np.reshape(x, (1, 1, 3, 3)), np.reshape(np.sin(x)[:2, :2], (1, 1, 2, 2)), np.cos(x)[0, :1]
    ),
    "embedding": lambda x: nn.embedding(x, np.array([0, 2, 2])),
    "class_losses": lambda x: nn.cross_entropy(x, np.array([0, 2, 1])),
    "normalized": lambda x: nn.layer_norm(x, np.sin(x)[0], np.cos(x)[0]),
    "take_tap": lambda x: nn.max_pool2d(np.reshape(x, (1, 1, 3, 3)), 2, stride=1),
    "tap_mean": lambda x: nn.avg_pool2d(np.reshape(x, (1, 1, 3, 3)), 2, stride=1),
    "padded": lambda x: nn.pad2d(np.reshape(x, (1, 1, 3, 3)), 1),
    "upsample": lambda x: nn.upsample(np.reshape(x, (1, 1, 3, 3)), 2),
    "eigh": lambda x: np.linalg.eigh(x + x.T)[1] ** 2,
    "qr": lambda x: np.linalg.qr(x)[0],
    "recurrence": lambda x: recurrence(x, np.sin(x), axis=0),
    "group_sums": lambda x: np.bincount(np.array([0, 2, 0]), x[0]),
}
"""Of the ops whose operands aren't just float arrays."""


def called(op: Op) -> tuple[Callable[..., Any], list[Any]] | None:
    """The op on small float arrays of the first shape that it takes."""
    count = max(len(op.operands), 1) + bool(op.variadic)
    params = dict(op.static) or None
    for shape in ((3, 3), (4,), (2, 3, 3)):
        arrays = [RNG.uniform(0.2, 0.8, shape) for _ in range(count)]

        def function(*operands: Any) -> Any:
            return apply(op, operands, params)

        try:
            for which in (range(count), (0,)):
                gradients(function, arrays, which, poisoned=False)
        except (TypeError, ValueError, IndexError, AttributeError, np.linalg.LinAlgError):
            continue
        return function, arrays
    return None


poisoned: set[str] = set()
"""The ops whose rules have been run on poison so far."""


def check(function: Any, arrays: Any) -> None:
    for which in (range(len(arrays)), *[(k,) for k in range(len(arrays))]):
        plain = gradients(function, arrays, which, poisoned=False)
        if plain is None:
            continue
        names, found = gradients(function, arrays, which, poisoned=True)
        poisoned.update(names)
        for expected, gradient in zip(plain[1], found, strict=True):
            assert (expected is None) == (gradient is None)
            if expected is not None:
                same(expected, gradient, f"operands {which}")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_no_rule_reads_what_it_did_not_declare() -> None:
    """Every op of ours, each operand alone (the others frozen) and all at once, and its gradient's
    gradient, whose rules are those of the ops that rules are made of."""
    for op in OURS:
        found = called(op)
        if found is not None:
            check(*found)

    def slope(function: Any) -> Any:
        return lambda x: ckpt.grad(lambda v: total(np.square(function(v))))(x)

    for function in SPECIAL.values():
        check(function, [X])
        check(slope(function), [X])
    # Left out: what takes whole numbers only, and the sum of two tuples, which is met above only
    # where a gradient of a gradient has two of them.
    assert {op.name for op in OURS} - poisoned <= {"ldexp", "add_parts", "alone"}


def test_poison_is_felt() -> None:
    """The square of x keeps x, and a rule that may not have it fails."""
    loss = np.sum((h := Value(X) + 0.0) * h)
    h._node.value = Poison()
    with pytest.raises(Exception, match=r"declare|unsupported operand"):
        loss.backward()


def test_a_schedule_frees_what_no_rule_declared_and_no_gradient_moves() -> None:
    """The same of a traced program: a step has only what its rules declared."""
    for name, function in SPECIAL.items():
        if name == "masked":
            continue  # it draws anew

        def loss(w: Any, function: Any = function) -> Any:
            return total(function(np.sin(w)))

        program = ckpt.trace(loss, X)
        found = program.execute(store_all(program.graph), X)
        same(ckpt.value_and_grad(loss)(X), found, name)
