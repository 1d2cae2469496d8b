"""The planned step: a module that is called, and whose loss is differentiated, as the plain one."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ckpt.errors import BudgetError, UnsupportedError, UsageError
from ckpt.graph import Graph
from ckpt.planners.bounds.certificate import Certificate
from ckpt.schedule import Schedule
from ckpt.studies.plan import Plan, Step
from ckpt.studies.plan import plan as plan_program
from ckpt.timeline import Timeline
from ckpt.torch.guards import Guards, Key, hooks_of, key_of, refuse_transforms
from ckpt.torch.run.program import CompiledStep, TorchProgram
from ckpt.torch.run.runner import Runner
from ckpt.torch.verification import TorchVerification, hold_to_promises
from ckpt.units import format_bytes

MOST_PLANS = 8


@dataclass(frozen=True)
class Settings:
    """How a step is planned, for whatever shapes it is given."""

    budget: int | str | None = None
    planner: str = "auto"
    whole: bool = False
    cost: str = "roofline"
    accumulate: bool = False
    name: str = ""
    options: dict[str, Any] | None = None


@dataclass(slots=True)
class Ready:
    """A plan for some shapes and modes, bound to the user's tensors."""

    plan: Step
    program: TorchProgram
    runner: Runner
    guards: Guards
    single: bool
    """Its output is a tensor, in nothing."""
    verified: bool = False
    """Its promises were kept by a real run."""


class StepModule(nn.Module):
    """``loss = step(*args)``, then ``loss.backward()``: the plain step's bits within the budget.

    Its parameters, buffers and state_dict are those of the modules behind the function. Called with
    other shapes, in another training mode or autocast state it plans anew (at most 8 plans are
    kept). Under ``torch.no_grad`` it is the plain function: nothing is saved there.

    ``graph``, ``schedule``, ``timeline`` and ``certificate`` are those of the plan used last.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settings: Settings,
        given: Plan | None = None,
    ) -> None:
        super().__init__()
        self.function: Callable[..., Any]
        self.__dict__["function"] = function  # a module that is called, and no child
        self.settings = settings
        self.plans: OrderedDict[Key, Ready] = OrderedDict()
        self._full = False
        program = self._captured(args, kwargs)
        self._adopt(program)
        if effects := program.captured.effects:
            warnings.warn(
                f"the function sets {', '.join(effects)}, and a planned step runs none of its "
                "Python: there it stays as it is", stacklevel=3,
            )  # fmt: skip
        self.__dict__["last"] = self._make(program, args, kwargs, given)

    def _captured(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TorchProgram:
        settings = self.settings
        return TorchProgram(
            self.function, args, kwargs, accumulate=settings.accumulate, name=settings.name
        )

    def _adopt(self, program: TorchProgram) -> None:
        """Take the modules behind the function for one's own, under their own names."""
        roots = program.captured.roots
        self.__dict__["roots"] = roots
        if list(roots) == [""]:
            root = roots[""]
            for own in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
                self.__dict__[own] = getattr(root, own)
            self.__dict__["training"] = root.training
        else:
            for name, root in roots.items():
                self.add_module(name.replace(".", "_"), root)
        owned = {id(p) for p in self.parameters()}
        self.__dict__["_parameters"] = dict(self._parameters)  # the user's module gets no more
        for k, leaf in enumerate(program.captured.targets):
            if isinstance(leaf.tensor, nn.Parameter) and id(leaf.tensor) not in owned:
                self.register_parameter(f"parameter{k}", leaf.tensor)
        parts = {id(m): m for root in roots.values() for m in root.modules()}
        self.__dict__["parts"] = list(parts.values())

    def _make(
        self, program: TorchProgram, args: tuple[Any, ...], kwargs: dict[str, Any],
        given: Plan | None = None,
    ) -> Ready:  # fmt: skip
        settings = self.settings
        if given is not None:
            made = given.bind(program)
        else:
            try:
                made = plan_program(
                    program, *args, budget=settings.budget, planner=settings.planner,
                    whole=settings.whole, cost=settings.cost, **(settings.options or {}),
                )  # fmt: skip
            except BudgetError as error:
                why = gradients_floor(program.graph, error.smallest or 0)
                if not why:
                    raise
                told = f"{error}; {why}"
                raise BudgetError(told, error.smallest, error.instruction) from None
        flat, spec = _flattened(args, kwargs)
        compiled = made.compiled
        assert isinstance(compiled, CompiledStep)
        known = (self.roots, program.captured) if program.real else ({}, None)
        guards = Guards(spec, flat, self.parts, *known)
        single = program.captured.out_spec.is_leaf()
        ready = Ready(made, program, compiled.runner, guards, single)
        if len(self.plans) >= MOST_PLANS:
            self.plans.popitem(last=False)
            if not self._full:
                self._full = True
                warnings.warn(
                    f"{MOST_PLANS} plans are kept, and this is one more: the oldest is dropped, "
                    "and made again when it is needed; pad inputs to fewer shapes", stacklevel=4,
                )  # fmt: skip
        self.plans[key_of(spec, flat, self.parts)] = ready
        return ready

    def ready(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Ready, list[Any]]:
        """The plan for these arguments, made if there is none yet; and the arguments, flattened.

        UsageError, naming what must not have changed since the plan was made.
        """
        flat, spec = _flattened(args, kwargs)
        found: Ready | None = self.last
        if found is not None and found.guards.same(spec, flat):
            return found, flat
        found = self.plans.get(key_of(spec, flat, self.parts))
        if found is None:
            found = self._make(self._captured(args, kwargs), args, kwargs)
        self.__dict__["last"] = found
        found.guards.check(flat)
        return found, flat

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The function's outputs; of those, losses can be differentiated."""
        if not torch.is_grad_enabled():
            return self.function(*args, **kwargs)
        refuse_transforms()
        ready, flat = self.ready(args, kwargs)
        if not ready.program.real:
            raise UsageError("the step was planned from shapes alone: it can't be run")
        outputs, captured = ready.runner(flat), ready.program.captured
        return outputs[0] if ready.single else tree_unflatten(outputs, captured.out_spec)

    def _slow_forward(self, *args: Any, **kwargs: Any) -> Any:
        """What a module does where `torch.jit` traces it."""
        raise UnsupportedError("a planned step can't be traced by torch.jit: trace its function")

    def train(self, mode: bool = True) -> StepModule:
        for root in self.roots.values():
            root.train(mode)
        self.training = mode
        return self

    # -- the plan ----------------------------------------------------------------------------------

    @property
    def plan(self) -> Step:
        found: Step = self.last.plan
        return found

    @property
    def graph(self) -> Graph:
        return self.plan.graph

    @property
    def schedule(self) -> Schedule:
        return self.plan.schedule

    @property
    def timeline(self) -> Timeline:
        return self.plan.timeline

    @property
    def certificate(self) -> Certificate:
        return self.plan.certificate

    @property
    def captured(self) -> list[str]:
        """What is frozen into the plan, or left out of it, in words."""
        captured = self.last.program.captured
        constants = [
            f"a constant: {tuple(leaf.tensor.shape)} {leaf.tensor.dtype}"
            for leaf in captured.leaves.values()
            if leaf.kind == "constant"
        ]
        effects = [
            f"computed once: {self.graph.describe(k)}"
            for k, node in enumerate(self.graph)
            if node.captured
        ]
        hooks = [f"ran once, with the plan: {name}" for name in hooks_of(self.roots)]
        return [*constants, *effects, *hooks, *captured.notes]

    def save(self, path: Any) -> None:
        """Write the plan as JSON, for `ckpt.torch.load` and the command line."""
        self.plan.save(path)

    def plot(self, path: Any) -> Any:
        return self.plan.plot(path)

    def __str__(self) -> str:
        timeline, program = self.timeline, self.last.program
        lines = [
            str(self.plan),
            f"parameters, buffers and inputs: {format_bytes(timeline.resident)} beside the peak",
        ]
        floor = gradients_floor(self.graph, timeline.peak)
        if floor:
            lines.append(floor)
        if program.gpu is not None and not self.last.verified:
            lines.append("predicted, unverified here: run step.verify(...) on this device")
        elif not program.real:
            lines.append("planned from shapes: workspace of kernels isn't known, and not counted")
        if len(self.plans) > 1:
            lines.append(f"{len(self.plans)} plans are kept, of at most {MOST_PLANS}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return repr(self.plan)

    def __deepcopy__(self, memo: dict[int, Any]) -> StepModule:
        """A copy on copies of the modules, planned alike."""
        import copy

        function = copy.deepcopy(self.function, memo)
        if function is self.function:
            raise UsageError(
                "a copy of this step would still train the modules of the first one, since its "
                "function refers to them by name: plan a module or a bound method"
            )
        ready: Ready = self.last
        args, kwargs = ready.program.stand_ins()
        plan = Plan(ready.plan.graph, ready.plan.schedule, ready.plan.certificate)
        made = StepModule(function, args, kwargs, self.settings, plan)
        memo[id(self)] = made
        return made

    # -- the proof ---------------------------------------------------------------------------------

    def verify(self, *args: Any, **kwargs: Any) -> TorchVerification:
        """Run the plain and the planned step on these arguments, and hold the plan to its promises.

        Gradients, buffers and random generators are put back. Where there is no memory for the
        plain step, bits are compared on half a batch, or less, and the result says so.

        Raises VerificationError where loss, a gradient or a buffer differs in a single bit, or the
        measured peak exceeds the predicted one by more than 16 bytes.
        """

        def plans(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            ready, _ = self.ready(args, kwargs)
            return ready.program, ready.runner, ready.plan

        found = hold_to_promises(plans, args, kwargs)
        self.ready(args, kwargs)[0].verified = True
        return found


def _flattened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """The arguments in a row, and how they were nested; at once where they weren't."""
    if not kwargs and {*map(type, args)} == {torch.Tensor}:
        return list(args), len(args)
    return tree_flatten((args, kwargs))


def gradients_floor(graph: Graph, peak: int) -> str:
    """In words, where no plan can help: gradients that the step makes hold most of ``peak``."""
    gradients = max(graph.rested, default=0)
    if gradients > 0.8 * peak > 0:
        return (
            f"gradients set the peak: {format_bytes(gradients)} of {format_bytes(peak)}, which no "
            "plan can lower (accumulate=True plans for gradients that exist)"
        )
    return ""
