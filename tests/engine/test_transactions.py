"""A start and a decision inside the caller's own transaction: they commit with his rows, or not at all.

Each driver is an adapter that opens a transaction, writes a row of its own and runs the two verbs through Troth.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
import sqlalchemy.orm

from tests.engine.running import ROOT, client_options
from troth import IdConflict, InvalidArgument, IsolationLevel, SyncTroth, Troth


class RolledBack(Exception):
    pass


def alchemy(dsn: str, driver: str) -> str:
    return dsn.replace("postgresql://", f"postgresql+{driver}://", 1)


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection, connection.execute
    finally:
        await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection, connection.execute


@asynccontextmanager
async def by_psycopg_async(dsn: str) -> AsyncIterator[tuple[Any, Any]]:
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        yield connection, connection.execute


@asynccontextmanager
async def by_sqlalchemy_async(dsn: str, driver: str, session: bool) -> AsyncIterator[tuple[Any, Any]]:
    import sqlalchemy.ext.asyncio as sqlalchemy_async  # needs greenlet: only these cases fail without it

    engine = sqlalchemy_async.create_async_engine(alchemy(dsn, driver))
    try:
        if session:
            async with sqlalchemy_async.AsyncSession(engine) as owner, owner.begin():
                yield owner, lambda text: owner.execute(sqlalchemy.text(text))
        else:
            async with engine.begin() as connection:
                yield connection, lambda text: connection.execute(sqlalchemy.text(text))
    finally:
        await engine.dispose()


ASYNC: dict[str, Callable[[str], AbstractAsyncContextManager[tuple[Any, Any]]]] = {
    "asyncpg": by_asyncpg,
    "asyncpg pool": by_asyncpg_pool,
    "psycopg": by_psycopg_async,
    "sqlalchemy asyncpg connection": lambda dsn: by_sqlalchemy_async(dsn, "asyncpg", False),
    "sqlalchemy asyncpg session": lambda dsn: by_sqlalchemy_async(dsn, "asyncpg", True),
    "sqlalchemy psycopg connection": lambda dsn: by_sqlalchemy_async(dsn, "psycopg", False),
    "sqlalchemy psycopg session": lambda dsn: by_sqlalchemy_async(dsn, "psycopg", True),
}


@contextmanager
def by_psycopg(dsn: str) -> Iterator[tuple[Any, Any]]:
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        yield connection, connection.execute


@contextmanager
def by_sqlalchemy(dsn: str, session: bool) -> Iterator[tuple[Any, Any]]:
    engine = sqlalchemy.create_engine(alchemy(dsn, "psycopg"))
    try:
        if session:
            with sqlalchemy.orm.Session(engine) as owner, owner.begin():
                yield owner, lambda text: owner.execute(sqlalchemy.text(text))
        else:
            with engine.begin() as connection:
                yield connection, lambda text: connection.execute(sqlalchemy.text(text))
    finally:
        engine.dispose()


SYNC: dict[str, Callable[[str], AbstractContextManager[tuple[Any, Any]]]] = {
    "psycopg": by_psycopg,
    "sqlalchemy connection": lambda dsn: by_sqlalchemy(dsn, False),
    "sqlalchemy session": lambda dsn: by_sqlalchemy(dsn, True),
}


@pytest.fixture
def business(db: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A table of the caller's own, and a latent promise to decide."""
    db.execute("create table public.business (id text primary key)")
    db.execute("select create_promise('approval')")
    return db


NOTHING = [[], [], "pending"]
ALL = [["row"], ["w"], "resolved"]


def trace(db: psycopg.Connection[Any]) -> list[Any]:
    rows = db.execute(
        "select array(select id from public.business), array(select id from promise where function is not null),"
        " (select state from promise where id = 'approval')"
    ).fetchone()
    return list(rows or ())


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("driver", ASYNC)
async def test_s05_s88_an_asynchronous_transaction_takes_start_and_decision_with_it(
    dsn: str, business: psycopg.Connection[Any], driver: str, commits: bool
) -> None:
    async with Troth(dsn, **client_options()) as troth:
        with suppress(RolledBack):
            async with ASYNC[driver](dsn) as (connection, execute):
                await execute("insert into public.business values ('row')")
                inside = troth.options(connection=connection)
                started = await inside.start("w", "anything", order={"a": [1, None, "ü"]})
                assert started.started is not None
                assert started.started.answer == "created"
                assert (await inside.resolve("approval", {"by": "ann"})).answer == "settled"
                assert (await inside.get("w")).pending
                assert trace(business) == NOTHING
                if not commits:
                    raise RolledBack
        assert trace(business) == (ALL if commits else NOTHING)
        again = await troth.resolve("approval", {"by": "ann"})
        assert again.answer == ("already" if commits else "settled")


@pytest.mark.parametrize("commits", [False, True])
@pytest.mark.parametrize("driver", SYNC)
def test_s05_s88_a_blocking_transaction_takes_start_and_decision_with_it(
    dsn: str, business: psycopg.Connection[Any], driver: str, commits: bool
) -> None:
    with SyncTroth(dsn) as troth:
        with suppress(RolledBack), SYNC[driver](dsn) as (connection, execute):
            execute("insert into public.business values ('row')")
            inside = troth.options(connection=connection)
            started = inside.start("w", "anything", order={"a": [1, None, "ü"]})
            assert started.started is not None
            assert started.started.answer == "created"
            assert inside.resolve("approval", {"by": "ann"}).answer == "settled"
            assert inside.get("w").pending
            assert trace(business) == NOTHING
            if not commits:
                raise RolledBack
        assert trace(business) == (ALL if commits else NOTHING)
        assert troth.resolve("approval", {"by": "ann"}).answer == ("already" if commits else "settled")


DJANGO = """
import sys
import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

parts = conninfo_to_dict(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql", "NAME": parts["dbname"], "USER": parts["user"],
    "PASSWORD": parts.get("password", ""), "HOST": parts["host"], "PORT": parts.get("port", "5432"),
}})
django.setup()
from django.db import connection, transaction
from troth import SyncTroth

troth = SyncTroth(sys.argv[1])
for commits in (False, True):
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("insert into public.business values ('row')")
            inside = troth.options(connection=connection)
            assert inside.start("w", "anything", order={"a": "100 % sure"}).started.answer == "created"
            assert inside.resolve("approval", {"by": "ann"}).answer == "settled"
            assert inside.get("w").pending
            if not commits:
                raise LookupError
    except LookupError:
        with connection.cursor() as cursor:
            cursor.execute("select count(*) from public.business")
            assert cursor.fetchone() == (0,)
        assert troth.get("approval").pending
        assert troth.get_many(["w"]) == {}
from django.db import connections
troth.options(connection=connections["default"]).cancel("w")
troth.close()
connection.close()
print("done")
"""


def test_s05_s88_a_django_transaction_takes_start_and_decision_with_it(
    dsn: str, business: psycopg.Connection[Any]
) -> None:
    done = subprocess.run([sys.executable, "-c", DJANGO, dsn], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "done\n", done.stderr
    assert trace(business) == [["row"], ["w"], "resolved"]


async def test_a_conflict_inside_a_transaction_is_the_usual_error(
    dsn: str, business: psycopg.Connection[Any]
) -> None:
    async with Troth(dsn, **client_options()) as troth:
        await troth.start("w", "f", a=1)
        for name, driver in ASYNC.items():
            with pytest.raises(IdConflict, match="other arguments"):
                async with driver(dsn) as (connection, _):
                    await troth.options(connection=connection).start("w", "f", a=2)
            assert name
    with SyncTroth(dsn) as sync:
        for blocking in SYNC.values():
            with pytest.raises(IdConflict, match="other arguments"), blocking(dsn) as (connection, _):
                sync.options(connection=connection).start("w", "f", a=2)
    assert trace(business) == [[], ["w"], "pending"]


async def test_a_decision_under_repeatable_read_is_refused(
    dsn: str, business: psycopg.Connection[Any]
) -> None:
    async with Troth(dsn, **client_options()) as troth:
        connection = await asyncpg.connect(dsn)
        with pytest.raises(IsolationLevel, match="READ COMMITTED"):
            async with connection.transaction(isolation="repeatable_read"):
                await troth.options(connection=connection).resolve("approval", True)
        await connection.close()
    assert trace(business)[2] == "pending"


async def test_a_connection_that_cannot_be_used_is_named(dsn: str) -> None:
    async with Troth(dsn, **client_options()) as troth:
        with (
            psycopg.connect(dsn) as blocking,
            pytest.raises(InvalidArgument, match="SyncTroth blocking ones"),
        ):
            await troth.options(connection=blocking).get("x")
        with pytest.raises(InvalidArgument, match="expected an asyncpg"):
            await troth.options(connection=object()).get("x")
        connection = await asyncpg.connect(dsn)
        with SyncTroth(dsn) as sync, pytest.raises(InvalidArgument, match="psycopg, SQLAlchemy or Django"):
            sync.options(connection=connection).get("x")
        await connection.close()


async def test_an_asyncpg_connection_in_use_is_told_as_that_and_not_as_an_outage(dsn: str) -> None:
    import asyncio

    async with Troth(dsn, **client_options()) as troth:
        connection = await asyncpg.connect(dsn)
        sleeping = asyncio.create_task(connection.execute("select pg_sleep(2)"))
        await asyncio.sleep(0)
        with pytest.raises(Exception, match="another operation is in progress") as caught:
            await troth.options(connection=connection).get_many(["x"])
        assert "cannot be reached" not in str(caught.value)
        await sleeping
        await connection.close()


async def test_nothing_of_the_callers_connection_is_changed(dsn: str) -> None:
    async with Troth(dsn, **client_options()) as troth:
        connection = await asyncpg.connect(dsn)
        await connection.set_type_codec(
            "jsonb", encoder=str, decoder=lambda text: ("mine", text), schema="pg_catalog"
        )
        inside = troth.options(connection=connection)
        await inside.start("w", "f", a=1)
        assert (await inside.get("w")).function == "f"
        assert await connection.fetchval("select '1'::jsonb") == ("mine", "1")
        assert await connection.fetchval("show search_path") == '"$user", public'
        await connection.close()
