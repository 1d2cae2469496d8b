"""Every error `ckpt` raises on purpose, each with the exit code the command line gives it.

::

    CkptError                        1
    ├── UsageError (ValueError)      2   a wrong option, target, unit, shape or file
    │   ├── UnitError                2   "12 parsecs" is no number of bytes
    │   ├── GraphError               2   nodes that don't form a graph, a file that isn't one
    │   └── ScheduleError            2   an instruction the machine can't perform
    ├── TapeError                    2   the program can't be differentiated as written
    │   ├── UnsupportedError (TypeError)   a NumPy function without a rule
    │   ├── AbstractError (TypeError)      a value was asked for while only shapes are known
    │   ├── MutationError                  an array that a backward needs was changed in place
    │   ├── BackwardTwiceError             the values were freed by an earlier backward
    │   └── NonFiniteError                 a NaN or an infinity appeared
    ├── BudgetError                  3   no schedule of this planner fits the budget
    ├── VerificationError            4   gradients differ, or a measured peak exceeds its promise
    ├── MissingExtraError            5   an optional package isn't installed
    ├── WorkersError                 2   a worker died, a cluster doesn't answer
    └── StepMemoryError (MemoryError) 2  a step ran out of memory; parameters are as before

A message is a line: what names from files, options and programs bring along is escaped.
"""

from __future__ import annotations

from typing import Any

from ckpt.text import printable

LONGEST = 2000
"""Characters of a message that are shown."""


class CkptError(Exception):
    """Base of every error raised on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__(), LONGEST)


class UsageError(CkptError, ValueError):
    """The caller's input can't be used; the message says what, which value, and the way out."""

    exit_code = 2


class UnitError(UsageError):
    """A text that is no number of bytes, or lacks its unit."""


class GraphError(UsageError):
    """Nodes that don't form a graph, or a file that doesn't hold one."""


class ScheduleError(UsageError):
    """An instruction that the reference machine can't perform.

    ``position`` is the offending instruction's index in the schedule, or None.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class TapeError(CkptError):
    """The program can't be differentiated as it is written."""

    exit_code = 2


class UnsupportedError(TapeError, TypeError):
    """A NumPy function, or a use of one, that has no rule."""


class AbstractError(TapeError, TypeError):
    """The program asked for a value where only shapes and dtypes are known."""


class MutationError(TapeError):
    """An array that a backward needs was changed in place."""


class BackwardTwiceError(TapeError):
    """The values this backward needs were freed by an earlier one."""


class NonFiniteError(TapeError):
    """A NaN or an infinity appeared; the message names the first node that holds one."""


class BudgetError(CkptError):
    """No schedule of this planner fits the budget.

    ``smallest`` is the least peak in bytes that this planner knows to reach, and ``instruction``
    the text of the instruction that sets it.
    """

    exit_code = 3

    def __init__(self, message: str, smallest: int | None = None, instruction: str | None = None):
        super().__init__(message)
        self.smallest = smallest
        self.instruction = instruction


class VerificationError(CkptError):
    """Gradients differ, or a measured peak exceeds what was promised."""

    exit_code = 4


class MissingExtraError(CkptError):
    """An optional package isn't installed; the message holds the pip line that gets it."""

    exit_code = 5

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which isn't installed; "
            f"get it with: pip install 'ckpt-profiler[{extra}]'"
        )
        self._made_from = package, extra, purpose

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_from  # as all others travel from a worker by themselves


class WorkersError(CkptError):
    """What was to be done elsewhere wasn't: a worker died, a cluster doesn't answer."""

    exit_code = 2


class StepMemoryError(CkptError, MemoryError):
    """A step ran out of memory; parameters and optimiser state are as they were before it."""

    exit_code = 2
