"""The table of commands, and the program's entry."""

from __future__ import annotations

import inspect
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from typing import Annotated, Any

import typer

from ckpt.cli import run
from ckpt.cli.compare import compare
from ckpt.cli.completion import completion
from ckpt.cli.env import env
from ckpt.cli.execute import execute
from ckpt.cli.frontier import frontier
from ckpt.cli.lesson import lesson
from ckpt.cli.models import models
from ckpt.cli.ops import ops
from ckpt.cli.plan import plan
from ckpt.cli.profile import profile
from ckpt.cli.show import show
from ckpt.cli.simulate import simulate
from ckpt.cli.sweep import sweep

COMMANDS: tuple[Callable[..., None], ...] = (
    profile,
    sweep,
    plan,
    frontier,
    lesson,
    models,
    ops,
    show,
    simulate,
    execute,
    compare,
    env,
    completion,
)

app = typer.Typer(
    name="ckpt",
    help="What a backward pass keeps in memory, and what it would cost to recompute it instead.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _help(command: Callable[..., None]) -> str:
    """What the command's docstring says, a line a paragraph, for typer to wrap."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for command in COMMANDS:
    app.command(command.__name__, help=_help(command))(run.reported(command))


def _version(wanted: bool) -> None:
    if wanted:
        from ckpt import __version__

        typer.echo(f"ckpt {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Options before any command."""


def call(arguments: Sequence[str] | None = None) -> int:
    """Run ``arguments`` (default: the process's own) and return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with run.streams():
        try:
            result: Any = app(args=given, prog_name="ckpt", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BaseException as error:
            if hasattr(error, "format_message"):  # typer's errors of usage, which it keeps private
                return run.usage(error, given)
            if isinstance(error, typer.Abort):  # which is what it makes of Ctrl-C
                error = KeyboardInterrupt()
            return run.report(error)
    return result if isinstance(result, int) else 0


def complete(line: str, breaks: str = "") -> list[str]:
    """The words that can stand where the last one of ``line`` is, as whole words, for a shell.

    Of each, only what follows the last of ``breaks`` that is typed already.
    """
    from typer._completion_classes import completion_init

    completion_init()
    # fish's protocol of typer's: a line in, a word and its help on each line out.
    os.environ |= {
        "_CKPT_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }
    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        app(args=[], prog_name="ckpt")
    found = [text.partition("\t")[0] for text in out.getvalue().splitlines() if text]
    typed = _last_word(line)
    if option := re.match(r"--[\w-]+=", typed):  # typer completes what follows it, alone
        found = [option[0] + text for text in found]
    kept = [typed.rfind(c) for c in breaks if not c.isspace() and c not in "'\""]
    return [text[1 + max(kept, default=-1) :] for text in found]


def _last_word(line: str) -> str:
    """As a shell would read it, with a quote that is still open closed."""
    for quote in ("", "'", '"'):
        with suppress(ValueError):
            return "" if line[-1:].isspace() else shlex.split(line + quote)[-1]
    return ""
