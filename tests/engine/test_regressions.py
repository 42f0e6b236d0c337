"""Faults that were found once, each with the case that showed it."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.engine.running import Stage, until
from troth import Context, Troth, Worker, workflow
from troth.calls import Call
from troth.codec import Payloads
from troth.gateway.pool import Pool
from troth.model import Advanced, Claimed, JournalEntry
from troth.worker.run import Run

GATES: dict[str, asyncio.Event] = {}
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    GATES.clear()
    SEEN.clear()


async def pass_gate(name: str) -> str:
    SEEN.append(name)
    await GATES.setdefault(name, asyncio.Event()).wait()
    return name


def open_gate(name: str) -> None:
    GATES.setdefault(name, asyncio.Event()).set()


@workflow
async def naps_after_a_step(ctx: Context) -> list[object]:
    p = ctx.promise(int, "p")
    name = await ctx.run(pass_gate, "g")
    await asyncio.sleep(0.4)
    return [name, await p]


async def test_a_timer_issued_after_an_event_told_ahead_is_another_once_that_moved(stage: Stage) -> None:
    """The step's end was told ahead as the first event and the timer issued after it; the decision came first. The timer that
    was armed then was of an operation that is not there any more: the workflow was parked as diverged."""
    async with Troth(stage.dsn, notify=False) as silent:
        handle = await stage.troth.start("w", naps_after_a_step)
        stage.work(naps_after_a_step, client=silent, lease=timedelta(seconds=60), poll=timedelta(seconds=60))
        await until(lambda: SEEN, "the step is under way")
        await stage.troth.resolve("w~p", 7)
        open_gate("g")
        assert await handle.result(60) == ["g", 7]
        operations = [(each.operation, each.issued) for each in await stage.troth.journal("w")]
        assert operations == [("p", 0), ("pass_gate", 0), ("timer", 2)]


def drive(live: Callable[[Run], None]) -> None:
    """Drive a run of `naps_after_a_step` by hand: its promise is made, its step under way."""
    claimed = Claimed(
        task="w", epoch=1, function="naps_after_a_step", version=1, queue="default", args="{}", args_headers=None,
        tags=None, timeout_at=None, started_at=1_000_000, seed=1, attempts=1, now=1_000_000, last_seq=0, alone=False,
        asked=-1, waits=[], steps=[], journal=[],
    )  # fmt: skip
    run = Run(claimed, naps_after_a_step, Payloads(), lambda: 9_000_000)
    run.begin()
    run.turn(lingering=False)
    run.answered(Advanced("w", "ok", 0, None))
    live(run)
    run.evict()


def test_what_comes_while_a_turn_is_answered_busy_is_said() -> None:
    """The turn asked for news and said nothing else; the step ended meanwhile. Nobody told the code, and nothing was left
    that wanted a turn: the workflow stood still for as long as its worker lived."""

    def live(run: Run) -> None:
        (step,) = run.startable()
        run.heard_news()
        run.turn(lingering=False)
        run.arrived(step, "resolved", Payloads().seal("g", "it"), None)
        run.answered(Advanced("w", "busy", None, None))
        assert run.wants_turn(lingering=False)
        assert [each.operation for each in run.turn(lingering=False).outcomes] == ["pass_gate"]

    drive(live)


def test_a_timer_that_fired_while_the_order_changed_is_told_as_it_was_issued_anew() -> None:
    def live(run: Run) -> None:
        (step,) = run.startable()
        run.arrived(step, "resolved", Payloads().seal("g", "it"), None)
        said = run.turn(lingering=True).outcomes[0]
        timer = run._agenda.next_timer()
        assert timer is not None
        assert timer.issued == 1
        run.arrived(timer, "resolved", None, None)
        decided = JournalEntry(
            seq=1,
            operation="p",
            kind="promise",
            state="resolved",
            at=2_000_000,
            issued=0,
            value=msgspec.Raw(b"7"),
        )
        ended = msgspec.structs.replace(
            decided, seq=2, operation="pass_gate", kind="step", digest=said.digest, value=msgspec.Raw(b'"g"')
        )
        run.answered(Advanced("w", "news", 2, [decided, ended]))
        assert [(each.operation, each.issued) for each in run.turn(lingering=True).outcomes] == [("timer", 2)]

    drive(live)


@workflow
async def steps_and_asks(ctx: Context) -> int:
    open_gate("free")
    await ctx.run(pass_gate, "free")
    return await ctx.promise(int, "p")


async def test_a_claim_is_held_while_its_long_journal_is_fetched(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that does not name what was claimed has it freed: to fetch many pages took longer than that is put up with,
    and the task went round for ever."""
    beats: list[object] = []
    told: list[object] = []
    run = Pool.run

    async def watched(self: Pool, call: Call[Any], **options: Any) -> Any:
        if call.function == "heartbeat":
            beats.append({name: value for name, _, value in call.arguments}["tasks"])
        if call.function == "journal":
            seen = len(beats)
            await until(lambda: len(beats) > seen + 1, "a beat")
            told.append(beats[-1])
        answer = await run(self, call, **options)
        if call.function == "claim":
            for each in answer:
                each.journal.clear()  # as if it had been too long for the claim
        return answer

    monkeypatch.setattr(Pool, "run", watched)
    handle = await stage.troth.start("w", steps_and_asks)
    stage.work(steps_and_asks, lease=timedelta(seconds=1))
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~p", 7)
    assert await handle.result(60) == 7
    assert told == [["w"]]


async def test_a_worker_that_has_ended_is_not_taken_for_dead(stage: Stage) -> None:
    """The news of its death came with its end: it began anew, with a keeper that nobody stopped."""
    worker = stage.work(steps_and_asks)
    handle = await stage.troth.start("w", steps_and_asks)
    await stage.reaches(handle.id, "suspended")
    await stage.stop(worker)
    ended_as = worker.id
    vars(type(worker))["_taken_for_dead"](worker, ended_as, "late")
    assert worker.id == ended_as
    assert [each.name for each in threading.enumerate() if each.name.startswith("troth keeper")] == []


async def test_a_worker_that_is_canceled_twice_leaves_no_keeper(stage: Stage) -> None:
    """Canceled again while its jobs were ending it never stopped its keeper, which renewed the lease for ever: what the worker
    had held was nobody's until its process ended."""
    worker = Worker(stage.troth, [steps_and_asks])
    life = asyncio.get_running_loop().create_task(worker.run())
    handle = await stage.troth.start("w", steps_and_asks)
    await stage.reaches(handle.id, "suspended")
    life.cancel()
    await asyncio.sleep(0)
    life.cancel()
    await asyncio.wait([life])
    assert life.cancelled()
    await until(
        lambda: f"troth keeper {worker.id}" not in [each.name for each in threading.enumerate()], "its end"
    )
    await worker._pool.close()  # whoever cancels twice lets go of the rest without order
