"""What an op is: a forward, and for each operand a rule whose parameter names say what it reads.

::

    @op(np.tanh)
    def tanh(x):
        return np.tanh(x)

    tanh.vjp(x=lambda g, out: (1 - out * out) * g)      # keeps its output, not its input

Positional parameters of the forward are *operands* (Values or plain arrays); keyword-only ones are
static. A rule may name ``g`` (the incoming cotangent), ``out``, operands, an operand's
``x_shape``/``x_dtype`` (which keep no bytes), ``out_shape``/``out_dtype`` and the op's static
parameters. For an op with ``*operands``, the rule of that name serves each of them and may also
name ``k`` (which one), ``operands_shapes``, and ``others`` (all but the k-th, as a tuple). After
fixed operands, as in ``(x, *indices)``, a rule of x may name ``indices``: all of them, as a tuple.
Any other name raises here, at import. Rules are pure NumPy - no ``out=``, no in-place update - so
they run on Values as well, and a gradient of a gradient needs nothing more.

A *primitive* knows its result from shapes alone (``infer``); an op without ``infer`` is
*composite*: its forward is made of ops, and shapes, FLOPs and workspace follow from them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

OUT = -1
"""Where residuals are listed by operand number, the output's own number."""

NUMPY: dict[Any, Op] = {}
"""NumPy function or ufunc -> the op that stands for it on Values."""

ADAPTERS: dict[Any, Callable[..., Any]] = {}
"""NumPy function -> what to do instead when it is called on Values: for those whose arguments are
not simply operands and options."""

ROUNDED: dict[Any, Callable[..., Any]] = {}
"""NumPy function -> ``call(function, args, kwargs)``: its own result where no operand needs a
gradient, or None. For those that our ops round otherwise, or that leave elements in other order."""

LEARNERS: list[Callable[[], bool]] = []
"""What may declare more ops when an unknown ufunc is met; True if it did."""

BY_NAME: dict[str, Op] = {}


class Source(NamedTuple):
    """What one parameter of a rule stands for."""

    kind: str
    """``g``, ``out``, ``out_shape``, ``out_dtype``; ``operand``, ``shape`` or ``dtype`` of one;
    ``option``; and of a variadic op ``rest`` and ``others`` (tuples), ``shapes`` and ``which``."""
    of: Any = ()
    """The operand's number, or numbers; the option's name."""


class Fill(NamedTuple):
    """How a result is filled in that follows element by element: a ufunc, or
    ``function(out, *scratch, *operands, **static)`` on one-dimensional arrays of one length; or row
    by row, by ``function(x, axes, None, out, True)``, as ``reduce`` of a ufunc is called."""

    function: Callable[..., Any]
    scratch: int = 0
    """How many arrays of temporaries it takes."""
    over: tuple[int, ...] = ()
    """Operands that ``out`` may be; a ufunc's may be any."""
    reduces: bool = False
    """Does it reduce rows?"""
    is_mean: bool = False
    """Is the result divided by the number of elements then?"""

    @property
    def is_ufunc(self) -> bool:
        return isinstance(self.function, np.ufunc)


class Op:
    """A differentiable function: its forward, its rules, and what they cost."""

    def __init__(
        self,
        forward: Callable[..., Any],
        *,
        name: str,
        infer: Callable[..., Any] | None = None,
        flops: Callable[..., int] | None = None,
        workspace: Callable[..., int] | None = None,
        scratch: Callable[..., int] | None = None,
        view: bool = False,
        writes: Callable[..., Any] | None = None,
        over: Callable[..., int | None] | None = None,
        fill: Fill | None = None,
        random: bool = False,
    ) -> None:
        self.forward = forward
        self.name = name
        self.infer = infer
        self.flops = flops
        self.workspace = workspace
        self.scratch = scratch
        """Of the same arguments: bytes that a library allocates meanwhile, out of tracemalloc's
        sight."""
        self.view = view
        """The result may share the first operand's buffer."""
        self.writes = writes or (forward if _takes_out(forward) else None)
        """The forward with ``out``, an array for the result (a ufunc's last positional operand)."""
        self.over = over
        """``over(k, result, *operands, **static)``: that array may be operand k, at the price of so
        many more bytes of workspace; None: not that one."""
        self.fill = fill
        self.ours = (getattr(forward, "__module__", "") or "numpy").startswith(("ckpt.", "numpy"))
        """Is it the package's, and not declared by a user?"""
        self.fresh = self.ours and not view
        """Nobody else holds the array that the forward returns."""
        self.random = random
        """The forward draws from a generator; a recomputation replays from its saved state."""
        self.operands, self.static, self.variadic = _parameters(forward)
        self.functions: dict[str, Callable[..., Any] | None] = {}
        """Operand's name -> its rule; None: no gradient flows to it. An operand that isn't here has
        no rule yet, and backward says so if it comes there."""
        self.accumulators: dict[str, Callable[..., None]] = {}
        self.into_workspace: Callable[[Any, Any, Any], int] | None = None
        self.is_ours = _is_ours(forward)
        """Is it one of the catalogue, or of a NumPy function alone?"""
        self.reset()

    if TYPE_CHECKING:  # see `ckpt.tape.install`

        def __call__(self, *operands: Any, **params: Any) -> Any: ...

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def reset(self) -> None:
        """Forget what was derived from the rules; they have changed."""
        self.rules: dict[int, tuple[Any, ...]] = {}
        """See `ckpt.tape.core.rules.rules_of`."""
        self.kernels: dict[Any, Any] = {}
        self.calls: dict[str, Callable[..., Any]] = {}
        """See `ckpt.tape.core.apply.call_of`."""
        self.backwards: dict[int, Callable[..., None]] = {}
        """See `ckpt.tape.eager.generated`."""
        self.kept: dict[int, tuple[int, ...]] = {}
        names = self.names
        self.lacking = tuple(name for name in names if name not in self.functions)
        """Operands without a rule, and without a word that they need none."""
        self.differentiable = any(self.functions.get(name, True) for name in names)
        """May a gradient flow to some operand?"""
        blind = sum(1 << k for k, n in enumerate(self.operands) if not self.functions.get(n, True))
        if self.variadic and not self.functions.get(self.variadic, True):
            blind |= -1 << len(self.operands)
        self.blind: int = blind
        """Bit k is set where no gradient flows to operand k."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all operands, the variadic ones last."""
        return (*self.operands, self.variadic) if self.variadic else self.operands

    def vjp(self, **functions: Callable[..., Any] | None) -> Op:
        """Declare the rules: operand name -> ``function(g, ...)`` giving that operand's cotangent.

        A rule's result may have the shape of the output where the operand was broadcast: summing it
        down, and casting it to the operand's dtype, is the tape's job. None in a rule's place says
        that no gradient flows to that operand (a mask, a result that is constant between jumps).
        Backward raises UnsupportedError where it comes to an operand of which nothing was said.
        """
        for name, function in functions.items():
            if name not in self.names:
                raise TypeError(f"{self.name} has no operand {name!r}")
            if function is not None:
                self.sources(function, 0, max(len(self.operands), 1))  # a wrong name raises now
            self.functions[name] = function
        self.reset()
        return self

    def no_gradient(self) -> Op:
        """Say that no gradient flows to any operand that has no rule."""
        return self.vjp(**dict.fromkeys(self.lacking))

    def accumulate(
        self,
        workspace: Callable[[Any, Any, Any], int] | None = None,
        /,
        **functions: Callable[..., None],
    ) -> Op:
        """Declare ``function(target, g, ...)`` that adds an operand's cotangent into ``target``.

        For rules whose result is zero but for a part (a slice): accumulating slices one by one into
        whole arrays would be quadratic. ``target`` has the operand's shape and dtype.
        ``workspace(target, g, node)``: the bytes that takes, of abstract arrays.
        """
        self.into_workspace = workspace
        self.accumulators.update(functions)
        self.reset()
        return self

    def operand_name(self, k: int) -> str:
        """The name that the rule of operand k goes by."""
        return self.operands[k] if k < len(self.operands) else self.variadic

    def sources(self, function: Callable[..., Any], k: int, count: int) -> tuple[Source, ...]:
        """What the parameters of ``function``, a rule of operand k of ``count``, stand for."""
        names = inspect.signature(function).parameters
        return tuple(self._source(name, k, count) for name in names if name != "target")

    def _source(self, name: str, k: int, count: int) -> Source:
        stem, _, suffix = name.rpartition("_")
        if name in ("g", "out", "out_shape", "out_dtype"):
            return Source(name)
        if name in self.static:
            return Source("option", name)
        if name in self.operands:
            return Source("operand", self.operands.index(name))
        if suffix in ("shape", "dtype") and stem in self.operands:
            return Source(suffix, self.operands.index(stem))
        if self.variadic:
            if name == self.variadic and self.operands:
                return Source("rest", tuple(range(len(self.operands), count)))
            if name == "others":
                return Source("others", tuple(j for j in range(count) if j != k))
            if name == f"{self.variadic}_shapes":
                return Source("shapes")
            if name == "k":
                return Source("which", k)
        allowed = ", ".join(["g", "out", *self.operands, *self.static])
        raise TypeError(f"a rule of {self.name} names {name!r}; it may name {allowed}")

    def keeps(self, count: int, mask: int) -> tuple[int, ...]:
        """Which operands (and OUT) the rules of the differentiable operands in ``mask`` read."""
        key = mask | 1 << count
        found = self.kept.get(key)
        if found is None:
            read = {}
            for k in range(count):
                function = self.functions.get(self.operand_name(k))
                if function is not None and mask >> k & 1:
                    read.update(dict.fromkeys(reads(self.sources(function, k, count))))
            self.kept[key] = found = tuple(read)
        return found


def reads(sources: tuple[Source, ...]) -> tuple[int, ...]:
    """The operands (and OUT) whose values these are."""
    found: dict[int, None] = {}
    for kind, of in sources:
        if kind == "out":
            found[OUT] = None
        elif kind == "operand":
            found[of] = None
        elif kind in ("rest", "others"):
            found.update(dict.fromkeys(of))
    return tuple(found)


def _is_ours(forward: Callable[..., Any]) -> bool:
    home = getattr(forward, "__module__", None) or "numpy"
    return home.partition(".")[0] in ("ckpt", "numpy", "scipy")


def _takes_out(forward: Callable[..., Any]) -> bool:
    """Has the forward a keyword ``out``, an array to put its result into?"""
    return not isinstance(forward, np.ufunc) and "out" in inspect.signature(forward).parameters


def _parameters(forward: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """The forward's operands, its static parameters with their defaults, its variadic name."""
    if isinstance(forward, np.ufunc):
        return (("x",) if forward.nin == 1 else ("x", "y")), {}, ""
    operands: list[str] = []
    static: dict[str, Any] = {}
    variadic = ""
    for p in inspect.signature(forward).parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            variadic = p.name
        elif p.kind is p.KEYWORD_ONLY:
            if p.name != "out":
                static[p.name] = p.default
        else:
            operands.append(p.name)
    return tuple(operands), static, variadic


def op(*functions: Any, name: str = "", **traits: Any) -> Callable[..., Any]:
    """Declare an op: bare over a function, or with the NumPy functions it stands for.

    ::

        @op                                   # a function of one's own, made of NumPy calls
        def softplus(x, *, beta=1.0):
            return np.log1p(np.exp(beta * x)) / beta

        softplus.vjp(x=lambda g, x, beta: g / (1 + np.exp(-beta * x)))

    Traits: ``infer(*abstract operands, **static) -> AbstractArray`` makes it a primitive (needed
    only where the forward isn't itself made of differentiable NumPy functions), with ``flops``,
    ``workspace`` and ``scratch`` (bytes, which tracemalloc sees or doesn't) of the same arguments
    and the result first.
    """
    bare = len(functions) == 1 and inspect.isfunction(functions[0]) and not traits and not name
    if bare and functions[0].__module__.partition(".")[0] != "numpy":
        return _named(Op(functions[0], name=functions[0].__name__))

    def declare(forward: Callable[..., Any]) -> Op:
        made = _named(Op(forward, name=name or forward.__name__, **traits))
        for function in functions:
            NUMPY[function] = made
        return made

    return declare


def _named(op: Op) -> Op:
    BY_NAME[op.name] = op
    return op


def adapt(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what a NumPy function means on Values, in terms of other functions and ops."""

    def register(adapter: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            ADAPTERS[function] = adapter
        return adapter

    return register
