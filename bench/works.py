"""The works that are measured, each as a user would write it: no shortcut into the engine.

W1 starts, from concurrent callers one by one and in batches. W2 one-step workflows that one worker process drains. W3 the
steps of ten-step workflows. W4 from a decision to the workflow's code going on in the worker's process, one at a time and with
many deciders. W6 a fan-out: from the start of a parent until all its children are joined. W7 workflows of one transactional
step. The worker is a process of its own, as in life.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from troth import Context, Troth, workflow

BATCH = 1000
CALLERS = 16
WARM_UP = 200
CHILDREN = 10_000
TRANSACTIONS = 2_000


async def noop(x: int) -> int:
    """A step that costs nothing: what is left is the engine."""
    return x


@workflow
async def one_step(ctx: Context, x: int) -> int:
    """W2."""
    return await ctx.run(noop, x)


@workflow
async def ten_steps(ctx: Context, x: int) -> int:
    """W3: each step after the one before."""
    for _ in range(10):
        x = await ctx.run(noop, x)
    return x


@workflow
async def awaits_person(ctx: Context) -> float:
    """W4: answers when its code went on, by the clock that the processes of one machine share."""
    await ctx.promise(bool, "approval")
    return time.monotonic()


@workflow
async def child(ctx: Context, x: int) -> int:
    """A child of W6: it only returns."""
    return x


@workflow
async def fans_out(ctx: Context, children: int) -> int:
    """W6."""
    return sum(await asyncio.gather(*[ctx.call(child, n) for n in range(children)]))


async def write(connection: Any, x: int) -> int:
    """One row of a user's own."""
    await connection.execute("insert into public.written values ($1)", x)
    return x


@workflow
async def one_transaction(ctx: Context, x: int) -> int:
    """W7."""
    return await ctx.transaction(write, x)


WORKFLOWS = (one_step, ten_steps, awaits_person, child, fans_out, one_transaction)


@dataclass(frozen=True)
class Figures:
    """What one run measured; rates per second."""

    starts_single: float
    starts_batched: float
    workflows: float
    steps: float
    decide_p50_ms: float
    decide_p99_ms: float
    continued: float
    children: float
    transactions: float


async def measure(dsn: str, workflows: int, decisions: int) -> Figures:
    """All works once, on an empty namespace."""
    async with Troth(dsn, connections=CALLERS) as troth:
        single = await _starts_single(troth, min(workflows, 3000))
        batched = await _start_all(troth, one_step.name, "one", workflows)
        async with _worker(dsn, troth):
            drained = await _until_ended(troth, "one")
            await _until_ended(troth, "single")
            await troth.start_many("ten_steps", {f"warm-{n}": {"x": n} for n in range(WARM_UP)})
            await _until_ended(troth, "warm")
            begun = time.perf_counter()
            await _start_all(troth, ten_steps.name, "steps", max(workflows // 5, 1))
            await _until_ended(troth, "steps")
            stepped = time.perf_counter() - begun
            latencies = await _decisions(troth, decisions)
            continued = await _continued(troth, decisions)
            joined = await _timed(lambda: _fan_out(troth, CHILDREN))
            await _start_all(troth, one_transaction.name, "transaction", TRANSACTIONS)
            committed = await _until_ended(troth, "transaction")
    return Figures(
        single,
        batched,
        workflows / drained,
        max(workflows // 5, 1) * 10 / stepped,
        statistics.median(latencies) * 1e3,
        statistics.quantiles(latencies, n=100)[98] * 1e3,
        continued,
        CHILDREN / joined,
        TRANSACTIONS / committed,
    )


@contextlib.asynccontextmanager
async def _worker(dsn: str, troth: Troth) -> AsyncIterator[None]:
    """A worker process, from its first finished workflow on (a probe is sent through it) to its clean end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.worker", dsn, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        handle = await troth.options(priority=-1).start("probe", one_step, 0)
        await handle.result(60)
        yield
    finally:
        process.terminate()
        await process.wait()


async def _starts_single(troth: Troth, count: int) -> float:
    ids = iter(range(count))

    async def caller() -> None:
        for n in ids:
            await troth.start(f"single-{n}", one_step, n)

    return count / await _timed(lambda: asyncio.gather(*(caller() for _ in range(CALLERS))))


async def _start_all(troth: Troth, function: str, prefix: str, count: int) -> float:
    begun = time.perf_counter()
    for first in range(0, count, BATCH):
        last = min(count, first + BATCH)
        await troth.start_many(function, {f"{prefix}-{n}": {"x": n} for n in range(first, last)})
    return count / (time.perf_counter() - begun)


async def _until_ended(troth: Troth, prefix: str) -> float:
    begun = time.perf_counter()
    while await troth.search(state="pending", prefix=f"{prefix}-", limit=1):  # noqa: ASYNC110 — it is elsewhere
        await asyncio.sleep(0.01)
    return time.perf_counter() - begun


async def _waiting(troth: Troth, prefix: str, count: int) -> list[str]:
    """That many workflows, all suspended."""
    ids = [f"{prefix}-{n}" for n in range(count)]
    await troth.start_many("awaits_person", {id: {} for id in ids})
    while True:
        found = await troth.get_many(ids)
        if all(p.task is not None and p.task.state == "suspended" for p in found.values()):
            return ids
        await asyncio.sleep(0.02)


async def _decisions(troth: Troth, count: int) -> list[float]:
    latencies: list[float] = []
    for id in await _waiting(troth, "decide", count):
        begun = time.monotonic()
        await troth.resolve(f"{id}~approval", True)
        latencies.append(await troth.handle(id, float).result(10) - begun)
    return latencies


async def _fan_out(troth: Troth, children: int) -> None:
    await (await troth.start("fan-out", fans_out, children)).result(300)


async def _continued(troth: Troth, count: int) -> float:
    left = iter(await _waiting(troth, "continue", count))

    async def caller() -> None:
        for id in left:
            await troth.resolve(f"{id}~approval", True)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await _until_ended(troth, "continue")
    return count / (time.perf_counter() - begun)


async def _timed(act: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await act()
    return time.perf_counter() - begun
