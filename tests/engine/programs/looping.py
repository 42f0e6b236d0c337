"""A worker process whose loop one of its workflows blocks for ever. Run with its options as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta

from troth import Context, Troth, Worker, workflow


@workflow
async def loops(ctx: Context) -> None:
    while True:
        pass


@workflow
async def waits(ctx: Context) -> str:
    await ctx.promise(str, "answer")
    return "done"


async def main(dsn: str, name: str) -> None:
    async with Troth(dsn) as troth:
        worker = Worker(
            troth,
            [loops, waits],
            name=name,
            lease=timedelta(seconds=1.2),
            poll=timedelta(seconds=0.2),
            blocked_named_after=timedelta(seconds=0.4),
            blocked_leave_after=timedelta(seconds=0.8),
        )
        await worker.run()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    asyncio.run(main(given["dsn"], given["name"]))
