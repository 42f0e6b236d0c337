"""One life of a workflow: a machine that runs its program, and all that could be seen of it, turn by turn."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from tests.core.driving import STARTED_AT, Issued, described
from tests.core.simulation.interpreter import Interpreter
from tests.core.simulation.programs import Node
from troth.core import Entry, Machine, Operation, Raised


class Difference(AssertionError):
    """Two lives of one workflow were told the same and did not do the same."""


class Turn(NamedTuple):
    """What the machine answered to one entry, and how long the code's log was then."""

    issued: list[Issued]
    given_up: list[str]
    open: tuple[str, ...]
    cohort: int
    closing: bool
    outcome: str | None
    now: int
    log: int


class Life:
    """A machine, told entry by entry. `turns[n]` is what it did when it was told entry n."""

    def __init__(self, tree: Node, *, changed: bool) -> None:
        self.log: list[object] = []
        self.reached: Counter[str] = Counter()
        self.reports: list[Any] = []
        self.machine: Machine[object] = Machine(
            Interpreter(tree, self.log, self.reached, changed=changed).main,
            started_at=STARTED_AT,
            path_length_max=10_000,
            report=self.reports.append,
        )
        self.turns: list[Turn] = []
        self.fresh: list[Operation] = []
        self.given_up: list[Operation] = []

    def start(self, last_seq: int, patches: list[str]) -> None:
        self.machine.foresee(last_seq, patches)
        self._turned(self.machine.start())

    def feed(self, entry: Entry) -> None:
        self._turned(self.machine.feed(entry))

    def _turned(self, issued: list[Operation]) -> None:
        machine = self.machine
        given_up = machine.take_given_up()
        self.fresh = issued
        self.given_up = given_up
        self.turns.append(
            Turn(
                described(issued),
                [one.path for one in given_up],
                tuple(machine.open),
                machine.cohort(machine.told),
                machine.closing,
                ended(machine),
                machine.now,
                len(self.log),
            )
        )

    def same_as(self, other: Life, upto: int, what: str) -> None:
        """Raise Difference unless both did the same when they were told the first so many entries."""
        mine, theirs = self.turns[: upto + 1], other.turns[: upto + 1]
        if mine != theirs:
            for seq, (one, another) in enumerate(zip(mine, theirs, strict=False)):
                if one != another:
                    raise Difference(f"{what}, at entry {seq}:\n  then {another}\n  now  {one}")
            raise Difference(f"{what}: {len(theirs)} turns then, {len(mine)} now")
        length = mine[-1].log
        if self.log[:length] != other.log[:length]:
            pairs = zip(self.log[:length], other.log[:length], strict=True)
            seen, before = next(pair for pair in pairs if pair[0] != pair[1])
            raise Difference(f"{what}, in what the code saw:\n  then {before}\n  now  {seen}")


def ended(machine: Machine[object]) -> str | None:
    outcome = machine.outcome
    if isinstance(outcome, Raised):
        return f"Raised {outcome.exception!r}"
    return None if outcome is None else repr(outcome)
