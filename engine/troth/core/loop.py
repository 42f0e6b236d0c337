"""The event loop that one workflow runs on: asyncio's face, and nothing behind it but a queue.

It has no clock: time is what the ledger says, counted in seconds from the workflow's start. It never sleeps:
`call_later` and `call_at` issue an operation of kind `timer`, and whoever drives the machine tells it when that has
fired. It runs only while `run` is called, until nothing is ready any more.

What is not elegant: the loop has to make itself asyncio's running loop for the time of a run and to put the host's
back afterwards, and it looks at its callers' frames (`frames.py`) where asyncio does not say for whom it asks.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, TypeVarTuple, Unpack

from troth import limits
from troth.core.branches import MachineFuture, MachineTask, number_gathering
from troth.core.completed import Begun
from troth.core.events import TIMER, TIMER_NAME, Operation
from troth.core.frames import GATHERED, WAIT_FOR, asking, given_to_as_completed, where
from troth.core.handles import MICROS, Ready, Report, Timer, drain
from troth.core.hooks import current_task, frame_at, running_loop, set_running_loop
from troth.core.ledger import Ledger
from troth.core.names import Scope
from troth.core.refusals import RefusingLoop
from troth.errors import InvalidId, WorkflowMisuse

if TYPE_CHECKING:
    from troth.core.machine import Machine

T = TypeVar("T")
Args = TypeVarTuple("Args")

_SECONDS_MAX: Final = limits.timeout_days_max * 86_400
_NOTHING: Final[deque[Ready | Timer]] = deque(maxlen=0)
"""What is ready between two runs; an empty deque of each loop's own would weigh 760 bytes."""
_CLOSES_MAX: Final = 100
"""How often a coroutine that swallows GeneratorExit is closed again before it is left as it is."""


class Evicted(GeneratorExit):
    """The machine is being taken down: code that runs now, in a `finally`, can issue nothing and wait for nothing."""


class MachineLoop(RefusingLoop):
    """See the module. `running` is true within a run; `deaf` from the moment on when nothing shall run any more.

    `making` is true while a future of our own is made.
    """

    def __init__(
        self,
        ledger: Ledger,
        path_length_max: int,
        report: Report | None,
        watch: AbstractContextManager[object] | None,
    ) -> None:
        self.root = Scope()
        self.machine: Machine[Any] | None = None
        self.running = False
        self.deaf = False
        self.making = False
        self._ledger = ledger
        self._path_length_max = path_length_max
        self._report = report
        self._watch: AbstractContextManager[object] = watch or nullcontext()
        self._started_at = ledger.now
        self._ready = _NOTHING
        self._numbers = 0
        self._inner_numbers = 0
        self._begun = Begun()
        self._tasks: list[MachineTask[Any]] = []
        self._tasks_max = 8
        self._generators: list[AsyncGeneratorType[Any, Any]] = []
        self._generators_max = 8

    # --- driven by the machine ---

    def run(
        self,
        host: asyncio.AbstractEventLoop | None,
        at_idle: Callable[[], bool],
        first: Callable[[Unpack[Args]], object],
        *args: *Args,
    ) -> None:
        """Call `first`, then run until nothing is ready and `at_idle`, asked then, has nothing more to run either.

        `host` is the loop that runs here now.
        """
        hooks = sys.get_asyncgen_hooks()
        set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=self._generator_opened, finalizer=_left_open)
        self.running = True
        ready: deque[Ready | Timer] = deque()
        self._ready = ready
        try:
            first(*args)
            drain(ready, self._report)
            while at_idle():
                drain(ready, self._report)
        finally:
            self.running = False
            self._ready = _NOTHING
            sys.set_asyncgen_hooks(*hooks)
            set_running_loop(host)

    def run_watched(
        self,
        host: asyncio.AbstractEventLoop | None,
        at_idle: Callable[[], bool],
        first: Callable[[Unpack[Args]], object],
        *args: *Args,
    ) -> None:
        """The same, within the watch that was given."""
        with self._watch:
            self.run(host, at_idle, first, *args)

    def live_tasks(self) -> list[MachineTask[Any]]:
        """The tasks that have not ended, in the order of their creation."""
        return [task for task in self._tasks if not task.done()]

    def live_generators(self) -> list[AsyncGeneratorType[Any, Any]]:
        """The async generators that were begun and not finished, and that nobody is running."""
        return [one for one in self._generators if one.ag_frame is not None and not one.ag_running]

    def release(self) -> None:
        """All is over: hold nothing any more."""
        self.deaf = True
        self.machine = None
        self._tasks.clear()
        self._generators.clear()
        self._ready.clear()

    def abandon(self) -> None:
        """Close what is still waiting, children first, without a sound and without letting it issue anything."""
        self.deaf = True
        self._ready.clear()
        host = running_loop()
        hooks = sys.get_asyncgen_hooks()
        set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_left_open)
        try:
            with self._watch:
                self._close_all()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            set_running_loop(host)
        self.release()

    def _close_all(self) -> None:
        tasks = self.live_tasks()
        for task in reversed(tasks):
            _close(task.get_coro())
        for generator in reversed(self._generators):
            if generator.ag_running:
                # whoever waited for its next item is closed, and took nobody with him
                _close(generator.ag_await)
            elif generator.ag_frame is not None:
                _close_generator(generator)
        for task in tasks:
            task.forget()

    # --- what the machine and the handles ask ---

    def number(self) -> int:
        """Of something that code makes itself."""
        self._numbers += 1
        return self._numbers

    def inner_number(self) -> int:
        """Of something that asyncio makes for its own ends."""
        self._inner_numbers += 1
        return self._inner_numbers

    def scope(self) -> Scope:
        """The scope of the code that is running: its task's, or in a bare callback the workflow's own."""
        if self.deaf:
            raise Evicted
        task = current_task(self)
        if task is None:
            return self.root
        if isinstance(task, MachineTask):
            return task.scope
        raise WorkflowMisuse(
            "This task was made with asyncio.Task(...) and has no name: use asyncio.create_task(...)."
        )

    def path(self, name: str, scope: Scope | None = None) -> str:
        """The path of the next operation of this name, in a given scope or in that of the code that is running."""
        here = self.scope()
        path = (scope or here).path(name)
        if len(path) > self._path_length_max:
            _refuse_path(path)
        return path

    def patch(self, name: str, scope: Scope | None = None) -> str:
        """The path of the patch of this name, likewise."""
        here = self.scope()
        path = (scope or here).patch(name)
        if len(path) > self._path_length_max:
            _refuse_path(path)
        return path

    def due(self, timer: Timer) -> None:
        self._ready.append(timer)

    def take_back(self, timer: Timer) -> None:
        if not self.deaf:
            self._ledger.take_back(timer.operation)

    def give_up(self, operation: Operation) -> None:
        self._ledger.give_up(operation)

    # --- asyncio's face ---

    def call_soon(
        self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> Ready:
        handle = Ready(callback, args, context)
        if not self.deaf:
            if running_loop() is not self:
                _refuse_from_outside()
            self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Args]], object],
        *args: *Args,
        context: Context | None = None,
    ) -> Timer:
        if not delay <= _SECONDS_MAX:
            _refuse_duration(delay)
        return self._timer(round(max(delay, 0) * MICROS), callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Args]], object],
        *args: *Args,
        context: Context | None = None,
    ) -> Timer:
        delay = when - self.time()
        if not delay <= _SECONDS_MAX:
            _refuse_duration(delay)
        # From the deadline back to microseconds, and only then the difference: 0.1 s stays 100,000 of them.
        elapsed = self._ledger.now - self._started_at
        return self._timer(round(max(when, 0) * MICROS) - elapsed, callback, args, context)

    def _timer(
        self, micros: int, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> Timer:
        if self.deaf:
            raise Evicted
        if running_loop() is not self:
            _refuse_from_outside()
        ledger = self._ledger
        if micros <= 0:
            timer = Timer(callback, args, context, self, Operation("", TIMER, 0, None, 0, ledger.now))
            self._ready.append(timer)
            return timer
        path = self.path(TIMER_NAME)
        operation = Operation(path, TIMER, ledger.told, micros, micros, ledger.now, where())
        timer = Timer(callback, args, context, self, operation)
        ledger.add(timer)
        return timer

    def time(self) -> float:
        """Seconds since the workflow began, as of the last entry told."""
        return (self._ledger.now - self._started_at) / MICROS

    def create_future(self) -> MachineFuture[Any]:
        if self.deaf:
            raise Evicted
        self._inner_numbers += 1
        return MachineFuture(self._inner_numbers, loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
    ) -> MachineTask[T]:
        if not asyncio.iscoroutine(coro):
            raise TypeError(f"a coroutine was expected, got {coro!r}")
        try:
            if eager_start and sys.version_info < (3, 12):
                raise WorkflowMisuse("Eager tasks need Python 3.12: leave eager_start out.")
            frame = asking()
            if frame is not None:
                if frame.f_code is WAIT_FOR:
                    return self._inline_task(coro)
                given = given_to_as_completed(frame)
                if given is not None:
                    return self._begun.take(coro, given, self)
            scope = self.scope().child(name)
        except BaseException:
            coro.close()
            raise
        self._numbers += 1
        task = MachineTask(
            coro, scope, self._numbers, loop=self, name=name, context=context, eager=bool(eager_start)
        )
        self._keep(task)
        return task

    def _inline_task(self, coro: Coroutine[Any, Any, T]) -> MachineTask[T]:
        """A task that `wait_for` makes on Python 3.11 of what later ones await in place.

        So it has no scope of its own, and it begins before anything else that is ready.
        """
        parent = asyncio.current_task(self)
        name = parent.get_name() if parent else "wait_for"
        task = MachineTask(coro, self.scope(), self.inner_number(), loop=self, name=name)
        self._ready.appendleft(self._ready.pop())
        self._keep(task)
        return task

    def main_task(self, coroutine: Coroutine[Any, Any, T]) -> MachineTask[T]:
        """The task of the workflow itself: its scope is the root, so its operations have bare names."""
        self._numbers += 1
        task = MachineTask(coroutine, self.root, self._numbers, loop=self, name="workflow")
        self._tasks.append(task)
        return task

    def _keep(self, task: MachineTask[Any]) -> None:
        # asyncio holds tasks weakly, so that a collection may end one in its middle: not on replay, of all things.
        if len(self._tasks) >= self._tasks_max:
            self._tasks = self.live_tasks()
            self._tasks_max = 2 * len(self._tasks) + 8
        self._tasks.append(task)

    def _generator_opened(self, generator: AsyncGenerator[Any, Any]) -> None:
        # Held until the workflow ends and closed then: when the collector gets at one is no business of a replay.
        if not isinstance(generator, AsyncGeneratorType):
            return
        if len(self._generators) >= self._generators_max:
            self._generators = [one for one in self._generators if one.ag_frame is not None]
            self._generators_max = 2 * len(self._generators) + 8
        self._generators.append(generator)

    def is_running(self) -> bool:
        return self.running

    def is_closed(self) -> bool:
        return self.deaf

    def get_debug(self) -> bool:
        # Asked by every future as it is made: the one moment at which `gather` lets us see the one that it makes.
        if self.making:
            self.making = False
        elif frame_at(1).f_code is GATHERED:
            number_gathering(frame_at(1).f_locals["self"], self.number())
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._report is not None:
            self._report(context)


def _refuse_path(path: str) -> NoReturn:
    raise InvalidId(
        f"The operation {path!r} would have an ID longer than {limits.id_length_max} characters: give it, its "
        "tasks or the workflow a shorter name."
    )


def _refuse_from_outside() -> NoReturn:
    raise WorkflowMisuse(
        "A future, timer, queue, event or lock of a workflow was touched from outside, by a step or a thread: no "
        "replay can repeat that. Return a value from the step, or settle a promise by its ID."
    )


def _refuse_duration(seconds: float) -> NoReturn:
    raise WorkflowMisuse(
        f"A workflow cannot sleep or time out after {seconds} s: use a number of seconds up to {_SECONDS_MAX} "
        f"({limits.timeout_days_max} days), or None for a timeout that never comes."
    )


def _left_open(_generator: AsyncGenerator[Any, Any]) -> None:
    """A generator that is collected after its workflow has ended was closed then: there is nothing left to do."""


def _close(coroutine: Any) -> None:
    """Close a coroutine whatever it does about it: a `finally` may wait again, or raise, and is to get nowhere."""
    if not hasattr(coroutine, "close"):
        return
    for _ in range(_CLOSES_MAX):
        try:
            coroutine.close()
        except RuntimeError:
            continue  # it ignored GeneratorExit and waits again, or raised this itself and is closed next time
        except BaseException:  # noqa: BLE001 — whatever a `finally` raised: nobody is there to hear it
            return
        return


def _close_generator(generator: AsyncGeneratorType[Any, Any]) -> None:
    closing = generator.aclose()
    try:
        closing.send(None)
    except BaseException:  # noqa: BLE001 — as above; StopIteration is how it says that it is closed
        return
    _close(closing)
