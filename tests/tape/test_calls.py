"""The quick ways of a call and of a Backward give what the general ones give, bit for bit."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value, nn
from ckpt.tape.core.apply import apply
from ckpt.tape.core.op import BY_NAME, NUMPY
from ckpt.tape.eager import generated

BINARY = {
    operator.add: np.add, operator.sub: np.subtract, operator.mul: np.multiply,
    operator.truediv: np.true_divide, operator.pow: np.power,
}  # fmt: skip
NUMBERS = [0.0, -0.0, 1.0, -1.5, 1e-310, 1e308, np.inf, -np.inf, np.nan, 0.1]
PLAIN = [*NUMBERS, 0, 3, -7, 2**53 + 1, 2**70]


def bits(x: Any) -> Any:
    return type(x), np.asarray(x).dtype, np.asarray(x).tobytes()


def written(out: Value, *values: Value) -> Any:
    """What is on the tape for a result."""
    node = out._node
    assert node.inputs is not None
    kept = [v._node.value is not None for v in (out, *values)]
    inputs = [values.index(i) if i in values else repr(i) for i in node.inputs]
    return bits(out.data), node.op, node.mask, node.frees, node.shape, node.dtype, kept, len(inputs)


@pytest.mark.parametrize("sign", BINARY, ids=lambda f: f.__name__)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_operators_on_numbers_are_the_ufuncs(sign: Callable[..., Any]) -> None:
    op = NUMPY[BINARY[sign]]
    kinds: list[Callable[[Any], Any]] = [Value, lambda n: n]
    for x in NUMBERS:
        for y in PLAIN:
            for kind in kinds if isinstance(y, float) or sign is not operator.pow else kinds[:1]:
                for turned in (False, True):
                    found = []
                    for call in (sign, lambda *operands: apply(op, operands)):
                        a, b = Value(x), kind(y)
                        out = call(b, a) if turned else call(a, b)
                        values = [v for v in (a, b) if isinstance(v, Value)]
                        kept = written(out, *values)
                        out.backward()
                        found.append((kept, [bits(v.grad) for v in values]))
                    assert found[0] == found[1], (x, y, turned)


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((3, 4), (3, 4)), ((4,), ())])
def test_operators_on_arrays_are_the_ufuncs(shapes: Any) -> None:
    rng = np.random.default_rng(0)
    for sign, ufunc in BINARY.items():
        for dtype in (np.float32, np.float64, np.complex64):
            found = []
            for call in (sign, lambda *operands, u=ufunc: apply(NUMPY[u], operands)):
                rng = np.random.default_rng(1)
                x, y = (Value(rng.uniform(1, 2, s).astype(dtype)) for s in shapes)
                inner = x * 1
                out = call(inner, y)
                kept = written(out, inner, y)
                np.sum(np.real(out)).backward()
                found.append((kept, bits(x.grad), bits(y.grad)))
            assert found[0] == found[1]


def program(p: Any, x: Any) -> Any:
    """Views, broadcasts, shared operands, parts, several results, several dtypes."""
    w, b, s = p
    h = np.tanh(x @ w + b) * s
    h = h + h[::-1] - np.transpose(np.transpose(h)) / (1 + s * s)
    q, r = np.linalg.qr(h)
    h = nn.layer_norm(h, b, b) + np.broadcast_to(np.sum(h, axis=0), h.shape)
    h = h.astype(np.float32) * h + np.concatenate([h[:1]] * len(h)) + np.stack([b] * len(h))
    return np.mean(h) + np.sum(q * q[0]) + np.sum(r) + np.sum(ckpt.nn.gelu(h)) + s


def test_backwards_are_those_of_a_loop_over_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    p = [rng.standard_normal((4, 4)), rng.standard_normal(4), 0.7]
    x = rng.standard_normal((5, 4))
    for dtype in (np.float32, np.float64):
        given = [np.asarray(a, dtype) if np.ndim(a) else a for a in p]
        found = []
        for few in (generated.FEW, 0):
            monkeypatch.setattr(generated, "FEW", few)
            for op in BY_NAME.values():
                op.backwards.clear()
            loss, grads = ckpt.value_and_grad(program)(given, x.astype(dtype))
            found.append([bits(a) for a in (loss, *grads)])
        assert found[0] == found[1]
    for op in BY_NAME.values():
        op.backwards.clear()


def test_a_rule_declared_anew_holds_from_then_on() -> None:
    x = Value(2.0)
    double: Any = ckpt.op(name="double_of_test")(lambda x: x + x)
    double.vjp(x=lambda g: 2 * g)
    double(x).backward()
    double.vjp(x=lambda g: 3 * g)
    double(x).backward()
    assert x.grad == 5


def test_what_a_backward_reads_is_gone_behind_it() -> None:
    """No name of the generated code holds an array longer than the loop would."""
    import tracemalloc

    x = Value(np.ones(2**17))

    def peak(depth: int) -> int:
        h = x
        for _ in range(depth):
            h = np.tanh(h)
        loss = np.sum(h)
        del h
        tracemalloc.start()
        loss.backward()
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        x.zero_grad()
        return found

    # The incoming cotangent, what the rule makes of it, and the gradient.
    assert peak(6) <= 3 * x.nbytes + 2**16
