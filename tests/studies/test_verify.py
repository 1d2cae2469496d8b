"""`Step.verify` holds the step to what was promised: three runs' bits, and two measured peaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.errors import TapeError, UsageError, VerificationError

RNG = np.random.default_rng(0)
W = RNG.standard_normal((16, 16))
MANY_NBYTES = 4 << 20
"""Far above the allowance for headers and the tape's own objects."""


def loss(w: Any) -> Any:
    return np.sum(np.tanh(w) * np.sin(w))


def planned() -> Any:
    return ckpt.plan(loss, W, planner="store_all")


def one_bit_off_in_the_loss(result: Any) -> Any:
    value, gradient = result
    return np.nextafter(value, np.inf), gradient


def one_bit_off_in_the_gradient(result: Any) -> Any:
    value, gradient = result
    made = gradient.copy()
    made.view(np.uint64)[3, 5] ^= 1
    return value, made


def a_zero_of_another_sign(result: Any) -> Any:
    value, gradient = result
    return value, np.where(gradient == gradient, -0.0, 0.0)


def wrapped(run: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *args, **options: change(run(*args, **options))


class Compiled:
    """A compiled step, with its result changed."""

    def __init__(self, step: Any, change: Callable[[Any], Any]) -> None:
        self.step, self.change = step, change
        self.nbytes, self.code_nbytes, self.release = step.nbytes, step.code_nbytes, step.release

    def __call__(self, *args: Any) -> Any:
        return self.change(self.step(*args))


class Wasteful:
    """An observer's double that holds many bytes for a moment, within an instruction."""

    def __init__(self, observer: Any) -> None:
        self.observer = observer
        self.after = observer.after

    def before(self, position: int) -> None:
        self.observer.before(position)
        np.ones(MANY_NBYTES, np.uint8)


def spoil(step: Any, which: str, change: Callable[[Any], Any]) -> Any:
    """Let one of the three runs that verify compares give something else."""
    program = step.program
    if which == "compile":
        step.compiled = Compiled(step.compiled, change)
    else:
        setattr(program, which, wrapped(getattr(program, which), change))
    return step


def test_an_honest_step_passes_and_is_told_as_it_is() -> None:
    step = planned()
    found = step.verify(W)
    assert found.equal
    assert found.promised == step.timeline.peak
    # 16 x 16 float64: two values and what backward makes of them, whichever way it is run.
    assert found.promised >= 2 * W.nbytes
    assert found.measured >= 2 * W.nbytes
    assert found.reused >= 2 * W.nbytes


@pytest.mark.parametrize("which", ["plain", "execute", "compile"])
@pytest.mark.parametrize("change", [one_bit_off_in_the_loss, one_bit_off_in_the_gradient])
def test_one_bit_in_any_of_the_three_runs_is_seen(which: str, change: Any) -> None:
    with pytest.raises(VerificationError, match="differ from plain backward"):
        spoil(planned(), which, change).verify(W)


def test_the_sign_of_a_zero_is_a_bit() -> None:
    step = ckpt.plan(lambda w: np.sum(w * 0.0), np.abs(W), planner="store_all")
    step.verify(np.abs(W))
    with pytest.raises(VerificationError, match="differ"):
        spoil(step, "compile", a_zero_of_another_sign).verify(np.abs(W))


def test_a_peak_while_it_is_executed_is_seen() -> None:
    step = planned()
    execute = step.program.execute
    step.program.execute = lambda schedule, *args, observe: execute(
        schedule, *args, observe=Wasteful(observe)
    )
    with pytest.raises(VerificationError, match=r"the measured peak, 4\.\d+ MiB, exceeds"):
        step.verify(W)


def test_a_peak_of_the_compiled_step_is_seen() -> None:
    def wasteful(result: Any) -> Any:
        np.ones(MANY_NBYTES, np.uint8)
        return result

    with pytest.raises(VerificationError, match=r"the measured peak, 4\.\d+ MiB, exceeds"):
        spoil(planned(), "compile", wasteful).verify(W)


def test_buffers_held_between_calls_are_part_of_the_peak() -> None:
    """They are allocated by the run that is measured, though another was before."""
    x = np.ones((512, 512))
    step = ckpt.plan(lambda x: np.sum(np.tanh(np.tanh(x))), x, planner="store_all")
    step(x)
    assert step.compiled.nbytes >= x.nbytes
    found = step.verify(x)
    assert found.reused == pytest.approx(found.promised, rel=0.01, abs=16 * 1024)


def test_generators_are_where_they_were() -> None:
    """All three runs draw the same mask, and the caller's next draw is what it would have been."""

    def dropped(w: Any, rng: Any) -> Any:
        return np.sum(np.tanh(nn.dropout(w, 0.5, rng)))

    step = ckpt.plan(dropped, W, np.random.default_rng(0), planner="recompute_all")
    rng = np.random.default_rng(7)
    assert step.verify(W, rng).equal
    assert rng.bit_generator.state == np.random.default_rng(7).bit_generator.state


# -- with aux --------------------------------------------------------------------------------------


def with_aux(w: Any) -> Any:
    h = np.tanh(w)
    return np.sum(h * np.sin(w)), {"h": h, "more": [np.exp(w[0]), 3, None, "text"]}


def changed_aux(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], Any]:
    def changed(result: Any) -> Any:
        (value, aux), gradient = result
        return (value, change(dict(aux))), gradient

    return changed


AUX: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "an array": lambda aux: {**aux, "h": np.nextafter(aux["h"], 2.0)},
    "one within": lambda aux: {**aux, "more": [aux["more"][0] * 2, *aux["more"][1:]]},
    "a number": lambda aux: {**aux, "more": [aux["more"][0], 4, None, "text"]},
    "a text": lambda aux: {**aux, "more": [aux["more"][0], 3, None, "other"]},
    "a key": lambda aux: {"k": aux["h"], "more": aux["more"]},
    "nothing": lambda aux: {},
}


@pytest.mark.parametrize("which", ["plain", "execute", "compile"])
@pytest.mark.parametrize("name", AUX)
def test_aux_is_compared(which: str, name: str) -> None:
    step = ckpt.plan(with_aux, W, has_aux=True, planner="store_all")
    assert step.verify(W).equal
    with pytest.raises(VerificationError, match="differ from plain backward"):
        spoil(step, which, changed_aux(AUX[name])).verify(W)


@pytest.mark.parametrize("which", ["plain", "execute", "compile"])
def test_with_aux_loss_and_gradients_are_compared_too(which: str) -> None:
    def change(result: Any) -> Any:
        (value, aux), gradient = result
        return (value, aux), one_bit_off_in_the_gradient((value, gradient))[1]

    with pytest.raises(VerificationError, match="differ"):
        spoil(ckpt.plan(with_aux, W, has_aux=True), which, change).verify(W)


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


@pytest.mark.parametrize("make", [Holder, lambda h: {h}], ids=["object", "set"])
def test_aux_that_no_step_could_fill_in_is_refused(make: Any) -> None:
    with pytest.raises(TapeError, match="use dicts, lists and tuples"):
        ckpt.plan(lambda w: (np.sum(w * w), {"a": make(np.sin(w))}), W, has_aux=True)
    ckpt.plan(lambda w: (np.sum(w * w), Holder(3)), W, has_aux=True).verify(W)


# -- a saved plan ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        (("schedule",), "budget", 1 << 40),
        (("certificate",), "budget", 1 << 40),
        (("certificate",), "floor", 1),
        (("certificate",), "recompute", 0),
        (("certificate", "bounds", 0), "recompute_cost", 0),
        (("graph",), "name", "another"),
        (("graph", "nodes", 3), "source", "elsewhere.py:1"),
        (("schedule",), "planner", "brute"),
        ((), "added", 1),
    ],
)
def test_a_plan_that_was_edited_is_refused(tmp_path: Any, part: Any, key: str, value: Any) -> None:
    path = tmp_path / "plan.json"
    ckpt.plan(loss, W, budget="100%").save(path)
    assert ckpt.load_plan(path).bind(loss, W).verify(W).equal
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document, indent=3))  # laid out otherwise, it says the same
    ckpt.load_plan(path)
    at = document
    for step in part:
        at = at[step]
    if at.get(key) == value:
        value = 7
    at[key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError) as raised:
        ckpt.load_plan(path)
    assert "\n" not in str(raised.value)


def test_a_gradient_that_nothing_flows_to_is_no_part_of_the_measured_peak() -> None:
    x, unused = np.ones((64, 512)), np.zeros((512, 512))
    step = ckpt.plan(lambda x, unused: np.sum(np.tanh(np.sin(x) * x)), x, unused, argnums=(0, 1))
    found = step.verify(x, unused)
    assert abs(found.reused - found.promised) < 64 * 1024
    assert not step(x, unused)[1][1].any()
