"""A Postgres server of our own, which may be filled up, closed to writers, or out of connections; and its relief."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tests.engine.running import client_options, until
from tests.proof.network.shop import insist, judge, open_shop, order
from troth import Troth, TrothError
from troth.dev import Postgres
from troth.schema import migrate
from troth.testing.violations import install_violations

BEFORE = [f"before-{n}" for n in range(5)]
AFTER = [f"after-{n}" for n in range(5)]
Act = Callable[[], Awaitable[None]]


def begin(home: Path, **settings: str | int) -> Postgres:
    """A server with a namespace."""
    server = Postgres.start(home, prefer=os.environ.get("TROTH_TEST_POSTGRES") or None, settings=settings)
    migrate(server.dsn)
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        install_violations(connection)
    return server


def do(dsn: str, *statements: str) -> list[Any]:
    """Carry out statements as an operator; the rows of the last."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        rows: list[Any] = []
        for each in statements:
            found = connection.execute(each.encode())
            rows = found.fetchall() if found.description else []
        return rows


DISCONNECT = (
    "select pg_terminate_backend(pid) from pg_stat_activity "
    "where datname = current_database() and pid <> pg_backend_pid() and application_name like 'troth%'"
)


async def live_through(
    dsn: str, trouble: Act, relief: Act, log: list[Any], noticed: tuple[str, ...], *, amid: Sequence[str] = ()
) -> dict[str, float]:
    """Orders before, in and after some trouble: all end, and nothing is wrong. Seconds from the relief to the first and last.

    The orders `amid` are started by the trouble itself.
    """
    async with Troth(dsn, **client_options()) as client, open_shop(dsn, dsn, dsn):
        for id in BEFORE:
            await client.start(id, order, id)
        waiting = [asyncio.create_task(client.handle(id).result(100)) for id in BEFORE]
        for id in BEFORE:
            await until(partial(_is_suspended, client, id), f"{id} is under way")
        await trouble()
        deciding = [asyncio.create_task(insist(client, id)) for id in [*BEFORE, *amid]]
        starting = [asyncio.create_task(_begin(client, id)) for id in AFTER]
        await until(lambda: [e for e in log if any(word in str(e) for word in noticed)], f"{noticed} is said")
        assert [e for e in waiting if e.done() and e.exception()] == [], "who waits for a result sits it out"
        await relief()
        relieved = time.monotonic()
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        first = time.monotonic() - relieved
        await asyncio.gather(*waiting, *starting, *deciding)
        await asyncio.gather(*(insist(client, id) for id in AFTER))
        for id in [*AFTER, *amid]:
            await client.handle(id).result(60)
    judge(dsn, [*BEFORE, *AFTER, *amid])
    return {"first": round(first, 1), "all": round(time.monotonic() - relieved, 1)}


async def _is_suspended(client: Troth, id: str) -> bool:
    task = (await client.get(id)).task
    return task is not None and task.state == "suspended"


async def _begin(client: Troth, id: str) -> None:
    """Start an order, as often as it takes."""
    until_s = time.monotonic() + 100
    while True:
        try:
            await client.start(id, order, id)
        except TrothError:
            assert time.monotonic() < until_s, f"{id} cannot be started"
            await asyncio.sleep(0.1)
        else:
            return
