"""The world around one workflow: a database that puts all events into one order, people, children, timers, and a worker
that tells its code things ahead, is overtaken, and dies.

Nothing is judged here but one thing: whenever the code is run again, it must do what it did before.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import cast

from tests.core.driving import STARTED_AT
from tests.core.simulation.life import Difference, Life
from tests.core.simulation.programs import Node
from troth.core import CANCEL, CANCEL_PATH, PATCH, STEP, TIMER, Entry, Operation
from troth.errors import Diverged

_ACTIONS_MAX = 1_500
_CANCELS_MAX = 3

Asked = tuple[Operation, int]
"""An operation and its cohort, as a worker sends them."""


class World:
    """Drives one workflow to its end. `journal` is durable; what `life` was told beyond it is not."""

    def __init__(self, tree: Node, rng: random.Random, *, calm: bool = False) -> None:
        self.tree = tree
        self.rng = rng
        self.calm = calm
        self.journal: list[Entry] = []
        self.patches: list[str] = []
        self.reached: Counter[str] = Counter()
        self._ahead: list[Entry] = []
        self._known: dict[str, Asked] = {}
        self._unwanted: set[str] = set()
        self._confirmed = -1
        self._committed = -1
        self._clock = STARTED_AT
        self._value = 0
        self._cancels = 0
        self._to_cancel: list[str] = []
        self.lives: list[Life] = []
        self.changed = rng.random() < 0.3
        self.life = self.begun()

    def begun(self) -> Life:
        """Another life, of the code as it is now. Where it is known that code was, it is not to be patched any more."""
        life = Life(self.tree, changed=self.changed)
        self.lives.append(life)
        life.start(max(len(self.journal), self._confirmed + 1), self.patches)
        return life

    def evict(self) -> None:
        """Take down every life that there was."""
        for life in self.lives:
            life.machine.evict()

    # --- what happens ---

    def run(self) -> None:
        """One thing after another, until the workflow has ended or waits for nothing."""
        self._patch()
        for _ in range(_ACTIONS_MAX):
            if self.life.machine.done and not self._ahead:
                return
            if not self._act():
                return
        raise Difference("the code does not end")

    def _act(self) -> bool:
        chance = self.rng.random()
        if self.calm:
            return self._outcome() or self._commit() or self._event()
        if chance < 0.02:
            if self.rng.random() < 0.5:
                self._append(self._outside())
            self._crash("a crash")
        elif chance < 0.03 and self._cancels < _CANCELS_MAX and not self.life.machine.done:
            self._news([self._cancel()])
        elif chance < 0.04:
            self._by_hand()
        elif chance < 0.32:
            self._commit()
        elif chance < 0.62:
            return self._event() or self._outcome() or self._commit() or self._stuck()
        else:
            return self._outcome() or self._event() or self._commit() or self._stuck()
        return True

    def _stuck(self) -> bool:
        """The code waits for nothing that could happen: a person cancels it; some code ignores even that."""
        if self._cancels >= 2 * _CANCELS_MAX:
            self.reached["stuck"] += 1
            return False
        self._news([self._cancel()])
        return True

    # --- the worker ---

    def _outcome(self) -> bool:
        """A step's outcome, or a timer that is due here, is told before it is durable."""
        machine = self.life.machine
        able = [one for one in machine.open.values() if one.kind in (STEP, TIMER)]
        if not able or machine.done:
            return False
        operation = self._chosen(able)
        self._tell_ahead(self._entry(operation, machine.told + 1, machine.now))
        return True

    def _tell_ahead(self, entry: Entry) -> None:
        self._ahead.append(entry)
        self._feed(entry)
        self._patch()

    def _patch(self) -> None:
        """What was decided at a patch is an outcome of the worker's own, told at once."""
        machine = self.life.machine
        for operation in [one for one in self.life.fresh if one.kind == PATCH]:
            if operation.path in machine.open:
                entry = self._entry(operation, machine.told + 1, machine.now)
                self._ahead.append(entry)
                self._feed(entry)

    def _commit(self) -> bool:
        """The worker says what it told ahead and what the code has asked for; nobody was faster."""
        machine = self.life.machine
        asked = {
            path: (operation, machine.cohort(operation.issued))
            for path, operation in machine.open.items()
            if operation.kind not in (STEP, PATCH)
        }
        if not self._ahead and self._committed == machine.told:
            return False
        self._append(self._ahead)
        self._ahead = []
        self._known = asked
        self._unwanted.update(self._to_cancel)
        self._to_cancel = []
        if not machine.done:
            self._confirmed = machine.told
        self._committed = machine.told
        return True

    def _crash(self, why: str) -> None:
        """The process dies; another one runs the code again through the journal."""
        self.reached[why] += 1
        before = self.life
        if not self.changed and self.rng.random() < 0.5:
            self.reached["a change"] += 1
            self.changed = True
        self._ahead = []
        self._to_cancel = []
        self.life = self.replayed(len(self.journal))
        if self._confirmed >= 0:
            self.life.same_as(before, self._confirmed, f"replay after {why}")
        # the code is the same, so what it asked for after the last entries is not known to the database yet
        self._confirmed = min(self._confirmed, len(self.journal))
        self._patch()

    def replayed(self, upto: int) -> Life:
        life = self.begun()
        for entry in self.journal[:upto]:
            life.feed(entry)
        return life

    # --- the others ---

    def _event(self) -> bool:
        entries = self._outside()
        if entries and self.rng.random() < 0.02 and self._cancels < _CANCELS_MAX and not self.calm:
            entries.insert(0, self._cancel())
        if entries:
            self._news(entries)
        return bool(entries)

    def _outside(self) -> list[Entry]:
        """Something happens to what the database knows of: a promise, a child, a timer of a suspended task."""
        recorded = {entry.path for entry in self.journal}
        able = [asked for path, asked in self._known.items() if path not in recorded]
        entries: list[Entry] = []
        for _ in range(1 + (self.rng.random() < 0.3)):
            if able:
                asked = self._picked(able)
                able.remove(asked)
                if asked[0].path not in self.life.machine.open:
                    self.reached["late"] += 1
                entries.append(self._entry(asked[0], 0, 0, asked[1]))
        return entries

    def _cancel(self) -> Entry:
        self._cancels += 1
        return Entry(0, CANCEL_PATH, CANCEL, 0, None, "canceled", None, self._clock)

    def _by_hand(self) -> None:
        """Somebody writes a step's outcome, perhaps before the code has come to it."""
        recorded = {entry.path for entry in self.journal}
        paths = [one.path for one in self.life.machine.open.values() if one.kind == STEP]
        paths += [f"{path}:{n}" for path in ("a", "1~a", "2~b", "undo") for n in (2, 3)]
        path = paths[int(self.rng.random() * len(paths))]
        if path in recorded:
            return
        self.reached["by hand" if path in self.life.machine.open else "by hand, early"] += 1
        self._value += 1
        self._news([Entry(0, path, STEP, None, None, "resolved", f"hand {self._value}", self._clock)])

    def _news(self, entries: list[Entry]) -> None:
        """Others were faster: what was told ahead falls, and comes after them or not at all."""
        fallen, self._ahead = self._ahead, []
        named = {entry.path for entry in entries}
        if self.rng.random() < 0.3:
            fallen = []
        # what was issued after an event that falls may never be issued there again, so it falls for good
        seen = len(self.journal)
        fallen = [one for one in fallen if one.path not in named and (one.issued or 0) <= seen]
        overtaken = len(self.journal) < self.life.machine.told
        self._append([*entries, *fallen])
        if overtaken:
            self._crash("being overtaken")
            return
        self.life.machine.foresee(len(self.journal), self.patches)
        for entry in self.journal[self.life.machine.told :]:
            self._feed(entry)
        self._patch()

    # --- entries ---

    def _append(self, entries: list[Entry]) -> None:
        """The database writes entries down, at its own seq and instant, which never goes back."""
        for entry in entries:
            seq, at = (
                len(self.journal) + 1,
                max(entry.at, self.journal[-1].at if self.journal else STARTED_AT),
            )
            self.journal.append(
                Entry(
                    seq,
                    entry.path,
                    entry.kind,
                    entry.issued,
                    entry.digest,
                    entry.state,
                    entry.outcome,
                    at,
                    entry.cohort,
                )
            )
            if entry.kind == PATCH:
                self.patches.append(entry.path)
            self.reached[entry.kind] += 1

    def _entry(self, operation: Operation, seq: int, now: int, cohort: int | None = None) -> Entry:
        rng = self.rng
        self._value += 1
        self._clock += int(rng.random() * 3) * 50_000
        state, outcome = "resolved", f"{operation.path} {self._value}"
        if self.calm:
            outcome = operation.path
        elif operation.kind == TIMER:
            self._clock = max(self._clock, operation.at + cast("int", operation.request))
        elif operation.kind != PATCH and rng.random() < 0.12:
            state = "rejected"
        if cohort is None:
            cohort = self.life.machine.cohort(operation.issued)
        return Entry(
            seq,
            operation.path,
            operation.kind,
            operation.issued,
            operation.digest,
            state,
            outcome,
            max(now, self._clock),
            cohort,
        )

    def _feed(self, entry: Entry) -> None:
        try:
            self.life.feed(entry)
        except Diverged as error:
            raise Difference(f"entry {entry.seq} was not expected: {error}") from error
        self._to_cancel += [one.path for one in self.life.given_up]

    def _chosen(self, operations: list[Operation]) -> Operation:
        return operations[int(self.rng.random() * len(operations))]

    def _picked(self, able: list[Asked]) -> Asked:
        """One of those that may be settled; a child that was given up ends soon."""
        unwanted = [asked for asked in able if asked[0].path in self._unwanted]
        if unwanted and self.rng.random() < 0.5:
            able = unwanted
        return able[int(self.rng.random() * len(able))]
