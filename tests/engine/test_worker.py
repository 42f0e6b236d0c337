"""The life of a worker: what it takes, what it lets go of, and what troubles it not."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.engine.running import Stage, WorkerProcess, client_options, until
from troth import Context, IsolationLevel, SchemaMismatch, Troth, Worker, Workflow, calls, workflow
from troth.errors import DatabaseError, TrothError
from troth.gateway.pool import Pool
from troth.testing.clock import Clock
from troth.worker import worker as worker_module

Spawn = Callable[..., WorkerProcess]

GATES: dict[str, asyncio.Event] = {}
SEEN: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    GATES.clear()
    SEEN.clear()


def open_gate(name: str) -> None:
    GATES.setdefault(name, asyncio.Event()).set()


def at_gates(count: int) -> Callable[[], bool]:
    """Whether so many steps have come to their gates."""
    return lambda: len(SEEN) >= count


async def pass_gate(name: str) -> str:
    SEEN.append(name)
    await GATES.setdefault(name, asyncio.Event()).wait()
    return name


async def plus_one(n: int) -> int:
    return n + 1


@workflow
async def waits_at(ctx: Context, name: str) -> str:
    return await ctx.run(pass_gate, name)


@workflow
async def counts(ctx: Context, n: int) -> int:
    for _ in range(n):
        await ctx.run(plus_one, n)
    return n


@workflow
async def asks(ctx: Context) -> int:
    return await ctx.promise(int, "p")


# What is taken.


async def test_s82_an_unknown_function_is_left_to_others_and_burns_no_attempt(stage: Stage) -> None:
    for n in range(5):
        await stage.troth.start(f"unknown-{n}", "not_here")
    await stage.troth.options(queue="elsewhere").start("elsewhere", counts, 1)
    handle = await stage.troth.start("known", counts, 1)
    stage.work(counts)
    assert await handle.result(60) == 1
    for id in [*(f"unknown-{n}" for n in range(5)), "elsewhere"]:
        task = (await stage.troth.get(id)).task
        assert task is not None
        assert (task.state, task.attempts, task.epoch) == ("ready", 0, 0)
    stage.work(counts, queues=["elsewhere"])
    assert await stage.troth.handle("elsewhere").result(60) == 1


def version(n: int) -> Workflow[[], str]:
    @workflow(name="versioned", version=n)
    async def versioned(ctx: Context) -> str:
        await ctx.promise(int, "p")
        return f"version {n}"

    return versioned


async def test_s83_a_run_stays_with_the_version_that_it_began_with(stage: Stage) -> None:
    first = stage.work(version(1))
    await stage.troth.start("old", "versioned")
    await stage.reaches("old", "suspended")
    await stage.stop(first)
    only_new = stage.work(version(2))
    await stage.troth.resolve("old~p", 1)
    await stage.troth.start("new", "versioned")
    await stage.reaches("new", "suspended")
    await stage.troth.resolve("new~p", 1)
    assert await stage.troth.handle("new").result(60) == "version 2"
    assert await stage.state("old") == "ready"
    await stage.stop(only_new)
    stage.work(version(1), version(2))
    assert await stage.troth.handle("old").result(60) == "version 1"
    assert (await stage.troth.get("old")).version == 1
    assert (await stage.troth.get("new")).version == 2
    last = await stage.troth.start("last", "versioned")
    await stage.exists("last~p")
    await stage.troth.resolve("last~p", 1)
    assert await last.result(60) == "version 2"


async def test_s18_two_workers_share_the_work_and_run_nothing_twice(stage: Stage) -> None:
    for _ in range(2):
        stage.work(waits_at, concurrency=10)
    handles = [await stage.troth.start(f"w{n}", waits_at, f"w{n}") for n in range(20)]
    await until(lambda: len(SEEN) == 20)
    holders = {promise.task.worker for promise in await stage.troth.search(limit=100) if promise.task}
    assert len(holders) == 2
    for n in range(20):
        open_gate(f"w{n}")
    assert await asyncio.gather(*(handle.result(60) for handle in handles)) == [f"w{n}" for n in range(20)]
    assert sorted(SEEN) == sorted(f"w{n}" for n in range(20))


async def test_no_more_than_concurrency_is_held_at_once(stage: Stage) -> None:
    stage.work(waits_at, counts, concurrency=3)
    for n in range(5):
        await stage.troth.start(f"w{n}", waits_at, f"w{n}")
    await until(lambda: len(SEEN) == 3)
    for n in range(5):
        assert len(SEEN) <= 3 + n
        claimed = [p for p in await stage.troth.search(limit=100) if p.task and p.task.state == "claimed"]
        assert len(claimed) <= 3
        await until(at_gates(n + 1))
        open_gate(SEEN[n])
        await stage.troth.handle(SEEN[n]).result(60)


@pytest.mark.parametrize(("concurrency", "waits"), [(40, True), (10, False)])
async def test_a_busy_worker_claims_not_for_each_of_its_last_places(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, concurrency: int, waits: bool
) -> None:
    happens = worker_module._happens
    pauses: list[float] = []

    async def noted(event: asyncio.Event, seconds: float) -> bool:
        pauses.append(seconds)
        return await happens(event, seconds)

    monkeypatch.setattr(worker_module, "FULL_S", 0.0123)
    monkeypatch.setattr(worker_module, "_happens", noted)
    for n in range(concurrency + 10):
        await stage.troth.start(f"w{n}", waits_at, f"w{n}")
    stage.work(waits_at, concurrency=concurrency)
    await until(at_gates(concurrency))
    for n in range(10):
        open_gate(SEEN[n])
        await until(at_gates(concurrency + n + 1))
    assert (0.0123 in pauses) is waits
    for n in range(concurrency + 10):
        open_gate(f"w{n}")


async def test_priority_goes_before_age(stage: Stage) -> None:
    await stage.troth.options(priority=5).start("late", waits_at, "late")
    await stage.troth.options(priority=-5).start("early", waits_at, "early")
    open_gate("late")
    open_gate("early")
    stage.work(waits_at, concurrency=1)
    await stage.troth.handle("late").result(60)
    assert SEEN == ["early", "late"]


# What is let go of.


async def test_sigterm_lets_steps_end_and_gives_back_the_rest(
    stage: Stage, spawn: Spawn, tmp_path: Any
) -> None:
    process = spawn(grace_s=4, lease_s=60)
    await stage.troth.start("ends", "gated", name="ends")
    await stage.troth.start("stays", "gated", name="stays")
    await until(
        lambda: (
            len((tmp_path / "effects").read_text().splitlines()) == 2
            if (tmp_path / "effects").exists()
            else None
        )
    )
    process.send(signal.SIGTERM)
    (tmp_path / "ends").touch()
    assert await process.death() == 0, process.said()
    assert "Traceback" not in process.said()
    assert [e.operation for e in await stage.troth.journal("ends")] == ["wait_at_gate"]
    task = (await stage.troth.get("stays")).task
    assert task is not None
    assert (task.state, task.attempts, task.worker) == ("ready", 0, None)
    (tmp_path / "stays").touch()
    spawn()
    assert str(process.process.pid) in await stage.troth.handle("ends").result(60)
    assert str(process.process.pid) not in await stage.troth.handle("stays").result(60)


async def test_a_worker_that_stops_says_that_it_left(stage: Stage, db: psycopg.Connection[Any]) -> None:
    worker = stage.work(asks, waits_at)
    await stage.troth.start("asks", asks)
    await stage.troth.start("idle", waits_at, "idle")
    await until(lambda: SEEN)
    await stage.stop(worker)
    assert db.execute("select count(*) from worker where died_at is null").fetchone() == (0,)
    task = (await stage.troth.get("idle")).task
    assert task is not None
    assert (task.state, task.attempts) == ("ready", 0)
    assert not [
        thread for thread in threading.enumerate() if "keeper" in thread.name and worker.id in thread.name
    ]


async def test_a_worker_that_is_canceled_twice_closes_its_connections(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_call = Pool.run
    leaving = asyncio.Event()

    async def held(self: Pool, call: Any, **options: Any) -> Any:
        if call.function == "leave":
            leaving.set()
            await asyncio.Event().wait()
        return await run_call(self, call, **options)

    monkeypatch.setattr(Pool, "run", held)
    worker = Worker(stage.troth, [counts])
    life = asyncio.create_task(worker.run())
    assert await (await stage.troth.start("w", counts, 1)).result(60) == 1
    life.cancel()
    await leaving.wait()
    assert worker._pool._connections is not None
    life.cancel()
    await asyncio.wait([life])
    assert worker._pool._connections is None


async def test_a_worker_taken_for_dead_goes_on_as_another(stage: Stage, db: psycopg.Connection[Any]) -> None:
    worker = stage.work(waits_at, lease=timedelta(seconds=2))
    handle = await stage.troth.start("w", waits_at, "w")
    await until(lambda: SEEN)
    first = worker.id
    db.execute("update worker set died_at = _clock(), sleeping = false")
    await until(lambda: worker.id != first)
    await until(lambda: len(SEEN) == 2)
    open_gate("w")
    assert await handle.result(60) == "w"
    assert not stage.ended(worker)
    (entry,) = await stage.troth.journal("w")
    assert entry.epoch == 2


async def test_what_was_claimed_under_a_dead_name_is_not_begun(
    stage: Stage, db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim is under way when its worker is marked: its answer comes to somebody new, who does not hold what it brings."""
    run, marked = Pool.run, False

    async def late(pool: Pool, call: Any, **options: Any) -> Any:
        nonlocal marked
        answer = await run(pool, call, **options)
        if call.function == "claim" and answer and not marked:
            marked, first = True, worker.id
            db.execute("update worker set died_at = _clock(), sleeping = false")
            await until(lambda: worker.id != first)
        return answer

    monkeypatch.setattr(Pool, "run", late)
    open_gate("w")
    worker = stage.work(waits_at, lease=timedelta(seconds=2))
    handle = await stage.troth.start("w", waits_at, "w")
    assert await handle.result(60) == "w"
    assert marked
    assert SEEN == ["w"]
    (entry,) = await stage.troth.journal("w")
    assert entry.epoch == 2


async def test_a_lost_task_is_let_go_of(stage: Stage, db: psycopg.Connection[Any]) -> None:
    worker = stage.work(waits_at, lease=timedelta(seconds=2))
    handle = await stage.troth.start("w", waits_at, "w")
    await until(lambda: SEEN)
    db.execute("update task set state = 'ready', worker = null, claimed_at = null, ready_at = _clock()")
    await until(lambda: len(SEEN) == 2)
    assert not stage.ended(worker)
    open_gate("w")
    assert await handle.result(60) == "w"


@workflow
async def blocks(ctx: Context, seconds: float) -> str:
    return await ctx.run(block, seconds)


async def block(seconds: float) -> str:
    SEEN.append("block")
    time.sleep(seconds)  # noqa: ASYNC251 — on purpose: user code may block the loop
    return "done"


async def test_the_lease_is_kept_while_a_step_blocks_the_loop(stage: Stage, spawn: Spawn) -> None:
    # the other worker is in a process of its own, so that it is there to take what would seem lost
    spawn(lease_s=1, modules=["tests.engine.test_worker"])
    handle = await stage.troth.start("w", blocks, 4)
    assert await handle.result(60) == "done"
    (entry,) = await stage.troth.journal("w")
    assert entry.epoch == 1


async def test_s91_a_lost_answer_to_a_claim_wedges_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    lost: list[str] = []
    run = Pool.run

    async def loses(pool: Pool, call: Any, *, again: bool = True) -> Any:
        answer = await run(pool, call, again=again)
        if call.function == "claim" and answer and not lost:
            lost.extend(each.task for each in answer)
            raise DatabaseError("the answer is lost", code="58000")
        return answer

    monkeypatch.setattr(Pool, "run", loses)
    stage.work(counts, lease=timedelta(seconds=2))
    handle = await stage.troth.start("w", counts, 2)
    await until(lambda: lost)
    clock.advance(timedelta(seconds=1))
    assert await handle.result(60) == 2
    task = await stage.troth.get("w")
    assert task.settled


@pytest.mark.parametrize("function", ["advance"])
async def test_s91_a_lost_answer_to_a_turn_does_nothing_twice(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    """Every single answer is lost once: the call is repeated and does no harm."""
    run = Pool.run
    count = 0

    async def loses(pool: Pool, call: Any, *, again: bool = True) -> Any:
        nonlocal count
        answer = await run(pool, call, again=again)
        if call.function == function:
            count += 1
            if count % 2:
                from troth import Unreachable

                raise Unreachable("The answer is lost.")
        return answer

    monkeypatch.setattr(Pool, "run", loses)
    stage.work(mixed)
    handle = await stage.troth.start("w", mixed)
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~p", 5)
    assert await handle.result(60) == [1, 2, 5]
    assert SEEN == ["noted 1", "noted 2"]
    assert [e.operation for e in await stage.troth.journal("w")] == ["note", "note:2", "p"]


async def note(n: int) -> int:
    SEEN.append(f"noted {n}")
    return n


@workflow
async def mixed(ctx: Context) -> list[int]:
    promise = ctx.promise(int, "p")
    return [await ctx.run(note, 1), await ctx.run(note, 2), await promise]


async def test_a_step_starts_only_when_all_before_it_is_durable(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pool.run
    held, go_on = asyncio.Event(), asyncio.Event()

    async def holds(pool: Pool, call: Any, *, again: bool = True) -> Any:
        if call.function == "advance" and '"operation":"note"' in str(call.values):
            held.set()
            await go_on.wait()
        return await run(pool, call, again=again)

    monkeypatch.setattr(Pool, "run", holds)
    STAGES[:] = [stage]
    stage.work(notes_in_order)
    handle = await stage.troth.start("w", notes_in_order)
    await held.wait()
    # in the meantime something else is carried out from start to end, so that nothing is merely slow
    stage.work(waits_at)
    open_gate("other")
    await (await stage.troth.start("other", waits_at, "other")).result(60)
    assert SEEN == ["w~p exists", "noted 1", "other"]
    go_on.set()
    assert await handle.result(60) == [1, 2]
    STAGES.clear()


STAGES: list[Stage] = []


async def look(id: str) -> None:
    (stage,) = STAGES
    SEEN.append(f"{id} exists" if await stage.troth.get_many([id]) else f"{id} is not there")


@workflow
async def notes_in_order(ctx: Context) -> list[int]:
    promise = ctx.promise(int, "p")
    await ctx.run(look, promise.id)
    return [await ctx.run(note, 1), await ctx.run(note, 2)]


# What troubles it not.


async def test_s89_a_row_that_a_caller_holds_stops_nobody_else(
    stage: Stage, connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    stage.work(counts, asks, gated_ask)
    await stage.troth.start("held", gated_ask)
    await stage.exists("held~p")
    await until(lambda: SEEN)
    caller = connect()
    caller.execute("begin")
    caller.execute("select resolve('held~p', '1')")
    open_gate("held")
    # its turn meets the caller's locks from now on; the others go on
    handles = [await stage.troth.start(f"w{n}", counts, 3) for n in range(50)]
    assert await asyncio.gather(*(handle.result(60) for handle in handles)) == [3] * 50
    assert (await stage.troth.get("held")).pending
    caller.execute("commit")
    assert await stage.troth.handle("held").result(60) == 1


@workflow
async def gated_ask(ctx: Context) -> int:
    promise = ctx.promise(int, "p")
    await ctx.run(pass_gate, "held")
    return await promise


async def test_s90_two_sessions_that_resolve_in_both_orders_trouble_no_worker(
    stage: Stage, connect: Callable[..., psycopg.Connection[Any]]
) -> None:
    stage.work(asks)
    for id in ("a", "b"):
        await stage.troth.start(id, asks)
        await stage.reaches(id, "suspended")
    one, two = connect(), connect()
    deadlocks: list[BaseException] = []

    def both(
        connection: psycopg.Connection[Any], first: str, second: str, barrier: threading.Barrier
    ) -> None:
        while True:
            try:
                with connection.transaction():
                    connection.execute("select resolve(%s, '1')", [f"{first}~p"])
                    if not deadlocks:
                        with contextlib.suppress(threading.BrokenBarrierError):  # the other is there already
                            barrier.wait(60)
                        barrier.abort()
                    connection.execute("select resolve(%s, '1')", [f"{second}~p"])
                return
            except psycopg.errors.DeadlockDetected as error:
                deadlocks.append(error)

    barrier = threading.Barrier(2)
    await asyncio.gather(
        asyncio.to_thread(both, one, "a", "b", barrier), asyncio.to_thread(both, two, "b", "a", barrier)
    )
    assert len(deadlocks) == 1
    assert await stage.troth.handle("a").result(60) == 1
    assert await stage.troth.handle("b").result(60) == 1


async def test_a_long_journal_is_replayed_in_pages(stage: Stage) -> None:
    first = stage.work(long_story)
    handle = await stage.troth.start("w", long_story, 1200)
    await stage.reaches("w", "suspended")
    await stage.stop(first)
    stage.work(long_story)
    await stage.troth.resolve("w~p", 7)
    assert await handle.result(60) == 1207
    assert len(SEEN) == 1200


@workflow
async def long_story(ctx: Context, steps: int) -> int:
    await asyncio.gather(*(ctx.run(note, n) for n in range(steps)))
    return steps + await ctx.promise(int, "p")


async def test_timers_near_by_fire_in_memory_and_leave_nothing_behind(
    stage: Stage, db: psycopg.Connection[Any]
) -> None:
    stage.work(naps)
    assert await (await stage.troth.start("w", naps)).result(60) == "rested"
    journal = await stage.troth.journal("w")
    assert [e.kind for e in journal] == ["timer", "timer", "step"]
    assert {e.epoch for e in journal} == {1}
    assert journal[1].at - journal[0].at >= 50_000
    assert db.execute("select count(*) from wait").fetchone() == (0,)


@workflow
async def naps(ctx: Context) -> str:
    await ctx.sleep(0.05)
    async with asyncio.timeout(600):
        await asyncio.sleep(0.05)
    await ctx.run(plus_one, 1)
    return "rested"


# A turn that fails is sent again, or parks its task, depending on whose fault that is.


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("the disk is full", code="53100"),
        DatabaseError("read only", code="25006"),
        SchemaMismatch("function advance does not exist"),
        IsolationLevel("?"),
    ],
    ids=lambda error: getattr(error, "code", type(error).__name__),
)
async def test_a_passing_trouble_of_postgres_parks_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: TrothError
) -> None:
    run, troubles = Pool.run, dict.fromkeys(("advance", "claim", "tick"), 3)
    if isinstance(error, IsolationLevel):
        troubles = {"advance": 3}

    async def fails(pool: Pool, call: Any, *, again: bool = True) -> Any:
        if stage.troth.pool is not pool and begun and troubles.get(call.function, 0) > 0:
            troubles[call.function] -= 1
            raise error
        return await run(pool, call, again=again)

    begun: list[bool] = []
    monkeypatch.setattr(Pool, "run", fails)
    worker = stage.work(counts, waits_at)
    await stage.troth.start("first", waits_at, "first")
    await until(lambda: SEEN)
    begun.append(True)
    open_gate("first")
    handle = await stage.troth.start("w", counts, 2)
    assert await stage.troth.handle("first").result(60) == "first"
    assert await handle.result(60) == 2
    assert troubles["advance"] == 0
    assert not stage.ended(worker)


async def test_turns_that_gather_are_one_call(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pool.run
    sizes: list[int] = []

    async def counted(pool: Pool, call: Any, *, again: bool = True) -> Any:
        if call.function == "advance":
            sizes.append(str(call.values[0]).count('"epoch"'))
        return await run(pool, call, again=again)

    monkeypatch.setattr(Pool, "run", counted)
    for n in range(100):
        await stage.troth.start(f"w{n}", counts, 1)
    stage.work(counts)
    for n in range(100):
        await stage.troth.handle(f"w{n}").result(60)
    assert sum(sizes) >= 100
    assert max(sizes) > 10


# Hints and polls.


async def test_s06_an_idle_worker_gets_a_start_by_hint_or_by_poll(stage: Stage) -> None:
    """With hints the poll is too long to be what found it; without, it is found within the poll."""
    hinted = client_options()["notify"]
    worker = stage.work(counts, poll=timedelta(seconds=50 if hinted else 0.5))
    if hinted:
        await until(lambda: worker._listening)
    await (await stage.troth.start("first", counts, 1)).result(60)

    async def asleep() -> bool:
        rows = await stage.troth.pool.run(calls.get([]))
        return rows == [] and worker._idle

    await until(asleep)
    assert await (await stage.troth.start("second", counts, 1)).result(60) == 1


@pytest.mark.skipif(os.environ.get("TROTH_TEST_NOTIFY") == "off", reason="there are no hints")
async def test_behind_a_claim_that_took_all_there_was_a_sleeper_waits_for_the_next_hint(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Pool.run
    found: list[int] = []

    async def counted(pool: Pool, call: Any, *, again: bool = True) -> Any:
        answer = await run(pool, call, again=again)
        if call.function == "claim":
            found.append(len(answer) if ("sleeping", "boolean", True) in call.arguments else -1)
        return answer

    monkeypatch.setattr(Pool, "run", counted)
    monkeypatch.setattr("troth.worker.worker.LOOK_AGAIN_S", (50.0,) * 4)
    stage.work(counts, poll=timedelta(seconds=50))
    await until(lambda: found and found[-1] == 0, "asleep")
    before = len(found)
    for n in range(4):
        assert await (await stage.troth.start(f"w{n}", counts, 1)).result(60) == 1
    assert found[before:] == [1] * 4


async def test_s06_without_hints_the_poll_covers(dsn: str, stage: Stage) -> None:
    async with Troth(dsn, notify=False) as deaf:
        worker = stage.work(counts, asks, client=deaf, poll=timedelta(seconds=0.3))
        await (await deaf.start("first", counts, 1)).result(60)
        handle = await deaf.start("second", asks)
        await stage.reaches("second", "suspended")
        await deaf.resolve("second~p", 1)
        assert await handle.result(60) == 1
        assert not worker._listening
        await stage.stop(worker)


@pytest.mark.skipif(os.environ.get("TROTH_TEST_NOTIFY") == "off", reason="there is no listener to drop")
async def test_s79_a_dropped_listener_comes_back_and_nothing_is_lost(
    stage: Stage, db: psycopg.Connection[Any]
) -> None:
    worker = stage.work(counts, poll=timedelta(seconds=0.3))
    await until(lambda: worker._listening)
    listener = "select pid from pg_stat_activity where application_name = 'troth listener' and datname = current_database()"
    (before,) = db.execute(listener).fetchone() or (None,)
    db.execute("select pg_terminate_backend(%s)", [before])
    handle = await stage.troth.start("meanwhile", counts, 1)
    assert await handle.result(60) == 1

    def again() -> bool:
        rows = db.execute(listener).fetchall()
        return bool(rows) and rows[0][0] != before

    await until(again)
    await until(lambda: worker._listening)
    assert await (await stage.troth.start("after", counts, 1)).result(60) == 1


async def test_news_of_a_held_task_is_told_while_a_step_is_under_way(stage: Stage) -> None:
    stage.work(first_of_two)
    handle = await stage.troth.start("w", first_of_two)
    await until(lambda: SEEN)
    await stage.troth.resolve("w~p", 9)
    assert await handle.result(60) == "the promise: 9"


@workflow
async def first_of_two(ctx: Context) -> str:
    step: asyncio.Future[Any] = ctx.run(pass_gate, "never")
    promise: asyncio.Future[Any] = asyncio.ensure_future(ctx.promise(int, "p"))
    done, _ = await asyncio.wait([step, promise], return_when=asyncio.FIRST_COMPLETED)
    return f"the promise: {promise.result()}" if promise in done else "the step"
