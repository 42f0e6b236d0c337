"""The human in the loop, worker's side: `python examples/worker.py` (with TROTH_DSN, or beside `troth dev`)."""

import asyncio

from troth import Context, Troth, Worker, workflow


async def send_email(promise_id: str) -> None:
    print(f"TO DECIDE: curl -X POST http://localhost:5001/resolve/{promise_id}", flush=True)


@workflow
async def foo(ctx: Context, workflow_id: str) -> str:
    decision = ctx.promise(str, "decision")  # a promise that somebody outside keeps
    await ctx.run(send_email, decision.id)
    return f"{workflow_id}: {await decision}"  # may take months: nothing is held meanwhile


async def main() -> None:
    async with Troth() as troth:
        await Worker(troth, [foo]).run()


if __name__ == "__main__":
    asyncio.run(main())
