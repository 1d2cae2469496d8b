"""The peak of the plain step, from shapes: who dies when, as torch itself decides it.

The function and its gradient run once more on fake tensors, with the autograd graph, the user's
variables, his checkpoints and hooks as they are in a plain step; every storage says when it dies.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from ckpt.torch.capture.capture import mode_of, reentrant_checkpoints_as
from ckpt.torch.capture.kernels import Seen, as_seen, is_dense
from ckpt.torch.capture.reach import Reach
from ckpt.torch.capture.record import AtenCall, Captured, Recording, aten


class Living(TorchDispatchMode):
    """Counts the bytes of storages that are alive; those of ``known``'s leaves never."""

    def __init__(self, known: Recording, workspace: Callable[[AtenCall], int]) -> None:
        super().__init__()
        self.known, self.workspace = known, workspace
        self.saved: dict[int, int] = {}
        """Bytes of the numbers that an autograd node saves, by its sequence number."""
        self.running = -1
        """The node that ran last in the backward."""
        self.between = False
        """Has it run, and no other begun? What is called then adds up what nodes have found."""
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

    def _number(self, func: Any, args: tuple[Any, ...]) -> int:
        """Bytes of the tensor that a number becomes where an op takes a tensor. The nodes of
        products and quotients save it until they have run."""
        node = torch._C._current_autograd_node()
        running = -1 if node is None else node._sequence_nr()
        if running != self.running:
            self.live -= self.saved.pop(self.running, 0)
            self.running = running
        if len(args) < 2 or not isinstance(args[1], (int, float)):
            return 0
        if str(func._schema.arguments[1].type) != "Tensor":
            return 0
        name = str(func._overloadpacket).removeprefix("aten.").removesuffix("_")
        if name in ("mul", "div") and node is None and args[0].requires_grad:
            self.saved[torch._C._autograd._get_sequence_nr() - 1] = NUMBER_NBYTES
            self.live += NUMBER_NBYTES
            return 0
        return NUMBER_NBYTES

    def follow(self, losses: list[torch.Tensor]) -> None:
        """Be told when nodes of their graph begin and end."""

        def begin(*_: Any) -> None:
            self.between = False

        def end(*_: Any) -> None:
            self.between = True

        seen: set[Any] = {None}
        waiting: list[Any] = [loss.grad_fn for loss in losses]
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                node.register_prehook(begin)
                node.register_hook(end)
                waiting += [parent for parent, _ in node.next_functions]

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
        number = self._number(func, args)
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
        if not (func is aten.add.Tensor and self.between and _is_alone(args[0])):
            read = tree_map(_as_ref, (args, kwargs))
            outs = tuple(_as_ref(r) if isinstance(r, torch.Tensor) else None for r in results)
            call = AtenCall(func, read[0], read[1], (), (), (), outs)
            self.high = max(self.high, self.live + self.workspace(call) + number)
        return result


def _is_alone(tensor: torch.Tensor) -> bool:
    """Does the engine add to it in place? It is dense, and nobody else has its memory: one
    reference is the tensor's, one that of the storage asked for here."""
    count = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    return count <= 2 and is_dense(tensor.shape, tensor.stride())


NUMBER_NBYTES = 8


def _as_ref(value: Any) -> Any:
    return Recording._ref(value, 0) if isinstance(value, torch.Tensor) else value


@contextmanager
def checkpoints_around(modules: Iterable[nn.Module]) -> Iterator[None]:
    """`torch.utils.checkpoint` around each of them."""
    kept = {id(module): (module, vars(module).get("forward")) for module in modules}
    for module, _ in kept.values():
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    try:
        yield
    finally:
        for module, own in kept.values():
            del module.forward
            if own is not None:
                module.forward = own


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
    apply: Any = CheckpointFunction.apply
    nested: list[Any] = []
    """Reentrant checkpoints, which must not be asked for some gradients alone."""

    def noted(function: Any, *rest: Any) -> Any:
        nested.append(function)
        return apply(function, *rest)

    before = [leaf.grad for leaf in leaves]
    hooks = [getattr(leaf, name) for leaf in leaves
             for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]  # fmt: skip
    kept = [dict(h) if h else {} for h in hooks]
    torch.clear_autocast_cache()
    living = Living(known, workspace)
    try:
        for h in hooks:
            if h:
                h.clear()
        for leaf in leaves:
            leaf.grad = None
        with (
            mode, living, living.states_counted(), torch.enable_grad(),
            reentrant_checkpoints_as(noted),
        ):  # fmt: skip
            args, kwargs = tree_unflatten(given, spec)
            outputs = tree_flatten(function(*args, **kwargs))[0]
            losses = [outputs[k] for k in captured.losses]
            living.follow(losses)
            seeds = [torch.ones_like(loss) for loss in losses]
            held: Any = None
            if nested:
                torch.autograd.backward(losses, seeds)
            else:
                held = torch.autograd.grad(losses, leaves, seeds, allow_unused=True)
            living.high = max(living.high, living.live)
            del held
    finally:
        reach.settle()
        torch.clear_autocast_cache()
        for h, own in zip(hooks, kept, strict=True):
            if h is not None:
                h.update(own)
        for leaf, gradient in zip(leaves, before, strict=True):
            leaf.grad = gradient
    return living.high
