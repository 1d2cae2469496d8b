"""Contractions by subscripts and by axes."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import UnsupportedError
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement
from tests.tape.ops.checking import check_op as check_all

LENGTHS = dict(
    zip("abcdefijklbhqsmn", (2, 3, 2, 4, 3, 2, 3, 4, 2, 3, 2, 2, 3, 4, 5, 3), strict=True)
)


def check_op(*args, **kwargs):
    check_all(*args, exact=False, **kwargs)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def operands(subscripts):
    inputs = subscripts.replace(" ", "").split("->")[0].split(",")
    return [
        normal(
            *(n for c in term.replace("...", "Z") for n in ((2, 3) if c == "Z" else (LENGTHS[c],))),
            seed=k,
        )
        for k, term in enumerate(inputs)
    ]


@pytest.mark.parametrize(
    "subscripts",
    [
        "ij,jk->ik",
        "ij,jk->ki",
        "ij,jk",
        "ji,kj",
        "ij,ij->",
        "ij,ij->ij",
        "ij,ij->ji",
        "i,j->ij",
        "i,j",
        "i,i",
        "ij,j->i",
        "ij,j->ij",
        "bij,bjk->bik",
        "bij,bjk->ikb",
        "bqhd,bkhd->bhqk",
        "bhqk,bkhd->bqhd",
        "ijkl,klmn->ijmn",
        "ijkl,jlm->mki",
        "ij,kl->",
        "ij,kl->ik",
        "ab,cd->dbca",
        "...ij,...jk->...ik",
        "...ij,jk->...ik",
        "i...,j...->ij...",
        "...,...",
        "...i,i",
        " i j , j k -> i k ",
        "ij",
        "ji",
        "ij->j",
        "ij->",
        "ij->ji",
        "...ij->...ji",
        "ij,jk,kl->il",
        "i,ij,j",
        "ij,jk,ki->",
        "a,b,c->abc",
        "abc,cd,de,eb->a",
    ],
)
def test_einsum(subscripts):
    check_op(lambda *x, np=np: np.einsum(subscripts, *x), *operands(subscripts), atol=2e-6)


@pytest.mark.parametrize(
    "subscripts", ["ii", "ii->i", "iij->ij", "iji->j", "iii", "ii,i->i", "ii,jj->ij", "iij,jk->ik"]
)
def test_a_label_twice_in_one_operand(subscripts):
    check_op(lambda *x: np.einsum(subscripts, *x), *operands(subscripts))


def test_axes_of_length_one_are_broadcast():
    check_op(lambda x, y: np.einsum("ij,jk->ik", x, y), normal(3, 1), normal(4, 5))
    check_op(lambda x, y: np.einsum("...i,...i->...", x, y), normal(3, 1, 4), normal(5, 4))
    check_op(lambda x, y: np.einsum("ij,ij->ij", x, y), normal(3, 1), normal(1, 4))


def test_the_other_calling_form():
    check_op(lambda x, y: np.einsum(x, [0, 1], y, [1, 2], [2, 0]), normal(3, 4), normal(4, 2))
    check_op(lambda x, y: np.einsum(x, [0, 1], y, [1, 2]), normal(3, 4), normal(4, 2))
    check_op(lambda x: np.einsum(x, [..., 0], [...]), normal(3, 4))


@pytest.mark.parametrize(
    "optimize", [False, True, "greedy", "optimal", ["einsum_path", (1, 2), (0, 1)]]
)
def test_the_order_of_contraction(optimize):
    arrays = normal(2, 3), normal(3, 4), normal(4, 5)
    check_op(lambda *x: np.einsum("ij,jk,kl->il", *x, optimize=optimize), *arrays)


def test_complex_numbers():
    x, y = normal(3, 4) + 1j * normal(3, 4, seed=1), normal(4, 2) + 1j * normal(4, 2, seed=2)
    check_op(lambda x, y, np=np: np.einsum("ij,jk->ik", x, y), x, y)


def test_flops_are_those_of_the_contraction():
    program = ckpt.trace(
        lambda q, k: np.sum(np.einsum("bqhd,bkhd->bhqk", q, k)),
        np.ones((2, 5, 3, 7)),
        np.ones((2, 11, 3, 7)),
        argnums=(0, 1),
    )
    node = next(n for n in program.graph if n.op == "einsum")
    assert node.flops == 2 * 2 * 3 * 5 * 11 * 7
    step = step_of(program.graph, "einsum")
    assert step.flops == 2 * node.flops
    assert len(step.reads) == 2


def test_many_operands_are_contracted_in_pairs():
    program = ckpt.trace(
        lambda x, y, z: np.sum(np.einsum("ij,jk,kl->il", x, y, z)),
        np.ones((2, 50)),
        np.ones((50, 50)),
        np.ones((50, 50)),
    )
    nodes = [n for n in program.graph if n.op == "einsum"]
    assert [n.flops for n in nodes] == [2 * 2 * 50 * 50] * 2


@pytest.mark.parametrize("n", [8, 200])
def test_workspace_on_both_sides_of_the_size_where_numpy_reuses_temporaries(n):
    x, y = normal(2, n, 3, n // 2), normal(2, n, 3, n // 2, seed=1)
    check_agreement(lambda x, y: np.einsum("bqhd,bkhd->bhqk", x, y), x, y)
    check_agreement(lambda x, y: np.einsum("bqhd,bqhe->bde", x, y), x, y)


@pytest.mark.parametrize(
    ("a", "b", "axes"),
    [
        ((2, 3, 4), (3, 4, 5), 2),
        ((2, 3), (3, 4), 1),
        ((2, 3), (4,), 0),
        ((2, 3, 4), (4, 3, 5), ((1, 2), (1, 0))),
        ((2, 3, 4), (5, 4), (2, 1)),
        ((2, 3), (2, 3), 2),
        ((2, 3, 4), (2, 4, 3), ([-1, 0], [1, 0])),
        ((0, 3), (3, 2), 1),
    ],
)
def test_tensordot(a, b, axes):
    check_op(lambda a, b, np=np: np.tensordot(a, b, axes), normal(*a), normal(*b, seed=1))


def test_what_is_wrong_is_said():
    x = ckpt.Value(normal(2, 3))
    with pytest.raises(ValueError, match="differ in length"):
        np.tensordot(x, normal(2, 3), 1)
    with pytest.raises(ValueError, match="lengths"):
        np.einsum("ij,jk", x, normal(4, 5))
    with pytest.raises(ValueError, match="subscripts for an operand"):
        np.einsum("ijk", x)
    with pytest.raises(ValueError, match="in no operand"):
        np.einsum("ij->k", x)
    with pytest.raises(ValueError, match="operands"):
        np.einsum("ij,jk", x)
    with pytest.raises(UnsupportedError, match="dtype"):
        np.einsum("ij", x, dtype=np.float32)
