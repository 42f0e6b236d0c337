"""A run driven by hand: what it says, what it starts and what it stops, whatever comes in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
import pytest

from tests.engine.running import Stage, until
from troth import Context, Retry, Workflow, workflow
from troth.calls import Call, StepOutcome
from troth.codec import Payloads
from troth.core import Operation
from troth.gateway.pool import Pool
from troth.model import Advanced, Claimed, JournalEntry
from troth.worker import run as run_module
from troth.worker.run import Run

AT = 1_000_000
NOW = 9_000_000
PAYLOADS = Payloads()


def claimed(function: str, **changes: Any) -> Claimed:
    first = Claimed(
        task="w", epoch=1, function=function, version=1, queue="default", args="{}", args_headers=None, tags=None,
        timeout_at=None, started_at=AT, seed=1, attempts=1, now=AT, last_seq=0, alone=False, asked=-1,
        waits=[], steps=[], journal=[],
    )  # fmt: skip
    return msgspec.structs.replace(first, **changes)


@pytest.fixture
def begun() -> Iterator[Callable[..., Run]]:
    """Makes runs of the first claim, whose first turn was answered."""
    runs: list[Run] = []

    def make(workflow: Workflow[..., Any], *, keep: bool = False) -> Run:
        run = Run(claimed(workflow.name), workflow, PAYLOADS, lambda: NOW, keep=keep)
        runs.append(run)
        run.begin()
        ok(run, 0)
        return run

    yield make
    for run in runs:
        run.evict()


def ok(run: Run, last_seq: int, entries: list[JournalEntry] | None = None) -> None:
    """The run says what it has to say, and it was done."""
    run.turn(lingering=True)
    run.answered(Advanced("w", "ok", last_seq, entries))


def settled(seq: int, operation: str, value: str = "7", issued: int = 0, **changes: Any) -> JournalEntry:
    entry = JournalEntry(
        seq=seq, operation=operation, kind="promise", state="resolved", at=AT, issued=issued, value=msgspec.Raw(value.encode())
    )  # fmt: skip
    return msgspec.structs.replace(entry, **changes)


def recorded(seq: int, said: StepOutcome) -> JournalEntry:
    """What a step brought, as the journal has it."""
    at = said.at
    assert at is not None
    assert isinstance(said.value, msgspec.Raw)
    return JournalEntry(
        seq=seq, operation=said.operation, kind=said.kind, state=said.state, at=at, issued=said.issued,
        cohort=said.cohort, digest=said.digest, value=said.value,
    )  # fmt: skip


def arrive(run: Run, step: Operation, value: object = None) -> None:
    run.arrived(step, "resolved", PAYLOADS.seal(value, "it"), None)


async def act(of: object = None) -> None:
    """A step; nobody calls it here."""


# The code has ended, and a child goes on.


@workflow
async def is_waited_for(ctx: Context) -> None:
    await ctx.promise(int, "p")


@workflow
async def leaves_a_child_and_steps(ctx: Context) -> str:
    ctx.options(name="slow").run(act)
    ctx.options(name="failing", retry=Retry(attempts=9)).run(act)
    ctx.options(close="wait").call(is_waited_for)
    await ctx.promise(int, "p")
    return "done"


def test_steps_are_nobodys_once_the_code_has_ended(begun: Callable[..., Run]) -> None:
    """One was under way: it was not stopped, and its task was never suspended, whatever it brought, for as long as the child
    went on. The other one was tried again, although the code had ended."""
    run = begun(leaves_a_child_and_steps)
    slow, failing = run.startable()
    for step in (slow, failing):
        run.attempt(step)
    run.failed(failing, PAYLOADS.seal_error(ValueError()), 1000, elapsed=5)
    ok(run, 1, [settled(1, "p")])
    assert run.stopped() == [slow]
    assert run.next_due() is None
    assert run.startable() == []
    turn = run.turn(lingering=False)
    assert (turn.turn.then, turn.timers) == ("suspend", [])


@workflow
async def leaves_a_child(ctx: Context) -> str:
    ctx.options(name="slow").run(act)
    ctx.call(is_waited_for)
    await ctx.promise(int, "p")
    return "done"


def test_the_end_is_said_at_once_when_it_came_from_outside(begun: Callable[..., Run]) -> None:
    """The last event came from outside, so nothing was left to say but that the code had ended: nothing was said, and the
    child went on for as long as a step did that nobody waited for."""
    run = begun(leaves_a_child)
    run.startable()
    run.heard_news()
    run.turn(lingering=False)
    run.answered(Advanced("w", "news", 1, [settled(1, "p")]))
    assert run.wants_turn(lingering=True)
    assert run.turn(lingering=True).turn.close
    run.answered(Advanced("w", "ok", 1, None))
    assert not run.wants_turn(lingering=True)


# News.


@workflow
async def steps_and_waits(ctx: Context) -> str:
    step = ctx.options(name="s").run(act)
    promises = [ctx.promise(int, "p") for _ in range(3)]
    await step
    for promise in promises:
        await promise
    return "done"


def test_a_step_does_not_start_again_while_a_part_of_the_news_is_on_its_way(
    begun: Callable[..., Run],
) -> None:
    """An answer holds so many events at most. What the step had brought stood behind those, and it was called again."""
    run = begun(steps_and_waits)
    (step,) = run.startable()
    arrive(run, step)
    (said,) = run.turn(lingering=True).outcomes
    run.answered(Advanced("w", "news", 3, [settled(1, "p"), settled(2, "p:2")]))
    assert run.startable() == []
    assert run.wants_turn(lingering=True)
    assert run.turn(lingering=True).turn.seen == 2
    run.answered(Advanced("w", "news", 3, [recorded(3, said)]))
    assert run.startable() == []
    assert not run.waits_for(step)


def test_a_step_that_was_decided_by_hand_is_stopped_also_when_the_code_is_run_again(
    begun: Callable[..., Run],
) -> None:
    """What was told ahead came otherwise, so the code was run again; the step was not among what it asked for any more, and
    nobody stopped it."""
    run = begun(two_steps)
    first, second = run.startable()
    arrive(run, first)
    run.turn(lingering=True)
    by_hand = msgspec.structs.replace(settled(1, "second", "null"), kind="step", issued=None)
    run.answered(Advanced("w", "news", 1, [by_hand]))
    assert run.stopped() == [second]


@workflow
async def two_steps(ctx: Context) -> None:
    await asyncio.gather(ctx.options(name="first").run(act), ctx.options(name="second").run(act))


def test_what_parks_a_task_stays_the_reason_whatever_is_answered_meanwhile(begun: Callable[..., Run]) -> None:
    """The answer to the turn that was under way was told to a machine that was gone: an AssertionError was the reason then."""
    run = begun(steps_and_waits)
    run.startable()
    run.heard_news()
    run.turn(lingering=True)
    run.halt("broken", ValueError("the codec"))
    run.answered(Advanced("w", "ok", 1, [settled(1, "p")]))
    turn = run.turn(lingering=True).turn
    assert turn.then == "halt"
    assert turn.reason == {"code": "broken", "message": "the codec"}
    run.answered(Advanced("w", "news", 1, [settled(1, "p")]))
    assert run.turn(lingering=True).turn.reason == {"code": "broken", "message": "the codec"}


# Kept code.


@workflow
async def asks_about_a_patch(ctx: Context) -> bool:
    await ctx.promise(int, "p")
    applied = ctx.patched("fix")
    await ctx.promise(int, "q")
    return applied


def test_kept_code_answers_about_a_patch_as_code_that_is_run_anew(begun: Callable[..., Run]) -> None:
    """Another worker, with the code of before, had come past the place in between and was suspended there."""
    elsewhere = {"epoch": 3, "last_seq": 1, "asked": 1, "journal": [settled(1, "p")]}
    run = begun(asks_about_a_patch, keep=True)
    assert run.turn(lingering=False).turn.then == "suspend"
    run.answered(Advanced("w", "ok", 0, None))
    run.rejoin(claimed("asks_about_a_patch", **elsewhere))
    anew = Run(claimed("asks_about_a_patch", **elsewhere), asks_about_a_patch, PAYLOADS, lambda: NOW)
    anew.begin()
    assert not any(one.turn(lingering=True).outcomes for one in (run, anew))
    anew.evict()


# Very much at once.


@workflow
async def fans_out(ctx: Context) -> int:
    return len(await asyncio.gather(*[ctx.options(name="s").run(act, n) for n in range(2500)]))


def drained(run: Run) -> list[int]:
    """Turns until nothing is to be said but the end: how much each said."""
    said: list[int] = []
    while (parts := run.turn(lingering=True)).turn.then is None:
        said.append(len(parts.outcomes))
        run.answered(Advanced("w", "ok", sum(said), None))
    return [*said, len(parts.outcomes)]


def test_what_thousands_of_steps_brought_goes_in_turns_of_bounded_length(begun: Callable[..., Run]) -> None:
    """While one turn was under way all of them ended; the next one said more than SQL takes, and its task was parked."""
    run = begun(fans_out)
    steps = run.startable()
    run.heard_news()
    run.turn(lingering=True)
    for step in steps:
        arrive(run, step)
    run.answered(Advanced("w", "ok", 0, None))
    assert drained(run) == [1000, 1000, 500]


def test_large_results_go_in_turns_of_bounded_size(
    begun: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "TURN_BYTES_MAX", 10_000)
    run = begun(two_large_steps)
    steps = run.startable()
    run.heard_news()
    run.turn(lingering=True)
    for one in steps:
        arrive(run, one, "x" * 10_000)
    run.answered(Advanced("w", "ok", 0, None))
    assert drained(run) == [1, 1]


async def say() -> str:
    """Another one."""
    return ""


@workflow
async def two_large_steps(ctx: Context) -> None:
    await asyncio.gather(ctx.run(say), ctx.run(say))


def test_thousands_of_failed_attempts_go_in_several_turns(begun: Callable[..., Run]) -> None:
    run = begun(fans_out_and_fails)
    for step in run.startable():
        run.attempt(step)
        run.failed(step, PAYLOADS.seal_error(ValueError()), 10_000_000, elapsed=5)
    said: list[tuple[int, str | None]] = []
    while not run.ended:
        parts = run.turn(lingering=False)
        said.append((len(parts.attempts), parts.turn.then))
        run.answered(Advanced("w", "ok", 0, None))
    assert said == [(1000, None), (500, "suspend")]


@workflow
async def fans_out_and_fails(ctx: Context) -> None:
    again = ctx.options(name="s", retry=Retry(attempts=9))
    await asyncio.gather(*[again.run(act, n) for n in range(1500)])


# In a worker.


@workflow
async def naps_beside_a_promise(ctx: Context) -> str:
    ctx.promise(int, "p")
    await asyncio.sleep(0.05)
    return "awake"


async def test_a_timer_that_is_due_while_postgres_is_away_is_fired_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as the answer to a turn was under way, the timer fired again at each turn of the worker's loop, and each of these
    was kept: all of a processor and megabytes a second, for as long as Postgres was away."""
    gate, waiting = asyncio.Event(), asyncio.Event()
    run_call = Pool.run
    arrivals: list[str] = []
    arrived = Run.arrived

    async def held(self: Pool, call: Call[Any], **options: Any) -> Any:
        if call.function == "advance":
            waiting.set()
            await gate.wait()
        return await run_call(self, call, **options)

    def noted(self: Run, operation: Operation, *args: Any) -> None:
        arrivals.append(operation.path)
        arrived(self, operation, *args)

    monkeypatch.setattr(Pool, "run", held)
    monkeypatch.setattr(Run, "arrived", noted)
    worker = stage.work(naps_beside_a_promise)
    handle = await stage.troth.start("w", naps_beside_a_promise)
    await waiting.wait()
    (run,) = worker._runs
    await until(run.due_timer, "the timer is due")
    for _ in range(1000):
        await asyncio.sleep(0)
    # or not yet: where the estimate of the clock was set back a little, the timer is looked at again behind the answer
    assert len(arrivals) <= 1
    gate.set()
    assert await handle.result(60) == "awake"


async def step(id: str) -> str:
    return id


@workflow
async def steps(ctx: Context) -> str:
    return await ctx.run(step, ctx.id)


async def test_what_goes_wrong_beside_the_code_parks_one_workflow_and_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers come for many workflows at once: those behind the one that failed were never heard, and stood still."""
    startable = Run.startable

    def fails_for_one(self: Run) -> Collection[Operation]:
        if self.task == "w3":
            raise RuntimeError("on purpose")
        return startable(self)

    monkeypatch.setattr(Run, "startable", fails_for_one)
    handles = [await stage.troth.start(f"w{n}", steps) for n in range(8)]
    stage.work(steps)
    for n, handle in enumerate(handles):
        if n != 3:
            assert await handle.result(60) == f"w{n}"
    assert await stage.reason("w3") == {"code": "broken", "message": "on purpose"}
