"""What an op is: a forward, and for each operand a rule whose parameter names say what it reads.

::

    @op(np.tanh)
    def tanh(x):
        return np.tanh(x)

    tanh.vjp(x=lambda g, out: g * (1 - out * out))      # keeps its output, not its input

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
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.node import TapeNode, lost

OUT = -1
"""Where residuals are listed by operand number, the output's own number."""

NUMPY: dict[Any, Op] = {}
"""NumPy function or ufunc -> the op that stands for it on Values."""

ADAPTERS: dict[Any, Callable[..., Any]] = {}
"""NumPy function -> what to do instead when it is called on Values: for those whose arguments are
not simply operands and options."""

BY_NAME: dict[str, Op] = {}


class Rule:
    """How an operand's cotangent follows from ``g``: a function, and what it reads beside."""

    __slots__ = ("accumulator", "call", "function", "into", "reads", "sources")

    def __init__(
        self, function: Callable[..., Any], sources: list[str], reads: tuple[int, ...], operand: int
    ) -> None:
        self.function = function
        self.sources = sources
        self.reads = reads
        self.call = _compiled("g, node", f"function({', '.join(sources)})", function, operand)
        """``call(g, node)``: one lambda a rule, so that a Backward pays for no lookups."""
        self.into: Callable[[Any, Any, Any], None] | None = None
        """``into(target, g, node)`` adds the cotangent into ``target``, if the op declares it."""
        self.accumulator: Rule | None = None

    def arguments(self, g: Any, node: Any, operand: int) -> tuple[Any, ...]:
        """What the function would be called with."""
        given = f"({', '.join(self.sources)},)"
        return _compiled("g, node", given, None, operand)(g, node)  # type: ignore[no-any-return]


def _compiled(parameters: str, body: str, function: Any, operand: int) -> Callable[..., Any]:
    names = {
        "function": function,
        "operand": operand,
        "TapeNode": TapeNode,
        "read": read,
        "shape_of": shape_of,
        "dtype_of": dtype_of,
    }
    return eval(f"lambda {parameters}: {body}", names)  # type: ignore[no-any-return]


def read(source: Any) -> Any:
    """The array of a node's input: a tape node's value, or the constant itself."""
    if type(source) is TapeNode:
        if source.value is None:
            raise lost(source)
        return source.value
    return source


def shape_of(source: Any) -> tuple[int, ...]:
    return source.shape if hasattr(source, "shape") else np.shape(source)


def dtype_of(source: Any) -> np.dtype[Any]:
    return source.dtype if hasattr(source, "dtype") else np.asarray(source).dtype


def _source(op: Op, operand: int, name: str, count: int, reads: list[int]) -> str:
    """The expression for one parameter of a rule, noting in ``reads`` which values it needs."""
    if name == "g":
        return "g"
    if name == "out":
        reads.append(OUT)
        return "node.value"
    if name in ("out_shape", "out_dtype"):
        return f"node.{name[4:]}"
    if name in op.static:
        return f"node.params[{name!r}]"
    for suffix, function in (("_shape", "shape_of"), ("_dtype", "dtype_of")):
        stem = name.removesuffix(suffix)
        if name.endswith(suffix) and stem in op.operands:
            source = f"node.inputs[{op.operands.index(stem)}]"
            attribute = suffix.replace("_", ".")
            return f"(i{attribute} if type(i := {source}) is TapeNode else {function}(i))"
    if op.variadic:
        fixed = len(op.operands)
        if name == op.variadic and fixed:
            reads.extend(range(fixed, count))
            return "(" + "".join(f"read(node.inputs[{k}]), " for k in range(fixed, count)) + ")"
        if name == "k":
            return "operand"
        if name == f"{op.variadic}_shapes":
            return "[shape_of(i) for i in node.inputs]"
        if name == "others":
            others = [k for k in range(count) if k != operand]
            reads.extend(others)
            return "(" + "".join(f"read(node.inputs[{k}]), " for k in others) + ")"
    if name in op.operands:
        position = op.operands.index(name)
        reads.append(position)
        # `read`, without the call in the usual case
        return (
            f"(i.value if type(i := node.inputs[{position}]) is TapeNode and i.value is not None "
            "else read(i))"
        )
    allowed = ["g", "out", *op.operands, *op.static]
    raise TypeError(f"a rule of {op.name} names {name!r}; it may name {', '.join(allowed)}")


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
        view: bool = False,
        ufunc: np.ufunc | None = None,
        writes: Callable[..., Any] | None = None,
        random: bool = False,
    ) -> None:
        self.forward = forward
        self.name = name
        self.infer = infer
        self.flops = flops
        self.workspace = workspace
        self.view = view
        """The result may share the first operand's buffer."""
        self.ufunc = ufunc
        """The elementwise ufunc that the forward is: its result may take an operand's place."""
        self.writes = writes
        """The forward with ``out``, an array for the result (a ufunc's last positional operand)."""
        self.random = random
        """The forward draws from a generator; a recomputation replays from its saved state."""
        self.operands, self.static, self.variadic = _parameters(forward)
        self.functions: dict[str, Callable[..., Any]] = {}
        self.accumulators: dict[str, Callable[..., None]] = {}
        self.into_workspace: Callable[[Any, Any, TapeNode], int] | None = None
        self.kernels: dict[Any, Any] = {}
        self.differentiable = False
        self.reset()
        BY_NAME[name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def reset(self) -> None:
        """Forget what was derived from the rules; they have changed."""
        self.rules = cache(self._rules)
        self.kept: dict[int, tuple[int, ...]] = {}

    def vjp(self, **functions: Callable[..., Any]) -> Op:
        """Declare the rules: operand name -> ``function(g, ...)`` giving that operand's cotangent.

        A rule's result may have the shape of the output where the operand was broadcast: summing it
        down, and casting it to the operand's dtype, is the tape's job.
        """
        for name, function in functions.items():
            if name not in (*self.operands, self.variadic):
                raise TypeError(f"{self.name} has no operand {name!r}")
            self.functions[name] = function
        self.differentiable = True
        self.reset()
        self.rules(max(len(self.operands), 1))  # so that a wrong name raises now
        return self

    def accumulate(
        self,
        workspace: Callable[[Any, Any, TapeNode], int] | None = None,
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

    def _rules(self, count: int) -> tuple[Rule | None, ...]:
        """The rules of a call with ``count`` operands, None where there is none."""
        rules: list[Rule | None] = []
        for k in range(count):
            name = self.operands[k] if k < len(self.operands) else self.variadic
            rules.append(
                self.rule(k, count, self.functions[name]) if name in self.functions else None
            )
            if name in self.accumulators:
                into = self.accumulators[name]
                names = [n for n in inspect.signature(into).parameters if n != "target"]
                sources = [_source(self, k, n, count, []) for n in names]
                rule = rules[-1]
                assert rule is not None
                text = f"function(target, {', '.join(sources)})"
                rule.into = _compiled("target, g, node", text, into, k)
                rule.accumulator = Rule(into, sources, (), k)
        return tuple(rules)

    def rule(self, k: int, count: int, function: Callable[..., Any], like: Any = None) -> Rule:
        """A rule of operand k of ``count``; its parameters are those of ``like`` if given."""
        reads: list[int] = []
        names = inspect.signature(like or function).parameters
        sources = [_source(self, k, name, count, reads) for name in names]
        return Rule(function, sources, tuple(dict.fromkeys(reads)), k)

    def keeps(self, count: int, mask: int) -> tuple[int, ...]:
        """Which operands (and OUT) the rules of the differentiable operands in ``mask`` read."""
        key = mask | 1 << count
        found = self.kept.get(key)
        if found is None:
            rules = [r for k, r in enumerate(self.rules(count)) if r is not None and mask >> k & 1]
            found = tuple(dict.fromkeys(k for rule in rules for k in rule.reads))
            self.kept[key] = found
        return found

    def into_cost(self, target: Any, g: Any, node: TapeNode) -> tuple[int, int]:
        """FLOPs and workspace of accumulating a part: an addition an element."""
        workspace = self.into_workspace
        return int(g.size), workspace(target, g, node) if workspace else 0

    def __call__(self, *operands: Any, **params: Any) -> Any:
        """Apply to Values (recorded on the tape) or plain arrays (just computed).

        A random op is recorded in any case where its result may be wanted twice: in a checkpointed
        region or a trace.
        """
        from ckpt.tape.core.apply import apply, is_recorded

        for name in params:
            if name not in self.static:
                options = ", ".join(self.static) or "none"
                raise UnsupportedError(f"{self.name} has no option {name!r}; it has: {options}")
        if is_recorded(self, operands):
            return apply(self, operands, {**self.static, **params} if self.static else None)
        return self.forward(*operands, **params)


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
    only where the forward isn't itself made of differentiable NumPy functions), with ``flops`` and
    ``workspace`` (bytes) of the same arguments and the result first.
    """
    bare = len(functions) == 1 and inspect.isfunction(functions[0]) and not traits and not name
    if bare and functions[0].__module__.partition(".")[0] != "numpy":
        return Op(functions[0], name=functions[0].__name__)

    def declare(forward: Callable[..., Any]) -> Op:
        made = Op(forward, name=name or forward.__name__, **traits)
        for function in functions:
            NUMPY[function] = made
        return made

    return declare


def adapt(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register what a NumPy function means on Values, in terms of other functions and ops."""

    def register(adapter: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            ADAPTERS[function] = adapter
        return adapter

    return register


NumPyArgs = Sequence[Any]
