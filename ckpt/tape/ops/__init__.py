"""The table of ops, by family. Importing this package fills `ckpt.tape.core.op.NUMPY`."""

from ckpt.tape.ops import inspecting, linear, parts, plain, pointwise, reducing, shaping

__all__ = ["inspecting", "linear", "parts", "plain", "pointwise", "reducing", "shaping"]
