"""What a workload is, and the table of them.

A model is a function of keyword options (``depth``, ``width``, ``batch``, ``dtype``, …) that
returns a Workload: a loss in plain NumPy and `ckpt.nn`, and its arguments described rather than
made, so that a model of any size can be profiled without being allocated. Presets are in
`ckpt.models.presets`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.models import memory
from ckpt.models.presets import PRESETS
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray, spec
from ckpt.tape.core.context import scope
from ckpt.tape.eager.checkpoint import checkpoint_sequential
from ckpt.tape.execution.program import TapeProgram, trace
from ckpt.text import unknown
from ckpt.units import KIB, as_int, at_least


@dataclass(frozen=True)
class Array:
    """An argument that isn't made yet: its shape, and how to fill it.

    ``scale`` is the standard deviation of a normal fill around ``mean``; ``below`` fills with
    integers from 0 up to it. Real numbers are of the workload's dtype.
    """

    shape: tuple[int, ...]
    scale: float = 0.0
    mean: float = 0.0
    below: int = 0

    def make(self, rng: np.random.Generator, dtype: str) -> Any:
        if self.below:
            return rng.integers(0, self.below, self.shape)
        if not self.scale:
            return np.full(self.shape, self.mean, dtype)
        kind = np.float32 if dtype == "float32" else np.float64
        made = rng.standard_normal(self.shape, dtype=kind)
        made *= self.scale
        made += self.mean
        return made.astype(dtype, copy=False)

    def spec(self, dtype: str) -> AbstractArray:
        return spec(self.shape, "int64" if self.below else dtype)


@dataclass(frozen=True)
class Random:
    """An argument that is a `numpy.random.Generator`, as dropout takes; seeded with the arrays."""

    def make(self, rng: np.random.Generator, _dtype: str) -> np.random.Generator:
        return np.random.default_rng(int(rng.integers(1 << 32)))

    def spec(self, _dtype: str) -> np.random.Generator:
        return np.random.default_rng(0)


@dataclass(frozen=True)
class Workload:
    """A loss and its arguments, the parameters first."""

    loss: Callable[..., Any]
    arguments: tuple[Any, ...]
    """Nested lists, tuples and dicts of `Array`, `Random`, and constants."""
    dtype: str
    name: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    """All that it was built with; see `build`."""

    def specs(self) -> tuple[Any, ...]:
        """The arguments' shapes and dtypes, for `ckpt.trace`."""
        return self._rebuilt(lambda a: a.spec(self.dtype))

    def trace(self) -> TapeProgram:
        """The workload as a Program, from shapes alone."""
        return trace(self.loss, *self.specs(), name=self.name)

    def arrays(self, seed: int = 0) -> tuple[Any, ...]:
        """The arguments as arrays, the same for the same seed.

        Raises StepMemoryError, before it allocates, if they and the gradients don't fit into this
        machine's memory.
        """
        seed = at_least(0, "seed", seed)
        memory.require(self.nbytes + self.parameter_nbytes, f"{self.name} (arguments, gradients)")
        rng = np.random.default_rng(seed)
        return self._rebuilt(lambda a: a.make(rng, self.dtype))

    def _rebuilt(self, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
        return tuple(
            tree.rebuild(argument, lambda a: convert(a) if isinstance(a, (Array, Random)) else a)
            for argument in self.arguments
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arguments."""
        return sum(a.nbytes for a in _arrays(self.specs()))

    @property
    def parameters(self) -> int:
        """How many numbers the parameters are."""
        return sum(a.size for a in _arrays(self.specs()[0]))

    @property
    def parameter_nbytes(self) -> int:
        return sum(a.nbytes for a in _arrays(self.specs()[0]))


def _arrays(specs: Any) -> list[AbstractArray]:
    return [a for a in tree.leaves(specs) if isinstance(a, AbstractArray)]


def run_layers(layers: Sequence[Callable[[Any], Any]], x: Any, segments: int | None) -> Any:
    """Apply the layers in order, checkpointed in ``segments`` (None: not at all).

    What a layer hands to the next may be several values, in a tuple.
    """
    if segments is not None and len(layers) > 1:
        return checkpoint_sequential(layers, min(segments, len(layers)))(x)
    for layer in layers:
        x = layer(x)
    return x


def scoped(name: str, layer: Callable[..., Any], *first: Any) -> Callable[[Any], Any]:
    """``x -> layer(*first, x)``, whose nodes a profile lists under ``name``."""

    def named(x: Any) -> Any:
        with scope(name):
            return layer(*first, x)

    return named


def numbered(name: str, layer: Callable[..., Any], *each: Sequence[Any]) -> list[Any]:
    """``block 0``, ``block 1`` and so on, `scoped`: a row of ``each`` comes before each one's x."""
    return [scoped(f"{name} {k}", layer, *row) for k, row in enumerate(zip(*each, strict=True))]


def spread(depth: int, pattern: Sequence[int]) -> list[int]:
    """``depth`` blocks over stages in the proportions of ``pattern``; what is over goes to the
    stages that lack most of their share, later ones first."""
    shares = [depth * n / sum(pattern) for n in pattern]
    found = [int(share) for share in shares]
    lacking = sorted(range(len(pattern)), key=lambda k: (round(shares[k] - found[k], 9), k))
    for k in lacking[len(pattern) - (depth - sum(found)) :]:
        found[k] += 1
    return found


def layout(depth: int, pattern: Sequence[int]) -> list[tuple[int, int]]:
    """Of each of ``depth`` blocks, `spread` over stages, its stage and its place in that."""
    return [(stage, k) for stage, n in enumerate(spread(depth, pattern)) for k in range(n)]


MODULES = {
    "residual_mlp": "ckpt.models.mlp",
    "mlp": "ckpt.models.mlp",
    "resnet": "ckpt.models.resnet",
    "bottleneck_resnet": "ckpt.models.resnet",
    "vgg": "ckpt.models.vgg",
    "mobilenet": "ckpt.models.mobilenet",
    "unet": "ckpt.models.unet",
    "gpt": "ckpt.models.gpt",
    "lstm": "ckpt.models.lstm",
    "wave": "ckpt.models.wave",
    "heat": "ckpt.models.wave",
}
"""Model -> the module that defines a function of that name, imported when first asked for."""

DTYPES = ("float16", "float32", "float64")


def names() -> list[str]:
    """Every model's and preset's name."""
    return [*MODULES, *PRESETS]


def build(name: str, **options: Any) -> Workload:
    """The workload called ``name``, a model's or a preset's, with some options changed.

    Raises UsageError for an unknown name or option, or an option's wrong value.
    """
    if not isinstance(name, str):
        raise UsageError(f"a model is named by a text, not by {name!r}")
    name = {known.casefold(): known for known in names()}.get(name.casefold(), name)
    stem, preset = PRESETS.get(name, (name, {}))
    if stem not in MODULES:
        raise UsageError(unknown("model", name, names()))
    builder: Callable[..., Workload] = getattr(import_module(MODULES[stem]), stem)
    parameters = inspect.signature(builder).parameters
    given = {k: v for k, v in options.items() if v is not None}
    for option, value in given.items():
        if option not in parameters:
            raise UsageError(f"{name} has no option {option!r}; it has: {', '.join(parameters)}")
        given[option] = _checked(option, value, parameters[option].default)
    chosen = {**{k: p.default for k, p in parameters.items()}, **preset, **given}
    _check_nodes(name, builder, chosen)
    return replace(builder(**chosen), name=name, options=chosen)


MOST_NODES = 10_000_000
NODE_NBYTES = 2 * KIB
"""What a node takes while its program is traced."""

_REPEATING = ("depth", "layers")
"""Options that nodes are in proportion to."""


def _check_nodes(name: str, builder: Callable[..., Workload], chosen: dict[str, Any]) -> None:
    """Refuse a model of more nodes than can be traced, judged by a small one of its kind."""
    factor = 1.0
    small = dict(chosen)
    for option in _REPEATING:
        if chosen.get(option, 0) > 1000:
            factor *= chosen[option] / 16
            small[option] = 16
    if factor == 1:
        return
    if "segments" in small:
        small["segments"] = None
    try:
        nodes = factor * len(builder(**small).trace().graph)
    except UsageError:
        return  # this depth doesn't go with the other options, which the model itself says better
    asked = " ".join(f"{option}={chosen[option]}" for option in _REPEATING if option in chosen)
    if nodes > MOST_NODES:
        raise UsageError(
            f"{name} with {asked} has about {nodes:.2g} nodes, and more than {MOST_NODES:.0e} "
            "are too many to trace; give it less depth"
        )
    memory.require(int(nodes) * NODE_NBYTES, f"tracing {name} with {asked}")


def _checked(option: str, value: Any, default: Any) -> Any:
    """The value, an int for a whole number; UsageError if it is of another kind than the default.

    An option that is None unless given, as ``segments``, is a whole number too.
    """
    if option == "dtype":
        if value not in DTYPES:
            raise UsageError(f"unknown dtype {value!r}; choose from {', '.join(DTYPES)}")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise UsageError(f"{option} must be true or false, not {value!r}")
    elif isinstance(default, float):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise UsageError(f"{option} must be a number from 0 to below 1, not {value!r}")
    else:
        number = as_int(value)
        if number is None or number < 1:
            raise UsageError(f"{option} must be a whole number above 0, not {value!r}")
        return number
    return value
