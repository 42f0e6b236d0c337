"""Stories with several worker processes, killed, stopped and cut off: what "must be seen", told from outside."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.engine.programs.worker import state_of
from tests.engine.running import Stage, WorkerProcess, client_options, until
from troth import PromiseTimedOut, SyncTroth, Troth, workflow
from troth.context import Context
from troth.dev.postgres import Postgres
from troth.schema import migrate
from troth.testing.clock import Clock
from troth.testing.violations import install_violations, violations

Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]


async def test_a_worker_dies_while_the_workflow_waits_and_another_goes_on(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    first = spawn()
    await stage.troth.start("order-1", "approve_order", order="o")
    await stage.reaches("order-1", "suspended")
    first.kill()
    # the same start, by another person in another process, finds the same workflow
    with SyncTroth(stage.dsn) as sync:
        again = await asyncio.to_thread(sync.start, "order-1", "approve_order", order="o")
        assert again.started is not None
        assert again.started.answer == "attached"
        assert (await stage.troth.resolve("order-1~approval", True)).answer == "settled"
        assert await stage.state("order-1") == "ready"
        spawn()
        assert await asyncio.to_thread(again.result, 60) == "o: approved"
    assert effects() == ["email order-1~approval"]


async def test_a_start_sent_twice_is_one_execution_with_one_answer(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    spawn()
    spawn()
    both = await asyncio.gather(*(stage.troth.start("order-1", "approve_order", order="o") for _ in range(2)))
    await stage.reaches("order-1", "suspended")
    await stage.troth.resolve("order-1~approval", False)
    assert [await each.result(60) for each in both] == ["o: refused"] * 2
    late = await stage.troth.start("order-1", "approve_order", order="o")
    assert await late.result() == "o: refused"
    assert effects() == ["email order-1~approval"]


async def test_a_person_who_clicks_again_after_the_end_is_told_what_stands(
    stage: Stage, spawn: Spawn
) -> None:
    spawn()
    handle = await stage.troth.start("order-1", "approve_order", order="o")
    await stage.reaches("order-1", "suspended")
    await stage.troth.options(actor="ann").resolve("order-1~approval", True)
    assert await handle.result(60) == "o: approved"
    same = await stage.troth.resolve("order-1~approval", True)
    assert (same.answer, same.accepted) == ("already", True)
    other = await stage.troth.resolve("order-1~approval", False)
    assert other.promise is not None
    assert (other.answer, other.promise.state, bytes(other.promise.value), other.promise.settler) == (
        "conflict",
        "resolved",
        b"true",
        "ann",
    )
    assert await handle.result() == "o: approved"


async def test_without_a_timeout_nothing_expires_and_nothing_polls(
    stage: Stage, clock: Clock, db: psycopg.Connection[Any]
) -> None:
    from tests.engine.programs.stories import approve_order

    os.environ.setdefault("TROTH_TEST_SCRATCH", os.devnull)
    worker = stage.work(waits_for_ever)
    await stage.troth.start("w", waits_for_ever)
    await stage.reaches("w", "suspended")
    clock.advance(timedelta(days=4000))
    await stage.stop(worker)
    worker = stage.work(waits_for_ever, approve_order)
    await until(lambda: worker._idle)
    promise = await stage.troth.get("w")
    assert promise.task is not None
    assert (promise.task.state, promise.task.epoch, promise.timeout_at) == ("suspended", 1, None)
    # no row of it is in an index that anybody looks through
    assert db.execute("select count(*) from wait where fire_at is not null").fetchone() == (0,)
    assert db.execute("select count(*) from promise where expires_at is not null").fetchone() == (0,)
    assert db.execute("select count(*) from task where ready_at is not null").fetchone() == (0,)
    await stage.troth.resolve("w~p", True)
    assert await stage.troth.handle("w").result(60) is True


@workflow
async def waits_for_ever(ctx: Context) -> bool:
    return await ctx.promise(bool, "p")


async def test_a_timeout_fires_with_no_worker_holding_the_workflow(
    stage: Stage, spawn: Spawn, clock: Clock, effects: Effects
) -> None:
    first = spawn()
    handle = await stage.troth.start("order-1", "approve_in_time", days=7)
    await stage.reaches("order-1", "suspended")
    first.kill()
    clock.advance(timedelta(days=7, seconds=1))
    # who looks is told, even before anybody ticks
    assert (await stage.troth.get("order-1~approval")).state == "timedout"
    late = await stage.troth.resolve("order-1~approval", True)
    assert late.answer == "conflict"
    spawn()
    assert await handle.result(60) == "nobody decided"
    assert effects() == ["email order-1~approval"]


async def test_a_timeout_fires_within_a_second_of_its_instant(
    stage: Stage, db: psycopg.Connection[Any]
) -> None:
    """No worker holds the workflow meanwhile; any live one ticks. Both instants are the database's."""
    stage.work(waits_a_second)
    handles = [await stage.troth.start(f"w{n}", waits_a_second) for n in range(5)]
    for handle in handles:
        await stage.reaches(handle.id, "suspended")
    for handle in handles:
        assert await handle.result(60) == "nobody decided"
    rows = db.execute(
        "select extract(epoch from c.at - p.timeout_at) from checkpoint c join promise p on p.id = c.task || '~p'"
    ).fetchall()
    assert len(rows) == 5
    assert all(0 <= late < 1 for (late,) in rows), rows


@workflow
async def waits_a_second(ctx: Context) -> str:
    try:
        return str(await ctx.options(timeout=1.2).promise(bool, "p"))
    except PromiseTimedOut:
        return "nobody decided"


async def test_s13_months_later_any_worker_resumes_a_sleeper(
    stage: Stage, spawn: Spawn, clock: Clock
) -> None:
    first = spawn()
    handle = await stage.troth.start("w", "long_sleep")
    await stage.reaches("w", "suspended")
    first.kill()
    clock.advance(timedelta(days=31))
    spawn()
    assert await handle.result(60) == "awake"


async def test_s10_a_step_that_dies_with_its_process_runs_again(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    first = spawn(lease_s=1)
    handle = await stage.troth.start("w", "dies_once", name="w")
    assert await first.death() == -signal.SIGKILL
    spawn(lease_s=1)
    assert await handle.result(60) == "survived"
    assert effects() == ["die once w"] * 2


async def test_s17_a_worker_that_was_stopped_for_longer_than_its_lease_is_fenced(
    stage: Stage, spawn: Spawn, effects: Effects, tmp_path: Path, db: psycopg.Connection[Any]
) -> None:
    first = spawn(lease_s=2, name="first")
    handle = await stage.troth.start("w", "gated", name="gate")
    await until(effects)
    first.send(signal.SIGSTOP)
    second = spawn(lease_s=2, name="second")
    await until(lambda: len(effects()) == 2)
    (tmp_path / "gate").touch()
    result = await handle.result(60)
    assert result == f"through gate with {second.process.pid}"
    before = await stage.troth.get("w")
    first.send(signal.SIGCONT)
    # it finds out, and goes on under a new ID
    first_ids = "select count(*) from worker where id like 'first-%' and died_at is null"
    await until(lambda: db.execute(first_ids).fetchone() == (1,))
    assert db.execute("select count(*) from worker where id like 'first-%'").fetchone() == (2,)
    assert await stage.troth.get("w") == before
    second.kill()
    await stage.troth.start("after", "gated", name="gate")
    assert await stage.troth.handle("after").result(60) == f"through gate with {first.process.pid}"
    (entry,) = await stage.troth.journal("w")
    assert entry.epoch == 2


async def test_s18_two_workers_recover_at_once(stage: Stage, spawn: Spawn, effects: Effects) -> None:
    first = spawn(lease_s=1, kill_at='before:advance:1:"kind":"step"')
    for n in range(10):
        await stage.troth.start(f"w{n}", "approve_order", order="o")
    assert await first.death() == -signal.SIGKILL
    spawn(lease_s=30)
    spawn(lease_s=30)
    for n in range(10):
        await stage.reaches(f"w{n}", "suspended")
        await stage.troth.resolve(f"w{n}~approval", True)
    for n in range(10):
        assert await stage.troth.handle(f"w{n}").result(60) == "o: approved"
    # each e-mail at most twice: once by the dead, once by whoever recovered it
    assert all(effects().count(f"email w{n}~approval") <= 2 for n in range(10))


async def test_s20_branches_keep_their_own_values_through_crashes(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    rounds, branches = 20, 5
    handles = [await stage.troth.start(f"w{n}", "branches", count=branches) for n in range(rounds)]
    chance = random.Random(20)
    for life in range(4):
        process = spawn(lease_s=1, concurrency=rounds)
        already = len(effects())
        enough = already + chance.randint(5, 60)
        await until(lambda enough=enough: len(effects()) >= enough or len(effects()) >= 300)  # type: ignore[misc]
        process.kill()
        assert life >= 0
    spawn(lease_s=1)
    expected = [[f"{branch}.{turn}" for turn in range(3)] for branch in range(branches)]
    for handle in handles:
        assert await handle.result(60) == expected
    done = effects()
    assert len(set(done)) == branches * 3


async def test_s95_one_that_kills_its_process_is_parked_and_the_others_end(
    stage: Stage, spawn: Spawn, effects: Effects
) -> None:
    await stage.troth.start("killer", "kills_its_process")
    for n in range(30):
        await stage.troth.start(f"w{n}", "innocent", n=n)
    process = spawn(lease_s=1, poll_s=0.2)

    async def keep_one_running() -> bool:
        nonlocal process
        if not process.alive:
            process = spawn(lease_s=1, poll_s=0.2)
        return await stage.state("killer") == "halted"

    await until(keep_one_running)
    for n in range(30):
        if not process.alive:
            process = spawn(lease_s=1)
        assert await stage.troth.handle(f"w{n}").result(60) == 2 * n
    reason = await stage.reason("killer")
    assert reason["code"] == "attempts"
    assert "workers died while they held it" in reason["message"]
    assert effects().count("die") == 5
    assert (await stage.troth.cancel("killer")).accepted


# Postgres itself is ended, at once, at each of the points of S9 to S15.


class Server:
    """A server of our own, which is killed and started again on the same data and port."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.postgres = Postgres.start(home)

    def kill(self) -> None:
        os.kill(self.postgres.pid, signal.SIGQUIT)

    async def start_again(self) -> None:
        """Wait for its end, and start it."""
        await until(lambda: state_of(self.postgres.pid) == "Z")
        await asyncio.to_thread(self.postgres.stop)
        self.postgres = await asyncio.to_thread(Postgres.start, self._home)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server") / ".troth")
    migrate(server.postgres.dsn)
    with psycopg.connect(server.postgres.dsn, autocommit=True) as connection:
        install_violations(connection)
    yield server
    server.postgres.stop()


POINTS = {
    "s09": ("after:claim:1", False),
    "s10": ('before:advance:1:"kind":"step"', False),
    "s11": ('split:advance:1:"kind":"step"', False),
    "s12": ('after:advance:1:"kind":"promise"', False),
    "s13": ('after:advance:1:"then":"suspend"', False),
    "s14": ("after:claim:2", True),
    "s15_before": ('before:advance:1:"then":"finish"', True),
    "s15_after": ('after:advance:1:"then":"finish"', True),
}


@pytest.mark.parametrize("point", POINTS)
async def test_s16_postgres_dies_at(server: Server, spawn: Spawn, effects: Effects, point: str) -> None:
    kill_at, decided = POINTS[point]
    id = f"order-{point}"
    dsn = server.postgres.dsn
    async with Troth(dsn, **client_options()) as troth:
        stage = Stage(troth, dsn)
        handle = await troth.start(id, "approve_order", order="o")
        waiting = asyncio.create_task(handle.result(60))  # across the outage
        process = spawn(dsn=dsn, kill_at=kill_at, kill_pid=server.postgres.pid, lease_s=20, poll_s=0.2)
        if decided:
            await stage.reaches(id, "suspended")
            await troth.resolve(f"{id}~approval", True)
        await server.start_again()
        if not decided:
            await until(lambda: suspended(dsn, id))
            with SyncTroth(dsn) as sync:
                assert sync.resolve(f"{id}~approval", True).answer == "settled"
        assert await waiting == "o: approved"
        assert process.alive, process.said()
        assert (
            effects().count(f"email {id}~approval") == 1
        )  # the worker lived, and with it what its step had brought
        journal = [(e.seq, e.operation) for e in await troth.journal(id)]
        assert journal == [(1, "send_email"), (2, "approval")]
    process.kill()
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert violations(connection) == []


def suspended(dsn: str, id: str) -> bool | None:
    with SyncTroth(dsn) as sync:
        task = sync.get(id).task
        return True if task is not None and task.state == "suspended" else None


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_wait_outlasts_an_outage(server: Server, blocking: bool) -> None:
    dsn, id = server.postgres.dsn, f"outage-{blocking}"
    async with Troth(dsn) as troth:
        await troth.create_promise(int, id)
        sync = SyncTroth(dsn)
        if blocking:
            waiting = asyncio.create_task(asyncio.to_thread(sync.handle(id, int).result, 60))
        else:
            waiting = asyncio.create_task(troth.handle(id, int).result(60))
        await asyncio.sleep(0.2)
        server.kill()
        await server.start_again()
        assert not waiting.done()
        async with Troth(dsn) as other:
            await other.resolve(id, 4)
        assert await waiting == 4
        sync.close()
