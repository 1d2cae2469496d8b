"""The forward's calls as nodes: values, calls with several results, changes in place, effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ckpt.errors import UnsupportedError
from ckpt.graph import Node
from ckpt.torch.capture.kernels import Ref
from ckpt.torch.capture.record import AtenCall, Captured
from ckpt.torch.lowering.costs import flops_of, moved_by

FOREVER = 1 << 60


@dataclass(slots=True)
class Piece:
    """What a node of the graph is in the list of calls."""

    kind: str
    """``leaf``, ``value``, ``call``, ``result`` or ``effect``."""
    calls: list[int] = field(default_factory=list)
    version: int = -1
    deps: dict[int, None] = field(default_factory=dict)
    over: int | None = None
    """The node in whose buffer it works in place, or in a copy of it."""
    unread_nbytes: int = 0
    """Of results that nobody reads."""
    captured: bool = False


class Forward:
    """The pieces, in the order of the program; and which of them each version is."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.calls = captured.calls[: captured.forward]
        self.versions = captured.versions
        self.pieces: list[Piece] = []
        self.node_of: dict[int, int] = {}
        self.effects: list[int] = []
        self.readers = _readers(captured)
        self.needed = _needed(captured)
        self.stale = self._changing_leaves()
        self._readers_of_leaf: dict[int, list[int]] = {}
        """Of each version of a leaf, the nodes that read it."""
        for call in captured.calls:
            for version in (*call.reads, *(before for before, _ in call.writes)):
                self._leaf(version)
        for ref in (*captured.outputs, *captured.gradients):
            if isinstance(ref, Ref):
                self._leaf(ref.version)
        for k, call in enumerate(self.calls):
            self._add(k, call)

    def _leaf(self, version: int) -> None:
        found = self.versions[version]
        if found.leaf is not None and found.made_by < 0 and version not in self.node_of:
            self.node_of[version] = len(self.pieces)
            self.pieces.append(Piece("leaf", version=version))

    def _is_leaf(self, version: int) -> bool:
        return self.versions[version].leaf is not None

    def _changing_leaves(self) -> set[int]:
        """Versions of the user's tensors that the program changes. Another forward may change them
        again before this one's backward, so whoever reads one is never computed again."""
        found = [before for call in self.calls for before, _ in call.writes]
        storages = {self.versions[v].storage for v in found if self._is_leaf(v)}
        return {k for k, version in enumerate(self.versions) if version.storage in storages}

    # -- one call ----------------------------------------------------------------------------------

    def _add(self, k: int, call: AtenCall) -> None:
        inner = [pair for pair in call.writes if not self._is_leaf(pair[0])]
        outer = [pair for pair in call.writes if self._is_leaf(pair[0])]
        makes = [v for v in call.makes if v in self.readers]
        unread = sum(self.versions[v].nbytes for v in call.makes if v not in self.readers)
        if len(inner) > 1 or (inner and (call.makes or outer)):
            raise UnsupportedError(
                f"{call.source}: {call.name} changes several buffers, or changes one and makes "
                "another: it can't be planned"
            )
        main: int | None = None
        if inner:
            main = self._in_place(k, call, *inner[0])
        elif len(makes) > 1:
            main = self._several(k, call, makes, unread)
        elif makes:
            main = self._new(Piece("value", [k], makes[0], unread_nbytes=unread), call, makes)
        elif call.makes and (outer or call.random):  # only its effect is wanted
            main = self._new(Piece("value", [k], call.makes[0], unread_nbytes=unread), call, [])
        if outer or (call.random and k not in self.needed):  # who draws moves the generator
            self._effect(k, call, outer, main)

    def _new(self, piece: Piece, call: AtenCall, makes: list[int]) -> int:
        node = len(self.pieces)
        own = {before for before, _ in call.writes}
        for version in call.reads:
            if self._is_leaf(version):
                self._readers_of_leaf.setdefault(version, []).append(node)
                piece.captured |= version in self.stale and version not in own
            piece.deps[self.node_of[version]] = None
        self.pieces.append(piece)
        for version in makes:
            self.node_of[version] = node
        return node

    def _several(self, k: int, call: AtenCall, makes: list[int], unread: int) -> int:
        head = self._new(Piece("call", [k], unread_nbytes=unread), call, [])
        for version in makes:
            self.node_of[version] = len(self.pieces)
            self.pieces.append(
                Piece("result", [], version, {head: None}, captured=self.pieces[head].captured)
            )
        return head + 1

    def _in_place(self, k: int, call: AtenCall, before: int, after: int) -> int:
        old = self.node_of[before]
        piece = self.pieces[old]
        others = [reader for reader in self.readers[before] if reader != k]
        joins = (
            not others
            and old == len(self.pieces) - 1
            and piece.kind == "value"
            and {self.calls[c].link for c in piece.calls} <= {-1, call.link}
        )
        if joins:  # nobody ever sees what it was before
            self.pieces.pop()
            again = self._new(
                Piece("value", [], after, unread_nbytes=piece.unread_nbytes), call, [after]
            )
            fresh = self.pieces[again]
            fresh.deps = {**piece.deps, **{d: None for d in fresh.deps if d != old}}
            fresh.calls, fresh.over = [*piece.calls, k], piece.over
            fresh.captured |= piece.captured
            return again
        return self._new(Piece("value", [k], after, over=old), call, [after])

    def _effect(self, k: int, call: AtenCall, outer: Any, main: int | None) -> None:
        """A change of a tensor of the user's: once, after whoever reads what was there before."""
        effect = Piece("effect", [k] if main is None else [], captured=True)
        if main is None:
            for version in call.reads:
                effect.deps[self.node_of[version]] = None
        else:
            effect.deps[main] = None
        node = len(self.pieces)
        for before, after in outer:
            for reader in self._readers_of_leaf.get(before, ()):
                if reader != main and self.pieces[reader].kind != "call":
                    effect.deps[reader] = None
            self.node_of[after] = node
        self.pieces.append(effect)
        self.effects.append(node)

    # -- nodes -------------------------------------------------------------------------------------

    def nodes(
        self, workspace: Callable[[AtenCall], int], state: Callable[[AtenCall], int]
    ) -> list[Node]:
        return [self._node(k, workspace, state) for k in range(len(self.pieces))]

    def _node(self, k: int, workspace: Any, state: Any) -> Node:
        piece = self.pieces[k]
        version = self.versions[piece.version] if piece.version >= 0 else None
        if piece.kind == "leaf":
            assert version is not None and version.leaf is not None
            leaf = version.leaf
            name = leaf.name or (
                f"argument {leaf.argument}" if leaf.argument is not None else leaf.kind
            )
            return Node(
                name=name, op=leaf.kind, shape=tuple(leaf.tensor.shape),
                dtype=_dtype(leaf.tensor.dtype), nbytes=version.nbytes, resident=True,
            )  # fmt: skip
        head = piece
        if piece.kind == "result":
            head = self.pieces[next(iter(piece.deps))]
        elif piece.kind == "effect" and not piece.calls:
            head = self.pieces[next(iter(piece.deps))]
            if head.kind == "result":
                head = self.pieces[next(iter(head.deps))]
        calls = [self.calls[c] for c in head.calls]
        main = calls[-1]
        seen = next(
            (o for c in reversed(calls) for o in c.outs if o and o.version == piece.version), None
        )
        seen = seen or next((o for o in main.outs if o), None)
        costs = piece.kind in ("value", "call") or bool(piece.calls)
        again = sum(
            self.versions[after].nbytes
            for c in calls for before, after in c.writes if self._is_leaf(before)
        ) if piece.kind in ("value", "call") else 0  # fmt: skip
        states = [state(c) for c in calls if c.random] if piece.kind in ("value", "call") else []
        space = max((workspace(c) for c in calls), default=0) if costs else 0
        return Node(
            name=main.name,
            op=main.name,
            deps=tuple(sorted(piece.deps)),
            shape=seen.size if seen and piece.kind != "effect" else (),
            dtype=_dtype(seen.dtype) if seen else "float32",
            nbytes=self._nbytes(piece),
            flops=sum(map(flops_of, calls)) if costs else 0,
            moved_nbytes=sum(moved_by(c, self.versions) for c in calls) if costs else 0,
            workspace=space + (piece.unread_nbytes if piece.kind == "value" else 0),
            workspace_again=again + max(states, default=0),
            state_nbytes=max(states, default=0),
            captured=piece.captured,
            call=piece.kind == "call",
            overwrites=self._overwrites(piece),
            scope=self._scope(main),
            source=main.source,
        )

    def _nbytes(self, piece: Piece) -> int:
        if piece.kind == "call":
            return piece.unread_nbytes
        return 0 if piece.version < 0 else self.versions[piece.version].nbytes

    def _overwrites(self, piece: Piece) -> tuple[tuple[int, int], ...]:
        if piece.over is None:
            return ()
        return ((piece.over, self.versions[piece.version].nbytes),)

    def _scope(self, call: AtenCall) -> str:
        paths = [self.captured.scopes.get(m, "") for m in call.modules]
        return next((path for path in reversed(paths) if path), "")


def _needed(captured: Captured) -> set[int]:
    """The forward's calls on which outputs, gradients or a tensor of the user's depend."""
    wanted = {r.version for r in (*captured.outputs, *captured.gradients) if isinstance(r, Ref)}
    for call in captured.calls[captured.forward :]:
        wanted |= {*call.reads, *(before for before, _ in call.writes)}
    found = set()
    for k in reversed(range(captured.forward)):
        call = captured.calls[k]
        changes = {after for _, after in call.writes}
        if wanted & {*call.makes, *changes} or any(captured.versions[v].leaf for v in changes):
            found.add(k)
            wanted |= {*call.reads, *(before for before, _ in call.writes)}
    return found


def _readers(captured: Captured) -> dict[int, list[int]]:
    """For each version that anything reads, the calls that do; a return reads as FOREVER."""
    found: dict[int, list[int]] = {}
    for k, call in enumerate(captured.calls):
        for version in dict.fromkeys((*call.reads, *(before for before, _ in call.writes))):
            found.setdefault(version, []).append(k)
    for ref in (*captured.outputs, *captured.gradients):
        if isinstance(ref, Ref):
            found.setdefault(ref.version, []).append(FOREVER)
    return found


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
