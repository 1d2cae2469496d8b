"""`@checkpoint`: forget what a function computed, and rematerialize it for its backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from itertools import count, pairwise
from typing import Any, TypeVar, overload

from ckpt.errors import UsageError
from ckpt.tape.core.abstract import view
from ckpt.tape.core.apply import apply
from ckpt.tape.core.changes import Check
from ckpt.tape.core.context import CURRENT, run_inside, watching
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import op
from ckpt.tape.core.value import Value
from ckpt.tape.eager.region import Policy, Region

F = TypeVar("F", bound=Callable[..., Any])
Keep = str | Iterable[str] | Callable[[str], bool]
"""What to keep inside: op names or names given with `name`, or a predicate on them."""

_numbers = count()


@overload
def checkpoint(function: F, /) -> F: ...
@overload
def checkpoint(*, keep: Keep | None = None, check: Check = "default") -> Callable[[F], F]: ...


def checkpoint(function: Any = None, /, *, keep: Any = None, check: Check = "default") -> Any:
    """Make a function keep nothing but its inputs until backward, which recomputes what it needs.

    ::

        @ckpt.checkpoint
        def block(params, x): ...

        @ckpt.checkpoint(keep="matmul")          # or keep=["attn"], of ckpt.name(x, "attn")
        def block(params, x): ...

    The function runs once: backward replays the ops that the tape recorded, not the Python code. So
    side effects happen once, and any arguments, results and captured Values will do. Gradients are
    those of the plain function, bit for bit. Plain arrays made inside stay in memory.

    Changing an array in place that the block read - one it captured, or a parameter's data - before
    backward has read it again raises MutationError. ``check`` says how closely that is looked for:
    by default in all of an array up to 64 KiB and in a sample of a larger one, which sees any
    change of the whole array; ``"all"``: in every byte; None: not at all. The default is what holds
    around the block, or what the environment variable ``CKPT_CHECK`` says.
    """
    if function is None:
        return functools.partial(checkpoint, keep=keep, check=check)
    if not callable(function):
        raise UsageError(f"checkpoint decorates a function, not a {type(function).__name__}")
    policy = None if keep is None else _policy(keep)
    watched = watching(check)

    @functools.wraps(function, updated=())
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        context = CURRENT.get()
        around = None if context is None else context.region
        region = Region(around, policy, next(_numbers))
        return run_inside(functools.partial(function, *args, **kwargs), region=region, **watched)

    return checkpointed


def checkpoint_sequential(
    functions: Sequence[Callable[..., Any]],
    segments: int | None = None,
    *,
    keep: Keep | None = None,
) -> Callable[..., Any]:
    """Compose ``functions`` and checkpoint them in ``segments`` of nearly equal length.

    ``checkpoint_sequential(layers, 10)(x)`` is ``layers[-1](…layers[0](x))``; by default there are
    about sqrt(n) segments. The last segment isn't checkpointed: backward begins with it, so it
    would be recomputed for nothing.
    """
    functions = list(functions)
    if not functions:
        raise UsageError("checkpoint_sequential needs at least one function")
    if segments is None:
        segments = max(1, round(len(functions) ** 0.5))
    if not 1 <= segments <= len(functions):
        raise UsageError(
            f"segments must be between 1 and the {len(functions)} functions, not {segments}"
        )
    cuts = [len(functions) * k // segments for k in range(segments + 1)]

    def segment(first: int, last: int) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            result = functions[first](*args)
            for function in functions[first + 1 : last]:
                result = function(result)
            return result

        run.__name__ = f"segment_{first}_{last}"
        if last == len(functions):
            return run
        return checkpoint(run) if keep is None else checkpoint(keep=keep)(run)

    parts = [segment(a, b) for a, b in pairwise(cuts)]

    def sequential(*args: Any) -> Any:
        result = parts[0](*args)
        for part in parts[1:]:
            result = part(result)
        return result

    return sequential


def _policy(keep: Keep) -> Policy:
    if callable(keep):
        wanted: Callable[[str], bool] = keep
    else:
        names = {keep} if isinstance(keep, str) else set(keep)
        wanted = names.__contains__

    def policy(node: TapeNode) -> bool:
        assert node.op is not None
        return wanted(node.params["name"] if node.op is named and node.params else node.op.name)

    return policy


@op(name="name", infer=lambda x, *, name: view(lambda d: d[...], x), view=True)
def named(x: Any, *, name: str = "") -> Any:
    """The value itself, under a name."""
    return x[...] if x.ndim else x


named.vjp(x=lambda g: g)


def name(x: Any, name: str) -> Any:
    """Name a Value, for a policy (``keep="attn"``) and for profiles; plain arrays pass through."""
    return apply(named, (x,), {"name": name}) if isinstance(x, Value) else x
