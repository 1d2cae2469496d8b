"""TARGET: a model's name, or ``file.py:name``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ckpt.cli.run import TARGET_MARK, note
from ckpt.errors import UsageError
from ckpt.program import Program

_SHAPE = "a function without arguments that returns (loss function, *its arguments)"


@dataclass(frozen=True)
class Target:
    """A loss and its arguments, as shapes, and as arrays when they are asked for."""

    name: str
    loss: Callable[..., Any]
    specs: tuple[Any, ...]
    arrays: Callable[[], tuple[Any, ...]]
    real: bool
    """It can be run: what the file returned are arrays, and not shapes alone."""
    torch: bool = False
    """It is a function of PyTorch's tensors."""
    jax: bool = False
    """It is a function of JAX's arrays."""

    def own_terms(self, program: Any, measured: bool) -> Any:
        """What its front end says of the plain step beside the table, as text and ``to_dict``;
        None: nothing."""
        if self.jax:
            from ckpt.jax import JaxProfile
            from ckpt.jax.search import compiled_temp

            temp = None
            if measured:
                temp = compiled_temp(program.simple, program.arguments.abstract)[1]
            return JaxProfile(program, temp)
        if not self.torch:
            return None
        from ckpt.torch.report import profile_of

        return profile_of(program, self.arrays() if measured else (), measured)

    def program(self, argnums: int | tuple[int, ...] = 0, *, frozen: bool = False) -> Program:
        """The loss as a Program, from shapes; see `given.program_of`."""
        if self.torch:
            from ckpt.torch import trace

            return trace(self.loss, *self.specs, name=self.name)
        if self.jax:
            from ckpt.jax import JaxProgram

            note(
                "note: bytes are the graph's, before XLA fuses; ckpt plan --compile bounds what "
                "the compiled step allocates"
            )
            return JaxProgram(self.loss, self.specs, argnums=argnums, twice=frozen, name=self.name)
        from ckpt.studies.given import program_of

        return program_of(self.loss, self.specs, argnums, name=self.name, frozen=frozen)

    def compiled(self, budget: str | None) -> Any:
        """A plan of a function of JAX whose compiled step is within ``budget``."""
        from ckpt.jax import plan

        return plan(self.loss, *self.specs, budget=budget or "100%", name=self.name)

    def finite(self) -> AbstractContextManager[None]:
        """Within it, a step of the loss itself stops at the first NaN or infinity."""
        from ckpt.tape.core.context import check_finite

        return check_finite()


def load(text: str, options: dict[str, Any], seed: int = 0, *, fake: bool = False) -> Target:
    """What the TARGET ``text`` names, a model with ``options`` or what a file makes.

    ``fake``: the file's modules and tensors of PyTorch are made from shapes alone.

    Raises UsageError for an unknown model or option, and for a file that is missing, doesn't parse,
    lacks the name, or whose function returns something else.
    """
    path, colon, name = text.rpartition(":")
    if not colon and not text.endswith(".py"):
        if fake:
            raise UsageError("--fake is for PyTorch; models are traced from shapes anyway")
        return _model(text, options, seed)
    if not colon or not name.isidentifier():
        raise UsageError(f"{text!r}: write file.py:name, where name is {_SHAPE}")
    if options:
        raise UsageError(f"--{next(iter(options))} is an option of a model; {text} sets its own")
    return _file(path, name, fake)


def _model(name: str, options: dict[str, Any], seed: int) -> Target:
    from ckpt.models import build

    workload = build(name, **options)
    return Target(name, workload.loss, workload.specs(), lambda: workload.arrays(seed), real=True)


def _file(path: str, name: str, fake: bool) -> Target:
    if fake:
        from ckpt.torch import shapes_alone

        with shapes_alone():
            return _file(path, name, False)
    make = getattr(_module(path), name, None)
    if make is None:
        raise UsageError(f"{path} defines no {name!r}; it must be {_SHAPE}")
    if not callable(make) or _takes_arguments(make):
        raise UsageError(f"{path}: {name!r} must be {_SHAPE}")
    made = make()
    if not isinstance(made, tuple) or len(made) < 2 or not callable(made[0]):
        what = f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"
        raise UsageError(f"{path}: {name}() returned {what}; it must be {_SHAPE}")
    loss, *args = made
    try:
        inspect.signature(loss).bind(*args)
    except TypeError as error:
        raise UsageError(
            f"{path}: {name}() returned a loss and {len(args)} arguments, which don't fit: {error}"
        ) from None
    except ValueError:
        pass  # a callable that can't be looked into
    if _of(("torch",), loss, args):
        from ckpt.torch import can_run

        return Target(name, loss, tuple(args), lambda: tuple(args), can_run(loss, *args), True)
    if _of(("jax", "jaxlib"), None, args):
        from ckpt.jax.capture.arguments import can_run as real_arrays

        return Target(name, loss, tuple(args), lambda: tuple(args), real_arrays(*args), jax=True)
    try:
        real = not _abstract(args)
    except RecursionError:
        raise UsageError(f"{path}: {name}() returned arguments nested too deep") from None
    return Target(name, loss, tuple(args), lambda: tuple(args), real)


def _module(path: str) -> ModuleType:
    """The file at ``path``, run as a module; what it raises shows its own line."""
    from ckpt.reports.files import read_bytes

    try:
        code = compile(read_bytes(path), path, "exec")
    except UsageError:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{path}:{line}" if line else path
        raise UsageError(
            f"{where}: doesn't parse: {getattr(error, 'msg', None) or error or 'nested too deep'}"
        ) from None
    module = ModuleType(f"ckpt_target_{Path(path).stem}")  # it may be called random.py
    module.__file__ = path
    module.__dict__[TARGET_MARK] = path
    sys.modules[module.__name__] = module  # so that dataclasses in it find their own module
    sys.path.insert(0, str(Path(path).absolute().parent))
    exec(code, module.__dict__)  # running the user's file is what was asked for
    return module


def _takes_arguments(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(
        p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters
    )


def _of(packages: tuple[str, ...], loss: Any, args: Any) -> bool:
    """Is the loss an object of one of these packages, or an argument?"""
    from ckpt.tape.core import tree

    if packages[0] not in sys.modules:
        return False
    kinds = {kind.__module__.partition(".")[0] for kind in type(loss).__mro__}
    kinds |= {type(leaf).__module__.partition(".")[0] for leaf in tree.leaves(args)}
    return not kinds.isdisjoint(packages)


def _abstract(args: Any) -> bool:
    from ckpt.tape.core import tree
    from ckpt.tape.core.abstract import AbstractArray

    return any(isinstance(leaf, AbstractArray) for leaf in tree.leaves(args))
