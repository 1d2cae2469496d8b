"""PyTorch as a front end: a function of tensors as a Program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from ckpt.errors import TapeError, UsageError
from ckpt.program import Observer, code_nbytes
from ckpt.schedule import Backward, Schedule
from ckpt.torch.capture.capture import capture
from ckpt.torch.capture.eager import checkpoints_around, eager_peak
from ckpt.torch.capture.record import Leaf
from ckpt.torch.capture.witness import cuda_among, differentiate, peak_of
from ckpt.torch.lowering.backward import calls_of
from ckpt.torch.lowering.build import lower
from ckpt.torch.lowering.workspace import Probed
from ckpt.torch.run.lines import StepWriter
from ckpt.torch.run.runner import Runner


@dataclass(frozen=True)
class Outcome:
    """What one step left behind."""

    outputs: list[Any]
    """Flattened."""
    gradients: list[torch.Tensor | None]
    """Of the captured targets."""
    state: list[torch.Tensor]
    """Buffers that the step changes, and the generator's state, copied."""


class TorchProgram:
    """A captured function of tensors: see `ckpt.program.Program`.

    Its result is an `Outcome`. ``accumulate``: the plan is for gradients that exist.
    """

    witness = None

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
        *,
        accumulate: bool = False,
        name: str = "",
        twice: bool = True,
    ) -> None:
        self.function = function
        self.kwargs = kwargs or {}
        self.accumulate = accumulate
        flat, self.spec = tree_flatten((args, self.kwargs))
        self.others = [None if isinstance(v, torch.Tensor) else v for v in flat]
        """The arguments that are no tensors."""
        self.probed = Probed()
        while True:
            self.captured = capture(function, args, self.kwargs, twice=twice, seen=self.probed.seen)
            held = (leaf for leaf in self.captured.leaves.values() if leaf.argument is None)
            tensors = [*flat, *(leaf.tensor for leaf in held)]
            self.real = not any(
                isinstance(t, FakeTensor) or (isinstance(t, torch.Tensor) and t.is_meta)
                for t in tensors
            )
            """It can be run: nothing that it was captured from is a shape alone."""
            forward = self.captured.calls[: self.captured.forward]
            if not self.real or not self.probed.probe(
                self.captured, (*forward, *calls_of(self.captured))
            ):
                break
        self.gpu = cuda_among(self.captured.versions)
        """Where it runs; None: on CPU."""
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.lowered = lower(
            self.captured, workspace=self.probed, accumulate=self.accumulate, name=self.name
        )
        self.graph = self.lowered.graph

    @cached_property
    def eager_peak(self) -> int:
        """Bytes at the peak of the plain step, predicted; gradients that appear are included."""
        return self.checkpointed_peak(())

    def checkpointed_peak(self, blocks: Container[str]) -> int:
        """The same with `torch.utils.checkpoint` around the modules of these paths."""
        if self.real:
            self.probed.probe(self.captured, self.captured.calls)
        parts = (part for root in self.captured.roots.values() for part in root.modules())
        paths = self.captured.scopes
        with checkpoints_around(part for part in parts if paths[id(part)] in blocks):
            return eager_peak(
                self.function, self.captured, self.others, self.spec, self.probed, self.probed.seen
            )

    def tensor_of(self, leaf: Leaf) -> torch.Tensor:
        return leaf.tensor

    # -- running -----------------------------------------------------------------------------------

    def plain(self, *args: Any, **kwargs: Any) -> Outcome:
        """The function and its backward, as they are."""
        return self.run(self._plainly, args, kwargs)[0]

    def _plainly(self, flat: list[Any]) -> list[Any]:
        args, kwargs = tree_unflatten(flat, self.spec)
        return list(tree_flatten(self.function(*args, **kwargs))[0])

    def compile(self, schedule: Schedule) -> CompiledStep:
        return CompiledStep(self, Runner(self.lowered, schedule, self.tensor_of))

    def measure(self, step: Any, *args: Any, **kwargs: Any) -> tuple[Any, int]:
        """The outcome of `plain` or of a compiled step, and the peak of torch's allocator."""
        flat = step.runner if isinstance(step, CompiledStep) else self._plainly
        return self.run(flat, args, kwargs, measured=True)

    def run(
        self, step: Any, args: tuple[Any, ...], kwargs: Any = None, measured: bool = False
    ) -> tuple[Outcome, int]:
        """Forward and backward of ``step``, of flat arguments, with gradients of its own."""
        flat = self.flat(args, kwargs)
        targets = [
            flat[t.argument] if t.argument is not None else t.tensor for t in self.captured.targets
        ]
        before = [target.grad for target in targets]
        try:
            for target in targets:
                target.grad = torch.zeros_like(target) if self.accumulate else None
            run = partial(_backward, step, flat, self.captured.losses)
            outputs, peak = peak_of(run, self.gpu) if measured else (run(), 0)
            return Outcome(outputs, [t.grad for t in targets], self.state()), peak
        finally:
            for target, gradient in zip(targets, before, strict=True):
                target.grad = gradient

    def stand_ins(self) -> Any:
        """Arguments like those that were captured, of zeros: ``(args, kwargs)``."""
        flat = list(self.others)
        for leaf in self.captured.leaves.values():
            if leaf.argument is not None:
                known = leaf.tensor
                flat[leaf.argument] = torch.zeros(
                    known.shape, dtype=known.dtype, device=known.device
                ).requires_grad_(known.requires_grad)
        for k, first in self.captured.twins.items():
            flat[k] = flat[first]
        return tree_unflatten(flat, self.spec)

    def flat(self, args: tuple[Any, ...], kwargs: Any = None) -> list[Any]:
        """The arguments, flattened; those that need a gradient as leaves of their own."""
        flat, spec = tree_flatten((args, kwargs or self.kwargs))
        if spec != self.spec:
            raise TapeError("the arguments are nested otherwise than those that were captured")
        if not self.real:
            raise UsageError("the step was captured from shapes alone: it can't be run")
        for k, leaf in [(leaf.argument, leaf) for leaf in self.captured.leaves.values()]:
            if k is not None:
                known = leaf.tensor
                if (flat[k].shape, flat[k].dtype, flat[k].stride()) != (
                    known.shape, known.dtype, known.stride(),
                ):  # fmt: skip
                    raise TapeError(
                        f"argument {k} is {tuple(flat[k].shape)} {flat[k].dtype}, and "
                        f"{tuple(known.shape)} {known.dtype} was captured"
                    )
        own = {
            id(f): f.detach().requires_grad_()
            for f in flat
            if isinstance(f, torch.Tensor) and f.requires_grad
        }
        return [own.get(id(f), f) for f in flat]

    def execute(self, schedule: Schedule, *args: Any, observe: Observer | None = None) -> Outcome:
        """Perform the schedule instruction by instruction."""
        writer = StepWriter(self.lowered, schedule)
        runner = Runner(self.lowered, schedule, self.tensor_of)
        flat = self.flat(args)
        leaves = runner.fixed.copy()
        for place, argument, read in runner.given:
            leaves[place] = read(flat[argument])
        names: dict[str, Any] = {**writer.env, "H": [], "_": None}
        names |= dict(zip(writer.leaves.values(), leaves, strict=True))
        kinds = self._kinds()
        handed: dict[int, torch.Tensor] = {}
        outputs: list[Any] = []
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), torch._C._DisableAutocast():
            for position, (lines, instruction) in enumerate(
                zip(writer.lines, schedule, strict=True)
            ):
                if observe is not None:
                    observe.before(position)
                if isinstance(instruction, Backward) and not outputs:
                    outputs = list(eval(writer.results(), names))
                    for k, loss in enumerate(self.captured.losses):
                        seen = outputs[loss]
                        names[f"s{k}"] = torch.ones_like(seen).as_strided(
                            seen.size(), seen.stride()
                        )
                text = [*lines.text, *writer.handing_over(lines.delivers)]
                exec("\n".join(text), names)
                for number, gradient in zip(lines.delivers, names["H"], strict=True):
                    handed[number] = gradient
                names["H"].clear()
                if observe is not None:
                    counted = [] if self.accumulate else list(handed.values())
                    observe.after(position, partial(_count, names, kinds, counted))
            outputs = outputs or list(eval(writer.results(), names))
        outputs = [
            known if out is None else out
            for out, known in zip(outputs, self.captured.outputs, strict=True)
        ]
        return Outcome(
            outputs, [handed[n] for n in range(len(self.captured.targets))], self.state()
        )

    def _kinds(self) -> dict[str, int]:
        """Which of `timeline.KINDS` a name is of, by its beginning, or of a captured value."""
        captured = {f"v{k}": 1 for k, node in enumerate(self.graph) if node.captured}
        return {"v": 0, "u": 0, "r": 2, "s": 3, "g": 3, "p": 4, **captured}

    # -- what a run changes ------------------------------------------------------------------------

    @property
    def changed(self) -> list[torch.Tensor]:
        """The user's tensors that a step changes: running statistics."""
        found: dict[int, torch.Tensor] = {}
        for call in self.captured.calls:
            for before, _ in call.writes:
                leaf = self.captured.versions[before].leaf
                if leaf is not None and leaf.argument is None:
                    found[id(leaf.tensor)] = leaf.tensor
        return list(found.values())

    def state(self) -> list[torch.Tensor]:
        states = [torch.get_rng_state()]
        if self.gpu is not None:
            states.append(torch.cuda.get_rng_state(self.gpu))
        return [*(t.detach().clone() for t in self.changed), *states]

    @contextmanager
    def restored(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        """Put back buffers, random generators and arguments that a step changes."""
        given = {
            leaf.argument
            for call in self.captured.calls
            for before, _ in call.writes
            if (leaf := self.captured.versions[before].leaf) is not None
        } - {None}
        flat = tree_flatten((args, kwargs or self.kwargs))[0]
        tensors = [*self.changed, *(flat[k] for k in given if k is not None)]
        before = [t.detach().clone() for t in tensors]
        generators = {
            id(g): g for call in self.captured.calls
            if (g := call.kwargs.get("generator")) is not None
        }  # fmt: skip
        states = [g.get_state() for g in generators.values()]
        cpu = torch.get_rng_state()
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, kept in zip(tensors, before, strict=True):
                    tensor.copy_(kept)
            for generator, state in zip(generators.values(), states, strict=True):
                generator.set_state(state)
            torch.set_rng_state(cpu)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)

    def digest(self, result: Outcome) -> str:
        """A hash of the bits of outputs, gradients, buffers and the generator's state."""
        made = hashlib.sha256()
        for value in (*result.outputs, *result.gradients, *result.state):
            if isinstance(value, torch.Tensor):
                bits = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
                made.update(f"{tuple(bits.shape)}{bits.dtype}".encode())
                made.update(bytes(bits.reshape(-1).view(torch.uint8).numpy()))
        return made.hexdigest()[:16]


class CompiledStep:
    """A schedule as a callable of the user's arguments."""

    nbytes = 0

    def __init__(self, program: TorchProgram, runner: Runner) -> None:
        self.program = program
        self.runner = runner
        self.code_nbytes = code_nbytes(runner.function)

    def __call__(self, *args: Any) -> Outcome:
        return self.program.run(self.runner, args)[0]

    def release(self) -> None:
        """Nothing is held between calls."""


def _backward(step: Any, flat: list[Any], losses: tuple[int, ...]) -> list[Any]:
    outputs = step(flat)
    differentiate([outputs[k] for k in losses])
    return [o.detach() if isinstance(o, torch.Tensor) else o for o in outputs]


def _count(
    names: dict[str, Any], kinds: dict[str, int], handed: list[torch.Tensor]
) -> tuple[list[int], int]:
    """Bytes of the tensors that a run holds now, by kind; each storage once."""
    found: dict[int, tuple[int, int]] = {}
    for name, value in names.items():
        if isinstance(value, torch.Tensor) and name[0] in "vursgp" and name[1:2].isdigit():
            storage = value.untyped_storage()
            found[storage._cdata] = kinds.get(name, kinds[name[0]]), storage.nbytes()
    for gradient in handed:
        storage = gradient.untyped_storage()
        found[storage._cdata] = 4, storage.nbytes()
    counts = [0, 0, 0, 0, 0]
    for kind, nbytes in found.values():
        counts[kind] += nbytes
    return counts, 0
