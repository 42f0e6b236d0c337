"""The machine: one workflow's code, run by telling it what happened.

Think of an asyncio program whose every contact with the world is a future: it starts a step and awaits it, names a
promise and awaits it, sleeps. Between two such futures being settled the program only computes, and if it is told
the same settlements in the same order it computes the same. So there is no need to keep its memory while it waits.
It is enough to keep the settlements. Tell a fresh copy of the program all of them again, in order, and it stands
where the old one stood, with the same variables, in the same `await`. That list is the workflow's journal, telling
it again is replay, and this file is the copy of the program.

A machine is driven by two calls. `start()` runs the code until it is idle, that is until every task waits for
something; `feed(entry)` tells one entry of the journal and does the same. Both return the operations which the code
issued meanwhile, in program order: carry out this step, have this promise, wake me in so many microseconds. Whoever
drives the machine does that, writes what became of it into the journal at the next sequence number, and feeds the
entry. The machine does not know whether an entry is new or twenty days old. There is no replay mode and so no code
that could behave differently in it.

Four things make this hold.

*One order.* Entries are told one at a time, in the order of the journal, and the code runs until idle after each.
Two branches that race are decided by which entry came first, for ever: `asyncio.wait(FIRST_COMPLETED)` has the
same winner, a lock is handed over in the same order, and a timeout that was beaten stays beaten.

*Our own loop* (`loop.py`). asyncio's tasks, futures, groups, locks, queues and timeouts need very little of an event
loop: a queue of callbacks, a clock and timers. Ours has exactly this. Its clock shows the instant of the last entry;
its timers are operations like all others, so `asyncio.sleep` survives the process. Whatever else a loop could do is
refused where it is called, with the way to do it. Sets of tasks are walked in the order of creation (`branches.py`),
and coroutines given to `as_completed` begin in the order in which they were given (`completed.py`).

*Structural names* (`names.py`). An operation is called by where it stands in the code: which task, which name, the
how-manieth. Were they numbered as they come, a branch that is faster today would get another branch's values.

*Divergence is found* (`ledger.py`). An entry is told only to the operation that it was recorded for: the code must
have issued it, under the same path, of the same kind, with the same arguments, after the same entry, together with the
same others (its cohort). If code was changed while a workflow waited, or iterates over a set of strings, this does not
hold, and `feed` raises `Diverged` before the code hears of the entry. The machine is of no use then; evict it.

Change on purpose. `patched(name)` tells code whether to go a new way: yes where nobody was before, no where the old
code was, and the same at every replay. For that the driver says by `foresee` how far the journal reaches: an entry that
is still to be told shows that some code was here. A yes is an operation too, so that it is recorded. Entries that a
person wrote are told wherever the code asks for their path, also when that is later.

The end. When the code returns or raises, tasks that it left open are canceled and may clean up, durably: `feed` goes
on as before until the last of them has ended; then async generators left open are closed. What was asked of the world
and not answered by then is nobody's any more, but for operations that bind: children that a workflow does not leave
behind. As long as one is open the machine is `closing`; when none is, it is `done`. What nobody waits for any more,
because its future was canceled or because the code has ended, is for the driver to fetch with `take_given_up`.

A request to cancel is an entry as well, and cancels the workflow's task as `Task.cancel` does. `evict()` may be called
between any two entries: it closes all coroutines where they wait. Python runs their `finally` blocks then, and cannot be
kept from it; what they try to issue raises `Evicted`, of which `except Exception` hears nothing.

What does not hold, and is not elegant. Code can still see the world behind our back: `time.time()`, `random`, a
global variable. Nothing here prevents it; the checks of the ledger notice it when it leads to other operations. Names are
the same on every Python, but not all of asyncio is: on 3.11 `wait_for` and a `gather` of what is done already wake their
caller some turns of the loop later, and since 3.13 a request to cancel that meets a failure in a `TaskGroup` is not
lost. Where two branches are made ready by one entry, a workflow that waits there while Python is changed can be found
diverged. `asyncio.all_tasks()` is empty in a workflow. And a running loop is a thread's property, so a machine must be
run from a plain callback of the host's loop or from a thread without one, never from inside one of the host's tasks.

This file knows no I/O, no clock, no thread, no chance, and neither Context nor worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractContextManager
from types import AsyncGeneratorType
from typing import Any, Final, Generic, NoReturn, TypeVar

from troth import limits
from troth.core.branches import MachineTask, OperationFuture
from troth.core.events import (
    CANCEL,
    PATCH,
    Binding,
    CanceledOutcome,
    Entry,
    Operation,
    Outcome,
    Raised,
    Returned,
)
from troth.core.frames import where
from troth.core.handles import Report
from troth.core.hooks import current_task, running_loop
from troth.core.ledger import Asked, Ledger
from troth.core.loop import Evicted, MachineLoop
from troth.core.names import Scope
from troth.errors import WorkflowMisuse

T = TypeVar("T")
V = TypeVar("V")

_PATH_LENGTH_MAX: Final = limits.id_length_max - len("x~")


class Machine(Generic[T]):
    """One workflow's code and how far it has come. The module tells what it is for and how it is driven."""

    __slots__ = (
        "_ended",
        "_ledger",
        "_loop",
        "_main",
        "_outcome",
        "_round",
        "_run",
        "_task",
        "closing",
        "done",
        "open",
    )

    def __init__(
        self,
        main: Callable[[], Coroutine[Any, Any, T]],
        *,
        started_at: int,
        path_length_max: int = _PATH_LENGTH_MAX,
        report: Report | None = None,
        watch: AbstractContextManager[object] | None = None,
    ) -> None:
        """`started_at` is in microseconds; `path_length_max` is what the workflow's ID and a `~` leave of an ID.

        `report` hears what asyncio would log: an error in a callback, or one that nobody awaited. `watch` is entered
        around every run of code.
        """
        self._ledger = Ledger(started_at)
        self._loop = MachineLoop(self._ledger, path_length_max, report, watch)
        self._loop.machine = self
        self._run = self._loop.run if watch is None else self._loop.run_watched
        self._main: Callable[[], Coroutine[Any, Any, T]] | None = main
        self._task: MachineTask[T] | None = None
        self._ended = False
        self._round: list[MachineTask[Any]] = []
        self._outcome: Outcome[T] | None = None
        self.open: Final[Mapping[str, Operation]] = self._ledger.open
        """The operations issued and not settled, by path, in the order of their creation: a view that stays live."""
        self.closing = False
        """The code and all its branches have ended, and operations are open that the workflow's end waits for."""
        self.done = False
        """All has ended, and `outcome` says how."""

    # --- driven from outside ---

    def start(self) -> list[Operation]:
        """Begin, run until idle, and return the operations issued and still open."""
        host = _host()
        main = self._main
        if main is None:
            raise RuntimeError("This machine was started already: make a new one to run the workflow again.")
        self._main = None
        self._run(host, self._at_idle, self._begin, main)
        return self._ledger.collect()

    def feed(self, entry: Entry) -> list[Operation]:
        """Tell the next entry, run until idle, and return the operations issued by that and still open.

        Raises `Diverged`, with nothing told, when the code has not issued what the entry is about.
        """
        host = _host()
        ledger = self._ledger
        if entry.seq != ledger.told + 1:
            raise ValueError(
                f"Entry {entry.seq} cannot be told after entry {ledger.told}: entries come one by one."
            )
        if self._task is None and self._outcome is None:
            raise RuntimeError("This machine cannot be told anything: it was not started, or it was evicted.")
        if entry.kind == CANCEL:
            ledger.advance(entry)
            if self.closing:
                ledger.let_go()
            elif self._outcome is None:
                self._run(host, self._at_idle, self._cancel)
        else:
            awaiter = ledger.enter(entry)
            if self.closing:
                self.closing = ledger.bound
                self.done = not self.closing
                if self.done:
                    ledger.close()
            elif awaiter is not None:
                self._run(host, self._at_idle, awaiter.tell, entry)
        return ledger.collect()

    def foresee(self, seq: int, patches: Iterable[str]) -> None:
        """The code was here before after every entry below `seq`, and the journal has these patches.

        `patched` needs it, so it is to be said before the entries are told. Code was somewhere before if something that it
        issued there, or later, is recorded.
        """
        self._ledger.foresee(seq, patches)

    def confirm(self, entry: Entry) -> None:
        """Raise `Diverged` unless the code has issued what this entry, which is still to come, will be about."""
        self._ledger.confirm(entry)

    def take_given_up(self) -> list[Operation]:
        """The open operations that the code has stopped waiting for since the last call, in that order."""
        return self._ledger.take_given_up()

    def cohort(self, issued: int) -> int:
        """The number, positive and of 31 bits, of all that the code issued after this entry until it was idle."""
        return self._ledger.cohort(issued)

    def evict(self) -> None:
        """Close the code where it waits and let go of its memory; the machine cannot be used afterwards."""
        if self._loop.running:
            raise RuntimeError("A machine cannot be evicted by the code that it runs.")
        self._main = None
        self._task = None
        self._round.clear()
        if not self._loop.deaf:
            self._loop.abandon()
        self._ledger.close()

    @property
    def told(self) -> int:
        """The seq of the last entry told; 0 before the first."""
        return self._ledger.told

    @property
    def now(self) -> int:
        """The instant of the last entry told, in microseconds; before the first, that of the start."""
        return self._ledger.now

    @property
    def outcome(self) -> Outcome[T] | None:
        """How the workflow ended, or None as long as it goes on."""
        return None if self.closing else self._outcome

    # --- asked by the code that runs, through its context ---

    def issue(
        self,
        kind: str,
        name: str,
        request: object,
        digest: int | None,
        finish: Callable[[Entry], V],
        *,
        binding: Binding = "",
        scope: Scope | None = None,
    ) -> OperationFuture[V]:
        """Issue an operation, in the scope of the running task or in a given one; its future knows its `path` at once.

        `finish` makes of the entry what the awaiting code gets: it returns a value or raises. A workflow does not end
        before its `binding` operations: those bound to "cancel" are given up then, those to "wait" are waited for; what
        "outlives" it stays open after the end, to be begun where it was not.
        """
        loop = self._loop
        if running_loop() is not loop:
            _refuse_outside(name)
        path = loop.path(name, scope)
        ledger = self._ledger
        operation = Operation(path, kind, ledger.told, digest, request, ledger.now, where(), binding)
        future = OperationFuture(operation, finish, loop.number(), loop=loop)
        ledger.add(future)
        return future

    def scope(self, name: str) -> Scope:
        """A named scope inside that of the running task, to issue operations in. It is counted like a named task."""
        if running_loop() is not self._loop:
            _refuse_outside(name)
        return self._loop.scope().child(name)

    def patched(self, name: str, *, scope: Scope | None = None) -> bool:
        """Whether to go the new way of a change of the code: yes, unless the code was here before the change.

        Asked again in the same scope, the answer is the same. A yes issues an operation of kind `patch`, once.
        """
        loop = self._loop
        if running_loop() is not loop:
            _refuse_outside(name)
        path = loop.patch(name, scope)
        ledger = self._ledger
        decided = ledger.decided(path)
        if decided is None:
            decided = ledger.decide(path)
            if decided:
                ledger.add(Asked(Operation(path, PATCH, ledger.told, None, None, ledger.now, where())))
        return decided

    # --- the life of a run ---

    def _begin(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._task = self._loop.main_task(main())
        self._task.add_done_callback(self._main_ended)

    def _cancel(self) -> None:
        if self._task is not None and not self._ended:
            self._task.cancel()
            return
        for task in self._loop.live_tasks():
            task.cancel()

    def _main_ended(self, _task: asyncio.Task[T]) -> None:
        self._ended = True
        self._next_round()

    def _next_round(self) -> bool:
        """Cancel whoever is still there, in the order of creation; what they make meanwhile is the next round."""
        self._round = self._loop.live_tasks()
        for task in self._round:
            task.cancel()
        return bool(self._round)

    def _at_idle(self) -> bool:
        """Tell what was waiting for the code to ask; once that has ended, wind it up. True if there is more to run."""
        ledger = self._ledger
        if ledger.arrivals:
            awaiter, entry = ledger.arrival()
            awaiter.tell(entry)
            return True
        if not self._ended or self._outcome is not None:
            return False
        left = self._round
        while left and left[-1].done():
            left.pop()
        if left:
            return False
        if self._next_round():
            return True
        generators = self._loop.live_generators()
        if generators:
            self._round = [self._loop.create_task(_closed(generators))]
            return True
        self._finish()
        return False

    def _finish(self) -> None:
        task = self._task
        assert task is not None
        if task.cancelled():
            self._outcome = CanceledOutcome()
        elif (error := task.exception()) is not None:
            self._outcome = Raised(error)
        else:
            self._outcome = Returned(task.result())
        self._task = None
        self._loop.release()
        self.closing = self._ledger.wind_up()
        self.done = not self.closing

    def __repr__(self) -> str:
        state = "done" if self.done else f"{'closing, ' if self.closing else ''}{len(self.open)} open"
        return f"<Machine told {self.told}, {state}>"


def current() -> Machine[Any]:
    """The machine whose code is running, or WorkflowMisuse where none is."""
    loop = running_loop()
    if not isinstance(loop, MachineLoop):
        raise WorkflowMisuse(
            "This is possible only inside a workflow, and no workflow's code is running here."
        )
    if loop.machine is None:
        raise Evicted
    return loop.machine


async def _closed(generators: list[AsyncGeneratorType[Any, Any]]) -> None:
    for generator in generators:
        try:
            await generator.aclose()
        except Exception:  # noqa: BLE001, S112 — it was left open: nobody is there to hear how that ended
            continue


def _refuse_outside(name: str) -> NoReturn:
    raise WorkflowMisuse(f"{name!r} was issued outside its workflow: use the context only in its own code.")


def _host() -> asyncio.AbstractEventLoop | None:
    """The loop that the machine is driven from, if any. Its tasks are refused."""
    host = running_loop()
    if host is not None and (current_task(host) is not None or isinstance(host, MachineLoop)):
        raise RuntimeError(
            "A machine cannot run inside an asyncio task: drive it from a plain callback (loop.call_soon) or a thread."
        )
    return host
