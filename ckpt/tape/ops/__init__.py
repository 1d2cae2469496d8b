"""The table of ops, by family. Importing this package fills `ckpt.tape.op.NUMPY`."""

from ckpt.tape.ops import arithmetic, indexing, products, reductions, shapes

__all__ = ["arithmetic", "indexing", "products", "reductions", "shapes"]
