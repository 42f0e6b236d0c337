"""Workflows whose branches run beside each other, for workers that are killed. What a step does to the world is a row in a
ledger, which also says whether the step's outcome was recorded by then."""

from __future__ import annotations

import asyncio
import os
import random

import asyncpg

from troth import Context, step_info, workflow

LEDGER = """
create table public.ledger (
  n bigint generated always as identity, task text, operation text, what text, late boolean, pid integer
)
"""

_WRITE = """
insert into public.ledger (task, operation, what, late, pid)
select $1, $2, $3, exists (select from troth.checkpoint where task = $1 and operation = $2), $4
"""


class Ledger:
    """This process's connection to the ledger, made at its first use."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None

    async def write(self, what: str) -> None:
        info = step_info()
        async with self._lock:
            if self._connection is None:
                self._connection = await asyncpg.connect(os.environ["TROTH_TEST_LEDGER"])
            await self._connection.execute(_WRITE, info.workflow, info.operation, what, os.getpid())


ledger = Ledger()


async def report(branch: str, number: int) -> str:
    await asyncio.sleep(random.random() * 0.02)
    await ledger.write(f"{branch}.{number}")
    await asyncio.sleep(random.random() * 0.01)
    return f"{branch}.{number}"


@workflow
async def two_branches(ctx: Context, mark: str) -> list[list[str]]:
    async def branch(side: str) -> list[str]:
        return [await ctx.run(report, f"{mark}-{side}", number) for number in range(3)]

    return list(await asyncio.gather(branch("left"), branch("right")))


@workflow
async def hurried(ctx: Context) -> list[str]:
    """A step that takes about as long as is waited for it."""
    slow = ctx.run(slowly)
    way = "in time"
    try:
        async with asyncio.timeout(0.1):
            await asyncio.shield(slow)
    except TimeoutError:
        way = "late"
    said = await ctx.run(report, way, 0)
    return [said, await slow, await ctx.run(report, way, 1)]


async def slowly() -> str:
    await asyncio.sleep(0.05 + random.random() * 0.1)
    await ledger.write("slowly")
    return "slow"


@workflow
async def runner(ctx: Context, number: int) -> int:
    await ctx.run(report, "runner", number)
    return number


@workflow
async def race(ctx: Context) -> list[int]:
    """Six children; what is done about the next one to arrive is decided by who that is."""
    running: set[asyncio.Future[int]] = {ctx.call(runner, number) for number in range(6)}
    order: list[int] = []
    while running:
        arrived, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for each in arrived:
            order.append(each.result())
            await ctx.run(report, f"place {len(order)} to", each.result())
    return order


@workflow
async def hand_over(ctx: Context) -> list[str]:
    """A queue, a lock and a semaphore between branches whose steps take as long as they like."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(2)
    lock, two = asyncio.Lock(), asyncio.Semaphore(2)
    order: list[str] = []

    async def note(what: str) -> None:
        order.append(what)
        await ctx.run(report, f"{len(order)}: {what}", 0)

    async def produce(numbers: list[int]) -> None:
        for number in numbers:
            await ctx.run(report, "made", number)
            await queue.put(number)

    async def consume(name: str) -> None:
        while (number := await queue.get()) is not None:
            async with two:
                await ctx.run(report, f"{name} has", number)
                async with lock:
                    await note(f"{name} took {number}")

    consumers = [asyncio.create_task(consume(name), name=name) for name in ("x", "y", "z")]
    await asyncio.gather(produce([1, 2]), produce([3, 4]))
    for _ in consumers:
        await queue.put(None)
    await asyncio.gather(*consumers)
    return order


class Broken(Exception):
    """What one branch raises."""


@workflow
async def falls_apart(ctx: Context) -> None:
    """One child of a group fails; the others clean up."""

    async def waits(name: str) -> None:
        try:
            await ctx.promise(str, name)
        finally:
            await ctx.run(report, f"cleaned up {name}", 0)

    async def fails() -> None:
        await ctx.run(report, "before", 0)
        raise Broken("as it must")

    async with asyncio.TaskGroup() as group:
        group.create_task(waits("a"))
        group.create_task(fails())
        group.create_task(waits("b"))


@workflow
async def draws(ctx: Context) -> list[str]:
    """Time and chance of the context, which each life must see alike."""
    drawn: list[str] = []
    for number in range(4):
        what = f"{ctx.random.random()} {ctx.uuid4()} {ctx.now().isoformat()}"
        drawn.append(await ctx.run(report, what, number))
    return drawn


@workflow
async def draws_by_itself(ctx: Context) -> str:
    drawn = await ctx.run(report, f"{random.random()}", 0)
    await ctx.promise(str, "p")
    return drawn


@workflow
async def set_of_tasks(ctx: Context) -> list[str]:
    async def branch(name: str) -> str:
        await ctx.promise(str, "p")
        return await ctx.run(report, name, 0)

    running = {asyncio.create_task(branch(f"n{number}")) for number in range(20)}
    named = [await ctx.run(report, f"sees {task.get_name()}", 0) for task in running]
    order: list[str] = []
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        order += [task.result() for task in done]
    return named + order


@workflow
async def set_of_strings(ctx: Context) -> list[str]:
    names = frozenset(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"])
    found = [await ctx.run(report, name, 0) for name in names]
    await ctx.promise(str, "p")
    return found
