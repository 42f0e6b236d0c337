"""One claimed task in this process: the machine that runs its code, and what of it is durable.

A run stands between a machine, which knows only events and operations, and `advance`, which knows only rows. It holds

- `told`: the events that the code has been told, in order; `seen` of them are durable and known to be so,
- the rest, *told ahead*: outcomes that this process saw first and proposes, with their instants,
- what the code has asked for and is not recorded yet, and the steps that wait until it is.

The law it keeps (DESIGN 4 and 5): one call under way; a step starts only when all that was told and asked for before it is
durable; the database's order wins. If it has events that the code was not told (`news`), what was told ahead either is
exactly those, or the code is run again from the journal, which is always possible.

It does no I/O. The worker feeds it outcomes and answers, sends the turns that it makes, and starts the steps that it names.
Its methods run code, so they must be called from a plain callback, never from inside an asyncio task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from troth import limits
from troth.calls import Turn
from troth.codec import Payloads, Sealed
from troth.context import WAIT, Context
from troth.core import PROMISE, STEP, TIMER, Entry, Machine, Operation
from troth.errors import Diverged
from troth.model import Advanced, Claimed, JournalEntry
from troth.registry import Workflow
from troth.worker.wording import Arrived, TurnParts, creation, finish, fires_at, outcome, raw, timer


class Run:
    """One workflow under way in this process."""

    __slots__ = (
        "_ahead",
        "_arrived",
        "_charged",
        "_claimed",
        "_created",
        "_halting",
        "_last_then",
        "_machine",
        "_news",
        "_now",
        "_payloads",
        "_releasing",
        "_sent",
        "_sent_creations",
        "_started",
        "_workflow",
        "busy",
        "ended",
        "epoch",
        "in_flight",
        "seen",
        "task",
        "told",
    )

    def __init__(
        self,
        claimed: Claimed,
        workflow: Workflow[..., Any],
        payloads: Payloads,
        now: Callable[[], int],
    ) -> None:
        self.task = claimed.task
        self.epoch = claimed.epoch
        self.told: list[JournalEntry] = []
        self.seen = 0
        self.in_flight = False
        self.ended = False
        self.busy = 0
        """How often in a row the last turn was answered `busy`."""
        self._claimed = claimed
        self._workflow = workflow
        self._payloads = payloads
        self._now = now
        self._machine: Machine[Any] | None = None
        self._arrived: deque[Arrived] = deque()
        self._ahead: list[Arrived] = []
        self._started: set[str] = set()
        self._created: set[str] = set()
        self._sent = 0
        self._sent_creations: list[str] = []
        self._halting: dict[str, object] | None = None
        self._releasing = False
        self._charged = False
        self._news = False
        self._last_then: str | None = None

    # --- what the worker tells ---

    def begin(self) -> None:
        """Run the code from its beginning through the journal that came with the claim."""
        self._replay(self._claimed.journal)

    def arrived(self, operation: Operation, state: str, value: Sealed | None, error: Sealed | None) -> None:
        """An operation that this process carried out has its outcome."""
        self._arrived.append(Arrived(operation, state, value, error))
        if not self.in_flight:
            self._tell_arrived()

    def release(self, *, charged: bool = False) -> None:
        """Give the task back at the next turn, whatever it is doing. `charged`: its own code is why."""
        self._releasing = True
        self._charged = self._charged or charged

    def heard_news(self) -> None:
        """There are events that the code was not told: ask for them at the next turn."""
        self._news = True

    def halt(self, code: str, error: BaseException) -> None:
        """Park the task at the next turn, with a reason that a person can read."""
        reason: dict[str, object] = {"code": code, "message": str(error)[:2000] or type(error).__name__}
        if isinstance(error, Diverged):
            reason["data"] = {
                "operation": error.operation,
                "recorded": error.recorded,
                "issued": error.issued,
                "line": error.line,
            }
        self._halting = reason
        self.evict()

    def answered(self, answer: Advanced) -> None:
        """What the database said to the last turn."""
        self.in_flight = False
        match answer.answer:
            case "busy":
                # nothing was said: not what it asked for either, and what came meanwhile waits to be told
                self.busy += 1
                self._news = True
            case "fenced" | "halted":
                self.ended = True
            case "ok":
                self.busy = 0
                self._is_durable()
                if answer.entries:
                    self._tell_news(answer.entries)
                elif self._last_then is not None:
                    self.ended = True
            case "news":
                self.busy = 0
                self._take_news(answer.entries or [])
        if not self.ended:
            self._tell_arrived()

    # --- what the worker asks ---

    def startable(self) -> list[Operation]:
        """Steps to start now: all that came before them is durable."""
        machine = self._machine
        if self.in_flight or self._ahead or machine is None or machine.done or self._leaving:
            return []
        if any(path not in self._created for path in self._creations()):
            return []
        steps = [op for op in machine.open.values() if op.kind == STEP and op.path not in self._started]
        self._started.update(op.path for op in steps)
        return steps

    def next_timer(self) -> Operation | None:
        """The open timer that fires first."""
        machine = self._machine
        if machine is None:
            return None
        timers = [op for op in machine.open.values() if op.kind == TIMER]
        return min(timers, key=fires_at, default=None)

    def carrying_out(self, path: str) -> bool:
        """Whether the code still waits for this step."""
        return self._machine is not None and path in self._machine.open

    def wants_turn(self, lingering: bool) -> bool:
        """Whether there is something to say to the database. `lingering`: a timer is near, so do not suspend."""
        machine = self._machine
        if self.ended or self.in_flight:
            return False
        if self._news or self._leaving or self._ahead or machine is None or machine.done:
            return True
        if any(path not in self._created for path in self._creations()):
            return True
        return not lingering and not self._working()

    def turn(self, lingering: bool) -> TurnParts:
        """Say it. The run is in flight until `answered`."""
        self.in_flight = True
        self._news = False
        turn = Turn(self.task, self.epoch, self.seen)
        parts = TurnParts(turn)
        machine = self._machine
        if self._halting is not None:
            turn.then, turn.reason = "halt", self._halting
        elif machine is not None and machine.done:
            finish(turn, self._workflow.name, machine.outcome, self.told, self._payloads)
        elif self._releasing:
            turn.then, turn.charged = "release", self._charged
        # not strict: where telling failed, and the task is to be parked, one of the two is longer
        parts.outcomes = [
            outcome(self.task, a, e) for a, e in zip(self._ahead, self.told[self.seen :], strict=False)
        ]
        self._sent = len(parts.outcomes)
        self._sent_creations = []
        self._last_then = turn.then
        if machine is None:
            return parts
        for path, operation in self._creations().items():
            if path not in self._created:
                parts.operations.append(creation(self.task, operation))
                self._sent_creations.append(path)
        if turn.then is None and not lingering and not self._working():
            turn.then = "suspend"
            parts.timers = [timer(self.task, op) for op in machine.open.values() if op.kind == TIMER]
        self._last_then = turn.then
        return parts

    def undone(self) -> None:
        """The turn was not sent, or nobody knows: it is to be said again."""
        self.in_flight = False

    def evict(self) -> None:
        """Let go of the machine."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.evict()

    # --- telling ---

    def _replay(self, entries: Sequence[JournalEntry]) -> None:
        """Run the code anew and tell it all these events, which are durable."""
        self.evict()
        claimed, payloads, workflow = self._claimed, self._payloads, self._workflow
        self.told = []
        self.seen = 0
        self._ahead = []
        arguments = payloads.plain(claimed.args, claimed.args_headers, "The arguments")

        async def main() -> Any:
            # arguments that do not fit are the workflow's failure, like any error of its code
            args, kwargs = workflow.arguments(arguments)
            return await workflow.fn(context, *args, **kwargs)

        machine: Machine[Any] = Machine(
            main,
            started_at=claimed.started_at,
            path_length_max=limits.id_length_max - len(self.task) - 1,
        )
        context = Context(machine, self.task, payloads=payloads, seed=claimed.seed, attempt=claimed.attempts)
        self._machine = machine
        machine.start()
        for entry in entries:
            self._tell(entry)
        self.seen = len(self.told)

    def _tell(self, entry: JournalEntry) -> None:
        machine = self._machine
        assert machine is not None
        # what the codec hid is opened before the code hears of it: a lost key parks the workflow, it is no event
        entry = self._opened(entry)
        machine.feed(
            Entry(
                entry.seq,
                entry.operation,
                entry.kind,
                entry.issued,
                entry.digest,
                entry.state,
                entry,
                entry.at,
            )
        )
        self.told.append(entry)

    def _opened(self, entry: JournalEntry) -> JournalEntry:
        if entry.headers is None:
            return entry
        what = f"What {entry.operation!r} brought"
        value = (
            msgspec.Raw(self._payloads.plain(entry.value, entry.headers, what))
            if entry.state == "resolved"
            else entry.value
        )
        error = (
            msgspec.Raw(self._payloads.plain(entry.error, entry.headers, what))
            if entry.state == "rejected"
            else entry.error
        )
        return msgspec.structs.replace(entry, value=value, error=error, headers=None)

    def _tell_arrived(self) -> None:
        """Tell the code what this process saw first, at the instant that it proposes for it."""
        machine = self._machine
        while self._arrived and machine is not None and not machine.done:
            arrived = self._arrived.popleft()
            # as the code issued it last: where events came in another order than it was told, a timer may have been issued
            # after another one since it was armed, and not be due yet
            operation = machine.open.get(arrived.operation.path)
            if operation is None or (operation.kind == TIMER and fires_at(operation) > self._now()):
                continue
            arrived.operation = operation
            at = max(machine.now, self._now())
            plain = self._payloads.plain
            entry = JournalEntry(
                seq=machine.told + 1,
                operation=operation.path,
                kind=operation.kind,
                state=arrived.state,
                at=at,
                issued=operation.issued,
                epoch=self.epoch,
                digest=operation.digest,
                value=raw(arrived.value, plain),
                error=raw(arrived.error, plain),
            )
            self._tell(entry)
            self._ahead.append(arrived)

    def _is_durable(self) -> None:
        self.seen += self._sent
        del self._ahead[: self._sent]
        self._sent = 0
        self._created.update(self._sent_creations)
        self._sent_creations = []

    def _tell_news(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self._tell(entry)
        self.seen = len(self.told)

    def _take_news(self, entries: Sequence[JournalEntry]) -> None:
        """The journal went on without us: keep what was told ahead if it is just that, else run the code again."""
        ahead = self.told[self.seen :]
        if len(ahead) <= len(entries) and all(
            mine.operation == theirs.operation and mine.at == theirs.at and mine.state == theirs.state
            for mine, theirs in zip(ahead, entries, strict=False)
        ):
            self._ahead = []
            self._tell_news(entries[len(ahead) :])
            return
        self._replay([*self.told[: self.seen], *entries])
        machine = self._machine
        recorded = {entry.operation for entry in self.told}
        self._arrived = deque(a for a in self._arrived if a.operation.path not in recorded)
        if machine is not None:
            self._created &= set(machine.open)

    # --- speaking ---

    @property
    def _leaving(self) -> bool:
        return self._releasing or self._halting is not None

    def _working(self) -> bool:
        """Whether a step is under way or could start."""
        machine = self._machine
        return bool(self._arrived) or (
            machine is not None and any(op.kind == STEP for op in machine.open.values())
        )

    def _creations(self) -> dict[str, Operation]:
        machine = self._machine
        if machine is None:
            return {}
        return {path: op for path, op in machine.open.items() if op.kind in (PROMISE, WAIT)}
