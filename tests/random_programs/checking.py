"""What must hold for every program: the same bits however it is run, and what was predicted.

`check` raises a ViolationError; a program that is refused for a documented reason, or whose numbers
leave the range of its dtype, is told apart.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import ckpt
from ckpt.errors import BudgetError, TapeError, UsageError
from ckpt.planners import make_schedule
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractParts
from ckpt.tape.execution.arguments import check_arguments
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.lines import write
from ckpt.tape.execution.program import steady
from ckpt.tape.execution.run import _run as run_line
from tests.random_programs.writing import Written

PLANNERS = (
    "store_all", "recompute_all", "as_written", "sqrt", "every:2", "greedy", "revolve", "mixed",
    "chain", "dtr",
)  # fmt: skip
SLOW = {
    "ilp": {"time_limit": 5},
    "lp_round": {},
    "auto": {},
    "brute": {"max_states": 20_000},
}
"""The planners that search, with options that bound the search."""


class ViolationError(AssertionError):
    """Something that must hold doesn't; ``kind`` says what in a word or two."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(f"{kind}: {text}" if text else kind)
        self.kind = kind


class DiscardedError(Exception):
    """The program is no test: its numbers aren't finite, or it is refused for a stated reason."""


@dataclass
class Checked:
    """What was seen of one program."""

    schedules: int = 0
    differences: str = ""
    """Finite differences: ``right``, or why they say nothing."""
    refusals: Counter[str] = field(default_factory=Counter)


def check(written: Written, planners: Iterable[str] = PLANNERS) -> Checked:
    """Run one program in every way there is; raises ViolationError, or DiscardedError."""
    return Check(written, tuple(planners)).run()


def chosen(seed: int, several: int = len(PLANNERS)) -> tuple[str, ...]:
    """Which planners a seed's program is given to: ``several`` of the quick ones, of every 50th
    program the slow ones too."""
    turned = [*PLANNERS, *PLANNERS][seed % len(PLANNERS) :][:several]
    return (*turned, *(SLOW if seed % 50 == 49 else ()))


class Check:
    def __init__(self, written: Written, planners: tuple[str, ...]) -> None:
        self.written = written
        self.planners = planners
        self.seen = Checked()
        self.plain = written.names(checkpointed=False)
        self.names = written.names()
        self.argnums, self.has_aux = self.plain["ARGNUMS"], self.plain["HAS_AUX"]
        self.rng = np.random.default_rng(written.seed)

    def run(self) -> Checked:
        with strict():
            self.numpy()
            self.eager()
            self.leaves()
            self.differences()
            self.planned()
        return self.seen

    # -- eager -------------------------------------------------------------------------------------

    def numpy(self) -> None:
        """What NumPy alone makes of the program; it may not even warn."""
        args = [tree.rebuild(a, number) for a in self.plain["arguments"]()]
        try:
            loss = self.plain["loss"](*args)
        except Exception as error:
            raise DiscardedError(f"on plain arrays: {short(error)}") from None
        self.loss = loss[0] if self.has_aux else loss

    def eager(self) -> None:
        """The plain step's result, and the checkpointed step's, and that of NumPy alone."""
        with np.errstate(all="ignore"):
            try:
                self.expected = self.step(self.plain)
            except (TapeError, np.linalg.LinAlgError) as error:  # a singular matrix, say
                raise DiscardedError(short(error)) from None
            except Exception as error:
                raise ViolationError("eager raises", f"{type(error).__name__}: {error}") from error
        if not finite(self.expected):
            raise DiscardedError("not finite")
        with violation("warning"):
            same(self.step(self.plain), self.expected, "eager again")
        loss = self.loss
        value = self.value(self.expected)
        if not (np.shape(loss) == value.shape and np.asarray(loss).dtype == value.dtype):
            raise ViolationError("plain NumPy", f"{value!r}, where NumPy gives {loss!r}")
        if not close(loss, value, self.written.precision):
            raise ViolationError("plain NumPy", f"{value!r}, where NumPy gives {loss!r}")
        with violation("checkpointed raises"):
            found = self.step(self.names)
        same(found, self.expected, "checkpointed")

    def value(self, result: Any) -> Any:
        return result[0][0] if self.has_aux else result[0]

    def step(self, names: dict[str, Any], args: Any = None) -> tuple[Any, ...]:
        """What a step of the program gives, and the state it leaves generators in."""
        args = names["arguments"]() if args is None else args
        before = [copy.deepcopy(leaf) for leaf in tree.leaves(args)]
        step = ckpt.value_and_grad(names["loss"], self.argnums, has_aux=self.has_aux)
        found = step(*args)
        unchanged(args, before)
        return (found[0], found[1], states(args))

    def leaves(self) -> None:
        """Each loss of several by a backward of its own, on Values that keep their gradients."""
        if not self.has_aux:
            return
        results = []
        for names in (self.plain, self.names):
            args = names["arguments"]()
            numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
            given = [tree.rebuild(a, ckpt.Value) if k in numbers else a for k, a in enumerate(args)]
            with violation("several losses raise"):
                parts = names["loss"](*given)[1]["parts"]
                for part in parts:
                    if isinstance(part, ckpt.Value) and part.requires_grad:
                        part.backward(retain_graph=True)
            leaves = [v for k in numbers for v in tree.leaves(given[k])]
            results.append([np.zeros(v.shape) if v.grad is None else v.grad for v in leaves])
        same(results[1], results[0], "several losses")

    # -- finite differences ------------------------------------------------------------------------

    def differences(self) -> None:
        """Slopes along random directions, of the program in double precision."""
        source = self.written.in_double
        if "stop_gradient" in source:
            self.seen.differences = "no word"
            return
        names = self.written.names(source, checkpointed=False)
        args = names["arguments"]()
        numbers = (self.argnums,) if isinstance(self.argnums, int) else self.argnums
        lines = [
            Line(names, self.has_aux, number, place, leaf, random_like(leaf, self.rng))
            for number in numbers
            for place, leaf in enumerate(tree.leaves(args[number]))
        ]
        found: set[str] = set()
        for line, slope in zip(lines, self.slopes(names, numbers, args, lines), strict=True):
            said = judge(line, slope)
            if said.startswith("wrong") and np.unique(line.leaf).size < np.size(line.leaf):
                moved = line.moved(0.01 * random_like(line.leaf, self.rng))
                at = lines.index(line)
                there = self.slopes(names, numbers, moved.arguments(0.0), lines)[at]
                if not judge(moved, there).startswith("wrong"):
                    said = "no word: kinks where elements are equal"
            if said.startswith("wrong"):
                raise ViolationError(
                    "finite differences", f"argument {line.number}, leaf {line.place}: {said[6:]}"
                )
            found.add(said)
        self.seen.differences = "right" if "right" in found else "no word"

    def slopes(self, names: Any, numbers: Any, args: Any, lines: list[Line]) -> list[float]:
        """The gradient at ``args`` along each of the lines' directions."""
        with np.errstate(all="ignore"):
            try:
                grads = ckpt.value_and_grad(names["loss"], numbers, has_aux=self.has_aux)(*args)[1]
            except (TapeError, np.linalg.LinAlgError) as error:
                raise DiscardedError(f"in double precision: {short(error)}") from None
        gradients = [g for gradient in grads for g in tree.leaves(gradient)]
        return [
            float(np.sum(np.real(g * line.direction)))
            for g, line in zip(gradients, lines, strict=True)
        ]

    # -- traced ------------------------------------------------------------------------------------

    def planned(self) -> None:
        """Every planner's schedule, executed and compiled."""
        names = self.names
        try:
            program = steady(
                names["loss"], *names["arguments"](), argnums=self.argnums, has_aux=self.has_aux
            )
        except TapeError as error:
            raise DiscardedError(short(error)) from None
        except Exception as error:
            raise ViolationError("trace raises", f"{type(error).__name__}: {error}") from error
        graph = program.graph
        with violation("document"):
            again = ckpt.Graph.from_json(graph.to_json())
            if again.digest != graph.digest:
                raise ViolationError("document", "a graph read back has another digest")
        store_all = make_schedule(graph, "store_all")
        self.layouts(program, store_all)
        whole = ckpt.simulate(graph, store_all).peak
        done = set()
        for planner in self.planners:
            options = SLOW.get(planner, {})
            percent = int(self.rng.integers(15, 100))
            for budget in (None, max(1, whole * percent // 100)):
                schedule = self.schedule(graph, planner, budget, options)
                if schedule is None or schedule.instructions in done:
                    continue
                self.schedules(program, schedule, f"{planner} at {budget}", other=not done)
                done.add(schedule.instructions)

    def layouts(self, program: Any, schedule: Any) -> None:
        """Every array of a run has the shape, the dtype and the strides that were foreseen."""
        args = self.names["arguments"]()
        traced, draws = program.traced, Draws(program.traced, schedule)
        code = write(traced, schedule, draws)
        draws.begin(args)
        env = dict(zip(code.arguments, check_arguments(traced, args), strict=True))
        for line in code.lines:
            try:
                run_line(line, env)
            except Exception as error:
                raise ViolationError(
                    "execute raises", f"{type(error).__name__}: {error}"
                ) from error
            if line.result is None or isinstance(line.result.array, AbstractParts):
                continue
            foreseen, real = line.result.array, env[line.result]
            if (real.shape, real.dtype) != (foreseen.shape, foreseen.dtype):
                raise ViolationError(
                    "foreseen shape",
                    f"{real.dtype}{real.shape}, foreseen {foreseen.dtype}{foreseen.shape}; "
                    f"{line.function} {line.params}",
                )
            if real.size > 1 and real.shape and steps(real) != steps(foreseen):
                raise ViolationError(
                    "foreseen strides",
                    f"{real.strides} of {real.dtype}{real.shape}, foreseen {foreseen.strides}; "
                    f"{line.function} {line.params}",
                )

    def schedule(self, graph: Any, planner: str, budget: Any, options: Any) -> Any:
        """The planner's schedule within the budget, or within the smallest it names."""
        with violation(f"planner {planner} raises"):
            try:
                found = make_schedule(graph, planner, budget, **options)
            except BudgetError as error:
                if error.smallest is None:
                    return None
                if error.smallest <= budget:
                    raise ViolationError("promise", f"{planner}: {error}") from None
                budget = error.smallest
                try:
                    found = make_schedule(graph, planner, budget, **options)
                except BudgetError as again:
                    raise ViolationError("promise", f"{planner}: {again}; but {error}") from None
            except UsageError as error:  # too short for this planner, too large for that one
                self.seen.refusals[f"{planner}: {short(error)}"] += 1
                return None
        with violation(f"planner {planner}: simulate raises"):
            peak = ckpt.simulate(graph, found).peak
        if budget is not None and peak > budget:
            raise ViolationError("promise", f"{planner}: peak {peak}, budget {budget}")
        return found

    def schedules(self, program: Any, schedule: Any, said: str, other: bool) -> None:
        """One schedule, executed and compiled; with ``other``, called on other numbers as well."""
        self.seen.schedules += 1
        large = max(node.nbytes for node in program.graph) > 1 << 14
        predicted = ckpt.simulate(program.graph, schedule)
        args = self.names["arguments"]()
        before = [copy.deepcopy(leaf) for leaf in tree.leaves(args)]
        with violation("execute raises"):
            if large:  # so that what NumPy and Python allocate once isn't seen
                ckpt.execute(program, schedule, *self.names["arguments"]())
            run = ckpt.execute(program, schedule, *args, trace_memory=large)
        unchanged(args, before)
        at = predicted.same_live_bytes(run.timeline)
        if at is not None:
            raise ViolationError(
                "live bytes",
                f"{said}, instruction {at} ({schedule.instructions[at]}): simulated "
                f"{predicted[at]}, executed {run.timeline[at]}",
            )
        if list(predicted.counts) != list(run.timeline.counts):
            raise ViolationError("counts", said)
        if predicted.flops_by_phase != run.timeline.flops_by_phase:
            raise ViolationError("FLOPs", said)
        room = predicted.peak / 100 + 64 * 1024 + 768 * len(program.graph)
        if large and run.timeline.peak > predicted.peak + room:
            raise ViolationError(
                "measured peak", f"{said}: {run.timeline.peak}, promised {predicted.peak}"
            )
        same((*run.result, states(args)), self.expected, f"executed, {said}", "executed")
        with violation("compile raises"):
            step = program.compile(schedule)
        if step.nbytes + step.beside_nbytes > predicted.peak * 1.01 + 64 * 1024:
            raise ViolationError("arena", f"{said}: {step.nbytes} and {step.beside_nbytes} beside")
        first = self.call(step, said)
        kept = copy.deepcopy(first)
        if other:
            self.others(step, said)
        same(self.call(step, said), self.expected, f"planned again, {said}", "planned again")
        same(first, kept, f"a result changed by the next call, {said}", "planned: result changed")

    def call(self, step: Any, said: str) -> Any:
        args = self.names["arguments"]()
        before = [copy.deepcopy(leaf) for leaf in tree.leaves(args)]
        with violation("planned raises"):
            found = (*step(*args), states(args))
        unchanged(args, before)
        same(found, self.expected, f"planned, {said}", "planned")
        return found

    def others(self, step: Any, said: str) -> None:
        """The step on other numbers, if the program has a value there."""
        args = tuple(tree.rebuild(a, moved) for a in self.names["arguments"]())
        with np.errstate(all="ignore"):
            try:
                expected = self.step(
                    self.plain, tuple(tree.rebuild(a, moved) for a in self.names["arguments"]())
                )
            except np.linalg.LinAlgError:  # a matrix that is singular there
                return
            found = (*step(*args), states(args))
        if finite(expected):
            same(found, expected, f"planned on other arguments, {said}", "planned on others")


# -- parts -----------------------------------------------------------------------------------------


@contextmanager
def strict() -> Iterator[None]:
    """Warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def violation(kind: str) -> Iterator[None]:
    """What is raised inside is a ViolationError of this kind."""
    try:
        yield
    except ViolationError:
        raise
    except Exception as error:
        raise ViolationError(kind, f"{type(error).__name__}: {error}") from error


def moved(leaf: Any) -> Any:
    """Nearby numbers in the same layout."""
    if isinstance(leaf, float) and type(leaf) is float:
        return leaf * 1.0625
    if not isinstance(leaf, (np.ndarray, np.generic)) or leaf.dtype.kind not in "fc":
        return leaf
    other = leaf * leaf.dtype.type(1.0625)
    if not leaf.ndim:
        return other
    reach = [(n - 1) * s for n, s in zip(leaf.shape, leaf.strides, strict=True) if n]
    low, high = (sum(r for r in reach if (r < 0) == below) for below in (True, False))
    room = np.zeros(high - low + leaf.itemsize, np.uint8)
    made = np.ndarray(leaf.shape, leaf.dtype, room, -low, leaf.strides)
    made[...] = other
    return made


def number(leaf: Any) -> Any:
    """A Python number as NumPy's, which has the methods of an array."""
    return np.float64(leaf) if type(leaf) is float else leaf


def states(args: Any) -> list[Any]:
    """Where the generators among the arguments are now."""
    return [
        leaf.bit_generator.state["state"]["state"]
        for leaf in tree.leaves(args)
        if isinstance(leaf, np.random.Generator)
    ]


def steps(array: Any) -> list[int]:
    """The strides of the axes that are longer than one."""
    return [s for n, s in zip(array.shape, array.strides, strict=True) if n > 1]


def unchanged(args: Any, before: list[Any]) -> None:
    for a, b in zip(tree.leaves(args), before, strict=True):
        if isinstance(a, np.ndarray) and a.tobytes() != b.tobytes():
            raise ViolationError("argument written into", f"{a.shape} {a.dtype}")


def numbers_of(result: Any) -> list[Any]:
    return [leaf.data if isinstance(leaf, ckpt.Value) else leaf for leaf in tree.leaves(result)]


def finite(result: Any) -> bool:
    return all(
        np.isfinite(leaf).all()
        for leaf in numbers_of(result)
        if isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "fc"
    )


def same(found: Any, expected: Any, said: str, kind: str = "") -> None:
    """Equal bit for bit, in dtype and in shape."""
    for k, (a, b) in enumerate(zip(numbers_of(found), numbers_of(expected), strict=True)):
        if not isinstance(b, (np.ndarray, np.generic)):
            if a != b:
                raise ViolationError(
                    f"{kind or said}: other results", f"{said}: {a!r}, {b!r} eagerly"
                )
            continue
        a = np.asarray(a)
        if a.dtype != b.dtype or a.shape != b.shape:
            raise ViolationError(
                f"{kind or said}: other dtype or shape",
                f"{said}, result {k}: {a.dtype}{list(a.shape)}, {b.dtype}{list(b.shape)} eagerly",
            )
        if a.tobytes() != b.tobytes():
            off = np.atleast_1d(a != b)
            raise ViolationError(
                f"{kind or said}: other bits",
                f"{said}, result {k}: {off.sum()} of {a.size} differ: "
                f"{np.atleast_1d(a)[off][:3]}, {np.atleast_1d(b)[off][:3]} eagerly",
            )


def close(a: Any, b: Any, limit: float) -> bool:
    return bool(abs(float(a) - float(b)) <= limit * max(1.0, abs(float(b))))


def short(error: Exception) -> str:
    """The error's first words without what is particular to one program."""
    text = f"{type(error).__name__}: {error}"
    return " ".join(w for w in text.split() if not any(c.isdigit() for c in w))[:110]


class Line:
    """The program's loss in double precision along a line through one of its arguments."""

    def __init__(
        self, names: Any, has_aux: bool, number: int, place: int, leaf: Any, direction: Any
    ) -> None:
        self.names, self.has_aux = names, has_aux
        self.number, self.place, self.leaf, self.direction = number, place, leaf, direction

    def moved(self, by: Any) -> Line:
        """The same direction through another point."""
        return Line(
            self.names, self.has_aux, self.number, self.place, self.leaf + by, self.direction
        )

    def arguments(self, distance: float) -> list[Any]:
        args = [tree.rebuild(a, number) for a in self.names["arguments"]()]
        places = iter(range(10**6))
        args[self.number] = tree.rebuild(
            args[self.number],
            lambda leaf: (
                self.leaf + distance * self.direction if next(places) == self.place else leaf
            ),
        )
        return args

    def __call__(self, distance: float) -> float:
        found = self.names["loss"](*self.arguments(distance))
        return float(found[0] if self.has_aux else found)


def random_like(leaf: Any, rng: np.random.Generator) -> Any:
    direction = rng.standard_normal(np.shape(leaf))
    if np.asarray(leaf).dtype.kind == "c":
        direction = direction + 1j * rng.standard_normal(np.shape(leaf))
    return direction


def judge(at: Callable[[float], float], slope: float) -> str:
    """Is the slope that of the function at 0? In far smaller steps where it seems not to be: it may
    turn round several times within one."""
    said = judge_by(at, slope, 3e-4)
    wrong = said.startswith("wrong")
    return "right" if wrong and judge_by(at, slope, 1e-6) == "right" else said


def judge_by(at: Callable[[float], float], slope: float, step: float) -> str:
    try:
        with np.errstate(all="raise", under="ignore"):
            steps = (step, step / 2, step / 4)
            here = at(0.0)
            sides = [(at(h), at(-h)) for h in steps]
    except (FloatingPointError, np.linalg.LinAlgError, IndexError):  # an argmax that is an index
        return "no word: out of the domain"
    size = max(abs(here), 1.0)
    first = [(above - below) / (2 * h) for h, (above, below) in zip(steps, sides, strict=True)]
    bends = [(a - 2 * here + b) / h for h, (a, b) in zip(steps, sides, strict=True)]
    if abs(bends[2]) > max(1e-5 * size, 0.4 * abs(bends[0])):  # a quarter if it is smooth
        return "no word: a kink"
    better = [(4 * b - a) / 3 for a, b in itertools.pairwise(first)]
    doubt = abs(better[1] - better[0]) + 1e-11 * size / steps[-1]
    off = abs(better[1] - slope)
    scale = max(1.0, abs(slope))
    if doubt > 1e-3 * scale:
        return "no word: not smooth there"
    if off <= 20 * doubt + 1e-6 * scale:
        return "right"
    if off <= abs(2 * bends[2] - bends[1]):  # what is left of the bend where the step vanishes
        return "no word: a kink"
    return f"wrong {slope!r}, by differences {better[1]!r} (give or take {doubt:.1e})"
