"""A page in which schedules play: one HTML file that needs no network and nothing else.

A `Reel` is a simulated schedule, with what a reader chooses to see it. The page shows what is live
at each of its instructions - on the bytes' curve, on the graph's line of nodes, and in words - and
lets a reader play, step, scrub, and ask a value for its life (``page/*.js``).
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ckpt.graph import Graph
from ckpt.reports.words import source_lines
from ckpt.schedule import Backward, Compute, Free
from ckpt.text import printable
from ckpt.timeline import KINDS, Timeline
from ckpt.units import format_bytes

GHOST_POINTS = 400
"""Of the curve of store-all that is drawn beside a schedule's own."""


@dataclass(frozen=True)
class Reel:
    """A schedule to play. ``timeline`` is a simulation's; ``ghost``, if any, that of store-all."""

    graph: Graph
    timeline: Timeline
    at: tuple[str, ...] = ()
    """What a reader chooses to see it, an option of each of the page's ``choices``."""
    ghost: Timeline | None = None
    name: str = ""
    """Who made it, in a word or two."""
    bound: float | None = None
    """No schedule within ``limit`` bytes recomputes less than this share of a forward."""
    limit: int | None = None
    """The schedule's budget, where it isn't said."""
    seen: Timeline | None = None
    """The same schedule as it was executed, and what a witness saw at each instruction."""

    @property
    def verdict(self) -> str:
        """What a schedule peaks at beside store-all, and what that costs, in a sentence or two."""
        timeline, ghost = self.timeline, self.ghost
        text = f"{self.name}: peak" if self.name else "Peak"
        text += f" {format_bytes(timeline.peak)}"
        if ghost is not None and timeline.peak != ghost.peak:
            less, more = sorted((timeline.peak, ghost.peak))
            than = "less" if timeline.peak < ghost.peak else "more"
            text += f" of store-all's {format_bytes(ghost.peak)}"
            text += f", {more / less:.1f} times {than}" if less else ""
        if not timeline.recompute_flops:
            return f"{text}; nothing is recomputed."
        step = timeline.recompute_flops / ((timeline.step_flops - timeline.recompute_flops) or 1)
        text = (
            f"{text}, for {100 * timeline.overhead:.1f} % of a forward in recompute: "
            f"a step is {100 * step:.1f} % longer."
        )
        if self.bound is None:
            return text
        within = "within the budget" if self.limit is None else "in as many bytes"
        return f"{text} No schedule {within} does with less than {100 * self.bound:.1f} %."


def page(
    title: str,
    reels: Sequence[Reel],
    *,
    choices: Sequence[str] | Mapping[str, Sequence[str]] = (),
    missing: Mapping[tuple[str, ...], str] | None = None,
    verdict: str = "",
    floor: int | None = None,
    start: tuple[str, ...] | None = None,
    parts: Mapping[str, str] | None = None,
) -> str:
    """The page of ``reels``, with ``parts`` (HTML, from `exports.to_html`) below, by their titles.

    ``choices`` names what tells the reels apart (budget; depth, strategy): a slider each, whose
    options are those given, in that order, or as reels and ``missing`` - why there is no plan -
    bring them; they stand at ``start``, or at the first reel. ``verdict`` is of them all: of one
    alone it takes the place of its own. No schedule needs less than ``floor`` bytes, if that is
    known.
    """
    gone = dict(missing or {})
    ordered = choices if isinstance(choices, Mapping) else dict.fromkeys(choices, ())
    options: list[list[str]] = [list(known) for known in ordered.values()]
    for at in [*(reel.at for reel in reels), *gone]:
        for known, option in zip(options, at, strict=True):
            if option not in known:
                known.append(option)
    if options and all(option.isdigit() for option in options[0]):
        options[0].sort(key=int)

    def place(at: tuple[str, ...]) -> list[int]:
        return [known.index(option) for known, option in zip(options, at, strict=True)]

    stands = place(start or reels[0].at) if reels else [0] * len(options)
    graphs: dict[str, Graph] = {reel.graph.digest: reel.graph for reel in reels}
    numbers = {digest: number for number, digest in enumerate(graphs)}
    data = {
        "graphs": [_graph(graph) for graph in graphs.values()],
        "choices": [
            {"name": name, "options": known} for name, known in zip(choices, options, strict=True)
        ],
        "reels": [
            {
                **_reel(reel, numbers[reel.graph.digest], place(reel.at)),
                "verdict": reel.verdict if choices or not verdict else "",
            }
            for reel in reels
        ],
        "floor": floor,
        "missing": {",".join(map(str, place(at))): why for at, why in gone.items()},
    }
    return _asset("page.html").format(
        title=html.escape(printable(title)),
        style=_asset("page.css"),
        verdict=f'<p class="verdict">{html.escape(verdict)}</p>' if verdict else "",
        choosers="".join(
            _chooser(k, name, options[k], stands[k]) for k, name in enumerate(choices)
        ),
        legend=_legend(reels),
        parts="\n".join(_part(name, part) for name, part in (parts or {}).items()),
        # No "<" in it: no text of the user's can end the element, or begin another.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script=script(),
    )


SCRIPTS = ("reel", "state", "curve", "pebbles", "tables", "map", "trade", "player")
"""Those that the page is played by, in the order in which they use each other."""


def script() -> str:
    """Them all, in one scope of their own."""
    parts = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _asset(name: str) -> str:
    return (files("ckpt.reports") / "page" / name).read_text(encoding="utf-8")


class _Texts(dict[str, int]):
    """Texts by number, each once, as they may be shown: the layers of a loop read alike."""

    def number(self, text: str) -> int:
        return self.setdefault(printable(text), len(self))


def _graph(graph: Graph) -> dict[str, Any]:
    texts = _Texts()
    number = texts.number
    groups = []
    for node in graph:
        shape = "x".join(map(str, node.shape)) or "scalar"
        groups.append(number(" ".join(filter(None, (node.op, node.source, shape, node.dtype)))))
    return {
        "labels": [number(graph.describe(i)) for i in range(len(graph))],
        "groups": groups,
        "lines": [number(node.source) for node in graph],
        "source": source_lines(graph),
        "scopes": [number(node.scope) for node in graph],
        "steps": [
            number(graph.describe_step(k).removeprefix("backward "))
            for k in range(len(graph.steps))
        ],
        "step_lines": [number(step.source) for step in graph.steps],
        "at": [-1 if step.at is None else step.at for step in graph.steps],
        "reads": [list(step.reads) for step in graph.steps],
        "counts_gradients": graph.counts_gradients,
        "texts": list(texts),
    }


def _reel(reel: Reel, graph: int, at: list[int]) -> dict[str, Any]:
    timeline = reel.timeline
    whose, kinds, nbytes, born, died = timeline.buffers.columns
    high = list(timeline.columns["high"])
    ghost = None if reel.ghost is None else list(reel.ghost.columns["high"])
    codes = []
    for instruction in timeline.schedule:
        match instruction:
            case Compute(number):
                codes.append(3 * number)
            case Free(number):
                codes.append(3 * number + 1)
            case Backward(number):
                codes.append(3 * number + 2)
    return {
        "graph": graph,
        "at": at,
        "name": printable(reel.name),
        "peak_nbytes": timeline.peak,
        "overhead": timeline.overhead,
        "bound": reel.bound,
        "limit": timeline.schedule.budget if reel.limit is None else reel.limit,
        "budget": timeline.schedule.budget,
        "instructions": codes,
        "high": high,
        "seen": None if reel.seen is None else list(reel.seen.columns["high"]),
        "whose": [-1 if w is None else w for w in whose],
        "kinds": [KINDS.index(kind) for kind in kinds],
        "nbytes": list(nbytes),
        "born": list(born),
        "died": list(died),
        "ghost": None if ghost is None or ghost == high else _thinned(ghost),
    }


def _thinned(values: Sequence[int]) -> list[int]:
    """At most GHOST_POINTS of them, each the most of its share."""
    each = -(-len(values) // GHOST_POINTS) or 1
    return [max(values[k : k + each]) for k in range(0, len(values), each)]


def _part(title: str, part: str) -> str:
    """Below its heading; what is too wide is scrolled, by keyboard too."""
    name = html.escape(title)
    return (
        f'<section><h2>{name}</h2><div class="scroll" role="region" aria-label="{name}" '
        f'tabindex="0">{part}</div></section>'
    )


def as_text(text: str) -> str:
    """Lines as they stand on a terminal, as a part of a page."""
    return f"<pre>{html.escape(text)}</pre>"


def _legend(reels: Sequence[Reel]) -> str:
    """The kinds that are held in some of them, and how what is computed again is drawn."""
    held = {kind for reel in reels for kind in reel.timeline.buffers.columns[1]} | {"workspace"}
    shown = [
        f'<span><i style="background:var(--{kind})"></i>{kind}</span>'
        for kind in (*KINDS[:4], "workspace")
        if kind in held
    ]
    if any(reel.timeline.recompute_flops for reel in reels):
        shown.append('<span><i class="ring"></i>computed again</span>')
    return "".join(shown)


def _chooser(k: int, name: str, options: Sequence[str], start: int) -> str:
    """A slider for amounts, a list for names; it stands at the first reel."""
    hidden = " hidden" if len(options) < 2 else ""
    label = f'<label for="choice{k}">{html.escape(name)}</label>'
    if all(option[:1].isdigit() for option in options):
        control = (
            f'<input type="range" id="choice{k}" min="0" max="{len(options) - 1}" value="{start}">'
            f'<output id="chosen{k}" for="choice{k}"></output>'
        )
    else:
        found = "".join(
            f'<option value="{n}"{" selected" if n == start else ""}>{html.escape(option)}</option>'
            for n, option in enumerate(options)
        )
        control = f'<select id="choice{k}">{found}</select><output id="chosen{k}" hidden></output>'
    return f'<div class="bar"{hidden}>{label}{control}</div>'
