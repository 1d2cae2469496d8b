"""Fourier transforms: every one, with lengths, axes and norms."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

NORMS = [None, "backward", "ortho", "forward"]


def normal(*shape, seed=0, dtype=complex):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=shape)
    return made + 1j * rng.normal(size=shape) if dtype is complex else made


def real(name):
    return name in ("rfft", "rfft2", "rfftn", "ihfft")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [None, 3, 4, 7, 8])
@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
def test_one_axis(name, n, norm):
    function = getattr(np.fft, name)
    x = normal(2, 5, dtype=float if real(name) else complex)
    check_op(lambda x: function(x, n, norm=norm), x)
    check_op(lambda x: function(x, n, 0, norm), x.T)


@pytest.mark.parametrize("name", ["fft", "ifft", "irfft"])
def test_real_operands(name):
    check_op(lambda x: getattr(np.fft, name)(x), normal(3, 4, dtype=float))


@pytest.mark.parametrize(
    "name", ["fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn"]
)
def test_several_axes(name):
    function = getattr(np.fft, name)
    x = normal(3, 4, 5, dtype=float if real(name) else complex)
    check_op(lambda x: function(x), x)
    check_op(lambda x: function(x, (2, 6), (0, 1)), x)
    check_op(lambda x: function(x, (4, -1), (1, 2), "ortho"), x)
    check_op(lambda x: function(x, axes=(2, 0), norm="forward"), x)


@pytest.mark.parametrize("name", ["fft", "ifft", "fft2", "ifft2", "fftn", "ifftn"])
def test_like_hips_autograd(name):
    def f(x, np=np):
        return getattr(np.fft, name)(x)

    check_op(f, normal(4, 6))
    check_op(f, normal(4, 6, dtype=float))


@pytest.mark.parametrize("name", ["rfft", "rfft2", "rfftn"])
def test_real_transforms_like_hips_autograd(name):
    def f(x, np=np):
        return getattr(np.fft, name)(x)

    check_op(f, normal(4, 6, dtype=float))


@pytest.mark.parametrize("axes", [None, 0, 1, (0, 2)])
def test_shifts(axes):
    x = normal(3, 4, 5, dtype=float)
    check_op(lambda x, np=np: np.fft.fftshift(x, axes), x)
    check_op(lambda x, np=np: np.fft.ifftshift(x, axes), x)


@pytest.mark.parametrize("n", [8, 300])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_agreement_in_every_layout(n, norm, dtype):
    for x in layouts(
        normal(n, n).astype(dtype) if "c" in dtype else normal(n, n).real.astype(dtype)
    ):
        for name in ("fft", "ifft", "irfft", *(["rfft"] if "f" in dtype else [])):
            function = getattr(np.fft, name)
            check_agreement(lambda x, f=function: f(x, axis=0, norm=norm), x, cotangents=("F",))
    check_agreement(lambda x: np.fft.fft2(x, norm=norm), x)


def test_nothing_is_kept_and_flops_are_counted():
    program = ckpt.trace(lambda x: np.sum(np.real(np.fft.fft(x))), np.ones((3, 1024)))
    node = next(n for n in program.graph if n.op == "fft")
    step = step_of(program.graph, "fft")
    assert step.reads == ()
    assert node.flops == 3 * 5 * 1024 * 10
    assert step.flops == node.flops
    program = ckpt.trace(lambda x: np.sum(np.real(np.fft.rfft(x))), np.ones((3, 1024)))
    assert next(n for n in program.graph if n.op == "rfft").flops == 3 * 5 * 1024 * 10 / 2


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="at least one point"):
        ckpt.trace(lambda x: np.sum(np.real(np.fft.fft(x, 0))), np.ones(3))
    with pytest.raises(TypeError):
        np.fft.rfft(ckpt.Value(normal(3)))
    with pytest.raises(ValueError, match="lengths"):
        np.fft.fftn(ckpt.Value(normal(3, 4)), (3,), (0, 1))
