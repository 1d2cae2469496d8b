"""Text from elsewhere - names, files, options - as it may be shown to people."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping

WIDTH = 80
"""Characters of a line that fits everywhere."""


def printable(text: str, most: int | None = None) -> str:
    """``text`` with what moves a cursor, ends a line or can't be seen as Python spells it.

    A name of a file's can then neither steer a terminal nor pass for a line of ours. Of more than
    ``most`` characters the middle is left out.
    """
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]} … {text[-(most // 2) :]}"
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """``unknown model 'mpl'; did you mean mlp?``, or what there is to choose from."""
    from difflib import get_close_matches

    names = list(known)
    spelled = {"".join(filter(str.isalnum, n.casefold())): n for n in names}
    wanted = "".join(filter(str.isalnum, str(name)[:80].casefold()))
    close = [spelled[found] for found in get_close_matches(wanted, spelled)]
    way_out = f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(names)}"
    return f"unknown {kind} {name!r}; {way_out}"


def sentence(error: BaseException) -> str:
    """An error's kind, and the first sentence of what it says."""
    text = str(error).strip().partition("\n")[0].partition(". ")[0].strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def paragraph(lines: Iterable[str]) -> str:
    """The lines below each other, each `printable`."""
    return "\n".join(map(printable, lines))


def filled(lines: Iterable[str]) -> str:
    """`paragraph`, where long lines go on below the last column that they begin with."""
    broken: list[str] = []
    for line in map(printable, lines):
        columns = [found.end() for found in re.finditer(r"(?:^|\S) {2,}(?=\S)", line[:32])]
        broken += textwrap.wrap(
            line,
            WIDTH,
            subsequent_indent=" " * max(columns, default=0),
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        ) or [line]
    return "\n".join(broken)


def pairs(found: Mapping[str, str]) -> str:
    """What things are, as an HTML table of two columns, for a notebook."""
    from html import escape

    rows = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(printable(name))}</th>'
        f'<td style="text-align:left">{escape(printable(text))}</td></tr>'
        for name, text in found.items()
    )
    return f'<table class="ckpt"><tbody>{rows}</tbody></table>'
