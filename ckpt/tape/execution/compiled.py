"""A schedule as a callable: one function of the program's lines, over one arena.

Because the schedule is known, so is every array's lifetime. Each array that a call can write into
gets a place in the arena, the views of it are made beforehand, and what remains is a function of
nothing but NumPy calls. The loss, the gradients, and results of functions that can't write into a
given array are allocated by their calls.
"""

from __future__ import annotations

import threading
from typing import Any

from ckpt.machine import simulate
from ckpt.schedule import Schedule
from ckpt.tape.core.changes import ALL, DEFAULT
from ckpt.tape.execution.arena import beside, block, lifetimes, place
from ckpt.tape.execution.arguments import check_arguments, reader
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.guard import Guard, runs_code_of_the_users
from ckpt.tape.execution.layouts import as_given, layouts
from ckpt.tape.execution.lines import Code, write
from ckpt.tape.execution.source import assemble
from ckpt.tape.execution.tiling import tiled
from ckpt.tape.traced.trace import Traced
from ckpt.units import KIB

LAYOUTS = 8
"""Memory orders of the arguments that a step remembers."""


class StraightLine:
    """``step(*args)``: one forward and backward by a schedule, its buffers used again by the next.

    What it returns is never a part of them; they are allocated by the first call. Threads that call
    it at once take turns.
    """

    def __init__(self, traced: Traced, schedule: Schedule, whole: int = DEFAULT) -> None:
        self.traced, self.schedule, self.whole = traced, schedule, whole
        self.otherwise: dict[Any, StraightLine] = {}
        """The same for arguments in other memory orders, by those."""
        self._draws = Draws(traced, schedule)
        guarded = whole == ALL or runs_code_of_the_users(traced)
        guard = self._guard = Guard(traced, whole) if guarded and whole >= 0 else None
        code, self.nbytes = self._arranged(guard)
        """Bytes of the arena, held between calls."""
        self.beside_nbytes = beside(code)
        """The most that a call allocates beside it, results aside."""
        self._made = assemble(traced, code)
        self.code_nbytes = self._made.nbytes
        """Of the code itself, which is there before the first call."""
        self._memory: Any = None
        self._read = reader(traced)
        self._turn = threading.RLock()

    def _arranged(self, guard: Guard | None) -> tuple[Code, int]:
        """The lines and the size of their arena: the quickest that keep the promise."""
        traced, schedule = self.traced, self.schedule
        promised = simulate(traced.graph, schedule).peak
        for joins in (True, False):
            code = write(traced, schedule, self._draws, guard)
            if joins:
                code = tiled(code, promised)
            nbytes = place(code)
            if nbytes + beside(code) <= promised + promised // 100 + KIB * 64:
                return code, nbytes
        # Lifetimes that leave gaps which nothing fits.
        code = write(traced, schedule, self._draws, guard)
        lifetimes(code)
        return code, 0

    def __call__(self, *args: Any) -> Any:
        arrays = self._read(args)
        with self._turn:  # those for other memory orders lie in the same memory
            if self._memory is None:
                self._bind(block(self.nbytes))
            if arrays is not None:
                return self._perform(arrays, args)
            arrays = tuple(check_arguments(self.traced, args))
            return self._laid_out_like(arrays)._perform(arrays, args)

    def release(self) -> None:
        """Let go of the buffers; the next call allocates them anew."""
        with self._turn:
            self._memory = None
            self._made.release()
            self.otherwise.clear()

    def _bind(self, memory: Any) -> None:
        self._made.bind(memory)
        self._memory = memory

    def _laid_out_like(self, arrays: tuple[Any, ...]) -> StraightLine:
        """The step for arguments that lie as these do, in the same memory."""
        key = layouts(arrays)
        found = self.otherwise.get(key)
        if found is None:
            traced = as_given(self.traced, self.schedule, arrays)
            if traced is self.traced:
                return self
            found = StraightLine(traced, self.schedule, self.whole)
            fits = self._memory.nbytes >= found.nbytes
            found._bind(self._memory if fits else block(found.nbytes))
            if len(self.otherwise) >= LAYOUTS:
                del self.otherwise[next(iter(self.otherwise))]
            self.otherwise[key] = found
        return found

    def _perform(self, arrays: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        self._draws.begin(args)
        if self._guard is None:
            return self._made.run(*arrays)
        self._guard.begin(arrays)
        result = self._made.run(*arrays)
        self._guard.end()
        return result
