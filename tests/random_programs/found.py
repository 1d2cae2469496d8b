"""Small programs on which something was wrong once, each found by a random one."""

from __future__ import annotations

from tests.random_programs.writing import Written

FOUND = {
    "the real part of one complex number is no transpose": (
        "np.sum(np.real(np.fft.fft(p)))",
        "draw((1, 1), 0)",
    ),
    "a backward reads a result of a call that the loss doesn't": (
        "np.sum(np.linalg.eigh(p @ p.T + np.eye(3))[0])",
        "draw((3, 3), 0)",
    ),
    "a norm whose weight has another dtype": (
        "np.sum(nn.layer_norm(p, draw((4,), 1), draw((4,), 2)) ** 2)",
        'draw((3, 4), 0, "f4")',
    ),
    "dropout of what isn't laid out as its mask": (
        "np.mean(nn.dropout(np.tanh(p).T, 0.3, rng))",
        "draw((130, 90), 0), np.random.default_rng(0)",
    ),
    "a part added into a cotangent that is broadcast": (
        "np.sum(p[0] * 3) + np.sum(np.sum(np.reshape(np.tanh(p), (3, 4)), axis=0) ** 2)",
        "draw((12,), 0)",
    ),
    "the imaginary part of real numbers is written over": (
        "np.mean(np.square(np.imag(p)))",
        "draw((5, 3), 0)",
    ),
    "the means of a stack with swapped axes": (
        "np.sum(nn.layer_norm(np.swapaxes(p, 0, 1)[..., None], axis=2) + np.sum(p))",
        "draw((5, 3), 0)",
    ),
    "two complex numbers multiplied": (
        "np.real(np.vdot(np.exp(1j * np.trace(p)), np.exp(1j * np.sum(p)) * np.trace(p)))",
        "draw((2, 2), 831)",
    ),
    "a gradient taken inside, of what is a constant outside": (
        "np.sum(ckpt.grad(lambda t: np.sum(t * t * p))(np.ones(3)))",
        "draw((3,), 0)",
    ),
    "a number that is read again is written over through a view of it": (
        "np.sum(np.sin(np.reshape(np.clip(np.vdot(p, p), 0.5, 1e9), (1,)))) * np.vdot(p, p)",
        "draw((3,), 0)",
    ),
    "a padded array that is laid out backwards": (
        'np.sum(np.tanh(np.pad(p, ((1, 2), (0, 1)), mode="reflect")) ** 2)',
        'draw((40, 30), 0, "f8", "F")',
    ),
    "a gradient of nothing": (
        "np.sum(p[:, :0] * 2) + np.linalg.norm(p[:, :0], 1) + np.sum(np.sin(p))",
        "draw((2, 3), 0)",
    ),
    "integers for the weight of a norm of half precision": (
        "np.mean(nn.layer_norm(np.sin(p), np.arange(17) % 3, np.arange(17) % 2))",
        'draw((17, 17, 17), 0, "f2")',
    ),
    "the mask of a causal attention": (
        "np.mean(nn.attention(p, np.tanh(p), p, causal=True))",
        'draw((130, 24), 0, "f4")',
    ),
    "rows of a cross entropy": (
        "nn.cross_entropy(np.sin(p), np.arange(2448) % 17)",
        "draw((2448, 17), 0)",
    ),
    "a norm over one long axis": (
        "np.mean(np.square(nn.layer_norm(np.repeat(p, 2) ** 3)))",
        "draw((130, 130), 0)",
    ),
    "a number of digits decides an array's layout": (
        "np.sum((np.round(np.rot90(p), 1) + np.rot90(p)) * np.arange(3))",
        "draw((3, 3), 0)",
    ),
    "a table of one row, repeated": (
        "np.sum(np.square(nn.embedding(p, np.arange(3, dtype=np.int32))))",
        'draw((130, 130), 389, "f8", "spread")',
    ),
    "weights of another precision": (
        'np.sum(np.average(p, axis=0, weights=np.square(draw((5, 3), 1, "f4"))))',
        "draw((5, 3), 0)",
    ),
}


SHAPE = """
def loss({names}):
{body}


def arguments():
    return {arguments},


ARGNUMS, HAS_AUX = 0, False
"""


def program(name: str) -> Written:
    expression, arguments = FOUND[name]
    names = "p, rng" if "rng" in arguments else "p"
    body = f"    return {expression}"
    return Written(0, SHAPE.format(names=names, body=body, arguments=arguments))
