"""A planned step behind ordinary autograd nodes.

The backward is cut where gradients are handed over: one node each, chained by tokens, so that the
engine adds every gradient to its parameter as it comes, and hooks and DDP see it in time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import attrgetter
from typing import Any

import torch

from ckpt.errors import BackwardTwiceError, MutationError, UnsupportedError, UsageError
from ckpt.schedule import Schedule
from ckpt.torch.capture.kernels import Ref
from ckpt.torch.capture.record import Captured, Leaf
from ckpt.torch.lowering.build import Lowered
from ckpt.torch.run.lines import StepWriter

_below_autograd: Any = torch._C._AutoDispatchBelowAutograd
_in_autocast: Callable[[], bool] = torch._C._is_any_autocast_enabled
_keeps_graph: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph
_version = attrgetter("_version")


@contextmanager
def _below_autocast() -> Iterator[None]:
    with torch._C._DisableAutocast(), _below_autograd():
        yield


def _below_all() -> AbstractContextManager[Any]:
    """Where calls lead straight to their kernels."""
    found: AbstractContextManager[Any] = _below_autocast() if _in_autocast() else _below_autograd()
    return found


class Runner:
    """A schedule bound to the user's tensors: flat arguments in, flat outputs out."""

    def __init__(
        self, lowered: Lowered, schedule: Schedule, tensor_of: Callable[[Leaf], torch.Tensor]
    ) -> None:
        captured = lowered.captured
        writer = StepWriter(lowered, schedule)
        self.function = writer.function()
        self.captured = captured
        parts = [code.delivers for code in lowered.steps if code.delivers]
        self.last_part = len(parts) - 1
        targets = [t.argument if t.argument is not None else tensor_of(t) for t in captured.targets]
        self.targets: list[Any] = [[targets[n] for n in part] for part in parts]
        """Of each part of the backward whose gradients it finds: an argument's number, or the
        tensor."""
        self.differentiates_arguments = any(type(t) is int for t in targets)
        self.fixed: list[Any] = []
        """The leaves as calls read them; None for those that are arguments."""
        self.given: list[tuple[int, int, Any]] = []
        """(place among the leaves, argument, how it is read from it)."""
        self.watched: list[Any] = []
        """Tensors read once the forward is done: an argument's number, or the tensor."""
        self.read_in: list[list[int]] = [[] for _ in parts]
        """Of each part of the backward, which of them it reads."""
        for place, (ref, name) in enumerate(writer.leaves.items()):
            leaf = lowered.versions[ref.version].leaf
            assert leaf is not None
            if leaf.argument is not None:
                self.given.append((place, leaf.argument, _reading(leaf.tensor, ref)))
                self.fixed.append(None)
            else:
                self.fixed.append(_as_read(tensor_of(leaf), ref, ref.offset))
            for part in writer.read_in.get(name, ()):
                self.read_in[part].append(len(self.watched))
            if name in writer.read_in:
                self.watched.append(leaf.argument if leaf.argument is not None else tensor_of(leaf))
        self.outputs_read = [
            k
            for k, out in enumerate(captured.outputs)
            if isinstance(out, Ref) and lowered.versions[out.version].storage in writer.read_again
        ]
        """The outputs that backward needs as they were."""
        self.cast = _cast_by_autocast(captured)
        """A call of the backward that autocast would run in another dtype."""
        self.seeds = [captured.outputs[k] for k in captured.losses]
        self.only_losses = sorted(captured.losses) == [*range(len(captured.outputs))]

    def __call__(self, flat: list[Any]) -> list[Any]:
        leaves = self.fixed.copy()
        for place, argument, read in self.given:
            leaves[place] = read(flat[argument])
        targets, watched = self.targets, self.watched
        if self.given:
            watched = _with_arguments(watched, flat)
        if self.differentiates_arguments:
            targets = [_with_arguments(part, flat) for part in targets]
        run = _InFlight(self, leaves, watched)
        token: Any = None
        for part in range(self.last_part, -1, -1):
            token = _apply(run, part, token, *targets[part])
        return list(token)


def _with_arguments(some: list[Any], flat: list[Any]) -> list[Any]:
    """Tensors, and arguments where numbers are."""
    return [flat[one] if type(one) is int else one for one in some]


def _reading(known: torch.Tensor, ref: Ref) -> Callable[[torch.Tensor], torch.Tensor]:
    """How a call reads an argument that is like ``known``."""
    plain = not (ref.conj or ref.neg or known.is_conj() or known.is_neg())
    if plain and ref.geometry == (known.size(), known.stride(), 0, known.dtype):
        return torch.Tensor.detach if known.requires_grad else _itself
    return lambda tensor: _as_read(tensor, ref, tensor.storage_offset() + ref.offset)


def _itself(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _as_read(tensor: torch.Tensor, ref: Any, offset: int) -> torch.Tensor:
    tensor = tensor.detach()
    if tensor.dtype != ref.dtype:
        tensor = torch.empty(0, dtype=ref.dtype, device=tensor.device).set_(
            tensor.untyped_storage(), offset, ref.size, ref.stride
        )
    elif (tensor.size(), tensor.stride(), tensor.storage_offset()) != (
        ref.size,
        ref.stride,
        offset,
    ):
        tensor = torch.as_strided(tensor, ref.size, ref.stride, offset)
    tensor = torch._conj(tensor) if ref.conj else tensor
    return torch._neg_view(tensor) if ref.neg else tensor


class _InFlight:
    """One forward, and the backward that it waits for."""

    def __init__(self, runner: Runner, leaves: list[Any], watched: list[Any]) -> None:
        self.runner = runner
        self.handed: list[Any] = []
        self.code: Iterator[Any] | None = runner.function(leaves, self.handed)
        self.kept: dict[int, list[Any]] = {}
        self.kept_seeds: list[Any] = []
        self.next_part = 0
        self.watched = watched
        self.versions: list[int] = []
        self.outputs: list[tuple[int, Any, int]] = []
        """Those that backward reads, and their versions."""

    def forward(self) -> list[Any]:
        assert self.code is not None
        with _below_all():
            outputs = next(self.code)
        self.versions = [*map(_version, self.watched)]
        if self.runner.outputs_read:
            read = self.runner.outputs_read
            self.outputs = [(k, outputs[k], outputs[k]._version) for k in read]
        # Aliases: an output that knew its own node would be held by the frame that the node holds.
        return [
            out.detach() if out is not None else given
            for out, given in zip(outputs, self.runner.captured.outputs, strict=True)
        ]

    def backward(self, part: int, seeds: list[Any]) -> list[Any]:
        runner = self.runner
        if torch.is_grad_enabled():
            raise UnsupportedError(
                "a planned step has no second-order gradients: create_graph=False"
            )
        if runner.cast and _in_autocast():
            raise UsageError(
                f"backward is called within autocast, which casts what {runner.cast} reads "
                "there: call it outside, as PyTorch advises"
            )
        keeps = _keeps_graph()
        if part < self.next_part or self.code is None:
            return self._again(part, seeds)
        self._unchanged(part)
        if part == 0:
            for loss, seed in zip(runner.captured.losses, seeds, strict=True):
                if seed is None:
                    raise UsageError(
                        f"output {loss} is a loss without a cotangent, and its gradients would be "
                        "lost: add it to what backward is called on, or return it detached"
                    )
            if keeps:
                warnings.warn(
                    "retain_graph=True: the gradients found now are kept for another backward, "
                    "beyond the budget of the plan", stacklevel=2,
                )  # fmt: skip
                self.kept_seeds = [seed.clone() for seed in seeds]
            seeds = [*map(_laid_out, seeds, runner.seeds)]
        code, self.code = self.code, None  # what fails is not tried again
        with _below_all():
            if part == 0:
                code.send(seeds)  # type: ignore[attr-defined]
            else:
                next(code)
        self.next_part = part + 1
        if part < runner.last_part:
            self.code = code
        else:
            self.watched, self.outputs = [], []
        found = self.handed.copy()
        self.handed.clear()
        if keeps:
            self.kept[part] = [gradient.clone() for gradient in found]
        return found

    def _unchanged(self, part: int) -> None:
        """MutationError where something that the backward, from this part on, reads is another."""
        for k, output, version in self.outputs:
            if output._version != version:
                raise MutationError(
                    f"output {k}, of shape {tuple(output.shape)}, was changed in place between "
                    "forward and backward, which needs it as it was: change a clone"
                )
        now = [*map(_version, self.watched)]
        if now == self.versions:
            return
        runner = self.runner
        for which in runner.read_in[part] if part else range(len(now)):
            if now[which] != self.versions[which]:
                tensor = self.watched[which]
                names = [
                    leaf.name for leaf in runner.captured.leaves.values() if leaf.tensor is tensor
                ]
                what = (names or ["an argument"])[0] or "a tensor"
                raise MutationError(
                    f"{what}, of shape {tuple(tensor.shape)}, was changed in place between forward "
                    "and backward, which needs it as it was"
                )

    def _again(self, part: int, seeds: list[Any]) -> list[Any]:
        if part not in self.kept:
            raise BackwardTwiceError(
                "the values that this backward needs were freed by an earlier one: call the first "
                "with retain_graph=True"
            )
        if part == 0 and not all(map(torch.equal, seeds, self.kept_seeds)):
            raise BackwardTwiceError(
                "a second backward of a planned step gives what the first one found, and this one "
                "has another cotangent: call the step again"
            )
        return [gradient.clone() for gradient in self.kept[part]]


_CAST_DOWN = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "addr", "dot", "matmul"}
_CAST_UP = {"sum", "pow", "exp", "log", "prod", "cumsum", "_softmax", "_log_softmax", "norm"}


def _cast_by_autocast(captured: Captured) -> str:
    """The name of a call of the backward that reads what autocast casts; else nothing."""
    on_gpu = any(version.device.type != "cpu" for version in captured.versions)
    for call in captured.calls[captured.forward :]:
        dtypes = {a.dtype for a in call.args if isinstance(a, Ref)}
        down = call.name in _CAST_DOWN and torch.float32 in dtypes
        up = on_gpu and call.name in _CAST_UP and dtypes & {torch.float16, torch.bfloat16}
        if down or up:
            return call.name
    return ""


def _laid_out(seed: torch.Tensor, ref: Any) -> torch.Tensor:
    if seed.stride() == ref.stride and not seed.storage_offset() and seed.dtype == ref.dtype:
        return seed
    made = torch.empty_strided(ref.size, ref.stride, dtype=ref.dtype, device=seed.device)
    return made.copy_(seed)


class _BackwardPart(torch.autograd.Function):
    """One part of the backward; part 0 gives the outputs, the others a token for the one before."""

    @staticmethod
    def forward(ctx: Any, run: _InFlight, part: int, token: Any, *targets: Any) -> Any:
        ctx.run, ctx.part, ctx.has_next = run, part, token is not None
        ctx.set_materialize_grads(False)
        if part:
            return torch.empty(0, device=targets[0].device)
        outputs, runner = run.forward(), run.runner
        if not runner.only_losses:
            losses = runner.captured.losses
            ctx.mark_non_differentiable(
                *(
                    o
                    for k, o in enumerate(outputs)
                    if isinstance(o, torch.Tensor) and k not in losses
                )
            )
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        run = ctx.run
        seeds = [] if ctx.part else [cotangents[k] for k in run.runner.captured.losses]
        found = run.backward(ctx.part, seeds)
        del seeds, cotangents
        token = torch.empty(0, device=found[0].device) if ctx.has_next else None
        return None, None, token, *found


_apply: Any = super(torch.autograd.Function, _BackwardPart).apply
"""That of C, without what `torch.func` wants to know: a planned step can't be transformed."""
