"""Workflows as users write them, which the testing tools must let pass."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from troth import Context, workflow


async def reserve(order: str) -> str:
    return f"reserved {order}"


async def send_email(promise_id: str) -> None:
    del promise_id


def charge(order: str, amount: int) -> str:
    return f"receipt of {amount} for {order}"


@workflow
async def approve(ctx: Context, order: str) -> str:
    approval = ctx.options(timeout=timedelta(days=7), default=False).promise(bool, "approval")
    await ctx.run(send_email, approval.id)
    if not await approval:
        return f"{order}: refused"
    return await ctx.run(charge, order, amount=3)


@workflow
async def remind(ctx: Context, days: int) -> list[str]:
    """Sleeps for days on end, and says when it woke."""
    began = ctx.now()
    woken: list[str] = []
    for day in range(days):
        await asyncio.sleep(timedelta(days=1).total_seconds())
        await ctx.run(send_email, f"reminder {day}")
        woken.append(f"{(ctx.now() - began).days} days")
    return woken


@workflow
async def race(ctx: Context) -> str:
    """Two timers and a timeout, in another order than they stand here."""

    async def after(hours: float, what: str) -> str:
        await ctx.sleep(timedelta(hours=hours))
        await ctx.run(reserve, what)
        return what

    try:
        async with asyncio.timeout(timedelta(hours=5).total_seconds()):
            late, soon = await asyncio.gather(after(4, "late"), after(1, "soon"))
            await after(10, f"{late} {soon}")
    except TimeoutError:
        return "timed out"
    return "never"


@workflow
async def with_two_branches(ctx: Context, order: str) -> list[str]:
    async def branch(name: str) -> str:
        await ctx.run(reserve, f"{order}/{name}")
        return await ctx.run(charge, name, amount=1)

    return list(await asyncio.gather(branch("a"), branch("b")))


@workflow
async def forever(ctx: Context) -> None:
    while True:
        await ctx.sleep(timedelta(days=1))
