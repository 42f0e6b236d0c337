"""Procrastinate: a queue of plain jobs (no steps, no journal, no waiting).

A job is one durable unit, so only backlogs and starts are compared; its `one` runs the function that others run as a step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version

import asyncpg
import procrastinate

from bench.system import CALLERS, PAUSE_S, System, mark, stepped

CONCURRENCY = 50
POLL_S = 0.1


class Procrastinate(System):
    """See the module."""

    name = "procrastinate"
    settings = (
        f"a pool of {CALLERS} connections, concurrency={CONCURRENCY} (its default is 1), notifications on, "
        f"looking by itself every {POLL_S} s (its default is 5 s), `batch_defer_async` for batches"
    )

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=CALLERS, max_size=CALLERS)
        )
        self._app.task(name="one", queue="bench")(one)
        self._app.task(name="slow", queue="bench")(slow)
        self._app.task(name="low", queue="bench")(low)

    @property
    def version(self) -> str:
        return version("procrastinate")

    async def prepare(self) -> None:
        async with self._app.open_async():
            await self._app.schema_manager.apply_schema_async()

    async def open(self) -> None:
        await self._app.open_async()
        self._looks = await asyncpg.connect(self.dsn)

    async def close(self) -> None:
        await self._app.close_async()
        await self._looks.close()

    async def start(self, kind: str, id: str) -> None:
        await self._app.configure_task(kind, queue="bench", queueing_lock=id).defer_async(id=id)

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        await self._app.configure_task(kind, queue="bench").batch_defer_async(*({"id": id} for id in ids))

    async def unfinished(self, kind: str) -> bool:
        return bool(
            await self._looks.fetchval(
                "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
            )
        )

    def work(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        async with self._app.open_async():
            mark(ready=True)
            await self._app.run_worker_async(
                queues=["bench"], concurrency=CONCURRENCY, fetch_job_polling_interval=POLL_S
            )


async def one(id: str) -> int:
    """Costs nothing."""
    stepped()
    return 1


async def slow(id: str) -> int:
    """Waits for something."""
    stepped()
    await asyncio.sleep(PAUSE_S)
    return 1


async def low(id: str) -> None:
    """Says when it was called."""
    mark(continued=id)


make = Procrastinate
