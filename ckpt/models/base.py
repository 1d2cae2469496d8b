"""What a workload is, and the table of them.

A model is a function of keyword options (``depth``, ``width``, ``batch``, ``dtype``, …) that returns a
Workload: a loss in plain NumPy and `ckpt.nn`, and its arguments described rather than made, so that
a model of any size can be profiled without being allocated.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.tape import tree
from ckpt.tape.abstract import AbstractArray, spec
from ckpt.tape.checkpoint import checkpoint_sequential


@dataclass(frozen=True)
class Array:
    """An argument that isn't made yet: shape, dtype, and how to fill it.

    ``scale`` is the standard deviation of a normal fill around ``mean``; ``below`` fills with
    integers from 0 up to it.
    """

    shape: tuple[int, ...]
    scale: float = 0.0
    mean: float = 0.0
    below: int = 0
    dtype: str = "float32"

    def make(self, rng: np.random.Generator) -> Any:
        if self.below:
            return rng.integers(0, self.below, self.shape)
        if not self.scale:
            return np.full(self.shape, self.mean, self.dtype)
        kind = np.float32 if self.dtype == "float32" else np.float64
        made = rng.standard_normal(self.shape, dtype=kind)
        made *= self.scale
        made += self.mean
        return made.astype(self.dtype, copy=False)

    def spec(self) -> AbstractArray:
        return spec(self.shape, "int64" if self.below else self.dtype)


@dataclass(frozen=True)
class Workload:
    """A loss and its arguments, the parameters first."""

    name: str
    loss: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Nested lists, tuples and dicts of `Array`, and constants."""
    options: dict[str, Any] = field(default_factory=dict)

    def specs(self) -> tuple[Any, ...]:
        """The arguments' shapes and dtypes, for `ckpt.trace`."""
        return self._rebuilt(lambda a: a.spec())

    def arrays(self, seed: int = 0) -> tuple[Any, ...]:
        """The arguments as arrays, the same for the same seed."""
        rng = np.random.default_rng(seed)
        return self._rebuilt(lambda a: a.make(rng))

    def _rebuilt(self, convert: Callable[[Array], Any]) -> tuple[Any, ...]:
        return tuple(
            tree.rebuild(argument, lambda a: convert(a) if isinstance(a, Array) else a)
            for argument in self.arguments
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arguments."""
        arrays = (a for a in tree.leaves(self.arguments) if isinstance(a, Array))
        return sum(a.spec().nbytes for a in arrays)


def run_layers(layers: Sequence[Callable[[Any], Any]], x: Any, segments: int | None) -> Any:
    """Apply the layers in order, checkpointed in ``segments`` (None: not at all)."""
    if segments is not None and len(layers) > 1:
        return checkpoint_sequential(layers, min(segments, len(layers)))(x)
    for layer in layers:
        x = layer(x)
    return x


_MODULES = {
    "residual_mlp": "ckpt.models.mlp",
    "mlp": "ckpt.models.mlp",
}
"""Model -> the module that defines it, imported when first asked for."""

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {}
"""Preset -> model and options; a model's own name is a preset too."""

_MODELS: dict[str, Callable[..., Workload]] = {}

Builder = Callable[..., Workload]


def model(name: str) -> Callable[[Builder], Builder]:
    """Register a function of keyword options that builds a Workload."""

    def register(builder: Builder) -> Builder:
        _MODELS[name] = builder
        return builder

    return register


def names() -> list[str]:
    """Every model's and preset's name."""
    return [*_MODULES, *PRESETS]


def build(name: str, **options: Any) -> Workload:
    """The workload called ``name``, a model's or a preset's, with some options changed.

    Raises UsageError for an unknown name or option, or an option's wrong value.
    """
    stem, preset = PRESETS.get(name, (name, {}))
    if stem not in _MODULES and stem not in _MODELS:
        raise UsageError(f"unknown model {name!r}; choose from {', '.join(names())}")
    if stem not in _MODELS:
        import_module(_MODULES[stem])
    builder = _MODELS[stem]
    parameters = inspect.signature(builder).parameters
    for option, value in options.items():
        if option not in parameters:
            raise UsageError(f"{name} has no option {option!r}; it has: {', '.join(parameters)}")
        default = parameters[option].default
        whole = isinstance(default, int) and not isinstance(default, bool)
        if whole and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"{option} must be a whole number above 0, not {value!r}")
    chosen = {**preset, **{k: v for k, v in options.items() if v is not None}}
    check_dtype(chosen.get("dtype", "float32"))
    made = builder(**chosen)
    defaults = {k: p.default for k, p in parameters.items()}
    return Workload(name, made.loss, made.arguments, {**defaults, **chosen})


def check_dtype(dtype: str) -> None:
    if dtype not in ("float16", "float32", "float64"):
        raise UsageError(f"unknown dtype {dtype!r}; choose float32 or float64")
