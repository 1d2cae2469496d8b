"""The table of ops, by family. Importing this package fills `ckpt.tape.op.NUMPY`."""

from ckpt.tape.ops import (
    arithmetic,
    choosing,
    complex_numbers,
    cumulative,
    indexing,
    inspecting,
    joining,
    parts,
    products,
    rearranging,
    reductions,
    shapes,
    taking,
)

__all__ = [
    "arithmetic",
    "choosing",
    "complex_numbers",
    "cumulative",
    "indexing",
    "inspecting",
    "joining",
    "parts",
    "products",
    "rearranging",
    "reductions",
    "shapes",
    "taking",
]
