"""A program that fails, made smaller: what is left still fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.random_programs.checking import PLANNERS, ViolationError, check
from tests.random_programs.writing import Written


def shrink(
    written: Written,
    violation: ViolationError,
    planners: Iterable[str] = PLANNERS,
    tries: int = 300,
) -> Written:
    """The smallest program found in so many tries that violates the same."""
    wanted = key(violation)
    found = written
    changed = True
    while changed:
        changed = False
        for source in smaller(found.source):
            if not tries:
                return found
            candidate = replace(found, source=source)
            tries -= 1
            try:
                check(candidate, planners)
            except ViolationError as other:
                if key(other) == wanted:
                    found, changed = candidate, True
                    break
            except Exception:  # no program any more
                continue
    return found


def key(violation: ViolationError) -> str:
    """What two programs that fail in the same way have in common."""
    if not violation.kind.endswith("raises"):
        return violation.kind
    return re.sub(r"\d+|'[^']*'", "", str(violation))[:70]


def smaller(source: str) -> Iterator[str]:
    """Programs with something taken out, the largest parts first."""
    lines = source.split("\n")
    for at, line in enumerate(lines):
        if line.lstrip().startswith("return ") and " + " in line:
            head, rest = line.split("return ", 1)
            total, comma, aux = rest.partition(", {")
            for term in total.split(" + "):
                yield joined(lines, at, at + 1, [f"{head}return {term}{comma}{aux}"])
    parts = [(at, end) for at in range(len(lines)) if (end := extent(lines, at)) > at]
    for at, end in sorted(parts, key=lambda part: part[0] - part[1]):
        yield joined(lines, at, end, [])
    for at, line in enumerate(lines):
        if line.lstrip().startswith("@"):
            yield joined(lines, at, at + 1, [])
        match = re.match(r"(\s+)(\w+) = (.*)$", line)
        if match:
            indent, name, text = match.groups()
            for other in dict.fromkeys(re.findall(r"\b[vhpxa]\d+\b", text)):
                if other not in (name, text):
                    yield joined(lines, at, at + 1, [f"{indent}{name} = {other}"])
        for old, new in (
            (r'"(F|strided|reversed|spread)"', '"C"'),
            (r'"(f2|f4|c8)"', '"f8"'),
            (r'"c16"', '"f8"'),
            (r"(\(|, )[3456](?=[,)])", r"\g<1>2"),
        ):
            text = re.sub(old, new, line)
            if text != line and ("draw(" in line or "integers(" in line):
                yield joined(lines, at, at + 1, [text])


def extent(lines: list[str], at: int) -> int:
    """Where the statement that begins in this line ends; ``at`` if none can be taken out."""
    line = lines[at]
    body = line.lstrip()
    indent = len(line) - len(body)
    if not body or not indent or body.startswith(("return", "@")):
        return at
    end = at + 1
    if body.startswith(("def ", "for ")):
        while end < len(lines) and len(lines[end]) - len(lines[end].lstrip()) > indent:
            end += 1
    return end


def joined(lines: list[str], start: int, end: int, new: list[str]) -> str:
    """The source with other lines there, and without constants that nothing reads any more."""
    if not new and start and lines[start - 1].lstrip().startswith("@"):
        start -= 1
    made = [*lines[:start], *new, *lines[end:]]
    text = "\n".join(made)
    return "\n".join(
        line for line in made
        if not (m := re.match(r"(C\d+) = ", line)) or len(re.findall(rf"\b{m[1]}\b", text)) > 1
    )  # fmt: skip
