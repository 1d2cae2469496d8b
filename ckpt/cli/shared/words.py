"""What a shell may offer for the word that is being typed.

Each function takes what is there so far and returns whole words. Nothing is run for it: of a file
only the text is read.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from ckpt.errors import CkptError

LINE = "_CKPT_COMPLETE_LINE"
"""The variable of the environment with the command line up to the cursor."""

BREAKS = "_CKPT_COMPLETE_BREAKS"
"""That with the characters behind which the shell lets a word begin anew, if it does."""


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def _in_list(words: Iterable[str], incomplete: str) -> list[str]:
    """For what takes words with commas: the last of them."""
    before, comma, last = incomplete.rpartition(",")
    used = before.split(",")
    return [before + comma + word for word in _beginning(words, last) if word not in used]


def models(incomplete: str) -> list[str]:
    from ckpt.models.base import names

    return _beginning(names(), incomplete)


def targets(incomplete: str) -> list[str]:
    """Models, Python files and folders; behind a file's colon, its functions without arguments."""
    path, colon, name = incomplete.rpartition(":")
    if colon:
        return [f"{path}:{found}" for found in _beginning(_functions(Path(path)), name)]
    return [*models(incomplete), *_files(incomplete)]


def _files(incomplete: str) -> Iterator[str]:
    folder, slash, start = incomplete.rpartition("/")
    try:
        there = sorted(os.scandir(os.path.expanduser(folder + slash) or "."), key=lambda e: e.name)
    except OSError:
        return
    for entry in there:
        if entry.name.startswith(start) and (start or not entry.name.startswith((".", "__"))):
            if entry.is_dir():
                yield f"{folder}{slash}{entry.name}/"
            elif entry.name.endswith(".py"):
                yield f"{folder}{slash}{entry.name}:"


def _functions(path: Path) -> list[str]:
    """Those of the file's outermost level that can be called without arguments."""
    try:
        tree = ast.parse(path.expanduser().read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and len(node.args.posonlyargs) + len(node.args.args) == len(node.args.defaults)
        and all(node.args.kw_defaults)
    ]


def planners(incomplete: str) -> list[str]:
    from ckpt import planners as known

    return _beginning(known.names(), incomplete) or _valued(incomplete)


def _valued(incomplete: str) -> list[str]:
    """Of a planner with an option, ``every:``, some values of that."""
    from ckpt import planners as known

    name, colon, _ = incomplete.partition(":")
    try:
        takes = bool(colon) and known.get(name)[0].takes
    except CkptError:
        return []
    return _beginning([f"{name}:{k}" for k in (2, 4, 8, 16)], incomplete) if takes else []


def planners_listed(incomplete: str) -> list[str]:
    from ckpt import planners as known

    return _in_list(known.names(), incomplete)


def strategies(incomplete: str) -> list[str]:
    from ckpt import planners as known

    written = ("store_all", "per_layer", "sqrt", "segments:4", "planned", "planned@20%")
    return _in_list(dict.fromkeys((*written, *known.names())), incomplete)


def budgets(incomplete: str) -> list[str]:
    """The forms that a number of bytes may have: with the digits that are there, or some."""
    digits = incomplete.rstrip("%BGKMTikmb")
    units = ("%", "KiB", "MiB", "GiB", "MB", "GB", "B")
    if digits:
        return _beginning([digits + unit for unit in units], incomplete)
    return _beginning(("25%", "50%", "75%", "64MiB", "1GiB", "4GB"), incomplete)


def budgets_listed(incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + word for word in budgets(last)]


def options(incomplete: str) -> list[str]:
    """NAME=VALUE for the model that is the target."""
    from ckpt.models.base import DTYPES

    name, equals, _ = incomplete.partition("=")
    chosen = _chosen(os.environ.get("_TYPER_COMPLETE_ARGS", ""))
    if not equals:
        return _beginning([f"{option}=" for option in chosen], incomplete)
    value = chosen.get(name.replace("-", "_"))
    if name == "dtype":
        values: Iterable[Any] = DTYPES
    elif isinstance(value, bool):
        values = ("true", "false")
    else:
        values = () if value is None else (value,)
    return _beginning([f"{name}={text}" for text in values], incomplete)


def _chosen(line: str) -> dict[str, Any]:
    """The options of the model that ``line`` names, and what they are by default.

    Of a line that ends with an option without its value typer parses no arguments.
    """
    from ckpt.models.base import MODULES
    from ckpt.models.presets import PRESETS

    name = next((word for word in line.split() if word in {**MODULES, **PRESETS}), "")
    stem, preset = PRESETS.get(name, (name, {}))
    if not stem:
        return {}
    parameters = inspect.signature(getattr(import_module(MODULES[stem]), stem)).parameters
    return {option: p.default for option, p in parameters.items()} | preset


def _one_of(*words: str) -> Any:
    def found(incomplete: str) -> list[str]:
        return _beginning(words, incomplete)

    return found


dtypes = _one_of("float32", "float64", "float16")
costs = _one_of("flops", "bytes", "seconds", "roofline")
groups = _one_of("alike", "node", "op", "line", "scope")
witnesses = _one_of("tracemalloc", "process", "memray", "all")
orders = _one_of(
    "kept_nbytes", "nbytes", "forward_flops", "backward_flops", "recompute_flops", "computed",
    "op", "source", "order",
)  # fmt: skip
shells = _one_of("bash", "zsh", "fish")
