"""What a plan was made for: what may differ and asks for another plan, and what must not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ckpt.errors import UsageError

Key = tuple[Any, ...]


def key_of(spec: Any, flat: list[Any], modules: Iterable[nn.Module]) -> Key:
    """Shapes, values that are no tensors, training modes and autocast: another plan for each.

    UsageError for a value that can't be told from another one.
    """
    values = tuple([v.shape if isinstance(v, torch.Tensor) else v for v in flat])
    try:
        hash(values)
    except TypeError:
        k = next(k for k, v in enumerate(values) if _unhashed(v))
        raise UsageError(
            f"argument {k}, of type {type(values[k]).__name__}, would be frozen into the plan, and "
            "can't be told from another one, since it has no hash: pass tensors, numbers and text, "
            "in lists, tuples and dicts"
        ) from None
    return spec, values, tuple([m.training for m in modules]), _autocast()


def _unhashed(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return True
    return False


def _autocast() -> Any:
    if not torch._C._is_any_autocast_enabled():
        return None
    return tuple(
        (kind, torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda")
        if torch.is_autocast_enabled(kind)
    )


class Guards:
    """What must be as it was when the plan was made: checked at every call, in microseconds."""

    def __init__(self, flat: list[Any], roots: dict[str, nn.Module]) -> None:
        self.arguments = [self._of(v) if isinstance(v, torch.Tensor) else None for v in flat]
        self.flags = self._flags()
        self.tensors: list[tuple[Any, str, Any, int, bool, str]] = []
        self.children: list[tuple[dict[str, Any], list[Any], str]] = []
        self.numbers: list[tuple[dict[str, Any], str, Any, str]] = []
        """What is scheduled by hand: probabilities of dropouts, momenta of norms."""
        for prefix, root in roots.items():
            for path, module in root.named_modules():
                if module._modules:
                    held = list(module._modules.values())
                    self.children.append((module._modules, held, path or prefix or "the module"))
                for name in ("p", "momentum"):
                    if type(module).__module__.startswith("torch.nn.") and name in vars(module):
                        full = ".".join(filter(None, [prefix, path, name]))
                        self.numbers.append((vars(module), name, vars(module)[name], full))
                stores: Any = (module._parameters, module._buffers)
                for own in stores:
                    for name, tensor in own.items():
                        if isinstance(tensor, torch.Tensor):
                            full = ".".join(filter(None, [prefix, path, name]))
                            self.tensors.append(
                                (own, name, tensor, tensor.data_ptr(), tensor.requires_grad, full)
                            )

    @staticmethod
    def _of(tensor: torch.Tensor) -> Any:
        return tensor.dtype, tensor.stride(), tensor.device, tensor.requires_grad

    @staticmethod
    def _flags() -> Any:
        return (
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cuda.matmul.allow_tf32,
        )

    def check(self, flat: list[Any]) -> None:
        """UsageError, naming what changed since the plan was made."""
        for k, (value, known) in enumerate(zip(flat, self.arguments, strict=True)):
            if known is not None and self._of(value) != known:
                for what, now, then in zip(
                    ("dtype", "strides", "device", "requires_grad"), self._of(value), known,
                    strict=True,
                ):  # fmt: skip
                    if now != then:
                        raise UsageError(
                            f"{what} of argument {k} is {now}, and the plan was made for {then}: "
                            "plan again"
                        )
        fault = ""
        for own, name, tensor, pointer, needs, full in self.tensors:
            if own.get(name) is not tensor:
                fault = f"{full} is another tensor than the plan was made for"
            elif tensor.data_ptr() != pointer:
                fault = f"the data of {full} moved since the plan was made"
            elif tensor.requires_grad is not needs:
                fault = f"requires_grad of {full} changed since the plan was made"
        for own, held, full in self.children:
            if list(own.values()) != held:
                fault = f"{full} has other submodules than when the plan was made"
        for own, name, number, full in self.numbers:
            if own.get(name) != number:
                fault = f"{full} is {own.get(name)}, and was {number} when the plan was made"
        if fault:
            raise UsageError(f"{fault}: plan again")
        if self._flags() != self.flags:
            for what, now, then in zip(
                ("the default dtype", "use_deterministic_algorithms", "cudnn.deterministic",
                 "cuda.matmul.allow_tf32"), self._flags(), self.flags, strict=True,
            ):  # fmt: skip
                if now != then:
                    raise UsageError(f"{what} is {now}, and was {then} in the plan: plan again")
