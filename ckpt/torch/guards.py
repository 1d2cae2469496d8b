"""What a plan was made for: what may differ and asks for another plan, and what must not."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as every_module

from ckpt.errors import UnsupportedError, UsageError
from ckpt.torch.capture.reach import HOOKS
from ckpt.torch.capture.record import Captured

Key = tuple[Any, ...]


def key_of(spec: Any, flat: list[Any], modules: Iterable[nn.Module]) -> Key:
    """Shapes, values that are no tensors, training modes, autocast, and threads, whose number
    decides how much workspace kernels take: another plan for each.

    UsageError for a value that can't be told from another one.
    """
    values = tuple([v.shape if isinstance(v, torch.Tensor) else _told(k, v)
                    for k, v in enumerate(flat)])  # fmt: skip
    ids = [id(v) for v in flat if isinstance(v, torch.Tensor)]
    twins = tuple(map(ids.index, ids)) if len(set(ids)) < len(ids) else None
    modes = tuple([m.training for m in modules])
    return spec, values, twins, modes, _autocast(), torch.get_num_threads()


_BY_IDENTITY = (nn.Module, torch.Generator, type, type(len), type(key_of), enum.Enum)


def _told(k: int, value: Any) -> Any:
    """Equal for the same value only: 1 is neither 1.0 nor True, 0.0 isn't -0.0."""
    if isinstance(value, (float, complex)):
        return type(value), repr(value)
    kind = type(value)
    own: Any = kind.__hash__
    alone = own is object.__hash__ and not isinstance(value, _BY_IDENTITY)
    if own is None or (alone and hasattr(value, "__dict__")):
        raise UsageError(
            f"argument {k}, of type {kind.__name__}, would be frozen into the plan, and can't be "
            "told from another one, since it has no hash of its values: pass tensors, numbers and "
            "text, in lists, tuples and dicts"
        )
    return kind, value


def _autocast() -> Any:
    if not torch._C._is_any_autocast_enabled():
        return None
    return tuple(
        (kind, torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda")
        if torch.is_autocast_enabled(kind)
    )


def refuse_transforms() -> None:
    """UnsupportedError within `torch.func`'s transforms, forward-mode differentiation, tracing."""
    functorch: Any = torch._C._functorch
    if functorch.maybe_current_level() is not None:
        raise UnsupportedError("a planned step can't be transformed by torch.func: plan the result")
    if forward_ad._current_level >= 0:
        raise UnsupportedError("a planned step has no forward-mode derivatives")
    if torch._C._get_tracing_state() is not None:
        raise UnsupportedError("a planned step can't be traced by torch.jit: trace its function")


def hooks_of(roots: dict[str, nn.Module]) -> Iterator[str]:
    """The modules' hooks, by name."""
    for prefix, root in roots.items():
        for path, module in root.named_modules():
            for kind in HOOKS:
                for hook in getattr(module, kind).values():
                    name = getattr(hook, "__qualname__", type(hook).__name__)
                    yield f"{name}, in {'.'.join(filter(None, [prefix, path, kind]))}"


class Guards:
    """What must be as it was when the plan was made: checked at every call, in microseconds."""

    def __init__(
        self, flat: list[Any], roots: dict[str, nn.Module], captured: Captured | None = None
    ) -> None:
        self.arguments = [self._of(v) if isinstance(v, torch.Tensor) else None for v in flat]
        self.flags = [read() for read in _FLAGS.values()]
        self.tensors: list[tuple[Any, str, Any, int, bool, str]] = []
        self.children: list[tuple[dict[str, Any], list[Any], str]] = []
        self.hooks = [(getattr(every_module, f"_global{kind}"), "all modules") for kind in HOOKS]
        self.changed = captured.changed if captured is not None else lambda: ""
        self.written: set[int] = set()
        """Storages of the user's that a step changes; 0 if it changes an argument."""
        for prefix, root in roots.items():
            for path, module in root.named_modules():
                full = ".".join(filter(None, [prefix, path]))
                self.hooks += [(getattr(module, kind), full or "the module") for kind in HOOKS]
                if module._modules:
                    held = list(module._modules.values())
                    self.children.append((module._modules, held, full or "the module"))
                stores: Any = (module._parameters, module._buffers)
                for own in stores:
                    for name, tensor in own.items():
                        if isinstance(tensor, torch.Tensor):
                            self._tensor(own, name, tensor, f"{full}.{name}".lstrip("."))
        self.hook_counts = [len(some) for some, _ in self.hooks]
        if captured is not None:
            self._leaves(captured)

    def _tensor(self, own: Any, name: str, tensor: torch.Tensor, full: str) -> None:
        self.tensors.append((own, name, tensor, tensor.data_ptr(), tensor.requires_grad, full))

    def _leaves(self, captured: Captured) -> None:
        """The tensors that the function uses and no module has."""
        known = {id(tensor) for _, _, tensor, *_ in self.tensors}
        for leaf in captured.leaves.values():
            tensor = leaf.tensor
            if leaf.argument is None and leaf.kind != "constant" and id(tensor) not in known:
                what = f"{leaf.name or 'a tensor'} of shape {tuple(tensor.shape)}"
                self._tensor({"": tensor}, "", tensor, what)
                known.add(id(tensor))
        for call in captured.calls:
            for before, _ in call.writes:
                written = captured.versions[before].leaf
                if written is not None and written.argument is None:
                    self.written.add(written.tensor.untyped_storage().data_ptr())
                elif written is not None:
                    self.written.add(0)

    @staticmethod
    def _of(tensor: torch.Tensor) -> Any:
        return tensor.dtype, tensor.stride(), tensor.device, tensor.requires_grad

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
        fault = self.changed()
        if fault:
            fault += " when the plan was made"
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
        if [len(some) for some, _ in self.hooks] != self.hook_counts:
            full = next(f for (h, f), n in zip(self.hooks, self.hook_counts, strict=True)
                        if len(h) != n)  # fmt: skip
            fault = f"{full} has other hooks than when the plan was made"
        if fault:
            raise UsageError(f"{fault}: plan again")
        for (what, read), then in zip(_FLAGS.items(), self.flags, strict=True):
            if (now := read()) != then:
                raise UsageError(f"{what} is {now}, and was {then} in the plan: plan again")
        if self.written:
            self._refuse_shared(flat)

    def _refuse_shared(self, flat: list[Any]) -> None:
        """UsageError where the memory of an argument, which is changed, is that of another one."""
        given = {id(v): v for v in flat if isinstance(v, torch.Tensor)}
        pointers = [v.untyped_storage().data_ptr() for v in given.values()]
        several = 0 in self.written and len(set(pointers)) < len(pointers)
        if several or self.written & set(pointers):
            raise UsageError(
                "the step changes a tensor in place whose memory is that of another argument as "
                "well: pass a clone"
            )


def _default_device() -> torch.device:
    if torch._C._len_torch_function_stack():
        return torch.get_default_device()
    return _CPU


_CPU = torch.device("cpu")
_FLAGS = {
    "the default dtype": torch.get_default_dtype,
    "the default device": lambda: _default_device(),
    "use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled,
    "cudnn.deterministic": lambda: torch.backends.cudnn.deterministic,
    "cuda.matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
    "mkldnn.enabled": torch._C._get_mkldnn_enabled,
    "attention's flash backend": torch._C._get_flash_sdp_enabled,
    "attention's plain backend": torch._C._get_math_sdp_enabled,
    "attention's memory-efficient backend": torch._C._get_mem_efficient_sdp_enabled,
    "attention's cudnn backend": torch._C._get_cudnn_sdp_enabled,
}
"""What decides which kernels run."""
