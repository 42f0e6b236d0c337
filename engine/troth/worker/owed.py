"""The cancels that a workflow owes its children: those of calls that its code gave up, and all when the code has ended.

Postgres carries them out (a tick does, in batches); here is kept what has not been said yet. Nothing is said before all that the
code asked for is recorded: a child that is made after its cancel would never hear of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from troth.calls import Cancel, Turn
from troth.core import Operation
from troth.worker.wording import child_id

CANCELS_MAX: Final = 1000
"""Cancels that one turn says."""


class Owed:
    """What one run owes its children."""

    __slots__ = (
        "_closing_since",
        "_given_up",
        "_said_up_to",
        "_saying",
        "_saying_close",
        "_saying_up_to",
        "_together",
    )

    def __init__(self, asked: int) -> None:
        self._said_up_to = asked
        self._saying_up_to = asked
        self._given_up: dict[str, Operation] = {}
        self._closing_since: int | None = None
        self._together = False
        self._saying: list[str] = []
        self._saying_close = False

    def __bool__(self) -> bool:
        """Whether the code gave up a child, or ended while some go on, and that was not said."""
        return bool(self._given_up) or self._ends_unsaid

    @property
    def _ends_unsaid(self) -> bool:
        since = self._closing_since
        return self._together and since is not None and since > self._said_up_to

    def begin(self) -> None:
        """The code is run again from its beginning, and tells anew what it owes."""
        self._given_up.clear()
        self._closing_since = None

    def give_up(self, operation: Operation, told: int) -> None:
        """After this event the code no longer waits for this child."""
        if told > self._said_up_to:
            self._given_up[operation.path] = operation

    def closing(self, told: int, open_operations: Mapping[str, Operation]) -> None:
        """The code has ended after this event, and these are open: owed a cancel all together, unless one is to be waited for."""
        if self._closing_since is None:
            self._closing_since = told
            self._together = all(each.binding != "wait" for each in open_operations.values())

    def say(self, turn: Turn, open_operations: Mapping[str, Operation], told: int) -> list[Cancel]:
        """What is to be said with this turn, which is about all events up to `told`."""
        if not self:
            self._saying_up_to = told
            return []
        if self._ends_unsaid:
            turn.close = self._saying_close = True
            self._given_up.clear()
        self._saying = list(self._given_up)[:CANCELS_MAX]
        if not self.more:
            self._saying_up_to = told
        return [
            Cancel(turn.task, child_id(turn.task, self._given_up[path]))
            for path in self._saying
            if path in open_operations
        ]

    @property
    def more(self) -> bool:
        """Whether there is more than this turn says."""
        return len(self._saying) < len(self._given_up)

    @property
    def saying(self) -> bool:
        """Whether this turn says something."""
        return self._saying_close or bool(self._saying)

    def said(self) -> None:
        """The turn was heard."""
        self._said_up_to = max(self._said_up_to, self._saying_up_to)
        for path in self._saying:
            self._given_up.pop(path, None)

    def unsaid(self) -> None:
        """A new turn begins."""
        if self._saying:
            self._saying = []
        self._saying_close = False
        self._saying_up_to = self._said_up_to
