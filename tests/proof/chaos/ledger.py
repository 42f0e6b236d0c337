"""The ledger of chaos: what the calls of steps did, in the same database, written by the calls themselves.

Each row says in one statement, by one snapshot: who called, who held the workflow at that moment and with which epoch, whether
the caller had been marked dead, and whether the step was recorded already. So no clock is compared with another one, and a call
by a zombie (a worker that is taken for dead and does not know it yet) is known as what it is. One that is marked dead holds
a workflow until it is given on: what is locked while the dead are gone through stays with them until they are again.

`broken_promises` compares the ledger with the journals (I51): a transactional step has exactly one row per checkpoint; a plain
step at least one, and none by a living worker after its checkpoint; what is recorded was brought by a call of him who held the
workflow.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from typing import Any, Final, LiteralString

import asyncpg
import psycopg

import troth
from troth import Worker

DAWDLE_S: Final = 0.2
"""The longest pause of a step before and after its row: time to be killed in."""

TABLES: Final[LiteralString] = """
create schema chaos;
create table chaos.call (
  call text primary key,
  kind text not null check (kind in ('plain', 'transaction')),
  task text collate "C" not null,
  operation text collate "C" not null,
  attempt integer not null,
  worker text collate "C" not null,
  dead boolean not null,
  holder text collate "C",
  epoch integer,
  recorded boolean not null,
  at timestamptz not null
);
create index on chaos.call (task, operation);
"""

NOTE: Final = """
insert into chaos.call (call, kind, task, operation, attempt, worker, dead, holder, epoch, recorded, at)
select $1, $2, $3, $4, $5, $6, w.id is null or w.died_at is not null, t.worker, t.epoch,
       exists (select from troth.checkpoint c where c.task = $3 and c.operation = $4 and c.state = 'resolved'), clock_timestamp()
  from (values (1)) one (row) left join troth.task t on t.id = $3 left join troth.worker w on w.id = $6
"""


class Hand:
    """What steps of one worker write the ledger with."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: asyncpg.Pool[Any] | None = None
        self._chance = random.Random()
        self.worker: Worker | None = None

    async def note(self, kind: str) -> str:
        """Note a call of the running step, on a connection of the ledger's own."""
        me = await self._dawdled()
        if self._pool is None:
            self._pool = asyncpg.create_pool(self._dsn, min_size=0, max_size=3, timeout=10.0)
            await self._pool
        async with self._pool.acquire() as connection:
            call = await _noted(connection, kind, me)
        await self._dawdled()
        return call

    async def note_in(self, connection: Any) -> str:
        """Note a call of the running step in its own transaction."""
        call = await _noted(connection, "transaction", await self._dawdled())
        await self._dawdled()
        return call

    async def _dawdled(self) -> str:
        """Who works here, as it was when the step began: after a pause it may be another one, or nobody."""
        assert self.worker is not None
        me = self.worker.id
        await asyncio.sleep(self._chance.uniform(0, DAWDLE_S))
        return me


async def _noted(connection: Any, kind: str, me: str) -> str:
    info, call = troth.step_info(), uuid.uuid4().hex
    await connection.execute(NOTE, call, kind, info.workflow, info.operation, info.attempt, me)
    return call


CHECKS: Final[dict[str, LiteralString]] = {
    "a transactional step has other than one row": """
        select c.task, c.operation, count(l.call)
          from troth.checkpoint c left join chaos.call l on l.task = c.task and l.operation = c.operation
         where c.kind = 'step' and c.state = 'resolved' and c.value ->> 'kind' = 'transaction'
         group by c.task, c.operation having count(l.call) <> 1""",
    "a transaction landed whose step is not recorded with it": """
        select l.task, l.operation, l.call
          from chaos.call l left join troth.checkpoint c on c.task = l.task and c.operation = l.operation and c.state = 'resolved'
         where l.kind = 'transaction' and c.value ->> 'call' is distinct from l.call""",
    "a recorded step ran again": """
        select l.task, l.operation, l.worker from chaos.call l where l.kind = 'plain' and l.recorded and not l.dead""",
    "a recorded outcome was brought by no call": """
        select c.task, c.operation, c.value ->> 'call'
          from troth.checkpoint c
          left join chaos.call l on l.call = c.value ->> 'call' and l.task = c.task and l.operation = c.operation
         where c.kind = 'step' and c.state = 'resolved' and l.call is null""",
    "an outcome was recorded that no call of that claim had brought": """
        select c.task, c.operation, format('epoch %s of %s, the call: %s, %s of %s', c.epoch, l.worker, l.dead, l.epoch, l.holder)
          from troth.checkpoint c join chaos.call l on l.call = c.value ->> 'call'
         where c.kind = 'step' and c.state = 'resolved'
           and (l.holder is distinct from l.worker or l.epoch is distinct from c.epoch)""",
    "a step failed that must not": """
        select c.task, c.operation, left(c.error::text, 300) from troth.checkpoint c
         where c.kind = 'step' and c.state <> 'resolved' and c.error ->> 'type' not like '%CancelledError'""",
}
"""What must not be: each answers the rows that break it."""

FIGURES: Final[dict[str, LiteralString]] = {
    "calls of plain steps": "select count(*) from chaos.call where kind = 'plain'",
    "plain steps recorded": """select count(*) from troth.checkpoint where kind = 'step' and state = 'resolved'
                                  and value ->> 'kind' = 'plain'""",
    "transactional steps": "select count(*) from chaos.call where kind = 'transaction'",
    "calls by zombies": "select count(*) from chaos.call where dead",
    "calls by zombies after the step was recorded": "select count(*) from chaos.call where dead and recorded",
    "calls by workers that held the workflow no more": """select count(*) from chaos.call
                                                            where not dead and holder is distinct from worker""",
    "workers taken for dead": "select count(*) from troth.worker where died_at is not null",
    "epochs above 1": "select count(*) from (select task from troth.checkpoint group by task having max(epoch) > 1) t",
}


def broken_promises(connection: psycopg.Connection[Any]) -> list[str]:
    """What the ledger and the journals say against each other; empty if all is well."""
    found: list[str] = []
    for what, query in CHECKS.items():
        rows = connection.execute(query).fetchall()
        found += [f"{what}: {' '.join(map(str, row))}" for row in rows[:10]]
        if len(rows) > 10:
            found.append(f"{what}: {len(rows)} in all")
    return found


def figures(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """How much was tried."""
    counted: dict[str, int] = {}
    for what, query in FIGURES.items():
        (counted[what],) = connection.execute(query).fetchone() or (0,)
    return counted
