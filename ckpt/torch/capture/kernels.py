"""How tensors lie in memory: as a call sees them, and as kernels make them.

Torch's own shapes say otherwise here and there: statistics of norms are float32 where bfloat16 is
said, a mean of squares lies in a buffer of all squares, a gradient is contiguous. What a run of the
kernel shows counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map

UNREAD = -1
"""The version of an operand whose shape is read and no value."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor as a call reads or makes it: a version, seen through a geometry."""

    version: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """In elements of ``dtype``, from the beginning of the storage."""
    conj: bool = False
    neg: bool = False

    @property
    def geometry(self) -> tuple[tuple[int, ...], tuple[int, ...], int, torch.dtype]:
        return self.size, self.stride, self.offset, self.dtype


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a result in a storage of its own, from whose beginning it is seen."""

    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]

    nbytes: int
    """Of the storage."""

    def same(self, other: Layout) -> bool:
        """Strides of dimensions with one element, or of none at all, mean nothing."""
        alike = all(
            n < 2 or a == b for n, a, b in zip(self.size, self.stride, other.stride, strict=True)
        )
        own, others = (self.dtype, self.size, self.nbytes), (other.dtype, other.size, other.nbytes)
        return own == others and (alike or 0 in self.size)

    def tensor(self, device: torch.device) -> torch.Tensor:
        count = -(-self.nbytes // self.dtype.itemsize)
        return torch.empty(count, dtype=self.dtype, device=device).as_strided(
            self.size, self.stride
        )


def is_dense(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Does it fill its extent without overlaps, whatever the order of its dimensions?"""
    step = 1
    for stride, size in sorted(zip(strides, sizes, strict=True)):
        if size > 1:
            if stride != step:
                return False
            step *= size
    return True


Seen = dict[Any, dict[str, tuple[Layout | None, ...]]]
"""By function and arguments, what a kernel made where torch's own shapes say otherwise."""


def arguments_key(args: Any) -> str:
    """The same for arguments that a kernel takes alike: nested, a Ref for each tensor."""
    return repr(tree_map(_shape, args))


def _shape(value: Any) -> Any:
    if isinstance(value, Ref):
        return ("ref", *map(str, value.geometry), value.conj, value.neg)
    return value


def as_seen(
    seen: dict[str, tuple[Layout | None, ...]], args: Any, result: Any, mode: FakeTensorMode
) -> Any:
    """Fake results of a function, laid out as its kernel lays them out."""
    layouts = seen.get(arguments_key(args))
    if layouts is None:
        return result
    results = result if isinstance(result, (tuple, list)) else (result,)
    with _disable_current_modes(), mode:
        made = tuple(
            r if layout is None else layout.tensor(r.device)
            for r, layout in zip(results, layouts, strict=True)
        )
    return made if isinstance(result, (tuple, list)) else made[0]
