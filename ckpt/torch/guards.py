"""What a plan was made for: what may differ and asks for another plan, and what must not."""

from __future__ import annotations

import enum
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as every_module
from torch.utils.hooks import RemovableHandle

from ckpt.errors import UnsupportedError, UsageError
from ckpt.torch.capture import named_values
from ckpt.torch.capture.reach import HOOKS
from ckpt.torch.capture.record import Captured
from ckpt.torch.capture.witness import cuda_among

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
    modes = tuple(map(_training, modules))
    return spec, values, twins, modes, *_mode()


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
    """UnsupportedError within `torch.func`'s transforms and forward-mode differentiation."""
    if _level_of_transforms() is not None:
        raise UnsupportedError("a planned step can't be transformed by torch.func: plan the result")
    if forward_ad._current_level >= 0:
        raise UnsupportedError("a planned step has no forward-mode derivatives")


_level_of_transforms: Callable[[], Any] = torch._C._functorch.maybe_current_level


def hooks_of(roots: dict[str, nn.Module]) -> Iterator[str]:
    """The modules' hooks, by name."""
    for prefix, root in roots.items():
        for path, module in root.named_modules():
            for kind in HOOKS:
                for hook in getattr(module, kind).values():
                    name = getattr(hook, "__qualname__", type(hook).__name__)
                    yield f"{name}, in {'.'.join(filter(None, [prefix, path, kind]))}"


class Guards:
    """What must be as it was when the plan was made: seen at every call, in microseconds."""

    def __init__(
        self, spec: Any, flat: list[Any], parts: Sequence[nn.Module],
        roots: dict[str, nn.Module], captured: Captured | None = None,
    ) -> None:  # fmt: skip
        self.arguments = [self._of(v) if isinstance(v, torch.Tensor) else None for v in flat]
        on_gpu = captured is not None and cuda_among(captured.versions) is not None
        self.flags = {**_FLAGS, **_FLAGS_OF_GPUS} if on_gpu else _FLAGS
        self.flags_then = [read() for read in self.flags.values()]
        self.tensors: list[tuple[Any, str, Any, int, bool, str]] = []
        self.children: list[tuple[dict[str, Any], list[Any], str]] = []
        self.hooks = [(getattr(every_module, f"_global{kind}"), "all modules") for kind in HOOKS]
        self.places = captured.places if captured is not None else []
        self.written: list[int] = []
        """Where storages of the user's begin that a step changes; 0 if it changes an argument."""
        self.ends: list[int] = []
        """Where they end, in their order."""
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
        self.registered = RemovableHandle.next_id
        """Torch counts the hooks that are registered, on whatever."""
        self.hooked = [some for some, _ in self.hooks if some]
        self.hooked_counts = [*map(len, self.hooked)]
        if captured is not None:
            self._leaves(captured)
        self.same = self._as_now(spec, flat, parts)
        """Whether all is still so, seen in one go; if not, `key_of` and `check` find out what."""

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
        ends: dict[int, int] = {}
        for call in captured.calls:
            for before, _ in call.writes:
                written = captured.versions[before].leaf
                if written is not None and written.argument is None:
                    storage = written.tensor.untyped_storage()
                    ends[storage.data_ptr()] = storage.data_ptr() + storage.nbytes()
                elif written is not None:
                    ends[0] = 0
        self.written, self.ends = sorted(ends), [ends[start] for start in sorted(ends)]

    @staticmethod
    def _of(tensor: torch.Tensor) -> Any:
        return tensor.dtype, tensor.stride(), tensor.device, tensor.requires_grad

    def _as_now(
        self, spec: Any, flat: list[Any], parts: Sequence[nn.Module]
    ) -> Callable[[Any, list[Any]], bool]:
        given = [v for v in flat if isinstance(v, torch.Tensor)]
        if len({*map(id, given)}) < len(given):
            return lambda spec, flat: False
        self.others = [v for v in flat if not isinstance(v, torch.Tensor)]
        """Kept, so that nothing else has their identity."""
        arguments, count, mode = [*map(_seen, flat)], len({*map(id, flat)}), _mode()
        tensors, pointers, needs = ([known[k] for known in self.tensors] for k in (2, 3, 4))
        of_modules = [named_values.named(own, (name,), "") for own, name, *_ in self.tensors]
        of_modules += [named_values.named(vars(part), ("training",), "") for part in parts]
        unchanged = named_values.unchanged([*self.places, *of_modules])
        children: list[dict[str, Any]] = [held for held, *_ in self.children]
        held = [known for _, known, _ in self.children]
        flags = [read for read in self.flags.values() if read is not _default_device]
        flags_then = [read() for read in flags]

        def same(spec_now: Any, flat: list[Any]) -> bool:
            return (
                spec_now == spec
                and [*map(_seen, flat)] == arguments
                and len({*map(id, flat)}) == count
                and _mode() == mode
                and unchanged()
                and [*map(_data_ptr, tensors)] == pointers
                and [*map(_requires_grad, tensors)] == needs
                and [*map(list, map(dict.values, children))] == held
                and self._no_other_hooks()
                and [read() for read in flags] == flags_then
                and not _function_modes()
                and not (self.written and self._is_shared(flat))
            )

        return same

    def _no_other_hooks(self) -> bool:
        """Those that were there are, and nobody registered one since that was seen last."""
        registered = RemovableHandle.next_id
        if registered != self.registered:
            if [len(some) for some, _ in self.hooks] != self.hook_counts:
                return False
            self.registered = registered
        return [*map(len, self.hooked)] == self.hooked_counts

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
        fault = named_values.changed(self.places)
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
        for (what, read), then in zip(self.flags.items(), self.flags_then, strict=True):
            if (now := read()) != then:
                raise UsageError(f"{what} is {now}, and was {then} in the plan: plan again")
        if self.written and self._is_shared(flat):
            raise UsageError(
                "the step changes a tensor in place whose memory is that of another argument as "
                "well: pass a clone"
            )

    def _is_shared(self, flat: list[Any]) -> bool:
        """Is the memory of an argument, which is changed, that of another one?"""
        given = {id(v): v for v in flat if isinstance(v, torch.Tensor)}.values()
        for pointer in map(_data_ptr, given):
            before = bisect(self.written, pointer) - 1
            if before >= 0 and pointer < self.ends[before]:
                return True
        if self.written[0]:
            return False
        return len({v.untyped_storage().data_ptr() for v in given}) < len(given)


def _seen(value: Any) -> Any:
    """Of a tensor what a plan is made for; of others, which object it is."""
    if not isinstance(value, torch.Tensor):
        return id(value)
    return value.shape, value.stride(), value.dtype, value.device, value.requires_grad


def _mode() -> Any:
    return _autocast(), torch.get_num_threads()


_training, _requires_grad = attrgetter("training"), attrgetter("requires_grad")
_data_ptr: Callable[[torch.Tensor], int] = torch.Tensor.data_ptr


_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
"""How many there are: without one no default device is set."""


def _default_device() -> torch.device:
    if _function_modes():
        return torch.get_default_device()
    return _CPU


_CPU = torch.device("cpu")
_FLAGS: dict[str, Callable[[], Any]] = {
    "the default dtype": torch.get_default_dtype,
    "the default device": _default_device,
    "use_deterministic_algorithms": torch._C._get_deterministic_algorithms,
    "the precision of float32 products": torch._C._get_float32_matmul_precision,
    "mkldnn.enabled": torch._C._get_mkldnn_enabled,
    "attention's flash backend": torch._C._get_flash_sdp_enabled,
    "attention's plain backend": torch._C._get_math_sdp_enabled,
}
"""What decides which kernels run."""

_FLAGS_OF_GPUS: dict[str, Callable[[], Any]] = {
    "cudnn.deterministic": torch._C._get_cudnn_deterministic,
    "cuda.matmul.allow_tf32": torch._C._get_cublas_allow_tf32,
    "attention's memory-efficient backend": torch._C._get_mem_efficient_sdp_enabled,
    "attention's cudnn backend": torch._C._get_cudnn_sdp_enabled,
}
