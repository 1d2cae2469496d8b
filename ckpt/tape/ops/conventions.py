"""What a rule gives where there is no derivative: PyTorch's choice, or where it has none JAX's.

At every other point, infinities and neighbours of poles included, it is the derivative or its
limit; where that is infinite, so is the rule.
"""

from __future__ import annotations

CONVENTIONS = {
    "absolute": "0 at 0",
    "arctan2": "0 at (0, 0)",
    "clip": "at a bound all to x",
    "complex_sign": "0 at 0",
    "copysign": "0 at x = 0",
    "eig": "refused where vectors of equal values are read, and if defective",
    "eigh": "refused for equal values whose vectors are read",
    "fabs": "0 at 0",
    "floor_divide": "0, jumps included",
    "fmax": "to the first of equals; to the number beside NaN",
    "fmin": "to the first of equals; to the number beside NaN",
    "fmod": "by x 1, jumps included",
    "heaviside": "0 by x; 1 by y at x = 0 (as JAX)",
    "hypot": "0 at (0, 0) (as TensorFlow: PyTorch has NaN)",
    "largest_tap": "the first of equals",
    "leaky_relu": "slope at 0",
    "logaddexp": "half where both are one infinity",
    "logaddexp2": "half where both are one infinity",
    "max": "equal elements share",
    "maximum": "half to each of equals; to both where one is NaN",
    "min": "equal elements share",
    "minimum": "half to each of equals; to both where one is NaN",
    "norm": "0 at a vector of zeros, and where powers overflow; of order below 2, 0 at a zero",
    "power": "0 by the exponent at base 0, exponent >= 0",
    "qr": "refused for linearly dependent columns",
    "relu": "0 at 0",
    "remainder": "by x 1, jumps included",
    "round": "0, jumps included",
    "sign": "0 everywhere",
    "std": "0 where all elements are equal",
    "svd": "refused for equal values whose vectors are read",
    "special.huber": "0 by delta where |residual| = delta",
    "special.rel_entr": "0 by y at x = 0",
    "special.xlog1py": "0 by x at x = 0, y <= -1",
    "special.xlogy": "0 by x at x = 0, y <= 0",
}
"""An op's name -> what its rule gives where the derivative doesn't exist."""
