"""Writes random programs: NumPy source, tried on plain arrays line by line as it is written."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import ckpt
from ckpt import nn
from tests.random_programs.calls import FAMILIES, RANDOM, templates


def draw(shape, seed, dtype="f8", layout="C"):
    """Numbers of the normal law, in some memory layout."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        made = made + 1j * rng.standard_normal(shape)
    made = np.asarray(made).astype(dtype)
    if layout == "F":
        return np.asfortranarray(made)
    if layout == "strided":
        return np.repeat(made, 2, axis=-1)[..., ::2]
    if layout == "reversed":
        return made[::-1].copy()[::-1]
    if layout == "spread":
        return np.broadcast_to(made[:1].copy(), shape)
    return made


HEADER = f"""\
import numpy as np
import ckpt
from ckpt import checkpoint, grad, name, nn, stop_gradient, value_and_grad


{inspect.getsource(draw)}"""


class RetryError(Exception):
    """This template has nothing to work on here; another may."""


@dataclass(frozen=True)
class Written:
    """A program: its ``source`` defines ``loss``, ``arguments()``, ``ARGNUMS`` and ``HAS_AUX``."""

    seed: int
    source: str

    def names(self, source: str | None = None, checkpointed: bool = True) -> dict[str, Any]:
        """What the source defines; not ``checkpointed``: every region is a plain function."""
        found: dict[str, Any] = {"draw": draw, **WORLD}
        if not checkpointed:
            found["checkpoint"] = plain
        exec(compile(source or self.source, f"<program {self.seed}>", "exec"), found)
        return found

    @property
    def in_double(self) -> str:
        """The same program without half and single precision."""
        text = re.sub(r'"f[24]"', '"f8"', self.source).replace('"c8"', '"c16"')
        return re.sub(r"np\.float(16|32)", "np.float64", text)

    @property
    def precision(self) -> float:
        """How far its results may be off by rounding alone, for sums may go in another order."""
        if re.search(r"f2|float16", self.source):
            return 5e-2
        return 1e-3 if re.search(r"f4|c8|float32", self.source) else 1e-9

    @property
    def script(self) -> str:
        """The program as a file of its own."""
        return f"{HEADER}\n\n{self.source}"


def plain(function: Any = None, /, **options: Any) -> Any:
    """`checkpoint` without effect."""
    return function if function is not None else lambda f: f


WORLD = {
    "np": np,
    "ckpt": ckpt,
    "nn": nn,
    "checkpoint": ckpt.checkpoint,
    "grad": ckpt.grad,
    "value_and_grad": ckpt.value_and_grad,
    "stop_gradient": ckpt.stop_gradient,
    "name": ckpt.name,
}


def write(seed: int) -> Written:
    """The program of this seed."""
    with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error")
        return Writer(seed).program()


INDICES = """
    0 | -1 | 1: | :-1 | ::2 | ::-1 | 1::-1 | :1 | ..., 0 | None | ..., None | ..., 1: | ..., ::-1
    | ..., ::2 | 0:0
""".replace("\n", "").split("|")
INDICES_OF_MATRICES = """
    0, 1: | :, 0 | :, -1 | 1:, ::-1 | ::-1, ::-1 | :, None | ::2, 1: | 0, 0 | ..., 0, : | None, :, 0
    | :, 1:2 | -1:, :
""".replace("\n", "").split("|")
INDICES, INDICES_OF_MATRICES = ([i.strip() for i in x] for x in (INDICES, INDICES_OF_MATRICES))
MASKS = (
    "{0} > 0", "np.abs({0}) < 0.8", "np.isfinite({0})", "({0} > -0.5) & ({0} < 1)",
    "np.logical_not({0} >= 0.2)", "np.argmax({0}, axis=-1)", "np.argsort({0}, axis=0)",
    "({0} > 0).astype(int)",
)  # fmt: skip
LOSSES = (
    "np.sum({0})", "np.mean({0})", "np.sum({0} * {0})", "np.mean(np.square({0}))",
    "np.sum(np.sin({0}))", "0.5 * np.sum({0} ** 2)", "{0}.sum()", "{0}.mean()",
)  # fmt: skip
LOSSES_OF_COMPLEX = (
    "np.sum(np.real({0}))", "np.real(np.vdot({0}, {0}))", "np.mean(np.abs({0}) ** 2)",
    "np.sum({0}.real * {0}.imag)", "np.real(np.sum({0} * {0}))",
)  # fmt: skip
LIMITS = {"e": 30.0, "f": 200.0, "d": 1e4, "F": 200.0, "D": 1e4}
"""By dtype: the largest number that is let into a program."""


@dataclass
class Writer:
    seed: int
    lines: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    depth: int = 1

    def __post_init__(self) -> None:
        self.rng = rng = np.random.default_rng(self.seed)
        self.large = rng.random() < 0.04
        sizes = [24, 32, 40, 130] if self.large else [1, 2, 3, 4, 5, 6]
        if not self.large and rng.random() < 0.3:
            sizes = [2, 7, 9, 12, 17]
        self.dims = [int(d) for d in rng.choice(sizes, 2 if self.large else 3, replace=False)]
        self.env: dict[str, Any] = {"draw": draw, **WORLD, "rng": np.random.default_rng(0)}
        self.scope: list[str] = []
        self.tainted: set[str] = set()
        self.count = 0
        dtypes = ["f8", "f8", "f8", "f8", "f4", "f4", "f2", "c16", "c8"]
        self.dtypes = list(rng.choice(dtypes, int(rng.integers(1, 4))))
        if all(d[0] == "c" for d in self.dtypes) or rng.random() < 0.5:
            self.dtypes = ["f8"]
        self.random = rng.random() < 0.25
        self.last: Any = None

    # -- choices -----------------------------------------------------------------------------------

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def of(self, items: Any) -> Any:
        items = list(items)
        if not items:
            raise RetryError
        return items[int(self.rng.integers(len(items)))]

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def pick(self, wanted: Callable[[Any], bool]) -> str:
        """A name in scope, rather a late one; what it stands for becomes `last`."""
        found = [n for n in self.scope if wanted(self.env[n])]
        if not found:
            raise RetryError
        at = min(int(self.rng.geometric(0.35)) - 1, len(found) - 1)
        if self.chance(0.2):
            at = int(self.rng.integers(len(found)))
        name = found[-1 - at]
        self.last = self.env[name]
        return name

    def constant(self, text: str) -> str:
        name = self.fresh("C")
        exec(f"{name} = {text}", self.env)
        self.constants.append(f"{name} = {text}")
        return name

    def plain(self, shape: tuple[int, ...], complex_too: bool = False) -> str:
        """A plain array of this shape."""
        kinds = ["f8", "f8", "f8", "f4", "f2", "i8", "i4", "u1", "bool"]
        if complex_too:
            kinds.append("c16")
        dtype = self.of(kinds if len(self.dtypes) > 1 or self.chance(0.2) else ["f8"])
        if self.large and dtype == "f2":
            dtype = "f4"
        seed = int(self.rng.integers(1000))
        if dtype[0] in "iu":
            return self.constant(
                f"np.random.default_rng({seed}).integers(0, 4, {shape}).astype({dtype!r})"
            )
        if dtype == "bool":
            return self.constant(f"draw({shape}, {seed}) > 0")
        return self.constant(f"draw({shape}, {seed}, {self.quoted(dtype)}, {self.layout(shape)})")

    def quoted(self, dtype: str) -> str:
        return f'"{dtype}"'

    def layout(self, shape: tuple[int, ...]) -> str:
        if not shape or 0 in shape or self.chance(0.5):
            return '"C"'
        return f'"{self.of(["F", "strided", "reversed", "spread"])}"'

    def shape(self) -> tuple[int, ...]:
        ndim = int(self.rng.choice([0, 1, 2, 3, 4], p=[0.08, 0.25, 0.47, 0.15, 0.05]))
        if self.large:
            ndim = 2
        return tuple(1 if self.chance(0.08) else self.of(self.dims) for _ in range(ndim))

    # -- templates ---------------------------------------------------------------------------------

    def filled(self, template: str) -> str:
        """The template with names for its places."""

        def put(match: Any) -> str:
            return str(getattr(self, f"_{match[1]}")())

        return re.sub(r"\{(\w+)\}", put, template)

    def real(self, **wanted: Any) -> str:
        least, most = wanted.get("least", 0), wanted.get("most", 9)
        return self.pick(lambda a: kind(a) == "f" and least <= np.ndim(a) <= most)

    def _x(self) -> str:
        return self.real()

    def _z(self) -> str:
        return self.pick(lambda a: kind(a) in "fc")

    def _c(self) -> str:
        return self.pick(lambda a: kind(a) == "c")

    def _cv(self) -> str:
        return self.pick(lambda a: kind(a) == "c" and np.ndim(a) >= 1 and a.shape[-1] > 1)

    def _cm(self) -> str:
        return self.pick(lambda a: kind(a) == "c" and np.ndim(a) >= 2 and a.shape[-1] > 1)

    def _c2(self) -> str:
        return self.pick(lambda a: kind(a) == "c" and np.ndim(a) == 2)

    def _v(self) -> str:
        return self.real(least=1)

    def _v1(self) -> str:
        return self.real(least=1, most=1)

    def _v3(self) -> str:
        return self.pick(lambda a: kind(a) == "f" and np.ndim(a) and a.shape[-1] == 3)

    def _m(self) -> str:
        return self.real(least=2)

    def _m2(self) -> str:
        return self.real(least=2, most=2)

    def _t3(self) -> str:
        return self.real(least=3, most=3)

    def _same(self) -> str:
        """A value of the last one's shape."""
        shape, last = np.shape(self.last), self.last
        found = self.pick(lambda a: kind(a) == "f" and np.shape(a) == shape)
        if self.chance(0.2):
            found = self.plain(shape)
        self.last = last
        return found

    def _sq(self) -> str:
        return self.pick(
            lambda a: kind(a) == "f" and np.ndim(a) >= 2 and a.shape[-1] == a.shape[-2]
        )

    def _sq2(self) -> str:
        return self.pick(lambda a: kind(a) == "f" and np.ndim(a) == 2 and a.shape[0] == a.shape[1])

    def _spd(self) -> str:
        m = self.pick(lambda a: kind(a) == "f" and np.ndim(a) >= 2 and a.shape[-2] <= 6)
        made = f"({m} @ np.swapaxes({m}, -1, -2) + 0.7 * np.eye({self.last.shape[-2]}))"
        self.last = self.last @ np.swapaxes(self.last, -1, -2)
        return made

    def _herm(self) -> str:
        m = self.pick(lambda a: kind(a) == "c" and np.ndim(a) == 2 and a.shape[-2] <= 6)
        return f"({m} @ {m}.conj().T + np.eye({self.last.shape[0]}))"

    def _c1(self) -> str:
        return f"np.ones({self.last.shape[0]})"

    def _tall(self) -> str:
        return self.pick(
            lambda a: kind(a) == "f" and np.ndim(a) == 2 and a.shape[0] >= a.shape[1] > 0
        )

    def _tallrhs(self) -> str:
        return self.plain((self.last.shape[0],))

    def _rhs(self) -> str:
        return self.operand((self.last.shape[-1], 2))

    def _nchw(self) -> str:
        return self.volume(4)

    def _ncl(self) -> str:
        return self.volume(3)

    def volume(self, ndim: int) -> str:
        """A value with so many axes, by new ones in front."""
        name = self.pick(lambda a: kind(a) == "f" and 2 <= np.ndim(a) <= ndim and min(a.shape) > 1)
        missing = ndim - np.ndim(self.last)
        self.last = np.reshape(self.last, (1,) * missing + self.last.shape)
        return f"{name}[{', '.join(['None'] * missing)}]" if missing else name

    def _kernel1(self) -> str:
        return self.operand((2, self.last.shape[1], 2))

    def _kernel2(self) -> str:
        return self.operand((2, self.last.shape[1], 3, 3))

    def operand(self, shape: tuple[int, ...]) -> str:
        """A value or plain array of exactly this shape."""
        found = [
            n for n in self.scope if kind(self.env[n]) == "f" and np.shape(self.env[n]) == shape
        ]
        return self.of(found) if found and self.chance(0.7) else self.plain(shape)

    def _right(self) -> str:
        return self.operand((self.last.shape[-1], self.of(self.dims)))

    def _right2(self) -> str:
        return self.operand((self.last.shape[-1], self.of(self.dims)))

    def _left(self) -> str:
        m = self.future
        return self.operand((self.of(self.dims), m.shape[-2]))

    _left2 = _left

    def _vec(self) -> str:
        return self.operand(
            (
                self.of(self.dims)
                if self.last is None or np.ndim(self.last) != 1
                else self.last.shape[0],
            )
        )

    def _last(self) -> str:
        return self.operand((self.last.shape[-1],))

    def _last0(self) -> str:
        return self.plain((self.of(self.dims),))

    def _y(self) -> str:
        """What broadcasts with the last value."""
        last, shape = self.last, np.shape(self.last)
        if self.chance(0.15):
            return self.of(
                ["0.5", "2", "-1.5", "np.float32(0.7)", "np.float64(1.3)", "np.int64(2)"]
            )
        if self.chance(0.3):
            lengths = [1 if self.chance(0.25) else n for n in shape]
            lengths = (
                lengths[int(self.rng.integers(0, len(shape) + 1)) :]
                if self.chance(0.4)
                else lengths
            )
            return self.plain(tuple(lengths))

        def fits(a: Any) -> bool:
            try:
                size = np.prod(np.broadcast_shapes(np.shape(a), shape))
            except ValueError:
                return False
            return kind(a) == "f" and size <= 20_000

        found = self.pick(fits)
        self.last = last
        return found

    def _b(self) -> str:
        """A condition that broadcasts with the last value."""
        if self.last is None:
            raise RetryError
        last = self.last
        masks = [n for n in self.scope if kind(self.env[n]) == "b" and fits_in(self.env[n], last)]
        if masks and self.chance(0.5):
            return self.of(masks)
        if self.chance(0.3):
            return self.constant(f"draw({np.shape(last)}, {int(self.rng.integers(1000))}) > 0")
        made = f"({self._y()} > {self.of([0, 0.1, -0.3])})"
        self.last = last
        return made

    def _axis(self) -> str:
        ndim = np.ndim(self.last)
        if not ndim:
            raise RetryError
        return str(self.of(range(-ndim, ndim)))

    def _ax(self) -> str:
        text = self._axw()
        return f", {text}" if text else ""

    def _axw(self) -> str:
        ndim = np.ndim(self.last)
        if not ndim or self.chance(0.2):
            return ""
        axis = self._axis()
        if ndim > 1 and self.chance(0.2):
            axis = "(0, -1)"
        return f"axis={axis}" + (", keepdims=True" if self.chance(0.4) else "")

    def _n(self) -> str:
        return str(self.last.shape[-1])

    _n1 = _n

    def _three(self) -> str:
        return self.plain((3, 2))

    def _n0(self) -> str:
        return str(self.last.shape[0])

    def _labels(self) -> str:
        shape = self.last.shape
        seed = int(self.rng.integers(1000))
        return self.constant(
            f"np.random.default_rng({seed}).integers(0, {shape[-1]}, {shape[:-1]})"
        )

    def _reshape(self) -> str:
        size = int(np.size(self.last))
        for n in self.rng.permutation([2, 3, 4, 5, 6, 1]):
            if size and size % n == 0:
                return self.of([f"({n}, -1)", f"(-1, {n})", f"({n}, {size // n}, 1)"])
        return "(-1,)"

    def _perm(self) -> str:
        return str(tuple(int(k) for k in self.rng.permutation(np.ndim(self.last))))

    def _index(self) -> str:
        return self.of(INDICES)

    def _index2(self) -> str:
        return self.of(INDICES_OF_MATRICES)

    def _indexc(self) -> str:
        return self.of(["0", "::-1", "..., 0", "1:", "..., None"])

    def indices(self, bound: int, shape: Any = None) -> str:
        if bound < 1:
            raise RetryError
        held = [
            n for n in self.scope if kind(self.env[n]) == "i" and np.size(self.env[n])
            and not (self.env[n] >= bound).any() and not (self.env[n] < -bound).any()
        ]  # fmt: skip
        if held and self.chance(0.4) and shape is None:
            return self.of(held)
        shape = shape or self.of([(3,), (2, 2), (4,), (1,), (2, 3)])
        seed = int(self.rng.integers(1000))
        low = -bound if self.chance(0.3) else 0
        text = f"np.random.default_rng({seed}).integers({low}, {bound}, {shape})"
        if len(shape) == 2:
            text += self.of(["", ".T", "[:, ::-1]"])
        return self.constant(text)

    def _ints(self) -> str:
        return self.indices(self.last.shape[0])

    _ints0 = _ints

    def _ints1(self) -> str:
        return self.indices(self.last.shape[1], (self.last.shape[0],))

    def _along(self) -> str:
        return self.indices(self.last.shape[0], (2, *self.last.shape[1:]))

    def _mask0(self) -> str:
        return self.constant(f"np.arange({self.last.shape[0]}) % 3 != 1")

    def _mask(self) -> str:
        return self.constant(f"draw({np.shape(self.last)}, {int(self.rng.integers(1000))}) > -0.3")

    def _fancy(self) -> str:
        i = self.indices(self.last.shape[0])
        return self.of([i, i, f"{i}, ...", f"{i}, None", "[0, -1, 0]", "range(1)"])

    def _fancy2(self) -> str:
        i = self.indices(self.last.shape[0])
        j = (
            self.indices(self.last.shape[1], np.shape(self.env[i]) or None)
            if i in self.env
            else "0"
        )
        k = self.indices(self.last.shape[1])
        return self.of([f":, {k}", f"{i}, {j}", f"{i}, 0", f"{i}, 1:", f"None, {i}", f"{i}, ::-1"])

    # -- statements --------------------------------------------------------------------------------

    def emit(self, text: str) -> None:
        self.lines += ["    " * self.depth + line for line in text.splitlines()]

    def attempt(self, statement: Callable[[], None]) -> bool:
        """Write it if it works and gives reasonable numbers; else leave no trace."""
        before = len(self.lines), len(self.constants), list(self.scope), set(self.tainted)
        keys, depth = set(self.env), self.depth
        try:
            statement()
            return True
        except Exception:
            del self.lines[before[0] :]
            del self.constants[before[1] :]
            self.scope, self.tainted, self.depth = before[2], before[3], depth
            for key in set(self.env) - keys:
                del self.env[key]
            return False

    def expression(self) -> str:
        names = list(FAMILIES)
        weights = np.array([FAMILIES[n][1] for n in names], float)
        if not any(kind(self.env[n]) == "c" for n in self.scope) and self.chance(0.9):
            pass
        text = FAMILIES[names[int(self.rng.choice(len(names), p=weights / weights.sum()))]][0]
        if self.random and self.chance(0.15):
            text = RANDOM
        self.last = None
        template = self.of(templates(text))
        if re.match(
            r"(np\.\w+\()?\{left2?\}|\{vec\} @", template
        ):  # the operand behind comes first
            m = self.real(least=2) if "{m}" in template else self.real(least=1, most=1)
            self.future = self.last
            template = template.replace("{m}", m, 1).replace("{v1}", m, 1)
        return self.filled(template)

    def bind(self, name: str, text: str) -> None:
        """Add ``name = text`` to the program."""
        exec(f"{name} = {text}", self.env)
        self.accept(name)
        if re.match(r"np\.sqrt|.* \*\* 0\.5$", text) and not np.all(self.env[name]):
            raise RetryError  # a pole of the derivative: what NumPy computes there may warn
        self.emit(f"{name} = {text}")
        self.taint(name, text)

    def taint(self, name: str, text: str) -> None:
        if kind(self.env[name]) in "fc" and self.tainted & set(re.findall(r"\w+", text)):
            self.tainted.add(name)
        if name not in self.scope:
            self.scope.append(name)

    def accept(self, name: str) -> None:
        value = self.env[name]
        if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.kind not in "fcbiu":
            raise RetryError
        if value.size > (20_000 if not self.large else 60_000) or value.dtype.char in "gG":
            raise RetryError
        if value.dtype.kind in "fc" and value.size:
            limit = LIMITS[value.dtype.char]
            if not np.isfinite(value).all() or np.abs(value).max() > limit:
                raise RetryError

    def assign(self) -> None:
        self.bind(self.fresh("v"), self.expression())

    def mask(self) -> None:
        x = self._x()
        text = self.of(MASKS).format(x)
        self.bind(self.fresh("b"), text)

    def loop(self) -> None:
        h = self.fresh("h")
        x = self._x()
        before = self.env[x]
        start = f"{x} * 0.9"
        self.env[h] = before * 0.9
        dtype, shape = self.env[h].dtype, self.env[h].shape
        self.scope.append(h)
        tainted = x in self.tainted
        body = []
        for _ in range(30):
            text = self.expression()
            if h not in re.findall(r"\w+", text):
                continue
            try:
                made = eval(text, self.env)
            except Exception:
                continue
            if np.shape(made) == shape and getattr(made, "dtype", None) == dtype:
                body.append(f"    {h} = {text}")
                tainted = tainted or bool(self.tainted & set(re.findall(r"\w+", text)))
                if len(body) == 2:
                    break
        if not body:
            raise RetryError
        text = "\n".join([f"{h} = {start}", f"for k in range({self.of([2, 3, 4])}):", *body])
        exec(text, self.env)
        self.accept(h)
        self.emit(text)
        if tainted:
            self.tainted.add(h)

    def in_place(self) -> None:
        """A plain array changed before anything reads it, or after what doesn't need it again."""
        x = self._x()
        b = self.fresh("buf")
        change = self.of(
            [
                "{0} *= 0.5",
                "{0}[...] += 1",
                "{0}[:1] = 2.0",
                "np.add({0}, 0.3, out={0})",
                "{0}.fill(0.7)",
            ]
        )
        text = f"{b} = np.ones(np.shape({x}))\n{change.format(b)}"
        exec(text, self.env)
        self.emit(text)
        self.scope.append(b)
        self.bind(self.fresh("v"), f"{x} * {b}")
        self.scope.remove(b)

    def rebind(self) -> None:
        x = self.pick(lambda a: kind(a) == "f")
        if x[0] not in "vh" or x not in self.tainted:  # plain arrays can't add Values in place
            raise RetryError
        op = self.of(["+=", "*=", "-="])
        y = self._y()
        old = self.env[x]
        made = eval(f"{x} {op[0]} {y}", self.env)
        if np.shape(made) != np.shape(old) or made.dtype != old.dtype:
            raise RetryError
        self.env[x] = made
        try:
            self.accept(x)
        except RetryError:
            self.env[x] = old
            raise
        # As a statement of its own: plain arrays would be changed in place, Values are rebound.
        new = self.fresh("v")
        self.env[x] = old
        text = f"{new} = {x} + 0\n{new} {op} {y}"
        exec(text, self.env)
        self.accept(new)
        self.emit(text)
        self.taint(new, f"{x} {y}")

    def block(self) -> None:
        """A checkpointed function of some values, which may read others; blocks nest."""
        f = self.fresh("block")
        inner = [self.pick(lambda a: kind(a) in "fc") for _ in range(int(self.rng.integers(1, 3)))]
        inner = list(dict.fromkeys(inner))
        names = [self.fresh("a") for _ in inner]
        decorator = self.of(
            ["@checkpoint"] * 4
            + ['@checkpoint(keep="tanh")', '@checkpoint(keep=["matmul", "kept"])', ""]
        )
        outside = list(self.scope)
        if decorator:
            self.emit(decorator)
        self.emit(f"def {f}({', '.join(names)}):")
        self.depth += 1
        for outer, name in zip(inner, names, strict=True):
            self.env[name] = self.env[outer]
            if outer in self.tainted:
                self.tainted.add(name)
        self.scope = [*(n for n in outside if self.chance(0.3)), *names]
        first = len(self.scope)
        self.statements(int(self.rng.integers(1, 5)))
        made = [n for n in self.scope[first:] if kind(self.env[n]) in "fc"]
        if not made:
            raise RetryError
        results = list(dict.fromkeys([made[-1], *([self.of(made)] if self.chance(0.4) else [])]))
        self.emit(f"return {', '.join(results)}")
        self.depth -= 1
        self.scope = outside
        new = [self.fresh("v") for _ in results]
        text = f"{', '.join(new)} = {f}({', '.join(inner)})"
        self.emit(text)
        for n, r in zip(new, results, strict=True):
            self.env[n] = self.env[r]
            self.scope.append(n)
            if r in self.tainted:
                self.tainted.add(n)

    def statements(self, count: int) -> None:
        kinds = [self.assign, self.block, self.loop, self.mask, self.in_place, self.rebind]
        odds = [0.66, 0.12 if self.depth < 4 else 0.0, 0.06, 0.06, 0.04, 0.06]
        odds = np.array(odds) / sum(odds)
        for _ in range(count):
            for _ in range(25):
                if self.attempt(kinds[int(self.rng.choice(len(kinds), p=odds))]):
                    break

    # -- the whole ---------------------------------------------------------------------------------

    def arguments(self) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]]:
        rng = self.rng
        params = [(self.fresh("p"), self.leaf()) for _ in range(int(rng.integers(1, 4)))]
        inputs = [(self.fresh("x"), self.leaf(True)) for _ in range(int(rng.integers(0, 3)))]
        return "", params, inputs

    def leaf(self, given: bool = False) -> str:
        shape = self.shape()
        seed = int(self.rng.integers(1000))
        if given and self.chance(0.3):
            if self.chance(0.5):
                return f"np.random.default_rng({seed}).integers(0, 2, {shape or (2,)})"
            return f"draw({shape}, {seed}) > 0"
        if not shape and self.chance(0.5):
            return (
                f"{self.rng.standard_normal():.3f}"
                if not given
                else f"np.float64({self.rng.standard_normal():.3f})"
            )
        dtype = self.of(self.dtypes)
        return f"draw({shape}, {seed}, {self.quoted(dtype)}, {self.layout(shape)})"

    def program(self) -> Written:
        for _ in range(50):
            found = self.one()
            if found is not None:
                return Written(self.seed, found)
            self.lines, self.constants, self.scope, self.tainted = [], [], [], set()
            self.depth = 1
        raise AssertionError(f"seed {self.seed}: no program was found")

    def one(self) -> str | None:
        _, params, inputs = self.arguments()
        form = self.of(
            ["dict", "list", "tuple", "single"] if len(params) == 1 else ["dict", "list", "tuple"]
        )
        for name, text in (*params, *inputs):
            exec(f"{name} = {text}", self.env)
            if isinstance(self.env[name], float) or not np.ndim(self.env[name]):
                self.env[name] = np.asarray(self.env[name])[()]
            self.scope.append(name)
        self.tainted = {name for name, _ in params}
        self.scope = [name for name, _ in (*inputs, *params)]
        if not any(kind(self.env[name]) == "f" for name, _ in params):
            return None
        if form == "dict":
            keys = [f'params["{name}"]' for name, _ in params]
            given = "{" + ", ".join(f'"{n}": {t}' for n, t in params) + "}"
        else:
            keys = [f"params[{k}]" for k in range(len(params))]
            given = ", ".join(t for _, t in params)
            given = f"[{given}]" if form == "list" else f"({given},)"
        if form == "single":
            keys, given = ["params"], params[0][1]
        for (name, _), key in zip(params, keys, strict=True):
            self.emit(f"{name} = {key}")
        self.statements(int(self.rng.integers(2, 14)))
        both = (
            bool(inputs) and all(kind(self.env[n]) in "fc" for n, _ in inputs) and self.chance(0.3)
        )
        terms = self.terms()
        if not terms:
            return None
        for k, term in enumerate(terms):
            self.emit(f"t{k} = {term}")
        total = " + ".join(f"t{k}" for k in range(len(terms)))
        has_aux = self.chance(0.4)
        if has_aux:
            late = self.of(list(self.scope))
            parts = ", ".join(f"t{k}" for k in range(len(terms)))
            extra = self.of([f'"late": {late}', '"n": 3', '"none": None', '"plain": np.arange(3)'])
            self.emit(f'return {total}, {{"parts": [{parts}], {extra}}}')
        else:
            self.emit(f"return {total}")
        names = "".join(f", {n}" for n, _ in inputs)
        arguments = "".join(f", {t}" for _, t in inputs)
        if self.random:
            names += ", rng"
            arguments += ", np.random.default_rng(11)"
        numbers = tuple(range(1 + len(inputs))) if both else 0
        body = "\n".join(self.lines)
        used = set(re.findall(r"\bC\d+\b", body))
        constants = "\n".join(c for c in self.constants if c.split()[0] in used)
        return (
            f"{constants}\n\n\ndef loss(params{names}):\n{body}\n\n\n"
            f"def arguments():\n    return {given}{arguments},\n\n\n"
            f"ARGNUMS, HAS_AUX = {numbers}, {has_aux}\n"
        )

    def terms(self) -> list[str]:
        """What the losses are: of late values that depend on the parameters."""
        found = [n for n in self.scope if n in self.tainted]
        made = []
        late = [n for n in found if n[0] in "vh"]
        if not late:
            return []
        text = "\n".join(self.lines)
        unread = [n for n in late if len(re.findall(rf"\b{n}\b", text)) == 1]
        more = [self.of(unread or late) for _ in range(int(self.rng.integers(0, 5)))]
        chosen = list(dict.fromkeys([late[-1], *more, self.of(found)]))
        for name in chosen:
            options = LOSSES_OF_COMPLEX if kind(self.env[name]) == "c" else LOSSES
            for _ in range(5):
                text = self.of(options).format(name)
                try:
                    value = eval(text, self.env)
                except Exception:
                    continue
                if np.isfinite(value) and abs(value) < LIMITS[value.dtype.char]:
                    made.append(text)
                    break
        return made


def kind(array: Any) -> str:
    """ "f", "c", "b" or "i"; "" for what is no array."""
    dtype = getattr(array, "dtype", None)
    return "" if dtype is None else {"u": "i"}.get(dtype.kind, dtype.kind)


def fits_in(a: Any, b: Any) -> bool:
    try:
        return np.broadcast_shapes(np.shape(a), np.shape(b)) == np.shape(b)
    except ValueError:
        return False
