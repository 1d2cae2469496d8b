"""The tape as a front end: a NumPy function as a Program."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ckpt.errors import TapeError
from ckpt.program import Observer
from ckpt.schedule import Schedule
from ckpt.tape.core import tree
from ckpt.tape.core.changes import DEFAULT, Check
from ckpt.tape.core.context import inside, watching
from ckpt.tape.core.value import Value
from ckpt.tape.eager.grad import value_and_grad
from ckpt.tape.execution.arguments import check_arguments, gather
from ckpt.tape.execution.compiled import StraightLine
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.eager_peak import eager_peak
from ckpt.tape.execution.guard import Guard
from ckpt.tape.execution.lines import write
from ckpt.tape.execution.run import perform
from ckpt.tape.traced.trace import record
from ckpt.witness import Tracemalloc


class TapeProgram:
    """A traced NumPy function: see `ckpt.program.Program`.

    Its step's result is that of `value_and_grad`: ``(loss, grads)``, or ``((loss, aux), grads)``.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: int | tuple[int, ...] = 0,
        has_aux: bool = False,
        name: str = "",
        check: Check = "default",
    ) -> None:
        self.function = function
        self.argnums = argnums
        self.has_aux = has_aux
        self.check = check
        self.watching = watching(check)
        with undisturbed(args), inside(**self.watching):
            self.traced = record(function, args, argnums, has_aux, name)
        self.graph = self.traced.graph
        self.witness = Tracemalloc()

    def plain(self, *args: Any) -> Any:
        """The loss and its gradients, eagerly."""
        step = value_and_grad(self.function, self.argnums, has_aux=self.has_aux, check=self.check)
        return step(*_without_values(args))

    def execute(self, schedule: Schedule, *args: Any, observe: Observer | None = None) -> Any:
        """Perform ``schedule`` on ``args``: arrays of the shapes and dtypes that were traced.

        Raises TapeError where an argument isn't.
        """
        traced = self.traced
        draws = Draws(traced, schedule)
        guard = Guard(traced, self.watching.get("whole", DEFAULT))
        code = write(traced, schedule, draws, guard)
        arrays = check_arguments(traced, args)
        draws.begin(args)
        guard.begin(arrays)
        found = perform(code, arrays, observe)
        guard.end()
        assert code.loss is not None
        gradients = [None if var is None else found[var] for var in code.gradients]
        return gather(traced, found[code.loss], gradients, [found[var] for var in code.aux])

    def compile(self, schedule: Schedule) -> StraightLine:
        """The schedule as straight-line code over one arena."""
        whole = self.watching.get("whole", DEFAULT)
        return StraightLine(self.traced, schedule, whole)

    def measure(self, step: Any, *args: Any) -> tuple[Any, int]:
        """The result of a step on ``args``, and the peak that tracemalloc sees.

        Of the plain step, gradients are left out as they come to rest, and what the caller's own
        variables hold is in it; of a compiled one, all gradients and copies of what aux holds are
        left out, and what it holds between calls is in it.
        """
        if step == self.plain:
            plain = _without_values(args)
            return eager_peak(self.function, plain, self.argnums, self.has_aux)
        result, peak = self.witness.of(step, *args)
        returned = sum(self.graph[i].nbytes for i in self.traced.aux_nodes)
        return result, step.nbytes + peak - self.graph.gradient_nbytes - returned

    def restored(self, *args: Any) -> AbstractContextManager[None]:
        """Put random generators back into their states; see `undisturbed`."""
        return undisturbed(args)

    def digest(self, result: Any) -> str:
        """A hash of the bits of a result's numbers."""
        made = hashlib.sha256()
        for leaf in tree.leaves(result):
            array = np.asarray(leaf.data if isinstance(leaf, Value) else leaf)
            if array.dtype.hasobject:
                continue
            made.update(f"{array.shape}{array.dtype}".encode())
            made.update(np.ascontiguousarray(array).tobytes())
        return made.hexdigest()[:16]


@contextmanager
def undisturbed(args: tuple[Any, ...]) -> Iterator[None]:
    """Put the random generators among the arguments, NumPy's global one and Python's back into
    their states."""
    generators = [leaf for leaf in tree.leaves(args) if isinstance(leaf, np.random.Generator)]
    states = [generator.bit_generator.state for generator in generators]
    numpys, pythons = np.random.get_state(legacy=False), random.getstate()
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.bit_generator.state = state
        np.random.set_state(numpys)
        random.setstate(pythons)


def _without_values(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with plain arrays for Values."""
    return tuple(tree.rebuild(a, lambda v: v.data if isinstance(v, Value) else v) for a in args)


def trace(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    check: Check = "default",
) -> TapeProgram:
    """Run ``function(*args)`` on shapes and dtypes alone and return the Program.

    ``args`` are arrays, `ckpt.spec` stand-ins for arrays, nested lists/tuples/dicts of them, or
    anything else, which is passed as it is. Float arrays in the arguments ``argnums`` are the
    parameters. ``function`` returns a scalar loss (with ``has_aux``, a pair of loss and anything).
    Raises TapeError where the loss isn't a scalar that depends on a parameter, and AbstractError
    where the program needs values, MutationError where an array that it read changed in place
    before it returned; ``check`` says how closely that is looked for, here and in a step of it, as
    in `checkpoint`.
    """
    return TapeProgram(function, args, argnums, has_aux, name, check)


def steady(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    check: Check = "default",
) -> TapeProgram:
    """`trace`, once it is sure that what the program captures doesn't change from call to call.

    Raises TapeError where it makes its arrays anew at every call: a plan would freeze them.
    """
    program = TapeProgram(function, args, argnums, has_aux, name, check)
    captured = [e for e in program.traced.entries if e.captured is not None]
    if captured:
        again = TapeProgram(function, args, argnums, has_aux, name, check)
        others = [e for e in again.traced.entries if e.captured is not None]
        for a, b in zip(captured, others, strict=False):
            if not _equal(a.captured, b.captured):
                assert a.captured is not None
                raise TapeError(
                    f"{a.source}: the program makes a {list(a.captured.shape)} {a.captured.dtype} "
                    "array that differs from call to call, and a plan would freeze it; draw random "
                    "masks with ckpt.nn.dropout, or pass the array as an argument"
                )
        program.traced.verify(
            "from one call of the function to the next, and a plan would freeze it; pass the array "
            "as an argument"
        )
        if len(captured) != len(others) or program.graph.digest != again.graph.digest:
            raise TapeError(
                "two traces of the program differ: it depends on something that changes from call "
                "to call; pass that as an argument"
            )
    return program


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
