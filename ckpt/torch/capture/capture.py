"""Run a function and its gradient once on fake tensors, and keep what aten did."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.utils import checkpoint
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from ckpt.errors import AbstractError, TapeError, UnsupportedError
from ckpt.torch.capture import modules
from ckpt.torch.capture.kernels import Ref, Seen
from ckpt.torch.capture.reach import Reach
from ckpt.torch.capture.record import SKIPPED, Captured, Leaf, Recording, source_line

PLAIN = (int, float, str, bool, bytes, complex, type(None))


def capture(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    *,
    twice: bool = True,
    seen: Seen | None = None,
) -> Captured:
    """The step of ``function(*args, **kwargs)``: nothing of its size is allocated.

    Its losses are the scalars among its outputs that need a gradient, or its one output that does.
    With ``twice`` the forward is run a second time, to find what changes from call to call.
    ``seen``: what kernels are known to make otherwise than torch's own shapes say.

    Raises AbstractError where the function asks for a value, UnsupportedError for an op that can't
    be planned, TapeError where there is no loss or where two runs differ; naming the line.
    """
    flat, spec = tree_flatten((args, kwargs or {}))
    referred = modules.behind(function)
    modules.refuse_compiled(modules.modules_among(referred).values())
    reach = Reach()
    for value in (function, *flat):
        reach.value(value)
    try:
        with _refusing(), _own_autocast_cache(), _no_draws_of_the_host():
            found = _Capture(function, flat, spec, referred, seen)
            captured = found.whole()
            if twice:
                torch.clear_autocast_cache()
                reach.forget_fakes()
                again = _Capture(function, flat, spec, referred, seen)
                again.forward()
                _compare(captured, again.recording.calls, found.constants(), again.constants())
    finally:
        effects, anew = reach.settle()
    if anew:
        raise UnsupportedError(
            f"{next(iter(anew))} is another tensor after each run of the function: a planned step "
            "changes tensors in place alone, so use copy_"
        )
    for module in found.running.seen.values():
        reach.value(module, captured.scopes.get(id(module), ""))
    for leaf in captured.leaves.values():
        leaf.name = leaf.name or reach.loose.get(id(leaf.tensor), "")
    captured.places = reach.places
    for name, was in effects.items():  # hooks of torch's own set a weight anew each time
        said = captured.notes if isinstance(was, torch.Tensor) else captured.effects
        said.append(f"set by the function: {name}" if said is captured.notes else name)
    return captured


class _Capture:
    def __init__(
        self, function: Any, flat: list[Any], spec: Any, referred: dict[str, Any],
        seen: Seen | None,
    ) -> None:  # fmt: skip
        self.function, self.flat, self.spec = function, flat, spec
        self.candidates = modules.modules_among(referred)
        self.running = modules.Running()
        mode = mode_of(function, flat)
        self.recording = Recording(mode, self.running.ids, seen)
        self.arguments: dict[int, torch.Tensor] = {}
        self.twins: dict[int, int] = {}

    def forward(self) -> Any:
        recording, fakes = self.recording, list(self.flat)
        own: dict[int, torch.Tensor] = {}
        for k, value in enumerate(self.flat):
            if isinstance(value, torch.Tensor):
                if type(value) not in (torch.Tensor, torch.nn.Parameter, FakeTensor):
                    raise UnsupportedError(
                        f"argument {k} is a {type(value).__name__}: no plain tensor"
                    )
                if id(value) in own:
                    fakes[k] = own[id(value)]
                    self.twins[k] = next(n for n, v in enumerate(self.flat) if v is value)
                    continue
                if value.layout != torch.strided:
                    raise UnsupportedError(f"argument {k} has layout {value.layout}")
                with _disable_current_modes(), recording.mode:  # each in a storage of its own
                    fake = torch.empty_strided(
                        value.size(), value.stride(), dtype=value.dtype, device=value.device
                    ).requires_grad_(value.requires_grad)
                recording.add_leaf(fake, Leaf(fake, "input", k))  # the batch isn't held
                self.arguments[k] = fakes[k] = own[id(value)] = fake
        with ExitStack() as stack:
            stack.enter_context(self.running.watched())
            stack.enter_context(recording.mode)
            stack.enter_context(recording)
            stack.enter_context(torch.enable_grad())
            hooks = torch.autograd.graph.saved_tensors_hooks(recording.pack, recording.unpack)
            stack.enter_context(hooks)
            stack.enter_context(_no_inner_hooks())
            given, named = tree_unflatten(fakes, self.spec)
            try:
                return self.function(*given, **named)
            except TypeError:
                if recording.refusal is not None:
                    raise recording.refusal from None
                raise

    def whole(self) -> Captured:
        recording = self.recording
        out = self.forward()
        count = len(recording.calls)
        outputs, out_spec = tree_flatten(out)
        notes = []
        for k, value in enumerate(outputs):
            if not isinstance(value, (torch.Tensor, *PLAIN)):
                notes.append(f"output {k}, a {type(value).__name__}, is None in the planned step")
                outputs[k] = None
        losses = _losses(outputs)
        leaves = self._differentiable()
        with ExitStack() as stack:
            for leaf in leaves:
                stack.enter_context(_without_hooks(leaf))
            stack.enter_context(recording.mode)
            seeds = []
            for which, k in enumerate(losses):
                with _disable_current_modes(), recording.mode:
                    loss = outputs[k].detach()
                    seed = torch.empty_strided(
                        loss.size(), loss.stride(), dtype=loss.dtype, device=loss.device
                    )
                recording.add_seed(seed, which)
                seeds.append(seed)
            recording.backward = True
            stack.enter_context(recording)
            stack.enter_context(torch._C._DisableAutocast())
            gradients = torch.autograd.grad(
                [outputs[k] for k in losses], leaves, seeds, allow_unused=True
            )
            _refuse_inner_backward(recording)
            refs = [None if g is None else recording.ref(g) for g in gradients]
            outs = [recording.ref(o) if isinstance(o, torch.Tensor) else o for o in outputs]
        by_version = {
            k: version.leaf for k, version in enumerate(recording.versions) if version.leaf
        }
        by_id = {id(leaf.tensor): leaf for leaf in by_version.values()}
        pairs = [(by_id[id(t)], r) for t, r in zip(leaves, refs, strict=True) if r is not None]
        tensors = {id(leaf.tensor) for leaf in by_version.values()}
        found = modules.roots(self.candidates, self.running.seen.values(), tensors)
        names = modules.tensor_names(found)
        for k, value in enumerate(self.flat):
            if id(value) in by_id and by_id[id(value)].argument is None:
                raise UnsupportedError(
                    f"argument {k} is a tensor that the function also refers to by itself"
                    f" ({names.get(id(value), 'a global')}): one or the other"
                )
        for leaf in by_version.values():
            leaf.name = names.get(id(leaf.tensor), "")
        return Captured(
            recording.calls, recording.versions, count, by_version, outs, out_spec, tuple(losses),
            [leaf for leaf, _ in pairs], [ref for _, ref in pairs], recording.links, found,
            modules.paths(found), notes, twins=self.twins,
        )  # fmt: skip

    def _differentiable(self) -> list[torch.Tensor]:
        """Leaves that need a gradient, arguments as the fakes that stand for them."""
        found: dict[int, torch.Tensor] = {}
        for version in self.recording.versions:
            leaf = version.leaf
            if leaf is not None and leaf.argument is None and leaf.tensor.requires_grad:
                found.setdefault(id(leaf.tensor), leaf.tensor)
        for fake in self.arguments.values():
            if fake.requires_grad:
                found.setdefault(id(fake), fake)
        if not found:
            raise TapeError("nothing that the function uses needs a gradient")
        return list(found.values())

    def constants(self) -> list[torch.Tensor]:
        leaves = (version.leaf for version in self.recording.versions)
        return [leaf.tensor for leaf in leaves if leaf is not None and leaf.kind == "constant"]


def _refuse_inner_backward(recording: Recording) -> None:
    """UnsupportedError where a backward ran within, and left fake gradients on tensors."""
    given = [v.leaf.tensor for v in recording.versions if v.leaf and v.leaf.argument is None]
    found = [t for t in given if isinstance(t.grad, FakeTensor) and not isinstance(t, FakeTensor)]
    for tensor in found:
        tensor.grad = None
    if found:
        raise UnsupportedError(
            "the function, or the derivative of one of its own functions, runs a backward of its "
            "own, which adds to .grad: use torch.autograd.grad there"
        )


def _losses(outputs: list[Any]) -> list[int]:
    """Which outputs are losses."""
    needs = [k for k, o in enumerate(outputs) if isinstance(o, torch.Tensor) and o.requires_grad]
    scalars = [k for k in needs if outputs[k].numel() == 1]
    if not needs:
        raise TapeError("nothing that the function returns needs a gradient: it has no loss")
    chosen = scalars or needs
    if not scalars and len(needs) > 1:
        raise TapeError(
            "the function returns several tensors that need gradients and no scalar loss"
        )
    if any(outputs[k].is_complex() for k in chosen):
        raise UnsupportedError("a complex loss can't be planned")
    return chosen


def mode_of(function: Callable[..., Any], flat: list[Any]) -> FakeTensorMode:
    """That of the fake tensors that the user planned with, or a new one."""
    candidates = modules.modules_among(modules.behind(function))
    given = [t for t in flat if isinstance(t, FakeTensor)]
    for module in candidates.values():
        given += [t for t in (*module.parameters(), *module.buffers()) if isinstance(t, FakeTensor)]
    return given[0].fake_mode if given else FakeTensorMode(allow_non_fake_inputs=True)


@contextmanager
def _no_draws_of_the_host() -> Iterator[None]:
    """TapeError where Python's or NumPy's own generator moves."""
    numpy = sys.modules.get("numpy")
    own, theirs = random.getstate(), numpy.random.get_state() if numpy else None
    yield
    moved = ["random"] if random.getstate() != own else []
    random.setstate(own)
    if numpy is not None and theirs is not None:
        now = numpy.random.get_state()
        if now[2:] != theirs[2:] or (now[1] != theirs[1]).any():
            moved.append("numpy.random")
        numpy.random.set_state(theirs)
    if moved:
        raise TapeError(
            f"the function draws from {moved[0]}, and a plan would freeze what it drew: draw "
            "random numbers with torch, or pass them as arguments"
        )


@contextmanager
def _own_autocast_cache() -> Iterator[None]:
    """Casts that autocast keeps for its context are fake here, and real outside."""
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.clear_autocast_cache()


@contextmanager
def _no_inner_hooks() -> Iterator[None]:
    """The user's own `torch.utils.checkpoint`, `save_on_cpu` and their kind do nothing: the plan
    takes their place."""
    autograd: Any = torch._C._autograd
    push, pop = (
        autograd._push_saved_tensors_default_hooks,
        autograd._pop_saved_tensors_default_hooks,
    )
    autograd._push_saved_tensors_default_hooks = lambda *hooks: None
    autograd._pop_saved_tensors_default_hooks = lambda: None
    try:
        with reentrant_checkpoints_as(_called):
            yield
    finally:
        autograd._push_saved_tensors_default_hooks = push
        autograd._pop_saved_tensors_default_hooks = pop


def _called(function: Any, preserve: bool, *args: Any) -> Any:
    """Without an input that needs a gradient a reentrant checkpoint has none."""
    needs = any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)
    with torch.set_grad_enabled(needs):
        return function(*args)


@contextmanager
def reentrant_checkpoints_as(run: Callable[..., Any]) -> Iterator[None]:
    """`torch.utils.checkpoint` with ``use_reentrant=True``, whose backward runs a backward of its
    own, as ``run`` of (function, preserve_rng_state, arguments)."""
    kind: Any = checkpoint.CheckpointFunction
    kind.apply = run
    try:
        yield
    finally:
        del kind.apply


@contextmanager
def _without_hooks(leaf: torch.Tensor) -> Iterator[None]:
    """A leaf's hooks run on its real gradient, in the engine, and not here."""
    hooks = leaf._backward_hooks
    if not hooks:
        yield
        return
    kept = dict(hooks)
    hooks.clear()
    try:
        yield
    finally:
        hooks.update(kept)


@contextmanager
def _refusing() -> Iterator[None]:
    """What torch raises where values are asked for, as our errors, with the user's line."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise AbstractError(
            f"{_line_of(error)}: {error.func} asks for a value, or gives a shape that depends on "
            "values: a plan is made from shapes alone, so keep it out of the loss function"
        ) from None
    except (UnsupportedOperatorException, UnsupportedFakeTensorException) as error:
        raise UnsupportedError(f"{_line_of(error)}: torch knows no shapes for {error}") from None
    except RuntimeError as error:
        if "saved tensor hooks" not in str(error):
            raise
        raise UnsupportedError(
            f"{_line_of(error)}: torch.func.grad, vjp, jacrev and hessian can't be planned: use "
            "torch.autograd.grad with create_graph=True"
        ) from None


def _line_of(error: BaseException) -> str:
    """The user's innermost line in a traceback."""
    found, trace = source_line(), error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if not path.startswith(SKIPPED):
            found = f"{Path(path).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _compare(captured: Captured, again: list[Any], constants: Any, others: Any) -> None:
    """Raise TapeError if a second run did anything else."""
    first = captured.calls[: captured.forward]
    for a, b in zip(first, again, strict=False):
        if a.function is not b.function or not _alike(a.args, b.args):
            raise TapeError(
                f"{a.source}: {a.name} differs from one call of the function to the next, and a "
                "plan would freeze it; draw random numbers with torch, or pass it as an argument"
            )
    same = len(constants) == len(others) and all(
        a.shape == b.shape and a.dtype == b.dtype and (isinstance(a, FakeTensor) or _equal(a, b))
        for a, b in zip(constants, others, strict=False)
    )
    if len(first) != len(again) or not same:
        raise TapeError(
            "two calls of the function differ: it depends on something that changes from call to "
            "call; pass that as an argument"
        )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.uint8) if a.dim() else a, b.view(torch.uint8) if b.dim() else b)


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, Ref) or isinstance(b, Ref):
        return isinstance(a, Ref) and isinstance(b, Ref) and a.geometry == b.geometry
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, torch.Generator):
        return True
    return bool(type(a) is type(b) and (a == b or a != a))
