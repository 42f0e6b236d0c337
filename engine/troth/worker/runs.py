"""The workflows in this process: runs them, starts their steps, fires their timers, and lets go of them.

After anything that happens to a run (its claim, a step's end, a timer, an answer), `_after` decides what is next: start what may
start, arm the nearest timer, say what is to be said, or let go. All of it happens in plain callbacks of the worker's loop, since
code must not run inside an asyncio task. A workflow that cannot go on is parked with its reason and troubles nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog
from msgspec import Struct

from troth.codec import Payloads, Sealed, encode
from troth.core import Operation
from troth.errors import Diverged, UndecodablePayload
from troth.gateway.pool import Pool
from troth.model import Advanced, Claimed
from troth.registry import Registry
from troth.remote import text_of
from troth.worker.clock import Clock
from troth.worker.kept import Kept
from troth.worker.run import Run
from troth.worker.steps import Attempted, StepResult, Steps
from troth.worker.turns import Turns
from troth.worker.wording import step_request

LINGER_S: Final = 1.0
"""A timer that is nearer than this is waited for in memory instead of suspending."""
BUSY_FIRST_S: Final = 0.02
BUSY_LONGEST_S: Final = 1.0
BUSY_DOUBLINGS_MAX: Final = 6
ARM_LONGEST_S: Final = 3600.0
"""A timer further away is looked at again after this long."""
CONFLICTS_MAX: Final = 20
"""How often a transaction that Postgres could not serialize, or lost, is run again before that counts as a failed attempt."""
CONFLICT_PAUSE_S: Final = 0.02
CONFLICT_LONGEST_S: Final = 0.8
"""No pause is longer: shorter than `LINGER_S`, so that the task is held meanwhile."""
UNKNOWN_PAUSE_S: Final = 0.1

_log = structlog.get_logger("troth.worker")


class Runs:
    """All runs of one worker, by the IDs of their tasks."""

    def __init__(
        self,
        registry: Registry,
        payloads: Payloads,
        pool: Pool,
        clock: Clock,
        steps: Steps,
        *,
        kept: int,
        watch: AbstractContextManager[object] | None = None,
    ) -> None:
        self.turns = Turns(pool, self._lingers, self._answered)
        self.changed = asyncio.Event()
        """Set whenever a run was let go: there may be room."""
        self.owing = asyncio.Event()
        """Set whenever children were left to be canceled: a tick does it."""
        self.coming: Mapping[str, int] = {}
        """The epochs of tasks that were claimed and not begun, for as long as their journals are fetched."""
        self.kept = Kept(kept)
        self._registry = registry
        self._payloads = payloads
        self._clock = clock
        self._steps = steps
        self._watch = watch
        self._runs: dict[str, Run] = {}
        self._under_way: dict[Run, dict[str, _UnderWay]] = {}
        self._timers: dict[Run, tuple[int, asyncio.TimerHandle]] = {}
        self._conflicts: dict[Run, dict[str, int]] = {}
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop
        self._context = contextvars.copy_context()

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, task: object) -> bool:
        return task in self._runs

    def __iter__(self) -> Iterator[Run]:
        return iter(list(self._runs.values()))

    def held(self) -> dict[str, int]:
        """The epochs of what is held; may be asked from another thread."""
        # a list of the items is made in one step, whatever the loop does meanwhile
        return {**self.coming, **{task: run.epoch for task, run in list(self._runs.items())}}

    # --- what the worker tells; in callbacks ---

    def begin(self, claimed: Sequence[tuple[Claimed, Run | None]]) -> None:
        """Run the code of tasks that were claimed; where it was kept, go on with that."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        for each, kept in claimed:
            before = self._runs.get(each.task)
            if before is not None:  # it was freed while the answer to a claim was under way, and taken again
                self._let_go(before)
            if kept is not None:
                self._runs[each.task] = kept
                self._act(kept, kept.rejoin, each)
                continue
            workflow = self._registry[(each.function, each.version)]
            keep = self.kept.size > 0
            run = Run(each, workflow, self._payloads, self._clock.now, keep=keep, watch=self._watch)
            self._runs[run.task] = run
            self._act(run, run.begin)

    def heard(self, task: str, epoch: int, *, lost: bool) -> None:
        """A heartbeat says that a task has news, or is with another."""
        run = self._runs.get(task)
        if run is None or run.epoch != epoch:
            return
        if lost:
            if run.in_flight:
                return  # the answer will tell
            _log.warning("task lost", task=task, epoch=epoch)
            self._let_go(run)
        else:
            run.heard_news()
            self.turns.add(run)

    def wind_up(self) -> None:
        """Start nothing more; give back what has nothing under way."""
        self._stopping = True
        self.kept.clear()
        for run in self:
            self._after(run)

    def give_back(self) -> None:
        """Give everything back, whatever it is doing."""
        for run in self:
            run.release()
            self._after(run)

    def abandon(self) -> None:
        """Let go of everything without a word: it is with others."""
        self.turns.forget()
        self.kept.clear()
        for run in self:
            self._let_go(run)

    # --- one run ---

    def _guarded(self, run: Run, act: Callable[..., None], *args: Any) -> None:
        """Run its code; what cannot go on is parked with its reason."""
        try:
            act(*args)
        except Diverged as error:
            _log.error("a workflow diverged from its journal; it is parked", task=run.task, error=str(error))
            run.halt("nondeterminism", error)
        except UndecodablePayload as error:
            _log.error("a payload cannot be opened; its workflow is parked", task=run.task, error=str(error))
            run.halt("undecodable", error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 — one workflow's trouble is not the others'
            _log.exception("a workflow cannot be run; it is parked", task=run.task)
            run.halt("broken", error)
        else:
            return
        self.turns.add(run)

    def _act(self, run: Run, act: Callable[..., None], *args: Any) -> None:
        """Run its code, and do what is next."""
        self._guarded(run, act, *args)
        self._guarded(run, self._go_on, run)

    def _after(self, run: Run) -> None:
        """Do what is next. Whatever goes wrong with that parks this run and leaves the others alone."""
        self._guarded(run, self._go_on, run)

    def _go_on(self, run: Run) -> None:
        if run.ended:
            self._let_go(run)
            return
        if run.abandoned:
            for operation in run.stopped():
                self._stop_step(run, operation)
        if not self._stopping:
            for operation in run.startable():
                self._start_step(run, operation)
        elif not self._under_way.get(run):
            run.release()
        timed = run.timed
        if timed or run in self._timers:
            self._arm(run)
        if run.wants_turn(timed and self._lingers(run)):
            self.turns.add(run)

    def _answered(self, answers: Sequence[tuple[Run, Advanced]]) -> None:
        for run, answer in answers:
            if self._runs.get(run.task) is not run:
                continue
            self._guarded(run, run.answered, answer)
            if run.owes_cancels:
                self.owing.set()
            if run.busy:
                pause = min(BUSY_FIRST_S * 2 ** min(run.busy, BUSY_DOUBLINGS_MAX), BUSY_LONGEST_S)
                asyncio.get_running_loop().call_later(pause, self._again, run)
            else:
                self._after(run)

    def _again(self, run: Run) -> None:
        if self._runs.get(run.task) is run:
            self._after(run)

    def _let_go(self, run: Run) -> None:
        if self._runs.get(run.task) is run:
            del self._runs[run.task]
        for under_way in self._under_way.pop(run, {}).values():
            under_way.stop()
        self._conflicts.pop(run, None)
        armed = self._timers.pop(run, None)
        if armed is not None:
            armed[1].cancel()
        if run.ended and run.kept and not self._stopping:
            self.kept.put(run)
        else:
            run.ended = True
            run.evict()
        self.changed.set()

    # --- steps ---

    def _start_step(self, run: Run, operation: Operation) -> None:
        number, details = run.attempt(operation)
        under_way = _UnderWay(self, run, operation, number, time.monotonic())
        request = step_request(operation)
        attempted = Attempted(
            run.task,
            run.epoch,
            operation,
            request,
            run.cohort(operation) if request.isolation is not None else 0,
            number,
            details,
            under_way.beat,
            under_way.is_over,
        )
        # of a context of its own: it may be a heartbeat of another step that made room for this one
        task = self._loop.create_task(
            self._steps.carry_out(attempted), name="troth step", context=self._context.copy()
        )
        under_way.task = task
        mine = self._under_way.get(run)
        if mine is None:
            self._under_way[run] = {operation.path: under_way}
        else:
            mine[operation.path] = under_way
        task.add_done_callback(under_way.ended)

    def _stop_step(self, run: Run, operation: Operation) -> None:
        """Nobody waits for it any more. A coroutine ends as it likes; a thread goes on unheard."""
        under_way = self._under_way.get(run, {}).get(operation.path)
        if under_way is not None:
            under_way.stop()

    def hear_beat(self, under_way: _UnderWay, details: object) -> None:
        """An attempt says that it goes on; may be called from any thread."""
        sealed = self._payloads.seal_plain(encode(details, "The details of a heartbeat"), "The details")
        self._loop.call_soon_threadsafe(self._step_beat, under_way, sealed)

    def _step_beat(self, under_way: _UnderWay, details: Sealed) -> None:
        run, operation = under_way.run, under_way.operation
        # a thread that was abandoned may still beat while another attempt of its step is under way
        if self._runs.get(run.task) is run and self._under_way.get(run, {}).get(operation.path) is under_way:
            run.beat(operation, details, under_way.elapsed)
            self._after(run)

    def step_ended(self, under_way: _UnderWay, task: asyncio.Task[StepResult]) -> None:
        """An attempt has ended, in whatever way."""
        run, operation = under_way.run, under_way.operation
        mine = self._under_way.get(run, {})
        if mine.get(operation.path) is not under_way:
            return
        del mine[operation.path]
        if task.cancelled():
            self._guarded(run, run.step_given_up, operation)
        elif (failure := task.exception()) is not None:
            # not the step's own: what it brought could not be written (a codec fails)
            _log.error(
                "what a step brought cannot be written; its task is parked", task=run.task, error=str(failure)
            )
            run.halt("broken", failure)
        else:
            self._act(run, self._heed, under_way, task.result())
            return
        self._after(run)

    def _heed(self, under_way: _UnderWay, result: StepResult) -> None:
        run, operation = under_way.run, under_way.operation
        match result.state:
            case "resolved":
                run.arrived(operation, "resolved", result.value, None)
            case "released":
                _log.warning("a step asked for the end of the process; its task is given back", task=run.task)
                run.release(charged=True)
            case "committed":
                committed = result.committed
                assert committed is not None
                assert committed.seq is not None
                assert committed.at is not None
                assert result.value is not None
                run.committed(operation, committed.seq, committed.at, result.value)
            case "conflicted" | "unknown":
                self._conflicted(under_way, result)
            case "rejected":
                self._rejected(under_way, result)

    def _conflicted(self, under_way: _UnderWay, result: StepResult) -> None:
        run, operation = under_way.run, under_way.operation
        mine = self._conflicts.setdefault(run, {})
        met = mine[operation.path] = mine.get(operation.path, 0) + 1
        if met <= CONFLICTS_MAX and run.waits_for(operation):
            known = result.state == "conflicted"
            pause = (CONFLICT_PAUSE_S if known else UNKNOWN_PAUSE_S) * met * random.uniform(0.5, 1.5)  # noqa: S311 — jitter
            micros = round(min(pause, CONFLICT_LONGEST_S) * 1e6)
            (run.postpone if known else run.again)(operation, micros)
            return
        del mine[operation.path]
        assert result.failure is not None
        # if it was committed after all, the journal says so: then this is not told
        self._rejected(under_way, self._steps.failed(result.failure.__cause__ or result.failure))

    def _rejected(self, under_way: _UnderWay, result: StepResult) -> None:
        run, operation, number = under_way.run, under_way.operation, under_way.number
        retry = step_request(operation).retry
        failure, error = result.failure, result.error
        assert failure is not None
        assert error is not None
        if retry is None or not run.waits_for(operation):
            run.arrived(operation, "rejected", None, error)
            return
        if not retry.again(failure, number):
            # said anew: the error may tell now why there is no other attempt
            run.arrived(operation, "rejected", None, self._payloads.seal_error(failure))
            return
        delay = retry.delay(number, random.random())  # noqa: S311 — jitter
        _log.info(
            "a step failed and is tried again",
            task=run.task,
            step=operation.path,
            attempt=number,
            again_in_s=delay.total_seconds(),
            error=text_of(failure)[:200],
        )
        run.failed(operation, error, round(delay.total_seconds() * 1e6), under_way.elapsed)

    # --- timers ---

    def _arm(self, run: Run) -> None:
        """Fire the nearest timer of a held run ourselves, and start its next attempt in time.

        Not while an answer is to come first: what is due then is looked at again behind it.
        """
        if run.in_flight:
            return
        due = run.next_due(starts=not self._stopping)
        if due is not None and due <= self._clock.now() and run.wants_turn(lingering=True):
            due = None
        armed = self._timers.get(run)
        if armed is not None:
            if armed[0] == due:
                return
            armed[1].cancel()
            del self._timers[run]
        if due is not None:
            pause = min(self._in_s(due), ARM_LONGEST_S)
            handle = asyncio.get_running_loop().call_later(pause, self._fire, run)
            self._timers[run] = (due, handle)

    def _fire(self, run: Run) -> None:
        self._timers.pop(run, None)
        if self._runs.get(run.task) is not run:
            return
        timer = run.due_timer()
        if timer is not None:
            self._guarded(run, run.arrived, timer, "resolved", None, None)
        self._after(run)

    def _in_s(self, due: int) -> float:
        return max(0.0, (due - self._clock.now()) / 1e6)

    def _lingers(self, run: Run) -> bool:
        due = run.next_due() if run.timed else None
        return due is not None and not self._stopping and self._in_s(due) < LINGER_S


class _UnderWay(Struct, eq=False):
    """An attempt of a step that is under way here.

    What the step can reach leads here (its `step_info()`), and from here to its task. That circle is broken when it ends:
    a workflow whose every step left one was all left to the garbage collector, which took two fifths of the time.
    """

    runs: Runs
    run: Run
    operation: Operation
    number: int
    began: float
    task: asyncio.Task[StepResult] | None = None
    over: bool = False

    @property
    def elapsed(self) -> int:
        """For how many microseconds."""
        return int((time.monotonic() - self.began) * 1e6)

    def stop(self) -> None:
        """Nobody waits for it any more."""
        # once only: a second cancel would end the cleaning up that the first one began
        if not self.over and self.task is not None:
            self.over = True
            self.task.cancel()

    def is_over(self) -> bool:
        """Whether nobody waits for it any more, or it has ended."""
        return self.over

    def beat(self, details: object) -> None:
        """It goes on."""
        self.runs.hear_beat(self, details)

    def ended(self, task: asyncio.Task[StepResult]) -> None:
        """It has ended."""
        self.over = True
        self.task = None
        self.runs.step_ended(self, task)
