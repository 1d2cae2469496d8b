"""Every function of NumPy that a program to be differentiated may call has a rule."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.tape.core.op import ADAPTERS, NUMPY, Op
from ckpt.tape.core.rules import rules_of

DIFFERENTIABLE = """
    absolute add amax amin angle arccos arccosh arcsin arcsinh arctan arctan2 arctanh array_split
    astype atleast_1d atleast_2d atleast_3d broadcast_to clip concatenate conjugate cos cosh cross
    cumsum deg2rad degrees diag diagonal diff divide dot dsplit einsum exp exp2 expand_dims expm1
    fabs fft.fft fft.fft2 fft.fftn fft.ifft fft.ifft2 fft.ifftn fft.rfft fft.rfft2 fft.rfftn
    fft.irfft fft.irfft2 fft.irfftn fft.fftshift fft.ifftshift flip fliplr flipud fmax fmin gradient
    hsplit hypot imag inner kron linalg.cholesky linalg.det linalg.eig linalg.eigh linalg.inv
    linalg.norm linalg.pinv linalg.slogdet linalg.solve linalg.svd linspace log log10 log1p log2
    logaddexp logaddexp2 matmul max maximum mean min minimum moveaxis multiply nan_to_num negative
    outer pad partition power prod rad2deg radians ravel real real_if_close reciprocal remainder
    repeat reshape roll rollaxis rot90 sin sinc sinh sort split sqrt square squeeze std stack
    subtract sum swapaxes take take_along_axis tan tanh tensordot tile trace transpose tril triu
    var vsplit vstack hstack where
"""

WITHOUT_GRADIENT = """
    all any argmax argmin argsort less less_equal greater greater_equal equal not_equal logical_and
    logical_or logical_not logical_xor isnan isfinite isinf isclose allclose array_equal shape ndim
    size zeros_like ones_like full_like empty_like result_type iscomplexobj isrealobj sign floor
    ceil rint trunc round floor_divide count_nonzero nonzero argwhere flatnonzero searchsorted
"""


def _function(name):
    found = np
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", [*DIFFERENTIABLE.split(), *WITHOUT_GRADIENT.split()])
def test_there_is_a_rule(name):
    function = _function(name)
    assert function in NUMPY or function in ADAPTERS


METHODS = """
    sum prod mean var std max min cumsum cumprod argmax argmin argsort all any clip round dot
    squeeze swapaxes ravel repeat take diagonal trace sort conj conjugate astype reshape transpose
    flatten copy T mT real imag compress choose nonzero item tolist
"""


@pytest.mark.parametrize("name", METHODS.split())
def test_methods_of_arrays_are_methods_of_values(name):
    assert hasattr(ckpt.Value(np.ones((2, 2))), name)


def test_every_rule_names_only_what_it_may_read():
    for op in {op for op in NUMPY.values() if isinstance(op, Op)}:
        if op.differentiable:
            count = max(len(op.operands), 1) if not op.variadic else len(op.operands) + 2
            assert any(rule is not None for rule in rules_of(op, count)), op


def test_builtin_functions():
    x = ckpt.Value(np.array([1.26, -2.5]))
    assert np.array_equal(round(x, 1).data, np.round(x.data, 1))
    assert np.array_equal(abs(x).data, abs(x.data))
    assert np.array_equal(divmod(x, 2.0)[1].data, divmod(x.data, 2.0)[1])
    assert np.array_equal(divmod(2.0, x)[0].data, divmod(2.0, x.data)[0])
    assert sum(x).data == x.data.sum()
