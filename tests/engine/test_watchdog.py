"""The watchdog: which line blocks a worker's loop, and when others are to go on. Time is real here, and short."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.core.driving import STARTED_AT
from tests.engine.running import until
from troth.codec import Payloads
from troth.context.requests import StepRequest
from troth.core import STEP, Machine, Operation
from troth.gateway.transactions import Transactions
from troth.providers import Providers
from troth.worker.steps import Attempted, StepResult, Steps
from troth.worker.watchdog import Stand, Watchdog, standing

NAMED_AFTER_S = 0.2
ASK_EVERY_S = 0.03


class Host:
    """A loop in a thread, as a worker's, that can be blocked until it is let go; and a watchdog for it."""

    def __init__(self, leave_after_s: float) -> None:
        self.release = threading.Event()
        self.backs: list[bool] = []
        self.loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._leave_after_s = leave_after_s
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()
        self._ready.wait()

    def _live(self) -> None:
        self.loop.call_soon(self._make)
        self.loop.run_forever()
        self.loop.close()

    def _make(self) -> None:
        async def make() -> None:
            self.watchdog = Watchdog(
                "w",
                named_after_s=NAMED_AFTER_S,
                leave_after_s=self._leave_after_s,
                back=lambda: self.backs.append(True),
                ask_every_s=ASK_EVERY_S,
            )
            self._ready.set()

        task = self.loop.create_task(make())
        task.add_done_callback(lambda _: None)

    def call(self, callback: Callable[[], object]) -> None:
        self.loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        self.release.set()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


@pytest.fixture
def host() -> Iterator[Host]:
    one = Host(leave_after_s=60)
    yield one
    one.close()


@contextlib.asynccontextmanager
async def watching(host: Host) -> Any:
    """The log of a watchdog that looks, in this loop."""
    with capture_logs() as log:
        task = asyncio.create_task(host.watchdog.watch_forever())
        yield log
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def spin(host: Host) -> None:
    while not host.release.is_set():
        pass


LINES = {spin.__code__.co_firstlineno + 1, spin.__code__.co_firstlineno + 2}


def as_workflow(host: Host) -> None:
    async def main() -> None:
        helper()

    def helper() -> None:
        spin(host)

    Machine(main, started_at=STARTED_AT).start()


def said(log: list[Any], event: str) -> list[Any]:
    return [each for each in log if each["event"].startswith(event)]


BLOCKED = "the worker's loop is blocked"
LEAVES = "the worker's loop stays blocked"
BACK = "the worker's loop goes on"


async def test_the_line_of_a_workflow_that_blocks_is_named_again_and_again_with_growing_pauses(
    host: Host,
) -> None:
    async with watching(host) as log:
        host.call(lambda: as_workflow(host))
        await until(lambda: len(said(log, BLOCKED)) >= 3)
        host.release.set()
        await until(lambda: said(log, BACK))
    first, second, third = said(log, BLOCKED)[:3]
    assert first["by"] == "workflow code"
    assert first["function"] == "spin"
    file, _, line = first["line"].rpartition(":")
    assert (file, int(line) in LINES) == (__file__, True)
    assert first["log_level"] == "warning"
    assert first["seconds"] >= NAMED_AFTER_S
    assert second["seconds"] >= 2 * first["seconds"] - 0.2  # they are told to a tenth
    assert third["seconds"] >= 2 * second["seconds"] - 0.2
    assert said(log, BACK)[0]["blocked_s"] >= third["seconds"]
    assert said(log, LEAVES) == []
    assert not host.watchdog.silent


async def test_a_callback_of_the_same_process_is_named_as_such(host: Host) -> None:
    async with watching(host) as log:
        host.call(lambda: spin(host))
        await until(lambda: said(log, BLOCKED))
    assert said(log, BLOCKED)[0]["by"] == "other code of its process"
    assert said(log, BLOCKED)[0]["function"] == "spin"


async def test_past_the_second_limit_the_worker_falls_silent_and_beats_again_once_the_loop_goes_on() -> None:
    host = Host(leave_after_s=0.4)
    try:
        async with watching(host) as log:
            host.call(lambda: as_workflow(host))
            await until(lambda: host.watchdog.silent)
            assert host.backs == []
            [leaves] = said(log, LEAVES)
            assert leaves["log_level"] == "error"
            assert leaves["seconds"] >= 0.4
            assert leaves["function"] == "spin"
            host.release.set()
            await until(lambda: not host.watchdog.silent)
            await until(lambda: said(log, BACK))
            assert host.backs == [True]
            # and it is not the last time that it looks
            host.release.clear()
            host.call(lambda: spin(host))
            await until(lambda: host.watchdog.silent)
    finally:
        host.close()


async def test_a_loop_that_answers_or_waits_is_left_in_peace(host: Host) -> None:
    turns: list[float] = []

    def turn() -> None:
        turns.append(time.monotonic())
        host.loop.call_later(0.01, turn)

    async with watching(host) as log:
        host.call(turn)
        await until(lambda: turns and turns[-1] - turns[0] > 3 * NAMED_AFTER_S)
    assert log == []


class Clock:
    """Stands in for the module `time`: it can be set ahead, as it is when a process was stopped for a while."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("troth.worker.watchdog.time", clock)
    return clock


async def test_a_loop_at_work_on_many_things_is_not_blocked_by_any_of_them(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of many long journals: one callback, but each machine in it gets on. Time stands still but for what each takes."""
    monkeypatch.setattr(clock, "monotonic", lambda: clock.ahead_s)
    looks: list[Stand | None] = []
    many = threading.Event()

    def stands(thread: int) -> Stand | None:
        looks.append(standing(thread))
        return looks[-1]

    monkeypatch.setattr("troth.worker.watchdog.standing", stands)

    def claim() -> None:
        while not many.is_set():

            async def main() -> None:
                before = len(looks)
                while len(looks) < before + 2 and not many.is_set():
                    pass
                clock.ahead_s += NAMED_AFTER_S / 3

            Machine(main, started_at=STARTED_AT).start()

    async with watching(host) as log:
        host.call(claim)
        await until(lambda: clock.ahead_s > 5 * NAMED_AFTER_S)
        many.set()
    assert {each.what for each in looks if each} == {"workflow code"}
    assert log == []


async def test_a_process_that_was_stopped_as_a_whole_blames_nobody(
    host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wakes ten seconds later than it meant to; the loop, in Python's own code, has not come to answer yet."""
    looks: list[Stand] = []

    def stands(_thread: int) -> Stand:
        looks.append(Stand(sys._getframe(), "other code of its process", None, "x.py:1", "x", users=False))
        return looks[-1]

    monkeypatch.setattr("troth.worker.watchdog.standing", stands)
    gate = threading.Event()
    async with watching(host) as log:
        host.watchdog._named_after_s = 5.0
        host.call(gate.wait)
        await until(lambda: looks)
        clock.ahead_s = 10.0  # while it sleeps until its next look, for that runs in this very loop
        before = len(looks)
        await until(lambda: len(looks) > before)
        gate.set()
        answered = host.watchdog._answered
        await until(lambda: host.watchdog._answered > answered + 1)
    assert log == []


def test_a_loop_that_waits_stands_nowhere(host: Host) -> None:
    idle = threading.Event()
    host.call(lambda: host.loop.call_later(0, idle.set))
    assert idle.wait(60)
    host.loop.call_soon_threadsafe(int)
    found = [standing(host.thread.ident or 0) for _ in range(100)]
    assert found[-1] is None
    assert standing(0) is None


async def test_code_in_c_that_held_pythons_lock_is_named_when_the_watchdog_gets_to_look(
    host: Host, clock: Clock
) -> None:
    async with watching(host) as log:
        host.call(lambda: as_workflow(host))
        await until(lambda: host.watchdog._block is not None)
        host.watchdog._block = None
        clock.ahead_s = 10.0  # as if this thread had not run for so long
        await until(lambda: said(log, BLOCKED))
    assert said(log, BLOCKED)[0]["seconds"] >= 10


async def test_a_step_that_blocks_is_named_with_its_operation(host: Host) -> None:
    async def blocks() -> None:
        spin(host)

    def begin() -> None:
        payloads = Payloads()
        operation = Operation("charge", STEP, 0, None, None, STARTED_AT)
        attempted = Attempted(
            "order-1",
            1,
            operation,
            StepRequest(blocks, (), {}, is_async=True),
            cohort=0,
            number=1,
            details=None,
            beat=beats.append,
            abandoned=lambda: False,
        )
        transactions = Transactions("postgresql://127.0.0.1:1/x", "troth", size=1)
        steps = Steps(payloads, ThreadPoolExecutor(1), Providers(), transactions)
        task = host.loop.create_task(steps.carry_out(attempted))
        tasks.append(task)

    tasks: list[asyncio.Task[StepResult]] = []
    beats: list[object] = []
    async with watching(host) as log:
        host.call(begin)
        await until(lambda: said(log, BLOCKED))
        host.release.set()
        await until(tasks[0].done)
    assert tasks[0].result().state == "resolved"
    first = said(log, BLOCKED)[0]
    assert (first["by"], first["id"], first["function"]) == ("a step", "order-1~charge", "spin")


async def test_a_closed_loop_is_nobodys() -> None:
    host = Host(leave_after_s=60)
    async with watching(host) as log:
        await until(lambda: host.watchdog._answered > 0)
        host.close()
        asked = host.watchdog._asked
        await until(lambda: host.watchdog._asked > asked + 2)
    assert log == []
