"""Contractions: einsum, tensordot, inner, N-d dot. All are one op, of two operands.

`contract` brings the operands' axes into the order batch, left, summed, right and lets `np.matmul`
do the work. NumPy's own einsum, unless asked to optimize, runs a plain C loop over all indices at
once: 24 times slower than BLAS for matrices of order 256, 14 times for attention's batched ones.
For the same reason three and more operands are always contracted in pairs, in the order that
``optimize`` asks for, by default `np.einsum_path`'s greedy one. Each intermediate is a node of its
own, which a planner may keep or rematerialize.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.apply import apply
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.core.value import Value

Labels = tuple[Any, ...]
"""One hashable label an axis."""


@op(name="einsum")
def einsum(
    x: Any, y: Any, *, x_labels: Labels = (), y_labels: Labels = (), labels: Labels = ()
) -> Any:
    """Sum of products over the labels that ``labels`` lacks; no label twice in one operand."""
    return contract(x, y, x_labels, y_labels, labels)


einsum.vjp(
    x=lambda g, y, x_labels, y_labels, labels: contract(g, y, labels, y_labels, x_labels),
    y=lambda g, x, x_labels, y_labels, labels: contract(g, x, labels, x_labels, y_labels),
)


@cache
def _plan(x_labels: Labels, y_labels: Labels, labels: Labels) -> tuple[Labels, ...]:
    """Batch, left, summed and right labels."""
    batch = tuple(n for n in labels if n in x_labels and n in y_labels)
    left = tuple(n for n in x_labels if n not in y_labels)
    summed = tuple(n for n in x_labels if n in y_labels and n not in labels)
    right = tuple(n for n in y_labels if n not in x_labels)
    return batch, left, summed, right


def contract(x: Any, y: Any, x_labels: Labels, y_labels: Labels, labels: Labels) -> Any:
    """``einsum(x_labels, y_labels -> labels)`` where each label is in two of the three.

    Two FLOPs a multiply-add; where nothing is summed, one a product.
    """
    batch, left, summed, right = _plan(x_labels, y_labels, labels)
    if summed and right and labels[len(batch) :][:1] == right[:1]:
        return contract(y, x, y_labels, x_labels, labels)  # the result needs no transposing then
    if not summed:
        return _placed(x, x_labels, labels) * _placed(y, y_labels, labels)
    lengths = dict(zip(x_labels, x.shape, strict=True)) | dict(zip(y_labels, y.shape, strict=True))
    out = np.matmul(
        _grouped(x, x_labels, (batch, left, summed), lengths),
        _grouped(y, y_labels, (batch, summed, right), lengths),
    )
    made = (*batch, *left, *right)
    if len(left) != 1 or len(right) != 1:
        out = np.reshape(out, tuple(lengths[n] for n in made))
    return _transposed(out, made, labels)


def _grouped(x: Any, names: Labels, groups: tuple[Labels, ...], lengths: dict[Any, int]) -> Any:
    """A stack of matrices: batch axes, then one axis for each of two groups of labels."""
    batch, rows, columns = groups
    x = _transposed(x, names, (*batch, *rows, *columns))
    if len(rows) == len(columns) == 1:
        return x
    sides = (prod(lengths[n] for n in group) for group in (rows, columns))
    return np.reshape(x, (*(lengths[n] for n in batch), *sides))


def _transposed(x: Any, names: Labels, wanted: Labels) -> Any:
    return x if names == wanted else np.transpose(x, tuple(map(names.index, wanted)))


def _placed(x: Any, names: Labels, wanted: Labels) -> Any:
    """``x`` with its axes in the wanted order, and an axis of length one for each it lacks."""
    x = _transposed(x, names, tuple(n for n in wanted if n in names))
    missing = tuple(k for k, n in enumerate(wanted) if n not in names)
    return np.expand_dims(x, missing) if missing else x


# -- what NumPy's functions mean -------------------------------------------------------------------


@adapt(np.einsum)
def _einsum(
    *operands: Any,
    dtype: Any = None,
    order: str = "K",
    casting: str = "safe",
    optimize: Any = False,
) -> Any:
    if dtype is not None or order != "K" or casting != "safe":
        raise UnsupportedError("np.einsum of a Value takes no dtype, order or casting")
    arrays, inputs, output = _parse(operands)
    terms, lengths = _aligned(arrays, inputs)
    order_of = [(0, 1)] if len(terms) == 2 else _path(terms, output, lengths, optimize)
    for pair in order_of if len(terms) > 1 else ():
        taken = [terms.pop(k) for k in sorted(pair, reverse=True)][::-1]
        x, names = taken[0]
        for k, (y, y_names) in enumerate(taken[1:], 2):
            later = [n for _, n in (*taken[k:], *terms)]
            wanted = set(output).union(*later)
            x, names = _pair(x, names, y, y_names, wanted, output)
        terms.append((x, names))
    x, names = _summed(*terms[0], set(output))
    return np.transpose(x, tuple(map(names.index, output)))


def _pair(
    x: Any, x_labels: Labels, y: Any, y_labels: Labels, wanted: set[Any], output: Labels
) -> tuple[Any, Labels]:
    """The contraction of two operands, with only the labels that are still wanted."""
    x, x_labels = _summed(x, x_labels, wanted.union(y_labels))
    y, y_labels = _summed(y, y_labels, wanted.union(x_labels))
    names = [n for n in dict.fromkeys((*x_labels, *y_labels)) if n in wanted]
    labels = tuple(output) if set(names) == set(output) else tuple(names)
    return pair(x, y, x_labels, y_labels, labels), labels


def pair(x: Any, y: Any, x_labels: Labels, y_labels: Labels, labels: Labels) -> Any:
    """The op on Values; on two plain arrays, just the product."""
    if not isinstance(x, Value) and not isinstance(y, Value):
        return contract(x, y, x_labels, y_labels, labels)
    params = {"x_labels": x_labels, "y_labels": y_labels, "labels": labels}
    return apply(einsum, (x, y), params)


def _summed(x: Any, names: Labels, wanted: set[Any]) -> tuple[Any, Labels]:
    """``x`` summed over its labels that nothing else wants."""
    axes = tuple(k for k, n in enumerate(names) if n not in wanted)
    if not axes:
        return x, names
    return np.sum(x, axis=axes), tuple(n for n in names if n in wanted)


def _path(
    terms: list[tuple[Any, Labels]], output: Labels, lengths: dict[Any, int], optimize: Any
) -> list[tuple[int, ...]]:
    """Which operands to contract next, each time, as `np.einsum_path` numbers them."""
    numbers = {n: k for k, n in enumerate(lengths)}
    given: list[Any] = []
    for x, names in terms:
        given += [np.broadcast_to(0.0, x.shape), [numbers[n] for n in names]]
    how = "greedy" if optimize is False or optimize is True else optimize
    path = np.einsum_path(*given, [numbers[n] for n in output], optimize=how)[0]
    return [step for step in path[1:] if len(step) > 1]


def _parse(operands: tuple[Any, ...]) -> tuple[list[Any], list[list[Any]], Labels]:
    """Arrays, their labels and the output's, of either calling form of einsum.

    A broadcast axis under an ellipsis is labelled by its distance from the ellipsis's right end.
    """
    if isinstance(operands[0], str):
        text = operands[0].replace(" ", "")
        arrays = [operand(x) for x in operands[1:]]
        left, arrow, right = text.partition("->")
        given = [_letters(term) for term in left.split(",")]
        result = _letters(right) if arrow else None
    else:
        arrays = [operand(x) for x in operands[: len(operands) // 2 * 2 : 2]]
        given = [list(labels) for labels in operands[1::2]]
        result = list(operands[-1]) if len(operands) % 2 else None
    if len(given) != len(arrays):
        raise ValueError(f"einsum: {len(given)} lists of subscripts for {len(arrays)} operands")
    inputs = [_expanded(names, np.ndim(x)) for x, names in zip(arrays, given, strict=True)]
    if result is None:
        counts = Counter(n for names in given for n in names if n is not Ellipsis)
        result = [Ellipsis] * any(Ellipsis in n for n in given) + sorted(
            n for n in counts if counts[n] == 1
        )
    most = max(sum(type(n) is tuple for n in names) for names in inputs)
    output = tuple(_spelled_out(result, most))
    known = {n for names in inputs for n in names}
    if len(set(output)) != len(output) or not known.issuperset(output):
        raise ValueError(
            f"einsum: the output subscripts {list(output)} repeat, or are in no operand"
        )
    return arrays, inputs, output


def _letters(term: str) -> list[Any]:
    head, dots, tail = term.partition("...")
    letters = [*head, *([Ellipsis] if dots else []), *tail]
    if any(n is not Ellipsis and not n.isalpha() for n in letters):
        raise ValueError(f"einsum: invalid subscripts {term!r}")
    return letters


def _expanded(names: Sequence[Any], ndim: int) -> list[Any]:
    """One label for each axis of an operand."""
    room = ndim - (len(names) - (Ellipsis in names))
    if room < 0 or (room and Ellipsis not in names):
        raise ValueError(f"einsum: {len(names)} subscripts for an operand of {ndim} axes")
    return _spelled_out(names, room)


def _spelled_out(names: Sequence[Any], count: int) -> list[Any]:
    """The labels with the ellipsis replaced by ``count`` of them."""
    if Ellipsis not in names:
        return list(names)
    at = names.index(Ellipsis)
    return [*names[:at], *(("...", -k) for k in range(count, 0, -1)), *names[at + 1 :]]


def _aligned(
    arrays: list[Any], inputs: list[list[Any]]
) -> tuple[list[tuple[Any, Labels]], dict[Any, int]]:
    """Operands in which no label repeats and every label has its full length."""
    lengths: dict[Any, int] = {}
    for x, names in zip(arrays, inputs, strict=True):
        for n, length in zip(names, np.shape(x), strict=True):
            if lengths.setdefault(n, length) == 1:
                lengths[n] = length
            elif length not in (1, lengths[n]):
                raise ValueError(f"einsum: index {n!r} has lengths {lengths[n]} and {length}")
    terms = []
    for x, names in zip(arrays, inputs, strict=True):
        for n in [n for n, times in Counter(names).items() if times > 1]:
            while names.count(n) > 1:
                first = names.index(n)
                second = names.index(n, first + 1)
                x = np.diagonal(x, axis1=first, axis2=second)
                names = [*names[:first], *names[first + 1 : second], *names[second + 1 :], n]
        short = tuple(k for k, n in enumerate(names) if np.shape(x)[k] != lengths[n])
        if short:
            x = np.squeeze(x, axis=short)
            names = [n for k, n in enumerate(names) if k not in short]
        terms.append((x, tuple(names)))
    return terms, lengths


@adapt(np.tensordot, np.linalg.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = operand(a), operand(b)
    a_ndim, b_ndim = np.ndim(a), np.ndim(b)
    if isinstance(axes, int | np.integer):
        axes = (range(a_ndim - axes, a_ndim), range(axes))
    a_axes, b_axes = ([x] if isinstance(x, int | np.integer) else list(x) for x in axes)
    a_labels: list[Any] = [("a", k) for k in range(a_ndim)]
    b_labels: list[Any] = [("b", k) for k in range(b_ndim)]
    if len(a_axes) != len(b_axes):
        raise ValueError(f"tensordot: {len(a_axes)} axes of a for {len(b_axes)} of b")
    for k, (i, j) in enumerate(zip(a_axes, b_axes, strict=True)):
        if np.shape(a)[i] != np.shape(b)[j]:
            raise ValueError(
                f"tensordot: axis {i} of {np.shape(a)} and axis {j} of {np.shape(b)} "
                "differ in length"
            )
        a_labels[i] = b_labels[j] = k
    labels = tuple(n for n in (*a_labels, *b_labels) if isinstance(n, tuple))
    return pair(a, b, tuple(a_labels), tuple(b_labels), labels)
