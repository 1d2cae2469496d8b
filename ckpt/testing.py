"""For a user's own tests: a step's peak and recompute are held to a number.

::

    from ckpt.testing import assert_peak

    def test_memory() -> None:
        assert_peak(loss, params, x, at_most="64MiB")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

from ckpt.errors import BudgetError, UsageError
from ckpt.studies.plan import plan
from ckpt.studies.profile import Profile, profile
from ckpt.text import paragraph
from ckpt.units import format_bytes, parse_bytes

__all__ = ["assert_peak", "assert_recompute"]


def assert_peak(
    function: Callable[..., Any] | Any,
    *args: Any,
    at_most: int | str,
    whole: bool = False,
    measured: bool = False,
    witness: str | None = None,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> Profile:
    """Fail unless one step (loss and gradients) of ``function(*args)``, as it is written, peaks at
    ``at_most`` bytes, or ``"64MiB"``; return its Profile.

    The predicted peak, for which nothing is allocated; ``measured``, the one that ``witness`` sees
    as well, within a hundredth and 64 KiB. Without inputs, parameters and gradients, unless
    ``whole``. AssertionError names the lines that set the peak and the plan that would fit;
    UsageError for what can't be read.
    """
    __tracebackhide__ = True
    limit = parse_bytes(at_most)
    found = profile(
        function, *args, argnums=argnums, has_aux=has_aux, measure=measured, witness=witness
    )
    beside = found.simulated.resident + found.simulated.gradients_beside if whole else 0
    doubt = found.measured and found.measured.measured.get("untrusted")
    seen = {"predicted": (found.simulated.peak + beside, limit)}
    if found.measured is not None:
        seen["measured"] = (found.measured.peak + beside, limit + limit // 100 + 64 * 1024)
    for how, (peak, most) in seen.items():
        if peak > most:
            kind = "whole peak" if whole else "peak"
            raise AssertionError(
                paragraph(
                    [
                        f"the {how} {kind} of {found.graph.name or 'the step'} is "
                        f"{format_bytes(peak)}, above {format_bytes(limit)}",
                        *([f"untrusted: {doubt}"] if doubt and how == "measured" else []),
                        *found.verdict(),
                        "live at the peak, largest first, and for whose backward:",
                        *(f"  {line}" for line in found.why(top=5)),
                        _that_fits(found, limit - beside),
                    ]
                )
            )
    return found


def assert_recompute(
    function: Callable[..., Any] | Any,
    *args: Any,
    at_most: float,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> Profile:
    """Fail unless one step of ``function(*args)``, as it is written, recomputes at most that share
    of its forward's FLOPs (0.5: half of it; 0: nothing); return its Profile."""
    __tracebackhide__ = True
    if not (isinstance(at_most, SupportsFloat) and float(at_most) >= 0):
        raise UsageError(f"at_most is a share of a forward, such as 0.5, and not {at_most!r}")
    found = profile(function, *args, argnums=argnums, has_aux=has_aux, measure=False)
    if found.simulated.overhead > at_most:
        again = [row for row in found.rows() if row["recompute_flops"]]
        again.sort(key=lambda row: -row["recompute_flops"])
        raise AssertionError(
            paragraph(
                [
                    f"{found.graph.name or 'the step'} recomputes {found.simulated.overhead:.1%} "
                    f"of a forward, above {at_most:.1%}",
                    *found.verdict(),
                    "recomputed, dearest first:",
                    *(
                        f"  {row['name']} ({row['op']}, {row['source']}), {row['computed']} times"
                        for row in again[:5]
                    ),
                ]
            )
        )
    return found


def _that_fits(found: Profile, limit: int) -> str:
    """The plan that would keep the promise, in a line."""
    if limit <= 0:
        return "inputs, parameters and gradients alone are above it"
    try:
        fits = plan(found.graph, budget=limit)
    except BudgetError as error:
        return f"no plan that was found fits: {error}"
    return (
        f"a plan fits: ckpt.plan(..., budget={limit}) holds {format_bytes(fits.timeline.peak)} for "
        f"{fits.timeline.overhead:.1%} of a forward in recompute"
    )
