"""A plan freezes no draw, count or clock: programs that differ from call to call are refused."""

from __future__ import annotations

import functools
import itertools
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.errors import TapeError
from ckpt.tape.core.tree import leaves
from tests.tape.ops.checking import same

X = np.arange(1.0, 6.0)
RNG = np.random.default_rng(0)
OLD = np.random.RandomState(0)
PYTHON = random.Random(0)
BITS = np.random.PCG64(0)
STATE = {"t": 0}
TABLE = np.zeros(5)
TWICE = itertools.count()
helper = types.ModuleType("helper")
exec(
    "import numpy as np\nG = np.random.default_rng(0)\ndef noise(): return G.normal()", vars(helper)
)


def count() -> int:
    STATE["t"] += 1
    return STATE["t"]


class Model:
    """A loss as a method, with a generator of its own."""

    shared = np.random.default_rng(1)

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def loss(self, x):
        return np.sum(x) if self.rng.random() < 2 else np.sum(x * x)

    def of_the_class(self, x):
        return np.sum(x) if self.shared.random() < 2 else np.sum(x * x)

    def __call__(self, x):
        return self.loss(x)


def drawn(draw: Callable[[], Any]) -> Callable[[Any], Any]:
    """A loss that draws, and shows nothing of it."""
    return lambda x: np.sum(x * x) if draw() is not None else np.sum(x)


def forever():
    rng = np.random.default_rng(0)
    while True:
        yield rng.normal()


NOISE = forever()
SHOWN: dict[str, Callable[[Any], Any]] = {
    "array": lambda x: np.sum(x * RNG.normal(size=5)),
    "number": lambda x: np.sum(x * RNG.normal()),
    "NumPy number": lambda x: np.sum(x * np.float64(RNG.normal())),
    "index": lambda x: x[int(RNG.integers(0, 5))] ** 2,
    "slice": lambda x: np.sum(x[: int(RNG.integers(1, 5))] ** 2),
    "shift": lambda x: np.sum(np.roll(x, int(RNG.integers(0, 5))) * np.arange(5.0)),
    "bound": lambda x: np.sum(np.clip(x, 0, RNG.uniform(1, 4))),
    "branch": lambda x: np.sum(x) if RNG.random() < 0.5 else np.sum(x * x),
    "permutation": lambda x: np.sum(x[RNG.permutation(5)] * np.arange(5.0)),
    "exponent": lambda x: np.sum(x ** RNG.integers(2, 9)),
    "unseeded": lambda x: np.sum(x * np.random.default_rng().normal()),
}
HIDDEN: dict[str, Callable[[Any], Any]] = {
    "global": drawn(lambda: RNG.normal()),
    "RandomState": drawn(lambda: OLD.normal()),
    "NumPy's own": drawn(lambda: np.random.rand()),
    "a second normal of NumPy's own": drawn(lambda: np.random.randn()),
    "Python's own": drawn(lambda: random.random()),
    "random.Random": drawn(lambda: PYTHON.gauss(0, 1)),
    "bits": drawn(lambda: BITS.random_raw()),
    "a Generator over bits": drawn(lambda: np.random.Generator(BITS).random()),
    "in a default": drawn(lambda rng=np.random.default_rng(0): rng.random()),  # noqa: B008
    "in a list": drawn(lambda a=[{"rng": np.random.default_rng(0)}]: a[0]["rng"].random()),  # noqa: B008
    "a bound draw": drawn(np.random.default_rng(0).random),
    "partial": functools.partial(lambda rng, x: drawn(rng.random)(x), np.random.default_rng(0)),
    "a method": Model().loss,
    "of a class": Model().of_the_class,
    "a callable": Model(),
    "another module": drawn(lambda: helper.noise()),
    "a running generator": drawn(lambda: next(NOISE)),
    "checkpointed": ckpt.checkpoint(drawn(lambda: RNG.random())),
    "spawned": drawn(lambda: RNG.spawn(1)),
}  # fmt: skip
COUNTED: dict[str, Callable[[Any], Any]] = {
    "counter": lambda x: np.sum(x * count()),
    "counter in an index": lambda x: x[count() % 5] ** 2,
    "an iterator": lambda x: np.sum(x * next(TWICE)),
    "every other call": lambda x: np.sum(x) if count() % 2 else np.sum(x * x),
    "one op more": lambda x: np.sum(np.sin(x) if count() % 2 else np.sin(np.sin(x))),
    "an array in place": lambda x: np.sum(x * np.add(TABLE, 1, out=TABLE)),
    "an array in place, behind": lambda x: (np.sum(x * TABLE), TABLE.__iadd__(1))[0],
    "an option": lambda x: np.std(x, ddof=count() % 2),
    "an axis": lambda x: np.sum(np.cumsum(np.outer(x, x), axis=count() % 2) * np.outer(X, X[::-1])),
    "a dtype": lambda x: np.sum(x.astype(["f4", "f8"][count() % 2])),
    "of which": lambda x: (h := [np.sin(x), np.cos(x)]) and np.sum(h[count() % 2]),
    "zero's sign": lambda x: np.sum(np.arctan2(x, [0.0, -0.0][count() % 2] * x)),
    "a generator made anew": lambda x: np.sum(nn.dropout(x, 0.5, np.random.default_rng(0))),
}  # fmt: skip


def where(function: Any) -> Any:
    """Does a message name a line of this file?"""
    return r"test_steady\.py:\d+: .*(call|drawn|in place)"


@pytest.mark.parametrize("name", [*SHOWN, *HIDDEN])
def test_a_draw_is_refused_and_put_back(name: str) -> None:
    """Whether it shows in the trace or not; NumPy's and Python's own generators included."""
    loss = {**SHOWN, **HIDDEN}[name]
    sources = [RNG.bit_generator, BITS, Model.shared.bit_generator]
    before = [s.state for s in sources], OLD.get_state(), np.random.get_state(), random.getstate()
    with pytest.raises(TapeError, match=where(loss)) as raised:
        ckpt.plan(loss, X)
    assert "\n" not in str(raised.value)
    after = [s.state for s in sources], OLD.get_state(), np.random.get_state(), random.getstate()
    assert repr(before) == repr(after)
    program = ckpt.trace(loss, X)  # a graph can be had, and looked at
    schedule = ckpt.make_schedule(program.graph, "store_all")
    for use in (program.compile, lambda s: program.execute(s, X)):
        with pytest.raises(TapeError, match="call"):
            use(schedule)
    assert repr(before[1:]) == repr((OLD.get_state(), np.random.get_state(), random.getstate()))


@pytest.mark.parametrize("name", COUNTED)
def test_what_changes_from_call_to_call_is_refused(name: str) -> None:
    with pytest.raises(TapeError, match=where(name)):
        ckpt.plan(COUNTED[name], X)


def test_the_line_is_the_one_that_draws() -> None:
    def loss(x):
        h = np.sin(x)
        noise = RNG.normal()
        h = h * h
        return np.sum(h * noise)

    line = loss.__code__.co_firstlineno + 2
    with pytest.raises(TapeError, match=rf"test_steady\.py:{line}: "):
        ckpt.plan(loss, X)

    def counted(x):
        h = np.sin(x)
        h = h * count()
        return np.sum(h)

    line = counted.__code__.co_firstlineno + 2
    with pytest.raises(TapeError, match=rf"test_steady\.py:{line}: multiply takes \d+ in one"):
        ckpt.plan(counted, X)


@pytest.mark.parametrize("of", ["forward", "rule"])
def test_within_an_op_of_the_users(of: str) -> None:
    """What an op is made of is looked at anew by each trace."""

    def scale() -> float:
        return float(count())

    @ckpt.op
    def scaled(x):
        return np.sin(x) * (scale() if of == "forward" else 1.0)

    scaled.vjp(x=lambda g, x: g * np.cos(x) * (scale() if of == "rule" else 1.0))
    with pytest.raises(TapeError, match="call"):
        ckpt.plan(lambda x: np.sum(scaled(x)), X)


def test_an_op_that_reads_a_global_is_planned_as_it_is_now() -> None:
    slope = {"is": 1.0}

    @ckpt.op
    def scaled(x):
        return x * slope["is"]

    scaled.vjp(x=lambda g: g * slope["is"])
    for slope["is"] in (1.0, 3.0):
        step = ckpt.plan(lambda x: np.sum(scaled(np.sin(x))), X)
        same(ckpt.value_and_grad(lambda x: np.sum(scaled(np.sin(x))))(X), step(X), str(slope))


def test_a_rule_declared_anew_is_the_rule() -> None:
    own = ckpt.op(name="declared_anew")(lambda x: np.sin(x))
    loss = lambda x: np.sum(own(x))  # noqa: E731

    def declare(factor: float) -> None:
        own.vjp(x=lambda g: g * factor)

    for factor in (1.0, 2.0):
        declare(factor)
        same((np.sum(np.sin(X)), np.full(5, factor)), ckpt.plan(loss, X)(X), "")


@pytest.mark.parametrize(
    "aux",
    [lambda: {"n": count()}, lambda: [np.arange(3) * count()], lambda: RNG.random(), object],
    ids=["number", "array", "drawn", "object"],
)
def test_what_aux_holds(aux: Callable[[], Any]) -> None:
    if aux is object:  # nothing of it differs
        ckpt.plan(lambda x: (np.sum(x * x), aux()), X, has_aux=True)
        return
    with pytest.raises(TapeError, match="call"):
        ckpt.plan(lambda x: (np.sum(x * x), aux()), X, has_aux=True)


STEADY: dict[str, Callable[[Any], Any]] = {
    "constants made anew": lambda x: np.sum(x * np.ones(5) * np.arange(5.0)) + 0.5,
    "seeded anew": lambda x: np.sum(x * np.random.default_rng(0).normal(size=5)),
    "nan": lambda x: np.sum(x * np.float64("nan")) + float("nan"),
    "an op made anew": lambda x: np.sum(
        ckpt.op(name="anew")(lambda x: np.sin(x)).vjp(x=lambda g, x: g * np.cos(x))(x)
    ),
    "checkpointed anew": lambda x: np.sum(ckpt.checkpoint(lambda x: np.sin(x) * x)(x)),
    "slices and lists": lambda x: np.sum(x[1:4:2] * x[[0, 2]] + x[..., None][:2, 0]),
    "a list's own order": lambda x: np.sum(np.stack([x, x * 2], axis=-1)[:, [1, 0]]),
    "dropout": lambda x: np.sum(nn.dropout(x, 0.5, RNG)),
    "gradients within": lambda x: np.sum(ckpt.grad(lambda y: np.sum(np.sin(y) * y))(x) ** 2),
}


@pytest.mark.parametrize("name", STEADY)
def test_what_is_the_same_from_call_to_call_is_planned(name: str) -> None:
    loss = STEADY[name]
    step = ckpt.plan(loss, X, planner="store_all")
    before = RNG.bit_generator.state
    planned = step(X)
    RNG.bit_generator.state = before
    same(ckpt.value_and_grad(loss)(X), planned, name)


def test_the_advice_works() -> None:
    step = ckpt.plan(lambda x, noise, k: np.sum(x * noise * k), X, X, np.float64(1.0))
    for scale in (2.0, 3.0):
        noise = RNG.normal(size=5)
        want = ckpt.value_and_grad(lambda x, n=noise, s=scale: np.sum(x * n * s))(X)
        same(want, step(X, noise, np.float64(scale)), "")


def test_a_captured_array_may_change_between_calls_and_before_the_first() -> None:
    table = np.ones(5)
    program = ckpt.trace(lambda x: np.sum(np.sin(x) * table), X)
    table *= 2
    step = program.compile(ckpt.make_schedule(program.graph, "store_all"))
    for _ in range(2):
        same(program.plain(X), step(X), "")
        table += 1


# -- generators as arguments -----------------------------------------------------------------------


def masks(w, a, b):
    return np.sum(nn.dropout(w, 0.5, a) * 2 + nn.dropout(w, 0.5, b["b"]) * 3)


def gens(seeds: tuple[int, int]) -> tuple[Any, Any]:
    made = {s: np.random.default_rng(s) for s in seeds}
    return made[seeds[0]], {"b": made[seeds[1]]}


@pytest.mark.parametrize("traced", [(0, 0), (0, 1)], ids=["one traced", "two traced"])
@pytest.mark.parametrize("planner", ["store_all", "recompute_all"])
def test_one_generator_for_two_arguments_and_two(traced: tuple[int, int], planner: str) -> None:
    w = np.ones(50)
    step = ckpt.plan(masks, w, *gens(traced), planner=planner)
    for seeds in ((0, 0), (1, 2), (2, 1), (3, 3)):
        given, eager = gens(seeds), gens(seeds)
        for _ in range(2):
            same(ckpt.value_and_grad(masks)(w, *eager), step(w, *given), str(seeds))
            ran = ckpt.execute(step.program, step.schedule, w, *(copied := gens(seeds)))
            fresh = gens(seeds)
            same(ckpt.value_and_grad(masks)(w, *fresh), ran.result, str(seeds))
            assert repr([g.bit_generator.state for g in (copied[0], copied[1]["b"])]) == repr(
                [g.bit_generator.state for g in (fresh[0], fresh[1]["b"])]
            )
        assert given[0].bit_generator.state == eager[0].bit_generator.state


def test_one_generator_as_an_argument_and_outside() -> None:
    rng = np.random.default_rng(0)
    loss = lambda w, r: np.sum(nn.dropout(w, 0.5, r) * 2 + nn.dropout(w, 0.5, rng) * 3)  # noqa: E731
    step = ckpt.plan(loss, np.ones(50), rng)
    state = rng.bit_generator.state
    want = ckpt.value_and_grad(loss)(np.ones(50), rng)
    rng.bit_generator.state = state
    same(want, step(np.ones(50), rng), "")


@pytest.mark.parametrize(
    "draw", [lambda g: g.random(), lambda g: g.spawn(1)[0].random()], ids=["random", "spawn"]
)
def test_an_arguments_generator_that_is_drawn_from_directly_is_refused(draw: Any) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(TapeError, match=where(draw)):
        ckpt.plan(lambda w, rng: np.sum(w * w) if draw(rng) < 2 else np.sum(w), X, rng)
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    assert rng.bit_generator.seed_seq.n_children_spawned == 0


def test_a_debugger_goes_on() -> None:
    seen = []

    def follow(frame: Any, event: str, arg: Any) -> Any:
        seen.append(event)

    sys.settrace(follow)
    try:
        with pytest.raises(TapeError):
            ckpt.plan(SHOWN["number"], X)
        assert sys.gettrace() is follow
    finally:
        sys.settrace(None)
    assert seen


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("shapes", [((4, 16), (16, 16)), ((2, 3), (3, 2)), ((64, 48), (48, 130))])
def test_a_product_by_dot_has_the_bits_of_matmul(dtype, shapes):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal(s) + 1j * rng.standard_normal(s) for s in shapes]
    x, w = (a.astype(dtype) if dtype[0] == "c" else a.real.astype(dtype) for a in made)
    for a, b in ((x, w), (np.asfortranarray(x), w), (x, np.asfortranarray(w)), (x, x.conj().T)):
        step = ckpt.plan(_of_product, a, b, argnums=(0, 1))
        eager = ckpt.value_and_grad(_of_product, (0, 1))
        for got, expected in zip(leaves(step(a, b)), leaves(eager(a, b)), strict=True):
            assert got.tobytes() == expected.tobytes()


def _of_product(a, b):
    return np.sum(np.abs(np.sin(a @ b * 0.5)) ** 2)
