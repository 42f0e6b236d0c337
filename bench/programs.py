"""The workflows that only Troth is measured and counted with (those that every system has are in `systems/`)."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from troth import Context, workflow


async def leaf(x: int) -> int:
    """A step that costs nothing: what is left is the engine."""
    return x


async def write(connection: Any, x: int) -> int:
    """One row of a user's own."""
    await connection.execute("insert into public.written values ($1)", x)
    return x


@workflow
async def child(ctx: Context, x: int) -> int:
    """Only returns."""
    return x


@workflow
async def one_step(ctx: Context, x: int) -> int:
    """One step."""
    return await ctx.run(leaf, x)


@workflow
async def steps(ctx: Context, count: int) -> int:
    """So many steps, one after the other, and what they returned in all."""
    total = 0
    for n in range(count):
        total += await ctx.run(leaf, n)
    return total


@workflow
async def fans_out(ctx: Context, children: int) -> int:
    """From its start until all its children are joined."""
    return sum(await asyncio.gather(*[ctx.call(child, n) for n in range(children)]))


@workflow
async def one_transaction(ctx: Context, x: int) -> int:
    """A step that commits with its row."""
    return await ctx.transaction(write, x)


@workflow
async def asks(ctx: Context, x: int) -> int:
    """Suspends at once, and is woken."""
    return x + await ctx.promise(int, "answer")


WORKFLOWS: Final = (child, one_step, steps, fans_out, one_transaction, asks)
