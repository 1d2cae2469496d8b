"""Shapes, parts and orders."""

from ckpt.tape.ops.shaping import indexing, joining, rearranging, shapes, sorting, taking

__all__ = ["indexing", "joining", "rearranging", "shapes", "sorting", "taking"]
