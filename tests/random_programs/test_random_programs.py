"""A number of random programs, and those that were found; `python -m tests.random_programs` runs
thousands."""

from __future__ import annotations

import pytest

from tests.random_programs.__main__ import main
from tests.random_programs.calls import templates
from tests.random_programs.checking import DiscardedError, check, chosen
from tests.random_programs.found import FOUND, SHAPE, program
from tests.random_programs.writing import Written, write


@pytest.mark.parametrize("name", FOUND)
def test_found(name):
    check(program(name))


PLAIN = """
np.einsum("ij,ij->i", x, x) | np.einsum("ij,kj->ik", y, y) | np.dot(y, y.T) | np.linalg.norm(y)
np.linalg.norm(y.T, 2) | np.linalg.matrix_power(x[:24], 3) | np.linalg.svd(x, compute_uv=False)
np.partition(x, 3, axis=0)[:5] * x[:5] | np.linalg.svd(x)[1] | np.inner(x, x[:7]) | x[0].dot(x[1])
np.tensordot(y, y, axes=([0], [0])) | np.linalg.cond(x[:24]) | np.linalg.multi_dot([x, x.T, x])
"""


@pytest.mark.parametrize("expression", templates(PLAIN))
def test_what_numpy_makes_of_plain_arrays_it_makes_in_a_plan(expression):
    body = f"    y = x.T[:, ::2]\n    return np.sum(p * np.sum({expression}))"
    arguments = "draw((3,), 0), draw((130, 24), 1)"
    check(Written(0, SHAPE.format(names="p, x", body=body, arguments=arguments)))


POWERS = (
    "z ** 2 | z ** -1 | z ** 0.5 | z ** 3 | z ** y | 2.0 ** z | abs(z) | z[0, 0] ** 4 | y ** -2"
)


@pytest.mark.parametrize("expression", templates(POWERS))
@pytest.mark.parametrize("dtype", ["c8", "c16", "f4", "f8"])
def test_so_are_powers(expression, dtype):
    body = "    y = z[:, 1:2]\n    z = z[:, :1] + 3\n"
    body += f"    return np.sum(p * np.real({expression}))"
    arguments = f'draw((50, 1), 0), draw((50, 2), 1, "{dtype}")'
    check(Written(0, SHAPE.format(names="p, z", body=body, arguments=arguments)))


@pytest.mark.parametrize("tens", range(8))
def test_a_few(tens):
    for seed in range(10 * tens, 10 * tens + 10):
        try:
            check(write(seed), chosen(seed, several=3))
        except DiscardedError:
            continue
        except AssertionError as violation:
            raise AssertionError(f"seed {seed}: {violation}\n{write(seed).script}") from violation


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(1, 101))
def test_thousands(shard):
    """Ten thousand programs, a hundred at a time, each given to every planner."""
    argv = ["--from", "0", "--to", "10000", "--shard", f"{shard}/100"]
    assert main(argv) == 0
