"""The workflows in this process: runs them, starts their steps, fires their timers, and lets go of them.

After anything that happens to a run (its claim, a step's end, a timer, an answer), `_after` decides what is next: start what may
start, arm the nearest timer, say what is to be said, or let go. All of it happens in plain callbacks of the worker's loop, since
code must not run inside an asyncio task. A workflow that cannot go on is parked with its reason and troubles nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import structlog

from troth.codec import Payloads
from troth.core import Operation
from troth.errors import Diverged, UndecodablePayload
from troth.gateway.pool import Pool
from troth.model import Advanced, Claimed
from troth.registry import Registry
from troth.worker.clock import Clock
from troth.worker.run import Run
from troth.worker.steps import StepResult, carry_out
from troth.worker.turns import Turns
from troth.worker.wording import fires_at, step_request

LINGER_S: Final = 1.0
"""A timer that is nearer than this is waited for in memory instead of suspending."""
BUSY_FIRST_S: Final = 0.02
BUSY_LONGEST_S: Final = 1.0
BUSY_DOUBLINGS_MAX: Final = 6
ARM_LONGEST_S: Final = 3600.0
"""A timer further away is looked at again after this long."""

_log = structlog.get_logger("troth.worker")


class Runs:
    """All runs of one worker, by the IDs of their tasks."""

    def __init__(
        self, registry: Registry, payloads: Payloads, pool: Pool, clock: Clock, threads: Executor
    ) -> None:
        self.turns = Turns(pool, self._lingers, self._answered)
        self.changed = asyncio.Event()
        """Set whenever a run was let go: there may be room."""
        self.coming: Mapping[str, int] = {}
        """The epochs of tasks that were claimed and not begun, for as long as their journals are fetched."""
        self._registry = registry
        self._payloads = payloads
        self._clock = clock
        self._threads = threads
        self._runs: dict[str, Run] = {}
        self._steps: dict[Run, set[asyncio.Task[StepResult]]] = {}
        self._timers: dict[Run, tuple[Operation, asyncio.TimerHandle]] = {}
        self._stopping = False

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

    def begin(self, claimed: Sequence[Claimed]) -> None:
        """Run the code of tasks that were claimed."""
        for each in claimed:
            workflow = self._registry[(each.function, each.version)]
            before = self._runs.get(each.task)
            if before is not None:  # it was freed while the answer to a claim was under way, and taken again
                self._let_go(before)
            run = Run(each, workflow, self._payloads, self._clock.now)
            self._runs[run.task] = run
            self._guarded(run, run.begin)
            self._after(run)

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

    def _after(self, run: Run) -> None:
        if run.ended:
            self._let_go(run)
            return
        if not self._stopping:
            for operation in run.startable():
                self._start_step(run, operation)
        elif not self._steps.get(run):
            run.release()
        self._arm(run)
        if run.wants_turn(self._lingers(run)):
            self.turns.add(run)

    def _start_step(self, run: Run, operation: Operation) -> None:
        task = asyncio.get_running_loop().create_task(
            carry_out(step_request(operation), operation.path, self._payloads, self._threads)
        )
        self._steps.setdefault(run, set()).add(task)
        task.add_done_callback(lambda done: self._step_ended(run, operation, done))

    def _step_ended(self, run: Run, operation: Operation, task: asyncio.Task[StepResult]) -> None:
        self._steps.get(run, set()).discard(task)
        if task.cancelled() or self._runs.get(run.task) is not run:
            return
        failure = task.exception()
        if failure is not None:  # not the step's own: what it brought could not be written (a codec fails)
            _log.error(
                "what a step brought cannot be written; its task is parked", task=run.task, error=str(failure)
            )
            run.halt("broken", failure)
            self._after(run)
            return
        result = task.result()
        if result.state == "released":
            _log.warning("a step asked for the end of the process; its task is given back", task=run.task)
            run.release(charged=True)
        else:
            self._guarded(run, run.arrived, operation, result.state, result.value, result.error)
        self._after(run)

    def _answered(self, answers: Sequence[tuple[Run, Advanced]]) -> None:
        for run, answer in answers:
            if self._runs.get(run.task) is not run:
                continue
            self._guarded(run, run.answered, answer)
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
        run.ended = True
        for task in self._steps.pop(run, set()):
            task.cancel()
        armed = self._timers.pop(run, None)
        if armed is not None:
            armed[1].cancel()
        run.evict()
        self.changed.set()

    # --- timers ---

    def _arm(self, run: Run) -> None:
        """Fire the nearest timer of a held run ourselves."""
        timer = run.next_timer()
        armed = self._timers.get(run)
        if armed is not None:
            if armed[0] is timer:
                return
            armed[1].cancel()
            del self._timers[run]
        if timer is not None:
            pause = min(self._due_in_s(timer), ARM_LONGEST_S)
            handle = asyncio.get_running_loop().call_later(pause, self._fire, run, timer)
            self._timers[run] = (timer, handle)

    def _fire(self, run: Run, timer: Operation) -> None:
        self._timers.pop(run, None)
        if self._runs.get(run.task) is not run:
            return
        if self._due_in_s(timer) <= 0:
            self._guarded(run, run.arrived, timer, "resolved", None, None)
        self._after(run)

    def _due_in_s(self, timer: Operation) -> float:
        return max(0.0, (fires_at(timer) - self._clock.now()) / 1e6)

    def _lingers(self, run: Run) -> bool:
        timer = run.next_timer()
        return timer is not None and not self._stopping and self._due_in_s(timer) < LINGER_S
