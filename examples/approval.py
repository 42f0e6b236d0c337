"""A workflow that waits for a person: the whole program. Run it with `troth dev examples/approval.py`."""

from datetime import timedelta

from troth import Context, workflow


async def send_email(promise_id: str) -> None:
    print(f"CLICK TO DECIDE: http://localhost:8000/promises/{promise_id}", flush=True)


@workflow
async def approve_order(ctx: Context, order: str) -> str:
    approval = ctx.options(timeout=timedelta(days=7)).promise(bool, "approval")  # its ID is known at once
    await ctx.run(send_email, approval.id)  # never sent again once it is recorded
    return f"{order}: {'approved' if await approval else 'refused'}"  # waits; no process is held
