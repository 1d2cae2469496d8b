"""One entry of the tape."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ckpt.errors import BackwardTwiceError, MutationError
from ckpt.tape.core.op import Op

count = itertools.count(1).__next__
"""The creation counter: positions rise in the order of creation, a topological order."""


class Parts(tuple[Any, ...]):
    """The value of an op with several results; `item` nodes are views of it.

    Its shape and dtype are the tuples of its parts' shapes and dtypes.
    """

    __slots__ = ()

    @property
    def shape(self) -> tuple[tuple[int, ...], ...]:
        return tuple(part.shape for part in self)

    @property
    def dtype(self) -> tuple[Any, ...]:
        return tuple(part.dtype for part in self)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self)


class Gradient:
    """Where a gradient rests; shared by a Value and its node, which must not hold each other."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


class TapeNode:
    """Op, inputs and parameters of one value, and the value itself while some Backward reads it.

    ``inputs`` are tape nodes and constants, one an operand; None once the Backward is done. Bit k
    of ``frees`` is set where this node is the first reader of input k, whose value can go when this
    node's Backward is done (Backwards descend, so the first reader is the last to read). ``own``
    says whether ``cotangent`` is an array that nothing else shares.
    """

    __slots__ = (
        "__weakref__",
        "cotangent",
        "dtype",
        "frees",
        "given",
        "gradient",
        "inputs",
        "mask",
        "op",
        "own",
        "params",
        "position",
        "region",
        "requires_grad",
        "shape",
        "state",
        "value",
        "watched",
    )  # fmt: skip

    frees: int
    own: bool
    state: Any
    """Of a random op in a region: its generator's, before it drew."""

    def __init__(
        self,
        op: Op | None,
        inputs: Sequence[Any],
        params: dict[str, Any] | None,
        mask: int,
        data: Any,
    ) -> None:
        self.position = count()
        self.op = op
        self.inputs: Sequence[Any] | None = inputs
        self.params = params
        self.mask = mask
        self.requires_grad = mask != 0
        self.shape: tuple[int, ...] = data.shape
        self.dtype = data.dtype
        self.value: Any = None
        self.cotangent: Any = None
        self.region: Any = None
        self.given = op is None
        """Is its memory not the tape's own: a leaf's, a constant's, or a view of such?"""
        self.watched: Any = None
        """Its operands whose memory is given, as it read them; of a leaf, what it was found to be
        (see `ckpt.tape.core.changes`)."""
        self.gradient: Gradient | None = None
        """Where the cotangent comes to rest; of leaves, and of who asked with retain_grad()."""

    def __repr__(self) -> str:
        what = self.op.name if self.op else "leaf"
        return f"<{what} {self.position}: {self.dtype}{list(self.shape)}>"


def lost(node: TapeNode) -> Exception:
    """Why a value that should be here is not."""
    if node.op is None:
        return MutationError(
            f"a parameter ({node!r}) was changed (p.data = …, p.data -= …) after a forward "
            "that used it and before its backward; change parameters after backward"
        )
    return BackwardTwiceError(
        f"the value of {node!r} was freed by an earlier backward; call that one with "
        "retain_graph=True, or run the forward again"
    )
