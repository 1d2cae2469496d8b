"""Element by element."""

from ckpt.tape.ops.pointwise import arithmetic, choosing, complex_numbers, special

__all__ = ["arithmetic", "choosing", "complex_numbers", "special"]
