"""scipy.special's ufuncs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import ckpt
from ckpt.errors import UnsupportedError
from tests.tape.ops.checking import check_op

sp = pytest.importorskip("scipy.special")

RNG = np.random.default_rng(0)
ANY = RNG.uniform(-1.5, 1.5, (3, 4))
POSITIVE = RNG.uniform(0.3, 3, (3, 4))
UNIT = RNG.uniform(0.1, 0.9, (3, 4))
OTHER = RNG.uniform(0.4, 2.5, (4,))

UNARY = {
    "expit": ANY, "logit": UNIT, "log_expit": ANY, "entr": POSITIVE, "erf": ANY, "erfc": ANY,
    "erfcx": POSITIVE, "erfi": ANY, "erfinv": ANY / 2, "erfcinv": POSITIVE / 2, "dawsn": ANY,
    "ndtr": ANY, "log_ndtr": ANY, "ndtri": UNIT, "psi": POSITIVE, "gamma": POSITIVE,
    "gammaln": POSITIVE, "loggamma": POSITIVE, "rgamma": POSITIVE, "j0": ANY, "y0": POSITIVE,
    "i0": ANY, "k0": POSITIVE,
    "j1": ANY, "y1": POSITIVE, "i1": ANY, "k1": POSITIVE, "i0e": ANY, "i1e": ANY, "k0e": POSITIVE,
    "k1e": POSITIVE, "exp10": ANY, "exp2": ANY, "expm1": ANY, "log1p": UNIT, "cosm1": ANY,
    "cbrt": POSITIVE, "exp1": POSITIVE, "expi": POSITIVE, "spence": POSITIVE, "ellipk": UNIT,
    "ellipe": UNIT,
}  # fmt: skip
BINARY = {
    "xlogy": (POSITIVE, OTHER), "xlog1py": (POSITIVE, OTHER), "rel_entr": (POSITIVE, OTHER),
    "kl_div": (POSITIVE, OTHER), "huber": (POSITIVE, OTHER), "pseudo_huber": (POSITIVE, OTHER),
    "beta": (POSITIVE, OTHER), "betaln": (POSITIVE, OTHER),
}  # fmt: skip
FIRST_FIXED = {
    "gammainc": 1.7, "gammaincc": 1.7, "jv": 1.5, "yv": 1.5, "iv": 1.5, "kv": 1.5, "ive": 1.5,
    "kve": 1.5, "yn": 2, "kn": 2, "expn": 3,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name):
    check_op(lambda x: getattr(sp, name)(x), UNARY[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BINARY)
def test_two_operands(name):
    check_op(lambda x, y: getattr(sp, name)(x, y), *BINARY[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FIRST_FIXED)
def test_a_fixed_parameter(name):
    function, first = getattr(sp, name), FIRST_FIXED[name]
    integral = name in ("yn", "kn", "expn")  # scipy's derivatives' orders are integers too
    check_op(
        lambda x: function(first, x), POSITIVE + 0.5, rtol=1e-4, atol=1e-5, float32=not integral
    )


def test_betainc():
    check_op(lambda x: sp.betainc(1.5, 2.5, x), UNIT, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["erf", "gammaln", "digamma", "logit", "expit", "j0", "i1", "erfinv"]
)
def test_like_hips_autograd(name):
    peers = pytest.importorskip("autograd.scipy.special")
    autograd = pytest.importorskip("autograd")
    ours = ckpt.grad(lambda x: np.sum(getattr(sp, name)(x)))(UNIT)
    theirs = autograd.grad(lambda x: autograd.numpy.sum(getattr(peers, name)(x)))(UNIT)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_a_parameter_without_a_derivative_is_refused():
    with pytest.raises(UnsupportedError, match="jv has no rule for its operand x"):
        sp.jv(ckpt.Value(1.5), 2.0).backward()
    with pytest.raises(UnsupportedError, match="no rule"):
        sp.ellipj(ckpt.Value(0.5), 0.3)


def test_scipy_is_not_loaded_by_ckpt():
    code = "import sys, ckpt, ckpt.tape; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
