"""Absurd: its SQL as bundled with `absurdctl`, its synchronous SDK with a thread for each task.

A worker process runs sixteen workers (`start_worker`), each with its connection: one connection is all that a client object
has, and its tasks take turns on it. Steps that wait get threads besides; where they do not, threads only slow it down. Waiting
is `await_event`, deciding `emit_event`. Batches: a transaction of a thousand `spawn`s.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import asyncpg
import psycopg
from absurd_sdk import Absurd, AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

from bench.system import CALLERS, PAUSE_S, Engine, mark, stepped

QUEUE = "bench"
WORKERS = 16
BATCH = 25
THREADS = 25 if os.environ.get("BENCH_KIND") == "slow" else 1
POLL_S = 0.02


def _noop() -> int:
    stepped()
    return 1


def _pause() -> int:
    stepped()
    time.sleep(PAUSE_S)
    return 1


def _register(app: Absurd) -> Absurd:
    @app.register_task("one")
    def one(params: Any, ctx: Any) -> Any:
        return ctx.step("noop", _noop)

    @app.register_task("ten")
    def ten(params: Any, ctx: Any) -> Any:
        return sum(ctx.step(f"noop-{n}", _noop) for n in range(10))

    @app.register_task("slow")
    def slow(params: Any, ctx: Any) -> Any:
        return ctx.step("pause", _pause)

    @app.register_task("wait")
    def wait(params: Any, ctx: Any) -> Any:
        ctx.await_event(f"{params['id']}-approval")
        mark(continued=params["id"])
        return None

    @app.register_task("low")
    def low(params: Any, ctx: Any) -> Any:
        ctx.step("note", lambda: mark(continued=params["id"]))
        return None

    return app


class AbsurdSystem(Engine):
    """See the module."""

    name = "absurd"
    settings = (
        f"{WORKERS} workers of one connection each in one process (8 were slower), `batch_size={BATCH}`, `concurrency` of 1 "
        "each, which was best, and of 25 for the steps of 50 ms; "
        f"`poll_interval={POLL_S}` (its default is 0.25 s); batches are one transaction around a thousand `spawn`s"
    )

    @property
    def version(self) -> str:
        return version("absurd-sdk")

    async def prepare(self) -> None:
        def make() -> None:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(BUNDLED_SCHEMA_SQL)  # type: ignore[arg-type]
            Absurd(self.dsn, queue_name=QUEUE).create_queue()

        await asyncio.to_thread(make)

    async def open(self) -> None:
        self._clients: asyncio.Queue[AsyncAbsurd] = asyncio.Queue()
        for _ in range(CALLERS):
            connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
            self._clients.put_nowait(AsyncAbsurd(connection, queue_name=QUEUE))
        self._looks = await asyncpg.connect(self.dsn)

    async def close(self) -> None:
        while not self._clients.empty():
            client = self._clients.get_nowait()
            if client._conn is not None:
                await client._conn.close()
        await self._looks.close()

    async def start(self, kind: str, id: str) -> None:
        client = await self._clients.get()
        try:
            await client.spawn(kind, {"id": id}, queue=QUEUE, idempotency_key=id)
        finally:
            self._clients.put_nowait(client)

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            client = AsyncAbsurd(connection, queue_name=QUEUE)
            for id in ids:
                await client.spawn(kind, {"id": id}, queue=QUEUE, idempotency_key=id)

    async def unfinished(self, kind: str) -> bool:
        return bool(
            await self._looks.fetchval(
                f"select exists (select from absurd.t_{QUEUE} where state in ('pending', 'running', 'sleeping'))"
            )
        )

    async def suspended(self, count: int) -> bool:
        waiting = await self._looks.fetchval(
            f"select count(*) from absurd.t_{QUEUE} where state = 'sleeping'"
        )
        return int(waiting or 0) >= count

    async def resolve(self, id: str) -> None:
        client = await self._clients.get()
        try:
            await client.emit_event(f"{id}-approval", {"value": True}, queue_name=QUEUE)
        finally:
            self._clients.put_nowait(client)

    def work(self) -> None:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        workers = [_register(Absurd(self.dsn, queue_name=QUEUE)) for _ in range(WORKERS)]
        threads = [
            threading.Thread(
                target=worker.start_worker,
                kwargs={
                    "worker_id": f"w{n}",
                    "concurrency": THREADS,
                    "batch_size": BATCH,
                    "poll_interval": POLL_S,
                },
                daemon=True,
            )
            for n, worker in enumerate(workers)
        ]
        for thread in threads:
            thread.start()
        mark(ready=True)
        ended.wait()
        for worker in workers:
            worker.stop_worker()


make = AbsurdSystem
