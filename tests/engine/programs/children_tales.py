"""Parents and children that worker processes run in tests; see `stories.py`."""

from __future__ import annotations

import asyncio

from tests.engine.programs.stories import effect
from troth import Context, workflow


@workflow
async def echoes(ctx: Context, n: int) -> int:
    return n


@workflow
async def fans_out(ctx: Context, width: int) -> int:
    return sum(await asyncio.gather(*[ctx.call(echoes, n) for n in range(width)]))


async def tell(text: str) -> None:
    effect(text)


@workflow
async def tells(ctx: Context, text: str) -> str:
    await ctx.run(tell, text)
    return text


@workflow
async def has_two(ctx: Context) -> list[str]:
    await ctx.run(tell, "parent")
    first, second = ctx.call(tells, "first"), ctx.start(tells, "second")
    return [await first, await second]


@workflow
async def compensates(ctx: Context) -> None:
    try:
        await ctx.promise(bool, "never")
    finally:
        for n in (1, 2, 3):
            await asyncio.shield(ctx.run(tell, f"undo-{n}"))
