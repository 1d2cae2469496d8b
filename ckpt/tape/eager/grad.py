"""`grad` and `value_and_grad`: gradients as functions, of any order."""

from __future__ import annotations

import functools
from collections.abc import Callable
from heapq import heappop
from typing import Any

import numpy as np

from ckpt.errors import TapeError, UsageError
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import view
from ckpt.tape.core.apply import apply
from ckpt.tape.core.changes import Check, verify_read
from ckpt.tape.core.context import CURRENT, run_inside, watching
from ckpt.tape.core.cotangents import fit
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import op
from ckpt.tape.core.rules import Stand, rules_of
from ckpt.tape.core.value import Value, constant, leaf
from ckpt.tape.eager.backward import TURN, Descent, finite_observer, seed
from ckpt.tape.eager.interpreter import NodeObserver
from ckpt.tape.ops.parts import add_parts

ndarray = np.ndarray


@op(infer=lambda x: view(lambda d: d[...], x), view=True)
def stopped(x: Any) -> Any:
    """The value itself, which no gradient flows through."""
    return x[...] if x.ndim else x


stopped.no_gradient()


def stop_gradient(x: Any) -> Any:
    """The same data, cut from its history: no gradient flows back through it."""
    return tree.rebuild(x, lambda v: _stopped(v) if isinstance(v, Value) else v)


def _stopped(value: Value) -> Value:
    """A node where the value may be wanted twice, in a trace or a region; else a constant."""
    if value._node.region is not None or getattr(value.data, "abstract", False):
        return apply(stopped, (value,))
    made = constant(value.data)
    made._node.given = value._node.given
    return made


@op(infer=lambda g, x: view(lambda d: d[...], g), view=True)
def unmoved(g: Any, x: Any) -> Any:
    """A gradient with respect to x that is the same for every x."""
    return g[...] if g.ndim else g


unmoved.vjp(g=lambda g: g, x=lambda g, x_shape, x_dtype: np.zeros(x_shape, x_dtype)[()])


def value_and_grad(
    function: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    check: Check = "default",
) -> Callable[..., Any]:
    """A function that returns ``function``'s loss and its gradients.

    ``function`` returns a scalar (with ``has_aux``, a pair of a scalar and anything). The gradients
    have the structure of the arguments ``argnums``, which hold floats, float arrays or Values in
    nested lists, tuples and dicts; one structure for an int, a tuple of them for a tuple. Where the
    loss depends on other Values as well - it is called on Values, it captures some, or it runs
    inside of another `grad` - the result is differentiable again. With has_aux it returns
    ``((loss, aux), grads)``.

    An array that the backward reads must not be changed in place between the forward and it: a
    buffer that is filled again in a loop, say. ``check`` says how closely that is looked for, as in
    `checkpoint`.
    """
    if not callable(function):
        raise UsageError(f"a function is differentiated, not a {type(function).__name__}")
    numbers = tree.positions_of(argnums)
    watched = watching(check)

    @functools.wraps(function, updated=())
    def differentiated(*args: Any, **kwargs: Any) -> Any:
        followed = _Followed(args, tree.chosen(numbers, args))
        run = functools.partial(function, *followed.args, **kwargs)
        returned = run_inside(run, **watched) if watched else run()
        loss, aux = tree.loss_and_aux(returned, has_aux)
        if not isinstance(loss, Value):
            raise TapeError(
                f"the function returned a {type(loss).__name__}, and not a loss computed from "
                "its arguments with NumPy functions"
            )
        wanted = followed.leaves()
        again = followed.again or _reads_others(loss._node, {v._node for v in wanted})
        found = gradients(loss, wanted, differentiable=again)
        followed.give_back()
        value: Any = loss
        if not again:
            value = loss.data
            aux = tree.rebuild(aux, lambda v: v.data if isinstance(v, Value) else v)
        grads = followed.structured(found)
        structure = grads[0] if isinstance(argnums, int) else grads
        return ((value, aux), structure) if has_aux else (value, structure)

    return differentiated


class _Followed:
    """The arguments of one call, with a Value of its own for each leaf that is differentiated."""

    def __init__(self, given: tuple[Any, ...], numbers: tuple[int, ...]) -> None:
        context = CURRENT.get()
        self.given, self.numbers = given, numbers
        self.tracing = context is not None and context.recorder is not None
        self.again = self.tracing
        """Will the gradients be differentiated themselves?"""
        self.borrowed: list[TapeNode] = []
        """What is followed until its gradients are found, and constants then."""
        self.args = list(given)
        self.values: dict[int, list[Value]] = {}
        """Of each differentiated argument, its leaves."""
        for k in sorted(set(numbers)):
            self.values[k] = []
            self.args[k] = tree.rebuild(given[k], self.following(self.values[k]))

    def following(self, here: list[Value]) -> Callable[[Any], Value]:
        """`follow` for leaves that are added to ``here``: of plain arrays, outside of a trace, in
        fewer calls."""
        add, borrow, tracing = here.append, self.borrowed.append, self.tracing

        def follow(item: Any) -> Value:
            if tracing or type(item) is not ndarray:
                return self.follow(here, item)
            value = leaf(item)
            add(value)
            borrow(value._node)
            return value

        return follow

    def follow(self, here: list[Value], item: Any) -> Value:
        """A Value for one leaf, added to ``here``: a new one, or of a Value a copy."""
        if isinstance(item, Value):
            value = item
        else:
            value = leaf(item)
            if not self.tracing:
                here.append(value)
                self.borrowed.append(value._node)
                return value
            value = constant(value.data)
        followed: Value = value.copy()
        here.append(followed)
        if value.requires_grad:
            self.again = True
        else:
            followed._node.requires_grad = True
            self.borrowed.append(followed._node)
        return followed

    def leaves(self) -> list[Value]:
        return [value for values in self.values.values() for value in values]

    def give_back(self) -> None:
        """Make constants again of what was borrowed."""
        for node in self.borrowed:
            node.requires_grad = False

    def structured(self, found: list[Any]) -> tuple[Any, ...]:
        """Gradients of all leaves, in the structure of each differentiated argument."""
        rest = iter(found)
        parts = {k: [next(rest) for _ in values] for k, values in self.values.items()}
        return tuple(tree.unflatten(self.given[k], parts[k]) for k in self.numbers)


def grad(
    function: Callable[..., Any],
    argnums: int | tuple[int, ...] = 0,
    *,
    has_aux: bool = False,
    check: Check = "default",
) -> Callable[..., Any]:
    """A function that returns the gradients of ``function``; see `value_and_grad`.

    With ``has_aux`` it returns ``(grads, aux)``.
    """
    both = value_and_grad(function, argnums, has_aux=has_aux, check=check)

    @functools.wraps(function, updated=())
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient


def _reads_others(root: TapeNode, own: set[TapeNode]) -> bool:
    """Does a gradient flow from here to a leaf that isn't among ``own``?"""
    seen = {root, *own}
    stack = [] if root in own else [root]
    while stack:
        node = stack.pop()
        if node.op is None:
            return True
        for source in node.inputs or ():
            if type(source) is TapeNode and source.requires_grad and source not in seen:
                seen.add(source)
                stack.append(source)
    return False


def gradients(
    loss: Value,
    wanted: list[Value],
    *,
    differentiable: bool = False,
    observer: NodeObserver | None = None,
) -> list[Any]:
    """The gradients of ``loss`` with respect to ``wanted``: arrays, or Values if differentiable.

    Cotangents stop at the wanted Values; ``.grad`` is left alone.
    """
    start: Any = None
    traced = getattr(loss.data, "abstract", False)
    if loss.requires_grad:
        start = np.ones((), loss.dtype)[()] if traced and not loss.shape else seed(loss, None)
    if start is None:
        raise TapeError("the loss depends on none of the arguments, so there is no gradient")
    # Only what has a history waits for a Backward; a cotangent that comes to a leaf stays there.
    targets = {value._node for value in wanted if value._node.op is not None}
    found: dict[TapeNode, Any] = {}
    context = CURRENT.get()
    within = context is not None and context.region is not None
    observer = observer or finite_observer()
    with TURN, Descent(resting=False) as descent:
        if differentiable:
            descent.begin(loss._node, constant(start))
            _descend_on_values(descent, targets, found, observer, traced)
        else:
            descent.begin(loss._node, start)
            found = descent.run(False, observer, targets)
        for leaf in descent.leaves:
            found[leaf] = leaf.cotangent
        descent.forget()
    if within:
        for node in descent.remade:  # the region that this runs in keeps nothing
            node.value = None
    results = []
    for value in wanted:
        g = found.get(value._node)
        if g is None:
            zeros = np.zeros(value.shape, value.dtype)[()]
            g = zeros
        if differentiable:
            g = g if isinstance(g, Value) else constant(g)
            if value.requires_grad and not g.requires_grad:
                g = apply(unmoved, (g, value))
        results.append(g)
    return results


def _descend_on_values(
    descent: Descent,
    targets: set[TapeNode],
    found: dict[TapeNode, Any],
    observer: NodeObserver | None,
    traced: bool,
) -> None:
    """`Descent.run` with Values for arrays, which retains all."""
    heap = descent.heap
    while heap:
        node = heap[0][1]
        if node in targets:
            found[node], node.cotangent = node.cotangent, None
        else:
            if node.region is not None and not traced:
                descent.replay(node.region, observer)
            _backward_on_values(node, descent.reach, descent.token)
        heappop(heap)


def _backward_on_values(
    node: TapeNode, reached: Callable[[TapeNode], None], descent: object
) -> None:
    """The interpreter's Backward with Values for arrays, so that it is itself on the tape."""
    assert node.op is not None and node.inputs is not None
    if node.watched is not None:
        verify_read(node, descent)
    g, node.cotangent = node.cotangent, None
    lifted = Stand(node, lambda s: s if s.value is None else Value(s.value, s))
    for k, rule in enumerate(rules_of(node.op, len(node.inputs))):
        dep = node.inputs[k]
        if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
            continue
        new = rule.call(g, lifted)
        if new.shape != dep.shape or new.dtype != dep.dtype:
            new = fit(new, dep.shape, dep.dtype)
        if dep.cotangent is None:
            reached(dep)
            dep.cotangent = new
        elif type(dep.dtype) is tuple:
            dep.cotangent = add_parts(dep.cotangent, new)
        else:
            dep.cotangent = dep.cotangent + new
