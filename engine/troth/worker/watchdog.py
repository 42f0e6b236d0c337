"""The watchdog: says which line of code blocks the worker's loop, and when it is time to let others go on.

It lives in the keeper's thread and asks the loop for a sign of life every quarter of a second. A loop that answers costs it a
callback; one that does not is looked at from outside, by its thread's stack. What counts is not how long the answer takes (a
claim of two hundred long journals may be at work for a while) but how long one and the same run of a machine, or one stretch
of a step, has been at it: `named_after`, then its line is named, again and again with growing pauses; `leave_after`, then the
worker falls silent: no heartbeat, so that its lease runs out and others take what it held. The task that blocks it comes back
alone, and its attempts bound how often. If the loop goes on before that, the worker beats again and nothing has happened.

Code written in C that holds Python's lock stops the watchdog too; it names the line when it is let go on. A process that was
stopped as a whole blames nobody.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Final, TypeVar

import structlog

from troth.worker.frames import MACHINE, inside, module, nearest, owner, stack_of
from troth.worker.run import Run
from troth.worker.steps import Attempted

T = TypeVar("T")

ASK_EVERY_S: Final = 0.25
NAMED_AFTER_S: Final = 1.0
LEAVE_AFTER_S: Final = 30.0
PAUSE_GROWTH: Final = 2.0
"""A line is named again after so many times as long."""
STOOD_STILL_S: Final = 1.0
"""Who wakes so much too late was not running, and neither was anybody else in the process."""

_log = structlog.get_logger("troth.worker")


@dataclass(frozen=True, slots=True)
class Stand:
    """Where the loop's thread stands: in which run of code, whose it is, and at which line."""

    unit: FrameType
    """The same object for as long as the same run or stretch goes on."""
    what: str
    of: str | None
    """The ID of the workflow, or of the step's operation, where that is known."""
    line: str
    function: str
    users: bool


class Watchdog:
    """Watches the loop that it is made in, from another one."""

    def __init__(
        self,
        worker: str,
        *,
        named_after_s: float = NAMED_AFTER_S,
        leave_after_s: float = LEAVE_AFTER_S,
        back: Callable[[], None],
        ask_every_s: float = ASK_EVERY_S,
    ) -> None:
        """`back` is called, in the watching loop, when the worker may beat again after it had been silent."""
        self.silent = False
        """Whether the worker is not to beat: its loop is blocked, and others shall have its tasks."""
        self._worker = worker
        self._named_after_s = named_after_s
        self._leave_after_s = leave_after_s
        self._back = back
        self._ask_every_s = ask_every_s
        self._host = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._asked = 0
        self._answered = 0
        self._block: _Block | None = None

    async def watch_forever(self) -> None:
        """Ask, and look where there is no answer."""
        while True:
            self._ask()
            before = time.monotonic()
            await asyncio.sleep(self._ask_every_s)
            now = time.monotonic()
            if self._answered == self._asked:
                self._goes_on(now)
            else:
                self._look(before, now)

    def _ask(self) -> None:
        if self._answered != self._asked:
            return
        asked = self._asked = self._asked + 1

        def answer() -> None:
            self._answered = asked

        try:
            self._host.call_soon_threadsafe(answer)
        except RuntimeError:  # it is closed, and nobody's any more
            self._answered = asked

    def _look(self, before: float, now: float) -> None:
        stand = standing(self._thread)
        stood_still = now - before > self._ask_every_s + STOOD_STILL_S
        if stand is None or (stood_still and not stand.users):
            self._goes_on(now)  # it is about to answer
            return
        if self._block is None or self._block.unit is not stand.unit:
            self._goes_on(now)
            # what holds Python's lock held it while this thread could not look
            self._block = _Block(stand.unit, before if stood_still else now, self._named_after_s)
        block = self._block
        seconds = now - block.since
        if seconds >= block.name_at_s:
            block.named = True
            block.name_at_s = max(block.name_at_s, seconds) * PAUSE_GROWTH
            self._say(_log.warning, "the worker's loop is blocked", stand, seconds)
        if seconds >= self._leave_after_s and not self.silent:
            self.silent = True
            self._say(
                _log.error,
                "the worker's loop stays blocked; its lease is left to run out, so that others go on with its tasks",
                stand,
                seconds,
            )

    def _goes_on(self, now: float) -> None:
        block, self._block = self._block, None
        if block is not None and block.named:
            _log.warning(
                "the worker's loop goes on", worker=self._worker, blocked_s=round(now - block.since, 1)
            )
        if self.silent:
            self.silent = False
            self._back()

    def _say(self, level: Callable[..., object], event: str, stand: Stand, seconds: float) -> None:
        level(
            event,
            worker=self._worker,
            by=stand.what,
            id=stand.of,
            line=stand.line,
            function=stand.function,
            seconds=round(seconds, 1),
        )


@dataclass(slots=True)
class _Block:
    unit: FrameType
    since: float
    name_at_s: float
    named: bool = False


def standing(thread: int) -> Stand | None:
    """Where a thread with a worker's loop stands; None where it runs nobody's code but waits."""
    frames, machine = inside(stack_of(thread), MACHINE)
    if machine is not None:
        outer, _ = inside(machine, frozenset())
        run = _local(outer, "self", Run)
        return _stand(frames, machine, "workflow code", run.task if run else None)
    ours = [at for at, frame in enumerate(frames) if module(frame) == Attempted.__module__]
    if ours:
        attempted = _local(frames[ours[0] :], "attempted", Attempted)
        of = f"{attempted.task}~{attempted.operation.path}" if attempted else None
        return _stand(frames[: ours[0]], frames[ours[-1]], "a step", of)
    for at, frame in enumerate(frames):
        if module(frame) == "asyncio.base_events":
            return None  # the loop itself, which waits
        if module(frame) in ("asyncio.events", "asyncio.runners"):
            return _stand(frames[:at], frames[at - 1], "other code of its process", None) if at else None
    return None


def _local(frames: Sequence[FrameType], name: str, kind: type[T]) -> T | None:
    """A local variable of ours, from the innermost frame that has it."""
    for frame in frames:
        if owner(frame) == "ours":
            found = frame.f_locals.get(name)
            if isinstance(found, kind):
                return found
    return None


def _stand(inner: Sequence[FrameType], unit: FrameType, what: str, of: str | None) -> Stand:
    at = nearest(inner)
    frame = inner[at or 0] if inner else unit
    line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    return Stand(unit, what, of, line, frame.f_code.co_qualname, users=at is not None)
