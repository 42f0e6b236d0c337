"""One claimed task in this process: the machine that runs its code, and what of it is durable.

A run stands between a machine, which knows only events and operations, and `advance`, which knows only rows. It holds

- `told`: the events that the code has been told, in order; `seen` of them are durable and known to be so,
- the rest, *told ahead*: outcomes that this process saw first and proposes, with their instants,
- the agenda: what the code has asked for and is not recorded yet, and the steps that wait until it is.

The law it keeps (docs/design.md): one call under way; a step starts only when all that was told and asked for before it is
durable; the database's order wins. If it has events that the code was not told (`news`), what was told ahead either is
exactly those, or the code is run again from the journal, which is always possible. A run whose task was suspended may be
kept: if the same worker claims it again, it goes on from where it stood.

It does no I/O. The worker feeds it outcomes and answers, sends the turns that it makes, and starts the steps that it names.
Its methods run code, so they must be called from a plain callback, never from inside an asyncio task.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from troth.calls import Turn
from troth.codec import Payloads, Sealed
from troth.context.requests import CALL
from troth.core import PATCH, STEP, TIMER, Machine, Operation
from troth.model import Advanced, Claimed, JournalEntry, OpenWait
from troth.registry import Workflow
from troth.worker.agenda import Agenda
from troth.worker.attempts import Attempts
from troth.worker.owed import Owed
from troth.worker.telling import as_told, begins_with, confirm, frontier, made_machine, patches, without_parts
from troth.worker.wording import (
    Arrived,
    TurnParts,
    creation,
    finish,
    fires_at,
    given_up,
    happened,
    outcome,
    parked,
)

AHEAD_MAX: Final = 1000
"""Events that the code is told ahead of the journal; the next ones wait until these are durable."""
TURN_BYTES_MAX: Final = 16 * 1024 * 1024
"""Payload after which neither these nor creations go on in one turn."""


class Run:
    """One workflow under way in this process."""

    __slots__ = (
        "_agenda",
        "_ahead",
        "_ahead_bytes",
        "_arrived",
        "_attempts",
        "_charged",
        "_claimed",
        "_halting",
        "_last_then",
        "_leaving",
        "_machine",
        "_news",
        "_now",
        "_owed",
        "_payloads",
        "_releasing",
        "_sent",
        "_sent_creations",
        "_unwanted",
        "_watch",
        "_workflow",
        "abandoned",
        "busy",
        "ended",
        "epoch",
        "in_flight",
        "kept",
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
        *,
        keep: bool = False,
        watch: AbstractContextManager[object] | None = None,
    ) -> None:
        self.task = claimed.task
        self.epoch = claimed.epoch
        self.told: list[JournalEntry] = []
        self.seen = 0
        self.in_flight = False
        self.ended = False
        self.kept = keep
        """Whether the code stays in memory when the task is suspended."""
        self.busy = 0
        """How often in a row the last turn was answered `busy`."""
        self._claimed = claimed
        self._workflow = workflow
        self._payloads = payloads
        self._now = now
        self._watch = watch
        self._machine: Machine[Any] | None = None
        self._agenda = Agenda(claimed)
        self._attempts = Attempts(claimed.steps, payloads)
        self._arrived: deque[Arrived] = deque()
        self._ahead: list[Arrived] = []
        self._ahead_bytes = 0
        self._sent = 0
        self._sent_creations: Sequence[Operation] = ()
        self._owed = Owed(claimed.asked)
        self._unwanted: dict[str, None] = {}  # as a set; an empty set weighs three times as much
        self.abandoned: list[Operation] = []
        self._halting: dict[str, object] | None = None
        self._releasing = self._charged = self._leaving = self._news = False
        self._last_then: str | None = None

    # --- what the worker tells ---

    def begin(self) -> None:
        """Run the code from its beginning through the journal that came with the claim."""
        claimed = self._claimed
        self._claimed = without_parts(claimed)
        self._replay(claimed.journal, claimed.waits)
        confirm(self._machine, claimed, self.told)
        self._postpone()
        self._tell_arrived()

    def rejoin(self, claimed: Claimed) -> None:
        """The kept task was claimed again: go on from where the code stands, with the events that came since."""
        self._claimed = without_parts(claimed)
        self.epoch = claimed.epoch
        self.ended = self._news = False
        self._attempts = Attempts(claimed.steps, self._payloads)
        self._agenda.claimed_again(claimed)
        news = [entry for entry in claimed.journal if entry.seq > self.seen]
        self._tell_news(news, frontier(news, claimed.waits, claimed.asked))
        confirm(self._machine, claimed, self.told)
        self._postpone()
        self._tell_arrived()

    def is_of(self, claimed: Claimed) -> bool:
        """Whether it is this very workflow that is run here, and not another one that got the ID since."""
        return (claimed.started_at, claimed.seed) == (self._claimed.started_at, self._claimed.seed)

    def arrived(self, operation: Operation, state: str, value: Sealed | None, error: Sealed | None) -> None:
        """An operation that this process carried out has its outcome."""
        tried = self._attempts.failed_before(operation.path)
        self._arrived.append(Arrived(operation, state, value, error, tried))
        if not self.in_flight:
            self._tell_arrived()

    def failed(self, operation: Operation, error: Sealed, again_in: int, elapsed: int) -> None:
        """An attempt of a step failed after so many microseconds, and there is to be another one in so many."""
        self._attempts.failed(operation.path, error, again_in, elapsed)
        self._agenda.again_at(operation, self._now() + again_in)

    def postpone(self, operation: Operation, micros: int) -> None:
        """A step is to start again in so many microseconds, as if it had not been started."""
        self._agenda.again_at(operation, self._now() + micros)

    def again(self, operation: Operation, micros: int) -> None:
        """Nobody knows what became of an attempt: ask, and if it was not recorded start it again in so many microseconds."""
        self.postpone(operation, micros)
        self._news = True

    def step_given_up(self, operation: Operation) -> None:
        """A step was stopped, since nobody waits for it."""
        self.arrived(operation, "rejected", None, self._payloads.seal_error(given_up()))

    def beat(self, operation: Operation, details: Sealed, elapsed: int) -> None:
        """A step says that it goes on, after so many microseconds."""
        self._attempts.beat(operation.path, details, elapsed)

    def committed(self, operation: Operation, seq: int, at: int, value: Sealed) -> None:
        """A step has recorded its outcome itself, in its own transaction."""
        machine = self._machine
        if self.in_flight or self._ahead or machine is None or seq != self.seen + 1:
            self._news = True  # others have come before it: the journal tells in which order
            return
        self._agenda.running.pop(operation.path, None)
        entry = self._entry(Arrived(operation, "resolved", value, None), seq, at)
        self._tell(entry)
        self.seen += 1
        self._tell_arrived()

    def release(self, *, charged: bool = False) -> None:
        """Give the task back at the next turn, whatever it is doing. `charged`: its own code is why."""
        self._releasing = self._leaving = True
        self._charged = self._charged or charged

    def heard_news(self) -> None:
        """There are events that the code was not told: ask for them at the next turn."""
        self._news = True

    def halt(self, code: str, error: BaseException) -> None:
        """Park the task at the next turn, with a reason that a person can read."""
        self._halting = parked(code, error)
        self._leaving = True
        self.evict()

    def answered(self, answer: Advanced) -> None:
        """What the database said to the last turn."""
        self.in_flight = False
        match answer.answer:
            case "busy":
                # nothing was said: not what it asked for either, and what came meanwhile waits to be told
                self._attempts.unheard()
                self.busy += 1
                self._news = True
            case "fenced" | "halted":
                self.ended = True
                self.kept = False
            case "ok":
                self.busy = 0
                self._is_durable()
                if answer.entries:
                    self._tell_news(answer.entries)
                elif self._last_then is not None:
                    self.ended = True
                    self.kept = self.kept and self._last_then == "suspend"
            case "news":
                self.busy = 0
                self._attempts.said()
                self._take_news(answer.entries or [])
        if not self.ended:
            # an answer holds so many events at most: nothing may start before the rest is known
            self._news = self._news or (answer.last_seq or 0) > len(self.told)
            if self._arrived:
                self._tell_arrived()

    # --- what the worker asks ---

    def startable(self) -> Collection[Operation]:
        """Steps to start now: all that came before them is durable."""
        machine, agenda = self._machine, self._agenda
        if not (agenda.waiting or agenda.later):
            return []
        if self.in_flight or self._ahead or self._news or machine is None or machine.done or self._leaving:
            return []
        return [] if agenda.unrecorded() else agenda.startable(self._now())

    def attempt(self, operation: Operation) -> tuple[int, Any]:
        """The number of a step's attempt that begins, and what the last heartbeat before it said."""
        return self._attempts.begin(operation.path)

    def cohort(self, operation: Operation) -> int:
        """What tells the operations that were issued together with this one."""
        return 0 if self._machine is None else self._machine.cohort(operation.issued)

    def waits_for(self, operation: Operation) -> bool:
        """Whether the code still waits for this step; one that it gave up stays open until its event."""
        path, machine = operation.path, self._machine
        return machine is not None and path in machine.open and path not in self._unwanted

    def stopped(self) -> list[Operation]:
        """The `abandoned` steps: under way here, with nobody waiting for them any more. Each is named once."""
        abandoned, self.abandoned = self.abandoned, []
        return abandoned

    def next_due(self, *, starts: bool = True) -> int | None:
        """The instant at which there is something to do without any event: a timer, or (`starts`) a step that is tried again."""
        return None if self._machine is None else self._agenda.next_due(starts=starts)

    @property
    def timed(self) -> bool:
        """Whether anything is to be done at an instant, some time."""
        return self._machine is not None and self._agenda.timed

    def due_timer(self) -> Operation | None:
        """The timer that should have fired by now, if one should."""
        timer = None if self._machine is None else self._agenda.next_timer()
        return timer if timer is not None and fires_at(timer) <= self._now() else None

    @property
    def weight(self) -> int:
        """What keeping its code costs, in workflows of ordinary size."""
        return 1 + len(self.told) // 100

    @property
    def owes_cancels(self) -> bool:
        """Whether the last turn left children to be canceled by the next tick."""
        return self._owed.saying

    def wants_turn(self, lingering: bool) -> bool:
        """Whether there is something to say to the database. `lingering`: a timer is near, so do not suspend."""
        machine = self._machine
        if self.ended or self.in_flight:
            return False
        if self._news or self._leaving or self._ahead or machine is None or machine.done:
            return True
        if self._owed or self._attempts.unsaid or self._agenda.unrecorded():
            return True
        return not lingering and not self._working

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
        if self._ahead:
            # not strict: where telling failed, and the task is to be parked, one of the two is longer
            told = zip(self._ahead, self.told[self.seen :], strict=False)
            parts.outcomes = [outcome(self.task, arrived, entry) for arrived, entry in told]
            parts.outcome_bytes = self._ahead_bytes
        if self._attempts.unsaid:
            parts.attempts = self._attempts.say(self.task)
        self._sent = len(parts.outcomes)
        self._sent_creations = ()
        self._owed.unsaid()
        if machine is not None:
            self._say_what_was_asked(parts, machine, lingering)
        self._last_then = parts.turn.then
        return parts

    def evict(self) -> None:
        """Let go of the machine."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.evict()

    # --- telling ---

    def _replay(self, entries: Sequence[JournalEntry], waits: Sequence[OpenWait] = ()) -> None:
        """Run the code anew and tell it all these events, which are durable; `waits` are recorded and have none yet."""
        self.evict()
        claimed = self._claimed
        self.told, self.seen = [], 0
        self._ahead, self._ahead_bytes = [], 0
        self._owed.begin()
        self._unwanted.clear()
        machine = made_machine(
            self._workflow,
            self.task,
            claimed.args,
            claimed.args_headers,
            started_at=claimed.started_at,
            seed=claimed.seed,
            attempt=claimed.attempts,
            payloads=self._payloads,
            watch=self._watch,
        )
        self._machine = machine
        # code that was run up to `asked` before, and recorded what it asked for, is not asked about its patches anew
        machine.foresee(frontier(entries, waits, self._agenda.asked), patches(entries))
        machine.start()
        self._heed(machine)
        for entry in entries:
            machine.feed(as_told(entry, self._payloads))
            self.told.append(entry)
            self._heed(machine)
        self.seen = len(self.told)
        self.abandoned += self._agenda.begin(machine.open)
        self._patch(machine.open.values())

    def _tell(self, entry: JournalEntry) -> None:
        machine = self._machine
        assert machine is not None
        running = self._agenda.running.get(entry.operation)
        issued = machine.feed(as_told(entry, self._payloads))
        self.told.append(entry)
        self._agenda.told(entry.operation)
        if running is not None:
            self.abandoned.append(running)
        self._patch(issued)
        self._agenda.add(issued)
        self._heed(machine)
        if machine.closing:
            self.abandoned += self._agenda.end_steps()

    def _patch(self, operations: Iterable[Operation]) -> None:
        """A patch that is applied needs nothing but to be recorded."""
        for operation in operations:
            if operation.kind == PATCH:
                self._arrived.append(Arrived(operation, "resolved", None, None))

    def _heed(self, machine: Machine[Any]) -> None:
        """Calls whose futures the code canceled are to be canceled, steps are to stop."""
        if machine.closing:
            self._owed.closing(machine.told, machine.open)
        for operation in machine.take_given_up():
            if operation.kind == CALL:
                self._owed.give_up(operation, machine.told)
            elif operation.kind == STEP:
                self._given_up_step(operation)

    def _given_up_step(self, operation: Operation) -> None:
        self._unwanted[operation.path] = None
        if operation.path in self._agenda.running:
            self.abandoned.append(operation)
        else:
            error = self._payloads.seal_error(given_up())
            retried = self._attempts.failed_before(operation.path)
            self._arrived.append(Arrived(operation, "rejected", None, error, retried))

    def _tell_arrived(self) -> None:
        """Tell the code what this process saw first, at the instant that it proposes for it."""
        machine = self._machine
        while self._arrived and machine is not None and not machine.done:
            if len(self._ahead) >= AHEAD_MAX or self._ahead_bytes >= TURN_BYTES_MAX:
                break
            arrived = self._arrived.popleft()
            # as the code issued it last: where events came in another order than it was told, a timer may have been issued
            # after another one since it was armed, and not be due yet
            operation = machine.open.get(arrived.operation.path)
            if operation is None or (operation.kind == TIMER and fires_at(operation) > self._now()):
                continue
            arrived.operation = operation
            self._agenda.running.pop(operation.path, None)
            entry = self._entry(arrived, machine.told + 1, max(machine.now, self._now()))
            self._tell(entry)
            self._ahead.append(arrived)
            self._ahead_bytes += arrived.size

    def _entry(self, arrived: Arrived, seq: int, at: int) -> JournalEntry:
        cohort = self.cohort(arrived.operation)
        return happened(arrived, seq, at, epoch=self.epoch, cohort=cohort, payloads=self._payloads)

    def _is_durable(self) -> None:
        self.seen += self._sent
        # all of it was sent: nothing is told while a turn is under way
        self._ahead, self._ahead_bytes = [], 0
        self._sent = 0
        self._agenda.recorded(self._sent_creations, self.seen)
        self._sent_creations = ()
        self._attempts.said()
        self._owed.said()

    def _tell_news(self, entries: Sequence[JournalEntry], was_here: int = 0) -> None:
        if (machine := self._machine) is not None:  # else it is to be parked
            machine.foresee(was_here, patches(entries))
            for entry in entries:
                self._tell(entry)
            self.seen = len(self.told)

    def _take_news(self, entries: Sequence[JournalEntry]) -> None:
        """The journal went on without us: keep what was told ahead if it is just that, else run the code again."""
        if self._halting is not None:
            return
        ahead = self.told[self.seen :]
        if begins_with(entries, ahead):
            self._ahead, self._ahead_bytes = [], 0
            self._tell_news(entries[len(ahead) :])
        else:
            self._replay([*self.told[: self.seen], *entries])
            recorded = {entry.operation for entry in self.told}
            self._arrived = deque(a for a in self._arrived if a.operation.path not in recorded)

    def _postpone(self) -> None:
        """Steps that failed before this claim start again at their time, not before."""
        for path, at in self._attempts.postponed():
            self._agenda.postpone(path, at)

    # --- speaking ---

    def _say_what_was_asked(self, parts: TurnParts, machine: Machine[Any], lingering: bool) -> None:
        turn, agenda = parts.turn, self._agenda
        if machine.done:
            agenda.keep_what_outlives()
        self._sent_creations, more = agenda.creations(TURN_BYTES_MAX)
        if self._sent_creations:
            parts.operations = [
                creation(self.task, operation, machine.cohort(operation.issued), self._payloads)
                for operation in self._sent_creations
            ]
        unsaid = bool(self._attempts.unsaid)
        if (turn.then == "finish" and more) or (turn.then == "release" and unsaid):
            parts.turn = Turn(self.task, self.epoch, self.seen)
        elif turn.then is None:
            if not (more := more or unsaid):
                parts.cancels = self._owed.say(turn, machine.open, machine.told)
                more = self._owed.more
            if not (more or lingering or self._working):
                turn.then, turn.keep = "suspend", self.kept
                parts.timers = agenda.waits(self.task, machine.cohort, self._now())
            turn.asked = turn.then is None and not more

    @property
    def _working(self) -> bool:
        """Whether a step is under way or could start."""
        return bool(self._arrived) or self._agenda.working
