"""The peak of the plain step, from shapes: who dies when, as torch itself decides it.

The function and its gradient run once more on fake tensors, with the autograd graph, the user's
variables, his checkpoints and hooks as they are in a plain step; every storage says when it dies.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ckpt.torch.capture.capture import mode_of
from ckpt.torch.capture.kernels import Seen, as_seen
from ckpt.torch.capture.reach import Reach
from ckpt.torch.capture.record import AtenCall, Captured, Recording, aten


class Living(TorchDispatchMode):
    """Counts the bytes of storages that are alive; those of ``known``'s leaves never."""

    def __init__(self, known: Recording, workspace: Callable[[AtenCall], int]) -> None:
        super().__init__()
        self.known, self.workspace = known, workspace
        self.live = self.high = 0
        self._seen: dict[int, Any] = {}

    def made(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen or key in self.known._number:
            return
        nbytes = storage.nbytes()

        def died(_: Any) -> None:
            del self._seen[key]
            self.live -= nbytes

        self._seen[key] = weakref.ref(storage, died)
        self.live += nbytes

    @contextmanager
    def states_counted(self) -> Iterator[None]:
        """The states of CPU's generator that `torch.utils.checkpoint` remembers."""
        own = torch.get_rng_state

        def counted() -> torch.Tensor:
            with _disable_current_modes():
                state = own()
            self.made(state)
            return state

        torch.get_rng_state = counted
        try:
            yield
        finally:
            torch.get_rng_state = own

    def _there_before(self, tensor: torch.Tensor) -> torch.Tensor:
        """An operand; what nobody made here is no part of the peak."""
        if not isinstance(tensor, FakeTensor):
            return self.known.fake(tensor)
        if tensor.untyped_storage()._cdata not in self._seen:
            self.known._storage(tensor)
        return tensor

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.high = max(self.high, self.live)
        flat, spec = tree_flatten((args, kwargs or {}))
        if func is aten.lift_fresh.default and not isinstance(flat[0], FakeTensor):
            with _disable_current_modes(), self.known.mode:
                result = func(flat[0])
            self.made(result)
            return result
        flat = [self._there_before(a) if isinstance(a, torch.Tensor) else a for a in flat]
        args, kwargs = tree_unflatten(flat, spec)
        result = func(*args, **kwargs)
        if func in self.known.seen:
            read = tree_map(_as_ref, (args, kwargs))
            result = as_seen(self.known.seen[func], read, result, self.known.mode)
        results = result if isinstance(result, (tuple, list)) else (result,)
        tensors = [r for r in results if isinstance(r, torch.Tensor)]
        for tensor in tensors:
            self.made(tensor)
        # A sum that the engine makes lies in one of its operands, which dies right behind.
        sums = func is aten.add.Tensor and torch._C._current_autograd_node() is None
        if not (sums and not torch.is_grad_enabled()):
            read = tree_map(_as_ref, (args, kwargs))
            outs = tuple(_as_ref(r) if isinstance(r, torch.Tensor) else None for r in results)
            call = AtenCall(func, read[0], read[1], (), (), (), outs)
            self.high = max(self.high, self.live + self.workspace(call))
        return result


def _as_ref(value: Any) -> Any:
    return Recording._ref(value, 0) if isinstance(value, torch.Tensor) else value


def eager_peak(
    function: Callable[..., Any], captured: Captured, others: list[Any], spec: Any,
    workspace: Callable[[AtenCall], int], seen: Seen,
) -> int:  # fmt: skip
    """Bytes of the plain step of ``function``, gradients that appear included.

    ``others``: the flattened arguments, with anything in the place of tensors.
    """
    reach = Reach()
    reach.value(function)
    mode = mode_of(function, [leaf.tensor for leaf in captured.leaves.values()])
    known = Recording(mode, lambda: (), seen)
    given = list(others)
    for leaf in captured.leaves.values():
        if leaf.argument is not None:
            like = leaf.tensor
            with _disable_current_modes(), mode:
                made = torch.empty_strided(
                    like.size(), like.stride(), dtype=like.dtype, device=like.device
                )
            known._storage(made)
            given[leaf.argument] = made.requires_grad_(like.requires_grad)
    for k, first in captured.twins.items():
        given[k] = given[first]
    leaves = [
        given[t.argument] if t.argument is not None else t.tensor for t in captured.targets
    ]  # fmt: skip
    hooks = [leaf._backward_hooks for leaf in leaves]
    kept = [dict(h) if h else {} for h in hooks]
    torch.clear_autocast_cache()
    living = Living(known, workspace)
    try:
        for h in hooks:
            if h:
                h.clear()
        with mode, living, living.states_counted(), torch.enable_grad():
            args, kwargs = tree_unflatten(given, spec)
            outputs = tree_flatten(function(*args, **kwargs))[0]
            losses = [outputs[k] for k in captured.losses]
            seeds = [torch.ones_like(loss) for loss in losses]
            gradients = torch.autograd.grad(losses, leaves, seeds, allow_unused=True)
        living.high = max(living.high, living.live)
        del gradients, outputs, losses, seeds
    finally:
        reach.settle()
        torch.clear_autocast_cache()
        for h, own in zip(hooks, kept, strict=True):
            if h is not None:
                h.update(own)
    return living.high
