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
from ckpt.tape.ops.pointwise.arithmetic import anywhere, size

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
    _rules(sp.logit, x=lambda g, x: g / (x * (1 - x)))
    _rules(sp.log_expit, x=lambda g, x: g * sp.expit(-x))
    _rules(sp.entr, x=lambda g, x: -g * (np.log(x) + 1))
    _rules(sp.xlogy, x=lambda g, y: g * np.log(y), y=lambda g, x, y: g * (x / y))
    _rules(sp.xlog1py, x=lambda g, y: g * np.log1p(y), y=lambda g, x, y: g * (x / (1 + y)))
    _rules(sp.rel_entr, x=lambda g, x, y: g * (np.log(x / y) + 1), y=lambda g, x, y: -g * (x / y))
    _rules(sp.kl_div, x=lambda g, x, y: g * np.log(x / y), y=lambda g, x, y: g * (1 - x / y))
    _rules(
        sp.huber,  # of delta and the residual
        x=lambda g, x, y: g * np.where(np.abs(y) > x, np.abs(y) - x, 0),
        y=lambda g, x, y: g * np.where(np.abs(y) > x, x * np.sign(y), y),
    )
    _rules(
        sp.pseudo_huber,
        x=lambda g, x, y: g * (2 * x * (np.hypot(x, y) / x - 1) - np.square(y) / np.hypot(x, y)),
        y=lambda g, x, y: g * (x * y / np.hypot(x, y)),
    )


def _error_functions(sp: Any) -> None:
    _rules(sp.erf, x=lambda g, x: g * (2 / SQRT_PI * np.exp(-np.square(x))))
    _rules(sp.erfc, x=lambda g, x: g * (-2 / SQRT_PI * np.exp(-np.square(x))))
    _rules(sp.erfcx, x=lambda g, out, x: g * (2 * x * out - 2 / SQRT_PI))
    _rules(sp.erfi, x=lambda g, x: g * (2 / SQRT_PI * np.exp(np.square(x))))
    _rules(sp.erfinv, x=lambda g, out: g * (SQRT_PI / 2 * np.exp(np.square(out))))
    _rules(sp.erfcinv, x=lambda g, out: g * (-SQRT_PI / 2 * np.exp(np.square(out))))
    _rules(sp.dawsn, x=lambda g, out, x: g * (1 - 2 * x * out))
    _rules(sp.ndtr, x=lambda g, x: g * (1 / sqrt(2 * pi) * np.exp(-0.5 * np.square(x))))
    _rules(
        sp.log_ndtr, x=lambda g, out, x: g * (1 / sqrt(2 * pi) * np.exp(-0.5 * np.square(x) - out))
    )
    _rules(sp.ndtri, x=lambda g, out: g * (sqrt(2 * pi) * np.exp(0.5 * np.square(out))))


def _gamma_functions(sp: Any) -> None:
    zeta = op(name="special.zeta", infer=elementwise(sp.zeta), flops=size)(
        lambda x, y: sp.zeta(x, y)
    )
    zeta.vjp(x=_unknown("zeta", "x"), y=lambda g, x, y: g * (-x * zeta(x + 1, y)))
    _rules(sp.psi, x=lambda g, x: g * zeta(2.0, x))
    _rules(sp.gamma, x=lambda g, out, x: g * (out * sp.psi(x)))
    _rules(sp.gammaln, x=lambda g, x: g * sp.psi(x))
    _rules(sp.loggamma, x=lambda g, x: g * sp.psi(x))
    _rules(sp.rgamma, x=lambda g, out, x: -g * (out * sp.psi(x)))
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


def _gamma_density(sp: Any) -> Callable[[Any, Any], Any]:
    return lambda a, x: np.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a))


def _bessel_functions(sp: Any) -> None:
    _rules(sp.j0, x=lambda g, x: -g * sp.j1(x))
    _rules(sp.y0, x=lambda g, x: -g * sp.y1(x))
    _rules(sp.i0, x=lambda g, x: g * sp.i1(x))
    _rules(sp.k0, x=lambda g, x: -g * sp.k1(x))
    _rules(sp.j1, x=lambda g, x: g * (0.5 * (sp.j0(x) - sp.jv(2.0, x))))
    _rules(sp.y1, x=lambda g, x: g * (0.5 * (sp.y0(x) - sp.yv(2.0, x))))
    _rules(sp.i1, x=lambda g, x: g * (0.5 * (sp.i0(x) + sp.iv(2.0, x))))
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
    _rules(sp.spence, x=lambda g, x: g * (np.log(x) / (1 - x)))
    _rules(sp.ellipk, x=lambda g, out, x: g * ((sp.ellipe(x) / (1 - x) - out) / (2 * x)))
    _rules(sp.ellipe, x=lambda g, out, x: g * ((out - sp.ellipk(x)) / (2 * x)))
    _rules(sp.gammasgn, x=None)


LEARNERS.append(learn)
