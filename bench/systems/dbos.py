"""DBOS Transact: queues of its database, async workflows and steps, notifications on.

A worker process registers one queue and launches; the client is `DBOSClient` in a process of its own. Deciding is `send`, waiting
`recv`. Batches: one transaction around a thousand `enqueue_in_transaction`.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import asyncpg
import sqlalchemy as sa
from dbos import DBOS, DBOSClient

from bench.system import CALLERS, PAUSE_S, Engine, mark, stepped

QUEUE = "bench"
POLL_S = 0.01
WAITS_S = 3600.0


@DBOS.step()
async def noop(x: int) -> int:
    """Costs nothing."""
    stepped()
    return x


@DBOS.step()
async def pause(x: int) -> int:
    """Waits for something."""
    stepped()
    await asyncio.sleep(PAUSE_S)
    return x


@DBOS.step()
async def note(id: str) -> None:
    """Says when it was called."""
    mark(continued=id)


@DBOS.workflow(name="one")
async def one(id: str) -> int:
    """One step."""
    return await noop(1)


@DBOS.workflow(name="ten")
async def ten(id: str) -> int:
    """Ten steps."""
    total = 0
    for n in range(10):
        total += await noop(n)
    return total


@DBOS.workflow(name="slow")
async def slow(id: str) -> int:
    """A step of 50 ms."""
    return await pause(1)


@DBOS.workflow(name="wait")
async def wait(id: str) -> None:
    """Waits for a decision."""
    await DBOS.recv_async("approval", timeout_seconds=WAITS_S)
    mark(continued=id)


@DBOS.workflow(name="low")
async def low(id: str) -> None:
    """Its step says when it was called."""
    await note(id)


class Dbos(Engine):
    """See the module."""

    name = "dbos"
    settings = (
        f"async workflows and steps on a database queue without limits, looked at every {POLL_S} s (its default is 1 s), "
        "LISTEN/NOTIFY on, a pool of 20 connections (its default), log level ERROR, no admin server; "
        "batches are one transaction around a thousand `enqueue_in_transaction`"
    )

    @property
    def version(self) -> str:
        return version("dbos")

    def _launch(self) -> None:
        DBOS(
            config={
                "name": "bench",
                "system_database_url": self.dsn,
                "sys_db_pool_size": 20,
                "log_level": "ERROR",
                "application_version": "1",
                "run_admin_server": False,
                "notification_listener_polling_interval_sec": 0.01,
            }
        )
        DBOS.launch()

    async def prepare(self) -> None:
        def make() -> None:
            self._launch()
            DBOS.register_queue(QUEUE, polling_interval_sec=POLL_S, on_conflict="always_update")
            DBOS.destroy()

        await asyncio.to_thread(make)

    async def open(self) -> None:
        self._threads = ThreadPoolExecutor(CALLERS)
        self._client = await asyncio.to_thread(
            lambda: DBOSClient(system_database_url=self.dsn, system_database_pool_size=CALLERS)
        )
        self._looks = await asyncpg.connect(self.dsn)

    async def close(self) -> None:
        self._client.destroy()
        self._threads.shutdown()
        await self._looks.close()

    async def _threaded(self, act: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, act)

    async def start(self, kind: str, id: str) -> None:
        options: Any = {"queue_name": QUEUE, "workflow_name": kind, "workflow_id": id, "app_version": "1"}
        await self._threaded(lambda: self._client.enqueue(options, id))

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        def enqueue() -> None:
            with self._engine().begin() as connection:
                for id in ids:
                    options: Any = {
                        "queue_name": QUEUE,
                        "workflow_name": kind,
                        "workflow_id": id,
                        "app_version": "1",
                    }
                    self._client.enqueue_in_transaction(connection, options, id)

        await self._threaded(enqueue)

    def _engine(self) -> sa.Engine:
        if not hasattr(self, "_own_engine"):
            self._own_engine = sa.create_engine(
                self.dsn.replace("postgresql://", "postgresql+psycopg://"), isolation_level="READ COMMITTED"
            )
        return self._own_engine

    async def unfinished(self, kind: str) -> bool:
        return bool(
            await self._looks.fetchval(
                "select exists (select from dbos.workflow_status where status in ('ENQUEUED', 'PENDING'))"
            )
        )

    async def suspended(self, count: int) -> bool:
        # who waits is PENDING: its code has begun and is held by the process
        waiting = await self._looks.fetchval(
            "select count(*) from dbos.workflow_status where status = 'PENDING'"
        )
        return int(waiting or 0) >= count

    async def resolve(self, id: str) -> None:
        await self._threaded(lambda: self._client.send(id, True, "approval"))

    def work(self) -> None:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        self._launch()
        DBOS.register_queue(QUEUE, polling_interval_sec=POLL_S, on_conflict="always_update")
        mark(ready=True)
        ended.wait()
        DBOS.destroy(workflow_completion_timeout_sec=0)


make = Dbos
