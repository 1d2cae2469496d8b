"""Imports point down only."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "ckpt"
ORDER = {
    "errors": 0, "units": 0, "graph": 1, "schedule": 2, "timeline": 3, "simulate": 4,
    "planners": 5, "reports": 5, "tape": 5, "nn": 6, "models": 7, "lesson": 8, "studies": 8,
    "cli": 9,
}  # fmt: skip
APART = ("planners", "reports", "tape")
"""These three don't import each other."""
STANDARD = ("errors", "units", "graph", "schedule", "timeline", "simulate")
HOMES = {"matplotlib": "reports", "typer": "cli"}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions; but for what only types need."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(names if node.module == "ckpt" else [node.module or ""])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = part(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        if top == "ckpt" and own in ORDER:
            other = rest.partition(".")[0]
            if other in ORDER and other != own:
                assert ORDER[other] <= ORDER[own], f"{own} imports {module}, which is above it"
                assert not (own in APART and other in APART), f"{own} imports {module}"
        elif top != "ckpt":
            assert top != "click", "typer vendors its own"
            assert not module.startswith("matplotlib.pyplot")
            if own in STANDARD:
                assert top in sys.stdlib_module_names, f"{own} imports {module}"
            if top in HOMES:
                assert own == HOMES[top], f"{own} imports {module}"
