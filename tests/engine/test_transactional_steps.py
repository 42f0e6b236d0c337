"""`ctx.transaction`: what it wrote and its checkpoint are one commit, whatever dies, breaks or collides meanwhile."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from asyncpg.transaction import Transaction

from tests.engine.running import Stage, WorkerProcess, until
from troth import Context, InvalidArgument, Retry, workflow
from troth.gateway import transactions

Connection = psycopg.Connection[Any]
Spawn = Callable[..., WorkerProcess]
Effects = Callable[[], list[str]]

TALES = ["tests.engine.programs.steps_tales"]
SEEN: list[Any] = []
GATES: dict[str, asyncio.Event] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    SEEN.clear()
    GATES.clear()


@pytest.fixture(autouse=True)
def ledger(db: Connection) -> None:
    db.execute("create table public.ledger (entry text not null, amount integer not null)")


def gate(name: str) -> asyncio.Event:
    return GATES.setdefault(name, asyncio.Event())


def booked(db: Connection) -> list[tuple[Any, ...]]:
    return db.execute("select entry, count(*) from public.ledger group by 1 order by 1").fetchall()


def others(db: Connection, which: str = "true") -> int:
    """How many connections there are for transactions, of which this is true."""
    row = db.execute(
        "select count(*) from pg_stat_activity"
        f" where application_name = 'troth transactions' and datname = current_database() and {which}"
    ).fetchone()
    assert row is not None
    return int(row[0])


async def insert(connection: Any, entry: str) -> str:
    await connection.execute("insert into public.ledger values ($1, 1)", entry)
    return entry


# Dying workers.


async def test_a_transaction_happens_exactly_once_though_its_workers_are_killed_at_random(
    stage: Stage, spawn: Spawn, db: Connection
) -> None:
    orders, times = [f"o{n}" for n in range(8)], 25
    handles = [await stage.troth.start(order, "books", order=order, times=times) for order in orders]

    def count() -> int:
        row = db.execute("select count(*) from public.ledger").fetchone()
        assert row is not None
        return int(row[0])

    kills, enough = 0, 0
    while kills < 5 and enough < len(orders) * times:
        worker = spawn(modules=TALES, lease_s=1, poll_s=0.1)
        enough = count() + random.randint(1, 30)
        await until(lambda: count() >= min(enough, len(orders) * times))  # noqa: B023
        worker.kill()
        kills += 1
    assert kills > 1
    spawn(modules=TALES, poll_s=0.1)
    for handle in handles:
        # each saw all before it, and nothing twice
        assert await handle.result(60) == list(range(1, times + 1))
    assert booked(db) == [(order, times) for order in orders]


KILLED = {
    "after_the_commit": 'before:advance:1:"then":"finish"',
    "before_anything": "after:claim:1",
}


@pytest.mark.parametrize("point", KILLED)
async def test_s10_a_worker_dies_beside_a_commit(
    stage: Stage, spawn: Spawn, db: Connection, point: str
) -> None:
    first = spawn(modules=TALES, lease_s=1, kill_at=KILLED[point])
    handle = await stage.troth.start("w", "books", order="w", times=1)
    assert await first.death() == -signal.SIGKILL
    assert booked(db) == ([("w", 1)] if point == "after_the_commit" else [])
    spawn(modules=TALES)
    assert await handle.result(60) == [1]
    assert booked(db) == [("w", 1)]


async def test_a_worker_that_dies_inside_a_transaction_has_done_nothing(
    stage: Stage, spawn: Spawn, db: Connection, effects: Effects, tmp_path: Any
) -> None:
    first = spawn(modules=TALES, lease_s=1)
    handle = await stage.troth.start("w", "books_at_gate", order="w")
    await until(lambda: effects() == ["booked"])
    first.kill()
    (tmp_path / "open").touch()
    spawn(modules=TALES)
    assert await handle.result(60) == 1
    assert effects() == ["booked", "booked"]
    assert booked(db) == [("w", 1)]


async def test_a_worker_that_lost_its_lease_inside_a_transaction_rolls_back(
    stage: Stage, spawn: Spawn, db: Connection, effects: Effects, tmp_path: Any
) -> None:
    """It was stopped for longer than its lease; awake again it finishes its transaction, which is no longer its to finish."""
    first = spawn(modules=TALES, lease_s=1)
    handle = await stage.troth.start("w", "books_at_gate", order="w")
    await until(lambda: effects() == ["booked"])
    first.send(signal.SIGSTOP)
    spawn(modules=TALES)
    await until(lambda: effects() == ["booked", "booked"])
    (tmp_path / "open").touch()
    assert await handle.result(60) == 1
    first.send(signal.SIGCONT)
    await until(lambda: "taken for dead" in first.said() or "task lost" in first.said())
    await until(lambda: not others(db, "state <> 'idle'"), "none is open")
    assert booked(db) == [("w", 1)]


# A workflow with one transaction, made of what a test puts in here.

BODY: list[Any] = []


async def body(connection: Any, entry: str) -> Any:
    SEEN.append("run")
    return await BODY[0](connection, entry)


@workflow
async def transacts(ctx: Context, entry: str, isolation: Any = None, attempts: int = 1) -> Any:
    mine = ctx.options(isolation=isolation, retry=Retry(attempts=attempts, first=0))
    try:
        return await mine.transaction(body, entry)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def doing() -> Iterator[Callable[[Any], None]]:
    BODY.clear()
    yield BODY.append
    BODY.clear()


Doing = Callable[[Any], None]


# Commits that fail.


async def backend_of(connection: Any) -> int:
    pid: int = await connection.fetchval("select pg_backend_pid()")
    return pid


def end_backend(db: Connection, pid: int) -> None:
    db.execute("select pg_terminate_backend(%s, 5000)", [pid])


@pytest.mark.parametrize("committed", [False, True])
async def test_s91_an_answer_to_commit_that_is_lost_makes_nothing_twice(
    stage: Stage, db: Connection, doing: Doing, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """Its connection breaks right before or right after the commit; the worker cannot tell which, and the journal can."""
    commit = Transaction.commit
    broken: list[int] = []

    async def breaks(self: Any) -> None:
        if broken:
            await commit(self)
            return
        pid = await backend_of(self._connection)
        broken.append(pid)
        if committed:
            await commit(self)
        await asyncio.to_thread(end_backend, db, pid)
        # the one that was not sent yet, or a second one in the place of the answer
        await commit(self) if not committed else await self._connection.execute("select 1")

    monkeypatch.setattr(Transaction, "commit", breaks)
    doing(insert)
    stage.work(transacts)
    assert await (await stage.troth.start("w", transacts, "w")).result(60) == "w"
    assert len(broken) == 1
    assert SEEN.count("run") == (1 if committed else 2)
    assert booked(db) == [("w", 1)]


@pytest.mark.parametrize("when", ["inside", "before commit_step"])
async def test_a_connection_that_breaks_under_way_is_no_failure_of_the_step(
    stage: Stage, db: Connection, doing: Doing, when: str
) -> None:
    async def broken(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        if SEEN.count("run") == 1:
            await asyncio.to_thread(end_backend, db, await backend_of(connection))
            if when == "inside":
                await insert(connection, entry)
        return entry

    doing(broken)
    stage.work(transacts)
    assert await (await stage.troth.start("w", transacts, "w")).result(60) == "w"
    assert SEEN == ["run", "run"]
    assert booked(db) == [("w", 1)]


async def test_what_postgres_finds_wrong_at_the_commit_is_the_steps_failure(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    db.execute("alter table public.ledger add constraint once unique (entry) deferrable initially deferred")

    async def twice(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        return await insert(connection, entry)

    doing(twice)
    stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w", attempts=2)).result(60)
    assert told.startswith("UniqueViolationError: ")
    assert SEEN == ["run", "run"]
    assert booked(db) == []


# Errors.


async def test_what_the_function_raises_rolls_back_and_is_told(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    async def fails(connection: Any, entry: str) -> None:
        await insert(connection, entry)
        raise LookupError("not today")

    doing(fails)
    stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w", attempts=3)).result(60)
    assert told == "LookupError: not today"
    assert SEEN == ["run"] * 3
    assert booked(db) == []


async def test_a_function_may_roll_back_a_part_of_its_own(stage: Stage, db: Connection, doing: Doing) -> None:
    async def in_part(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        try:
            async with connection.transaction():
                await insert(connection, "part")
                raise LookupError
        except LookupError:
            return "kept the rest"

    doing(in_part)
    stage.work(transacts)
    assert await (await stage.troth.start("w", transacts, "w")).result(60) == "kept the rest"
    assert booked(db) == [("w", 1)]


async def test_an_error_of_sql_that_was_swallowed_is_not_committed_over(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    async def swallows(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        try:
            await connection.execute("select no_such_column")
        except asyncpg.UndefinedColumnError:
            return "as if nothing had happened"
        return "?"

    doing(swallows)
    stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w")).result(60)
    assert told.startswith("InFailedSQLTransactionError")
    assert booked(db) == []


@pytest.mark.parametrize("how", ["commit", "rollback"])
async def test_a_function_that_ends_the_transaction_itself_is_told_so(
    stage: Stage, db: Connection, doing: Doing, how: str
) -> None:
    async def ends(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        await connection.execute(how)
        return entry

    doing(ends)
    stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w")).result(60)
    assert told.startswith("InvalidArgument: The function of a ctx.transaction ended its transaction itself")
    # the connection is fit for the next one
    BODY[0] = insert
    assert await (await stage.troth.start("v", transacts, "v")).result(60) == "v"


def plain(connection: Any) -> None: ...


@workflow
async def transacts_plainly(ctx: Context) -> str:
    try:
        untyped: Any = plain
        await ctx.transaction(untyped)
    except InvalidArgument as error:
        return error.message
    return "?"


async def test_a_plain_function_cannot_use_the_connection(stage: Stage) -> None:
    stage.work(transacts_plainly)
    told = await (await stage.troth.start("w", transacts_plainly)).result(60)
    assert told.startswith("'plain' is no `async def`")


async def test_a_result_that_cannot_be_stored_rolls_back(stage: Stage, db: Connection, doing: Doing) -> None:
    async def odd(connection: Any, entry: str) -> Any:
        await insert(connection, entry)
        return object()

    doing(odd)
    stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w")).result(60)
    assert told.startswith("InvalidPayload: ")
    assert booked(db) == []


# Collisions.


async def counts_then_inserts(connection: Any, entry: str) -> int:
    """What two of them must not do at once: each looks at what the other writes."""
    count: int = await connection.fetchval("select count(*)::int from public.ledger")
    SEEN.append(entry)
    if SEEN.count("a") and SEEN.count("b"):
        gate("both have looked").set()
    await gate("both have looked").wait()
    await insert(connection, entry)
    return count


@pytest.mark.parametrize("isolation", ["serializable", "repeatable_read", "read_committed"])
async def test_what_cannot_be_serialized_is_run_again(
    stage: Stage, db: Connection, doing: Doing, isolation: str
) -> None:
    doing(counts_then_inserts)
    stage.work(transacts)
    handles = [await stage.troth.start(entry, transacts, entry, isolation) for entry in ("a", "b")]
    counted = sorted([await each.result(60) for each in handles])
    assert booked(db) == [("a", 1), ("b", 1)]
    if isolation == "serializable":
        assert counted == [0, 1]
        assert SEEN.count("run") == 3
    else:
        # nothing forbids it there: this is what the option is for
        assert counted == [0, 0]
        assert SEEN.count("run") == 2


async def test_a_deadlock_is_run_again(stage: Stage, db: Connection, doing: Doing) -> None:
    db.execute("insert into public.ledger values ('a', 1), ('b', 1)")
    db.execute("alter system set deadlock_timeout = '50ms'")
    db.execute("select pg_reload_conf()")

    async def crosses(connection: Any, entry: str) -> str:
        raise_one = "update public.ledger set amount = amount + 1 where entry = $1"
        await connection.execute(raise_one, entry)
        SEEN.append(entry)
        if SEEN.count("a") and SEEN.count("b"):
            gate("both").set()
        await gate("both").wait()
        await connection.execute(raise_one, "b" if entry == "a" else "a")
        return entry

    doing(crosses)
    stage.work(transacts)
    try:
        handles = [await stage.troth.start(entry, transacts, entry) for entry in ("a", "b")]
        assert sorted([await each.result(60) for each in handles]) == ["a", "b"]
    finally:
        db.execute("alter system reset deadlock_timeout")
        db.execute("select pg_reload_conf()")
    assert db.execute("select sum(amount) from public.ledger").fetchone() == (6,)
    assert SEEN.count("run") == 3


async def test_one_that_always_collides_fails_in_the_end(
    stage: Stage, db: Connection, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    from troth.worker import runs

    monkeypatch.setattr(runs, "CONFLICTS_MAX", 3)
    monkeypatch.setattr(runs, "CONFLICT_PAUSE_S", 0.001)

    async def collides(connection: Any, entry: str) -> None:
        await insert(connection, entry)
        raise asyncpg.SerializationError("could not serialize")

    doing(collides)
    worker = stage.work(transacts)
    told = await (await stage.troth.start("w", transacts, "w", attempts=2)).result(60)
    assert told == "SerializationError: could not serialize"
    # each of two attempts: once, and three times again
    assert SEEN == ["run"] * 8
    assert booked(db) == []
    assert worker._runs._conflicts == {}


# The row of its task is held by somebody else.


@workflow
async def asks_and_transacts(ctx: Context) -> list[Any]:
    asked = ctx.promise(int, "p")
    return [await ctx.transaction(body, "w"), await asked]


@pytest.mark.parametrize("patience_s", [5.0, 0.05])
async def test_s89_a_decision_in_somebodys_open_transaction_is_waited_for_and_deadlocks_nobody(
    stage: Stage, db: Connection, doing: Doing, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    """He holds the promise and its awaiter's task. Where that takes too long, the transaction lets go and is run again."""
    monkeypatch.setattr(transactions, "BUSY_GIVEN_UP_S", patience_s)

    async def waits_for_him(connection: Any, entry: str) -> str:
        gate("inside").set()
        await gate("he holds it").wait()
        return await insert(connection, entry)

    doing(waits_for_him)
    stage.work(asks_and_transacts)
    handle = await stage.troth.start("w", asks_and_transacts)
    await gate("inside").wait()
    person = await asyncpg.connect(stage.dsn)
    async with person.transaction():
        await stage.troth.options(connection=person).resolve("w~p", 7)
        gate("he holds it").set()
        await until(lambda: others(db, "query like '%commit_step%'"), "it is asked for its checkpoint")
        if patience_s < 1:
            await until(lambda: SEEN.count("run") > 1)
        assert (await stage.troth.get("w")).pending
    await person.close()
    assert await handle.result(60) == ["w", 7]
    assert booked(db) == [("w", 1)]
    if patience_s > 1:
        assert SEEN == ["run"]
    assert [(e.seq, e.operation) for e in await stage.troth.journal("w")] == [(1, "p"), (2, "body")]


async def test_a_transaction_may_settle_what_its_own_workflow_waits_for(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    async def decides(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        await connection.execute("select troth.resolve('w~p', '7')")
        return entry

    doing(decides)
    stage.work(asks_and_transacts)
    assert await (await stage.troth.start("w", asks_and_transacts)).result(60) == ["w", 7]
    assert [(e.seq, e.operation) for e in await stage.troth.journal("w")] == [(1, "p"), (2, "body")]
    assert booked(db) == [("w", 1)]


# Time.


@workflow
async def has_no_time(ctx: Context, whose: str) -> str:
    try:
        if whose == "the step's":
            await ctx.options(timeout=0.1).transaction(body, "w")
        else:
            async with asyncio.timeout(0.1):
                await ctx.transaction(body, "w")
    except TimeoutError:
        return "too late"
    return "?"


@pytest.mark.parametrize("whose", ["the step's", "the code's"])
async def test_a_transaction_that_takes_too_long_is_rolled_back(
    stage: Stage, db: Connection, doing: Doing, whose: str
) -> None:
    async def sleeps(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        await connection.execute("select pg_sleep(60)")
        return entry

    doing(sleeps)
    stage.work(has_no_time)
    assert await (await stage.troth.start("w", has_no_time, whose)).result(60) == "too late"
    await until(lambda: not others(db, "state = 'active'"), "nothing sleeps")
    assert booked(db) == []


@workflow
async def gives_up_its_commit(ctx: Context) -> str:
    try:
        async with asyncio.timeout(1.5):
            await ctx.transaction(body, "w")
    except TimeoutError:
        pass
    return await ctx.promise(str, "p")


async def test_a_transaction_given_up_in_its_commit_is_not_run_again(
    stage: Stage, db: Connection, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Transaction.commit

    async def hangs(self: Any) -> None:
        SEEN.append("commits")
        await gate("never").wait()
        await commit(self)

    monkeypatch.setattr(Transaction, "commit", hangs)
    doing(insert)
    stage.work(gives_up_its_commit)
    handle = await stage.troth.start("w", gives_up_its_commit)
    await stage.exists("w~p")
    await stage.reaches("w", "suspended")
    await stage.troth.resolve("w~p", "end")
    assert await handle.result(60) == "end"
    assert SEEN == ["run", "commits"]
    assert booked(db) == []
    steps = [each.state for each in await stage.troth.journal("w") if each.kind == "step"]
    assert steps == ["rejected"]


# Connections.


async def test_no_more_transactions_run_at_once_than_there_are_connections(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    inside: list[str] = []

    async def alone(connection: Any, entry: str) -> int:
        inside.append(entry)
        most = len(inside)
        await connection.execute("select pg_sleep(0.01)")
        inside.remove(entry)
        return max(most, len(inside))

    doing(alone)
    stage.work(transacts, transactions=2)
    handles = [await stage.troth.start(f"w{n}", transacts, f"w{n}") for n in range(12)]
    assert max([await each.result(60) for each in handles]) <= 2


async def test_connections_are_closed_with_the_worker_and_what_is_open_is_rolled_back(
    stage: Stage, db: Connection, doing: Doing
) -> None:
    async def stays(connection: Any, entry: str) -> str:
        await insert(connection, entry)
        gate("inside").set()
        await gate("never").wait()
        return entry

    doing(stays)
    worker = stage.work(transacts, grace=timedelta(0))
    await stage.troth.start("w", transacts, "w")
    await gate("inside").wait()
    await stage.stop(worker)
    await until(lambda: not others(db), "all are closed")
    assert booked(db) == []
    assert await stage.state("w") == "ready"


async def test_a_server_without_a_connection_to_spare_is_waited_for(
    stage: Stage, db: Connection, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = asyncpg.create_pool
    refused: list[bool] = []

    def refuses_first(*args: Any, **options: Any) -> Any:
        if not refused and options["server_settings"]["application_name"] == "troth transactions":
            refused.append(True)
            raise asyncpg.TooManyConnectionsError("sorry, too many clients already")
        return create(*args, **options)

    monkeypatch.setattr(asyncpg, "create_pool", refuses_first)
    doing(insert)
    stage.work(transacts)
    assert await (await stage.troth.start("w", transacts, "w")).result(60) == "w"
    assert refused == [True]
    assert booked(db) == [("w", 1)]
