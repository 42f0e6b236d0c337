"""One workflow as several deploys have it. The old code is suspended after three steps and a nap; then it is changed.

`HALTS` names for each change that is not safe the operation at which it is found and what stands in the line that is named;
`SAFE` for each that is safe what the workflow ends with, and which steps the new code calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, NamedTuple

from troth import Context, Retry, workflow

CALLS: list[str] = []


async def reserve(item: str) -> str:
    CALLS.append("reserve")
    return f"reserved {item}"


async def charge(item: str, amount: int = 3) -> str:
    CALLS.append("charge")
    return f"charged {amount}"


async def ship(item: str) -> str:
    CALLS.append("ship")
    return f"shipped {item}"


async def bill(item: str, amount: int = 3) -> str:
    CALLS.append("bill")
    return f"billed {amount}"


async def check(item: str) -> str:
    CALLS.append("check")
    return f"checked {item}"


async def order(ctx: Context, item: str) -> list[str]:
    reserved = await ctx.run(reserve, item)
    charged = await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    shipping = ctx.run(ship, item)
    approval = ctx.promise(bool, "approval")
    approved = await approval
    return [reserved, charged, await shipping, str(approved)]


OLD_CALLS = ["reserve", "charge", "ship"]
RESULT = ["reserved book", "charged 3", "shipped book", "True"]

Code = Callable[..., Coroutine[Any, Any, Any]]


class Halt(NamedTuple):
    code: Code
    operation: str
    """Where the difference is found."""
    line: str | None
    """What stands in the line of the code that is named."""


HALTS: dict[str, Halt] = {}


def halts(operation: str, line: str | None) -> Callable[[Code], Code]:
    def note(code: Code) -> Code:
        HALTS[code.__name__] = Halt(code, operation, line)
        return code

    return note


@halts("charge", "await ctx.sleep(0.01)")
async def step_removed(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("charge", "ctx.run(bill, item, amount=3)")
async def step_renamed(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(bill, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("charge", "ctx.run(check, item)")
async def step_inserted_and_awaited(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(check, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("charge", "ctx.run(charge, item, amount=3)")
async def step_inserted_and_not_awaited(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    ctx.run(check, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("reserve", "ctx.run(reserve, item)")
async def step_inserted_before_all(ctx: Context, item: str) -> None:
    checking = ctx.run(check, item)
    await ctx.run(reserve, item)
    await checking


@halts("ship", "ctx.run(ship, item)")
async def step_inserted_beside_what_it_waits_for(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    ctx.run(check, item)
    await ctx.promise(bool, "approval")


@halts("reserve", "ctx.run(charge, item, amount=3)")
async def steps_swapped(ctx: Context, item: str) -> None:
    await ctx.run(charge, item, amount=3)
    await ctx.run(reserve, item)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("reserve", "ctx.run(reserve, item)")
async def step_moved_up_and_not_awaited_there(ctx: Context, item: str) -> None:
    shipping = ctx.run(ship, item)
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    await ctx.promise(bool, "approval")
    await shipping


@halts("ship", 'ctx.promise(bool, "approval")')
async def step_moved_down(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    await ctx.promise(bool, "approval")
    await ctx.run(ship, item)


@halts("charge", "ctx.run(charge, item, amount=4)")
async def arguments_changed(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=4)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("ship", "ctx.run(ship, item)")
async def promise_renamed(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "decision")


@halts("charge", 'ctx.promise(bool, "manager")')
async def promise_inserted_and_awaited(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.promise(bool, "manager")
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("charge", "ctx.run(charge, item, amount=3)")
async def promise_inserted_and_not_awaited(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    ctx.promise(bool, "manager")
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("timer", "await ctx.sleep(0.02)")
async def sleep_longer(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.02)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("timer", "ctx.run(ship, item)")
async def sleep_removed(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    ctx.run(ship, item)
    await ctx.promise(bool, "approval")


@halts("charge", 'ctx.promise(bool, "charge")')
async def step_made_a_promise(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.promise(bool, "charge")


@halts("charge", "ctx.run(charge, item, amount=3)")
async def step_moved_into_a_task(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)

    async def inner() -> None:
        await ctx.run(charge, item, amount=3)

    await asyncio.gather(inner())


@halts("charge", None)
async def ends_early(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)


@halts("charge", None)
async def fails_early(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    raise ValueError("a bug in the new code")


# one branch waits, the other has come on: what it waits for now is recorded, and has no event yet


async def fork_of_the_road(ctx: Context) -> list[str]:
    async def left() -> str:
        return await ctx.promise(str, "left")

    async def right() -> str:
        await ctx.promise(str, "first")
        return await ctx.promise(str, "second")

    return list(await asyncio.gather(left(), right()))


async def fork_with_a_step(ctx: Context) -> list[str]:
    async def left() -> str:
        return await ctx.promise(str, "left")

    async def right() -> str:
        await ctx.promise(str, "first")
        await ctx.run(check, "it")
        return await ctx.promise(str, "second")

    return list(await asyncio.gather(left(), right()))


class Safe(NamedTuple):
    code: Code
    result: Any
    calls: list[str]
    """The steps that the new code calls, beyond those of the old."""


SAFE: dict[str, Safe] = {}


def safe(result: Any, *calls: str) -> Callable[[Code], Code]:
    def note(code: Code) -> Code:
        SAFE[code.__name__] = Safe(code, result, list(calls))
        return code

    return note


@safe(None)
async def step_moved_behind_a_promise_beside_it(ctx: Context, item: str) -> None:
    await ctx.run(reserve, item)
    await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    approval = ctx.promise(bool, "approval")
    ctx.run(ship, item)
    await approval


@safe([*RESULT, "checked book"], "check")
async def step_added_at_the_end(ctx: Context, item: str) -> list[str]:
    return [*await order(ctx, item), await ctx.run(check, item)]


@safe([*RESULT, "checked book", "billed 3"], "check", "bill")
async def branches_added_at_the_end(ctx: Context, item: str) -> list[str]:
    return [*await order(ctx, item), *await asyncio.gather(ctx.run(check, item), ctx.run(bill, item))]


@safe(RESULT)
async def function_renamed_under_the_old_name(ctx: Context, item: str) -> list[str]:
    reserved = await ctx.run(reserve, item)
    charged = await ctx.options(name="charge").run(bill, item, amount=3)
    await ctx.sleep(0.01)
    shipping = ctx.run(ship, item)
    approved = await ctx.promise(bool, "approval")
    return [reserved, charged, await shipping, str(approved)]


@safe(RESULT)
async def retry_and_timeouts_changed(ctx: Context, item: str) -> list[str]:
    reserved = await ctx.options(retry=Retry(attempts=3)).run(reserve, item)
    charged = await ctx.options(timeout=60).run(charge, item, amount=3)
    await ctx.sleep(timedelta(milliseconds=10))
    shipping = ctx.run(ship, item)
    approved = await ctx.options(
        timeout=timedelta(days=7), default=False, title="Approve?", tags={"a": "b"}
    ).promise(bool, "approval")
    return [reserved, charged, await shipping, str(approved)]


@safe(RESULT)
async def arguments_not_compared(ctx: Context, item: str) -> list[str]:
    reserved = await ctx.run(reserve, item)
    charged = await ctx.options(compare=False).run(charge, item, amount=4)
    await asyncio.sleep(0.01)
    shipping = ctx.run(ship, item)
    approved = await ctx.promise(bool, "approval")
    return [reserved, charged, await shipping, str(approved)]


@safe(RESULT)
async def moved_into_a_function(ctx: Context, item: str) -> list[str]:
    async def inner() -> tuple[str, str]:
        reserved = await ctx.run(reserve, item)
        return reserved, await ctx.run(charge, item, amount=3)

    reserved, charged = await inner()
    await ctx.sleep(0.01)
    shipping = ctx.run(ship, item)
    approved = await ctx.promise(bool, "approval")
    return [reserved, charged, await shipping, str(approved)]


@safe([RESULT[0], RESULT[1], "shipped book", "1"])
async def type_of_a_promise_changed(ctx: Context, item: str) -> list[str]:
    reserved = await ctx.run(reserve, item)
    charged = await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    shipping = ctx.run(ship, item)
    approved = await ctx.promise(bool | int, "approval")
    return [reserved, charged, await shipping, str(int(approved))]


@safe(RESULT)
async def patched_before_what_was_done(ctx: Context, item: str) -> list[str]:
    if ctx.patched("check-first"):
        await ctx.run(check, item)
    reserved = await ctx.run(reserve, item)
    if ctx.patched("bill"):
        charged = await ctx.run(bill, item)
    else:
        charged = await ctx.run(charge, item, amount=3)
    await ctx.sleep(0.01)
    shipping = ctx.run(ship, item)
    if ctx.patched("ask-the-manager"):
        await ctx.promise(bool, "manager")
    approved = await ctx.promise(bool, "approval")
    return [reserved, charged, await shipping, str(approved)]


@safe([*RESULT, "checked book"], "check")
async def patched_behind_what_was_done(ctx: Context, item: str) -> list[str]:
    result = await order(ctx, item)
    if ctx.patched("check-last"):
        return [*result, await ctx.run(check, item)]
    return result


def deployed(code: Code, version: int = 1) -> Any:
    """A deploy of this code."""
    return workflow(name="order", version=version)(code)
