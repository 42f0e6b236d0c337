"""Troth with its default settings, through its public face. The worker is the one of the command line but for the marks."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from importlib.metadata import version

import asyncpg
import uvloop

from bench.system import CALLERS, PAUSE_S, Engine, mark, stepped
from troth import Context, Troth, Worker, workflow
from troth.cli.working import calm_collector


async def noop(x: int) -> int:
    """A step that costs nothing: what is left is the engine."""
    stepped()
    return x


async def pause(x: int) -> int:
    """A step that waits for something."""
    stepped()
    await asyncio.sleep(PAUSE_S)
    return x


async def note(id: str) -> None:
    """A step that says when it was called."""
    mark(continued=id)


@workflow
async def one(ctx: Context, x: str) -> int:
    """One step."""
    return await ctx.run(noop, 1)


@workflow
async def ten(ctx: Context, x: str) -> int:
    """Ten steps, each after the one before."""
    total = 0
    for n in range(10):
        total += await ctx.run(noop, n)
    return total


@workflow
async def slow(ctx: Context, x: str) -> int:
    """One step of 50 ms."""
    return await ctx.run(pause, 1)


@workflow
async def wait(ctx: Context, x: str) -> None:
    """Waits for a person; says when its code went on (what stands before the wait is all that a replay would repeat)."""
    await ctx.promise(bool, "approval")
    mark(continued=x)


@workflow
async def low(ctx: Context, x: str) -> None:
    """Its step says when it was called."""
    await ctx.run(note, x)


class TrothSystem(Engine):
    """See the module."""

    name = "troth"
    settings = (
        "its defaults, through its public face: `Worker` with 1,000 workflows at once in one process, notifications on, "
        "the garbage collector as `troth worker` sets it; clients with a pool of 16 connections; `start_many` for batches"
    )

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self._client = Troth(dsn, connections=CALLERS)

    @property
    def version(self) -> str:
        return version("troth")

    async def prepare(self) -> None:
        from troth.schema import migrate

        await asyncio.to_thread(migrate, self.dsn)

    async def open(self) -> None:
        await self._client.connect()
        self._looks = await asyncpg.connect(self.dsn)

    async def close(self) -> None:
        await self._client.close()
        await self._looks.close()

    async def start(self, kind: str, id: str) -> None:
        await self._client.start(id, kind, id)

    async def start_many(self, kind: str, ids: Sequence[str]) -> None:
        await self._client.start_many(kind, {id: [id] for id in ids})

    async def unfinished(self, kind: str) -> bool:
        # between the hyphen and what comes after it: a range of the primary key
        looking = "select exists (select from troth.task where id >= $1 and id < $2)"
        return bool(await self._looks.fetchval(looking, f"{kind}-", f"{kind}."))

    async def suspended(self, count: int) -> bool:
        waiting = await self._looks.fetchval("select count(*) from troth.task where state = 'suspended'")
        return int(waiting or 0) >= count

    async def resolve(self, id: str) -> None:
        await self._client.resolve(f"{id}~approval", True)

    def work(self) -> None:
        uvloop.run(self._work())

    async def _work(self) -> None:
        async with Troth(self.dsn) as client:
            worker = Worker(client, [one, ten, slow, wait, low])
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
            calm_collector()
            mark(ready=True)
            await worker.run()


make = TrothSystem
