"""Nets of the literature by name: a model, and the options that make it that net."""

from __future__ import annotations

from typing import Any

_IMAGENET = {"size": 224, "classes": 1000, "batch": 32}
_VGG = {**_IMAGENET, "width": 64, "hidden": 4096}
_TEXT = {"vocab": 50257, "sequence": 1024, "dropout": 0.1}

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    # He et al., 2016 (arXiv:1512.03385), tables 1 and 6
    "resnet20": ("resnet", {"depth": 9, "batch": 128}),
    "resnet110": ("resnet", {"depth": 54, "batch": 128}),
    "resnet50": ("bottleneck_resnet", {**_IMAGENET, "depth": 16, "width": 64}),
    # Chen et al., 2016 (arXiv:1604.06174), section 5.3: 3 * 333 + 2 = 1001 convolutions and linear
    "chen-resnet-1000": (
        "bottleneck_resnet", {**_IMAGENET, "depth": 333, "width": 64, "chen": True},
    ),
    # section 5.4: four layers, 50 numbers in and a softmax over 5000 out at each step
    "chen-lstm": (
        "lstm",
        {"depth": 1000, "layers": 4, "width": 1024, "batch": 64, "inputs": 50, "vocab": 5000},
    ),
    # Simonyan and Zisserman, 2015 (arXiv:1409.1556), table 1, columns D and E
    "vgg16": ("vgg", {**_VGG, "depth": 13, "dropout": 0.5}),
    "vgg19": ("vgg", {**_VGG, "depth": 16, "dropout": 0.5}),
    # Howard et al., 2017 (arXiv:1704.04861), table 1
    "mobilenet-v1": ("mobilenet", {**_IMAGENET, "depth": 13, "width": 32}),
    # Ronneberger et al., 2015 (arXiv:1505.04597), figure 1, with padding, on images as large as
    # those of Jain et al., 2020 (arXiv:1910.02653), figure 5
    "unet-416x608": ("unet", {"depth": 4, "width": 64, "rows": 416, "columns": 608, "batch": 32}),
    # Radford et al., 2019, table 2; Brown et al., 2020 (arXiv:2005.14165), table 2.1
    "gpt2": ("gpt", {**_TEXT, "depth": 12, "width": 768, "heads": 12, "batch": 8}),
    "gpt2-medium": ("gpt", {**_TEXT, "depth": 24, "width": 1024, "heads": 16, "batch": 8}),
    "gpt2-xl": ("gpt", {**_TEXT, "depth": 48, "width": 1600, "heads": 25, "batch": 8}),
    "gpt3": (
        "gpt",
        {**_TEXT, "depth": 96, "width": 12288, "heads": 96, "batch": 1, "sequence": 2048},
    ),
}  # fmt: skip
"""Preset -> model and options; a model's own name is a preset too."""
