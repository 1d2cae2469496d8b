"""What a step of the backward may write over, and how many bytes less it holds then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckpt.graph import Overwrites
from ckpt.tape.core.rules import Rule
from ckpt.tape.traced.kernel import Account, Kernel

NOTHING = Account((), 0, 0, None)


@dataclass(slots=True)
class Turn:
    """One rule's turn within a step."""

    rule: Rule
    held: int = 0
    """Bytes held beside the activations once its result is made."""
    adding: int = 0
    """The workspace of adding that to what is there already, when the rule's own is gone."""
    made: int = 0
    """Bytes made for its result, none if that lies in the incoming cotangent or is but summed."""
    stays: bool = False
    """Are they still there after it?"""
    account: Account = NOTHING
    kernel: Kernel | None = None
    """None: a rule that may write over nothing."""
    reads: frozenset[int] = frozenset()
    """The graph's nodes whose values it reads."""
    arguments: Sequence[Any] = ()
    """For each of the kernel's, the graph's node."""
    dying: frozenset[int] = frozenset()
    """Which of them may be written over in any case."""
    over: dict[int, Account] = field(default_factory=dict)
    """Node -> the account where its value is written over; filled in by `takeovers`."""

    def high(self, account: Account) -> int:
        """The most bytes held beside the activations while it runs, written over as that says."""
        return self.held + max(account.workspace, self.adding)

    @property
    def whole(self) -> int:
        """The same, with what libraries allocate."""
        return self.held + max(self.account.workspace + self.account.scratch, self.adding)

    def account_over(self, value: int) -> Account | None:
        """What it takes where it may write over that value; None if it doesn't, even then."""
        places = [k for k, node in enumerate(self.arguments) if node == value]
        if self.kernel is None or len(places) != 1:
            return None
        account = self.kernel.account(self.dying | set(places))
        return account if places[0] in account.overwrites else None


def takeovers(values: Iterable[int], turns: Sequence[Turn]) -> Overwrites:
    """Which of the values the step may write over, with what that saves, the most first.

    The last rule that reads a value writes over it. Its bytes are there until the step ends, as
    they are otherwise; what isn't there is the array that would have been made beside them.
    """
    most = max((turn.high(turn.account) for turn in turns), default=0)
    found = []
    for value in values:
        last = max(k for k, turn in enumerate(turns) if value in turn.reads)
        turn = turns[last]
        account = turn.account_over(value)
        if account is None:
            continue
        less = turn.made if account.lies_in is not None else 0
        highs = [other.high(other.account) for other in turns]
        highs[last] = turn.high(account) - less
        if turn.stays:
            highs[last + 1 :] = [high - less for high in highs[last + 1 :]]
        if max(highs) < most:
            turn.over[value] = account
            found.append((value, most - max(highs)))
    return tuple(sorted(found, key=lambda pair: -pair[1]))
