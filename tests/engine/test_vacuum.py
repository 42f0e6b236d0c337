"""A worker keeps the tables of unfinished work small: after so many claims, where it may, and in nobody's way."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.engine.running import Stage, client_options, until
from troth import Context, Troth, Worker, calls, workflow
from troth.errors import Unreachable
from troth.gateway.pool import Pool
from troth.worker import vacuum

Connection = psycopg.Connection[Any]

ROUND = 300
CREEPING = {
    "options": "-c vacuum_cost_delay=100 -c vacuum_cost_limit=1 -c vacuum_cost_page_hit=10 -c vacuum_cost_page_dirty=10"
}
"""A session in which VACUUM rests at each page."""


@workflow
async def nothing(ctx: Context, n: int) -> int:
    return n


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was said to Postgres by pools, counted."""
    said: Counter[str] = Counter()
    run = Pool.run

    async def counted(self: Pool, call: Any, **options: Any) -> Any:
        said[call.function] += 1
        return await run(self, call, **options)

    monkeypatch.setattr(Pool, "run", counted)
    return said


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as claims ask for it, whatever the time."""
    monkeypatch.setattr(vacuum, "CLAIMS_BETWEEN", ROUND // 2)
    monkeypatch.setattr(vacuum, "DEAD_ROWS", 0)
    monkeypatch.setattr(vacuum, "SOONEST_S", 0.0)
    monkeypatch.setattr(vacuum, "TIMES_AS_LONG", 0)


@pytest.fixture
def alone(db: Connection) -> Iterator[None]:
    """Without autovacuum."""
    for table in ("task", "wait"):
        db.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    yield
    for table in ("task", "wait"):
        db.execute(f"alter table {table} reset (autovacuum_enabled)".encode())


@pytest.fixture
async def creeping(dsn: str, stage: Stage) -> AsyncIterator[Worker]:
    """A worker whose first vacuum is under way, and will be for long."""
    async with Troth(make_conninfo(dsn, **CREEPING), **client_options()) as client:
        worker = stage.work(nothing, client=client)
        await works(stage, 0)
        yield worker
        await stage.stop_all()


async def works(stage: Stage, first: int, amount: int = ROUND) -> None:
    await stage.troth.start_many(nothing.name, {f"n-{n}": [n] for n in range(first, first + amount)})
    for n in range(first, first + amount):
        assert await stage.troth.handle(f"n-{n}").result(60) == n


async def rests(worker: Worker) -> None:
    await until(lambda: worker._vacuum._under_way is None, "no vacuum is under way")


def pages(db: Connection) -> int:
    """Of `task` and its indexes."""
    row = db.execute("select pg_total_relation_size('task') / 8192").fetchone()
    assert row is not None
    return int(row[0])


def vacuuming(db: Connection) -> list[int]:
    # other databases of the cluster are copies: their tables have the same OIDs
    rows = db.execute(
        "select pid from pg_stat_progress_vacuum where datname = current_database() and relid = 'task'::regclass"
    )
    return [int(pid) for (pid,) in rows]


def vacuumed(db: Connection) -> int:
    """How often `task` was vacuumed to the end."""
    row = db.execute("select vacuum_count from pg_stat_user_tables where relid = 'task'::regclass").fetchone()
    assert row is not None
    return int(row[0])


def here(db: Connection, pid: int) -> bool:
    return db.execute("select from pg_stat_activity where pid = %s", [pid]).fetchone() is not None


async def test_the_tables_do_not_grow_with_what_is_done(alone: None, stage: Stage, db: Connection) -> None:
    worker = stage.work(nothing)
    sizes: list[int] = []
    for number in range(25):
        await works(stage, number * ROUND)
        await rests(worker)
        sizes.append(pages(db))
    assert sizes[-1] <= 2.5 * sizes[4]  # without, it is 5 times


async def test_whoever_claims_little_says_nothing(
    stage: Stage, said: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "CLAIMS_BETWEEN", 10)
    worker = stage.work(nothing)
    await works(stage, 0, 9)
    looks = said["claim"]
    await until(lambda: said["claim"] > looks + 2)  # those that bring nothing are no claims
    assert (said["may_vacuum"], said["vacuum"]) == (0, 0)
    await works(stage, 9, 1)
    await until(lambda: said["vacuum"])
    await rests(worker)
    await works(stage, 10, 9)
    await rests(worker)
    assert (said["may_vacuum"], said["vacuum"]) == (1, 1)


@pytest.mark.parametrize(
    ("took_s", "after_s"), [(0.0, 0.5), (0.02, 0.5), (0.025, 0.5), (0.1, 2.0), (1.5, 30.0), (20.0, 400.0)]
)
def test_a_twentieth_of_the_time_at_most(
    took_s: float, after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    assert vacuum.not_before(100.0, 100.0 + took_s) == pytest.approx(100.0 + after_s)


async def test_it_comes_no_sooner_than_that(
    stage: Stage, said: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "SOONEST_S", 3600.0)
    worker = stage.work(nothing)
    for number in range(3):
        await works(stage, number * ROUND)
        await rests(worker)
    assert (said["may_vacuum"], said["vacuum"]) == (1, 1)


@contextmanager
def login(db: Connection, roles: str) -> Iterator[str]:
    """A user that is a member of these roles only; roles are the cluster's, and other tests run beside this one."""
    name = f"troth_test_vacuum_{os.getpid()}"
    db.execute(f"create role {name} login password 'secret' in role {roles}".encode())
    try:
        yield name
    finally:
        db.execute(f"drop owned by {name}".encode())
        db.execute(f"drop role {name}".encode())


async def test_whoever_may_not_asks_once_and_is_silent(
    dsn: str, stage: Stage, db: Connection, said: Counter[str]
) -> None:
    with login(db, "troth_worker") as name:
        async with Troth(make_conninfo(dsn, user=name, password="secret"), **client_options()) as client:
            worker = stage.work(nothing, client=client)
            for number in range(3):
                await works(stage, number * ROUND)
                await rests(worker)
            await stage.stop_all()
    assert (said["may_vacuum"], said["vacuum"]) == (1, 0)


async def test_who_may_is_as_postgres_sees_it(dsn: str, db: Connection) -> None:
    async def asked(name: str) -> tuple[str, int]:
        """What we say, and how many tables Postgres refuses."""
        theirs = make_conninfo(dsn, user=name, password="secret")
        pool = Pool(theirs, "troth", size=1)
        refused: list[str | None] = []
        try:
            with psycopg.connect(theirs, autocommit=True) as connection:
                connection.add_notice_handler(lambda notice: refused.append(notice.message_primary))
                connection.execute("vacuum (skip_locked) troth.task, troth.wait")
            return await pool.run(calls.may_vacuum(0)), len(refused)
        finally:
            await pool.close()

    with login(db, "troth_worker") as name:
        assert await asked(name) == ("never", 2)
        if db.info.server_version >= 170000:
            db.execute(f"grant maintain on task to {name}".encode())
            assert await asked(name) == ("never", 1)
            db.execute(f"grant maintain on wait to {name}".encode())
            assert await asked(name) == ("now", 0)
            db.execute(f"revoke maintain on task, wait from {name}".encode())
        db.execute(f"alter database {db.info.dbname} owner to {name}".encode())
        assert await asked(name) == ("now", 0)
        db.execute(f"alter database {db.info.dbname} owner to current_user".encode())
    with login(db, "troth_owner") as name:
        assert await asked(name) == ("now", 0)


@pytest.mark.parametrize(
    ("statement", "answer"),
    [
        ("lock table wait in share update exclusive mode", "later"),  # as a vacuum does
        ("lock table task in access exclusive mode", "later"),  # as a migration may
        ("lock table promise in access exclusive mode", "now"),
        ("lock table task, wait in row exclusive mode", "now"),
        ("set local enable_indexscan = off; select * from task, wait for update", "now"),
    ],
)
async def test_who_is_at_a_table_is_not_disturbed(
    dsn: str, connect: Callable[..., Connection], statement: str, answer: str
) -> None:
    pool, other = Pool(dsn, "troth", size=1), connect()
    try:
        other.execute("begin isolation level serializable")
        other.execute(statement.encode())
        assert await pool.run(calls.may_vacuum(0)) == answer
        other.execute("rollback")
        assert await pool.run(calls.may_vacuum(0)) == "now"
    finally:
        await pool.close()


async def test_there_must_be_something_to_gain(dsn: str, db: Connection) -> None:
    pool = Pool(dsn, "troth", size=1)
    try:
        db.execute("vacuum task, wait")
        db.execute("select start('w' || n, 'f') from generate_series(1, 30) n")
        db.execute("select cancel('w' || n) from generate_series(1, 30) n")
        db.execute("select pg_stat_force_next_flush()")
        assert await pool.run(calls.may_vacuum(30)) == "now"
        assert await pool.run(calls.may_vacuum(31)) == "later"
        await pool.run(calls.vacuum())
        assert await pool.run(calls.may_vacuum(1)) == "later"
    finally:
        await pool.close()


async def test_a_vacuum_that_fails_is_nobodys_trouble(
    creeping: Worker, stage: Stage, db: Connection, said: Counter[str]
) -> None:
    [pid] = await until(lambda: vacuuming(db), "it vacuums")
    db.execute("select pg_terminate_backend(%s)", [pid])
    await rests(creeping)
    said.clear()
    await works(stage, ROUND, 2 * ROUND)
    assert not stage.ended(creeping)
    assert said["claim"]
    assert (said["may_vacuum"], said["vacuum"]) == (0, 0)


async def test_claims_and_turns_do_not_wait_for_it(creeping: Worker, stage: Stage, db: Connection) -> None:
    [pid] = await until(lambda: vacuuming(db), "it vacuums")
    await works(stage, ROUND)
    assert vacuuming(db) == [pid]


async def test_a_worker_that_stops_cancels_it_and_leaves_no_connection(
    creeping: Worker, stage: Stage, db: Connection
) -> None:
    before = vacuumed(db)
    [pid] = await until(lambda: vacuuming(db), "it vacuums")
    await stage.stop(creeping)
    assert creeping._pool._connections is None
    await until(lambda: not here(db, pid), "its connection is closed")
    assert vacuumed(db) == before


async def test_postgres_away_is_sat_out(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pool.run
    refused = 0

    async def refusing(self: Pool, call: Any, **options: Any) -> Any:
        nonlocal refused
        if call.function == "may_vacuum":
            refused += 1
            raise Unreachable("Postgres is away.")
        return await run(self, call, **options)

    monkeypatch.setattr(Pool, "run", refusing)
    worker = stage.work(nothing)
    for number in range(3):
        await works(stage, number * ROUND)
        await rests(worker)
    assert refused == 1
