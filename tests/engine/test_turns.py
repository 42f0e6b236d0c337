"""Group commit: what goes into a call, and when, beside what is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from tests.engine.running import until
from troth.calls import Call, Turn
from troth.gateway.pool import Pool
from troth.model import Advanced
from troth.worker.run import Run
from troth.worker.turns import TOLD_MAX, Turns
from troth.worker.wording import TurnParts


class Said:
    """In the place of a run: it has one thing to say."""

    def __init__(self, task: str) -> None:
        self.task = task

    def wants_turn(self, lingering: bool) -> bool:
        return not lingering

    def turn(self, lingering: bool) -> TurnParts:
        assert not lingering
        return TurnParts(Turn(self.task, 1, 0))


class Held:
    """In the place of a pool: each call waits until it is let go."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.waiting: list[asyncio.Future[None]] = []

    async def run(self, call: Call[Any]) -> list[Advanced]:
        ((_, _, text),) = call.arguments
        tasks = [turn.task for turn in msgspec.json.decode(cast("str", text), type=list[Turn])]
        self.events.append(f"sent {' '.join(tasks)}")
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]
        return [Advanced(task, "ok", 0, None) for task in tasks]

    async def let_go(self, number: int) -> None:
        await until(lambda: len(self.waiting) >= number)
        self.waiting[number - 1].set_result(None)


async def test_what_is_due_is_sent_before_an_answer_is_told() -> None:
    """So that Postgres works on the next call while the code goes on with the answers of the last; never two at once."""
    events: list[str] = []
    done = asyncio.Event()

    def answered(answers: Sequence[tuple[Run, Advanced]]) -> None:
        events.append(f"told {' '.join(run.task for run, _ in answers)}")
        if len(events) == 6:
            done.set()

    pool = Held(events)
    turns = Turns(cast("Pool", pool), lambda _: False, answered)
    sending = asyncio.create_task(turns.send_forever())
    try:
        turns.add(cast("Run", Said("a")))
        turns.add(cast("Run", Said("b")))
        await until(lambda: len(pool.waiting) == 1)
        turns.add(cast("Run", Said("c")))
        await pool.let_go(1)
        await pool.let_go(2)
        await until(lambda: len(events) == 4)
        turns.add(cast("Run", Said("d")))
        await pool.let_go(3)
        async with asyncio.timeout(60):
            await done.wait()
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    assert events == ["sent a b", "sent c", "told a b", "told c", "sent d", "told d"]


async def test_what_some_answers_bring_comes_before_the_next_ones_are_told() -> None:
    """A workflow's step and its end follow its answer, while all of it is in the processor's cache."""
    events: list[str] = []
    loop = asyncio.get_running_loop()

    async def step() -> None:
        events.append("step")

    def answered(answers: Sequence[tuple[Run, Advanced]]) -> None:
        events.append(f"told {len(answers)}")
        for _ in answers:
            loop.create_task(step()).add_done_callback(lambda _: events.append("ended"))

    pool = Held(events)
    turns = Turns(cast("Pool", pool), lambda _: False, answered)
    sending = asyncio.create_task(turns.send_forever())
    count = 2 * TOLD_MAX + 1
    try:
        for n in range(count):
            turns.add(cast("Run", Said(f"{n}")))
        await pool.let_go(1)
        await until(lambda: events.count("ended") == count)
    finally:
        sending.cancel()
        await asyncio.wait([sending])
    expected = [f"told {TOLD_MAX}", *["step"] * TOLD_MAX, *["ended"] * TOLD_MAX]
    assert events[1:] == [*expected, *expected, "told 1", "step", "ended"]
