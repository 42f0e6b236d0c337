"""PgQueuer: a queue of plain jobs (no steps, no journal, no waiting), compared in starts and backlogs only, like Procrastinate.

What is done is deleted and logged, which is its way.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import version

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from bench.system import CALLERS, PAUSE_S, System, mark, stepped

BATCH = 100


class Pgqueuer(System):
    """See the module."""

    name = "pgqueuer"
    settings = (
        f"asyncpg, uvloop, `batch_size={BATCH}` (its default is 10), `dequeue_timeout` of 1 s (its default is 30 s), "
        "durable tables, `enqueue` of lists for batches"
    )

    @property
    def version(self) -> str:
        return version("pgqueuer")

    async def prepare(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        await Queries(AsyncpgDriver(connection)).install()
        await connection.close()

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(self.dsn, min_size=CALLERS, max_size=CALLERS)
        self._queries = Queries(AsyncpgPoolDriver(self._pool))

    async def close(self) -> None:
        await self._pool.close()

    async def start(self, kind: str, id: str) -> None:
        await self._queries.enqueue(kind, id.encode(), dedupe_key=id)

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        await self._queries.enqueue([kind] * len(ids), [id.encode() for id in ids], [0] * len(ids))

    async def unfinished(self, kind: str) -> bool:
        return bool(await self._pool.fetchval("select exists (select from pgqueuer)"))

    def work(self) -> None:
        uvloop.run(self._work())

    async def _work(self) -> None:
        connection = await asyncpg.connect(self.dsn)
        queuer = PgQueuer(AsyncpgDriver(connection))

        @queuer.entrypoint("one")
        async def one(job: Job) -> None:
            stepped()

        @queuer.entrypoint("slow")
        async def slow(job: Job) -> None:
            stepped()
            await asyncio.sleep(PAUSE_S)

        @queuer.entrypoint("low")
        async def low(job: Job) -> None:
            mark(continued=(job.payload or b"").decode())

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
        mark(ready=True)
        await queuer.run(batch_size=BATCH, dequeue_timeout=timedelta(seconds=1))


make = Pgqueuer
