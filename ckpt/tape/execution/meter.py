"""Counts the bytes of the arrays that an execution holds, by owner and kind.

It reads arrays, never a node's declared bytes, so that agreement with `simulate` means something;
and it holds none of them, which would keep them alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ckpt.tape.core.cotangents import owner
from ckpt.tape.execution.lines import Change, Var
from ckpt.timeline import KINDS

CAPTURED, COTANGENTS = KINDS[1], KINDS[3]


class Meter:
    """What is held under each name, and the totals by `timeline.KINDS`."""

    def __init__(self, residents: Iterable[Any]) -> None:
        self.totals = [0] * len(KINDS)
        self._residents = {id(owner(array)) for array in residents}
        self._captured: dict[Var, int] = {}
        """Bytes of each captured array: of its base, be that an argument, only that part."""
        self._held: dict[tuple[int, int], list[int]] = {}
        """(kind, id of an owner) -> how many hold it, and its bytes."""
        self._under: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(kind, node) -> what is held there: keys of the above, or (-1, bytes) of a number."""

    def after(self, changes: Sequence[Change], env: dict[Var, Any]) -> tuple[list[int], int]:
        """The totals once the changes are made, and what of them is captured."""
        latest = {(change.kind, change.node): change.var for change in changes}
        for kind, node in latest:
            self.drop(kind, node)
        for (kind, node), var in latest.items():
            if var is None:
                continue
            if kind == CAPTURED:
                self._captured[var] = env[var].nbytes
            if var.root in self._captured:
                key = KINDS.index(CAPTURED), id(var.root)
                self._under[KINDS.index(kind), node] = [key]
                self._hold(key, self._captured[var.root])
            else:
                self.hold(kind, node, env[var], var.taken_from is not None)
        return self.totals, self.totals[KINDS.index(CAPTURED)]

    def drop(self, kind: str, node: int) -> None:
        """Nothing is held under this name any more."""
        group = KINDS.index(kind)
        for key in self._under.pop((group, node), ()):
            if key[0] < 0:
                self.totals[group] -= key[1]
                continue
            held = self._held[key]
            held[0] -= 1
            if not held[0]:
                self.totals[key[0]] -= held[1]
                del self._held[key]

    def hold(self, kind: str, node: int, value: Any, shared: bool = False) -> None:
        """The value - an array, a number, or several of them - is held under this name.

        ``shared``: a number, too, is the one that is held elsewhere, and not another alike.
        """
        group = KINDS.index(kind)
        several = isinstance(value, (tuple, list))
        shared = shared or several or kind == COTANGENTS
        under = self._under[group, node] = []
        for array in value if several else (value,):
            if isinstance(array, np.generic) and not shared:
                self.totals[group] += array.nbytes
                under.append((-1, array.nbytes))
                continue
            whole = owner(array)
            if id(whole) not in self._residents:
                under.append((group, id(whole)))
                self._hold(under[-1], whole.nbytes)

    def _hold(self, key: tuple[int, int], nbytes: int) -> None:
        """One more holds the bytes of that key."""
        held = self._held.setdefault(key, [0, nbytes])
        if not held[0]:
            self.totals[key[0]] += held[1]
        held[0] += 1
