"""`scipy.special`'s ufuncs, where scipy is there.

Whoever has one of them has loaded scipy, so nothing here imports it: `learn` declares the rules
when such a ufunc first meets a Value. Derivatives: NIST Digital Library of Mathematical Functions,
chapters 5, 6, 7, 8, 10 and 25. A parameter without a closed form for its derivative (the order of a
Bessel function, the a of gammainc) must not need a gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import log, pi, sqrt
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import elementwise
from ckpt.tape.core.op import LEARNERS, NUMPY, op
from ckpt.tape.ops.pointwise.arithmetic import anywhere, quotient, size

SQRT_PI = sqrt(pi)


def learn() -> bool:
    """Give rules to the ufuncs of `scipy.special`; False if there is nothing (new) to learn."""
    special = sys.modules.get("scipy.special")
    if special is None or special.expit in NUMPY:
        return False
    for declare in (_logistic, _error_functions, _gamma_functions, _bessel_functions, _others):
        declare(special)
    return True


def _rules(ufunc: np.ufunc, **rules: Callable[..., Any] | None) -> None:
    """The op of a ufunc whose operands are x; x and y; or a, b and x."""
    forward: Any = ufunc if ufunc.nin <= 2 else lambda a, b, x: ufunc(a, b, x)
    declare = op(
        ufunc,
        name=f"special.{ufunc.__name__}",
        infer=elementwise(ufunc),
        flops=size,
        writes=ufunc,
        over=anywhere,
    )
    made = declare(forward)
    for operand in made.operands:
        made.vjp(**{operand: rules.get(operand, _unknown(ufunc.__name__, operand))})


def _unknown(name: str, operand: str) -> Callable[..., Any]:
    """A rule for a parameter without one: zero would be a wrong gradient."""

    def refuse(g: Any) -> Any:
        raise UnsupportedError(
            f"scipy.special.{name} has no rule for its operand {operand}: pass it as a plain number"
        )

    return refuse


def _logistic(sp: Any) -> None:
    _rules(sp.expit, x=lambda g, out: g * (out * (1 - out)))
    _rules(sp.logit, x=lambda g, x: g / x / (1 - x))
    _rules(sp.log_expit, x=lambda g, x: g * sp.expit(-x))
    _rules(sp.entr, x=lambda g, x: -g * (np.log(x) + 1))
    # Nothing times a logarithm is nothing, also at 0; by x it has no slope there: 0, as in PyTorch.
    _rules(
        sp.xlogy,
        x=lambda g, x, y: g * np.log(np.where(np.equal(x, 0) & np.less_equal(y, 0), 1, y)),
        y=lambda g, x, y: g * _share(x, y),
    )
    _rules(
        sp.xlog1py,
        x=lambda g, x, y: g * np.log1p(np.where(np.equal(x, 0) & np.less_equal(y, -1), 0, y)),
        y=lambda g, x, y: g * _share(x, 1 + y),
    )
    _rules(
        sp.rel_entr,
        x=lambda g, x, y: g * (np.log(x / y) + 1),
        y=lambda g, x, y: -g * _share(x, y),
    )
    _rules(sp.kl_div, x=lambda g, x, y: g * np.log(x / y), y=lambda g, x, y: g * (1 - _share(x, y)))
    _rules(
        sp.huber,  # of delta and the residual
        x=lambda g, x, y: g * np.where(np.abs(y) > x, np.abs(y) - x, 0),
        y=lambda g, x, y: g * np.where(np.abs(y) > x, x * np.sign(y), y),
    )
    _rules(
        sp.pseudo_huber,
        x=lambda g, x, y: g * (2 * (np.hypot(x, y) - x) - y * quotient(y, np.hypot(x, y))),
        y=lambda g, x, y: g * (x * quotient(y, np.hypot(x, y))),
    )


def _error_functions(sp: Any) -> None:
    _rules(sp.erf, x=lambda g, x: g * (2 / SQRT_PI * _gauss(x, -1)))
    _rules(sp.erfc, x=lambda g, x: g * (-2 / SQRT_PI * _gauss(x, -1)))
    _rules(sp.erfcx, x=lambda g, out, x: g * _erfcx_slope(x, out))
    _rules(sp.erfi, x=lambda g, x: g * (2 / SQRT_PI * _gauss(x, 1)))
    _rules(sp.erfinv, x=lambda g, out: g * (SQRT_PI / 2 * np.exp(np.square(out))))
    _rules(sp.erfcinv, x=lambda g, out: g * (-SQRT_PI / 2 * np.exp(np.square(out))))
    _rules(sp.dawsn, x=lambda g, out, x: g * _dawsn_slope(x, out))
    _rules(sp.ndtr, x=lambda g, x: g * (1 / sqrt(2 * pi) * _gauss(x, -0.5)))
    _rules(sp.log_ndtr, x=lambda g, out, x: g * _log_ndtr_slope(sp, x, out))
    _rules(sp.ndtri, x=lambda g, out: g * (sqrt(2 * pi) * np.exp(0.5 * np.square(out))))


def _gauss(x: Any, factor: float) -> Any:
    """exp(factor * x**2), and no infinity times 0 where that is nothing, or infinite."""
    return np.exp(factor * np.square(np.clip(x, -100, 100)))


def _log_ndtr_slope(sp: Any, x: Any, out: Any) -> Any:
    """The density over the distribution: on the left as sqrt(2 / pi) / erfcx(-x / sqrt(2))."""
    right = np.greater(x, 0)
    density = _gauss(np.where(right, x, 0), -0.5) / np.exp(np.where(right, out, 0))
    left = sqrt(2 / pi) / sp.erfcx(np.where(right, 0, x) * -sqrt(0.5))
    return np.where(right, density / sqrt(2 * pi), left)


def _erfcx_slope(x: Any, out: Any) -> Any:
    """2 x out - 2 / sqrt(pi), which cancels far out: there by its asymptotic series."""
    far = np.greater(x, 25)
    r = 1 / np.where(far, x, 1)
    series = np.square(r) * _polynomial(np.square(r), [-1, 1.5, -3.75, 13.125, -59.0625, 324.84375])
    return np.where(far, series / SQRT_PI, 2 * np.where(far, 0, x * out) - 2 / SQRT_PI)


def _dawsn_slope(x: Any, out: Any) -> Any:
    """1 - 2 x out, likewise."""
    far = np.greater(np.absolute(x), 25)
    r = 1 / np.where(far, x, 1)
    series = -np.square(r) * _polynomial(np.square(r), [1, 1.5, 3.75, 13.125, 59.0625, 324.84375])
    return np.where(far, 0.5 * series, 1 - 2 * np.where(far, 0, x * out))


def _polynomial(t: Any, coefficients: list[float]) -> Any:
    made: Any = 0.0
    for c in reversed(coefficients):
        made = made * t + c
    return made


def _near(
    x: Any, place: float, reach: float, series: list[float], far: Callable[[Any], Any]
) -> Any:
    """A function with a removable singularity at a place: near it by its power series."""
    near = np.less(np.absolute(x - place), reach)
    made = _polynomial(np.where(near, x - place, 0), series)
    return np.where(near, made, far(np.where(near, place + 0.5, x)))


def _gamma_functions(sp: Any) -> None:
    zeta = op(name="special.zeta", infer=elementwise(sp.zeta), flops=size)(
        lambda x, y: sp.zeta(x, y)
    )
    zeta.vjp(x=_unknown("zeta", "x"), y=lambda g, x, y: g * (-x * zeta(x + 1, y)))
    _rules(sp.psi, x=lambda g, x: g * zeta(2.0, x))
    _rules(sp.gamma, x=lambda g, out, x: g * (out * sp.psi(x)))
    _rules(sp.gammaln, x=lambda g, x: g * sp.psi(x))
    _rules(sp.loggamma, x=lambda g, x: g * sp.psi(x))
    _rules(sp.rgamma, x=lambda g, out, x: g * _rgamma_slope(sp, x, out))
    _rules(
        sp.beta,
        x=lambda g, out, x, y: g * (out * (sp.psi(x) - sp.psi(x + y))),
        y=lambda g, out, x, y: g * (out * (sp.psi(y) - sp.psi(x + y))),
    )
    _rules(
        sp.betaln,
        x=lambda g, x, y: g * (sp.psi(x) - sp.psi(x + y)),
        y=lambda g, x, y: g * (sp.psi(y) - sp.psi(x + y)),
    )
    density = _gamma_density(sp)
    _rules(sp.gammainc, y=lambda g, x, y: g * density(x, y))
    _rules(sp.gammaincc, y=lambda g, x, y: -g * density(x, y))
    _rules(
        sp.betainc,
        x=lambda g, a, b, x: (
            g * np.exp(sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b))
        ),
    )


def _gamma_density(sp: Any) -> Any:
    """x**(a - 1) exp(-x) / Gamma(a), whose derivative is the density of a - 1 less that of a."""

    infer = elementwise(sp.gammainc)

    def forward(a: Any, x: Any) -> Any:
        inside = np.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a)) * sp.gammasgn(a)
        found = np.where(np.isinf(x) | np.equal(sp.rgamma(a), 0), 0, inside)
        return found.astype(infer(a, x).dtype, copy=False)[()]

    density = op(name="special.gamma_density", infer=infer, flops=size)(forward)
    density.vjp(
        a=_unknown("gamma_density", "a"),
        x=lambda g, out, a, x: g * (density(a - 1, x) - out),
    )
    return density


def _rgamma_slope(sp: Any, x: Any, out: Any) -> Any:
    """Left of 1/2 by reflection, 1 / Gamma(x) = Gamma(1 - x) sin(pi x) / pi: there are zeros."""
    left = np.less(x, 0.5)
    t = np.where(left, x, 0.25)
    turn = np.pi * (t - 2 * np.round(t / 2))
    reflected = sp.gamma(1 - t) * (np.cos(turn) - sp.psi(1 - t) * np.sin(turn) / np.pi)
    right = np.where(left | np.isinf(x), 0.75, x)
    return np.where(left, reflected, np.where(np.isinf(x), 0, -out * sp.psi(right)))


def _share(x: Any, y: Any) -> Any:
    """x / y, and 0 where x is."""
    none = np.equal(x, 0)
    return np.where(none, 0, x / np.where(none, 1, y))


def _bessel_functions(sp: Any) -> None:
    _rules(sp.j0, x=lambda g, x: -g * sp.j1(x))
    _rules(sp.y0, x=lambda g, x: -g * sp.y1(x))
    _rules(sp.i0, x=lambda g, x: g * sp.i1(x))
    _rules(sp.k0, x=lambda g, x: -g * sp.k1(x))
    _rules(sp.j1, x=lambda g, x: g * (0.5 * (sp.j0(x) - sp.jv(2.0, x))))
    _rules(sp.y1, x=lambda g, x: g * (0.5 * (sp.y0(x) - sp.yv(2.0, x))))
    _rules(  # scipy's iv is NaN of a subnormal number, and there as of 0
        sp.i1,
        x=lambda g, x: (
            g * (0.5 * (sp.i0(x) + sp.iv(2.0, np.where(np.less(np.absolute(x), 1e-150), 0, x))))
        ),
    )
    _rules(sp.k1, x=lambda g, x: g * (-0.5 * (sp.k0(x) + sp.kv(2.0, x))))
    _rules(sp.i0e, x=lambda g, out, x: g * (sp.i1e(x) - np.sign(x) * out))
    _rules(sp.i1e, x=lambda g, out, x: g * (0.5 * (sp.i0e(x) + sp.ive(2.0, x)) - np.sign(x) * out))
    _rules(sp.k0e, x=lambda g, out, x: g * (out - sp.k1e(x)))
    _rules(sp.k1e, x=lambda g, out, x: g * (out - 0.5 * (sp.k0e(x) + sp.kve(2.0, x))))
    for f in (sp.jv, sp.yv, sp.yn):
        _rules(f, y=_between(f, 0.5, -0.5))
    for f in (sp.kv, sp.kn):
        _rules(f, y=_between(f, -0.5, -0.5))
    _rules(sp.iv, y=_between(sp.iv, 0.5, 0.5))
    _rules(
        sp.ive,
        y=lambda g, out, x, y: g * (0.5 * (sp.ive(x - 1, y) + sp.ive(x + 1, y)) - np.sign(y) * out),
    )
    _rules(
        sp.kve,
        y=lambda g, out, x, y: g * (out - 0.5 * (sp.kve(x - 1, y) + sp.kve(x + 1, y))),
    )


def _between(f: np.ufunc, below: float, above: float) -> Callable[..., Any]:
    """The derivative of a cylinder function: a combination of those of the orders beside it."""
    return lambda g, x, y: g * (below * f(x - 1, y) + above * f(x + 1, y))


def _others(sp: Any) -> None:
    _rules(sp.exp10, x=lambda g, out: g * (out * log(10)))
    _rules(sp.exp2, x=lambda g, out: g * (out * log(2)))
    _rules(sp.expm1, x=lambda g, out: g * (out + 1))
    _rules(sp.log1p, x=lambda g, x: g / (x + 1))
    _rules(sp.cosm1, x=lambda g, x: -g * np.sin(x))
    _rules(sp.cbrt, x=lambda g, out: g / (3 * np.square(out)))
    _rules(sp.exp1, x=lambda g, x: -g * (np.exp(-x) / x))
    _rules(sp.expi, x=lambda g, x: g * (np.exp(x) / x))
    _rules(sp.expn, y=lambda g, x, y: -g * sp.expn(x - 1, y))
    logs = [-((-1.0) ** k) / (k + 1) for k in range(24)]
    _rules(
        sp.spence,  # of x = 1 + t
        x=lambda g, x: g * _near(x, 1, 0.2, logs, lambda x: np.log(x) / (1 - x)),
    )
    squares = [1.0]  # of the central binomial coefficients over 4**n
    for n in range(1, 26):
        squares.append(squares[-1] * ((2 * n - 1) / (2 * n)) ** 2)
    k_slope = [pi / 2 * n * squares[n] for n in range(1, 26)]
    e_slope = [-pi / 2 * n * squares[n] / (2 * n - 1) for n in range(1, 26)]
    _rules(
        sp.ellipk,
        x=lambda g, x: (
            g
            * _near(x, 0, 0.2, k_slope, lambda m: (sp.ellipe(m) / (1 - m) - sp.ellipk(m)) / (2 * m))
        ),
    )
    _rules(
        sp.ellipe,
        x=lambda g, x: (
            g * _near(x, 0, 0.2, e_slope, lambda m: (sp.ellipe(m) - sp.ellipk(m)) / (2 * m))
        ),
    )
    _rules(sp.gammasgn, x=None)


LEARNERS.append(learn)
