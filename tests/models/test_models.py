"""Workloads: presets against their papers, options, arrays, and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckpt.errors import StepMemoryError, UsageError
from ckpt.models import build, memory, names
from ckpt.models.base import spread
from ckpt.models.facts import facts
from ckpt.tape.core import tree
from ckpt.tape.execution.program import trace
from tests.models.small import SMALL


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [
        ("resnet20", 269_722),  # He et al., table 6: 0.27 M
        ("resnet110", 1_727_962),  # 1.7 M
        ("resnet50", 25_557_032),  # as torchvision's
        ("vgg16", 138_357_544),  # Simonyan and Zisserman, table 2: 138 M
        ("vgg19", 143_667_240),  # 144 M
        ("mobilenet-v1", 4_231_976),  # Howard et al., table 8: 4.2 M
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-xl", 1_557_611_200),
        ("gpt3", 174_604_259_328),  # Brown et al., table 2.1: 175.0 B
    ],
)
def test_presets_have_as_many_parameters_as_the_published_nets(
    preset: str, parameters: int
) -> None:
    assert build(preset).parameters == parameters


def test_the_thousand_layer_net_needs_48_gigabytes() -> None:
    """Chen et al., 2016, section 5.3: "from 48G to 7G"; 1001 convolutions and linear layers."""
    found = facts(build("chen-resnet-1000"))
    graph = found.graph
    shortcuts = 4
    layers = sum(node.op in ("convolution", "matmul") for node in graph)
    assert layers - shortcuts == 1001
    assert found.activations_nbytes == pytest.approx(48 * 2**30, rel=0.01)


def test_facts_of_a_stack_that_can_be_counted_by_hand() -> None:
    workload = build("mlp", depth=3, width=8, batch=4)
    found = facts(workload)
    assert found.parameters == 3 * 8 * 8
    assert found.parameters_nbytes == 4 * found.parameters
    assert found.nodes == 4 + 2 * 3 + 2  # leaves, matmul and tanh each, square and mean
    assert found.forward_flops == 3 * (2 * 4 * 8 * 8 + 4 * 8) + 4 * 8 + 4 * 8
    assert found.activations_nbytes == 3 * 4 * 8 * 4  # the outputs of tanh


@pytest.mark.parametrize("name", SMALL)
def test_depth_scales_the_graph(name: str) -> None:
    """Twice the depth is more nodes and more FLOPs."""
    model, options = SMALL[name]
    found = []
    for depth in (2, 4) if model == "unet" else (6, 12):
        workload = build(model, **{**options, "depth": depth})
        found.append(trace(workload.loss, *workload.specs()).graph)
    assert len(found[0]) < len(found[1])
    assert found[0].forward_flops < found[1].forward_flops


@pytest.mark.parametrize("name", names())
def test_dtype_and_batch_are_options_of_every_model(name: str) -> None:
    workload = build(name, batch=3, dtype="float64")
    floats = [a for a in tree.leaves(workload.specs()) if getattr(a, "dtype", None) == "float64"]
    assert floats
    assert not [a for a in tree.leaves(workload.specs()) if getattr(a, "dtype", 0) == "float32"]
    shapes = [a.shape for argument in workload.specs()[1:] for a in tree.leaves(argument)
              if hasattr(a, "shape")]  # fmt: skip
    assert all(3 in shape[:2] for shape in shapes)


def test_arrays_follow_from_the_seed() -> None:
    workload = build("gpt", depth=1, dropout=0.1)

    def values(seed: int) -> list[Any]:
        *rest, rng = workload.arrays(seed)
        return [*tree.leaves(rest), rng.random(4)]

    for a, b in zip(values(5), values(5), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(values(5)[0], values(6)[0])
    assert not np.array_equal(values(5)[-1], values(6)[-1])


@pytest.mark.parametrize(
    ("depth", "pattern", "stages"),
    [
        (8, (2, 2, 3, 3, 3), [1, 1, 2, 2, 2]),  # VGG-11
        (10, (2, 2, 3, 3, 3), [2, 2, 2, 2, 2]),  # VGG-13
        (13, (2, 2, 3, 3, 3), [2, 2, 3, 3, 3]),  # VGG-16
        (16, (2, 2, 3, 3, 3), [2, 2, 4, 4, 4]),  # VGG-19
        (16, (3, 4, 6, 3), [3, 4, 6, 3]),  # ResNet-50
        (66, (3, 24, 36, 3), [3, 24, 36, 3]),  # ResNet-200
        (13, (1, 2, 2, 6, 2), [1, 2, 2, 6, 2]),  # MobileNet
        (1, (1, 1, 1), [0, 0, 1]),
    ],
)
def test_blocks_lie_over_stages_as_in_the_papers(
    depth: int, pattern: tuple[int, ...], stages: list[int]
) -> None:
    assert spread(depth, pattern) == stages
    for n in range(1, 80):
        assert sum(spread(n, pattern)) == n


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, "unknown model 'resnet5'; did you mean resnet50"),
        ("gpt", {"hidden": 3}, "gpt has no option 'hidden'; it has: depth, width, heads"),
        ("gpt", {"heads": 5}, "width 128 can't be split into 5 heads"),
        ("gpt3", {"width": 100}, "width 100 can't be split into 96 heads"),
        ("gpt", {"depth": 0}, "depth must be a whole number above 0, not 0"),
        ("gpt", {"depth": 2.5}, "depth must be a whole number above 0, not 2.5"),
        ("gpt", {"depth": True}, "depth must be a whole number above 0, not True"),
        ("gpt", {"tied": 1}, "tied must be true or false, not 1"),
        ("gpt", {"dropout": 1.0}, "dropout must be a number from 0 to below 1, not 1.0"),
        ("gpt", {"dropout": "much"}, "dropout must be a number from 0 to below 1, not 'much'"),
        ("gpt", {"dropout": float("nan")}, "dropout must be a number from 0 to below 1, not nan"),
        ("gpt", {"segments": 0}, "segments must be a whole number above 0, not 0"),
        ("lstm", {"inputs": "x"}, "inputs must be a whole number above 0, not 'x'"),
        ("wave", {"dtype": "int32"}, "unknown dtype 'int32'; choose from float16, float32"),
        ("resnet", {"size": 30}, "size 30 can't be halved 2 times"),
        ("vgg", {"size": 40}, "size 40 can't be halved 5 times"),
        ("unet", {"columns": 20}, "columns 20 can't be halved 3 times"),
        ("mobilenet", {"size": 48}, "size 48 can't be halved 5 times"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        build(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_refused_before_it_is_allocated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_nbytes", lambda: 64 * 2**30)
    with pytest.raises(StepMemoryError) as caught:
        build("gpt3").arrays()
    text = str(caught.value)
    assert "1.27 TiB" in text  # parameters and gradients: 2 * 4 * 174.6e9 bytes
    assert "64 GiB" in text
    assert "--no-measure" in text
