"""Options that several commands share, and texts read as lists and numbers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ckpt.cli.shared import words
from ckpt.errors import UsageError

T = TypeVar("T")

_MODEL = "Options of a model"

TARGET_HELP = (
    "A model's or preset's name (see `ckpt models`), or file.py:name, a function without "
    "arguments that returns (loss function, *its arguments)."
)
TargetArgument = Annotated[
    str,
    typer.Argument(metavar="TARGET", help=TARGET_HELP, autocompletion=words.targets),
]
Depth = Annotated[int | None, typer.Option(help="Layers.", rich_help_panel=_MODEL)]
Width = Annotated[int | None, typer.Option(help="Units of a layer.", rich_help_panel=_MODEL)]
Batch = Annotated[int | None, typer.Option(help="Samples in a batch.", rich_help_panel=_MODEL)]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 or float64.", rich_help_panel=_MODEL, autocompletion=words.dtypes),
]
Segments = Annotated[
    int | None, typer.Option(help="Checkpointed segments of the layers.", rich_help_panel=_MODEL)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other option of the model, as in --set expand=8. Repeatable.",
        rich_help_panel=_MODEL,
        autocompletion=words.options,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the arrays.")]
Repeats = Annotated[int, typer.Option(min=1, help="Untraced steps to take the median time of.")]
MeasureIfItFits = Annotated[
    bool | None,
    typer.Option(
        "--measure/--no-measure",
        help="Run it for real, or predict only, allocating nothing. [default: run if it fits]",
        show_default=False,
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        "--measure/--no-measure", help="Run it for real, or predict only, allocating nothing."
    ),
]
ByWitness = Annotated[
    str | None,
    typer.Option(
        "--witness",
        help="Who judges the peak: tracemalloc, process (the kernel), memray, or all of them. "
        "[default: tracemalloc]",
        show_default=False,
        autocompletion=words.witnesses,
    ),
]
_WHERE = "Where it is done"
Jobs = Annotated[
    int | None,
    typer.Option(help="Processes of one BLAS thread each.", rich_help_panel=_WHERE),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="On the workers of a Dask scheduler, as in tcp://host:8786.",
        rich_help_panel=_WHERE,
    ),
]
Fake = Annotated[
    bool,
    typer.Option(
        "--fake", help="Make the file's PyTorch modules and tensors from shapes alone: any size."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and no table.")]
Outputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write here, in the kind of the ending: .html .png .svg .pdf .csv .jsonl .json .md; "
        "of a step also .trace.json (Perfetto), .speedscope.json. Repeatable.",
    ),
]


def model_options(extra: Sequence[str] | None, **named: Any) -> dict[str, Any]:
    """The options that were given, those of ``--set`` among them."""
    given = {name: value for name, value in named.items() if value is not None}
    for text in extra or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes NAME=VALUE, as in --set expand=8, not {text!r}")
        given[name.strip().replace("-", "_")] = _value(value.strip())
    return given


def again(
    *words: object, given: Mapping[str, Any] | None = None, more: Sequence[object] = ()
) -> str:
    """``ckpt WORDS``, with the options of a model that were ``given``, as a shell takes it."""
    line = ["ckpt", *(f"./{word}" if str(word).startswith("-") else str(word) for word in words)]
    for name, value in (given or {}).items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        named = name in ("depth", "width", "batch", "dtype", "segments")
        line += [f"--{name}", text] if named else ["--set", f"{name}={text}"]
    return shlex.join([*line, *map(str, more)])


def kept(**options: tuple[Any, Any]) -> list[str]:
    """The options, each with its default, that were given otherwise, as they are given again."""
    line: list[str] = []
    for name, (value, default) in options.items():
        if value != default:
            line += [f"--{name}", *([] if value is True else [str(value)])]
    return line


def _value(text: str) -> Any:
    """A text as the number or truth value that it spells, else as it is."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def listed(text: str | None, option: str, kind: Callable[[str], T]) -> list[T] | None:
    """``"10,20,50"`` as a list; None for None. UsageError for an item of another kind."""
    if text is None:
        return None
    found = []
    for item in filter(None, map(str.strip, text.split(","))):
        try:
            found.append(kind(item))
        except ValueError:
            raise UsageError(
                f"{option}: {item!r} is no {'whole number' if kind is int else kind.__name__}"
            ) from None
    if not found:
        raise UsageError(f"{option} is empty; write items with commas between them")
    return found
