"""What aten does, as data: a dispatch mode that sees every call of a step on fake tensors.

Values are *versions* of storages: a buffer as it is after some call. A view is no value: whoever
reads it reads a version through a geometry (a `Ref`). A call that works in place makes the next
version of the same storage.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

from ckpt.errors import UnsupportedError
from ckpt.torch.capture.kernels import Ref, Seen, as_seen
from ckpt.torch.capture.named_values import Watched

aten = torch.ops.aten


@dataclass(slots=True)
class Leaf:
    """A tensor that is there before the step: an input, a parameter, a buffer, a constant."""

    tensor: torch.Tensor
    """The user's own; of an input, the fake tensor that stood for it."""
    kind: str
    """``input``, ``parameter``, ``buffer`` or ``constant``."""
    argument: int | None = None
    """Its place among the flattened arguments."""
    name: str = ""


@dataclass(slots=True)
class Version:
    """A storage after some call."""

    storage: int
    nbytes: int
    device: torch.device
    made_by: int
    """The call; -1: nobody, it is there from the beginning."""
    leaf: Leaf | None = None
    seed: int | None = None
    """Which loss's cotangent it is."""


@dataclass(slots=True)
class AtenCall:
    """One op as it was called."""

    function: Any
    args: tuple[Any, ...]
    """Nested; a Ref for each tensor."""
    kwargs: dict[str, Any]
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    """Versions in new storages."""
    writes: tuple[tuple[int, int], ...]
    """(before, after), for each storage that is changed in place."""
    outs: tuple[Ref | None, ...]
    link: int = -1
    """The sequence number of the autograd node that it makes, or in the backward of the one that
    is running; -1: of none."""
    source: str = ""
    modules: tuple[int, ...] = ()
    """ids of the modules that are running, outermost first."""

    @property
    def name(self) -> str:
        packet = getattr(self.function, "_overloadpacket", None)
        return str(packet).removeprefix("aten.") if packet is not None else self.function.__name__

    @property
    def random(self) -> bool:
        if torch.Tag.nondeterministic_seeded not in getattr(self.function, "tags", ()):
            return False
        # Attention is tagged for the sake of its dropout.
        return "attention" not in self.name or bool(self.argument("dropout_p"))

    def argument(self, name: str) -> Any:
        """The argument that the schema calls so."""
        for k, argument in enumerate(self.function._schema.arguments):
            if argument.name == name:
                given = self.args[k] if k < len(self.args) else self.kwargs.get(name)
                return argument.default_value if given is None else given
        return None


# -- calls that read a shape and no value ----------------------------------------------------------


def empty(size: Any, stride: Any, dtype: Any, device: Any) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=device)


def filled(size: Any, stride: Any, dtype: Any, device: Any, value: Any) -> torch.Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device=device).fill_(value)


_EMPTY = {"empty_like", "new_empty", "new_empty_strided"}
_FILLED = {"zeros_like": 0, "new_zeros": 0, "ones_like": 1, "new_ones": 1}
_GIVEN = {"full_like": 1, "new_full": 2}
"""Which argument the value is."""

_SECRET_WRITES = {"native_batch_norm": (3, 4), "cudnn_batch_norm": (3, 4),
                  "miopen_batch_norm": (3, 4)}  # fmt: skip
"""Running statistics, which these change in training although their schemas deny it."""

_NO_VALUES = {aten.detach.default, aten.alias.default}

_BY_VALUE = ("prod", "cumprod")
"""Autograd's formulas for these look at values."""

UNSUPPORTED = {
    "mkldnn_rnn_layer": "nn.LSTM on CPU keeps a workspace that torch's own shapes deny",
    "_grouped_mm": "torch has no reliable shapes for it",
    "rrelu_with_noise": "it writes one buffer and makes another",
    "rrelu_with_noise_": "it writes one buffer and makes another",
    **dict.fromkeys(("resize_", "resize_as_", "set_"), "it gives a tensor another memory"),
}


class Recording(TorchDispatchMode):
    """Records every call, on fake tensors: nothing is allocated, nothing of the user's changes."""

    def __init__(
        self, mode: FakeTensorMode, modules: Callable[[], tuple[int, ...]], seen: Seen | None = None
    ) -> None:
        super().__init__()
        self.mode = mode
        self.modules = modules
        self.seen = seen or {}
        self.calls: list[AtenCall] = []
        self.versions: list[Version] = []
        self.backward = False
        self.refusal: UnsupportedError | None = None
        self._storages: list[Any] = []
        """Held, so that no other storage takes their identity."""
        self._devices: list[torch.device] = []
        self._number: dict[int, int] = {}
        self._newest: list[int] = []
        """Of each storage."""
        self._fakes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._pinned: dict[int, int] = {}
        self._handles: dict[Ref, torch.Tensor] = {}
        self._written: dict[int, list[tuple[int, Ref]]] = {}
        """Of each storage, the versions made in place and the geometry that was written."""
        self._counter = torch._C._autograd._get_sequence_nr()
        self.links: dict[int, int] = {}
        """Sequence number of an autograd node -> the version that its first result lies in."""

    # -- identity ----------------------------------------------------------------------------------

    def _storage(self, tensor: torch.Tensor) -> tuple[int, bool]:
        """The number of the tensor's storage, and whether it is new."""
        if tensor.layout != torch.strided:
            raise UnsupportedError(f"{self.where()}: a tensor of layout {tensor.layout}")
        storage = tensor.untyped_storage()
        number = self._number.get(storage._cdata)
        if number is not None:
            return number, False
        number = len(self._storages)
        self._storages.append(storage)
        self._devices.append(tensor.device)
        self._number[storage._cdata] = number
        self._newest.append(-1)
        return number, True

    def _new_version(self, storage: int, made_by: int, like: Version | None = None) -> int:
        nbytes = self._storages[storage].nbytes()
        self.versions.append(
            Version(storage, nbytes, self._devices[storage], made_by, like.leaf if like else None)
        )
        self._newest[storage] = len(self.versions) - 1
        return len(self.versions) - 1

    def add_leaf(self, fake: torch.Tensor, leaf: Leaf) -> None:
        """``fake`` stands for a tensor of the user's."""
        number, new = self._storage(fake)
        if new:
            self.versions[self._new_version(number, -1)].leaf = leaf

    def add_seed(self, fake: torch.Tensor, which: int) -> None:
        number, _ = self._storage(fake)
        self.versions[self._new_version(number, -1)].seed = which

    def fake(self, real: torch.Tensor) -> torch.Tensor:
        """The fake tensor of a real one; those that share a storage share one."""
        found = self._fakes.get(id(real))
        if found is None:
            if type(real) not in (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer):
                raise UnsupportedError(
                    f"{self.where()}: a {type(real).__name__}, and no plain tensor"
                )
            if real.requires_grad and not real.is_leaf:
                raise UnsupportedError(
                    f"{self.where()}: the function uses a tensor that was computed before it and "
                    "needs a gradient: pass it as an argument"
                )
            with _disable_current_modes():  # or what makes it would be recorded
                made = self.mode.from_tensor(real)
            found = self._fakes[id(real)] = real, made
            self.add_leaf(made, _kind_of(real))
        return found[1]

    def ref(self, tensor: torch.Tensor) -> Ref:
        """How ``tensor`` is seen now."""
        if not isinstance(tensor, FakeTensor):
            tensor = self.fake(tensor)
        number, new = self._storage(tensor)
        if new:  # a tensor of the user's that is fake itself: to plan what fits nowhere
            self.versions[self._new_version(number, -1)].leaf = _kind_of(tensor)
        version = self._pinned.get(number, self._newest[number])
        return self._ref(tensor, version)

    @staticmethod
    def _ref(tensor: torch.Tensor, version: int) -> Ref:
        return Ref(
            version, tensor.dtype, tuple(tensor.size()), tuple(tensor.stride()),
            tensor.storage_offset(), tensor.is_conj(), tensor.is_neg(),
        )  # fmt: skip

    # -- what autograd saves -----------------------------------------------------------------------

    def pack(self, tensor: torch.Tensor) -> Any:
        """Remember a tensor that autograd saves as it is now."""
        ref = self.ref(tensor)
        if self.versions[ref.version].leaf is not None:
            return tensor
        return ref

    def unpack(self, saved: Any) -> torch.Tensor:
        """A handle of what `pack` remembered: whoever reads it reads that version."""
        if not isinstance(saved, Ref):
            found: torch.Tensor = saved
            return found
        handle = self._handles.get(saved)
        if handle is None:
            version = self.versions[saved.version]
            with _disable_current_modes(), torch.no_grad(), self.mode:
                count = -(-version.nbytes // saved.dtype.itemsize)
                device = version.device
                handle = torch.empty(count, dtype=saved.dtype, device=device)
                handle = handle.as_strided(saved.size, saved.stride, saved.offset)
                handle = torch._conj(handle) if saved.conj else handle
                handle = torch._neg_view(handle) if saved.neg else handle
            number, _ = self._storage(handle)
            self._pinned[number] = self._as_saved(saved)
            self._newest[number] = saved.version
            self._handles[saved] = handle
        return handle

    def _as_saved(self, saved: Ref) -> int:
        """The newest version in which what was saved is as it was then: chunks of one buffer are
        written one after the other."""
        version = saved.version
        for newer, written in self._written.get(self.versions[version].storage, ()):
            if newer > version:
                if not _apart(saved, written):
                    break
                version = newer
        return version

    # -- recording ---------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        try:
            return self._dispatch(func, args, kwargs or {})
        except UnsupportedError as error:  # a TypeError, which torch's operators swallow
            self.refusal = self.refusal or error
            raise

    def _dispatch(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        now = torch._C._autograd._get_sequence_nr()
        link = now - 1 if now != self._counter else -1  # this very call made an autograd node
        self._counter = now
        flat, spec = tree_flatten((args, kwargs))
        name = str(func._overloadpacket).removeprefix("aten.")
        if name in UNSUPPORTED:
            raise UnsupportedError(f"{self.where()}: {name} can't be planned: {UNSUPPORTED[name]}")
        if name in _BY_VALUE and link >= 0:
            raise UnsupportedError(
                f"{self.where()}: the derivative of {name} takes another way where a value is 0, "
                "so its gradients can't be those of the plain step: use exp of a sum of logs"
            )
        if func is aten.lift_fresh.default and not isinstance(flat[0], FakeTensor):
            return self._constant(flat[0])
        is_tensor = [isinstance(a, torch.Tensor) for a in flat]
        refs = [self.ref(a) if t else a for a, t in zip(flat, is_tensor, strict=True)]
        # The user's own tensors never reach the op, which would change them.
        flat = [
            self.fake(a) if t and not isinstance(a, FakeTensor) else a
            for a, t in zip(flat, is_tensor, strict=True)
        ]
        args, kwargs = tree_unflatten(flat, spec)
        result = func(*args, **kwargs)
        if func in self.seen:
            result = as_seen(self.seen[func], tree_unflatten(refs, spec), result, self.mode)
        if func in _NO_VALUES:
            return result
        self._record(func, name, args, kwargs, refs, spec, result, link)
        return result

    def _record(
        self, func: Any, name: str, args: Any, kwargs: Any, refs: Any, spec: Any, result: Any,
        link: int,
    ) -> None:  # fmt: skip
        results = list(result) if isinstance(result, (tuple, list)) else [result]
        call = len(self.calls)
        makes = []
        for tensor in results:
            if isinstance(tensor, FakeTensor):
                number, new = self._storage(tensor)
                if new:
                    makes.append(self._new_version(number, call))
        outs = tuple(self.ref(r) if isinstance(r, torch.Tensor) else None for r in results)
        changed = list(_changed(func, name, args, kwargs))
        if link >= 0 and outs and outs[0] is not None:
            self.links[link] = outs[0].version
        if not makes and not changed:
            return  # a view: part of whoever reads it
        call_args, call_kwargs = tree_unflatten(refs, spec)
        if name in _EMPTY or name in _FILLED or name in _GIVEN:
            func, call_args = _unread(name, func, call_args, call_kwargs, results[0])
            refs, call_kwargs = [], {}
        writes: list[tuple[int, int]] = []
        for tensor in changed:
            seen = self.ref(tensor)
            before = seen.version
            storage = self.versions[before].storage
            if any(after == before for _, after in writes):
                continue
            if self.backward and (
                self._storage(tensor)[0] in self._pinned or self.versions[before].leaf
            ):
                raise UnsupportedError(f"{self.where()}: {name} changes a saved tensor in place")
            after = self._new_version(storage, call, self.versions[before])
            writes.append((before, after))
            self._written.setdefault(storage, []).append((after, seen))
        node = torch._C._current_autograd_node() if self.backward else None
        if self.backward:
            link = node._sequence_nr() if node is not None else -1
        elif writes and link >= 0 and not makes:
            self.links[link] = writes[0][1]
        self.calls.append(
            AtenCall(
                func, call_args, call_kwargs,
                tuple(dict.fromkeys(r.version for r in refs if isinstance(r, Ref))),
                tuple(makes), tuple(writes), outs, link,
                "" if self.backward else self.where(), () if self.backward else self.modules(),
            )
        )  # fmt: skip

    def _constant(self, real: torch.Tensor) -> torch.Tensor:
        """`torch.tensor(...)` in the user's function: a copy of a constant, made anew each step."""
        with _disable_current_modes():
            held = real.detach().clone()
            made = self.mode.from_tensor(held)
        self._fakes[id(held)] = held, made
        self.add_leaf(made, Leaf(held, "constant"))
        with _disable_current_modes(), self.mode:
            fresh = aten.lift_fresh.default(real)  # knows its value, where it is asked for
        number, _ = self._storage(fresh)
        version = self._new_version(number, len(self.calls))
        read, ref = self.ref(made), self.ref(fresh)
        self.calls.append(
            AtenCall(
                aten.clone.default, (read,), {}, (read.version,), (version,), (), (ref,), -1,
                self.where(), self.modules(),
            )
        )  # fmt: skip
        return fresh

    def where(self) -> str:
        """The user's line that is running: ``model.py:41``."""
        return source_line()


SKIPPED = (
    str(Path(torch.__file__).parent), str(Path(__file__).parent.parent), contextlib.__file__, "<",
)  # fmt: skip
"""Files whose lines aren't the user's begin so."""


def source_line() -> str:
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith(SKIPPED):
            return f"{Path(path).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "the step"


def _kind_of(tensor: torch.Tensor) -> Leaf:
    return Leaf(tensor, "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer")


def _changed(func: Any, name: str, args: Any, kwargs: Any) -> Iterable[torch.Tensor]:
    """The tensors that a call changes in place; how it is seen alone (`t_`) is no change."""
    if func._schema.is_mutable and torch.Tag.inplace_view not in func.tags:
        for k, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[k] if k < len(args) else kwargs.get(argument.name)
                for one in value if isinstance(value, (list, tuple)) else [value]:
                    if isinstance(one, torch.Tensor):
                        yield one
    if name in _SECRET_WRITES and args[5]:
        yield from (args[k] for k in _SECRET_WRITES[name] if isinstance(args[k], torch.Tensor))


def _unread(name: str, func: Any, args: Any, kwargs: Any, out: Any) -> tuple[Any, tuple[Any, ...]]:
    """The same call without the tensor whose shape it reads."""
    shape = tuple(out.size()), tuple(out.stride()), out.dtype, out.device
    if name in _EMPTY:
        return empty, shape
    if name in _FILLED:
        return filled, (*shape, _FILLED[name])
    place = _GIVEN[name]
    return filled, (*shape, args[place] if place < len(args) else kwargs["fill_value"])


def _apart(a: Ref, b: Ref) -> bool:
    """Are these chunks of one buffer that don't meet? Same strides, offsets within a row."""
    if a.stride != b.stride or a.dtype != b.dtype or not a.size:
        return False
    distance = abs(a.offset - b.offset)
    for k, step in enumerate(a.stride):
        if (
            step
            and max(a.size[k], b.size[k]) * step <= distance
            and all(
                distance < other or (other <= step and max(a.size[j], b.size[j]) * other <= step)
                for j, other in enumerate(a.stride)
                if j != k
            )
        ):
            return True
    return False


@dataclass(slots=True)
class Captured:
    """One step, loss and gradients: the forward's calls, then the backward's."""

    calls: list[AtenCall]
    versions: list[Version]
    forward: int
    """How many calls are the forward's."""
    leaves: dict[int, Leaf]
    """By version."""
    outputs: list[Any]
    """Flattened; a Ref for each tensor."""
    out_spec: Any
    losses: tuple[int, ...]
    """Which outputs have a cotangent."""
    targets: list[Leaf]
    """The leaves that need a gradient and get one."""
    gradients: list[Ref]
    """Theirs."""
    links: dict[int, int]
    roots: dict[str, torch.nn.Module] = field(default_factory=dict)
    scopes: dict[int, str] = field(default_factory=dict)
    """id of a module -> its path."""
    notes: list[str] = field(default_factory=list)
    twins: dict[int, int] = field(default_factory=dict)
    """Arguments that are the same tensor as an earlier one."""
    effects: list[str] = field(default_factory=list)
    """Names of what the function sets beside tensors, and a planned step doesn't."""
    places: list[Watched] = field(default_factory=list)
    """What the function reads by name."""
