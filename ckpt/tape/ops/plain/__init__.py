"""What needs no gradient NumPy itself computes, on Values as on plain arrays.

An eager step sees an argument that isn't differentiated as the array that it is, so NumPy makes
what the program makes of such arrays; a trace sees Values, and would run our ops; and so would a
checkpointed region, of what it drew. Most ops call the very same function. Those that round
otherwise, or leave elements in another order, give way here to one primitive, which doesn't.
"""

from ckpt.tape.ops.plain import calls

__all__ = ["calls"]
