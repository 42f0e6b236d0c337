"""A workflow with a patch behind a step whose outcome is told ahead, for worker processes that are killed around it."""

from __future__ import annotations

from tests.engine.programs import stories
from troth import Context, workflow


async def effect(text: str) -> str:
    stories.effect(text)
    return text


@workflow
async def patched_behind_a_step(ctx: Context) -> list[str]:
    first = await ctx.run(effect, "one")
    return [first, await ctx.run(effect, "new" if ctx.patched("fix") else "old")]
