"""The tape as a front end: a NumPy function as a Program."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from ckpt.errors import MutationError
from ckpt.program import Observer
from ckpt.schedule import Schedule
from ckpt.tape.core import tree
from ckpt.tape.core.changes import DEFAULT, Check
from ckpt.tape.core.context import inside, watching
from ckpt.tape.core.generators import Generators
from ckpt.tape.core.value import Value
from ckpt.tape.eager.eager_peak import eager_peak
from ckpt.tape.eager.grad import value_and_grad
from ckpt.tape.execution.arguments import check_arguments, gather
from ckpt.tape.execution.compiled import StraightLine
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.guard import Guard
from ckpt.tape.execution.layouts import as_given
from ckpt.tape.execution.lines import write
from ckpt.tape.execution.run import perform
from ckpt.tape.traced.frozen import Checksums, check_alike, check_draws
from ckpt.tape.traced.trace import Traced, record
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
        self.witness = Tracemalloc(filled)
        self._steady = False

    def check_steady(self) -> None:
        """Trace once more; TapeError where that makes a difference, or draws random numbers."""
        if self._steady:
            return
        checksums = Checksums(self.traced.entries)
        before = self._unchanged()
        again = self._again(find_draws=bool(self.traced.moved))
        if again.moved and not self.traced.moved:
            again = self._again(find_draws=True)
        check_draws(again.moved or self.traced.moved)
        if before:
            self.traced.verify(
                "from one call of the function to the next, and a plan would freeze it; pass the "
                "array as an argument"
            )
        checksums.check()
        check_alike(self.traced, again)
        self._steady = True

    def _unchanged(self) -> bool:
        """Are captured arrays as they were traced? The user may have changed them since."""
        try:
            self.traced.verify("")
        except MutationError:
            return False
        return True

    def _again(self, *, find_draws: bool) -> Traced:
        given = self.traced.arguments
        name = self.graph.name
        with inside(**self.watching):
            return record(
                self.function, given, self.argnums, self.has_aux, name, find_draws=find_draws
            )

    def plain(self, *args: Any) -> Any:
        """The loss and its gradients, eagerly."""
        step = value_and_grad(self.function, self.argnums, has_aux=self.has_aux, check=self.check)
        return step(*_without_values(args))

    def execute(self, schedule: Schedule, *args: Any, observe: Observer | None = None) -> Any:
        """Perform ``schedule`` on ``args``: arrays of the shapes and dtypes that were traced.

        Raises TapeError where an argument isn't, or for a program as `compile` refuses it.
        """
        self.check_steady()
        arrays = check_arguments(self.traced, args)
        traced = as_given(self.traced, schedule, arrays)
        draws = Draws(traced, schedule)
        guard = Guard(traced, self.watching.get("whole", DEFAULT))
        code = write(traced, schedule, draws, guard)
        draws.begin(args)
        guard.begin(arrays)
        found = perform(code, arrays, observe)
        guard.end()
        assert code.loss is not None
        gradients = [None if var is None else found[var] for var in code.gradients]
        return gather(traced, found[code.loss], gradients, [found[var] for var in code.aux])

    def compile(self, schedule: Schedule) -> StraightLine:
        """The schedule as straight-line code over one arena, as it was traced.

        Raises TapeError where a second trace of the function differs from the first - in an op, an
        operand, an index, a shift, a bound, a branch, a captured array, a constant in aux -, or
        where a random generator that the function reaches, or a global one, moves meanwhile:
        eagerly, each call draws anew. (`ckpt.nn.dropout` is drawn anew by a step, too.) No trace
        can see: a number, an attribute or a global that is changed between calls by other code
        (pass it as an argument); what is alike in two calls on end and not in a later one, such as
        a schedule by a counter's thousands, the date, or a file; draws from elsewhere that happen
        to show nothing; and what the forward of a primitive (an op with ``infer``) reads beside its
        operands. What the function does beside computing - prints, appends - happens when it is
        traced, twice, and not when the step is called.
        """
        self.check_steady()
        return StraightLine(self.traced, schedule, self.watching.get("whole", DEFAULT))

    def measure(self, step: Any, *args: Any) -> tuple[Any, int]:
        """The result of a step on ``args``, and the peak that tracemalloc sees.

        Of the plain step, gradients are left out as they come to rest, and what the caller's own
        variables hold is in it; of a compiled one, all gradients and copies of what aux holds are
        left out, and the buffers that it keeps between calls are in it, allocated anew.
        """
        if step == self.plain:
            plain = _without_values(args)
            return eager_peak(self.function, plain, self.argnums, self.has_aux)
        step.release()
        result, peak = self.witness.of(step, *args)
        reached = {row.whose for row in self.graph.rows if row.kind == "gradient"}
        zeros = [i for i in self.traced.parameters if i not in reached]
        returned = sum(self.graph[i].nbytes for i in (*self.traced.aux_nodes, *zeros))
        return result, peak - self.graph.gradient_nbytes - returned

    def restored(self, *args: Any) -> AbstractContextManager[None]:
        """Put random generators back into their states; see `undisturbed`."""
        return undisturbed(self.function, args)

    def digest(self, result: Any) -> str:
        """A hash of the bits of a result's numbers."""
        made = hashlib.sha256()
        for said in _bits(result):
            made.update(said)
        return made.hexdigest()[:16]


def filled(nbytes: int) -> Any:
    """An array of so many bytes, all of them written: what a witness must count."""
    return np.full(nbytes, 1, np.uint8)


@contextmanager
def undisturbed(*roots: Any) -> Iterator[None]:
    """Put the random generators that these objects reach, NumPy's global one and Python's back into
    their states."""
    generators = Generators(*roots)
    try:
        yield
    finally:
        generators.restore()


def _bits(result: Any) -> Iterator[bytes]:
    """All that a result says: the bits of its numbers, the keys of dicts, what else aux holds."""
    if isinstance(result, dict):
        for key, item in result.items():
            yield repr(key).encode()
            yield from _bits(item)
    elif isinstance(result, (list, tuple)):
        yield f"{len(result)} of".encode()
        for item in result:
            yield from _bits(item)
    elif hasattr(result, "__dict__") and not isinstance(result, (Value, np.ndarray, type)):
        yield type(result).__qualname__.encode()
        yield from _bits(vars(result))
    else:
        array = np.asarray(result.data if isinstance(result, Value) else result)
        yield f"{array.shape}{array.dtype}".encode()
        if not array.dtype.hasobject:
            yield np.ascontiguousarray(array).tobytes()
        elif array.ndim:
            yield from _bits(array.tolist())


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
    """`trace`, once it is sure that the program is the same from call to call.

    Raises TapeError where it isn't: see `TapeProgram.compile`.
    """
    program = TapeProgram(function, args, argnums, has_aux, name, check)
    program.check_steady()
    return program
