"""Imports point down only, and never in a circle: those in functions and for types alone included.

Every file is in a room: ``ckpt/tape/ops/linear`` is one, and a file right under ``ckpt`` is one of
its own. What a package's ``__init__`` gathers of its own folder is no import between rooms.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ckpt"
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = (
    ("text",), ("errors",), ("units",), ("reading",), ("graph",), ("repeats",), ("schedule",),
    ("timeline",), ("machine",), ("witness",), ("workers", "program"),
    ("planners", "reports", "tape", "torch programs", "jax programs"), ("nn",), ("models",),
    ("studies",), ("lesson", "torch", "jax", "testing"), ("ckpt",), ("cli",),
    ("__main__", "pytest_plugin"),
)  # fmt: skip
"""From the ground up; ``ckpt`` is the public names. Parts on one floor don't import each other."""
FLOOR = {name: k for k, floor in enumerate(FLOORS) for name in floor}
STANDARD = {*sum(FLOORS[: FLOOR["program"] + 1], ()), "ckpt", "__main__"}
HOMES = {"matplotlib": ("reports",), "typer": ("cli",), "torch": ("torch", "torch programs"),
         "jax": ("jax", "jax programs")}  # fmt: skip
TORCH_PROGRAMS = ("ckpt.torch.capture", "ckpt.torch.lowering", "ckpt.torch.run")
JAX_PROGRAMS = ("ckpt.jax.capture", "ckpt.jax.lowering", "ckpt.jax.run")
"""The front ends; beside it in the same folder, above the studies, is what its users call."""
TAPE = ("core", "ops", "eager", "traced", "execution")
"""The tape's own floors."""

ABOVE_THE_TAPE = ("nn", "models", "lesson", "studies/given.py", "cli/target.py", "__init__.py")
"""All else takes a Program, whoever made it."""


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else node.module)
    return frozenset(found - {module})


def ours(module: str) -> set[str]:
    return {other for other in imports(module) if other in FILES}


def top(module: str) -> str:
    """The part of the house that a module of ours is in."""
    if module.startswith(TORCH_PROGRAMS):
        return "torch programs"
    if module.startswith(JAX_PROGRAMS):
        return "jax programs"
    return module.partition(".")[2].partition(".")[0] or module


def room(module: str) -> str:
    path = FILES[module]
    return module if path.parent == PACKAGE else str(path.parent.relative_to(PACKAGE))


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_files_import_each_other_in_a_circle() -> None:
    assert not circle({module: ours(module) for module in FILES})


def test_no_two_rooms_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for module in FILES:
        gathers = FILES[module].name == "__init__.py"
        for other in ours(module):
            if not (gathers and other.startswith(f"{module}.")):
                edges.setdefault(room(module), set()).add(room(other))
    assert not circle({name: found - {name} for name, found in edges.items()})


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module: str) -> None:
    own = top(module)
    for other in ours(module):
        if top(other) != own:
            assert FLOOR[top(other)] < FLOOR[own], f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in FILES if m.startswith("ckpt.tape.")])
def test_imports_point_down_within_the_tape(module: str) -> None:
    names = module.split(".")
    own = TAPE.index(names[2]) if names[2] in TAPE else len(TAPE)
    for other in ours(module):
        if top(other) == "tape" and other != "ckpt.tape":
            assert TAPE.index(other.split(".")[2]) <= own, f"{module} imports {other}"


@pytest.mark.parametrize("module", FILES)
def test_only_those_who_load_a_numpy_program_know_the_tape(module: str) -> None:
    path = str(FILES[module].relative_to(PACKAGE))
    if top(module) != "tape" and not path.startswith(ABOVE_THE_TAPE):
        assert not {other for other in ours(module) if top(other) == "tape"}


@pytest.mark.parametrize("module", FILES)
def test_what_others_wrote_is_imported_in_its_own_room(module: str) -> None:
    for other in imports(module) - ours(module):
        package = other.partition(".")[0]
        assert package != "click", "typer vendors its own"
        assert not other.startswith("matplotlib.pyplot")
        if top(module) in STANDARD:
            assert package in sys.stdlib_module_names, f"{module} imports {other}"
        if package in HOMES:
            assert top(module) in HOMES[package], f"{module} imports {other}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES.values()}))
def test_rooms_are_small(folder: Path) -> None:
    """About a dozen files; the command line has one a command."""
    assert len(list(folder.glob("*.py"))) <= (21 if folder.name in ("cli", "reports") else 14)


def test_a_class_name_means_one_thing() -> None:
    """A word has one meaning in the whole tree, whether or not it is private to a file."""
    found: dict[str, list[str]] = {}
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(module)
    assert not {name: modules for name, modules in found.items() if len(modules) > 1}
