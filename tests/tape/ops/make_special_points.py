"""Make ``special_points.txt`` and ``complex_points.txt``: first and second derivatives, by mpmath.

    pip install mpmath && python tests/tape/ops/make_special_points.py

A line holds a function, a point, and both derivatives there, rounded to float64 from 60 digits: one
written down here, the other by differences of it in twice as many. At an infinity they are limits.
"""

from __future__ import annotations

from pathlib import Path

import mpmath as mp

mp.mp.dps = 60
PI = mp.pi
LN2, LN10 = mp.log(2), mp.log(10)
SQ = mp.sqrt

REAL = (
    "0 -0.0 5e-324 -5e-324 1e-310 1e-200 -1e-200 1e-30 1e-12 -1e-7 6e-8 1e-3 -0.1 0.5 -0.5 1 -1 "
    "2 -2"
)
LARGE = "30 -30 400 -400 1e10 -1e10 1e160 -1e160 1e300 inf -inf"
POSITIVE = (
    "5e-324 1e-310 1e-200 1e-30 1e-12 6e-8 1e-3 0.5 1 1.0000000000000002 0.9999999999999999 2 30"
)
UNIT = (
    "0 -0.0 5e-324 1e-200 -1e-30 1e-12 -1e-7 1e-3 0.5 -0.5 0.999 0.99999999 0.9999999999999999 "
    "-0.9999999999999999"
)


def sinc1(x):
    return mp.cos(PI * x) / x - mp.sin(PI * x) / (PI * x * x)


def ellipk1(m):
    return (mp.ellipe(m) / (1 - m) - mp.ellipk(m)) / (2 * m)


def digamma(x):
    return mp.psi(0, x)


def normal(x):
    return mp.exp(-x * x / 2) / SQ(2 * PI)


FIRST = {
    "absolute": (mp.sign, REAL.replace("0 -0.0 ", "") + " 30 1e300"),
    "square": (lambda x: 2 * x, REAL + " 30 -400 1e10"),
    "sqrt": (lambda x: 1 / (2 * SQ(x)), POSITIVE + " 1e300 inf"),
    "cbrt": (lambda x: mp.cbrt(abs(x)) ** -2 / 3, POSITIVE + " -1e-3 -2 1e300 inf"),
    "reciprocal": (lambda x: -1 / x**2, "1e-30 1e-12 0.5 -2 30 1e10 1e160 inf -inf"),
    "exp": (mp.exp, REAL + " 30 -30 -400 700 -750 -inf"),
    "exp2": (lambda x: LN2 * 2**x, REAL + " 30 -30 -400 -inf"),
    "expm1": (mp.exp, REAL + " 30 -30 700 -inf"),
    "log": (lambda x: 1 / x, POSITIVE + " 1e10 1e160 1e300 inf"),
    "log2": (lambda x: 1 / (x * LN2), POSITIVE + " 1e10 1e160 1e300 inf"),
    "log10": (lambda x: 1 / (x * LN10), POSITIVE + " 1e10 1e160 1e300 inf"),
    "log1p": (lambda x: 1 / (1 + x), REAL.replace(" -1 2 -2", " 2") + " 30 1e10 1e300 inf"),
    "sin": (mp.cos, REAL + " 30 -30 400 1e10 1e160"),
    "cos": (lambda x: -mp.sin(x), REAL + " 30 -30 400 1e10 1e160"),
    "tan": (lambda x: 1 / mp.cos(x) ** 2, REAL + " 30 400 1.5707963267948966 1.57"),
    "arcsin": (lambda x: 1 / SQ((1 - x) * (1 + x)), UNIT),
    "arccos": (lambda x: -1 / SQ((1 - x) * (1 + x)), UNIT),
    "arctan": (lambda x: 1 / (1 + x * x), REAL + " 30 -400 1e10 1e160 inf -inf"),
    "sinh": (mp.cosh, REAL + " 30 -30 400"),
    "cosh": (mp.sinh, REAL + " 30 -30 400"),
    "tanh": (lambda x: mp.sech(x) ** 2, REAL + " " + LARGE),
    "arcsinh": (lambda x: 1 / SQ(x * x + 1), REAL + " " + LARGE),
    "arccosh": (
        lambda x: 1 / SQ((x - 1) * (x + 1)), "1.0000000000000002 1.001 2 30 1e10 1e160 1e300 inf",
    ),
    "arctanh": (lambda x: 1 / ((1 - x) * (1 + x)), UNIT),
    "sinc": (sinc1, REAL + " 30 -400 1000.5"),
    "special.expit": (lambda x: mp.sech(x / 2) ** 2 / 4, REAL + " " + LARGE),
    "special.logit": (lambda x: 1 / (x * (1 - x)), "1e-200 1e-30 1e-3 0.5 0.999"),
    "special.log_expit": (lambda x: 1 / (1 + mp.exp(x)), REAL + " " + LARGE),
    "special.entr": (lambda x: -(mp.log(x) + 1), POSITIVE),
    "special.erf": (lambda x: 2 / SQ(PI) * mp.exp(-x * x), REAL + " " + LARGE),
    "special.erfc": (lambda x: -2 / SQ(PI) * mp.exp(-x * x), REAL + " " + LARGE),
    "special.erfcx": (
        lambda x: 2 * x * mp.exp(x * x) * mp.erfc(x) - 2 / SQ(PI), REAL + " 5 24 26 30 400 1e5",
    ),
    "special.erfi": (lambda x: 2 / SQ(PI) * mp.exp(x * x), REAL + " 5"),
    "special.erfinv": (lambda x: SQ(PI) / 2 * mp.exp(mp.erfinv(x) ** 2), "0 1e-30 1e-3 -0.5 0.999"),
    "special.dawsn": (
        lambda x: 1 - 2 * x * SQ(PI) / 2 * mp.exp(-x * x) * mp.erfi(x), REAL + " 5 24 26 30 -30",
    ),
    "special.ndtr": (normal, REAL + " " + LARGE),
    "special.log_ndtr": (lambda x: normal(x) / mp.ncdf(x), REAL + " 5 -5 -30 30 400"),
    "special.psi": (lambda x: mp.psi(1, x), "1e-30 1e-3 0.5 1 2 30 400 1e10 -0.5 -2.5"),
    "special.gamma": (lambda x: mp.gamma(x) * digamma(x), "1e-30 1e-3 0.5 1 2 30 100 -0.5 -2.5"),
    "special.gammaln": (digamma, "1e-30 1e-3 0.5 1 2 30 400 1e10"),
    "special.rgamma": (
        lambda x: -mp.rgamma(x) * digamma(x),
        "0 -0.0 1e-200 1e-30 -1e-12 1e-7 -1 -2 -3 -1.0000000000000002 -2.5 0.5 1 2 30 150 400 inf",
    ),
    "special.j0": (lambda x: -mp.besselj(1, x), REAL + " 30 -30 400"),
    "special.j1": (lambda x: (mp.besselj(0, x) - mp.besselj(2, x)) / 2, REAL + " 30 -30 400"),
    "special.i0": (lambda x: mp.besseli(1, x), REAL + " 30 -30 400"),
    "special.i1": (lambda x: (mp.besseli(0, x) + mp.besseli(2, x)) / 2, REAL + " 30 -30 400"),
    "special.exp10": (lambda x: LN10 * mp.mpf(10) ** x, REAL + " 30 -30 -inf"),
    "special.cosm1": (lambda x: -mp.sin(x), REAL + " 30 400"),
    "special.exp1": (lambda x: -mp.exp(-x) / x, "1e-30 1e-3 0.5 1 2 30 400 inf"),
    "special.expi": (lambda x: mp.exp(x) / x, "1e-30 1e-3 0.5 1 2 30 400 -0.5 -30 -inf"),
    "special.spence": (
        lambda x: mp.log(x) / (1 - x),
        "1e-30 1e-3 0.5 0.79 0.81 0.999999 1 1.0000000000000002 1.1 1.19 1.21 2 30 1e10",
    ),
    "special.ellipk": (
        ellipk1, "0 -0.0 5e-324 1e-200 1e-30 -1e-12 1e-7 1e-3 -0.19 0.19 0.21 0.5 0.999 -1 -30",
    ),
    "special.ellipe": (
        lambda m: (mp.ellipe(m) - mp.ellipk(m)) / (2 * m),
        "0 -0.0 5e-324 1e-200 1e-30 -1e-12 1e-7 1e-3 -0.19 0.19 0.21 0.5 0.999 -1 -30",
    ),
}  # fmt: skip


EXPONENTIAL = ("exp", "exp2", "expm1", "tanh")


def at(function, point):
    """The function's value; its limit where its formula is 0 / 0."""
    try:
        found = function(point)
        if mp.isnan(found):
            raise ZeroDivisionError
    except (ZeroDivisionError, ValueError):
        found = function(point + mp.mpf(10) ** -25)
    return mp.re(found)


def both(function, point):
    """Its value and its derivative: a difference over a step far below what is near the point."""
    near = [abs(point - pole) for pole in (-1, 0, 1) if point != pole]
    step = min(*near, abs(point) or 1, 1) * mp.mpf(10) ** -40
    digits = 120 - 2 * int(mp.log10(step)) + abs(int(mp.log10(abs(point) or 1)))
    with mp.workdps(min(digits, 1500)):
        rise = at(function, point + step) - at(function, point - step)
        return float(at(function, point)), float(mp.re(rise) / (2 * step))


J = mp.mpc(0, 1)
PLANE = (
    "1e-310+1e-310j 5e-324j 1e-200-2e-200j 1e-30+2e-30j 1e-12-1e-12j 1e-7+1e-7j 1e-3j 0.5+0.5j "
    "-0.5+0.25j 1-2j -2+1j 30+1j -30+1j 1+30j 400+1j -400-1j 1-400j 1+1e-8j -1+1e-8j "
    "1.0000000000000002+1e-12j 1e-8+1j 1e-8-1j 1e-12+1.0000000000000002j"
)
FAR = " 1e10+1e10j -1e10+1j 1e160-1e160j -1e160+1e150j 1e300+1e300j"


def root(z):
    return mp.sqrt(1 - z) * mp.sqrt(1 + z)


HOLOMORPHIC = {
    "square": (lambda z: 2 * z, PLANE + FAR),
    "sqrt": (lambda z: 1 / (2 * mp.sqrt(z)), PLANE + FAR),
    "reciprocal": (lambda z: -1 / z**2, PLANE + FAR),
    "exp": (mp.exp, PLANE),
    "exp2": (lambda z: LN2 * mp.exp(z * LN2), PLANE),
    "expm1": (mp.exp, PLANE),
    "log": (lambda z: 1 / z, PLANE + FAR),
    "log2": (lambda z: 1 / (z * LN2), PLANE + FAR),
    "log10": (lambda z: 1 / (z * LN10), PLANE + FAR),
    "log1p": (lambda z: 1 / (1 + z), PLANE + FAR),
    "sin": (mp.cos, PLANE),
    "cos": (lambda z: -mp.sin(z), PLANE),
    "tan": (lambda z: mp.sec(z) ** 2, PLANE),
    "arcsin": (lambda z: 1 / root(z), PLANE + FAR),
    "arccos": (lambda z: -1 / root(z), PLANE + FAR),
    "arctan": (lambda z: 1 / ((1 + J * z) * (1 - J * z)), PLANE + FAR),
    "sinh": (mp.cosh, PLANE),
    "cosh": (mp.sinh, PLANE),
    "tanh": (lambda z: mp.sech(z) ** 2, PLANE),
    "arcsinh": (lambda z: 1 / root(J * z), PLANE + FAR),
    "arccosh": (lambda z: 1 / (mp.sqrt(z - 1) * mp.sqrt(z + 1)), PLANE + FAR),
    "arctanh": (lambda z: 1 / ((1 - z) * (1 + z)), PLANE + FAR),
    "sinc": (sinc1, PLANE),
}


def complex_lines():
    for name, (function, points) in HOLOMORPHIC.items():
        for text in points.split():
            z = mp.mpc(complex(text))
            step = min(abs(z - pole) for pole in (0, 1, -1, J, -J) if z != pole)
            step = min(step, 1) * mp.mpf(10) ** -40
            scale = abs(int(mp.log10(abs(z))))
            with mp.workdps(min(200 - 2 * int(mp.log10(step)) + 2 * scale, 2500)):
                first = function(z)
                second = (function(z + step) - function(z - step)) / (2 * step)
                yield f"{name} {text} {complex(first)!r} {complex(second)!r}"


def main():
    (Path(__file__).parent / "complex_points.txt").write_text("\n".join(complex_lines()) + "\n")
    lines = []
    for name, (function, points) in FIRST.items():
        for text in points.split():
            point = mp.mpf(float(text))
            if mp.isinf(point):  # far enough out for what decays exponentially, and for powers
                far = mp.mpf(10) ** (6 if "special" in name or name in EXPONENTIAL else 4000)
                point = mp.sign(point) * far
            first, second = both(function, point)
            lines.append(f"{name} {text} {first!r} {second!r}")
    (Path(__file__).parent / "special_points.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
