"""What runs while the network fails: orders that use all that goes over the wire, and what must be true of them in the end.

Each order runs a step, a transactional step, a child, waits for a person and for a timer, and runs a step again. What they do to
the world is told to a ledger in the database that the proxy does not stand before.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import psycopg

from tests.engine.running import PATIENCE_S, client_options, keep_option, until
from troth import Context, Settlement, Troth, TrothError, Worker, workflow
from troth.testing.violations import violations

LEDGER = """
create table public.ledger (workflow text, operation text);
create table public.calls (workflow text, operation text, too_late boolean)
"""
_called = """
insert into public.calls select %(id)s, %(step)s, exists (
  select from troth.checkpoint where task = %(id)s and operation = %(step)s)
"""


class World:
    """The database behind all proxies, where steps leave their traces."""

    dsn: str


def _note(id: str, step: str) -> None:
    """As often as it takes: the server may be the one that is in trouble."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with psycopg.connect(
                World.dsn, autocommit=True, options="-c default_transaction_read_only=off"
            ) as direct:
                direct.execute("set statement_timeout = 0")
                direct.execute(_called, {"id": id, "step": step})
        except psycopg.Error:
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return


async def reserve(id: str) -> str:
    await asyncio.to_thread(_note, id, "reserve")
    return f"reserved {id}"


async def pay(connection: Any, id: str) -> str:
    await connection.execute("insert into public.ledger values ($1, 'pay')", id)
    return f"paid {id}"


def receipt(id: str) -> None:
    _note(id, "receipt")


@workflow
async def ship(ctx: Context, order: str) -> str:
    await ctx.run(reserve, f"{order}~ship")
    return f"shipped {order}"


@workflow
async def order(ctx: Context, id: str) -> list[str]:
    approval = ctx.promise(str, "approval")
    said = [await ctx.run(reserve, id), await ctx.transaction(pay, id)]
    said.append(await ctx.call(ship, id))
    said.append(await approval)
    await asyncio.sleep(0.02)
    await ctx.run(receipt, id)
    return said


def expected(id: str) -> list[str]:
    return [f"reserved {id}", f"paid {id}", f"shipped {id}", f"yes {id}"]


@asynccontextmanager
async def open_shop(dsn: str, *ways: str, **options: Any) -> AsyncIterator[list[Worker]]:
    """A worker for each DSN (by way of a proxy, or a pooler); `options` are those of `Worker` and, by name, of its client."""
    of_client: dict[str, Any] = {
        key: options.pop(key) for key in ("prepared", "listen_dsn", "notify") if key in options
    }
    given: dict[str, Any] = {
        "lease": timedelta(seconds=3),
        "poll": timedelta(seconds=0.2),
        "grace": timedelta(seconds=0),
    }
    World.dsn = dsn
    with psycopg.connect(dsn, autocommit=True) as direct:
        direct.execute(LEDGER.encode())
    clients = [Troth(way, **{**client_options(), **of_client}) for way in ways]
    workers = [Worker(each, [order, ship], **{**given, **keep_option(), **options}) for each in clients]
    running = [asyncio.create_task(each.run()) for each in workers]
    try:
        await until(lambda: all(each._keeper for each in workers), "they have begun")
        yield workers
    finally:
        for each in workers:
            each.stop()
        ended = await asyncio.gather(*running, return_exceptions=True)
        for client in clients:
            await client.close()
    assert ended == [None] * len(workers)


async def insist(client: Troth, id: str) -> Settlement:
    """Decide about an order, as often as it takes until somebody says that it is decided."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            settlement = await client.resolve(f"{id}~approval", f"yes {id}")
        except TrothError:  # whatever the network did
            pass
        else:
            if settlement.accepted:
                return settlement
        await asyncio.sleep(0.05)
    raise AssertionError(f"nobody could decide about {id}")


def judge(dsn: str, ids: Sequence[str]) -> None:
    """Nothing twice, nothing lost, nothing late, no wrong state."""
    with psycopg.connect(dsn, autocommit=True) as direct:
        ended: dict[str, Any] = dict(
            direct.execute("select id, value from troth.promise where id = any (%s)", [list(ids)]).fetchall()
        )
        assert ended == {id: expected(id) for id in ids}
        paid = Counter(row[0] for row in direct.execute("select workflow from public.ledger"))
        assert paid == Counter(ids), "each paid once"
        steps = {(id, step) for id in ids for step in ("reserve", "receipt")} | {
            (f"{id}~ship", "reserve") for id in ids
        }
        assert {tuple(row) for row in direct.execute("select workflow, operation from public.calls")} == steps
        late = direct.execute("select workflow, operation from public.calls where too_late").fetchall()
        assert late == [], "a step was called again after it had been recorded"
        assert direct.execute("select id from troth.task").fetchall() == []
        assert violations(direct) == []
