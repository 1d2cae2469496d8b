"""Every family at a size that runs in a fraction of a second."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "residual_mlp": ("residual_mlp", {"depth": 6, "width": 16, "batch": 64}),
    "mlp": ("mlp", {"depth": 6, "width": 16, "batch": 64}),
    "resnet": ("resnet", {"depth": 4, "width": 6, "batch": 4, "size": 16}),
    "bottleneck": ("bottleneck_resnet", {"depth": 8, "width": 8, "batch": 8, "size": 32}),
    "chen": ("bottleneck_resnet", {"depth": 8, "width": 8, "batch": 8, "size": 32, "chen": True}),
    "vgg": ("vgg", {"depth": 7, "width": 8, "batch": 4}),
    "mobilenet": ("mobilenet", {"depth": 6, "width": 8, "batch": 4, "size": 32}),
    "unet": ("unet", {"depth": 2, "batch": 2, "rows": 32, "columns": 16}),
    "gpt": ("gpt", {"depth": 3, "width": 32, "batch": 2, "sequence": 16}),
    "gpt untied": ("gpt", {"depth": 3, "width": 32, "batch": 2, "sequence": 16, "tied": False}),
    "lstm": ("lstm", {"depth": 6, "width": 16, "batch": 8}),
    "lstm of numbers": ("lstm", {"depth": 6, "width": 16, "batch": 8, "inputs": 5, "layers": 1}),
    "wave": ("wave", {"depth": 12, "size": 48, "batch": 2}),
    "heat": ("heat", {"depth": 12, "size": 48}),
}
"""Name -> model and options."""
