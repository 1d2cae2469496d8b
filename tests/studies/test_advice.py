"""What is said of a checkpoint that can't help."""

from __future__ import annotations

import numpy as np

import ckpt
from ckpt.reports.advice import advice

W = np.ones((8, 8))


def said(layers):
    def loss(w):
        x = np.ones((4, 8))
        for layer in layers:
            x = layer(x, w)
        return np.sum(x)

    return advice(ckpt.trace(loss, W).graph)


@ckpt.checkpoint
def thin(x, w):
    return np.tanh(x @ w)


@ckpt.checkpoint
def thick(x, w):
    return np.sin(np.tanh(x @ w)) @ w


def plain(x, w):
    return np.sin(np.tanh(x @ w)) @ w


def test_a_block_whose_residuals_are_its_inputs_and_outputs():
    (line,) = said([thin, thin, plain])
    assert "saves nothing" in line
    assert "test_advice.py" in line


def test_a_last_segment():
    (line,) = said([plain, thick])
    assert "last segment" in line


def test_nothing_to_say_where_it_helps():
    assert said([thick, thick, plain, plain]) == []
    assert said([plain]) == []
