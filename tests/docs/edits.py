"""The edits that the table of `docs/changing-code.md` tells of, each as new code for a workflow that waits.

The workflow was recorded with `OLD`: it has reserved and charged, has slept, has called a child, and waits for a person.
"""

from __future__ import annotations

from typing import Final

OLD: Final = """
async def reserve(order: str) -> int:
    return 3

async def charge(order: str, amount: int) -> str:
    return "receipt"

async def ship(order: str) -> str:
    return "on its way"

@workflow
async def pack(ctx: Context, order: str) -> str:
    return "packed"

async def weigh(order: str) -> int:
    return 7

async def packed(ctx: Context, order: str) -> str:
    return await ctx.call(pack, order)

async def sent(ctx: Context, order: str) -> str:
    return await ctx.run(ship, order)

@workflow
async def fulfil(ctx: Context, order: str) -> str:
    amount = await ctx.run(reserve, order)
    receipt = await ctx.run(charge, order, amount)
    await ctx.sleep(1)
    three, four = await asyncio.gather(ctx.run(weigh, order), ctx.run(ship, order))
    one, two = await asyncio.gather(packed(ctx, order), sent(ctx, order))
    if await ctx.promise(bool, "approval"):
        await ctx.run(ship, order)
    return receipt
"""

HELPER: Final = """
async def reserved(ctx: Context, order: str) -> int:
    return await ctx.run(reserve, order)

"""
TRANSACTION: Final = """
@step(name="charge")
async def charge_it(connection: Any, order: str, amount: int) -> str:
    return "receipt"

"""
PACKING: Final = """
@step(name="pack")
async def pack_it(order: str) -> str:
    return "packed"

"""

EDITS: Final[dict[str, list[tuple[str, str]]]] = {
    "what comes after the place where it waits": [
        ("        await ctx.run(ship, order)\n    return", "        await ctx.sleep(5)\n    return")
    ],
    "the body of a step": [('return "receipt"', 'return "another receipt"')],
    "computing, logging, comments, moving lines": [
        ("    await ctx.sleep(1)", "    # a nap\n    print(sum(range(amount)))\n    await ctx.sleep(1)")
    ],
    "moving code into a helper that is awaited": [
        ("    amount = await ctx.run(reserve, order)", "    amount = await reserved(ctx, order)"),
        (
            "@workflow\nasync def fulfil",
            f"{HELPER}@workflow\nasync def fulfil",
        ),
    ],
    "`retry`, `timeout` of a step": [
        (
            "await ctx.run(charge",
            "await ctx.options(retry=Retry(attempts=9), timeout=5).run(charge",
        )
    ],
    "`timeout`, `default`, `title`, `tags` of a promise": [
        ('ctx.promise(bool, "approval")', 'ctx.options(timeout=60, title="Really?").promise(bool, "approval")')
    ],
    "`queue`, `priority`, `timeout` of a child": [
        ("ctx.call(pack", 'ctx.options(queue="packing", timeout=60).call(pack')
    ],
    "a step becomes a transaction, or a plain function": [
        ("ctx.run(charge, order", "ctx.transaction(charge_it, order"),
        (
            "@workflow\nasync def pack",
            f"{TRANSACTION}@workflow\nasync def pack",
        ),
    ],
    "a function is renamed, its recorded name kept": [
        ("async def reserve(", '@step(name="reserve")\nasync def hold('),
        ("ctx.run(reserve,", "ctx.run(hold,"),
    ],
    "a parameter of the workflow with a default": [
        ("def fulfil(ctx: Context, order: str)", "def fulfil(ctx: Context, order: str, gift: bool = False)")
    ],
    "an operation behind `if ctx.patched(...)`": [
        (
            "    await ctx.sleep(1)",
            '    if ctx.patched("insure"):\n        await ctx.sleep(2)\n    await ctx.sleep(1)',
        )
    ],
    "a step, promise, child or sleep is added before that place": [
        ("    await ctx.sleep(1)", "    await ctx.run(ship, order)\n    await ctx.sleep(1)")
    ],
    "one is removed": [("    receipt = await ctx.run(charge, order, amount)", '    receipt = "receipt"')],
    "two change places": [
        (
            "    receipt = await ctx.run(charge, order, amount)\n    await ctx.sleep(1)",
            "    await ctx.sleep(1)\n    receipt = await ctx.run(charge, order, amount)",
        )
    ],
    "a step, child or promise is renamed": [
        ("async def reserve(", "async def hold("),
        ("ctx.run(reserve,", "ctx.run(hold,"),
    ],
    "a step or child gets other arguments": [
        ("ctx.run(charge, order, amount)", "ctx.run(charge, order, amount + 1)")
    ],
    "an argument by position is given by name": [
        ("ctx.run(charge, order, amount)", "ctx.run(charge, order, amount=amount)")
    ],
    "a sleep or timeout gets another duration": [("ctx.sleep(1)", "ctx.sleep(2)")],
    "a timeout is put around an `await`, or taken away": [
        (
            "    receipt = await ctx.run(charge, order, amount)",
            "    async with asyncio.timeout(60):\n        receipt = await ctx.run(charge, order, amount)",
        )
    ],
    "a branch is added to a `gather`, or taken away": [
        ("sent(ctx, order))", "sent(ctx, order), sent(ctx, order))"),
        ("one, two =", "one, two, five ="),
    ],
    "calls in one `gather` change places": [
        ("ctx.run(weigh, order), ctx.run(ship, order)", "ctx.run(ship, order), ctx.run(weigh, order)"),
    ],
    "branches change places": [
        ("packed(ctx, order), sent(ctx, order)", "sent(ctx, order), packed(ctx, order)"),
    ],
    "what was awaited is moved into a task of its own": [
        ("await ctx.run(reserve, order)", "await asyncio.create_task(reserved(ctx, order))"),
        (
            "@workflow\nasync def fulfil",
            f"{HELPER}@workflow\nasync def fulfil",
        ),
    ],
    "a step becomes a child, or a child a step": [("ctx.call(pack, order)", "ctx.run(pack_it, order)"),
        ("@workflow\nasync def pack", f"{PACKING}@workflow\nasync def pack")],
    "a value recorded is of another type now": [
        ("-> int:\n    return 3", "-> list[int]:\n    return [3]"),
        ("charge, order, amount)", "charge, order, amount[0])"),
    ],
    "a parameter of the workflow without a default": [
        ("def fulfil(ctx: Context, order: str)", "def fulfil(ctx: Context, order: str, gift: bool)")
    ],
}  # fmt: skip
"""For each row what is replaced by what in `OLD`."""


def edited(row: str) -> str:
    """The new code of a row."""
    code = OLD
    for old, new in EDITS[row]:
        assert old in code, f"{row}: {old!r} is not there"
        code = code.replace(old, new, 1)
    return code
