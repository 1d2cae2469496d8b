"""Along axes (sums, scans, norms)."""

from ckpt.tape.ops.reducing import cumulative, norms, reductions

__all__ = ["cumulative", "norms", "reductions"]
