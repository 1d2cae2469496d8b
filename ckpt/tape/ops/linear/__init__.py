"""Products, factorisations, transforms."""

from ckpt.tape.ops.linear import decompositions, einsum, fft, linalg, products

__all__ = ["decompositions", "einsum", "fft", "linalg", "products"]
